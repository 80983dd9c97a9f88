/*-------------------------------------------------------------------------
 *
 * environ.h
 *	  The process environment of an executor's workers.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/environ.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_ENVIRON_H
#define LOKY_ENVIRON_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "config.h"

extern void loky_environ_read(Jsonb *object, StringInfo part);
extern void loky_environ_read_default(StringInfo part);
extern void loky_environ_apply(const LokyConfig *config);
extern void loky_environ_check_read(const char *name);

#endif							/* LOKY_ENVIRON_H */
