/*-------------------------------------------------------------------------
 *
 * api_map.c
 *	  The SQL functions that map a task over an array.
 *
 * In a select list all of them return one value for each call, so that the rows
 * stream, and a LIMIT or a closed cursor stops the rest.  In FROM the server takes
 * all rows before it goes on, so there map and flat_map hand over a table of values.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_map.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "api.h"
#include "chunks.h"
#include "compat.h"
#include "errdata.h"
#include "map_reader.h"
#include "reader.h"
#include "run_timeout.h"
#include "submission.h"
#include "subxact.h"

LOKY_FUNCTION(loky_map);
LOKY_FUNCTION(loky_flat_map);
LOKY_FUNCTION(loky_try_map);
LOKY_FUNCTION(loky_try_map_text);
LOKY_FUNCTION(loky_map_table);

/* The arguments after "result", counted from "timeout". */
enum
{
	ARG_TIMEOUT,
	ARG_CHUNKSIZE,
	ARG_ORDERED,
	ARG_SNAPSHOT,
	ARG_PROGRESS,
	ARG_ARGS,
	ARG_ITEM_TIMEOUT,
	ARG_RETRIES,
	ARG_LABEL,
	ARG_EXECUTOR
};

/* Reads the arguments of a function. */
typedef void (*CallGetter) (FunctionCallInfo fcinfo, LokyMapMode mode,
							LokyItems *items, LokyMapCall *call);

/* The state of one call. */
typedef struct MapState
{
	LokyMapMode mode;
	LokyMapReader *map;
	LokyRowReader *rows;
	bool		map_desc;		/* rows has the descriptor of the map */
	uint64		item;			/* that is being read */
	LokyStoreReader *store;		/* of that item, or NULL */
	TupleDesc	result_desc;	/* of try_map's rows */
} MapState;

/*
 * Have items and arguments go through the reducers of the executor.  An argument
 * that all items share raises its error here.
 */
static void
reduce(LokyMapCall *call)
{
	LokyReducers *reducers = loky_submission_take_reducers(call->executor);
	LokyValues *args = &call->args;
	ErrorData  *error;

	if (reducers == NULL)
		return;
	loky_items_reduce(call->items, reducers);
	error = loky_reduce_args(reducers, args->n, args->types, args->values,
							 args->nulls);
	if (error != NULL)
		ReThrowError(error);
	loky_submission_keep_reducers(call->executor, reducers);
}

/* The number of "timeout" among the arguments of a map. */
static int
arguments_base(FunctionCallInfo fcinfo)
{
	return PG_NARGS() - ARG_EXECUTOR - 1;
}

/* The arguments of the map functions. */
static void
get_call(FunctionCallInfo fcinfo, LokyMapMode mode, LokyItems *items,
		 LokyMapCall *call)
{
	int			base = arguments_base(fcinfo);

	memset(call, 0, sizeof(*call));
	call->mode = mode;
	call->task = loky_api_text(fcinfo, 0, "task");
	loky_items_open(items, fcinfo, 1);
	call->items = items;
	call->deadline =
		loky_client_deadline(loky_api_interval(fcinfo, base + ARG_TIMEOUT));
	if (!PG_ARGISNULL(base + ARG_CHUNKSIZE))
	{
		if (PG_GETARG_INT32(base + ARG_CHUNKSIZE) < 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"chunksize\" must be at least 1"),
					 errhint("Leave it out to let loky decide.")));
		call->chunksize = PG_GETARG_INT32(base + ARG_CHUNKSIZE);
	}
	call->item_timeout =
		loky_limit_of_interval(loky_api_interval(fcinfo, base + ARG_ITEM_TIMEOUT),
							   "item_timeout");
	call->retries = loky_api_retries(fcinfo, base + ARG_RETRIES);
	if (PG_ARGISNULL(base + ARG_ORDERED))
		loky_api_refuse_null("ordered");
	call->ordered = PG_GETARG_BOOL(base + ARG_ORDERED);
	call->snapshot = loky_api_bool(fcinfo, base + ARG_SNAPSHOT, false);
	call->progress = loky_api_bool(fcinfo, base + ARG_PROGRESS, false);
	loky_api_record(fcinfo, base + ARG_ARGS, "args", &call->args);
	if (!PG_ARGISNULL(base + ARG_LABEL))
		call->label = text_to_cstring(PG_GETARG_TEXT_PP(base + ARG_LABEL));
	call->executor =
		loky_executor_resolve(loky_api_executor(fcinfo, base + ARG_EXECUTOR));
	reduce(call);
}

/* The arguments of map_table, which is a flat_map over chunks of a table. */
static void
get_table_call(FunctionCallInfo fcinfo, LokyMapMode mode, LokyItems *items,
			   LokyMapCall *call)
{
	LokyTidChunk *chunks;
	int			n;

	memset(call, 0, sizeof(*call));
	call->mode = mode;
	call->ordered = true;
	call->task = loky_api_text(fcinfo, 0, "task");
	if (PG_ARGISNULL(1))
		loky_api_refuse_null("rel");
	call->deadline = loky_client_deadline(loky_api_interval(fcinfo, 4));
	call->snapshot = loky_api_bool(fcinfo, 5, true);
	call->progress = loky_api_bool(fcinfo, 6, false);
	if (!PG_ARGISNULL(7))
		call->label = text_to_cstring(PG_GETARG_TEXT_PP(7));
	call->executor = loky_executor_resolve(loky_api_executor(fcinfo, 8));
	chunks = loky_table_chunks(PG_GETARG_OID(1), loky_api_chunks(fcinfo, 3),
							   call->executor.executor->max_workers, true, &n);
	loky_items_of_array(items, loky_table_chunk_items(chunks, n));
	call->items = items;
	reduce(call);
}

static void
close_map(Datum arg)
{
	MapState   *state = (MapState *) DatumGetPointer(arg);

	if (state->store != NULL)
	{
		loky_store_close(state->store);
		state->store = NULL;
	}
	loky_map_reader_close(state->map);
}

/* Start the map and get ready to read it. */
static MapState *
open_map(FunctionCallInfo fcinfo, CallGetter get, LokyMapMode mode, Oid type)
{
	MapState   *state = palloc0(sizeof(MapState));
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LokyMapCall call;
	LokyItems	items;

	state->mode = mode;
	if (mode == LOKY_MAP_TRY)
	{
		TupleDesc	desc;

		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		state->result_desc = BlessTupleDesc(desc);
	}
	state->rows = loky_reader_create(fcinfo, type, GetUserId());
	get(fcinfo, mode, &items, &call);
	state->map = loky_map_reader_open(&call);
	RegisterExprContextCallback(rsinfo->econtext, close_map,
								PointerGetDatum(state));
	return state;
}

/* Rows without a descriptor of their own have that of the map. */
static void
use_map_desc(MapState *state)
{
	const char *data;
	Size		len;

	if (state->map_desc)
		return;
	data = loky_map_reader_desc(state->map, &len);
	loky_reader_set_desc(state->rows, data, len);
	state->map_desc = true;
}

/*
 * The next row of the item that is being read, converted; false where it has no
 * further one.
 */
static bool
next_item_row(MapState *state, Datum *value, bool *isnull)
{
	LokyRecordKind kind;
	char	   *data;
	Size		len;

	while (loky_store_next(state->store, &kind, &data, &len))
	{
		switch (kind)
		{
			case LOKY_RECORD_DESC:
				loky_reader_set_desc(state->rows, data, len);
				state->map_desc = false;
				break;
			case LOKY_RECORD_ROW:
				*value = loky_reader_row(state->rows, data, isnull);
				return true;
			case LOKY_RECORD_COMMAND:
				*value = loky_reader_command(state->rows, data, isnull);
				return true;
			case LOKY_RECORD_NOTICE:
			case LOKY_RECORD_ERROR:
				break;
		}
	}
	loky_store_close(state->store);
	state->store = NULL;
	return false;
}

/* Begin to read the rows of an item. */
static void
open_item(MapState *state, MemoryContext context, LokyOutcome *outcome)
{
	MemoryContext oldcontext =
		MemoryContextSwitchTo(context);
	LokyRecordKind kind;
	char	   *data;
	Size		len;

	state->store = loky_store_open(outcome->store);
	if (loky_store_next(state->store, &kind, &data, &len) &&
		kind == LOKY_RECORD_ROW)
		use_map_desc(state);
	loky_store_close(state->store);
	state->store = loky_store_open(outcome->store);
	MemoryContextSwitchTo(oldcontext);
}

/* The value of an item that succeeded; none: null. */
static Datum
item_value(MapState *state, MemoryContext context, LokyOutcome *outcome,
		   bool *isnull)
{
	Datum		value = (Datum) 0;

	*isnull = true;
	switch (outcome->state)
	{
		case LOKY_ITEM_VALUE:
		case LOKY_ITEM_NULL:
			use_map_desc(state);
			return loky_reader_values(state->rows, outcome->value,
									  outcome->state == LOKY_ITEM_NULL, isnull);
		case LOKY_ITEM_ROWS:
			open_item(state, context, outcome);
			if (next_item_row(state, &value, isnull))
			{
				loky_store_close(state->store);
				state->store = NULL;
			}
			return value;
		default:
			return (Datum) 0;
	}
}

/* Tells of which item it is that a result cannot be converted. */
static void
name_item(void *arg)
{
	errcontext("loky task, item " UINT64_FORMAT, ((MapState *) arg)->item + 1);
}

/*
 * The first row of the item that has this outcome, or, where outcome is NULL, the next
 * one of that which is being read; false where there is none.
 */
static bool
read_row(MapState *state, MemoryContext context, LokyOutcome *outcome,
		 Datum *value, bool *isnull)
{
	ErrorContextCallback names = {error_context_stack, name_item, state};
	bool		found = true;

	if (outcome != NULL)
		state->item = outcome->item;
	error_context_stack = &names;
	if (outcome == NULL)
		found = next_item_row(state, value, isnull);
	else if (state->mode != LOKY_MAP_FLAT)
		*value = item_value(state, context, outcome, isnull);
	else if (outcome->state == LOKY_ITEM_ROWS)
	{
		open_item(state, context, outcome);
		found = next_item_row(state, value, isnull);
	}
	else if (outcome->state == LOKY_ITEM_NONE)
		found = false;
	else
		*value = item_value(state, context, outcome, isnull);
	error_context_stack = names.previous;
	return found;
}

/* The next row of map or flat_map; false at the end. */
static bool
next_row(MapState *state, MemoryContext context, Datum *value,
		 bool *isnull)
{
	LokyOutcome outcome;

	for (;;)
	{
		if (state->store != NULL &&
			read_row(state, context, NULL, value, isnull))
			return true;
		if (state->map_desc && state->rows->plain &&
			loky_map_reader_next_value(state->map, value, isnull))
			return true;
		if (!loky_map_reader_next(state->map, &outcome))
			return false;
		if (read_row(state, context, &outcome, value, isnull))
			return true;
	}
}

/* The last row has been read. */
static void
end_map(FunctionCallInfo fcinfo, MapState *state)
{
	UnregisterExprContextCallback(((ReturnSetInfo *) fcinfo->resultinfo)->econtext,
								  close_map, PointerGetDatum(state));
	close_map(PointerGetDatum(state));
}

/* All values of map or flat_map go to the table. */
static Datum
fill_table(FunctionCallInfo fcinfo, LokyApiTable *table, CallGetter get,
		   LokyMapMode mode, Oid type)
{
	MapState   *state;
	Datum		value = (Datum) 0;
	bool		isnull = true;

	MemoryContextSwitchTo(table->context);
	state = open_map(fcinfo, get, mode, type);
	MemoryContextSwitchTo(table->row_context);
	while (next_row(state, table->context, &value, &isnull))
		loky_api_put_value(table, value, isnull);
	end_map(fcinfo, state);
	loky_api_end_table(table);
	return (Datum) 0;
}

/* The body of map, flat_map and map_table. */
static Datum
map_rows(FunctionCallInfo fcinfo, CallGetter get, LokyMapMode mode)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 2);
	FuncCallContext *funcctx;
	MapState   *state;
	Datum		value = (Datum) 0;
	bool		isnull = true;

	if (SRF_IS_FIRSTCALL())
	{
		LokyApiTable *table;
		MemoryContext oldcontext;

		loky_attach();
		loky_client_check_context();
		table = loky_api_begin_table(fcinfo, type);
		if (table != NULL)
			return fill_table(fcinfo, table, get, mode, type);
		funcctx = SRF_FIRSTCALL_INIT();
		oldcontext = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		funcctx->user_fctx = open_map(fcinfo, get, mode, type);
		MemoryContextSwitchTo(oldcontext);
	}
	funcctx = SRF_PERCALL_SETUP();
	state = (MapState *) funcctx->user_fctx;
	if (next_row(state, funcctx->multi_call_memory_ctx, &value, &isnull))
	{
		if (isnull)
			SRF_RETURN_NEXT_NULL(funcctx);
		SRF_RETURN_NEXT(funcctx, value);
	}
	end_map(fcinfo, state);
	SRF_RETURN_DONE(funcctx);
}

/* map(task, items, result, ...): one result for each item. */
Datum
loky_map(PG_FUNCTION_ARGS)
{
	return map_rows(fcinfo, get_call, LOKY_MAP_ONE);
}

/* flat_map(task, items, result, ...): any number of rows for each item. */
Datum
loky_flat_map(PG_FUNCTION_ARGS)
{
	return map_rows(fcinfo, get_call, LOKY_MAP_FLAT);
}

/* map_table(task, rel, result, ...): all rows of each chunk of a table. */
Datum
loky_map_table(PG_FUNCTION_ARGS)
{
	return map_rows(fcinfo, get_table_call, LOKY_MAP_FLAT);
}

/* The columns of try_map that tell of an error. */
static void
set_error_data(ErrorData *edata, Datum *values, bool *nulls)
{
	loky_api_set_text(values, nulls, 3, unpack_sql_state(edata->sqlerrcode));
	loky_api_set_text(values, nulls, 4, edata->message);
	loky_api_set_text(values, nulls, 5, edata->detail);
	loky_api_set_text(values, nulls, 6, edata->hint);
	loky_api_set_text(values, nulls, 7, edata->context);
}

/* The columns of a failed item. */
static void
set_error(LokyOutcome *outcome, Datum *values, bool *nulls)
{
	set_error_data(loky_map_outcome_error(outcome), values, nulls);
}

/* The arguments of set_result(). */
typedef struct ResultCall
{
	MapState   *state;
	MemoryContext context;
	LokyOutcome *outcome;
	Datum	   *values;
	bool	   *nulls;
} ResultCall;

static void
run_result_call(void *arg)
{
	ResultCall *call = arg;

	call->values[1] = item_value(call->state, call->context, call->outcome,
								 &call->nulls[1]);
}

/*
 * The result of an item that succeeded, or the error with which it cannot be made
 * the type that was asked for.  Returns whether it could.  A subtransaction undoes
 * what a cast has begun; a cancel of the caller is raised all the same.
 */
static bool
set_result(MapState *state, MemoryContext context, LokyOutcome *outcome,
		   Datum *values, bool *nulls)
{
	ResultCall	call = {state, context, outcome, values, nulls};
	ErrorData  *edata = loky_subxact_try(run_result_call, &call, LOKY_SUBXACT_KEEP);

	if (edata == NULL)
		return true;
	state->store = NULL;		/* its file went with the subtransaction */
	nulls[1] = true;
	set_error_data(edata, values, nulls);
	return false;
}

/* The row of try_map for an item, in CurrentMemoryContext. */
static Datum
form_try_row(MapState *state, MemoryContext context, LokyOutcome *outcome)
{
	Datum		values[11] = {0};
	bool		nulls[11];
	bool		ok = outcome->state != LOKY_ITEM_ERROR;

	memset(nulls, true, sizeof(nulls));
	values[0] = Int64GetDatum((int64) outcome->item + 1);
	if (ok)
		ok = set_result(state, context, outcome, values, nulls);
	else
		set_error(outcome, values, nulls);
	values[2] = BoolGetDatum(ok);
	nulls[0] = nulls[2] = false;
	if (outcome->timing.worker != 0)
	{
		values[8] = Int32GetDatum(outcome->timing.worker);
		values[9] = TimestampTzGetDatum(outcome->timing.started);
		values[10] = loky_api_us_to_interval(outcome->timing.elapsed);
		nulls[8] = nulls[9] = nulls[10] = false;
	}
	return HeapTupleGetDatum(heap_form_tuple(state->result_desc, values,
											 nulls));
}

/* The body of both try_maps. */
static Datum
try_rows(FunctionCallInfo fcinfo, Oid type)
{
	FuncCallContext *funcctx;
	MapState   *state;
	LokyOutcome outcome;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext oldcontext;

		loky_attach();
		loky_client_check_context();
		if (type == RECORDOID)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the result of try_map cannot be a record"),
					 errhint("Use a named row type, or jsonb.")));
		funcctx = SRF_FIRSTCALL_INIT();
		oldcontext = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		funcctx->user_fctx = open_map(fcinfo, get_call, LOKY_MAP_TRY, type);
		MemoryContextSwitchTo(oldcontext);
	}
	funcctx = SRF_PERCALL_SETUP();
	state = (MapState *) funcctx->user_fctx;
	if (loky_map_reader_next(state->map, &outcome))
		SRF_RETURN_NEXT(funcctx, form_try_row(state, funcctx->multi_call_memory_ctx, &outcome));
	end_map(fcinfo, state);
	SRF_RETURN_DONE(funcctx);
}

/* try_map(task, items, result, ...): a row for each item, errors included. */
Datum
loky_try_map(PG_FUNCTION_ARGS)
{
	return try_rows(fcinfo, get_fn_expr_argtype(fcinfo->flinfo, 2));
}

/* try_map(task, items, ...) with results as text */
Datum
loky_try_map_text(PG_FUNCTION_ARGS)
{
	return try_rows(fcinfo, TEXTOID);
}
