/*-------------------------------------------------------------------------
 *
 * config_read.c
 *	  The parts of a configuration out of what a user has written.
 *
 * Everything is checked here, in the session that asks for the executor, and with
 * the rights of its role; then brought into the one form in which equal values
 * have equal bytes.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/config_read.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#include "codec.h"
#include "compat.h"
#include "config_read.h"
#include "json_pairs.h"
#include "resolve.h"
#include "settings.h"

/* A setting of an executor. */
typedef struct Setting
{
	char	   *name;
	char	   *value;
} Setting;

/* A copy of the ASCII text in lower case. */
static char *
lowercase(const char *text)
{
	char	   *copy = pstrdup(text);

	for (char *p = copy; *p != '\0'; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	return copy;
}

/* Raise 42704 for a setting that is not known, 42501 for one that is not free. */
static void
check_name(const char *name, const struct config_generic *known)
{
	if (known == NULL && strchr(name, '.') == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("unrecognized configuration parameter \"%s\"", name),
				 errhint("The view pg_settings lists what there is.")));
	if (!loky_settings_may_install(name) ||
		(known != NULL && known->context != PGC_USERSET &&
		 known->context != PGC_SUSET))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("setting \"%s\" cannot be given to an executor", name),
				 errhint("It belongs to the server, or to each session or task itself.")));
	if (known != NULL && known->context == PGC_SUSET && !superuser() &&
		pg_parameter_aclcheck(name, GetUserId(), ACL_SET) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set parameter \"%s\"", name),
				 errhint("A superuser can grant the right to set it.")));
}

/* Add what to do to the error of a value that is refused. */
static void
hint_callback(void *arg)
{
	errhint("The view pg_settings shows the type, unit and range of each setting.");
}

/* Raise what setting it would; the server's hints on lists of values stay. */
static void
check_value(const Setting *setting, const struct config_generic *known)
{
	ErrorContextCallback callback;

	callback.callback = hint_callback;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	if (known == NULL || known->vartype != PGC_ENUM)
		error_context_stack = &callback;
	(void) set_config_option(setting->name, setting->value,
							 superuser() ? PGC_SUSET : PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SET, false, ERROR,
							 false);
	error_context_stack = callback.previous;
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

	known = loky_compat_find_setting(setting->name);
	check_name(setting->name, known);
	check_value(setting, known);
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

/*
 * Append the settings of the object.  Raises 22023 for what is no object of plain
 * values, 42501 for a setting that the role may not set, and whatever setting one
 * to its value raises.
 */
void
loky_config_read_settings(Jsonb *object, StringInfo part)
{
	const char *values = "Each value is a string, a number, or true or false.";
	int			n;
	LokyJsonPair *pairs = loky_json_pairs(object, "argument \"settings\"",
										  "{\"work_mem\": \"64MB\"}", values,
										  &n);
	Setting    *settings = palloc(Max(n, 1) * sizeof(Setting));

	for (int i = 0; i < n; i++)
	{
		if (pairs[i].value == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("setting \"%s\" has no usable value", pairs[i].name),
					 errhint("%s", values)));
		settings[i].name = pairs[i].name;
		settings[i].value = !pairs[i].is_bool ? pairs[i].value :
			pstrdup(*pairs[i].value == 't' ? "on" : "off");
		check_setting(&settings[i]);
	}
	qsort(settings, n, sizeof(Setting), compare_settings);
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && strcmp(settings[i].name, settings[i - 1].name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("setting \"%s\" is given twice", settings[i].name),
					 errhint("Names of settings are not case-sensitive.")));
		appendBinaryStringInfo(part, settings[i].name,
							   strlen(settings[i].name) + 1);
		appendBinaryStringInfo(part, settings[i].value,
							   strlen(settings[i].value) + 1);
	}
}

/*
 * Put the initializer and its arguments into the draft; task is NULL where there
 * is none.  Its name is looked up now.  Raises what loky_resolve raises.
 */
void
loky_config_read_initializer(LokyConfigDraft *draft, const char *task,
							 const LokyValues *args)
{
	if (args->n > 0)
		loky_codec_encode_values(&draft->parts[LOKY_CONFIG_INITARGS], args->n,
								 args->types, args->values, args->nulls);
	if (task == NULL)
		return;
	appendStringInfoString(&draft->parts[LOKY_CONFIG_INITIALIZER],
						   loky_resolve(task, args->n, args->types)->sql);
	appendStringInfoString(&draft->parts[LOKY_CONFIG_SEARCH_PATH],
						   namespace_search_path);
}
