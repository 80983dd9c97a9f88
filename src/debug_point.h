/*-------------------------------------------------------------------------
 *
 * debug_point.h
 *	  Named points at which a test has a process wait or fail.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/debug_point.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_DEBUG_POINT_H
#define LOKY_DEBUG_POINT_H

#ifdef LOKY_DEBUG
extern void loky_debug_point_define(void);
extern void loky_debug_point(const char *name);
extern bool loky_debug_fails(const char *name);
extern const char *loky_debug_root(void);
#else
#define loky_debug_point_define()	((void) 0)
#define loky_debug_point(name)		((void) 0)
#define loky_debug_fails(name)		false
#define loky_debug_root()			""
#endif

#endif							/* LOKY_DEBUG_POINT_H */
