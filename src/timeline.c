/*-------------------------------------------------------------------------
 *
 * timeline.c
 *	  Pictures of what the workers have done: what they show, and as text.
 *
 * A picture shows the last period in which there was something to do: it goes back
 * from the last event, or from now where something runs, up to a pause that is longer
 * than all that came after it, and than a second.
 *
 * A worker whose events have been written over has a lane that begins with the
 * oldest of those that are left.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/timeline.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "utils/hsearch.h"
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
	const LokyTrack *ta = &((const LokyLane *) lfirst(a))->track;
	const LokyTrack *tb = &((const LokyLane *) lfirst(b))->track;

	if (ta->executor_id != tb->executor_id)
		return ta->executor_id < tb->executor_id ? -1 : 1;
	return ta->pid < tb->pid ? -1 : ta->pid > tb->pid;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	const LokyRunName *na = lfirst(a);
	const LokyRunName *nb = lfirst(b);

	if (na->us != nb->us)
		return na->us < nb->us ? 1 : -1;
	return strcmp(na->name, nb->name);
}

/* Skip the word, which is followed by blanks, if the text begins with it. */
static const char *
skip_word(const char *text, const char *word)
{
	size_t		len = strlen(word);

	if (pg_strncasecmp(text, word, len) != 0 || !scanner_isspace(text[len]))
		return NULL;
	text += len;
	while (scanner_isspace(*text))
		text++;
	return text;
}

/* May the byte be part of a name, qualified or not? */
static bool
is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || c == '_' || c == '.' || c == '$' || c == '"' ||
		IS_HIGHBIT_SET(c);
}

/* The length of the function's name with which the text goes on; 0: there is none. */
static int
function_length(const char *text)
{
	int			n = 0;

	while (is_name_char(text[n]))
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
	const char *call;
	StringInfoData name;

	if (event->labelled)
		return pstrdup(text);
	while (scanner_isspace(*text))
		text++;
	call = skip_word(text, "SELECT");
	if (call == NULL)
		call = skip_word(text, "CALL");
	if (call != NULL && function_length(call) > 0)
		return pnstrdup(call, function_length(call));

	initStringInfo(&name);
	for (; *text != '\0'; text++)
	{
		if (!scanner_isspace(*text))
			appendStringInfoChar(&name, *text);
		else if (!scanner_isspace(text[1]) && text[1] != '\0')
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

/* Tables of what the pictures have one of each, in CurrentMemoryContext. */
static HTAB *
create_table(const char *what, Size key_size, Size entry_size, int kind)
{
	HASHCTL		control = {0};

	control.keysize = key_size;
	control.entrysize = entry_size;
	control.hcxt = CurrentMemoryContext;
	return hash_create(what, 64, &control, HASH_ELEM | HASH_CONTEXT | kind);
}

/* The lane of the event's worker, made if need be. */
static LokyLane *
find_lane(LokyTimeline *timeline, HTAB *lanes, const LokyTraceEvent *event)
{
	LokyTrack	track = {.executor_id = event->executor_id,.pid = event->pid};
	bool		found;
	LokyLane   *lane = hash_search(lanes, &track, HASH_ENTER, &found);

	if (!found)
	{
		lane->since = timeline->start;
		lane->busy = false;
		lane->runs = NIL;
		timeline->lanes = lappend(timeline->lanes, lane);
	}
	return lane;
}

/* What the event is called, made if need be; it counts there from now on. */
static const LokyRunName *
find_name(LokyTimeline *timeline, HTAB *names, const LokyTraceEvent *event)
{
	char	   *text = loky_timeline_name(event);
	bool		found;
	LokyRunName *name = hash_search(names, text, HASH_ENTER, &found);

	if (!found)
	{
		name->n = 0;
		name->us = 0;
		timeline->names = lappend(timeline->names, name);
	}
	name->n += event->kind == LOKY_TRACE_TASK ? 1 : event->nitems;
	name->us += event->us;
	pfree(text);
	return name;
}

/* Have the event in the picture. */
static void
add_run(LokyTimeline *timeline, HTAB *lanes, HTAB *names, const LokyTraceEvent *event)
{
	LokyLane   *lane = find_lane(timeline, lanes, event);
	LokyRun    *run = palloc(sizeof(LokyRun));

	run->event = event;
	run->name = find_name(timeline, names, event);
	lane->runs = lappend(lane->runs, run);
	if (event->oldest)
		lane->since = event->start;
	if (event->end == LOKY_TRACE_RUNNING)
	{
		lane->busy = true;
		timeline->nrunning++;
	}
	timeline->end = Max(timeline->end, event->start + event->us);
	timeline->ntasks += event->kind == LOKY_TRACE_TASK ? 1 : event->nitems;
	timeline->nfailed += event->kind == LOKY_TRACE_ITEMS ? event->nfailed :
		event->end == LOKY_TRACE_FAILED;
}

/* The last period of these events, in CurrentMemoryContext. */
LokyTimeline *
loky_timeline_create(List *events)
{
	LokyTimeline *timeline = palloc0(sizeof(LokyTimeline));
	HTAB	   *lanes = create_table("loky lanes", sizeof(LokyTrack),
									 sizeof(LokyLane), HASH_BLOBS);
	HTAB	   *names = create_table("loky names", LOKY_TRACE_NAME,
									 sizeof(LokyRunName), HASH_STRINGS);
	List	   *runs = NIL;
	int			rank = 0;
	ListCell   *lc;

	foreach(lc, events)
	{
		if (((LokyTraceEvent *) lfirst(lc))->kind != LOKY_TRACE_MAP)
			runs = lappend(runs, lfirst(lc));
	}
	list_sort(runs, compare_ends);
	timeline->start = find_start(runs);
	list_sort(runs, compare_starts);
	foreach(lc, runs)
	{
		const LokyTraceEvent *event = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (event->start >= timeline->start)
			add_run(timeline, lanes, names, event);
	}
	list_sort(timeline->lanes, compare_lanes);
	list_sort(timeline->names, compare_names);
	foreach(lc, timeline->names)
		((LokyRunName *) lfirst(lc))->rank = rank++;
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

/* The cell of the lane at this number, which is busy for so many microseconds. */
static const char *
draw_cell(const LokyTimeline *timeline, const LokyLane *lane, int i, int ncells,
		  double cell_us, double busy, bool failed)
{
	if ((i + 1) * cell_us <= (double) (lane->since - timeline->start))
		return "-";
	if (lane->busy && i == ncells - 1)
		return ">";
	return cell_mark(busy / cell_us, failed);
}

/*
 * The lane as a line of so many characters: dark where the worker was busy, a cross
 * where something failed, an arrow where something goes on, and how much of the time
 * it was busy in all.  Dashes stand for a time of which nothing is kept.
 */
char *
loky_timeline_line(const LokyTimeline *timeline, const LokyLane *lane, int width)
{
	int			ncells = width - LINE_HEAD - LINE_TAIL;
	double		cell_us = (double) Max(timeline->end - timeline->start, 1) / ncells;
	double	   *busy = palloc0(ncells * sizeof(double));
	bool	   *failed = palloc0(ncells * sizeof(bool));
	double		total = 0;
	StringInfoData line;
	ListCell   *lc;

	foreach(lc, lane->runs)
	{
		const LokyRun *run = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		fill_cells(timeline, run->event, cell_us, ncells, busy, failed);
	}
	initStringInfo(&line);
	appendStringInfo(&line, "%7d |", lane->track.pid);
	for (int i = 0; i < ncells; i++)
	{
		appendStringInfoString(&line, draw_cell(timeline, lane, i, ncells, cell_us,
												busy[i], failed[i]));
		total += busy[i];
	}
	appendStringInfo(&line, "|%4d%%",
					 Min((int) (total / Max(timeline->end - lane->since, 1) * 100 + 0.5), 100));
	return line.data;
}
