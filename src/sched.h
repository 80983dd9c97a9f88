/*-------------------------------------------------------------------------
 *
 * sched.h
 *	  Who runs what, and what becomes of it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/sched.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_SCHED_H
#define LOKY_SCHED_H

#include "lib/stringinfo.h"

#include "pool.h"

/* Edges of tasks that have ended; see after.c. */
typedef struct LokyEdgeList
{
	LokySharedEdge *first;
	LokySharedEdge *last;
} LokyEdgeList;

/*
 * What is left to do when tasks have ended, once the lock is released: local to
 * whoever ends them.
 */
typedef struct LokyAftermath
{
	int			waiter;			/* whom to wake */
	int			nready;			/* tasks that have come into a lane */
	LokyEdgeList met;			/* of those that have succeeded */
	LokyEdgeList unmet;			/* of others */
	LokySharedTask *discarded;	/* to be freed, linked by next */
	bool		has_file;		/* an attempt that failed has left one */
	FileSet		file;			/* ... which is to be deleted */
	TimestampTz now;			/* when they end; 0: look at the clock */
} LokyAftermath;

#define LOKY_NO_AFTERMATH	{.waiter = LOKY_NO_WAITER}

/* sched.c */
typedef enum LokyNext
{
	LOKY_NEXT_TASK,
	LOKY_NEXT_MAP,
	LOKY_NEXT_IDLE,
	LOKY_NEXT_EXIT
} LokyNext;

extern bool loky_sched_submit(LokySharedExecutor *executor, int id,
							  LokySharedTask **tasks, int ntasks,
							  LokyAftermath *after);
extern bool loky_sched_submit_map(LokySharedExecutor *executor, int id,
								  LokySharedMap *map);
extern void loky_sched_look_again(LokySharedExecutor *executor);
extern void loky_sched_offer_map(LokySharedMap *map);
extern void loky_sched_park_map(LokySharedMap *map);
extern LokyNext loky_sched_next(LokySharedWorker *worker);
extern bool loky_sched_retire(LokySharedWorker *worker);
extern bool loky_sched_rejoin(LokySharedWorker *worker);
extern void loky_sched_finish(LokySharedWorker *worker, LokyTaskState state,
							  int sqlstate, TimestampTz now);
extern void loky_sched_leave_map(LokySharedWorker *worker);
extern void loky_sched_wait(LokySharedWorker *worker, bool waiting, int depth);
extern void loky_sched_set_absent(LokySharedWorker *worker, bool waiting,
								  bool stop);
extern void loky_sched_fire(LokySharedExecutor *executor, TimestampTz now);
extern void loky_sched_count_items(LokySharedExecutor *executor,
								   LokySharedWorker *worker);
extern void loky_sched_settle(LokySharedWorker *worker);
extern int	loky_sched_demand(LokySharedExecutor *executor);
extern void loky_sched_unlock(LokySharedExecutor *executor,
							  LokyAftermath *after);

/* end.c; the executor's lock is held */
extern void loky_end_task(LokySharedExecutor *executor, LokySharedTask *task,
						  LokyTaskState state, int sqlstate,
						  LokyAftermath *after);

/* ... and is not */
extern void loky_end_conclude(LokyAftermath *after);

/* gate.c; the executor's lock is held */
extern void loky_gate_enter(LokySharedExecutor *executor, LokySharedTask *task,
							LokyAftermath *after);
extern void loky_gate_advance(LokySharedExecutor *executor,
							  LokySharedTask *task, LokyAftermath *after);
extern void loky_gate_leave(LokySharedExecutor *executor, LokySharedTask *task,
							LokyAftermath *after);
extern bool loky_gate_again(LokySharedExecutor *executor, LokySharedTask *task,
							LokyWorkerPhase phase, int sqlstate,
							LokyAftermath *after);

/* ... and is not */
extern void loky_gate_commit(uint64 id);
extern void loky_gate_drop(uint64 id);
extern bool loky_gate_move(uint64 id, LokySharedExecutor *target,
						   int target_id);

/* after.c; no lock is held */
extern void loky_after_follow(LokyAftermath *aftermath);

/* leave.c */
extern int	loky_leave_role_processes(void);
extern bool loky_leave_is_due(LokySharedExecutor *executor,
							  LokySharedWorker *worker);
extern bool loky_leave_map_is_due(LokySharedWorker *worker);

/* stop.c; the executor's lock is held, but for those on oneself */
extern void loky_stop_run(LokySharedWorker *worker);
extern void loky_stop_worker(LokySharedWorker *worker, bool kill_it);
extern void loky_stop_self(LokySharedWorker *worker);
extern void loky_stop_own_run(void);
extern void loky_stop_self_to_replace(LokySharedWorker *worker);
extern void loky_stop_pending(LokySharedExecutor *executor,
							  LokyTaskState state, int sqlstate,
							  const char *error, Size len,
							  LokyAftermath *after);

/* settle.c; the executor's lock is held */
extern LokySharedMap *loky_settle_worker(LokySharedExecutor *executor,
										 LokySharedWorker *worker,
										 LokyAftermath *after);
extern void loky_settle_break(LokySharedExecutor *executor, const char *error,
							  Size len, LokyAftermath *after);

/* settle.c; no lock needed */
extern void loky_settle_encode_broken(StringInfo buf, const char *detail,
									  const char *context);
extern void loky_settle_encode_roleless(StringInfo buf, Oid role);

/* ... is not held */
extern bool loky_settle_fails_run(LokySharedWorker *worker);
extern void loky_settle_drop(LokySharedWorker *worker);

/* cancel.c */
extern bool loky_cancel_task(LokySharedTask *task, bool running);
extern void loky_cancel_children(LokySharedWorker *worker);

#endif							/* LOKY_SCHED_H */
