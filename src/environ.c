/*-------------------------------------------------------------------------
 *
 * environ.c
 *	  The process environment of an executor's workers.
 *
 * A worker is a child of the postmaster and has its environment; an executor may
 * lay names and values over it, before the worker connects, so that whatever is
 * loaded or run later finds them.  Some names are as good as the rights of the
 * server's operating system user (LD_PRELOAD for a program that is started,
 * OPENSSL_CONF, GCONV_PATH, PGPASSFILE), so only a superuser may give any; others
 * give those that the setting loky.env_allowed lists.  What the server itself was
 * started with is not theirs to read either: passwords are often among it.
 *
 * In a configuration each name stands as "name\0=value\0", or as "name\0-\0"
 * where it is to be unset, sorted by name.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/environ.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "environ.h"
#include "guc.h"
#include "json_pairs.h"

/* worker: the configuration whose environment this process has */
static const LokyConfig *applied = NULL;

/* Does the pattern, in which * stands for anything, match all of the name? */
static bool
matches(const char *pattern, const char *end, const char *name)
{
	while (pattern < end && *pattern != '*')
	{
		if (*pattern++ != *name++)
			return false;
	}
	if (pattern == end)
		return *name == '\0';
	for (;; name++)
	{
		if (matches(pattern + 1, end, name))
			return true;
		if (*name == '\0')
			return false;
	}
}

/* Does loky.env_allowed list the name? */
static bool
is_allowed(const char *name)
{
	const char *p = loky_env_allowed;

	while (*p != '\0')
	{
		const char *start = p;
		const char *end;

		while (*p != '\0' && *p != ',')
			p++;
		end = p;
		while (start < end && isspace((unsigned char) *start))
			start++;
		while (end > start && isspace((unsigned char) end[-1]))
			end--;
		if (end > start && matches(start, end, name))
			return true;
		if (*p == ',')
			p++;
	}
	return false;
}

/* Raise 22023 for what cannot be a name, 42501 for one that is not allowed. */
static void
check_name(const char *name, bool check_rights)
{
	if (*name == '\0' || strchr(name, '=') != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name of an environment variable: \"%s\"", name),
				 errhint("A name is not empty and holds no \"=\".")));
	if (check_rights && !superuser() && !is_allowed(name))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set environment variable \"%s\"",
						name),
				 errhint("A superuser can list it in the setting loky.env_allowed.")));
}

/* Append the pairs in canonical form. */
static void
append_pairs(StringInfo part, Jsonb *object, const char *what,
			 bool check_rights)
{
	int			n;
	LokyJsonPair *pairs = loky_json_pairs(object, what,
										  "{\"NAME\": \"value\"}",
										  "Each value is a string, a number, true, false or null.",
										  &n);

	for (int i = 0; i < n; i++)
	{
		check_name(pairs[i].name, check_rights);
		appendBinaryStringInfo(part, pairs[i].name, strlen(pairs[i].name) + 1);
		if (pairs[i].value == NULL)
			appendStringInfoString(part, "-");
		else
			appendStringInfo(part, "=%s", pairs[i].value);
		appendStringInfoChar(part, '\0');
	}
}

/*
 * Append what the argument env asks for.  Raises 22023 where it is no object of
 * names and plain values, 42501 for a name that the role may not set.
 */
void
loky_environ_read(Jsonb *object, StringInfo part)
{
	append_pairs(part, object, "argument \"env\"", true);
	if (part->len == 0)
		loky_environ_read_default(part);
}

/* Append what the setting loky.env asks for, which a superuser has made. */
void
loky_environ_read_default(StringInfo part)
{
	if (loky_env == NULL || *loky_env == '\0')
		return;
	append_pairs(part,
				 DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
													CStringGetDatum(loky_env))),
				 "setting \"loky.env\"", false);
}

/*
 * Read the variable at the place of a configuration: *value is what follows its
 * name, "=value" or "-".  Returns the place of the next one.
 */
static const char *
read_variable(const char *place, const char **value)
{
	*value = place + strlen(place) + 1;
	return *value + strlen(*value) + 1;
}

/* Is the name among those that the executor of this worker has laid down? */
static bool
is_applied(const char *name)
{
	Size		len;
	const char *place;
	const char *end;
	const char *value;

	if (applied == NULL)
		return false;
	place = loky_config_part(applied, LOKY_CONFIG_ENV, &len);
	for (end = place + len; place < end; place = read_variable(place, &value))
	{
		if (strcmp(place, name) == 0)
			return true;
	}
	return false;
}

/*
 * Raise 42501 for a variable, which is set, that the present role may not read: it
 * may read those of its executor and those that it may set, and all if it may read
 * the server's files anyway.
 */
void
loky_environ_check_read(const char *name)
{
	if (!is_applied(name) && !is_allowed(name) &&
		!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read environment variable \"%s\"",
						name),
				 errhint("Others than members of pg_read_server_files read those of their executor and of the setting loky.env_allowed.")));
}

/* Lay the executor's environment over that of this process, a worker. */
void
loky_environ_apply(const LokyConfig *config)
{
	Size		len;
	const char *place = loky_config_part(config, LOKY_CONFIG_ENV, &len);
	const char *end = place + len;

	applied = config;
	while (place < end)
	{
		const char *name = place;
		const char *value;

		place = read_variable(place, &value);
		if ((*value == '=' ? setenv(name, value + 1, 1) : unsetenv(name)) != 0)
			ereport(FATAL,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not set environment variable \"%s\": %m",
							name)));
	}
}
