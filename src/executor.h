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

#include "lib/stringinfo.h"

#include "pool.h"

/*
 * What two executors are compared by, in one canonical form: equal
 * configurations have equal bytes.
 */
typedef struct LokyConfig
{
	int			timeout;		/* ms, -1: never */
	int			nsettings;		/* "name\0value\0" each, sorted by name */
	char		settings[FLEXIBLE_ARRAY_MEMBER];
} LokyConfig;

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

extern LokyConfig *loky_config_create(int timeout, const char *settings,
									  Size settings_len, int nsettings,
									  Size *len);

/* by id; 0: the session's current one */
extern LokyExecutorRef loky_executor_resolve(int id);
extern LokyExecutorRef loky_executor_get(const LokyConfig *config, Size len,
										 int max_workers, LokyReuse reuse);
extern LokyConfig *loky_executor_copy_config(int id, Size *len,
											 int *max_workers);
extern LokyExecutorRef loky_executor_present(void);
extern int	loky_executor_own(void);
extern void loky_executor_resize(LokyExecutorRef ref, int max_workers);
extern void loky_executor_close(LokyExecutorRef ref, bool kill_workers);
extern void loky_executor_cancel_pending(LokyExecutorRef ref);
extern void loky_executor_kill_workers(LokyExecutorRef ref);
extern bool loky_executor_at_rest(LokyExecutorRef ref);
extern void loky_executor_collect(void);
extern int	loky_executor_default_size(void);

#endif							/* LOKY_EXECUTOR_H */
