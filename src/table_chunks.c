/*-------------------------------------------------------------------------
 *
 * table_chunks.c
 *	  Cutting a table into ranges of pages.
 *
 * The ranges lie side by side on the axis of page numbers, and the last one has
 * no end: so each row version that there is or will be lies in exactly one of
 * them.  A table with partitions or children is cut on the same axis for all of
 * them, since a query over it looks for the same range of places in each; the
 * sizes count the pages that a range has in all of them together.
 *
 * Without a number of chunks, the first ones are large, which costs least, and the
 * later ones smaller, so that the workers are done at about the same time: each
 * has a fixed part of what is left (Polychronopoulos and Kuck, Guided
 * Self-Scheduling, 1987), but no less than some pages.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/table_chunks.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "chunks.h"

/* A chunk is what is left, divided by the workers and this. */
#define GUIDE			4

/* The least chunk is this part of the table for each worker, but no more pages. */
#define LEAST_SHARE		32
#define LEAST_PAGES		64

/* Tables in the order of their sizes. */
static int
compare_pages(const void *a, const void *b)
{
	BlockNumber pa = *(const BlockNumber *) a;
	BlockNumber pb = *(const BlockNumber *) b;

	return pa < pb ? -1 : pa > pb;
}

static void
raise_temporary(Oid rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("\"%s\" is a temporary table", get_rel_name(rel)),
			 errdetail("Workers cannot see it."),
			 errhint("Use an unlogged table.")));
}

/* Is this a temporary table of the present session?  Not if it has just been dropped. */
static bool
is_own_temporary(Oid rel)
{
	return isTempOrTempToastNamespace(get_rel_namespace(rel));
}

static void
raise_undefined(Oid rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("relation with OID %u does not exist", rel),
			 errhint("Give the name of a table as regclass, such as 'my_schema.my_table'.")));
}

/* Raise 42P01 where there is no such relation. */
static void
check_exists(Oid rel)
{
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(rel)))
		raise_undefined(rel);
}

/*
 * Raise 42P01 where there is no such relation, and 0A000 for a table of which only
 * this session can see all: one that is temporary, or has a temporary child.
 */
void
loky_table_check_shared(Oid rel)
{
	ListCell   *lc;

	check_exists(rel);
	foreach(lc, find_all_inheritors(rel, NoLock, NULL))
	{
		if (is_own_temporary(lfirst_oid(lc)))
			raise_temporary(lfirst_oid(lc));
	}
}

/*
 * The relation, locked with AccessShareLock.  Raises 42P01 where there is none once
 * the lock is had, also if there was one before.
 */
Relation
loky_table_open(Oid rel)
{
	Relation	opened = try_relation_open(rel, AccessShareLock);

	if (opened == NULL)
		raise_undefined(rel);
	return opened;
}

/*
 * Raise 42P01 where there is no such relation, and 42501 where the present user
 * may read nothing of it, before anything is locked.
 */
void
loky_table_check_readable(Oid rel)
{
	check_exists(rel);
	if (pg_class_aclcheck(rel, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(rel, GetUserId(), ACL_SELECT,
								  ACLMASK_ANY) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(rel)),
				 errhint("SELECT on the table, or on a column, is needed.")));
}

/* Refuse what has no rows of its own that could be found by their place. */
static void
check_kind(Relation rel, Oid whole, bool for_workers)
{
	const char *name = RelationGetRelationName(rel);

	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_MATVIEW:
		case RELKIND_TOASTVALUE:
		case RELKIND_PARTITIONED_TABLE:
			break;
		case RELKIND_FOREIGN_TABLE:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is a foreign table", name),
					 RelationGetRelid(rel) == whole ? 0 :
					 errdetail("It is a partition or a child of \"%s\".",
							   get_rel_name(whole)),
					 errhint("Use loky.flat_map() over ranges of a key.")));
			break;
		case RELKIND_VIEW:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is a view", name),
					 errhint("Name a table that it reads, or use loky.flat_map() over ranges of a key.")));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is not a table", name),
					 errhint("Name a table, a partitioned table or a materialized view.")));
	}
	if (for_workers && rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		raise_temporary(RelationGetRelid(rel));
}

/* The numbers of pages of the table, or of all partitions and children, in order. */
static BlockNumber *
count_pages(Oid whole, bool for_workers, int *n)
{
	Relation	rel;
	BlockNumber *pages;
	List	   *members;
	ListCell   *lc;

	loky_table_check_readable(whole);
	rel = loky_table_open(whole);
	check_kind(rel, whole, for_workers);
	members = find_all_inheritors(whole, AccessShareLock, NULL);
	relation_close(rel, NoLock);
	pages = palloc(list_length(members) * sizeof(BlockNumber));
	*n = 0;
	foreach(lc, members)
	{
		Relation	member = table_open(lfirst_oid(lc), NoLock);

		/* a query does not look into temporary children of other sessions */
		if (!RELATION_IS_OTHER_TEMP(member))
		{
			check_kind(member, whole, for_workers);
			if (member->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
				pages[(*n)++] = RelationGetNumberOfBlocks(member);
		}
		table_close(member, NoLock);
	}
	qsort(pages, *n, sizeof(BlockNumber), compare_pages);
	return pages;
}

/*
 * The least page number below which so many pages of all tables lie; there are more
 * in all.
 */
static BlockNumber
page_at(const BlockNumber *pages, int n, uint64 amount)
{
	uint64		below = 0;
	BlockNumber start = 0;
	uint64		width;			/* tables that reach so far */

	for (width = n; width > 1; width--)
	{
		BlockNumber end = pages[n - width];
		uint64		step = (end - start) * width;

		if (amount <= below + step)
			break;
		below += step;
		start = end;
	}
	return start + (BlockNumber) ((amount - below + width - 1) / width);
}

/* How much of the rest the next chunk gets. */
static uint64
next_amount(uint64 total, uint64 rest, int nchunks, int left, int nworkers)
{
	uint64		least;
	uint64		amount;

	if (nchunks > 0)
		return (rest + left - 1) / left;
	least = total / ((uint64) LEAST_SHARE * nworkers);
	least = Max(Min(least, LEAST_PAGES), 1);
	amount = Max(rest / ((uint64) GUIDE * nworkers), least);
	return rest - amount < least ? rest : amount;
}

/*
 * Chunks of the table, *n of them, at least one: nchunks of equal size if there are
 * enough pages; 0: as is best for so many workers.  Locks the table and its
 * members with AccessShareLock until the end of the transaction.  Raises 42P01 and
 * 42501 as loky_table_check_readable() does, 42809 for what is no table, and 0A000
 * for a temporary one that workers are to read.
 */
LokyTidChunk *
loky_table_chunks(Oid rel, int nchunks, int nworkers, bool for_workers, int *n)
{
	int			ntables;
	BlockNumber *pages = count_pages(rel, for_workers, &ntables);
	int			room = 16;
	LokyTidChunk *chunks = palloc(room * sizeof(LokyTidChunk));
	uint64		total = 0;
	uint64		amount = 0;
	BlockNumber start = 0;

	for (int i = 0; i < ntables; i++)
		total += pages[i];
	*n = 0;
	do
	{
		BlockNumber end;

		amount += next_amount(total, total - amount, nchunks, nchunks - *n,
							  nworkers);
		end = amount >= total ? InvalidBlockNumber :
			page_at(pages, ntables, amount);
		if (end <= start)
			continue;
		if (*n == room)
		{
			room *= 2;
			chunks = repalloc(chunks, room * sizeof(LokyTidChunk));
		}
		ItemPointerSet(&chunks[*n].lo, start, 0);
		ItemPointerSet(&chunks[*n].hi, end, 0);
		(*n)++;
		start = end;
	} while (amount < total);
	return chunks;
}

/* The chunks as rows (tid, tid), to be mapped over. */
ArrayType *
loky_table_chunk_items(const LokyTidChunk *chunks, int n)
{
	TupleDesc	desc = CreateTemplateTupleDesc(2);
	Datum	   *rows = palloc(Max(n, 1) * sizeof(Datum));

	TupleDescInitEntry(desc, 1, "lo", TIDOID, -1, 0);
	TupleDescInitEntry(desc, 2, "hi", TIDOID, -1, 0);
	desc = BlessTupleDesc(desc);
	for (int i = 0; i < n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};

		values[0] = PointerGetDatum(&chunks[i].lo);
		values[1] = PointerGetDatum(&chunks[i].hi);
		rows[i] = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
	}
	return construct_array(rows, n, RECORDOID, -1, false, TYPALIGN_DOUBLE);
}
