/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  How far something has come, as users see it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/progress.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_PROGRESS_H
#define LOKY_PROGRESS_H

#include "datatype/timestamp.h"

extern char *loky_progress_bar(int64 done, int64 total);
extern int64 loky_progress_eta(int64 done, int64 total, int64 elapsed);
extern void loky_progress_notice(int64 done, int64 failed, int64 total,
								 TimestampTz started);

#endif							/* LOKY_PROGRESS_H */
