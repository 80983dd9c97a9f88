/*-------------------------------------------------------------------------
 *
 * items.h
 *	  The array that is mapped over, item by item.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/items.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_ITEMS_H
#define LOKY_ITEMS_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"

#include "map.h"
#include "reduce.h"

/* An item after its reducers. */
typedef struct LokyReducedItem
{
	Datum	   *values;
	bool	   *nulls;
	ErrorData  *error;			/* of a reducer that failed, or NULL */
} LokyReducedItem;

/*
 * An array of items: an element is one parameter, or, where it is an anonymous
 * row, one for each of its columns.  After loky_items_next, values and nulls
 * are those of the next item, or error says why it cannot be sent.
 */
typedef struct LokyItems
{
	ArrayType  *array;
	int			n;
	Oid			type;			/* of the elements */
	int16		len;
	bool		byval;
	char		align;
	bool		spread;			/* anonymous rows */
	int			nparams;
	Oid		   *own_types;		/* of the element or its columns */
	Oid		   *types;			/* of the parameters */
	Datum	   *values;
	bool	   *nulls;
	ErrorData  *error;
	LokyReducedItem *reduced;	/* NULL: no reducer is for any of them */

	/* the iterator */
	MemoryContext context;		/* of what follows */
	int			position;
	char	   *data;
	uint8	   *bitmap;
	TupleDesc	desc;			/* of anonymous rows, the last one seen */
	int32		typmod;
	Datum	   *row_values;		/* of its columns, dropped ones included */
	bool	   *row_nulls;
} LokyItems;

extern void loky_items_of_array(LokyItems *items, ArrayType *array);
extern void loky_items_open(LokyItems *items, FunctionCallInfo fcinfo,
							int argno);
extern void loky_items_reduce(LokyItems *items, LokyReducers *reducers);
extern void loky_items_next(LokyItems *items);
extern void loky_items_store(LokyItems *items, LokySharedMap *map);

#endif							/* LOKY_ITEMS_H */
