/*-------------------------------------------------------------------------
 *
 * history.c
 *	  Writing down what has been run, for statistics, traces and the log.
 *
 * A worker does so for each task before it hands over the result, so that whoever
 * has that finds it here; and for items of a map once for each range.
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
#include "map.h"
#include "request.h"
#include "trace.h"

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
	const char *label = loky_request_text(request, LOKY_TEXT_LABEL);

	event->labelled = label != NULL;
	strlcpy(event->name, label != NULL ? label :
			loky_request_text(request, LOKY_TEXT_TASK), LOKY_TRACE_NAME);
}

/* A new event of the worker, or NULL. */
static LokyTraceEvent *
begin_event(const LokySharedWorker *worker, LokyTraceKind kind)
{
	const LokySharedExecutor *executor = &loky->executors[worker->executor];
	LokyTraceEvent *event = loky_trace_begin(worker->index);

	if (event == NULL)
		return NULL;
	event->kind = kind;
	event->pid = worker->pid;
	event->executor_id = worker->executor_id;
	event->role = executor->role;
	event->database = executor->database;
	return event;
}

/*
 * The worker has run the task, which ends with this state at the time now.  With
 * log_min, in milliseconds, runs that took longer go to the log; -1: none does.
 */
void
loky_history_task(const LokySharedWorker *worker, LokySharedTask *task,
				  LokyTaskState state, uint64 rows, TimestampTz now, int log_min)
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
	event = begin_event(worker, LOKY_TRACE_TASK);
	if (event != NULL)
	{
		event->end = state == LOKY_TASK_SUCCEEDED ? LOKY_TRACE_SUCCEEDED :
			state == LOKY_TASK_FAILED ? LOKY_TRACE_FAILED : LOKY_TRACE_CANCELLED;
		event->start = task->started;
		event->us = us;
		event->future = pg_atomic_read_u64(&task->id);
		event->nitems = event->nfailed = 0;
		set_name(event, &task->request);
		loky_trace_end(worker->index);
	}
	if (log_min >= 0 && us >= (int64) log_min * 1000)
		ereport(LOG,
				(errmsg("loky task " UINT64_FORMAT " ran for %.3f ms: %s",
						pg_atomic_read_u64(&task->id), us / 1000.0, key.task)));
}

/* The worker has run a range of items of its map. */
void
loky_history_items(const LokySharedWorker *worker, const LokyRangeRun *run)
{
	LokyStatsKey key = stats_key(worker, &worker->map->request);
	LokyTraceEvent *event;

	if (run->tally.calls == 0)
		return;
	loky_stats_add(&key, &run->tally, run->start);
	event = begin_event(worker, LOKY_TRACE_ITEMS);
	if (event == NULL)
		return;
	event->end = run->tally.failures > 0 ? LOKY_TRACE_FAILED :
		LOKY_TRACE_SUCCEEDED;
	event->start = run->start;
	event->us = (int64) run->us;
	event->future = 0;
	event->first = run->first + 1;
	event->nitems = run->tally.calls;
	event->nfailed = run->tally.failures;
	set_name(event, &worker->map->request);
	loky_trace_end(worker->index);
}

/* Items of the map, n from the first on, have run so long that the log is to tell. */
void
loky_history_log_items(const LokySharedMap *map, uint64 first, uint64 n, uint64 us)
{
	ereport(LOG,
			(errmsg_plural("item " UINT64_FORMAT " of a loky map ran for %.3f ms: %s",
						   "items from " UINT64_FORMAT " on of a loky map ran for %.3f ms: %s",
						   n, first + 1, us / 1000.0,
						   loky_request_text(&map->request, LOKY_TEXT_TASK))));
}

/* The map has come to its end, or its reader has left it. */
void
loky_history_map(const LokySharedMap *map)
{
	LokySharedMap *mutable_map = unconstify(LokySharedMap *, map);
	uint64		published = pg_atomic_read_u64(&mutable_map->published);
	LokyTraceEvent event = {0};

	event.kind = LOKY_TRACE_MAP;
	event.nfailed = pg_atomic_read_u64(&mutable_map->nfailed);
	event.end = event.nfailed > 0 ? LOKY_TRACE_FAILED :
		published < map->nitems ? LOKY_TRACE_CANCELLED : LOKY_TRACE_SUCCEEDED;
	event.start = map->started;
	event.us = Max(GetCurrentTimestamp() - map->started, 0);
	event.pid = map->submitter;
	event.executor_id = map->executor_id;
	event.role = map->role;
	event.database = map->database;
	event.first = 1;
	event.nitems = map->nitems;
	set_name(&event, &map->request);
	loky_trace_add_map(&event);
}
