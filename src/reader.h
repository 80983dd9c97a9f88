/*-------------------------------------------------------------------------
 *
 * reader.h
 *	  Reading the records of a result as rows of the type that was asked for.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/reader.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_READER_H
#define LOKY_READER_H

#include "funcapi.h"

#include "convert.h"
#include "store.h"

/*
 * What rows are to become, and the state of turning them into that.  Lives as
 * long as the call of a set-returning function.
 */
typedef struct LokyRowReader
{
	MemoryContext context;		/* of descriptors and caches */
	LokyConverter *converter;
	Oid			owner;			/* role whose result is read */
	bool		of_other;		/* ... which was not ours at the beginning */
	bool		plain;			/* rows are one value of our type each */
	bool		byval;			/* ... and kind */
	int16		typlen;
	TupleDesc	desc;			/* of the rows, unless they are plain */
	TupleDesc	storage;
	Datum	   *values;
	bool	   *nulls;
} LokyRowReader;

extern LokyRowReader *loky_reader_create(FunctionCallInfo fcinfo, Oid type,
										 Oid owner);
extern void loky_reader_set_desc(LokyRowReader *reader, const char *data,
								 Size len);
extern Datum loky_reader_row(LokyRowReader *reader, const char *data,
							 bool *isnull);
extern Datum loky_reader_values(LokyRowReader *reader, Datum value,
								bool is_null, bool *isnull);
extern Datum loky_reader_command(LokyRowReader *reader, const char *data,
								 bool *isnull);

#endif							/* LOKY_READER_H */
