/*-------------------------------------------------------------------------
 *
 * task.h
 *	  Tasks, and the lanes in which they wait.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/task.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_TASK_H
#define LOKY_TASK_H

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "port/atomics.h"

#include "request.h"
#include "store.h"
#include "timer.h"

/* Room for small results in the task itself. */
#define LOKY_RESULT_INLINE	256

typedef struct LokySharedAfter LokySharedAfter;
typedef struct LokySharedEdge LokySharedEdge;
typedef struct LokySharedLine LokySharedLine;

/*
 * A lane: what one session has ready in one executor at one priority and depth,
 * first come first served; or one map.  Lanes of equal priority take turns.  The lane
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
	int			depth;			/* of nesting */
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

/*
 * What a PENDING task waits for: one at a time, in this order.  See gate.c.
 */
typedef enum LokyWaitsFor
{
	LOKY_WAITS_NOTHING,			/* it is not pending, or moves on */
	LOKY_WAITS_COMMIT,			/* the end of the submitter's transaction */
	LOKY_WAITS_AFTER,			/* other tasks to end */
	LOKY_WAITS_DELAY,			/* its time */
	LOKY_WAITS_KEY,				/* others with its key to end */
	LOKY_WAITS_WORKER			/* in a lane */
} LokyWaitsFor;

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
	uint64		parent;			/* tag of the run that submitted it; 0: none */
	TimestampTz submitted;
	uint64		timeout;		/* us of each attempt, 0: none */
	int			retries;
	uint64		key;			/* hash, 0: none */
	int			key_limit;
	bool		gated;			/* waits for more than a worker */
	int64		delay;			/* us from its queueing */
	LokySharedAfter *after;		/* what must end first, or NULL */

	/* Written under the executor's lock; read by anyone. */
	pg_atomic_uint32 state;

	/*
	 * LokyVerdict: whether a cancel or the final commit came first.  Moves from
	 * NONE once in each attempt, by compare and exchange.
	 */
	pg_atomic_uint32 verdict;

	/* Under the executor's lock. */
	int			waiter;			/* process number, or one of the above */
	int			pins;			/* readers, a run's caller, who discards it */
	bool		forgotten;		/* freed with the last pin */
	bool		discard;		/* freed when it ends; set at the latest then */
	int			worker;			/* pid that runs or ran it, 0: none yet */
	int			worker_slot;	/* valid while RUNNING */
	int			attempts;
	int			sqlstate;		/* of a failed one */
	TimestampTz started;
	TimestampTz finished;
	LokyWaitsFor waits;
	bool		pledged;		/* the submitter's transaction has yet to commit */
	bool		has_key;		/* counts among those with its key that may run */
	TimestampTz due;			/* not before; 0: at any time, or it has come */
	LokySharedTimer timer;		/* set while it waits for its time */
	LokySharedEdge *edges;		/* to tasks that wait for this one */
	LokySharedEdge *last_edge;
	LokySharedLine *line;		/* of its callbacks; NULL: none was added */
	LokySharedTask *prev;		/* in the lane, or behind its key */
	LokySharedTask *next;
	dlist_node	node;			/* in the executor's list gated, or finished */
	LokySharedLane lane;		/* valid while this is the lane's head */

	/* Written by the worker while RUNNING. */
	uint64		rows;			/* returned, or changed where it returns none */

	/* See request.h and store.h. */
	LokySharedRequest request;
	LokySharedStore result;		/* written by the worker while RUNNING */
	char		result_inline[LOKY_RESULT_INLINE] pg_attribute_aligned(8);
};

/* ids.c */
extern void loky_ids_startup(void);
extern bool loky_ids_reserve(void);

/* task.c */
extern LokySharedTask *loky_task_claim(LokySharedExecutor *executor,
									   int executor_id);
extern void loky_task_check_room(LokySharedExecutor *executor, int id,
								 int ntasks);
extern void loky_task_uncount(LokySharedTask *task);
extern uint64 loky_task_reserved_id(const LokySharedTask *task);
extern void loky_task_publish(LokySharedTask *task);
extern void loky_task_release(LokySharedTask *task);
extern LokySharedTask *loky_task_lookup(uint64 id);
extern void loky_task_free(LokySharedTask *task);
extern bool loky_task_evict(void);
extern void loky_task_set_state(LokySharedTask *task, LokyTaskState state);
extern void loky_task_wake_waiters(int waiter);
extern void loky_task_expire(void);
extern void loky_task_forget_database(Oid database);
extern ErrorData *loky_task_error(LokySharedTask *task);

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

#endif							/* LOKY_TASK_H */
