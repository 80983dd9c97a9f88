/*-------------------------------------------------------------------------
 *
 * area.c
 *	  The memory for arguments and results, inside the main segment.
 *
 * One DSA area is created in place when the server starts and never grows:
 * its limit equals its size, so it never asks for dynamic shared memory
 * (containers often have very little of it).  Since all of it lies in the main
 * segment, which every process maps at the same address, an address obtained
 * from it is good in every process.
 *
 * A process attaches once and keeps the mapping for its life.
 *
 * Locking
 * -------
 * The area locks itself.  Its locks are the last in loky's order: allocating
 * and freeing are allowed under any of loky's LWLocks, though the callers
 * avoid it, and never under a spinlock.
 *
 * Failure
 * -------
 * Allocation never raises: it returns InvalidDsaPointer and the caller spills
 * to a file or raises an error of its own.  Nobody frees for a process that
 * dies; whatever is allocated must already hang on a shared object.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/area.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/atomics.h"
#include "utils/memutils.h"

#include "area.h"
#include "debug_point.h"
#include "guc.h"

/* What stands before the area.  Both are atomics and need no lock. */
typedef struct LokySharedAreaHead
{
	pg_atomic_uint64 used;		/* bytes that are allocated from it */
	pg_atomic_uint32 files;		/* file sets numbered since server start */
} LokySharedAreaHead;

/* What stands before each allocation, so that freeing can count it back. */
typedef struct LokySharedAreaChunk
{
	Size		size;
} LokySharedAreaChunk;

/* What takes more than this counts as large. */
#define LARGE_SIZE		(16 * 1024)

#define AREA_HEAD_SIZE	MAXALIGN(sizeof(LokySharedAreaHead))
#define CHUNK_HEAD_SIZE MAXALIGN(sizeof(LokySharedAreaChunk))

/* this process's view of the area */
static LokySharedAreaHead *area_head = NULL;
static dsa_area *area = NULL;

/* The bytes that the area takes of the main segment. */
Size
loky_area_size(void)
{
	return (Size) loky_shared_memory * 1024 * 1024;
}

/*
 * Create the area in the size bytes at place.  The postmaster's own attachment
 * is dropped again: its children attach for themselves.
 */
void
loky_area_init(void *place, Size size, int tranche)
{
	dsa_area   *created;
	LokySharedAreaHead *head = (LokySharedAreaHead *) place;
	char	   *start = (char *) place + AREA_HEAD_SIZE;

	pg_atomic_init_u64(&head->used, 0);
	pg_atomic_init_u32(&head->files, 0);
	created = dsa_create_in_place(start, size - AREA_HEAD_SIZE, tranche, NULL);
	dsa_pin(created);
	dsa_set_size_limit(created, size - AREA_HEAD_SIZE);
	dsa_detach(created);
}

/* Attach this process to the area at place; harmless when repeated. */
void
loky_area_attach(void *place)
{
	MemoryContext oldcontext;

	if (area != NULL)
		return;
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	area = dsa_attach_in_place((char *) place + AREA_HEAD_SIZE, NULL);
	dsa_pin_mapping(area);
	MemoryContextSwitchTo(oldcontext);
	area_head = (LokySharedAreaHead *) place;
}

/*
 * Allocate size bytes.  Returns InvalidDsaPointer where there is no room.
 */
dsa_pointer
loky_area_alloc(Size size)
{
	dsa_pointer dp;
	LokySharedAreaChunk *chunk;

	Assert(area != NULL);
	if (loky_debug_fails("area"))
		return InvalidDsaPointer;
	size += CHUNK_HEAD_SIZE;
	dp = dsa_allocate_extended(area, size, DSA_ALLOC_HUGE | DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(dp))
		return InvalidDsaPointer;
	chunk = (LokySharedAreaChunk *) dsa_get_address(area, dp);
	chunk->size = size;
	pg_atomic_fetch_add_u64(&area_head->used, size);
	return dp + CHUNK_HEAD_SIZE;
}

/*
 * May something that could as well lie in a file take size bytes more, or be size
 * bytes large in all?  Large things leave half of the area, small ones an eighth, to
 * what has no other place.
 *
 * Asked with all that it has so far, the answer is yes as long as that is less than what
 * is left for others of its kind.  So one alone may be large, while of many none takes
 * it all, as with the dynamic thresholds of a switch with shared buffers (Choudhury and
 * Hahne, 1998).
 */
bool
loky_area_has_room(Size size)
{
	Size		total = loky_area_size();
	Size		used = pg_atomic_read_u64(&area_head->used);

	return used + size <= (size > LARGE_SIZE ? total / 2 : total / 8 * 7);
}

/* The address of what loky_area_alloc returned. */
void *
loky_area_address(dsa_pointer dp)
{
	Assert(DsaPointerIsValid(dp));
	return dsa_get_address(area, dp);
}

/* Give back what loky_area_alloc returned. */
void
loky_area_free(dsa_pointer dp)
{
	LokySharedAreaChunk *chunk;

	Assert(DsaPointerIsValid(dp));
	dp -= CHUNK_HEAD_SIZE;
	chunk = (LokySharedAreaChunk *) dsa_get_address(area, dp);
	pg_atomic_fetch_sub_u64(&area_head->used, chunk->size);
	dsa_free(area, dp);
}

/* The bytes allocated at present, for the views and for leak checks. */
Size
loky_area_used(void)
{
	return pg_atomic_read_u64(&area_head->used);
}

/* A number for a file set that no other one has had since server start. */
uint32
loky_area_next_file(void)
{
	return pg_atomic_fetch_add_u32(&area_head->files, 1);
}
