/*-------------------------------------------------------------------------
 *
 * api.h
 *	  What the files with SQL functions share.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/api.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_API_H
#define LOKY_API_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/tuplestore.h"

#include "codec.h"
#include "compat.h"
#include "executor.h"
#include "pool.h"

/* api_args.c */
extern void loky_api_refuse_null(const char *name) pg_attribute_noreturn();
extern char *loky_api_text(FunctionCallInfo fcinfo, int n, const char *name);
extern Interval *loky_api_interval(FunctionCallInfo fcinfo, int n);
extern int	loky_api_executor(FunctionCallInfo fcinfo, int n);
extern void loky_api_record(FunctionCallInfo fcinfo, int argno,
							const char *name, LokyValues *result);
extern bool loky_api_bool(FunctionCallInfo fcinfo, int n, bool if_null);
extern int64 loky_api_duration(FunctionCallInfo fcinfo, int n,
							   const char *name);
extern int	loky_api_retries(FunctionCallInfo fcinfo, int n);
extern Datum loky_api_us_to_interval(int64 us);
extern void loky_api_set_text(Datum *values, bool *nulls, int column,
							  const char *string);

/* api_stat.c */
extern bool loky_api_may_read(Oid role);

/* api_chunks.c */
extern int	loky_api_chunks(FunctionCallInfo fcinfo, int n);

/* api_table.c */
/* What a function in FROM returns all at once. */
typedef struct LokyApiTable
{
	MemoryContext context;		/* for the length of the call */
	MemoryContext row_context;	/* for that of a row */
	MemoryContext old_context;
	Tuplestorestate *store;
	TupleDesc	desc;
} LokyApiTable;

extern LokyApiTable *loky_api_begin_table(FunctionCallInfo fcinfo, Oid type);
extern void loky_api_put_value(LokyApiTable *table, Datum value, bool isnull);
extern void loky_api_end_table(LokyApiTable *table);

/* api_task.c */
extern LokySharedTask *loky_api_prepare(const char *name, LokyValues *args,
										LokyExecutorRef ref);

/* api_future.c */
extern int64 loky_api_future(FunctionCallInfo fcinfo);
extern void loky_api_raise_timeout(int64 id) pg_attribute_noreturn();
extern void loky_api_raise_cancelled(int64 id) pg_attribute_noreturn();
extern const char *loky_api_state_name(LokyTaskState state);
extern int	loky_api_ids(ArrayType *array, const char *name, int64 **ids);
extern int	loky_api_futures(ArrayType *array, int64 **ids);

#endif							/* LOKY_API_H */
