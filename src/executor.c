/*-------------------------------------------------------------------------
 *
 * executor.c
 *	  The reusable executor: configurations, and who has which.
 *
 * An executor is found by database, role and configuration.  A session refers to one
 * by its id, which it checks under the executor's lock with each submit.
 *
 * States
 * ------
 *	  FREE -> OPEN				created
 *	  OPEN -> CLOSING			shut down, or replaced
 *	  OPEN, CLOSING -> BROKEN	loky_settle_break: the initializer failed
 *	  CLOSING, BROKEN -> CLOSED	loky_executor_collect: no task, no worker left
 *	  CLOSED, OPEN -> FREE		the slot is wanted, the longest unused first
 * A BROKEN or CLOSED executor remembers its configuration: a session whose
 * current executor it is gets an equal one at its next submit.
 *
 * Locking
 * -------
 * Identity and state change under the directory's lock, then the executor's.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/executor.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "area.h"
#include "compat.h"
#include "cpu_count.h"
#include "environ.h"
#include "executor.h"
#include "guc.h"
#include "remembered.h"
#include "sched.h"
#include "worker.h"

/* the default executor that this session used last */
static LokyExecutorRef default_ref = {NULL, 0};
static Oid	default_role = InvalidOid;
static int	default_timeout = 0;
static uint64 default_env_changes = 0;

/* The size of an executor that names none. */
int
loky_executor_default_size(void)
{
	int			max_workers = loky_guc_max_workers();

	return max_workers > 0 ? max_workers : loky_cpu_count(false);
}

/* Has the executor this identity and configuration?  Directory lock held. */
static bool
matches(LokySharedExecutor *executor, Oid role, uint64 fingerprint,
		const LokyConfig *config)
{
	return executor->state != LOKY_EXECUTOR_FREE &&
		executor->database == MyDatabaseId &&
		executor->role == role &&
		executor->fingerprint == fingerprint &&
		loky_config_equal(loky_area_address(executor->config), config);
}

/* The newest one of these that is open, or NULL.  Directory lock held. */
static LokySharedExecutor *
find_open(Oid role, uint64 fingerprint, const LokyConfig *config)
{
	LokySharedExecutor *newest = NULL;

	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		/* where another session has made a new one, that is the newest */
		if (executor->state == LOKY_EXECUTOR_OPEN &&
			matches(executor, role, fingerprint, config) &&
			(newest == NULL || newest->id < executor->id))
			newest = executor;
	}
	return newest;
}

/* The slot of the role in the table of roles.  Directory lock held. */
static int
find_role_slot(Oid role)
{
	int			unused = -1;

	for (int i = 0; i < LOKY_MAX_ROLES; i++)
	{
		LokySharedRole *entry = &loky->roles[i];

		if (entry->role == role)
			return i;
		if (unused < 0 && entry->executors == 0 &&
			pg_atomic_read_u32(&entry->held) == 0)
			unused = i;
	}
	if (unused < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many roles use loky at the same time"),
				 errhint("Forget finished futures with loky.forget(), or try again later.")));
	loky->roles[unused].role = role;
	if (pg_atomic_read_u32(&loky->nroles) <= (uint32) unused)
		pg_atomic_write_u32(&loky->nroles, unused + 1);
	return unused;
}

/*
 * Has the executor neither tasks nor workers?  Tasks whose submitters have yet to
 * commit do not count.  Its lock is held.
 */
bool
loky_executor_is_unused(LokySharedExecutor *executor)
{
	return executor->npending + executor->ngated == 0 &&
		executor->nrunning == 0 && executor->nmaps == 0 && executor->nworkers == 0;
}

/* ... and may its slot be another's? */
bool
loky_executor_is_free(LokySharedExecutor *executor)
{
	return loky_executor_is_unused(executor) && executor->npledged == 0;
}

/*
 * Empty the slot of an executor that nothing uses.  Directory's and executor's
 * lock held.
 */
void
loky_executor_empty_slot(LokySharedExecutor *executor)
{
	Assert(loky_executor_is_free(executor));
	loky->roles[executor->role_slot].executors--;
	loky_area_free(executor->config);
	executor->config = InvalidDsaPointer;
	if (DsaPointerIsValid(executor->error))
		loky_area_free(executor->error);
	executor->error = InvalidDsaPointer;
	executor->state = LOKY_EXECUTOR_FREE;
	executor->id = 0;
}

/*
 * A free slot, or else that of the executor which nothing uses: closed ones
 * before open ones, the longest unused first.  NULL where all are in use.
 */
static LokySharedExecutor *
pick_slot(void)
{
	LokySharedExecutor *best = NULL;
	bool		best_closed = false;

	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];
		bool		closed = executor->state == LOKY_EXECUTOR_CLOSED;

		if (executor->state == LOKY_EXECUTOR_FREE)
			return executor;
		if (!loky_executor_is_free(executor))
			continue;
		if (best == NULL || (closed && !best_closed) ||
			(closed == best_closed && executor->last_used < best->last_used))
		{
			best = executor;
			best_closed = closed;
		}
	}
	return best;
}

/*
 * Raise an error where the role, which is no superuser, has so many executors in
 * use that others might find none left.  Directory lock held.
 */
static void
check_share(int role_slot)
{
	int			limit = loky->nexecutors / 2;
	int			n = 0;

	if (loky->roles[role_slot].executors < limit)
		return;
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		n += executor->state != LOKY_EXECUTOR_FREE &&
			executor->role_slot == role_slot && !loky_executor_is_free(executor);
	}
	if (n >= limit)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many executors of this role are in use"),
				 errdetail("At most %d of its configurations can have tasks or workers at the same time.",
						   limit),
				 errhint("Use fewer configurations, or shut some down with loky.shutdown().")));
}

/* An empty slot for a new executor.  Directory lock held. */
static LokySharedExecutor *
find_slot(void)
{
	LokySharedExecutor *executor;

	while ((executor = pick_slot()) != NULL)
	{
		LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
		if (executor->state != LOKY_EXECUTOR_FREE && loky_executor_is_free(executor))
			loky_executor_empty_slot(executor);
		LWLockRelease(&executor->lock);
		if (executor->state == LOKY_EXECUTOR_FREE)
			return executor;
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many executors are in use"),
			 errdetail("At most %d configurations can have tasks or workers at the same time.",
					   loky->nexecutors),
			 errhint("Use fewer configurations, or shut some down with loky.shutdown().")));
}

/* Make a new executor.  Directory lock held. */
static LokySharedExecutor *
create_executor(Oid role, uint64 fingerprint, const LokyConfig *config,
				int max_workers, bool is_superuser)
{
	Size		reducers_len;
	int			role_slot = find_role_slot(role);
	LokySharedExecutor *executor;
	dsa_pointer copy;

	if (!is_superuser)
		check_share(role_slot);
	executor = find_slot();
	copy = loky_area_alloc(loky_config_size(config));
	if (!DsaPointerIsValid(copy))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of shared memory for an executor"),
				 errhint("Raise loky.shared_memory, or forget finished futures with loky.forget().")));
	memcpy(loky_area_address(copy), config, loky_config_size(config));
	(void) loky_config_part(config, LOKY_CONFIG_JOB_REDUCERS, &reducers_len);

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	executor->id = loky->next_executor_id++;
	executor->state = LOKY_EXECUTOR_OPEN;
	executor->database = MyDatabaseId;
	executor->role = role;
	executor->role_is_superuser = is_superuser;
	executor->role_slot = role_slot;
	executor->fingerprint = fingerprint;
	executor->config = copy;
	executor->has_job_reducers = reducers_len > 0;
	executor->max_workers = max_workers;
	executor->excess = 0;
	executor->timeout = config->timeout;
	executor->created = GetCurrentTimestamp();
	executor->last_used = executor->created;
	executor->failed_starts = 0;
	executor->next_start = 0;
	executor->yields = 0;
	executor->starved = LOKY_SHORTAGE_NONE;
	executor->succeeded = 0;
	executor->failed = 0;
	executor->cancelled = 0;
	executor->restarts = 0;
	LWLockRelease(&executor->lock);
	loky->roles[role_slot].executors++;
	return executor;
}

/* The same as loky_executor_get, for any role. */
static LokyExecutorRef
get_for_role(Oid role, const LokyConfig *config, int max_workers,
			 LokyReuse reuse)
{
	uint64		fingerprint = loky_config_hash(config);
	LokyExecutorRef ref = {NULL, 0};
	bool		is_superuser = superuser_arg(role);

	LWLockAcquire(&loky->directory, LW_EXCLUSIVE);
	if (reuse != LOKY_REUSE_FALSE)
		ref.executor = find_open(role, fingerprint, config);
	if (ref.executor == NULL && max_workers >= 0)
		ref.executor = create_executor(role, fingerprint, config,
									   max_workers > 0 ? max_workers :
									   loky_executor_default_size(),
									   is_superuser);
	if (ref.executor != NULL)
		ref.id = ref.executor->id;
	LWLockRelease(&loky->directory);
	return ref;
}

/*
 * The open executor with this configuration for the present database and role;
 * made where there is none, or where reuse is FALSE.  max_workers is the size
 * of a new one (0: the default; negative: none is to be made).
 */
LokyExecutorRef
loky_executor_get(const LokyConfig *config, int max_workers, LokyReuse reuse)
{
	return get_for_role(GetUserId(), config, max_workers, reuse);
}

/*
 * An open executor equal to the one with this id, of its role, whatever the present one
 * is.  Its id is 0 where the source's slot has become another's.
 */
LokyExecutorRef
loky_executor_renew(LokySharedExecutor *source, int id)
{
	LokyConfig *config = NULL;
	Oid			role;
	int			max_workers;

	LWLockAcquire(&loky->directory, LW_SHARED);
	if (source->id == id)
		config = loky_config_copy(loky_area_address(source->config));
	role = source->role;
	max_workers = source->max_workers;
	LWLockRelease(&loky->directory);
	return config == NULL ? (LokyExecutorRef) {NULL, 0} :
		get_for_role(role, config, max_workers, LOKY_REUSE_AUTO);
}

/* Find the slot with this id, of any state.  Directory lock held. */
static LokySharedExecutor *
find_by_id(int id)
{
	for (int i = 0; i < loky->nexecutors; i++)
	{
		if (loky->executors[i].id == id)
			return &loky->executors[i];
	}
	return NULL;
}

/*
 * The configuration of the executor with this id, in CurrentMemoryContext; NULL
 * where it is not known any more, or belongs to another database or role.
 */
LokyConfig *
loky_executor_copy_config(int id, int *max_workers)
{
	LokySharedExecutor *executor;
	LokyConfig *config = NULL;

	LWLockAcquire(&loky->directory, LW_SHARED);
	executor = find_by_id(id);
	if (executor != NULL && executor->database == MyDatabaseId &&
		executor->role == GetUserId())
	{
		config = loky_config_copy(loky_area_address(executor->config));
		*max_workers = executor->max_workers;
	}
	LWLockRelease(&loky->directory);
	return config != NULL ? config : loky_remembered_copy(id, max_workers);
}

/* The configuration of the default executor, in CurrentMemoryContext. */
static LokyConfig *
default_config(void)
{
	LokyConfigDraft draft;

	loky_config_draft_init(&draft, loky_guc_timeout());
	loky_environ_read_default(&draft.parts[LOKY_CONFIG_ENV]);
	return loky_config_create(&draft);
}

/* The default executor of the present database and role. */
static LokyExecutorRef
resolve_default(void)
{
	if (default_ref.executor != NULL && default_role == GetUserId() &&
		default_timeout == loky_guc_timeout() &&
		default_env_changes == loky_env_changes &&
		default_ref.executor->id == default_ref.id &&
		default_ref.executor->state == LOKY_EXECUTOR_OPEN)
		return default_ref;
	default_ref = loky_executor_get(default_config(), 0, LOKY_REUSE_AUTO);
	default_role = GetUserId();
	default_timeout = loky_guc_timeout();
	default_env_changes = loky_env_changes;
	return default_ref;
}

static int
compare_newest_first(const void *a, const void *b)
{
	int			ida = ((const LokyExecutorRef *) a)->id;
	int			idb = ((const LokyExecutorRef *) b)->id;

	return (ida < idb) - (ida > idb);
}

/* The configuration of the session's current executor, in CurrentMemoryContext. */
static LokyConfig *
present_config(int id)
{
	int			max_workers;
	LokyConfig *config = id == 0 ? NULL :
		loky_executor_copy_config(id, &max_workers);

	return config != NULL ? config : default_config();
}

/*
 * The executor that a submit would use now, if it is there, and those of its
 * configuration that were shut down or broke and have yet to come to rest: *n of them,
 * in CurrentMemoryContext, first the open ones, of which there are *nopen, 0 or 1, then
 * the newest.
 */
LokyExecutorRef *
loky_executor_present(int *n, int *nopen)
{
	LokyExecutorRef *refs = palloc(loky->nexecutors * sizeof(LokyExecutorRef));
	int			id = loky_executor_own() != 0 ? loky_executor_own() :
		loky_executor_id;
	LokyConfig *config = present_config(id);
	uint64		fingerprint = loky_config_hash(config);
	LokySharedExecutor *open;

	LWLockAcquire(&loky->directory, LW_SHARED);
	open = id == 0 ? NULL : find_by_id(id);
	if (open == NULL || open->state != LOKY_EXECUTOR_OPEN ||
		!matches(open, GetUserId(), fingerprint, config))
		open = find_open(GetUserId(), fingerprint, config);
	*nopen = open != NULL ? 1 : 0;
	*n = *nopen;
	if (open != NULL)
		refs[0] = (LokyExecutorRef) {open, open->id};
	for (int i = 0; i < loky->nexecutors; i++)
	{
		LokySharedExecutor *executor = &loky->executors[i];

		/* the open one may have broken since it was looked for */
		if (executor != open &&
			(executor->state == LOKY_EXECUTOR_CLOSING ||
			 executor->state == LOKY_EXECUTOR_BROKEN) &&
			matches(executor, GetUserId(), fingerprint, config))
			refs[(*n)++] = (LokyExecutorRef) {executor, executor->id};
	}
	LWLockRelease(&loky->directory);
	qsort(refs + *nopen, *n - *nopen, sizeof(LokyExecutorRef), compare_newest_first);
	return refs;
}

/* Raise 42704 for an id that no executor of the present database and role has had. */
void
loky_executor_raise_unknown(int id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("executor %d does not exist", id),
			 errdetail("There is none with this id for the present database and role."),
			 errhint("The view loky.executors lists the executors.")));
}

/* The executor with this id, or an equal one where it is not open any more. */
static LokyExecutorRef
resolve_id(int id, bool named)
{
	static LokyExecutorRef last = {NULL, 0};
	LokySharedExecutor *executor;
	LokyConfig *config;
	int			max_workers = 0;
	bool		usable;
	bool		known;

	if (last.executor != NULL && last.id == id && last.executor->id == id &&
		last.executor->state == LOKY_EXECUTOR_OPEN &&
		last.executor->role == GetUserId())
		return last;

	LWLockAcquire(&loky->directory, LW_SHARED);
	known = id > 0 && id < loky->next_executor_id;
	executor = find_by_id(id);
	usable = executor != NULL && executor->database == MyDatabaseId &&
		executor->role == GetUserId();
	if (usable && executor->state == LOKY_EXECUTOR_OPEN)
	{
		last.executor = executor;
		last.id = id;
		LWLockRelease(&loky->directory);
		if (!loky_remembered_has(id) &&
			(config = loky_executor_copy_config(id, &max_workers)) != NULL)
			loky_remembered_add(id, config, max_workers);
		return last;
	}
	LWLockRelease(&loky->directory);

	if (named && (!known || (executor != NULL && !usable)))
		loky_executor_raise_unknown(id);
	config = loky_executor_copy_config(id, &max_workers);
	if (config == NULL)
		return resolve_default();
	return loky_executor_get(config, max_workers, LOKY_REUSE_AUTO);
}

/* The executor with this id, or the current one where id is 0. */
static LokyExecutorRef
resolve(int id)
{
	LokyExecutorRef ref;

	if (id != 0)
		return resolve_id(id, true);
	if (loky_executor_own() != 0)
		return resolve_id(loky_executor_own(), false);
	if (loky_executor_id != 0)
		return resolve_id(loky_executor_id, false);
	ref = resolve_default();
	if (loky_guc_max_workers_is_set() &&
		ref.executor->max_workers != loky_executor_default_size())
		loky_executor_resize(ref, loky_executor_default_size());
	return ref;
}

/*
 * The executor that the caller is to submit to: the one with this id, or, where
 * id is 0, the current one of the session or of the task that runs here.  Raises
 * 42704 for an id that was never given out, and 55000 where an initializer asks
 * for its own executor, each worker of which would wait for the next one.
 */
LokyExecutorRef
loky_executor_resolve(int id)
{
	LokyExecutorRef ref = resolve(id);

	if (LokyMyWorker != NULL && LokyMyWorker->phase == LOKY_PHASE_INITIALIZING &&
		LokyMyWorker->executor_id == ref.id)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot use an executor from its own initializer"),
				 errhint("Use another one, with the argument \"executor\".")));
	return ref;
}

/* The id of the executor whose worker this process is; 0 in a session. */
int
loky_executor_own(void)
{
	return LokyMyWorker != NULL ? LokyMyWorker->executor_id : 0;
}

/* Let the executor have so many workers; those too many leave when free. */
void
loky_executor_resize(LokyExecutorRef ref, int max_workers)
{
	LokySharedExecutor *executor = ref.executor;
	int			surplus = 0;

	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->id == ref.id)
	{
		executor->max_workers = max_workers;
		executor->excess = 0;
		surplus = loky_executor_strength(executor) - max_workers;
		for (int i = 0; i < loky->nworkers && surplus > 0; i++)
		{
			LokySharedWorker *worker = &loky->workers[i];

			if (worker->state == LOKY_WORKER_IDLE &&
				worker->executor == executor->slot && !worker->stop)
			{
				loky_stop_worker(worker, false);
				surplus--;
			}
		}
		executor->excess = Max(surplus, 0);
	}
	LWLockRelease(&executor->lock);
	loky_sched_look_again(executor);
	loky_wake_launcher();
}
