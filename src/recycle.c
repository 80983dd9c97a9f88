/*-------------------------------------------------------------------------
 *
 * recycle.c
 *	  When a worker is replaced by a new one.
 *
 * A worker that has run loky.max_tasks_per_worker tasks, or that holds more than
 * loky.worker_memory_limit after a task, takes nothing more and leaves.  It looks
 * at itself between two tasks, when the result of the last one is published and
 * the next one is not taken, so it costs no task; as it leaves it sees to it that
 * what waits is served by others (sched.c).  In a map it looks between two
 * ranges, and leaves the map first.
 *
 * What a task has used and freed does not count: it is given back to the system
 * before a worker is found to hold too much.  A worker that has run nothing yet
 * stays in any case, or a limit below the size of a new process would keep all
 * tasks waiting for ever.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/recycle.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "recycle.h"
#include "sched.h"
#include "worker.h"
#include "worker_memory.h"

/*
 * How many more tasks the worker may run.  uncounted are those that are not yet
 * in its tasks_done.
 */
uint64
loky_recycle_tasks_left(const LokySharedWorker *worker, uint64 uncounted)
{
	uint64		limit = (uint64) loky_max_tasks_per_worker;
	uint64		done = worker->tasks_done + uncounted;

	if (limit == 0)
		return PG_UINT64_MAX;
	return done < limit ? limit - done : 0;
}

static int64
limit_bytes(void)
{
	return (int64) loky_worker_memory_limit * 1024;
}

/*
 * Does this process hold more than it may, and so many bytes besides?  What is
 * freed but not yet given back counts here, so it may turn out to be fit.
 */
bool
loky_recycle_is_heavy(Size excused)
{
	return loky_worker_memory_limit > 0 &&
		loky_worker_memory_own() > limit_bytes() + (int64) excused;
}

/*
 * Does this worker hold too much after what it has run?  *held is how much.
 * Measures once after each run, and again where the limit has changed.
 */
static bool
holds_too_much(LokySharedWorker *worker, int64 *held)
{
	static uint64 last_run = 0;
	static int	last_limit = 0;
	uint64		run = pg_atomic_read_u64(&worker->run);

	if (loky_worker_memory_limit == 0 || worker->tasks_done == 0 ||
		(run == last_run && loky_worker_memory_limit == last_limit))
		return false;
	last_run = run;
	last_limit = loky_worker_memory_limit;

	/* the memory of the last task would else be freed as the next one begins */
	loky_worker_reset_memory();
	*held = loky_worker_memory_own();
	if (*held <= limit_bytes())
		return false;
	loky_worker_memory_trim();
	*held = loky_worker_memory_own();
	return *held > limit_bytes();
}

/*
 * This worker has nothing to do at the moment: have it leave where it has served
 * long enough.
 */
void
loky_recycle_check(LokySharedWorker *worker)
{
	int64		held;

	if (loky_max_tasks_per_worker == 0 && loky_worker_memory_limit == 0)
		return;
	if (loky_recycle_tasks_left(worker, 0) == 0)
		ereport(LOG,
				(errmsg_plural("worker of loky executor %d is replaced after " UINT64_FORMAT " task",
							   "worker of loky executor %d is replaced after " UINT64_FORMAT " tasks",
							   (unsigned long) worker->tasks_done,
							   worker->executor_id, worker->tasks_done),
				 errdetail("The setting loky.max_tasks_per_worker is %d.",
						   loky_max_tasks_per_worker)));
	else if (holds_too_much(worker, &held))
		ereport(LOG,
				(errmsg("worker of loky executor %d is replaced as it holds " INT64_FORMAT " kB after a task",
						worker->executor_id, held / 1024),
				 errdetail("The setting loky.worker_memory_limit is %d kB.",
						   loky_worker_memory_limit)));
	else
		return;
	loky_stop_self_to_replace(worker);
}
