/*-------------------------------------------------------------------------
 *
 * cancel.c
 *	  Cancelling a task, by its future.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/cancel.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "pool.h"

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
	int			waiter = LOKY_NO_WAITER;
	bool		result = false;
	bool		closing;

	Assert(LWLockHeldByMeInMode(&executor->lock, LW_EXCLUSIVE));
	switch ((LokyTaskState) pg_atomic_read_u32(&task->state))
	{
		case LOKY_TASK_PENDING:
			loky_queue_remove(executor, task);
			loky_sched_end_task(executor, task, LOKY_TASK_CANCELLED, 0,
								&waiter);
			result = true;
			break;
		case LOKY_TASK_RUNNING:
			result = running && cancel_running(task);
			break;
		case LOKY_TASK_CANCELLED:
			result = true;
			break;
		default:
			break;
	}
	closing = executor->state != LOKY_EXECUTOR_OPEN;
	LWLockRelease(&executor->lock);
	loky_task_wake_waiters(waiter);

	/* it may have been the last one that a closing executor waited for */
	if (closing)
		loky_wake_launcher();
	return result;
}
