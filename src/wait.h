/*-------------------------------------------------------------------------
 *
 * wait.h
 *	  What processes of loky wait for, as pg_stat_activity shows it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/wait.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_WAIT_H
#define LOKY_WAIT_H

typedef enum LokyWait
{
	LOKY_WAIT_TASK,				/* a caller, for a task or items */
	LOKY_WAIT_CANCEL,			/* a caller, for a worker to end what it runs */
	LOKY_WAIT_WORK,				/* a worker, for something to do */
	LOKY_WAIT_DELAY,			/* a worker, between two chunks */
	LOKY_WAIT_LEAVE,			/* a command, for idle workers to leave */
	LOKY_WAIT_LAUNCHER,			/* the launcher, for something to start */
	LOKY_WAIT_DEBUG_POINT		/* any process, for a test to end it */
} LokyWait;

extern void loky_wait_register(void);
extern uint32 loky_wait_event(LokyWait wait);

#endif							/* LOKY_WAIT_H */
