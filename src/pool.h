/*-------------------------------------------------------------------------
 *
 * pool.h
 *	  What all processes share: executors, workers, tasks, waiting sessions.
 *
 * Everything here lies in the main segment, which each process maps at the
 * same address, so plain pointers between these objects are good everywhere.
 *
 * Lock order: directory, executor, map, edges, area.  The lock of an executor's slot
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
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "request.h"
#include "store.h"

/* Slots for executors; closed ones keep their configuration while they can. */
#define LOKY_MAX_EXECUTORS	128

/* Roles that have executors or futures at the same time. */
#define LOKY_MAX_ROLES		256

/* Room for small results in the task itself. */
#define LOKY_RESULT_INLINE	256

/* Room for the last message of a worker that ends. */
#define LOKY_LAST_WORDS		256

typedef struct LokySharedTask LokySharedTask;
typedef struct LokySharedMap LokySharedMap;
typedef struct LokySharedExecutor LokySharedExecutor;

/*
 * A lane: what one session has ready in one executor at one priority, first
 * come first served; or one map.  Lanes of equal priority take turns.  The lane
 * of tasks lies in its first task and moves on with it.
 *
 * Guarded by the executor's lock.
 */
typedef struct LokySharedLane
{
	pairingheap_node heap_node;
	dlist_node	list_node;
	bool		queued;
	int			priority;
	uint64		turn;			/* the lane served longest ago has the least */
	uint64		session;
	LokySharedMap *map;			/* NULL: a lane of tasks */
	LokySharedTask *head;		/* of tasks */
	LokySharedTask *tail;
} LokySharedLane;

/*
 * PENDING -> RUNNING -> SUCCEEDED | FAILED | CANCELLED -> FREE
 * PENDING -> CANCELLED | FAILED
 * RUNNING -> PENDING (its worker was told to end before it began)
 */
typedef enum LokyTaskState
{
	LOKY_TASK_FREE,
	LOKY_TASK_PENDING,
	LOKY_TASK_RUNNING,
	LOKY_TASK_SUCCEEDED,
	LOKY_TASK_FAILED,
	LOKY_TASK_CANCELLED
} LokyTaskState;

#define LokyTaskStateIsFinal(state)	((state) >= LOKY_TASK_SUCCEEDED)

/* What is settled about a running task. */
typedef enum LokyVerdict
{
	LOKY_VERDICT_NONE,
	LOKY_VERDICT_CANCEL,		/* it ends as cancelled */
	LOKY_VERDICT_COMMIT			/* it can't be cancelled any more */
} LokyVerdict;

/* values of LokySharedTask.waiter besides a process number */
#define LOKY_NO_WAITER		(-1)
#define LOKY_MANY_WAITERS	(-2)

struct LokySharedTask
{
	/*
	 * 0 while the slot is free or being filled.  Written by the claimer as
	 * the last field, cleared under the executor's lock.
	 */
	pg_atomic_uint64 id;

	/* Constant while the id is set. */
	int			executor;		/* slot number; its lock guards this task */
	int			executor_id;
	int			role_slot;
	Oid			database;
	Oid			role;
	int			submitter;		/* pid */
	int			priority;
	uint64		session;
	TimestampTz submitted;

	/* Written under the executor's lock; read by anyone. */
	pg_atomic_uint32 state;

	/*
	 * LokyVerdict: whether a cancel or the final commit came first.  Moves
	 * once from NONE, by compare and exchange.
	 */
	pg_atomic_uint32 verdict;

	/* Under the executor's lock. */
	int			waiter;			/* process number, or one of the above */
	int			pins;			/* readers of the result */
	bool		forgotten;		/* freed with the last pin */
	int			worker;			/* pid that runs or ran it, 0: none yet */
	int			worker_slot;	/* valid while RUNNING */
	int			attempts;
	int			sqlstate;		/* of a failed one */
	TimestampTz started;
	TimestampTz finished;
	LokySharedTask *prev;		/* in the lane */
	LokySharedTask *next;
	dlist_node	node;			/* in the executor's finished list */
	LokySharedLane lane;		/* valid while this is the lane's head */

	/* See request.h and store.h. */
	LokySharedRequest request;
	LokySharedStore result;		/* written by the worker while RUNNING */
	char		result_inline[LOKY_RESULT_INLINE] pg_attribute_aligned(8);
};

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
	 * either.
	 */
	int			id;				/* ascending, never used again; 0: free */
	LokyExecutorState state;
	Oid			database;
	Oid			role;
	bool		role_is_superuser;	/* as far as known, checked by each worker */
	int			role_slot;
	uint64		fingerprint;	/* hash of the configuration */
	dsa_pointer config;			/* a LokyConfig's bytes, see executor.h */
	uint32		config_len;
	int			max_workers;
	int			timeout;		/* ms, -1: never */
	TimestampTz created;

	/* Under the executor's lock. */
	pairingheap lanes;
	dlist_head	lane_list;
	uint64		turn;
	int			npending;		/* tasks in lanes */
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
	int			failed_starts;	/* in a row */
	TimestampTz next_start;		/* not before, after failed starts */
	TimestampTz last_used;
	bool		starved;		/* wants workers that cannot be had */
	uint64		succeeded;
	uint64		failed;
	uint64		cancelled;
	uint64		restarts;		/* workers that ended while they ran a task */

	/* Written under the executor's lock, read without as a hint. */
	pg_atomic_uint32 nlanes;
};

/*
 * FREE -> STARTING -> IDLE <-> BUSY -> STOPPING -> FREE
 *
 * STARTING until the process is at the queue for the first time.  In the idle
 * list exactly while IDLE.  STOPPING: takes nothing any more.
 */
typedef enum LokyWorkerState
{
	LOKY_WORKER_FREE,
	LOKY_WORKER_STARTING,
	LOKY_WORKER_IDLE,
	LOKY_WORKER_BUSY,
	LOKY_WORKER_STOPPING
} LokyWorkerState;

/* How far the task of a worker has come, for settling it if the worker dies. */
typedef enum LokyWorkerPhase
{
	LOKY_PHASE_NONE,
	LOKY_PHASE_TAKEN,			/* not begun: may be given back */
	LOKY_PHASE_BEGUN,
	LOKY_PHASE_WROTE,			/* has committed something of its own */
	LOKY_PHASE_COMMITTED		/* its final commit is done */
} LokyWorkerPhase;

typedef struct LokySharedWorker
{
	int			index;			/* constant after server start */

	/*
	 * Claimed and freed under the directory's lock and that of the executor;
	 * generation grows with each claim.
	 */
	uint32		generation;
	int			executor;		/* slot number */
	int			executor_id;

	/* Under the executor's lock. */
	LokyWorkerState state;
	int			pid;			/* 0 until attached */
	int			procno;
	bool		stop;			/* told to end */
	bool		kill;			/* ... and what it runs fails with LK003 */
	bool		waiting;		/* waits for a task of its own */
	bool		orphan;			/* its launcher is gone: leaves when idle */
	int			depth;			/* of what it runs, while it waits */
	bool		exited;			/* the process has settled itself */
	LokySharedTask *task;
	LokySharedMap *map;
	dlist_node	node;			/* in the idle list */
	TimestampTz started;
	TimestampTz last_active;
	uint64		tasks_done;

	/* Written by the worker alone, read under the executor's lock. */
	LokyWorkerPhase phase;

	/*
	 * run grows with each task or map that the worker begins and is odd while
	 * it runs one.  A canceller copies it to cancel_run, under the executor's
	 * lock, and signals: a late signal finds another number and does nothing.
	 */
	pg_atomic_uint64 run;
	pg_atomic_uint64 cancel_run;

	/* Set by whoever takes the worker off the idle list, cleared by it. */
	pg_atomic_uint32 woken;

	/* Written by the worker as it dies. */
	char		last_words[LOKY_LAST_WORDS];
} LokySharedWorker;

/* What a caller waits for. */
typedef enum LokyAwaits
{
	LOKY_AWAITS_NOTHING,
	LOKY_AWAITS_ALL,			/* of the tasks */
	LOKY_AWAITS_FIRST,			/* of the tasks */
	LOKY_AWAITS_MAP,			/* that it reads, in the executor */
	LOKY_AWAITS_EXECUTOR		/* to come to rest */
} LokyAwaits;

/* Tasks that are written down for others to see; there may be more. */
#define LOKY_EDGES		16

/* One for each process number: what the process waits for. */
typedef struct LokySharedBackend
{
	pg_atomic_uint32 waiting;	/* 1 while its waiter marks may stand */

	/* Under the lock edges; written by the process itself. */
	LokyAwaits	kind;
	int			executor;		/* slot number */
	int			ntasks;			/* may be more than are listed */
	uint64		tasks[LOKY_EDGES];
} LokySharedBackend;

typedef struct LokySharedRole
{
	Oid			role;			/* under the directory's lock */
	int			executors;		/* under the directory's lock */
	pg_atomic_uint32 held;		/* futures kept */
} LokySharedRole;

typedef struct LokySharedControl
{
	LWLock		directory;
	LWLock		idfile;
	LWLock		edges;

	/* Under the directory's lock. */
	int			next_executor_id;

	/* Atomics. */
	pg_atomic_uint64 next_session;
	pg_atomic_uint64 next_task_id;
	pg_atomic_uint64 task_id_limit; /* ids below it are reserved on disk */
	pg_atomic_uint32 ntasks;	/* claimed tasks */

	/* The launcher's; written by it under the directory's lock. */
	int			launcher_procno;	/* -1: not running */

	int			max_tasks;		/* constant */
	int			nworkers;		/* constant: length of workers */
	int			nbackends;		/* constant: length of backends */
	int			map_tranche;	/* constant */

	/* Constant addresses of the parts. */
	LokySharedRole *roles;
	LokySharedExecutor *executors;
	LokySharedWorker *workers;
	LokySharedBackend *backends;
	LokySharedTask *tasks;
	pg_atomic_uint64 *task_map; /* a bit for each claimed task */
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

static inline LokySharedExecutor *
loky_task_executor(const LokySharedTask *task)
{
	return &loky->executors[task->executor];
}

/* ids.c */
extern void loky_ids_startup(void);
extern void loky_ids_reserve(void);

/* task.c */
extern LokySharedTask *loky_task_claim(LokySharedExecutor *executor);
extern uint64 loky_task_reserved_id(const LokySharedTask *task);
extern void loky_task_publish(LokySharedTask *task);
extern void loky_task_release(LokySharedTask *task);
extern LokySharedTask *loky_task_lookup(uint64 id);
extern void loky_task_free(LokySharedTask *task);
extern bool loky_task_evict(void);
extern void loky_task_set_state(LokySharedTask *task, LokyTaskState state);
extern void loky_task_wake_waiters(int waiter);
extern void loky_task_expire(void);

/* queue.c; the executor's lock is held */
extern void loky_queue_init(LokySharedExecutor *executor);
extern void loky_queue_push(LokySharedExecutor *executor,
							LokySharedTask *task);
extern void loky_queue_push_front(LokySharedExecutor *executor,
								  LokySharedTask *task);
extern void loky_queue_remove(LokySharedExecutor *executor,
							  LokySharedTask *task);
extern void loky_queue_push_map(LokySharedExecutor *executor,
								LokySharedMap *map, uint64 session);
extern void loky_queue_remove_map(LokySharedExecutor *executor,
								  LokySharedMap *map);
extern LokySharedLane *loky_queue_first(LokySharedExecutor *executor);
extern LokySharedTask *loky_queue_pop(LokySharedExecutor *executor,
									  LokySharedLane *lane);
extern void loky_queue_turn(LokySharedExecutor *executor,
							LokySharedLane *lane);

/* sched.c */
typedef enum LokyNext
{
	LOKY_NEXT_TASK,
	LOKY_NEXT_MAP,
	LOKY_NEXT_IDLE,
	LOKY_NEXT_EXIT
} LokyNext;

extern bool loky_sched_submit(LokySharedExecutor *executor, int id,
							  LokySharedTask **tasks, int ntasks);
extern bool loky_sched_submit_map(LokySharedExecutor *executor, int id,
								  LokySharedMap *map);
extern void loky_sched_offer_map(LokySharedMap *map);
extern void loky_sched_park_map(LokySharedMap *map);
extern LokyNext loky_sched_next(LokySharedWorker *worker);
extern bool loky_sched_retire(LokySharedWorker *worker);
extern bool loky_sched_rejoin(LokySharedWorker *worker);
extern void loky_sched_finish(LokySharedWorker *worker, LokyTaskState state,
							  int sqlstate);
extern void loky_sched_leave_map(LokySharedWorker *worker);
extern bool loky_sched_yield_map(LokySharedWorker *worker);
extern void loky_sched_wait(LokySharedWorker *worker, bool waiting, int depth);
extern void loky_sched_set_absent(LokySharedWorker *worker, bool waiting,
								  bool stop);
extern void loky_sched_count_items(LokySharedExecutor *executor,
								   LokySharedWorker *worker);
extern void loky_sched_settle(LokySharedWorker *worker);
extern int	loky_sched_demand(LokySharedExecutor *executor);
extern void loky_sched_end_task(LokySharedExecutor *executor,
								LokySharedTask *task, LokyTaskState state,
								int sqlstate, int *waiter);
extern void loky_sched_cancel_run(LokySharedWorker *worker);
extern void loky_sched_stop_worker(LokySharedWorker *worker, bool kill_it);
extern void loky_sched_stop_self(LokySharedWorker *worker);
extern void loky_sched_fail_pending(LokySharedExecutor *executor,
									LokyTaskState state, int sqlstate,
									const char *error, Size len);

/* settle.c; the executor's lock is held */
extern int	loky_settle_worker(LokySharedExecutor *executor,
							   LokySharedWorker *worker);

#endif							/* LOKY_POOL_H */
