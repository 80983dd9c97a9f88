/*-------------------------------------------------------------------------
 *
 * key.c
 *	  Keys of tasks, of which only so many may run at a time.
 *
 * A task with a key is admitted, into a lane and then to a worker, while fewer than
 * its key_limit with that key are; else it waits behind the others, first come
 * first served.  Who leaves lets the first ones go on.  A task that is to be run
 * again leaves too, and comes back before those that have never run.
 *
 * Keys are found by executor and hash, in one table for all executors.  An entry
 * exists while a task with the key is admitted or waits, so there are never more
 * than tasks, and none needs to be allocated.  A key is known by its hash of 64
 * bits alone: were two keys ever to share one, they would share their limit.
 *
 * Locking
 * -------
 * What an entry holds is guarded by its executor's lock, which all functions
 * need, exclusively.  Entries of several executors share a chain: the lock of
 * the chain's part of the table guards it, and a spinlock the list of free ones.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/key.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/pg_bitutils.h"

#include "key.h"

#define ASSERT_LOCKED(executor) \
	Assert(LWLockHeldByMeInMode(&(executor)->lock, LW_EXCLUSIVE))

struct LokySharedKey
{
	LokySharedKey *next;		/* in its chain, or among the free ones */

	/* Constant while it is in a chain. */
	uint64		hash;
	int			executor;		/* slot number */

	/* Under the executor's lock. */
	int			nadmitted;
	LokySharedTask *head;		/* of those that wait, linked by next and prev */
	LokySharedTask *tail;
};

/* What a key is known by; never 0. */
uint64
loky_key_hash(const char *key)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) key,
										   strlen(key), 0);

	return hash != 0 ? hash : 1;
}

static uint32
count_buckets(int max_tasks)
{
	return pg_nextpower2_32(Max(max_tasks, LOKY_KEY_LOCKS));
}

/* Bytes of the table. */
Size
loky_key_table_size(int max_tasks)
{
	return add_size(mul_size(count_buckets(max_tasks), sizeof(LokySharedKey *)),
					mul_size(max_tasks, sizeof(LokySharedKey)));
}

/* Lay out the table at this place, which is cleared; called at server start. */
void
loky_key_init(char *place, int max_tasks, int tranche)
{
	LokySharedKey *keys;

	loky->nkey_buckets = count_buckets(max_tasks);
	loky->key_buckets = (LokySharedKey **) place;
	keys = (LokySharedKey *) (loky->key_buckets + loky->nkey_buckets);
	loky->free_keys = NULL;
	for (int i = max_tasks - 1; i >= 0; i--)
	{
		keys[i].next = loky->free_keys;
		loky->free_keys = &keys[i];
	}
	SpinLockInit(&loky->free_keys_lock);
	for (int i = 0; i < LOKY_KEY_LOCKS; i++)
		LWLockInitialize(&loky->key_locks[i], tranche);
}

/* The chain of a key, and its lock. */
static LokySharedKey **
find_chain(LokySharedExecutor *executor, uint64 hash, LWLock **lock)
{
	uint32		bucket = (uint32) hash_combine64(hash, executor->slot) &
		(loky->nkey_buckets - 1);

	*lock = &loky->key_locks[bucket & (LOKY_KEY_LOCKS - 1)];
	return &loky->key_buckets[bucket];
}

static LokySharedKey *
take_free_key(void)
{
	LokySharedKey *key;

	SpinLockAcquire(&loky->free_keys_lock);
	key = loky->free_keys;
	loky->free_keys = key->next;
	SpinLockRelease(&loky->free_keys_lock);
	return key;
}

static void
put_free_key(LokySharedKey *key)
{
	SpinLockAcquire(&loky->free_keys_lock);
	key->next = loky->free_keys;
	loky->free_keys = key;
	SpinLockRelease(&loky->free_keys_lock);
}

/* The entry of the key; made if asked for, else NULL where there is none. */
static LokySharedKey *
find_key(LokySharedExecutor *executor, uint64 hash, bool make)
{
	LWLock	   *lock;
	LokySharedKey **chain = find_chain(executor, hash, &lock);
	LokySharedKey *key;

	LWLockAcquire(lock, make ? LW_EXCLUSIVE : LW_SHARED);
	for (key = *chain; key != NULL; key = key->next)
	{
		if (key->hash == hash && key->executor == executor->slot)
			break;
	}
	if (key == NULL && make)
	{
		key = take_free_key();
		key->hash = hash;
		key->executor = executor->slot;
		key->nadmitted = 0;
		key->head = NULL;
		key->tail = NULL;
		key->next = *chain;
		*chain = key;
	}
	LWLockRelease(lock);
	return key;
}

/* Nobody is admitted with the key, and nobody waits for it. */
static void
remove_key(LokySharedExecutor *executor, LokySharedKey *key)
{
	LWLock	   *lock;
	LokySharedKey **place = find_chain(executor, key->hash, &lock);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	while (*place != key)
		place = &(*place)->next;
	*place = key->next;
	LWLockRelease(lock);
	put_free_key(key);
}

/* Let the task wait behind the others, or before them where it has run before. */
static void
wait_for_key(LokySharedKey *key, LokySharedTask *task)
{
	bool		first = task->attempts > 0;

	task->prev = first ? NULL : key->tail;
	task->next = first ? key->head : NULL;
	if (task->prev != NULL)
		task->prev->next = task;
	else
		key->head = task;
	if (task->next != NULL)
		task->next->prev = task;
	else
		key->tail = task;
}

static void
wait_no_more(LokySharedKey *key, LokySharedTask *task)
{
	if (task->prev != NULL)
		task->prev->next = task->next;
	else
		key->head = task->next;
	if (task->next != NULL)
		task->next->prev = task->prev;
	else
		key->tail = task->prev;
	task->prev = NULL;
	task->next = NULL;
}

/* Is the task admitted with its key?  If not, it waits from now on. */
bool
loky_key_enter(LokySharedExecutor *executor, LokySharedTask *task)
{
	LokySharedKey *key;

	ASSERT_LOCKED(executor);
	Assert(!task->has_key);
	key = find_key(executor, task->key, true);
	if (key->nadmitted < task->key_limit &&
		(key->head == NULL || task->attempts > 0))
	{
		key->nadmitted++;
		task->has_key = true;
		return true;
	}
	wait_for_key(key, task);
	return false;
}

/*
 * The task, which is admitted or waits, needs its key no more.  Others may be
 * admitted then.
 */
void
loky_key_leave(LokySharedExecutor *executor, LokySharedTask *task)
{
	LokySharedKey *key;

	ASSERT_LOCKED(executor);
	key = find_key(executor, task->key, false);
	if (task->has_key)
	{
		key->nadmitted--;
		task->has_key = false;
	}
	else
		wait_no_more(key, task);
	if (key->nadmitted == 0 && key->head == NULL)
		remove_key(executor, key);
}

/* Admit the first that waits for the key, if it may go on; else NULL. */
LokySharedTask *
loky_key_admit(LokySharedExecutor *executor, uint64 hash)
{
	LokySharedKey *key;
	LokySharedTask *task;

	ASSERT_LOCKED(executor);
	key = find_key(executor, hash, false);
	if (key == NULL || key->head == NULL ||
		key->nadmitted >= key->head->key_limit)
		return NULL;
	task = key->head;
	wait_no_more(key, task);
	key->nadmitted++;
	task->has_key = true;
	return task;
}

/* How many are admitted with the key. */
int
loky_key_count(LokySharedExecutor *executor, uint64 hash)
{
	LokySharedKey *key;

	ASSERT_LOCKED(executor);
	key = find_key(executor, hash, false);
	return key != NULL ? key->nadmitted : 0;
}
