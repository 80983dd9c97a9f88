/*-------------------------------------------------------------------------
 *
 * held.c
 *	  What a caller holds in shared memory, and giving it back.
 *
 * Pins on finished tasks that are being read, and maps, are written down here
 * with the resource owner that was current, and given back with it, or when the
 * process ends; so a cursor keeps its map as long as it is open, whatever becomes
 * of the subtransactions in which it is read.  So are the tasks of loky.run, which
 * go with their callers.  Tasks that were claimed but not yet queued are given back
 * when any (sub)transaction fails.  No error path needs a handler of its own.
 *
 * Giving back a map, or the task of a run, waits until no worker runs any of it,
 * since nothing may keep running behind its caller's back; a worker that does not
 * answer is let go after some seconds.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/held.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "client.h"
#include "compat.h"
#include "held.h"
#include "history.h"
#include "map.h"
#include "sched.h"
#include "settings.h"
#include "wait.h"

/* A worker deaf to a cancel for so long is let go. */
#define DEAF_WORKER_MS	5000

/* Something in shared memory that this process must give back. */
typedef struct Held
{
	LokySharedTask *task;		/* a pin, or NULL */
	bool		run;			/* the task goes when the pin does */
	LokySharedMap *map;			/* a map, or NULL */
	bool		offered;		/* workers can see the map */
	ResourceOwner owner;		/* with which it goes */
} Held;

static Held *held = NULL;
static int	nheld = 0;
static int	max_held = 0;

/* tasks that were claimed and are not yet queued, linked by next */
static LokySharedTask *claimed = NULL;

/* Make room for one more entry, so that the next one raises no error. */
void
loky_held_reserve(void)
{
	int			n = Max(16, max_held * 2);

	if (nheld < max_held)
		return;
	if (held == NULL)
		held = MemoryContextAlloc(TopMemoryContext, n * sizeof(Held));
	else
		held = repalloc(held, n * sizeof(Held));
	max_held = n;
}

/* Remember something to be given back; never raises an error half way. */
static Held *
hold(void)
{
	Held	   *entry;

	loky_held_reserve();
	entry = &held[nheld++];
	memset(entry, 0, sizeof(*entry));
	entry->owner = CurrentResourceOwner;
	return entry;
}

static void
unhold(int i)
{
	held[i] = held[--nheld];
}

/* One pin less; the last one frees a task that was forgotten meanwhile. */
static void
unpin(LokySharedTask *task)
{
	LokySharedExecutor *executor = loky_task_executor(task);

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	task->pins--;
	if (task->forgotten && task->pins == 0)
		loky_task_free(task);
	else
		LWLockRelease(&executor->lock);
}

/*
 * Keep the finished task until it is unpinned.  The executor's lock is held at
 * the call and released by it.
 */
void
loky_held_pin(LokySharedTask *task)
{
	hold()->task = task;
	task->pins++;
	LWLockRelease(&loky_task_executor(task)->lock);
}

/*
 * The caller has read what it wants of the task, which it has pinned while owner
 * was the current resource owner.
 */
void
loky_held_unpin(LokySharedTask *task, ResourceOwner owner)
{
	for (int i = 0; i < nheld; i++)
	{
		if (held[i].task == task && held[i].owner == owner && !held[i].run)
		{
			unhold(i);
			unpin(task);
			return;
		}
	}
}

/*
 * The task, which its claimer has pinned before it was queued, goes with what
 * waits for it.  Room for it was reserved.
 */
void
loky_held_own_task(LokySharedTask *task)
{
	Held	   *entry = hold();

	entry->task = task;
	entry->run = true;
}

/*
 * Wait until the task, which is cancelled, has ended, but not for ever.  Interrupts
 * are not served: the caller is clearing up.
 */
static void
await_task(LokySharedTask *task, uint64 id)
{
	LokySharedBackend *entry = &loky->backends[LokyMyProcNumber()];
	TimestampTz deadline =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DEAF_WORKER_MS);
	bool		latch_was_set = false;

	pg_atomic_write_u32(&entry->waiting, 1);
	for (;;)
	{
		long		rest;

		ResetLatch(MyLatch);
		if (!loky_client_mark_awaited(task, id))
			break;
		rest = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (rest <= 0)
		{
			ereport(LOG,
					(errmsg("the worker of a loky.run() did not answer its cancellation in time")));
			break;
		}
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 rest, loky_wait_event(LOKY_WAIT_CANCEL));
		latch_was_set = true;
	}
	pg_atomic_write_u32(&entry->waiting, 0);

	/* others may have set the latch for other reasons meanwhile */
	if (latch_was_set)
		SetLatch(MyLatch);
}

/*
 * Cancel the task of a run, which may be running.  Returns once it has ended,
 * unless its worker is deaf.
 */
void
loky_held_stop_task(LokySharedTask *task)
{
	uint64		id = pg_atomic_read_u64(&task->id);

	LWLockAcquire(&loky_task_executor(task)->lock, LW_EXCLUSIVE);
	(void) loky_cancel_task(task, true);
	await_task(task, id);
}

/* Free the task of a run, which is cancelled if it has not ended. */
static void
close_task(LokySharedTask *task)
{
	LokySharedExecutor *executor = loky_task_executor(task);

	if (!LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)))
		loky_held_stop_task(task);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	task->pins--;
	if (LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)))
		loky_task_free(task);
	else
	{
		task->discard = true;
		LWLockRelease(&executor->lock);
	}
}

/* The caller of a run needs its task no more. */
void
loky_held_close_task(LokySharedTask *task)
{
	for (int i = 0; i < nheld; i++)
	{
		if (held[i].task == task && held[i].run)
		{
			unhold(i);
			close_task(task);
			return;
		}
	}
}

/* The map, not yet offered to workers, is to be freed should anything fail. */
void
loky_held_own_map(LokySharedMap *map)
{
	hold()->map = map;
}

/* Workers can see the map now. */
void
loky_held_offered_map(LokySharedMap *map)
{
	for (int i = 0; i < nheld; i++)
	{
		if (held[i].map == map)
			held[i].offered = true;
	}
}

/* Tell each worker of the map to cancel what it runs.  Executor's lock held. */
static void
cancel_workers(LokySharedExecutor *executor, LokySharedMap *map)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->map == map && worker->executor == executor->slot)
			loky_stop_run(worker);
	}
}

/*
 * Wait until no worker touches the map any more, but not for ever.  Interrupts
 * are not served: the caller is clearing up.
 */
static void
await_workers(LokySharedExecutor *executor, LokySharedMap *map)
{
	TimestampTz deadline =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DEAF_WORKER_MS);
	bool		latch_was_set = false;

	pg_atomic_write_u32(&map->reader_waits, 1);
	for (;;)
	{
		long		rest;
		int			nworkers;

		ResetLatch(MyLatch);
		LWLockAcquire(&executor->lock, LW_SHARED);
		nworkers = map->nworkers;
		LWLockRelease(&executor->lock);
		if (nworkers == 0)
			break;
		rest = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (rest <= 0)
		{
			ereport(LOG,
					(errmsg("%d workers of a map did not answer its cancellation in time",
							nworkers)));
			break;
		}
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 rest, loky_wait_event(LOKY_WAIT_CANCEL));
		latch_was_set = true;
	}
	/* others may have set the latch for other reasons meanwhile */
	if (latch_was_set)
		SetLatch(MyLatch);
}

/*
 * Have no more of the map run: what runs is cancelled.  Returns once no worker
 * touches the map any more, unless one is deaf.
 */
void
loky_held_stop_map(LokySharedMap *map)
{
	LokySharedExecutor *executor = &loky->executors[map->executor];
	bool		busy;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	pg_atomic_write_u32(&map->cancelled, LOKY_MAP_NOT_WANTED);
	loky_queue_remove_map(executor, map);
	busy = map->nworkers > 0;
	if (busy)
		cancel_workers(executor, map);
	LWLockRelease(&executor->lock);
	if (busy)
		await_workers(executor, map);
}

/* Withdraw the map and free it, or leave that to its last worker. */
static void
close_map(LokySharedMap *map, bool offered)
{
	LokySharedExecutor *executor;
	bool		wanted;
	bool		last;

	if (!offered)
	{
		loky_map_free(map);
		return;
	}
	loky_held_stop_map(map);
	loky_history_map(map);
	executor = &loky->executors[map->executor];
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	map->closed = true;
	loky_timer_clear(executor, &map->timer);
	dlist_delete(&map->node);
	executor->nmaps--;
	executor->last_used = GetCurrentTimestamp();
	wanted = executor->state == LOKY_EXECUTOR_OPEN;
	last = map->nworkers == 0;
	LWLockRelease(&executor->lock);
	if (last)
		loky_map_free(map);
	if (!wanted)
		loky_wake_launcher();
}

/* The task was claimed, and is to be released should anything fail. */
void
loky_held_claim(LokySharedTask *task)
{
	task->next = claimed;
	claimed = task;
}

/* All tasks that were claimed are queued now. */
void
loky_held_queued(void)
{
	claimed = NULL;
}

/* The caller needs the map no more; what still runs of it is cancelled. */
void
loky_held_close_map(LokySharedMap *map)
{
	for (int i = 0; i < nheld; i++)
	{
		if (held[i].map == map)
		{
			bool		offered = held[i].offered;

			unhold(i);
			close_map(map, offered);
			return;
		}
	}
}

/* Give back what goes with the owner, or all of it where that is NULL. */
static void
give_back(ResourceOwner owner)
{
	for (int i = nheld - 1; i >= 0; i--)
	{
		Held		entry;

		if (i >= nheld || (owner != NULL && held[i].owner != owner))
			continue;
		entry = held[i];
		unhold(i);
		if (entry.run)
			close_task(entry.task);
		else if (entry.task != NULL)
			unpin(entry.task);
		else
			close_map(entry.map, entry.offered);
	}
}

/* What a submit or a wait that failed has left behind. */
static void
give_up(void)
{
	while (claimed != NULL)
	{
		LokySharedTask *task = claimed;

		claimed = task->next;
		loky_task_release(task);
	}
	loky_client_end_wait();
}

/* A portal, subtransaction or transaction ends. */
static void
at_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
		   void *arg)
{
	if (phase == RESOURCE_RELEASE_BEFORE_LOCKS && nheld > 0)
		give_back(CurrentResourceOwner);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		give_up();
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		give_up();
}

static void
at_exit(int code, Datum arg)
{
	LWLockReleaseAll();
	give_up();
	give_back(NULL);
	loky_settings_forget();
}

/* Does this process read a map of the executor in this slot? */
bool
loky_held_has_map(int executor)
{
	for (int i = 0; i < nheld; i++)
	{
		if (held[i].map != NULL && held[i].offered &&
			held[i].map->executor == executor)
			return true;
	}
	return false;
}

/* Called once in each process that uses loky. */
void
loky_held_init(void)
{
	RegisterResourceReleaseCallback(at_release, NULL);
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	before_shmem_exit(at_exit, (Datum) 0);
}
