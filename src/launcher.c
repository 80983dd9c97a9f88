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
 * turns.c says which executor gets the next worker, and who makes room for it.
 * While some executor is short of workers the launcher looks again ten times a
 * second, since nobody tells it when another extension's worker ends.
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
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "area.h"
#include "compat.h"
#include "deadlock.h"
#include "debug_point.h"
#include "executor.h"
#include "guc.h"
#include "launcher.h"
#include "pool.h"
#include "sched.h"
#include "turns.h"
#include "wait.h"

/* How soon to look again while workers are wanted that cannot be had. */
#define STARVED_PAUSE_MS	100

/* How often finished futures are looked at for their age. */
#define EXPIRE_PAUSE_MS		(60 * 1000)

/* the process of each worker slot; NULL: none */
static BackgroundWorkerHandle **handles = NULL;

/*
 * Have the postmaster start the launcher; called at server start.  While pg_upgrade works
 * on the server's files, nothing is to run by itself.
 */
void
loky_launcher_register(void)
{
	BackgroundWorker worker;

	if (IsBinaryUpgrade)
		return;
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
		worker->progress.told = false;
		worker->last_words[0] = '\0';
		pg_atomic_write_u64(&worker->run, 0);
		pg_atomic_write_u64(&worker->cancel_run, PG_UINT64_MAX);
		pg_atomic_write_u32(&worker->woken, 0);
		executor->nworkers++;
		loky_executor_strengthen(executor, 1);
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
	loky_executor_strengthen(executor, -1);
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
 * Start one worker for the executor, or have others make room for it.
 */
static void
start_worker(LokySharedExecutor *executor)
{
	LokyShortage shortage = loky_turns_shortage(executor);
	LokySharedWorker *worker = find_free_slot();

	if (shortage == LOKY_SHORTAGE_NONE && worker != NULL)
	{
		if (!claim_slot(worker, executor))
		{
			loky_turns_serve(executor, false);
			return;
		}
		loky_debug_point("claimed");
		if (register_worker(worker))
		{
			loky_turns_serve(executor, true);
			return;
		}
		unclaim_slot(worker, executor);
	}
	loky_turns_make_room(executor, shortage != LOKY_SHORTAGE_NONE ? shortage :
						 LOKY_SHORTAGE_SLOTS);
}

/*
 * Start what is wanted and can be had.  Returns the milliseconds after which to
 * look again at the latest.
 */
static long
start_workers(void)
{
	long		pause = EXPIRE_PAUSE_MS;
	LokySharedExecutor *executor;

	loky_turns_begin(&pause);
	while ((executor = loky_turns_next()) != NULL)
		start_worker(executor);
	return loky_turns_end() ? Min(pause, STARVED_PAUSE_MS) : pause;
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

/* Wake who waits for workers to be gone, and who waits for a shutdown. */
static void
tell_of_freed_slot(bool wake_waiters)
{
	ConditionVariableBroadcast(&loky->worker_gone);
	if (wake_waiters)
		loky_deadlock_wake_shutdowns();
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
		tell_of_freed_slot(wake);
	}
}

/*
 * A launcher that was terminated has left workers whose handles are lost.
 * Those that still live leave when idle; dead ones have settled themselves, or
 * reap_adopted does.  One that has not attached may never do so, and from the moment
 * that its slot is an orphan's it cannot any more: the slot is settled, and the
 * process leaves should it still come.
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
		if (!never_came)
			continue;
		loky_debug_point("adopting");
		loky_sched_settle(worker);
	}
}

/*
 * Has the worker attached, and its process ended?  Then the latch that it had has no
 * owner, or another one.  The executor's lock is held.
 */
static bool
is_gone(const LokySharedWorker *worker)
{
	return worker->pid != 0 &&
		ProcGlobal->allProcs[worker->procno].procLatch.owner_pid != worker->pid;
}

/*
 * Free slots without a handle whose workers have settled themselves, or have ended and
 * could not.
 */
static void
reap_adopted(void)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];
		LokySharedExecutor *executor = &loky->executors[worker->executor];
		bool		gone;
		bool		wake;

		if (handles[i] != NULL || worker->state == LOKY_WORKER_FREE)
			continue;
		LWLockAcquire(&executor->lock, LW_SHARED);
		gone = worker->exited || is_gone(worker);
		LWLockRelease(&executor->lock);
		if (!gone)
			continue;
		loky_sched_settle(worker);
		LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		free_slot(worker);
		wake = executor->state != LOKY_EXECUTOR_OPEN;
		LWLockRelease(&executor->lock);
		LWLockRelease(&loky->directory);
		tell_of_freed_slot(wake);
	}
}

/* The process of the launcher. */
void
loky_launcher_main(Datum main_arg)
{
	TimestampTz last_expiry = GetCurrentTimestamp();

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	ConfigReloadPending = true; /* one that came since the fork was ignored */
	pqsignal(SIGUSR1, procsignal_sigusr1_handler);
	BackgroundWorkerUnblockSignals();

	if (loky == NULL)
		proc_exit(0);
	loky_wait_register();
	loky_area_attach(loky->area);
	handles = MemoryContextAllocZero(TopMemoryContext,
									 loky->nworkers * sizeof(*handles));
	loky_turns_init();
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
			loky_guc_publish();
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
						 pause, loky_wait_event(LOKY_WAIT_LAUNCHER));
	}

	/* restarted unless the server itself is going down */
	proc_exit(1);
}
