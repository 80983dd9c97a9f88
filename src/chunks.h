/*-------------------------------------------------------------------------
 *
 * chunks.h
 *	  Cutting a table into pieces that workers can take.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/chunks.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_CHUNKS_H
#define LOKY_CHUNKS_H

#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"

/* Rows by their place: from lo on, below hi. */
typedef struct LokyTidChunk
{
	ItemPointerData lo;
	ItemPointerData hi;
} LokyTidChunk;

/* Rows by their key: from lo to hi. */
typedef struct LokyKeyChunk
{
	Datum		lo;
	Datum		hi;
	int64		rows;
} LokyKeyChunk;

/* A column that leads a btree index, and how its values are compared. */
typedef struct LokyKeyColumn
{
	Oid			rel;
	const char *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
	int16		len;
	bool		byval;
	Oid			output;			/* functions */
	Oid			input;
	Oid			ioparam;
	Oid			compare;
} LokyKeyColumn;

/* table_chunks.c */
extern LokyTidChunk *loky_table_chunks(Oid rel, int nchunks, int nworkers,
									   bool for_workers, int *n);
extern Relation loky_table_open(Oid rel);
extern void loky_table_check_readable(Oid rel);
extern void loky_table_check_shared(Oid rel);
extern ArrayType *loky_table_chunk_items(const LokyTidChunk *chunks, int n);

/* key_chunks.c */
extern void loky_key_find(Oid rel, const char *name, LokyKeyColumn *column);
extern LokyKeyChunk *loky_key_chunks(Oid rel, const char *name, int chunk_rows,
									 LokyKeyColumn *column, int *n,
									 int64 *nnulls);
extern ArrayType *loky_key_chunk_items(const LokyKeyColumn *column,
									   const LokyKeyChunk *chunks, int n);

/* key_ranges.c */
extern LokyKeyChunk *loky_key_ranges(const LokyKeyColumn *column,
									 Jsonb *ranges, int *n);
extern int	loky_key_begin_text(void);
extern char *loky_key_text(const LokyKeyColumn *column, Datum value);
extern void loky_key_end_text(int level);

#endif							/* LOKY_CHUNKS_H */
