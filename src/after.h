/*-------------------------------------------------------------------------
 *
 * after.h
 *	  Tasks that wait for other tasks to end.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/after.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_AFTER_H
#define LOKY_AFTER_H

#include "pool.h"
#include "sched.h"

/* From a task to one that waits for its end. */
struct LokySharedEdge
{
	LokySharedEdge *next;		/* of the same task; under its executor's lock */
	LokySharedAfter *after;		/* constant */
	uint64		dependency;		/* constant: the id of the task */
};

/*
 * The callbacks of one future that have not ended, in the order in which they were
 * added.  In the area; freed with its last reference.
 */
struct LokySharedLine
{
	dsa_pointer self;			/* constant */
	pg_atomic_uint32 refs;		/* of the future, and each callback */
	slock_t		mutex;
	dlist_head	callbacks;		/* what these wait for; under the mutex */
};

/* What one task waits for.  In the area; freed with its last reference. */
struct LokySharedAfter
{
	dsa_pointer self;			/* constant */
	pg_atomic_uint32 refs;		/* of the task, each edge, one until armed, its place */
	pg_atomic_uint32 left;		/* tasks to end; one until it is armed; one in the line */
	pg_atomic_uint64 failed;	/* id of one that did not succeed; 0: none */
	uint64		dependant;		/* constant */
	bool		whatever;		/* constant: their outcome does not matter */
	LokySharedLine *line;		/* constant once published: a callback's, or NULL */
	dlist_node	place;			/* in the line; under its mutex */
	LokySharedEdge own;			/* of a callback: from its task, to leave the line */
	int			n;				/* edges; constant once the task is published */
	LokySharedEdge edges[FLEXIBLE_ARRAY_MEMBER];
};

/* the submitter, before the task is published */
extern LokySharedAfter *loky_after_create(uint64 dependant, int max,
										  bool whatever);
extern void loky_after_link(LokySharedAfter *after, LokySharedTask *dependency);
extern void loky_after_fail(LokySharedAfter *after, uint64 dependency);
extern LokySharedLine *loky_after_create_line(void);
extern void loky_after_join_line(LokySharedAfter *after, LokySharedLine *line,
								 LokySharedTask *task);

/* ... and after, or when it will never be; no lock is held */
extern void loky_after_arm(LokySharedAfter *after);
extern void loky_after_drop(LokySharedAfter *after);

extern void loky_after_unref(LokySharedAfter *after);
extern void loky_after_unref_line(LokySharedLine *line);
extern bool loky_after_is_over(LokySharedAfter *after);
extern int	loky_after_dependencies(LokySharedAfter *after, uint64 *ids);

#endif							/* LOKY_AFTER_H */
