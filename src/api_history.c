/*-------------------------------------------------------------------------
 *
 * api_history.c
 *	  SQL functions that tell what has been run: statistics, traces, timelines.
 *
 * Statistics and events are those of this database.  Of other roles' there are
 * numbers, but no texts.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_history.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api.h"
#include "client.h"
#include "history.h"
#include "stats.h"
#include "timeline.h"
#include "trace.h"

LOKY_FUNCTION(loky_stats_rows);
LOKY_FUNCTION(loky_stats_reset_sql);
LOKY_FUNCTION(loky_trace);
LOKY_FUNCTION(loky_timeline);
LOKY_FUNCTION(loky_timeline_svg);

/* Characters that a line of a timeline may have. */
#define LEAST_WIDTH		20
#define MOST_WIDTH		1000

#define HIDDEN			"<insufficient privilege>"

/* Older events are left out where there are more: jsonb has its limits. */
#define MOST_EVENTS		262144

/* Microseconds as milliseconds. */
static Datum
us_to_ms(double us)
{
	return Float8GetDatum(us / 1000);
}

/*
 * Whoever wrote the text did not know its encoding, and may have cut it in the midst
 * of a character: drop what is left of that.
 */
static void
clip_text(char *text)
{
	int			len = (int) strlen(text);

	text[pg_mbcliplen(text, len, len)] = '\0';
}

static void
put_stats(ReturnSetInfo *rsinfo, LokySharedStats *stats)
{
	LokyTally  *tally = &stats->tally;
	Datum		values[10] = {0};
	bool		nulls[10] = {false};

	clip_text(stats->task);
	values[0] = Int32GetDatum(stats->executor_id);
	loky_api_set_text(values, nulls, 1, loky_api_may_read(stats->role) ?
					  stats->task : HIDDEN);
	values[2] = Int64GetDatum((int64) tally->calls);
	values[3] = Int64GetDatum((int64) tally->failures);
	values[4] = us_to_ms((double) tally->total_us);
	nulls[5] = tally->calls == 0;
	if (tally->calls > 0)
		values[5] = us_to_ms((double) tally->total_us / (double) tally->calls);
	values[6] = us_to_ms((double) tally->max_us);
	nulls[7] = tally->waits == 0;
	if (tally->waits > 0)
		values[7] = us_to_ms((double) tally->wait_us / (double) tally->waits);
	values[8] = Int64GetDatum((int64) tally->rows);
	values[9] = TimestampTzGetDatum(stats->since);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* A row for each task that has been run in this database and is remembered. */
Datum
loky_stats_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	loky_attach();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < loky_stats_count(); i++)
	{
		LokySharedStats stats;

		if (loky_stats_copy(i, &stats) && stats.database == MyDatabaseId)
			put_stats(rsinfo, &stats);
	}
	return (Datum) 0;
}

/* Start the counters of the executor anew if it is one that the caller may use. */
static void
reset_counters(LokySharedExecutor *executor)
{
	Oid			role;
	bool		here;

	LWLockAcquire(&executor->lock, LW_SHARED);
	role = executor->role;
	here = executor->id != 0 && executor->database == MyDatabaseId;
	LWLockRelease(&executor->lock);
	if (!here || !loky_client_may_use(role))
		return;
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->role == role && executor->database == MyDatabaseId)
	{
		executor->succeeded = 0;
		executor->failed = 0;
		executor->cancelled = 0;
	}
	LWLockRelease(&executor->lock);
}

/*
 * stats_reset(): forget the statistics of this database, and of its executors, as far
 * as they are of roles whose rights the caller has.
 */
Datum
loky_stats_reset_sql(PG_FUNCTION_ARGS)
{
	loky_attach();
	for (int i = 0; i < loky_stats_count(); i++)
	{
		LokySharedStats stats;

		if (loky_stats_copy(i, &stats) && stats.database == MyDatabaseId &&
			loky_client_may_use(stats.role))
			loky_stats_forget(i, &stats);
	}
	for (int i = 0; i < loky->nexecutors; i++)
		reset_counters(&loky->executors[i]);
	PG_RETURN_VOID();
}

static int
compare_ages(const ListCell *a, const ListCell *b)
{
	const LokyTraceEvent *ea = lfirst(a);
	const LokyTraceEvent *eb = lfirst(b);
	TimestampTz enda = ea->start + ea->us;
	TimestampTz endb = eb->start + eb->us;

	return enda > endb ? -1 : enda < endb;
}

/* Is the event the end of what was found running? */
static bool
has_ended(const LokyTraceEvent *running, const LokyTraceEvent *event)
{
	return event->pid == running->pid &&
		event->executor_id == running->executor_id &&
		event->kind == running->kind &&
		event->first <= running->first && running->first <= event->last &&
		event->start + event->us > running->start;
}

/* What runs, but has not ended while the other events were copied. */
static List *
keep_running(List *running, List *events)
{
	List	   *kept = NIL;
	ListCell   *lc;

	foreach(lc, running)
	{
		ListCell   *other;

		CHECK_FOR_INTERRUPTS();
		foreach(other, events)
		{
			if (has_ended(lfirst(lc), lfirst(other)))
				break;
		}
		if (other == NULL)
			kept = lappend(kept, lfirst(lc));
	}
	return kept;
}

/* The events of this database, without what the reader may not see. */
static List *
get_events(void)
{
	List	   *running;
	List	   *events = NIL;
	ListCell   *lc;

	loky_attach();

	/* in this order, so that nothing is missed */
	running = loky_history_running(NIL, MyDatabaseId);
	foreach(lc, loky_trace_copy(NIL))
	{
		LokyTraceEvent *event = lfirst(lc);

		if (event->database == MyDatabaseId)
			events = lappend(events, event);
	}
	events = list_concat(events, keep_running(running, events));
	if (list_length(events) > MOST_EVENTS)
	{
		list_sort(events, compare_ages);
		events = list_truncate(events, MOST_EVENTS);
	}
	foreach(lc, events)
	{
		LokyTraceEvent *event = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		clip_text(event->name);
		if (!loky_api_may_read(event->role))
		{
			event->labelled = true;
			strlcpy(event->name, HIDDEN, LOKY_TRACE_NAME);
		}
	}
	return events;
}

/* What an event has besides its time. */
static void
append_args(StringInfo json, const LokyTraceEvent *event)
{
	static const char *const ends[] = {"succeeded", "failed", "cancelled", "running"};

	appendStringInfo(json, "{\"state\":\"%s\",\"%s\":", ends[event->end],
					 event->labelled ? "label" : "task");
	escape_json(json, event->name);
	if (event->kind == LOKY_TRACE_TASK)
		appendStringInfo(json, ",\"future\":" UINT64_FORMAT, event->first);
	else
		appendStringInfo(json, ",\"first_item\":" UINT64_FORMAT ",\"last_item\":" UINT64_FORMAT ",\"items\":%u,\"failed\":%u",
						 event->first, event->last, event->nitems, event->nfailed);
	appendStringInfoChar(json, '}');
}

/* One event, as "complete". */
static void
append_event(StringInfo json, const LokyTraceEvent *event)
{
	static const char *const kinds[] = {"task", "items", "map"};

	appendStringInfoString(json, "{\"name\":");
	escape_json(json, loky_timeline_name(event));
	appendStringInfo(json, ",\"cat\":\"%s\",\"ph\":\"X\",\"ts\":" INT64_FORMAT ",\"dur\":" INT64_FORMAT ",\"pid\":%d,\"tid\":%d,",
					 kinds[event->kind],
					 event->start + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY,
					 event->us, event->executor_id, event->pid);
	if (event->end == LOKY_TRACE_FAILED)
		appendStringInfoString(json, "\"cname\":\"terrible\",");
	else if (event->end == LOKY_TRACE_CANCELLED)
		appendStringInfoString(json, "\"cname\":\"grey\",");
	appendStringInfoString(json, "\"args\":");
	append_args(json, event);
	appendStringInfoString(json, "},");
}

/*
 * Names of tracks, one for each process in each executor, and of executors, which
 * have the process 0 in the table of what is named.
 */
static void
append_names(StringInfo json, List *events)
{
	HASHCTL		control = {.keysize = sizeof(LokyTrack),
		.entrysize = sizeof(LokyTrack),
	.hcxt = CurrentMemoryContext};
	HTAB	   *named = hash_create("loky tracks", 64, &control,
									HASH_ELEM | HASH_CONTEXT | HASH_BLOBS);
	ListCell   *lc;

	foreach(lc, events)
	{
		const LokyTraceEvent *event = lfirst(lc);
		LokyTrack	track = {.executor_id = event->executor_id};
		bool		found;

		CHECK_FOR_INTERRUPTS();
		(void) hash_search(named, &track, HASH_ENTER, &found);
		if (!found)
			appendStringInfo(json, "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,\"args\":{\"name\":\"loky executor %d\"}},",
							 event->executor_id, event->executor_id);
		track.pid = event->pid;
		(void) hash_search(named, &track, HASH_ENTER, &found);
		if (!found)
			appendStringInfo(json, "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"%s %d\"}},",
							 event->executor_id, event->pid,
							 event->kind == LOKY_TRACE_MAP ? "caller" : "worker",
							 event->pid);
	}
}

/* trace(): Chrome trace events of what has been run. */
Datum
loky_trace(PG_FUNCTION_ARGS)
{
	List	   *events = get_events();
	StringInfoData json;
	ListCell   *lc;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
	append_names(&json, events);
	foreach(lc, events)
	{
		CHECK_FOR_INTERRUPTS();
		append_event(&json, lfirst(lc));
	}
	if (json.data[json.len - 1] == ',')
		json.data[--json.len] = '\0';
	appendStringInfoString(&json, "]}");
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/* timeline(width): a line for each worker. */
Datum
loky_timeline(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LokyTimeline *timeline;
	int			width;
	ListCell   *lc;

	if (PG_ARGISNULL(0))
		loky_api_refuse_null("width");
	width = PG_GETARG_INT32(0);
	if (width < LEAST_WIDTH || width > MOST_WIDTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"width\" must be from %d to %d", LEAST_WIDTH,
						MOST_WIDTH),
				 errhint("It is the number of characters of a line.")));
	timeline = loky_timeline_create(get_events());
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, timeline->lanes)
	{
		Datum		value =
			CStringGetTextDatum(loky_timeline_line(timeline, lfirst(lc), width));
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
	}
	return (Datum) 0;
}

/* timeline_svg(): the same as a picture. */
Datum
loky_timeline_svg(PG_FUNCTION_ARGS)
{
	return CStringGetTextDatum(loky_timeline_draw(loky_timeline_create(get_events())));
}
