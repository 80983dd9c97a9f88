/*-------------------------------------------------------------------------
 *
 * reduce.h
 *	  Reducers: functions that replace values of a type as they are sent.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/reduce.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_REDUCE_H
#define LOKY_REDUCE_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/* the reducers of one side of an executor; NULL stands for none */
typedef struct LokyReducers LokyReducers;
typedef struct LokyReducer LokyReducer;

extern void loky_reduce_read(Jsonb *object, const char *argument,
							 StringInfo part);
extern LokyReducers *loky_reduce_create(const char *part, Size len);
extern void loky_reduce_leave_to(LokyReducers *reducers,
								 MemoryContext owner);
extern void loky_reduce_free(LokyReducers *reducers);
extern LokyReducer *loky_reduce_find(LokyReducers *reducers, Oid type);
extern Oid	loky_reduce_result_type(LokyReducer *reducer);
extern Datum loky_reduce_value(LokyReducer *reducer, Oid result_type,
							   Datum value, bool *isnull);
extern bool loky_reduce_types(LokyReducers *reducers, int n, Oid *types);
extern ErrorData *loky_reduce_try(LokyReducers *reducers, int n,
								  const Oid *types, const Oid *reduced_types,
								  Datum *values, bool *nulls);
extern ErrorData *loky_reduce_args(LokyReducers *reducers, int n, Oid *types,
								   Datum *values, bool *nulls);

#endif							/* LOKY_REDUCE_H */
