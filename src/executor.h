/*-------------------------------------------------------------------------
 *
 * executor.h
 *	  The reusable executor: configurations, and who has which.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/executor.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_EXECUTOR_H
#define LOKY_EXECUTOR_H

#include "compat.h"
#include "config.h"
#include "pool.h"

/* An executor as a session refers to it. */
typedef struct LokyExecutorRef
{
	LokySharedExecutor *executor;
	int			id;
} LokyExecutorRef;

/* how a call treats the executor that is there (reuse) */
typedef enum LokyReuse
{
	LOKY_REUSE_AUTO,
	LOKY_REUSE_TRUE,
	LOKY_REUSE_FALSE
} LokyReuse;

/* by id; 0: the session's current one */
extern LokyExecutorRef loky_executor_renew(LokySharedExecutor *source,
										   int id);
extern LokyExecutorRef loky_executor_resolve(int id);
extern void loky_executor_raise_unknown(int id) pg_attribute_noreturn();
extern LokyExecutorRef loky_executor_get(const LokyConfig *config,
										 int max_workers, LokyReuse reuse);
extern LokyConfig *loky_executor_copy_config(int id, int *max_workers);
extern LokyExecutorRef *loky_executor_present(int *n, int *nopen);
extern int	loky_executor_own(void);
extern void loky_executor_resize(LokyExecutorRef ref, int max_workers);
extern bool loky_executor_is_unused(LokySharedExecutor *executor);
extern bool loky_executor_is_free(LokySharedExecutor *executor);
extern void loky_executor_empty_slot(LokySharedExecutor *executor);
extern int	loky_executor_default_size(void);

/* executor_end.c */
extern void loky_executor_close(LokyExecutorRef ref, bool kill_workers);
extern void loky_executor_abandon(LokySharedExecutor *executor, Oid database);
extern void loky_executor_cancel_pending(LokyExecutorRef ref);
extern void loky_executor_kill_workers(LokyExecutorRef ref);
extern bool loky_executor_is_drained(LokySharedExecutor *executor);
extern bool loky_executor_at_rest(LokyExecutorRef ref);
extern void loky_executor_collect(void);

#endif							/* LOKY_EXECUTOR_H */
