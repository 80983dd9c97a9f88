/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  Cumulative statistics of what tasks and items have cost.
 *
 * A table of fixed size, by executor and task.  A place is found by the hash of
 * both, which gives a bucket of a few entries.  Where all of them are in use the one
 * with the least usage goes, and the usage of the others decays: so texts that come
 * once displace each other, not those that come again and again.  Nothing is
 * allocated, no lock is wider than a bucket, and an addition costs some tens of
 * nanoseconds.
 *
 * A writer, which may be the launcher, need not know the encoding of the text, and
 * cuts it at a byte.
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

#include "pool.h"
#include "stats.h"

#define NBUCKETS		256		/* a power of 2 */
#define BUCKET_SIZE		8

/* What is left of the usage of the others when an entry goes. */
#define USAGE_DECAY		0.99

typedef struct Bucket
{
	slock_t		mutex;
	LokySharedStats entries[BUCKET_SIZE];
} Bucket;

struct LokySharedStatsTable
{
	Bucket		buckets[NBUCKETS];
};

/* Bytes of the table. */
Size
loky_stats_size(void)
{
	return sizeof(LokySharedStatsTable);
}

/* Lay the table out, in memory that is cleared. */
void
loky_stats_init(LokySharedStatsTable *table)
{
	for (int i = 0; i < NBUCKETS; i++)
		SpinLockInit(&table->buckets[i].mutex);
}

/* Make room in the full bucket.  The spinlock is held. */
static LokySharedStats *
evict_entry(Bucket *bucket)
{
	LokySharedStats *least = &bucket->entries[0];

	for (int i = 0; i < BUCKET_SIZE; i++)
		bucket->entries[i].usage *= USAGE_DECAY;
	for (int i = 1; i < BUCKET_SIZE; i++)
	{
		if (bucket->entries[i].usage < least->usage)
			least = &bucket->entries[i];
	}
	return least;
}

/* The entry of the key in its bucket, made if need be.  The spinlock is held. */
static LokySharedStats *
find_entry(Bucket *bucket, const LokyStatsKey *key, TimestampTz now)
{
	LokySharedStats *made = NULL;

	for (int i = 0; i < BUCKET_SIZE; i++)
	{
		LokySharedStats *entry = &bucket->entries[i];

		if (entry->executor_id == key->executor_id && entry->hash == key->hash)
			return entry;
		if (entry->executor_id == 0)
			made = entry;
	}
	if (made == NULL)
		made = evict_entry(bucket);
	made->executor_id = key->executor_id;
	made->hash = key->hash;
	made->role = key->role;
	made->database = key->database;
	made->usage = 0;
	made->since = now;
	memset(&made->tally, 0, sizeof(made->tally));
	strlcpy(made->task, key->task, LOKY_STATS_TEXT);
	return made;
}

/* Add to the statistics of the task, at about the time now. */
void
loky_stats_add(const LokyStatsKey *key, const LokyTally *tally, TimestampTz now)
{
	uint64		hash = hash_combine64(key->hash, (uint64) key->executor_id);
	Bucket	   *bucket = &loky->stats->buckets[hash & (NBUCKETS - 1)];
	LokySharedStats *entry;

	SpinLockAcquire(&bucket->mutex);
	entry = find_entry(bucket, key, now);
	entry->usage += 1;
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
	Bucket	   *bucket = &loky->stats->buckets[n / BUCKET_SIZE];

	SpinLockAcquire(&bucket->mutex);
	*copy = bucket->entries[n % BUCKET_SIZE];
	SpinLockRelease(&bucket->mutex);
	return copy->executor_id != 0;
}

/* Forget entry n if it still is what the copy tells. */
void
loky_stats_forget(int n, const LokySharedStats *copy)
{
	Bucket	   *bucket = &loky->stats->buckets[n / BUCKET_SIZE];
	LokySharedStats *entry = &bucket->entries[n % BUCKET_SIZE];

	SpinLockAcquire(&bucket->mutex);
	if (entry->role == copy->role && entry->database == copy->database)
		memset(entry, 0, sizeof(LokySharedStats));
	SpinLockRelease(&bucket->mutex);
}

/* Forget what was run in the database. */
void
loky_stats_forget_database(Oid database)
{
	for (int i = 0; i < NBUCKETS; i++)
	{
		Bucket	   *bucket = &loky->stats->buckets[i];

		SpinLockAcquire(&bucket->mutex);
		for (int j = 0; j < BUCKET_SIZE; j++)
		{
			if (bucket->entries[j].database == database)
				memset(&bucket->entries[j], 0, sizeof(LokySharedStats));
		}
		SpinLockRelease(&bucket->mutex);
	}
}
