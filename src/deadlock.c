/*-------------------------------------------------------------------------
 *
 * deadlock.c
 *	  Callers that wait for tasks which wait for them.
 *
 * A caller sleeps on its latch, so the server's own deadlock detector does not
 * see it.  Each caller writes down what it waits for, and looks every
 * deadlock_timeout, as long as it waits, whether it can ever be woken: a cycle
 * may form later.
 *
 * A process that waits has barriers before it: processes of which one at least must
 * go on, so that it can (barrier.c).  A barrier is closed while none of them can;
 * the process is stuck while one of its barriers is closed.
 *
 * A look collects all processes to which barriers lead from the caller, and takes
 * all that have barriers for stuck.  Then it lets go, one after the other, those
 * from which no way leads back to the caller, over closed barriers.  If the caller
 * itself is left in two looks running, it raises an error.  So it does not when
 * it waits behind a deadlock of others, who will see to that, nor when any of the
 * workers that could help it is not stuck.  But of those that wait for each other
 * for ever, at least one is left in its own look; where it is several, they give
 * up one at a time, and the others look again.
 *
 * The error is the caller's, never the task's: that one goes on as soon as the
 * caller's transaction has ended.  A task that waits for one of its own is a
 * caller too; where it is in a cycle with the caller that waits for it, it leaves
 * the error to that one, and looks more often before it gives up itself.
 *
 * A heavyweight lock for each worker, with which the server's detector could
 * see all this, would often make the worker the victim, would be dropped by a
 * rollback in the task, and would keep callers from hearing their latch.
 *
 * Locking
 * -------
 * What processes wait for is guarded by the lock edges.  A look copies what it
 * needs under one lock at a time, so it may see a cycle that has just gone, but
 * not twice.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/deadlock.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "barrier.h"
#include "compat.h"
#include "deadlock.h"
#include "map.h"
#include "worker.h"

/*
 * Looks running that must find a cycle before we give up; more where a caller
 * that is less deep than we are is in it.
 */
#define LOOKS			2
#define LOOKS_OF_INNER	8

/* The tasks that we wait for, of which others see a few only. */
static const uint64 *my_tasks = NULL;
static int	my_ntasks = 0;

/* How many waits had been given up when the last look began. */
static uint64 seen_victims = 0;

/* What the last look found first on its way, for the message. */
static int	found_process = 0;
static bool found_worker = false;	/* it is one */
static uint64 found_task = 0;

/* The entry of this process, to be written under the lock edges. */
static LokySharedBackend *
my_entry(void)
{
	return &loky->backends[LokyMyProcNumber()];
}

/*
 * We wait for tasks: for all of them, or until one ends.  The list is to stay
 * until the wait is over or given up.
 */
void
loky_deadlock_await_tasks(const uint64 *ids, int n, bool first)
{
	LokySharedBackend *entry = my_entry();

	my_tasks = ids;
	my_ntasks = n;

	LWLockAcquire(&loky->edges, LW_EXCLUSIVE);
	entry->kind = first ? LOKY_AWAITS_FIRST : LOKY_AWAITS_ALL;
	entry->depth = LokyMyDepth;
	entry->ntasks = n;
	memcpy(entry->tasks, ids, Min(n, LOKY_EDGES) * sizeof(uint64));
	LWLockRelease(&loky->edges);
}

/* We wait for items of our map. */
void
loky_deadlock_await_map(LokySharedMap *map)
{
	LokySharedBackend *entry = my_entry();

	LWLockAcquire(&loky->edges, LW_EXCLUSIVE);
	entry->kind = LOKY_AWAITS_MAP;
	entry->depth = LokyMyDepth;
	entry->executor = map->executor;
	LWLockRelease(&loky->edges);
}

/* We wait until the executor, which was shut down, has come to rest. */
void
loky_deadlock_await_executor(LokySharedExecutor *executor, int id)
{
	LokySharedBackend *entry = my_entry();

	LWLockAcquire(&loky->edges, LW_EXCLUSIVE);
	entry->kind = LOKY_AWAITS_EXECUTOR;
	entry->depth = LokyMyDepth;
	entry->executor = executor->slot;
	LWLockRelease(&loky->edges);
}

/*
 * An executor that was shut down has come to rest: wake whoever may wait for one.  No
 * lock is needed: they write down what they wait for before they look, under the
 * executor's lock, under which it came to rest.
 */
void
loky_deadlock_wake_shutdowns(void)
{
	for (int i = 0; i < loky->nbackends; i++)
	{
		if (loky->backends[i].kind == LOKY_AWAITS_EXECUTOR)
			loky_wake(i);
	}
}

/* We wait no more. */
void
loky_deadlock_await_nothing(void)
{
	LokySharedBackend *entry = my_entry();

	LWLockAcquire(&loky->edges, LW_EXCLUSIVE);
	entry->kind = LOKY_AWAITS_NOTHING;
	LWLockRelease(&loky->edges);
}

/* Does the process wait for something, and has it not just given up? */
bool
loky_deadlock_awaits(int procno)
{
	bool		awaits;

	LWLockAcquire(&loky->edges, LW_SHARED);
	awaits = loky->backends[procno].kind != LOKY_AWAITS_NOTHING;
	LWLockRelease(&loky->edges);
	return awaits;
}

/* Is none of the barrier's processes able to go on? */
static bool
is_closed(LokyLook *look, const LokyBarrier *barrier)
{
	for (int i = 0; i < barrier->n; i++)
	{
		if (!look->processes[barrier->processes[i]].stuck)
			return false;
	}
	return true;
}

/* The first closed barrier before the process that leads back to us. */
static LokyBarrier *
leading_barrier(LokyLook *look, const LokyProcess *process)
{
	ListCell   *lc;

	foreach(lc, process->barriers)
	{
		LokyBarrier *barrier = lfirst(lc);

		if (!is_closed(look, barrier))
			continue;
		for (int i = 0; i < barrier->n; i++)
		{
			if (barrier->processes[i] == 0 ||
				look->processes[barrier->processes[i]].leads)
				return barrier;
		}
	}
	return NULL;
}

/* Find out which processes lead back to us. */
static void
mark_leading(LokyLook *look)
{
	bool		changed = true;

	for (int i = 0; i < look->n; i++)
		look->processes[i].leads = false;
	while (changed)
	{
		changed = false;
		for (int i = 0; i < look->n; i++)
		{
			LokyProcess *process = &look->processes[i];

			if (process->leads || !process->stuck ||
				leading_barrier(look, process) == NULL)
				continue;
			process->leads = true;
			changed = true;
		}
	}
}

/* Let go what is not stuck, or does not lead back to us. */
static void
release_others(LokyLook *look)
{
	bool		changed = true;

	for (int i = 0; i < look->n; i++)
		look->processes[i].stuck = look->processes[i].barriers != NIL;
	while (changed)
	{
		changed = false;
		mark_leading(look);
		for (int i = 0; i < look->n; i++)
		{
			LokyProcess *process = &look->processes[i];

			if (!process->stuck || process->leads)
				continue;
			process->stuck = false;
			changed = true;
		}
	}
}

/* Is this the process of a worker?  A hint, as no lock is held. */
static bool
is_worker(int pid)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		if (loky->workers[i].state != LOKY_WORKER_FREE &&
			loky->workers[i].pid == pid)
			return true;
	}
	return false;
}

/* Is a caller in the cycle that is less deep than we are? */
static bool
has_outer_caller(LokyLook *look)
{
	for (int i = 1; i < look->n; i++)
	{
		LokyProcess *process = &look->processes[i];

		if (process->stuck && process->depth >= 0 &&
			process->depth < LokyMyDepth)
			return true;
	}
	return false;
}

/*
 * Does what we wait for wait for us?  Returns in how many looks running that
 * must be so before we are to give up; 0 where it is not so.
 */
int
loky_deadlock_look(void)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "loky deadlock",
							  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	LokyLook	look;
	int			looks = 0;

	LWLockAcquire(&loky->edges, LW_SHARED);
	seen_victims = loky->nvictims;
	LWLockRelease(&loky->edges);
	look.my_tasks = my_tasks;
	look.my_ntasks = my_ntasks;
	loky_barrier_collect(&look);
	release_others(&look);
	if (look.processes[0].stuck)
	{
		LokyBarrier *barrier = leading_barrier(&look, &look.processes[0]);

		found_task = barrier->task;
		found_process = look.processes[barrier->processes[0]].pid;
		found_worker = is_worker(found_process);
		looks = has_outer_caller(&look) ? LOOKS_OF_INNER : LOOKS;
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	return looks;
}

/*
 * Give up what we wait for, before we raise the error.  False where another one
 * has given up since our last look began: it may have freed us, so we are to
 * look again.
 */
bool
loky_deadlock_give_up(void)
{
	LokySharedBackend *entry = my_entry();
	bool		first;

	LWLockAcquire(&loky->edges, LW_EXCLUSIVE);
	first = loky->nvictims == seen_victims;
	if (first)
	{
		loky->nvictims++;
		entry->kind = LOKY_AWAITS_NOTHING;
	}
	LWLockRelease(&loky->edges);
	return first;
}

/* Raise the error of a caller that waits for itself. */
void
loky_deadlock_raise(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
			 errmsg("deadlock detected"),
			 found_task != 0 ?
			 errdetail("Process %d waits for loky task " UINT64_FORMAT " in worker process %d, which waits, directly or through others, for process %d.",
					   MyProcPid, found_task, found_process, MyProcPid) :
			 found_worker ?
			 errdetail("Process %d waits for a loky task in worker process %d, which waits, directly or through others, for process %d.",
					   MyProcPid, found_process, MyProcPid) :
			 errdetail("Process %d waits for a loky map of process %d, which waits, directly or through others, for process %d.",
					   MyProcPid, found_process, MyProcPid),
			 errhint("Commit before you wait, or submit the task and poll loky.done() from statements of their own.")));
}
