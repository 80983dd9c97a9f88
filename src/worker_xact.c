/*-------------------------------------------------------------------------
 *
 * worker_xact.c
 *	  The transactions of a worker: of a task, of items, of the initializer.
 *
 * The final commit of a task is the moment from which it has succeeded, whatever
 * becomes of the worker: a mark in the slot says so, set by a callback of the
 * commit itself.  Just before, and after all that is deferred to the commit, it is
 * settled that no cancel counts any more.  What the server commits of its own as the
 * process ends, as when it removes temporary tables, is no commit of the task's.
 *
 * What a task has left behind is put back when the transaction has ended: settings
 * by the server's own nest levels (see settings.c), the rest here.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/worker_xact.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "compat.h"
#include "debug_point.h"
#include "map_part.h"
#include "read_only.h"
#include "run.h"
#include "run_timeout.h"
#include "sched.h"
#include "settings.h"
#include "snapshot.h"
#include "worker.h"

/* true while a transaction of a task is under way: then a cancel counts */
static volatile sig_atomic_t running = false;

/* the nest level of settings, and the transaction that it belongs to */
static int	guc_level = 0;
static LocalTransactionId start_lxid = 0;

/* the next commit is the one that makes the task succeed */
static bool final_commit = false;

/* SIGINT: cancel what runs. */
void
loky_worker_handle_cancel(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (running && !proc_exit_inprogress)
	{
		InterruptPending = true;
		QueryCancelPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

/* SIGUSR2: cancel the run that the canceller meant, if it still runs. */
void
loky_worker_handle_exact_cancel(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (running && LokyMyWorker != NULL && !proc_exit_inprogress &&
		pg_atomic_read_u64(&LokyMyWorker->cancel_run) ==
		pg_atomic_read_u64(&LokyMyWorker->run))
	{
		InterruptPending = true;
		QueryCancelPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

/* Raise 57014: a cancel has come in time for what has not noticed it, or has trapped it. */
void
loky_worker_raise_cancelled(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("canceling statement due to user request")));
}

/*
 * The last moment before the final commit, after deferred triggers: from here
 * on a cancel comes too late, and the result is complete.
 */
void
loky_worker_seal(LokySharedTask *task)
{
	uint32		none = LOKY_VERDICT_NONE;

	if (!loky_store_is_begun(LokyMyWriter))
		return;
	if (!pg_atomic_compare_exchange_u32(&task->verdict, &none,
										LOKY_VERDICT_COMMIT))
		loky_worker_raise_cancelled();
	loky_store_end(LokyMyWriter);
}

/* The final commit begins; what is deferred to it has run. */
static void
prepare_final_commit(void)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(LokyTaskContext);

	loky_limit_close();
	Async_UnlistenAll();
	if (guc_level > 0)
		loky_settings_note_kept();
	if (LokyMyWorker->task != NULL)
		loky_worker_seal(LokyMyWorker->task);
	else if (LokyMyWorker->map != NULL && loky_map_is_given_up(LokyMyWorker->map))
		loky_worker_raise_cancelled();
	MemoryContextSwitchTo(oldcontext);
	loky_debug_point("sealed");
}

/* Is the transaction that ends one of the task's, or of the initializer's? */
static bool
is_own_transaction(void)
{
	return running && LokyMyWorker != NULL && !proc_exit_inprogress;
}

/* The final commit is done, but for the settings of the transaction. */
static void
end_settings(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
			 void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_commit || !is_top_level ||
		!final_commit || guc_level == 0 || !is_own_transaction() ||
		CurrentResourceOwner != TopTransactionResourceOwner)
		return;
	loky_settings_end(guc_level);
	guc_level = 0;
}

/*
 * What the transaction has written is undone.  A statement of a map that was taken
 * for one that only reads is none then: what it has returned is not valid.
 */
static void
note_abort(void)
{
	LokySharedPart *part;

	final_commit = false;
	if (LokyMyWorker == NULL || LokyMyWorker->map == NULL ||
		!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	part = loky_map_known_part(LokyMyWorker->map, LokyMyWorker->index);
	if (part != NULL)
		part->repeatable = false;
}

/*
 * Mark in the slot how transactions end, for whoever settles it.  Raises 25006 where a
 * task that may only read is about to commit more.
 */
static void
note_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		note_abort();
	if (event == XACT_EVENT_PRE_COMMIT && loky_debug_fails("commit"))
		ereport(ERROR,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("stopped at debug point \"%s\"", "commit")));
	if (!is_own_transaction())
		return;
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		loky_read_only_check();
	if (event == XACT_EVENT_PRE_COMMIT && final_commit)
		prepare_final_commit();
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_PREPARE)
		return;
	if (LokyMyWorker->map != NULL)
	{
		LokySharedPart *part = loky_map_part(LokyMyWorker->map,
											 LokyMyWorker->index);

		if (final_commit)
			part->committed = true;
		else
			part->wrote = true;
	}
	else if (LokyMyWorker->task != NULL)
		LokyMyWorker->phase = final_commit && event == XACT_EVENT_COMMIT ?
			LOKY_PHASE_COMMITTED : LOKY_PHASE_WROTE;
}

/* Called once, before the first transaction. */
void
loky_worker_register_callbacks(void)
{
	loky_read_only_watch();
	RegisterXactCallback(note_end, NULL);
	RegisterResourceReleaseCallback(end_settings, NULL);
}

/*
 * Start a transaction in which a cancel counts, in the snapshot of a caller where
 * one is given.  Leaves the process, which gives its task back, where its role has
 * changed.
 */
void
loky_worker_begin_transaction(bool read_only, dsa_pointer snapshot)
{
	SetCurrentStatementStartTimestamp();
	final_commit = false;
	running = true;

	/* a cancel that came before found nothing running and did nothing */
	pg_memory_barrier();
	if (pg_atomic_read_u64(&LokyMyWorker->cancel_run) ==
		pg_atomic_read_u64(&LokyMyWorker->run))
	{
		InterruptPending = true;
		QueryCancelPending = true;
	}
	StartTransactionCommand();
	loky_read_only_begin(read_only);
	if (DsaPointerIsValid(snapshot))
		loky_snapshot_adopt(snapshot);
	if (loky_worker_role_changed())
		proc_exit(0);
	start_lxid = LokyMyLocalXid();
	guc_level = 0;
	MemoryContextSwitchTo(LokyTaskContext);
}

/*
 * Start the transaction of a task, with its submitter's settings in force and, where
 * it is valid, in its snapshot.
 */
void
loky_worker_begin(const LokySharedRequest *request, dsa_pointer snapshot)
{
	LokyMyWorker->tag = 0;
	loky_settings_apply(request->env, LokyTaskContext);
	loky_worker_begin_transaction(request->read_only, snapshot);
	guc_level = loky_settings_begin();
	if (request->read_only)
		(void) set_config_option("default_transaction_read_only", "on",
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SET,
								 true, ERROR, false);
	MemoryContextSwitchTo(LokyTaskContext);
	loky_debug_point("taken");
}

/*
 * Has the process any lock in the shared table?  Once its transaction has ended it
 * can only be one of the session.
 */
static bool
holds_locks(void)
{
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		if (!LokyListIsEmpty(&MyProc->myProcLocks[i]))
			return true;
	}
	return false;
}

/* Put back what only a transaction of its own, or none, can put back. */
static void
clean_session(bool committed_inside)
{
	running = false;

	/* a cancel meant what has ended; that of a map is looked at again */
	loky_limit_disarm();
	QueryCancelPending = false;
	loky_debug_point("cleaning");
	if (holds_locks())
		LockReleaseAll(USER_LOCKMETHOD, true);
	if (committed_inside || GetUserId() != loky->executors[LokyMyWorker->executor].role)
	{
		StartTransactionCommand();
		Async_UnlistenAll();
		SetConfigOption("session_authorization", NULL, PGC_SUSET, PGC_S_SESSION);
		SetConfigOption("role", "none", PGC_SUSET, PGC_S_SESSION);
		CommitTransactionCommand();
		loky_settings_put_back();
	}
	PortalHashTableDeleteAll();
	MemoryContextSwitchTo(LokyTaskContext);
}

/*
 * Commit the task's transaction.  Raises what a deferred trigger raises, and an
 * error if the task itself has opened a transaction that is still open.  With
 * adopt_settings, what it has set stays in force for good.
 */
void
loky_worker_commit(bool adopt_settings)
{
	bool		committed_inside = LokyMyLocalXid() != start_lxid;

	MemoryContextSwitchTo(LokyTaskContext);
	if (committed_inside)
		guc_level = 0;			/* it went with its transaction */
	final_commit = true;
	CommitTransactionCommand();
	guc_level = 0;
	loky_debug_point("committed");
	if (IsTransactionOrTransactionBlock())
	{
		final_commit = false;
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("task left a transaction open"),
				 errhint("Each task runs in a transaction of its own: leave out BEGIN, or end it with COMMIT in the same task.")));
	}
	loky_read_only_end();
	loky_settings_restore_kept();
	if (adopt_settings)
		loky_settings_adopt();
	clean_session(committed_inside);
}

/*
 * Clean the session after an error.  Where that fails too, the log tells why, and
 * the worker ends as soon as it has ended what it runs.
 */
static void
try_to_clean(bool committed_inside)
{
	PG_TRY();
	{
		clean_session(committed_inside);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(LokyTaskContext);
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		loky_stop_self(LokyMyWorker);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}

/*
 * After an error: abort the transaction and return the error, copied into
 * context.
 */
ErrorData *
loky_worker_abort(MemoryContext context)
{
	ErrorData  *edata;
	bool		committed_inside = LokyMyLocalXid() != start_lxid;
	bool		late;

	HOLD_INTERRUPTS();
	loky_run_reset_timeout();
	late = loky_limit_stop();
	QueryCancelPending = false;
	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	if (late)
		loky_limit_explain(edata);
	FlushErrorState();
	AbortOutOfAnyTransaction();
	PortalErrorCleanup();
	jit_reset_after_error();
	loky_read_only_end();
	guc_level = 0;
	RESUME_INTERRUPTS();
	try_to_clean(committed_inside);
	MemoryContextSwitchTo(context);
	return edata;
}
