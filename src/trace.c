/*-------------------------------------------------------------------------
 *
 * trace.c
 *	  The most recent runs, one by one.
 *
 * Each slot of a worker has a ring of events.  Only its worker writes there, or who
 * settles that when it is gone, so no lock is needed: an event is marked while it
 * is changed, as entries of pg_stat_activity are, and a reader copies it again if
 * it was.  One more ring is for maps as a whole, whose callers write under a
 * spinlock.
 *
 * The rings rely on fresh memory being zero, and are not touched before they are
 * needed: those of slots that are never used cost no memory.
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

/* An event that changes all the while is looked at so often. */
#define MAX_LOOKS	1000

typedef struct Ring
{
	pg_atomic_uint64 nevents;	/* that were ever begun */
	uint32		next;			/* place; the writer's own */
	LokyTraceEvent events[FLEXIBLE_ARRAY_MEMBER] pg_attribute_aligned(PG_CACHE_LINE_SIZE);
} Ring;

struct LokySharedTrace
{
	uint32		length;			/* of a ring; 0: there are none; constant */
	Size		ring_size;		/* in bytes; constant */
	int			nrings;			/* the last is that of maps; constant */
	slock_t		maps_mutex;		/* for writers of the ring of maps */
	char		rings[FLEXIBLE_ARRAY_MEMBER] pg_attribute_aligned(PG_CACHE_LINE_SIZE);
};

static Size
ring_size(void)
{
	return add_size(offsetof(Ring, events),
					mul_size(loky_trace_size, sizeof(LokyTraceEvent)));
}

static Ring *
get_ring(int n)
{
	return (Ring *) (loky->trace->rings + n * loky->trace->ring_size);
}

/* Bytes of all rings. */
Size
loky_trace_shmem_size(void)
{
	Size		head = offsetof(LokySharedTrace, rings);

	if (loky_trace_size == 0)
		return head;
	return add_size(head, mul_size(max_worker_processes + 1, ring_size()));
}

/* Lay the rings out, in memory that is zero. */
void
loky_trace_init(LokySharedTrace *trace)
{
	StaticAssertStmt(sizeof(LokyTraceEvent) == 128,
					 "an event fills its cache lines");
	trace->length = (uint32) loky_trace_size;
	trace->ring_size = ring_size();
	trace->nrings = trace->length > 0 ? max_worker_processes + 1 : 0;
	SpinLockInit(&trace->maps_mutex);
}

/* An event is about to change. */
void
loky_trace_begin_change(LokyTraceEvent *event)
{
	event->changes++;
	pg_write_barrier();
}

/* ... and has. */
void
loky_trace_end_change(LokyTraceEvent *event)
{
	pg_write_barrier();
	event->changes++;
}

/* The next place of the ring, marked as changing. */
static LokyTraceEvent *
next_event(Ring *ring)
{
	uint64		nevents = pg_atomic_read_u64(&ring->nevents);
	LokyTraceEvent *event = &ring->events[ring->next];

	if (++ring->next == loky->trace->length)
		ring->next = 0;

	/* who copies what is written over sees that something was lost */
	pg_atomic_write_u64(&ring->nevents, nevents + 1);
	pg_write_barrier();
	loky_trace_begin_change(event);
	return event;
}

/*
 * A new event of the worker, to be filled at once and ended by
 * loky_trace_end_change(); NULL: none is kept.
 */
LokyTraceEvent *
loky_trace_begin(int worker)
{
	if (loky->trace->length == 0)
		return NULL;
	return next_event(get_ring(worker));
}

/* A map has ended. */
void
loky_trace_add_map(const LokyTraceEvent *event)
{
	LokySharedTrace *trace = loky->trace;
	LokyTraceEvent *place;

	if (trace->length == 0)
		return;
	SpinLockAcquire(&trace->maps_mutex);
	place = next_event(get_ring(trace->nrings - 1));
	memcpy(&place->kind, &event->kind,
		   sizeof(LokyTraceEvent) - offsetof(LokyTraceEvent, kind));
	loky_trace_end_change(place);
	SpinLockRelease(&trace->maps_mutex);
}

/* Copy the event; false where it was never used, or changes all the while. */
static bool
copy_event(const LokyTraceEvent *event, LokyTraceEvent *copy)
{
	const volatile uint32 *changes = &event->changes;

	for (int i = 0; i < MAX_LOOKS; i++)
	{
		uint32		before = *changes;

		if (before == 0)
			return false;
		pg_read_barrier();
		*copy = *event;
		pg_read_barrier();
		if (*changes == before && (before & 1) == 0)
			return true;
	}
	return false;
}

/* Append what the ring holds to the list. */
static List *
copy_ring(Ring *ring, List *events)
{
	uint64		nevents = pg_atomic_read_u64(&ring->nevents);
	uint32		length = loky->trace->length;
	LokyTraceEvent *copies;
	LokyTraceEvent *oldest = NULL;
	uint32		n = 0;

	if (nevents == 0)
		return events;
	length = (uint32) Min(nevents, length);
	copies = palloc(length * sizeof(LokyTraceEvent));
	for (uint32 i = 0; i < length; i++)
	{
		LokyTraceEvent *copy = &copies[n];

		if (!copy_event(&ring->events[i], copy))
			continue;
		copy->oldest = false;
		events = lappend(events, copy);
		if (oldest == NULL || copy->start < oldest->start)
			oldest = copy;
		n++;
	}
	pg_read_barrier();
	if (oldest != NULL && pg_atomic_read_u64(&ring->nevents) > loky->trace->length)
		oldest->oldest = true;
	return events;
}

/* Append copies of all events that are kept, in CurrentMemoryContext. */
List *
loky_trace_copy(List *events)
{
	for (int i = 0; i < loky->trace->nrings; i++)
	{
		CHECK_FOR_INTERRUPTS();
		events = copy_ring(get_ring(i), events);
	}
	return events;
}
