/*-------------------------------------------------------------------------
 *
 * barrier.h
 *	  What stands in the way of processes that wait.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/barrier.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_BARRIER_H
#define LOKY_BARRIER_H

#include "nodes/pg_list.h"

#include "pool.h"

/* What a process waits for: it goes on when one of these does. */
typedef struct LokyBarrier
{
	uint64		task;			/* that a caller waits for; 0: something else */
	int			n;
	int		   *processes;		/* their numbers in the look */
} LokyBarrier;

typedef struct LokyProcess
{
	int			pid;
	int			depth;			/* of a caller that waits; -1: it is none */
	List	   *barriers;
	bool		stuck;
	bool		leads;			/* back to us, over closed barriers */
} LokyProcess;

typedef struct LokyLook
{
	int			n;
	int			max;
	LokyProcess *processes;		/* the first one is ourselves */

	/* the next barrier; there is room for all, so that locks can be held */
	int			npids;
	int		   *pids;

	/* of our own wait, of which others see the first few tasks only */
	const uint64 *my_tasks;
	int			my_ntasks;

	/* queues in which the process waits that is looked at; for pending tasks */
	bool	   *queues;
} LokyLook;

extern void loky_barrier_collect(LokyLook *look);

#endif							/* LOKY_BARRIER_H */
