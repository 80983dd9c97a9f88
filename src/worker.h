/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The worker process.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/worker.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_WORKER_H
#define LOKY_WORKER_H

#include "config.h"
#include "dest.h"
#include "errdata.h"
#include "pool.h"
#include "store.h"

/* the slot of this process; NULL in every process that is no worker */
extern LokySharedWorker *LokyMyWorker;

/* depth of the task that runs here; 0 in a session */
extern int	LokyMyDepth;

extern PGDLLEXPORT void loky_worker_main(Datum main_arg);

/* worker_start.c */
extern void loky_worker_attach(Datum main_arg);
extern const LokyConfig *loky_worker_connect(void);
extern bool loky_worker_role_changed(void);

extern void loky_worker_show_label(const char *label);
extern bool loky_worker_reload(void);

/* worker_log.c */
extern void loky_worker_log_init(void);
extern void loky_worker_log_task(LokySharedTask *task, int64 us);
extern void loky_worker_log_items(LokySharedMap *map, uint64 first, uint64 n,
								  uint64 us);

/* worker_init.c */
extern void loky_worker_initialize(const LokyConfig *config);

/* worker_xact.c: a transaction of a task, of items, or of the initializer */
extern void loky_worker_handle_cancel(SIGNAL_ARGS);
extern void loky_worker_handle_exact_cancel(SIGNAL_ARGS);
extern void loky_worker_register_callbacks(void);
extern void loky_worker_seal(LokySharedTask *task);
extern void loky_worker_raise_cancelled(void) pg_attribute_noreturn();
extern void loky_worker_begin(const LokySharedRequest *request,
							  dsa_pointer snapshot);
extern void loky_worker_begin_transaction(bool read_only,
										  dsa_pointer snapshot);
extern void loky_worker_commit(bool adopt_settings);
extern ErrorData *loky_worker_abort(MemoryContext context);
extern void loky_worker_reset_memory(void);

/* owned by the worker loop, shared with map_worker.c */
extern LokyStoreWriter *LokyMyWriter;
extern LokyDest *LokyMyDest;
extern MemoryContext LokyTaskContext;

#endif							/* LOKY_WORKER_H */
