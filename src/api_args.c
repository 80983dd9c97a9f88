/*-------------------------------------------------------------------------
 *
 * api_args.c
 *	  Reading the arguments of SQL functions, and filling in their rows.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api_args.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "api.h"
#include "client.h"
#include "executor.h"

/* Raise an error for an argument that must not be null. */
void
loky_api_refuse_null(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("argument \"%s\" must not be null", name),
			 errhint("Give a value, or leave an argument out that has a default.")));
}

/* The text argument number n, named name; raises 22004 for a null. */
char *
loky_api_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		loky_api_refuse_null(name);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* An interval argument; NULL where it is null. */
Interval *
loky_api_interval(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_INTERVAL_P(n);
}

/* A boolean argument; a null one is as told. */
bool
loky_api_bool(FunctionCallInfo fcinfo, int n, bool if_null)
{
	return PG_ARGISNULL(n) ? if_null : PG_GETARG_BOOL(n);
}

/* The argument "retries" of a map, which is number n. */
int
loky_api_retries(FunctionCallInfo fcinfo, int n)
{
	int			retries = PG_ARGISNULL(n) ? 0 : PG_GETARG_INT32(n);

	if (retries < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"retries\" must not be negative"),
				 errhint("0 runs each item once.")));
	return retries;
}

/* Microseconds as an interval, in CurrentMemoryContext. */
Datum
loky_api_us_to_interval(int64 us)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = us;
	return IntervalPGetDatum(interval);
}

/* How long from now the interval lasts, in microseconds; 0 where it is null. */
int64
loky_api_duration(FunctionCallInfo fcinfo, int n, const char *name)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end;

	if (PG_ARGISNULL(n))
		return 0;
	end = loky_client_time_after(now, PG_GETARG_INTERVAL_P(n));
	if (TIMESTAMP_IS_NOEND(end))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is out of range", name),
				 errhint("Give a length of time that will pass.")));
	if (end < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", name),
				 errhint("Give a length of time from now.")));
	return end - now;
}

/* The executor's id in an argument; 0, the current one, where it is null. */
int
loky_api_executor(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return 0;

	/* it means the current one inside */
	if (PG_GETARG_INT32(n) == 0)
		loky_executor_raise_unknown(0);
	return PG_GETARG_INT32(n);
}

/*
 * The columns of the record in argument argno, named name, in CurrentMemoryContext;
 * none where it is null.  Raises 22004 for a null of a row type, which has columns
 * but no values.
 */
void
loky_api_record(FunctionCallInfo fcinfo, int argno, const char *name,
				LokyValues *result)
{
	HeapTupleHeader header;
	HeapTupleData tuple;
	TupleDesc	desc;

	memset(result, 0, sizeof(*result));
	if (PG_ARGISNULL(argno))
	{
		Oid			type = get_fn_expr_argtype(fcinfo->flinfo, argno);

		if (OidIsValid(type) && type != RECORDOID && type != UNKNOWNOID)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" is a null of a row type", name),
					 errhint("Give ROW(...) with the arguments, or leave it out.")));
		return;
	}
	header = PG_GETARG_HEAPTUPLEHEADER(argno);
	desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(header),
									   HeapTupleHeaderGetTypMod(header));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	result->types = palloc(Max(desc->natts, 1) * sizeof(Oid));
	result->values = palloc(Max(desc->natts, 1) * sizeof(Datum));
	result->nulls = palloc(Max(desc->natts, 1) * sizeof(bool));
	heap_deform_tuple(&tuple, desc, result->values, result->nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped)
			continue;
		result->types[result->n] = attribute->atttypid;
		result->values[result->n] = result->values[i];
		result->nulls[result->n] = result->nulls[i];
		result->n++;
	}
}

/* Fill a text column of a row; null for NULL. */
void
loky_api_set_text(Datum *values, bool *nulls, int column, const char *string)
{
	nulls[column] = string == NULL;
	if (string != NULL)
		values[column] = CStringGetTextDatum(string);
}
