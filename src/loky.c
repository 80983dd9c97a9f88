/*-------------------------------------------------------------------------
 *
 * loky.c
 *	  Loading the library.
 *
 * In shared_preload_libraries it asks for shared memory and has the launcher
 * started.  Loaded later, by CREATE EXTENSION or a function call, it only
 * defines its settings; the functions then say what is missing.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/loky.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "ddl.h"
#include "guc.h"
#include "launcher.h"
#include "pool.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static shmem_request_hook_type previous_shmem_request_hook = NULL;
static shmem_startup_hook_type previous_shmem_startup_hook = NULL;

static void
request_shmem(void)
{
	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	loky_shmem_request();
}

static void
start_shmem(void)
{
	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();
	loky_shmem_startup();
}

void
_PG_init(void)
{
	loky_guc_define();
	if (!process_shared_preload_libraries_in_progress)
	{
		if (creating_extension)
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("loky is not loaded at server start"),
					 errdetail("Its functions cannot be used yet."),
					 errhint("Add loky to shared_preload_libraries and restart the server.")));
		return;
	}
	previous_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shmem;
	loky_ddl_install();
	loky_launcher_register();
}
