/*-------------------------------------------------------------------------
 *
 * convert.h
 *	  A task's rows as values of the type that the caller asked for.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/convert.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_CONVERT_H
#define LOKY_CONVERT_H

#include "access/tupdesc.h"

typedef struct LokyConverter LokyConverter;

extern LokyConverter *loky_convert_create(Oid type, int32 typmod,
										  TupleDesc rowdesc);
extern bool loky_convert_is_nothing(const LokyConverter *conv, Oid type);
extern Datum loky_convert_row(LokyConverter *conv, TupleDesc desc,
							  const Datum *values, const bool *nulls,
							  bool *isnull);
extern Datum loky_convert_command(LokyConverter *conv, const char *tag,
								  uint64 processed, bool *isnull);

#endif							/* LOKY_CONVERT_H */
