/*-------------------------------------------------------------------------
 *
 * map.h
 *	  One object for all items of a map: its reader's and its workers' sides.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/map.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_MAP_H
#define LOKY_MAP_H

#include "map_retry.h"
#include "pool.h"
#include "request.h"
#include "stats.h"
#include "trace.h"

typedef enum LokyMapMode
{
	LOKY_MAP_ONE,				/* exactly one row for each item */
	LOKY_MAP_FLAT,				/* any number of rows */
	LOKY_MAP_TRY				/* one row, and no error is raised */
} LokyMapMode;

/* Why a map has been cancelled. */
typedef enum LokyMapEnd
{
	LOKY_MAP_GOES_ON,
	LOKY_MAP_NOT_WANTED,		/* its reader has left */
	LOKY_MAP_BROKEN,			/* no worker can start; the executor says why */
	LOKY_MAP_SHUT_DOWN,			/* its executor's workers were ended */
	LOKY_MAP_NO_MEMORY
} LokyMapEnd;

/* Marks the length of an encoded item that is an error, of a reducer. */
#define LOKY_ITEM_IS_ERROR	(UINT64CONST(1) << 63)

/* How one item came out. */
typedef enum LokyItemState
{
	LOKY_ITEM_EMPTY,			/* not there yet */
	LOKY_ITEM_VALUE,			/* one row with one by-value column */
	LOKY_ITEM_NULL,				/* one row with one null column */
	LOKY_ITEM_NONE,				/* no row */
	LOKY_ITEM_ROWS,				/* a piece whose store holds the records */
	LOKY_ITEM_ERROR				/* a piece with the item's number and error;
								 * without one where there was no memory */
} LokyItemState;

/* A place in the window: the outcome of one item, waiting to be read. */
typedef struct LokySharedPlace
{
	uint64		value;			/* a Datum, or the dsa_pointer of a piece */
	uint64		item;			/* its index, for unordered maps */
} LokySharedPlace;

/* More about an item, kept for try_map alone. */
typedef struct LokySharedTiming
{
	int			worker;			/* pid, 0: none took it */
	int			attempts;
	TimestampTz started;
	int64		elapsed;		/* microseconds */
} LokySharedTiming;

/* Memory that one worker fills with pieces; freed with the last one of them. */
typedef struct LokySharedChunk
{
	pg_atomic_uint32 refs;		/* unread pieces, and the worker filling it */
	uint32		size;
	uint32		used;			/* written by the worker filling it */
} LokySharedChunk;

typedef struct LokySharedPiece
{
	dsa_pointer chunk;
	LokySharedStore store;
} LokySharedPiece;

/* A reader that was not woken at once is woken after so long. */
#define LOKY_LATE_WAKE_MS	5

/* Room for the records of an item that is being run. */
#define LOKY_PART_INLINE	(8 * 1024)

/* Room for ranges that are given back, for each worker slot: see loky_map_return(). */
#define LOKY_RANGES_RETURNED	3

/* An outcome that its transaction has yet to commit. */
typedef struct LokySharedOutcome
{
	uint64		item;
	uint64		value;
	LokyItemState state;
	LokySharedTiming timing;
} LokySharedOutcome;

/*
 * What one worker has of a map.  Written by the worker alone; whoever settles
 * a worker that is gone reads it.
 */
struct LokySharedPart
{
	LokySharedRange range;		/* items from lo on are not yet published */
	int			attempts;		/* at the range that have failed */
	bool		running;		/* the transaction of item lo has begun */
	bool		ending;			/* ... and all of its items have been run */
	bool		whole;			/* the range fails or succeeds as a whole */
	bool		repeatable;		/* outcomes below hold without their transaction */
	bool		committed;		/* the outcomes below are final */
	bool		wrote;			/* a procedure has committed something */
	uint32		noutcomes;
	uint32		max_outcomes;
	TimestampTz item_started;	/* the item that ran last; 0: untimed, or none yet */
	uint64		wish;			/* items to claim next, from experience */
	uint64		nsucceeded;		/* items not yet counted by the executor */
	uint64		nfailed;
	uint64		nrows;			/* of the outcomes that are not yet published */
	LokySharedRun run;			/* the range since it was claimed: see history.c */
	LokyTraceEvent *event;		/* the last one of this work on the map, or NULL */
	dsa_pointer chunk;			/* being filled, or invalid */
	dsa_pointer outcomes;
	LokySharedStore store;		/* of the item that runs */
	char		inline_data[LOKY_PART_INLINE] pg_attribute_aligned(8);
};

/* A notice on its way to the reader. */
typedef struct LokySharedNotice
{
	dsa_pointer next;
	Size		len;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} LokySharedNotice;

struct LokySharedMap
{
	/* Constant once the map is offered to workers, but for cancelled. */
	dsa_pointer self;
	int			executor;		/* slot number */
	int			executor_id;
	Oid			role;
	Oid			database;
	int			submitter;		/* pid */
	int			reader;			/* process number */
	uint64		session;
	TimestampTz started;
	uint64		started_us;		/* the same by the clock of last_wake */
	LokyMapMode mode;
	bool		ordered;
	uint64		nitems;
	uint64		chunksize;		/* 0: workers decide */
	uint64		window;			/* places */
	Size		budget;			/* bytes of pieces that may wait to be read */
	uint64		item_timeout;	/* microseconds; 0: none */
	uint64		delay;			/* us that a worker rests after an item */
	bool		counts;			/* results are numbers of rows */
	pg_atomic_uint32 cancelled; /* LokyMapEnd; at its end, by the reader or closers */
	dsa_pointer snapshot;		/* the caller's, or invalid: each has its own */
	LokySharedRequest request;	/* with the arguments common to all items */

	/* the items: elements of an array as they lie in it */
	Oid			item_type;
	int16		item_len;
	bool		item_byval;
	char		item_align;
	bool		spread;			/* an item is an encoded list of parameters */
	int			nshape;			/* parameters of a null among such items */
	dsa_pointer shape;			/* their types */
	LokySharedBlob items;
	dsa_pointer offsets;		/* uint32 for each; invalid: fixed width */

	/* Under the executor's lock. */
	LokySharedLane lane;
	LokySharedTimer timer;		/* when parked items may be run again */
	dlist_node	node;			/* in the executor's list of maps */
	int			nworkers;		/* that may touch the map */
	bool		closed;			/* the reader has left */

	/* Written by the reader, or rarely; read by all: on cache lines of their own. */
	char		pad1[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 limit;		/* items from here on must wait */
	pg_atomic_uint32 reader_waits;
	pg_atomic_uint64 awaited;	/* the position that it waits for */
	pg_atomic_uint32 nnotices;	/* a hint that there are some */
	char		pad2[PG_CACHE_LINE_SIZE];

	/* Written by workers. */
	pg_atomic_uint64 next;		/* the first item that nobody has claimed */
	pg_atomic_uint64 stop;		/* no item from here on need be run */
	pg_atomic_uint64 tickets;	/* outcomes of an unordered map so far */
	pg_atomic_uint64 published; /* outcomes so far */
	pg_atomic_uint64 nfailed;
	pg_atomic_uint64 last_wake; /* when the reader was woken, in us */
	pg_atomic_uint32 parked;	/* taken from the queue for want of places */
	pg_atomic_uint32 nreturned; /* a hint that returned is not empty */
	pg_atomic_uint32 writes;	/* what seemed only to read has written */
	pg_atomic_uint64 dropped_notices;	/* for which there was no room */

	LokySharedRetries retries;	/* see there */

	pg_atomic_uint64 piece_bytes;	/* in pieces that have not been read */

	/* Under the map's lock. */
	LWLock		lock;
	dsa_pointer desc;			/* of the rows of most items; set once */
	uint32		desc_len;
	dsa_pointer first_notice;
	dsa_pointer last_notice;
	Size		notice_bytes;
	int			returned;		/* ranges that leaving workers gave back */
	dsa_pointer returned_ranges;	/* LOKY_RANGES_RETURNED for each worker slot */
	dsa_pointer parts;			/* dsa_pointer for each worker slot */

	/* A place belongs to the worker that fills it until its state is set. */
	dsa_pointer places;
	dsa_pointer states;			/* a byte for each place */
	dsa_pointer timings;		/* for try_map, else invalid */
};

/* both sides (map.c) */
extern bool loky_map_claim(LokySharedMap *map, uint64 wish, LokySharedPart *part);
extern bool loky_map_claimable(LokySharedMap *map);
extern bool loky_map_is_at_rest(LokySharedMap *map);
extern void loky_map_return(LokySharedMap *map, LokySharedPart *part);
extern void loky_map_publish(LokySharedMap *map, const LokySharedOutcome *outcomes, uint32 n);
extern uint64 loky_map_clock(void);
extern bool loky_map_wake_reader(LokySharedMap *map, uint64 now);
extern void loky_map_end(LokySharedMap *map, LokyMapEnd reason);
extern void loky_map_stop_at(LokySharedMap *map, uint64 item);
extern void loky_map_free_value(LokySharedMap *map, LokyItemState state, uint64 value);
extern void loky_map_free(LokySharedMap *map);
extern bool loky_map_detach(LokySharedMap *map);
extern LokySharedPart *loky_map_part(LokySharedMap *map, int worker);
extern LokySharedPart *loky_map_known_part(LokySharedMap *map, int worker);
extern LokySharedWorker *loky_map_holder(LokySharedMap *map, uint64 item);
extern void loky_map_add_notice(LokySharedMap *map, const char *data, Size len);
extern void loky_map_unchunk(LokySharedMap *map, dsa_pointer dp);
extern bool loky_map_put_error(LokySharedMap *map, LokySharedPart *part, const char *data,
							   Size len, LokySharedOutcome *outcome);
extern uint64 loky_map_keep_store(LokySharedMap *map, LokySharedPart *part, LokySharedStore *store,
								  bool may_spill);

/* the worker's side (map_worker.c); map_part.h has more */
extern void loky_map_work(LokySharedMap *map);

#endif							/* LOKY_MAP_H */
