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
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api.h"
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

/* Microseconds as milliseconds. */
static Datum
us_to_ms(double us)
{
	return Float8GetDatum(us / 1000);
}

static void
put_stats(ReturnSetInfo *rsinfo, LokySharedStats *stats)
{
	LokyTally  *tally = &stats->tally;
	Datum		values[10] = {0};
	bool		nulls[10] = {false};

	stats->task[pg_mbcliplen(stats->task, (int) strlen(stats->task),
							 LOKY_STATS_TEXT)] = '\0';
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

/* stats_reset(): forget the statistics, and those of the executors. */
Datum
loky_stats_reset_sql(PG_FUNCTION_ARGS)
{
	loky_attach();
	loky_stats_reset();
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		executor->succeeded = 0;
		executor->failed = 0;
		executor->cancelled = 0;
		executor->restarts = 0;
		LWLockRelease(&executor->lock);
	}
	PG_RETURN_VOID();
}

/* The events of this database, without what the reader may not see. */
static List *
get_events(TimestampTz *complete_since)
{
	List	   *events = NIL;
	ListCell   *lc;

	loky_attach();
	foreach(lc, loky_trace_copy(complete_since))
	{
		LokyTraceEvent *event = lfirst(lc);

		if (event->database != MyDatabaseId)
			continue;
		if (!loky_api_may_read(event->role))
		{
			event->labelled = true;
			strlcpy(event->name, HIDDEN, LOKY_TRACE_NAME);
		}
		events = lappend(events, event);
	}
	return events;
}

/* What an event has besides its time. */
static void
append_args(StringInfo json, const LokyTraceEvent *event)
{
	static const char *const ends[] = {"succeeded", "failed", "cancelled"};
	char	   *text = pnstrdup(event->name,
								pg_mbcliplen(event->name, (int) strlen(event->name),
											 LOKY_TRACE_NAME));

	appendStringInfo(json, "{\"state\":\"%s\",\"%s\":", ends[event->end],
					 event->labelled ? "label" : "task");
	escape_json(json, text);
	if (event->kind == LOKY_TRACE_TASK)
		appendStringInfo(json, ",\"future\":" UINT64_FORMAT, event->future);
	else
		appendStringInfo(json, ",\"first_item\":" UINT64_FORMAT ",\"items\":" UINT64_FORMAT ",\"failed\":" UINT64_FORMAT,
						 event->first, event->nitems, event->nfailed);
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
	if (event->end != LOKY_TRACE_SUCCEEDED)
		appendStringInfo(json, "\"cname\":\"%s\",",
						 event->end == LOKY_TRACE_FAILED ? "terrible" : "grey");
	appendStringInfoString(json, "\"args\":");
	append_args(json, event);
	appendStringInfoString(json, "},");
}

/* Has one of these, the first of their tracks, the track of this event? */
static bool
has_track(List *tracks, const LokyTraceEvent *event)
{
	ListCell   *lc;

	foreach(lc, tracks)
	{
		const LokyTraceEvent *track = lfirst(lc);

		if (track->pid == event->pid && track->executor_id == event->executor_id)
			return true;
	}
	return false;
}

/* What the tracks are called: one for each process in each executor. */
static void
append_names(StringInfo json, List *events)
{
	List	   *executors = NIL;
	List	   *tracks = NIL;
	ListCell   *lc;

	foreach(lc, events)
	{
		LokyTraceEvent *event = lfirst(lc);

		if (!list_member_int(executors, event->executor_id))
		{
			executors = lappend_int(executors, event->executor_id);
			appendStringInfo(json, "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,\"args\":{\"name\":\"loky executor %d\"}},",
							 event->executor_id, event->executor_id);
		}
		if (has_track(tracks, event))
			continue;
		tracks = lappend(tracks, event);
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
	TimestampTz complete_since;
	List	   *events = get_events(&complete_since);
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

static LokyTimeline *
get_timeline(void)
{
	TimestampTz complete_since;
	List	   *events = get_events(&complete_since);

	return loky_timeline_create(events, complete_since);
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
	timeline = get_timeline();
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
	return CStringGetTextDatum(loky_timeline_draw(get_timeline()));
}
