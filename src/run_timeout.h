/*-------------------------------------------------------------------------
 *
 * run_timeout.h
 *	  A limit to the time that a task, or an item of a map, may take.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/run_timeout.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_RUN_TIMEOUT_H
#define LOKY_RUN_TIMEOUT_H

#include "datatype/timestamp.h"
#include "utils/elog.h"

/* in a caller */
extern uint64 loky_limit_of_interval(const Interval *interval, const char *name);

/* in a worker */
extern void loky_limit_arm(uint64 us, const char *name);
extern void loky_limit_check(void);
extern void loky_limit_close(void);
extern void loky_limit_disarm(void);
extern bool loky_limit_stop(void);
extern void loky_limit_explain(ErrorData *edata);

#endif							/* LOKY_RUN_TIMEOUT_H */
