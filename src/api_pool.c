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

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api.h"
#include "client.h"
#include "compat.h"
#include "cpu_count.h"
#include "deadlock.h"
#include "executor.h"
#include "guc.h"
#include "held.h"
#include "settings.h"
#include "worker.h"

LOKY_FUNCTION(loky_get_reusable_executor);
LOKY_FUNCTION(loky_shutdown);
LOKY_FUNCTION(loky_cpu_count_sql);

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

/* A setting of an executor. */
typedef struct Setting
{
	char	   *name;
	char	   *value;
} Setting;

/* The text of a jsonb scalar that is to be a setting's value. */
static char *
setting_value(const char *name, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "on" : "off");
		default:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("setting \"%s\" has no usable value", name),
			 errhint("Each value is a string, a number, or true or false.")));
}

static struct config_generic *
find_setting(const char *name)
{
	int			n;
	struct config_generic **all = loky_compat_guc_variables(&n);

	for (int i = 0; i < n; i++)
	{
		if (pg_strcasecmp(all[i]->name, name) == 0)
			return all[i];
	}
	return NULL;
}

/* A copy of the ASCII text in lower case. */
static char *
lowercase(const char *text)
{
	char	   *copy = pstrdup(text);

	for (char *p = copy; *p != '\0'; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	return copy;
}

/*
 * Raise an error where the role may not set this, and bring name and value into
 * the one form that equal settings share.
 */
static void
check_setting(Setting *setting)
{
	struct config_generic *known;
	int			integer;
	double		real;
	bool		boolean;

	if (!loky_settings_may_install(setting->name))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("setting \"%s\" cannot be given to an executor",
						setting->name),
				 errhint("It belongs to each session or task itself.")));
	(void) set_config_option(setting->name, setting->value,
							 superuser() ? PGC_SUSET : PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SET, false, ERROR,
							 false);
	known = find_setting(setting->name);
	if (known == NULL)
		return;
	setting->name = pstrdup(known->name);
	if (known->vartype == PGC_INT &&
		parse_int(setting->value, &integer, known->flags, NULL))
		setting->value = psprintf("%d", integer);
	else if (known->vartype == PGC_REAL &&
			 parse_real(setting->value, &real, known->flags, NULL))
		setting->value = psprintf("%.17g", real);
	else if (known->vartype == PGC_BOOL &&
			 parse_bool(setting->value, &boolean))
		setting->value = pstrdup(boolean ? "on" : "off");
	else if (known->vartype == PGC_ENUM)
		setting->value = lowercase(setting->value);
}

static int
compare_settings(const void *a, const void *b)
{
	return strcmp(((const Setting *) a)->name, ((const Setting *) b)->name);
}

/* The settings of the jsonb object, checked, appended in canonical form. */
static int
read_settings(Jsonb *object, StringInfo buf)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	Setting    *settings;
	int			n = 0;

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"settings\" must be a JSON object"),
				 errhint("For example '{\"work_mem\": \"64MB\"}'.")));
	settings = palloc(Max(JB_ROOT_COUNT(object), 1) * sizeof(Setting));
	iterator = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			settings[n].name = pnstrdup(value.val.string.val,
										value.val.string.len);
		else if (token == WJB_VALUE)
		{
			settings[n].value = setting_value(settings[n].name, &value);
			check_setting(&settings[n]);
			n++;
		}
	}
	qsort(settings, n, sizeof(Setting), compare_settings);
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && strcmp(settings[i].name, settings[i - 1].name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("setting \"%s\" is given twice", settings[i].name),
					 errhint("Names of settings are not case-sensitive.")));
		appendBinaryStringInfo(buf, settings[i].name,
							   strlen(settings[i].name) + 1);
		appendBinaryStringInfo(buf, settings[i].value,
							   strlen(settings[i].value) + 1);
	}
	return n;
}

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

/* Raise an error for an argument that must wait for a later version. */
static void
refuse_if_given(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (!PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument \"%s\" is not supported yet", name)));
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
read_config(FunctionCallInfo fcinfo, Size *len)
{
	StringInfoData settings;
	int			nsettings = 0;

	check_context(fcinfo);
	refuse_if_given(fcinfo, ARG_JOB_REDUCERS, "job_reducers");
	refuse_if_given(fcinfo, ARG_RESULT_REDUCERS, "result_reducers");
	refuse_if_given(fcinfo, ARG_INITIALIZER, "initializer");
	refuse_if_given(fcinfo, ARG_INITARGS, "initargs");
	refuse_if_given(fcinfo, ARG_ENV, "env");
	initStringInfo(&settings);
	if (!PG_ARGISNULL(ARG_SETTINGS))
		nsettings = read_settings(PG_GETARG_JSONB_P(ARG_SETTINGS), &settings);
	return loky_config_create(PG_ARGISNULL(ARG_TIMEOUT) ? loky_timeout :
							  read_timeout(PG_GETARG_INTERVAL_P(ARG_TIMEOUT)),
							  settings.data, settings.len, nsettings, len);
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
	Size		len = 0;
	LokyReuse	reuse;
	LokyExecutorRef previous;
	LokyExecutorRef ref;
	int			max_workers;
	int			size;
	bool		kill_workers;

	loky_attach();
	loky_client_check_context();
	max_workers = read_max_workers(fcinfo);
	reuse = read_reuse(fcinfo);
	config = read_config(fcinfo, &len);
	if (PG_ARGISNULL(ARG_KILL_WORKERS))
		loky_api_refuse_null("kill_workers");
	kill_workers = PG_GETARG_BOOL(ARG_KILL_WORKERS);

	size = max_workers > 0 ? max_workers : loky_executor_default_size();
	previous = loky_executor_present();
	if (reuse == LOKY_REUSE_TRUE && loky_executor_id != 0)
	{
		Size		known_len;
		int			known_size;
		LokyConfig *known = loky_executor_copy_config(loky_executor_id,
													  &known_len, &known_size);

		if (known != NULL)
		{
			config = known;
			len = known_len;
			if (max_workers == 0)
				size = known_size;
		}
	}
	ref = loky_executor_get(config, len, size, reuse);
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

/* shutdown(wait, kill_workers): end the session's current executor. */
Datum
loky_shutdown(PG_FUNCTION_ARGS)
{
	LokyExecutorRef ref;

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
	ref = loky_executor_present();
	if (ref.id == 0)
		PG_RETURN_VOID();
	if (PG_GETARG_BOOL(0) && loky_held_has_map(ref.executor->slot))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for an executor while a map of it is being read"),
				 errhint("Close the cursor first, or call loky.shutdown(wait => false).")));
	loky_executor_close(ref, PG_GETARG_BOOL(1));
	if (PG_GETARG_BOOL(0))
		await_rest(ref);
	PG_RETURN_VOID();
}

/* cpu_count(only_physical_cores) */
Datum
loky_cpu_count_sql(PG_FUNCTION_ARGS)
{
	loky_attach();
	PG_RETURN_INT32(loky_cpu_count(!PG_ARGISNULL(0) && PG_GETARG_BOOL(0)));
}
