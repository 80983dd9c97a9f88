/*-------------------------------------------------------------------------
 *
 * effects.h
 *	  Whether running a query may leave anything behind.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/effects.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_EFFECTS_H
#define LOKY_EFFECTS_H

#include "nodes/parsenodes.h"

extern bool loky_effects_are_possible(Query *query);
extern bool loky_effects_of_type(Oid type);

#endif							/* LOKY_EFFECTS_H */
