/*-------------------------------------------------------------------------
 *
 * key_chunks.c
 *	  Cutting a table into ranges of a key.
 *
 * The keys are read once, in order, as the caller and in the snapshot of the
 * calling statement.  A chunk ends after so many rows, but never between equal
 * keys.  Keys are given out as text in a form that reads back as the same value,
 * whatever the session's settings.
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

static void
raise_no_index(const LokyKeyColumn *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("column \"%s\" of \"%s\" leads no btree index",
					column->name, get_rel_name(column->rel)),
			 errhint("Create one: CREATE INDEX CONCURRENTLY ON %s (%s).",
					 qualified_name(column->rel),
					 quote_identifier(column->name))));
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
		raise_no_index(column);
	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found |= index_fits(index, number, column, get_opclass_family(opclass));
		index_close(index, NoLock);
	}
	if (!found)
		raise_no_index(column);
}

/* The only column of the primary key; raises 42704 where there is not one. */
static AttrNumber
primary_key(Relation rel)
{
	Oid			oid;
	Relation	index;
	AttrNumber	number = InvalidAttrNumber;

	(void) RelationGetIndexList(rel);
	oid = rel->rd_pkindex;
	if (OidIsValid(oid))
	{
		index = index_open(oid, AccessShareLock);
		if (index->rd_index->indnkeyatts == 1)
			number = index->rd_index->indkey.values[0];
		index_close(index, NoLock);
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
 * Find the column of this name, or the primary key's where that is NULL.  Locks the
 * table with AccessShareLock until the end of the transaction.  Raises 42703
 * where there is no such column, 42704 where no btree index begins with it, and
 * 42809 for what is no table.
 */
void
loky_key_find(Oid relid, const char *name, LokyKeyColumn *column)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	AttrNumber	number;
	bool		varlena;
	Form_pg_attribute attribute;

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
		raise_no_index(column);
	check_index(rel, number, column);
	relation_close(rel, NoLock);
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

/* The next key. */
static bool
receive_key(TupleTableSlot *slot, DestReceiver *self)
{
	KeyReceiver *receiver = (KeyReceiver *) self;
	const LokyKeyColumn *column = receiver->column;
	LokyKeyChunk *chunk = NULL;
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
	if (column->len == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM_PACKED(given));
	if (receiver->n > 0)
		chunk = &receiver->chunks[receiver->n - 1];
	if (chunk == NULL ||
		(chunk->rows >= receiver->chunk_rows &&
		 DatumGetInt32(FunctionCall2Coll(&receiver->compare, column->collation,
										 chunk->hi, value)) != 0))
	{
		if (receiver->n == receiver->room)
		{
			receiver->room *= 2;
			receiver->chunks = repalloc_huge(receiver->chunks,
											 receiver->room * sizeof(LokyKeyChunk));
		}
		chunk = &receiver->chunks[receiver->n++];
		chunk->rows = 0;
		chunk->lo = datumCopy(value, column->byval, column->len);
	}
	chunk->rows++;
	set_hi(receiver, chunk, value);
	if (value != given)
		pfree(DatumGetPointer(value));
	MemoryContextSwitchTo(oldcontext);
	return true;
}

/*
 * Chunks of the table of chunk_rows rows each, *n of them, in CurrentMemoryContext;
 * *nnulls is the number of rows without a key.  Raises 42501 where the caller
 * may not read the column.
 */
LokyKeyChunk *
loky_key_chunks(const LokyKeyColumn *column, int chunk_rows, int *n, int64 *nnulls)
{
	KeyReceiver receiver = {0};
	SPIExecuteOptions options = {0};
	char	   *sql = psprintf("SELECT %s FROM %s ORDER BY 1",
							   quote_identifier(column->name),
							   qualified_name(column->rel));

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

	SPI_connect();
	options.read_only = true;
	options.dest = (DestReceiver *) &receiver;
	(void) SPI_execute_extended(sql, &options);
	SPI_finish();
	*n = receiver.n;
	*nnulls = receiver.nnulls;
	return receiver.chunks;
}

/* The bound of a range that is given as JSON. */
static Datum
read_bound(const LokyKeyColumn *column, JsonbContainer *object, const char *name,
		   int number)
{
	JsonbValue *value = getKeyJsonValueFromContainer(object, name,
													 (int) strlen(name), NULL);
	char	   *text = NULL;

	if (value != NULL && value->type == jbvString)
		text = pnstrdup(value->val.string.val, value->val.string.len);
	else if (value != NULL && value->type == jbvNumeric)
		text = DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(value->val.numeric)));
	if (text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("range %d has no \"%s\"", number, name),
				 errhint("Give ranges as [{\"lo\": \"1\", \"hi\": \"10000\"}, ...], as loky.backfill() and loky.key_chunks() return them.")));
	return OidInputFunctionCall(column->input, text, column->ioparam,
								column->typmod);
}

/*
 * The ranges given as an array of JSON objects with lo and hi, *n of them, in
 * CurrentMemoryContext.  Raises 22023 for anything else, and what the type's
 * input function raises.
 */
LokyKeyChunk *
loky_key_ranges(const LokyKeyColumn *column, Jsonb *ranges, int *n)
{
	JsonbContainer *root = &ranges->root;
	LokyKeyChunk *chunks;

	if (!JsonContainerIsArray(root) || JsonContainerIsScalar(root))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"ranges\" must be a JSON array"),
				 errhint("Give ranges as [{\"lo\": \"1\", \"hi\": \"10000\"}, ...].")));
	*n = (int) JsonContainerSize(root);
	chunks = palloc(Max(*n, 1) * sizeof(LokyKeyChunk));
	for (int i = 0; i < *n; i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(root, i);

		if (value->type != jbvBinary ||
			!JsonContainerIsObject(value->val.binary.data))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("range %d is not a JSON object", i + 1),
					 errhint("Give ranges as [{\"lo\": \"1\", \"hi\": \"10000\"}, ...].")));
		chunks[i].lo = read_bound(column, value->val.binary.data, "lo", i + 1);
		chunks[i].hi = read_bound(column, value->val.binary.data, "hi", i + 1);
		chunks[i].rows = 0;
	}
	return chunks;
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

/*
 * Have keys written so that they read back as the same value.  Returns what
 * loky_key_end_text() wants; an error in between ends it as well.
 */
int
loky_key_begin_text(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("datestyle", "ISO", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("intervalstyle", "postgres", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (extra_float_digits < 1)
		(void) set_config_option("extra_float_digits", "1", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

char *
loky_key_text(const LokyKeyColumn *column, Datum value)
{
	return OidOutputFunctionCall(column->output, value);
}

void
loky_key_end_text(int level)
{
	AtEOXact_GUC(true, level);
}
