/*-------------------------------------------------------------------------
 *
 * api_result.c
 *	  The SQL functions that return the rows of a task.
 *
 * Both return one value for each call.  What is read stays as long as the query
 * wants rows: result() pins the finished task, run() owns its task and frees it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_result.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "api.h"
#include "client.h"
#include "compat.h"
#include "errdata.h"
#include "held.h"
#include "reader.h"
#include "request.h"
#include "submission.h"

LOKY_FUNCTION(loky_result);
LOKY_FUNCTION(loky_run);

/* The state of reading a result, row by row. */
typedef struct ResultReader
{
	int64		id;
	LokySharedTask *task;		/* kept from being freed; NULL: closed */
	ResourceOwner owner;		/* ... with this one */
	bool		run;			/* the task goes when it has been read */
	LokyTaskState state;
	LokyStoreReader *store;		/* NULL until it is there */
	LokyRowReader *rows;
} ResultReader;

/* What makes ready to return a result: it is there, and store is open. */
typedef ResultReader *(*OpenReader) (FunctionCallInfo fcinfo);

/* The query needs no more rows. */
static void
close_reader(Datum arg)
{
	ResultReader *reader = (ResultReader *) DatumGetPointer(arg);
	LokySharedTask *task = reader->task;

	if (reader->store != NULL)
		loky_store_close(reader->store);
	if (reader->run)
		loky_held_close_task(task);
	else
		loky_held_unpin(task, reader->owner);
}

/* Raise the error that a failed task has left in its result. */
static void
raise_task_error(int64 id, const char *data, Size len)
{
	char		where[64];

	snprintf(where, sizeof(where), "loky task " INT64_FORMAT, id);
	loky_error_rethrow(loky_error_decode(data, len), where);
}

/*
 * The next row of the result; false at its end.  Notices are raised on the way,
 * and the error of a failed task.
 */
static bool
next_row(ResultReader *reader, Datum *value, bool *isnull)
{
	LokyRecordKind kind;
	char	   *data;
	Size		len;

	while (loky_store_next(reader->store, &kind, &data, &len))
	{
		switch (kind)
		{
			case LOKY_RECORD_DESC:
				loky_reader_set_desc(reader->rows, data, len);
				break;
			case LOKY_RECORD_NOTICE:
				loky_notice_raise(data, len);
				break;
			case LOKY_RECORD_ERROR:
				raise_task_error(reader->id, data, len);
				break;
			case LOKY_RECORD_ROW:
				*value = loky_reader_row(reader->rows, data, isnull);
				return true;
			case LOKY_RECORD_COMMAND:
				*value = loky_reader_command(reader->rows, data, isnull);
				return true;
		}
	}
	if (reader->state == LOKY_TASK_CANCELLED)
		loky_api_raise_cancelled(reader->id);
	if (reader->state == LOKY_TASK_FAILED)
		ereport(ERROR,
				(errcode(reader->task->sqlstate),
				 errmsg("task of future " INT64_FORMAT " failed", reader->id),
				 errdetail("There was no memory to keep its error.")));
	return false;
}

/* All rows of the task go to the table. */
static Datum
fill_table(FunctionCallInfo fcinfo, LokyApiTable *table, OpenReader open_reader)
{
	ExprContext *econtext = ((ReturnSetInfo *) fcinfo->resultinfo)->econtext;
	ResultReader *reader;
	Datum		value = (Datum) 0;
	bool		isnull = true;

	MemoryContextSwitchTo(table->context);
	reader = open_reader(fcinfo);
	RegisterExprContextCallback(econtext, close_reader, PointerGetDatum(reader));
	MemoryContextSwitchTo(table->row_context);
	while (next_row(reader, &value, &isnull))
		loky_api_put_value(table, value, isnull);
	close_reader(PointerGetDatum(reader));
	UnregisterExprContextCallback(econtext, close_reader,
								  PointerGetDatum(reader));
	loky_api_end_table(table);
	return (Datum) 0;
}

/*
 * Return the rows of the task, of the type that argument number type has: one for
 * each call, or a table of them where the caller takes one.
 */
static Datum
return_rows(FunctionCallInfo fcinfo, int type, OpenReader open_reader)
{
	FuncCallContext *funcctx;
	ResultReader *reader;
	ExprContext *econtext = ((ReturnSetInfo *) fcinfo->resultinfo)->econtext;
	Datum		value = (Datum) 0;
	bool		isnull = true;

	if (SRF_IS_FIRSTCALL())
	{
		LokyApiTable *table;
		MemoryContext oldcontext;

		loky_attach();
		table = loky_api_begin_table(fcinfo,
									 get_fn_expr_argtype(fcinfo->flinfo, type));
		if (table != NULL)
			return fill_table(fcinfo, table, open_reader);
		funcctx = SRF_FIRSTCALL_INIT();
		oldcontext = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		reader = open_reader(fcinfo);
		RegisterExprContextCallback(econtext, close_reader,
									PointerGetDatum(reader));
		funcctx->user_fctx = reader;
		MemoryContextSwitchTo(oldcontext);
	}
	funcctx = SRF_PERCALL_SETUP();
	reader = (ResultReader *) funcctx->user_fctx;
	if (next_row(reader, &value, &isnull))
	{
		if (isnull)
			SRF_RETURN_NEXT_NULL(funcctx);
		SRF_RETURN_NEXT(funcctx, value);
	}
	close_reader(PointerGetDatum(reader));
	UnregisterExprContextCallback(econtext, close_reader,
								  PointerGetDatum(reader));
	SRF_RETURN_DONE(funcctx);
}

/* Wait for the future in argument 0, and open its result. */
static ResultReader *
open_result(FunctionCallInfo fcinfo)
{
	ResultReader *reader = palloc0(sizeof(ResultReader));
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 1);
	LokySharedTask *task;

	reader->id = loky_api_future(fcinfo);
	if (!loky_client_wait_done(reader->id,
							   loky_client_deadline(loky_api_interval(fcinfo, 2))))
		loky_api_raise_timeout(reader->id);
	task = loky_client_find(reader->id, false);
	reader->state = (LokyTaskState) pg_atomic_read_u32(&task->state);
	loky_held_pin(task);
	reader->owner = CurrentResourceOwner;
	reader->task = task;
	reader->store = loky_store_open(&task->result);
	reader->rows = loky_reader_create(fcinfo, type, task->role);
	return reader;
}

/* result(future, result, timeout): wait, then return the task's rows. */
Datum
loky_result(PG_FUNCTION_ARGS)
{
	return return_rows(fcinfo, 1, open_result);
}

/*
 * Queue the task of a run with these arguments.  From here on it is cancelled and
 * freed with the query that has called, however that ends.
 */
static void
start_run(ResultReader *reader, char *name, LokyValues *args)
{
	LokyExecutorRef ref = loky_executor_resolve(0);
	LokySharedTask *task = loky_api_prepare(name, args, ref);

	/* nobody else may free it: not even to make room, once it has ended */
	task->pins = 1;
	loky_held_reserve();
	reader->id = (int64) loky_task_reserved_id(task);
	loky_submission_queue(&task, 1, ref);
	loky_held_own_task(task);
	reader->task = task;
}

/*
 * Cancel the task of a run that was not done in time, and raise LK004; but return
 * where its commit came first, or an error of its own.
 */
static void
stop_late_run(ResultReader *reader)
{
	LokySharedTask *task = reader->task;
	uint32		state;

	loky_held_stop_task(task);
	state = pg_atomic_read_u32(&task->state);
	if (state == LOKY_TASK_SUCCEEDED || state == LOKY_TASK_FAILED)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_TIMEOUT),
			 errmsg("task was not done in time"),
			 errdetail("It has been cancelled."),
			 errhint("Raise the timeout, or submit the task and come back for its result.")));
}

/* Submit the task in argument 0, wait for it, and open its result. */
static ResultReader *
open_run(FunctionCallInfo fcinfo)
{
	ResultReader *reader = palloc0(sizeof(ResultReader));
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 2);
	TimestampTz deadline =
		loky_client_deadline(loky_api_interval(fcinfo, 3));
	LokyValues	args;
	char	   *name;

	loky_client_check_context();
	name = loky_api_text(fcinfo, 0, "task");
	loky_api_record(fcinfo, 1, "args", &args);
	reader->run = true;
	reader->rows = loky_reader_create(fcinfo, type, GetUserId());
	start_run(reader, name, &args);
	if (!loky_client_wait_task(reader->task, (uint64) reader->id, deadline))
		stop_late_run(reader);
	reader->state = (LokyTaskState) pg_atomic_read_u32(&reader->task->state);

	/* what the worker has written before the state is seen from here on */
	pg_read_barrier();
	reader->store = loky_store_open(&reader->task->result);
	return reader;
}

/* run(task, args, result, timeout): run a task, return its rows, forget it. */
Datum
loky_run(PG_FUNCTION_ARGS)
{
	return return_rows(fcinfo, 2, open_run);
}
