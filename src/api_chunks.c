/*-------------------------------------------------------------------------
 *
 * api_chunks.c
 *	  SQL functions that cut tables into chunks, and loky.backfill().
 *
 * A backfill is a map over ranges of keys, of which the count of rows that each
 * command has affected is the result; a worker rests after each where it is told to.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_chunks.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api.h"
#include "chunks.h"
#include "client.h"
#include "errdata.h"
#include "map_reader.h"

LOKY_FUNCTION(loky_table_chunks_sql);
LOKY_FUNCTION(loky_key_chunks_sql);
LOKY_FUNCTION(loky_backfill);

/* A relation's OID in argument n. */
static Oid
get_rel(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		loky_api_refuse_null("rel");
	return PG_GETARG_OID(n);
}

/* The number of chunks in argument n; 0 where it is null. */
int
loky_api_chunks(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return 0;
	if (PG_GETARG_INT32(n) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"chunks\" must be at least 1"),
				 errhint("Leave it out to let loky decide.")));
	return PG_GETARG_INT32(n);
}

/* table_chunks(rel, chunks): ranges of places that hold each row once. */
Datum
loky_table_chunks_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			rel = get_rel(fcinfo, 0);
	LokyTidChunk *chunks;
	int			n;

	loky_attach();
	chunks = loky_table_chunks(rel, loky_api_chunks(fcinfo, 1),
							   loky_executor_default_size(), false, &n);
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false, false, false};

		values[0] = Int32GetDatum(i + 1);
		values[1] = PointerGetDatum(&chunks[i].lo);
		values[2] = PointerGetDatum(&chunks[i].hi);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* The name of a column in argument n, or NULL. */
static const char *
get_key(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : NameStr(*PG_GETARG_NAME(n));
}

/* The chunks that the call asks for: argument n is rel, then come key and chunk_rows. */
static LokyKeyChunk *
get_key_chunks(FunctionCallInfo fcinfo, int n, LokyKeyColumn *column,
			   int *nchunks)
{
	Oid			rel = get_rel(fcinfo, n);
	LokyKeyChunk *chunks;
	int64		nnulls;

	if (PG_ARGISNULL(n + 2))
		loky_api_refuse_null("chunk_rows");
	if (PG_GETARG_INT32(n + 2) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"chunk_rows\" must be at least 1"),
				 errhint("It is the number of rows that one transaction handles.")));
	chunks = loky_key_chunks(rel, get_key(fcinfo, n + 1),
							 PG_GETARG_INT32(n + 2), column, nchunks, &nnulls);
	if (nnulls > 0)
		ereport(NOTICE,
				(errmsg_plural(INT64_FORMAT " row has no key and is in no chunk",
							   INT64_FORMAT " rows have no key and are in no chunk",
							   nnulls, nnulls),
				 errdetail("Column \"%s\" is null there.", column->name)));
	return chunks;
}

/* key_chunks(rel, key, chunk_rows): ranges of keys with so many rows. */
Datum
loky_key_chunks_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LokyKeyColumn column = {0};
	LokyKeyChunk *chunks;
	MemoryContext scratch;
	MemoryContext oldcontext;
	int			n;
	int			level;

	loky_attach();
	chunks = get_key_chunks(fcinfo, 0, &column, &n);
	InitMaterializedSRF(fcinfo, 0);
	scratch = AllocSetContextCreate(CurrentMemoryContext, "loky key chunks",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(scratch);
	level = loky_key_begin_text();
	for (int i = 0; i < n; i++)
	{
		Datum		values[4];
		bool		nulls[4] = {false, false, false, false};

		CHECK_FOR_INTERRUPTS();
		values[0] = Int32GetDatum(i + 1);
		values[1] = CStringGetTextDatum(loky_key_text(&column, chunks[i].lo));
		values[2] = CStringGetTextDatum(loky_key_text(&column, chunks[i].hi));
		values[3] = Int64GetDatum(chunks[i].rows);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		MemoryContextReset(scratch);
	}
	loky_key_end_text(level);
	MemoryContextSwitchTo(oldcontext);
	return (Datum) 0;
}

/* The arguments of backfill. */
enum
{
	ARG_TASK,
	ARG_REL,
	ARG_KEY,
	ARG_CHUNK_ROWS,
	ARG_DELAY,
	ARG_RETRIES,
	ARG_RANGES,
	ARG_PROGRESS,
	ARG_LABEL,
	ARG_EXECUTOR
};

/* One chunk's row of backfill. */
static void
put_chunk(ReturnSetInfo *rsinfo, const LokyKeyColumn *column,
		  const LokyKeyChunk *chunk, const LokyOutcome *outcome)
{
	Datum		values[9] = {0};
	bool		nulls[9];
	bool		ok = outcome->state != LOKY_ITEM_ERROR;
	ErrorData  *error;

	memset(nulls, true, sizeof(nulls));
	values[0] = Int32GetDatum((int32) outcome->item + 1);
	loky_api_set_text(values, nulls, 1, loky_key_text(column, chunk->lo));
	loky_api_set_text(values, nulls, 2, loky_key_text(column, chunk->hi));
	values[3] = Int64GetDatum((int64) outcome->value);
	values[4] = BoolGetDatum(ok);
	values[5] = Int32GetDatum(outcome->timing.attempts);
	nulls[0] = nulls[4] = nulls[5] = false;
	nulls[3] = !ok;
	if (!ok)
	{
		error = loky_map_outcome_error(outcome);
		loky_api_set_text(values, nulls, 6, unpack_sql_state(error->sqlerrcode));
		loky_api_set_text(values, nulls, 7, error->message);
	}
	if (outcome->timing.worker != 0)
	{
		values[8] = loky_api_us_to_interval(outcome->timing.elapsed);
		nulls[8] = false;
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* What the arguments of backfill ask for. */
static void
get_call(FunctionCallInfo fcinfo, const LokyKeyColumn *column,
		 const LokyKeyChunk *chunks, int n, LokyItems *items, LokyMapCall *call)
{
	memset(call, 0, sizeof(*call));
	call->mode = LOKY_MAP_TRY;
	call->counts = true;
	call->ordered = true;
	call->task = loky_api_text(fcinfo, ARG_TASK, "task");
	call->deadline = loky_client_deadline(NULL);
	call->delay = loky_api_duration(fcinfo, ARG_DELAY, "delay");
	call->retries = loky_api_retries(fcinfo, ARG_RETRIES);
	call->progress = loky_api_bool(fcinfo, ARG_PROGRESS, false);
	if (!PG_ARGISNULL(ARG_LABEL))
		call->label = text_to_cstring(PG_GETARG_TEXT_PP(ARG_LABEL));
	call->executor =
		loky_executor_resolve(loky_api_executor(fcinfo, ARG_EXECUTOR));
	loky_items_of_array(items, loky_key_chunk_items(column, chunks, n));
	call->items = items;
}

/*
 * Is the argument ranges a null that a query or an expression has computed, unlike
 * one that stands there, or that was left out?
 */
static bool
ranges_are_missing(FunctionCallInfo fcinfo)
{
	FuncExpr   *call = (FuncExpr *) fcinfo->flinfo->fn_expr;

	return PG_ARGISNULL(ARG_RANGES) && call != NULL && IsA(call, FuncExpr) &&
		!IsA(list_nth(call->args, ARG_RANGES), Const);
}

/*
 * The chunks to run, and the column of their keys.  A null that was computed is
 * refused: it comes of aggregating what failed when nothing has, and would run all that
 * has succeeded once more.
 */
static LokyKeyChunk *
get_chunks(FunctionCallInfo fcinfo, LokyKeyColumn *column, int *n)
{
	if (ranges_are_missing(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"ranges\" must not be null"),
				 errhint("An aggregate of no rows is null: use coalesce(jsonb_agg(...), '[]').  Leave the argument out to run all.")));
	if (PG_ARGISNULL(ARG_RANGES))
		return get_key_chunks(fcinfo, ARG_REL, column, n);
	loky_key_find(get_rel(fcinfo, ARG_REL), get_key(fcinfo, ARG_KEY), column);
	return loky_key_ranges(column, PG_GETARG_JSONB_P(ARG_RANGES), n);
}

/*
 * backfill(task, rel, key, ...): run the task for each chunk, in a transaction of its
 * own, and return a row for each chunk.
 */
Datum
loky_backfill(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LokyKeyColumn column = {0};
	LokyKeyChunk *chunks;
	int			n;
	LokyItems	items;
	LokyMapCall call;
	LokyMapReader *reader;
	LokyOutcome outcome;
	MemoryContext scratch;
	MemoryContext oldcontext;

	loky_attach();
	loky_client_check_context();
	loky_table_check_shared(get_rel(fcinfo, ARG_REL));
	chunks = get_chunks(fcinfo, &column, &n);
	get_call(fcinfo, &column, chunks, n, &items, &call);
	InitMaterializedSRF(fcinfo, 0);
	reader = loky_map_reader_open(&call);
	scratch = AllocSetContextCreate(CurrentMemoryContext, "loky backfill",
									ALLOCSET_SMALL_SIZES);
	while (loky_map_reader_next(reader, &outcome))
	{
		int			level = loky_key_begin_text();

		oldcontext = MemoryContextSwitchTo(scratch);
		put_chunk(rsinfo, &column, &chunks[outcome.item], &outcome);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(scratch);
		loky_key_end_text(level);
	}
	loky_map_reader_close(reader);
	return (Datum) 0;
}
