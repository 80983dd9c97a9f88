/*-------------------------------------------------------------------------
 *
 * key_ranges.c
 *	  Ranges of keys as text: as they are given out, and as they come back.
 *
 * Keys are written in a form that reads back as the same value, whatever the
 * settings of the sessions that write and read.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/key_ranges.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/numeric.h"

#include "chunks.h"

#define RANGES_HINT \
	"Give ranges as [{\"lo\": \"1\", \"hi\": \"10000\"}, ...], as loky.backfill() and loky.key_chunks() return them."

/* A range that is being compared with others. */
typedef struct NumberedRange
{
	const LokyKeyChunk *chunk;
	int			number;			/* from 1 */
} NumberedRange;

/* What the order of two keys needs. */
typedef struct KeyOrder
{
	const LokyKeyColumn *column;
	FmgrInfo	compare;
} KeyOrder;

static void
set_option(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Have keys written, and read, the same way in every session.  Returns what
 * loky_key_end_text() wants; an error in between ends it as well.
 */
int
loky_key_begin_text(void)
{
	int			level = NewGUCNestLevel();

	set_option("datestyle", "ISO");
	set_option("intervalstyle", "postgres");
	set_option("lc_monetary", "C");
	set_option("search_path", "pg_catalog");
	if (extra_float_digits < 1)
		set_option("extra_float_digits", "1");
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

/* Which range an error of its bounds is about. */
static void
name_range(void *arg)
{
	errcontext("range %d of argument \"ranges\"", *(int *) arg);
}

/* The text of a JSON value that may be a bound, or NULL. */
static char *
value_text(const JsonbValue *value)
{
	if (value == NULL)
		return NULL;
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

/* The bound of a range that is given as JSON. */
static Datum
read_bound(const LokyKeyColumn *column, JsonbContainer *object, const char *name,
		   int number)
{
	char	   *text = value_text(getKeyJsonValueFromContainer(object, name,
															   (int) strlen(name),
															   NULL));
	ErrorContextCallback callback = {error_context_stack, name_range, &number};
	Datum		value;

	if (text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("range %d has no \"%s\"", number, name),
				 errhint(RANGES_HINT)));
	error_context_stack = &callback;
	value = OidInputFunctionCall(column->input, text, column->ioparam,
								 column->typmod);
	error_context_stack = callback.previous;
	return value;
}

static int
compare_keys(KeyOrder *order, Datum a, Datum b)
{
	return DatumGetInt32(FunctionCall2Coll(&order->compare,
										   order->column->collation, a, b));
}

static int
compare_ranges(const void *a, const void *b, void *order)
{
	return compare_keys(order, ((const NumberedRange *) a)->chunk->lo,
						((const NumberedRange *) b)->chunk->lo);
}

/* Warn of two ranges that have keys in common, if there are any. */
static void
check_overlap(KeyOrder *order, const LokyKeyChunk *chunks, int n)
{
	NumberedRange *sorted = palloc(n * sizeof(NumberedRange));

	for (int i = 0; i < n; i++)
	{
		sorted[i].chunk = &chunks[i];
		sorted[i].number = i + 1;
	}
	qsort_arg(sorted, n, sizeof(NumberedRange), compare_ranges, order);
	for (int i = 1; i < n; i++)
	{
		if (compare_keys(order, sorted[i - 1].chunk->hi, sorted[i].chunk->lo) < 0)
			continue;
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ranges %d and %d have keys in common",
						sorted[i - 1].number, sorted[i].number),
				 errhint("Rows with these keys are handled twice.")));
		break;
	}
	pfree(sorted);
}

/* Raise 22023 where a range ends before it begins. */
static void
check_ranges(const LokyKeyColumn *column, const LokyKeyChunk *chunks, int n)
{
	KeyOrder	order = {column};

	fmgr_info(column->compare, &order.compare);
	for (int i = 0; i < n; i++)
	{
		if (compare_keys(&order, chunks[i].lo, chunks[i].hi) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("range %d ends before it begins", i + 1),
					 errhint("\"lo\" must not come after \"hi\".")));
	}
	if (n > 1)
		check_overlap(&order, chunks, n);
}

/*
 * The ranges given as an array of JSON objects with lo and hi, *n of them, in
 * CurrentMemoryContext.  Raises 22023 for anything else and for a range that ends
 * before it begins, and what the type's input function raises; warns of ranges that
 * have keys in common.
 */
LokyKeyChunk *
loky_key_ranges(const LokyKeyColumn *column, Jsonb *ranges, int *n)
{
	JsonbContainer *root = &ranges->root;
	LokyKeyChunk *chunks;
	int			level;

	if (!JsonContainerIsArray(root) || JsonContainerIsScalar(root))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"ranges\" must be a JSON array"),
				 errhint(RANGES_HINT)));
	*n = (int) JsonContainerSize(root);
	chunks = palloc_extended(Max(*n, 1) * sizeof(LokyKeyChunk),
							 MCXT_ALLOC_HUGE);
	level = loky_key_begin_text();
	for (int i = 0; i < *n; i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(root, i);

		CHECK_FOR_INTERRUPTS();
		if (value->type != jbvBinary ||
			!JsonContainerIsObject(value->val.binary.data))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("range %d is not a JSON object", i + 1),
					 errhint(RANGES_HINT)));
		chunks[i].lo = read_bound(column, value->val.binary.data, "lo", i + 1);
		chunks[i].hi = read_bound(column, value->val.binary.data, "hi", i + 1);
		chunks[i].rows = 0;
	}
	loky_key_end_text(level);
	check_ranges(column, chunks, *n);
	return chunks;
}
