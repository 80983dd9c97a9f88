/*-------------------------------------------------------------------------
 *
 * leave.c
 *	  When a worker is to leave that could go on.
 *
 * A worker looks at this between two tasks, and between two ranges of a map.  So it
 * goes without harm to what it runs, and whoever wants it to go need not know how
 * long that takes.
 *
 * Locking
 * -------
 * Under the lock of the executor's slot, but for what is said to be a hint.  The
 * workers of a role are counted by an atomic.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/leave.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "executor.h"
#include "guc.h"
#include "pool.h"
#include "sched.h"

/*
 * Has the worker served so long that others may have its place?  Needs no lock.
 */
static bool
has_had_slice(const LokySharedWorker *worker)
{
	return TimestampDifferenceExceeds(worker->ready, GetCurrentTimestamp(),
									  LOKY_SLICE_MS);
}

/*
 * How many processes may the workers of a role hold that has a limit, those that
 * wait for tasks of their own included?  Such do not count in the limit, but must
 * not take the processes that other roles could have.
 */
int
loky_leave_role_processes(void)
{
	return Max(loky_max_workers_per_role,
			   loky->nworkers - Max(loky->nworkers / 4, 1));
}

/* Has the executor's role more workers, and so many more, than it may? */
static bool
is_over_role_limit(const LokySharedExecutor *executor, int more)
{
	const LokySharedRole *role = &loky->roles[executor->role_slot];

	return loky_max_workers_per_role >= 0 && !executor->role_is_superuser &&
		(int) pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &role->strength)) +
		more > loky_max_workers_per_role;
}

/*
 * Is the worker one too many for its role?  Then it has been told to end.  Of two
 * that look at once both may stay, and look again, but not both leave.
 */
static bool
leave_for_role(LokySharedExecutor *executor, LokySharedWorker *worker)
{
	if (!is_over_role_limit(executor, 0))
		return false;
	loky_sched_set_absent(worker, worker->waiting, true);
	if (is_over_role_limit(executor, 1))
		return true;
	loky_sched_set_absent(worker, worker->waiting, false);
	return false;
}

/*
 * Is the worker to leave: told to, one too many for its role or since the executor
 * was made smaller, for the sake of other executors, or in one that has gone?  Where
 * it is, this is settled, and it must leave.  The executor's lock is held.
 */
bool
loky_leave_is_due(LokySharedExecutor *executor, LokySharedWorker *worker)
{
	Assert(LWLockHeldByMeInMode(&executor->lock, LW_EXCLUSIVE));
	if (worker->stop || worker->orphan)
		return true;
	if (executor->excess > 0)
	{
		executor->excess--;
		if (loky_executor_strength(executor) > executor->max_workers)
			return true;
		executor->excess = 0;
	}
	if (leave_for_role(executor, worker))
		return true;
	if (executor->yields > 0 && has_had_slice(worker))
	{
		executor->yields--;
		return true;
	}
	return executor->state != LOKY_EXECUTOR_OPEN && loky_executor_is_drained(executor);
}

/*
 * Between two ranges: is the worker to leave its map, because others wait for
 * their turn or because it is one too many?  A hint, read without the lock.
 */
bool
loky_leave_map_is_due(LokySharedWorker *worker)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];

	return pg_atomic_read_u32(&executor->nlanes) > 1 || worker->stop ||
		worker->orphan || loky_executor_strength(executor) > executor->max_workers ||
		(executor->yields > 0 && has_had_slice(worker)) ||
		is_over_role_limit(executor, 0);
}
