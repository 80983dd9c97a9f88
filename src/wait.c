/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  What processes of loky wait for, as pg_stat_activity shows it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/wait.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "wait.h"

static const char *const names[] = {
	"LokyTask", "LokyCancel", "LokyWork", "LokyDelay", "LokyLeave", "LokyLauncher",
	"LokyDebugPoint"
};

static uint32 events[lengthof(names)];

/*
 * Make the names known, once in each process, at a time when that may raise an
 * error: later on there is none, also in the midst of clearing up.
 */
void
loky_wait_register(void)
{
	for (int i = 0; i < lengthof(names); i++)
		events[i] = LokyNewWaitEvent(names[i]);
}

/* The event to give to WaitLatch; one for all where the server has no names. */
uint32
loky_wait_event(LokyWait wait)
{
	/* one that waits before it has attached */
	if (events[wait] == 0)
		loky_wait_register();
	return events[wait];
}
