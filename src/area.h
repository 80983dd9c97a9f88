/*-------------------------------------------------------------------------
 *
 * area.h
 *	  The memory for arguments and results, inside the main segment.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/area.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_AREA_H
#define LOKY_AREA_H

#include "utils/dsa.h"

/* postmaster only */
extern Size loky_area_size(void);
extern void loky_area_init(void *place, Size size, int tranche);

/* any process */
extern void loky_area_attach(void *place);
extern dsa_pointer loky_area_alloc(Size size);
extern bool loky_area_has_room(Size size);
extern void *loky_area_address(dsa_pointer dp);
extern void loky_area_free(dsa_pointer dp);
extern Size loky_area_used(void);
extern uint32 loky_area_next_file(void);

#endif							/* LOKY_AREA_H */
