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

#include <limits.h>
#include <math.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "timeline.h"
#include "xml_text.h"

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
#define GLYPH_WIDTH		7.0

#define NCOLORS			11
#define LEGEND_CHARS	29
#define FAILED_COLOR	"#d62728"
#define OTHER_COLOR		"#bab0ac"

static const char *const colors[NCOLORS] = {
	"#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#17a2a2", "#c9a227",
	"#e377a2", "#9c755f", "#6b6ecf", "#8cb369", "#5f6b7a"
};

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
	double		us_per_pixel;
	Column	   *columns;		/* of the present lane */
} Picture;

/* A length of time in two units, the smaller one only if there is any of it. */
static char *
format_units(int64 n, const char *unit, int64 rest, const char *rest_unit)
{
	if (rest == 0)
		return psprintf(INT64_FORMAT " %s", n, unit);
	return psprintf(INT64_FORMAT " %s " INT64_FORMAT " %s", n, unit, rest, rest_unit);
}

/* A length of time with units that suit it. */
static char *
format_us(double us)
{
	int64		s = (int64) (us / USECS_PER_SEC + 0.5);
	int64		min = (s + 30) / SECS_PER_MINUTE;
	int64		h = (s + 1800) / SECS_PER_HOUR;

	if (us < 1000)
		return psprintf("%.4g &#181;s", us);
	if (us < 1000000)
		return psprintf("%.4g ms", us / 1000);
	if (s < SECS_PER_MINUTE)
		return psprintf("%.4g s", us / 1000000);
	if (s < SECS_PER_HOUR)
		return format_units(s / 60, "min", s % 60, "s");
	if (s < SECS_PER_DAY)
		return format_units(min / 60, "h", min % 60, "min");
	return format_units(h / 24, "d", h % 24, "h");
}

static const char *
color_of(int color)
{
	return color < NCOLORS ? colors[color] : OTHER_COLOR;
}

/* The tip that a bar shows when the pointer is over it. */
static void
append_tip(StringInfo svg, const LokyTraceEvent *event, const LokyRunName *name)
{
	appendStringInfoString(svg, "<title>");
	loky_xml_append(svg, name->name, INT_MAX);
	if (event->kind == LOKY_TRACE_TASK)
		appendStringInfo(svg, "\ntask " UINT64_FORMAT, event->first);
	else if (event->nitems == 1)
		appendStringInfo(svg, "\nitem " UINT64_FORMAT, event->first);
	else
		appendStringInfo(svg, "\n%u of the items " UINT64_FORMAT " to " UINT64_FORMAT,
						 event->nitems, event->first, event->last);
	appendStringInfo(svg, "\n%s", format_us((double) event->us));
	if (event->end == LOKY_TRACE_CANCELLED)
		appendStringInfoString(svg, ", cancelled");
	else if (event->end == LOKY_TRACE_RUNNING)
		appendStringInfoString(svg, " so far, running");
	else if (event->end == LOKY_TRACE_FAILED && event->nitems > 1)
		appendStringInfo(svg, ", %u failed", event->nfailed);
	else if (event->end == LOKY_TRACE_FAILED)
		appendStringInfoString(svg, ", failed");
	appendStringInfoString(svg, "</title>");
}

/* A run that is wide enough to be seen. */
static void
draw_bar(Picture *picture, const LokyRun *run, double x, double width, int y)
{
	StringInfo	svg = &picture->svg;
	const LokyTraceEvent *event = run->event;
	const char *color = color_of(run->name->rank);
	int			room = (int) ((width - 8) / GLYPH_WIDTH);
	bool		pale = event->end == LOKY_TRACE_CANCELLED ||
		event->end == LOKY_TRACE_RUNNING;

	appendStringInfo(svg, "<g><rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" rx=\"%d\" fill=\"%s\"",
					 x, y, Max(width - 0.5, 1), LANE_HEIGHT, width > 6 ? 2 : 0, color);
	if (pale)
		appendStringInfoString(svg, " fill-opacity=\"0.3\"");
	if (event->end == LOKY_TRACE_RUNNING)
		appendStringInfo(svg, " stroke=\"%s\"", color);
	appendStringInfoString(svg, "/>");
	if (event->end == LOKY_TRACE_FAILED)
		appendStringInfo(svg, "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"5\" fill=\"%s\"/>",
						 x, y, Max(width - 0.5, 1), FAILED_COLOR);
	if (room >= Min(6, pg_mbstrlen(run->name->name)))
	{
		appendStringInfo(svg, "<text x=\"%.2f\" y=\"%d\" class=\"%s\">", x + 4, y + 17,
						 pale ? "on" : "in");
		loky_xml_append(svg, run->name->name, room);
		appendStringInfoString(svg, "</text>");
	}
	append_tip(svg, event, run->name);
	appendStringInfoString(svg, "</g>\n");
}

/* A run that is not: it goes to the columns that it lies in. */
static void
add_to_columns(Picture *picture, const LokyRun *run, double x, double width)
{
	const LokyTraceEvent *event = run->event;
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
			column->color = run->name->rank;
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
	const List *names = picture->timeline->names;
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
			loky_xml_append(svg, ((LokyRunName *) list_nth(names, column->color))->name,
							INT_MAX);
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
	TimestampTz start = picture->timeline->start;
	double		since = (lane->since - start) / picture->us_per_pixel;
	double		busy = 0;
	ListCell   *lc;
	bool		any = false;

	memset(picture->columns, 0, PLOT * sizeof(Column));
	appendStringInfo(svg, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"#f3f4f6\"/>\n",
					 LEFT + since, y, PLOT - since, LANE_HEIGHT);
	foreach(lc, lane->runs)
	{
		const LokyRun *run = lfirst(lc);
		double		x = (run->event->start - start) / picture->us_per_pixel;
		double		width = run->event->us / picture->us_per_pixel;

		CHECK_FOR_INTERRUPTS();
		busy += width;
		if (width >= LEAST_BAR || run->event->end == LOKY_TRACE_RUNNING)
			draw_bar(picture, run, LEFT + x, width, y);
		else
		{
			add_to_columns(picture, run, x, width);
			any = true;
		}
	}
	if (any)
		draw_columns(picture, y);
	appendStringInfo(svg, "<text x=\"%d\" y=\"%d\" class=\"lane\">worker %d<title>worker %d of executor %d, busy %.0f %% of the time</title></text>\n",
					 LEFT - 8, y + 16, lane->track.pid, lane->track.pid,
					 lane->track.executor_id, Min(busy / Max(PLOT - since, 1) * 100, 100));
}

/*
 * The distance of ticks, so that about eight fit: 1, 2 or 5 times a power of ten, or
 * what suits minutes, hours and days.
 */
static double
tick_step(double us)
{
	static const int seconds[] = {
		20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400
	};
	double		unit = us > 8 * (double) USECS_PER_DAY ? USECS_PER_DAY : 1;
	double		rough = us / 8 / unit;
	double		power = pow(10, floor(log10(rough)));

	for (int i = 0; rough > 10 * USECS_PER_SEC && i < lengthof(seconds); i++)
	{
		if (rough <= seconds[i] * (double) USECS_PER_SEC)
			return seconds[i] * (double) USECS_PER_SEC;
	}
	return unit * (rough <= power ? power : rough <= 2 * power ? 2 * power :
				   rough <= 5 * power ? 5 * power : 10 * power);
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
	const List *names = picture->timeline->names;
	int			n = Min(list_length(names), NCOLORS + 1);

	for (int i = 0; i < n; i++)
	{
		const LokyRunName *name = list_nth(names, i);
		int			x = LEFT + i % LEGEND_COLUMNS * (PLOT / LEGEND_COLUMNS);
		int			y = top + i / LEGEND_COLUMNS * LEGEND_PITCH;

		appendStringInfo(svg, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" rx=\"2\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">",
						 x, y, color_of(i), x + 18, y + 10);
		if (i < NCOLORS)
		{
			loky_xml_append(svg, name->name, LEGEND_CHARS);
			appendStringInfo(svg, " (" UINT64_FORMAT ")<title>", name->n);
			loky_xml_append(svg, name->name, INT_MAX);
			appendStringInfoString(svg, "</title>");
		}
		else
			appendStringInfo(svg, "%d others", list_length(names) - NCOLORS);
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
					 "<style>.in{fill:#fff}.on{fill:#1f2937}.in,.on{font-size:11px;pointer-events:none}.lane{text-anchor:end}"
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
	if (timeline->nrunning > 0)
		appendStringInfo(&picture->svg, ", %d running", timeline->nrunning);
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
	nlegend = Min(list_length(timeline->names), NCOLORS + 1);
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
