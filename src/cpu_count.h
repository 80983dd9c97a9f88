/*-------------------------------------------------------------------------
 *
 * cpu_count.h
 *	  The number of processors that this server may use.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/cpu_count.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_CPU_COUNT_H
#define LOKY_CPU_COUNT_H

extern int	loky_cpu_count(bool only_physical_cores);

#endif							/* LOKY_CPU_COUNT_H */
