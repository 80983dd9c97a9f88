/*-------------------------------------------------------------------------
 *
 * map_part.h
 *	  What a worker has of a map: the outcomes of its range, and what becomes of them.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_part.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_MAP_PART_H
#define LOKY_MAP_PART_H

#include "map.h"

/*
 * Is what runs of the map to come to nothing?  Not where its executor has broken: then
 * what has begun is read.
 */
static inline bool
loky_map_is_given_up(LokySharedMap *map)
{
	uint32		end = pg_atomic_read_u32(&map->cancelled);

	return end != LOKY_MAP_GOES_ON && end != LOKY_MAP_BROKEN;
}

/* the worker itself */
extern void loky_map_publish_part(LokySharedMap *map, LokySharedPart *part);
extern void loky_map_fail_part(LokySharedMap *map, LokySharedPart *part,
							   const char *error, Size len, int worker);
extern void loky_map_drop_part(LokySharedMap *map, LokySharedPart *part);
extern uint32 loky_map_count_before(const LokySharedPart *part);
extern void loky_map_cancel_part(LokySharedMap *map, LokySharedPart *part);

/* who settles it: the executor's lock is held */
extern void loky_map_settle(LokySharedMap *map, LokySharedPart *part,
							const LokySharedWorker *worker, char *error, Size len);

#endif							/* LOKY_MAP_PART_H */
