/*-------------------------------------------------------------------------
 *
 * submission.c
 *	  Submitting tasks.
 *
 * Any backend can submit, a worker that runs a task included.  A task is claimed,
 * and all that can fail is written to it, before anybody can see it; then it is
 * queued, together with others of the same call.  What is claimed is given back by
 * held.c should anything fail before.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/submission.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "after.h"
#include "client.h"
#include "debug_point.h"
#include "errdata.h"
#include "guc.h"
#include "held.h"
#include "key.h"
#include "pledge.h"
#include "read_only.h"
#include "sched.h"
#include "settings.h"
#include "submission.h"
#include "worker.h"

/*
 * The depth of what is submitted here.  Raises LK005 where that is too deep.
 */
int
loky_submission_next_depth(void)
{
	int			depth = LokyMyDepth + 1;

	if (loky_max_depth > 0 && depth > loky_max_depth)
		ereport(ERROR,
				(errcode(ERRCODE_LOKY_MAX_DEPTH),
				 errmsg("tasks are nested too deep"),
				 errdetail("A task at depth %d cannot submit another one.",
						   LokyMyDepth),
				 errhint("Raise loky.max_depth.")));
	return depth;
}

/* the job reducers that were used last, of the executor with this id */
static LokyReducers *kept_reducers = NULL;
static int	kept_id = 0;

/*
 * The job reducers of the executor, or NULL.  They are the caller's until it gives
 * them back, or its transaction ends: a reducer may itself submit, and so come here
 * again.
 */
LokyReducers *
loky_submission_take_reducers(LokyExecutorRef ref)
{
	LokyReducers *reducers = kept_reducers;
	LokyConfig *config;
	const char *part;
	Size		len;
	int			max_workers;
	bool		has_some;

	loky_debug_point("resolved");
	if (ref.id == kept_id)
	{
		kept_id = 0;
		kept_reducers = NULL;
		loky_reduce_leave_to(reducers, TopTransactionContext);
		return reducers;
	}

	/* with that id after it was read, it was that executor's */
	has_some = ref.executor->has_job_reducers;
	pg_read_barrier();
	if (!has_some && ref.executor->id == ref.id)
		return NULL;
	config = loky_executor_copy_config(ref.id, &max_workers);
	if (config == NULL)
		return NULL;
	part = loky_config_part(config, LOKY_CONFIG_JOB_REDUCERS, &len);
	reducers = loky_reduce_create(part, len);
	pfree(config);
	if (reducers != NULL)
		loky_reduce_leave_to(reducers, TopTransactionContext);
	return reducers;
}

/* The caller needs the reducers of this executor no longer. */
void
loky_submission_keep_reducers(LokyExecutorRef ref, LokyReducers *reducers)
{
	Assert(reducers != NULL);
	if (kept_reducers != NULL)
		loky_reduce_free(kept_reducers);
	loky_reduce_leave_to(reducers, TopMemoryContext);
	kept_reducers = reducers;
	kept_id = ref.id;
}

/* The task fails, with this error, as soon as it is submitted. */
static void
write_error(LokySharedTask *task, const ErrorData *error)
{
	StringInfoData buf;

	initStringInfo(&buf);
	loky_error_encode(&buf, error);
	loky_store_set(&task->result, LOKY_RECORD_ERROR, buf.data, buf.len);
	task->sqlstate = error->sqlerrcode;
	pfree(buf.data);
}

/*
 * The tag of what runs here, by which those of its tasks are found that are to
 * go with it; 0 in a session.
 */
static uint64
present_tag(void)
{
	if (LokyMyWorker == NULL)
		return 0;
	if (LokyMyWorker->tag == 0)
		LokyMyWorker->tag = pg_atomic_fetch_add_u64(&loky->next_tag, 1);
	return LokyMyWorker->tag;
}

/* Have the task wait for the futures after which it is to run. */
static void
link_after(LokySharedTask *task, const LokySubmission *submission)
{
	task->after = loky_after_create(loky_task_reserved_id(task),
									submission->nafter, false);
	for (int i = 0; i < submission->nafter; i++)
	{
		int64		id = submission->after[i];
		LokySharedTask *dependency;

		CHECK_FOR_INTERRUPTS();
		if (loky_pledge_was_dropped((uint64) id))
		{
			loky_after_fail(task->after, (uint64) id);
			continue;
		}
		dependency = loky_client_find(id, false);
		loky_after_link(task->after, dependency);
		LWLockRelease(&loky_task_executor(dependency)->lock);
	}
}

/*
 * Have the callback wait for the end of its future, and for its turn among those that
 * were added before.  It is not taken along by what has added it, as it is to run
 * whatever becomes of that.
 */
static void
link_callback(LokySharedTask *task, int64 future)
{
	LokySharedTask *dependency;

	task->parent = 0;
	task->after = loky_after_create(loky_task_reserved_id(task), 1, true);
	dependency = loky_client_find(future, false);
	if (dependency->line == NULL)
		dependency->line = loky_after_create_line();
	loky_after_link(task->after, dependency);
	loky_after_join_line(task->after, dependency->line, task);
	LWLockRelease(&loky_task_executor(dependency)->lock);
}

/* What the task is to wait for besides a worker, and how it is to be run. */
static void
write_options(LokySharedTask *task, const LokySubmission *submission)
{
	task->priority = submission->priority;
	task->timeout = submission->timeout;
	task->retries = submission->retries;
	task->discard = submission->discard;
	task->delay = submission->delay;
	if (submission->key != NULL)
	{
		task->key = loky_key_hash(submission->key);
		task->key_limit = submission->key_limit;
	}
	if (submission->on_commit)
	{
		loky_pledge_reserve();
		task->pledged = true;
	}
	if (submission->nafter > 0)
		link_after(task, submission);
	else if (submission->callback_of != 0)
		link_callback(task, submission->callback_of);
	task->gated = task->pledged || task->after != NULL || task->delay > 0 ||
		task->key != 0;
}

/*
 * Claim a task and write its request.  It is linked into claimed, and given
 * back should anything fail before it is queued.
 */
LokySharedTask *
loky_submission_prepare(const LokySubmission *submission, LokyExecutorRef ref)
{
	LokySharedTask *task;
	LokyRequest request = {0};

	if (!loky_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("loky accepts no tasks at present"),
				 errhint("The setting loky.enabled is off.")));
	request.depth = loky_submission_next_depth();
	while ((task = loky_task_claim(ref.executor, ref.id)) == NULL)
		ref = loky_executor_resolve(ref.id);
	loky_held_claim(task);

	task->database = MyDatabaseId;
	task->role = GetUserId();
	task->submitter = MyProcPid;
	task->session = loky_session_id();
	task->parent = present_tag();

	request.texts[LOKY_TEXT_SQL] = submission->callable->sql;
	request.texts[LOKY_TEXT_TASK] = submission->task;
	request.texts[LOKY_TEXT_LABEL] = submission->label;
	request.texts[LOKY_TEXT_KEY] = submission->key;
	request.texts[LOKY_TEXT_RETRY_ON] = submission->retry_on;
	request.hash = submission->callable->hash;
	request.nargs = submission->nargs;
	request.types = submission->types;
	request.values = submission->values;
	request.nulls = submission->nulls;
	request.read_only = loky_read_only_is_due();
	request.env = loky_settings_capture();
	loky_request_write(&task->request, &request);
	if (submission->error != NULL)
		write_error(task, submission->error);
	write_options(task, submission);
	return task;
}

/*
 * Queue the tasks that were prepared, all at once.  An executor that has been
 * shut down meanwhile is replaced by an equal one.
 *
 * Interrupts are held on return.  The caller resumes them when all that must be done
 * for the tasks is: they are not ours to release any more, and may have ended.
 */
static void
publish(LokySharedTask **tasks, int ntasks, LokyExecutorRef ref,
		LokyAftermath *aftermath)
{
	for (;;)
	{
		HOLD_INTERRUPTS();
		if (loky_sched_submit(ref.executor, ref.id, tasks, ntasks, aftermath))
			break;
		RESUME_INTERRUPTS();
		ref = loky_executor_resolve(ref.id);
		for (int i = 0; i < ntasks; i++)
			tasks[i]->executor = ref.executor->slot;
	}
	loky_held_queued();
}

/* Queue the tasks that were prepared, all at once; see publish. */
void
loky_submission_queue(LokySharedTask **tasks, int ntasks, LokyExecutorRef ref)
{
	LokyAftermath aftermath = LOKY_NO_AFTERMATH;

	publish(tasks, ntasks, ref, &aftermath);
	loky_end_conclude(&aftermath);
	RESUME_INTERRUPTS();
}

/*
 * Prepare and queue one task, of any kind.  Returns its future.
 */
int64
loky_submission_submit(const LokySubmission *submission, LokyExecutorRef ref)
{
	LokySharedTask *task = loky_submission_prepare(submission, ref);
	uint64		id = loky_task_reserved_id(task);
	LokySharedAfter *after = task->after;
	LokyAftermath aftermath = LOKY_NO_AFTERMATH;

	loky_debug_point("prepared");

	/* once it is queued it may end, and be freed, at any moment */
	publish(&task, 1, ref, &aftermath);
	if (submission->on_commit)
		loky_pledge_add(id);
	if (after != NULL)
		loky_after_arm(after);
	loky_end_conclude(&aftermath);
	RESUME_INTERRUPTS();
	return (int64) id;
}
