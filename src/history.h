/*-------------------------------------------------------------------------
 *
 * history.h
 *	  Writing down what has been run, for statistics, traces and the log.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/history.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_HISTORY_H
#define LOKY_HISTORY_H

#include "pool.h"
#include "stats.h"

/* A range of items as its worker has run it. */
typedef struct LokyRangeRun
{
	TimestampTz start;
	uint64		us;
	uint64		first;			/* item, from 0 */
	LokyTally	tally;
} LokyRangeRun;

extern void loky_history_task(const LokySharedWorker *worker,
							  LokySharedTask *task, LokyTaskState state,
							  uint64 rows, TimestampTz now, int log_min);
extern void loky_history_items(const LokySharedWorker *worker,
							   const LokyRangeRun *run);
extern void loky_history_log_items(const LokySharedMap *map, uint64 first,
								   uint64 n, uint64 us);
extern void loky_history_map(const LokySharedMap *map);

#endif							/* LOKY_HISTORY_H */
