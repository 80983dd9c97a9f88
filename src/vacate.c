/*-------------------------------------------------------------------------
 *
 * vacate.c
 *	  Having the workers of a database or a role leave.
 *
 * An idle worker is a process that is connected to a database and may have temporary
 * tables; some commands cannot do their work beside one.  The process of such a
 * command tells idle workers to leave, as others do that need their places, and waits
 * until they are gone.  What runs is not interrupted: where that is in the way, it gets
 * as long to end as the server itself gives to the sessions of a database.
 *
 * When a worker has gone
 * ----------------------
 * The server counts the processes of a database by their entries in the array of
 * processes; so it is looked at there, since a worker's slot is settled before its
 * process has ended.  One that has not yet come as far as to be connected does not
 * count: it waits for the lock of the database that the command holds.
 *
 * Waiting
 * -------
 * On a condition variable, which the launcher signals when it has freed the slot of a
 * worker.  A process that is a worker itself does not wait for itself.  The ends of
 * tasks are not signalled, so while some run it looks again ten times a second.
 *
 * Locking
 * -------
 * One executor's lock at a time, none while it waits.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/vacate.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/condition_variable.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"

#include "executor.h"
#include "sched.h"
#include "stats.h"
#include "vacate.h"
#include "wait.h"
#include "worker.h"

/* What is in the way gets so long to end. */
#define GRACE_MS		5000

/* How soon to look again. */
#define LOOK_MS			100

/* Is the executor one of the tenant's?  Its lock is held. */
static bool
is_of_tenant(const LokySharedExecutor *executor, const LokyTenant *tenant)
{
	return executor->id != 0 &&
		(!OidIsValid(tenant->database) || executor->database == tenant->database) &&
		(!OidIsValid(tenant->role) || executor->role == tenant->role);
}

/* What a worker does. */
typedef enum Doing
{
	DOING_NOTHING,				/* it can leave, or is leaving */
	DOING_TASK,
	DOING_MAP,
	DOING_INITIALIZER
} Doing;

/* A worker as it was when its executor was looked at. */
typedef struct Seen
{
	int			pid;
	Oid			database;
	Doing		doing;
	uint64		future;			/* of a task */
} Seen;

/* Is the worker one of this executor, whose lock is held, and not we ourselves? */
static bool
is_of_executor(const LokySharedWorker *worker, const LokySharedExecutor *executor)
{
	return worker->state != LOKY_WORKER_FREE && worker != LokyMyWorker &&
		worker->executor == executor->slot && worker->pid != 0;
}

/* The executor's lock is held. */
static Seen
see_worker(const LokySharedWorker *worker, const LokySharedExecutor *executor)
{
	Seen		seen = {.pid = worker->pid,.database = executor->database};

	if (worker->exited)
		seen.doing = DOING_NOTHING;
	else if (worker->task != NULL)
	{
		seen.doing = DOING_TASK;
		seen.future = pg_atomic_read_u64(&worker->task->id);
	}
	else if (worker->map != NULL)
		seen.doing = DOING_MAP;
	else if (worker->phase == LOKY_PHASE_INITIALIZING)
		seen.doing = DOING_INITIALIZER;
	return seen;
}

/*
 * Find the tenant's workers, for which list has room, and count what is pending.
 * Returns how many there are.
 */
static int
see_all(const LokyTenant *tenant, Seen *list, int *npending)
{
	int			n = 0;

	*npending = 0;
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		LWLockAcquire(&executor->lock, LW_SHARED);
		if (is_of_tenant(executor, tenant))
		{
			*npending += executor->npending + executor->ngated +
				executor->npledged;
			for (int j = 0; j < loky->nworkers && n < loky->nworkers; j++)
			{
				if (is_of_executor(&loky->workers[j], executor))
					list[n++] = see_worker(&loky->workers[j], executor);
			}
		}
		LWLockRelease(&executor->lock);
	}
	return n;
}

/* Is the worker's process one that others see in its database? */
static bool
is_connected(const Seen *seen)
{
	const PGPROC *proc = BackendPidGetProc(seen->pid);

	return proc != NULL && proc->databaseId == seen->database;
}

/* Find out what goes on. */
static void
look(const LokyTenant *tenant, LokyUse *use)
{
	Seen	   *list = palloc(loky->nworkers * sizeof(Seen));
	int			n;

	memset(use, 0, sizeof(*use));
	n = see_all(tenant, list, &use->npending);
	for (int i = 0; i < n; i++)
	{
		if (!is_connected(&list[i]))
			continue;
		switch (list[i].doing)
		{
			case DOING_NOTHING:
				use->nidle++;
				break;
			case DOING_TASK:
				if (use->ntasks < LOKY_USE_FUTURES)
					use->futures[use->ntasks] = list[i].future;
				use->ntasks++;
				break;
			case DOING_MAP:
				use->nmaps++;
				break;
			case DOING_INITIALIZER:
				use->ninitializers++;
				break;
		}
	}
	pfree(list);
}

/* Tell those that run nothing to leave. */
static void
dismiss(const LokyTenant *tenant)
{
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		for (int j = 0; is_of_tenant(executor, tenant) && j < loky->nworkers; j++)
		{
			LokySharedWorker *worker = &loky->workers[j];

			/* one that has just ended a task is about to rest, or to take another */
			if (is_of_executor(worker, executor) && !worker->stop &&
				worker->task == NULL && worker->map == NULL &&
				(worker->state == LOKY_WORKER_IDLE ||
				 worker->state == LOKY_WORKER_BUSY))
				loky_stop_worker(worker, false);
		}
		LWLockRelease(&executor->lock);
	}
}

/* Is there work that keeps workers from leaving? */
static bool
is_in_use(const LokyUse *use, LokyHeed heed)
{
	if (heed == LOKY_HEED_NOTHING)
		return false;
	return use->ntasks + use->nmaps + use->ninitializers > 0 ||
		(heed == LOKY_HEED_UNFINISHED && use->npending > 0);
}

/*
 * Have the tenant's idle workers leave, and wait until they are gone.  Where work is
 * to be heeded, that gets some seconds to end, and nobody leaves before it has.  False
 * where it has not; *use tells what goes on at the end.  A worker that does not answer is
 * not waited for any longer than that.  No lock of ours may be held.
 */
bool
loky_vacate(const LokyTenant *tenant, LokyHeed heed, LokyUse *use)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   GRACE_MS);
	bool		in_use;

	loky_attach();
	ConditionVariablePrepareToSleep(&loky->worker_gone);
	for (;;)
	{
		long		rest;

		look(tenant, use);
		in_use = is_in_use(use, heed);
		if (!in_use && use->nidle == 0)
			break;
		if (!in_use)
			dismiss(tenant);
		rest = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (rest <= 0)
			break;
		(void) ConditionVariableTimedSleep(&loky->worker_gone,
										   Min(rest, LOOK_MS),
										   loky_wait_event(LOKY_WAIT_LEAVE));
	}
	ConditionVariableCancelSleep();
	return !in_use;
}

/* Append what goes on there, for the detail of an error. */
void
loky_vacate_describe(const LokyUse *use, StringInfo buf)
{
	const char *separator = "";

	if (use->ntasks > 0)
	{
		appendStringInfoString(buf, use->ntasks == 1 ? "task " : "tasks ");
		for (int i = 0; i < Min(use->ntasks, LOKY_USE_FUTURES); i++)
			appendStringInfo(buf, "%s" UINT64_FORMAT, i > 0 ? ", " : "",
							 use->futures[i]);
		if (use->ntasks > LOKY_USE_FUTURES)
			appendStringInfo(buf, " and %d more", use->ntasks - LOKY_USE_FUTURES);
		separator = "; ";
	}
	if (use->nmaps > 0)
	{
		appendStringInfo(buf, "%sitems of maps in %d %s", separator, use->nmaps,
						 use->nmaps == 1 ? "worker" : "workers");
		separator = "; ";
	}
	if (use->ninitializers > 0)
		appendStringInfo(buf, "%sthe initializer of %d %s", separator,
						 use->ninitializers,
						 use->ninitializers == 1 ? "worker" : "workers");
}

/*
 * The database is gone: cancel what is pending there, which no session can wait for,
 * and free all that belongs to it.
 */
void
loky_vacate_forget_database(Oid database)
{
	for (int i = 0; i < loky->nexecutors; i++)
		loky_executor_abandon(&loky->executors[i], database);
	loky_task_forget_database(database);
	loky_stats_forget_database(database);
}
