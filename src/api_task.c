/*-------------------------------------------------------------------------
 *
 * api_task.c
 *	  The SQL functions that submit tasks.
 *
 * They check their arguments and hand over to client.c and its like.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_task.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api.h"
#include "client.h"
#include "compat.h"
#include "errdata.h"
#include "guc.h"
#include "items.h"
#include "request.h"
#include "run_timeout.h"
#include "submission.h"

LOKY_FUNCTION(loky_submit);
LOKY_FUNCTION(loky_submit_task);
LOKY_FUNCTION(loky_submit_all);
LOKY_FUNCTION(loky_add_done_callback);

/*
 * Write down a task of the executor, with this name and these arguments.  They go
 * through the executor's reducers; where one of them fails, so does the task.
 */
static void
set_task(LokySubmission *submission, const char *name, LokyValues *args,
		 LokyExecutorRef ref)
{
	LokyReducers *reducers = loky_submission_take_reducers(ref);

	if (reducers != NULL)
	{
		submission->error = loky_reduce_args(reducers, args->n, args->types,
											 args->values, args->nulls);
		loky_submission_keep_reducers(ref, reducers);
	}
	submission->callable = loky_resolve(name, args->n, args->types);
	submission->task = name;
	submission->nargs = submission->error == NULL ? args->n : 0;
	submission->types = args->types;
	submission->values = args->values;
	submission->nulls = args->nulls;
}

/* The task, ready to be queued; see set_task. */
LokySharedTask *
loky_api_prepare(const char *name, LokyValues *args, LokyExecutorRef ref)
{
	LokySubmission submission = {0};

	set_task(&submission, name, args, ref);
	return loky_submission_prepare(&submission, ref);
}

/* submit(task, VARIADIC args): queue a task, return its future. */
Datum
loky_submit(PG_FUNCTION_ARGS)
{
	LokySubmission submission = {0};
	LokyExecutorRef ref;
	LokyValues	args = {0};
	char	   *name;

	loky_attach();
	loky_client_check_context();
	name = loky_api_text(fcinfo, 0, "task");
	if (PG_NARGS() > 1)
	{
		args.n = extract_variadic_args(fcinfo, 1, false, &args.values,
									   &args.types, &args.nulls);
		if (args.n < 0)
			args.n = 0;			/* a null array of arguments */
	}
	ref = loky_executor_resolve(0);
	set_task(&submission, name, &args, ref);
	PG_RETURN_INT64(loky_submission_submit(&submission, ref));
}

/* The arguments of submit_task, by their places. */
enum
{
	ARG_TASK,
	ARG_ARGS,
	ARG_LABEL,
	ARG_TIMEOUT,
	ARG_PRIORITY,
	ARG_RETRIES,
	ARG_ON_COMMIT,
	ARG_AFTER,
	ARG_KEY,
	ARG_KEY_LIMIT,
	ARG_DELAY,
	ARG_RETRY_ON,
	ARG_DISCARD,
	ARG_EXECUTOR
};

static char *
get_text(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* An integer that must not be null, nor less than min. */
static int
get_int(FunctionCallInfo fcinfo, int n, const char *name, int min)
{
	int			value;

	if (PG_ARGISNULL(n))
		loky_api_refuse_null(name);
	value = PG_GETARG_INT32(n);
	if (value < min)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be at least %d", name, min),
				 errhint("Leave it out for the default.")));
	return value;
}

static bool
get_bool(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		loky_api_refuse_null(name);
	return PG_GETARG_BOOL(n);
}

/* Is this an SQLSTATE, or a class of them? */
static bool
is_sqlstate(const char *code)
{
	return (strlen(code) == 5 || strlen(code) == 2) &&
		strspn(code, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(code);
}

/* The codes of the array, comma-separated; NULL where it is null. */
static char *
get_retry_on(FunctionCallInfo fcinfo)
{
	StringInfoData list;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	if (PG_ARGISNULL(ARG_RETRY_ON))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(ARG_RETRY_ON), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &n);
	initStringInfo(&list);
	for (int i = 0; i < n; i++)
	{
		char	   *code;

		if (nulls[i])
			loky_api_refuse_null("retry_on");
		code = TextDatumGetCString(elements[i]);
		if (!is_sqlstate(code))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid SQLSTATE in argument \"retry_on\": \"%s\"",
							code),
					 errhint("Give codes of five characters, as 40001, or classes of two, as 40.")));
		appendStringInfo(&list, "%s%s", i > 0 ? "," : "", code);
	}
	return list.data;
}

/* submit_task(...): queue a task, and say more about how it is to be run. */
Datum
loky_submit_task(PG_FUNCTION_ARGS)
{
	LokySubmission submission = {0};
	LokyExecutorRef ref;
	LokyValues	args;
	char	   *name;
	int64	   *after;

	loky_attach();
	loky_client_check_context();
	name = loky_api_text(fcinfo, ARG_TASK, "task");
	loky_api_record(fcinfo, ARG_ARGS, "args", &args);
	submission.label = get_text(fcinfo, ARG_LABEL);
	submission.timeout =
		loky_limit_of_interval(loky_api_interval(fcinfo, ARG_TIMEOUT), "timeout");
	if (PG_ARGISNULL(ARG_PRIORITY))
		loky_api_refuse_null("priority");
	submission.priority = PG_GETARG_INT32(ARG_PRIORITY);
	submission.retries = get_int(fcinfo, ARG_RETRIES, "retries", 0);
	submission.on_commit = get_bool(fcinfo, ARG_ON_COMMIT, "on_commit");
	if (!PG_ARGISNULL(ARG_AFTER))
	{
		submission.nafter = loky_api_ids(PG_GETARG_ARRAYTYPE_P(ARG_AFTER),
										 "after", &after);
		submission.after = after;
	}
	submission.key = get_text(fcinfo, ARG_KEY);
	submission.key_limit = get_int(fcinfo, ARG_KEY_LIMIT, "key_limit", 1);
	submission.delay = loky_api_duration(fcinfo, ARG_DELAY, "delay");
	submission.retry_on = get_retry_on(fcinfo);
	submission.discard = get_bool(fcinfo, ARG_DISCARD, "discard");
	ref = loky_executor_resolve(loky_api_executor(fcinfo, ARG_EXECUTOR));
	set_task(&submission, name, &args, ref);
	PG_RETURN_INT64(loky_submission_submit(&submission, ref));
}

/*
 * add_done_callback(future, task): queue a task that waits for the end of another
 * one, whose id is its argument.  In the future's executor, or, where that is
 * another role's, in the current one.
 */
Datum
loky_add_done_callback(PG_FUNCTION_ARGS)
{
	LokySubmission submission = {0};
	LokyExecutorRef ref;
	LokySharedTask *task;
	LokyValues	args = {0};
	Oid			type = INT8OID;
	Datum		value;
	bool		isnull = false;
	char	   *name;
	int			executor;

	loky_attach();
	loky_client_check_context();
	if (PG_ARGISNULL(0))
		loky_api_refuse_null("future");
	name = loky_api_text(fcinfo, 1, "task");
	submission.callback_of = PG_GETARG_INT64(0);
	task = loky_client_find(submission.callback_of, false);
	executor = task->role == GetUserId() ? task->executor_id : 0;
	LWLockRelease(&loky_task_executor(task)->lock);
	value = Int64GetDatum(submission.callback_of);
	args.n = 1;
	args.types = &type;
	args.values = &value;
	args.nulls = &isnull;
	ref = loky_executor_resolve(executor);
	set_task(&submission, name, &args, ref);
	PG_RETURN_INT64(loky_submission_submit(&submission, ref));
}

/* submit_all(task, items, label, executor): a future for each item. */
Datum
loky_submit_all(PG_FUNCTION_ARGS)
{
	LokySubmission submission = {0};
	LokyItems	items;
	LokyExecutorRef ref;
	LokyReducers *reducers;
	LokySharedTask **tasks;
	Datum	   *ids;
	char	   *name;

	loky_attach();
	loky_client_check_context();
	name = loky_api_text(fcinfo, 0, "task");
	loky_items_open(&items, fcinfo, 1);
	submission.task = name;
	submission.label = PG_ARGISNULL(2) ? NULL :
		text_to_cstring(PG_GETARG_TEXT_PP(2));
	ref = loky_executor_resolve(loky_api_executor(fcinfo, 3));
	reducers = loky_submission_take_reducers(ref);
	if (reducers != NULL)
	{
		loky_items_reduce(&items, reducers);
		loky_submission_keep_reducers(ref, reducers);
	}
	if (items.array != NULL)
		submission.callable = loky_resolve(name, items.nparams, items.types);
	submission.types = items.types;
	submission.values = items.values;
	submission.nulls = items.nulls;

	loky_task_check_room(ref.executor, ref.id, items.n);
	tasks = palloc(Max(items.n, 1) * sizeof(LokySharedTask *));
	ids = palloc(Max(items.n, 1) * sizeof(Datum));
	for (int i = 0; i < items.n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		loky_items_next(&items);
		submission.error = items.error;
		submission.nargs = items.error == NULL ? items.nparams : 0;
		tasks[i] = loky_submission_prepare(&submission, ref);
		ids[i] = Int64GetDatum(loky_task_reserved_id(tasks[i]));
	}
	if (items.n > 0)
		loky_submission_queue(tasks, items.n, ref);
	PG_RETURN_ARRAYTYPE_P(construct_array(ids, items.n, INT8OID, 8,
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
