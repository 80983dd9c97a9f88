/*-------------------------------------------------------------------------
 *
 * settle.c
 *	  What becomes of the work of a worker that is gone.
 *
 * Exactly one place decides what a dead worker's task or items come to, by the
 * marks that the worker has left in its slot:
 * 	  final commit done			succeeded
 * 	  taken but not begun		back to the queue
 * 	  begun						pending again, where it has attempts left
 * 	  anything else				failed, with LK001, or LK003 if ended on purpose
 * So nothing is lost, and nothing that was committed is run again.
 *
 * Failure
 * -------
 * The errors are encoded before anything is changed, and nothing is allocated after
 * that but in shared memory, where there may be none.  So where memory runs out the
 * worker is as if nobody had begun to settle it, and the launcher does so.
 *
 * Locking
 * -------
 * Everything here needs the lock of the worker's executor, but for
 * loky_settle_fails_run and loky_settle_drop.  Files are not removed under it where
 * they may be large.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/settle.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/timestamp.h"

#include "area.h"
#include "debug_point.h"
#include "errdata.h"
#include "history.h"
#include "map_part.h"
#include "pool.h"
#include "sched.h"

/* Starts that may fail in a row before what is pending fails too. */
#define MAX_FAILED_STARTS	5

/* Pause after the first failed start; doubles with each further one. */
#define FAILED_START_PAUSE_MS	100

/*
 * The error of a task or item whose worker ended while it ran it, encoded, as items
 * have theirs: behind a number.
 */
static void
encode_death(StringInfo buf, LokySharedWorker *worker)
{
	ErrorData	edata = {0};
	uint64		item = 0;

	appendBinaryStringInfo(buf, (const char *) &item, sizeof(item));
	edata.elevel = ERROR;
	if (worker->kill)
	{
		edata.sqlerrcode = ERRCODE_LOKY_SHUTDOWN_EXECUTOR;
		edata.message = "worker was ended while it ran the task";
		edata.detail = psprintf("The worker with PID %d was ended on purpose.",
								worker->pid);
		edata.hint = "Submit the task again.";
	}
	else
	{
		edata.sqlerrcode = ERRCODE_LOKY_TERMINATED_WORKER;
		edata.message = "worker terminated while it ran the task";
		edata.detail = worker->last_words[0] != '\0' ?
			psprintf("The worker with PID %d ended: %s", worker->pid,
					 worker->last_words) :
			psprintf("The worker with PID %d ended without a word.",
					 worker->pid);
		edata.hint = "Only this task is affected. See the server log for more.";
	}
	loky_error_encode(buf, &edata);
}

/* The error of what is pending when the initializer has failed, encoded. */
void
loky_settle_encode_broken(StringInfo buf, const char *detail,
						  const char *context)
{
	ErrorData	edata = {0};

	edata.elevel = ERROR;
	edata.sqlerrcode = ERRCODE_LOKY_BROKEN_EXECUTOR;
	edata.message = "the executor's initializer failed";
	edata.detail = unconstify(char *, detail);
	edata.hint = "Mend the cause: the next loky.get_reusable_executor() or submit starts afresh.";
	edata.context = unconstify(char *, context);
	loky_error_encode(buf, &edata);
}

/* The error of what is pending if the worker was the last that was tried, encoded. */
static void
encode_failed_start(StringInfo buf, LokySharedWorker *worker)
{
	ErrorData	edata = {0};

	if (worker->phase == LOKY_PHASE_INITIALIZING)
	{
		loky_settle_encode_broken(buf,
								  psprintf("The worker with PID %d, which ran it, ended: %s",
										   worker->pid,
										   worker->last_words[0] != '\0' ?
										   worker->last_words : "no reason is known"),
								  NULL);
		return;
	}
	edata.elevel = ERROR;
	edata.sqlerrcode = ERRCODE_LOKY_BROKEN_EXECUTOR;
	edata.message = "no worker can be started";
	edata.detail = worker->last_words[0] != '\0' ?
		psprintf("The last attempt ended: %s", worker->last_words) :
		pstrdup("The last attempt ended before the worker was ready.");
	edata.hint = "See the server log, and submit again once the cause is mended.";
	loky_error_encode(buf, &edata);
}

/* The error of what is pending when the executor's role has been dropped, encoded. */
void
loky_settle_encode_roleless(StringInfo buf, Oid role)
{
	ErrorData	edata = {0};

	edata.elevel = ERROR;
	edata.sqlerrcode = ERRCODE_LOKY_BROKEN_EXECUTOR;
	edata.message = "the role of the executor does not exist any more";
	edata.detail = psprintf("The role with OID %u was dropped while this was pending.",
							role);
	edata.hint = "Submit it again as another role.";
	loky_error_encode(buf, &edata);
}

/*
 * Everything pending fails with the encoded error, which is kept for those who
 * read maps.
 */
static void
fail_all(LokySharedExecutor *executor, const char *error, Size len,
		 LokyAftermath *after)
{
	dsa_pointer copy = loky_area_alloc(len);
	dlist_iter	iter;

	if (DsaPointerIsValid(copy))
	{
		memcpy(loky_area_address(copy), error, len);
		if (DsaPointerIsValid(executor->error))
			loky_area_free(executor->error);
		executor->error = copy;
		executor->error_len = (uint32) len;
	}
	loky_stop_pending(executor, LOKY_TASK_FAILED,
					  ERRCODE_LOKY_BROKEN_EXECUTOR, error, len, after);
	dlist_foreach(iter, &executor->maps)
	{
		LokySharedMap *map = dlist_container(LokySharedMap, node, iter.cur);

		/* the reader sees to the rest */
		loky_map_end(map, LOKY_MAP_BROKEN);
		loky_wake(map->reader);
	}
}

/*
 * The executor cannot go on, for the reason in this encoded error: what is pending
 * fails, what runs is left to end.
 */
void
loky_settle_break(LokySharedExecutor *executor, const char *error, Size len,
				  LokyAftermath *after)
{
	Assert(LWLockHeldByMeInMode(&executor->lock, LW_EXCLUSIVE));
	if (executor->state == LOKY_EXECUTOR_OPEN ||
		executor->state == LOKY_EXECUTOR_CLOSING)
		executor->state = LOKY_EXECUTOR_BROKEN;
	fail_all(executor, error, len, after);
}

/* A worker that ended before it was ready: pause, or give up with the error. */
static void
settle_failed_start(LokySharedExecutor *executor, LokySharedWorker *worker,
					bool stopped, const StringInfo error, LokyAftermath *after)
{
	executor->nstarting--;
	if (stopped)
		return;
	if (worker->phase == LOKY_PHASE_INITIALIZING)
	{
		loky_settle_break(executor, error->data, error->len, after);
		return;
	}
	executor->failed_starts = Min(executor->failed_starts + 1,
								  MAX_FAILED_STARTS);
	executor->next_start =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									FAILED_START_PAUSE_MS <<
									executor->failed_starts);

	/* this one is still counted; others that are ready go on with what waits */
	if (executor->failed_starts < MAX_FAILED_STARTS ||
		executor->nworkers - 1 - executor->nstarting > 0)
		return;
	fail_all(executor, error->data, error->len, after);
	executor->failed_starts = 0;
}

/* What becomes of the task that the dead worker had. */
static void
settle_task(LokySharedExecutor *executor, LokySharedWorker *worker,
			const StringInfo error, LokyAftermath *after)
{
	LokySharedTask *task = worker->task;
	TimestampTz now = GetCurrentTimestamp();
	int			sqlstate = worker->kill ? ERRCODE_LOKY_SHUTDOWN_EXECUTOR :
		ERRCODE_LOKY_TERMINATED_WORKER;

	worker->task = NULL;
	executor->nrunning--;
	if (worker->phase == LOKY_PHASE_COMMITTED)
	{
		loky_history_task(worker, task, LOKY_TASK_SUCCEEDED, task->rows, now);
		loky_end_task(executor, task, LOKY_TASK_SUCCEEDED, 0, after);
		return;
	}
	if (pg_atomic_read_u32(&task->verdict) == LOKY_VERDICT_CANCEL)
	{
		loky_history_task(worker, task, LOKY_TASK_CANCELLED, 0, now);
		loky_store_free(&task->result);
		loky_end_task(executor, task, LOKY_TASK_CANCELLED, 0, after);
		return;
	}
	if (worker->phase == LOKY_PHASE_TAKEN && !worker->kill)
	{
		loky_task_set_state(task, LOKY_TASK_PENDING);
		task->attempts--;
		task->worker = 0;
		loky_queue_push_front(executor, task);
		return;
	}
	loky_history_task(worker, task, LOKY_TASK_FAILED, 0, now);
	if (worker->kill ||
		!loky_gate_again(executor, task, worker->phase, sqlstate, after))
	{
		loky_store_set(&task->result, LOKY_RECORD_ERROR,
					   error->data + sizeof(uint64),
					   error->len - sizeof(uint64));
		loky_end_task(executor, task, LOKY_TASK_FAILED, sqlstate, after);
	}
}

/*
 * What becomes of the items that the dead worker had.  Returns their map if nobody
 * has it any more.
 */
static LokySharedMap *
settle_items(LokySharedExecutor *executor, LokySharedWorker *worker,
			 const StringInfo error)
{
	LokySharedMap *map = worker->map;
	LokySharedPart *part = loky_map_known_part(map, worker->index);

	if (part != NULL)
	{
		TimestampTz start = part->run.start;

		loky_map_settle(map, part, worker, error->data, error->len);
		if (start != 0)
			loky_history_end_range(worker, part,
								   Max(GetCurrentTimestamp() - start, 0));
		loky_sched_count_items(executor, worker);
	}
	worker->map = NULL;
	return loky_map_detach(map) ? map : NULL;
}

/*
 * Will what the worker, which is gone, has begun be settled as failed or
 * cancelled?  No lock is needed, since only the worker writes what tells it.
 */
bool
loky_settle_fails_run(LokySharedWorker *worker)
{
	LokySharedPart *part;

	if (worker->exited)
		return false;
	if (worker->task != NULL)
		return worker->phase == LOKY_PHASE_BEGUN ||
			worker->phase == LOKY_PHASE_WROTE;
	part = worker->map != NULL ?
		loky_map_known_part(worker->map, worker->index) : NULL;
	return part != NULL && part->running && !part->committed;
}

/*
 * Free what the worker, which is gone, has written of a result that will not be.  No
 * lock is needed: it is the worker's own, as long as that is not settled.
 */
void
loky_settle_drop(LokySharedWorker *worker)
{
	if (worker->task != NULL)
		loky_store_free(&worker->task->result);
	else
		loky_store_free(&loky_map_known_part(worker->map, worker->index)->store);
}

/*
 * Settle all that the worker had.  Returns a map that is to be freed once the lock is
 * released, or NULL.
 */
LokySharedMap *
loky_settle_worker(LokySharedExecutor *executor, LokySharedWorker *worker,
				   LokyAftermath *after)
{
	StringInfoData death;
	StringInfoData failed_start;	/* empty: it was no start */
	LokySharedMap *map = NULL;
	bool		stopped;

	Assert(LWLockHeldByMeInMode(&executor->lock, LW_EXCLUSIVE));
	Assert(!worker->exited);
	initStringInfo(&death);
	initStringInfo(&failed_start);
	encode_death(&death, worker);
	if (worker->state == LOKY_WORKER_STARTING)
		encode_failed_start(&failed_start, worker);
	loky_debug_point("settling");

	stopped = worker->stop;
	loky_sched_set_absent(worker, false, false);
	worker->exited = true;
	if (worker->state == LOKY_WORKER_IDLE)
	{
		dlist_delete(&worker->node);
		executor->nidle--;
	}
	else if (worker->state == LOKY_WORKER_STARTING)
		settle_failed_start(executor, worker, stopped, &failed_start, after);
	else if (pg_atomic_read_u32(&worker->woken) != 0)
	{
		executor->nwaking--;
		pg_atomic_write_u32(&worker->woken, 0);
	}
	if ((worker->task != NULL || worker->map != NULL) && !worker->kill)
		executor->restarts++;
	if (worker->task != NULL)
		settle_task(executor, worker, &death, after);
	if (worker->map != NULL)
		map = settle_items(executor, worker, &death);
	worker->state = LOKY_WORKER_STOPPING;
	executor->nworkers--;
	loky_executor_strengthen(executor, -1);
	pfree(death.data);
	pfree(failed_start.data);
	return map;
}
