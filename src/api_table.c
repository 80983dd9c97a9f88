/*-------------------------------------------------------------------------
 *
 * api_table.c
 *	  Returning all values of a function in FROM at once.
 *
 * The server takes all rows of a function in FROM before it goes on, whichever way
 * they are returned; to hand over a table of them saves it a call for each.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_table.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api.h"

/*
 * The table that the call is to fill, where it is in FROM and returns one column of
 * this type; else NULL.
 */
LokyApiTable *
loky_api_begin_table(FunctionCallInfo fcinfo, Oid type)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext query;
	MemoryContext context;
	LokyApiTable *table;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0 ||
		(rsinfo->allowedModes & SFRM_Materialize_Preferred) == 0 ||
		rsinfo->expectedDesc == NULL || rsinfo->expectedDesc->natts != 1 ||
		type_is_rowtype(type))
		return NULL;

	query = rsinfo->econtext->ecxt_per_query_memory;
	context = AllocSetContextCreate(query, "loky table", ALLOCSET_DEFAULT_SIZES);
	table = MemoryContextAllocZero(context, sizeof(LokyApiTable));
	table->context = context;
	table->row_context = AllocSetContextCreate(context, "loky table row",
											   ALLOCSET_SMALL_SIZES);
	table->old_context = MemoryContextSwitchTo(query);
	table->desc = CreateTupleDescCopy(rsinfo->expectedDesc);
	table->store =
		tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
							  false, work_mem);
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = table->store;
	rsinfo->setDesc = table->desc;
	return table;
}

/* Add a row.  What the value took of row_context is freed. */
void
loky_api_put_value(LokyApiTable *table, Datum value, bool isnull)
{
	tuplestore_putvalues(table->store, table->desc, &value, &isnull);
	MemoryContextReset(table->row_context);
	CHECK_FOR_INTERRUPTS();
}

/* The table is complete.  All but its rows is freed. */
void
loky_api_end_table(LokyApiTable *table)
{
	MemoryContextSwitchTo(table->old_context);
	MemoryContextDelete(table->context);
}
