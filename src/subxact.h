/*-------------------------------------------------------------------------
 *
 * subxact.h
 *	  Running something in a subtransaction, whatever becomes of it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/subxact.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_SUBXACT_H
#define LOKY_SUBXACT_H

#include "utils/elog.h"

/* What becomes of what the body has done when it succeeds. */
typedef enum LokySubxactEnd
{
	LOKY_SUBXACT_KEEP,
	LOKY_SUBXACT_UNDO			/* also its locks are given back */
} LokySubxactEnd;

typedef void (*LokySubxactBody) (void *arg);

extern ErrorData *loky_subxact_try(LokySubxactBody body, void *arg,
								   LokySubxactEnd end);

#endif							/* LOKY_SUBXACT_H */
