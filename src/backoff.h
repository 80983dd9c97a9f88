/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  What is run again, and after how long.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/backoff.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_BACKOFF_H
#define LOKY_BACKOFF_H

extern bool loky_backoff_is_wanted(int sqlstate);
extern int	loky_backoff_ms(uint64 seed, int attempt);

#endif							/* LOKY_BACKOFF_H */
