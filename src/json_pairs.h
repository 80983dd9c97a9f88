/*-------------------------------------------------------------------------
 *
 * json_pairs.h
 *	  A JSON object as names and texts.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/json_pairs.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_JSON_PAIRS_H
#define LOKY_JSON_PAIRS_H

#include "utils/jsonb.h"

typedef struct LokyJsonPair
{
	char	   *name;
	char	   *value;			/* NULL for null */
	bool		is_bool;		/* then value is "true" or "false" */
} LokyJsonPair;

extern LokyJsonPair *loky_json_pairs(Jsonb *object, const char *what,
									 const char *example, const char *values,
									 int *n);

#endif							/* LOKY_JSON_PAIRS_H */
