/*-------------------------------------------------------------------------
 *
 * remembered.h
 *	  The configurations that this session has used.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/remembered.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_REMEMBERED_H
#define LOKY_REMEMBERED_H

#include "config.h"

extern void loky_remembered_add(int id, const LokyConfig *config,
								int max_workers);
extern bool loky_remembered_has(int id);
extern LokyConfig *loky_remembered_copy(int id, int *max_workers);

#endif							/* LOKY_REMEMBERED_H */
