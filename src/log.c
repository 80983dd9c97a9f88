/*-------------------------------------------------------------------------
 *
 * log.c
 *	  What the server's log tells of statements that workers run.
 *
 * log_statement, log_duration, log_min_duration_statement and their like mean for
 * tasks and for the items of maps what they mean for a client's statements, in the
 * same words, so that programs that read logs know them.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/log.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"

#include "log.h"

/* Must each statement be told of at present, or timed? */
bool
loky_log_is_on(void)
{
	return log_statement != LOGSTMT_NONE || log_duration ||
		log_min_duration_statement >= 0 || log_min_duration_sample >= 0 ||
		xact_is_sampled;
}

/* Does log_statement ask for one of these?  NIL: a query without side effects. */
static bool
is_asked_for(List *raws)
{
	ListCell   *lc;

	if (log_statement == LOGSTMT_NONE || log_statement == LOGSTMT_ALL)
		return log_statement == LOGSTMT_ALL;
	foreach(lc, raws)
	{
		if (GetCommandLogLevel(lfirst(lc)) <= (LogStmtLevel) log_statement)
			return true;
	}
	return false;
}

/* Detail with the values of the parameters, where there are any. */
static int
detail_params(ParamListInfo params)
{
	char	   *values = NULL;

	if (params != NULL && params->numParams > 0 && log_parameter_max_length != 0)
		values = BuildParamLogString(params, NULL, log_parameter_max_length);
	if (values != NULL && values[0] != '\0')
		errdetail("parameters: %s", values);
	return 0;
}

static const char *
kind_of(ParamListInfo params)
{
	return params != NULL && params->numParams > 0 ? "execute <unnamed>" : "statement";
}

/*
 * A statement begins, or several in one text: its clock starts.  Call only where
 * logging is on.  Returns whether it was logged.
 */
bool
loky_log_begin(const char *sql, List *raws, ParamListInfo params)
{
	SetCurrentStatementStartTimestamp();
	if (!is_asked_for(raws))
		return false;
	ereport(LOG,
			(errmsg("%s: %s", kind_of(params), sql),
			 errhidestmt(true),
			 detail_params(params)));
	return true;
}

/* ... and has ended. */
void
loky_log_end(const char *sql, ParamListInfo params, bool was_logged)
{
	char		ms[32];

	switch (check_log_duration(ms, was_logged))
	{
		case 1:
			ereport(LOG,
					(errmsg("duration: %s ms", ms),
					 errhidestmt(true)));
			break;
		case 2:
			ereport(LOG,
					(errmsg("duration: %s ms  %s: %s", ms, kind_of(params), sql),
					 errhidestmt(true),
					 detail_params(params)));
			break;
		default:
			break;
	}
}
