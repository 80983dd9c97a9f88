/*-------------------------------------------------------------------------
 *
 * turns.c
 *	  Which executor gets the next worker, and who makes room for it.
 *
 * The launcher calls these in rounds.  In a round, the executor that has the
 * fewest workers goes first; among equals, the one that got its last worker
 * longest ago.  Workers that wait for tasks of their own do not count, but those of
 * a role with a limit leave a quarter of the server's processes to others.
 *
 * Making room
 * -----------
 * Where loky.max_total_workers, the server's processes, or the workers of the
 * executor's role are too many for another one, some worker of another executor
 * (of that role, if the role is at its limit) has to go, one for each executor
 * that is short:
 *	  one that is leaving anyway and on which nobody else counts;
 *	  or the one that has been idle longest, which is told to end;
 *	  or, from the executor that has the most workers, whichever ends a task or
 *	  a range of a map next, and has served for LOKY_SLICE_MS.
 * The last is a number in the executor (yields), written anew in each round, so
 * that it goes when the demand does.  An executor yields only while it has more
 * than one worker more than the one that is short, or, where that has none, has
 * any.  So all come to the same number, and more executors than there is room for
 * share it in turns that are long compared to the start of a process.  Where an
 * executor does not answer, since its tasks are long, another is asked as well.
 *
 * Locking
 * -------
 * The launcher's own memory, but for yields and starved, which need the lock of
 * the executor.  Slots of workers are looked at without locks: only the launcher
 * claims and frees them, and what else changes is a hint.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/turns.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "sched.h"
#include "turns.h"

/* An executor asked for so long without an answer has long tasks. */
#define DEAF_EXECUTOR_MS	(3 * LOKY_SLICE_MS)

/* A shortage that lasts so long is logged. */
#define SHORTAGE_LOG_MS		1000

/* What the launcher knows of the executor in each slot. */
typedef struct Turn
{
	uint64		served;			/* grows with each worker started for any */
	TimestampTz asked;			/* to yield, and since then nobody left; 0: not */

	/* of the present round */
	int			demand;
	int			strength;
	int			yields;
	int			asked_by;		/* the executor that asked last, by its slot */
	bool		is_short;
} Turn;

static Turn *turns = NULL;
static uint64 last_served = 0;

/* workers that leave in this round, and for whom is settled; by their slots */
static bool *spoken_for = NULL;

/* kinds of shortage of which the log has told and that have not healed */
static bool logged[LOKY_SHORTAGE_ROLE + 1];

/* the same of this round */
static bool seen[LOKY_SHORTAGE_ROLE + 1];

/* Called once in the launcher. */
void
loky_turns_init(void)
{
	turns = MemoryContextAllocZero(TopMemoryContext,
								   loky->nexecutors * sizeof(Turn));
	spoken_for = MemoryContextAlloc(TopMemoryContext,
									loky->nworkers * sizeof(bool));
}

/* What the executor wants now; *pause is lowered to when to look again. */
static void
read_demand(LokySharedExecutor *executor, Turn *turn, long *pause)
{
	turn->demand = 0;
	turn->strength = 0;
	turn->yields = 0;
	turn->asked_by = -1;
	turn->is_short = false;
	if (executor->id == 0)
		return;
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	turn->strength = loky_executor_strength(executor);
	turn->demand = loky_sched_demand(executor);
	if (turn->demand == 0)
		executor->starved = LOKY_SHORTAGE_NONE;
	else if (executor->next_start != 0 && executor->failed_starts > 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (executor->next_start > now)
		{
			*pause = Min(*pause,
						 1 + TimestampDifferenceMilliseconds(now,
															 executor->next_start));
			turn->demand = 0;
		}
	}
	LWLockRelease(&executor->lock);
}

/* A new round: find out who wants workers. */
void
loky_turns_begin(long *pause)
{
	for (int i = 0; i < loky->nexecutors; i++)
		read_demand(&loky->executors[i], &turns[i], pause);
	memset(spoken_for, 0, loky->nworkers * sizeof(bool));
	memset(seen, 0, sizeof(seen));
}

/* The executor whose turn it is to get a worker, or NULL. */
LokySharedExecutor *
loky_turns_next(void)
{
	int			best = -1;

	for (int i = 0; i < loky->nexecutors; i++)
	{
		const Turn *turn = &turns[i];

		if (turn->demand <= 0 || turn->is_short)
			continue;
		if (best < 0 || turn->strength < turns[best].strength ||
			(turn->strength == turns[best].strength &&
			 turn->served < turns[best].served))
			best = i;
	}
	return best < 0 ? NULL : &loky->executors[best];
}

/*
 * The executor has got a worker, or does not want any more.
 */
void
loky_turns_serve(const LokySharedExecutor *executor, bool started)
{
	Turn	   *turn = &turns[executor->slot];

	if (started)
	{
		turn->demand--;
		turn->strength++;
		turn->served = ++last_served;
	}
	else
		turn->demand = 0;
}

/* May the executor's role have only so many workers?  -1: any number. */
static int
role_limit(const LokySharedExecutor *executor)
{
	return executor->role_is_superuser ? -1 : loky_max_workers_per_role;
}

static bool
is_of_role(const LokySharedWorker *worker, int role_slot)
{
	return loky->executors[worker->executor].role_slot == role_slot;
}

/* What forbids the executor another worker at present? */
LokyShortage
loky_turns_shortage(const LokySharedExecutor *executor)
{
	int			limit = role_limit(executor);
	int			ntotal = 0;
	int			nrole = 0;
	int			nheld = 0;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];
		bool		of_role;

		if (worker->state == LOKY_WORKER_FREE)
			continue;
		of_role = is_of_role(worker, executor->role_slot);
		nheld += of_role;
		if (worker->waiting)
			continue;
		ntotal++;
		nrole += of_role;
	}
	if (limit >= 0 && (nrole >= limit || nheld >= loky_leave_role_processes()))
		return LOKY_SHORTAGE_ROLE;
	if (ntotal >= loky_max_total_workers)
		return LOKY_SHORTAGE_SLOTS;
	return LOKY_SHORTAGE_NONE;
}

/* Would it help the executor, which is short, if one of these left? */
static bool
would_help(const LokySharedExecutor *executor, LokyShortage shortage,
		   const LokySharedExecutor *other)
{
	return other != executor &&
		(shortage != LOKY_SHORTAGE_ROLE || other->role_slot == executor->role_slot);
}

/* Is a worker leaving already that makes room for the executor? */
static bool
find_leaving(const LokySharedExecutor *executor, LokyShortage shortage)
{
	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (spoken_for[i] || worker->waiting ||
			(worker->state != LOKY_WORKER_STOPPING &&
			 (worker->state != LOKY_WORKER_IDLE || !worker->stop)))
			continue;
		if (shortage == LOKY_SHORTAGE_ROLE &&
			!is_of_role(worker, executor->role_slot))
			continue;
		spoken_for[i] = true;
		return true;
	}
	return false;
}

/*
 * Tell the longest idle worker that would help to end.  True where there was one.
 */
static bool
release_idle(const LokySharedExecutor *executor, LokyShortage shortage)
{
	LokySharedWorker *oldest = NULL;
	LokySharedExecutor *other;

	for (int i = 0; i < loky->nworkers; i++)
	{
		LokySharedWorker *worker = &loky->workers[i];

		if (worker->state == LOKY_WORKER_IDLE && !worker->stop &&
			would_help(executor, shortage, &loky->executors[worker->executor]) &&
			(oldest == NULL || worker->last_active < oldest->last_active))
			oldest = worker;
	}
	if (oldest == NULL)
		return false;
	other = &loky->executors[oldest->executor];
	LWLockAcquire(&other->lock, LW_EXCLUSIVE);
	if (oldest->state == LOKY_WORKER_IDLE)
	{
		loky_stop_worker(oldest, false);
		spoken_for[oldest->index] = true;
	}
	LWLockRelease(&other->lock);
	return true;
}

/* Has the executor been asked to yield for long, in vain? */
static bool
is_deaf(const Turn *turn)
{
	return turn->asked != 0 &&
		TimestampDifferenceExceeds(turn->asked, GetCurrentTimestamp(),
								   DEAF_EXECUTOR_MS);
}

/*
 * The executor that is to yield a worker to this one, or NULL: of those that it
 * has not asked in this round the one with the most; among equals, the one that got
 * its last worker longest ago.
 */
static Turn *
find_richest(const LokySharedExecutor *executor, LokyShortage shortage)
{
	const Turn *poor = &turns[executor->slot];
	int			least = poor->strength == 0 ? 1 : poor->strength + 2;
	Turn	   *richest = NULL;
	int			most = 0;

	for (int i = 0; i < loky->nexecutors; i++)
	{
		Turn	   *turn = &turns[i];
		int			left = turn->strength - turn->yields;

		if (left < least ||
			!would_help(executor, shortage, &loky->executors[i]) ||
			turn->asked_by == executor->slot)
			continue;
		if (richest == NULL || left > most ||
			(left == most && turn->served < richest->served))
		{
			richest = turn;
			most = left;
		}
	}
	return richest;
}

/* Have another executor yield a worker to this one, and more while they are deaf. */
static void
ask_to_yield(const LokySharedExecutor *executor, LokyShortage shortage)
{
	Turn	   *richest;

	do
	{
		richest = find_richest(executor, shortage);
		if (richest == NULL)
			return;
		richest->yields++;
		richest->asked_by = executor->slot;
	} while (is_deaf(richest));
}

/* The executor wants a worker that cannot be had: say so once, if it lasts. */
static void
note_shortage(LokySharedExecutor *executor, LokyShortage shortage)
{
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	if (executor->starved == LOKY_SHORTAGE_NONE)
		executor->starved_since = GetCurrentTimestamp();
	executor->starved = shortage;
	LWLockRelease(&executor->lock);
	if (logged[shortage] ||
		!TimestampDifferenceExceeds(executor->starved_since,
									GetCurrentTimestamp(), SHORTAGE_LOG_MS))
		return;
	logged[shortage] = true;
	if (shortage == LOKY_SHORTAGE_ROLE)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("loky may start no more workers for the role with OID %u",
						executor->role),
				 errhint("Raise loky.max_workers_per_role.")));
	else
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("loky has no free slot for a worker that is wanted"),
				 errhint("Raise max_worker_processes or loky.max_total_workers.")));
}

/*
 * The executor can get no worker now: have one of others leave for it.  It has
 * its turn again in the next round.
 */
void
loky_turns_make_room(LokySharedExecutor *executor, LokyShortage shortage)
{
	turns[executor->slot].is_short = true;
	seen[shortage] = true;
	if (find_leaving(executor, shortage) || release_idle(executor, shortage))
		return;
	ask_to_yield(executor, shortage);
	note_shortage(executor, shortage);
}

/* Let the workers of the executor know how many of them are to leave. */
static void
write_yields(LokySharedExecutor *executor, Turn *turn)
{
	if (turn->yields == 0)
		turn->asked = 0;
	else if (turn->asked == 0 || executor->yields < turn->yields)
		turn->asked = GetCurrentTimestamp();
	if (executor->yields == turn->yields)
		return;
	LWLockAcquire(&executor->lock, LW_EXCLUSIVE);
	executor->yields = turn->yields;
	LWLockRelease(&executor->lock);
}

/* The round is over.  True where somebody is short of workers. */
bool
loky_turns_end(void)
{
	bool		any = false;

	for (int i = 0; i < loky->nexecutors; i++)
	{
		write_yields(&loky->executors[i], &turns[i]);
		any |= turns[i].is_short;
	}
	for (int i = 0; i < lengthof(logged); i++)
		logged[i] &= seen[i];
	loky->is_short = any;
	return any;
}
