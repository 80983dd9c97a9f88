/*-------------------------------------------------------------------------
 *
 * api_progress.c
 *	  SQL functions that tell of progress, and take what tasks tell of theirs.
 *
 * What is shown is copied under the lock of one executor at a time.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_progress.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api.h"
#include "map.h"
#include "progress.h"
#include "request.h"
#include "worker.h"

LOKY_FUNCTION(loky_report_progress);
LOKY_FUNCTION(loky_progress_rows);

/* Something under way, as it was when the lock was held. */
typedef struct Work
{
	int			pid;
	int			executor_id;
	Oid			role;
	char	   *task;
	char	   *message;		/* or NULL */
	int64		total;			/* -1: not known */
	int64		done;
	int64		failed;
	TimestampTz since;
} Work;

/* Write down what the worker's task, or the present item, tells. */
static void
tell(LokySharedWorker *worker, int64 done, int64 total, const char *message)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	LokySharedProgress *progress = &worker->progress;
	int			len = 0;

	if (message != NULL)
		len = pg_mbcliplen(message, (int) strlen(message),
						   LOKY_PROGRESS_MESSAGE - 1);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	progress->told = true;
	progress->since = worker->task != NULL ? worker->task->started :
		GetCurrentStatementStartTimestamp();
	progress->done = done;
	progress->total = total;
	if (len > 0)
		memcpy(progress->message, message, len);
	progress->message[len] = '\0';
	LWLockRelease(&executor->lock);
}

/*
 * report_progress(done, total, message): tell how far the present task has come.
 * Means nothing in a session or an initializer, so that functions can be tried
 * there.
 */
Datum
loky_report_progress(PG_FUNCTION_ARGS)
{
	LokySharedWorker *worker = LokyMyWorker;
	char	   *message = NULL;
	int64		done;
	int64		total;

	loky_attach();
	if (PG_ARGISNULL(0))
		loky_api_refuse_null("done");
	done = PG_GETARG_INT64(0);
	total = PG_ARGISNULL(1) ? -1 : PG_GETARG_INT64(1);
	if (done < 0 || (total < 0 && !PG_ARGISNULL(1)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("progress must not be negative"),
				 errhint("Tell how much is done, and of how much in all.")));
	if (!PG_ARGISNULL(2))
		message = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (worker != NULL && (worker->task != NULL || worker->map != NULL))
		tell(worker, done, total, message);
	PG_RETURN_VOID();
}

/* The maps of the executor.  Its lock is held. */
static List *
list_maps(LokySharedExecutor *executor, List *works)
{
	dlist_iter	iter;

	dlist_foreach(iter, &executor->maps)
	{
		LokySharedMap *map = dlist_container(LokySharedMap, node, iter.cur);
		Work	   *work = palloc0(sizeof(Work));

		work->pid = map->submitter;
		work->executor_id = map->executor_id;
		work->role = map->role;
		work->task = pstrdup(loky_request_text(&map->request, LOKY_TEXT_TASK));
		work->total = (int64) map->nitems;
		work->done = (int64) pg_atomic_read_u64(&map->published);
		work->failed = (int64) pg_atomic_read_u64(&map->nfailed);
		work->since = map->started;
		works = lappend(works, work);
	}
	return works;
}

/* What the worker's task has told.  The lock of its executor is held. */
static List *
list_worker(const LokySharedExecutor *executor, LokySharedWorker *worker,
			List *works)
{
	const LokySharedProgress *progress = &worker->progress;
	const LokySharedRequest *request;
	Work	   *work;

	if (worker->task != NULL)
		request = &worker->task->request;
	else if (worker->map != NULL)
		request = &worker->map->request;
	else
		return works;
	work = palloc0(sizeof(Work));
	work->pid = worker->pid;
	work->executor_id = worker->executor_id;
	work->role = executor->role;
	work->task = pstrdup(loky_request_text(request, LOKY_TEXT_TASK));
	if (progress->message[0] != '\0')
		work->message = pstrdup(progress->message);
	work->total = progress->total;
	work->done = progress->done;
	work->since = progress->since;
	return lappend(works, work);
}

/* All that is under way in the executor, if it is one of this database. */
static List *
list_works(LokySharedExecutor *executor)
{
	List	   *works;

	LWLockAcquire(&executor->lock, LW_SHARED);
	if (executor->id == 0 || executor->database != MyDatabaseId)
	{
		LWLockRelease(&executor->lock);
		return NIL;
	}
	works = list_maps(executor, NIL);
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->executor == executor->slot && worker->progress.told &&
			worker->state != LOKY_WORKER_FREE)
			works = list_worker(executor, worker, works);
	}
	LWLockRelease(&executor->lock);
	return works;
}

static void
put_work(ReturnSetInfo *rsinfo, const Work *work)
{
	Datum		values[9] = {0};
	bool		nulls[9] = {false};
	bool		readable = loky_api_may_read(work->role);
	TimestampTz now = GetCurrentTimestamp();
	int64		elapsed = Max(now - work->since, 0);
	int64		eta = -1;
	char	   *bar = NULL;

	values[0] = Int32GetDatum(work->pid);
	values[1] = Int32GetDatum(work->executor_id);
	loky_api_set_text(values, nulls, 2, readable ? work->task :
					  "<insufficient privilege>");
	values[3] = Int64GetDatum(work->total);
	nulls[3] = work->total < 0;
	values[4] = Int64GetDatum(work->done);
	values[5] = Int64GetDatum(work->failed);
	values[6] = loky_api_us_to_interval(elapsed);
	if (work->total >= 0)
	{
		eta = loky_progress_eta(work->done, work->total, elapsed);
		bar = loky_progress_bar(work->done, work->total);
	}
	nulls[7] = eta < 0;
	if (eta >= 0)
		values[7] = loky_api_us_to_interval(eta);
	if (readable && work->message != NULL)
		bar = bar == NULL ? work->message : psprintf("%s  %s", bar, work->message);
	loky_api_set_text(values, nulls, 8, bar);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* A row for each map of this database, and each task that tells of its progress. */
Datum
loky_progress_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	loky_attach();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < loky->nexecutors; i++)
	{
		ListCell   *lc;
		List	   *works;

		/* a hint, looked at again under the lock */
		if (loky->executors[i].id == 0 ||
			loky->executors[i].database != MyDatabaseId)
			continue;
		works = list_works(&loky->executors[i]);
		foreach(lc, works)
			put_work(rsinfo, lfirst(lc));
	}
	return (Datum) 0;
}
