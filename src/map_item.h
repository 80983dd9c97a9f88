/*-------------------------------------------------------------------------
 *
 * map_item.h
 *	  One item of a map: its parameters, its run, its outcome.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_item.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_MAP_ITEM_H
#define LOKY_MAP_ITEM_H

#include "codec.h"
#include "expression.h"
#include "map.h"
#include "run.h"

/* What a worker needs to know of its map, while it works on it. */
typedef struct LokyMapJob
{
	LokySharedMap *map;
	LokySharedPart *part;
	LokySharedOutcome *outcomes;	/* of the part */
	MemoryContext context;		/* for the life of this */
	LokyValues	common;			/* the arguments after the item's own */
	Oid		   *types;			/* of all parameters; NULL: items tell theirs */
	Oid		   *shape;
	const uint32 *offsets;		/* NULL: fixed width */
	const char *items;			/* NULL: in a file, or all are null */
	Size		stride;			/* of items of fixed width */
	bool		repeatable;		/* as far as is known */
	uint64		last_rows;		/* of the item that ran last */
	int			log_min_duration;	/* ms, as the submitter has it; -1: off */

	/* For the length of a transaction; NULL before its first item. */
	LokyPlan   *plan;
	LokyExpression *expression; /* that is all of the plan, or NULL */
	bool		has_snapshot;	/* which expressions need */
	bool		plain;			/* values need no record */
} LokyMapJob;

extern void loky_item_open_job(LokyMapJob *job);
extern void loky_item_begin(LokyMapJob *job);
extern bool loky_item_is_cheap(const LokyMapJob *job);
extern void loky_item_run(LokyMapJob *job, uint64 item);
extern void loky_item_run_cheap(LokyMapJob *job, uint64 item, uint64 end);
extern void loky_item_end(LokyMapJob *job);
extern void loky_item_forget_progress(void);

#endif							/* LOKY_MAP_ITEM_H */
