/*-------------------------------------------------------------------------
 *
 * client.h
 *	  The caller's side: finding futures, and waiting for them.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/client.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_CLIENT_H
#define LOKY_CLIENT_H

#include "datatype/timestamp.h"

#include "pool.h"

/* What a caller has seen while it waits. */
typedef struct LokyPatience
{
	TimestampTz since;			/* the last look for a worker */
	TimestampTz looked;			/* the last look for a deadlock */
	int			suspicions;		/* looks running that found one */
	bool		warned;			/* that there is no worker */
} LokyPatience;

typedef enum LokyWaitUntil
{
	LOKY_UNTIL_ALL,
	LOKY_UNTIL_FIRST,
	LOKY_UNTIL_EXCEPTION
} LokyWaitUntil;

extern void loky_client_check_context(void);
extern void loky_client_check_parallel(void);

/* waiting; a deadline of DT_NOEND never passes */
extern TimestampTz loky_client_time_after(TimestampTz now,
										  const Interval *interval);
extern TimestampTz loky_client_deadline(const Interval *timeout);
extern bool loky_client_wait_done(int64 id, TimestampTz deadline);
extern bool loky_client_wait_task(LokySharedTask *task, uint64 id,
								  TimestampTz deadline);
extern void loky_client_wait_many(const int64 *ids, int n,
								  LokyWaitUntil until, TimestampTz deadline);
extern void loky_client_begin_wait(void);
extern void loky_client_end_wait(void);
extern bool loky_client_sleep(TimestampTz deadline,
							  LokySharedExecutor *executor,
							  LokyPatience *patience);
extern bool loky_client_mark_awaited(LokySharedTask *task, uint64 id);

/* Is the task with this id, which has or had the slot, done or gone? */
static inline bool
loky_client_is_settled(LokySharedTask *task, uint64 id)
{
	return LokyTaskStateIsFinal(pg_atomic_read_u32(&task->state)) ||
		pg_atomic_read_u64(&task->id) != id;
}

/* looking a future up */
extern LokySharedTask *loky_client_find(int64 id, bool to_cancel);
extern bool loky_client_may_use(Oid role);

#endif							/* LOKY_CLIENT_H */
