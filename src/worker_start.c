/*-------------------------------------------------------------------------
 *
 * worker_start.c
 *	  The start of a worker: its slot, its role, its configuration.
 *
 * A worker belongs to one executor for its whole life.  Before it connects to the
 * database it becomes the executor's role in all three senses, authenticated,
 * session and current user, as a parallel worker does, so that RESET ROLE and SET
 * SESSION AUTHORIZATION in a task lead nowhere.  A role that may not log in works
 * too: the right to connect was that of the submitter's session.
 *
 * The server remembers whether the authenticated user is a superuser, so a worker
 * whose role is altered must not go on.  If the role has been dropped, the next worker
 * finds out and ends its executor.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/worker_start.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "area.h"
#include "compat.h"
#include "environ.h"
#include "executor.h"
#include "sched.h"
#include "settings.h"
#include "worker.h"

/* this worker's role has changed: it must not go on */
static bool role_changed = false;

/* the role's hash value in the cache of roles */
static uint32 role_hash = 0;

/* Our role has changed; it may have lost rights that were cached. */
static void
note_role_change(Datum arg, int cacheid, uint32 hashvalue)
{
	if (hashvalue == 0 || hashvalue == role_hash)
		role_changed = true;
}

/*
 * Find the slot that the launcher has claimed for this process.  One that came in
 * its stead may have given up on us meanwhile.
 */
void
loky_worker_attach(Datum main_arg)
{
	int			index = DatumGetInt32(main_arg);
	uint32		generation;
	LokySharedWorker *worker;
	LokySharedExecutor *executor;
	bool		ok;

	memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(generation));
	Assert(loky != NULL && index >= 0 && index < loky->nworkers);
	worker = &loky->workers[index];
	executor = &loky->executors[worker->executor];
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	ok = worker->generation == generation &&
		worker->state == LOKY_WORKER_STARTING && !worker->orphan &&
		!worker->exited;
	if (ok)
	{
		worker->pid = MyProcPid;
		worker->procno = LokyMyProcNumber();
		worker->started = GetCurrentTimestamp();
		worker->last_active = worker->started;
		LokyMyWorker = worker;
	}
	LWLockRelease(&executor->lock);
	if (!ok)
		proc_exit(0);
}

/*
 * The executor's role has been dropped, so no worker can ever be started for what
 * is pending: that fails.  Does not return.
 */
static void
give_up_executor(LokySharedExecutor *executor)
{
	LokyAftermath after = LOKY_NO_AFTERMATH;
	StringInfoData error;

	initStringInfo(&error);
	loky_settle_encode_roleless(&error, executor->role);
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	loky_settle_break(executor, error.data, error.len, &after);
	loky_sched_unlock(executor, &after);
	loky_end_conclude(&after);
	loky_stop_self(LokyMyWorker);
	ereport(LOG,
			(errmsg("loky executor %d ends, as the role with OID %u does not exist any more",
					executor->id, executor->role)));
	proc_exit(0);
}

/*
 * Connect as the executor's role; see the head of this file.  Whether it is a
 * superuser must be told before the catalogs can be read: check it afterwards,
 * and if it was wrong, leave and let the launcher start another worker.
 */
static void
connect_as_role(LokySharedExecutor *executor)
{
	bool		is_superuser = executor->role_is_superuser;
	bool		exists;
	bool		actual;

	InitializingParallelWorker = true;
	LokySetAuthenticatedUser(executor->role, is_superuser);
	SetSessionAuthorization(executor->role, is_superuser);
	SetCurrentRoleId(InvalidOid, false);
	BackgroundWorkerInitializeConnectionByOid(executor->database,
											  executor->role,
											  LOKY_WORKER_CONNECT_FLAGS);
	InitializingParallelWorker = false;

	StartTransactionCommand();
	exists = SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(executor->role));
	if (!exists)
		give_up_executor(executor);

	/* from here on no change is missed */
	role_hash = GetSysCacheHashValue1(AUTHOID,
									  ObjectIdGetDatum(executor->role));
	CacheRegisterSyscacheCallback(AUTHOID, note_role_change, (Datum) 0);
	actual = superuser_arg(executor->role);
	if (actual != is_superuser)
	{
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		executor->role_is_superuser = actual;
		LWLockRelease(&executor->lock);
		loky_stop_self(LokyMyWorker);
		proc_exit(0);
	}

	/* also over a role that ALTER ROLE or ALTER DATABASE has set, unchecked here */
	SetConfigOption("session_authorization",
					GetUserNameFromId(executor->role, false),
					PGC_BACKEND, PGC_S_OVERRIDE);
	SetConfigOption("role", "none", PGC_BACKEND, PGC_S_OVERRIDE);
	loky_worker_log_init();
	CommitTransactionCommand();
}

/* The executor's configuration, as a copy of our own for good. */
static LokyConfig *
read_config(LokySharedExecutor *executor)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	LokyConfig *config;

	LWLockAcquire(&executor->lock, LW_SHARED);
	config = loky_config_copy(loky_area_address(executor->config));
	LWLockRelease(&executor->lock);
	MemoryContextSwitchTo(oldcontext);
	return config;
}

/*
 * Connect this process, which has its slot, and put its configuration, which is
 * returned, in force.  The environment comes first, for all that is loaded later.
 * Does not return where that fails.
 */
const LokyConfig *
loky_worker_connect(void)
{
	LokySharedExecutor *executor = &loky->executors[LokyMyWorker->executor];
	LokyConfig *config = read_config(executor);

	loky_environ_apply(config);
	connect_as_role(executor);
	process_session_preload_libraries();
	StartTransactionCommand();
	loky_settings_install(config);
	CommitTransactionCommand();
	return config;
}

/* Has our role changed since the process was connected? */
bool
loky_worker_role_changed(void)
{
	return role_changed;
}
