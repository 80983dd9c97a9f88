/*-------------------------------------------------------------------------
 *
 * dest.c
 *	  Where the rows of a task go: into a store, or to the items of a map.
 *
 * Rows are written as minimal tuples after a record with their descriptor; the
 * descriptor is left out where the readers know it already, as for the items of
 * a map that differ only in their values.  A single row with one by-value
 * column, the most frequent outcome of an item, need not go to the store at
 * all.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/dest.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "utils/memutils.h"

#include "codec.h"
#include "dest.h"

/*
 * The descriptor of the rows after their reducers; columns is set for those that
 * have one.
 */
static TupleDesc
reduce_desc(LokyDest *dest, TupleDesc desc)
{
	MemoryContext oldcontext =
		MemoryContextSwitchTo(GetMemoryChunkContext(dest));
	LokyReducer **columns = palloc0(Max(desc->natts, 1) * sizeof(LokyReducer *));
	TupleDesc	reduced = NULL;

	if (dest->columns != NULL)
	{
		pfree(dest->columns);
		pfree(dest->values);
		pfree(dest->nulls);
	}
	dest->columns = columns;
	dest->values = palloc(Max(desc->natts, 1) * sizeof(Datum));
	dest->nulls = palloc(Max(desc->natts, 1) * sizeof(bool));
	MemoryContextSwitchTo(oldcontext);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		columns[i] = loky_reduce_find(dest->reducers, attribute->atttypid);
		if (columns[i] == NULL)
			continue;
		if (reduced == NULL)
			reduced = CreateTupleDescCopy(desc);
		reduced->tdtypeid = RECORDOID;
		reduced->tdtypmod = -1;
		TupleDescInitEntry(reduced, i + 1, NameStr(attribute->attname),
						   loky_reduce_result_type(columns[i]), -1, 0);
	}
	return reduced != NULL ? reduced : desc;
}

/* Rows are about to come. */
static void
startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	LokyDest   *dest = (LokyDest *) self;
	StringInfoData encoded;

	/* a later statement of the same task replaces the rows of an earlier one */
	dest->held = false;
	dest->nrows = 0;
	dest->started = true;

	if (dest->reducers != NULL)
		typeinfo = reduce_desc(dest, typeinfo);
	if (dest->desc != NULL && equalTupleDescs(dest->desc, typeinfo))
		return;

	initStringInfo(&encoded);
	loky_codec_encode_desc(&encoded, typeinfo);
	resetStringInfo(&dest->encoded);
	appendBinaryStringInfo(&dest->encoded, encoded.data, encoded.len);
	pfree(encoded.data);
	dest->described = false;

	{
		MemoryContext oldcontext =
			MemoryContextSwitchTo(GetMemoryChunkContext(dest));

		if (dest->storage != NULL && dest->storage != dest->desc)
			FreeTupleDesc(dest->storage);
		if (dest->desc != NULL)
			FreeTupleDesc(dest->desc);
		dest->desc = CreateTupleDescCopy(typeinfo);
		dest->storage = loky_codec_storage_desc(dest->desc);
		MemoryContextSwitchTo(oldcontext);
	}
	dest->byval = typeinfo->natts == 1 && TupleDescAttr(typeinfo, 0)->attbyval;
}

/* Tell the descriptor, once for each store, unless it is known. */
static void
describe(LokyDest *dest)
{
	if (dest->described)
		return;
	dest->described = true;
	if (dest->known_desc != NULL &&
		dest->known_desc_len == dest->encoded.len &&
		memcmp(dest->known_desc, dest->encoded.data, dest->encoded.len) == 0)
		return;
	loky_store_put(dest->writer, LOKY_RECORD_DESC, dest->encoded.data,
				   dest->encoded.len);
}

static void *
place_row(void *writer, Size len)
{
	return loky_store_put_row(writer, len);
}

static void
write_row(LokyDest *dest, const Datum *values, const bool *nulls)
{
	describe(dest);
	loky_codec_form_row(dest->desc, dest->storage, values, nulls, place_row,
						dest->writer);
}

/* Write out the row that is held back, if there is one. */
void
loky_dest_release(LokyDest *dest)
{
	if (!dest->held)
		return;
	dest->held = false;
	write_row(dest, &dest->value, &dest->isnull);
}

/* Have the columns of the row go through their reducers. */
static void
reduce_row(LokyDest *dest, const Datum *values, const bool *nulls)
{
	MemoryContext oldcontext;

	MemoryContextReset(dest->row_context);
	oldcontext = MemoryContextSwitchTo(dest->row_context);
	for (int i = 0; i < dest->desc->natts; i++)
	{
		dest->values[i] = values[i];
		dest->nulls[i] = nulls[i];
		if (dest->columns[i] != NULL && !dest->nulls[i])
			dest->values[i] =
				loky_reduce_value(dest->columns[i],
								  TupleDescAttr(dest->desc, i)->atttypid,
								  dest->values[i], &dest->nulls[i]);
	}
	MemoryContextSwitchTo(oldcontext);
}

/* A row of these values. */
static void
put_values(LokyDest *dest, const Datum *values, const bool *nulls)
{
	if (dest->max_rows > 0 && dest->nrows >= dest->max_rows)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("task returned more than one row for an item"),
				 errhint("Use loky.flat_map() for tasks that return any number of rows.")));
	if (dest->columns != NULL)
	{
		reduce_row(dest, values, nulls);
		values = dest->values;
		nulls = dest->nulls;
	}
	dest->nrows++;
	if (dest->hold && dest->nrows == 1 && dest->desc->natts == 1 &&
		(dest->byval || nulls[0]))
	{
		dest->held = true;
		dest->value = values[0];
		dest->isnull = nulls[0];
		return;
	}
	loky_dest_release(dest);
	write_row(dest, values, nulls);
}

/* One row. */
static bool
receive(TupleTableSlot *slot, DestReceiver *self)
{
	slot_getallattrs(slot);
	put_values((LokyDest *) self, slot->tts_values, slot->tts_isnull);
	return true;
}

static void
shutdown(DestReceiver *self)
{
	LokyDest   *dest = (LokyDest *) self;

	/* an empty set of rows has a descriptor too */
	if (dest->nrows == 0)
		describe(dest);
}

static void
destroy(DestReceiver *self)
{
}

/*
 * A receiver in CurrentMemoryContext, for the life of the process, with what
 * results go through, or NULL.
 */
LokyDest *
loky_dest_create(LokyStoreWriter *writer, LokyReducers *reducers)
{
	LokyDest   *dest = palloc0(sizeof(LokyDest));

	dest->pub.receiveSlot = receive;
	dest->pub.rStartup = startup;
	dest->pub.rShutdown = shutdown;
	dest->pub.rDestroy = destroy;
	dest->pub.mydest = DestTuplestore;
	dest->writer = writer;
	dest->reducers = reducers;
	if (reducers != NULL)
		dest->row_context = AllocSetContextCreate(CurrentMemoryContext,
												  "loky reduced row",
												  ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&dest->encoded);
	return dest;
}

/* Rows with one column, as desc says, are about to come from loky_dest_put(). */
void
loky_dest_open(LokyDest *dest, TupleDesc desc)
{
	if (dest->writer != NULL)
		startup(&dest->pub, CMD_SELECT, desc);
}

/*
 * The only value of the only row, after loky_dest_reset().  The descriptor is that
 * of the last loky_dest_open().
 */
void
loky_dest_put(LokyDest *dest, Datum value, bool isnull)
{
	dest->started = true;
	if (dest->writer != NULL)
		put_values(dest, &value, &isnull);
}

/* Does a value of the only column need no record, but for its descriptor? */
bool
loky_dest_is_plain(const LokyDest *dest)
{
	return dest->hold && dest->columns == NULL && dest->byval;
}

/* The receiver of rows that nobody reads. */
LokyDest *
loky_dest_null(void)
{
	static LokyDest dest;

	dest.pub = *None_Receiver;
	return &dest;
}

/* A new store has been begun. */
void
loky_dest_reset(LokyDest *dest)
{
	dest->started = false;
	dest->described = false;
	dest->held = false;
	dest->nrows = 0;
}
