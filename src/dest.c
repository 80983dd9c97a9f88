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
#include "executor/tuptable.h"
#include "utils/memutils.h"

#include "codec.h"
#include "dest.h"

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

static void
write_row(LokyDest *dest, const Datum *values, const bool *nulls)
{
	MinimalTuple tuple;

	describe(dest);
	tuple = loky_codec_form_row(dest->desc, dest->storage, values, nulls);
	loky_store_put(dest->writer, LOKY_RECORD_ROW, tuple, tuple->t_len);
	pfree(tuple);
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

/* One row. */
static bool
receive(TupleTableSlot *slot, DestReceiver *self)
{
	LokyDest   *dest = (LokyDest *) self;

	if (dest->max_rows > 0 && dest->nrows >= dest->max_rows)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("task returned more than one row for an item"),
				 errhint("Use loky.flat_map() for tasks that return any number of rows.")));
	slot_getallattrs(slot);
	dest->nrows++;
	if (dest->hold && dest->nrows == 1 && dest->desc->natts == 1 &&
		(dest->byval || slot->tts_isnull[0]))
	{
		dest->held = true;
		dest->value = slot->tts_values[0];
		dest->isnull = slot->tts_isnull[0];
		return true;
	}
	loky_dest_release(dest);
	write_row(dest, slot->tts_values, slot->tts_isnull);
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

/* A receiver in CurrentMemoryContext, for the life of the process. */
LokyDest *
loky_dest_create(LokyStoreWriter *writer)
{
	LokyDest   *dest = palloc0(sizeof(LokyDest));

	dest->pub.receiveSlot = receive;
	dest->pub.rStartup = startup;
	dest->pub.rShutdown = shutdown;
	dest->pub.rDestroy = destroy;
	dest->pub.mydest = DestTuplestore;
	dest->writer = writer;
	initStringInfo(&dest->encoded);
	return dest;
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
