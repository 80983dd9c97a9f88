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

/* The event to give to WaitLatch; one for all where the server has no names. */
uint32
loky_wait_event(LokyWait wait)
{
	static const char *const names[] = {
		"LokyTask", "LokyCancel", "LokyWork", "LokyDelay", "LokyLeave",
		"LokyLauncher", "LokyDebugPoint"
	};
	static uint32 events[lengthof(names)];

	if (events[wait] == 0)
		events[wait] = LokyNewWaitEvent(names[wait]);
	return events[wait];
}
