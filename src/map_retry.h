/*-------------------------------------------------------------------------
 *
 * map_retry.h
 *	  Items of a map that are to be run again.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_retry.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_MAP_RETRY_H
#define LOKY_MAP_RETRY_H

#include "datatype/timestamp.h"
#include "lib/pairingheap.h"
#include "port/atomics.h"
#include "utils/dsa.h"

typedef struct LokySharedExecutor LokySharedExecutor;
typedef struct LokySharedMap LokySharedMap;
typedef struct LokySharedPart LokySharedPart;

typedef struct LokySharedRange
{
	uint64		lo;
	uint64		hi;				/* exclusive */
} LokySharedRange;

/* An item, or a chunk given by the user, that waits for another attempt. */
typedef struct LokySharedRetry
{
	pairingheap_node node;
	struct LokySharedRetry *next;	/* while free */
	bool		waits;			/* else free */
	LokySharedRange range;
	int			attempts;		/* that have failed */
	TimestampTz due;
} LokySharedRetry;

/* Part of a map. */
typedef struct LokySharedRetries
{
	/* Constant once the map is offered to workers. */
	int			max;			/* attempts after the first one */
	dsa_pointer room;			/* for all that can wait; invalid: max is 0 */

	/* Under the map's lock. */
	pairingheap heap;			/* the one that is due first is the first */
	LokySharedRetry *free;
	uint64		nused;			/* of the room, ever */

	/* Written under the map's lock, read without as hints. */
	pg_atomic_uint32 n;			/* that wait */
	pg_atomic_uint64 first_due; /* DT_NOEND: none waits */
} LokySharedRetries;

extern Size loky_map_retry_room(const LokySharedMap *map);
extern void loky_map_retry_init(LokySharedMap *map, int max);

/* no lock of the map is held */
extern bool loky_map_retry_part(LokySharedMap *map, LokySharedPart *part,
								int sqlstate);
extern void loky_map_retry_later(LokySharedMap *map, LokySharedRange range,
								 int attempts, TimestampTz due);
extern bool loky_map_retry_claim(LokySharedMap *map, LokySharedPart *part);
extern void loky_map_retry_stop(LokySharedMap *map);

/* no lock is needed */
extern bool loky_map_retry_is_due(LokySharedMap *map);
extern uint32 loky_map_retry_count_due(LokySharedMap *map);
extern bool loky_map_retry_any(LokySharedMap *map);

/* the executor's lock is held */
extern bool loky_map_retry_offer(LokySharedExecutor *executor,
								 LokySharedMap *map, TimestampTz not_before);

#endif							/* LOKY_MAP_RETRY_H */
