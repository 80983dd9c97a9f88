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
 * Giving back
 * -----------
 * A map, or the task of a run, is cancelled first; then its caller waits until no
 * worker runs any of it, since nothing may keep running behind its back.  A worker
 * that does not answer is let go some seconds after the cancel.  What goes together,
 * with a transaction or subtransaction that fails, is cancelled together too, before
 * the first of it is waited for: so all of it has the same seconds.
 *
 * A session that is told to end, or is about to, waits no longer: nobody gets control
 * back, and what it has cancelled ends without it.  A worker does wait, as its own
 * task may be run again once it has gone, and is not to meet what is left of itself.
 *
 * Interrupts are held from where something is not written down any more until it has
 * been given back: an error in between would leave it in shared memory for good.
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
#include "worker.h"

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
	TimestampTz deadline;		/* cancelled: how long its workers are waited for;
								 * 0: not cancelled */
	bool		let_go;			/* they have not answered until then */
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
unhold(Held *entry)
{
	*entry = held[--nheld];
}

/* The entry of the task of a run, or of a map; NULL: there is none. */
static Held *
find(const LokySharedTask *task, const LokySharedMap *map)
{
	for (int i = 0; i < nheld; i++)
	{
		if (map != NULL ? held[i].map == map : held[i].run && held[i].task == task)
			return &held[i];
	}
	return NULL;
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
	Held	   *entry = find(NULL, map);

	if (entry != NULL)
		entry->offered = true;
}

/* Cancel the task of a run, unless it has ended. */
static void
cancel_task(LokySharedTask *task)
{
	if (LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)))
		return;
	LWLockAcquire(&loky_task_executor(task)->lock, LW_EXCLUSIVE);
	(void) loky_cancel_task(task, true);
}

/* Have no more of the map run, and what runs of it cancelled. */
static void
cancel_map(LokySharedMap *map)
{
	LokySharedExecutor *executor = &loky->executors[map->executor];

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	pg_atomic_write_u32(&map->cancelled, LOKY_MAP_NOT_WANTED);
	loky_queue_remove_map(executor, map);
	for (int i = 0; map->nworkers > 0 && i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->map == map && worker->executor == executor->slot)
			loky_stop_run(worker);
	}
	LWLockRelease(&executor->lock);
}

/* Cancel what workers may run of it, if any, unless that has been done. */
static void
cancel(Held *entry)
{
	if (!(entry->run || entry->offered) || entry->deadline != 0)
		return;
	entry->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  DEAF_WORKER_MS);
	if (entry->run)
		cancel_task(entry->task);
	else
		cancel_map(entry->map);
}

/* How many workers run any of it?  Where some do, they wake us when they are done. */
static int
count_busy(const Held *entry)
{
	LokySharedMap *map = entry->map;
	LokySharedTask *task = entry->task;
	LokySharedExecutor *executor;
	int			n;

	if (map == NULL)
		return !LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)) &&
			loky_client_mark_awaited(task, pg_atomic_read_u64(&task->id)) ? 1 : 0;
	pg_atomic_write_u32(&map->reader_waits, 1);
	executor = &loky->executors[map->executor];
	LWLockAcquire(&executor->lock, LW_SHARED);
	n = map->nworkers;
	LWLockRelease(&executor->lock);
	return n;
}

/* Is this a session that is to end, so that nobody gets control back? */
static bool
is_ending(void)
{
	return (ProcDiePending || proc_exit_inprogress) && LokyMyWorker == NULL;
}

/* So many workers have not answered in time; said once. */
static void
let_go(Held *entry, int nbusy)
{
	if (entry->let_go)
		return;
	entry->let_go = true;
	if (entry->run)
		ereport(LOG,
				(errmsg("the worker of a loky.run() did not answer its cancellation in time")));
	else
		ereport(LOG,
				(errmsg("%d workers of a map did not answer its cancellation in time",
						nbusy)));
}

/*
 * Wait until no worker runs any of what is cancelled, but not for ever.  Interrupts
 * are not served: the caller is clearing up.
 */
static void
await(Held *entry)
{
	LokySharedBackend *backend = &loky->backends[LokyMyProcNumber()];
	bool		latch_was_set = false;
	int			nbusy;

	pg_atomic_write_u32(&backend->waiting, 1);
	while ((nbusy = count_busy(entry)) > 0 && !is_ending())
	{
		long		rest = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														   entry->deadline);

		if (rest <= 0)
		{
			let_go(entry, nbusy);
			break;
		}
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 rest, loky_wait_event(LOKY_WAIT_CANCEL));
		ResetLatch(MyLatch);
		latch_was_set = true;
	}
	pg_atomic_write_u32(&backend->waiting, 0);

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
	Held	   *entry = find(task, NULL);

	Assert(entry != NULL);
	cancel(entry);
	await(entry);
}

/*
 * Have no more of the map run: what runs is cancelled.  Returns once no worker
 * touches the map any more, unless one is deaf.
 */
void
loky_held_stop_map(LokySharedMap *map)
{
	Held	   *entry = find(NULL, map);

	Assert(entry != NULL);
	cancel(entry);
	await(entry);
}

/* Free the task of a run, or leave that to its worker. */
static void
close_task(LokySharedTask *task)
{
	LokySharedExecutor *executor = loky_task_executor(task);

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

/* Free the map, which is withdrawn, or leave that to its last worker. */
static void
close_map(LokySharedMap *map)
{
	LokySharedExecutor *executor = &loky->executors[map->executor];
	bool		wanted;
	bool		last;

	loky_history_map(map);
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

/* Give back what the entry holds; what workers may run of it is cancelled. */
static void
release(Held *entry)
{
	Held		copy;

	HOLD_INTERRUPTS();
	cancel(entry);
	copy = *entry;
	unhold(entry);
	if (copy.run)
	{
		await(&copy);
		close_task(copy.task);
	}
	else if (copy.task != NULL)
		unpin(copy.task);
	else if (copy.offered)
	{
		await(&copy);
		close_map(copy.map);
	}
	else
		loky_map_free(copy.map);
	RESUME_INTERRUPTS();
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
			release(&held[i]);
			return;
		}
	}
}

/* The caller of a run needs its task no more. */
void
loky_held_close_task(LokySharedTask *task)
{
	Held	   *entry = find(task, NULL);

	if (entry != NULL)
		release(entry);
}

/* The caller needs the map no more; what still runs of it is cancelled. */
void
loky_held_close_map(LokySharedMap *map)
{
	Held	   *entry = find(NULL, map);

	if (entry != NULL)
		release(entry);
}

/* Does what has this owner go with the other one?  NULL stands for the process. */
static bool
goes_with(ResourceOwner owner, ResourceOwner other)
{
	if (other == NULL)
		return true;
	while (owner != NULL && owner != other)
		owner = ResourceOwnerGetParent(owner);
	return owner != NULL;
}

/* Cancel all that goes with the owner.  Interrupts are held. */
static void
cancel_all(ResourceOwner owner)
{
	for (int i = 0; i < nheld; i++)
	{
		if (goes_with(held[i].owner, owner))
			cancel(&held[i]);
	}
}

/* Give back what goes with the owner. */
static void
give_back(ResourceOwner owner)
{
	HOLD_INTERRUPTS();
	cancel_all(owner);
	for (int i = nheld - 1; i >= 0; i--)
	{
		if (goes_with(held[i].owner, owner))
			release(&held[i]);
	}
	RESUME_INTERRUPTS();
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

/* A portal, subtransaction or transaction ends, after those within it. */
static void
at_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
		   void *arg)
{
	if (phase == RESOURCE_RELEASE_BEFORE_LOCKS && nheld > 0)
		give_back(CurrentResourceOwner);
}

/*
 * The owners of what fails are released one after the other; all that goes with them
 * is cancelled before.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_ABORT)
		return;
	give_up();
	cancel_all(CurrentResourceOwner);
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	give_up();
	cancel_all(CurrentResourceOwner);
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
