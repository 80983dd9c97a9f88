/*-------------------------------------------------------------------------
 *
 * stop.c
 *	  Telling workers to cancel or to end, and ending what waits for them.
 *
 * A request is a field of the worker's slot and a signal or its latch; the worker
 * does the rest where it can (worker.c, worker_xact.c).  Workers are never ended
 * by SIGKILL, which would have the server restart.
 *
 * Locking
 * -------
 * Everything under the lock of the executor's slot.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/stop.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"

#include "map.h"
#include "pool.h"
#include "sched.h"

/*
 * Have the worker cancel what it runs at this moment, and nothing else.  The
 * executor's lock is held.
 */
void
loky_stop_run(LokySharedWorker *worker)
{
	pg_atomic_write_u64(&worker->cancel_run, pg_atomic_read_u64(&worker->run));
	pg_memory_barrier();
	if (worker->pid != 0 && !worker->exited)
		kill(worker->pid, SIGUSR2);
}

/*
 * Tell the worker to end: at once where kill_it, else as soon as it has
 * nothing to do.  The executor's lock is held.
 */
void
loky_stop_worker(LokySharedWorker *worker, bool kill_it)
{
	if (worker->exited)
		return;
	loky_sched_set_absent(worker, worker->waiting, true);
	if (kill_it)
		worker->kill = true;
	if (worker->pid == 0)
		return;
	if (kill_it && (worker->task != NULL || worker->map != NULL ||
					worker->state == LOKY_WORKER_STARTING))
		kill(worker->pid, SIGTERM);
	else
		loky_wake(worker->procno);
}

/* This process, a worker, must not go on: it leaves once it has nothing to do. */
void
loky_stop_self(LokySharedWorker *worker)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	loky_sched_set_absent(worker, worker->waiting, true);
	LWLockRelease(&executor->lock);
}

/*
 * The same, to make room for a new one.  Until it asks for its next task it counts
 * as free; then it sees to what waits.
 */
void
loky_stop_self_to_replace(LokySharedWorker *worker)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	executor->restarts++;
	loky_sched_set_absent(worker, worker->waiting, true);
	LWLockRelease(&executor->lock);
}

/*
 * Interrupt what this process runs, and programs that it has started, as the
 * server's own timeouts do.  May be called in a signal handler.
 */
void
loky_stop_own_run(void)
{
	kill(-MyProcPid, SIGINT);
	kill(MyProcPid, SIGINT);
}

/*
 * End everything pending: cancelled, or failed with the encoded error.  The
 * executor's lock is held.  What the submitters have yet to commit is left.
 */
void
loky_stop_pending(LokySharedExecutor *executor, LokyTaskState state,
				  int sqlstate, const char *error, Size len,
				  LokyAftermath *after)
{
	LokySharedLane *lane;
	dlist_mutable_iter iter;

	Assert(LWLockHeldByMeInMode(&executor->lock, LW_EXCLUSIVE));
	dlist_foreach_modify(iter, &executor->lane_list)
	{
		lane = dlist_container(LokySharedLane, list_node, iter.cur);
		if (lane->map != NULL)
			loky_queue_remove_map(executor, lane->map);
	}

	/* the end of one may let another one go on, from the list into a lane */
	for (;;)
	{
		LokySharedTask *task;

		if ((lane = loky_queue_first(executor)) != NULL)
			task = lane->head;
		else if (!dlist_is_empty(&executor->gated))
			task = dlist_head_element(LokySharedTask, node, &executor->gated);
		else
			break;
		if (error != NULL)
			loky_store_set(&task->result, LOKY_RECORD_ERROR, error, len);
		loky_end_task(executor, task, state, sqlstate, after);
	}
}
