/*-------------------------------------------------------------------------
 *
 * api_stat.c
 *	  The set-returning functions behind the views.
 *
 * What is shown is copied under the lock of one executor at a time; names are
 * looked up in the catalogs afterwards, under no lock.  Texts and errors of
 * roles whose rights the reader lacks are left out.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_stat.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "api.h"
#include "area.h"
#include "client.h"
#include "compat.h"
#include "errdata.h"
#include "map.h"
#include "request.h"
#include "worker_memory.h"

LOKY_FUNCTION(loky_executor_rows);
LOKY_FUNCTION(loky_worker_rows);
LOKY_FUNCTION(loky_task_rows);
LOKY_FUNCTION(loky_memory_used);

#define MAX_COLUMNS	20

/* A row that is being put together. */
typedef struct Row
{
	int			n;
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
} Row;

static void
add_null(Row *row)
{
	row->values[row->n] = (Datum) 0;
	row->nulls[row->n++] = true;
}

static void
add(Row *row, Datum value)
{
	row->values[row->n] = value;
	row->nulls[row->n++] = false;
}

static void
add_text(Row *row, const char *text)
{
	if (text == NULL)
		add_null(row);
	else
		add(row, CStringGetTextDatum(text));
}

static void
add_name(Row *row, const char *name)
{
	if (name == NULL)
		add_null(row);
	else
		add(row, DirectFunctionCall1(namein, CStringGetDatum(name)));
}

static void
add_time(Row *row, TimestampTz time)
{
	if (time == 0)
		add_null(row);
	else
		add(row, TimestampTzGetDatum(time));
}

static void
put(FunctionCallInfo fcinfo, Row *row)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row->values,
						 row->nulls);
}

/* May the present role read texts of this one? */
bool
loky_api_may_read(Oid role)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		has_privs_of_role(GetUserId(), role);
}

static const char *
executor_state_name(LokyExecutorState state)
{
	switch (state)
	{
		case LOKY_EXECUTOR_OPEN:
			return "open";
		case LOKY_EXECUTOR_CLOSING:
			return "closing";
		case LOKY_EXECUTOR_BROKEN:
			return "broken";
		default:
			return "closed";
	}
}

/* A row for each executor that can still run something. */
Datum
loky_executor_rows(PG_FUNCTION_ARGS)
{
	loky_attach();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *shared = &loky->executors[i];
		LokySharedExecutor executor;
		Row			row = {0};

		LWLockAcquire(&shared->lock, LW_SHARED);
		memcpy(&executor, shared, sizeof(executor));
		LWLockRelease(&shared->lock);
		if (executor.state == LOKY_EXECUTOR_FREE ||
			executor.state == LOKY_EXECUTOR_CLOSED)
			continue;
		add(&row, Int32GetDatum(executor.id));
		add_name(&row, get_database_name(executor.database));
		add_name(&row, GetUserNameFromId(executor.role, true));
		add_text(&row, "bgworker");
		add(&row, Int32GetDatum(executor.max_workers));
		add(&row, Int32GetDatum(executor.nworkers));
		add(&row, Int32GetDatum(executor.nidle + executor.nwaking));
		add(&row, Int64GetDatum(executor.npending + executor.ngated +
								executor.npledged));
		add(&row, Int64GetDatum(executor.nrunning));
		add(&row, Int64GetDatum((int64) executor.succeeded));
		add(&row, Int64GetDatum((int64) executor.failed));
		add(&row, Int64GetDatum((int64) executor.cancelled));
		if (executor.timeout < 0)
			add_null(&row);
		else
			add(&row, loky_api_us_to_interval((int64) executor.timeout * 1000));
		add_text(&row, executor_state_name(executor.state));
		add_time(&row, executor.created);
		put(fcinfo, &row);
	}
	return (Datum) 0;
}

static const char *
worker_state_name(const LokySharedWorker *worker)
{
	if (worker->waiting)
		return "waiting";
	switch (worker->state)
	{
		case LOKY_WORKER_STARTING:
			return "starting";
		case LOKY_WORKER_IDLE:
			return "idle";
		case LOKY_WORKER_BUSY:
			return worker->task != NULL || worker->map != NULL ?
				"busy" : "idle";
		default:
			return "stopping";
	}
}

/* A row for each worker. */
Datum
loky_worker_rows(PG_FUNCTION_ARGS)
{
	loky_attach();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *shared = &loky->workers[i];
		LokySharedExecutor *executor = &loky->executors[shared->executor];
		LokySharedWorker worker;
		Row			row = {0};
		uint64		future = 0;
		char	   *task = NULL;
		Oid			role;
		bool		ours;
		uint64		restarts;
		int64		memory;

		LWLockAcquire(&executor->lock, LW_SHARED);
		if (shared->executor != executor->slot)
		{
			/* claimed for another executor in this moment */
			LWLockRelease(&executor->lock);
			continue;
		}
		memcpy(&worker, shared, sizeof(worker));
		role = executor->role;
		restarts = executor->restarts;

		/* texts of other databases may be in another encoding */
		ours = executor->database == MyDatabaseId;
		if (worker.task != NULL)
			future = pg_atomic_read_u64(&worker.task->id);
		if (worker.task != NULL && ours)
			task = pstrdup(loky_request_text(&worker.task->request, LOKY_TEXT_TASK));
		else if (worker.map != NULL && ours)
			task = pstrdup(loky_request_text(&worker.map->request, LOKY_TEXT_TASK));
		LWLockRelease(&executor->lock);
		if (worker.state == LOKY_WORKER_FREE || worker.pid == 0)
			continue;
		if (task != NULL && !loky_api_may_read(role))
			task = "<insufficient privilege>";
		add(&row, Int32GetDatum(worker.pid));
		add(&row, Int32GetDatum(worker.executor_id));
		add_text(&row, worker_state_name(&worker));
		if (future != 0)
			add(&row, Int64GetDatum((int64) future));
		else
			add_null(&row);
		add_text(&row, task);
		add(&row, Int64GetDatum((int64) worker.tasks_done));
		add(&row, Int64GetDatum((int64) restarts));
		memory = loky_worker_memory_of(worker.pid);
		if (memory >= 0)
			add(&row, Int64GetDatum(memory));
		else
			add_null(&row);
		add_time(&row, worker.started);
		add_time(&row, worker.last_active);
		put(fcinfo, &row);
	}
	return (Datum) 0;
}

/* What a pending task waits for, as users see it. */
static const char *
waits_name(LokyWaitsFor waits)
{
	switch (waits)
	{
		case LOKY_WAITS_NOTHING:
			break;
		case LOKY_WAITS_COMMIT:
			return "commit";
		case LOKY_WAITS_AFTER:
			return "after";
		case LOKY_WAITS_DELAY:
			return "delay";
		case LOKY_WAITS_KEY:
			return "key";
		case LOKY_WAITS_WORKER:
			return "worker";
	}
	return NULL;
}

/* The columns of a task, copied under the lock of its executor. */
static void
add_task(Row *row, LokySharedTask *task, bool readable)
{
	LokyTaskState state = (LokyTaskState) pg_atomic_read_u32(&task->state);
	ErrorData  *error = readable ? loky_task_error(task) : NULL;

	add(row, Int64GetDatum((int64) pg_atomic_read_u64(&task->id)));
	add(row, Int32GetDatum(task->executor_id));
	add_text(row, readable ? loky_request_text(&task->request, LOKY_TEXT_LABEL) : NULL);
	add_text(row, readable ? loky_request_text(&task->request, LOKY_TEXT_TASK) :
			 "<insufficient privilege>");
	add_text(row, loky_api_state_name(state));
	add(row, Int32GetDatum(task->priority));
	add_time(row, task->submitted);
	add_time(row, task->started);
	add_time(row, task->finished);
	if (task->worker != 0)
		add(row, Int32GetDatum(task->worker));
	else
		add_null(row);
	if (state == LOKY_TASK_SUCCEEDED)
		add(row, Int64GetDatum((int64) task->rows));
	else
		add_null(row);
	add_text(row, state == LOKY_TASK_FAILED && readable ?
			 unpack_sql_state(task->sqlstate) : NULL);
	add_text(row, error != NULL ? error->message : NULL);
	add_null(row);				/* role, see ROLE_COLUMN */
	add(row, Int32GetDatum(task->submitter));
	add(row, Int32GetDatum(task->attempts));
	add_text(row, readable ? loky_request_text(&task->request, LOKY_TEXT_KEY) :
			 NULL);
	add_text(row, waits_name(task->waits));
}

/* The column of add_task with the role's name, filled in without a lock. */
#define ROLE_COLUMN	13

/* Show the task in this slot, if it is one of this database. */
static void
put_task(FunctionCallInfo fcinfo, LokySharedTask *task)
{
	uint64		id = pg_atomic_read_u64(&task->id);
	Oid			role;
	bool		readable;
	Row			row = {0};

	if (id == 0 || (task = loky_task_lookup(id)) == NULL)
		return;
	role = task->role;
	if (task->database != MyDatabaseId)
	{
		LWLockRelease(&loky_task_executor(task)->lock);
		return;
	}
	LWLockRelease(&loky_task_executor(task)->lock);
	readable = loky_api_may_read(role);
	task = loky_task_lookup(id);
	if (task == NULL)
		return;
	add_task(&row, task, readable);
	LWLockRelease(&loky_task_executor(task)->lock);
	{
		char	   *name = GetUserNameFromId(role, true);

		row.nulls[ROLE_COLUMN] = name == NULL;
		if (name != NULL)
			row.values[ROLE_COLUMN] =
				DirectFunctionCall1(namein, CStringGetDatum(name));
	}
	put(fcinfo, &row);
}

/* A row for each future of this database. */
Datum
loky_task_rows(PG_FUNCTION_ARGS)
{
	loky_attach();
	InitMaterializedSRF(fcinfo, 0);
	for (int word = 0; word < loky->max_tasks / 64; word++)
	{
		if (pg_atomic_read_u64(&loky->task_map[word]) == 0)
			continue;
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < 64; i++)
			put_task(fcinfo, &loky->tasks[word * 64 + i]);
	}
	return (Datum) 0;
}

/* Bytes of loky.shared_memory that are in use. */
Datum
loky_memory_used(PG_FUNCTION_ARGS)
{
	loky_attach();
	PG_RETURN_INT64((int64) loky_area_used());
}
