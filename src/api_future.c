/*-------------------------------------------------------------------------
 *
 * api_future.c
 *	  The SQL functions on futures.
 *
 * They check their arguments and hand over to client.c and its like.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_future.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api.h"
#include "client.h"
#include "compat.h"
#include "completed.h"
#include "errdata.h"
#include "held.h"
#include "request.h"
#include "sched.h"

LOKY_FUNCTION(loky_exception);
LOKY_FUNCTION(loky_done);
LOKY_FUNCTION(loky_running);
LOKY_FUNCTION(loky_cancelled);
LOKY_FUNCTION(loky_state);
LOKY_FUNCTION(loky_cancel);
LOKY_FUNCTION(loky_wait);
LOKY_FUNCTION(loky_as_completed);
LOKY_FUNCTION(loky_forget);

/* The future's id in argument 0. */
int64
loky_api_future(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		loky_api_refuse_null("future");
	return PG_GETARG_INT64(0);
}

/* Raise the error of a future that was not done in time. */
void
loky_api_raise_timeout(int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_TIMEOUT),
			 errmsg("future " INT64_FORMAT " was not done in time", id),
			 errhint("The task goes on: ask again, or cancel it with loky.cancel().")));
}

/* Raise the error of a cancelled future. */
void
loky_api_raise_cancelled(int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_CANCELLED),
			 errmsg("future " INT64_FORMAT " was cancelled", id),
			 errhint("A cancelled task has no result; submit it again.")));
}

/* The columns of exception() out of the error that the task has left. */
static void
read_error(LokySharedTask *task, Datum *values, bool *nulls)
{
	LokyStoreReader *reader = loky_store_open(&task->result);
	LokyRecordKind kind;
	char	   *data;
	Size		len;

	loky_api_set_text(values, nulls, 0, unpack_sql_state(task->sqlstate));
	while (loky_store_next(reader, &kind, &data, &len))
	{
		ErrorData  *edata;

		if (kind != LOKY_RECORD_ERROR)
			continue;
		edata = loky_error_decode(data, len);
		loky_api_set_text(values, nulls, 1, edata->message);
		loky_api_set_text(values, nulls, 2, edata->detail);
		loky_api_set_text(values, nulls, 3, edata->hint);
		loky_api_set_text(values, nulls, 4, edata->context);
	}
	loky_store_close(reader);
}

/* exception(future, timeout): the error of a failed task, nulls otherwise. */
Datum
loky_exception(PG_FUNCTION_ARGS)
{
	Datum		values[5] = {0};
	bool		nulls[5] = {true, true, true, true, true};
	TupleDesc	desc;
	LokySharedTask *task;
	LokyTaskState state;
	int64		id;

	loky_attach();
	id = loky_api_future(fcinfo);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!loky_client_wait_done(id, loky_client_deadline(loky_api_interval(fcinfo, 1))))
		loky_api_raise_timeout(id);
	task = loky_client_find(id, false);
	state = (LokyTaskState) pg_atomic_read_u32(&task->state);
	loky_held_pin(task);
	if (state == LOKY_TASK_CANCELLED)
		loky_api_raise_cancelled(id);
	if (state == LOKY_TASK_FAILED)
		read_error(task, values, nulls);
	loky_held_unpin(task, CurrentResourceOwner);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

/* The present state of the future. */
static LokyTaskState
look_at_state(int64 id)
{
	LokySharedTask *task = loky_client_find(id, false);
	LokyTaskState state = (LokyTaskState) pg_atomic_read_u32(&task->state);

	LWLockRelease(&loky_task_executor(task)->lock);
	return state;
}

/* The name of a state, as users see it. */
const char *
loky_api_state_name(LokyTaskState state)
{
	switch (state)
	{
		case LOKY_TASK_FREE:
			break;
		case LOKY_TASK_PENDING:
			return "pending";
		case LOKY_TASK_RUNNING:
			return "running";
		case LOKY_TASK_SUCCEEDED:
			return "succeeded";
		case LOKY_TASK_FAILED:
			return "failed";
		case LOKY_TASK_CANCELLED:
			return "cancelled";
	}
	return "unknown";
}

/* done(future) */
Datum
loky_done(PG_FUNCTION_ARGS)
{
	loky_attach();
	PG_RETURN_BOOL(LokyTaskStateIsFinal(look_at_state(loky_api_future(fcinfo))));
}

/* running(future) */
Datum
loky_running(PG_FUNCTION_ARGS)
{
	loky_attach();
	PG_RETURN_BOOL(look_at_state(loky_api_future(fcinfo)) == LOKY_TASK_RUNNING);
}

/* cancelled(future) */
Datum
loky_cancelled(PG_FUNCTION_ARGS)
{
	loky_attach();
	PG_RETURN_BOOL(look_at_state(loky_api_future(fcinfo)) == LOKY_TASK_CANCELLED);
}

/* state(future) */
Datum
loky_state(PG_FUNCTION_ARGS)
{
	loky_attach();
	PG_RETURN_TEXT_P(cstring_to_text(loky_api_state_name(look_at_state(loky_api_future(fcinfo)))));
}

/* cancel(future, running) */
Datum
loky_cancel(PG_FUNCTION_ARGS)
{
	int64		id;

	loky_attach();
	loky_client_check_context();
	id = loky_api_future(fcinfo);
	if (PG_ARGISNULL(1))
		loky_api_refuse_null("running");
	PG_RETURN_BOOL(loky_cancel_task(loky_client_find(id, true),
									PG_GETARG_BOOL(1)));
}

/* forget(future): true where it was finished and is gone now. */
Datum
loky_forget(PG_FUNCTION_ARGS)
{
	LokySharedTask *task;

	loky_attach();
	task = loky_client_find(loky_api_future(fcinfo), false);
	if (!LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)))
	{
		LWLockRelease(&loky_task_executor(task)->lock);
		PG_RETURN_BOOL(false);
	}
	loky_task_free(task);
	PG_RETURN_BOOL(true);
}

static int
compare_positions(const void *a, const void *b)
{
	const int64 *ia = (const int64 *) a;
	const int64 *ib = (const int64 *) b;

	if (ia[0] != ib[0])
		return ia[0] < ib[0] ? -1 : 1;
	return ia[1] < ib[1] ? -1 : ia[1] > ib[1];
}

/*
 * The distinct ids of the array, which is the argument with this name, in the order
 * in which they first stand in it.  Returns their number.
 */
int
loky_api_ids(ArrayType *array, const char *name, int64 **ids)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			left = 0;
	int64	   *pairs;
	bool	   *repeated;

	deconstruct_array(array, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &elements, &nulls, &n);
	*ids = palloc(Max(n, 1) * sizeof(int64));
	pairs = palloc(Max(n, 1) * 2 * sizeof(int64));
	repeated = palloc0(Max(n, 1) * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			loky_api_refuse_null(name);
		pairs[2 * i] = DatumGetInt64(elements[i]);
		pairs[2 * i + 1] = i;
	}
	qsort(pairs, n, 2 * sizeof(int64), compare_positions);
	for (int i = 1; i < n; i++)
		repeated[pairs[2 * i + 1]] = pairs[2 * i] == pairs[2 * i - 2];
	for (int i = 0; i < n; i++)
	{
		if (!repeated[i])
			(*ids)[left++] = DatumGetInt64(elements[i]);
	}
	return left;
}

/* The same for futures that all exist and may be used. */
int
loky_api_futures(ArrayType *array, int64 **ids)
{
	int			n = loky_api_ids(array, "futures", ids);

	for (int i = 0; i < n; i++)
		(void) look_at_state((*ids)[i]);
	return n;
}

static LokyWaitUntil
parse_return_when(const char *text)
{
	if (pg_strcasecmp(text, "ALL_COMPLETED") == 0)
		return LOKY_UNTIL_ALL;
	if (pg_strcasecmp(text, "FIRST_COMPLETED") == 0)
		return LOKY_UNTIL_FIRST;
	if (pg_strcasecmp(text, "FIRST_EXCEPTION") == 0)
		return LOKY_UNTIL_EXCEPTION;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for argument \"return_when\": \"%s\"", text),
			 errhint("Valid values are ALL_COMPLETED, FIRST_COMPLETED and FIRST_EXCEPTION.")));
}

/* wait(futures, timeout, return_when): a row for each distinct future. */
Datum
loky_wait(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LokyWaitUntil until;
	int64	   *ids;
	int			n;

	loky_attach();
	until = parse_return_when(loky_api_text(fcinfo, 2, "return_when"));
	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	n = loky_api_futures(PG_GETARG_ARRAYTYPE_P(0), &ids);
	loky_client_wait_many(ids, n, until,
						  loky_client_deadline(loky_api_interval(fcinfo, 1)));
	for (int i = 0; i < n; i++)
	{
		LokyTaskState state = look_at_state(ids[i]);
		Datum		values[3];
		bool		nulls[3] = {false, false, false};

		values[0] = Int64GetDatum(ids[i]);
		values[1] = BoolGetDatum(LokyTaskStateIsFinal(state));
		values[2] = CStringGetTextDatum(loky_api_state_name(state));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* as_completed(futures, timeout): each distinct future as its task ends. */
Datum
loky_as_completed(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	int64		id;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext oldcontext;
		TimestampTz deadline;
		int64	   *ids = NULL;
		int			n = 0;

		loky_attach();
		deadline = loky_client_deadline(loky_api_interval(fcinfo, 1));
		if (!PG_ARGISNULL(0))
			n = loky_api_futures(PG_GETARG_ARRAYTYPE_P(0), &ids);
		funcctx = SRF_FIRSTCALL_INIT();
		oldcontext = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		funcctx->user_fctx = loky_completed_open(ids, n, deadline);
		MemoryContextSwitchTo(oldcontext);
	}
	funcctx = SRF_PERCALL_SETUP();
	if (loky_completed_next((LokyCompleted *) funcctx->user_fctx, &id))
		SRF_RETURN_NEXT(funcctx, Int64GetDatum(id));
	SRF_RETURN_DONE(funcctx);
}
