/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  How far something has come, as users see it: bars and estimates.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/progress.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/timestamp.h"

#include "progress.h"

/* Characters of a bar. */
#define BAR_WIDTH	20

/* The part that is done, from 0 to 1. */
static double
part_done(int64 done, int64 total)
{
	if (total <= 0 || done >= total)
		return 1;
	return done <= 0 ? 0 : (double) done / (double) total;
}

/*
 * A bar for so many of total, which ends with the percentage, in
 * CurrentMemoryContext.
 */
char *
loky_progress_bar(int64 done, int64 total)
{
	double		part = part_done(done, total);
	int			full = (int) (part * BAR_WIDTH);
	StringInfoData bar;

	initStringInfo(&bar);
	appendStringInfoChar(&bar, '[');
	for (int i = 0; i < BAR_WIDTH; i++)
		appendStringInfoChar(&bar, i < full ? '#' : '.');
	appendStringInfo(&bar, "] %3d%%", (int) (part * 100));
	return bar.data;
}

/*
 * Microseconds that the rest will take if it goes on as it has for so many; -1 where
 * there is nothing to judge by.
 */
int64
loky_progress_eta(int64 done, int64 total, int64 elapsed)
{
	double		rest;

	if (done <= 0 || elapsed < 0)
		return -1;
	if (done >= total)
		return 0;
	rest = (double) elapsed / (double) done * (double) (total - done);
	return rest < (double) PG_INT64_MAX ? (int64) rest : -1;
}

/* Raise a notice that says how far the work has come. */
void
loky_progress_notice(int64 done, int64 failed, int64 total, TimestampTz started)
{
	int64		eta = loky_progress_eta(done, total,
										GetCurrentTimestamp() - started);
	StringInfoData line;

	initStringInfo(&line);
	appendStringInfo(&line, "%s  " INT64_FORMAT "/" INT64_FORMAT,
					 loky_progress_bar(done, total), done, total);
	if (failed > 0)
		appendStringInfo(&line, ", " INT64_FORMAT " failed", failed);
	if (eta > 0)
	{
		int64		seconds = (eta + USECS_PER_SEC - 1) / USECS_PER_SEC;

		appendStringInfo(&line, ", " INT64_FORMAT ":%02d:%02d left",
						 seconds / SECS_PER_HOUR,
						 (int) (seconds % SECS_PER_HOUR / SECS_PER_MINUTE),
						 (int) (seconds % SECS_PER_MINUTE));
	}
	ereport(NOTICE, (errmsg_internal("%s", line.data)));
	pfree(line.data);
}
