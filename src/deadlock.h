/*-------------------------------------------------------------------------
 *
 * deadlock.h
 *	  Callers that wait for tasks which wait for them.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/deadlock.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_DEADLOCK_H
#define LOKY_DEADLOCK_H

#include "compat.h"
#include "pool.h"

/* What this process waits for, for others to see. */
extern void loky_deadlock_await_tasks(const uint64 *ids, int n, bool first);
extern void loky_deadlock_await_map(LokySharedMap *map);
extern void loky_deadlock_await_executor(LokySharedExecutor *executor, int id);
extern void loky_deadlock_wake_shutdowns(void);
extern void loky_deadlock_await_nothing(void);

extern bool loky_deadlock_awaits(int procno);
extern int	loky_deadlock_look(void);
extern bool loky_deadlock_give_up(void);
extern void loky_deadlock_raise(void) pg_attribute_noreturn();

#endif							/* LOKY_DEADLOCK_H */
