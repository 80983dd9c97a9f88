/*-------------------------------------------------------------------------
 *
 * vacate.h
 *	  Having the workers of a database or a role leave.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/vacate.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_VACATE_H
#define LOKY_VACATE_H

#include "lib/stringinfo.h"

#include "pool.h"

/* Whose workers: InvalidOid stands for any database, or any role. */
typedef struct LokyTenant
{
	Oid			database;
	Oid			role;
} LokyTenant;

/* Which work keeps workers from leaving. */
typedef enum LokyHeed
{
	LOKY_HEED_NOTHING,			/* those that are idle leave, others go on */
	LOKY_HEED_RUNNING,			/* what runs */
	LOKY_HEED_UNFINISHED		/* what runs and what is pending */
} LokyHeed;

/* Futures that are named where more are meant. */
#define LOKY_USE_FUTURES	5

/* What goes on there. */
typedef struct LokyUse
{
	int			ntasks;			/* that run */
	int			nmaps;			/* workers that run items */
	int			ninitializers;	/* workers that run one */
	int			npending;		/* tasks */
	int			nidle;			/* workers that could leave now, or are leaving */
	uint64		futures[LOKY_USE_FUTURES];	/* the first of those that run */
} LokyUse;

extern bool loky_vacate(const LokyTenant *tenant, LokyHeed heed, LokyUse *use);
extern void loky_vacate_describe(const LokyUse *use, StringInfo buf);
extern void loky_vacate_forget_database(Oid database);

#endif							/* LOKY_VACATE_H */
