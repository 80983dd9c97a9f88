/*-------------------------------------------------------------------------
 *
 * pool.h
 *	  What all processes share: executors, workers, tasks, waiting sessions.
 *
 * Everything here lies in the main segment, which each process maps at the
 * same address, so plain pointers between these objects are good everywhere.
 *
 * Lock order: directory, executor, keys, map, edges, area.  The lock of an executor's slot
 * guards the tasks and workers that name the slot, also after the executor
 * itself has gone.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/pool.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_POOL_H
#define LOKY_POOL_H

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "guc.h"
#include "slot.h"
#include "task.h"

/*
 * Slots for executors, besides one for each worker that there can be: so where all
 * are in use, there are that many without a worker and with work, for which the
 * idle workers of others leave.  Closed ones keep their configuration while they
 * can.
 */
#define LOKY_SPARE_EXECUTORS	128

/* Roles that have executors or futures at the same time. */
#define LOKY_MAX_ROLES		256

/* A worker that others want to have the place of serves so long before. */
#define LOKY_SLICE_MS		100

/* Why an executor gets no worker. */
typedef enum LokyShortage
{
	LOKY_SHORTAGE_NONE,
	LOKY_SHORTAGE_SLOTS,		/* loky.max_total_workers, max_worker_processes */
	LOKY_SHORTAGE_ROLE			/* loky.max_workers_per_role */
} LokyShortage;

/*
 * FREE -> OPEN -> CLOSING | BROKEN -> CLOSED -> FREE
 *
 * OPEN accepts tasks.  CLOSING runs what is there.  BROKEN has none left but
 * what still runs.  CLOSED has neither tasks nor workers and only remembers
 * its configuration until the slot is wanted.
 */
typedef enum LokyExecutorState
{
	LOKY_EXECUTOR_FREE,
	LOKY_EXECUTOR_OPEN,
	LOKY_EXECUTOR_CLOSING,
	LOKY_EXECUTOR_BROKEN,
	LOKY_EXECUTOR_CLOSED
} LokyExecutorState;

struct LokySharedExecutor
{
	LWLock		lock;
	int			slot;			/* constant after server start */

	/*
	 * Changed under both the directory's and the executor's lock, read under
	 * either.  An OPEN or CLOSING executor can become BROKEN under its own
	 * lock alone.
	 */
	int			id;				/* ascending, never used again; 0: free */
	LokyExecutorState state;
	Oid			database;
	Oid			role;
	bool		role_is_superuser;	/* as far as known, checked by each worker */
	int			role_slot;
	uint64		fingerprint;	/* hash of the configuration */
	dsa_pointer config;			/* a LokyConfig */
	bool		has_job_reducers;	/* the configuration has */
	int			max_workers;
	int			timeout;		/* ms, -1: never */
	TimestampTz created;

	/* Under the executor's lock. */
	pairingheap lanes;
	pairingheap timers;			/* see timer.c */
	dlist_head	lane_list;
	uint64		turn;
	int			npending;		/* tasks in lanes */
	dlist_head	gated;			/* tasks that wait for more than a worker */
	int			ngated;
	int			npledged;		/* tasks whose submitters have yet to commit */
	int			nrunning;
	int			nmaps;			/* maps not yet ended */
	dlist_head	maps;
	dlist_head	idle;			/* workers, the last one to rest first */
	dlist_head	finished;		/* tasks, the oldest first */
	int			nfinished;
	int			nworkers;		/* slots that name this executor */
	int			nidle;
	int			nwaking;		/* woken, but not yet back at the queue */
	int			nstarting;
	int			nabsent;		/* ... that wait for tasks of their own, or stop */
	int			excess;			/* workers to leave since it was made smaller */
	int			yields;			/* ... to leave so that others get one; see turns.c */
	int			failed_starts;	/* in a row */
	TimestampTz next_start;		/* not before, after failed starts */
	TimestampTz last_used;
	LokyShortage starved;		/* wants workers that cannot be had */
	TimestampTz starved_since;	/* without one that came */
	dsa_pointer error;			/* why what was pending failed, encoded */
	uint32		error_len;
	uint64		succeeded;
	uint64		failed;
	uint64		cancelled;
	uint64		restarts;		/* workers that died at work or were replaced */

	/* Written under the executor's lock, read without as a hint. */
	pg_atomic_uint32 nlanes;
	pg_atomic_uint64 next_due;	/* of the first timer; DT_NOEND: none */
};

typedef struct LokySharedRole
{
	Oid			role;			/* under the directory's lock */
	int			executors;		/* under the directory's lock */
	pg_atomic_uint32 held;		/* futures kept */
	pg_atomic_uint32 unfinished;	/* ... of tasks that are not done */
	pg_atomic_uint32 strength;	/* workers of all its executors that count */
} LokySharedRole;

/* Locks of the table of keys; a power of 2. */
#define LOKY_KEY_LOCKS		32

typedef struct LokySharedKey LokySharedKey;
typedef struct LokySharedStatsTable LokySharedStatsTable;
typedef struct LokySharedTrace LokySharedTrace;

typedef struct LokySharedControl
{
	LWLock		directory;
	LWLock		idfile;
	LWLock		edges;
	LWLock		key_locks[LOKY_KEY_LOCKS];
	slock_t		free_keys_lock;

	/* Under the directory's lock. */
	int			next_executor_id;

	/* Under the lock edges. */
	uint64		nvictims;		/* waits that were given up */

	/* Atomics. */
	pg_atomic_uint64 next_session;
	pg_atomic_uint64 next_task_id;
	pg_atomic_uint64 task_id_limit; /* ids below it are reserved on disk */
	pg_atomic_uint64 next_tag;	/* of a run that submits, see cancel.c */
	pg_atomic_uint32 ntasks;	/* claimed tasks */

	/* The launcher's; written by it under the directory's lock. */
	int			launcher_procno;	/* -1: not running */

	/* Signalled by the launcher when it has freed the slot of a worker. */
	ConditionVariable worker_gone;

	/* Written by the launcher: when it will wake for the next timer. */
	pg_atomic_uint64 launcher_wakes;

	/* Written by the launcher, after the postmaster; see guc.c. */
	LokySharedDefaults defaults;

	/* Written by the launcher: workers are wanted that cannot be had.  A hint. */
	bool		is_short;

	int			max_tasks;		/* constant */
	int			nexecutors;		/* constant: length of executors */
	int			nworkers;		/* constant: length of workers */
	int			nbackends;		/* constant: length of backends */
	int			map_tranche;	/* constant */

	/* Constant addresses of the parts. */
	LokySharedRole *roles;
	pg_atomic_uint32 nroles;	/* those from here on were never used */
	LokySharedExecutor *executors;
	LokySharedWorker *workers;
	LokySharedBackend *backends;
	LokySharedTask *tasks;
	pg_atomic_uint64 *task_map; /* a bit for each claimed task */
	LokySharedKey **key_buckets;	/* see key.c */
	uint32		nkey_buckets;	/* constant, a power of 2 */
	LokySharedKey *free_keys;	/* under free_keys_lock */
	LokySharedStatsTable *stats;
	LokySharedTrace *trace;
	void	   *area;
} LokySharedControl;

/* NULL where loky is not in shared_preload_libraries */
extern LokySharedControl *loky;

/* shmem.c */
extern void loky_shmem_request(void);
extern void loky_shmem_startup(void);
extern void loky_attach(void);
extern uint64 loky_session_id(void);
extern void loky_wake(int procno);
extern void loky_wake_launcher(void);

/* Workers that count against max_workers.  The executor's lock is held. */
static inline int
loky_executor_strength(const LokySharedExecutor *executor)
{
	return executor->nworkers - executor->nabsent;
}

/* ... and more of them.  The executor's lock is held. */
static inline void
loky_executor_strengthen(const LokySharedExecutor *executor, int n)
{
	pg_atomic_fetch_add_u32(&loky->roles[executor->role_slot].strength, n);
}

static inline LokySharedExecutor *
loky_task_executor(const LokySharedTask *task)
{
	return &loky->executors[task->executor];
}

#endif							/* LOKY_POOL_H */
