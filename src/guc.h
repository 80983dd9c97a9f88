/*-------------------------------------------------------------------------
 *
 * guc.h
 *	  The settings loky.*.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/guc.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_GUC_H
#define LOKY_GUC_H

#include "port/atomics.h"

struct config_generic;

/* What the server's configuration has, for all processes. */
typedef struct LokySharedDefaults
{
	pg_atomic_uint32 max_workers;
	pg_atomic_uint32 timeout;
} LokySharedDefaults;

/* server start; constant afterwards */
extern int	loky_max_tasks;
extern int	loky_max_total_workers;
extern int	loky_shared_memory;		/* megabytes */
extern int	loky_trace_size;		/* events of each worker */

/* reload */
extern bool loky_enabled;
extern int	loky_max_tasks_per_role;	/* unfinished; -1: half of max_tasks */
extern int	loky_max_tasks_per_worker;	/* 0: off */
extern int	loky_max_workers_per_role;	/* -1: no limit */
extern int	loky_result_ttl;	/* seconds */
extern int	loky_worker_memory_limit;	/* kilobytes, 0: off */

/* superuser */
extern char *loky_env;			/* a JSON object, or empty */
extern char *loky_env_allowed;	/* patterns, comma-separated */
extern int	loky_log_min_duration;	/* milliseconds, -1: off */
extern int	loky_max_depth;

/* grows whenever loky.env changes in this process */
extern uint64 loky_env_changes;

/* user */
extern int	loky_executor_id;		/* parsed from loky.executor; 0: default */

extern void loky_guc_define(void);
extern void loky_guc_share(LokySharedDefaults *shared, bool init);
extern void loky_guc_publish(void);
extern int	loky_guc_max_workers(void);
extern int	loky_guc_timeout(void); /* milliseconds, -1: never */
extern bool loky_guc_max_workers_is_set(void);
extern bool loky_guc_is_others(const struct config_generic *setting);

#endif							/* LOKY_GUC_H */
