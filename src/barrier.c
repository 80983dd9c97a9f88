/*-------------------------------------------------------------------------
 *
 * barrier.c
 *	  What stands in the way of processes that wait.
 *
 * A process that waits has barriers before it.  A barrier consists of processes
 * and is closed while none of them can go on; the process is stuck while one of
 * its barriers is closed.  Before a process that waits for
 *	  a lock or a safe snapshot		stands each blocker, as pg_blocking_pids and
 *									its like have them
 *	  all of some tasks				each task
 *	  one of some tasks				all tasks together
 *	  a map							the worker of the next item, or, where their
 *									order does not matter, all workers together
 *	  a shutdown					each worker, and each reader of a map
 * For a task that runs, that is its worker.  For a pending one it is all workers
 * together that could take it, if there is no room for another one; or all that
 * hold a place, if that is for want of places.  They need not be of the same executor:
 * whoever can go on makes room when it is done, for executors take turns (turns.c).
 * For one behind its key it is those that run with it; for one to be queued at a
 * commit, the process that is to commit; and one after others needs each of these.
 *
 * Locking
 * -------
 * One lock at a time, so what is collected need not have been true at any one
 * moment.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/barrier.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/predicate_internals.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "after.h"
#include "barrier.h"
#include "compat.h"
#include "guc.h"
#include "key.h"
#include "map.h"
#include "sched.h"

/* The process belongs to the next barrier. */
static void
add_pid(LokyLook *look, int pid)
{
	for (int i = 0; i < look->npids; i++)
	{
		if (look->pids[i] == pid)
			return;
	}
	if (look->npids < (int) ProcGlobal->allProcCount)
		look->pids[look->npids++] = pid;
}

/* Is the worker of this executor in its initializer?  Executor's lock held. */
static bool
is_initializing(LokySharedExecutor *executor, const LokySharedWorker *worker)
{
	return worker->state == LOKY_WORKER_STARTING &&
		worker->executor == executor->slot && !worker->waiting &&
		worker->phase == LOKY_PHASE_INITIALIZING;
}

/* Workers of the executor in their initializers.  Its lock is held. */
static int
count_initializing(LokySharedExecutor *executor)
{
	int			n = 0;

	for (int i = 0; i < loky->nworkers; i++)
		n += is_initializing(executor, &loky->workers[i]);
	return n;
}

/*
 * The workers of the executor that are running something of their own belong to
 * the next barrier; with a map, those that run the map.  False where there are
 * none.  The executor's lock is held.
 */
static bool
add_busy_workers(LokyLook *look, LokySharedExecutor *executor, LokySharedMap *map)
{
	bool		any = false;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_FREE || worker->pid == 0 ||
			worker->exited || worker->executor != executor->slot)
			continue;
		if (map != NULL ? worker->map != map :
			(worker->waiting ||
			 (worker->task == NULL && worker->map == NULL &&
			  !is_initializing(executor, worker))))
			continue;
		add_pid(look, worker->pid);
		any = true;
	}
	return any;
}

/*
 * An executor gets no worker as its role has as many as it may: the workers of the
 * role belong to the next barrier, those that count if they are too many, else all.
 * False where one of them has nothing to do, and will make room, where there is
 * room, and where all wait for tasks of their own: the innermost one gets LK002
 * then.  A hint like the next one.
 */
static bool
add_role_workers(LokyLook *look, const LokySharedExecutor *executor)
{
	int			ncounted = 0;
	int			nheld = 0;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_FREE ||
			loky->executors[worker->executor].role_slot != executor->role_slot)
			continue;
		nheld++;
		if (worker->waiting)
			continue;
		if (worker->task == NULL && worker->map == NULL &&
			worker->phase != LOKY_PHASE_INITIALIZING)
			return false;
		ncounted++;
	}
	if (ncounted == 0 || (ncounted < loky_max_workers_per_role &&
						  nheld < loky_leave_role_processes()))
		return false;
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state != LOKY_WORKER_FREE &&
			(!worker->waiting || ncounted < loky_max_workers_per_role) &&
			loky->executors[worker->executor].role_slot == executor->role_slot)
			add_pid(look, worker->pid);
	}
	return true;
}

/*
 * An executor gets no worker for want of places: who holds one belongs to the
 * next barrier.  Those are the workers that count in loky.max_total_workers where
 * so many are there, else all, and parallel workers; what else runs in the
 * server's processes stays.  False where one of them has nothing to do, and will
 * make room, and where all wait for tasks of their own: the innermost one gets
 * LK002 then.  Workers of all executors are looked at without their locks, so
 * this is a hint.
 */
static bool
add_place_holders(LokyLook *look)
{
	bool		any = false;
	int			ncounted = 0;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_FREE)
			continue;
		if (worker->task == NULL && worker->map == NULL &&
			worker->phase != LOKY_PHASE_INITIALIZING)
			return false;
		ncounted += !worker->waiting;
	}
	if (ncounted == 0)
		return false;
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_FREE ||
			(worker->waiting && ncounted >= loky_max_total_workers))
			continue;
		add_pid(look, worker->pid);
		any = true;
	}
	for (uint32 i = 0; i < ProcGlobal->allProcCount &&
		 ncounted < loky_max_total_workers; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];

		if (proc->pid == 0 || proc->lockGroupLeader == NULL ||
			proc->lockGroupLeader == proc)
			continue;
		add_pid(look, proc->pid);
		any = true;
	}
	return any;
}

/*
 * Who must go on so that something queued can begin belongs to the next barrier.
 * False where there is room for one more.  Idle workers may be too many since
 * nested tasks wanted them, and take nothing then; those in their initializers may
 * be all that are to come.  The executor's lock is held.
 */
static bool
add_queue(LokyLook *look, LokySharedExecutor *executor)
{
	int			strength = loky_executor_strength(executor);
	int			ninitializing = count_initializing(executor);
	int			unused = executor->nidle + executor->nwaking +
		executor->nstarting - ninitializing;

	if (strength - unused >= executor->max_workers ||
		(ninitializing > 0 && unused == 0 && loky_sched_demand(executor) == 0))
		return add_busy_workers(look, executor, NULL);
	if (unused > 0 || executor->starved == LOKY_SHORTAGE_NONE)
		return false;
	return executor->starved == LOKY_SHORTAGE_ROLE ?
		add_role_workers(look, executor) : add_place_holders(look);
}

/* Something pending in the executor: all such need the same ones, added once. */
static bool
add_queue_once(LokyLook *look, LokySharedExecutor *executor)
{
	if (!look->queues[executor->slot])
		look->queues[executor->slot] = add_queue(look, executor);
	return look->queues[executor->slot];
}

/*
 * Of the tasks with this one's key that may run, one must end.  False where one of
 * them can begin.  The executor's lock is held.
 */
static bool
add_key(LokyLook *look, LokySharedExecutor *executor, const LokySharedTask *task)
{
	int			nrunning = 0;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_FREE || worker->exited ||
			worker->executor != executor->slot || worker->task == NULL ||
			worker->task->key != task->key)
			continue;
		add_pid(look, worker->pid);
		nrunning++;
	}
	return nrunning >= loky_key_count(executor, task->key) ||
		add_queue_once(look, executor);
}

/*
 * Who must go on so that the task can end belongs to the next barrier.  False
 * where the task needs nobody, or others first, which are to be looked at
 * instead.
 */
static bool
add_task(LokyLook *look, uint64 id)
{
	LokySharedTask *task = loky_task_lookup(id);
	LokySharedExecutor *executor;
	bool		waits = false;

	if (task == NULL)
		return false;
	executor = loky_task_executor(task);
	switch (task->waits)
	{
		case LOKY_WAITS_NOTHING:
			waits = pg_atomic_read_u32(&task->state) == LOKY_TASK_RUNNING;
			if (waits)
				add_pid(look, task->worker);
			break;
		case LOKY_WAITS_COMMIT:
			add_pid(look, task->submitter);
			waits = true;
			break;
		case LOKY_WAITS_KEY:
			waits = add_key(look, executor, task);
			break;
		case LOKY_WAITS_WORKER:
			waits = add_queue_once(look, executor);
			break;
		case LOKY_WAITS_AFTER:
		case LOKY_WAITS_DELAY:
			break;
	}
	LWLockRelease(&executor->lock);
	return waits;
}

/*
 * Who must go on so that the map, of which its reader waits for something, can:
 * in an ordered one that is whoever has the item which comes next, whatever the
 * others have left to do.  What waits for its time needs nobody before that.  The
 * executor's lock is held.
 */
static void
add_map_workers(LokyLook *look, LokySharedExecutor *executor, LokySharedMap *map)
{
	LokySharedWorker *holder = !map->ordered ? NULL :
		loky_map_holder(map, pg_atomic_read_u64(&map->awaited));

	if (holder != NULL)
		add_pid(look, holder->pid);
	else if (!loky_map_claimable(map) && loky_map_retry_any(map))
		return;
	else if (!loky_map_claimable(map))
		(void) add_busy_workers(look, executor, map);
	else
		(void) add_queue(look, executor);
}

/* The same for the map that this process reads from this executor. */
static void
add_map(LokyLook *look, LokySharedExecutor *executor, int reader)
{
	dlist_iter	iter;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	dlist_foreach(iter, &executor->maps)
	{
		LokySharedMap *map = dlist_container(LokySharedMap, node, iter.cur);

		if (map->reader != reader ||
			pg_atomic_read_u32(&map->reader_waits) == 0)
			continue;
		add_map_workers(look, executor, map);
		break;
	}
	LWLockRelease(&executor->lock);
}

/*
 * Whatever keeps the executor from coming to rest: workers that run something,
 * also while they wait for a task of their own, and readers of maps of which not all
 * has been run.
 */
static void
add_executor(LokyLook *look, LokySharedExecutor *executor)
{
	dlist_iter	iter;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state != LOKY_WORKER_FREE && worker->pid != 0 &&
			!worker->exited && worker->executor == executor->slot &&
			(worker->task != NULL || worker->map != NULL ||
			 is_initializing(executor, worker)))
			add_pid(look, worker->pid);
	}
	dlist_foreach(iter, &executor->maps)
	{
		LokySharedMap *map = dlist_container(LokySharedMap, node, iter.cur);

		if (!loky_map_is_at_rest(map))
			add_pid(look, map->submitter);
	}
	LWLockRelease(&executor->lock);
}

/* The number of the process in the look. */
static int
find_process(LokyLook *look, int pid)
{
	LokyProcess *process;

	for (int i = 0; i < look->n; i++)
	{
		if (look->processes[i].pid == pid)
			return i;
	}
	if (look->n >= look->max)
	{
		look->max *= 2;
		look->processes = repalloc(look->processes,
								   look->max * sizeof(LokyProcess));
	}
	process = &look->processes[look->n];
	process->pid = pid;
	process->depth = -1;
	process->barriers = NIL;
	return look->n++;
}

/* The barrier is complete, and stands before this process. */
static void
set_barrier(LokyLook *look, int number, uint64 task)
{
	LokyBarrier *barrier;

	if (look->npids == 0)
		return;
	barrier = palloc(sizeof(LokyBarrier));
	barrier->task = task;
	barrier->n = look->npids;
	barrier->processes = palloc(barrier->n * sizeof(int));
	for (int i = 0; i < barrier->n; i++)
		barrier->processes[i] = find_process(look, look->pids[i]);
	look->npids = 0;
	look->processes[number].barriers =
		lappend(look->processes[number].barriers, barrier);
}

/* Each of the processes is a barrier of its own. */
static void
set_barriers(LokyLook *look, int number)
{
	int			n = look->npids;
	int		   *pids = palloc(Max(n, 1) * sizeof(int));

	memcpy(pids, look->pids, n * sizeof(int));
	for (int i = 0; i < n; i++)
	{
		look->npids = 0;
		add_pid(look, pids[i]);
		set_barrier(look, number, 0);
	}
	look->npids = 0;
}

/*
 * The tasks that must end for this one to begin, in CurrentMemoryContext; NIL where
 * it waits for none.
 */
static List *
find_dependencies(uint64 id)
{
	LokySharedTask *task = loky_task_lookup(id);
	List	   *list = NIL;
	uint64	   *ids;
	int			n;

	if (task == NULL)
		return NIL;
	n = task->waits == LOKY_WAITS_AFTER ? task->after->n + 1 : 0;
	LWLockRelease(&loky_task_executor(task)->lock);
	if (n == 0)
		return NIL;
	ids = MemoryContextAllocHuge(CurrentMemoryContext, n * sizeof(uint64));
	task = loky_task_lookup(id);
	if (task == NULL)
		return NIL;
	n = loky_after_dependencies(task->after, ids);
	LWLockRelease(&loky_task_executor(task)->lock);
	for (int i = 0; i < n; i++)
		list = lappend(list, &ids[i]);
	return list;
}

/* The first of the tasks that has not ended; 0 where all have. */
static uint64
first_unfinished(List *ids)
{
	ListCell   *lc;

	foreach(lc, ids)
	{
		uint64		id = *(uint64 *) lfirst(lc);
		LokySharedTask *task = loky_task_lookup(id);
		bool		done;

		if (task == NULL)
			continue;
		done = LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state));
		LWLockRelease(&loky_task_executor(task)->lock);
		if (!done)
			return id;
	}
	return 0;
}

/* A caller waits for all of these tasks, and for those that must end before. */
static void
await_all(LokyLook *look, int number, const uint64 *ids, int n)
{
	HASHCTL		info = {0};
	HTAB	   *seen;
	List	   *trail = NIL;

	info.keysize = sizeof(uint64);
	info.entrysize = sizeof(uint64);
	info.hcxt = CurrentMemoryContext;
	seen = hash_create("loky awaited tasks", 64, &info,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < n; i++)
		trail = lappend(trail, unconstify(uint64 *, &ids[i]));

	/* the trail grows as it is followed */
	for (int i = 0; i < list_length(trail); i++)
	{
		uint64		id = *(uint64 *) list_nth(trail, i);
		bool		found;

		(void) hash_search(seen, &id, HASH_ENTER, &found);
		if (found)
			continue;
		(void) add_task(look, id);
		set_barrier(look, number, id);
		trail = list_concat(trail, find_dependencies(id));
	}
}

/*
 * A caller waits until one of these tasks ends.  Where one of them waits for others
 * first, that is one that needs the first of them.
 */
static void
await_first(LokyLook *look, int number, const uint64 *ids, int n)
{
	for (int i = 0; i < n; i++)
	{
		uint64		id = ids[i];
		List	   *first;

		while ((first = find_dependencies(id)) != NIL)
			id = first_unfinished(first);
		if (!add_task(look, id))
		{
			look->npids = 0;
			return;
		}
	}
	if (n > 0)
		set_barrier(look, number, ids[0]);
}

/* A caller waits for tasks: for all of them, or until one ends. */
static void
await_tasks(LokyLook *look, int number, const uint64 *ids, int n, bool first)
{
	memset(look->queues, 0, loky->nexecutors * sizeof(bool));
	if (first)
		await_first(look, number, ids, n);
	else
		await_all(look, number, ids, n);
}

/* What the process has written down that it waits for. */
static void
await_entry(LokyLook *look, int number, int procno)
{
	LokySharedBackend entry;
	LokySharedExecutor *executor;
	const uint64 *ids = number == 0 ? look->my_tasks : entry.tasks;
	int			n;

	LWLockAcquire(&loky->edges, LW_SHARED);
	entry = loky->backends[procno];
	LWLockRelease(&loky->edges);
	executor = &loky->executors[entry.executor];
	if (entry.kind != LOKY_AWAITS_NOTHING)
		look->processes[number].depth = entry.depth;
	n = number == 0 ? look->my_ntasks : Min(entry.ntasks, LOKY_EDGES);
	switch (entry.kind)
	{
		case LOKY_AWAITS_NOTHING:
			break;
		case LOKY_AWAITS_ALL:
			await_tasks(look, number, ids, n, false);
			break;
		case LOKY_AWAITS_FIRST:
			if (n == entry.ntasks)
				await_tasks(look, number, ids, n, true);
			break;
		case LOKY_AWAITS_MAP:
			add_map(look, executor, procno);
			set_barrier(look, number, 0);
			break;
		case LOKY_AWAITS_EXECUTOR:
			add_executor(look, executor);
			set_barriers(look, number);
			LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
			if (executor->npending > 0)
				(void) add_queue(look, executor);
			LWLockRelease(&executor->lock);
			set_barrier(look, number, 0);
			break;
	}
}

/*
 * Those that have a lock for which the process waits, or hold up the snapshot of
 * a deferrable transaction.
 */
static void
await_blockers(LokyLook *look, int number)
{
	int			pid = look->processes[number].pid;
	ArrayType  *array =
		DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids,
											   Int32GetDatum(pid)));
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	int32	   *pids = (int32 *) ARR_DATA_PTR(array);
	int		   *others = palloc(ProcGlobal->allProcCount * sizeof(int));

	for (int i = 0; i < n; i++)
	{
		/* a prepared transaction has no process */
		if (pids[i] != 0)
			add_pid(look, pids[i]);
	}
	n = GetSafeSnapshotBlockingPids(pid, others,
									(int) ProcGlobal->allProcCount);
	for (int i = 0; i < n; i++)
	{
		if (others[i] != 0)
			add_pid(look, others[i]);
	}
	set_barriers(look, number);
}

/*
 * Collect what we wait for, directly or through others.  The caller has set
 * my_tasks.  What is collected lies in CurrentMemoryContext.
 */
void
loky_barrier_collect(LokyLook *look)
{
	look->n = 0;
	look->max = 16;
	look->processes = palloc(look->max * sizeof(LokyProcess));
	look->npids = 0;
	look->queues = palloc0(loky->nexecutors * sizeof(bool));
	look->pids = palloc(ProcGlobal->allProcCount * sizeof(int));
	(void) find_process(look, MyProcPid);
	for (int i = 0; i < look->n; i++)
	{
		PGPROC	   *proc = BackendPidGetProc(look->processes[i].pid);

		if (proc == NULL)
			continue;
		await_blockers(look, i);
		await_entry(look, i, LokyProcNumberOf(proc));
	}
}
