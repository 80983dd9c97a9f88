/*-------------------------------------------------------------------------
 *
 * map_item.c
 *	  One item of a map: its parameters, its run, its outcome.
 *
 * A statement that is only an expression of its parameters is evaluated as that
 * (expression.c); any other one is run as a statement.  What is evaluated has a
 * snapshot of its own for each item, as a statement has, unless nobody could tell:
 * where the function is not volatile, items that share a transaction share its
 * snapshot.
 *
 * A value that is passed in a register, of a type that the reader knows, is an
 * outcome by itself; all others are records in the part's store.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_item.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupmacs.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "tcop/tcopprot.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "area.h"
#include "errdata.h"
#include "map_item.h"
#include "run_timeout.h"
#include "worker.h"

/* An offset that stands for a null item. */
#define NULL_OFFSET		PG_UINT32_MAX

/* The bytes of an item, from its offset to that of the next one. */
static char *
item_bytes(LokyMapJob *job, uint64 item)
{
	LokySharedMap *map = job->map;
	uint64		offset = job->offsets ? job->offsets[item] : item * job->stride;
	uint64		end = map->items.len;

	if (!map->items.has_file)
		return unconstify(char *, job->items) + offset;

	for (uint64 i = item + 1; i < map->nitems && job->offsets; i++)
	{
		if (job->offsets[i] != NULL_OFFSET)
		{
			end = job->offsets[i];
			break;
		}
	}
	if (job->offsets == NULL)
		end = offset + map->item_len;
	return loky_blob_read(&map->items, offset, end - offset);
}

/* The item itself as parameters: one, or the columns of an anonymous row. */
static void
get_own_values(LokyMapJob *job, uint64 item, LokyValues *own)
{
	LokySharedMap *map = job->map;
	bool		is_null = job->offsets && job->offsets[item] == NULL_OFFSET;

	if (!map->spread)
	{
		own->n = 1;
		own->types = palloc(sizeof(Oid));
		own->values = palloc0(sizeof(Datum));
		own->nulls = palloc(sizeof(bool));
		own->types[0] = map->item_type;
		own->nulls[0] = is_null;
		if (!is_null)
			own->values[0] = fetch_att(item_bytes(job, item), map->item_byval,
									   map->item_len);
	}
	else if (is_null)
	{
		own->n = map->nshape;
		own->types = job->shape;
		own->values = palloc0(own->n * sizeof(Datum));
		own->nulls = palloc(own->n * sizeof(bool));
		memset(own->nulls, true, own->n * sizeof(bool));
	}
	else
	{
		char	   *bytes = item_bytes(job, item);
		uint64		len = *(const uint64 *) bytes;

		bytes += sizeof(len);
		if ((len & LOKY_ITEM_IS_ERROR) != 0)
			loky_error_rethrow(loky_error_decode(bytes, len & ~LOKY_ITEM_IS_ERROR),
							   NULL);
		loky_codec_decode_values(bytes, len, own);
	}
}

/* Decode the arguments that all items share; in a transaction. */
static void
get_common_values(LokyMapJob *job)
{
	LokySharedRequest *request = &job->map->request;
	MemoryContext oldcontext;
	const char *data;
	Size		len;

	if (request->nargs == 0 || job->common.n > 0)
		return;
	oldcontext = MemoryContextSwitchTo(job->context);
	data = loky_request_args(request, &len);
	loky_codec_decode_values(data, len, &job->common);
	MemoryContextSwitchTo(oldcontext);
}

/* All parameters of the item. */
static void
get_values(LokyMapJob *job, uint64 item, LokyValues *args)
{
	LokyValues	own;
	int			n;

	get_own_values(job, item, &own);
	if (job->common.n == 0)
	{
		*args = own;
		return;
	}
	n = own.n + job->common.n;
	args->n = n;
	args->types = palloc(n * sizeof(Oid));
	args->values = palloc(n * sizeof(Datum));
	args->nulls = palloc(n * sizeof(bool));
	memcpy(args->types, own.types, own.n * sizeof(Oid));
	memcpy(args->values, own.values, own.n * sizeof(Datum));
	memcpy(args->nulls, own.nulls, own.n * sizeof(bool));
	memcpy(args->types + own.n, job->common.types,
		   job->common.n * sizeof(Oid));
	memcpy(args->values + own.n, job->common.values,
		   job->common.n * sizeof(Datum));
	memcpy(args->nulls + own.n, job->common.nulls,
		   job->common.n * sizeof(bool));
}

/* Make the descriptor of our rows that of the map, if it has none yet. */
static void
offer_desc(LokyMapJob *job)
{
	LokySharedMap *map = job->map;
	LokyDest   *dest = LokyMyDest;

	if (dest->known_desc != NULL || dest->encoded.len == 0)
		return;
	LWLockAcquire(&map->lock, LW_EXCLUSIVE);
	if (!DsaPointerIsValid(map->desc))
	{
		dsa_pointer dp = loky_area_alloc(dest->encoded.len);

		if (DsaPointerIsValid(dp))
		{
			memcpy(loky_area_address(dp), dest->encoded.data,
				   dest->encoded.len);
			map->desc_len = dest->encoded.len;
			map->desc = dp;
		}
	}
	LWLockRelease(&map->lock);
	if (DsaPointerIsValid(map->desc))
	{
		dest->known_desc = loky_area_address(map->desc);
		dest->known_desc_len = map->desc_len;
	}
}

/* Is the descriptor of our rows the one that the reader knows? */
static bool
desc_is_known(void)
{
	LokyDest   *dest = LokyMyDest;

	return dest->known_desc != NULL &&
		dest->known_desc_len == dest->encoded.len &&
		memcmp(dest->known_desc, dest->encoded.data, dest->encoded.len) == 0;
}

/* What the item has left in the receiver and the store, as its outcome. */
static void
take_outcome(LokyMapJob *job, const LokyCompletion *completion,
			 LokySharedOutcome *outcome)
{
	LokyDest   *dest = LokyMyDest;
	LokySharedPart *part = job->part;

	if (dest->held)
	{
		offer_desc(job);
		if (desc_is_known())
		{
			dest->held = false;
			outcome->state = dest->isnull ? LOKY_ITEM_NULL : LOKY_ITEM_VALUE;
			outcome->value = dest->isnull ? 0 : dest->value;
			loky_store_end(LokyMyWriter);
			return;
		}
		loky_dest_release(dest);
	}
	if (!completion->has_rows)
		loky_run_put_completion(LokyMyWriter, completion);
	loky_store_end(LokyMyWriter);
	if (part->store.bytes == 0)
	{
		outcome->state = LOKY_ITEM_NONE;
		outcome->value = 0;
		return;
	}
	offer_desc(job);
	outcome->state = LOKY_ITEM_ROWS;
	outcome->value = loky_map_keep_store(job->map, part, &part->store, true);
	if (!DsaPointerIsValid(outcome->value))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of shared memory for the results of a map"),
				 errhint("Raise loky.shared_memory.")));
}

/* What the job needs to know of the map's items, whatever they are run with. */
void
loky_item_open_job(LokyMapJob *job)
{
	LokySharedMap *map = job->map;

	job->outcomes = loky_area_address(job->part->outcomes);
	if (DsaPointerIsValid(map->offsets))
		job->offsets = loky_area_address(map->offsets);
	else if (!map->spread)
		job->stride = att_align_nominal((Size) map->item_len, map->item_align);
	if (DsaPointerIsValid(map->shape))
		job->shape = loky_area_address(map->shape);
	if (!map->items.has_file && DsaPointerIsValid(map->items.memory))
		job->items = loky_area_address(map->items.memory);
}

/* A transaction has begun in which items are to be run. */
void
loky_item_begin(LokyMapJob *job)
{
	job->plan = NULL;
	job->expression = NULL;
	job->has_snapshot = false;
	job->plain = false;
	get_common_values(job);
	if (job->types != NULL || job->map->spread)
		return;
	job->types = MemoryContextAlloc(job->context,
									(job->common.n + 1) * sizeof(Oid));
	job->types[0] = job->map->item_type;
	for (int i = 0; i < job->common.n; i++)
		job->types[i + 1] = job->common.types[i];
}

/* ... and is about to end. */
void
loky_item_end(LokyMapJob *job)
{
	if (job->has_snapshot)
		PopActiveSnapshot();
	job->has_snapshot = false;
}

/* Have the expression evaluated in a snapshot of its own, as a statement is. */
static void
renew_snapshot(LokyMapJob *job)
{
	if (job->has_snapshot)
		PopActiveSnapshot();
	job->has_snapshot = false;
	PushActiveSnapshot(GetTransactionSnapshot());
	job->has_snapshot = true;
}

/* The first item of a transaction, or after a change: find out what is to be run. */
static void
open_plan(LokyMapJob *job, uint64 item)
{
	LokySharedMap *map = job->map;
	ParamListInfo params;

	job->expression = NULL;
	if (job->types != NULL)
		job->plan = loky_plan_get(debug_query_string, map->request.hash,
								  job->common.n + 1, job->types);
	else
	{
		LokyValues	args;

		get_values(job, item, &args);
		job->plan = loky_plan_get(debug_query_string, map->request.hash,
								  args.n, args.types);
	}

	/* what a serializable transaction has read holds only once it has committed */
	job->repeatable = pg_atomic_read_u32(&map->writes) == 0 &&
		!IsolationIsSerializable() && loky_plan_is_repeatable(job->plan);
	job->part->repeatable = job->repeatable;
	if (map->counts || !loky_expression_is_possible(job->plan))
		return;
	renew_snapshot(job);
	job->expression = loky_expression_get(job->plan);
	if (job->expression == NULL)
	{
		loky_item_end(job);
		return;
	}
	loky_dest_open(LokyMyDest, loky_expression_desc(job->expression));
	job->plain = loky_dest_is_plain(LokyMyDest) && desc_is_known();
	params = loky_expression_params(job->expression);
	if (!map->spread)
	{
		for (int i = 0; i < job->common.n; i++)
		{
			params->params[i + 1].value = job->common.values[i];
			params->params[i + 1].isnull = job->common.nulls[i];
		}
	}
}

/*
 * The next item of the transaction begins.  What an earlier one has submitted stands, as
 * its outcome does, whatever becomes of this one, unless they are a chunk.
 */
static inline void
begin_run(const LokySharedPart *part)
{
	if (LokyMyWorker->tag != 0 && !part->whole)
		LokyMyWorker->tag = 0;
}

/* Give the expression the parameters that are the item's own. */
static void
set_params(LokyMapJob *job, uint64 item)
{
	LokySharedMap *map = job->map;
	ParamListInfo params = loky_expression_params(job->expression);
	LokyValues	args;

	if (!map->spread)
	{
		ParamExternData *param = &params->params[0];

		param->isnull = job->offsets && job->offsets[item] == NULL_OFFSET;
		param->value = param->isnull ? (Datum) 0 :
			fetch_att(item_bytes(job, item), map->item_byval, map->item_len);
		return;
	}
	get_values(job, item, &args);
	Assert(args.n == params->numParams);
	for (int i = 0; i < args.n; i++)
	{
		params->params[i].value = args.values[i];
		params->params[i].isnull = args.nulls[i];
	}
}

static void
run_expression(LokyMapJob *job, uint64 item, LokySharedOutcome *outcome)
{
	LokyCompletion completion = {.has_rows = true};
	Datum		value;
	bool		isnull;

	set_params(job, item);
	if (!job->repeatable && job->part->noutcomes > 0)
		renew_snapshot(job);
	value = loky_expression_run(job->expression, &isnull);
	loky_limit_check();
	if (job->plain)
	{
		outcome->state = isnull ? LOKY_ITEM_NULL : LOKY_ITEM_VALUE;
		outcome->value = isnull ? 0 : value;
		return;
	}
	loky_dest_reset(LokyMyDest);
	loky_store_begin(LokyMyWriter, &job->part->store);
	loky_dest_put(LokyMyDest, value, isnull);
	take_outcome(job, &completion, outcome);
	job->plain = loky_dest_is_plain(LokyMyDest) && desc_is_known();
}

/* Can items be run together, as nothing need be done between two of them? */
bool
loky_item_is_cheap(const LokyMapJob *job)
{
	return job->plain && job->repeatable && !job->map->spread &&
		job->map->item_timeout == 0 && !DsaPointerIsValid(job->map->timings);
}

/*
 * As loky_item_run() for each item up to end, but for what it does in vain for those
 * that are cheap.
 */
void
loky_item_run_cheap(LokyMapJob *job, uint64 item, uint64 end)
{
	LokySharedPart *part = job->part;
	LokySharedOutcome *outcome = &job->outcomes[part->noutcomes];

	Assert(loky_item_is_cheap(job));
	job->last_rows = 1;
	for (; item < end; item++, outcome++)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		begin_run(part);
		set_params(job, item);
		outcome->item = item;
		outcome->value = loky_expression_run(job->expression, &isnull);
		outcome->state = isnull ? LOKY_ITEM_NULL : LOKY_ITEM_VALUE;
		part->nrows++;
		part->noutcomes++;
	}
}

/* Returns the number of rows that it has returned, or changed. */
static uint64
run_statement(LokyMapJob *job, uint64 item, LokySharedOutcome *outcome)
{
	LokyCompletion completion;
	LokyValues	args;

	get_values(job, item, &args);
	if (job->map->counts)
	{
		loky_plan_run(job->plan, &args, loky_dest_null(), &completion);
		loky_limit_check();
		outcome->state = LOKY_ITEM_VALUE;
		outcome->value = completion.processed;
		return completion.processed;
	}
	loky_dest_reset(LokyMyDest);
	loky_store_begin(LokyMyWriter, &job->part->store);
	loky_plan_run(job->plan, &args, LokyMyDest, &completion);
	loky_limit_check();
	take_outcome(job, &completion, outcome);
	return completion.processed;
}

/* What an item has told of its progress says nothing about the next. */
void
loky_item_forget_progress(void)
{
	LokySharedExecutor *executor = &loky->executors[LokyMyWorker->executor];

	if (!LokyMyWorker->progress.told)
		return;
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	LokyMyWorker->progress.told = false;
	LWLockRelease(&executor->lock);
}

/*
 * Run one item in the present transaction; its outcome is added to the part.  Its
 * clock runs on, since what is deferred to the commit belongs to the last item.
 */
void
loky_item_run(LokyMapJob *job, uint64 item)
{
	LokySharedPart *part = job->part;
	LokySharedOutcome *outcome = &job->outcomes[part->noutcomes];
	bool		timed = DsaPointerIsValid(job->map->timings);
	uint64		nrows = 1;
	instr_time	start;
	instr_time	end;

	loky_item_forget_progress();
	begin_run(part);
	if (part->noutcomes > 0 && !job->repeatable)
		SetCurrentStatementStartTimestamp();
	if (timed)
	{
		outcome->timing.worker = MyProcPid;
		outcome->timing.attempts = part->attempts + 1;
		outcome->timing.started = GetCurrentTimestamp();
		part->item_started = outcome->timing.started;
		INSTR_TIME_SET_CURRENT(start);
	}
	loky_limit_arm(job->map->item_timeout, "item_timeout");
	if (job->plan == NULL ||
		(job->expression != NULL && !job->repeatable &&
		 !loky_expression_is_current(job->expression)))
		open_plan(job, item);
	outcome->item = item;
	if (job->expression != NULL)
		run_expression(job, item, outcome);
	else
		nrows = run_statement(job, item, outcome);
	if (timed)
	{
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, start);
		outcome->timing.elapsed = INSTR_TIME_GET_MICROSEC(end);
	}
	job->last_rows = nrows;
	part->nrows += nrows;
	part->noutcomes++;
}
