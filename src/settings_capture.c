/*-------------------------------------------------------------------------
 *
 * settings_capture.c
 *	  The settings of a session, taken along with each task.
 *
 * What the submitter's session has from its connection's options, SET and SET
 * LOCAL goes along; what its database, role or server gives it, the worker has
 * anyway.  Submitting thus looks at all that the session has (settings_list.c), but
 * only compares raw values with those of the last time: the text form is made when
 * one differs, and shared by all tasks until then.
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
#include "utils/memutils.h"

#include "area.h"
#include "compat.h"
#include "guc.h"
#include "request.h"
#include "settings.h"
#include "settings_list.h"

/* settings that a task has of its own, or that mean its client */
static const char *const not_taken_along[] = {
	"application_name",
	"client_encoding",
	"exit_on_error",
	"is_superuser",
	"loky.executor",
	"role",
	"seed",
	"session_authorization",
	"transaction_deferrable",
	"transaction_isolation",
	"transaction_read_only"
};

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

/* Does the setting, one of the session's own, go along with what is submitted now? */
static bool
goes_along(const struct config_generic *setting)
{
	return loky_settings_may_be_taken(setting) &&
		!loky_guc_is_others(setting) &&
		(setting->source < PGC_S_CLIENT || loky_settings_are_present(setting));
}

/*
 * With whose rights the value was set: those of a superuser, or of the role that
 * is noted beside it, as a connection's options are.  A value for a library that
 * is not loaded yet is checked only when it is, perhaps as another role.
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
			value = LokyGuc(bool, setting)->variable;
			size = sizeof(bool);
			break;
		case PGC_INT:
			value = LokyGuc(int, setting)->variable;
			size = sizeof(int);
			break;
		case PGC_REAL:
			value = LokyGuc(real, setting)->variable;
			size = sizeof(double);
			break;
		case PGC_ENUM:
			value = LokyGuc(enum, setting)->variable;
			size = sizeof(int);
			break;
		case PGC_STRING:
			value = *LokyGuc(string, setting)->variable;
			size = value ? (int) strlen(value) + 1 : 0;
			break;
	}
	appendBinaryStringInfo(key, setting->name, strlen(setting->name) + 1);
	appendStringInfoChar(key, loky_settings_rights(setting));
	appendBinaryStringInfo(key, (const char *) &setting->srole, sizeof(Oid));
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
			return *LokyGuc(bool, setting)->variable ? "on" : "off";
		case PGC_INT:
			return psprintf("%d", *LokyGuc(int, setting)->variable);
		case PGC_REAL:
			return psprintf("%.*g", DBL_DECIMAL_DIG,
							*LokyGuc(real, setting)->variable);
		case PGC_ENUM:
			return LokyGucEnumName(setting);
		case PGC_STRING:
			if (*LokyGuc(string, setting)->variable != NULL)
				return *LokyGuc(string, setting)->variable;
			break;
	}
	return "";
}

/* Append the setting with its rights, who set it, and its value. */
static void
append_text(StringInfo buf, struct config_generic *setting)
{
	const char *text = loky_settings_text(setting);

	appendBinaryStringInfo(buf, setting->name, strlen(setting->name) + 1);
	appendStringInfo(buf, "%c%0*X", loky_settings_rights(setting),
					 LOKY_SETTINGS_ROLE_DIGITS, setting->srole);
	appendBinaryStringInfo(buf, text, strlen(text) + 1);
}

/* Collect the raw values of what goes along now into new_key. */
static void
collect_key(struct config_generic **own, int n)
{
	if (new_key.data == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&new_key);
		initStringInfo(&last_key);
		MemoryContextSwitchTo(oldcontext);
	}
	resetStringInfo(&new_key);
	for (int i = 0; i < n; i++)
	{
		if (goes_along(own[i]))
			append_raw(&new_key, own[i]);
	}
}

static int
compare_names(const void *a, const void *b)
{
	const struct config_generic *const *left = a;
	const struct config_generic *const *right = b;

	return strcmp((*left)->name, (*right)->name);
}

/*
 * What goes along now as text in shared memory.  The same settings make the same
 * text, in whatever order the session has got them.
 */
static dsa_pointer
create_env(struct config_generic **own, int n)
{
	StringInfoData text;
	dsa_pointer env;

	qsort(own, n, sizeof(*own), compare_names);
	initStringInfo(&text);
	for (int i = 0; i < n; i++)
	{
		if (goes_along(own[i]))
			append_text(&text, own[i]);
	}
	env = loky_env_create(text.data, text.len);
	pfree(text.data);
	return env;
}

/*
 * The present settings of this session in shared memory, with one reference
 * for the caller.
 */
dsa_pointer
loky_settings_capture(void)
{
	int			n;
	struct config_generic **own = loky_settings_list_own(&n);
	dsa_pointer env;
	StringInfoData swap;

	collect_key(own, n);
	if (DsaPointerIsValid(last_env) && new_key.len == last_key.len &&
		memcmp(new_key.data, last_key.data, new_key.len) == 0)
	{
		loky_env_pin(last_env);
		return last_env;
	}

	env = create_env(own, n);
	if (DsaPointerIsValid(last_env))
		loky_env_unpin(last_env);
	last_env = env;
	swap = last_key;
	last_key = new_key;
	new_key = swap;
	loky_env_pin(env);
	return env;
}

/* Give back this session's own reference; called as the process ends. */
void
loky_settings_forget(void)
{
	if (DsaPointerIsValid(last_env))
		loky_env_unpin(last_env);
	last_env = InvalidDsaPointer;
}
