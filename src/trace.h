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

#define LOKY_TRACE_NAME		64

typedef enum LokyTraceKind
{
	LOKY_TRACE_TASK,			/* one attempt at a task, in a worker */
	LOKY_TRACE_ITEMS,			/* items of a map that follow each other, in a worker */
	LOKY_TRACE_MAP				/* a whole map, in its caller */
} LokyTraceKind;

typedef enum LokyTraceEnd
{
	LOKY_TRACE_SUCCEEDED,
	LOKY_TRACE_FAILED,			/* items: at least one */
	LOKY_TRACE_CANCELLED
} LokyTraceEnd;

/* Something that has ended. */
typedef struct LokyTraceEvent
{
	LokyTraceKind kind;
	LokyTraceEnd end;
	TimestampTz start;
	int64		us;				/* how long it took */
	int			pid;
	int			executor_id;
	Oid			role;
	Oid			database;
	uint64		future;			/* of a task */
	uint64		first;			/* item, from 1 */
	uint64		nitems;
	uint64		nfailed;		/* of these */
	bool		labelled;		/* the name is a label, else the task's text */
	char		name[LOKY_TRACE_NAME];
} LokyTraceEvent;

extern Size loky_trace_size_of_rings(void);
extern void loky_trace_init(void *place);
extern LokyTraceEvent *loky_trace_begin(int worker);
extern void loky_trace_end(int worker);
extern void loky_trace_add_map(const LokyTraceEvent *event);
extern List *loky_trace_copy(TimestampTz *complete_since);

#endif							/* LOKY_TRACE_H */
