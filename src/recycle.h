/*-------------------------------------------------------------------------
 *
 * recycle.h
 *	  When a worker is replaced by a new one.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/recycle.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_RECYCLE_H
#define LOKY_RECYCLE_H

#include "pool.h"

extern uint64 loky_recycle_tasks_left(const LokySharedWorker *worker,
									  uint64 uncounted);
extern bool loky_recycle_is_heavy(Size excused);
extern void loky_recycle_check(LokySharedWorker *worker);

#endif							/* LOKY_RECYCLE_H */
