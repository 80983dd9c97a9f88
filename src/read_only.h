/*-------------------------------------------------------------------------
 *
 * read_only.h
 *	  Tasks that may only read.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/read_only.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_READ_ONLY_H
#define LOKY_READ_ONLY_H

/* any backend */
extern bool loky_read_only_is_due(void);

/* worker only */
extern void loky_read_only_watch(void);
extern void loky_read_only_begin(bool read_only);
extern void loky_read_only_check(void);
extern void loky_read_only_end(void);

#endif							/* LOKY_READ_ONLY_H */
