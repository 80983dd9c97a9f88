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

#include "api.h"
#include "client.h"
#include "compat.h"
#include "errdata.h"
#include "guc.h"
#include "items.h"
#include "request.h"

LOKY_FUNCTION(loky_submit);
LOKY_FUNCTION(loky_submit_all);

/* submit(task, VARIADIC args): queue a task, return its future. */
Datum
loky_submit(PG_FUNCTION_ARGS)
{
	LokySubmission submission = {0};
	LokySharedTask *task;
	LokyExecutorRef ref;
	LokyReducers *reducers;
	char	   *name;
	Datum	   *values = NULL;
	Oid		   *types = NULL;
	bool	   *nulls = NULL;
	int			nargs = 0;
	int64		id;

	loky_attach();
	loky_client_check_context();
	name = loky_api_text(fcinfo, 0, "task");
	if (PG_NARGS() > 1)
	{
		nargs = extract_variadic_args(fcinfo, 1, false, &values, &types,
									  &nulls);
		if (nargs < 0)
			nargs = 0;			/* a null array of arguments */
	}
	ref = loky_executor_resolve(0);
	reducers = loky_client_take_reducers(ref);
	if (reducers != NULL)
	{
		submission.error = loky_reduce_try(reducers, nargs, types, values,
										   nulls);
		(void) loky_reduce_types(reducers, nargs, types);
		loky_client_keep_reducers(ref, reducers);
	}
	submission.callable = loky_resolve(name, nargs, types);
	submission.task = name;
	submission.nargs = submission.error == NULL ? nargs : 0;
	submission.types = types;
	submission.values = values;
	submission.nulls = nulls;
	task = loky_client_prepare(&submission, ref);
	id = loky_task_reserved_id(task);
	loky_client_queue(&task, 1, ref);
	PG_RETURN_INT64(id);
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
	reducers = loky_client_take_reducers(ref);
	if (reducers != NULL)
	{
		loky_items_reduce(&items, reducers);
		loky_client_keep_reducers(ref, reducers);
	}
	submission.callable = loky_resolve(name, items.nparams, items.types);
	submission.types = items.types;
	submission.values = items.values;
	submission.nulls = items.nulls;

	if (items.n > loky_max_tasks)
		ereport(ERROR,
				(errcode(ERRCODE_LOKY_QUEUE_FULL),
				 errmsg("no room for so many tasks"),
				 errdetail("%d tasks were given, and %d futures can be kept.",
						   items.n, loky_max_tasks),
				 errhint("Use loky.map(), or raise loky.max_tasks.")));
	tasks = palloc(Max(items.n, 1) * sizeof(LokySharedTask *));
	ids = palloc(Max(items.n, 1) * sizeof(Datum));
	for (int i = 0; i < items.n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		loky_items_next(&items);
		submission.error = items.error;
		submission.nargs = items.error == NULL ? items.nparams : 0;
		tasks[i] = loky_client_prepare(&submission, ref);
		ids[i] = Int64GetDatum(loky_task_reserved_id(tasks[i]));
	}
	if (items.n > 0)
		loky_client_queue(tasks, items.n, ref);
	PG_RETURN_ARRAYTYPE_P(construct_array(ids, items.n, INT8OID, 8,
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
