/*-------------------------------------------------------------------------
 *
 * api_pool.c
 *	  The SQL functions on executors.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_pool.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api.h"
#include "client.h"
#include "compat.h"
#include "config_read.h"
#include "cpu_count.h"
#include "deadlock.h"
#include "environ.h"
#include "executor.h"
#include "guc.h"
#include "held.h"
#include "reduce.h"
#include "remembered.h"
#include "worker.h"

LOKY_FUNCTION(loky_get_reusable_executor);
LOKY_FUNCTION(loky_shutdown);
LOKY_FUNCTION(loky_cpu_count_sql);
LOKY_FUNCTION(loky_getenv);

/* The arguments of get_reusable_executor. */
enum
{
	ARG_MAX_WORKERS,
	ARG_CONTEXT,
	ARG_TIMEOUT,
	ARG_KILL_WORKERS,
	ARG_REUSE,
	ARG_JOB_REDUCERS,
	ARG_RESULT_REDUCERS,
	ARG_INITIALIZER,
	ARG_INITARGS,
	ARG_ENV,
	ARG_SETTINGS
};

/* An idle timeout in milliseconds; a negative one means never. */
static int
read_timeout(const Interval *interval)
{
	double		ms = ((double) interval->month * DAYS_PER_MONTH +
					  interval->day) * (double) (SECS_PER_DAY * 1000) +
		interval->time / 1000.0;

	if (ms < 0)
		return -1;
	if (ms > INT_MAX)
		return INT_MAX;

	/* less than a millisecond is not "at once" */
	return interval->time > 0 && ms < 1 ? 1 : (int) ms;
}

static LokyReuse
read_reuse(FunctionCallInfo fcinfo)
{
	char	   *reuse = PG_ARGISNULL(ARG_REUSE) ? NULL :
		text_to_cstring(PG_GETARG_TEXT_PP(ARG_REUSE));

	if (reuse != NULL && strcmp(reuse, "auto") == 0)
		return LOKY_REUSE_AUTO;
	if (reuse != NULL && strcmp(reuse, "true") == 0)
		return LOKY_REUSE_TRUE;
	if (reuse != NULL && strcmp(reuse, "false") == 0)
		return LOKY_REUSE_FALSE;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for argument \"reuse\": %s",
					reuse ? quote_literal_cstr(reuse) : "null"),
			 errhint("Valid values are 'auto', 'true' and 'false'.")));
}

/* The number of workers asked for; 0: none was named. */
static int
read_max_workers(FunctionCallInfo fcinfo)
{
	int			n;

	if (PG_ARGISNULL(ARG_MAX_WORKERS))
		return 0;
	n = PG_GETARG_INT32(ARG_MAX_WORKERS);
	if (n < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"max_workers\" must be greater than 0"),
				 errhint("Leave it out for the number in the setting loky.max_workers.")));
	if (n > loky_max_total_workers || n > max_worker_processes)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("executor will not have %d workers at a time", n),
				 errdetail("loky.max_total_workers is %d and max_worker_processes is %d.",
						   loky_max_total_workers, max_worker_processes),
				 errhint("Raise these settings to have more.")));
	return n;
}

/* Refuse contexts other than this server. */
static void
check_context(FunctionCallInfo fcinfo)
{
	char	   *context;

	if (PG_ARGISNULL(ARG_CONTEXT))
		return;
	context = text_to_cstring(PG_GETARG_TEXT_PP(ARG_CONTEXT));
	if (strcmp(context, "bgworker") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"context\": %s",
						quote_literal_cstr(context)),
				 errhint("The only context is 'bgworker'.")));
}

/* The configuration that the arguments describe. */
static LokyConfig *
read_config(FunctionCallInfo fcinfo)
{
	LokyConfigDraft draft;
	LokyValues	initargs;

	check_context(fcinfo);
	loky_config_draft_init(&draft, PG_ARGISNULL(ARG_TIMEOUT) ? loky_guc_timeout() :
						   read_timeout(PG_GETARG_INTERVAL_P(ARG_TIMEOUT)));
	if (!PG_ARGISNULL(ARG_JOB_REDUCERS))
		loky_reduce_read(PG_GETARG_JSONB_P(ARG_JOB_REDUCERS), "job_reducers",
						 &draft.parts[LOKY_CONFIG_JOB_REDUCERS]);
	if (!PG_ARGISNULL(ARG_RESULT_REDUCERS))
		loky_reduce_read(PG_GETARG_JSONB_P(ARG_RESULT_REDUCERS),
						 "result_reducers",
						 &draft.parts[LOKY_CONFIG_RESULT_REDUCERS]);
	loky_api_record(fcinfo, ARG_INITARGS, "initargs", &initargs);
	loky_config_read_initializer(&draft, PG_ARGISNULL(ARG_INITIALIZER) ? NULL :
								 text_to_cstring(PG_GETARG_TEXT_PP(ARG_INITIALIZER)),
								 &initargs);
	if (PG_ARGISNULL(ARG_ENV))
		loky_environ_read_default(&draft.parts[LOKY_CONFIG_ENV]);
	else
		loky_environ_read(PG_GETARG_JSONB_P(ARG_ENV),
						  &draft.parts[LOKY_CONFIG_ENV]);
	if (!PG_ARGISNULL(ARG_SETTINGS))
		loky_config_read_settings(PG_GETARG_JSONB_P(ARG_SETTINGS),
								  &draft.parts[LOKY_CONFIG_SETTINGS]);
	return loky_config_create(&draft);
}

/* Make the executor this session's current one, as SET would. */
static void
set_current(int id)
{
	(void) set_config_option("loky.executor", psprintf("%d", id),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SET, true,
							 ERROR, false);
}

/* get_reusable_executor(...): the executor with this configuration. */
Datum
loky_get_reusable_executor(PG_FUNCTION_ARGS)
{
	LokyConfig *config;
	LokyReuse	reuse;
	LokyExecutorRef *present;
	int			npresent;
	int			nopen;
	LokyExecutorRef previous = {NULL, 0};
	LokyExecutorRef ref;
	int			max_workers;
	int			size;
	bool		kill_workers;

	loky_attach();
	loky_client_check_context();
	max_workers = read_max_workers(fcinfo);
	reuse = read_reuse(fcinfo);
	config = read_config(fcinfo);
	if (PG_ARGISNULL(ARG_KILL_WORKERS))
		loky_api_refuse_null("kill_workers");
	kill_workers = PG_GETARG_BOOL(ARG_KILL_WORKERS);

	size = max_workers > 0 ? max_workers : loky_executor_default_size();
	present = loky_executor_present(&npresent, &nopen);
	if (npresent > 0)
		previous = present[0];
	if (reuse == LOKY_REUSE_TRUE && loky_executor_id != 0)
	{
		int			known_size;
		LokyConfig *known = loky_executor_copy_config(loky_executor_id,
													  &known_size);

		if (known != NULL)
		{
			config = known;
			if (max_workers == 0)
				size = known_size;
		}
	}
	ref = loky_executor_get(config, size, reuse);
	loky_remembered_add(ref.id, config, size);
	if (ref.executor->max_workers != size)
		loky_executor_resize(ref, size);
	if (previous.id != 0 && previous.id != ref.id)
	{
		if (reuse == LOKY_REUSE_FALSE)
			loky_executor_close(previous, kill_workers);
		else if (kill_workers)
		{
			loky_executor_cancel_pending(previous);
			loky_executor_kill_workers(previous);
		}
	}
	if (kill_workers)
		loky_executor_kill_workers(ref);
	set_current(ref.id);
	PG_RETURN_INT32(ref.id);
}

/* Wait until the executor, which was shut down, has come to rest. */
static void
await_rest(LokyExecutorRef ref)
{
	LokyPatience patience = {0};

	loky_client_begin_wait();
	loky_deadlock_await_executor(ref.executor, ref.id);
	for (;;)
	{
		ResetLatch(MyLatch);
		if (loky_executor_at_rest(ref))
			break;
		CHECK_FOR_INTERRUPTS();
		(void) loky_client_sleep(DT_NOEND, ref.executor, &patience);
	}
	loky_client_end_wait();
}

/*
 * shutdown(wait, kill_workers): end the session's current executor, and what is left
 * of earlier ones of its configuration.  Of these, one whose map we read ourselves is
 * not waited for, as it would not end before we read on.
 */
Datum
loky_shutdown(PG_FUNCTION_ARGS)
{
	LokyExecutorRef *refs;
	int			n;
	int			nopen;
	bool		wait;

	loky_attach();
	loky_client_check_context();
	if (PG_ARGISNULL(0))
		loky_api_refuse_null("wait");
	if (PG_ARGISNULL(1))
		loky_api_refuse_null("kill_workers");
	if (LokyMyWorker != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot shut down an executor from inside one of its tasks"),
				 errhint("Call loky.shutdown() from a session.")));
	wait = PG_GETARG_BOOL(0);
	refs = loky_executor_present(&n, &nopen);
	for (int i = 0; i < nopen && wait; i++)
	{
		if (loky_held_has_map(refs[i].executor->slot))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot wait for an executor while a map of it is being read"),
					 errhint("Close the cursor first, or call loky.shutdown(wait => false).")));
	}
	for (int i = 0; i < n; i++)
		loky_executor_close(refs[i], PG_GETARG_BOOL(1));
	for (int i = 0; i < n && wait; i++)
	{
		if (!loky_held_has_map(refs[i].executor->slot))
			await_rest(refs[i]);
	}
	PG_RETURN_VOID();
}

/* cpu_count(only_physical_cores) */
Datum
loky_cpu_count_sql(PG_FUNCTION_ARGS)
{
	loky_attach();
	PG_RETURN_INT32(loky_cpu_count(!PG_ARGISNULL(0) && PG_GETARG_BOOL(0)));
}

/* getenv(name): an environment variable of this process, null where unset. */
Datum
loky_getenv(PG_FUNCTION_ARGS)
{
	const char *name;
	const char *value;

	loky_attach();
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	/* no name has this in it, but getenv() takes "NAME=a" for one of "a=..." */
	if (strchr(name, '=') != NULL)
		PG_RETURN_NULL();
	value = getenv(name);
	if (value == NULL)
		PG_RETURN_NULL();
	loky_environ_check_read(name);
	(void) pg_verifymbstr(value, (int) strlen(value), false);
	PG_RETURN_TEXT_P(cstring_to_text(value));
}
