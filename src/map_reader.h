/*-------------------------------------------------------------------------
 *
 * map_reader.h
 *	  The caller's side of a map.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map_reader.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_MAP_READER_H
#define LOKY_MAP_READER_H

#include "datatype/timestamp.h"

#include "client.h"
#include "codec.h"
#include "executor.h"
#include "items.h"
#include "map.h"

/* What a call of a map asks for. */
typedef struct LokyMapCall
{
	const char *task;
	const char *label;
	LokyMapMode mode;
	bool		ordered;
	bool		snapshot;		/* items see what the caller sees */
	bool		counts;			/* results are numbers of rows; for TRY */
	bool		progress;		/* notices tell of it */
	uint64		delay;			/* us that a worker rests after an item */
	uint64		chunksize;		/* 0: workers decide */
	TimestampTz deadline;
	uint64		item_timeout;	/* microseconds; 0: none */
	int			retries;
	LokyExecutorRef executor;
	LokyItems  *items;
	LokyValues	args;			/* parameters after the item's own */
} LokyMapCall;

/* An item's outcome, as it is read.  Good until the next one is. */
typedef struct LokyOutcome
{
	uint64		item;			/* from 0 */
	LokyItemState state;
	Datum		value;			/* of VALUE */
	LokySharedStore *store;		/* of ROWS */
	const char *error;			/* of ERROR: encoded, NULL: no memory */
	Size		error_len;
	int			not_run;		/* of ERROR: why it was not run, an SQLSTATE, or 0 */
	LokySharedTiming timing;
} LokyOutcome;

typedef struct LokyMapReader LokyMapReader;

/* map_outcome.c */
extern ErrorData *loky_map_outcome_error(const LokyOutcome *outcome);

/* map_layout.c */
extern LokySharedMap *loky_map_lay_out(const LokyMapCall *call, bool with_items);

/* map_reader.c */
extern LokyMapReader *loky_map_reader_open(const LokyMapCall *call);
extern bool loky_map_reader_next(LokyMapReader *reader, LokyOutcome *outcome);
extern bool loky_map_reader_next_value(LokyMapReader *reader, Datum *value,
									   bool *isnull);
extern const char *loky_map_reader_desc(LokyMapReader *reader, Size *len);
extern void loky_map_reader_close(LokyMapReader *reader);

#endif							/* LOKY_MAP_READER_H */
