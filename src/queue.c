/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  The queue of an executor: lanes that take turns.
 *
 * Each session has a lane for each priority that it uses, and each map is a
 * lane of its own.  The lane with the highest priority is served first; among
 * equals, the one that was served longest ago.  So three items do not wait
 * behind another session's hundred thousand.
 *
 * Lanes need no memory of their own: the lane of a session lies in its first
 * waiting task and moves to the next one when that is taken.
 *
 * Locking
 * -------
 * All functions need the executor's lock, exclusively.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/queue.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "map.h"
#include "pool.h"

#define ASSERT_LOCKED(executor) \
	Assert(LWLockHeldByMeInMode(&(executor)->lock, LW_EXCLUSIVE))

/* The order of the heap: its first lane is the greatest. */
static int
compare_lanes(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const LokySharedLane *la =
		pairingheap_const_container(LokySharedLane, heap_node, a);
	const LokySharedLane *lb =
		pairingheap_const_container(LokySharedLane, heap_node, b);

	if (la->priority != lb->priority)
		return la->priority > lb->priority ? 1 : -1;
	if (la->turn != lb->turn)
		return la->turn < lb->turn ? 1 : -1;
	return 0;
}

/* An empty queue. */
void
loky_queue_init(LokySharedExecutor *executor)
{
	executor->lanes.ph_compare = compare_lanes;
	executor->lanes.ph_arg = NULL;
	executor->lanes.ph_root = NULL;
	dlist_init(&executor->lane_list);
	dlist_init(&executor->maps);
}

static void
add_lane(LokySharedExecutor *executor, LokySharedLane *lane)
{
	Assert(!lane->queued);
	lane->queued = true;
	pairingheap_add(&executor->lanes, &lane->heap_node);
	dlist_push_tail(&executor->lane_list, &lane->list_node);
	pg_atomic_write_u32(&executor->nlanes,
						pg_atomic_read_u32(&executor->nlanes) + 1);
}

static void
remove_lane(LokySharedExecutor *executor, LokySharedLane *lane)
{
	Assert(lane->queued);
	lane->queued = false;
	pairingheap_remove(&executor->lanes, &lane->heap_node);
	dlist_delete(&lane->list_node);
	pg_atomic_write_u32(&executor->nlanes,
						pg_atomic_read_u32(&executor->nlanes) - 1);
}

/* The lane in which a task like this one waits, or NULL. */
static LokySharedLane *
find_lane(LokySharedExecutor *executor, const LokySharedTask *task)
{
	dlist_iter	iter;

	dlist_foreach(iter, &executor->lane_list)
	{
		LokySharedLane *lane =
			dlist_container(LokySharedLane, list_node, iter.cur);

		if (lane->session == task->session && lane->map == NULL &&
			lane->priority == task->priority &&
			lane->depth == task->request.depth)
			return lane;
	}
	return NULL;
}

/* A lane with this one task. */
static void
start_lane(LokySharedExecutor *executor, LokySharedTask *task)
{
	LokySharedLane *lane = &task->lane;

	lane->priority = task->priority;
	lane->depth = task->request.depth;
	lane->session = task->session;
	lane->turn = executor->turn;
	lane->map = NULL;
	lane->head = task;
	lane->tail = task;
	task->prev = NULL;
	task->next = NULL;
	add_lane(executor, lane);
}

/* Append the task to its session's lane. */
void
loky_queue_push(LokySharedExecutor *executor, LokySharedTask *task)
{
	LokySharedLane *lane;

	ASSERT_LOCKED(executor);
	task->waits = LOKY_WAITS_WORKER;
	lane = find_lane(executor, task);
	if (lane == NULL)
		start_lane(executor, task);
	else
	{
		task->prev = lane->tail;
		task->next = NULL;
		lane->tail->next = task;
		lane->tail = task;
		task->lane.queued = false;
	}
	executor->npending++;
}

/* Move the lane from its present place to the task, its new first one. */
static void
move_lane(LokySharedExecutor *executor, LokySharedLane *lane,
		  LokySharedTask *task)
{
	LokySharedLane *target = &task->lane;

	remove_lane(executor, lane);
	target->priority = lane->priority;
	target->depth = lane->depth;
	target->session = lane->session;
	target->turn = lane->turn;
	target->map = NULL;
	target->head = task;
	target->tail = lane->tail;
	target->queued = false;
	add_lane(executor, target);
}

/* Put a task back as the first of its session: it was taken but not begun. */
void
loky_queue_push_front(LokySharedExecutor *executor, LokySharedTask *task)
{
	LokySharedLane *lane;

	ASSERT_LOCKED(executor);
	task->waits = LOKY_WAITS_WORKER;
	lane = find_lane(executor, task);
	if (lane == NULL)
		start_lane(executor, task);
	else
	{
		LokySharedTask *head = lane->head;

		move_lane(executor, lane, task);
		task->prev = NULL;
		task->next = head;
		head->prev = task;
	}
	executor->npending++;
}

/* Take any one task out of the queue. */
void
loky_queue_remove(LokySharedExecutor *executor, LokySharedTask *task)
{
	ASSERT_LOCKED(executor);
	if (task->lane.queued)
	{
		/* the first one: the lane goes on with the next, or ends */
		if (task->next != NULL)
		{
			move_lane(executor, &task->lane, task->next);
			task->next->prev = NULL;
		}
		else
			remove_lane(executor, &task->lane);
	}
	else
	{
		task->prev->next = task->next;
		if (task->next != NULL)
			task->next->prev = task->prev;
		else
		{
			LokySharedLane *lane = find_lane(executor, task);

			lane->tail = task->prev;
		}
	}
	task->prev = NULL;
	task->next = NULL;
	task->waits = LOKY_WAITS_NOTHING;
	executor->npending--;
}

/* Offer the map to workers. */
void
loky_queue_push_map(LokySharedExecutor *executor, LokySharedMap *map,
					uint64 session)
{
	LokySharedLane *lane = &map->lane;

	ASSERT_LOCKED(executor);
	lane->priority = 0;
	lane->depth = map->request.depth;
	lane->session = session;
	lane->turn = executor->turn;
	lane->map = map;
	add_lane(executor, lane);
}

/* Offer the map no longer; harmless if it is not offered. */
void
loky_queue_remove_map(LokySharedExecutor *executor, LokySharedMap *map)
{
	ASSERT_LOCKED(executor);
	if (map->lane.queued)
		remove_lane(executor, &map->lane);
}

/*
 * Of the lanes of the highest priority, the deepest one; among equals the one that
 * was served longest ago.
 */
static LokySharedLane *
find_deepest(LokySharedExecutor *executor, LokySharedLane *best)
{
	dlist_iter	iter;

	dlist_foreach(iter, &executor->lane_list)
	{
		LokySharedLane *lane =
			dlist_container(LokySharedLane, list_node, iter.cur);

		if (lane->priority == best->priority &&
			(lane->depth > best->depth ||
			 (lane->depth == best->depth && lane->turn < best->turn)))
			best = lane;
	}
	return best;
}

/*
 * The lane whose turn it is, or NULL.  While workers wait for tasks of their own,
 * the deepest goes first: each one that began something shallow instead would soon
 * wait as well, and have another one started, until no process is left.
 */
LokySharedLane *
loky_queue_first(LokySharedExecutor *executor)
{
	LokySharedLane *first;

	ASSERT_LOCKED(executor);
	if (pairingheap_is_empty(&executor->lanes))
		return NULL;
	first = pairingheap_container(LokySharedLane, heap_node,
								  pairingheap_first(&executor->lanes));
	return executor->nabsent > 0 ? find_deepest(executor, first) : first;
}

/* The lane has been served: its next turn comes after all others'. */
void
loky_queue_turn(LokySharedExecutor *executor, LokySharedLane *lane)
{
	ASSERT_LOCKED(executor);
	pairingheap_remove(&executor->lanes, &lane->heap_node);
	lane->turn = ++executor->turn;
	pairingheap_add(&executor->lanes, &lane->heap_node);
}

/* Take the first task of the lane, which has been served then. */
LokySharedTask *
loky_queue_pop(LokySharedExecutor *executor, LokySharedLane *lane)
{
	LokySharedTask *task = lane->head;

	ASSERT_LOCKED(executor);
	lane->turn = ++executor->turn;
	loky_queue_remove(executor, task);
	return task;
}
