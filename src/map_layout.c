/*-------------------------------------------------------------------------
 *
 * map_layout.c
 *	  The caller's side of a map: laying it out.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_layout.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "area.h"
#include "compat.h"
#include "held.h"
#include "map_reader.h"
#include "read_only.h"
#include "settings.h"
#include "snapshot.h"
#include "submission.h"

/* Places of a map with many items. */
#define WINDOW			65536

/* Unread results of one map may take this part of the area. */
#define AREA_SHARE		8

static void
raise_no_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of shared memory for a map"),
			 errhint("Raise loky.shared_memory, or map over fewer items at a time.")));
}

static dsa_pointer
alloc_or_raise(Size size)
{
	dsa_pointer dp = loky_area_alloc(size);

	if (!DsaPointerIsValid(dp))
		raise_no_memory();
	return dp;
}

static dsa_pointer
alloc_zeroed(Size size)
{
	dsa_pointer dp = alloc_or_raise(size);

	memset(loky_area_address(dp), 0, size);
	return dp;
}

/* An empty map, held by this process. */
static LokySharedMap *
create_map(void)
{
	dsa_pointer dp = alloc_zeroed(sizeof(LokySharedMap));
	LokySharedMap *map = loky_area_address(dp);

	map->self = dp;
	map->items.memory = InvalidDsaPointer;
	loky_blob_init(&map->items);
	loky_request_init(&map->request);
	loky_held_own_map(map);
	LWLockInitialize(&map->lock, loky->map_tranche);
	pg_atomic_init_u64(&map->limit, 0);
	pg_atomic_init_u32(&map->cancelled, LOKY_MAP_GOES_ON);
	pg_atomic_init_u32(&map->reader_waits, 0);
	pg_atomic_init_u64(&map->awaited, 0);
	pg_atomic_init_u64(&map->next, 0);
	pg_atomic_init_u64(&map->stop, PG_UINT64_MAX);
	pg_atomic_init_u64(&map->tickets, 0);
	pg_atomic_init_u64(&map->published, 0);
	pg_atomic_init_u64(&map->nfailed, 0);
	pg_atomic_init_u64(&map->last_wake, 0);
	pg_atomic_init_u32(&map->parked, 0);
	pg_atomic_init_u32(&map->nreturned, 0);
	pg_atomic_init_u32(&map->writes, 0);
	pg_atomic_init_u32(&map->nnotices, 0);
	pg_atomic_init_u64(&map->dropped_notices, 0);
	pg_atomic_init_u64(&map->piece_bytes, 0);
	loky_map_retry_init(map, 0);
	return map;
}

/* What the items are to be run with. */
static void
write_request(LokySharedMap *map, const LokyMapCall *call)
{
	LokyItems  *items = call->items;
	int			nparams = items->nparams + call->args.n;
	Oid		   *types = palloc(Max(nparams, 1) * sizeof(Oid));
	const LokyCallable *callable;
	LokyRequest request = {0};

	memcpy(types, items->types, items->nparams * sizeof(Oid));
	if (call->args.n > 0)
		memcpy(types + items->nparams, call->args.types,
			   call->args.n * sizeof(Oid));
	callable = loky_resolve(call->task, nparams, types);
	request.texts[LOKY_TEXT_SQL] = callable->sql;
	request.hash = callable->hash;
	request.texts[LOKY_TEXT_TASK] = call->task;
	request.texts[LOKY_TEXT_LABEL] = call->label;
	request.nargs = call->args.n;
	request.types = call->args.types;
	request.values = call->args.values;
	request.nulls = call->args.nulls;
	request.depth = loky_submission_next_depth();
	request.read_only = loky_read_only_is_due();
	request.env = loky_settings_capture();
	loky_request_write(&map->request, &request);
}

static void
allocate_places(LokySharedMap *map, const LokyMapCall *call)
{
	map->window = Max(WINDOW, 2 * call->chunksize);
	map->window = Min(map->window, map->nitems);
	map->budget = loky_area_size() / AREA_SHARE;
	map->places = alloc_zeroed(map->window * sizeof(LokySharedPlace));
	map->states = alloc_zeroed(map->window);
	if (call->mode == LOKY_MAP_TRY)
		map->timings = alloc_zeroed(map->window * sizeof(LokySharedTiming));
	map->returned_ranges =
		alloc_zeroed(LOKY_RANGES_RETURNED * loky->nworkers *
					 sizeof(LokySharedRange));
	map->parts = alloc_zeroed(loky->nworkers * sizeof(dsa_pointer));
	if (call->retries > 0)
		map->retries.room = alloc_or_raise(loky_map_retry_room(map));
	pg_atomic_write_u64(&map->limit, map->window);
}

/*
 * A map in shared memory for the call, held by this process; without items it has
 * only what tells whether they could be run.  Raises what resolving the task raises,
 * and 53200 where shared memory does not suffice.
 */
LokySharedMap *
loky_map_lay_out(const LokyMapCall *call, bool with_items)
{
	LokySharedMap *map = create_map();

	if (!with_items)
	{
		write_request(map, call);
		return map;
	}
	map->role = GetUserId();
	map->database = MyDatabaseId;
	map->submitter = MyProcPid;
	map->reader = LokyMyProcNumber();
	map->session = loky_session_id();
	map->started = GetCurrentTimestamp();
	map->started_us = loky_map_clock();
	map->mode = call->mode;
	map->ordered = call->ordered;
	map->chunksize = Min(call->chunksize, (uint64) call->items->n);
	map->item_timeout = call->item_timeout;
	map->delay = call->delay;
	map->counts = call->counts;
	loky_map_retry_init(map, call->retries);
	if (call->snapshot)
	{
		map->snapshot = loky_snapshot_share();
		if (!DsaPointerIsValid(map->snapshot))
			raise_no_memory();
	}
	write_request(map, call);
	loky_items_store(call->items, map);
	allocate_places(map, call);
	return map;
}
