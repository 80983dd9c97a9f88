/*-------------------------------------------------------------------------
 *
 * pledge.c
 *	  Tasks that wait for the transaction of this session to commit.
 *
 * A task that is submitted with on_commit has a future at once, and waits at the
 * first of its gates (gate.c).  The session lists it here, with the nesting level
 * of the subtransaction that submitted it.  The commit opens the gate, in the order
 * of the submits; the abort of the transaction, or of the subtransaction, drops the
 * task as if it had never been.
 *
 * When the commit opens the gates nothing may fail any more, so all that could is
 * done shortly before: an executor that was shut down meanwhile is replaced by an
 * equal one.  If that is shut down in turn before the commit is done, it is open
 * again.
 *
 * Two-phase commit is refused: no process would be there to open the gate.
 *
 * A session must not wait for its own commit.  So before it waits for tasks, what
 * they wait for is followed up.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/pledge.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "after.h"
#include "debug_point.h"
#include "executor.h"
#include "pledge.h"
#include "sched.h"

/* How many ids of dropped tasks a session remembers. */
#define MAX_DROPPED		1024

typedef struct Pledge
{
	uint64		id;
	int			level;			/* nesting of the transaction; never falls */
} Pledge;

/* in TopMemoryContext, in the order of the submits */
static Pledge *pledges = NULL;
static int	npledges = 0;
static int	max_pledges = 0;

/* a ring of what was dropped last */
static uint64 *dropped = NULL;
static uint64 ndropped = 0;

/* Make room for one more.  Raises an error where there is no memory. */
void
loky_pledge_reserve(void)
{
	if (dropped == NULL)
		dropped = MemoryContextAlloc(TopMemoryContext,
									 MAX_DROPPED * sizeof(uint64));
	if (npledges < max_pledges)
		return;
	if (pledges == NULL)
		pledges = MemoryContextAlloc(TopMemoryContext, 16 * sizeof(Pledge));
	else
		pledges = repalloc_huge(pledges,
								(Size) max_pledges * 2 * sizeof(Pledge));
	max_pledges = max_pledges == 0 ? 16 : max_pledges * 2;
}

/* The task with this id is queued, and waits for our commit.  Room is reserved. */
void
loky_pledge_add(uint64 id)
{
	Assert(npledges < max_pledges);
	pledges[npledges].id = id;
	pledges[npledges].level = GetCurrentTransactionNestLevel();
	npledges++;
}

/* Was the task with this id dropped, not long ago, by an abort here? */
bool
loky_pledge_was_dropped(uint64 id)
{
	for (uint64 i = 0; i < Min(ndropped, MAX_DROPPED); i++)
	{
		if (dropped[i] == id)
			return true;
	}
	return false;
}

/* Drop what was submitted at this level, or deeper. */
static void
drop_from(int level)
{
	while (npledges > 0 && pledges[npledges - 1].level >= level)
	{
		uint64		id = pledges[--npledges].id;

		dropped[ndropped++ % MAX_DROPPED] = id;
		loky_gate_drop(id);
	}
}

/* See to it that the executors of all tasks can take them. */
static void
prepare(void)
{
	for (int i = 0; i < npledges; i++)
	{
		LokySharedTask *task = loky_task_lookup(pledges[i].id);
		LokySharedExecutor *executor;
		LokyExecutorRef ref;
		int			id;
		bool		open;

		if (task == NULL)
			continue;
		executor = loky_task_executor(task);
		id = executor->id;
		open = executor->state == LOKY_EXECUTOR_OPEN ||
			task->waits != LOKY_WAITS_COMMIT;
		LWLockRelease(&executor->lock);
		if (open)
			continue;

		/*
		 * Its slot, and so the configuration, stays while the task is pledged; that
		 * may be cancelled meanwhile.
		 */
		loky_debug_point("renewing");
		do
			ref = loky_executor_renew(executor, id);
		while (ref.id != 0 &&
			   !loky_gate_move(pledges[i].id, ref.executor, ref.id));
	}
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (npledges == 0)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			prepare();
			loky_debug_point("renewed");
			break;
		case XACT_EVENT_COMMIT:
			for (int i = 0; i < npledges; i++)
				loky_gate_commit(pledges[i].id);
			npledges = 0;
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has submitted tasks with on_commit"),
					 errhint("Submit them once the prepared transaction has committed.")));
			break;
		case XACT_EVENT_ABORT:
			drop_from(0);
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		drop_from(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = npledges - 1; i >= 0 && pledges[i].level >= level; i--)
			pledges[i].level = level - 1;
	}
}

/* Called once in each process that uses loky. */
void
loky_pledge_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* Futures that are still to be followed up, each once. */
typedef struct Trail
{
	HTAB	   *seen;
	uint64	   *ids;
	int			n;
	int			max;
} Trail;

static void
add_to_trail(Trail *trail, uint64 id)
{
	bool		found;

	(void) hash_search(trail->seen, &id, HASH_ENTER, &found);
	if (found)
		return;
	if (trail->n >= trail->max)
	{
		trail->max *= 2;
		trail->ids = repalloc_huge(trail->ids, trail->max * sizeof(uint64));
	}
	trail->ids[trail->n++] = id;
}

/*
 * Does the task wait for our commit?  If it waits for other tasks, these are
 * added to the trail.
 */
static bool
is_ours(Trail *trail, uint64 id)
{
	LokySharedTask *task = loky_task_lookup(id);
	uint64	   *ids = NULL;
	int			n = 0;
	bool		ours;

	if (task == NULL)
		return false;
	ours = task->waits == LOKY_WAITS_COMMIT &&
		task->session == loky_session_id();
	if (task->waits == LOKY_WAITS_AFTER)
		n = task->after->n + 1;
	LWLockRelease(&loky_task_executor(task)->lock);
	if (n == 0)
		return ours;
	ids = MemoryContextAllocHuge(CurrentMemoryContext, n * sizeof(uint64));
	task = loky_task_lookup(id);
	if (task == NULL)
		n = 0;
	else
	{
		n = loky_after_dependencies(task->after, ids);
		LWLockRelease(&loky_task_executor(task)->lock);
	}
	for (int i = 0; i < n; i++)
		add_to_trail(trail, ids[i]);
	pfree(ids);
	return ours;
}

/*
 * Raise 55000 if one of the futures, for which we are about to wait, waits for our
 * own commit, directly or behind others.
 */
void
loky_pledge_check_wait(const int64 *ids, int n)
{
	HASHCTL		info = {0};
	Trail		trail;

	if (npledges == 0)
		return;
	info.keysize = sizeof(uint64);
	info.entrysize = sizeof(uint64);
	info.hcxt = CurrentMemoryContext;
	trail.seen = hash_create("loky pledged futures", 64, &info,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	trail.max = 64;
	trail.n = 0;
	trail.ids = palloc(trail.max * sizeof(uint64));
	for (int i = 0; i < n; i++)
	{
		int			next = 0;

		trail.n = 0;
		add_to_trail(&trail, (uint64) ids[i]);
		while (next < trail.n)
		{
			if (is_ours(&trail, trail.ids[next++]))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("cannot wait for future " INT64_FORMAT " before this transaction commits",
								ids[i]),
						 errdetail("A task submitted with on_commit is queued when the transaction commits."),
						 errhint("Commit first.")));
		}
	}
	hash_destroy(trail.seen);
	pfree(trail.ids);
}
