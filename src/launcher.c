/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher process: starts workers, watches them, clears up after them.
 *
 * Starting a background worker leaves its starter with a handle that only it
 * can use, and sessions leave whenever they like; so one process, started with
 * the server and attached to shared memory alone, starts all workers.  Others
 * leave their wishes in shared memory, as the tasks that wait, and set its
 * latch.  The postmaster tells it when a worker has started or ended.
 *
 * A start
 * -------
 * The launcher claims a slot, registers the process, and keeps the handle.  The
 * process finds its slot by number and generation.  Where the process never
 * gets there, or ends at any later time, the launcher hears of it, settles what
 * the process itself could not, and frees the slot.
 *
 * Too few slots
 * -------------
 * Where loky.max_total_workers or the server's process slots are taken, the
 * worker that has been idle longest leaves for an executor that has work.
 * While nothing can be done the launcher looks again ten times a second, since
 * nobody tells it when another extension's worker ends.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/launcher.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "area.h"
#include "compat.h"
#include "executor.h"
#include "guc.h"
#include "launcher.h"
#include "pool.h"
#include "sched.h"

/* How soon to look again while workers are wanted that cannot be had. */
#define STARVED_PAUSE_MS	100

/* How often finished futures are looked at for their age. */
#define EXPIRE_PAUSE_MS		(60 * 1000)

/* the process of each worker slot; NULL: none */
static BackgroundWorkerHandle **handles = NULL;

/* true while a shortage has been logged and not yet healed */
static bool shortage_logged = false;

/* the executor to look at first, so that they take turns */
static int	first_executor = 0;

/* Have the postmaster start the launcher; called at server start. */
void
loky_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "loky", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "loky_launcher_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "loky launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "loky launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

static void
exit_launcher(int code, Datum arg)
{
	loky->launcher_procno = -1;
}

/* Workers that count against loky.max_total_workers. */
static int
count_workers(void)
{
	int			n = 0;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state != LOKY_WORKER_FREE && !worker->waiting)
			n++;
	}
	return n;
}

static LokySharedWorker *
find_free_slot(void)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		if (loky->workers[i].state == LOKY_WORKER_FREE)
			return &loky->workers[i];
	}
	return NULL;
}

/* Free a slot that has been settled.  Directory's and executor's lock held. */
static void
free_slot(LokySharedWorker *worker)
{
	worker->state = LOKY_WORKER_FREE;
	worker->pid = 0;
	worker->task = NULL;
	worker->map = NULL;
}

/* Claim the slot for the executor, if that still wants a worker. */
static bool
claim_slot(LokySharedWorker *worker, LokySharedExecutor *executor)
{
	bool		wanted;

	LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	wanted = loky_sched_demand(executor) > 0;
	if (wanted)
	{
		worker->generation++;
		worker->executor = executor->slot;
		worker->executor_id = executor->id;
		worker->state = LOKY_WORKER_STARTING;
		worker->pid = 0;
		worker->stop = false;
		worker->kill = false;
		worker->waiting = false;
		worker->orphan = false;
		worker->exited = false;
		worker->task = NULL;
		worker->map = NULL;
		worker->phase = LOKY_PHASE_NONE;
		worker->tasks_done = 0;
		worker->last_words[0] = '\0';
		pg_atomic_write_u64(&worker->run, 0);
		pg_atomic_write_u64(&worker->cancel_run, PG_UINT64_MAX);
		pg_atomic_write_u32(&worker->woken, 0);
		executor->nworkers++;
		executor->nstarting++;
	}
	LWLockRelease(&executor->lock);
	LWLockRelease(&loky->directory);
	return wanted;
}

/* Undo a claim whose process could not be registered. */
static void
unclaim_slot(LokySharedWorker *worker, LokySharedExecutor *executor)
{
	LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	loky_sched_set_absent(worker, false, false);
	executor->nworkers--;
	executor->nstarting--;
	free_slot(worker);
	LWLockRelease(&executor->lock);
	LWLockRelease(&loky->directory);
}

/* Register the process of a claimed slot; false where there is no room. */
static bool
register_worker(LokySharedWorker *slot)
{
	BackgroundWorker worker;
	MemoryContext oldcontext;
	bool		registered;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "loky", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "loky_worker_main",
			sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name),
			 "loky worker of executor %d", slot->executor_id);
	strlcpy(worker.bgw_type, "loky worker", sizeof(worker.bgw_type));
	worker.bgw_main_arg = Int32GetDatum(slot->index);
	memcpy(worker.bgw_extra, &slot->generation, sizeof(slot->generation));
	worker.bgw_notify_pid = MyProcPid;

	/* the handle outlives this round of the main loop */
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker,
												 &handles[slot->index]);
	MemoryContextSwitchTo(oldcontext);
	return registered;
}

/*
 * Ask the longest idle worker of another executor to leave.  True where there
 * was one.
 */
static bool
release_idle_worker(LokySharedExecutor *for_whom)
{
	LokySharedWorker *oldest = NULL;
	LokySharedExecutor *executor;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_STOPPING)
			return true;		/* one is leaving already */
		if (worker->state == LOKY_WORKER_IDLE &&
			worker->executor != for_whom->slot)
		{
			if (worker->stop)
				return true;
			if (oldest == NULL || worker->last_active < oldest->last_active)
				oldest = worker;
		}
	}
	if (oldest == NULL)
		return false;
	executor = &loky->executors[oldest->executor];
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (oldest->state == LOKY_WORKER_IDLE)
		loky_stop_worker(oldest, false);
	LWLockRelease(&executor->lock);
	return true;
}

/* The executor wants a worker that cannot be had: say so once. */
static void
note_shortage(LokySharedExecutor *executor)
{
	executor->starved = true;
	if (shortage_logged)
		return;
	shortage_logged = true;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("loky has no free slot for a worker that is wanted"),
			 errhint("Raise max_worker_processes or loky.max_total_workers.")));
}

/*
 * Start one worker for the executor.  False where that cannot be done now.
 */
static bool
start_worker(LokySharedExecutor *executor)
{
	LokySharedWorker *worker;

	if (count_workers() >= loky_max_total_workers ||
		(worker = find_free_slot()) == NULL)
	{
		if (!release_idle_worker(executor))
			note_shortage(executor);
		return false;
	}
	if (!claim_slot(worker, executor))
		return true;			/* not wanted any more */
	if (!register_worker(worker))
	{
		unclaim_slot(worker, executor);
		if (!release_idle_worker(executor))
			note_shortage(executor);
		return false;
	}
	return true;
}

/* How many workers the executor wants now; *pause is lowered to when to look. */
static int
read_demand(LokySharedExecutor *executor, long *pause)
{
	int			demand;

	if (executor->id == 0)
		return 0;
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	demand = loky_sched_demand(executor);
	if (demand == 0)
		executor->starved = false;
	else if (executor->next_start != 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (executor->next_start > now && executor->failed_starts > 0)
		{
			*pause = Min(*pause,
						 1 + TimestampDifferenceMilliseconds(now,
															 executor->next_start));
			demand = 0;
		}
	}
	LWLockRelease(&executor->lock);
	return demand;
}

/*
 * Start what is wanted, one worker for each executor in turn.  Returns the
 * milliseconds after which to look again at the latest.
 */
static long
start_workers(void)
{
	long		pause = EXPIRE_PAUSE_MS;
	bool		short_of = false;
	bool		started;

	do
	{
		started = false;
		for (int i = 0; i < loky->nexecutors; i++)
		{
			LokySharedExecutor *executor =
				&loky->executors[(first_executor + i) % loky->nexecutors];

			if (read_demand(executor, &pause) == 0)
				continue;
			if (start_worker(executor))
				started = true;
			else
			{
				short_of = true;
				first_executor = executor->slot;
				break;
			}
		}
	} while (started && !short_of);
	if (!short_of)
	{
		shortage_logged = false;
		return pause;
	}
	return Min(pause, STARVED_PAUSE_MS);
}

/*
 * Let go on what has waited for its time.  Returns the milliseconds until the
 * next timer is due, but not more than pause.
 */
static long
fire_timers(long pause)
{
	TimestampTz next = DT_NOEND;
	TimestampTz now = GetCurrentTimestamp();

	/* who sets a timer from here on either is seen below, or wakes us */
	pg_atomic_write_u64(&loky->launcher_wakes, (uint64) DT_NOEND);
	pg_memory_barrier();
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		if (loky_timer_next(executor) <= now)
			loky_sched_fire(executor, now);
		next = Min(next, loky_timer_next(executor));
	}
	if (TIMESTAMP_IS_NOEND(next))
		return pause;
	pg_atomic_write_u64(&loky->launcher_wakes, (uint64) next);
	return Min(pause, 1 + TimestampDifferenceMilliseconds(now, next));
}

/* Clear up after workers whose processes have ended. */
static void
reap_workers(void)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];
		LokySharedExecutor *executor;
		pid_t		pid;
		bool		wake;

		if (handles[i] == NULL ||
			GetBackgroundWorkerPid(handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(handles[i]);
		handles[i] = NULL;
		loky_sched_settle(worker);
		executor = &loky->executors[worker->executor];
		LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		free_slot(worker);
		wake = executor->state != LOKY_EXECUTOR_OPEN;
		LWLockRelease(&executor->lock);
		LWLockRelease(&loky->directory);
		if (wake)
			loky_task_wake_waiters(LOKY_MANY_WAITERS);
	}
}

/*
 * A launcher that was terminated has left workers whose handles are lost.
 * Those that still live leave when idle; dead ones have settled themselves.  One
 * that has not attached may never do so: its slot is settled, and the process
 * leaves should it still come.
 */
static void
adopt_workers(void)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];
		LokySharedExecutor *executor = &loky->executors[worker->executor];
		bool		never_came;

		if (worker->state == LOKY_WORKER_FREE)
			continue;
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		worker->orphan = true;
		never_came = worker->pid == 0;
		if (never_came)
			loky_stop_worker(worker, false);
		else if (!worker->exited)
			loky_wake(worker->procno);
		LWLockRelease(&executor->lock);
		if (never_came)
			loky_sched_settle(worker);
	}
}

/* Free slots without a handle whose workers have settled themselves. */
static void
reap_adopted(void)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];
		LokySharedExecutor *executor = &loky->executors[worker->executor];
		bool		wake;

		if (handles[i] != NULL || worker->state == LOKY_WORKER_FREE ||
			!worker->exited)
			continue;
		LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		free_slot(worker);
		wake = executor->state != LOKY_EXECUTOR_OPEN;
		LWLockRelease(&executor->lock);
		LWLockRelease(&loky->directory);
		if (wake)
			loky_task_wake_waiters(LOKY_MANY_WAITERS);
	}
}

/* The process of the launcher. */
void
loky_launcher_main(Datum main_arg)
{
	TimestampTz last_expiry = GetCurrentTimestamp();

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGUSR1, procsignal_sigusr1_handler);
	BackgroundWorkerUnblockSignals();

	if (loky == NULL)
		proc_exit(0);
	loky_area_attach(loky->area);
	handles = MemoryContextAllocZero(TopMemoryContext,
									 loky->nworkers * sizeof(*handles));
	before_shmem_exit(exit_launcher, (Datum) 0);
	CurrentMemoryContext = AllocSetContextCreate(TopMemoryContext,
												 "loky launcher",
												 ALLOCSET_DEFAULT_SIZES);
	loky->launcher_procno = LokyMyProcNumber();
	adopt_workers();

	while (!ShutdownRequestPending)
	{
		long		pause;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		reap_workers();
		reap_adopted();
		loky_executor_collect();
		pause = start_workers();
		if (TimestampDifferenceExceeds(last_expiry, GetCurrentTimestamp(),
									   Min(EXPIRE_PAUSE_MS,
										   loky_result_ttl * 1000)))
		{
			loky_task_expire();
			last_expiry = GetCurrentTimestamp();
		}
		pause = Min(pause, Max(loky_result_ttl, 1) * 1000L);
		pause = fire_timers(pause);
		MemoryContextReset(CurrentMemoryContext);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 pause, PG_WAIT_EXTENSION);
	}

	/* restarted unless the server itself is going down */
	proc_exit(1);
}
