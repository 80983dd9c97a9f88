/*-------------------------------------------------------------------------
 *
 * completed.h
 *	  Futures one after the other, as their tasks end.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/completed.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_COMPLETED_H
#define LOKY_COMPLETED_H

#include "datatype/timestamp.h"

typedef struct LokyCompleted LokyCompleted;

extern LokyCompleted *loky_completed_open(const int64 *ids, int n,
										  TimestampTz deadline);
extern bool loky_completed_next(LokyCompleted *completed, int64 *id);

#endif							/* LOKY_COMPLETED_H */
