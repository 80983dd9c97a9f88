/*-------------------------------------------------------------------------
 *
 * key.h
 *	  Keys of tasks, of which only so many may run at a time.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/key.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_KEY_H
#define LOKY_KEY_H

#include "pool.h"

extern uint64 loky_key_hash(const char *key);
extern Size loky_key_table_size(int max_tasks);
extern void loky_key_init(char *place, int max_tasks, int tranche);

/* the executor's lock is held */
extern bool loky_key_enter(LokySharedExecutor *executor, LokySharedTask *task);
extern void loky_key_leave(LokySharedExecutor *executor, LokySharedTask *task);
extern LokySharedTask *loky_key_admit(LokySharedExecutor *executor,
									  uint64 hash);
extern int	loky_key_count(LokySharedExecutor *executor, uint64 hash);

#endif							/* LOKY_KEY_H */
