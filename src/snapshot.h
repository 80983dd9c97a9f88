/*-------------------------------------------------------------------------
 *
 * snapshot.h
 *	  A caller's snapshot, for its workers.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/snapshot.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_SNAPSHOT_H
#define LOKY_SNAPSHOT_H

#include "utils/dsa.h"

extern dsa_pointer loky_snapshot_share(void);
extern void loky_snapshot_adopt(dsa_pointer dp);

#endif							/* LOKY_SNAPSHOT_H */
