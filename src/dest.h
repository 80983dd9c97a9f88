/*-------------------------------------------------------------------------
 *
 * dest.h
 *	  Where the rows of a task go: into a store, or to the items of a map.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/dest.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_DEST_H
#define LOKY_DEST_H

#include "access/tupdesc.h"
#include "lib/stringinfo.h"
#include "tcop/dest.h"

#include "reduce.h"
#include "store.h"

/*
 * A receiver.  Rows with one by-value column can be held back: the last one of
 * a single row stays in value and isnull while held is true, and goes to the
 * store only when another row or anything else follows.
 */
typedef struct LokyDest
{
	DestReceiver pub;
	LokyStoreWriter *writer;
	uint64		max_rows;		/* more raise 21000; 0: no limit */
	bool		hold;			/* hold a single by-value row back */

	/* descriptor that readers know without being told, or NULL */
	const char *known_desc;
	Size		known_desc_len;

	/* of the present rows */
	TupleDesc	desc;
	TupleDesc	storage;
	StringInfoData encoded;		/* the descriptor */
	bool		started;		/* rStartup was called */
	bool		described;		/* the store tells the descriptor */
	bool		byval;			/* one by-value column */
	uint64		nrows;
	bool		held;
	bool		isnull;
	Datum		value;

	/* what columns go through; columns is NULL where none of them does */
	LokyReducers *reducers;
	LokyReducer **columns;
	Datum	   *values;
	bool	   *nulls;
	MemoryContext row_context;
} LokyDest;

extern LokyDest *loky_dest_create(LokyStoreWriter *writer,
								  LokyReducers *reducers);
extern LokyDest *loky_dest_null(void);
extern void loky_dest_reset(LokyDest *dest);
extern void loky_dest_release(LokyDest *dest);
extern void loky_dest_open(LokyDest *dest, TupleDesc desc);
extern void loky_dest_put(LokyDest *dest, Datum value, bool isnull);
extern bool loky_dest_is_plain(const LokyDest *dest);

#endif							/* LOKY_DEST_H */
