/*-------------------------------------------------------------------------
 *
 * map.c
 *	  One object for all items of a map: what both sides need of it.
 *
 * A map is laid out once by its reader and then offered to workers as one
 * entry of the queue.  Workers claim ranges of items with an atomic; outcomes
 * land in places by the item's index, or, where the order does not matter, in
 * the order of completion.  The reader drains the places in their order.
 *
 * The window
 * ----------
 * There are only so many places.  An item may be claimed when its place is
 * sure to be free, that is below limit, which the reader raises as it drains.  A
 * worker that finds nothing to claim leaves; it never waits for the reader.
 * The map is then parked: taken out of the queue until the reader has made
 * room.  So a cursor that rests holds no worker.
 *
 * Memory
 * ------
 * One by-value column lies in the place itself.  Everything else is a piece in
 * a chunk that one worker fills; the chunk goes when its last piece has been
 * read.  Many unread bytes close the window as well; the rows of an item that
 * runs spill to a file, as those of a task do.
 *
 * Life
 * ----
 * The reader, and each worker that has taken the map from the queue, may touch
 * it; whoever leaves last frees it.  nworkers and closed count them, under the
 * executor's lock.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "area.h"
#include "map.h"
#include "map_retry.h"

/* Size of the chunks that workers fill with pieces. */
#define CHUNK_BYTES		(64 * 1024)

/* Unread notices of one map may take so much. */
#define NOTICE_BYTES	(1024 * 1024)

/*
 * The reader is woken when it has not been for this part of the map's time so far,
 * which is at least and at most so long.
 */
#define WAKE_SHARE		16
#define MIN_WAKE_US		200
#define MAX_WAKE_US		(LOKY_LATE_WAKE_MS * 1000)

/* Items that nobody has claimed and that may be claimed, from next on. */
static uint64
claim_end(LokySharedMap *map)
{
	uint64		end = pg_atomic_read_u64(&map->limit);
	uint64		stop = pg_atomic_read_u64(&map->stop);

	end = Min(end, stop);
	return Min(end, map->nitems);
}

/* Take a range that a worker gave back; false where there is none to run. */
static bool
claim_returned(LokySharedMap *map, LokySharedRange *range)
{
	bool		found = false;

	if (pg_atomic_read_u32(&map->nreturned) == 0)
		return false;
	LWLockAcquire(&map->lock, LW_EXCLUSIVE);
	if (map->returned > 0)
	{
		LokySharedRange *ranges = loky_area_address(map->returned_ranges);

		*range = ranges[--map->returned];
		pg_atomic_write_u32(&map->nreturned, map->returned);
		found = true;
	}
	LWLockRelease(&map->lock);
	return found;
}

/*
 * Claim up to wish items for the part.  False where there is nothing to claim at
 * present.
 */
bool
loky_map_claim(LokySharedMap *map, uint64 wish, LokySharedPart *part)
{
	uint64		next;

	Assert(wish > 0);
	if (pg_atomic_read_u32(&map->cancelled) != 0)
		return false;
	if (loky_map_retry_claim(map, part))
		return true;
	part->attempts = 0;
	if (claim_returned(map, &part->range))
		return true;
	if (pg_atomic_read_u64(&map->piece_bytes) > map->budget)
		return false;
	next = pg_atomic_read_u64(&map->next);
	for (;;)
	{
		uint64		end = claim_end(map);
		uint64		hi;

		if (next >= end)
			return false;
		hi = Min(next + wish, end);

		/* a chunk given by the user is not cut by the window */
		if (map->chunksize > 0)
		{
			hi = Min(next + map->chunksize, map->nitems);
			if (hi > pg_atomic_read_u64(&map->limit))
				return false;
		}
		if (pg_atomic_compare_exchange_u64(&map->next, &next, hi))
		{
			part->range.lo = next;
			part->range.hi = hi;
			return true;
		}
	}
}

/* Could a worker claim something now? */
bool
loky_map_claimable(LokySharedMap *map)
{
	uint64		next;
	uint64		end;

	if (pg_atomic_read_u32(&map->cancelled) != 0)
		return false;
	if (pg_atomic_read_u32(&map->nreturned) > 0 || loky_map_retry_is_due(map))
		return true;
	if (pg_atomic_read_u64(&map->piece_bytes) > map->budget)
		return false;
	next = pg_atomic_read_u64(&map->next);
	end = claim_end(map);
	if (next < end && map->chunksize > 0)
		return Min(next + map->chunksize, map->nitems) <=
			pg_atomic_read_u64(&map->limit);
	return next < end;
}

/*
 * Has all of the map been run that will be, so that only its reader has anything left
 * to do?  The executor's lock is held.
 */
bool
loky_map_is_at_rest(LokySharedMap *map)
{
	Assert(LWLockHeldByMe(&loky->executors[map->executor].lock));
	if (map->nworkers > 0)
		return false;
	return pg_atomic_read_u32(&map->cancelled) != LOKY_MAP_GOES_ON ||
		(pg_atomic_read_u32(&map->nreturned) == 0 && !loky_map_retry_any(map) &&
		 pg_atomic_read_u64(&map->next) >= Min(pg_atomic_read_u64(&map->stop),
											   map->nitems));
}

/* Give back the part's items, which were claimed but not run. */
void
loky_map_return(LokySharedMap *map, LokySharedPart *part)
{
	LokySharedRange range = part->range;
	LokySharedRange *ranges;

	part->range.lo = part->range.hi = 0;
	if (range.lo >= range.hi)
		return;
	if (part->attempts > 0)
	{
		/* they were due, and still are */
		loky_map_retry_later(map, range, part->attempts, 0);
		return;
	}
	LWLockAcquire(&map->lock, LW_EXCLUSIVE);
	ranges = loky_area_address(map->returned_ranges);

	/*
	 * Each worker slot gives back one range at a time, and takes a returned
	 * one before it claims another, so there is room for one from each; a
	 * successor in the slot may add one before that.  One may be given back in
	 * two pieces, by a worker whose transaction began before map->writes was set.
	 */
	Assert(map->returned < LOKY_RANGES_RETURNED * loky->nworkers);
	ranges[map->returned++] = range;
	pg_atomic_write_u32(&map->nreturned, map->returned);
	LWLockRelease(&map->lock);
}

/*
 * The map cannot go on, for this reason, unless another one was first: what its reader
 * does not want any more stays so, whatever becomes of the executor.
 */
void
loky_map_end(LokySharedMap *map, LokyMapEnd reason)
{
	uint32		goes_on = LOKY_MAP_GOES_ON;

	(void) pg_atomic_compare_exchange_u32(&map->cancelled, &goes_on, reason);
}

/* No item from here on need be run, as an earlier one has failed. */
void
loky_map_stop_at(LokySharedMap *map, uint64 item)
{
	uint64		stop = pg_atomic_read_u64(&map->stop);

	while (item < stop &&
		   !pg_atomic_compare_exchange_u64(&map->stop, &stop, item))
		;
	loky_map_retry_stop(map);
}

/*
 * Put the final outcomes of n items, each the one after the last, into their places,
 * where the reader finds them.
 */
void
loky_map_publish(LokySharedMap *map, const LokySharedOutcome *outcomes, uint32 n)
{
	LokySharedPlace *places = loky_area_address(map->places);
	volatile uint8 *states = loky_area_address(map->states);
	LokySharedTiming *timings = DsaPointerIsValid(map->timings) ?
		loky_area_address(map->timings) : NULL;
	uint64		position = map->ordered ? outcomes[0].item :
		pg_atomic_fetch_add_u64(&map->tickets, n);
	uint64		first = position % map->window;
	uint64		index = first;
	uint64		nfailed = 0;

	for (uint32 i = 0; i < n; i++)
	{
		Assert(outcomes[i].item == outcomes[0].item + i);
		Assert(states[index] == LOKY_ITEM_EMPTY);
		places[index].value = outcomes[i].value;
		places[index].item = outcomes[i].item;
		if (timings != NULL)
			timings[index] = outcomes[i].timing;
		if (++index == map->window)
			index = 0;
	}
	pg_write_barrier();
	index = first;
	for (uint32 i = 0; i < n; i++)
	{
		states[index] = (uint8) outcomes[i].state;
		nfailed += outcomes[i].state == LOKY_ITEM_ERROR;
		if (++index == map->window)
			index = 0;
	}
	pg_atomic_fetch_add_u64(&map->published, n);
	if (nfailed > 0)
		pg_atomic_fetch_add_u64(&map->nfailed, nfailed);
}

/* Microseconds by a clock that never goes back. */
uint64
loky_map_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* Has the reader waited long enough, or is the window half full? */
static bool
is_wake_due(LokySharedMap *map, uint64 now)
{
	uint64		wait = (now - map->started_us) / WAKE_SHARE;

	wait = Max(wait, MIN_WAKE_US);
	return now - pg_atomic_read_u64(&map->last_wake) >= Min(wait, MAX_WAKE_US) ||
		pg_atomic_read_u64(&map->next) >=
		pg_atomic_read_u64(&map->awaited) + map->window / 2;
}

/* Is there anything that the reader can read? */
static bool
is_readable(LokySharedMap *map)
{
	volatile uint8 *states = loky_area_address(map->states);

	return states[pg_atomic_read_u64(&map->awaited) % map->window] !=
		LOKY_ITEM_EMPTY;
}

/*
 * Wake the reader if it waits for something that is there and, at the time now, has
 * not been woken for a while, since a wake-up costs more than a cheap item.  False
 * where it should be woken later on.
 */
bool
loky_map_wake_reader(LokySharedMap *map, uint64 now)
{
	pg_memory_barrier();
	if (pg_atomic_read_u32(&map->reader_waits) == 0 || !is_readable(map))
		return true;
	if (!is_wake_due(map, now))
		return false;
	pg_atomic_write_u64(&map->last_wake, now);
	loky_wake(map->reader);
	return true;
}

/* What the worker in this slot has of the map; NULL where it has never asked. */
LokySharedPart *
loky_map_known_part(LokySharedMap *map, int worker)
{
	dsa_pointer *parts = loky_area_address(map->parts);

	return DsaPointerIsValid(parts[worker]) ?
		loky_area_address(parts[worker]) : NULL;
}

/* The same, but made at the first call; NULL where there is no memory for it. */
LokySharedPart *
loky_map_part(LokySharedMap *map, int worker)
{
	dsa_pointer *parts = loky_area_address(map->parts);
	LokySharedPart *part = loky_map_known_part(map, worker);
	Size		outcomes;
	uint64		max_outcomes;

	if (part != NULL)
		return part;

	max_outcomes = map->chunksize > 0 ? Min(map->chunksize, map->nitems) : 1024;
	outcomes = max_outcomes * sizeof(LokySharedOutcome);
	parts[worker] = loky_area_alloc(sizeof(LokySharedPart));
	if (!DsaPointerIsValid(parts[worker]))
		return NULL;
	part = loky_area_address(parts[worker]);
	memset(part, 0, offsetof(LokySharedPart, store));
	part->max_outcomes = (uint32) max_outcomes;
	part->wish = 1;
	part->chunk = InvalidDsaPointer;
	loky_store_init(&part->store, LOKY_PART_INLINE);
	part->outcomes = loky_area_alloc(outcomes);
	if (!DsaPointerIsValid(part->outcomes))
	{
		loky_area_free(parts[worker]);
		parts[worker] = InvalidDsaPointer;
		return NULL;
	}
	return part;
}

/*
 * The worker that has claimed the item and not yet published its outcome; NULL
 * where there is none.  The executor's lock is held, but workers change their
 * ranges without it, so this is a hint.
 */
LokySharedWorker *
loky_map_holder(LokySharedMap *map, uint64 item)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedPart *part;

		if (loky->workers[i].map != map)
			continue;
		part = loky_map_known_part(map, i);
		if (part != NULL && part->range.lo <= item && item < part->range.hi)
			return &loky->workers[i];
	}
	return NULL;
}

/* One reference to the chunk less. */
void
loky_map_unchunk(LokySharedMap *map, dsa_pointer dp)
{
	LokySharedChunk *chunk = loky_area_address(dp);

	if (pg_atomic_sub_fetch_u32(&chunk->refs, 1) == 0)
	{
		pg_atomic_fetch_sub_u64(&map->piece_bytes, chunk->size);
		loky_area_free(dp);
	}
}

/*
 * Room for a piece of this size in the part's chunk, or in a new one; invalid
 * where the area is full.
 */
static dsa_pointer
alloc_piece(LokySharedMap *map, LokySharedPart *part, Size size)
{
	LokySharedChunk *chunk;
	Size		head = MAXALIGN(sizeof(LokySharedChunk));

	size = MAXALIGN(size);
	if (DsaPointerIsValid(part->chunk))
	{
		chunk = loky_area_address(part->chunk);
		if (chunk->used + size > chunk->size)
		{
			dsa_pointer full = part->chunk;

			part->chunk = InvalidDsaPointer;
			loky_map_unchunk(map, full);
		}
	}
	if (!DsaPointerIsValid(part->chunk))
	{
		Size		bytes = Max(CHUNK_BYTES, head + size);

		if (loky_area_has_room(bytes))
			part->chunk = loky_area_alloc(bytes);
		if (!DsaPointerIsValid(part->chunk))
		{
			bytes = head + size;
			part->chunk = loky_area_alloc(bytes);
		}
		if (!DsaPointerIsValid(part->chunk))
			return InvalidDsaPointer;
		chunk = loky_area_address(part->chunk);
		pg_atomic_init_u32(&chunk->refs, 1);
		chunk->size = (uint32) bytes;
		chunk->used = (uint32) head;
		pg_atomic_fetch_add_u64(&map->piece_bytes, bytes);
	}
	chunk = loky_area_address(part->chunk);
	pg_atomic_fetch_add_u32(&chunk->refs, 1);
	chunk->used += size;
	return part->chunk + chunk->used - size;
}

/* The bytes of a store that lie in segments of their own. */
static uint64
store_bytes(const LokySharedStore *store)
{
	return DsaPointerIsValid(store->segments) ? store->bytes : 0;
}

/*
 * Move the complete store of an item into a piece, and leave it empty.  Returns
 * the piece, invalid where the area is full.  With may_spill the records go to
 * a file before that, which can raise an error.
 */
uint64
loky_map_keep_store(LokySharedMap *map, LokySharedPart *part,
					LokySharedStore *store, bool may_spill)
{
	Size		head = offsetof(LokySharedPiece, store) +
		offsetof(LokySharedStore, inline_data);
	dsa_pointer dp = alloc_piece(map, part, head + store->inline_used);
	LokySharedPiece *piece;

	if (!DsaPointerIsValid(dp) && may_spill)
	{
		loky_store_spill(store);
		dp = alloc_piece(map, part, head + store->inline_used);
	}
	if (!DsaPointerIsValid(dp))
		return InvalidDsaPointer;
	piece = loky_area_address(dp);
	piece->chunk = part->chunk;
	memcpy(&piece->store, store,
		   offsetof(LokySharedStore, inline_data) + store->inline_used);
	piece->store.inline_size = store->inline_used;
	pg_atomic_fetch_add_u64(&map->piece_bytes, store_bytes(store));

	/* what it points to belongs to the piece now */
	loky_store_init(store, store->inline_size);
	return dp;
}

/*
 * Make the encoded error the outcome of an item.  False where the area is
 * full.
 */
bool
loky_map_put_error(LokySharedMap *map, LokySharedPart *part,
				   const char *data, Size len, LokySharedOutcome *outcome)
{
	loky_store_set(&part->store, LOKY_RECORD_ERROR, data, len);
	outcome->state = LOKY_ITEM_ERROR;
	outcome->value = loky_map_keep_store(map, part, &part->store, false);
	if (DsaPointerIsValid(outcome->value))
		return true;
	loky_store_free(&part->store);
	return false;
}

/* Free what a value that has been read, or never will be, refers to. */
void
loky_map_free_value(LokySharedMap *map, LokyItemState state, uint64 value)
{
	LokySharedPiece *piece;
	dsa_pointer chunk;

	if ((state != LOKY_ITEM_ROWS && state != LOKY_ITEM_ERROR) ||
		!DsaPointerIsValid(value))
		return;
	piece = loky_area_address(value);
	chunk = piece->chunk;
	pg_atomic_fetch_sub_u64(&map->piece_bytes, store_bytes(&piece->store));
	loky_store_free(&piece->store);
	loky_map_unchunk(map, chunk);
}

/*
 * Append a notice for the reader.  One for which there is no room, as the reader
 * rests, is dropped and counted.
 */
void
loky_map_add_notice(LokySharedMap *map, const char *data, Size len)
{
	dsa_pointer dp = InvalidDsaPointer;
	LokySharedNotice *notice;

	if (map->notice_bytes + len <= NOTICE_BYTES && loky_area_has_room(len))
		dp = loky_area_alloc(offsetof(LokySharedNotice, data) + len);
	if (!DsaPointerIsValid(dp))
	{
		pg_atomic_fetch_add_u64(&map->dropped_notices, 1);
		return;
	}
	notice = loky_area_address(dp);
	notice->next = InvalidDsaPointer;
	notice->len = len;
	memcpy(notice->data, data, len);
	LWLockAcquire(&map->lock, LW_EXCLUSIVE);
	if (DsaPointerIsValid(map->last_notice))
		((LokySharedNotice *) loky_area_address(map->last_notice))->next = dp;
	else
		map->first_notice = dp;
	map->last_notice = dp;
	map->notice_bytes += len;
	pg_atomic_fetch_add_u32(&map->nnotices, 1);
	LWLockRelease(&map->lock);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&map->reader_waits) != 0)
		loky_wake(map->reader);
}

static void
free_if_valid(dsa_pointer dp)
{
	if (DsaPointerIsValid(dp))
		loky_area_free(dp);
}

/* Free what one worker slot has of the map. */
static void
free_part(LokySharedMap *map, LokySharedPart *part)
{
	/* its worker, or who settled that, has published or dropped all it had */
	Assert(part->noutcomes == 0);
	loky_store_free(&part->store);
	if (DsaPointerIsValid(part->chunk))
		loky_map_unchunk(map, part->chunk);
	loky_area_free(part->outcomes);
}

/* Free the outcomes that nobody has read. */
static void
free_places(LokySharedMap *map)
{
	LokySharedPlace *places = loky_area_address(map->places);
	uint8	   *states = loky_area_address(map->states);

	for (uint64 i = 0; i < map->window; i++)
		loky_map_free_value(map, (LokyItemState) states[i], places[i].value);
}

/*
 * Free the map and all that belongs to it.  Nobody else may touch it any more.
 * Also good for one that was laid out only in part.  Raises an error as
 * loky_store_delete_file does; if that was for the file of a result, what was not yet
 * freed stays until the server starts again.
 */
void
loky_map_free(LokySharedMap *map)
{
	dsa_pointer dp;
	FileSet		files[2];
	int			nfiles = 0;

	if (DsaPointerIsValid(map->states) && DsaPointerIsValid(map->places))
		free_places(map);
	if (DsaPointerIsValid(map->parts))
	{
		dsa_pointer *parts = loky_area_address(map->parts);

		for (int i = 0; i < loky->nworkers; i++)
		{
			if (DsaPointerIsValid(parts[i]))
			{
				free_part(map, loky_area_address(parts[i]));
				loky_area_free(parts[i]);
			}
		}
	}
	dp = map->first_notice;
	while (DsaPointerIsValid(dp))
	{
		dsa_pointer next =
			((LokySharedNotice *) loky_area_address(dp))->next;

		loky_area_free(dp);
		dp = next;
	}
	if (loky_request_detach(&map->request, &files[nfiles]))
		nfiles++;
	if (loky_blob_detach(&map->items, &files[nfiles]))
		nfiles++;
	free_if_valid(map->shape);
	free_if_valid(map->offsets);
	free_if_valid(map->desc);
	free_if_valid(map->returned_ranges);
	free_if_valid(map->retries.room);
	free_if_valid(map->snapshot);
	free_if_valid(map->parts);
	free_if_valid(map->places);
	free_if_valid(map->states);
	free_if_valid(map->timings);
	loky_area_free(map->self);
	while (nfiles > 0)
		loky_store_delete_file(&files[--nfiles]);
}

/*
 * A worker lets go of the map.  True where it was the last one after the reader
 * has left: the caller frees the map then, once it has released the executor's
 * lock, which is held here.
 */
bool
loky_map_detach(LokySharedMap *map)
{
	Assert(LWLockHeldByMeInMode(&loky->executors[map->executor].lock,
								LW_EXCLUSIVE));
	Assert(map->nworkers > 0);
	map->nworkers--;
	if (!map->closed)
	{
		pg_memory_barrier();
		if (pg_atomic_read_u32(&map->reader_waits) != 0)
			loky_wake(map->reader);
	}
	return map->closed && map->nworkers == 0;
}
