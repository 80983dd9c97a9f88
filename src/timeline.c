/*-------------------------------------------------------------------------
 *
 * timeline.c
 *	  Pictures of what the workers have done: what they show, and as text.
 *
 * A picture shows the last period in which there was something to do: it goes back
 * from the last event up to a pause that is longer than all that came after it,
 * and than a second.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/timeline.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/timestamp.h"

#include "timeline.h"

/* Bytes of a name that is made of a statement's text. */
#define MAX_NAME	40

/* What a line has besides its cells: the process before, the percentage after. */
#define LINE_HEAD	9
#define LINE_TAIL	6

static int
compare_ends(const ListCell *a, const ListCell *b)
{
	const LokyTraceEvent *ea = lfirst(a);
	const LokyTraceEvent *eb = lfirst(b);
	TimestampTz enda = ea->start + ea->us;
	TimestampTz endb = eb->start + eb->us;

	return enda < endb ? 1 : enda > endb ? -1 : 0;
}

static int
compare_starts(const ListCell *a, const ListCell *b)
{
	const LokyTraceEvent *ea = lfirst(a);
	const LokyTraceEvent *eb = lfirst(b);

	return ea->start < eb->start ? -1 : ea->start > eb->start;
}

static int
compare_lanes(const ListCell *a, const ListCell *b)
{
	const LokyLane *la = lfirst(a);
	const LokyLane *lb = lfirst(b);

	if (la->executor_id != lb->executor_id)
		return la->executor_id < lb->executor_id ? -1 : 1;
	return la->pid < lb->pid ? -1 : la->pid > lb->pid;
}

/* Skip the word, which is followed by blanks, if the text begins with it. */
static const char *
skip_word(const char *text, const char *word)
{
	size_t		len = strlen(word);

	if (pg_strncasecmp(text, word, len) != 0 || !isspace((unsigned char) text[len]))
		return NULL;
	text += len;
	while (isspace((unsigned char) *text))
		text++;
	return text;
}

/* The length of the function's name with which the text goes on; 0: there is none. */
static int
function_length(const char *text)
{
	int			n = 0;

	while (isalnum((unsigned char) text[n]) || IS_HIGHBIT_SET(text[n]) ||
		   strchr("_.$\"", text[n] == '\0' ? ' ' : text[n]) != NULL)
		n++;
	return text[n] == '(' ? n : 0;
}

/*
 * What the event is called: its label, the function that it calls, or the beginning
 * of its text on one line.  In CurrentMemoryContext.
 */
char *
loky_timeline_name(const LokyTraceEvent *event)
{
	const char *text = event->name;
	int			len = pg_mbcliplen(text, (int) strlen(text), LOKY_TRACE_NAME);
	const char *call;
	StringInfoData name;

	if (event->labelled)
		return pnstrdup(text, len);
	while (isspace((unsigned char) *text))
		text++;
	call = skip_word(text, "SELECT");
	if (call == NULL)
		call = skip_word(text, "CALL");
	if (call != NULL && function_length(call) > 0)
		return pnstrdup(call, function_length(call));

	initStringInfo(&name);
	for (; *text != '\0'; text++)
	{
		if (!isspace((unsigned char) *text))
			appendStringInfoChar(&name, *text);
		else if (!isspace((unsigned char) text[1]) && text[1] != '\0')
			appendStringInfoChar(&name, ' ');
	}
	name.data[pg_mbcliplen(name.data, name.len, MAX_NAME)] = '\0';
	return name.data;
}

/* The beginning of the last period among events, the last one to end first. */
static TimestampTz
find_start(List *events)
{
	TimestampTz end = 0;
	TimestampTz start = 0;
	ListCell   *lc;

	foreach(lc, events)
	{
		const LokyTraceEvent *event = lfirst(lc);

		if (start == 0)
		{
			end = event->start + event->us;
			start = event->start;
		}
		if (start - (event->start + event->us) > Max(end - start, USECS_PER_SEC))
			break;
		start = Min(start, event->start);
	}
	return start;
}

/* The lane of the event's worker, made if need be. */
static LokyLane *
find_lane(LokyTimeline *timeline, const LokyTraceEvent *event)
{
	ListCell   *lc;
	LokyLane   *lane;

	foreach(lc, timeline->lanes)
	{
		lane = lfirst(lc);
		if (lane->pid == event->pid && lane->executor_id == event->executor_id)
			return lane;
	}
	lane = palloc0(sizeof(LokyLane));
	lane->pid = event->pid;
	lane->executor_id = event->executor_id;
	timeline->lanes = lappend(timeline->lanes, lane);
	return lane;
}

/*
 * The last period of these events, but nothing from before complete_since, when some
 * may be missing.  In CurrentMemoryContext.
 */
LokyTimeline *
loky_timeline_create(List *events, TimestampTz complete_since)
{
	LokyTimeline *timeline = palloc0(sizeof(LokyTimeline));
	List	   *runs = NIL;
	ListCell   *lc;

	foreach(lc, events)
	{
		if (((LokyTraceEvent *) lfirst(lc))->kind != LOKY_TRACE_MAP)
			runs = lappend(runs, lfirst(lc));
	}
	list_sort(runs, compare_ends);
	timeline->start = Max(find_start(runs), complete_since);
	list_sort(runs, compare_starts);
	foreach(lc, runs)
	{
		LokyTraceEvent *event = lfirst(lc);
		LokyLane   *lane;

		if (event->start < timeline->start)
			continue;
		lane = find_lane(timeline, event);
		lane->events = lappend(lane->events, event);
		timeline->end = Max(timeline->end, event->start + event->us);
		timeline->ntasks += event->kind == LOKY_TRACE_TASK ? 1 : event->nitems;
		timeline->nfailed += event->kind == LOKY_TRACE_ITEMS ? event->nfailed :
			event->end == LOKY_TRACE_FAILED;
	}
	list_sort(timeline->lanes, compare_lanes);
	return timeline;
}

/* Add the event to the cells that it covers: microseconds, and where it failed. */
static void
fill_cells(const LokyTimeline *timeline, const LokyTraceEvent *event,
		   double cell_us, int ncells, double *busy, bool *failed)
{
	double		from = (double) (event->start - timeline->start);
	double		to = from + (double) event->us;
	int			first = Min((int) (from / cell_us), ncells - 1);
	int			last = Min((int) (to / cell_us), ncells - 1);

	for (int i = first; i <= last; i++)
		busy[i] += Max(Min(to, (i + 1) * cell_us) - Max(from, i * cell_us), 0);
	if (event->end == LOKY_TRACE_FAILED)
		failed[last] = true;
}

/* How a cell that is busy for this part of its time looks. */
static const char *
cell_mark(double part, bool failed)
{
	static const char *const fine[] = {" ", "\342\226\221", "\342\226\222",
	"\342\226\223", "\342\226\210"};
	static const char *const plain[] = {" ", ".", ":", "+", "#"};
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8;
	int			level = part <= 0 ? 0 : part >= 0.875 ? 4 :
		Max((int) (part * 4 + 0.5), 1);

	if (failed)
		return utf8 ? "\303\227" : "!";
	return (utf8 ? fine : plain)[level];
}

/*
 * The lane as a line of so many characters: dark where the worker was busy, a cross
 * where something failed, and how much of the time it was busy in all.
 */
char *
loky_timeline_line(const LokyTimeline *timeline, const LokyLane *lane, int width)
{
	int			ncells = width - LINE_HEAD - LINE_TAIL;
	double		us = (double) Max(timeline->end - timeline->start, 1);
	double	   *busy = palloc0(ncells * sizeof(double));
	bool	   *failed = palloc0(ncells * sizeof(bool));
	double		total = 0;
	StringInfoData line;
	ListCell   *lc;

	foreach(lc, lane->events)
		fill_cells(timeline, lfirst(lc), us / ncells, ncells, busy, failed);
	initStringInfo(&line);
	appendStringInfo(&line, "%7d |", lane->pid);
	for (int i = 0; i < ncells; i++)
	{
		appendStringInfoString(&line, cell_mark(busy[i] / (us / ncells), failed[i]));
		total += busy[i];
	}
	appendStringInfo(&line, "|%4d%%", Min((int) (total / us * 100 + 0.5), 100));
	return line.data;
}
