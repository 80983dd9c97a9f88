/*-------------------------------------------------------------------------
 *
 * trace.c
 *	  The most recent runs, one by one.
 *
 * Each slot of a worker has a ring of events that only its worker writes, without a
 * lock: it fills the next place and then moves the head.  A reader copies the
 * ring and leaves out what may have been written over meanwhile.  One more ring is
 * for maps as a whole, which their callers write under a spinlock.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/trace.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/spin.h"

#include "guc.h"
#include "trace.h"

/* A ring has at least so many places, if there are any. */
#define LEAST_EVENTS	16

typedef struct Ring
{
	slock_t		mutex;			/* for writers of the ring of maps alone */
	pg_atomic_uint64 head;		/* events ever written */
	LokyTraceEvent events[FLEXIBLE_ARRAY_MEMBER];
} Ring;

static char *rings = NULL;

/* Places of a ring; 0: nothing is kept. */
static int
ring_length(void)
{
	if (loky_trace_size == 0)
		return 0;
	return Max(loky_trace_size / (max_worker_processes + 1), LEAST_EVENTS);
}

static Size
ring_size(void)
{
	return CACHELINEALIGN(offsetof(Ring, events) +
						  ring_length() * sizeof(LokyTraceEvent));
}

/* The ring of a worker's slot; after the last one that of maps. */
static Ring *
get_ring(int n)
{
	return (Ring *) (rings + n * ring_size());
}

/* Bytes of all rings. */
Size
loky_trace_size_of_rings(void)
{
	return mul_size(max_worker_processes + 1, ring_size());
}

/* Lay the rings out. */
void
loky_trace_init(void *place)
{
	rings = place;
	for (int i = 0; i <= max_worker_processes; i++)
	{
		SpinLockInit(&get_ring(i)->mutex);
		pg_atomic_init_u64(&get_ring(i)->head, 0);
	}
}

/* The place for the next event of a worker, which fills it; NULL: none is kept. */
LokyTraceEvent *
loky_trace_begin(int worker)
{
	Ring	   *ring = get_ring(worker);
	int			length = ring_length();

	if (length == 0)
		return NULL;
	return &ring->events[pg_atomic_read_u64(&ring->head) % length];
}

/* The event is complete. */
void
loky_trace_end(int worker)
{
	Ring	   *ring = get_ring(worker);

	pg_write_barrier();
	pg_atomic_write_u64(&ring->head, pg_atomic_read_u64(&ring->head) + 1);
}

/* A map has ended. */
void
loky_trace_add_map(const LokyTraceEvent *event)
{
	Ring	   *ring = get_ring(max_worker_processes);

	if (ring_length() == 0)
		return;
	SpinLockAcquire(&ring->mutex);
	*loky_trace_begin(max_worker_processes) = *event;
	loky_trace_end(max_worker_processes);
	SpinLockRelease(&ring->mutex);
}

/*
 * Append what the ring holds to the list, without what may be torn.  Where something
 * has been written over, *complete_since is no earlier than the oldest that is left.
 */
static List *
copy_ring(Ring *ring, List *events, TimestampTz *complete_since)
{
	int			nbefore = list_length(events);
	uint64		length = (uint64) ring_length();
	uint64		before = pg_atomic_read_u64(&ring->head);
	uint64		first = before > length ? before - length : 0;
	LokyTraceEvent *copies;
	uint64		after;

	if (before == 0)
		return events;
	copies = palloc((before - first) * sizeof(LokyTraceEvent));
	pg_read_barrier();
	for (uint64 i = first; i < before; i++)
		copies[i - first] = ring->events[i % length];
	pg_read_barrier();
	after = pg_atomic_read_u64(&ring->head);

	/* the one that would be written now is the oldest */
	for (uint64 i = first; i < before; i++)
	{
		if (i + length > after)
			events = lappend(events, &copies[i - first]);
	}
	if (after > length && list_length(events) > nbefore)
	{
		const LokyTraceEvent *oldest = list_nth(events, nbefore);

		*complete_since = Max(*complete_since, oldest->start);
	}
	return events;
}

/*
 * All events that are kept, in CurrentMemoryContext.  From *complete_since on nothing
 * is missing of what workers have run.
 */
List *
loky_trace_copy(TimestampTz *complete_since)
{
	List	   *events = NIL;

	TimestampTz ignored = 0;

	*complete_since = 0;
	if (ring_length() == 0)
		return NIL;
	for (int i = 0; i <= max_worker_processes; i++)
		events = copy_ring(get_ring(i), events, i < max_worker_processes ?
						   complete_since : &ignored);
	return events;
}
