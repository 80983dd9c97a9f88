/*-------------------------------------------------------------------------
 *
 * completed.c
 *	  Futures one after the other, as their tasks end.
 *
 * A look passes once over all that are left and collects those that have ended;
 * these are given before the next look.  While a look lasts further tasks end, so
 * the faster they do, the more of them each look finds, and looking costs no more
 * than one core however many they are.
 *
 * Whoever waits is marked as such only within a call: between two calls nobody
 * counts on this process to go on.  The tasks that it has had itself marked for in
 * the first wait keep their marks, which at worst set its latch once too often.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/completed.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "client.h"
#include "compat.h"
#include "completed.h"
#include "deadlock.h"
#include "errdata.h"
#include "pledge.h"

struct LokyCompleted
{
	int			n;				/* futures in all */
	TimestampTz deadline;
	bool		late;			/* the last look was past it */
	bool		marked;			/* the rest has us marked as one that waits */
	uint64	   *rest;			/* not done at the last look */
	int			nrest;
	int64	   *done;			/* found at the last look */
	int			ndone;
	int			ngiven;			/* ... of which so many have been given */
};

/*
 * Get ready to give the distinct futures, which exist and may be used.  All of it
 * is in CurrentMemoryContext; nothing is to be closed.
 */
LokyCompleted *
loky_completed_open(const int64 *ids, int n, TimestampTz deadline)
{
	LokyCompleted *completed = palloc0(sizeof(LokyCompleted));

	completed->n = n;
	completed->deadline = deadline;
	completed->rest = palloc(Max(n, 1) * sizeof(uint64));
	completed->done = palloc(Max(n, 1) * sizeof(int64));
	completed->nrest = n;
	for (int i = 0; i < n; i++)
		completed->rest[i] = (uint64) ids[i];
	return completed;
}

/*
 * Move what is done, or gone, from the rest to what is to be given; with mark, have
 * the end of each of the others wake us.
 */
static void
look(LokyCompleted *completed, bool mark)
{
	int			left = 0;

	completed->ndone = 0;
	completed->ngiven = 0;
	for (int i = 0; i < completed->nrest; i++)
	{
		uint64		id = completed->rest[i];
		LokySharedTask *task = &loky->tasks[id % loky->max_tasks];

		if (loky_client_is_settled(task, id) ||
			(mark && !loky_client_mark_awaited(task, id)))
			completed->done[completed->ndone++] = (int64) id;
		else
			completed->rest[left++] = id;
	}
	completed->nrest = left;
}

/* Wait until one of the rest at least is done, or the deadline has passed. */
static void
wait_for_one(LokyCompleted *completed)
{
	LokyPatience patience = {0};

	loky_pledge_check_wait((const int64 *) completed->rest, completed->nrest);
	loky_client_begin_wait();
	for (;;)
	{
		LokySharedTask *task;

		ResetLatch(MyLatch);
		look(completed, !completed->marked);
		completed->marked = true;
		if (completed->ndone > 0)
			break;
		loky_deadlock_await_tasks(completed->rest, completed->nrest, true);
		CHECK_FOR_INTERRUPTS();
		task = &loky->tasks[completed->rest[0] % loky->max_tasks];
		if (!loky_client_sleep(completed->deadline, loky_task_executor(task),
							   &patience))
		{
			completed->late = true;
			break;
		}
	}
	loky_client_end_wait();
}

/* Find more that are done; one look past the deadline is the last. */
static void
find_more(LokyCompleted *completed)
{
	loky_client_check_parallel();
	completed->late = !TIMESTAMP_IS_NOEND(completed->deadline) &&
		completed->deadline <= GetCurrentTimestamp();
	look(completed, false);
	if (completed->ndone == 0 && !completed->late)
		wait_for_one(completed);
}

/*
 * The next future that is done; false where all have been given.  Raises LK004 past
 * the deadline, once what was done by then has been given, 25000 in a worker of a
 * parallel plan, and what loky_client_sleep raises.
 */
bool
loky_completed_next(LokyCompleted *completed, int64 *id)
{
	if (completed->ngiven == completed->ndone && completed->nrest > 0 &&
		!completed->late)
		find_more(completed);
	if (completed->ngiven < completed->ndone)
	{
		*id = completed->done[completed->ngiven++];
		return true;
	}
	if (completed->nrest == 0)
		return false;
	ereport(ERROR,
			(errcode(ERRCODE_LOKY_TIMEOUT),
			 errmsg("futures were not done in time"),
			 errdetail("%d of %d futures are not done.",
					   completed->nrest, completed->n),
			 errhint("Their tasks go on: ask again, or cancel them with loky.cancel().")));
}
