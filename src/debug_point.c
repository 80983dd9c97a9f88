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
 *	  name cancel	a request to cancel the query comes in
 *	  name fail n m	what is asked for there is refused m times, after n times in
 *					which it is not, counted in each process from its setting on
 *	  root path		a directory in which the system's files are looked for instead
 *
 * Several of them are separated by commas, without spaces.
 *
 * A process must not wait at a point where it holds a lock; where interrupts are held
 * it cannot be interrupted as it waits, and an error is out of place.  A test sets the
 * points in the configuration file, so that sessions do not take them along to their
 * tasks; or else in the session and, to something else, in the settings of its
 * executor, which win in the workers.
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
							   "Names points in the code, and what is to happen there.",
							   "For tests of loky itself: wait, error, fatal, cancel, or fail and two numbers; or root and a path.",
							   &debug_point,
							   "",
							   PGC_SUSET,
							   GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							   NULL, restart_count, NULL);
}

/* What is to happen at the point, in memory that the next call overwrites; or NULL. */
static const char *
action_at(const char *name)
{
	static char action[MAXPGPATH];
	const char *place = debug_point;
	Size		name_len = strlen(name);

	while (place != NULL && *place != '\0')
	{
		Size		len = strcspn(place, ",");

		if (len > name_len && strncmp(place, name, name_len) == 0 &&
			place[name_len] == ' ')
		{
			strlcpy(action, place + name_len + 1,
					Min(sizeof(action), len - name_len));
			return action;
		}
		place += len;
		if (*place == ',')
			place++;
	}
	return NULL;
}

/* Is this to happen at the point? */
static bool
is_set(const char *name, const char *what)
{
	const char *action = action_at(name);

	return action != NULL && strcmp(action, what) == 0;
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

/* As if a signal came now; served where interrupts are the next time. */
static void
cancel_query(void)
{
	QueryCancelPending = true;
	InterruptPending = true;
}

/*
 * The process is at the point with this name.  Raises an error where the setting has
 * it so.
 */
void
loky_debug_point(const char *name)
{
	const char *action = action_at(name);

	if (action == NULL)
		return;
	Assert(CritSectionCount == 0);
	if (strcmp(action, "wait") == 0)
		wait_at(name);
	else if (strcmp(action, "cancel") == 0)
		cancel_query();
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

/*
 * The directory that stands for the root of the system's files, empty where it is the
 * root; in memory that the next point overwrites.
 */
const char *
loky_debug_root(void)
{
	const char *path = action_at("root");

	return path != NULL ? path : "";
}

#endif							/* LOKY_DEBUG */
