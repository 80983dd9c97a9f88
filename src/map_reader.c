/*-------------------------------------------------------------------------
 *
 * map_reader.c
 *	  The caller's side of a map: draining it.
 *
 * The reader goes through the places of the window in their order and never
 * spins: a map's workers should have the cores.  It frees each place as it goes
 * on and makes room for more items from time to time, at the latest before it
 * sleeps.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_reader.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "area.h"
#include "client.h"
#include "compat.h"
#include "debug_point.h"
#include "deadlock.h"
#include "errdata.h"
#include "guc.h"
#include "held.h"
#include "map_reader.h"
#include "progress.h"
#include "sched.h"
#include "settings.h"
#include "submission.h"
#include "worker.h"

/* The progress is told so often. */
#define NOTICE_INTERVAL_US	USECS_PER_SEC

struct LokyMapReader
{
	MemoryContext context;
	LokySharedMap *map;			/* NULL: nothing to read, or closed */
	LokyMapMode mode;
	bool		ordered;
	bool		timed;
	TimestampTz deadline;
	uint64		nitems;
	uint64		position;		/* of the next outcome */
	uint64		index;			/* ... and its place */
	uint64		limit;			/* as told to the workers */
	TimestampTz next_notice;	/* of the progress; DT_NOEND: none is wanted */
	uint64		noticed;		/* outcomes, as the last one has told */
	LokySharedPlace *places;	/* of the map */
	volatile uint8 *states;
	LokyPatience patience;

	/* the outcome that was returned last stays in its place until the next */
	bool		has_last;
	uint64		last_index;
	char	   *last_error;

	/* of an unordered map: the first failed item so far, and its error */
	bool		failed;
	uint64		failed_item;
	char	   *error;
	Size		error_len;

	/* of a try_map that ended early: why, an SQLSTATE; what is missing */
	int			ended;
	char	   *ended_error;	/* encoded, as those of items; NULL: there is none */
	Size		ended_error_len;
	uint64		missing;
	uint8	   *seen;			/* unordered: items that were returned */
};

/*
 * Lay out the map and offer it to workers.  The reader lies in
 * CurrentMemoryContext.  Raises what resolving the task raises, LK005, and
 * 53200 where shared memory does not suffice.
 */
LokyMapReader *
loky_map_reader_open(const LokyMapCall *call)
{
	LokyMapReader *reader = palloc0(sizeof(LokyMapReader));
	LokyExecutorRef ref = call->executor;
	LokySharedMap *map;

	if (!loky_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("loky accepts no tasks at present"),
				 errhint("The setting loky.enabled is off.")));
	reader->context = CurrentMemoryContext;
	reader->mode = call->mode;
	reader->ordered = call->ordered;
	reader->timed = call->mode == LOKY_MAP_TRY;
	reader->deadline = call->deadline;
	reader->nitems = call->items->n;
	reader->next_notice = DT_NOEND;
	if (reader->nitems == 0)
	{
		/* a task that cannot be called is an error all the same, where types tell */
		if (call->items->array != NULL && call->items->type != RECORDOID)
		{
			map = loky_map_lay_out(call, false);
			loky_held_close_map(map);
		}
		return reader;
	}
	map = loky_map_lay_out(call, true);
	loky_debug_point("laid out");
	if (call->progress)
		reader->next_notice = map->started + NOTICE_INTERVAL_US;
	reader->limit = map->window;
	reader->places = loky_area_address(map->places);
	reader->states = loky_area_address(map->states);
	while (!loky_sched_submit_map(ref.executor, ref.id, map))
		ref = loky_executor_resolve(ref.id);
	loky_held_offered_map(map);
	reader->map = map;
	loky_debug_point("offered");
	if (!call->ordered && call->mode == LOKY_MAP_TRY)
		reader->seen = MemoryContextAllocExtended(CurrentMemoryContext,
												  reader->nitems / 8 + 1,
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	return reader;
}

/* The map is not needed any more; what still runs of it is cancelled. */
void
loky_map_reader_close(LokyMapReader *reader)
{
	LokySharedMap *map = reader->map;

	if (map == NULL)
		return;
	reader->map = NULL;
	loky_held_close_map(map);
}

/* The descriptor of rows that do not bring their own. */
const char *
loky_map_reader_desc(LokyMapReader *reader, Size *len)
{
	LokySharedMap *map = reader->map;

	*len = map->desc_len;
	return loky_area_address(map->desc);
}

/*
 * Raise the notices that have come in since the last time.  Those that come meanwhile
 * are left: they may come faster than they are raised, and the reader has more to see
 * to.
 */
static void
raise_notices(LokySharedMap *map)
{
	for (uint32 n = pg_atomic_read_u32(&map->nnotices); n > 0; n--)
	{
		dsa_pointer dp;
		LokySharedNotice *notice;
		char	   *copy;
		Size		len;

		/* only we take notices out, so the first one stays while we copy it */
		LWLockAcquire(&map->lock, LW_SHARED);
		dp = map->first_notice;
		LWLockRelease(&map->lock);
		notice = loky_area_address(dp);
		len = notice->len;
		copy = palloc(len);
		memcpy(copy, notice->data, len);

		LWLockAcquire(&map->lock, LW_EXCLUSIVE);
		map->first_notice = notice->next;
		if (!DsaPointerIsValid(map->first_notice))
			map->last_notice = InvalidDsaPointer;
		map->notice_bytes -= len;
		pg_atomic_fetch_sub_u32(&map->nnotices, 1);
		LWLockRelease(&map->lock);
		loky_area_free(dp);
		loky_notice_raise(copy, len);
		pfree(copy);
	}
}

/*
 * Tell of the progress if that is due, or at the end of what took long enough for it
 * to have been due.
 */
static void
tell_progress(LokyMapReader *reader, bool at_end)
{
	LokySharedMap *map = reader->map;
	TimestampTz now;

	if (TIMESTAMP_IS_NOEND(reader->next_notice))
		return;
	now = GetCurrentTimestamp();
	if (now < (at_end ? map->started + NOTICE_INTERVAL_US : reader->next_notice) ||
		(at_end && reader->noticed == reader->nitems))
		return;
	reader->noticed = pg_atomic_read_u64(&map->published);
	reader->next_notice = at_end ? DT_NOEND : now + NOTICE_INTERVAL_US;
	loky_progress_notice((int64) reader->noticed,
						 (int64) pg_atomic_read_u64(&map->nfailed),
						 (int64) reader->nitems, map->started);
}

/* Say how many notices there was no room for. */
static void
report_dropped_notices(LokySharedMap *map)
{
	uint64		n = pg_atomic_exchange_u64(&map->dropped_notices, 0);

	if (n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg(UINT64_FORMAT " notices of the map were dropped", n),
				 errdetail("They came faster than they were read.")));
}

/* Tell workers how far they may go, and bring them back if they have left. */
static void
make_room(LokyMapReader *reader)
{
	LokySharedMap *map = reader->map;

	if (reader->limit != reader->position + map->window)
	{
		/* the places must be empty before workers may use them again */
		pg_memory_barrier();
		reader->limit = reader->position + map->window;
		pg_atomic_write_u64(&map->limit, reader->limit);
	}
	pg_memory_barrier();
	if (pg_atomic_read_u32(&map->parked) != 0 && loky_map_claimable(map))
		loky_sched_offer_map(map);
}

/* Free what the last outcome pointed to; its place may be used again. */
static void
release_last(LokyMapReader *reader)
{
	LokySharedMap *map = reader->map;

	if (!reader->has_last)
		return;
	loky_map_free_value(map, (LokyItemState) reader->states[reader->last_index],
						reader->places[reader->last_index].value);
	reader->states[reader->last_index] = LOKY_ITEM_EMPTY;
	reader->has_last = false;
	if (reader->last_error != NULL)
		pfree(reader->last_error);
	reader->last_error = NULL;
	if (reader->limit - reader->position < map->window * 3 / 4)
		make_room(reader);
}

/*
 * Why the executor's workers cannot start: the number of an item, which is 0, and
 * the encoded error, as items have theirs.  NULL where it could not be kept.
 */
static char *
copy_broken_error(LokyMapReader *reader, Size *len)
{
	LokySharedExecutor *executor = &loky->executors[reader->map->executor];
	char	   *copy = NULL;

	LWLockAcquire(&executor->lock, LW_SHARED);
	*len = executor->error_len + sizeof(uint64);
	if (DsaPointerIsValid(executor->error))
	{
		copy = MemoryContextAllocZero(reader->context, *len);
		memcpy(copy + sizeof(uint64), loky_area_address(executor->error),
			   executor->error_len);
	}
	LWLockRelease(&executor->lock);
	return copy;
}

/* Raise the error for which the executor's workers cannot start. */
static void
raise_broken(LokyMapReader *reader)
{
	Size		len;
	char	   *error = copy_broken_error(reader, &len);

	if (error != NULL)
		loky_error_rethrow(loky_error_decode(error + sizeof(uint64),
											 len - sizeof(uint64)), "loky map");
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_BROKEN_EXECUTOR),
			 errmsg("no worker can be started"),
			 errhint("See the server log, and try again once the cause is mended.")));
}

/* Raise an error where the map has ended for a reason of others. */
static void
check_cancelled(LokyMapReader *reader)
{
	switch ((LokyMapEnd) pg_atomic_read_u32(&reader->map->cancelled))
	{
		case LOKY_MAP_GOES_ON:
		case LOKY_MAP_NOT_WANTED:
			break;
		case LOKY_MAP_BROKEN:
			raise_broken(reader);
			break;
		case LOKY_MAP_SHUT_DOWN:
			ereport(ERROR,
					(errcode(ERRCODE_LOKY_SHUTDOWN_EXECUTOR),
					 errmsg("the executor was shut down while it ran the map"),
					 errhint("Run the map again.")));
			break;
		case LOKY_MAP_NO_MEMORY:
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of shared memory for a worker of the map"),
					 errhint("Raise loky.shared_memory.")));
			break;
	}
}

/*
 * Has a try_map, which raises nothing then, lost its executor?  The SQLSTATE of
 * its items in that case, else 0.
 */
static int
lost_executor(LokyMapReader *reader)
{
	if (reader->mode != LOKY_MAP_TRY)
		return 0;
	switch ((LokyMapEnd) pg_atomic_read_u32(&reader->map->cancelled))
	{
		case LOKY_MAP_SHUT_DOWN:
			return ERRCODE_LOKY_SHUTDOWN_EXECUTOR;
		case LOKY_MAP_BROKEN:
			return ERRCODE_LOKY_BROKEN_EXECUTOR;
		default:
			return 0;
	}
}

/* Is no worker to be had for more?  What runs is waited for all the same. */
static bool
is_broken(LokyMapReader *reader)
{
	return pg_atomic_read_u32(&reader->map->cancelled) == LOKY_MAP_BROKEN;
}

/* Is the outcome at the present position there? */
static bool
is_ready(LokyMapReader *reader)
{
	if (reader->states[reader->index] == LOKY_ITEM_EMPTY)
		return false;
	pg_read_barrier();
	return true;
}

/*
 * Has a map that is to stop, at a failed item or as its executor is broken, nothing
 * under way any more?
 */
static bool
has_stopped(LokyMapReader *reader)
{
	LokySharedMap *map = reader->map;
	LokySharedExecutor *executor = &loky->executors[map->executor];
	bool		stopped;

	LWLockAcquire(&executor->lock, LW_SHARED);
	stopped = map->nworkers == 0 && !loky_map_claimable(map) &&
		!loky_map_retry_any(map);
	LWLockRelease(&executor->lock);
	return stopped && !is_ready(reader);
}

/*
 * Wait for the outcome at the present position.  False where the deadline
 * passed before, or a stopped map has no further one.
 */
static bool
await_outcome(LokyMapReader *reader)
{
	LokySharedMap *map = reader->map;
	LokySharedExecutor *executor = &loky->executors[map->executor];
	bool		in_time;

	loky_client_begin_wait();
	loky_deadlock_await_map(map);
	for (;;)
	{
		ResetLatch(MyLatch);
		pg_atomic_write_u64(&map->awaited, reader->position);
		pg_atomic_write_u32(&map->reader_waits, 1);
		make_room(reader);		/* and a barrier */
		raise_notices(map);
		if (is_ready(reader) || (reader->failed && has_stopped(reader)))
			break;
		if (!is_broken(reader) || has_stopped(reader))
		{
			if (lost_executor(reader) != 0)
				break;
			check_cancelled(reader);
		}
		CHECK_FOR_INTERRUPTS();
		in_time = loky_client_sleep(Min(reader->deadline, reader->next_notice),
									executor, &reader->patience);
		if (!in_time && reader->deadline <= reader->next_notice)
			break;
		tell_progress(reader, false);
	}
	pg_atomic_write_u32(&map->reader_waits, 0);
	loky_client_end_wait();
	return is_ready(reader);
}

/* Raise the error of a map that was not done in time. */
static void
raise_timeout(LokyMapReader *reader)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_TIMEOUT),
			 errmsg("map was not done in time"),
			 errdetail("Item " UINT64_FORMAT " of " UINT64_FORMAT " was not done.",
					   reader->position + 1, reader->nitems),
			 errhint("Raise the timeout, or use loky.try_map() to get what was done.")));
}

/* The outcome at the present position has been taken. */
static void
advance(LokyMapReader *reader)
{
	reader->position++;
	if (++reader->index == reader->map->window)
		reader->index = 0;
}

/* Take the outcome at the present position. */
static void
take_outcome(LokyMapReader *reader, LokyOutcome *outcome)
{
	LokySharedMap *map = reader->map;
	uint64		index = reader->index;
	LokySharedPlace *place = &reader->places[index];

	outcome->item = place->item;
	outcome->state = (LokyItemState) reader->states[index];
	outcome->value = (Datum) place->value;
	outcome->not_run = 0;
	outcome->error = NULL;
	outcome->store = NULL;
	if (reader->timed)
		outcome->timing =
			((LokySharedTiming *) loky_area_address(map->timings))[index];
	if ((outcome->state == LOKY_ITEM_ROWS ||
		 outcome->state == LOKY_ITEM_ERROR) &&
		DsaPointerIsValid(place->value))
		outcome->store =
			&((LokySharedPiece *) loky_area_address(place->value))->store;

	reader->has_last = true;
	reader->last_index = index;
	advance(reader);
	if (reader->seen != NULL)
		reader->seen[outcome->item / 8] |= 1 << (outcome->item % 8);
}

/* Find the encoded error of an item that failed. */
static void
find_error(LokyMapReader *reader, LokyOutcome *outcome)
{
	LokyStoreReader *store;
	LokyRecordKind kind;
	char	   *data;
	Size		len;

	if (outcome->store == NULL)
		return;
	store = loky_store_open(outcome->store);
	while (loky_store_next(store, &kind, &data, &len))
	{
		char	   *copy;

		Assert(kind == LOKY_RECORD_ERROR);
		copy = MemoryContextAllocHuge(reader->context, len);
		memcpy(copy, data, len);
		reader->last_error = copy;
		outcome->error = copy;
		outcome->error_len = len;
	}
	loky_store_close(store);
}

/* Raise the error of an item. */
static void
raise_item_error(uint64 item, const char *error, Size len)
{
	char		where[64];

	if (error == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("item " UINT64_FORMAT " failed", item + 1),
				 errdetail("There was no memory to keep its error."),
				 errhint("Raise loky.shared_memory.")));
	memcpy(&item, error, sizeof(item));
	snprintf(where, sizeof(where), "loky task, item " UINT64_FORMAT, item + 1);
	loky_error_rethrow(loky_error_decode(error + sizeof(item),
										 len - sizeof(item)), where);
}

/* Remember the error of an unordered map if no earlier item has failed. */
static void
note_error(LokyMapReader *reader, LokyOutcome *outcome)
{
	if (reader->failed && reader->failed_item < outcome->item)
		return;
	reader->last_error = reader->error;
	reader->failed = true;
	reader->failed_item = outcome->item;
	reader->error = unconstify(char *, outcome->error);
	reader->error_len = outcome->error_len;
}

/*
 * The next item of a try_map that has ended early: what is done is returned, the
 * others have not been run.
 */
static bool
next_after_end(LokyMapReader *reader, LokyOutcome *outcome)
{
	if (reader->map != NULL && is_ready(reader))
	{
		take_outcome(reader, outcome);
		return true;
	}
	if (reader->seen != NULL)
	{
		while (reader->missing < reader->nitems &&
			   (reader->seen[reader->missing / 8] &
				(1 << (reader->missing % 8))) != 0)
			reader->missing++;
		outcome->item = reader->missing++;
	}
	else
	{
		outcome->item = reader->position;
		advance(reader);
	}
	if (outcome->item >= reader->nitems)
		return false;
	memset(&outcome->timing, 0, sizeof(outcome->timing));
	outcome->state = LOKY_ITEM_ERROR;
	outcome->error = reader->ended_error;
	outcome->error_len = reader->ended_error_len;
	outcome->store = NULL;
	outcome->not_run = reader->ended_error != NULL ? 0 : reader->ended;
	return true;
}

/*
 * End a try_map before all is done, but keep what is: cancel what runs, and wait
 * until the workers have left.
 */
static void
end_early(LokyMapReader *reader)
{
	reader->ended = lost_executor(reader);
	if (reader->ended == 0)
		reader->ended = ERRCODE_LOKY_TIMEOUT;
	else if (reader->ended == ERRCODE_LOKY_BROKEN_EXECUTOR)
		reader->ended_error = copy_broken_error(reader,
												&reader->ended_error_len);
	loky_held_stop_map(reader->map);
}

/*
 * The next outcome, if it is there and no more than a value, or a null; else it is
 * left for loky_map_reader_next().  Not for try_map, nor before any other outcome.
 */
bool
loky_map_reader_next_value(LokyMapReader *reader, Datum *value, bool *isnull)
{
	uint8		state;

	Assert(!reader->timed && reader->map != NULL);
	if (reader->has_last)
		release_last(reader);
	state = reader->states[reader->index];
	if ((state != LOKY_ITEM_VALUE && state != LOKY_ITEM_NULL) ||
		pg_atomic_read_u32(&reader->map->nnotices) > 0 ||
		!TIMESTAMP_IS_NOEND(reader->next_notice))
		return false;
	pg_read_barrier();
	*value = (Datum) reader->places[reader->index].value;
	*isnull = state == LOKY_ITEM_NULL;

	/* workers use the place again when they are told to, after a barrier */
	reader->states[reader->index] = LOKY_ITEM_EMPTY;
	advance(reader);
	if (reader->limit - reader->position < reader->map->window * 3 / 4)
		make_room(reader);
	return true;
}

/*
 * The next outcome; false at the end.  Raises the error of an item that failed,
 * except for try_map, and LK004 past the deadline.
 */
bool
loky_map_reader_next(LokyMapReader *reader, LokyOutcome *outcome)
{
	for (;;)
	{
		if (reader->map == NULL)
			return false;
		release_last(reader);
		raise_notices(reader->map);
		if (reader->ended != 0)
		{
			if (!next_after_end(reader, outcome))
				return false;
			if (outcome->state == LOKY_ITEM_ERROR && outcome->not_run == 0)
				find_error(reader, outcome);
			return true;
		}
		if (reader->position >= reader->nitems)
		{
			report_dropped_notices(reader->map);
			tell_progress(reader, true);
			if (reader->failed)
				raise_item_error(reader->failed_item, reader->error,
								 reader->error_len);
			return false;
		}
		if (!is_ready(reader) && !await_outcome(reader))
		{
			if (reader->failed && has_stopped(reader))
				raise_item_error(reader->failed_item, reader->error,
								 reader->error_len);
			if (reader->mode != LOKY_MAP_TRY)
				raise_timeout(reader);
			end_early(reader);
			continue;
		}
		take_outcome(reader, outcome);
		tell_progress(reader, false);
		if (outcome->state != LOKY_ITEM_ERROR)
			return true;
		raise_notices(reader->map);
		find_error(reader, outcome);
		if (reader->mode == LOKY_MAP_TRY)
			return true;
		if (reader->ordered)
			raise_item_error(outcome->item, outcome->error,
							 outcome->error_len);
		note_error(reader, outcome);
	}
}
