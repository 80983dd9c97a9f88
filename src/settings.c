/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings of a submitter, in force in a worker.
 *
 * A submitter's settings stay in force until a task with others
 * comes.  Each task runs in a nest level of its own, as a function with a SET
 * clause does, and leaving the level undoes whatever it changed, RESET ALL and
 * DISCARD ALL included, at no cost where it changed nothing.  The level is left as
 * late in the commit as the server ends its own, for deferred triggers and the
 * commit itself go by these settings.  Custom settings that no library has defined
 * are kept, as state of the worker.  A task that
 * commits by itself leaves no nest level behind; then everything is put back
 * by looking at each setting.
 *
 * Another environment comes into force in a transaction of its own.  What is known of
 * it takes the place of what was known before only once that has committed: where it
 * fails, the server puts all settings back to the environment before.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/settings.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "area.h"
#include "compat.h"
#include "debug_point.h"
#include "request.h"
#include "settings.h"
#include "settings_list.h"

/* An environment in a worker, with what it takes. */
typedef struct Environment
{
	MemoryContext memory;		/* of all this; NULL: there is none yet */
	const char *data;			/* settings of the submitter */
	Size		len;
	List	   *hidden;			/* custom settings of the worker's own */
} Environment;

/* worker: the environment in force, and whether nothing else is */
static Environment applied;
static bool applied_known = false;

/* worker: the executor's own settings, which win */
static const LokyConfig *installed = NULL;

/*
 * A custom setting that no library has defined, as a task left it.  If a library
 * that is loaded later defines it, the value counts where that role may set it.
 */
typedef struct KeptSetting
{
	char	   *name;
	char	   *value;
	Oid			role;
} KeptSetting;

/* A setting of a submitter. */
typedef struct GivenSetting
{
	const char *name;
	const char *value;
	bool		by_superuser;
	Oid			role;
} GivenSetting;

/* worker: what the task that is about to commit has left */
static List *kept = NIL;

/* Read the setting at the place; returns the place of the next one. */
static const char *
read_given(const char *place, GivenSetting *setting)
{
	char		digits[LOKY_SETTINGS_ROLE_DIGITS + 1] = "";

	setting->name = place;
	place += strlen(place) + 1;
	setting->by_superuser = *place++ == 's';
	memcpy(digits, place, LOKY_SETTINGS_ROLE_DIGITS);
	setting->role = (Oid) strtoul(digits, NULL, 16);
	setting->value = place + LOKY_SETTINGS_ROLE_DIGITS;
	return setting->value + strlen(setting->value) + 1;
}

/* Is name among the settings of the environment? */
static bool
env_has(const char *data, Size len, const char *name)
{
	const char *place = data;
	GivenSetting setting;

	while (place < data + len)
	{
		place = read_given(place, &setting);
		if (strcmp(setting.name, name) == 0)
			return true;
	}
	return false;
}

/* Is the setting in the environment that is in force here, in a worker? */
static bool
is_applied(const char *name)
{
	return env_has(applied.data, applied.len, name);
}

/*
 * Is the setting one of the task that runs here, if this is a worker?  A custom
 * setting that an earlier task has left is not.
 */
bool
loky_settings_are_present(const struct config_generic *setting)
{
	return installed == NULL || setting->stack != NULL ||
		(setting->flags & GUC_CUSTOM_PLACEHOLDER) == 0 ||
		is_applied(setting->name);
}

/* Is the setting one of the executor's own? */
static bool
is_installed(const char *name)
{
	const char *place;
	Size		len;
	const char *end;

	Assert(installed != NULL);
	place = loky_config_part(installed, LOKY_CONFIG_SETTINGS, &len);
	end = place + len;
	while (place < end)
	{
		if (pg_strcasecmp(place, name) == 0)
			return true;
		place += strlen(place) + 1;
		place += strlen(place) + 1;
	}
	return false;
}

/*
 * Put the executor's settings in force for the life of this worker, as if they
 * had come with its connection: RESET goes back to them.  Raises what setting
 * them raises.
 */
void
loky_settings_install(const LokyConfig *config)
{
	Size		len;
	const char *place = loky_config_part(config, LOKY_CONFIG_SETTINGS, &len);
	const char *end = place + len;

	while (place < end)
	{
		const char *name = place;
		const char *value = name + strlen(name) + 1;

		place = value + strlen(value) + 1;
		(void) set_config_option(name, value,
								 superuser() ? PGC_SUSET : PGC_USERSET,
								 PGC_S_CLIENT, GUC_ACTION_SET, true, ERROR,
								 false);
	}
	installed = config;
}

/* Free the setting, which may be NULL. */
static void
free_kept(KeptSetting *setting)
{
	if (setting == NULL)
		return;
	pfree(setting->name);
	pfree(setting->value);
	pfree(setting);
}

/* The environment hides this custom setting, which the worker itself has. */
static void
hide(Environment *env, const char *name, const char *value, Oid role)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(env->memory);
	KeptSetting *setting = palloc(sizeof(KeptSetting));

	setting->name = pstrdup(name);
	setting->value = pstrdup(value);
	setting->role = role;
	env->hidden = lappend(env->hidden, setting);
	MemoryContextSwitchTo(oldcontext);
}

/* The worker's own custom setting, not hidden any more; NULL: there is none. */
static KeptSetting *
unhide(Environment *env, const char *name)
{
	ListCell   *lc;

	foreach(lc, env->hidden)
	{
		KeptSetting *setting = lfirst(lc);

		if (strcmp(setting->name, name) != 0)
			continue;
		env->hidden = foreach_delete_current(env->hidden, lc);
		return setting;
	}
	return NULL;
}

/*
 * Hide the custom setting of this name, if no library has defined it and it is the
 * worker's own.
 */
static void
hide_own(Environment *env, const char *name)
{
	struct config_generic *own;

	if (strchr(name, '.') == NULL || is_applied(name))
		return;
	own = loky_compat_find_setting(name);
	if (own != NULL && (own->flags & GUC_CUSTOM_PLACEHOLDER) != 0 &&
		own->source == PGC_S_SESSION && *LokyGuc(string, own)->variable != NULL)
		hide(env, name, *LokyGuc(string, own)->variable, own->srole);
}

/* Set a custom setting again that is the worker's own. */
static void
set_own(const KeptSetting *setting)
{
	(void) set_config_option_ext(setting->name, setting->value, PGC_USERSET,
								 PGC_S_SESSION, setting->role, GUC_ACTION_SET,
								 true, WARNING, false);
}

/*
 * Set each setting of the environment, with the rights that it was set with in
 * the submitter's session: a SECURITY DEFINER function's tasks have settings that
 * its caller has made.  One that cannot be set here is left as it is.
 */
static void
apply_all(Environment *env)
{
	const char *place = env->data;
	GivenSetting setting;

	while (place < env->data + env->len)
	{
		place = read_given(place, &setting);
		if (is_installed(setting.name))
			continue;
		hide_own(env, setting.name);
		(void) set_config_option_ext(setting.name, setting.value,
									 setting.by_superuser ? PGC_SUSET : PGC_USERSET,
									 PGC_S_SESSION, setting.role,
									 GUC_ACTION_SET, true, WARNING, false);
	}
}

/* Put back what is in force now and not among the settings of env. */
static void
undo_all(Environment *env)
{
	const char *place = applied.data;
	GivenSetting setting;

	while (place < applied.data + applied.len)
	{
		KeptSetting *own;

		place = read_given(place, &setting);
		if (env_has(env->data, env->len, setting.name) ||
			is_installed(setting.name))
			continue;
		(void) set_config_option(setting.name, NULL, PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SET, true, WARNING, false);
		own = unhide(env, setting.name);
		if (own != NULL)
			set_own(own);
		free_kept(own);
	}
}

/*
 * The environment that is to come into force, hiding what the present one does; it
 * goes with the memory context.
 */
static Environment
create_environment(const LokySharedEnv *shared, MemoryContext context)
{
	Environment env = {0};
	char	   *copy;
	ListCell   *lc;

	env.memory = AllocSetContextCreate(context, "loky environment",
									   ALLOCSET_SMALL_SIZES);
	copy = MemoryContextAlloc(env.memory, shared->len);
	memcpy(copy, shared->data, shared->len);
	env.data = copy;
	env.len = shared->len;
	foreach(lc, applied.hidden)
	{
		const KeptSetting *setting = lfirst(lc);

		hide(&env, setting->name, setting->value, setting->role);
	}
	return env;
}

/*
 * Bring the submitter's settings into force, outside of any transaction: in one
 * of its own, as rights to set them may have to be looked up.  What it takes goes
 * with the context where that fails.
 */
void
loky_settings_apply(dsa_pointer dp, MemoryContext context)
{
	const LokySharedEnv *shared = loky_area_address(dp);
	MemoryContext old = applied.memory;
	Environment env;

	if (applied_known && applied.len == shared->len &&
		memcmp(applied.data, shared->data, shared->len) == 0)
		return;

	applied_known = false;
	StartTransactionCommand();
	env = create_environment(shared, context);
	undo_all(&env);
	apply_all(&env);
	loky_debug_point("applied");
	CommitTransactionCommand();
	MemoryContextSetParent(env.memory, TopMemoryContext);
	applied = env;
	applied_known = true;
	if (old != NULL)
		MemoryContextDelete(old);
}

/* A task begins, in its transaction.  Returns the nest level to end. */
int
loky_settings_begin(void)
{
	kept = NIL;
	return NewGUCNestLevel();
}

/*
 * The value that a commit would make last, or NULL where none would; *role becomes
 * who has set it.
 */
static const char *
committed_value(const struct config_generic *setting, Oid *role)
{
	if (setting->stack == NULL)
		return NULL;
	switch (setting->stack->state)
	{
		case GUC_SET:
			*role = setting->srole;
			return *LokyGuc(string, setting)->variable;
		case GUC_SET_LOCAL:
			*role = setting->stack->masked_srole;
			return setting->stack->masked.val.stringval;
		default:
			return NULL;
	}
}

/*
 * The task is about to commit, and nothing of its own will run any more: note the
 * custom settings that it has changed for good, in CurrentMemoryContext.
 */
void
loky_settings_note_kept(void)
{
	int			n;
	struct config_generic **custom = loky_settings_list_custom(&n);

	kept = NIL;
	for (int i = 0; i < n; i++)
	{
		Oid			role;
		const char *value = committed_value(custom[i], &role);
		KeptSetting *setting;

		if (value == NULL)
			continue;
		setting = palloc(sizeof(KeptSetting));
		setting->name = pstrdup(custom[i]->name);
		setting->value = pstrdup(value);
		setting->role = role;
		kept = lappend(kept, setting);
	}
}

/*
 * The transaction of the task has ended but for its settings: undo what it set.
 * Raises no error, allocates nothing.
 */
void
loky_settings_end(int nest_level)
{
	AtEOXact_GUC(false, nest_level);
}

/*
 * Set the custom settings again that were noted; outside of any transaction.  One
 * that the submitter has too comes to light only when its settings are put back.
 */
void
loky_settings_restore_kept(void)
{
	ListCell   *lc;

	foreach(lc, kept)
	{
		KeptSetting *setting = lfirst(lc);

		if (is_applied(setting->name))
		{
			free_kept(unhide(&applied, setting->name));
			hide(&applied, setting->name, setting->value, setting->role);
		}
		else
			set_own(setting);
	}
	kept = NIL;
}

/*
 * Put back every setting that a task may have left changed by a commit of its
 * own.  Outside of any transaction.
 */
void
loky_settings_put_back(void)
{
	int			n;
	struct config_generic **all = loky_compat_guc_variables(&n);

	for (int i = 0; i < n; i++)
	{
		struct config_generic *setting = all[i];

		if (setting->source != PGC_S_SESSION ||
			(setting->flags & GUC_CUSTOM_PLACEHOLDER) != 0 ||
			(setting->context != PGC_USERSET && setting->context != PGC_SUSET))
			continue;
		(void) set_config_option(setting->name, NULL, PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SET, true, WARNING,
								 false);
	}

	/* custom settings may still be the last submitter's: the next task sees */
	applied_known = false;
}

/*
 * What the initializer has set is from now on the executor's: RESET goes back to
 * it.  Outside of any transaction.  The search_path is each task's own.
 */
void
loky_settings_adopt(void)
{
	int			n;
	struct config_generic **all = loky_compat_guc_variables(&n);

	StartTransactionCommand();
	for (int i = 0; i < n; i++)
	{
		struct config_generic *setting = all[i];

		if (setting->source != PGC_S_SESSION || !loky_settings_may_be_taken(setting) ||
			(setting->flags & GUC_CUSTOM_PLACEHOLDER) != 0 ||
			strcmp(setting->name, "search_path") == 0)
			continue;
		(void) set_config_option_ext(setting->name, loky_settings_text(setting),
									 loky_settings_rights(setting) == 's' ?
									 PGC_SUSET : PGC_USERSET, PGC_S_CLIENT,
									 setting->srole, GUC_ACTION_SET, true,
									 WARNING, false);
	}
	CommitTransactionCommand();
}

/* Look names up in this path, unless the executor has one; NULL: as before. */
void
loky_settings_use_path(const char *path)
{
	if (!is_installed("search_path"))
		(void) set_config_option("search_path", path, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SET, true, WARNING,
								 false);
}
