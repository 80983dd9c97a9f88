/*-------------------------------------------------------------------------
 *
 * key_chunks.c
 *	  Cutting a table into ranges of a key.
 *
 * The keys are read once, in order, as the caller and in the snapshot of the
 * calling statement.  A chunk ends after so many rows, but never between equal
 * keys.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/key_chunks.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "chunks.h"
#include "subxact.h"

/* Receives the keys in their order. */
typedef struct KeyReceiver
{
	DestReceiver pub;
	const LokyKeyColumn *column;
	FmgrInfo	compare;
	int64		chunk_rows;
	MemoryContext context;		/* of the chunks */
	LokyKeyChunk *chunks;		/* the last one grows */
	int			n;
	int			room;
	int64		nnulls;
} KeyReceiver;

/* The name of the table as SQL wants it. */
static char *
qualified_name(Oid rel)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(rel)),
									  get_rel_name(rel));
}

/* No index will do for the column; one could be made where it has an order. */
static void
raise_no_index(const LokyKeyColumn *column, bool has_order)
{
	bool		whole = get_rel_relkind(column->rel) != RELKIND_PARTITIONED_TABLE;

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("column \"%s\" of \"%s\" leads no btree index",
					column->name, get_rel_name(column->rel)),
			 has_order ?
			 errhint("Create one: CREATE INDEX %sON %s (%s).",
					 whole ? "CONCURRENTLY " : "", qualified_name(column->rel),
					 quote_identifier(column->name)) :
			 errhint("Name a column of a type that has an order.")));
}

/* Does the index find rows by ranges of the column, all rows of the table? */
static bool
index_fits(Relation index, AttrNumber column, const LokyKeyColumn *key, Oid family)
{
	return index->rd_rel->relam == BTREE_AM_OID &&
		index->rd_index->indisvalid &&
		index->rd_index->indkey.values[0] == column &&
		index->rd_opfamily[0] == family &&
		index->rd_indcollation[0] == key->collation &&
		RelationGetIndexPredicate(index) == NIL;
}

/* Raise 42704 where no btree index begins with the column. */
static void
check_index(Relation rel, AttrNumber number, const LokyKeyColumn *column)
{
	Oid			opclass = GetDefaultOpClass(column->type, BTREE_AM_OID);
	ListCell   *lc;
	bool		found = false;

	if (!OidIsValid(opclass))
		raise_no_index(column, false);
	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found |= index_fits(index, number, column, get_opclass_family(opclass));
		index_close(index, AccessShareLock);
	}
	if (!found)
		raise_no_index(column, true);
}

/* The only column of the primary key; raises 42704 where there is not one. */
static AttrNumber
primary_key(Relation rel)
{
	AttrNumber	number = InvalidAttrNumber;
	ListCell   *lc;

	/* one that is deferrable will do as well */
	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indisprimary && index->rd_index->indnkeyatts == 1)
			number = index->rd_index->indkey.values[0];
		index_close(index, AccessShareLock);
	}
	if (number == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" has no primary key of one column",
						RelationGetRelationName(rel)),
				 errhint("Name the key: key => 'column'.")));
	return number;
}

/* Raise 42809 for what has no keys of its own. */
static void
check_kind(Relation rel)
{
	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_MATVIEW:
			return;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is not a table",
							RelationGetRelationName(rel)),
					 errhint("Name a table whose key has a btree index.")));
	}
}

/*
 * Find the column of this name, or the primary key's where that is NULL.  Holds no
 * lock when it returns: a chunk of a backfill that met a lock which waits for one of
 * its caller's would never end.  Raises 42P01 where there is no such table, 42703
 * where there is no such column, 42704 where no btree index begins with it, and
 * 42809 for what is no table.
 */
void
loky_key_find(Oid relid, const char *name, LokyKeyColumn *column)
{
	Relation	rel;
	AttrNumber	number;
	bool		varlena;
	Form_pg_attribute attribute;

	loky_table_check_exists(relid);
	rel = relation_open(relid, AccessShareLock);
	check_kind(rel);
	number = name == NULL ? primary_key(rel) : get_attnum(relid, name);
	if (number == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						name, RelationGetRelationName(rel)),
				 errhint("Name a column that leads a btree index.")));
	column->rel = relid;
	column->name = name;
	if (number > 0)
	{
		attribute = TupleDescAttr(RelationGetDescr(rel), number - 1);
		column->name = pstrdup(NameStr(attribute->attname));
		column->type = attribute->atttypid;
		column->typmod = attribute->atttypmod;
		column->collation = attribute->attcollation;
	}
	else
		raise_no_index(column, false);
	check_index(rel, number, column);
	relation_close(rel, AccessShareLock);
	get_typlenbyval(column->type, &column->len, &column->byval);
	getTypeOutputInfo(column->type, &column->output, &varlena);
	getTypeInputInfo(column->type, &column->input, &column->ioparam);
	{
		Oid			opclass = GetDefaultOpClass(column->type, BTREE_AM_OID);

		column->compare = get_opfamily_proc(get_opclass_family(opclass),
											get_opclass_input_type(opclass),
											get_opclass_input_type(opclass),
											BTORDER_PROC);
	}
}

static void
start_keys(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
end_keys(DestReceiver *self)
{
}

/* Make value the last key of the chunk. */
static void
set_hi(KeyReceiver *receiver, LokyKeyChunk *chunk, Datum value)
{
	const LokyKeyColumn *column = receiver->column;

	if (column->byval)
	{
		chunk->hi = value;
		return;
	}
	if (chunk->rows > 1)
		pfree(DatumGetPointer(chunk->hi));
	chunk->hi = datumCopy(value, false, column->len);
}

/* The last chunk, if the key belongs to it: it has room, or ends with an equal key. */
static LokyKeyChunk *
open_chunk(KeyReceiver *receiver, Datum value)
{
	LokyKeyChunk *chunk;

	if (receiver->n == 0)
		return NULL;
	chunk = &receiver->chunks[receiver->n - 1];
	if (chunk->rows < receiver->chunk_rows)
		return chunk;
	return DatumGetInt32(FunctionCall2Coll(&receiver->compare,
										   receiver->column->collation,
										   chunk->hi, value)) == 0 ? chunk : NULL;
}

/* A new chunk that begins with the key. */
static LokyKeyChunk *
add_chunk(KeyReceiver *receiver, Datum value)
{
	const LokyKeyColumn *column = receiver->column;
	LokyKeyChunk *chunk;

	if (receiver->n == receiver->room)
	{
		receiver->room *= 2;
		receiver->chunks = repalloc_huge(receiver->chunks,
										 receiver->room * sizeof(LokyKeyChunk));
	}
	chunk = &receiver->chunks[receiver->n++];
	chunk->rows = 0;
	chunk->lo = datumCopy(value, column->byval, column->len);
	return chunk;
}

/* The next key. */
static bool
receive_key(TupleTableSlot *slot, DestReceiver *self)
{
	KeyReceiver *receiver = (KeyReceiver *) self;
	LokyKeyChunk *chunk;
	MemoryContext oldcontext;
	bool		isnull;
	Datum		given = slot_getattr(slot, 1, &isnull);
	Datum		value = given;

	if (isnull)
	{
		receiver->nnulls++;
		return true;
	}
	oldcontext = MemoryContextSwitchTo(receiver->context);
	if (receiver->column->len == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM_PACKED(given));
	chunk = open_chunk(receiver, value);
	if (chunk == NULL)
		chunk = add_chunk(receiver, value);
	chunk->rows++;
	set_hi(receiver, chunk, value);
	if (value != given)
		pfree(DatumGetPointer(value));
	MemoryContextSwitchTo(oldcontext);
	return true;
}

/* A query for keys, and who receives them. */
typedef struct KeyQuery
{
	const char *sql;
	DestReceiver *receiver;
} KeyQuery;

/* Run the query as the caller and in its snapshot. */
static void
read_keys(void *arg)
{
	KeyQuery   *query = arg;
	SPIExecuteOptions options = {0};

	options.read_only = true;
	options.dest = query->receiver;
	SPI_connect();
	(void) SPI_execute_extended(query->sql, &options);
	SPI_finish();
}

/*
 * Chunks of the table of chunk_rows rows each, *n of them, in CurrentMemoryContext;
 * *nnulls is the number of rows without a key.  Holds no lock when it returns.
 * Raises 42501 where the caller may not read the column.
 */
LokyKeyChunk *
loky_key_chunks(const LokyKeyColumn *column, int chunk_rows, int *n, int64 *nnulls)
{
	KeyReceiver receiver = {0};
	KeyQuery	query;
	ErrorData  *edata;

	receiver.pub.receiveSlot = receive_key;
	receiver.pub.rStartup = start_keys;
	receiver.pub.rShutdown = end_keys;
	receiver.pub.rDestroy = end_keys;
	receiver.pub.mydest = DestNone;
	receiver.column = column;
	receiver.context = CurrentMemoryContext;
	receiver.chunk_rows = chunk_rows;
	receiver.room = 64;
	receiver.chunks = palloc(receiver.room * sizeof(LokyKeyChunk));
	fmgr_info(column->compare, &receiver.compare);
	query.sql = psprintf("SELECT %s FROM %s ORDER BY 1",
						 quote_identifier(column->name),
						 qualified_name(column->rel));
	query.receiver = (DestReceiver *) &receiver;

	/* undone, so that it lets go of all locks: see loky_key_find() */
	edata = loky_subxact_try(read_keys, &query, LOKY_SUBXACT_UNDO);
	if (edata != NULL)
		ReThrowError(edata);
	*n = receiver.n;
	*nnulls = receiver.nnulls;
	return receiver.chunks;
}

/* The chunks as rows of two keys, to be mapped over. */
ArrayType *
loky_key_chunk_items(const LokyKeyColumn *column, const LokyKeyChunk *chunks, int n)
{
	TupleDesc	desc = CreateTemplateTupleDesc(2);
	Datum	   *rows = palloc_extended(Max(n, 1) * sizeof(Datum),
									   MCXT_ALLOC_HUGE);

	TupleDescInitEntry(desc, 1, "lo", column->type, column->typmod, 0);
	TupleDescInitEntry(desc, 2, "hi", column->type, column->typmod, 0);
	desc = BlessTupleDesc(desc);
	for (int i = 0; i < n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};

		values[0] = chunks[i].lo;
		values[1] = chunks[i].hi;
		rows[i] = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
	}
	return construct_array(rows, n, RECORDOID, -1, false, TYPALIGN_DOUBLE);
}
