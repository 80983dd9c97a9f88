/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  What is run again, and after how long.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/backoff.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "backoff.h"
#include "errdata.h"

/* The wait before the second attempt; each further one is twice as long. */
#define FIRST_MS	10

/* ... up to this, */
#define LAST_MS		10000

/* more or less a share of it, so that what has collided once parts. */
#define JITTER_PERCENT	25

/* May another attempt come out otherwise?  The default, without retry_on. */
bool
loky_backoff_is_wanted(int sqlstate)
{
	return sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED ||
		sqlstate == ERRCODE_LOKY_TERMINATED_WORKER;
}

/*
 * Milliseconds to wait after so many attempts, 1 or more, have failed.  The seed
 * says of what: others wait a little longer or shorter.
 */
int
loky_backoff_ms(uint64 seed, int attempt)
{
	int			ms = LAST_MS;
	int			spread;
	uint64		hash;

	Assert(attempt >= 1);
	if (attempt - 1 < 10)
		ms = Min(FIRST_MS << (attempt - 1), LAST_MS);
	spread = ms * JITTER_PERCENT / 100;
	hash = hash_bytes_extended((const unsigned char *) &seed, sizeof(seed),
							   (uint64) attempt);
	return ms - spread + (int) (hash % (uint64) (2 * spread + 1));
}
