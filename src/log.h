/*-------------------------------------------------------------------------
 *
 * log.h
 *	  What the server's log tells of statements that workers run.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/log.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_LOG_H
#define LOKY_LOG_H

#include "nodes/params.h"
#include "nodes/pg_list.h"

extern bool loky_log_is_on(void);
extern bool loky_log_begin(const char *sql, List *raws, ParamListInfo params);
extern void loky_log_end(const char *sql, ParamListInfo params, bool was_logged);

#endif							/* LOKY_LOG_H */
