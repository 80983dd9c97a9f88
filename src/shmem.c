/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  Loky's part of the main shared memory segment: size, set-up, attaching.
 *
 * The segment is laid out once when the server starts, and again when it
 * restarts after a crash.  The array of tasks, the trace and the area rely on fresh
 * memory being zero, as the operating system hands it out: clearing tens of
 * megabytes at each start would only make them resident.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/shmem.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "area.h"
#include "compat.h"
#include "guc.h"
#include "held.h"
#include "key.h"
#include "pledge.h"
#include "pool.h"
#include "stats.h"
#include "trace.h"
#include "wait.h"

LokySharedControl *loky = NULL;

/* this session's number, given out at its first use of loky */
static uint64 session_id = 0;

/* Bytes of each part of the segment. */
typedef struct ShmemLayout
{
	int			ntasks;			/* length of the array, a multiple of 64 */
	int			nbackends;
	Size		control;
	Size		roles;
	Size		executors;
	Size		workers;
	Size		backends;
	Size		tasks;
	Size		task_map;
	Size		keys;
	Size		stats;
	Size		trace;
	Size		area;
	Size		total;
} ShmemLayout;

static ShmemLayout
compute_layout(void)
{
	ShmemLayout l;

	l.ntasks = TYPEALIGN(64, loky_max_tasks);
	l.nbackends = MaxBackends + NUM_AUXILIARY_PROCS;
	l.control = CACHELINEALIGN(sizeof(LokySharedControl));
	l.roles = CACHELINEALIGN(mul_size(LOKY_MAX_ROLES, sizeof(LokySharedRole)));
	l.executors = CACHELINEALIGN(mul_size(add_size(LOKY_SPARE_EXECUTORS,
												   max_worker_processes),
										  sizeof(LokySharedExecutor)));
	l.workers = CACHELINEALIGN(mul_size(max_worker_processes,
										sizeof(LokySharedWorker)));
	l.backends = CACHELINEALIGN(mul_size(l.nbackends,
										 sizeof(LokySharedBackend)));
	l.tasks = CACHELINEALIGN(mul_size(l.ntasks, sizeof(LokySharedTask)));
	l.task_map = CACHELINEALIGN(l.ntasks / 64 * sizeof(pg_atomic_uint64));
	l.keys = CACHELINEALIGN(loky_key_table_size(l.ntasks));
	l.stats = CACHELINEALIGN(loky_stats_size());
	l.trace = CACHELINEALIGN(loky_trace_shmem_size());
	l.area = loky_area_size();
	l.total = add_size(l.control, l.roles);
	l.total = add_size(l.total, l.executors);
	l.total = add_size(l.total, l.workers);
	l.total = add_size(l.total, l.backends);
	l.total = add_size(l.total, l.tasks);
	l.total = add_size(l.total, l.task_map);
	l.total = add_size(l.total, l.keys);
	l.total = add_size(l.total, l.stats);
	l.total = add_size(l.total, l.trace);
	l.total = add_size(l.total, l.area);
	l.total = add_size(l.total, PG_CACHE_LINE_SIZE);
	return l;
}

/* Ask for the segment's bytes; called in the postmaster. */
void
loky_shmem_request(void)
{
	RequestAddinShmemSpace(compute_layout().total);
}

/* The next size bytes of the segment, cleared if asked for. */
static void *
carve(char **place, Size size, bool clear)
{
	void	   *result = *place;

	if (clear)
		memset(result, 0, size);
	*place += size;
	return result;
}

static void
init_objects(int lock_tranche)
{
	LWLockInitialize(&loky->directory, lock_tranche);
	LWLockInitialize(&loky->idfile, lock_tranche);
	LWLockInitialize(&loky->edges, lock_tranche);
	loky->next_executor_id = 1;
	loky->launcher_procno = -1;
	ConditionVariableInit(&loky->worker_gone);
	pg_atomic_init_u64(&loky->next_session, 1);
	pg_atomic_init_u64(&loky->next_tag, 1);
	pg_atomic_init_u32(&loky->ntasks, 0);
	pg_atomic_init_u64(&loky->launcher_wakes, (uint64) DT_NOBEGIN);
	loky_ids_startup();

	pg_atomic_init_u32(&loky->nroles, 0);
	for (int i = 0; i < LOKY_MAX_ROLES; i++)
	{
		pg_atomic_init_u32(&loky->roles[i].held, 0);
		pg_atomic_init_u32(&loky->roles[i].unfinished, 0);
		pg_atomic_init_u32(&loky->roles[i].strength, 0);
	}
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		LWLockInitialize(&executor->lock, lock_tranche);
		executor->slot = i;
		pg_atomic_init_u32(&executor->nlanes, 0);
		loky_queue_init(executor);
		loky_timer_init(executor);
		dlist_init(&executor->idle);
		dlist_init(&executor->gated);
		dlist_init(&executor->finished);
	}
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		worker->index = i;
		pg_atomic_init_u64(&worker->run, 0);
		pg_atomic_init_u64(&worker->cancel_run, 0);
		pg_atomic_init_u32(&worker->woken, 0);
	}
	for (int i = 0; i < loky->nbackends; i++)
		pg_atomic_init_u32(&loky->backends[i].waiting, 0);
}

/* Lay out the segment; called in the postmaster. */
void
loky_shmem_startup(void)
{
	ShmemLayout l = compute_layout();
	bool		found;
	char	   *place;
	int			lock_tranche;
	int			area_tranche;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	place = ShmemInitStruct("loky", l.total, &found);
	place = (char *) CACHELINEALIGN(place);
	loky = (LokySharedControl *) place;
	if (!found)
	{
		lock_tranche = loky_compat_new_tranche("LokyPool");
		area_tranche = loky_compat_new_tranche("LokyArea");

		loky = carve(&place, l.control, true);
		loky->max_tasks = l.ntasks;
		loky->nworkers = max_worker_processes;
		loky->nexecutors = LOKY_SPARE_EXECUTORS + max_worker_processes;
		loky->nbackends = l.nbackends;
		loky->map_tranche = loky_compat_new_tranche("LokyMap");
		loky->roles = carve(&place, l.roles, true);
		loky->executors = carve(&place, l.executors, true);
		loky->workers = carve(&place, l.workers, true);
		loky->backends = carve(&place, l.backends, true);
		loky->tasks = carve(&place, l.tasks, false);
		loky->task_map = carve(&place, l.task_map, true);
		loky_key_init(carve(&place, l.keys, true), l.ntasks, lock_tranche);
		loky->stats = carve(&place, l.stats, true);
		loky_stats_init(loky->stats);
		loky->trace = carve(&place, l.trace, false);
		loky_trace_init(loky->trace);
		loky->area = place;
		init_objects(lock_tranche);
		loky_area_init(loky->area, l.area, area_tranche);
	}
	loky_guc_share(&loky->defaults, !found);
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Make loky usable in this process.  Every SQL function calls it first.
 * Raises an error where the library was not loaded at server start.
 */
void
loky_attach(void)
{
	if (session_id != 0)
		return;
	if (loky == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("loky is not loaded at server start"),
				 errhint("Add loky to shared_preload_libraries and restart the server.")));
	loky_wait_register();
	loky_area_attach(loky->area);
	loky_held_init();
	loky_pledge_init();
	session_id = pg_atomic_fetch_add_u64(&loky->next_session, 1);
}

/* A number for this session that no other one has had since server start. */
uint64
loky_session_id(void)
{
	Assert(session_id != 0);
	return session_id;
}

/*
 * Set the latch of a process.  That the process may be another one by now is
 * harmless: whoever waits on a latch looks at its condition again.
 */
void
loky_wake(int procno)
{
	SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

/* Have the launcher look at what is wanted. */
void
loky_wake_launcher(void)
{
	int			procno = loky->launcher_procno;

	if (procno >= 0)
		loky_wake(procno);
}
