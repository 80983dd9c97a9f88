/*-------------------------------------------------------------------------
 *
 * cancel.c
 *	  Cancelling a task, and with it those that it has submitted.
 *
 * What a worker runs may submit tasks.  They are tasks as any other, except that
 * they do not outlive a run that is undone: when it ends as cancelled, or its
 * worker ends while it runs, or the map that it belongs to is cancelled, then
 * those of them that are not done are cancelled, and their workers do the same
 * for what these have submitted.  A run that succeeds, or fails by an error of
 * its own, leaves them alone.
 *
 * A run is here one attempt at a task, or at an item of a map, or at a chunk of them.
 * With its first submit it draws a number, the tag, which its tasks carry as
 * their parent; so a run without any costs nothing when it is cancelled, and
 * those of the worker's earlier runs are never meant.
 *
 * The run's own worker looks for them, once nothing can be submitted any more;
 * for a worker that ends, whoever settles it.  Either does so before the end of
 * the run can be seen, so nobody sees one of them begin after it.
 *
 * Locking
 * -------
 * The tasks may be those of any executor: each is looked at without a lock, and
 * again under its executor's one.  No lock is held between two of them.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/cancel.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "pool.h"
#include "sched.h"

/*
 * Cancel a running task, if its commit has not begun.  The executor's lock is
 * held.
 */
static bool
cancel_running(LokySharedTask *task)
{
	uint32		none = LOKY_VERDICT_NONE;

	if (!pg_atomic_compare_exchange_u32(&task->verdict, &none,
										LOKY_VERDICT_CANCEL))
		return none == LOKY_VERDICT_CANCEL;
	loky_stop_run(&loky->workers[task->worker_slot]);
	return true;
}

/*
 * Cancel the task if it is pending, or with running also if it runs.  Returns
 * whether it is cancelled, or will end so.  The executor's lock is held at the
 * call and released by it.
 */
bool
loky_cancel_task(LokySharedTask *task, bool running)
{
	LokySharedExecutor *executor = loky_task_executor(task);
	LokyAftermath after = LOKY_NO_AFTERMATH;
	bool		result = false;

	Assert(LWLockHeldByMeInMode(&executor->lock, LW_EXCLUSIVE));
	switch ((LokyTaskState) pg_atomic_read_u32(&task->state))
	{
		case LOKY_TASK_PENDING:
			loky_end_task(executor, task, LOKY_TASK_CANCELLED, 0, &after);
			result = true;
			break;
		case LOKY_TASK_RUNNING:
			result = running ? cancel_running(task) :
				pg_atomic_read_u32(&task->verdict) == LOKY_VERDICT_CANCEL;
			break;
		case LOKY_TASK_CANCELLED:
			result = true;
			break;
		default:
			break;
	}
	loky_sched_unlock(executor, &after);
	loky_end_conclude(&after);
	return result;
}

/* Cancel what is in this slot if it was submitted by the run with this tag. */
static void
cancel_child(LokySharedTask *task, uint64 tag)
{
	uint64		id = pg_atomic_read_u64(&task->id);

	if (id == 0 || task->parent != tag ||
		LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)))
		return;
	task = loky_task_lookup(id);
	if (task == NULL)
		return;

	/* what is being killed anyway fails for that, and takes its own with it */
	if (task->parent != tag ||
		(pg_atomic_read_u32(&task->state) == LOKY_TASK_RUNNING &&
		 loky->workers[task->worker_slot].kill))
		LWLockRelease(&loky_task_executor(task)->lock);
	else
		(void) loky_cancel_task(task, true);
}

/*
 * Cancel all that the worker's present run has submitted and that is not done.
 * Called by the worker itself, or when it is gone; no lock is held.
 */
void
loky_cancel_children(LokySharedWorker *worker)
{
	if (worker->tag == 0)
		return;
	for (int i = 0; i < loky->max_tasks / 64; i++)
	{
		uint64		bits = pg_atomic_read_u64(&loky->task_map[i]);

		for (; bits != 0; bits &= bits - 1)
			cancel_child(&loky->tasks[i * 64 + pg_rightmost_one_pos64(bits)],
						 worker->tag);
	}
	worker->tag = 0;
}
