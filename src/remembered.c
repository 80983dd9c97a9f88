/*-------------------------------------------------------------------------
 *
 * remembered.c
 *	  The configurations that this session has used.
 *
 * Once an executor is shut down its slot may be wanted for another one, but the
 * session goes on with an equal executor.  So it remembers the configurations that
 * it used last, in memory of its own.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/remembered.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "remembered.h"

typedef struct Remembered
{
	int			id;				/* of the executor; 0: none */
	Oid			role;
	int			max_workers;
	LokyConfig *config;
	uint64		used;			/* grows with each use of any */
} Remembered;

#define MAX_REMEMBERED	32

static Remembered remembered[MAX_REMEMBERED];
static uint64 last_use = 0;

/* What this session remembers of the executor with this id, or NULL. */
static Remembered *
find_remembered(int id)
{
	for (int i = 0; i < MAX_REMEMBERED; i++)
	{
		if (remembered[i].id == id && remembered[i].role == GetUserId())
		{
			remembered[i].used = ++last_use;
			return &remembered[i];
		}
	}
	return NULL;
}

/*
 * Remember the configuration of an executor of the present role: once it is shut
 * down its slot may be wanted, but this session goes on with an equal one.
 */
void
loky_remembered_add(int id, const LokyConfig *config, int max_workers)
{
	Remembered *entry = find_remembered(id);
	MemoryContext oldcontext;
	LokyConfig *copy;

	if (entry != NULL)
	{
		entry->max_workers = max_workers;
		return;
	}
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	copy = loky_config_copy(config);
	MemoryContextSwitchTo(oldcontext);
	entry = &remembered[0];
	for (int i = 1; i < MAX_REMEMBERED; i++)
	{
		if (remembered[i].used < entry->used)
			entry = &remembered[i];
	}
	if (entry->config != NULL)
		pfree(entry->config);
	entry->id = id;
	entry->role = GetUserId();
	entry->max_workers = max_workers;
	entry->config = copy;
	entry->used = ++last_use;
}

/* Does this session remember the executor, as one of the present role? */
bool
loky_remembered_has(int id)
{
	return find_remembered(id) != NULL;
}

/* What it remembers, in CurrentMemoryContext; NULL where it does not. */
LokyConfig *
loky_remembered_copy(int id, int *max_workers)
{
	Remembered *entry = find_remembered(id);

	if (entry == NULL)
		return NULL;
	*max_workers = entry->max_workers;
	return loky_config_copy(entry->config);
}
