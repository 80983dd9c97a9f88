/*-------------------------------------------------------------------------
 *
 * trace.h
 *	  The most recent runs, one by one.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/trace.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_TRACE_H
#define LOKY_TRACE_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "pool.h"

#define LOKY_TRACE_NAME		64

typedef enum LokyTraceKind
{
	LOKY_TRACE_TASK,			/* one attempt at a task, in a worker */
	LOKY_TRACE_ITEMS,			/* items of a map, in a worker */
	LOKY_TRACE_MAP				/* a whole map, in its caller */
} LokyTraceKind;

typedef enum LokyTraceEnd
{
	LOKY_TRACE_SUCCEEDED,
	LOKY_TRACE_FAILED,			/* items: at least one */
	LOKY_TRACE_CANCELLED,
	LOKY_TRACE_RUNNING			/* never in a ring */
} LokyTraceEnd;

/*
 * Something that has been run, or still is.  Two cache lines.  The name may end in
 * the middle of a character, and what is left of it behind its end is undefined.
 */
typedef struct LokyTraceEvent
{
	uint32		changes;		/* odd while it changes, 0: never used */
	uint8		kind;			/* LokyTraceKind */
	uint8		end;			/* LokyTraceEnd */
	bool		labelled;		/* the name is a label, else the task's text */
	bool		oldest;			/* copies: what the worker ran before is lost */
	int			pid;
	int			executor_id;
	Oid			role;
	Oid			database;
	TimestampTz start;
	int64		us;				/* how long it took */
	uint64		first;			/* item, from 1; of a task: its future */
	uint64		last;			/* item; there may be others between them */
	uint32		nitems;
	uint32		nfailed;		/* of these */
	char		name[LOKY_TRACE_NAME];
} LokyTraceEvent;

extern Size loky_trace_shmem_size(void);
extern void loky_trace_init(LokySharedTrace *trace);
extern LokyTraceEvent *loky_trace_begin(int worker);
extern void loky_trace_begin_change(LokyTraceEvent *event);
extern void loky_trace_end_change(LokyTraceEvent *event);
extern void loky_trace_add_map(const LokyTraceEvent *event);
extern List *loky_trace_copy(List *events);

#endif							/* LOKY_TRACE_H */
