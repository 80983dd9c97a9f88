/*-------------------------------------------------------------------------
 *
 * debug_point.c
 *	  Named points at which a test has a process wait or fail.
 *
 * Some moments are too short for a test to meet, as that between the commit of a
 * task and its end.  The code has a named point there, and the setting
 * loky.debug_point, a name and what is to happen, makes it last:
 *
 *	  name wait		until a reload sets it to something else, or the process is
 *					interrupted; a line in the log tells of it
 *	  name error	an error
 *	  name fatal	the process ends as one that was terminated
 *
 * Several of them are separated by commas, without spaces.
 *
 * Where interrupts are held, or a lock is, no process may wait at a point.  A test sets it in the
 * configuration file, so that sessions do not take it along to their tasks.
 *
 * Nothing of this exists unless LOKY_DEBUG is defined.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/debug_point.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef LOKY_DEBUG

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"

#include "debug_point.h"
#include "wait.h"

static char *debug_point = NULL;

/* Define the setting; called once when the library is loaded. */
void
loky_debug_point_define(void)
{
	DefineCustomStringVariable("loky.debug_point",
							   "Names points in the code, and what is to happen there.",
							   "For tests of loky itself: wait, error or fatal.",
							   &debug_point,
							   "",
							   PGC_SUSET,
							   GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							   NULL, NULL, NULL);
}

/* Is this to happen at the point with this name? */
static bool
is_set(const char *name, const char *action)
{
	const char *place = debug_point;
	Size		name_len = strlen(name);
	Size		action_len = strlen(action);

	while (place != NULL && *place != '\0')
	{
		Size		len = strcspn(place, ",");

		if (len == name_len + 1 + action_len &&
			strncmp(place, name, name_len) == 0 && place[name_len] == ' ' &&
			strncmp(place + name_len + 1, action, action_len) == 0)
			return true;
		place += len;
		if (*place == ',')
			place++;
	}
	return false;
}

/* Wait at the point as long as the setting has it so. */
static void
wait_at(const char *name)
{
	loky_wait_register();
	ereport(LOG,
			(errmsg("waiting at debug point \"%s\"", name)));
	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			if (!is_set(name, "wait"))
				break;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1,
						 loky_wait_event(LOKY_WAIT_DEBUG_POINT));
	}

	/* others may have set it for other reasons meanwhile */
	SetLatch(MyLatch);
}

/*
 * The process is at the point with this name.  Raises an error where the setting has
 * it so.
 */
void
loky_debug_point(const char *name)
{
	bool		waits = is_set(name, "wait");
	bool		is_fatal = is_set(name, "fatal");

	if (!waits && !is_fatal && !is_set(name, "error"))
		return;
	Assert(CritSectionCount == 0);
	if (waits)
	{
		Assert(InterruptHoldoffCount == 0);
		wait_at(name);
	}
	else
		ereport(is_fatal ? FATAL : ERROR,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("stopped at debug point \"%s\"", name)));
}

#endif							/* LOKY_DEBUG */
