/*-------------------------------------------------------------------------
 *
 * history.h
 *	  Writing down what has been run, for statistics and traces.
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

#include "map.h"
#include "pool.h"

extern void loky_history_task(const LokySharedWorker *worker,
							  LokySharedTask *task, LokyTaskState state,
							  uint64 rows, TimestampTz now);
extern void loky_history_begin_range(LokySharedPart *part);
extern void loky_history_end_range(const LokySharedWorker *worker,
								   LokySharedPart *part, uint64 us);
extern void loky_history_map(LokySharedMap *map);
extern List *loky_history_running(List *events, Oid database);

#endif							/* LOKY_HISTORY_H */
