/*-------------------------------------------------------------------------
 *
 * worker_memory.h
 *	  How much memory a process holds.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/worker_memory.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_WORKER_MEMORY_H
#define LOKY_WORKER_MEMORY_H

extern int64 loky_worker_memory_of(int pid);
extern int64 loky_worker_memory_own(void);
extern void loky_worker_memory_trim(void);

#endif							/* LOKY_WORKER_MEMORY_H */
