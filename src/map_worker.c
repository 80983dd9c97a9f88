/*-------------------------------------------------------------------------
 *
 * map_worker.c
 *	  A worker's side of a map: running ranges of items.
 *
 * Transactions
 * ------------
 * Without a chunk size each item runs in a transaction of its own, unless nobody
 * can tell the difference: statements that only read and call nothing volatile
 * share one, though each has its own snapshot.  With a chunk size, the items of
 * a chunk share a transaction and fail together.
 *
 * Whether a statement only reads is known from what functions are declared to be.
 * Where one that was declared otherwise has written, and an item fails or its worker
 * dies, those before it are undone with it: they are run again, and from then on all
 * items run one in a transaction.
 *
 * An outcome is written to the worker's part of the map before its transaction
 * commits, and published after: so whoever settles a worker that died between
 * the two can still publish it.
 *
 * Ranges
 * ------
 * The first range has one item; the next has twice as many while a range takes
 * too short, half as many when it takes too long.  A worker that meets a heavy
 * item gives the rest of its range back, and so does one that has run as many
 * tasks as it may.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_worker.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "area.h"
#include "compat.h"
#include "debug_point.h"
#include "errdata.h"
#include "guc.h"
#include "history.h"
#include "map_item.h"
#include "map_part.h"
#include "messages.h"
#include "recycle.h"
#include "run_timeout.h"
#include "sched.h"
#include "wait.h"
#include "worker.h"

/* A range should take between these two. */
#define SHORT_RANGE_US	100
#define LONG_RANGE_US	400

/* The clock is read after each item, or after so many cheap ones. */
#define MAX_STRIDE		8
#define CHEAP_ITEM_US	2

/* After so long the rest of a range is given back. */
#define HEAVY_RANGE_US	1000

static void
keep_notice(const char *message, Size len)
{
	loky_map_add_notice(LokyMyWorker->map, message, len);
}

/* The reader of the map has waited long enough. */
static void
wake_late(void)
{
	LokySharedMap *map = LokyMyWorker != NULL ? LokyMyWorker->map : NULL;

	if (map != NULL)
		loky_wake(map->reader);
}

/*
 * Tell the reader of new outcomes.  Waking it for each cheap item would cost
 * more than the item, so it may be put off, but not past a heavy one.  now is the
 * time by loky_map_clock().
 */
static void
notify_reader(LokySharedMap *map, uint64 now)
{
	static TimeoutId late_wake = MAX_TIMEOUTS;

	if (late_wake == MAX_TIMEOUTS)
		late_wake = RegisterTimeout(USER_TIMEOUT, wake_late);
	if (loky_map_wake_reader(map, now))
	{
		if (get_timeout_active(late_wake))
			disable_timeout(late_wake, false);
	}
	else if (!get_timeout_active(late_wake))
		enable_timeout_after(late_wake, LOKY_LATE_WAKE_MS);
}

/* How many more items the worker may run before it is replaced. */
static uint64
items_left(const LokySharedPart *part)
{
	return loky_recycle_tasks_left(LokyMyWorker,
								   part->nsucceeded + part->nfailed);
}

/* The number of an item and its error, in short where there is no room for all. */
static void
encode_item_error(StringInfo buf, const ErrorData *edata, uint64 item)
{
	initStringInfo(buf);
	appendBinaryStringInfo(buf, (const char *) &item, sizeof(item));
	loky_error_encode(buf, edata);
	if (buf->len > LOKY_SHORT_ERROR && !loky_area_has_room(buf->len))
	{
		buf->len = sizeof(item);
		loky_error_encode_short(buf, edata);
	}
}

/* The outcome of the last item does not hold, as its transaction has not ended well. */
static void
drop_last(LokyMapJob *job)
{
	LokySharedPart *part = job->part;
	LokySharedOutcome *outcome = &job->outcomes[--part->noutcomes];

	part->nrows -= job->last_rows;
	loky_map_free_value(job->map, outcome->state, outcome->value);
}

/*
 * After an error in an item, or at the end of the transaction of which it is the last
 * one: publish what is valid of the outcomes before it, then the error, unless it is to
 * be run again.
 */
static void
fail_item(LokyMapJob *job, const ErrorData *edata)
{
	LokySharedMap *map = job->map;
	LokySharedPart *part = job->part;
	uint64		item = part->range.lo + loky_map_count_before(part);
	StringInfoData error;

	if (part->ending)
		drop_last(job);
	if (part->whole)
		loky_map_drop_part(map, part);
	else
		loky_map_publish_part(map, part);
	if (loky_map_retry_part(map, part, edata->sqlerrcode))
	{
		pg_memory_barrier();
		if (pg_atomic_read_u32(&map->parked) != 0)
			loky_sched_offer_map(map);
		return;
	}
	encode_item_error(&error, edata, item);
	loky_map_fail_part(map, part, error.data, error.len, MyProcPid);
	pfree(error.data);
}

/*
 * Items that were run together have written after all, and are undone as one of them
 * has failed: have each run alone.
 */
static void
run_apart(LokyMapJob *job)
{
	pg_atomic_write_u32(&job->map->writes, 1);
	loky_map_drop_part(job->map, job->part);
	job->part->running = false;
}

/*
 * Raise 25001 where the item that ran last has begun or ended the transaction that the
 * next one is to share.
 */
static void
check_shared_transaction(LokySharedPart *part)
{
	if (!IsTransactionBlock())
		return;
	part->ending = true;
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("task began or ended a transaction that items share"),
			 errhint("Leave out BEGIN, COMMIT and ROLLBACK, or run each item in a transaction of its own: chunksize => 1.")));
}

/* Raise 57014 where an item has trapped its cancel and others are to be run after it. */
static void
check_given_up(LokyMapJob *job)
{
	if (!loky_map_is_given_up(job->map))
		return;
	job->part->ending = true;
	loky_worker_raise_cancelled();
}

/* All items of the transaction have been run: commit it, and publish what came of them. */
static void
end_transaction(LokyMapJob *job)
{
	job->part->ending = true;
	loky_item_end(job);
	CHECK_FOR_INTERRUPTS();
	loky_worker_commit(false);
	HOLD_INTERRUPTS();
	loky_map_publish_part(job->map, job->part);
	RESUME_INTERRUPTS();
}

/*
 * Run items of the range in one transaction: all of a chunk or of a repeatable
 * statement, as long as it is not heavy; else one.
 */
static void
run_transaction(LokyMapJob *job, uint64 start, bool *heavy)
{
	LokySharedPart *part = job->part;
	uint64		item = part->range.lo;
	uint64		left = items_left(part);
	uint64		look_at = item + 1;
	uint64		stride = 1;
	uint64		last_us = 0;
	uint64		us;
	bool		cheap;

	part->item_started = 0;
	part->ending = false;
	loky_worker_begin(&job->map->request, job->map->snapshot);
	job->log_min_duration = loky_log_min_duration;

	/* one that is told to end before this gives the range back */
	CHECK_FOR_INTERRUPTS();
	part->running = true;
	loky_item_begin(job);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (part->noutcomes > 0)
			check_given_up(job);
		if (loky_item_is_cheap(job))
		{
			uint64		n = Min(look_at, part->range.hi) - item;

			if (!part->whole)
				n = Min(n, left - part->noutcomes);
			loky_item_run_cheap(job, item, item + n);
			item += n;
		}
		else
			loky_item_run(job, item++);
		if (part->whole ? item >= part->range.hi : !job->repeatable)
			break;
		loky_limit_disarm();
		if (item >= part->range.hi)
			break;
		check_shared_transaction(part);
		if (part->whole)
		{
			look_at = part->range.hi;
			continue;
		}
		if (part->noutcomes >= left)
			break;
		if (item < look_at)
			continue;
		us = loky_map_clock() - start;
		if (us > HEAVY_RANGE_US)
		{
			*heavy = true;
			break;
		}
		cheap = us - last_us < stride * CHEAP_ITEM_US;
		stride = cheap ? Min(stride * 2, MAX_STRIDE) : 1;
		look_at = item + stride;
		last_us = us;
	}
	end_transaction(job);
}

/* Run a transaction's worth of the range, whatever becomes of it. */
static void
try_transaction(LokyMapJob *job, uint64 start, volatile bool *heavy)
{
	LokySharedPart *part = job->part;

	loky_worker_reset_memory();
	PG_TRY();
	{
		bool		is_heavy = false;

		run_transaction(job, start, &is_heavy);
		*heavy = is_heavy;
	}
	PG_CATCH();
	{
		ErrorData  *edata = loky_worker_abort(LokyTaskContext);

		HOLD_INTERRUPTS();
		loky_store_abandon(LokyMyWriter, &part->store);
		if (part->committed)
			loky_map_publish_part(job->map, part);
		else if (loky_map_is_given_up(job->map))
		{
			/* nobody reads it any more: the error is the cancellation */
			loky_cancel_children(LokyMyWorker);
			loky_map_cancel_part(job->map, part);
		}
		else if (job->repeatable && !part->repeatable && !part->whole &&
				 loky_map_count_before(part) > 0)
			run_apart(job);
		else
			fail_item(job, edata);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}

/* The transaction that began at this item has taken so long. */
static void
note_transaction(LokyMapJob *job, uint64 item, uint64 us)
{
	LokySharedPart *part = job->part;
	LokyTally  *tally = &part->run.tally;

	tally->total_us += us;
	tally->max_us = Max(tally->max_us, us);
	if (job->log_min_duration >= 0 && part->range.lo > item &&
		us >= (uint64) job->log_min_duration * 1000)
		loky_worker_log_items(job->map, item, part->range.lo - item, us);
}

/* Run the range that was claimed; what turns out too much is given back. */
static void
run_range(LokyMapJob *job)
{
	LokySharedMap *map = job->map;
	LokySharedPart *part = job->part;
	uint64		size = part->range.hi - part->range.lo;
	uint64		start = loky_map_clock();
	uint64		now = start;
	volatile bool heavy = false;

	loky_history_begin_range(part);
	while (part->range.lo < part->range.hi)
	{
		uint64		item = part->range.lo;
		uint64		before = now;

		if (pg_atomic_read_u32(&map->cancelled) != 0 ||
			part->range.lo >= pg_atomic_read_u64(&map->stop))
		{
			part->range.lo = part->range.hi;
			break;
		}
		try_transaction(job, start, &heavy);
		loky_debug_point("ended");
		now = loky_map_clock();
		note_transaction(job, item, now - before);
		notify_reader(map, now);

		/* one that could not clean its session has been told to stop */
		if ((heavy || now - start > HEAVY_RANGE_US || items_left(part) == 0 ||
			 LokyMyWorker->stop) &&
			part->range.lo < part->range.hi && !part->whole)
		{
			loky_map_return(map, part);
			if (pg_atomic_read_u32(&map->parked) != 0)
				loky_sched_offer_map(map);
		}
	}
	loky_history_end_range(LokyMyWorker, part, now - start);
	if (map->delay > 0)
		part->wish = 1;
	else if (now - start < SHORT_RANGE_US)
		part->wish = Min(size * 2, part->max_outcomes);
	else if (now - start > LONG_RANGE_US)
		part->wish = Max(size / 2, 1);
}

/* Rest as long as the map wants it after each item, unless something ends that. */
static void
rest_after(LokySharedMap *map)
{
	TimestampTz end;

	if (map->delay == 0)
		return;
	end = GetCurrentTimestamp() + map->delay;
	pgstat_report_activity(STATE_IDLE, NULL);
	for (;;)
	{
		long		ms;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (pg_atomic_read_u32(&map->cancelled) != LOKY_MAP_GOES_ON ||
			!loky_enabled || loky_leave_map_is_due(LokyMyWorker))
			break;
		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		if (ms <= 0)
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, loky_wait_event(LOKY_WAIT_DELAY));
		(void) loky_worker_reload();
	}
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
}

/* Get ready to work on the map.  False where there is no memory for it. */
static bool
begin_job(LokyMapJob *job, LokySharedMap *map)
{
	memset(job, 0, sizeof(*job));
	job->map = map;
	job->part = loky_map_part(map, LokyMyWorker->index);
	if (job->part == NULL)
		return false;
	job->context = AllocSetContextCreate(TopMemoryContext, "loky map",
										 ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(job->context);
	job->part->event = NULL;
	job->part->whole = map->chunksize > 0;
	job->log_min_duration = -1;
	job->part->repeatable = false;
	loky_item_open_job(job);
	debug_query_string = pstrdup(loky_request_text(&map->request, LOKY_TEXT_SQL));
	LokyMyDepth = map->request.depth;
	LokyMyDest->max_rows = map->mode == LOKY_MAP_FLAT ? 0 : 1;
	LokyMyDest->hold = true;
	LokyMyDest->known_desc = NULL;
	if (DsaPointerIsValid(map->desc))
	{
		LokyMyDest->known_desc = loky_area_address(map->desc);
		LokyMyDest->known_desc_len = map->desc_len;
	}
	return true;
}

static void
end_job(LokyMapJob *job)
{
	LokySharedPart *part = job->part;

	loky_worker_reset_memory();
	if (DsaPointerIsValid(part->chunk))
	{
		dsa_pointer chunk = part->chunk;

		part->chunk = InvalidDsaPointer;
		loky_map_unchunk(job->map, chunk);
	}
	LokyMyDest->known_desc = NULL;
	LokyMyDepth = 0;
	debug_query_string = NULL;
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(job->context);
}

/* Between two ranges: is there a reason to have this worker replaced? */
static bool
is_to_leave(const LokyMapJob *job)
{
	return items_left(job->part) == 0 ||
		loky_recycle_is_heavy(MemoryContextMemAllocated(job->context, true));
}

/*
 * Work on the map as long as there is something to claim and nobody else has
 * waited longer.  The worker has taken the map; this gives it back.
 */
void
loky_map_work(LokySharedMap *map)
{
	LokyMapJob	job;

	if (!begin_job(&job, map))
	{
		/* the reader raises an error for want of memory */
		loky_map_end(map, LOKY_MAP_NO_MEMORY);
		loky_sched_park_map(map);
		loky_sched_leave_map(LokyMyWorker);
		return;
	}
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
	loky_worker_show_label(loky_request_text(&map->request, LOKY_TEXT_LABEL));
	loky_messages_set_sink(keep_notice);
	for (;;)
	{
		if (!loky_map_claim(map, Min(job.part->wish, items_left(job.part)),
							job.part))
		{
			loky_sched_park_map(map);
			break;
		}
		run_range(&job);
		loky_item_forget_progress();
		rest_after(map);
		(void) pgstat_report_stat(false);
		(void) loky_worker_reload();
		if (!loky_enabled || loky_leave_map_is_due(LokyMyWorker) ||
			is_to_leave(&job))
			break;
	}
	loky_messages_set_sink(NULL);
	loky_worker_show_label(NULL);
	end_job(&job);
	HOLD_INTERRUPTS();
	loky_sched_leave_map(LokyMyWorker);
	QueryCancelPending = false;
	RESUME_INTERRUPTS();
}
