/*-------------------------------------------------------------------------
 *
 * timer.c
 *	  What is to be looked at again at a certain time.
 *
 * A task may wait for its time, and so may items of a map that are to be run
 * again.  Each executor keeps the timers of its own in a heap.  The launcher
 * sleeps until the first of all is due; who sets an earlier one wakes it.  So
 * nobody polls, and a timer needs no memory but that of its owner.
 *
 * Locking
 * -------
 * A heap needs the executor's lock, exclusively; when its first timer is due may
 * be read without.
 *
 * Failure
 * -------
 * A launcher that died is started again, and looks at all heaps then.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/timer.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "pool.h"
#include "timer.h"

#define ASSERT_LOCKED(executor) \
	Assert(LWLockHeldByMeInMode(&(executor)->lock, LW_EXCLUSIVE))

/* The order of the heap: its first timer is due first. */
static int
compare_timers(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const LokySharedTimer *ta =
		pairingheap_const_container(LokySharedTimer, node, a);
	const LokySharedTimer *tb =
		pairingheap_const_container(LokySharedTimer, node, b);

	if (ta->due != tb->due)
		return ta->due < tb->due ? 1 : -1;
	return 0;
}

/* The first timer, or NULL. */
static LokySharedTimer *
first_timer(LokySharedExecutor *executor)
{
	if (pairingheap_is_empty(&executor->timers))
		return NULL;
	return pairingheap_container(LokySharedTimer, node,
								 pairingheap_first(&executor->timers));
}

/* Let those without the lock see when the first timer is due. */
static void
show_next(LokySharedExecutor *executor)
{
	LokySharedTimer *first = first_timer(executor);

	pg_atomic_write_u64(&executor->next_due,
						(uint64) (first != NULL ? first->due : DT_NOEND));
}

/* No timers; called at server start. */
void
loky_timer_init(LokySharedExecutor *executor)
{
	executor->timers.ph_compare = compare_timers;
	executor->timers.ph_arg = NULL;
	executor->timers.ph_root = NULL;
	pg_atomic_init_u64(&executor->next_due, (uint64) DT_NOEND);
}

/* Have the timer's owner looked at when due, instead of at any other time. */
void
loky_timer_set(LokySharedExecutor *executor, LokySharedTimer *timer,
			   TimestampTz due)
{
	ASSERT_LOCKED(executor);
	if (timer->set)
		loky_timer_clear(executor, timer);
	timer->due = due;
	timer->set = true;
	pairingheap_add(&executor->timers, &timer->node);
	show_next(executor);

	/* the launcher reads next_due after it has written when it will wake */
	pg_memory_barrier();
	if (due < (TimestampTz) pg_atomic_read_u64(&loky->launcher_wakes))
		loky_wake_launcher();
}

/* Forget the timer; harmless if it is not set. */
void
loky_timer_clear(LokySharedExecutor *executor, LokySharedTimer *timer)
{
	ASSERT_LOCKED(executor);
	if (!timer->set)
		return;
	timer->set = false;
	pairingheap_remove(&executor->timers, &timer->node);
	show_next(executor);
}

/* Take the first timer out of the heap if it is due; NULL where none is. */
LokySharedTimer *
loky_timer_take(LokySharedExecutor *executor, TimestampTz now)
{
	LokySharedTimer *first = first_timer(executor);

	ASSERT_LOCKED(executor);
	if (first == NULL || first->due > now)
		return NULL;
	loky_timer_clear(executor, first);
	return first;
}

/* When the first timer is due; DT_NOEND where there is none. */
TimestampTz
loky_timer_next(const LokySharedExecutor *executor)
{
	return (TimestampTz) pg_atomic_read_u64(unconstify(pg_atomic_uint64 *,
														&executor->next_due));
}
