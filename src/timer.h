/*-------------------------------------------------------------------------
 *
 * timer.h
 *	  What is to be looked at again at a certain time.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/timer.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_TIMER_H
#define LOKY_TIMER_H

#include "datatype/timestamp.h"
#include "lib/pairingheap.h"

typedef struct LokySharedTask LokySharedTask;
typedef struct LokySharedMap LokySharedMap;
typedef struct LokySharedExecutor LokySharedExecutor;

/*
 * Part of the task or map that it belongs to.  Guarded by the lock of its
 * executor.
 */
typedef struct LokySharedTimer
{
	pairingheap_node node;
	bool		set;
	TimestampTz due;
	LokySharedTask *task;		/* or NULL */
	LokySharedMap *map;			/* or NULL */
} LokySharedTimer;

/* the executor's lock is held */
extern void loky_timer_init(LokySharedExecutor *executor);
extern void loky_timer_set(LokySharedExecutor *executor,
						   LokySharedTimer *timer, TimestampTz due);
extern void loky_timer_clear(LokySharedExecutor *executor,
							 LokySharedTimer *timer);
extern LokySharedTimer *loky_timer_take(LokySharedExecutor *executor,
										TimestampTz now);

/* no lock is needed */
extern TimestampTz loky_timer_next(const LokySharedExecutor *executor);

#endif							/* LOKY_TIMER_H */
