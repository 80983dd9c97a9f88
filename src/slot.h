/*-------------------------------------------------------------------------
 *
 * slot.h
 *	  Slots of workers, and what waiting processes tell of themselves.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/slot.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_SLOT_H
#define LOKY_SLOT_H

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "port/atomics.h"

#include "task.h"

/* Room for the last message of a worker that ends. */
#define LOKY_LAST_WORDS		256

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
	LOKY_PHASE_INITIALIZING,	/* runs its executor's initializer */
	LOKY_PHASE_TAKEN,			/* not begun: may be given back */
	LOKY_PHASE_BEGUN,
	LOKY_PHASE_WROTE,			/* has committed something of its own */
	LOKY_PHASE_COMMITTED		/* its final commit is done */
} LokyWorkerPhase;

/* Room for what a task says of its progress. */
#define LOKY_PROGRESS_MESSAGE	96

/* What a task has told of its progress. */
typedef struct LokySharedProgress
{
	bool		told;
	int64		done;
	int64		total;			/* -1: not known */
	TimestampTz since;			/* when the task, or the item, began */
	char		message[LOKY_PROGRESS_MESSAGE];
} LokySharedProgress;

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
	bool		orphan;			/* its launcher is gone: attaches no more, or
								 * leaves when idle */
	int			depth;			/* of what it runs, while it waits */
	bool		exited;			/* settled, by its process or the launcher */
	LokySharedTask *task;
	LokySharedMap *map;
	dlist_node	node;			/* in the idle list */
	TimestampTz started;
	TimestampTz ready;			/* when it asked for its first task */
	TimestampTz last_active;
	uint64		tasks_done;
	LokySharedProgress progress;	/* of the present task or map */

	/* Written by the worker alone, read under the executor's lock. */
	LokyWorkerPhase phase;

	/*
	 * Parent of the tasks that the present task, item or chunk has submitted;
	 * 0: none.  The worker's own, read by others when it is gone.
	 */
	uint64		tag;

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
	LOKY_AWAITS_FIRST,			/* of the tasks; others may be left */
	LOKY_AWAITS_MAP,			/* that it reads, in the executor */
	LOKY_AWAITS_EXECUTOR		/* to come to rest */
} LokyAwaits;

/* Tasks that are written down for others to see; there may be more. */
#define LOKY_EDGES		128

/* One for each process number: what the process waits for. */
typedef struct LokySharedBackend
{
	pg_atomic_uint32 waiting;	/* 1 while its waiter marks may stand */

	/* Under the lock edges; written by the process itself. */
	LokyAwaits	kind;			/* also read without: loky_deadlock_wake_shutdowns */
	int			depth;			/* of what it runs; 0: a session */
	int			executor;		/* slot number */
	int			ntasks;			/* may be more than are listed */
	uint64		tasks[LOKY_EDGES];
} LokySharedBackend;

#endif							/* LOKY_SLOT_H */
