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

/* All runs of one name. */
typedef struct LokyRunName
{
	char		name[LOKY_TRACE_NAME];
	uint64		n;				/* items count as such */
	int64		us;
	int			rank;			/* 0: took most time */
} LokyRunName;

typedef struct LokyRun
{
	const LokyTraceEvent *event;
	const LokyRunName *name;
} LokyRun;

/* A process in an executor. */
typedef struct LokyTrack
{
	int			executor_id;
	int			pid;
} LokyTrack;

/* What one worker has done, in the order of time. */
typedef struct LokyLane
{
	LokyTrack	track;
	TimestampTz since;			/* what it did before is not known */
	bool		busy;			/* the last run goes on */
	List	   *runs;			/* of LokyRun */
} LokyLane;

/* The last period in which there was something to do. */
typedef struct LokyTimeline
{
	TimestampTz start;
	TimestampTz end;
	List	   *lanes;			/* by executor and worker */
	List	   *names;			/* of LokyRunName, by rank */
	uint64		ntasks;			/* items count as such */
	uint64		nfailed;
	int			nrunning;
} LokyTimeline;

/* timeline.c */
extern char *loky_timeline_name(const LokyTraceEvent *event);
extern LokyTimeline *loky_timeline_create(List *events);
extern char *loky_timeline_line(const LokyTimeline *timeline,
								const LokyLane *lane, int width);

/* timeline_svg.c */
extern char *loky_timeline_draw(const LokyTimeline *timeline);

#endif							/* LOKY_TIMELINE_H */
