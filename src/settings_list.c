/*-------------------------------------------------------------------------
 *
 * settings_list.c
 *	  The settings that need a look, out of all that the server has.
 *
 * Submitting a task, and ending one in a worker, is a matter of microseconds, in
 * which some four hundred settings cannot be looked at with care.
 *
 * Until 15 the server has an array of all settings, in which a setting keeps its
 * place for a while: it is enough to remember those places that matter.  A setting
 * that no library has defined can leave the array, and others come, so the length
 * tells nothing; each place is looked at whether it still holds its setting.
 *
 * From 16 on it has a hash table, and giving out its contents, which it sorts, takes
 * longer than a task.  But it links the settings that have not their default, and
 * those that the transaction has changed.  The heads of these two lists are the
 * server's own.  They are found by the way of a setting that nobody else can set: the
 * server appends what leaves its default to the one list, so that the head follows
 * it, and puts what is changed in front of the other, so that all that has been
 * changed before follows it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/settings_list.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "settings_list.h"

/* what was found at the last call, in an array that grows as needed */
static struct config_generic **found = NULL;
static int	nfound = 0;
static int	nroom = 0;

static void
add_found(struct config_generic *setting)
{
	if (nfound == nroom)
	{
		int			room = Max(64, 2 * nroom);

		if (found == NULL)
			found = MemoryContextAlloc(TopMemoryContext, room * sizeof(*found));
		else
			found = repalloc(found, room * sizeof(*found));
		nroom = room;
	}
	found[nfound++] = setting;
}

#ifdef LOKY_SETTINGS_ARE_LINKED

#define MARK "loky.mark"

/* the setting that nobody else can set, and its value */
static struct config_generic *mark = NULL;
static bool mark_value = false;

/* head of the list of the settings that have not their default */
static const dlist_node *changed_head = NULL;

static struct config_generic *search_path = NULL;

static void
set_mark(GucSource source, GucAction action)
{
	(void) set_config_option(MARK, "on", PGC_INTERNAL, source, action, true,
							 ERROR, false);
}

/*
 * Define the setting that marks places in the server's lists; called once when the
 * library is loaded.
 */
void
loky_settings_list_define(void)
{
	DefineCustomBoolVariable(MARK,
							 "Marks the ends of lists of settings.",
							 NULL,
							 &mark_value,
							 false,
							 PGC_INTERNAL,
							 GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE |
							 GUC_DISALLOW_IN_FILE,
							 NULL, NULL, NULL);
	mark = loky_compat_find_setting(MARK);
	search_path = loky_compat_find_setting("search_path");
	set_mark(PGC_S_OVERRIDE, GUC_ACTION_SET);
	changed_head = mark->nondef_link.next;
}

/*
 * The settings that this session has of its own, by its connection or since, and
 * search_path; good until the next call of a function here.
 */
struct config_generic **
loky_settings_list_own(int *n)
{
	nfound = 0;
	if (search_path->source < PGC_S_CLIENT)
		add_found(search_path);
	for (const dlist_node *node = changed_head->next; node != changed_head;
		 node = node->next)
	{
		struct config_generic *setting =
			dlist_container(struct config_generic, nondef_link,
							unconstify(dlist_node *, node));

		if (setting->source >= PGC_S_CLIENT)
			add_found(setting);
	}
	*n = nfound;
	return found;
}

/*
 * The custom settings of no library that this transaction has changed; good until
 * the next call of a function here.
 */
struct config_generic **
loky_settings_list_custom(int *n)
{
	Assert(mark->stack == NULL);
	set_mark(PGC_S_SESSION, GUC_ACTION_SAVE);
	nfound = 0;
	for (const slist_node *node = mark->stack_link.next; node != NULL;
		 node = node->next)
	{
		struct config_generic *setting =
			slist_container(struct config_generic, stack_link,
							unconstify(slist_node *, node));

		if ((setting->flags & GUC_CUSTOM_PLACEHOLDER) != 0)
			add_found(setting);
	}
	*n = nfound;
	return found;
}

#else

/* A setting that a session can set, and its place in the server's array. */
typedef struct Place
{
	int			index;
	struct config_generic *setting;
} Place;

static Place *settable = NULL;
static int	nsettable = 0;

/* those of them that no library has defined */
static struct config_generic **placeholders = NULL;
static int	nplaceholders = 0;

/* length of the array when the above were made */
static int	nknown = 0;

/* There is nothing to define where the server has an array. */
void
loky_settings_list_define(void)
{
}

/*
 * Does the array of n settings have what it had?  If all that a session can set are
 * where they were, so are the others, which never leave the array.
 */
static bool
places_hold(struct config_generic **all, int n)
{
	if (n != nknown)
		return false;
	for (int i = 0; i < nsettable; i++)
	{
		if (all[settable[i].index] != settable[i].setting)
			return false;
	}
	return true;
}

/* Find out the places of the array of n settings that matter, unless they are known. */
static void
find_places(struct config_generic **all, int n)
{
	if (places_hold(all, n))
		return;
	if (settable != NULL)
	{
		pfree(settable);
		pfree(placeholders);
	}
	settable = MemoryContextAlloc(TopMemoryContext, n * sizeof(Place));
	placeholders = MemoryContextAlloc(TopMemoryContext, n * sizeof(*placeholders));
	nsettable = 0;
	nplaceholders = 0;
	for (int i = 0; i < n; i++)
	{
		/* what is no more than a placeholder may become anything */
		if (all[i]->context == PGC_USERSET || all[i]->context == PGC_SUSET)
		{
			settable[nsettable].index = i;
			settable[nsettable++].setting = all[i];
		}
		if ((all[i]->flags & GUC_CUSTOM_PLACEHOLDER) != 0)
			placeholders[nplaceholders++] = all[i];
	}
	nknown = n;
}

/*
 * The settings that this session has of its own, by its connection or since, and
 * search_path; good until the next call of a function here.
 */
struct config_generic **
loky_settings_list_own(int *n)
{
	struct config_generic **all = loky_compat_guc_variables(n);

	find_places(all, *n);
	nfound = 0;
	for (int i = 0; i < nsettable; i++)
	{
		struct config_generic *setting = settable[i].setting;

		if (setting->source >= PGC_S_CLIENT ||
			(setting->name[0] == 's' && setting->name[2] == 'a' &&
			 strcmp(setting->name, "search_path") == 0))
			add_found(setting);
	}
	*n = nfound;
	return found;
}

/*
 * The custom settings of no library, those that this transaction has changed among
 * them; good until the next call of a function here.
 */
struct config_generic **
loky_settings_list_custom(int *n)
{
	struct config_generic **all = loky_compat_guc_variables(n);

	find_places(all, *n);
	nfound = 0;
	for (int i = 0; i < nplaceholders; i++)
	{
		/* a library's may have come to lie in its memory, and in its place */
		if ((placeholders[i]->flags & GUC_CUSTOM_PLACEHOLDER) != 0)
			add_found(placeholders[i]);
	}
	*n = nfound;
	return found;
}

#endif							/* LOKY_SETTINGS_ARE_LINKED */
