/*-------------------------------------------------------------------------
 *
 * client.c
 *	  The caller's side: finding futures, and waiting for them.
 *
 * Any backend can be a caller, a worker that runs a task included.  What it
 * holds in shared memory is given back by held.c.
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

#include "access/parallel.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "client.h"
#include "compat.h"
#include "deadlock.h"
#include "errdata.h"
#include "guc.h"
#include "pledge.h"
#include "sched.h"
#include "spin.h"
#include "wait.h"
#include "worker.h"

/* A caller that has no worker after so long is told why. */
#define STARVED_WARNING_MS	1000

/* Looks running that must find all processes taken. */
#define STUCK_LOOKS		2

/* so many years from now are still a timestamp */
#define YEARS_AHEAD		290000
#define YEARS_BACK		4000

/* this process is marked as one that waits */
static bool in_wait = false;

/*
 * Raise an error in a worker of a parallel plan.  Its transaction tells of no commit to
 * come, so no work is started there.  It does not know what the leader's has pledged,
 * nor is it the one that holds the leader's locks, so a wait that cannot end would not
 * be noticed.
 */
void
loky_client_check_parallel(void)
{
	if (IsParallelWorker())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot use loky in a worker of a parallel plan"),
				 errhint("Declare the functions that call it PARALLEL UNSAFE.")));
}

/*
 * Raise an error where work must not be started: in other people's expressions, and in
 * workers of parallel plans.
 */
void
loky_client_check_context(void)
{
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot use loky within a security-restricted operation"),
				 errhint("Index expressions, materialized views and the like cannot submit tasks.")));
	loky_client_check_parallel();
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
			 errhint("It may have been forgotten, submitted with discard, rolled back with its on_commit transaction, or removed past loky.result_ttl or loky.max_tasks. "
					 "Read results sooner, or raise these settings.")));
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
				 errhint("A member of the role that submitted it, or a superuser, may use it.")));
	task = loky_task_lookup((uint64) id);
	if (task == NULL)
		raise_unknown(id);
	return task;
}

/*
 * The time that lies an interval after now: DT_NOEND or DT_NOBEGIN where that is
 * about as far as timestamps go, or further.
 */
TimestampTz
loky_client_time_after(TimestampTz now, const Interval *interval)
{
	double		years = interval->month / (double) MONTHS_PER_YEAR +
		interval->day / DAYS_PER_YEAR +
		interval->time / (DAYS_PER_YEAR * (double) USECS_PER_DAY);

	if (years > YEARS_AHEAD)
		return DT_NOEND;
	if (years < -YEARS_BACK)
		return DT_NOBEGIN;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(now),
												   IntervalPGetDatum(interval)));
}

/* When an interval from now will have passed; DT_NOEND for NULL. */
TimestampTz
loky_client_deadline(const Interval *timeout)
{
	TimestampTz now;

	if (timeout == NULL)
		return DT_NOEND;
	now = GetCurrentTimestamp();
	return Max(now, loky_client_time_after(now, timeout));
}

/* This process begins to wait for others.  Raises 25000 in a parallel plan's worker. */
void
loky_client_begin_wait(void)
{
	loky_client_check_parallel();
	if (in_wait)
		return;
	in_wait = true;
	pg_atomic_write_u32(&loky->backends[LokyMyProcNumber()].waiting, 1);
	if (LokyMyWorker != NULL)
		loky_sched_wait(LokyMyWorker, true, LokyMyDepth);
}

/* ... and goes on. */
void
loky_client_end_wait(void)
{
	if (!in_wait)
		return;
	in_wait = false;
	pg_atomic_write_u32(&loky->backends[LokyMyProcNumber()].waiting, 0);
	loky_deadlock_await_nothing();
	if (LokyMyWorker != NULL)
		loky_sched_wait(LokyMyWorker, false, 0);
}

/* Warn, once for each wait, that the executor cannot get its first worker. */
static void
warn_starved(LokySharedExecutor *executor, LokyPatience *patience)
{
	LokyShortage shortage = LOKY_SHORTAGE_NONE;
	TimestampTz since = patience->since;

	if (patience->warned || executor == NULL ||
		!TimestampDifferenceExceeds(since, GetCurrentTimestamp(),
									STARVED_WARNING_MS))
		return;
	LWLockAcquire(&executor->lock, LW_SHARED);
	if (executor->nworkers == 0)
	{
		shortage = executor->starved;
		since = executor->starved_since;
	}
	LWLockRelease(&executor->lock);

	/* where workers come and go, as executors take turns, there is none to warn of */
	if (shortage == LOKY_SHORTAGE_NONE ||
		!TimestampDifferenceExceeds(since, GetCurrentTimestamp(),
									STARVED_WARNING_MS))
		return;
	patience->warned = true;
	if (shortage == LOKY_SHORTAGE_ROLE)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("tasks wait because their role has as many workers as it may"),
				 errhint("Raise loky.max_workers_per_role.")));
	else
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("tasks wait because the server has no free slot for a worker"),
				 errhint("Raise max_worker_processes or loky.max_total_workers.")));
}

/*
 * Have nested tasks taken all processes, or all that the role may hold, each waiting
 * for one of its own, so that none can run what we wait for?  Only the innermost
 * says so.
 */
static bool
is_stuck(LokySharedExecutor *executor)
{
	if (LokyMyWorker == NULL || executor == NULL ||
		executor->starved == LOKY_SHORTAGE_NONE)
		return false;
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_FREE || worker == LokyMyWorker ||
			(executor->starved == LOKY_SHORTAGE_ROLE &&
			 loky->executors[worker->executor].role_slot != executor->role_slot))
			continue;
		if (!worker->waiting || worker->depth > LokyMyDepth ||
			!loky_deadlock_awaits(worker->procno))
			return false;
	}
	return true;
}

static void
raise_stuck(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_BROKEN_EXECUTOR),
			 errmsg("no process is left for a nested task"),
			 errdetail("All workers wait for tasks of their own."),
			 errhint("Raise max_worker_processes, or nest tasks less deep.")));
}

/*
 * Look whether what we wait for waits for us, every deadlock_timeout.  Raises
 * 40P01 where enough looks running say so, LK002 where all processes are taken.
 */
static void
check_deadlock(LokyPatience *patience, LokySharedExecutor *executor)
{
	TimestampTz now = GetCurrentTimestamp();
	int			looks;
	bool		stuck;

	if (!TimestampDifferenceExceeds(patience->looked, now, DeadlockTimeout))
		return;
	patience->looked = now;
	looks = loky_deadlock_look();
	stuck = is_stuck(executor);
	if (looks == 0 && !stuck)
	{
		patience->suspicions = 0;
		return;
	}
	if (++patience->suspicions < (stuck ? STUCK_LOOKS : looks) ||
		!loky_deadlock_give_up())
		return;
	if (stuck)
		raise_stuck();
	else
		loky_deadlock_raise();
}

/*
 * Wait for our latch, until the deadline at the latest.  False where that has
 * passed.  The caller resets the latch before it looks at its condition, and
 * has written down what it waits for.  Raises 40P01 where that waits for us.
 */
bool
loky_client_sleep(TimestampTz deadline, LokySharedExecutor *executor,
				  LokyPatience *patience)
{
	TimestampTz now = GetCurrentTimestamp();
	long		timeout = DeadlockTimeout;

	if (!TIMESTAMP_IS_NOEND(deadline))
	{
		long		rest = TimestampDifferenceMilliseconds(now, deadline);

		if (rest <= 0)
			return false;
		timeout = Min(timeout, rest);
	}
	if (patience->since == 0)
	{
		patience->since = now;
		patience->looked = now;
	}
	if (!patience->warned && executor != NULL && executor->nworkers == 0)
		timeout = Min(timeout, STARVED_WARNING_MS);
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout, loky_wait_event(LOKY_WAIT_TASK));
	CHECK_FOR_INTERRUPTS();
	warn_starved(executor, patience);
	check_deadlock(patience, executor);
	return true;
}

/* A task that is waited for. */
typedef struct SpinTarget
{
	LokySharedTask *task;
	uint64		id;
} SpinTarget;

static bool
has_ended(const void *arg)
{
	const SpinTarget *target = arg;

	return loky_client_is_settled(target->task, target->id);
}

/* Have whoever ends the task wake us.  False where it has ended already. */
bool
loky_client_mark_awaited(LokySharedTask *task, uint64 id)
{
	LokySharedExecutor *executor;
	bool		waits;

	/* a pledged task may be moved to another executor (gate.c) */
	for (;;)
	{
		executor = loky_task_executor(task);
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		if (loky_task_executor(task) == executor)
			break;
		LWLockRelease(&executor->lock);
	}
	waits = !loky_client_is_settled(task, id);
	if (waits && task->waiter != LokyMyProcNumber())
		task->waiter = task->waiter == LOKY_NO_WAITER ?
			LokyMyProcNumber() : LOKY_MANY_WAITERS;
	LWLockRelease(&executor->lock);
	return waits;
}

/*
 * Wait until the task is done, or gone.  False where the deadline passed before.
 * The slot must have been the task's at some time; no lock is held.  Raises 25000 in
 * a worker of a parallel plan, also where the task is done.
 */
bool
loky_client_wait_task(LokySharedTask *task, uint64 id, TimestampTz deadline)
{
	LokySharedExecutor *executor = loky_task_executor(task);
	LokyPatience patience = {0};
	SpinTarget	target = {task, id};
	bool		done = true;

	loky_client_check_parallel();
	if (loky_client_is_settled(task, id) ||
		(!TIMESTAMP_IS_NOEND(deadline) && deadline <= GetCurrentTimestamp()))
		return loky_client_is_settled(task, id);
	loky_pledge_check_wait((const int64 *) &id, 1);
	if (loky_spin(has_ended, &target))
		return true;

	loky_client_begin_wait();
	loky_deadlock_await_tasks(&id, 1, false);
	while (done)
	{
		ResetLatch(MyLatch);
		if (!loky_client_mark_awaited(task, id))
			break;
		CHECK_FOR_INTERRUPTS();
		done = loky_client_sleep(deadline, executor, &patience);
	}
	loky_client_end_wait();
	return loky_client_is_settled(task, id);
}

/*
 * Wait until the future is done.  False where the deadline passed before.
 * Raises what loky_client_find and loky_client_wait_task raise.
 */
bool
loky_client_wait_done(int64 id, TimestampTz deadline)
{
	LokySharedTask *task = loky_client_find(id, false);

	LWLockRelease(&loky_task_executor(task)->lock);
	return loky_client_wait_task(task, (uint64) id, deadline);
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
		bool		done = loky_client_is_settled(entry.task, entry.id);

		if (!done && !entry.marked && (!all || left == 0))
		{
			done = !loky_client_mark_awaited(entry.task, entry.id);
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
 * Let others see which tasks we wait for.  An exception ends the wait while
 * others are left, so one of them that cannot end does not yet mean that the wait
 * cannot.
 */
static void
write_down(const Awaited *list, int n, uint64 *ids, LokyWaitUntil until)
{
	for (int i = 0; i < n; i++)
		ids[i] = list[i].id;
	loky_deadlock_await_tasks(ids, n, until != LOKY_UNTIL_ALL);
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
	uint64	   *left = palloc(Max(n, 1) * sizeof(uint64));
	LokyPatience patience = {0};
	int			ndone = 0;
	bool		failed = false;

	for (int i = 0; i < n; i++)
	{
		list[i].task = &loky->tasks[(uint64) ids[i] % loky->max_tasks];
		list[i].id = (uint64) ids[i];
		list[i].marked = false;
	}
	if (TIMESTAMP_IS_NOEND(deadline) || deadline > GetCurrentTimestamp())
		loky_pledge_check_wait(ids, n);
	loky_client_begin_wait();
	for (;;)
	{
		ResetLatch(MyLatch);
		n = drop_done(list, n, until == LOKY_UNTIL_ALL, &ndone, &failed);
		if (n == 0 || (until == LOKY_UNTIL_FIRST && ndone > 0) ||
			(until == LOKY_UNTIL_EXCEPTION && failed))
			break;
		write_down(list, n, left, until);
		CHECK_FOR_INTERRUPTS();
		if (!loky_client_sleep(deadline, loky_task_executor(list[0].task),
							   &patience))
			break;
	}
	loky_client_end_wait();
	pfree(left);
	pfree(list);
}
