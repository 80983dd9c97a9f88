/*-------------------------------------------------------------------------
 *
 * held.h
 *	  What a caller holds in shared memory, and giving it back.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/held.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_HELD_H
#define LOKY_HELD_H

#include "utils/resowner.h"

#include "pool.h"

extern void loky_held_init(void);

/* tasks that are being submitted */
extern void loky_held_claim(LokySharedTask *task);
extern void loky_held_queued(void);

/* a finished task that must not go while it is read */
extern void loky_held_pin(LokySharedTask *task);
extern void loky_held_unpin(LokySharedTask *task, ResourceOwner owner);

/* the task of a run */
extern void loky_held_reserve(void);
extern void loky_held_own_task(LokySharedTask *task);
extern void loky_held_stop_task(LokySharedTask *task);
extern void loky_held_close_task(LokySharedTask *task);

/* a map that this session reads */
extern void loky_held_own_map(LokySharedMap *map);
extern void loky_held_offered_map(LokySharedMap *map);
extern void loky_held_stop_map(LokySharedMap *map);
extern void loky_held_close_map(LokySharedMap *map);
extern bool loky_held_has_map(int executor);

#endif							/* LOKY_HELD_H */
