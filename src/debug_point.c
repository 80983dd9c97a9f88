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
 *	  name fail n m	what is asked for there is refused m times, after n times in
 *					which it is not, counted in each process from its setting on
 *	  root path		a directory in which the system's files are looked for instead
 *
 * A point must not be where interrupts are held or a lock is, but for one that
 * refuses.  A test sets it in the configuration file, so that sessions do not take it
 * along to their tasks; or else in the session and, to something else, in the settings
 * of its executor, which win in the workers.
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

/* how often a point that refuses was passed since it was set */
static uint64 npassed = 0;

static void
restart_count(const char *newval, void *extra)
{
	npassed = 0;
}

/* Define the setting; called once when the library is loaded. */
void
loky_debug_point_define(void)
{
	DefineCustomStringVariable("loky.debug_point",
							   "Names a point in the code, and what is to happen there.",
							   "For tests of loky itself: wait, error, fatal, or fail and two numbers; or root and a path.",
							   &debug_point,
							   "",
							   PGC_SUSET,
							   GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							   NULL, restart_count, NULL);
}

/* What is to happen at the point; NULL: nothing. */
static const char *
action_at(const char *name)
{
	Size		len = strlen(name);

	if (debug_point == NULL || strncmp(debug_point, name, len) != 0 ||
		debug_point[len] != ' ')
		return NULL;
	return debug_point + len + 1;
}

/* Wait at the point as long as the setting has it so. */
static void
wait_at(const char *name)
{
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
			if (action_at(name) == NULL)
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
 * it so.  Interrupts are not held, and no lock is.
 */
void
loky_debug_point(const char *name)
{
	const char *action = action_at(name);

	if (action == NULL)
		return;
	Assert(InterruptHoldoffCount == 0 && CritSectionCount == 0);
	if (strcmp(action, "wait") == 0)
		wait_at(name);
	else
		ereport(strcmp(action, "fatal") == 0 ? FATAL : ERROR,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("stopped at debug point \"%s\"", name)));
}

/*
 * Is what is asked for at the point with this name to be refused this time?  May be
 * called anywhere.
 */
bool
loky_debug_fails(const char *name)
{
	const char *action = action_at(name);
	unsigned	spared;
	unsigned	refused;

	if (action == NULL || sscanf(action, "fail %u %u", &spared, &refused) != 2)
		return false;
	npassed++;
	return npassed > spared && npassed - spared <= refused;
}

/* The directory that stands for the root of the system's files; empty: it is the root. */
const char *
loky_debug_root(void)
{
	const char *path = action_at("root");

	return path != NULL ? path : "";
}

#endif							/* LOKY_DEBUG */
