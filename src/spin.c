/*-------------------------------------------------------------------------
 *
 * spin.c
 *	  Waiting for a short while without sleeping.
 *
 * A task is often done, and the next one there, within a few microseconds, while to
 * wake a process takes more than that.  So both sides look for some time before they
 * sleep: for a moment without offering their core to others, then offering it each
 * time.  The time must be longer than a wake-up takes, else both sides sleep for ever.
 *
 * Where an offer of the core is taken up, which shows in the time it takes, somebody
 * else wants this core; from then on it is offered at once, and that may well be all
 * that the other one waited for.  Should another core be idle, two that pass their
 * core to and fro would stay there for long, as the scheduler does not move what runs
 * all the time.  What sleeps is woken on an idle core.  So one that shares its core
 * goes to sleep now and then.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/spin.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sched.h>

#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"

#include "spin.h"

/* How long to look before sleeping. */
#define SPIN_US			50

/* ... of which so long without offering the core to others. */
#define BARE_SPIN_US	2

/* Looks between two of the clock. */
#define BARE_LOOKS		20

/* An offer of the core that takes so long was taken up. */
#define TAKEN_US		2

/* One that shares its core sleeps as often as this. */
#define BREAK_US		2000

/* the core was wanted by others when we offered it last */
static bool shared = false;

/* when we went to sleep last because of that */
static instr_time last_break;

static uint64
us_between(instr_time from, instr_time to)
{
	INSTR_TIME_SUBTRACT(to, from);
	return INSTR_TIME_GET_MICROSEC(to);
}

/* Look without offering the core. */
static bool
look(LokySpinTest test, const void *arg)
{
	for (int i = 0; i < BARE_LOOKS; i++)
	{
		if (test(arg))
			return true;
		pg_spin_delay();
	}
	return false;
}

/*
 * Wait for a short while until the test is true; arg is passed to it.  False where the
 * caller should sleep, or see to an interrupt.
 */
bool
loky_spin(LokySpinTest test, const void *arg)
{
	instr_time	start;
	instr_time	now;
	instr_time	then;

	if (test(arg))
		return true;
	INSTR_TIME_SET_CURRENT(start);
	if (shared && us_between(last_break, start) > BREAK_US)
	{
		last_break = start;
		return false;
	}
	do
	{
		if (!shared && look(test, arg))
			return true;
		if (InterruptPending)
			return false;
		INSTR_TIME_SET_CURRENT(now);
		if (!shared && us_between(start, now) <= BARE_SPIN_US)
			continue;
		then = now;
		sched_yield();
		INSTR_TIME_SET_CURRENT(now);
		shared = us_between(then, now) >= TAKEN_US;
		if (test(arg))
			return true;
	} while (us_between(start, now) < SPIN_US);
	return false;
}
