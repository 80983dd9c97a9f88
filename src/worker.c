/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The worker process: taking tasks, running them, ending them.
 *
 * A task runs in a transaction that is committed when it has succeeded; its
 * rows are written to the task before the commit, and can be read only after
 * its state has changed.  A worker that dies between the two has left a mark
 * that the commit is done.
 *
 * Signals
 * -------
 * SIGTERM ends the worker as it ends a session.  SIGINT, from
 * pg_cancel_backend or a timeout, cancels what runs and means nothing while
 * nothing does.  SIGUSR2 is loky's own cancel: it counts only if the number of
 * the run that is to be cancelled is that of the present one, so one that comes
 * late hits nobody.
 *
 * Waiting
 * -------
 * An idle worker waits on its latch; whoever takes it off the list of idle ones
 * sets it.  Before, it looks for some microseconds without sleeping, since the
 * next task often follows at once and waking a process is dear.
 *
 * Failure
 * -------
 * An error in a task aborts its transaction, goes to whoever waits, and the
 * worker goes on.  Whatever ends the process calls exit_worker, after the
 * transaction has been aborted.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/worker.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "area.h"
#include "client.h"
#include "compat.h"
#include "debug_point.h"
#include "errdata.h"
#include "executor.h"
#include "guc.h"
#include "history.h"
#include "map.h"
#include "messages.h"
#include "recycle.h"
#include "run.h"
#include "run_timeout.h"
#include "sched.h"
#include "settings.h"
#include "spin.h"
#include "wait.h"
#include "worker.h"

/* Notices of a task that are kept for the case that it fails. */
#define MAX_NOTICE_BYTES	(1024 * 1024)

LokySharedWorker *LokyMyWorker = NULL;
int			LokyMyDepth = 0;
LokyStoreWriter *LokyMyWriter = NULL;
LokyDest   *LokyMyDest = NULL;
MemoryContext LokyTaskContext = NULL;

/* the notices of the present task, in LokyTaskContext */
static List *task_notices = NIL;
static Size notice_bytes = 0;

/* ... and when the log is to tell of it */
static int	task_log_min = -1;

/* Settle the slot as the process ends. */
static void
exit_worker(int code, Datum arg)
{
	LokySharedWorker *worker = LokyMyWorker;

	if (worker == NULL)
		return;
	loky_messages_set_sink(NULL);
	LWLockReleaseAll();
	loky_sched_settle(worker);
	LokyMyWorker = NULL;
}

/* Show what this worker is for in pg_stat_activity. */
static void
set_application_name(const char *label)
{
	char		name[NAMEDATALEN];

	if (label != NULL)
		snprintf(name, sizeof(name), "loky:%s", label);
	else
		snprintf(name, sizeof(name), "loky:%d", LokyMyWorker->executor_id);
	pgstat_report_appname(name);
}

/* Show the label of what runs, or NULL: none any more. */
void
loky_worker_show_label(const char *label)
{
	static bool shown = false;

	if (label == NULL && !shown)
		return;
	set_application_name(label);
	shown = label != NULL;
}

/* The reducers that results go through, for the life of the process. */
static LokyReducers *
result_reducers(const LokyConfig *config)
{
	Size		len;
	const char *part = loky_config_part(config, LOKY_CONFIG_RESULT_REDUCERS,
										&len);

	return loky_reduce_create(part, len);
}

/* Everything between the start of the process and its first task. */
static void
initialize_worker(Datum main_arg)
{
	const LokyConfig *config;

	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, loky_worker_handle_cancel);
	pqsignal(SIGUSR2, loky_worker_handle_exact_cancel);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);

	/* one that came since the fork was ignored */
	ConfigReloadPending = true;
	BackgroundWorkerUnblockSignals();
	loky_debug_point("starting");
	loky_worker_attach(main_arg);
	before_shmem_exit(exit_worker, (Datum) 0);
	loky_messages_redirect();
	loky_debug_point("attached");

	loky_attach();
	config = loky_worker_connect();
	loky_worker_register_callbacks();

	LokyTaskContext = AllocSetContextCreate(TopMemoryContext, "loky task",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(TopMemoryContext);
	LokyMyWriter = loky_store_writer_create();
	LokyMyDest = loky_dest_create(LokyMyWriter, result_reducers(config));
	set_application_name(NULL);
	loky_worker_initialize(config);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* Free what the last run has left in memory. */
void
loky_worker_reset_memory(void)
{
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(LokyTaskContext);
	MemoryContextSwitchTo(LokyTaskContext);
}

/* The sink of notices while a task runs. */
static void
keep_notice(const char *message, Size len)
{
	MemoryContext oldcontext;
	StringInfo	copy;

	if (!loky_store_is_begun(LokyMyWriter))
		return;
	loky_store_put(LokyMyWriter, LOKY_RECORD_NOTICE, message, len);

	/* again for the case that the task fails, when the store is emptied */
	notice_bytes += len;
	if (notice_bytes > MAX_NOTICE_BYTES)
		return;
	oldcontext = MemoryContextSwitchTo(LokyTaskContext);
	copy = makeStringInfo();
	appendBinaryStringInfo(copy, message, len);
	task_notices = lappend(task_notices, copy);
	MemoryContextSwitchTo(oldcontext);
}

/* Run the task up to and including its commit. */
static void
execute_task(LokySharedTask *task)
{
	LokySharedRequest *request = &task->request;
	LokyValues	args = {0};
	LokyPlan   *plan;
	LokyCompletion completion;

	loky_worker_begin(request, InvalidDsaPointer);
	task_log_min = loky_log_min_duration;

	/* one that is told to end before this gives the task back */
	CHECK_FOR_INTERRUPTS();
	LokyMyWorker->phase = LOKY_PHASE_BEGUN;
	loky_limit_arm(task->timeout, "timeout");
	if (request->nargs > 0)
	{
		Size		len;
		const char *data = loky_request_args(request, &len);

		loky_codec_decode_values(data, len, &args);
	}
	plan = loky_plan_get(debug_query_string, request->hash, args.n, args.types);
	loky_plan_run(plan, &args, LokyMyDest, &completion);
	loky_dest_release(LokyMyDest);
	task->rows = completion.processed;
	if (!completion.has_rows)
		loky_run_put_completion(LokyMyWriter, &completion);

	CHECK_FOR_INTERRUPTS();
	loky_worker_commit(false);

	/* where a ROLLBACK or PREPARE TRANSACTION was the end, nothing sealed it */
	loky_worker_seal(task);
}

/* Write the notices of the failed task, and its error. */
static void
write_error(LokySharedTask *task, const ErrorData *edata)
{
	StringInfoData error;
	ListCell   *lc;

	initStringInfo(&error);
	loky_error_encode(&error, edata);
	loky_store_begin(LokyMyWriter, &task->result);
	foreach(lc, task_notices)
	{
		StringInfo	notice = lfirst(lc);

		loky_store_put(LokyMyWriter, LOKY_RECORD_NOTICE, notice->data,
					   notice->len);
	}
	loky_store_put(LokyMyWriter, LOKY_RECORD_ERROR, error.data, error.len);
	loky_store_end(LokyMyWriter);
	pfree(error.data);
}

/*
 * Replace whatever the failed task has written, but its notices, by the error; by
 * the error in short where not even that finds room.
 */
static void
put_error(LokySharedTask *task, const ErrorData *edata)
{
	PG_TRY();
	{
		write_error(task, edata);
	}
	PG_CATCH();
	{
		StringInfoData error;

		MemoryContextSwitchTo(LokyTaskContext);
		EmitErrorReport();
		FlushErrorState();
		loky_store_abandon(LokyMyWriter, &task->result);
		initStringInfo(&error);
		loky_error_encode_short(&error, edata);
		loky_store_set(&task->result, LOKY_RECORD_ERROR, error.data, error.len);
	}
	PG_END_TRY();
}

/* Show what the task is, and begin its result, with nothing left of the one before. */
static void
begin_task(LokySharedTask *task)
{
	LokyMyDepth = task->request.depth;
	loky_worker_reset_memory();
	debug_query_string = pstrdup(loky_request_text(&task->request, LOKY_TEXT_SQL));
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
	loky_worker_show_label(loky_request_text(&task->request, LOKY_TEXT_LABEL));
	loky_dest_reset(LokyMyDest);
	LokyMyDest->max_rows = 0;
	LokyMyDest->hold = false;
	LokyMyDest->known_desc = NULL;
	task_notices = NIL;
	notice_bytes = 0;
	task->rows = 0;
	task_log_min = -1;
	loky_store_begin(LokyMyWriter, &task->result);
	loky_messages_set_sink(keep_notice);
}

/* Run the task in LokyMyWorker->task and end it. */
static void
run_task(void)
{
	LokySharedTask *task = LokyMyWorker->task;
	volatile LokyTaskState state = LOKY_TASK_SUCCEEDED;
	volatile int sqlstate = 0;
	TimestampTz now;

	begin_task(task);
	PG_TRY();
	{
		execute_task(task);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		loky_messages_set_sink(NULL);
		edata = loky_worker_abort(LokyTaskContext);
		if (LokyMyWorker->phase != LOKY_PHASE_COMMITTED)
		{
			loky_store_abandon(LokyMyWriter, &task->result);
			sqlstate = edata->sqlerrcode;
		}
		if (LokyMyWorker->phase == LOKY_PHASE_COMMITTED)
			;					/* what came after the commit is not its error */
		else if (pg_atomic_read_u32(&task->verdict) == LOKY_VERDICT_CANCEL)
			state = LOKY_TASK_CANCELLED;
		else
		{
			state = LOKY_TASK_FAILED;
			put_error(task, edata);
			loky_debug_point("failed");
		}
	}
	PG_END_TRY();

	loky_messages_set_sink(NULL);
	debug_query_string = NULL;
	HOLD_INTERRUPTS();
	if (state == LOKY_TASK_CANCELLED)
		loky_cancel_children(LokyMyWorker);
	now = GetCurrentTimestamp();
	loky_history_task(LokyMyWorker, task, state, task->rows, now);
	if (task_log_min >= 0 && now - task->started >= task_log_min * INT64CONST(1000))
		loky_worker_log_task(task, now - task->started);
	loky_sched_finish(LokyMyWorker, state, sqlstate, now);
	QueryCancelPending = false;
	RESUME_INTERRUPTS();
	loky_debug_point("ended");
	LokyMyDepth = 0;
	loky_worker_show_label(NULL);

	/* at most once a second; resting reports what is left */
	(void) pgstat_report_stat(false);
}

/* Has somebody roused us, or told us to leave? */
static bool
is_roused(const void *arg)
{
	return pg_atomic_read_u32(&LokyMyWorker->woken) != 0 || LokyMyWorker->stop;
}

/* Milliseconds that the worker may rest on from now, -1: for ever. */
static long
remaining_rest(TimestampTz since)
{
	int			timeout = loky->executors[LokyMyWorker->executor].timeout;
	long		rested;

	if (timeout < 0)
		return -1;
	rested = TimestampDifferenceMilliseconds(since, GetCurrentTimestamp());
	return rested < timeout ? timeout - rested : 0;
}

/* Read the configuration again if told to; true if so. */
bool
loky_worker_reload(void)
{
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

/*
 * Wait until there is something to do.  False where the worker is to leave.
 */
static bool
rest(void)
{
	TimestampTz since;
	long		stat_delay;

	if (loky_spin(is_roused, NULL) &&
		pg_atomic_read_u32(&LokyMyWorker->woken) != 0)
		return true;
	since = GetCurrentTimestamp();
	pgstat_report_activity(STATE_IDLE, NULL);
	stat_delay = pgstat_report_stat(false);
	for (;;)
	{
		long		timeout;

		ResetLatch(MyLatch);
		if (pg_atomic_read_u32(&LokyMyWorker->woken) != 0)
			return true;
		if (ProcDiePending)
			return false;		/* nothing is lost: no need to complain */
		CHECK_FOR_INTERRUPTS();
		if (catchupInterruptPending)
			ProcessCatchupInterrupt();
		if (loky_worker_reload())
		{
			/* loky.enabled may be on again */
			(void) loky_sched_rejoin(LokyMyWorker);
			return true;
		}
		if (loky_worker_role_changed())
			loky_stop_self(LokyMyWorker);
		timeout = remaining_rest(since);
		if (timeout == 0 || LokyMyWorker->stop || LokyMyWorker->orphan)
		{
			if (loky_sched_retire(LokyMyWorker))
				return false;
			since = GetCurrentTimestamp();
			timeout = 10;
		}
		if (stat_delay > 0)
			timeout = timeout < 0 ? stat_delay : Min(timeout, stat_delay);
		if (WaitLatch(MyLatch,
					  WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
					  (timeout >= 0 ? WL_TIMEOUT : 0),
					  timeout, loky_wait_event(LOKY_WAIT_WORK)) == WL_TIMEOUT &&
			stat_delay > 0)
			stat_delay = pgstat_report_stat(true);
	}
}

/* The process of a worker. */
void
loky_worker_main(Datum main_arg)
{
	initialize_worker(main_arg);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		(void) loky_worker_reload();
		loky_recycle_check(LokyMyWorker);
		switch (loky_sched_next(LokyMyWorker))
		{
			case LOKY_NEXT_TASK:
				run_task();
				break;
			case LOKY_NEXT_MAP:
				loky_map_work(LokyMyWorker->map);
				break;
			case LOKY_NEXT_IDLE:
				if (!rest())
					proc_exit(0);
				break;
			case LOKY_NEXT_EXIT:
				proc_exit(0);
		}
	}
}
