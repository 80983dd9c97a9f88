/*-------------------------------------------------------------------------
 *
 * gate.c
 *	  What a pending task waits for before it may have a worker.
 *
 * A task goes through gates, one after the other, of which most tasks have none:
 *	  COMMIT	the transaction that submitted it commits (pledge.c)
 *	  AFTER		other tasks end (after.c)
 *	  DELAY		its time comes (timer.c)
 *	  KEY		fewer than its limit with its key may run (key.c)
 *	  WORKER	it is in a lane (queue.c)
 * Who opens a gate calls loky_gate_advance, which finds the next one that is
 * shut.  None of them costs a worker, a look from time to time, or a search.
 *
 * Again
 * -----
 * An attempt that failed may be followed by another one: then the task waits for
 * its time, which comes later each time, and for its key.  So it is when the error
 * is one of those that were named, some attempts are left, and nothing has been
 * committed.
 *
 * Locking
 * -------
 * All functions need the lock of the task's executor, but for those that the end
 * of the submitter's transaction calls.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/gate.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "after.h"
#include "backoff.h"
#include "debug_point.h"
#include "key.h"
#include "sched.h"

#define ASSERT_LOCKED(executor) \
	Assert(LWLockHeldByMeInMode(&(executor)->lock, LW_EXCLUSIVE))

/* After these errors a task is run again that names none. */
#define DEFAULT_RETRY_ON	"40001,40P01,LK001"

/* Is a task that waits for this in its executor's list? */
static bool
is_listed(LokyWaitsFor waits)
{
	return waits == LOKY_WAITS_AFTER || waits == LOKY_WAITS_DELAY ||
		waits == LOKY_WAITS_KEY;
}

/* The task waits for this now. */
static void
set_waits(LokySharedExecutor *executor, LokySharedTask *task,
		  LokyWaitsFor waits)
{
	bool		was = is_listed(task->waits);

	if (is_listed(waits) && !was)
	{
		dlist_push_tail(&executor->gated, &task->node);
		executor->ngated++;
	}
	else if (was && !is_listed(waits))
	{
		dlist_delete(&task->node);
		executor->ngated--;
	}
	task->waits = waits;
}

/* Into a lane; whoever releases the lock has a worker roused. */
static void
make_ready(LokySharedExecutor *executor, LokySharedTask *task,
		   LokyAftermath *after)
{
	set_waits(executor, task, LOKY_WAITS_NOTHING);
	loky_queue_push(executor, task);
	after->nready++;
}

/*
 * Let the pending task wait at the next gate that is shut.  It is in no lane.
 */
void
loky_gate_advance(LokySharedExecutor *executor, LokySharedTask *task,
				  LokyAftermath *after)
{
	ASSERT_LOCKED(executor);
	Assert(task->waits != LOKY_WAITS_WORKER && !task->has_key);
	if (task->pledged)
		set_waits(executor, task, LOKY_WAITS_COMMIT);
	else if (task->after != NULL && !loky_after_is_over(task->after))
		set_waits(executor, task, LOKY_WAITS_AFTER);
	else if (task->due != 0 && task->due > GetCurrentTimestamp())
	{
		set_waits(executor, task, LOKY_WAITS_DELAY);
		loky_timer_set(executor, &task->timer, task->due);
	}
	else if (task->key != 0 && !loky_key_enter(executor, task))
		set_waits(executor, task, LOKY_WAITS_KEY);
	else
		make_ready(executor, task, after);
}

/* The task, just published, comes to its first gate. */
void
loky_gate_enter(LokySharedExecutor *executor, LokySharedTask *task,
				LokyAftermath *after)
{
	if (task->pledged)
		executor->npledged++;
	else if (task->delay > 0)
		task->due = task->submitted + task->delay;
	loky_gate_advance(executor, task, after);
}

/*
 * The task is not to run any more, or does so no longer: it leaves wherever it
 * waits, and gives up its key.
 */
void
loky_gate_leave(LokySharedExecutor *executor, LokySharedTask *task,
				LokyAftermath *after)
{
	LokySharedTask *next;

	ASSERT_LOCKED(executor);
	switch (task->waits)
	{
		case LOKY_WAITS_COMMIT:
			executor->npledged--;
			task->pledged = false;
			break;
		case LOKY_WAITS_DELAY:
			loky_timer_clear(executor, &task->timer);
			break;
		case LOKY_WAITS_WORKER:
			loky_queue_remove(executor, task);
			break;
		case LOKY_WAITS_NOTHING:
		case LOKY_WAITS_AFTER:
		case LOKY_WAITS_KEY:
			break;
	}
	if (task->has_key || task->waits == LOKY_WAITS_KEY)
	{
		loky_key_leave(executor, task);
		while ((next = loky_key_admit(executor, task->key)) != NULL)
			make_ready(executor, next, after);
	}
	set_waits(executor, task, LOKY_WAITS_NOTHING);
}

/* Does the list of SQLSTATEs and classes name this one? */
static bool
is_named(const char *list, int sqlstate)
{
	const char *code = unpack_sql_state(sqlstate);

	while (*list != '\0')
	{
		Size		len = strcspn(list, ",");

		if ((len == 5 || len == 2) && strncmp(list, code, len) == 0)
			return true;
		list += len;
		if (*list == ',')
			list++;
	}
	return false;
}

/*
 * An attempt at the task, which nobody has cancelled, has failed with this error, in
 * a worker that had come to this phase.  True where there is to be another one, for
 * which it is pending again.
 */
bool
loky_gate_again(LokySharedExecutor *executor, LokySharedTask *task,
				LokyWorkerPhase phase, int sqlstate, LokyAftermath *after)
{
	const char *list;

	ASSERT_LOCKED(executor);
	Assert(pg_atomic_read_u32(&task->verdict) != LOKY_VERDICT_CANCEL);
	if (task->attempts > task->retries || phase != LOKY_PHASE_BEGUN ||
		(executor->state != LOKY_EXECUTOR_OPEN &&
		 executor->state != LOKY_EXECUTOR_CLOSING))
		return false;
	list = loky_request_text(&task->request, LOKY_TEXT_RETRY_ON);
	if (!is_named(list != NULL ? list : DEFAULT_RETRY_ON, sqlstate))
		return false;
	Assert(!after->has_file);
	after->has_file = loky_store_detach(&task->result, &after->file);
	pg_atomic_write_u32(&task->verdict, LOKY_VERDICT_NONE);
	loky_gate_leave(executor, task, after);
	loky_task_set_state(task, LOKY_TASK_PENDING);
	task->due = GetCurrentTimestamp() +
		INT64CONST(1000) * loky_backoff_ms(pg_atomic_read_u64(&task->id),
										   task->attempts);
	loky_gate_advance(executor, task, after);
	return true;
}

/* The pledged task with this id, whose executor's lock is held then, or NULL. */
static LokySharedTask *
find_pledged(uint64 id)
{
	LokySharedTask *task = loky_task_lookup(id);

	if (task == NULL || task->waits == LOKY_WAITS_COMMIT)
		return task;
	LWLockRelease(&loky_task_executor(task)->lock);
	return NULL;
}

/*
 * The executor with this id was shut down after it had been found open for a task that
 * is pledged to it: it accepts tasks again.  Nothing is done where the slot is not that
 * executor's any more, as the task may be cancelled meanwhile.
 */
static void
reopen(LokySharedExecutor *executor, int id)
{
	LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->id == id && executor->npledged > 0)
		executor->state = LOKY_EXECUTOR_OPEN;
	LWLockRelease(&executor->lock);
	LWLockRelease(&loky->directory);
}

/*
 * The transaction that submitted the task has committed.  Raises no error, and
 * allocates nothing.  No lock is held.
 */
void
loky_gate_commit(uint64 id)
{
	LokyAftermath after = LOKY_NO_AFTERMATH;
	LokySharedTask *task;
	LokySharedExecutor *executor;

	for (;;)
	{
		int			executor_id;

		task = find_pledged(id);
		if (task == NULL)
			return;				/* cancelled, or what it waits for failed */
		executor = loky_task_executor(task);
		if (executor->state == LOKY_EXECUTOR_OPEN)
			break;
		executor_id = executor->id;
		LWLockRelease(&executor->lock);
		loky_debug_point("reopening");
		reopen(executor, executor_id);
	}
	executor->npledged--;
	task->pledged = false;
	set_waits(executor, task, LOKY_WAITS_NOTHING);
	task->submitted = GetCurrentTimestamp();
	if (task->delay > 0)
		task->due = task->submitted + task->delay;
	executor->last_used = task->submitted;
	loky_gate_advance(executor, task, &after);
	loky_sched_unlock(executor, &after);
	loky_end_conclude(&after);
}

/*
 * ... has aborted: nobody will ever know of the task.  Those who wait for it never see
 * it end: its id is gone before, while the pin keeps it from being evicted.  No lock is
 * held.
 */
void
loky_gate_drop(uint64 id)
{
	LokyAftermath after = LOKY_NO_AFTERMATH;
	LokySharedTask *task = loky_task_lookup(id);
	LokySharedExecutor *executor;

	if (task == NULL)
		return;
	executor = loky_task_executor(task);
	if (!LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)))
	{
		task->pins++;
		task->discard = false;
		pg_atomic_write_u64(&task->id, 0);
		loky_end_task(executor, task, LOKY_TASK_CANCELLED, 0, &after);
		executor->cancelled--;
		loky_sched_unlock(executor, &after);
		loky_end_conclude(&after);
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		task->pins--;
	}
	loky_task_free(task);
}

/*
 * Let the pledged task be one of the executor with this id, as its own accepts nothing
 * any more.  False where the slot is not that executor's any more; true also where the
 * task is not pledged any more.  No lock is held.
 */
bool
loky_gate_move(uint64 id, LokySharedExecutor *target, int target_id)
{
	LokySharedTask *task;
	LokySharedExecutor *source;
	bool		there;

	task = find_pledged(id);
	if (task == NULL)
		return true;
	source = loky_task_executor(task);
	LWLockRelease(&source->lock);
	if (source == target)
		return true;

	/* two of a kind are locked in the order of their slots */
	LWLockAcquire(source < target ? &source->lock : &target->lock, LW_EXCLUSIVE);
	LWLockAcquire(source < target ? &target->lock : &source->lock, LW_EXCLUSIVE);
	there = target->id == target_id;
	if (there && pg_atomic_read_u64(&task->id) == id &&
		loky_task_executor(task) == source && task->waits == LOKY_WAITS_COMMIT)
	{
		source->npledged--;
		target->npledged++;
		task->executor = target->slot;
		task->executor_id = target_id;
	}
	LWLockRelease(&source->lock);
	LWLockRelease(&target->lock);
	return there;
}
