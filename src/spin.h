/*-------------------------------------------------------------------------
 *
 * spin.h
 *	  Waiting for a short while without sleeping.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/spin.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_SPIN_H
#define LOKY_SPIN_H

/* Is what is waited for there? */
typedef bool (*LokySpinTest) (const void *arg);

extern bool loky_spin(LokySpinTest test, const void *arg);

#endif							/* LOKY_SPIN_H */
