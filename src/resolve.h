/*-------------------------------------------------------------------------
 *
 * resolve.h
 *	  What a task's text means: a function, a procedure, or statements.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/resolve.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_RESOLVE_H
#define LOKY_RESOLVE_H

#include "nodes/nodes.h"

typedef struct LokyCallable
{
	const char *sql;			/* what a worker is to run */
	uint64		hash;			/* of it and the parameter types */
} LokyCallable;

extern const LokyCallable *loky_resolve(const char *task, int nargs,
										const Oid *types);

/* calls of a function with one argument */
extern char *loky_resolve_call(const char *name, Oid type);
extern Node *loky_resolve_analyze_call(const char *call, Oid type);

#endif							/* LOKY_RESOLVE_H */
