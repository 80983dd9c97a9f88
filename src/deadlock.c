/*-------------------------------------------------------------------------
 *
 * deadlock.c
 *	  Callers that wait for tasks which wait for them.
 *
 * A caller sleeps on its latch, so the server's own deadlock detector does not
 * see it.  Each caller writes down what it waits for, and looks every
 * deadlock_timeout, as long as it waits, whether it can ever be woken: a cycle
 * may form later.  The edges are
 *	  process -> blocker		as pg_blocking_pids has them: any one suffices
 *	  caller -> tasks			any one suffices where all must be done; all of
 *								them are needed where the first one will do
 *	  caller -> map				all workers of the map are needed
 *	  running task -> worker
 *	  pending task -> workers	all that could take it are needed, those in their
 *								initializer too, and there must be no room for
 *								another one
 * If the way leads back to this caller in two looks running, it raises an error.
 * The error is the caller's, never the task's: that one goes on as soon as the
 * caller's transaction has ended.
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

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "deadlock.h"
#include "map.h"

/* What is known about a process in the present look. */
typedef struct Visit
{
	int			pid;
	bool		leads;			/* back to us; false while it is looked at */
} Visit;

typedef struct Look
{
	Visit	   *visits;
	int			nvisits;
	int			max_visits;
} Look;

/* The worker that the last look found first on the way, for the message. */
static int	found_worker = 0;
static uint64 found_task = 0;

static bool process_leads(Look *look, int pid);

/* The entry of this process, to be written under the lock edges. */
static LokySharedBackend *
my_entry(void)
{
	return &loky->backends[LokyMyProcNumber()];
}

/* We wait for tasks: for all of them, or for the first one. */
void
loky_deadlock_await_tasks(const uint64 *ids, int n, bool first)
{
	LokySharedBackend *entry = my_entry();

	LWLockAcquire(&loky->edges, LW_EXCLUSIVE);
	entry->kind = first ? LOKY_AWAITS_FIRST : LOKY_AWAITS_ALL;
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
	entry->executor = executor->slot;
	LWLockRelease(&loky->edges);
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

/* Is the worker of this executor in its initializer?  Executor's lock held. */
static bool
is_initializing(LokySharedExecutor *executor, const LokySharedWorker *worker)
{
	return worker->state == LOKY_WORKER_STARTING &&
		worker->executor == executor->slot && !worker->waiting &&
		worker->phase == LOKY_PHASE_INITIALIZING;
}

/* The workers of the executor that are running something of their own. */
static int
copy_busy_workers(LokySharedExecutor *executor, LokySharedMap *map, int *pids)
{
	int			n = 0;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_FREE || worker->pid == 0 ||
			worker->exited || worker->executor != executor->slot)
			continue;
		if (map != NULL ? worker->map == map :
			(!worker->waiting &&
			 (worker->task != NULL || worker->map != NULL ||
			  is_initializing(executor, worker))))
			pids[n++] = worker->pid;
	}
	return n;
}

/*
 * Could the executor take on more than it runs?  Then nothing waits for its
 * busy workers.  The executor's lock is held.
 */
static bool
has_room(LokySharedExecutor *executor)
{
	int			nfree = executor->nidle + executor->nwaking +
		executor->nstarting;

	for (int i = 0; i < loky->nworkers; i++)
		nfree -= is_initializing(executor, &loky->workers[i]);
	if (nfree > 0)
		return true;
	return loky_sched_demand(executor) > 0 && !executor->starved;
}

/* Do all of these processes lead back to us?  None at all does not. */
static bool
all_lead(Look *look, const int *pids, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (!process_leads(look, pids[i]))
			return false;
	}
	if (n > 0 && found_worker == 0)
		found_worker = pids[0];
	return n > 0;
}

/* Does whoever waits for this task wait for us? */
static bool
task_leads(Look *look, uint64 id)
{
	int		   *pids = palloc(loky->nworkers * sizeof(int));
	LokySharedTask *task = loky_task_lookup(id);
	LokySharedExecutor *executor;
	int			n = 0;
	bool		leads;

	if (task == NULL)
		return false;
	executor = loky_task_executor(task);
	switch ((LokyTaskState) pg_atomic_read_u32(&task->state))
	{
		case LOKY_TASK_RUNNING:
			pids[n++] = task->worker;
			break;
		case LOKY_TASK_PENDING:
			if (!has_room(executor))
				n = copy_busy_workers(executor, NULL, pids);
			break;
		default:
			break;
	}
	LWLockRelease(&executor->lock);
	leads = all_lead(look, pids, n);
	pfree(pids);
	if (leads && found_task == 0)
		found_task = id;
	return leads;
}

/* Does the map that this process reads from this executor wait for us? */
static bool
map_leads(Look *look, LokySharedExecutor *executor, int reader)
{
	int		   *pids = palloc(loky->nworkers * sizeof(int));
	int			n = 0;
	bool		leads;
	dlist_iter	iter;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	dlist_foreach(iter, &executor->maps)
	{
		LokySharedMap *map = dlist_container(LokySharedMap, node, iter.cur);

		if (map->reader != reader ||
			pg_atomic_read_u32(&map->reader_waits) == 0)
			continue;
		if (!loky_map_claimable(map))
			n = copy_busy_workers(executor, map, pids);
		else if (!has_room(executor))
			n = copy_busy_workers(executor, NULL, pids);
		break;
	}
	LWLockRelease(&executor->lock);
	leads = all_lead(look, pids, n);
	pfree(pids);
	return leads;
}

/* Does the shutdown of this executor wait for us? */
static bool
executor_leads(Look *look, LokySharedExecutor *executor)
{
	int		   *pids = palloc(loky->nworkers * sizeof(int));
	int			n;
	bool		leads = false;

	LWLockAcquire(&executor->lock, LW_SHARED);
	n = copy_busy_workers(executor, NULL, pids);
	LWLockRelease(&executor->lock);
	for (int i = 0; i < n && !leads; i++)
		leads = all_lead(look, &pids[i], 1);
	pfree(pids);
	return leads;
}

/* Does what this process has written down that it waits for lead to us? */
static bool
entry_leads(Look *look, int procno)
{
	LokySharedBackend entry;
	int			n;

	LWLockAcquire(&loky->edges, LW_SHARED);
	entry = loky->backends[procno];
	LWLockRelease(&loky->edges);
	n = Min(entry.ntasks, LOKY_EDGES);
	switch (entry.kind)
	{
		case LOKY_AWAITS_NOTHING:
			return false;
		case LOKY_AWAITS_ALL:
			for (int i = 0; i < n; i++)
			{
				if (task_leads(look, entry.tasks[i]))
					return true;
			}
			return false;
		case LOKY_AWAITS_FIRST:
			for (int i = 0; i < n; i++)
			{
				if (!task_leads(look, entry.tasks[i]))
					return false;
			}
			return n > 0 && n == entry.ntasks;
		case LOKY_AWAITS_MAP:
			return map_leads(look, &loky->executors[entry.executor], procno);
		case LOKY_AWAITS_EXECUTOR:
			return executor_leads(look, &loky->executors[entry.executor]);
	}
	return false;
}

/* Does a lock that the process waits for lead to us? */
static bool
blockers_lead(Look *look, int pid)
{
	ArrayType  *array =
		DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids,
											   Int32GetDatum(pid)));
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	int32	   *pids = (int32 *) ARR_DATA_PTR(array);

	for (int i = 0; i < n; i++)
	{
		if (pids[i] != 0 && process_leads(look, pids[i]))
			return true;
	}
	return false;
}

/* Does the process wait for us, directly or through others? */
static bool
process_leads(Look *look, int pid)
{
	PGPROC	   *proc;
	int			mine;

	if (pid == MyProcPid)
		return true;
	check_stack_depth();
	for (int i = 0; i < look->nvisits; i++)
	{
		if (look->visits[i].pid == pid)
			return look->visits[i].leads;
	}
	if (look->nvisits >= look->max_visits)
	{
		look->max_visits *= 2;
		look->visits = repalloc(look->visits,
								look->max_visits * sizeof(Visit));
	}
	mine = look->nvisits++;
	look->visits[mine].pid = pid;
	look->visits[mine].leads = false;

	proc = BackendPidGetProc(pid);
	if (proc == NULL)
		return false;
	if (blockers_lead(look, pid) ||
		entry_leads(look, LokyProcNumberOf(proc)))
		look->visits[mine].leads = true;
	return look->visits[mine].leads;
}

/* Does what we wait for wait for us? */
bool
loky_deadlock_exists(void)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "loky deadlock",
												 ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(memory);
	Look		look;
	bool		exists;

	look.nvisits = 0;
	look.max_visits = 16;
	look.visits = palloc(look.max_visits * sizeof(Visit));
	found_worker = 0;
	found_task = 0;
	exists = entry_leads(&look, LokyMyProcNumber());
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(memory);
	return exists;
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
					   MyProcPid, found_task, found_worker, MyProcPid) :
			 errdetail("Process %d waits for a loky task in worker process %d, which waits, directly or through others, for process %d.",
					   MyProcPid, found_worker, MyProcPid),
			 errhint("Commit before you wait, or submit the task and poll loky.done() from statements of their own.")));
}
