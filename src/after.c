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
 * and not by recursion.
 *
 * A callback waits in the same way, whatever the outcome.  Besides, the callbacks of a
 * future that have not ended stand in its line, and only the first one may go on.  Each
 * leaves the line when it ends, wherever it stands then, or when it is not queued after
 * all; an edge from it to itself has whoever ends it see to that.
 *
 * Edges are linked while the waiting task is still being prepared, each under the
 * lock under which its other end was found not to be done, so that no end is
 * missed.  Until the submitter has queued the task it counts as one more that has
 * to end: nobody else acts on a task that cannot be found yet.
 *
 * Locking
 * -------
 * The edges of a task are under its executor's lock.  What is left is counted by
 * atomics, as the tasks that end may be those of several executors.  A line has a
 * spinlock for the same reason.
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
#include "storage/spin.h"

#include "after.h"
#include "area.h"
#include "errdata.h"

static void
raise_full(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of shared memory for what a task is to run after"),
			 errhint("Raise loky.shared_memory, or forget finished futures with loky.forget().")));
}

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
		raise_full();
	after = loky_area_address(dp);
	after->self = dp;
	pg_atomic_init_u32(&after->refs, 2);
	pg_atomic_init_u32(&after->left, 1);
	pg_atomic_init_u64(&after->failed, 0);
	after->dependant = dependant;
	after->whatever = whatever;
	after->line = NULL;
	after->n = 0;
	return after;
}

/* One reference less; the last one frees it. */
void
loky_after_unref(LokySharedAfter *after)
{
	if (pg_atomic_sub_fetch_u32(&after->refs, 1) > 0)
		return;
	if (after->line != NULL)
		loky_after_unref_line(after->line);
	loky_area_free(after->self);
}

/*
 * An empty line with one reference, which is the caller's.  Raises an error where the
 * area is full.
 */
LokySharedLine *
loky_after_create_line(void)
{
	dsa_pointer dp = loky_area_alloc(sizeof(LokySharedLine));
	LokySharedLine *line;

	if (!DsaPointerIsValid(dp))
		raise_full();
	line = loky_area_address(dp);
	line->self = dp;
	pg_atomic_init_u32(&line->refs, 1);
	SpinLockInit(&line->mutex);
	dlist_init(&line->callbacks);
	return line;
}

/* One reference less; the last one frees the line. */
void
loky_after_unref_line(LokySharedLine *line)
{
	if (pg_atomic_sub_fetch_u32(&line->refs, 1) == 0)
		loky_area_free(line->self);
}

/*
 * The task, a callback that waits in this way, is the last one in the line.  The lock of
 * the future's executor is held.
 */
void
loky_after_join_line(LokySharedAfter *after, LokySharedLine *line,
					 LokySharedTask *task)
{
	Assert(task->edges == NULL && after->whatever);
	pg_atomic_fetch_add_u32(&line->refs, 1);
	after->line = line;
	after->own.next = NULL;
	after->own.after = after;
	after->own.dependency = after->dependant;
	task->edges = &after->own;
	task->last_edge = &after->own;

	/* one for that edge, and one for the place */
	pg_atomic_fetch_add_u32(&after->refs, 2);
	SpinLockAcquire(&line->mutex);
	if (!dlist_is_empty(&line->callbacks))
		pg_atomic_fetch_add_u32(&after->left, 1);
	dlist_push_tail(&line->callbacks, &after->place);
	SpinLockRelease(&line->mutex);
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

/*
 * The ids of the tasks that must end first, as far as they are known at this moment;
 * there is room for one more than after->n.  Returns their number.
 */
int
loky_after_dependencies(LokySharedAfter *after, uint64 *ids)
{
	LokySharedLine *line = after->line;
	int			n = 0;

	for (; n < after->n; n++)
		ids[n] = after->edges[n].dependency;
	if (line == NULL)
		return n;

	/* nobody else in the line can have begun */
	SpinLockAcquire(&line->mutex);
	if (!dlist_is_empty(&line->callbacks))
	{
		LokySharedAfter *first =
			dlist_head_element(LokySharedAfter, place, &line->callbacks);

		if (first != after)
			ids[n++] = first->dependant;
	}
	SpinLockRelease(&line->mutex);
	return n;
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

/* The callback leaves its line.  If it was the first, let the next one go on. */
static void
leave_line(LokySharedAfter *after, LokyAftermath *more)
{
	LokySharedLine *line = after->line;
	LokySharedAfter *next = NULL;
	bool		first;

	SpinLockAcquire(&line->mutex);
	first = dlist_head_node(&line->callbacks) == &after->place;
	dlist_delete(&after->place);
	if (first && !dlist_is_empty(&line->callbacks))
	{
		next = dlist_head_element(LokySharedAfter, place, &line->callbacks);
		pg_atomic_fetch_add_u32(&next->refs, 1);
	}
	SpinLockRelease(&line->mutex);
	if (next != NULL)
	{
		pg_atomic_fetch_sub_u32(&next->left, 1);
		look_at(next, more);
		loky_after_unref(next);
	}
	loky_after_unref(after);
}

/* A task has ended from which this edge leads. */
static void
follow(LokySharedEdge *edge, bool succeeded, LokyAftermath *more)
{
	LokySharedAfter *after = edge->after;

	if (edge == &after->own)
		leave_line(after, more);
	else
	{
		if (!succeeded)
			loky_after_fail(after, edge->dependency);
		pg_atomic_fetch_sub_u32(&after->left, 1);
		look_at(after, more);
	}
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

/* The task will never be queued, so it is never armed, nor does it end. */
void
loky_after_drop(LokySharedAfter *after)
{
	LokyAftermath more = LOKY_NO_AFTERMATH;

	if (after->line != NULL)
	{
		leave_line(after, &more);
		loky_after_unref(after);	/* its own edge */
	}
	loky_after_unref(after);
	loky_end_conclude(&more);
}
