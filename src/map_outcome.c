/*-------------------------------------------------------------------------
 *
 * map_outcome.c
 *	  What the outcome of an item that failed tells.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_outcome.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errdata.h"
#include "map_reader.h"

/* An error that was never raised. */
static ErrorData *
make_error(int sqlstate, const char *message, const char *hint)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->sqlerrcode = sqlstate;
	error->message = pstrdup(message);
	error->hint = pstrdup(hint);
	return error;
}

/* The error of an item that has failed or was not run, in CurrentMemoryContext. */
ErrorData *
loky_map_outcome_error(const LokyOutcome *outcome)
{
	Assert(outcome->state == LOKY_ITEM_ERROR);
	if (outcome->not_run == ERRCODE_LOKY_TIMEOUT)
		return make_error(outcome->not_run, "item was not done in time",
						  "Raise the timeout.");
	if (outcome->not_run != 0)
		return make_error(outcome->not_run,
						  "the executor was ended before the item was done",
						  "Run the item again.");
	if (outcome->error == NULL)
		return make_error(ERRCODE_OUT_OF_MEMORY,
						  "there was no memory to keep the error",
						  "Raise loky.shared_memory.");
	return loky_error_decode(outcome->error + sizeof(uint64),
							 outcome->error_len - sizeof(uint64));
}
