/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  What a worker keeps of a text that it has run.  For run.c and
 *	  expression.c only.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/plan.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_PLAN_H
#define LOKY_PLAN_H

#include "lib/ilist.h"
#include "utils/plancache.h"

#include "expression.h"
#include "run.h"

struct LokyPlan
{
	dlist_node	node;			/* the one used last is the first */
	MemoryContext context;		/* of all below but the plan source */
	uint64		hash;
	uint64		functions;		/* as they were when it was made */
	char	   *sql;
	char	   *search_path;	/* that names were looked up in */
	int			nargs;
	Oid		   *types;			/* as given */
	Oid		   *final_types;	/* UNKNOWN replaced by what was inferred */
	CachedPlanSource *source;	/* NULL: several statements */
	bool		repeatable_known;
	bool		repeatable;
	bool		no_expression;	/* it is more than one */
	LokyExpression *expression; /* compiled, or NULL */
};

#endif							/* LOKY_PLAN_H */
