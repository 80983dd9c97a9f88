/*-------------------------------------------------------------------------
 *
 * after.c
 *	  Tasks that wait for other tasks to end.
 *
 * A task that is submitted to run after others has an edge to it from each of
 * these that is not done.  Who ends a task takes its edges along (LokyAftermath)
 * and follows them once it has released the lock: the last task to end lets the
 * waiting one go on, and one that does not succeed has it fail with LK006, which
 * has edges of its own; so failure is passed on along the whole graph, in a loop
 * and not by recursion.  A callback waits in the same way, whatever the outcome.
 *
 * Edges are linked while the waiting task is still being prepared, each under the
 * lock under which its other end was found not to be done, so that no end is
 * missed.  Until the submitter has queued the task it counts as one more that has
 * to end: nobody else acts on a task that cannot be found yet.
 *
 * Locking
 * -------
 * The edges of a task are under its executor's lock.  What is left is counted by
 * atomics, as the tasks that end may be those of several executors.
 *
 * Failure
 * -------
 * Edges lie in memory of the waiting task, which goes when that is freed and the
 * last edge has been followed, so those of a task that was cancelled, or never
 * queued, do no harm.  Nothing that follows edges can fail half way.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/after.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "after.h"
#include "area.h"
#include "errdata.h"

/*
 * Room for up to max edges to the task that will have this id, with two references:
 * the task's own, and the submitter's until it is armed.  Raises an error where the
 * area is full.
 */
LokySharedAfter *
loky_after_create(uint64 dependant, int max, bool whatever)
{
	dsa_pointer dp = loky_area_alloc(offsetof(LokySharedAfter, edges) +
									 max * sizeof(LokySharedEdge));
	LokySharedAfter *after;

	if (!DsaPointerIsValid(dp))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of shared memory for what a task is to run after"),
				 errhint("Raise loky.shared_memory, or forget finished futures with loky.forget().")));
	after = loky_area_address(dp);
	after->self = dp;
	pg_atomic_init_u32(&after->refs, 2);
	pg_atomic_init_u32(&after->left, 1);
	pg_atomic_init_u64(&after->failed, 0);
	after->dependant = dependant;
	after->whatever = whatever;
	after->n = 0;
	return after;
}

/* One reference less; the last one frees it. */
void
loky_after_unref(LokySharedAfter *after)
{
	if (pg_atomic_sub_fetch_u32(&after->refs, 1) == 0)
		loky_area_free(after->self);
}

/* The task with this id did not succeed, or never will. */
void
loky_after_fail(LokySharedAfter *after, uint64 dependency)
{
	uint64		none = 0;

	if (!after->whatever)
		pg_atomic_compare_exchange_u64(&after->failed, &none, dependency);
}

/* One more task that has to end first.  The lock of its executor is held. */
void
loky_after_link(LokySharedAfter *after, LokySharedTask *dependency)
{
	LokyTaskState state = (LokyTaskState) pg_atomic_read_u32(&dependency->state);
	uint64		id = pg_atomic_read_u64(&dependency->id);
	LokySharedEdge *edge;

	Assert(LWLockHeldByMeInMode(&loky_task_executor(dependency)->lock,
								LW_EXCLUSIVE));
	if (LokyTaskStateIsFinal(state))
	{
		if (state != LOKY_TASK_SUCCEEDED)
			loky_after_fail(after, id);
		return;
	}
	edge = &after->edges[after->n++];
	edge->next = NULL;
	edge->after = after;
	edge->dependency = id;
	pg_atomic_fetch_add_u32(&after->refs, 1);
	pg_atomic_fetch_add_u32(&after->left, 1);
	if (dependency->edges == NULL)
		dependency->edges = edge;
	else
		dependency->last_edge->next = edge;
	dependency->last_edge = edge;
}

/* Has all ended that the task waits for? */
bool
loky_after_is_over(LokySharedAfter *after)
{
	return pg_atomic_read_u32(&after->left) == 0;
}

/* The error of a task that was to run after one that did not succeed. */
static void
encode_failure(StringInfo buf, uint64 dependency)
{
	ErrorData	edata = {0};

	edata.elevel = ERROR;
	edata.sqlerrcode = ERRCODE_LOKY_DEPENDENCY_FAILED;
	edata.message = psprintf("future " UINT64_FORMAT ", after which the task was to run, did not succeed",
							 dependency);
	edata.hint = "Look at its state and loky.exception(), and submit again once the cause is mended.";
	loky_error_encode(buf, &edata);
}

/* Let the waiting task go on, or fail, where it is time for that. */
static void
look_at(LokySharedAfter *after, LokyAftermath *more)
{
	uint64		failed = pg_atomic_read_u64(&after->failed);
	LokySharedExecutor *executor;
	LokySharedTask *task;
	StringInfoData error;

	if (failed == 0 && !loky_after_is_over(after))
		return;
	if (failed != 0)
	{
		initStringInfo(&error);
		encode_failure(&error, failed);
	}
	task = loky_task_lookup(after->dependant);
	if (task != NULL)
	{
		executor = loky_task_executor(task);
		if (failed != 0 && (task->waits == LOKY_WAITS_AFTER ||
							task->waits == LOKY_WAITS_COMMIT))
		{
			loky_store_set(&task->result, LOKY_RECORD_ERROR, error.data,
						   error.len);
			loky_end_task(executor, task, LOKY_TASK_FAILED,
								ERRCODE_LOKY_DEPENDENCY_FAILED, more);
		}
		else if (failed == 0 && task->waits == LOKY_WAITS_AFTER)
			loky_gate_advance(executor, task, more);
		loky_sched_unlock(executor, more);
	}
	if (failed != 0)
		pfree(error.data);
}

/* A task has ended from which this edge leads. */
static void
follow(LokySharedEdge *edge, bool succeeded, LokyAftermath *more)
{
	LokySharedAfter *after = edge->after;

	if (!succeeded)
		loky_after_fail(after, edge->dependency);
	pg_atomic_fetch_sub_u32(&after->left, 1);
	look_at(after, more);
	loky_after_unref(after);
}

/* Take the first edge of the list, or NULL. */
static LokySharedEdge *
take_edge(LokyEdgeList *list)
{
	LokySharedEdge *edge = list->first;

	if (edge != NULL)
		list->first = edge->next;
	return edge;
}

/* Follow all edges of tasks that have ended.  No lock is held. */
void
loky_after_follow(LokyAftermath *aftermath)
{
	LokySharedEdge *edge;

	for (;;)
	{
		if ((edge = take_edge(&aftermath->met)) != NULL)
			follow(edge, true, aftermath);
		else if ((edge = take_edge(&aftermath->unmet)) != NULL)
			follow(edge, false, aftermath);
		else
			break;
	}
}

/*
 * The task is queued: from now on the ends of others count.  What follows from
 * those that came before is done here.
 */
void
loky_after_arm(LokySharedAfter *after)
{
	LokyAftermath more = LOKY_NO_AFTERMATH;

	pg_atomic_fetch_sub_u32(&after->left, 1);
	look_at(after, &more);
	loky_after_unref(after);
	loky_end_conclude(&more);
}
