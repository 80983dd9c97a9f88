/*-------------------------------------------------------------------------
 *
 * end.c
 *	  The end of a task, and what follows from it.
 *
 * Whoever brings a task to its final state, the worker that ran it, a canceller, or
 * who settles a worker that is gone, does so under the lock of its executor; what
 * follows is gathered in a LokyAftermath and done once the lock is released: those
 * that wait for the task are woken, tasks that were to run after it go on or fail,
 * and one that nobody will ask for is freed, its failure told in the server's log.
 * Until then a pin keeps that, as it is a finished task as any other, which whoever
 * knows its id, or needs its place, may free at any moment.
 *
 * Failure
 * -------
 * Nobody sees to what follows but the process that ended the task, so interrupts are
 * held meanwhile: even a line in the log would serve them.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/end.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "after.h"
#include "debug_point.h"
#include "errdata.h"
#include "sched.h"

/* Append the edges of the task, which it has no more then, to the list. */
static void
take_edges(LokySharedTask *task, LokyEdgeList *list)
{
	if (list->first == NULL)
		list->first = task->edges;
	else
		list->last->next = task->edges;
	list->last = task->last_edge;
	task->edges = NULL;
}

/*
 * Bring a task to a final state, wherever it is.  The executor's lock is held;
 * what is left to do then is added to *after, for loky_sched_unlock and
 * loky_end_conclude.
 */
void
loky_end_task(LokySharedExecutor *executor, LokySharedTask *task,
			  LokyTaskState state, int sqlstate, LokyAftermath *after)
{
	Assert(LWLockHeldByMeInMode(&executor->lock, LW_EXCLUSIVE));
	if (task->waits != LOKY_WAITS_NOTHING || task->has_key)
		loky_gate_leave(executor, task, after);
	loky_task_uncount(task);
	task->finished = after->now != 0 ? after->now : GetCurrentTimestamp();
	task->sqlstate = sqlstate;
	switch (state)
	{
		case LOKY_TASK_SUCCEEDED:
			executor->succeeded++;
			break;
		case LOKY_TASK_FAILED:
			executor->failed++;
			break;
		default:
			executor->cancelled++;
			break;
	}
	dlist_push_tail(&executor->finished, &task->node);
	executor->nfinished++;
	if (after->waiter == LOKY_NO_WAITER)
		after->waiter = task->waiter;
	else if (task->waiter != LOKY_NO_WAITER && task->waiter != after->waiter)
		after->waiter = LOKY_MANY_WAITERS;
	task->waiter = LOKY_NO_WAITER;
	if (task->edges != NULL)
		take_edges(task, state == LOKY_TASK_SUCCEEDED ? &after->met :
				   &after->unmet);
	if (task->discard)
	{
		/* others may free it before we do: the pin keeps it, this its id */
		task->pins++;
		task->lane.turn = pg_atomic_read_u64(&task->id);
		task->next = after->discarded;
		after->discarded = task;
	}
	loky_task_set_state(task, state);
}

/* Nobody will ask for this failed task: the server's log tells of it. */
static void
log_discarded(LokySharedTask *task)
{
	const ErrorData *edata = loky_task_error(task);

	ereport(LOG,
			(errcode(task->sqlstate),
			 errmsg("loky task " UINT64_FORMAT " failed: %s",
					task->lane.turn,
					edata != NULL ? edata->message :
					unpack_sql_state(task->sqlstate)),
			 edata != NULL && edata->detail != NULL ?
			 errdetail_internal("%s", edata->detail) : 0,
			 edata != NULL && edata->context != NULL ?
			 errcontext_msg("%s", edata->context) : 0));
}

/* Log the failure of a task that nobody will ask for, and free it. */
static void
discard(LokySharedTask *task)
{
	if (pg_atomic_read_u32(&task->state) == LOKY_TASK_FAILED)
		log_discarded(task);
	LWLockAcquire(&loky_task_executor(task)->lock, LW_EXCLUSIVE);
	task->pins--;
	loky_task_free(task);
}

/*
 * Do what is left to do after tasks have ended: wake who waits for them, let go on
 * what was to run after them, free what nobody asks for, and what an attempt left that
 * another one follows.  No lock is held.
 */
void
loky_end_conclude(LokyAftermath *after)
{
	LokySharedTask *task;

	HOLD_INTERRUPTS();
	loky_task_wake_waiters(after->waiter);
	after->waiter = LOKY_NO_WAITER;
	if (after->met.first != NULL || after->unmet.first != NULL)
		loky_after_follow(after);
	if (after->discarded != NULL)
		loky_debug_point("discarding");
	while ((task = after->discarded) != NULL)
	{
		after->discarded = task->next;
		discard(task);
	}
	loky_task_wake_waiters(after->waiter);
	after->waiter = LOKY_NO_WAITER;
	if (after->has_file)
	{
		after->has_file = false;
		loky_store_delete_file(&after->file);
	}
	RESUME_INTERRUPTS();
}
