/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The launcher process.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/launcher.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_LAUNCHER_H
#define LOKY_LAUNCHER_H

extern void loky_launcher_register(void);
extern PGDLLEXPORT void loky_launcher_main(Datum main_arg);

#endif							/* LOKY_LAUNCHER_H */
