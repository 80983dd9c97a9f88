/*-------------------------------------------------------------------------
 *
 * timeline_svg.c
 *	  Pictures of what the workers have done, as SVG.
 *
 * A lane for each worker, with a bar for each run, coloured by its name.  Runs that
 * are narrower than a pixel or so would make a picture of ten thousand bars in
 * which nothing is to be seen: they are counted in columns of pixels, and each
 * column has the colour of what took most of it, the darker the busier it was.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/timeline_svg.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/xml.h"

#include "timeline.h"

/* Pixels. */
#define WIDTH			1000
#define LEFT			130
#define RIGHT			20
#define PLOT			(WIDTH - LEFT - RIGHT)
#define TOP				44
#define LANE_HEIGHT		24
#define LANE_PITCH		30
#define AXIS_HEIGHT		36
#define LEGEND_PITCH	20
#define LEGEND_COLUMNS	3
#define LEAST_BAR		1.5
#define GLYPH_WIDTH		6.6

#define NCOLORS			11
#define LEGEND_CHARS	32
#define FAILED_COLOR	"#d62728"
#define OTHER_COLOR		"#bab0ac"

static const char *const colors[NCOLORS] = {
	"#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#17a2a2", "#c9a227",
	"#e377a2", "#9c755f", "#6b6ecf", "#8cb369", "#5f6b7a"
};

/* All runs of one name. */
typedef struct TaskName
{
	char	   *name;
	uint64		n;
	int64		us;
	int			color;			/* NCOLORS: that of all others */
} TaskName;

/* What lies in one column of pixels of a lane. */
typedef struct Column
{
	double		busy;			/* part of the column */
	double		most;			/* ... that the colour below has */
	int			color;
	uint64		n;
	bool		failed;
} Column;

typedef struct Picture
{
	const LokyTimeline *timeline;
	StringInfoData svg;
	List	   *names;
	double		us_per_pixel;
	Column	   *columns;		/* of the present lane */
} Picture;

/* Append text as XML wants it, without characters that it cannot have. */
static void
append_text(StringInfo svg, const char *text)
{
	char	   *escaped;

	escaped = escape_xml(text);
	for (char *c = escaped; *c != '\0'; c++)
		appendStringInfoChar(svg, (unsigned char) *c < ' ' ? ' ' : *c);
	pfree(escaped);
}

/* Append at most so many characters of the text. */
static void
append_clipped(StringInfo svg, const char *text, int limit)
{
	int			len = (int) strlen(text);

	if (pg_mbstrlen(text) <= limit)
		append_text(svg, text);
	else
	{
		append_text(svg, pnstrdup(text, pg_mbcharcliplen(text, len, limit - 1)));
		appendStringInfoString(svg, "&#8230;");
	}
}

/* A length of time with a unit that suits it. */
static char *
format_us(double us)
{
	if (us < 1000)
		return psprintf("%.4g &#181;s", us);
	if (us < 1000000)
		return psprintf("%.4g ms", us / 1000);
	return psprintf("%.4g s", us / 1000000);
}

static TaskName *
find_name(List *names, const char *text)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		TaskName	   *name = lfirst(lc);

		if (strcmp(name->name, text) == 0)
			return name;
	}
	return NULL;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	const TaskName *na = lfirst(a);
	const TaskName *nb = lfirst(b);

	return na->us < nb->us ? 1 : na->us > nb->us ? -1 : 0;
}

/* Find out which names there are; those that took most time get colours. */
static void
collect_names(Picture *picture)
{
	ListCell   *lane_cell;
	ListCell   *lc;
	int			n = 0;

	foreach(lane_cell, picture->timeline->lanes)
	{
		const LokyLane *lane = lfirst(lane_cell);

		foreach(lc, lane->events)
		{
			const LokyTraceEvent *event = lfirst(lc);
			char	   *text = loky_timeline_name(event);
			TaskName	   *name = find_name(picture->names, text);

			if (name == NULL)
			{
				name = palloc0(sizeof(TaskName));
				name->name = text;
				picture->names = lappend(picture->names, name);
			}
			name->n += event->kind == LOKY_TRACE_TASK ? 1 : event->nitems;
			name->us += event->us;
		}
	}
	list_sort(picture->names, compare_names);
	foreach(lc, picture->names)
	{
		((TaskName *) lfirst(lc))->color = Min(n, NCOLORS);
		n++;
	}
}

static const char *
color_of(int color)
{
	return color < NCOLORS ? colors[color] : OTHER_COLOR;
}

/* The tip that a bar shows when the pointer is over it. */
static void
append_tip(StringInfo svg, const LokyTraceEvent *event, const char *name)
{
	appendStringInfoString(svg, "<title>");
	append_text(svg, name);
	if (event->kind == LOKY_TRACE_TASK)
		appendStringInfo(svg, "\ntask " UINT64_FORMAT, event->future);
	else if (event->nitems == 1)
		appendStringInfo(svg, "\nitem " UINT64_FORMAT, event->first);
	else
		appendStringInfo(svg, "\n" UINT64_FORMAT " items from " UINT64_FORMAT " on",
						 event->nitems, event->first);
	appendStringInfo(svg, "\n%s", format_us((double) event->us));
	if (event->end == LOKY_TRACE_CANCELLED)
		appendStringInfoString(svg, ", cancelled");
	else if (event->end == LOKY_TRACE_FAILED && event->nitems > 1)
		appendStringInfo(svg, ", " UINT64_FORMAT " failed", event->nfailed);
	else if (event->end == LOKY_TRACE_FAILED)
		appendStringInfoString(svg, ", failed");
	appendStringInfoString(svg, "</title>");
}

/* A run that is wide enough to be seen. */
static void
draw_bar(Picture *picture, const LokyTraceEvent *event, double x, double width,
		 int y)
{
	StringInfo	svg = &picture->svg;
	char	   *text = loky_timeline_name(event);
	const TaskName *name = find_name(picture->names, text);
	int			room = (int) ((width - 8) / GLYPH_WIDTH);
	bool		failed = event->end == LOKY_TRACE_FAILED;

	appendStringInfo(svg, "<g><rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" rx=\"%d\" fill=\"%s\"%s/>",
					 x, y, Max(width - 0.5, 1), LANE_HEIGHT, width > 6 ? 2 : 0,
					 color_of(name->color),
					 event->end == LOKY_TRACE_CANCELLED ? " fill-opacity=\"0.4\"" : "");
	if (failed)
		appendStringInfo(svg, "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"5\" fill=\"%s\"/>",
						 x, y, Max(width - 0.5, 1), FAILED_COLOR);
	if (room >= Min(6, pg_mbstrlen(text)))
	{
		appendStringInfo(svg, "<text x=\"%.2f\" y=\"%d\" class=\"in\">", x + 4, y + 17);
		append_clipped(svg, text, room);
		appendStringInfoString(svg, "</text>");
	}
	append_tip(svg, event, text);
	appendStringInfoString(svg, "</g>\n");
}

/* A run that is not: it goes to the columns that it lies in. */
static void
add_to_columns(Picture *picture, const LokyTraceEvent *event, double x, double width)
{
	const TaskName *name = find_name(picture->names, loky_timeline_name(event));
	int			first = Max(Min((int) x, PLOT - 1), 0);
	int			last = Max(Min((int) (x + width), PLOT - 1), 0);

	for (int i = first; i <= last; i++)
	{
		Column	   *column = &picture->columns[i];
		double		part = Max(Min(x + width, i + 1) - Max(x, i), 0.001);

		column->busy += part;
		if (part > column->most)
		{
			column->most = part;
			column->color = name->color;
		}
		column->failed |= event->end == LOKY_TRACE_FAILED;
	}
	picture->columns[first].n += event->kind == LOKY_TRACE_TASK ? 1 : event->nitems;
}

/* How dark a column is, from 1 to 4; 0: it is empty. */
static int
darkness(const Column *column)
{
	return column->busy <= 0 ? 0 : Max(1, (int) (Min(column->busy, 1) * 4 + 0.5));
}

/* Draw the columns of the lane, equal neighbours together. */
static void
draw_columns(Picture *picture, int y)
{
	StringInfo	svg = &picture->svg;
	int			end;

	for (int i = 0; i < PLOT; i = end)
	{
		const Column *column = &picture->columns[i];
		int			level = darkness(column);
		uint64		n = 0;

		for (end = i; end < PLOT && darkness(&picture->columns[end]) == level &&
			 (level == 0 || picture->columns[end].color == column->color); end++)
			n += picture->columns[end].n;
		if (level == 0)
			continue;
		appendStringInfo(svg, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\" fill-opacity=\"%.2f\"><title>",
						 LEFT + i, y, end - i, LANE_HEIGHT,
						 color_of(column->color), 0.25 + 0.1875 * level);
		if (column->color < NCOLORS)
			append_text(svg, ((TaskName *) list_nth(picture->names, column->color))->name);
		else
			appendStringInfoString(svg, "others");
		appendStringInfo(svg, "\n" UINT64_FORMAT " runs in %s</title></rect>\n", n,
						 format_us((end - i) * picture->us_per_pixel));
	}
	for (int i = 0; i < PLOT; i++)
	{
		if (picture->columns[i].failed)
			appendStringInfo(svg, "<rect x=\"%d\" y=\"%d\" width=\"2\" height=\"5\" fill=\"%s\"><title>failed</title></rect>\n",
							 LEFT + i, y, FAILED_COLOR);
	}
}

static void
draw_lane(Picture *picture, const LokyLane *lane, int y)
{
	StringInfo	svg = &picture->svg;
	double		busy = 0;
	ListCell   *lc;
	bool		any = false;

	memset(picture->columns, 0, PLOT * sizeof(Column));
	appendStringInfo(svg, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#f3f4f6\"/>\n",
					 LEFT, y, PLOT, LANE_HEIGHT);
	foreach(lc, lane->events)
	{
		const LokyTraceEvent *event = lfirst(lc);
		double		x = (event->start - picture->timeline->start) / picture->us_per_pixel;
		double		width = event->us / picture->us_per_pixel;

		busy += (double) event->us;
		if (width >= LEAST_BAR)
			draw_bar(picture, event, LEFT + x, width, y);
		else
		{
			add_to_columns(picture, event, x, width);
			any = true;
		}
	}
	if (any)
		draw_columns(picture, y);
	appendStringInfo(svg, "<text x=\"%d\" y=\"%d\" class=\"lane\">worker %d<title>worker %d of executor %d, busy %.0f %% of the time</title></text>\n",
					 LEFT - 8, y + 16, lane->pid, lane->pid, lane->executor_id,
					 Min(busy / picture->us_per_pixel / PLOT * 100, 100));
}

/* The distance of ticks: 1, 2 or 5 times a power of ten, so that about eight fit. */
static double
tick_step(double us)
{
	double		rough = us / 8;
	double		power = pow(10, floor(log10(rough)));

	return rough <= power ? power : rough <= 2 * power ? 2 * power :
		rough <= 5 * power ? 5 * power : 10 * power;
}

/* The axis of time, with lines through all lanes. */
static void
draw_axis(Picture *picture, int bottom)
{
	double		us = picture->us_per_pixel * PLOT;
	double		step = tick_step(us);

	for (int i = 0; i * step <= us * 1.0001; i++)
	{
		double		x = LEFT + i * step / picture->us_per_pixel;

		appendStringInfo(&picture->svg,
						 "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#9ca3af\" stroke-width=\"0.5\"/>"
						 "<text x=\"%.1f\" y=\"%d\" class=\"tick\">%s</text>\n",
						 x, TOP - 4, x, bottom + 4, x, bottom + 18,
						 i == 0 ? "0" : format_us(i * step));
	}
}

/* Which colour is what. */
static void
draw_legend(Picture *picture, int top)
{
	StringInfo	svg = &picture->svg;
	int			n = Min(list_length(picture->names), NCOLORS + 1);

	for (int i = 0; i < n; i++)
	{
		const TaskName *name = list_nth(picture->names, i);
		int			x = LEFT + i % LEGEND_COLUMNS * (PLOT / LEGEND_COLUMNS);
		int			y = top + i / LEGEND_COLUMNS * LEGEND_PITCH;

		appendStringInfo(svg, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" rx=\"2\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">",
						 x, y, color_of(i), x + 18, y + 10);
		if (i < NCOLORS)
		{
			append_clipped(svg, name->name, LEGEND_CHARS);
			appendStringInfo(svg, " (" UINT64_FORMAT ")<title>", name->n);
			append_text(svg, name->name);
			appendStringInfoString(svg, "</title>");
		}
		else
			appendStringInfo(svg, "%d others", list_length(picture->names) - NCOLORS);
		appendStringInfoString(svg, "</text>\n");
	}
	if (picture->timeline->nfailed > 0)
		appendStringInfo(svg, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"5\" fill=\"%s\"/><text x=\"30\" y=\"%d\">failed</text>\n",
						 12, top + 3, FAILED_COLOR, top + 10);
}

static void
draw_head(Picture *picture, int height)
{
	const LokyTimeline *timeline = picture->timeline;

	appendStringInfo(&picture->svg,
					 "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
					 "font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1f2937\">\n"
					 "<style>.in{fill:#fff;font-size:11px;pointer-events:none}.lane{text-anchor:end}"
					 ".tick{text-anchor:middle;font-size:11px;fill:#4b5563}</style>\n"
					 "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n"
					 "<text x=\"%d\" y=\"24\" font-size=\"15\" font-weight=\"600\">",
					 WIDTH, height, WIDTH, height, WIDTH, height, LEFT);
	if (timeline->lanes == NIL)
		appendStringInfoString(&picture->svg, "loky: nothing has been run");
	else
		appendStringInfo(&picture->svg,
						 UINT64_FORMAT " %s by %d %s in %s",
						 timeline->ntasks, timeline->ntasks == 1 ? "task" : "tasks and items",
						 list_length(timeline->lanes),
						 list_length(timeline->lanes) == 1 ? "worker" : "workers",
						 format_us((double) (timeline->end - timeline->start)));
	if (timeline->nfailed > 0)
		appendStringInfo(&picture->svg, ", <tspan fill=\"%s\">" UINT64_FORMAT " failed</tspan>",
						 FAILED_COLOR, timeline->nfailed);
	appendStringInfoString(&picture->svg, "</text>\n");
}

/* The timeline as a picture: an SVG document, in CurrentMemoryContext. */
char *
loky_timeline_draw(const LokyTimeline *timeline)
{
	Picture		picture = {0};
	int			nlanes = list_length(timeline->lanes);
	int			bottom = TOP + nlanes * LANE_PITCH;
	int			nlegend;
	int			y = TOP;
	ListCell   *lc;

	picture.timeline = timeline;
	picture.us_per_pixel = (double) Max(timeline->end - timeline->start, 1) / PLOT;
	picture.columns = palloc(PLOT * sizeof(Column));
	initStringInfo(&picture.svg);
	collect_names(&picture);
	nlegend = Min(list_length(picture.names), NCOLORS + 1);
	draw_head(&picture, nlanes == 0 ? TOP : bottom + AXIS_HEIGHT +
			  (nlegend + LEGEND_COLUMNS - 1) / LEGEND_COLUMNS * LEGEND_PITCH);
	foreach(lc, timeline->lanes)
	{
		draw_lane(&picture, lfirst(lc), y);
		y += LANE_PITCH;
	}
	if (nlanes > 0)
	{
		draw_axis(&picture, bottom - (LANE_PITCH - LANE_HEIGHT));
		draw_legend(&picture, bottom + AXIS_HEIGHT - 8);
	}
	appendStringInfoString(&picture.svg, "</svg>\n");
	return picture.svg.data;
}
