/*-------------------------------------------------------------------------
 *
 * run.h
 *	  Running the text of a task at top level.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/run.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_RUN_H
#define LOKY_RUN_H

#include "codec.h"
#include "dest.h"

typedef struct LokyPlan LokyPlan;

/* How the last statement of a task ended. */
typedef struct LokyCompletion
{
	bool		has_rows;		/* it returns rows, if only none */
	uint64		processed;
	char		tag[64];		/* as a client would be told */
} LokyCompletion;

extern LokyPlan *loky_plan_get(const char *sql, uint64 hash, int nargs,
							   const Oid *types);
extern bool loky_plan_is_repeatable(LokyPlan *plan);
extern void loky_plan_run(LokyPlan *plan, const LokyValues *args,
						  LokyDest *dest, LokyCompletion *completion);
extern void loky_run_put_completion(LokyStoreWriter *writer,
									const LokyCompletion *completion);
extern void loky_run_begin_statement(void);
extern void loky_run_reset_timeout(void);

#endif							/* LOKY_RUN_H */
