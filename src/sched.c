/*-------------------------------------------------------------------------
 *
 * sched.c
 *	  Who runs what: tasks and maps meet workers here.
 *
 * A submitter puts a task into the queue of its executor, takes the worker that
 * went to rest last off the list of idle ones and wakes it; where none rests it
 * tells the launcher that one is wanted.  A worker that has ended a task takes
 * the next one, or puts itself on the list.  It is counted as free from the
 * moment it ends a task, so that whoever saw the result and submits again does
 * not have a second worker started.
 *
 * Workers
 * -------
 *	  FREE -> STARTING			the launcher claims the slot
 *	  STARTING, BUSY -> IDLE	loky_sched_next finds nothing
 *	  STARTING, IDLE, BUSY -> BUSY	loky_sched_next finds something
 *	  any -> STOPPING			it is told to end, or not wanted any more
 *	  any -> FREE				settled, and the launcher saw it end
 *
 * Locking
 * -------
 * Everything under the lock of the executor's slot.  Latches are set after its
 * release.
 *
 * Failure
 * -------
 * A worker settles its slot as its process ends (loky_sched_settle), after its
 * transaction has been aborted; the launcher does so for one that never got as
 * far.  What a dead worker ran fails alone; what it had taken but not begun goes
 * back to the queue.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/sched.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "map.h"
#include "pool.h"
#include "sched.h"

#define ASSERT_LOCKED(executor) \
	Assert(LWLockHeldByMeInMode(&(executor)->lock, LW_EXCLUSIVE))

/* Latches to set once the lock is released. */
typedef struct WakeList
{
	int			n;
	bool		launcher;
	int			procnos[32];
} WakeList;

static void
wake_all(WakeList *list)
{
	for (int i = 0; i < list->n; i++)
		loky_wake(list->procnos[i]);
	if (list->launcher)
		loky_wake_launcher();
	list->n = 0;
	list->launcher = false;
}

/*
 * How many more workers the executor should have started now.  The executor's
 * lock is held.
 */
int
loky_sched_demand(LokySharedExecutor *executor)
{
	int64		wanted = executor->npending;
	int			allowed;
	dlist_iter	iter;

	if (!loky_enabled || executor->id == 0)
		return 0;
	dlist_foreach(iter, &executor->lane_list)
	{
		LokySharedLane *lane =
			dlist_container(LokySharedLane, list_node, iter.cur);

		/* as the items that nobody has claimed, each may want a worker */
		if (lane->map != NULL)
			wanted += Min((int64) lane->map->nitems -
						  (int64) pg_atomic_read_u64(&lane->map->next),
						  executor->max_workers);
		if (lane->map != NULL && pg_atomic_read_u32(&lane->map->nreturned) > 0)
			wanted++;
		if (lane->map != NULL)
			wanted += loky_map_retry_count_due(lane->map);
		if (wanted > executor->max_workers * 2)
			break;
	}
	wanted -= executor->nidle + executor->nwaking + executor->nstarting;
	allowed = executor->max_workers - loky_executor_strength(executor);
	return (int) Max(0, Min(wanted, allowed));
}

/* Take the worker off the idle list and have it woken. */
static void
rouse(LokySharedExecutor *executor, LokySharedWorker *worker, WakeList *list)
{
	Assert(worker->state == LOKY_WORKER_IDLE);
	dlist_delete(&worker->node);
	executor->nidle--;
	executor->nwaking++;
	worker->state = LOKY_WORKER_BUSY;
	pg_atomic_write_u32(&worker->woken, 1);
	list->procnos[list->n++] = worker->procno;
}

/* Rouse as many idle workers as there is work for; ask for the rest. */
static void
rouse_for_work(LokySharedExecutor *executor, int wanted, WakeList *list)
{
	while (wanted-- > 0 && executor->nidle > 0 &&
		   list->n < lengthof(list->procnos))
	{
		dlist_node *node = dlist_head_node(&executor->idle);

		rouse(executor, dlist_container(LokySharedWorker, node, node), list);
	}
	if (executor->nidle == 0 && loky_sched_demand(executor) > 0)
		list->launcher = true;
}

/*
 * Queue tasks that were claimed for the executor with this id; one that has an
 * error already has failed.  What is left to do then is added to *after, for
 * loky_end_conclude once the caller has noted that they are queued.  False, and
 * nothing done, where the executor is not open any more.
 */
bool
loky_sched_submit(LokySharedExecutor *executor, int id,
				  LokySharedTask **tasks, int ntasks, LokyAftermath *after)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->id != id || executor->state != LOKY_EXECUTOR_OPEN)
	{
		LWLockRelease(&executor->lock);
		return false;
	}
	for (int i = 0; i < ntasks; i++)
	{
		LokySharedTask *task = tasks[i];

		task->submitted = now;
		task->executor_id = id;
		loky_task_publish(task);
		if (task->sqlstate != 0)
			loky_end_task(executor, task, LOKY_TASK_FAILED,
						  task->sqlstate, after);
		else if (task->gated)
			loky_gate_enter(executor, task, after);
		else
		{
			loky_queue_push(executor, task);
			after->nready++;
		}
	}
	executor->last_used = now;
	loky_sched_unlock(executor, after);
	return true;
}

/* The same for a map. */
bool
loky_sched_submit_map(LokySharedExecutor *executor, int id,
					  LokySharedMap *map)
{
	WakeList	list = {0};

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->id != id || executor->state != LOKY_EXECUTOR_OPEN)
	{
		LWLockRelease(&executor->lock);
		return false;
	}
	map->executor = executor->slot;
	map->executor_id = id;
	map->nworkers = 0;
	map->closed = false;
	map->timer.set = false;
	map->timer.task = NULL;
	map->timer.map = map;
	dlist_push_tail(&executor->maps, &map->node);
	executor->nmaps++;
	executor->last_used = GetCurrentTimestamp();
	loky_queue_push_map(executor, map, map->session);
	rouse_for_work(executor, (int) Min(map->nitems, executor->max_workers),
				   &list);
	LWLockRelease(&executor->lock);
	wake_all(&list);
	return true;
}

/*
 * The executor may have more workers at work than before: rouse idle ones for what
 * waits, or have more started.  No lock is held.
 */
void
loky_sched_look_again(LokySharedExecutor *executor)
{
	WakeList	list = {0};

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&executor->nlanes) > 0)
		rouse_for_work(executor, executor->max_workers, &list);
	LWLockRelease(&executor->lock);
	wake_all(&list);
}

/*
 * The reader has made room in the window, or a range came back: offer the map
 * again if it was taken from the queue.
 */
void
loky_sched_offer_map(LokySharedMap *map)
{
	LokySharedExecutor *executor = &loky->executors[map->executor];
	WakeList	list = {0};

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (loky_map_retry_offer(executor, map, 0))
		rouse_for_work(executor, executor->max_workers, &list);
	LWLockRelease(&executor->lock);
	wake_all(&list);
}

/* What timers that are due have waited for may go on now.  No lock is held. */
void
loky_sched_fire(LokySharedExecutor *executor, TimestampTz now)
{
	LokyAftermath after = LOKY_NO_AFTERMATH;
	LokySharedTimer *timer;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	while ((timer = loky_timer_take(executor, now)) != NULL)
	{
		/*
		 * The time of a task has come for good.  In a map others may have come in
		 * its stead, whose time is another one.  Should the clock go back, neither
		 * sets a timer that is due by this one's time, and would be taken again.
		 */
		if (timer->task != NULL)
		{
			timer->task->due = 0;
			loky_gate_advance(executor, timer->task, &after);
		}
		else if (loky_map_retry_offer(executor, timer->map, now + 1))
			after.nready += executor->max_workers;
	}
	loky_sched_unlock(executor, &after);
}

/*
 * A worker found nothing to claim: take the map out of the queue.  Where the
 * reader makes room at the same moment, one of the two sees the other: parked
 * is written before the last look here, and read after the room is made there.
 * So it is where another worker adds what is to be run again.
 */
void
loky_sched_park_map(LokySharedMap *map)
{
	LokySharedExecutor *executor = &loky->executors[map->executor];

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (map->lane.queued)
	{
		pg_atomic_write_u32(&map->parked, 1);
		pg_memory_barrier();
		if (loky_map_claimable(map))
			pg_atomic_write_u32(&map->parked, 0);
		else
			loky_queue_remove_map(executor, map);
	}
	(void) loky_map_retry_offer(executor, map, 0);
	LWLockRelease(&executor->lock);
}

/*
 * Would more than max_workers run something if this one, which is not counted
 * as idle or woken any more, did?  So it is when one has gone on that had waited
 * for a task of its own; then this one rests until that waits again.
 */
static bool
is_surplus(LokySharedExecutor *executor)
{
	return loky_executor_strength(executor) - executor->nidle -
		executor->nwaking - executor->nstarting > executor->max_workers;
}

/*
 * Change whether the worker waits for a task of its own, and whether it is to
 * end.  In either case it does not count against max_workers, so that another
 * one may run what it waits for, and not more leave than are too many.  The
 * executor's lock is held.
 */
void
loky_sched_set_absent(LokySharedWorker *worker, bool waiting, bool stop)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	int			absent;

	ASSERT_LOCKED(executor);
	if (worker->exited)
		return;
	absent = (int) (waiting || stop) - (int) (worker->waiting || worker->stop);
	executor->nabsent += absent;
	loky_executor_strengthen(executor, -absent);

	/* one that waits in its initializer will not take what is pending */
	if (worker->state == LOKY_WORKER_STARTING)
		executor->nstarting += (int) worker->waiting - (int) waiting;
	worker->waiting = waiting;
	worker->stop = stop;
}

/* The worker takes nothing any more; somebody else is to see to what waits. */
static void
begin_stop(LokySharedExecutor *executor, LokySharedWorker *worker,
		   WakeList *list)
{
	loky_sched_set_absent(worker, worker->waiting, true);
	worker->state = LOKY_WORKER_STOPPING;
	if (pg_atomic_read_u32(&executor->nlanes) > 0)
		rouse_for_work(executor, 1, list);
	list->launcher = true;
}

/* The worker, which was started or woken, is at the queue. */
static void
arrive(LokySharedExecutor *executor, LokySharedWorker *worker)
{
	if (worker->state == LOKY_WORKER_STARTING)
	{
		executor->nstarting--;
		executor->failed_starts = 0;
		executor->starved = LOKY_SHORTAGE_NONE;
		worker->ready = GetCurrentTimestamp();
		worker->state = LOKY_WORKER_BUSY;
	}
	else if (pg_atomic_read_u32(&worker->woken) != 0)
	{
		executor->nwaking--;
		pg_atomic_write_u32(&worker->woken, 0);
	}
}

/* The worker takes the map, or the next task, of the lane. */
static LokyNext
take(LokySharedExecutor *executor, LokySharedWorker *worker,
	 LokySharedLane *lane)
{
	LokySharedTask *task;

	pg_atomic_write_u64(&worker->run, pg_atomic_read_u64(&worker->run) + 1);
	if (lane->map != NULL)
	{
		worker->map = lane->map;
		lane->map->nworkers++;
		loky_queue_turn(executor, lane);
		return LOKY_NEXT_MAP;
	}
	task = loky_queue_pop(executor, lane);
	worker->task = task;
	worker->phase = LOKY_PHASE_TAKEN;
	task->worker = worker->pid;
	task->worker_slot = worker->index;
	task->attempts++;
	task->started = GetCurrentTimestamp();
	executor->nrunning++;
	loky_task_set_state(task, LOKY_TASK_RUNNING);
	return LOKY_NEXT_TASK;
}

/*
 * Is a worker for which there is nothing to do to leave rather than rest?  If for what
 * the executor yields to others, it has yielded.
 */
static bool
leaves_unused(LokySharedExecutor *executor)
{
	/* with nothing to do it need not have its slice */
	if (executor->yields > 0)
	{
		executor->yields--;
		return true;
	}

	/* started while others waited, and not needed any more */
	return executor->nabsent == 0 &&
		loky_executor_strength(executor) > executor->max_workers;
}

static void
rest(LokySharedExecutor *executor, LokySharedWorker *worker)
{
	worker->state = LOKY_WORKER_IDLE;
	worker->last_active = GetCurrentTimestamp();
	dlist_push_head(&executor->idle, &worker->node);
	executor->nidle++;
}

/*
 * What the worker is to do next; called when it has nothing to do.  With TASK
 * or MAP the worker's fields of these names are set.
 */
LokyNext
loky_sched_next(LokySharedWorker *worker)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	WakeList	list = {0};
	LokySharedLane *lane;
	LokyNext	next;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	Assert(worker->task == NULL && worker->map == NULL);
	arrive(executor, worker);
	if (loky_leave_is_due(executor, worker))
	{
		begin_stop(executor, worker, &list);
		next = LOKY_NEXT_EXIT;
	}
	else if (loky_enabled && !is_surplus(executor) &&
			 (lane = loky_queue_first(executor)) != NULL)
	{
		next = take(executor, worker, lane);

		/* who queued a lot has not roused everybody at once */
		if (executor->nidle > 0 && executor->npending > 0)
			rouse_for_work(executor, 1, &list);
	}
	else if (leaves_unused(executor))
	{
		begin_stop(executor, worker, &list);
		next = LOKY_NEXT_EXIT;
	}
	else
	{
		rest(executor, worker);
		next = LOKY_NEXT_IDLE;
	}
	LWLockRelease(&executor->lock);
	wake_all(&list);
	return next;
}

/*
 * An idle worker wants to leave: it has rested for its executor's timeout, or
 * was told to.  False where it was roused meanwhile, or where there is work that
 * may be begun and it was not told to.
 */
bool
loky_sched_retire(LokySharedWorker *worker)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	WakeList	list = {0};
	bool		leave;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	leave = worker->state == LOKY_WORKER_IDLE &&
		(worker->stop || worker->orphan ||
		 !loky_enabled || pg_atomic_read_u32(&executor->nlanes) == 0);
	if (leave)
	{
		dlist_delete(&worker->node);
		executor->nidle--;
		begin_stop(executor, worker, &list);
	}
	LWLockRelease(&executor->lock);
	wake_all(&list);
	return leave;
}

/*
 * Have an idle worker look at the queue again, as work may have become ready
 * without anybody being told.  False where it was roused meanwhile.
 */
bool
loky_sched_rejoin(LokySharedWorker *worker)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	bool		idle;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	idle = worker->state == LOKY_WORKER_IDLE;
	if (idle)
	{
		dlist_delete(&worker->node);
		executor->nidle--;
		executor->nwaking++;
		worker->state = LOKY_WORKER_BUSY;
		pg_atomic_write_u32(&worker->woken, 1);
	}
	LWLockRelease(&executor->lock);
	return idle;
}

/*
 * Release the executor's lock, after tasks may have ended or become ready.  Wakes
 * the workers that are wanted for these.
 */
void
loky_sched_unlock(LokySharedExecutor *executor, LokyAftermath *after)
{
	WakeList	list = {0};

	if (after->nready > 0)
		rouse_for_work(executor, after->nready, &list);
	after->nready = 0;

	/* it may have been the last one that a closing executor waited for */
	if (executor->state != LOKY_EXECUTOR_OPEN)
		list.launcher = true;
	LWLockRelease(&executor->lock);
	wake_all(&list);
}

/*
 * The worker has ended its task, or this attempt at it, at the time now; the result
 * is complete.  A failed one that has been cancelled meanwhile ends as that.
 * From here on the worker counts as free, and it calls loky_sched_next at once.
 * Interrupts are held.
 */
void
loky_sched_finish(LokySharedWorker *worker, LokyTaskState state, int sqlstate,
				  TimestampTz now)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	LokySharedTask *task = worker->task;
	LokyAftermath after = LOKY_NO_AFTERMATH;
	LokyWorkerPhase phase = worker->phase;

	after.now = now;
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);

	/* cancelled since it failed: no other attempt, and no other cancel either */
	if (state == LOKY_TASK_FAILED &&
		pg_atomic_read_u32(&task->verdict) == LOKY_VERDICT_CANCEL)
	{
		LWLockRelease(&executor->lock);
		loky_cancel_children(worker);
		loky_store_free(&task->result);
		state = LOKY_TASK_CANCELLED;
		sqlstate = 0;
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	}
	worker->task = NULL;
	worker->progress.told = false;
	worker->phase = LOKY_PHASE_NONE;
	worker->tasks_done++;
	pg_atomic_write_u64(&worker->run, pg_atomic_read_u64(&worker->run) + 1);
	executor->nrunning--;
	executor->nwaking++;
	pg_atomic_write_u32(&worker->woken, 1);
	if (state != LOKY_TASK_FAILED ||
		!loky_gate_again(executor, task, phase, sqlstate, &after))
		loky_end_task(executor, task, state, sqlstate, &after);

	/* one of those that became ready is this worker's own next */
	if (after.nready > 0)
		after.nready--;
	loky_sched_unlock(executor, &after);
	loky_end_conclude(&after);
}

/* Count the items of its map that the worker has ended.  Lock held. */
void
loky_sched_count_items(LokySharedExecutor *executor, LokySharedWorker *worker)
{
	LokySharedPart *part = loky_map_known_part(worker->map, worker->index);

	if (part == NULL)
		return;
	worker->tasks_done += part->nsucceeded + part->nfailed;
	executor->succeeded += part->nsucceeded;
	executor->failed += part->nfailed;
	part->nsucceeded = 0;
	part->nfailed = 0;
}

/* The worker has done what it can of its map. */
void
loky_sched_leave_map(LokySharedWorker *worker)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	LokySharedMap *map = worker->map;
	bool		last;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	loky_sched_count_items(executor, worker);
	worker->map = NULL;
	worker->progress.told = false;
	worker->phase = LOKY_PHASE_NONE;
	pg_atomic_write_u64(&worker->run, pg_atomic_read_u64(&worker->run) + 1);
	executor->nwaking++;
	pg_atomic_write_u32(&worker->woken, 1);
	last = loky_map_detach(map);
	LWLockRelease(&executor->lock);
	if (last)
		loky_map_free(map);
}

/*
 * The worker begins or ends to wait for a task of its own.  While it waits it
 * does not count, so that another one may run what it waits for.
 */
void
loky_sched_wait(LokySharedWorker *worker, bool waiting, int depth)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	WakeList	list = {0};

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (worker->waiting != waiting)
	{
		loky_sched_set_absent(worker, waiting, worker->stop);
		worker->depth = depth;
		if (waiting)
		{
			rouse_for_work(executor, 1, &list);

			/* this made room, for which another executor may wait */
			list.launcher |= loky->is_short;
		}
	}
	LWLockRelease(&executor->lock);
	wake_all(&list);
}

/*
 * The worker's process has ended, or is about to: bring all that it had into
 * order (settle.c), and cancel what that had submitted (cancel.c).  Called by the
 * worker itself as it exits, else by the launcher.
 */
void
loky_sched_settle(LokySharedWorker *worker)
{
	LokySharedExecutor *executor = &loky->executors[worker->executor];
	LokyAftermath after = LOKY_NO_AFTERMATH;
	LokySharedMap *map;

	if (loky_settle_fails_run(worker))
	{
		loky_cancel_children(worker);
		loky_settle_drop(worker);
	}
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (worker->exited)
	{
		LWLockRelease(&executor->lock);
		return;
	}
	map = loky_settle_worker(executor, worker, &after);
	if (pg_atomic_read_u32(&executor->nlanes) > 0)
		after.nready++;
	loky_sched_unlock(executor, &after);
	loky_wake_launcher();
	loky_end_conclude(&after);
	if (map != NULL)
		loky_map_free(map);
}
