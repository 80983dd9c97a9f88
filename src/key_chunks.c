/*-------------------------------------------------------------------------
 *
 * key_chunks.c
 *	  Cutting a table into ranges of a key.
 *
 * The keys are read once, in order, as the caller and in the snapshot of the
 * calling statement.  A chunk ends after so many rows, but never between equal
 * keys.
 *
 * The table's owner may at any time rename it, its columns or its schema, and put a
 * view in its place, which must not be taken for it: it would run the owner's
 * functions as the caller, and its keys might be of another type.  So the table is
 * looked at and read under one lock, and the query for its keys is made of the table
 * and the column themselves, not of their names.
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
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_clause.h"
#include "parser/parse_collate.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "chunks.h"
#include "compat.h"
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

/*
 * No index will do for the column; one could be made where it has an order.  Of the
 * indexes that it leads, so many would do if they were not partial.
 */
static void
raise_no_index(const LokyKeyColumn *column, bool has_order, int npartial)
{
	bool		whole = get_rel_relkind(column->rel) != RELKIND_PARTITIONED_TABLE;

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("column \"%s\" of \"%s\" leads no btree index",
					column->name, get_rel_name(column->rel)),
			 npartial > 0 ?
			 errdetail("A partial index does not count, as it need not have all rows.") : 0,
			 has_order ?
			 errhint("Create one: CREATE INDEX %sON %s (%s).",
					 whole ? "CONCURRENTLY " : "", qualified_name(column->rel),
					 quote_identifier(column->name)) :
			 errhint("Name a column of a type that has an order.")));
}

/* Does the index find those rows that it has by ranges of the column? */
static bool
index_fits(Relation index, AttrNumber column, const LokyKeyColumn *key, Oid family)
{
	return index->rd_rel->relam == BTREE_AM_OID &&
		index->rd_index->indisvalid &&
		index->rd_index->indkey.values[0] == column &&
		index->rd_opfamily[0] == family &&
		index->rd_indcollation[0] == key->collation;
}

/* Raise 42704 where no btree index begins with the column. */
static void
check_index(Relation rel, AttrNumber number, const LokyKeyColumn *column)
{
	Oid			opclass = GetDefaultOpClass(column->type, BTREE_AM_OID);
	ListCell   *lc;
	int			npartial = 0;
	bool		found = false;

	if (!OidIsValid(opclass))
		raise_no_index(column, false, 0);
	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index_fits(index, number, column, get_opclass_family(opclass)))
		{
			if (RelationGetIndexPredicate(index) == NIL)
				found = true;
			else
				npartial++;
		}
		index_close(index, AccessShareLock);
	}
	if (!found)
		raise_no_index(column, true, npartial);
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

/* Fill in what depends on the type of the column alone. */
static void
look_up_type(LokyKeyColumn *column)
{
	Oid			opclass = GetDefaultOpClass(column->type, BTREE_AM_OID);
	Oid			input = get_opclass_input_type(opclass);
	bool		varlena;

	get_typlenbyval(column->type, &column->len, &column->byval);
	getTypeOutputInfo(column->type, &column->output, &varlena);
	getTypeInputInfo(column->type, &column->input, &column->ioparam);
	column->compare = get_opfamily_proc(get_opclass_family(opclass), input,
										input, BTORDER_PROC);
}

/*
 * Open and lock the table, and find the column of this name, or the primary key's
 * where that is NULL.  Raises 42P01 where there is no such table, 42703 where there
 * is no such column, 42704 where no btree index begins with it, and 42809 for what
 * is no table.
 */
static Relation
open_table(Oid relid, const char *name, LokyKeyColumn *column)
{
	Relation	rel = loky_table_open(relid);
	AttrNumber	number;
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
	if (number < 0)
		raise_no_index(column, false, 0);
	attribute = TupleDescAttr(RelationGetDescr(rel), number - 1);
	column->name = pstrdup(NameStr(attribute->attname));
	column->type = attribute->atttypid;
	column->typmod = attribute->atttypmod;
	column->collation = attribute->attcollation;
	check_index(rel, number, column);
	look_up_type(column);
	return rel;
}

/*
 * Find the column of this name, or the primary key's where that is NULL.  Holds no
 * lock when it returns: a chunk of a backfill that met a lock which waits for one of
 * its caller's would never end.  So the table may be another one by then: what is
 * found is good for values of the column's type, not for queries.  Raises what
 * open_table() does.
 */
void
loky_key_find(Oid relid, const char *name, LokyKeyColumn *column)
{
	relation_close(open_table(relid, name, column), AccessShareLock);
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

/* SELECT column FROM rel ORDER BY 1. */
static Query *
make_query(Relation rel, const LokyKeyColumn *column)
{
	ParseState *pstate = make_parsestate(NULL);
	Query	   *query = makeNode(Query);
	SortBy	   *order = makeNode(SortBy);
	TargetEntry *key;

	addNSItemToQuery(pstate,
					 addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
												   NULL, true, true),
					 true, true, true);
	/* by way of its name, so that the right to read it is checked */
	key = makeTargetEntry((Expr *) colNameToVar(pstate, column->name, true, -1),
						  1, pstrdup(column->name), false);
	order->location = -1;
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->targetList = list_make1(key);
	query->sortClause = addTargetToSortList(pstate, key, NIL,
											query->targetList, order);
	query->rtable = pstate->p_rtable;
#ifdef LOKY_PERMISSIONS_ARE_APART
	query->rteperminfos = pstate->p_rteperminfos;
#endif
	query->jointree = makeFromExpr(pstate->p_joinlist, NULL);
	assign_query_collations(pstate, query);
	free_parsestate(pstate);
	return query;
}

/* Run the query as the caller and in its snapshot.  text stands for it in the log. */
static void
run_query(Query *query, const char *text, DestReceiver *receiver)
{
	Query	   *rewritten = linitial_node(Query, pg_rewrite_query(query));
	QueryDesc  *desc =
		CreateQueryDesc(LokyPlanQuery(rewritten, text, CURSOR_OPT_PARALLEL_OK),
						text, GetActiveSnapshot(), InvalidSnapshot, receiver,
						NULL, NULL, 0);

	ExecutorStart(desc, 0);
	LokyExecutorRun(desc);
	ExecutorFinish(desc);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
}

/* The arguments of loky_key_chunks(). */
typedef struct ChunksCall
{
	Oid			relid;
	const char *name;
	LokyKeyColumn *column;
	KeyReceiver *receiver;
} ChunksCall;

/* Find the column and read its keys. */
static void
read_keys(void *arg)
{
	ChunksCall *call = arg;
	LokyKeyColumn *column = call->column;
	Relation	rel = open_table(call->relid, call->name, column);

	fmgr_info(column->compare, &call->receiver->compare);
	run_query(make_query(rel, column),
			  psprintf("SELECT %s FROM %s ORDER BY 1",
					   quote_identifier(column->name),
					   qualified_name(column->rel)),
			  &call->receiver->pub);
	relation_close(rel, NoLock);
}

/*
 * Chunks of the table of chunk_rows rows each by the column of this name, or the
 * primary key's where that is NULL: *n of them, in CurrentMemoryContext.  *column
 * becomes what loky_key_find() would tell, *nnulls the number of rows without a key.
 * Holds no lock when it returns.  Raises what loky_key_find() does, and 42501 where
 * the caller may not read the column.
 */
LokyKeyChunk *
loky_key_chunks(Oid relid, const char *name, int chunk_rows,
				LokyKeyColumn *column, int *n, int64 *nnulls)
{
	KeyReceiver receiver = {0};
	ChunksCall	call = {relid, name, column, &receiver};
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

	/* undone, so that it lets go of all locks: see loky_key_find() */
	edata = loky_subxact_try(read_keys, &call, LOKY_SUBXACT_UNDO);
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
