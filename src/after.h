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

/* What one task waits for.  In the area; freed with its last reference. */
struct LokySharedAfter
{
	dsa_pointer self;			/* constant */
	pg_atomic_uint32 refs;		/* of the task, each linked edge, and one until armed */
	pg_atomic_uint32 left;		/* tasks to end; and one until it is armed */
	pg_atomic_uint64 failed;	/* id of one that did not succeed; 0: none */
	uint64		dependant;		/* constant */
	bool		whatever;		/* constant: their outcome does not matter */
	int			n;				/* edges; constant once the task is published */
	LokySharedEdge edges[FLEXIBLE_ARRAY_MEMBER];
};

/* the submitter, before the task is published */
extern LokySharedAfter *loky_after_create(uint64 dependant, int max,
										  bool whatever);
extern void loky_after_link(LokySharedAfter *after, LokySharedTask *dependency);
extern void loky_after_fail(LokySharedAfter *after, uint64 dependency);

/* ... and after; no lock is held */
extern void loky_after_arm(LokySharedAfter *after);

extern void loky_after_unref(LokySharedAfter *after);
extern bool loky_after_is_over(LokySharedAfter *after);

#endif							/* LOKY_AFTER_H */
