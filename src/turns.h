/*-------------------------------------------------------------------------
 *
 * turns.h
 *	  Which executor gets the next worker, and who makes room for it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/turns.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_TURNS_H
#define LOKY_TURNS_H

#include "pool.h"

/* the launcher alone; no lock is held */
extern void loky_turns_init(void);
extern void loky_turns_begin(long *pause);
extern LokySharedExecutor *loky_turns_next(void);
extern LokyShortage loky_turns_shortage(const LokySharedExecutor *executor);
extern void loky_turns_serve(const LokySharedExecutor *executor, bool started);
extern void loky_turns_make_room(LokySharedExecutor *executor,
								 LokyShortage shortage);
extern bool loky_turns_end(void);

#endif							/* LOKY_TURNS_H */
