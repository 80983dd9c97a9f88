/*-------------------------------------------------------------------------
 *
 * client.c
 *	  The caller's side: submitting, waiting, and what to clear up after it.
 *
 * Any backend can be a caller, a worker that runs a task included.  What a
 * caller holds in shared memory (tasks claimed but not yet queued, pins on
 * finished tasks that it reads, maps) is written down in this file and given
 * back when its subtransaction or transaction ends, or the process does, so that
 * no error path needs a handler of its own.
 *
 * Waiting
 * -------
 * A caller marks the task as awaited by it, looks at the state again, and waits
 * on its latch; who ends the task sets the latch.  Before, it looks for some
 * microseconds without sleeping, as short tasks end that soon.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/client.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sched.h>

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "client.h"
#include "compat.h"
#include "errdata.h"
#include "guc.h"
#include "map.h"
#include "settings.h"
#include "worker.h"

/* How long a caller looks for the end of a task before it sleeps. */
#define SPIN_US			50

/* ... of which so long without offering its core to others. */
#define BARE_SPIN_US	2

/* A caller that has no worker after so long is told why. */
#define STARVED_WARNING_MS	1000

/* A worker deaf to a cancel for so long is let go. */
#define DEAF_WORKER_MS	5000

/* Something in shared memory that this process must give back. */
typedef struct Held
{
	LokySharedTask *task;		/* a pin, or NULL */
	LokySharedMap *map;			/* a map, or NULL */
	bool		offered;		/* workers can see the map */
	SubTransactionId subid;
} Held;

static Held *held = NULL;
static int	nheld = 0;
static int	max_held = 0;

/* tasks that were claimed and are not yet queued, linked by next */
static LokySharedTask *claimed = NULL;

/* this process is marked as one that waits */
static bool in_wait = false;

/* Raise an error where work must not be started: other people's expressions. */
void
loky_client_check_context(void)
{
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot use loky within a security-restricted operation"),
				 errhint("Index expressions, materialized views and the like cannot submit tasks.")));
}

/* Remember something to be given back; never raises an error half way. */
static Held *
hold(void)
{
	Held	   *entry;

	if (nheld >= max_held)
	{
		int			n = Max(16, max_held * 2);

		if (held == NULL)
			held = MemoryContextAlloc(TopMemoryContext, n * sizeof(Held));
		else
			held = repalloc(held, n * sizeof(Held));
		max_held = n;
	}
	entry = &held[nheld++];
	memset(entry, 0, sizeof(*entry));
	entry->subid = GetCurrentSubTransactionId();
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
loky_client_pin(LokySharedTask *task)
{
	hold()->task = task;
	task->pins++;
	LWLockRelease(&loky_task_executor(task)->lock);
}

/* The caller has read what it wants of the pinned task. */
void
loky_client_unpin(LokySharedTask *task)
{
	for (int i = 0; i < nheld; i++)
	{
		if (held[i].task == task)
		{
			unhold(i);
			unpin(task);
			return;
		}
	}
}

/* The map, not yet offered to workers, is to be freed should anything fail. */
void
loky_client_own_map(LokySharedMap *map)
{
	hold()->map = map;
}

/* Workers can see the map now. */
void
loky_client_offered_map(LokySharedMap *map)
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
			loky_sched_cancel_run(worker);
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
						 rest, PG_WAIT_EXTENSION);
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
loky_client_stop_map(LokySharedMap *map)
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

	if (!offered)
	{
		loky_map_free(map);
		return;
	}
	loky_client_stop_map(map);
	executor = &loky->executors[map->executor];
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	map->closed = true;
	dlist_delete(&map->node);
	executor->nmaps--;
	executor->last_used = GetCurrentTimestamp();
	wanted = executor->state == LOKY_EXECUTOR_OPEN;
	if (map->nworkers == 0)
		loky_map_free(map);
	LWLockRelease(&executor->lock);
	if (!wanted)
		loky_wake_launcher();
}

/* The caller needs the map no more; what still runs of it is cancelled. */
void
loky_client_close_map(LokySharedMap *map)
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

/* Give back what is held, all of it or what this subtransaction holds. */
static void
give_back(SubTransactionId subid)
{
	for (int i = nheld - 1; i >= 0; i--)
	{
		Held		entry;

		if (i >= nheld || (subid != InvalidSubTransactionId &&
						   held[i].subid != subid))
			continue;
		entry = held[i];
		unhold(i);
		if (entry.task != NULL)
			unpin(entry.task);
		else
			close_map(entry.map, entry.offered);
	}
	while (claimed != NULL)
	{
		LokySharedTask *task = claimed;

		claimed = task->next;
		loky_task_release(task);
	}
	loky_client_end_wait();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT ||
		event == XACT_EVENT_PREPARE)
		give_back(InvalidSubTransactionId);
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		give_back(subid);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = 0; i < nheld; i++)
		{
			if (held[i].subid == subid)
				held[i].subid = parent;
		}
	}
}

static void
at_exit(int code, Datum arg)
{
	LWLockReleaseAll();
	give_back(InvalidSubTransactionId);
	loky_settings_forget();
}

/* Called once in each process that uses loky. */
void
loky_client_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	before_shmem_exit(at_exit, (Datum) 0);
}

/*
 * The depth of what is submitted here.  Raises LK005 where that is too deep.
 */
int
loky_client_next_depth(void)
{
	int			depth = LokyMyDepth + 1;

	if (loky_max_depth > 0 && depth > loky_max_depth)
		ereport(ERROR,
				(errcode(ERRCODE_LOKY_MAX_DEPTH),
				 errmsg("tasks are nested too deep"),
				 errdetail("A task at depth %d cannot submit another one.",
						   LokyMyDepth),
				 errhint("Raise loky.max_depth.")));
	return depth;
}

/*
 * Claim a task and write its request.  It is linked into claimed, and given
 * back should anything fail before it is queued.
 */
LokySharedTask *
loky_client_prepare(const LokySubmission *submission, LokyExecutorRef ref)
{
	LokySharedTask *task;
	LokyRequest request;

	if (!loky_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("loky accepts no tasks at present"),
				 errhint("The setting loky.enabled is off.")));
	request.depth = loky_client_next_depth();
	task = loky_task_claim(ref.executor);
	task->next = claimed;
	claimed = task;

	task->database = MyDatabaseId;
	task->role = GetUserId();
	task->submitter = MyProcPid;
	task->priority = 0;
	task->session = loky_session_id();

	request.sql = submission->callable->sql;
	request.hash = submission->callable->hash;
	request.task = submission->task;
	request.label = submission->label;
	request.nargs = submission->nargs;
	request.types = submission->types;
	request.values = submission->values;
	request.nulls = submission->nulls;
	request.read_only = XactReadOnly;
	request.env = loky_settings_capture();
	loky_request_write(&task->request, &request);
	return task;
}

/*
 * Queue the tasks that were prepared, all at once.  An executor that has been
 * shut down meanwhile is replaced by an equal one.
 */
void
loky_client_queue(LokySharedTask **tasks, int ntasks, LokyExecutorRef ref)
{
	while (!loky_sched_submit(ref.executor, ref.id, tasks, ntasks))
	{
		ref = loky_executor_resolve(ref.id);
		for (int i = 0; i < ntasks; i++)
			tasks[i]->executor = ref.executor->slot;
	}
	claimed = NULL;
}

/* Does the present role have the rights of this one? */
bool
loky_client_may_use(Oid role)
{
	return role == GetUserId() || has_privs_of_role(GetUserId(), role);
}

static void
raise_unknown(int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("future " INT64_FORMAT " does not exist", id),
			 errhint("It may have been forgotten, or have made room for newer ones.")));
}

/*
 * Find a future that the caller may use, or cancel.  Returns it with the lock of
 * its executor held.  Raises 42704 where there is none in this database, 42501
 * where it belongs to another role.
 */
LokySharedTask *
loky_client_find(int64 id, bool to_cancel)
{
	LokySharedTask *task = loky_task_lookup((uint64) id);
	Oid			role;

	if (task == NULL || task->database != MyDatabaseId)
	{
		if (task != NULL)
			LWLockRelease(&loky_task_executor(task)->lock);
		raise_unknown(id);
	}
	role = task->role;
	if (role == GetUserId())
		return task;

	/* rights need the catalogs, which are not read under a lock of ours */
	LWLockRelease(&loky_task_executor(task)->lock);
	if (!loky_client_may_use(role) &&
		!(to_cancel && !superuser_arg(role) &&
		  has_privs_of_role(GetUserId(), ROLE_PG_SIGNAL_BACKEND)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for future " INT64_FORMAT, id),
				 errhint("It belongs to another role.")));
	task = loky_task_lookup((uint64) id);
	if (task == NULL)
		raise_unknown(id);
	return task;
}

/* When an interval from now will have passed; DT_NOEND for NULL. */
TimestampTz
loky_client_deadline(const Interval *timeout)
{
	TimestampTz now = GetCurrentTimestamp();

	if (timeout == NULL)
		return DT_NOEND;
	return Max(now,
			   DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(now),
													   IntervalPGetDatum(timeout))));
}

/* This process begins to wait for others. */
void
loky_client_begin_wait(void)
{
	if (in_wait)
		return;
	in_wait = true;
	pg_atomic_write_u32(&loky->backends[LokyMyProcNumber()].waiting, 1);
	if (LokyMyWorker != NULL)
		loky_sched_wait(LokyMyWorker, true);
}

/* ... and goes on. */
void
loky_client_end_wait(void)
{
	if (!in_wait)
		return;
	in_wait = false;
	pg_atomic_write_u32(&loky->backends[LokyMyProcNumber()].waiting, 0);
	if (LokyMyWorker != NULL)
		loky_sched_wait(LokyMyWorker, false);
}

/* Warn, once for each wait, that the executor cannot get its first worker. */
static void
warn_starved(LokySharedExecutor *executor, LokyPatience *patience)
{
	bool		starved;

	if (patience->warned || executor == NULL ||
		!TimestampDifferenceExceeds(patience->since, GetCurrentTimestamp(),
									STARVED_WARNING_MS))
		return;
	starved = executor->starved && executor->nworkers == 0;
	patience->since = GetCurrentTimestamp();
	if (!starved)
		return;
	patience->warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("tasks wait because the server has no free slot for a worker"),
			 errhint("Raise max_worker_processes or loky.max_total_workers.")));
}

/*
 * Wait for our latch, until the deadline at the latest.  False where that has
 * passed.  The caller resets the latch before it looks at its condition.
 */
bool
loky_client_sleep(TimestampTz deadline, LokySharedExecutor *executor,
				  LokyPatience *patience)
{
	long		timeout = -1;

	if (!TIMESTAMP_IS_NOEND(deadline))
	{
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												  deadline);
		if (timeout <= 0)
			return false;
	}
	if (patience->since == 0)
		patience->since = GetCurrentTimestamp();
	if (!patience->warned && executor != NULL && executor->nworkers == 0)
		timeout = timeout < 0 ? STARVED_WARNING_MS :
			Min(timeout, STARVED_WARNING_MS);
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
					 (timeout >= 0 ? WL_TIMEOUT : 0),
					 timeout, PG_WAIT_EXTENSION);
	CHECK_FOR_INTERRUPTS();
	warn_starved(executor, patience);
	return true;
}

/* Is the future's task done, or gone? */
static bool
is_settled(LokySharedTask *task, uint64 id)
{
	return LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)) ||
		pg_atomic_read_u64(&task->id) != id;
}

/* Look for a short while whether the task ends, without sleeping. */
static bool
spin(LokySharedTask *task, uint64 id)
{
	instr_time	start;
	instr_time	now;
	double		us;

	INSTR_TIME_SET_CURRENT(start);
	do
	{
		for (int i = 0; i < 20; i++)
		{
			if (is_settled(task, id))
				return true;
			pg_spin_delay();
		}
		if (InterruptPending)
			return false;
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		us = INSTR_TIME_GET_MICROSEC(now);
		if (us > BARE_SPIN_US)
			sched_yield();
	} while (us < SPIN_US);
	return false;
}

/* Have whoever ends the task wake us.  False where it has ended already. */
static bool
mark_awaited(LokySharedTask *task, uint64 id)
{
	LokySharedExecutor *executor = loky_task_executor(task);
	bool		waits;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	waits = !is_settled(task, id);
	if (waits && task->waiter != LokyMyProcNumber())
		task->waiter = task->waiter == LOKY_NO_WAITER ?
			LokyMyProcNumber() : LOKY_MANY_WAITERS;
	LWLockRelease(&executor->lock);
	return waits;
}

/*
 * Wait until the future is done.  False where the deadline passed before.
 * Raises what loky_client_find raises.
 */
bool
loky_client_wait_done(int64 id, TimestampTz deadline)
{
	LokySharedTask *task = loky_client_find(id, false);
	LokySharedExecutor *executor = loky_task_executor(task);
	LokyPatience patience = {0};
	bool		done = true;

	LWLockRelease(&executor->lock);
	if (is_settled(task, id) ||
		(!TIMESTAMP_IS_NOEND(deadline) && deadline <= GetCurrentTimestamp()))
		return is_settled(task, id);
	if (spin(task, id))
		return true;

	loky_client_begin_wait();
	while (done)
	{
		ResetLatch(MyLatch);
		if (!mark_awaited(task, id))
			break;
		CHECK_FOR_INTERRUPTS();
		done = loky_client_sleep(deadline, executor, &patience);
	}
	loky_client_end_wait();
	return is_settled(task, id);
}

/* A future that is waited for together with others. */
typedef struct Awaited
{
	LokySharedTask *task;
	uint64		id;
	bool		marked;
} Awaited;

/*
 * Drop from the list what is done, marking the rest as awaited by us: all of
 * it, or the first one alone where all must be done anyway.  Returns how many
 * are left; *ndone and *failed tell of those that were dropped.
 */
static int
drop_done(Awaited *list, int n, bool all, int *ndone, bool *failed)
{
	int			left = 0;

	for (int i = 0; i < n; i++)
	{
		Awaited		entry = list[i];
		bool		done = is_settled(entry.task, entry.id);

		if (!done && !entry.marked && (!all || left == 0))
		{
			done = !mark_awaited(entry.task, entry.id);
			entry.marked = true;
		}
		if (!done)
		{
			list[left++] = entry;
			continue;
		}
		(*ndone)++;
		if (pg_atomic_read_u64(&entry.task->id) == entry.id &&
			pg_atomic_read_u32(&entry.task->state) == LOKY_TASK_FAILED)
			*failed = true;
	}
	return left;
}

/*
 * Wait until as many of the futures are done as until says, or the deadline has
 * passed.  The futures exist and may be used; one that is forgotten meanwhile
 * counts as done.
 */
void
loky_client_wait_many(const int64 *ids, int n, LokyWaitUntil until,
					  TimestampTz deadline)
{
	Awaited    *list = palloc(Max(n, 1) * sizeof(Awaited));
	LokyPatience patience = {0};
	int			ndone = 0;
	bool		failed = false;

	for (int i = 0; i < n; i++)
	{
		list[i].task = &loky->tasks[(uint64) ids[i] % loky->max_tasks];
		list[i].id = (uint64) ids[i];
		list[i].marked = false;
	}
	loky_client_begin_wait();
	for (;;)
	{
		ResetLatch(MyLatch);
		n = drop_done(list, n, until == LOKY_UNTIL_ALL, &ndone, &failed);
		if (n == 0 || (until == LOKY_UNTIL_FIRST && ndone > 0) ||
			(until == LOKY_UNTIL_EXCEPTION && failed))
			break;
		CHECK_FOR_INTERRUPTS();
		if (!loky_client_sleep(deadline, loky_task_executor(list[0].task),
							   &patience))
			break;
	}
	loky_client_end_wait();
	pfree(list);
}
