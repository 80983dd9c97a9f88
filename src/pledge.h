/*-------------------------------------------------------------------------
 *
 * pledge.h
 *	  Tasks that wait for the transaction of this session to commit.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/pledge.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_PLEDGE_H
#define LOKY_PLEDGE_H

#include "pool.h"

extern void loky_pledge_init(void);
extern void loky_pledge_reserve(void);
extern void loky_pledge_add(uint64 id);
extern bool loky_pledge_was_dropped(uint64 id);
extern void loky_pledge_check_wait(const int64 *ids, int n);

#endif							/* LOKY_PLEDGE_H */
