/*-------------------------------------------------------------------------
 *
 * history.c
 *	  Writing down what has been run, for statistics and traces.
 *
 * A worker does so for each attempt at a task before it hands over the result, so
 * that whoever has that finds it here; and for items of a map once for each range.
 * Who settles a worker that died does it in the worker's place, under the lock of
 * its executor.
 *
 * Ranges of cheap items are so short that one event for each would fill the trace
 * within a second.  Those of one map that follow each other in a worker are written
 * to one event, as long as it stays short enough that nothing is lost to the eye.
 *
 * What still runs is not written down: it is read from the slots of the workers.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/history.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "history.h"
#include "request.h"
#include "stats.h"
#include "trace.h"

/* Ranges shorter than this share an event of up to so long; pauses are shorter still. */
#define SHORT_RANGE_US		1000
#define SHARED_EVENT_US		10000
#define SHARED_PAUSE_US		1000

/* Whose statistics a run of the worker belongs to. */
static LokyStatsKey
stats_key(const LokySharedWorker *worker, const LokySharedRequest *request)
{
	const LokySharedExecutor *executor = &loky->executors[worker->executor];
	LokyStatsKey key;

	key.executor_id = worker->executor_id;
	key.hash = request->hash;
	key.role = executor->role;
	key.database = executor->database;
	key.task = loky_request_text(request, LOKY_TEXT_TASK);
	return key;
}

/* What the event has of the request. */
static void
set_name(LokyTraceEvent *event, const LokySharedRequest *request)
{
	LokyRequestText which =
		request->text_sizes[LOKY_TEXT_LABEL] > 0 ? LOKY_TEXT_LABEL : LOKY_TEXT_TASK;

	event->labelled = which == LOKY_TEXT_LABEL;
	memcpy(event->name, loky_request_text(request, which),
		   Min(request->text_sizes[which], LOKY_TRACE_NAME));
	event->name[LOKY_TRACE_NAME - 1] = '\0';
}

/* What the event has of the worker and of what it runs. */
static void
set_worker(LokyTraceEvent *event, LokyTraceKind kind, const LokySharedWorker *worker,
		   const LokySharedRequest *request)
{
	const LokySharedExecutor *executor = &loky->executors[worker->executor];

	event->kind = kind;
	event->pid = worker->pid;
	event->executor_id = worker->executor_id;
	event->role = executor->role;
	event->database = executor->database;
	set_name(event, request);
}

/* The part of the event that tells of the items. */
static void
set_items(LokyTraceEvent *event, uint64 first, uint64 n, uint64 nfailed)
{
	event->first = first + 1;
	event->last = first + n;
	event->nitems = (uint32) n;
	event->nfailed = (uint32) nfailed;
}

/* ... and of the task. */
static void
set_task(LokyTraceEvent *event, LokySharedTask *task)
{
	event->first = event->last = pg_atomic_read_u64(&task->id);
	event->nitems = event->nfailed = 0;
}

/*
 * The worker has run the task up to the time now, and this attempt ends in this
 * state, with so many rows that were returned or changed.
 */
void
loky_history_task(const LokySharedWorker *worker, LokySharedTask *task,
				  LokyTaskState state, uint64 rows, TimestampTz now)
{
	LokyStatsKey key = stats_key(worker, &task->request);
	LokyTally	tally = {.calls = 1};
	LokyTraceEvent *event;
	int64		us = Max(now - task->started, 0);

	tally.failures = state == LOKY_TASK_FAILED;
	tally.rows = state == LOKY_TASK_SUCCEEDED ? rows : 0;
	tally.total_us = tally.max_us = (uint64) us;
	if (task->attempts == 1)
	{
		tally.waits = 1;
		tally.wait_us = (uint64) Max(task->started - task->submitted, 0);
	}
	loky_stats_add(&key, &tally, now);
	event = loky_trace_begin(worker->index);
	if (event == NULL)
		return;
	set_worker(event, LOKY_TRACE_TASK, worker, &task->request);
	event->end = state == LOKY_TASK_SUCCEEDED ? LOKY_TRACE_SUCCEEDED :
		state == LOKY_TASK_FAILED ? LOKY_TRACE_FAILED : LOKY_TRACE_CANCELLED;
	event->start = task->started;
	event->us = us;
	set_task(event, task);
	loky_trace_end_change(event);
}

/* The range of the part is about to be run. */
void
loky_history_begin_range(LokySharedPart *part)
{
	memset(&part->run, 0, sizeof(part->run));
	part->run.first = part->range.lo;
	part->run.start = GetCurrentTimestamp();
}

/* May the run be added to the event that its worker has written last? */
static bool
can_share(const LokyTraceEvent *event, LokyTraceEnd end, const LokySharedRun *run,
		  uint64 us)
{
	int64		pause;

	if (event == NULL || event->end != end || us >= SHORT_RANGE_US)
		return false;
	pause = run->start - (event->start + event->us);
	return event->us < SHARED_EVENT_US && pause < SHARED_PAUSE_US &&
		pause > -SHARED_PAUSE_US;
}

/* An event for the range, or more of the last one. */
static void
trace_range(const LokySharedWorker *worker, LokySharedPart *part, uint64 us)
{
	const LokySharedRun *run = &part->run;
	const LokyTally *tally = &run->tally;
	LokyTraceEvent *event = part->event;
	LokyTraceEnd end = tally->failures > 0 ? LOKY_TRACE_FAILED :
		run->ncancelled > 0 ? LOKY_TRACE_CANCELLED : LOKY_TRACE_SUCCEEDED;

	if (can_share(event, end, run, us))
	{
		loky_trace_begin_change(event);
		event->us = Max(run->start - event->start, event->us) + (int64) us;
		event->first = Min(event->first, run->first + 1);
		event->last = Max(event->last, run->first + tally->calls);
		event->nitems += (uint32) tally->calls;
		event->nfailed += (uint32) tally->failures;
		loky_trace_end_change(event);
		return;
	}
	event = loky_trace_begin(worker->index);
	part->event = event;
	if (event == NULL)
		return;
	set_worker(event, LOKY_TRACE_ITEMS, worker, &worker->map->request);
	event->end = end;
	event->start = run->start;
	event->us = (int64) us;
	set_items(event, run->first, tally->calls, tally->failures);
	loky_trace_end_change(event);
}

/*
 * The worker has run so much of its map's range as it will, in so many
 * microseconds.
 */
void
loky_history_end_range(const LokySharedWorker *worker, LokySharedPart *part,
					   uint64 us)
{
	LokySharedRun *run = &part->run;
	LokyTally  *tally = &run->tally;

	if (tally->calls > 0)
	{
		LokyStatsKey key = stats_key(worker, &worker->map->request);

		/* what is not accounted for is the transaction in which a worker died */
		if (us > tally->total_us)
			tally->max_us = Max(tally->max_us, us - tally->total_us);
		tally->total_us = us;
		loky_stats_add(&key, tally, run->start);
		trace_range(worker, part, us);
	}
	run->start = 0;
}

/* The map has come to its end, or its reader has left it. */
void
loky_history_map(LokySharedMap *map)
{
	uint64		published = pg_atomic_read_u64(&map->published);
	uint64		nfailed = pg_atomic_read_u64(&map->nfailed);
	LokyTraceEvent event = {0};

	event.kind = LOKY_TRACE_MAP;
	event.end = nfailed > 0 ? LOKY_TRACE_FAILED :
		published < map->nitems ? LOKY_TRACE_CANCELLED : LOKY_TRACE_SUCCEEDED;
	event.start = map->started;
	event.us = Max(GetCurrentTimestamp() - map->started, 0);
	event.pid = map->submitter;
	event.executor_id = map->executor_id;
	event.role = map->role;
	event.database = map->database;
	set_items(&event, 0, map->nitems, nfailed);
	set_name(&event, &map->request);
	loky_trace_add_map(&event);
}

/*
 * Make an event of what the worker runs at present; false where it runs nothing.
 * The lock of its executor is held; what it has of a map it changes all the same.
 */
static bool
describe_running(LokySharedWorker *worker, LokyTraceEvent *event)
{
	LokySharedPart *part;

	if (worker->task != NULL)
	{
		set_worker(event, LOKY_TRACE_TASK, worker, &worker->task->request);
		event->start = worker->task->started;
		set_task(event, worker->task);
		return true;
	}
	part = worker->map != NULL ?
		loky_map_known_part(worker->map, worker->index) : NULL;
	if (part == NULL || part->run.start == 0)
		return false;
	set_worker(event, LOKY_TRACE_ITEMS, worker, &worker->map->request);
	event->start = part->run.start;
	set_items(event, part->run.first,
			  part->range.hi - Min(part->run.first, part->range.hi), 0);
	return event->start != 0;
}

/*
 * Append events for what the workers of this database run at present, in
 * CurrentMemoryContext.
 */
List *
loky_history_running(List *events, Oid database)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];
		LokySharedExecutor *executor = &loky->executors[worker->executor];
		LokyTraceEvent *event;

		/* a hint, looked at again under the lock */
		if (worker->task == NULL && worker->map == NULL)
			continue;
		event = palloc0(sizeof(LokyTraceEvent));
		LWLockAcquire(&executor->lock, LW_SHARED);
		if (worker->executor == executor->slot &&
			worker->state != LOKY_WORKER_FREE &&
			executor->database == database && describe_running(worker, event))
		{
			event->end = LOKY_TRACE_RUNNING;
			event->us = Max(GetCurrentTimestamp() - event->start, 0);
			events = lappend(events, event);
		}
		LWLockRelease(&executor->lock);
	}
	return events;
}
