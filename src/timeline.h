/*-------------------------------------------------------------------------
 *
 * timeline.h
 *	  Pictures of what the workers have done.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/timeline.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_TIMELINE_H
#define LOKY_TIMELINE_H

#include "trace.h"

/* What one worker has done, in the order of time. */
typedef struct LokyLane
{
	int			pid;
	int			executor_id;
	List	   *events;			/* of LokyTraceEvent */
} LokyLane;

/* The last period in which there was something to do. */
typedef struct LokyTimeline
{
	TimestampTz start;
	TimestampTz end;
	List	   *lanes;			/* by executor and worker */
	uint64		ntasks;			/* items count as such */
	uint64		nfailed;
} LokyTimeline;

/* timeline.c */
extern char *loky_timeline_name(const LokyTraceEvent *event);
extern LokyTimeline *loky_timeline_create(List *events,
										  TimestampTz complete_since);
extern char *loky_timeline_line(const LokyTimeline *timeline,
								const LokyLane *lane, int width);

/* timeline_svg.c */
extern char *loky_timeline_draw(const LokyTimeline *timeline);

#endif							/* LOKY_TIMELINE_H */
