/*-------------------------------------------------------------------------
 *
 * settings_capture.c
 *	  The settings of a session, taken along with each task.
 *
 * What the submitter's session has from its connection's options, SET and SET
 * LOCAL goes along; what its database, role or server gives it, the worker has
 * anyway.  Submitting thus looks at every setting that can go along, but only
 * compares raw values with those of the last time: the text form is made when one
 * differs, and shared by all tasks until then.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/settings_capture.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <float.h>

#include "lib/stringinfo.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"

#include "area.h"
#include "compat.h"
#include "request.h"
#include "settings.h"

/* settings that a task has of its own, or that mean its client */
static const char *const not_taken_along[] = {
	"application_name",
	"client_encoding",
	"is_superuser",
	"loky.executor",
	"role",
	"seed",
	"session_authorization",
	"transaction_deferrable",
	"transaction_isolation",
	"transaction_read_only"
};

/* Those that can go along at all, by their numbers in the server's list. */
static int *candidates = NULL;
static int	ncandidates = 0;
static int	nknown = 0;			/* length of the list, which only grows */

/* submitter: raw values at the last submit, their text form, shared */
static StringInfoData last_key;
static StringInfoData new_key;
static dsa_pointer last_env = InvalidDsaPointer;

/* Can the setting go along with a task at all? */
bool
loky_settings_may_be_taken(const struct config_generic *setting)
{
	if (setting->context != PGC_USERSET && setting->context != PGC_SUSET)
		return false;
	for (int i = 0; i < lengthof(not_taken_along); i++)
	{
		if (strcmp(setting->name, not_taken_along[i]) == 0)
			return false;
	}
	return true;
}

/* Is the setting one that an executor may have? */
bool
loky_settings_may_install(const char *name)
{
	for (int i = 0; i < lengthof(not_taken_along); i++)
	{
		if (pg_strcasecmp(name, not_taken_along[i]) == 0)
			return false;
	}
	return true;
}

/* Find out which settings of the list can go along. */
static void
find_candidates(struct config_generic **all, int n)
{
	if (n == nknown)
		return;
	nknown = 0;
	if (candidates != NULL)
		pfree(candidates);
	candidates = MemoryContextAlloc(TopMemoryContext, n * sizeof(int));
	ncandidates = 0;
	for (int i = 0; i < n; i++)
	{
		/* what is no more than a placeholder may become anything */
		if (loky_settings_may_be_taken(all[i]))
			candidates[ncandidates++] = i;
	}
	nknown = n;
}

/* Does the setting go along with what is submitted now? */
static bool
goes_along(const struct config_generic *setting)
{
	if (setting->source >= PGC_S_CLIENT)
		return (setting->context == PGC_USERSET || setting->context == PGC_SUSET) &&
			loky_settings_are_present(setting);
	return setting->name[0] == 's' && setting->name[2] == 'a' &&
		strcmp(setting->name, "search_path") == 0;
}

/*
 * With whose rights the value was set: those of a superuser, or anybody's, as
 * those of a connection's options are.  A value for a library that is not loaded
 * yet is checked only when it is.
 */
char
loky_settings_rights(const struct config_generic *setting)
{
	return setting->scontext == PGC_USERSET ||
		setting->scontext == PGC_BACKEND ? 'u' : 's';
}

/* Append the setting's raw value, for comparing. */
static void
append_raw(StringInfo key, const struct config_generic *setting)
{
	const void *value = NULL;
	int			size = 0;

	switch (setting->vartype)
	{
		case PGC_BOOL:
			value = ((const struct config_bool *) setting)->variable;
			size = sizeof(bool);
			break;
		case PGC_INT:
			value = ((const struct config_int *) setting)->variable;
			size = sizeof(int);
			break;
		case PGC_REAL:
			value = ((const struct config_real *) setting)->variable;
			size = sizeof(double);
			break;
		case PGC_ENUM:
			value = ((const struct config_enum *) setting)->variable;
			size = sizeof(int);
			break;
		case PGC_STRING:
			value = *((const struct config_string *) setting)->variable;
			size = value ? (int) strlen(value) + 1 : 0;
			break;
	}
	appendBinaryStringInfo(key, setting->name, strlen(setting->name) + 1);
	appendStringInfoChar(key, loky_settings_rights(setting));
	if (size > 0)
		appendBinaryStringInfo(key, value, size);
}

/* The setting's value as text that the same setting reads back exactly. */
const char *
loky_settings_text(struct config_generic *setting)
{
	switch (setting->vartype)
	{
		case PGC_BOOL:
			return *((struct config_bool *) setting)->variable ? "on" : "off";
		case PGC_INT:
			return psprintf("%d", *((struct config_int *) setting)->variable);
		case PGC_REAL:
			return psprintf("%.*g", DBL_DECIMAL_DIG,
							*((struct config_real *) setting)->variable);
		case PGC_ENUM:
			{
				struct config_enum *conf = (struct config_enum *) setting;

				return config_enum_lookup_by_value(conf, *conf->variable);
			}
		case PGC_STRING:
			{
				struct config_string *conf = (struct config_string *) setting;

				return *conf->variable != NULL ? *conf->variable : "";
			}
	}
	return "";
}

/* Append the setting with its rights and its value. */
static void
append_text(StringInfo buf, struct config_generic *setting)
{
	const char *text = loky_settings_text(setting);

	appendBinaryStringInfo(buf, setting->name, strlen(setting->name) + 1);
	appendStringInfoChar(buf, loky_settings_rights(setting));
	appendBinaryStringInfo(buf, text, strlen(text) + 1);
}

/* Collect the raw values of what goes along now into new_key. */
static void
collect_key(void)
{
	int			n;
	struct config_generic **all = loky_compat_guc_variables(&n);

	if (new_key.data == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&new_key);
		initStringInfo(&last_key);
		MemoryContextSwitchTo(oldcontext);
	}
	resetStringInfo(&new_key);
	find_candidates(all, n);
	for (int i = 0; i < ncandidates; i++)
	{
		struct config_generic *setting = all[candidates[i]];

		if (goes_along(setting))
			append_raw(&new_key, setting);
	}
}

/*
 * The present settings of this session in shared memory, with one reference
 * for the caller.
 */
dsa_pointer
loky_settings_capture(void)
{
	StringInfoData text;
	dsa_pointer env;
	StringInfoData swap;
	int			n;
	struct config_generic **all;

	collect_key();
	if (DsaPointerIsValid(last_env) && new_key.len == last_key.len &&
		memcmp(new_key.data, last_key.data, new_key.len) == 0)
	{
		loky_env_pin(last_env);
		return last_env;
	}

	initStringInfo(&text);
	all = loky_compat_guc_variables(&n);
	for (int i = 0; i < ncandidates; i++)
	{
		if (goes_along(all[candidates[i]]))
			append_text(&text, all[candidates[i]]);
	}
	env = loky_env_create(text.data, text.len);
	pfree(text.data);
	if (DsaPointerIsValid(last_env))
		loky_env_unpin(last_env);
	last_env = env;
	swap = last_key;
	last_key = new_key;
	new_key = swap;
	loky_env_pin(env);
	return env;
}

/*
 * Bytes that change whenever a setting of this session does; good until the
 * next call of a function here.  The caller has just captured the settings.
 */
const char *
loky_settings_key(Size *len)
{
	*len = last_key.len;
	return last_key.data;
}

/* Give back this session's own reference; called as the process ends. */
void
loky_settings_forget(void)
{
	if (DsaPointerIsValid(last_env))
		loky_env_unpin(last_env);
	last_env = InvalidDsaPointer;
}
