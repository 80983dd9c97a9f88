/*-------------------------------------------------------------------------
 *
 * executor_end.c
 *	  Shutting executors down, and ending their workers.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/executor_end.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "deadlock.h"
#include "executor.h"
#include "map.h"
#include "sched.h"
#include "worker.h"

/* Stop all workers of the executor.  Its lock is held. */
static void
stop_workers(LokySharedExecutor *executor, bool kill_workers, bool idle_only)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state != LOKY_WORKER_FREE &&
			worker->executor == executor->slot && worker != LokyMyWorker &&
			(!idle_only || worker->state == LOKY_WORKER_IDLE))
			loky_stop_worker(worker, kill_workers);
	}
}

/* Cancel all tasks and maps that no worker runs.  Executor's lock held. */
static void
cancel_all(LokySharedExecutor *executor, LokyAftermath *after)
{
	dlist_iter	iter;

	loky_stop_pending(executor, LOKY_TASK_CANCELLED, 0, NULL, 0, after);
	dlist_foreach(iter, &executor->maps)
	{
		LokySharedMap *map = dlist_container(LokySharedMap, node, iter.cur);

		loky_map_end(map, LOKY_MAP_SHUT_DOWN);
		loky_wake(map->reader);
	}
}

/*
 * Accept nothing more.  What is there still runs; with kill_workers it is
 * cancelled where it is pending, and fails with LK003 where it runs.
 */
void
loky_executor_close(LokyExecutorRef ref, bool kill_workers)
{
	LokySharedExecutor *executor = ref.executor;
	LokyAftermath after = LOKY_NO_AFTERMATH;

	LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->id == ref.id &&
		(executor->state == LOKY_EXECUTOR_OPEN ||
		 executor->state == LOKY_EXECUTOR_CLOSING))
	{
		executor->state = LOKY_EXECUTOR_CLOSING;
		if (kill_workers)
			cancel_all(executor, &after);
		stop_workers(executor, kill_workers, !kill_workers);
	}
	loky_sched_unlock(executor, &after);
	LWLockRelease(&loky->directory);
	loky_end_conclude(&after);
	loky_wake_launcher();
}

/*
 * If the executor belongs to this database, which is gone: cancel what is pending and
 * accept nothing more.  The slot is free at once, unless a worker has yet to find out.
 */
void
loky_executor_abandon(LokySharedExecutor *executor, Oid database)
{
	LokyAftermath after = LOKY_NO_AFTERMATH;

	LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->id != 0 && executor->database == database)
	{
		executor->state = LOKY_EXECUTOR_CLOSING;
		cancel_all(executor, &after);
		stop_workers(executor, false, false);
		if (loky_executor_is_free(executor))
			loky_executor_empty_slot(executor);
	}
	loky_sched_unlock(executor, &after);
	LWLockRelease(&loky->directory);
	loky_end_conclude(&after);
}

/* Cancel what is pending in the executor, which goes on. */
void
loky_executor_cancel_pending(LokyExecutorRef ref)
{
	LokySharedExecutor *executor = ref.executor;
	LokyAftermath after = LOKY_NO_AFTERMATH;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->id == ref.id)
		cancel_all(executor, &after);
	loky_sched_unlock(executor, &after);
	loky_end_conclude(&after);
	loky_wake_launcher();
}

/* End the present workers; what is pending runs on fresh ones. */
void
loky_executor_kill_workers(LokyExecutorRef ref)
{
	LokySharedExecutor *executor = ref.executor;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->id == ref.id)
		stop_workers(executor, true, false);
	LWLockRelease(&executor->lock);
	loky_wake_launcher();
}

/*
 * Is nothing left in the executor for a worker to take?  What one runs now does not
 * count if it is a task.  Its lock is held.
 */
bool
loky_executor_is_drained(LokySharedExecutor *executor)
{
	dlist_iter	iter;

	Assert(LWLockHeldByMe(&executor->lock));
	if (executor->npending + executor->ngated > 0)
		return false;
	dlist_foreach(iter, &executor->maps)
	{
		if (!loky_map_is_at_rest(dlist_container(LokySharedMap, node, iter.cur)))
			return false;
	}
	return true;
}

/* Has the executor neither workers nor anything for them to do?  Its lock is held. */
static bool
has_finished(LokySharedExecutor *executor)
{
	return executor->nworkers == 0 && executor->nrunning == 0 &&
		loky_executor_is_drained(executor);
}

/*
 * Has the executor run all that it will, though some may not have been read, and have
 * the processes of its workers ended?  Or is it gone altogether, or open again?
 */
bool
loky_executor_at_rest(LokyExecutorRef ref)
{
	LokySharedExecutor *executor = ref.executor;
	bool		rest;

	LWLockAcquire(&executor->lock, LW_SHARED);
	rest = executor->id != ref.id || has_finished(executor) ||
		executor->state == LOKY_EXECUTOR_OPEN;
	for (int i = 0; rest && i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		rest = worker->state == LOKY_WORKER_FREE ||
			worker->executor_id != ref.id ||
			executor->state == LOKY_EXECUTOR_OPEN;
	}
	LWLockRelease(&executor->lock);
	return rest;
}

/*
 * Turn executors that were shut down and have come to rest into closed ones.
 * The launcher calls it when a worker has ended.
 */
void
loky_executor_collect(void)
{
	bool		wake = false;

	LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		if (executor->state != LOKY_EXECUTOR_CLOSING &&
			executor->state != LOKY_EXECUTOR_BROKEN)
			continue;
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		wake |= has_finished(executor);
		if (loky_executor_is_unused(executor))
			executor->state = LOKY_EXECUTOR_CLOSED;
		else if (loky_executor_is_drained(executor))
			stop_workers(executor, false, true);
		LWLockRelease(&executor->lock);
	}
	LWLockRelease(&loky->directory);
	if (wake)
		loky_deadlock_wake_shutdowns();
}
