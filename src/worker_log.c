/*-------------------------------------------------------------------------
 *
 * worker_log.c
 *	  What a worker tells the server log of tasks and items that ran long.
 *
 * A background worker is nobody to log_line_prefix, so the lines say whose the task
 * was.  They are for the log alone: a caller who asks for such messages would log
 * them once more.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/worker_log.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "map.h"
#include "request.h"
#include "worker.h"

/* for the life of the process, which ends when the role is renamed */
static char *role_name = NULL;
static char *database_name = NULL;

/* Learn the names of the worker's role and database.  In a transaction. */
void
loky_worker_log_init(void)
{
	role_name = MemoryContextStrdup(TopMemoryContext,
									GetUserNameFromId(GetSessionUserId(), false));
	database_name = MemoryContextStrdup(TopMemoryContext,
										get_database_name(MyDatabaseId));
}

/* Part of ereport: whose it was. */
static int
errdetail_whose(const LokySharedRequest *request)
{
	const char *label = loky_request_text(request, LOKY_TEXT_LABEL);

	if (label == NULL)
		return errdetail_log("Executor %d, role \"%s\", database \"%s\".",
							 LokyMyWorker->executor_id, role_name,
							 database_name);
	return errdetail_log("Executor %d, role \"%s\", database \"%s\", label \"%s\".",
						 LokyMyWorker->executor_id, role_name, database_name,
						 label);
}

/* An attempt at the task has run for so long. */
void
loky_worker_log_task(LokySharedTask *task, int64 us)
{
	ereport(LOG_SERVER_ONLY,
			(errmsg("loky task " UINT64_FORMAT " ran for %.3f ms: %s",
					pg_atomic_read_u64(&task->id), us / 1000.0,
					loky_request_text(&task->request, LOKY_TEXT_TASK)),
			 errdetail_whose(&task->request),
			 errhidestmt(true),
			 errhidecontext(true)));
}

/* Items of the map, n from the first on, counted from 0, have run for so long. */
void
loky_worker_log_items(LokySharedMap *map, uint64 first, uint64 n, uint64 us)
{
	const char *task = loky_request_text(&map->request, LOKY_TEXT_TASK);

	ereport(LOG_SERVER_ONLY,
			(n == 1 ?
			 errmsg("item " UINT64_FORMAT " of a loky map ran for %.3f ms: %s",
					first + 1, us / 1000.0, task) :
			 errmsg("items " UINT64_FORMAT " to " UINT64_FORMAT " of a loky map ran for %.3f ms: %s",
					first + 1, first + n, us / 1000.0, task),
			 errdetail_whose(&map->request),
			 errhidestmt(true),
			 errhidecontext(true)));
}
