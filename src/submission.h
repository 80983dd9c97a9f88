/*-------------------------------------------------------------------------
 *
 * submission.h
 *	  Submitting tasks.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/submission.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_SUBMISSION_H
#define LOKY_SUBMISSION_H

#include "executor.h"
#include "pool.h"
#include "reduce.h"
#include "resolve.h"

/* What is to be submitted. */
typedef struct LokySubmission
{
	const LokyCallable *callable;
	const char *task;
	const char *label;			/* or NULL */
	int			nargs;
	const Oid  *types;
	const Datum *values;
	const bool *nulls;
	const ErrorData *error;		/* not NULL: it fails before it is queued */

	/* zero where they are not wanted */
	int			priority;
	uint64		timeout;		/* us of each attempt */
	int			retries;
	const char *retry_on;		/* SQLSTATEs and classes, comma-separated; or NULL */
	const char *key;			/* or NULL */
	int			key_limit;
	int64		delay;			/* us */
	bool		on_commit;
	bool		discard;
	const int64 *after;			/* futures that must have succeeded */
	int			nafter;
	int64		callback_of;	/* the future whose end it waits for */
} LokySubmission;

extern int	loky_submission_next_depth(void);
extern LokyReducers *loky_submission_take_reducers(LokyExecutorRef ref);
extern void loky_submission_keep_reducers(LokyExecutorRef ref,
									  LokyReducers *reducers);
extern LokySharedTask *loky_submission_prepare(const LokySubmission *submission,
										   LokyExecutorRef ref);
extern int64 loky_submission_submit(const LokySubmission *submission,
								LokyExecutorRef ref);
extern void loky_submission_queue(LokySharedTask **tasks, int ntasks,
							  LokyExecutorRef ref);

#endif							/* LOKY_SUBMISSION_H */
