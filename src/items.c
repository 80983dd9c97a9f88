/*-------------------------------------------------------------------------
 *
 * items.c
 *	  The array that is mapped over, item by item.
 *
 * An array of several dimensions is taken element by element.  Elements that
 * are anonymous rows are spread over several parameters; they must all have
 * the same columns, since the task is resolved once for all of them.  A literal or
 * null without a type takes that which its column has in another row, as in VALUES.
 *
 * In shared memory the items of a map lie as they do in the array, so that
 * laying them out is one copy, and a worker finds an item by its offset.
 * Anonymous rows are encoded, as their columns are known to one process only; so
 * are items that went through a reducer, each of which has become a value of its
 * own, or an error.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/items.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "area.h"
#include "codec.h"
#include "errdata.h"
#include "items.h"

/* An offset that stands for a null item. */
#define NULL_OFFSET		PG_UINT32_MAX

/* Advance to the next element; false where it is null. */
static bool
next_element(LokyItems *items, Datum *element)
{
	int			i = items->position++;

	if (items->bitmap != NULL &&
		(items->bitmap[i / 8] & (1 << (i % 8))) == 0)
		return false;
	*element = fetch_att(items->data, items->byval, items->len);
	items->data = att_addlength_pointer(items->data, items->len, items->data);
	items->data = (char *) att_align_nominal(items->data, items->align);
	return true;
}

static void
rewind_items(LokyItems *items)
{
	items->position = 0;
	items->data = ARR_DATA_PTR(items->array);
	items->bitmap = ARR_NULLBITMAP(items->array);
}

/* The types of the row's columns become those of the parameters. */
static void
take_shape(LokyItems *items, TupleDesc desc)
{
	items->own_types = palloc(Max(desc->natts, 1) * sizeof(Oid));
	items->values = palloc(Max(desc->natts, 1) * sizeof(Datum));
	items->nulls = palloc(Max(desc->natts, 1) * sizeof(bool));
	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			items->own_types[items->nparams++] =
				TupleDescAttr(desc, i)->atttypid;
	}
}

/* Has the row the columns of those before?  Those without a type may take its. */
static bool
has_shape(LokyItems *items, TupleDesc desc)
{
	int			n = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Oid			type = TupleDescAttr(desc, i)->atttypid;

		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		if (n >= items->nparams)
			return false;
		if (items->own_types[n] == UNKNOWNOID)
			items->own_types[n] = type;
		else if (type != items->own_types[n] && type != UNKNOWNOID)
			return false;
		n++;
	}
	return n == items->nparams;
}

/* Is there a column whose type no row so far has told? */
static bool
has_unknown(const LokyItems *items)
{
	for (int i = 0; i < items->nparams; i++)
	{
		if (items->own_types[i] == UNKNOWNOID)
			return true;
	}
	return false;
}

/* Learn the columns of a row that is of another type than the one before. */
static void
look_up_row(LokyItems *items, Oid type, int32 typmod)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(items->context);
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(type, typmod);

	desc->tdtypeid = type;
	if (items->own_types == NULL)
		take_shape(items, desc);
	else if (!has_shape(items, desc))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("item %d has other columns than the items before it",
						items->position),
				 errhint("Give all rows the same number and types of columns, with casts if need be.")));
	if (items->desc != NULL)
	{
		/* rows of two types may alternate */
		FreeTupleDesc(items->desc);
		pfree(items->row_values);
		pfree(items->row_nulls);
	}
	items->desc = desc;
	items->typmod = typmod;
	items->row_values = palloc(Max(desc->natts, 1) * sizeof(Datum));
	items->row_nulls = palloc(Max(desc->natts, 1) * sizeof(bool));
	MemoryContextSwitchTo(oldcontext);
}

/* Know the columns of the row, which must be those of the rows before. */
static void
know_row(LokyItems *items, HeapTupleHeader header)
{
	Oid			type = HeapTupleHeaderGetTypeId(header);
	int32		typmod = HeapTupleHeaderGetTypMod(header);

	if (items->desc == NULL || typmod != items->typmod ||
		type != items->desc->tdtypeid)
		look_up_row(items, type, typmod);
}

static void
literal_callback(void *arg)
{
	errcontext("item %d", ((LokyItems *) arg)->position);
}

/* The literal in the present row as a value of the type; raises what is wrong with it. */
static Datum
read_literal(LokyItems *items, Datum literal, Oid type)
{
	ErrorContextCallback callback = {error_context_stack, literal_callback, items};
	Oid			input;
	Oid			ioparam;
	Datum		value;

	error_context_stack = &callback;
	getTypeInputInfo(type, &input, &ioparam);
	value = OidInputFunctionCall(input, DatumGetCString(literal), ioparam, -1);
	error_context_stack = callback.previous;
	return value;
}

/* The columns of the anonymous row. */
static void
spread_row(LokyItems *items, Datum row)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	HeapTupleData tuple;
	int			n = 0;

	know_row(items, header);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, items->desc, items->row_values,
					  items->row_nulls);
	for (int i = 0; i < items->desc->natts; i++)
	{
		if (TupleDescAttr(items->desc, i)->attisdropped)
			continue;
		items->nulls[n] = items->row_nulls[i];
		items->values[n] = items->row_values[i];
		if (TupleDescAttr(items->desc, i)->atttypid == UNKNOWNOID &&
			items->own_types[n] != UNKNOWNOID && !items->nulls[n])
			items->values[n] = read_literal(items, items->values[n],
											items->own_types[n]);
		n++;
	}
}

/* Each item is one parameter of this type. */
static void
set_single(LokyItems *items, Oid type)
{
	items->nparams = 1;
	items->own_types = palloc(sizeof(Oid));
	items->values = palloc(sizeof(Datum));
	items->nulls = palloc(sizeof(bool));
	items->own_types[0] = type;
}

/* Find the shape of anonymous rows: that of the first one, and types that it lacks. */
static void
find_shape(LokyItems *items)
{
	Datum		element;

	rewind_items(items);
	while (items->position < items->n)
	{
		CHECK_FOR_INTERRUPTS();
		if (!next_element(items, &element))
			continue;
		know_row(items, DatumGetHeapTupleHeader(element));
		if (!has_unknown(items))
			break;
	}
	/* nothing but nulls: one parameter, as there is nothing to tell */
	if (items->own_types == NULL)
		set_single(items, UNKNOWNOID);
}

/* Get ready to go through the array that is there, whose elements are of the type. */
static void
open_items(LokyItems *items)
{
	items->context = CurrentMemoryContext;
	get_typlenbyvalalign(items->type, &items->len, &items->byval,
						 &items->align);
	items->spread = items->type == RECORDOID;
	if (items->spread && items->n > 0)
		find_shape(items);
	else
		set_single(items, items->spread ? UNKNOWNOID : items->type);
	items->types = items->own_types;
	if (items->array != NULL)
		rewind_items(items);
}

/*
 * Get ready to go through the array.  types and nparams tell of the parameters that
 * each item gives.
 */
void
loky_items_of_array(LokyItems *items, ArrayType *array)
{
	memset(items, 0, sizeof(*items));
	items->array = array;
	items->type = ARR_ELEMTYPE(array);
	items->n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	open_items(items);
}

/*
 * As loky_items_of_array() for the array in argument argno; a null one is empty.
 * Raises 42P18 for a null whose type no query tells.
 */
void
loky_items_open(LokyItems *items, FunctionCallInfo fcinfo, int argno)
{
	Oid			type;

	if (!PG_ARGISNULL(argno))
	{
		loky_items_of_array(items, PG_GETARG_ARRAYTYPE_P(argno));
		return;
	}
	memset(items, 0, sizeof(*items));
	type = get_fn_expr_argtype(fcinfo->flinfo, argno);
	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_DATATYPE),
				 errmsg("could not determine the type of argument \"items\""),
				 errhint("Call the function in a query.")));
	items->type = get_element_type(getBaseType(type));
	open_items(items);
}

/*
 * Have the items go through the reducers, all of them now: a reducer may itself
 * submit, which it must not do while a submission is half done.
 */
void
loky_items_reduce(LokyItems *items, LokyReducers *reducers)
{
	Size		width = items->nparams;
	Oid		   *types = palloc(width * sizeof(Oid));
	LokyReducedItem *reduced;

	memcpy(types, items->own_types, width * sizeof(Oid));
	if (!loky_reduce_types(reducers, items->nparams, types))
		return;
	items->types = types;
	if (items->array == NULL)
		return;
	reduced = palloc_extended(Max(items->n, 1) * sizeof(LokyReducedItem),
							  MCXT_ALLOC_HUGE);
	for (int i = 0; i < items->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		loky_items_next(items);
		reduced[i].values = palloc(width * sizeof(Datum));
		reduced[i].nulls = palloc(width * sizeof(bool));
		memcpy(reduced[i].values, items->values, width * sizeof(Datum));
		memcpy(reduced[i].nulls, items->nulls, width * sizeof(bool));
		reduced[i].error = loky_reduce_try(reducers, items->nparams,
										   items->own_types, types,
										   reduced[i].values, reduced[i].nulls);
	}
	items->reduced = reduced;
	rewind_items(items);
}

/*
 * Make values, nulls and error those of the next item, which there is.  Values may lie
 * in CurrentMemoryContext.
 */
void
loky_items_next(LokyItems *items)
{
	Datum		element = (Datum) 0;
	bool		is_null;

	if (items->reduced != NULL)
	{
		LokyReducedItem *item = &items->reduced[items->position++];

		memcpy(items->values, item->values, items->nparams * sizeof(Datum));
		memcpy(items->nulls, item->nulls, items->nparams * sizeof(bool));
		items->error = item->error;
		return;
	}
	is_null = !next_element(items, &element);
	if (is_null)
	{
		memset(items->nulls, true, items->nparams * sizeof(bool));
		memset(items->values, 0, items->nparams * sizeof(Datum));
	}
	else if (items->spread)
		spread_row(items, element);
	else
	{
		items->values[0] = element;
		items->nulls[0] = false;
	}
}

static dsa_pointer
alloc_or_raise(Size size)
{
	dsa_pointer dp = loky_area_alloc(Max(size, 1));

	if (!DsaPointerIsValid(dp))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of shared memory for the items of a map"),
				 errhint("Raise loky.shared_memory, or map over fewer items at a time.")));
	return dp;
}

/* Append the present item: its length or'ed with a mark, then itself. */
static uint32
append_item(LokyItems *items, StringInfo buf)
{
	uint64		len;
	int			start;

	enlargeStringInfo(buf, (int) (MAXALIGN(buf->len) - buf->len + sizeof(len)));
	memset(buf->data + buf->len, 0, MAXALIGN(buf->len) - buf->len);
	start = (int) MAXALIGN(buf->len);
	buf->len = start + sizeof(len);
	if (items->error != NULL)
		loky_error_encode(buf, items->error);
	else
		loky_codec_encode_values(buf, items->nparams, items->types,
								 items->values, items->nulls);
	len = buf->len - start - sizeof(len);
	if (items->error != NULL)
		len |= LOKY_ITEM_IS_ERROR;
	memcpy(buf->data + start, &len, sizeof(len));
	return (uint32) start;
}

/* Is the next item a null? */
static bool
next_is_null(const LokyItems *items)
{
	int			i = items->position;

	return items->reduced == NULL && items->bitmap != NULL &&
		(items->bitmap[i / 8] & (1 << (i % 8))) == 0;
}

/* Encode the items one by one. */
static void
store_rows(LokyItems *items, LokySharedMap *map)
{
	uint32	   *offsets = loky_area_address(map->offsets);
	StringInfoData buf;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "loky items",
												  ALLOCSET_DEFAULT_SIZES);

	initStringInfo(&buf);
	for (int i = 0; i < items->n; i++)
	{
		bool		is_null = next_is_null(items);
		MemoryContext oldcontext;

		CHECK_FOR_INTERRUPTS();
		oldcontext = MemoryContextSwitchTo(scratch);
		loky_items_next(items);
		offsets[i] = is_null ? NULL_OFFSET : append_item(items, &buf);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(scratch);
	}
	loky_blob_write(&map->items, buf.data, buf.len);
	pfree(buf.data);
	MemoryContextDelete(scratch);
}

/* Note where each element lies in the array's data. */
static void
note_offsets(LokyItems *items, uint32 *offsets)
{
	char	   *start = items->data;

	for (int i = 0; i < items->n; i++)
	{
		char	   *place = items->data;
		Datum		element;

		offsets[i] = next_element(items, &element) ?
			(uint32) (place - start) : NULL_OFFSET;
	}
}

/*
 * Copy the items, of which there is one at least, into the map, which is freed by the
 * caller where this raises an error.
 */
void
loky_items_store(LokyItems *items, LokySharedMap *map)
{
	Assert(items->n > 0);
	map->nitems = items->n;
	map->item_type = items->type;
	map->item_len = items->len;
	map->item_byval = items->byval;
	map->item_align = items->align;
	map->spread = items->spread || items->reduced != NULL;
	rewind_items(items);
	if (map->spread)
	{
		map->nshape = items->nparams;
		map->shape = alloc_or_raise(items->nparams * sizeof(Oid));
		memcpy(loky_area_address(map->shape), items->types,
			   items->nparams * sizeof(Oid));
	}
	if (map->spread || items->len < 0 || items->bitmap != NULL)
		map->offsets = alloc_or_raise(items->n * sizeof(uint32));
	if (map->spread)
		store_rows(items, map);
	else
	{
		char	   *data = ARR_DATA_PTR(items->array);

		if (DsaPointerIsValid(map->offsets))
			note_offsets(items, loky_area_address(map->offsets));
		loky_blob_write(&map->items, data,
						(char *) items->array + VARSIZE(items->array) - data);
	}
}
