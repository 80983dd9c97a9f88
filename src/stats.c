/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  Cumulative statistics of what tasks and items have cost.
 *
 * A table of fixed size, by executor and task.  A place is found by the hash of
 * both, which gives a bucket of a few entries; where all of them are in use the one
 * used least recently goes.  So nothing is allocated, no lock is wider than a
 * bucket, and an addition costs some tens of nanoseconds.
 *
 * Locking
 * -------
 * All of a bucket, under its spinlock.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/stats.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/spin.h"

#include "stats.h"

#define NBUCKETS		256		/* a power of 2 */
#define BUCKET_SIZE		8

typedef struct Bucket
{
	slock_t		mutex;
	uint64		clock;			/* additions so far */
	LokySharedStats entries[BUCKET_SIZE];
} Bucket;

static Bucket *buckets = NULL;

/* Bytes of the table. */
Size
loky_stats_size(void)
{
	return NBUCKETS * sizeof(Bucket);
}

/* Lay the table out, in memory that is cleared. */
void
loky_stats_init(void *place)
{
	buckets = place;
	for (int i = 0; i < NBUCKETS; i++)
		SpinLockInit(&buckets[i].mutex);
}

/* The entry of the key in its bucket, made if need be.  The spinlock is held. */
static LokySharedStats *
find_entry(Bucket *bucket, const LokyStatsKey *key, TimestampTz now)
{
	LokySharedStats *oldest = &bucket->entries[0];

	for (int i = 0; i < BUCKET_SIZE; i++)
	{
		LokySharedStats *entry = &bucket->entries[i];

		if (entry->executor_id == key->executor_id && entry->hash == key->hash)
			return entry;
		if (entry->used < oldest->used)
			oldest = entry;
	}
	oldest->executor_id = key->executor_id;
	oldest->hash = key->hash;
	oldest->role = key->role;
	oldest->database = key->database;
	oldest->since = now;
	memset(&oldest->tally, 0, sizeof(oldest->tally));
	strlcpy(oldest->task, key->task, LOKY_STATS_TEXT);
	return oldest;
}

/* Add to the statistics of the task, at about the time now. */
void
loky_stats_add(const LokyStatsKey *key, const LokyTally *tally, TimestampTz now)
{
	uint64		hash = hash_combine64(key->hash, (uint64) key->executor_id);
	Bucket	   *bucket = &buckets[hash & (NBUCKETS - 1)];
	LokySharedStats *entry;

	SpinLockAcquire(&bucket->mutex);
	entry = find_entry(bucket, key, now);
	entry->used = ++bucket->clock;
	entry->tally.calls += tally->calls;
	entry->tally.failures += tally->failures;
	entry->tally.rows += tally->rows;
	entry->tally.total_us += tally->total_us;
	entry->tally.max_us = Max(entry->tally.max_us, tally->max_us);
	entry->tally.waits += tally->waits;
	entry->tally.wait_us += tally->wait_us;
	SpinLockRelease(&bucket->mutex);
}

/* How many entries there is room for. */
int
loky_stats_count(void)
{
	return NBUCKETS * BUCKET_SIZE;
}

/* Copy entry n; false where it is not in use. */
bool
loky_stats_copy(int n, LokySharedStats *copy)
{
	Bucket	   *bucket = &buckets[n / BUCKET_SIZE];

	SpinLockAcquire(&bucket->mutex);
	*copy = bucket->entries[n % BUCKET_SIZE];
	SpinLockRelease(&bucket->mutex);
	return copy->executor_id != 0;
}

/* Forget what was run in the database. */
void
loky_stats_forget_database(Oid database)
{
	for (int i = 0; i < NBUCKETS; i++)
	{
		SpinLockAcquire(&buckets[i].mutex);
		for (int j = 0; j < BUCKET_SIZE; j++)
		{
			LokySharedStats *entry = &buckets[i].entries[j];

			if (entry->database == database)
				memset(entry, 0, sizeof(*entry));
		}
		SpinLockRelease(&buckets[i].mutex);
	}
}

/* Forget all. */
void
loky_stats_reset(void)
{
	for (int i = 0; i < NBUCKETS; i++)
	{
		SpinLockAcquire(&buckets[i].mutex);
		memset(buckets[i].entries, 0, sizeof(buckets[i].entries));
		SpinLockRelease(&buckets[i].mutex);
	}
}
