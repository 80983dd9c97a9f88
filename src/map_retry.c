/*-------------------------------------------------------------------------
 *
 * map_retry.c
 *	  Items of a map that are to be run again.
 *
 * An item that has failed by a mere collision with others, or with its worker,
 * may be given further attempts, each after a longer wait.  It goes back to the
 * map with the time when it is due; its worker goes on with others.  Where all
 * that is left is not yet due, workers find nothing to claim and park the map,
 * and a timer of the executor puts it back into the queue.  So what waits holds
 * its place in the window, but no worker.
 *
 * Chunks given by the user are run again as a whole.  What a procedure has
 * committed, if only in part, never is.
 *
 * Room
 * ----
 * All that waits has been claimed and not been published, so the window bounds
 * it; the room is laid out with the map, since there must be some also when a
 * worker has died.
 *
 * Locking
 * -------
 * What waits needs the map's lock; the time when the first of it is due, and how
 * much there is, may be read without.  Whoever adds something looks after that
 * whether the map is parked, and whoever parks it looks after that whether
 * something waits; so one of the two sets the timer.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_retry.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/timestamp.h"

#include "area.h"
#include "backoff.h"
#include "map.h"
#include "map_retry.h"

/* The order of the heap: the first is due first. */
static int
compare_retries(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const LokySharedRetry *ra =
		pairingheap_const_container(LokySharedRetry, node, a);
	const LokySharedRetry *rb =
		pairingheap_const_container(LokySharedRetry, node, b);

	if (ra->due != rb->due)
		return ra->due < rb->due ? 1 : -1;
	return 0;
}

/* Ranges that can wait at a time: no more than fit into the window. */
static uint64
room_length(const LokySharedMap *map)
{
	return map->window / Max(map->chunksize, 1) + 2;
}

/* Bytes of the room that the map needs. */
Size
loky_map_retry_room(const LokySharedMap *map)
{
	return room_length(map) * sizeof(LokySharedRetry);
}

/* Nothing waits.  The room is allocated by the caller. */
void
loky_map_retry_init(LokySharedMap *map, int max)
{
	LokySharedRetries *retries = &map->retries;

	retries->max = max;
	retries->room = InvalidDsaPointer;
	retries->heap.ph_compare = compare_retries;
	retries->heap.ph_arg = NULL;
	retries->heap.ph_root = NULL;
	retries->free = NULL;
	retries->nused = 0;
	pg_atomic_init_u32(&retries->n, 0);
	pg_atomic_init_u64(&retries->first_due, (uint64) DT_NOEND);
}

/* When the first of what waits is due; DT_NOEND where nothing does. */
static TimestampTz
first_due(LokySharedMap *map)
{
	return (TimestampTz) pg_atomic_read_u64(&map->retries.first_due);
}

/* What waits has changed.  The map's lock is held. */
static void
show_first(LokySharedMap *map, int added)
{
	LokySharedRetries *retries = &map->retries;
	TimestampTz due = DT_NOEND;

	if (!pairingheap_is_empty(&retries->heap))
		due = pairingheap_container(LokySharedRetry, node,
									pairingheap_first(&retries->heap))->due;
	pg_atomic_write_u64(&retries->first_due, (uint64) due);
	pg_atomic_fetch_add_u32(&retries->n, added);
}

/* It waits no more: its room may be used again.  The map's lock is held. */
static void
remove_retry(LokySharedMap *map, LokySharedRetry *retry)
{
	LokySharedRetries *retries = &map->retries;

	pairingheap_remove(&retries->heap, &retry->node);
	retry->waits = false;
	retry->next = retries->free;
	retries->free = retry;
	show_first(map, -1);
}

/*
 * The range waits until it is due, after so many attempts.  One that need not be
 * run, as an item before it has failed for good, is dropped.
 */
void
loky_map_retry_later(LokySharedMap *map, LokySharedRange range, int attempts,
					 TimestampTz due)
{
	LokySharedRetries *retries = &map->retries;
	LokySharedRetry *retry;

	LWLockAcquire(&map->lock, LW_EXCLUSIVE);
	if (range.lo >= pg_atomic_read_u64(&map->stop))
	{
		LWLockRelease(&map->lock);
		return;
	}
	retry = retries->free;
	if (retry != NULL)
		retries->free = retry->next;
	else
	{
		Assert(retries->nused < room_length(map));
		retry = (LokySharedRetry *) loky_area_address(retries->room) +
			retries->nused++;
	}
	retry->waits = true;
	retry->range = range;
	retry->attempts = attempts;
	retry->due = due;
	pairingheap_add(&retries->heap, &retry->node);
	show_first(map, 1);
	LWLockRelease(&map->lock);
}

/*
 * The item, or the chunk, that is the first of the part's range has failed with
 * this SQLSTATE and is undone: give it another attempt, if it has one left.  True
 * if so; the part is behind it then.  A parked map is to be offered after that.
 */
bool
loky_map_retry_part(LokySharedMap *map, LokySharedPart *part, int sqlstate)
{
	LokySharedRange range = part->range;
	uint64		seed;
	int			ms;

	Assert(part->noutcomes == 0 && !part->committed);
	if (part->wrote || part->attempts >= map->retries.max ||
		!loky_backoff_is_wanted(sqlstate) ||
		pg_atomic_read_u32(&map->cancelled) != LOKY_MAP_GOES_ON)
		return false;
	if (!part->whole)
		range.hi = range.lo + 1;
	seed = hash_combine64((uint64) map->started, range.lo);
	ms = loky_backoff_ms(seed, part->attempts + 1);
	loky_map_retry_later(map, range, part->attempts + 1,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms));

	/* an attempt is a call; what is left of the range has not been run before */
	part->run.tally.calls += range.hi - range.lo;
	part->run.tally.failures += range.hi - range.lo;
	part->range.lo = range.hi;
	part->attempts = 0;
	part->running = false;
	return true;
}

/* Take what is due first into the part; false where nothing is due. */
bool
loky_map_retry_claim(LokySharedMap *map, LokySharedPart *part)
{
	LokySharedRetries *retries = &map->retries;
	LokySharedRetry *retry = NULL;

	if (!loky_map_retry_is_due(map))
		return false;
	LWLockAcquire(&map->lock, LW_EXCLUSIVE);
	if (loky_map_retry_is_due(map))
	{
		retry = pairingheap_container(LokySharedRetry, node,
									  pairingheap_first(&retries->heap));
		part->range = retry->range;
		part->attempts = retry->attempts;
		remove_retry(map, retry);
	}
	LWLockRelease(&map->lock);
	return retry != NULL;
}

/* The map is to stop at an item: those behind it wait no more. */
void
loky_map_retry_stop(LokySharedMap *map)
{
	LokySharedRetries *retries = &map->retries;
	LokySharedRetry *room;

	if (retries->max == 0)
		return;
	LWLockAcquire(&map->lock, LW_EXCLUSIVE);
	room = loky_area_address(retries->room);
	for (uint64 i = 0; i < retries->nused && first_due(map) != DT_NOEND; i++)
	{
		if (room[i].waits &&
			room[i].range.lo >= pg_atomic_read_u64(&map->stop))
			remove_retry(map, &room[i]);
	}
	LWLockRelease(&map->lock);
}

/* May something that has waited be run now?  Needs no clock where nothing waits. */
bool
loky_map_retry_is_due(LokySharedMap *map)
{
	TimestampTz due = first_due(map);

	return due != DT_NOEND && due <= GetCurrentTimestamp();
}

/* How many workers could be of use for what waits: none before any is due. */
uint32
loky_map_retry_count_due(LokySharedMap *map)
{
	return loky_map_retry_is_due(map) ?
		pg_atomic_read_u32(&map->retries.n) : 0;
}

/* Does something wait that will be run, due or not? */
bool
loky_map_retry_any(LokySharedMap *map)
{
	return pg_atomic_read_u32(&map->cancelled) == LOKY_MAP_GOES_ON &&
		first_due(map) != DT_NOEND;
}

/*
 * See to it that the map is in the queue if there is something to claim; true if
 * there is.  Where there will be later, set the timer, not before the time given:
 * also where the map is in the queue, as its last worker may have died and another
 * one is not started for what is not due.  The executor's lock is held.
 */
bool
loky_map_retry_offer(LokySharedExecutor *executor, LokySharedMap *map,
					 TimestampTz not_before)
{
	TimestampTz due;

	if (map->closed)
		return false;
	if (loky_map_claimable(map))
	{
		if (!map->lane.queued)
		{
			pg_atomic_write_u32(&map->parked, 0);
			loky_queue_push_map(executor, map, map->session);
		}
		return true;
	}
	if (!loky_map_retry_any(map))
		return false;
	due = Max(first_due(map), not_before);
	if (!map->timer.set || due < map->timer.due)
		loky_timer_set(executor, &map->timer, due);
	return false;
}
