/*-------------------------------------------------------------------------
 *
 * codec.h
 *	  Values, rows and row descriptors in a form that any process can read.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/codec.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_CODEC_H
#define LOKY_CODEC_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "lib/stringinfo.h"

/*
 * A list of typed values, decoded.  Pass-by-reference values point into the
 * encoded bytes unless they had to be rebuilt (anonymous rows), so the bytes
 * must outlive the list.
 */
typedef struct LokyValues
{
	int			n;
	Oid		   *types;			/* UNKNOWNOID: the value is a C string */
	Datum	   *values;
	bool	   *nulls;
} LokyValues;

/* lists of values: the arguments of a task, the columns of an item */
/* Where a row of len bytes is to be written. */
typedef void *(*LokyCodecPlace) (void *arg, Size len);

extern void loky_codec_encode_values(StringInfo buf, int n, const Oid *types,
									 const Datum *values, const bool *nulls);
extern void loky_codec_decode_values(const char *data, Size len,
									 LokyValues *result);

/* anonymous rows: RECORD and RECORD[] know their columns in one process only */
extern bool loky_codec_is_anonymous(Oid type);
extern Datum loky_codec_pack(Datum value, Oid type);
extern Datum loky_codec_unpack(Datum packed, Oid type);

/* row descriptors, and rows as minimal tuples that any process can read */
extern void loky_codec_encode_desc(StringInfo buf, TupleDesc desc);
extern bool loky_codec_desc_is_value(const char *data, Size len, Oid *type,
									 int16 *typlen, bool *byval);
extern TupleDesc loky_codec_decode_desc(const char *data, Size len);
extern TupleDesc loky_codec_storage_desc(TupleDesc desc);
extern void loky_codec_form_row(TupleDesc desc, TupleDesc storage,
								const Datum *values, const bool *nulls,
								LokyCodecPlace place, void *arg);
extern Datum loky_codec_row_value(MinimalTuple row, int16 typlen, bool byval,
								  bool *isnull);
extern void loky_codec_deform_row(MinimalTuple row, TupleDesc desc,
								  TupleDesc storage, Datum *values,
								  bool *nulls);

#endif							/* LOKY_CODEC_H */
