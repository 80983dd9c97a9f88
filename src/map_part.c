/*-------------------------------------------------------------------------
 *
 * map_part.c
 *	  What a worker has of a map: the outcomes of its range, and what becomes of them.
 *
 * An outcome is written to the worker's part of the map before its transaction
 * commits, and published after: so whoever settles a worker that died between the
 * two can still publish it.
 *
 * Locking
 * -------
 * A part is its worker's; when that is gone it is looked at under the lock of the
 * executor.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_part.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/timestamp.h"

#include "area.h"
#include "errdata.h"
#include "map_part.h"
#include "pool.h"

/* So many items of the range have been run, and so many of these have failed. */
static void
count_calls(LokySharedPart *part, uint64 n, uint64 nfailed)
{
	part->run.tally.calls += n;
	part->run.tally.failures += nfailed;
}

/* The outcomes of the part, if any, are final: hand them to the reader. */
void
loky_map_publish_part(LokySharedMap *map, LokySharedPart *part)
{
	LokySharedOutcome *outcomes = loky_area_address(part->outcomes);
	uint32		n = part->noutcomes;

	if (n == 0)
		return;

	loky_map_publish(map, outcomes, n);
	part->noutcomes = 0;
	count_calls(part, n, 0);
	part->run.tally.rows += part->nrows;
	part->nrows = 0;
	part->nsucceeded += n;
	part->range.lo += n;
	part->committed = false;
	part->wrote = false;
	part->running = false;
}

/* When and where the item has run that the part ran last. */
static LokySharedTiming
last_timing(const LokySharedPart *part, int worker)
{
	LokySharedTiming timing = {0};

	if (part->item_started == 0)
		return timing;
	timing.worker = worker;
	timing.attempts = part->attempts + 1;
	timing.started = part->item_started;
	timing.elapsed = Max(GetCurrentTimestamp() - part->item_started, 0);
	return timing;
}

/*
 * An item, or the chunk that it belongs to, has failed in the worker with this pid:
 * give it, or each item of the chunk, the error.  A map need not go on behind it.
 */
void
loky_map_fail_part(LokySharedMap *map, LokySharedPart *part, const char *error,
				   Size len, int worker)
{
	LokySharedOutcome outcome = {0};
	uint64		n = part->whole ? part->range.hi - part->range.lo : 1;

	if (map->mode != LOKY_MAP_TRY)
		loky_map_stop_at(map, part->range.lo + 1);
	outcome.timing = last_timing(part, worker);
	for (uint64 i = 0; i < n; i++)
	{
		outcome.item = part->range.lo + i;
		if (!loky_map_put_error(map, part, error, len, &outcome))
		{
			outcome.state = LOKY_ITEM_ERROR;
			outcome.value = InvalidDsaPointer;
		}
		loky_map_publish(map, &outcome, 1);
	}
	count_calls(part, n, n);
	part->nfailed += n;
	part->range.lo += n;
	part->committed = false;
	part->wrote = false;
	part->running = false;
}

/* Drop the outcomes whose transaction was aborted. */
void
loky_map_drop_part(LokySharedMap *map, LokySharedPart *part)
{
	LokySharedOutcome *outcomes = loky_area_address(part->outcomes);

	for (uint32 i = 0; i < part->noutcomes; i++)
		loky_map_free_value(map, outcomes[i].state, outcomes[i].value);
	part->noutcomes = 0;
	part->nrows = 0;
}

/*
 * How many items of the transaction that is under way have been run before the one
 * that its failure is put down to: the one that runs, or at its end the last one.
 */
uint32
loky_map_count_before(const LokySharedPart *part)
{
	Assert(part->noutcomes > 0 || !part->ending);
	return part->ending ? part->noutcomes - 1 : part->noutcomes;
}

/*
 * The transaction was aborted as the map is not wanted any more: what it has run
 * comes to nothing.
 */
void
loky_map_cancel_part(LokySharedMap *map, LokySharedPart *part)
{
	uint64		n = part->running ? loky_map_count_before(part) + 1 : 0;

	n = Min(n, part->range.hi - part->range.lo);
	loky_map_drop_part(map, part);
	count_calls(part, n, 0);
	part->run.ncancelled += n;
	part->range.lo += n;
	part->running = false;
}

/*
 * The first n items of the range shared a transaction with the one after them, which
 * has failed; as it has written they are undone too.  Give them back, to be run alone.
 */
static void
return_undone(LokySharedMap *map, LokySharedPart *part, uint32 n)
{
	LokySharedRange rest = part->range;

	Assert(part->attempts == 0);
	pg_atomic_write_u32(&map->writes, 1);
	rest.lo += n;
	part->range.hi = rest.lo;
	loky_map_return(map, part);
	part->range = rest;
	if (part->run.tally.calls == 0)
		part->run.first = rest.lo;
}

/*
 * A worker has died with this part of the map: publish what is final, have what
 * was running fail or tried again, give back the rest.  error is the encoded error
 * of its death, behind the number of an item, which is written here.  No memory is
 * allocated but in the area.  The executor's lock is held.
 */
void
loky_map_settle(LokySharedMap *map, LokySharedPart *part,
				const LokySharedWorker *worker, char *error, Size len)
{
	if (part->noutcomes > 0)
	{
		uint32		nbefore = loky_map_count_before(part);

		if (part->committed || (part->repeatable && !part->whole))
		{
			loky_map_publish_part(map, part);
			part->running = !part->ending;
		}
		else
		{
			loky_map_drop_part(map, part);
			if (nbefore > 0 && !part->whole)
				return_undone(map, part, nbefore);
		}
	}
	loky_store_free(&part->store);
	if (part->running && part->range.lo < part->range.hi &&
		(worker->kill ||
		 !loky_map_retry_part(map, part, ERRCODE_LOKY_TERMINATED_WORKER)))
	{
		uint64		item = part->range.lo;

		memcpy(error, &item, sizeof(item));
		loky_map_fail_part(map, part, error, len, worker->pid);
	}
	loky_map_return(map, part);
	part->running = false;
	(void) loky_map_retry_offer(&loky->executors[map->executor], map, 0);
}
