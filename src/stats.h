/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  Cumulative statistics of what tasks and items have cost.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/stats.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_STATS_H
#define LOKY_STATS_H

#include "datatype/timestamp.h"

#include "pool.h"

/* Room for a task's text. */
#define LOKY_STATS_TEXT	512

/* What a run, or several of the same task, adds to the statistics. */
typedef struct LokyTally
{
	uint64		calls;
	uint64		failures;
	uint64		rows;
	uint64		total_us;		/* run time of all calls */
	uint64		max_us;			/* ... and of the longest one */
	uint64		waits;			/* calls whose wait is known */
	uint64		wait_us;		/* from submission to start, of these */
} LokyTally;

/* A range of items, as far as its worker has run it. */
typedef struct LokySharedRun
{
	TimestampTz start;			/* 0: none is run */
	uint64		first;			/* its first item, from 0 */
	uint64		ncancelled;		/* of the calls */
	LokyTally	tally;
} LokySharedRun;

/* What a task has cost.  Its text may end in the middle of a character. */
typedef struct LokySharedStats
{
	int			executor_id;	/* 0: unused */
	uint64		hash;			/* of the request */
	Oid			role;
	Oid			database;
	double		usage;			/* additions; older ones count for less */
	TimestampTz since;
	LokyTally	tally;
	char		task[LOKY_STATS_TEXT];
} LokySharedStats;

/* Whose run it was. */
typedef struct LokyStatsKey
{
	int			executor_id;
	uint64		hash;
	Oid			role;
	Oid			database;
	const char *task;
} LokyStatsKey;

extern Size loky_stats_size(void);
extern void loky_stats_init(LokySharedStatsTable *table);
extern void loky_stats_add(const LokyStatsKey *key, const LokyTally *tally,
						   TimestampTz now);
extern int	loky_stats_count(void);
extern bool loky_stats_copy(int n, LokySharedStats *copy);
extern void loky_stats_forget(int n, const LokySharedStats *copy);
extern void loky_stats_forget_database(Oid database);

#endif							/* LOKY_STATS_H */
