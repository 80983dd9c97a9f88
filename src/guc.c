/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  The settings loky.*: definitions, variables and checks.
 *
 * Those of class postmaster exist only where the library is in
 * shared_preload_libraries: defining one later would be FATAL.  The others
 * are defined in any case, so that a session that merely loaded the library
 * can show them.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/guc.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "postmaster/postmaster.h"
#include "utils/guc.h"

#include "compat.h"
#include "debug_point.h"
#include "guc.h"
#include "settings_list.h"

int			loky_max_tasks = 65536;
int			loky_max_total_workers = 8;
int			loky_shared_memory = 256;
int			loky_trace_size = 4096;

bool		loky_enabled = true;
int			loky_max_tasks_per_role = -1;
int			loky_max_tasks_per_worker = 0;
int			loky_max_workers_per_role = -1;
int			loky_result_ttl = 3600;
int			loky_worker_memory_limit = 0;

char	   *loky_env = NULL;
char	   *loky_env_allowed = NULL;
int			loky_max_depth = 10;
uint64		loky_env_changes = 0;

int			loky_executor_id = 0;
int			loky_log_min_duration = -1;

/* what sessions make; read as loky_guc_max_workers() and loky_guc_timeout() */
static int	max_workers = -1;
static int	timeout = 10000;

/* the text of loky.executor; its number is loky_executor_id */
static char *executor_setting = NULL;

/*
 * Is value an executor's id (a positive integer) or empty?  On success *extra
 * holds the number.
 */
static bool
check_executor(char **newval, void **extra, GucSource source)
{
	int			id = 0;
	int		   *parsed;

	if (*newval != NULL && (*newval)[0] != '\0')
	{
		char	   *end;
		long		number;

		errno = 0;
		number = strtol(*newval, &end, 10);
		if (errno != 0 || *end != '\0' || end == *newval ||
			number < 1 || number > INT_MAX)
		{
			GUC_check_errdetail("The value must be the id of an executor, or empty for the default one.");
			GUC_check_errhint("loky.get_reusable_executor() sets it.");
			return false;
		}
		id = (int) number;
	}

	parsed = (int *) LokyGucMalloc(sizeof(int));
	if (parsed == NULL)
		return false;
	*parsed = id;
	*extra = parsed;
	return true;
}

static void
assign_executor(const char *newval, void *extra)
{
	loky_executor_id = extra != NULL ? *(int *) extra : 0;
}

/* Is the value a JSON object, or empty?  Its members are looked at when used. */
static bool
check_env(char **newval, void **extra, GucSource source)
{
	const char *p = *newval;

	if (p == NULL || *p == '\0')
		return true;
	while (scanner_isspace(*p))
		p++;
	if (*p == '{' &&
		pg_parse_json(LokyMakeJsonLexer(*newval, (int) strlen(*newval)),
					  &nullSemAction) == JSON_SUCCESS)
		return true;
	GUC_check_errdetail("The value must be a JSON object.");
	GUC_check_errhint("For example {\"OMP_NUM_THREADS\": \"1\"}.");
	return false;
}

static void
assign_env(const char *newval, void *extra)
{
	loky_env_changes++;
}

/*
 * A setting of the default executors, which any session may change.  Within a SECURITY
 * DEFINER function its value may be the caller's, and that of the server counts: what
 * the database has, else all roles, else the server's configuration.  A process whose
 * value has been changed keeps none of these itself.
 */
typedef struct ExecutorSetting
{
	struct config_generic *setting;
	GucSource	source;			/* the database or all roles; DEFAULT: neither */
	int			value;			/* ... have this one */
} ExecutorSetting;

static ExecutorSetting max_workers_setting = {.source = PGC_S_DEFAULT};
static ExecutorSetting timeout_setting = {.source = PGC_S_DEFAULT};

/* what the server's configuration has; NULL where loky is not loaded at its start */
static LokySharedDefaults *defaults = NULL;

/*
 * The setting has this good value by the source.  The values of a database and of all
 * roles come as the process connects, also when one of the role's or the connection's
 * is above them.  With these sources nothing is checked that does not take effect.
 */
static void
keep_value(ExecutorSetting *own, int value, GucSource source)
{
	if ((source == PGC_S_GLOBAL || source == PGC_S_DATABASE) &&
		source >= own->source)
	{
		own->source = source;
		own->value = value;
	}
}

/* -1 stands for the number of processors; no workers at all is no executor */
static bool
check_max_workers(int *newval, void **extra, GucSource source)
{
	if (*newval == 0)
	{
		GUC_check_errdetail("An executor needs at least one worker.");
		GUC_check_errhint("Use -1 for the number of processors.");
		return false;
	}
	keep_value(&max_workers_setting, *newval, source);
	return true;
}

static bool
check_timeout(int *newval, void **extra, GucSource source)
{
	keep_value(&timeout_setting, *newval, source);
	return true;
}

/* a role without any worker would wait for ever */
static bool
check_max_workers_per_role(int *newval, void **extra, GucSource source)
{
	if (*newval == 0)
	{
		GUC_check_errdetail("A role needs at least one worker.");
		GUC_check_errhint("Use -1 for no limit; loky.enabled stops all tasks.");
		return false;
	}
	return true;
}

/*
 * Does the setting's value count for the present role?  Within a SECURITY DEFINER
 * function the executors are those of its owner, for whom the caller, whose value it
 * may be, does not decide; the owner's own values and the server's do count.
 */
static bool
counts(const struct config_generic *setting)
{
	return GetUserId() == GetOuterUserId() ||
		setting->source <= PGC_S_DATABASE ||
		(setting->source >= PGC_S_INTERACTIVE && setting->srole == GetUserId());
}

/*
 * The value of the setting that counts for the present role, where the server's
 * configuration has that one.
 */
static int
value_for_role(const ExecutorSetting *own, pg_atomic_uint32 *configured)
{
	if (counts(own->setting))
		return *LokyGuc(int, own->setting)->variable;
	return own->source != PGC_S_DEFAULT ? own->value :
		(int) pg_atomic_read_u32(configured);
}

/* loky.max_workers for the present role. */
int
loky_guc_max_workers(void)
{
	return value_for_role(&max_workers_setting, &defaults->max_workers);
}

/* loky.timeout for the present role. */
int
loky_guc_timeout(void)
{
	return value_for_role(&timeout_setting, &defaults->timeout);
}

/*
 * The server's values lie here in shared memory; first written by the postmaster, in
 * which nothing but the configuration sets values.
 */
void
loky_guc_share(LokySharedDefaults *shared, bool init)
{
	defaults = shared;
	if (init)
	{
		pg_atomic_init_u32(&defaults->max_workers, (uint32) max_workers);
		pg_atomic_init_u32(&defaults->timeout, (uint32) timeout);
	}
}

/* The launcher, which has no values of a role or database either, has reloaded them. */
void
loky_guc_publish(void)
{
	pg_atomic_write_u32(&defaults->max_workers, (uint32) max_workers);
	pg_atomic_write_u32(&defaults->timeout, (uint32) timeout);
}

/*
 * Has the present role chosen a value for loky.max_workers in this session, rather
 * than taken the one of its role, database or server?
 */
bool
loky_guc_max_workers_is_set(void)
{
	const struct config_generic *setting = max_workers_setting.setting;

	return setting->source >= PGC_S_INTERACTIVE && counts(setting);
}

/* Is the setting without meaning for the present role? */
bool
loky_guc_is_others(const struct config_generic *setting)
{
	return (setting == max_workers_setting.setting ||
			setting == timeout_setting.setting) && !counts(setting);
}

static void
define_server_settings(void)
{
	DefineCustomIntVariable("loky.max_tasks",
							"Sets how many futures are kept at a time, done or not.",
							NULL,
							&loky_max_tasks,
							65536,
							16,
							1 << 24,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("loky.max_total_workers",
							"Sets the number of workers of all executors together.",
							NULL,
							&loky_max_total_workers,
							8,
							1,
							MAX_BACKENDS,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("loky.shared_memory",
							"Sets the shared memory for arguments and results.",
							"Results past it go to temporary files.",
							&loky_shared_memory,
							256,
							8,
							1024 * 1024,
							PGC_POSTMASTER,
							GUC_UNIT_MB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("loky.trace_size",
							"Sets how many recent runs of each worker are kept for loky.trace() and the timelines.",
							"0 means none.",
							&loky_trace_size,
							4096,
							0,
							65536,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);
}

static void
define_reload_settings(void)
{
	DefineCustomBoolVariable("loky.enabled",
							 "Accepts and starts tasks.",
							 "While off nothing new is accepted or started; what is pending stays.",
							 &loky_enabled,
							 true,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("loky.max_tasks_per_role",
							"Sets how many unfinished tasks a role may have.",
							"-1 stands for half of loky.max_tasks. Superusers are free.",
							&loky_max_tasks_per_role,
							-1,
							-1,
							INT_MAX,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("loky.max_tasks_per_worker",
							"Sets the number of tasks after which a worker is replaced.",
							"0 means never.",
							&loky_max_tasks_per_worker,
							0,
							0,
							INT_MAX,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("loky.max_workers_per_role",
							"Sets the number of workers of one role at a time.",
							"-1 means no limit. Superusers are free.",
							&loky_max_workers_per_role,
							-1,
							-1,
							MAX_BACKENDS,
							PGC_SIGHUP,
							0,
							check_max_workers_per_role, NULL, NULL);

	DefineCustomIntVariable("loky.result_ttl",
							"Sets how long a finished future is kept.",
							NULL,
							&loky_result_ttl,
							3600,
							0,
							INT_MAX / 1000,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("loky.worker_memory_limit",
							"Sets the memory past which a worker is replaced after a task.",
							"0 means no limit.",
							&loky_worker_memory_limit,
							0,
							0,
							MAX_KILOBYTES,
							PGC_SIGHUP,
							GUC_UNIT_KB,
							NULL, NULL, NULL);
}

/*
 * Define all settings, in alphabetical order within their class.  Called once
 * when the library is loaded.
 */
void
loky_guc_define(void)
{
	if (process_shared_preload_libraries_in_progress)
		define_server_settings();
	define_reload_settings();

	DefineCustomStringVariable("loky.env",
							   "Sets environment variables of workers whose executor names none.",
							   "A JSON object of names and values.",
							   &loky_env,
							   "",
							   PGC_SUSET,
							   0,
							   check_env, assign_env, NULL);

	DefineCustomStringVariable("loky.env_allowed",
							   "Lists the environment variables that others than superusers may set for workers.",
							   "Names, separated by commas; * stands for anything.",
							   &loky_env_allowed,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("loky.executor",
							   "Shows the id of this session's current executor.",
							   "Empty for the default one of the database and role.",
							   &executor_setting,
							   "",
							   PGC_USERSET,
							   0,
							   check_executor, assign_executor, NULL);

	DefineCustomIntVariable("loky.log_min_duration",
							"Sets the run time past which tasks are logged.",
							"-1 means never.",
							&loky_log_min_duration,
							-1,
							-1,
							INT_MAX,
							PGC_SUSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("loky.max_depth",
							"Sets how deep tasks may submit tasks.",
							"0 means no limit.",
							&loky_max_depth,
							10,
							0,
							INT_MAX,
							PGC_SUSET,
							0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("loky.max_workers",
							"Sets the number of workers of an executor that names none.",
							"-1 stands for the number of processors.",
							&max_workers,
							-1,
							-1,
							MAX_BACKENDS,
							PGC_USERSET,
							0,
							check_max_workers, NULL, NULL);

	DefineCustomIntVariable("loky.timeout",
							"Sets the idle time after which a worker leaves.",
							"0 means at once, -1 never.",
							&timeout,
							10000,
							-1,
							INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							check_timeout, NULL, NULL);

	max_workers_setting.setting = loky_compat_find_setting("loky.max_workers");
	timeout_setting.setting = loky_compat_find_setting("loky.timeout");
	loky_settings_list_define();
	loky_debug_point_define();
	MarkGUCPrefixReserved("loky");
}
