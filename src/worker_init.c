/*-------------------------------------------------------------------------
 *
 * worker_init.c
 *	  The initializer: what each new worker runs before its first task.
 *
 * It runs as a task does, in a transaction of its own, but before the worker is at
 * the queue.  What a task may leave behind, the initializer may too; and the
 * settings that it leaves are the executor's from then on.  Names are looked up
 * in the search_path of the session that made the executor.
 *
 * A worker whose initializer fails breaks the executor, since the next worker's
 * would fail as well: what is pending there fails with the cause.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/worker_init.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "codec.h"
#include "dest.h"
#include "run.h"
#include "sched.h"
#include "settings.h"
#include "worker.h"

/* Depth of the initializer: as that of a task which a session has submitted. */
#define INITIALIZER_DEPTH	1

/* A part of the configuration, aligned, in CurrentMemoryContext, zero-ended. */
static char *
copy_part(const LokyConfig *config, LokyConfigPart part, Size *len)
{
	const char *data = loky_config_part(config, part, len);
	char	   *copy = palloc(*len + 1);

	memcpy(copy, data, *len);
	copy[*len] = '\0';
	return copy;
}

/* Run the initializer up to and including its commit. */
static void
run_initializer(const LokyConfig *config, const char *sql)
{
	LokyValues	args = {0};
	LokyPlan   *plan;
	LokyCompletion completion;
	uint64		hash;
	Size		len;
	const char *data = copy_part(config, LOKY_CONFIG_INITARGS, &len);

	loky_worker_begin_transaction(false, InvalidDsaPointer);
	LokyMyWorker->phase = LOKY_PHASE_INITIALIZING;
	if (len > 0)
		loky_codec_decode_values(data, len, &args);
	hash = DatumGetUInt64(hash_any_extended((const unsigned char *) sql,
											(int) strlen(sql), args.n));
	plan = loky_plan_get(sql, hash, args.n, args.types);
	loky_plan_run(plan, &args, loky_dest_null(), &completion);
	CHECK_FOR_INTERRUPTS();
	loky_worker_commit(true);
}

/* The initializer has failed: break the executor. */
static void
break_executor(const ErrorData *cause)
{
	LokySharedExecutor *executor = &loky->executors[LokyMyWorker->executor];
	LokyAftermath after = LOKY_NO_AFTERMATH;
	StringInfoData error;
	char	   *detail = psprintf("%s: %s", unpack_sql_state(cause->sqlerrcode),
								  cause->message);

	if (cause->detail != NULL)
		detail = psprintf("%s\n%s", detail, cause->detail);
	initStringInfo(&error);
	loky_settle_encode_broken(&error, detail, cause->context);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (!LokyMyWorker->kill)
		loky_settle_break(executor, error.data, error.len, &after);
	loky_sched_unlock(executor, &after);
	loky_end_conclude(&after);
	loky_stop_self(LokyMyWorker);
}

/*
 * Run the initializer, if there is one and the worker was not told to end at once
 * before it began.  Does not return where it fails; then the executor is broken.
 */
void
loky_worker_initialize(const LokyConfig *config)
{
	ErrorData  *volatile cause = NULL;
	const char *sql;
	Size		len;

	(void) loky_config_part(config, LOKY_CONFIG_INITIALIZER, &len);
	if (len == 0 || LokyMyWorker->kill)
		return;
	loky_worker_reset_memory();
	sql = copy_part(config, LOKY_CONFIG_INITIALIZER, &len);
	debug_query_string = sql;
	pgstat_report_activity(STATE_RUNNING, sql);
	LokyMyDepth = INITIALIZER_DEPTH;
	loky_settings_use_path(copy_part(config, LOKY_CONFIG_SEARCH_PATH, &len));
	PG_TRY();
	{
		run_initializer(config, sql);
	}
	PG_CATCH();
	{
		cause = loky_worker_abort(LokyTaskContext);
	}
	PG_END_TRY();
	if (cause != NULL)
	{
		break_executor(cause);
		proc_exit(0);
	}
	loky_settings_use_path(NULL);
	LokyMyWorker->phase = LOKY_PHASE_NONE;
	LokyMyDepth = 0;
	debug_query_string = NULL;
	MemoryContextSwitchTo(TopMemoryContext);
}
