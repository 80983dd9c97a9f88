/*-------------------------------------------------------------------------
 *
 * task.c
 *	  Registry of tasks: the shared half of every future.
 *
 * The id of a task is a number that ascends; its slot in the array is the id
 * modulo the length of the array, so finding it costs no search.  A number whose
 * slot is taken is passed over.  A bit map tells which slots are taken.
 *
 * States
 * ------
 *	  FREE -> PENDING			loky_task_publish
 *	  PENDING -> RUNNING		a worker takes it
 *	  RUNNING -> PENDING		a worker that is told to end gives it back, or it
 *								is to be run again
 *	  PENDING, RUNNING -> final	the worker, a canceller, or whoever settles
 *								a worker that is gone
 *	  final -> FREE				loky_task_free, by forget, eviction or expiry
 * A PENDING task is in a lane of its executor, or waits for more than a worker
 * (gate.c); a final one is in the executor's list of finished tasks until it is
 * freed.  The request exists from PENDING
 * on, the result is complete in the final states and immutable then.
 *
 * Locking
 * -------
 * Everything under the lock of the executor's slot, except claiming, which
 * uses atomics, and reading the state.
 *
 * Failure
 * -------
 * A claimed task that is not yet published belongs to its claimer, which
 * releases it when it fails (held.c).  Readers pin a finished task, who ended it one
 * that is to be discarded, the caller of loky.run its task from the start; whoever
 * frees it meanwhile leaves the freeing to the last pin.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/task.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/timestamp.h"

#include "after.h"
#include "errdata.h"
#include "guc.h"
#include "pool.h"

/* The id of a new task, whose slot's bit is set; 0 where more must be reserved first. */
static uint64
claim_id(void)
{
	for (;;)
	{
		uint64		next = pg_atomic_read_u64(&loky->next_task_id);
		int			slot = next % loky->max_tasks;
		int			bit = slot % 64;
		uint64		free_bits;
		uint64		id;

		if (next >= pg_atomic_read_u64(&loky->task_id_limit))
			return 0;
		free_bits = ~pg_atomic_read_u64(&loky->task_map[slot / 64]) &
			(~UINT64CONST(0) << bit);
		if (free_bits == 0)
		{
			/* on to the next word */
			pg_atomic_compare_exchange_u64(&loky->next_task_id, &next,
										   next + 64 - bit);
			continue;
		}
		id = next + pg_rightmost_one_pos64(free_bits) - bit;
		if (id >= pg_atomic_read_u64(&loky->task_id_limit))
		{
			pg_atomic_compare_exchange_u64(&loky->next_task_id, &next, id);
			continue;
		}
		if (pg_atomic_compare_exchange_u64(&loky->next_task_id, &next, id + 1))
		{
			uint64		mask = UINT64CONST(1) << (id % 64);

			slot = id % loky->max_tasks;
			if ((pg_atomic_fetch_or_u64(&loky->task_map[slot / 64], mask) &
				 mask) == 0)
				return id;
		}
	}
}

/*
 * Give back the slot, which nobody can find any more.  Raises an error as
 * loky_store_delete_file does, when the rest is done.
 */
static void
release_slot(LokySharedTask *task)
{
	int			slot = task - loky->tasks;
	int			role_slot = task->role_slot;
	FileSet		files[2];
	int			nfiles = 0;

	if (loky_request_detach(&task->request, &files[nfiles]))
		nfiles++;
	if (loky_store_detach(&task->result, &files[nfiles]))
		nfiles++;
	if (task->after != NULL)
		loky_after_unref(task->after);
	if (task->line != NULL)
		loky_after_unref_line(task->line);
	pg_atomic_fetch_sub_u32(&loky->roles[role_slot].held, 1);
	pg_atomic_fetch_and_u64(&loky->task_map[slot / 64],
							~(UINT64CONST(1) << (slot % 64)));
	pg_atomic_fetch_sub_u32(&loky->ntasks, 1);
	while (nfiles > 0)
		loky_store_delete_file(&files[--nfiles]);
}

/* How many unfinished tasks the present role may have. */
static uint32
role_limit(void)
{
	if (superuser())
		return PG_UINT32_MAX;
	return loky_max_tasks_per_role >= 0 ? loky_max_tasks_per_role :
		loky_max_tasks / 2;
}

static void
raise_role_full(uint32 limit)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_QUEUE_FULL),
			 errmsg("no room for another task of this role"),
			 errdetail("It may have %u unfinished tasks.", limit),
			 errhint("Wait for some of them, use loky.map(), or raise loky.max_tasks_per_role.")));
}

static void
raise_full(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_QUEUE_FULL),
			 errmsg("no room for another task"),
			 errdetail("All of the %d futures that can be kept belong to unfinished tasks.",
					   loky_max_tasks),
			 errhint("Wait for some of them, or raise loky.max_tasks.")));
}

/* Unfinished tasks of all roles. */
static uint64
count_unfinished(void)
{
	uint64		n = 0;

	for (int i = 0; i < (int) pg_atomic_read_u32(&loky->nroles); i++)
		n += pg_atomic_read_u32(&loky->roles[i].unfinished);
	return n;
}

/*
 * Raise LK008 where there is no room for so many tasks at once: so nothing
 * finished is evicted for a call that must fail.  Others may claim tasks
 * meanwhile, so claiming them can fail all the same.
 */
void
loky_task_check_room(LokySharedExecutor *executor, int id, int ntasks)
{
	uint32		limit = role_limit();
	uint32		unfinished =
		pg_atomic_read_u32(&loky->roles[executor->role_slot].unfinished);
	uint64		all = count_unfinished();

	if (ntasks == 0)
		return;

	/* where the slot is another executor's now, claiming a task will tell */
	pg_read_barrier();
	if (executor->id != id)
		unfinished = 0;
	if (ntasks <= loky_max_tasks && (uint64) ntasks + unfinished > (uint64) limit)
		ereport(ERROR,
				(errcode(ERRCODE_LOKY_QUEUE_FULL),
				 errmsg("no room for so many tasks of this role"),
				 errdetail("%d tasks were given; the role has %u unfinished ones and may have %u.",
						   ntasks, unfinished, limit),
				 errhint("Use loky.map(), or raise loky.max_tasks_per_role.")));
	if ((uint64) ntasks + all > (uint64) loky_max_tasks)
		ereport(ERROR,
				(errcode(ERRCODE_LOKY_QUEUE_FULL),
				 errmsg("no room for so many tasks"),
				 errdetail("%d tasks were given; " UINT64_FORMAT " of the %d futures that can be kept belong to unfinished tasks.",
						   ntasks, all, loky_max_tasks),
				 errhint("Use loky.map(), or raise loky.max_tasks.")));
}

/* The task, which is the role's, is not unfinished any more. */
void
loky_task_uncount(LokySharedTask *task)
{
	pg_atomic_fetch_sub_u32(&loky->roles[task->role_slot].unfinished, 1);
}

/* Undo count_for_role. */
static void
uncount_claim(LokySharedRole *role)
{
	pg_atomic_fetch_sub_u32(&role->unfinished, 1);
	pg_atomic_fetch_sub_u32(&role->held, 1);
}

/*
 * Count one more task that is not done for the role of the executor with this id, and
 * return the role; NULL, and nothing counted, where the slot is not that executor's any
 * more.  Raises LK008 where the role has too many unfinished tasks.
 */
static LokySharedRole *
count_for_role(LokySharedExecutor *executor, int id)
{
	uint32		limit = role_limit();
	LokySharedRole *role = &loky->roles[executor->role_slot];

	/*
	 * Whoever gives the role's place to another one clears the id before it looks
	 * whether anything is held; so one of us sees the other.
	 */
	pg_atomic_fetch_add_u32(&role->held, 1);
	if (executor->id != id)
	{
		pg_atomic_fetch_sub_u32(&role->held, 1);
		return NULL;
	}
	if (pg_atomic_fetch_add_u32(&role->unfinished, 1) >= limit)
	{
		uncount_claim(role);
		raise_role_full(limit);
	}
	return role;
}

/*
 * Count one more task for the role, as above, and for all.  The oldest finished future
 * is evicted where loky.max_tasks is reached; as that may raise an error, nothing is
 * counted meanwhile.  Raises LK008 also where none is finished.
 */
static LokySharedRole *
count_task(LokySharedExecutor *executor, int id)
{
	for (;;)
	{
		LokySharedRole *role = count_for_role(executor, id);

		if (role == NULL)
			return NULL;
		if (pg_atomic_fetch_add_u32(&loky->ntasks, 1) < loky_max_tasks)
			return role;
		pg_atomic_fetch_sub_u32(&loky->ntasks, 1);
		uncount_claim(role);
		if (!loky_task_evict())
			raise_full();
	}
}

/* Reserve ids.  Raises an error where that fails, so nothing may be counted yet. */
static void
reserve_ids(void)
{
	if (!loky_ids_reserve())
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not reserve ids for tasks"),
				 errhint("The server log says why its file could not be written.")));
}

/*
 * Claim a task for the executor with this id, whose identity the caller fills in: none
 * of it can be seen until loky_task_publish.  It is one of its role's unfinished ones
 * until it ends or is released.  NULL where the slot is not that executor's any more.
 * Raises what count_task does, and 58030 where the file of ids cannot be written.
 * Must not be called with a lock held.
 */
LokySharedTask *
loky_task_claim(LokySharedExecutor *executor, int executor_id)
{
	LokySharedRole *role;
	LokySharedTask *task;
	uint64		id;

	for (;;)
	{
		role = count_task(executor, executor_id);
		if (role == NULL)
			return NULL;
		id = claim_id();
		if (id != 0)
			break;
		pg_atomic_fetch_sub_u32(&loky->ntasks, 1);
		uncount_claim(role);
		reserve_ids();
	}
	task = &loky->tasks[id % loky->max_tasks];
	Assert(pg_atomic_read_u64(&task->id) == 0);

	task->lane.turn = id;		/* kept here until published */
	task->executor = executor->slot;
	task->role_slot = role - loky->roles;
	task->waiter = LOKY_NO_WAITER;
	task->pins = 0;
	task->forgotten = false;
	pg_atomic_write_u32(&task->verdict, LOKY_VERDICT_NONE);
	task->worker = 0;
	task->attempts = 0;
	task->sqlstate = 0;
	task->rows = 0;
	task->started = 0;
	task->finished = 0;
	task->waits = LOKY_WAITS_NOTHING;
	task->pledged = false;
	task->has_key = false;
	task->key = 0;
	task->due = 0;
	task->delay = 0;
	task->timeout = 0;
	task->retries = 0;
	task->discard = false;
	task->gated = false;
	task->after = NULL;
	task->edges = NULL;
	task->line = NULL;
	task->timer.set = false;
	task->timer.task = task;
	task->timer.map = NULL;
	task->lane.queued = false;
	pg_atomic_write_u32(&task->state, LOKY_TASK_FREE);
	loky_request_init(&task->request);
	loky_store_init(&task->result,
					LOKY_RESULT_INLINE +
					offsetof(LokySharedTask, result_inline) -
					offsetof(LokySharedTask, result) -
					offsetof(LokySharedStore, inline_data));
	return task;
}

/*
 * Give back a claimed task that was never published.  Raises an error as
 * loky_store_delete_file does, when the rest is done.
 */
void
loky_task_release(LokySharedTask *task)
{
	Assert(pg_atomic_read_u64(&task->id) == 0);
	if (task->after != NULL)
		loky_after_drop(task->after);
	loky_task_uncount(task);
	release_slot(task);
}

/* The id that a claimed task will have. */
uint64
loky_task_reserved_id(const LokySharedTask *task)
{
	return task->lane.turn;
}

/*
 * Make a claimed task findable, PENDING.  The executor's lock is held.
 */
void
loky_task_publish(LokySharedTask *task)
{
	Assert(LWLockHeldByMeInMode(&loky_task_executor(task)->lock, LW_EXCLUSIVE));
	loky_task_set_state(task, LOKY_TASK_PENDING);
	pg_atomic_write_u64(&task->id, task->lane.turn);
}

/*
 * Find the task with this id.  Returns it with the lock of its executor held
 * exclusively, or NULL with no lock held.
 */
LokySharedTask *
loky_task_lookup(uint64 id)
{
	LokySharedTask *task;
	LokySharedExecutor *executor;

	if (id == 0 || id >= pg_atomic_read_u64(&loky->next_task_id))
		return NULL;
	task = &loky->tasks[id % loky->max_tasks];
	if (pg_atomic_read_u64(&task->id) != id)
		return NULL;
	executor = loky_task_executor(task);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u64(&task->id) == id &&
		loky_task_executor(task) == executor)
		return task;
	LWLockRelease(&executor->lock);
	return NULL;
}

/*
 * Change the state, checking that the step is one of the diagram.  The
 * executor's lock is held.
 */
void
loky_task_set_state(LokySharedTask *task, LokyTaskState state)
{
	LokyTaskState old PG_USED_FOR_ASSERTS_ONLY =
		(LokyTaskState) pg_atomic_read_u32(&task->state);

	Assert(LWLockHeldByMeInMode(&loky_task_executor(task)->lock, LW_EXCLUSIVE));
	Assert((old == LOKY_TASK_FREE && state == LOKY_TASK_PENDING) ||
		   (old == LOKY_TASK_PENDING && state >= LOKY_TASK_RUNNING) ||
		   (old == LOKY_TASK_RUNNING && state != LOKY_TASK_RUNNING &&
			state != LOKY_TASK_FREE) ||
		   (LokyTaskStateIsFinal(old) && state == LOKY_TASK_FREE));

	/* what was written to the task before is seen by who sees the state */
	pg_write_barrier();
	pg_atomic_write_u32(&task->state, state);
}

/*
 * Free a finished task: its id is unknown from now on, its memory goes at once
 * or with the last pin.  The executor's lock is held at the call and released
 * by it.  Raises an error as loky_store_delete_file does, when the rest is done.
 */
void
loky_task_free(LokySharedTask *task)
{
	LokySharedExecutor *executor = loky_task_executor(task);
	bool		last;

	Assert(LWLockHeldByMeInMode(&executor->lock, LW_EXCLUSIVE));
	Assert(LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)));
	if (!task->forgotten)
	{
		dlist_delete(&task->node);
		executor->nfinished--;
		task->forgotten = true;
		pg_atomic_write_u64(&task->id, 0);
	}
	last = task->pins == 0;
	if (last)
		loky_task_set_state(task, LOKY_TASK_FREE);
	LWLockRelease(&executor->lock);
	if (last)
		release_slot(task);
}

/*
 * The oldest finished task of the role in this executor, or NULL.  The
 * executor's lock is held.
 */
static LokySharedTask *
oldest_finished(LokySharedExecutor *executor, int role_slot)
{
	dlist_iter	iter;

	dlist_foreach(iter, &executor->finished)
	{
		LokySharedTask *task = dlist_container(LokySharedTask, node, iter.cur);

		if (task->role_slot == role_slot)
			return task;
	}
	return NULL;
}

/* Free the oldest finished task of the role; false if it has none. */
static bool
evict_of_role(int role_slot)
{
	LokySharedExecutor *best = NULL;
	TimestampTz oldest = 0;
	LokySharedTask *task;

	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		if (executor->nfinished == 0)
			continue;
		LWLockAcquire(&executor->lock, LW_SHARED);
		task = oldest_finished(executor, role_slot);
		if (task != NULL && (best == NULL || task->finished < oldest))
		{
			best = executor;
			oldest = task->finished;
		}
		LWLockRelease(&executor->lock);
	}
	if (best == NULL)
		return false;
	LWLockAcquire(&best->lock, LW_EXCLUSIVE);
	task = oldest_finished(best, role_slot);
	if (task != NULL)
		loky_task_free(task);
	else
		LWLockRelease(&best->lock);
	return true;
}

/*
 * Make room for a task: free the oldest finished one of the role that holds
 * the most futures and has a finished one.  False where nothing is finished.
 */
bool
loky_task_evict(void)
{
	int			nroles = (int) pg_atomic_read_u32(&loky->nroles);
	bool		tried[LOKY_MAX_ROLES];

	memset(tried, 0, nroles);
	for (;;)
	{
		int			best = -1;
		uint32		most = 0;

		for (int i = 0; i < nroles; i++)
		{
			uint32		held = pg_atomic_read_u32(&loky->roles[i].held);

			if (!tried[i] && held > most)
			{
				most = held;
				best = i;
			}
		}
		if (best < 0)
			return false;
		if (evict_of_role(best))
			return true;
		tried[best] = true;
	}
}

/* Free what has been finished for longer than loky.result_ttl. */
void
loky_task_expire(void)
{
	TimestampTz limit = GetCurrentTimestamp() -
		(TimestampTz) loky_result_ttl * USECS_PER_SEC;

	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		while (executor->nfinished > 0)
		{
			LokySharedTask *task;

			LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
			task = dlist_is_empty(&executor->finished) ? NULL :
				dlist_head_element(LokySharedTask, node, &executor->finished);
			if (task == NULL || task->finished > limit)
			{
				LWLockRelease(&executor->lock);
				break;
			}
			loky_task_free(task);
		}
	}
}

/* So many of a database's tasks are found in one walk along the finished ones. */
#define FORGET_BATCH	256

/*
 * Find the first finished tasks of the database in this executor's slot, up to
 * FORGET_BATCH of them, and their ids.  Returns how many.
 */
static int
finished_of_database(LokySharedExecutor *executor, Oid database,
					 LokySharedTask **tasks, uint64 *ids)
{
	dlist_iter	iter;
	int			n = 0;

	LWLockAcquire(&executor->lock, LW_SHARED);
	dlist_foreach(iter, &executor->finished)
	{
		LokySharedTask *task = dlist_container(LokySharedTask, node, iter.cur);

		if (task->database != database)
			continue;
		tasks[n] = task;
		ids[n] = pg_atomic_read_u64(&task->id);
		if (++n == FORGET_BATCH)
			break;
	}
	LWLockRelease(&executor->lock);
	return n;
}

/* Free all that is finished in the database. */
void
loky_task_forget_database(Oid database)
{
	LokySharedTask *tasks[FORGET_BATCH];
	uint64		ids[FORGET_BATCH];
	int			n;

	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		do
		{
			n = finished_of_database(executor, database, tasks, ids);
			for (int j = 0; j < n; j++)
			{
				LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
				/* an id is never given twice: with its id it is still that task */
				if (pg_atomic_read_u64(&tasks[j]->id) == ids[j])
					loky_task_free(tasks[j]);
				else
					LWLockRelease(&executor->lock);
			}
		} while (n == FORGET_BATCH);
	}
}

/*
 * The error that a failed task has left, in CurrentMemoryContext; NULL where it
 * has none in memory.  A file is not read: the executor's lock may be held, or else
 * nobody else frees the task.
 */
ErrorData *
loky_task_error(LokySharedTask *task)
{
	LokyStoreReader *reader;
	LokyRecordKind kind;
	char	   *data;
	Size		len;
	ErrorData  *error = NULL;

	if (pg_atomic_read_u32(&task->state) != LOKY_TASK_FAILED ||
		task->result.has_file)
		return NULL;
	reader = loky_store_open(&task->result);
	while (loky_store_next(reader, &kind, &data, &len))
	{
		if (kind == LOKY_RECORD_ERROR)
			error = loky_error_decode(data, len);
	}
	loky_store_close(reader);
	return error;
}

/*
 * Wake who waits for a task.  waiter is what the task named when its state
 * changed; no lock is held.
 */
void
loky_task_wake_waiters(int waiter)
{
	if (waiter >= 0)
		loky_wake(waiter);
	else if (waiter == LOKY_MANY_WAITERS)
	{
		for (int i = 0; i < loky->nbackends; i++)
		{
			if (pg_atomic_read_u32(&loky->backends[i].waiting) != 0)
				loky_wake(i);
		}
	}
}
