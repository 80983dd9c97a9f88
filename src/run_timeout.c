/*-------------------------------------------------------------------------
 *
 * run_timeout.c
 *	  A limit to the time that a task, or an item of a map, may take.
 *
 * When the time is up, what runs is cancelled as statement_timeout does it.  What
 * traps that, with an exception block that names query_canceled, does not escape:
 * as soon as the block's subtransaction has been undone, it is cancelled once
 * more, outside of the block now, and so on until the task itself has failed.
 * Whatever traps it in another way meets a look at the end.
 *
 * A run goes through
 *	  loky_limit_arm			as it begins
 *	  loky_limit_close			before its commit, after what is deferred to that
 * or, if it fails, through loky_limit_stop and loky_limit_explain.  The transaction
 * of a worker (worker_xact.c) sees to all but the first.  Once the clock has been
 * stopped, a time that was up too late to matter has left no trace behind.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/run_timeout.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "client.h"
#include "run_timeout.h"
#include "sched.h"

/* What is deaf to the first cancel gets another one so often. */
#define REPEAT_MS	1000

static TimeoutId clock_id = MAX_TIMEOUTS;

/* The limit of the run under way, as the SQL interface calls it; NULL: none. */
static const char *limit_name = NULL;

/* The time is up. */
static volatile sig_atomic_t fired = false;

/* The time is up: cancel what runs.  In a signal handler. */
static void
fire(void)
{
	fired = true;
	loky_stop_own_run();
}

/* A block that may have trapped our cancel has been undone: cancel again. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && limit_name != NULL && fired)
	{
		InterruptPending = true;
		QueryCancelPending = true;
	}
}

/*
 * The limit that an argument sets, in microseconds; 0, no limit, where it is NULL.
 * Raises 22023 where it is not positive.
 */
uint64
loky_limit_of_interval(const Interval *interval, const char *name)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end;

	if (interval == NULL)
		return 0;
	end = loky_client_time_after(now, interval);
	if (end <= now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", name),
				 errhint("Leave it out for no limit.")));
	return TIMESTAMP_IS_NOEND(end) ? 0 : (uint64) (end - now);
}

/*
 * A run begins: it may take so many microseconds; 0: as long as it likes.  The
 * name must stay where it is until the clock is stopped.
 */
void
loky_limit_arm(uint64 us, const char *name)
{
	Assert(limit_name == NULL);
	if (us == 0)
		return;
	if (clock_id == MAX_TIMEOUTS)
	{
		clock_id = RegisterTimeout(USER_TIMEOUT, fire);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
	}
	fired = false;
	limit_name = name;
	enable_timeout_every(clock_id, GetCurrentTimestamp() + (TimestampTz) us,
						 REPEAT_MS);
}

/* Raise 57014 if the time is up.  The clock runs on. */
void
loky_limit_check(void)
{
	if (limit_name != NULL && fired)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling task due to %s", limit_name)));
}

/* The run is over.  Raises 57014 if it took too long, else stops the clock. */
void
loky_limit_close(void)
{
	if (limit_name == NULL)
		return;
	disable_timeout(clock_id, true);
	loky_limit_check();
	limit_name = NULL;
}

/*
 * Stop the clock.  True where the time was up; loky_limit_explain is to be called
 * then.  For use after an error.
 */
bool
loky_limit_stop(void)
{
	if (limit_name == NULL)
		return false;
	disable_timeout(clock_id, true);
	if (!fired)
		limit_name = NULL;
	return fired;
}

/* Stop the clock of a run that is over; if the time was up, it was so too late. */
void
loky_limit_disarm(void)
{
	if (limit_name == NULL)
		return;
	disable_timeout(clock_id, true);
	limit_name = NULL;
	if (fired)
		QueryCancelPending = false;
}

/*
 * Have the error of a run whose time was up say so, whatever the task has made of
 * the cancel.  CurrentMemoryContext is that of the error.
 */
void
loky_limit_explain(ErrorData *edata)
{
	Assert(limit_name != NULL && fired);
	if (edata->sqlerrcode != ERRCODE_QUERY_CANCELED)
		edata->detail = psprintf("The task then raised: %s",
								 edata->message != NULL ? edata->message : "");
	edata->sqlerrcode = ERRCODE_QUERY_CANCELED;
	edata->message = psprintf("canceling task due to %s", limit_name);
	edata->hint = psprintf("Raise %s, or have the task do less.", limit_name);
	limit_name = NULL;
}
