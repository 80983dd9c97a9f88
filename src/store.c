/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Bytes that one process writes and others read: requests and results.
 *
 * A blob holds the text and arguments of a task, or the items of a map.  A
 * store holds what a task gives back: records, each with a kind and a length.
 * Small stores lie inline in the object that owns them, larger ones in segments
 * of the area, and what the area cannot take goes to a temporary file.
 *
 * Files belong to a FileSet whose number comes from a counter in shared memory
 * and whose creator is the postmaster: so the name cannot collide with that of
 * an earlier process with the same pid, and a restart of the server removes
 * what is left, as it does with all temporary files.
 *
 * Locking
 * -------
 * None here.  The owner of a blob or store sees to it that it is written by one
 * process before it is published and freed after its last reader.
 *
 * Failure
 * -------
 * Whatever is allocated is linked into the shared head before anything that
 * can raise an error, so freeing the head frees all of it.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "area.h"
#include "debug_point.h"
#include "guc.h"
#include "store.h"

/* the only file of a file set */
#define STORE_FILE	"loky"

/*
 * Records are collected here before they go to the area: large enough that a
 * segment is worth its allocation, small enough to copy from the cache.
 */
#define SEGMENT_BYTES	(32 * 1024)

/* ... or to the file, which is opened and closed each time. */
#define FILE_BYTES		(256 * 1024)

typedef struct LokySharedSegment
{
	dsa_pointer next;
	uint64		used;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} LokySharedSegment;

/* What stands before each record; the payload is padded to MAXALIGN. */
typedef struct LokyRecordHead
{
	uint32		len;
	uint32		kind;
} LokyRecordHead;

struct LokyStoreWriter
{
	MemoryContext context;
	LokySharedStore *store;		/* NULL while none is begun */
	LokySharedSegment *last;	/* the segment that was added last */
	uint64		file_bytes;		/* of whole records, at the start of the file */
	StringInfoData buffer;		/* records not yet in the store */
};

struct LokyStoreReader
{
	LokySharedStore *store;
	const char *data;			/* of the inline bytes or the segment */
	uint64		used;
	uint64		offset;
	dsa_pointer next;			/* the segment after this one */
	uint64		rest;			/* bytes that lie elsewhere and were not read yet */
	BufFile    *file;
	char	   *buffer;			/* a record read from the file */
};

/*
 * Give fileset a name of its own and this transaction's temp_tablespaces.  The
 * error of a task is written after its transaction: then it is the database's
 * tablespace.
 */
static void
init_fileset(FileSet *fileset)
{
	if (IsTransactionState())
		FileSetInit(fileset);
	else
	{
		fileset->ntablespaces = 1;
		fileset->tablespaces[0] = MyDatabaseTableSpace;
	}
	fileset->creator_pid = PostmasterPid;
	fileset->number = loky_area_next_file();
}

/*
 * Hold a file to temp_file_limit before it grows to size bytes.  The server counts for
 * that only what is written to a file from its creation until it is closed, and a
 * file here is opened anew for each piece.
 */
static void
check_file_size(uint64 size)
{
	if (temp_file_limit >= 0 && size > (uint64) temp_file_limit * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("temporary file size exceeds temp_file_limit (%d kB)",
						temp_file_limit),
				 errdetail("Arguments and results that find no room in shared memory go to temporary files."),
				 errhint("Raise temp_file_limit, or loky.shared_memory.")));
}

/* Move to the offset in the file; false where it is past the end. */
static bool
move_to(BufFile *file, uint64 offset)
{
	const uint64 segment = 1024 * 1024 * 1024;

	return BufFileSeek(file, (int) (offset / segment),
					   (off_t) (offset % segment), SEEK_SET) == 0;
}

/*
 * Delete the file of a blob or store that does not name it any more.  Interrupts are
 * held: the server serves them as it looks through a directory, and whoever frees what
 * had the file has more to give back.  What fails is told in the log; but an error is
 * raised where the process has as many directories and files open as it may.  The file
 * then stays until the server starts again.
 */
void
loky_store_delete_file(FileSet *fileset)
{
	HOLD_INTERRUPTS();
	loky_debug_point("deleting");
	FileSetDeleteAll(fileset);
	RESUME_INTERRUPTS();
}

/* An empty blob. */
void
loky_blob_init(LokySharedBlob *blob)
{
	blob->len = 0;
	blob->memory = InvalidDsaPointer;
	blob->has_file = false;
}

/*
 * Fill the empty blob.  Raises an error only where its file cannot be written or would
 * pass temp_file_limit; the blob is then to be freed as ever.
 */
void
loky_blob_write(LokySharedBlob *blob, const char *data, Size len)
{
	BufFile    *file;

	Assert(!DsaPointerIsValid(blob->memory) && !blob->has_file);
	blob->len = len;
	if (len == 0)
		return;
	if (loky_area_has_room(len))
		blob->memory = loky_area_alloc(len);
	if (DsaPointerIsValid(blob->memory))
	{
		memcpy(loky_area_address(blob->memory), data, len);
		return;
	}
	check_file_size(len);
	init_fileset(&blob->fileset);
	blob->has_file = true;
	file = BufFileCreateFileSet(&blob->fileset, STORE_FILE);
	BufFileWrite(file, unconstify(char *, data), len);
	BufFileExportFileSet(file);
	BufFileClose(file);
}

/*
 * The len bytes at offset: in the area, or read from the file into memory of
 * CurrentMemoryContext.  MAXALIGNed if offset is.
 */
char *
loky_blob_read(LokySharedBlob *blob, uint64 offset, Size len)
{
	BufFile    *file;
	char	   *result;

	Assert(offset + len <= blob->len);
	if (!blob->has_file)
		return len == 0 ? NULL :
			(char *) loky_area_address(blob->memory) + offset;

	result = MemoryContextAllocHuge(CurrentMemoryContext, Max(len, 1));
	file = BufFileOpenFileSet(&blob->fileset, STORE_FILE, O_RDONLY, false);
	if (!move_to(file, offset) || BufFileRead(file, result, len) != len)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("temporary file with arguments ends early")));
	BufFileClose(file);
	return result;
}

/*
 * Give back the memory that the blob holds and make it empty.  True, with *file set,
 * where it had a file, which the caller is to delete.  Raises no error.
 */
bool
loky_blob_detach(LokySharedBlob *blob, FileSet *file)
{
	bool		has_file = blob->has_file;

	if (has_file)
		*file = blob->fileset;
	if (DsaPointerIsValid(blob->memory))
		loky_area_free(blob->memory);
	loky_blob_init(blob);
	return has_file;
}

/* An empty store with inline_size bytes of room behind its head. */
void
loky_store_init(LokySharedStore *store, uint32 inline_size)
{
	store->bytes = 0;
	store->segments = InvalidDsaPointer;
	store->has_file = false;
	store->inline_size = inline_size;
	store->inline_used = 0;
}

/*
 * Give back the memory that the store holds and make it empty.  True, with *file set,
 * where it had a file, which the caller is to delete.  Raises no error.
 */
bool
loky_store_detach(LokySharedStore *store, FileSet *file)
{
	dsa_pointer dp = store->segments;
	bool		has_file = store->has_file;

	if (has_file)
		*file = store->fileset;
	while (DsaPointerIsValid(dp))
	{
		LokySharedSegment *segment = loky_area_address(dp);
		dsa_pointer next = segment->next;

		loky_area_free(dp);
		dp = next;
	}
	loky_store_init(store, store->inline_size);
	return has_file;
}

/*
 * Give back what the store holds and make it empty.  Raises an error as
 * loky_store_delete_file does, when the rest is done.
 */
void
loky_store_free(LokySharedStore *store)
{
	FileSet		file;

	if (loky_store_detach(store, &file))
		loky_store_delete_file(&file);
}

/*
 * Make one record the whole content of the store, without a writer.  Where there is
 * no memory the store stays empty.  Raises an error as loky_store_free does.
 */
void
loky_store_set(LokySharedStore *store, LokyRecordKind kind,
			   const void *data, Size len)
{
	LokyRecordHead head;
	Size		size = sizeof(head) + MAXALIGN(len);
	char	   *place;

	loky_store_free(store);
	if (size <= store->inline_size)
	{
		place = store->inline_data;
		store->inline_used = (uint32) size;
	}
	else
	{
		LokySharedSegment *segment;
		dsa_pointer dp;

		dp = loky_area_alloc(offsetof(LokySharedSegment, data) + size);
		if (!DsaPointerIsValid(dp))
			return;
		segment = loky_area_address(dp);
		segment->next = InvalidDsaPointer;
		segment->used = size;
		store->segments = dp;
		place = segment->data;
	}
	head.len = (uint32) len;
	head.kind = kind;
	memcpy(place, &head, sizeof(head));
	memcpy(place + sizeof(head), data, len);
	store->bytes = size;
}

/*
 * Move what lies inline in the complete store to a file, for want of memory.
 * Raises an error where the file cannot be written.
 */
void
loky_store_spill(LokySharedStore *store)
{
	BufFile    *file;

	if (store->inline_used == 0 || store->has_file)
		return;
	check_file_size(store->inline_used);
	init_fileset(&store->fileset);
	store->has_file = true;
	file = BufFileCreateFileSet(&store->fileset, STORE_FILE);
	BufFileWrite(file, store->inline_data, store->inline_used);
	BufFileExportFileSet(file);
	BufFileClose(file);
	store->inline_used = 0;
}

/*
 * A writer, in CurrentMemoryContext, to be used for one store after the other
 * for the life of the process.
 */
LokyStoreWriter *
loky_store_writer_create(void)
{
	LokyStoreWriter *writer = palloc0(sizeof(LokyStoreWriter));

	writer->context = CurrentMemoryContext;
	initStringInfo(&writer->buffer);
	return writer;
}

/* Forget the records that are not yet in the store. */
static void
reset_writer(LokyStoreWriter *writer)
{
	writer->last = NULL;
	writer->file_bytes = 0;
	if (writer->buffer.maxlen > 2 * FILE_BYTES)
	{
		pfree(writer->buffer.data);
		writer->buffer.data = MemoryContextAlloc(writer->context, 1024);
		writer->buffer.maxlen = 1024;
	}
	resetStringInfo(&writer->buffer);
}

/* Start to write into the empty store. */
void
loky_store_begin(LokyStoreWriter *writer, LokySharedStore *store)
{
	Assert(writer->store == NULL);
	Assert(store->bytes == 0 && !DsaPointerIsValid(store->segments));
	reset_writer(writer);
	writer->store = store;
}

/*
 * Append the collected records to the file, which is made at the first call.  It
 * does not stay open: the end of any transaction closes temporary files, and a
 * task may have several.
 *
 * Where this raises an error, as for want of space on the disk, a part of the records
 * may be in the file.  A task can trap the error, if it was a notice that had them
 * written, and go on: they are still collected, and the next call writes them over
 * that part.
 */
static void
append_to_file(LokyStoreWriter *writer)
{
	LokySharedStore *store = writer->store;
	StringInfo	buffer = &writer->buffer;
	int			half = buffer->len / 2;
	BufFile    *file;

	check_file_size(writer->file_bytes + buffer->len);
	if (!store->has_file)
	{
		init_fileset(&store->fileset);
		store->has_file = true;
	}
	if (writer->file_bytes == 0)
		file = BufFileCreateFileSet(&store->fileset, STORE_FILE);
	else
	{
		file = BufFileOpenFileSet(&store->fileset, STORE_FILE, O_RDWR, false);
		if (!move_to(file, writer->file_bytes))
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not seek in temporary file: %m")));
	}
	BufFileWrite(file, buffer->data, half);
	loky_debug_point("half written");
	BufFileWrite(file, buffer->data + half, buffer->len - half);
	BufFileClose(file);
	writer->file_bytes += buffer->len;
}

/* The same with an owner of the file that is there also outside of transactions. */
static void
flush_to_file(LokyStoreWriter *writer)
{
	ResourceOwner owner;

	if (CurrentResourceOwner != NULL)
	{
		append_to_file(writer);
		return;
	}
	owner = ResourceOwnerCreate(NULL, "loky store");
	CurrentResourceOwner = owner;
	PG_TRY();
	{
		append_to_file(writer);
	}
	PG_FINALLY();
	{
		/* after an error the file is still open */
		ResourceOwnerRelease(owner, RESOURCE_RELEASE_BEFORE_LOCKS, false, true);
		ResourceOwnerRelease(owner, RESOURCE_RELEASE_LOCKS, false, true);
		ResourceOwnerRelease(owner, RESOURCE_RELEASE_AFTER_LOCKS, false, true);
		CurrentResourceOwner = NULL;
		ResourceOwnerDelete(owner);
	}
	PG_END_TRY();
}

/* Move the collected records to a new segment, or else to the file. */
static void
flush(LokyStoreWriter *writer)
{
	LokySharedStore *store = writer->store;
	Size		size = writer->buffer.len;
	dsa_pointer dp = InvalidDsaPointer;

	if (size == 0)
		return;
	if (!store->has_file && loky_area_has_room(store->bytes + size))
		dp = loky_area_alloc(offsetof(LokySharedSegment, data) + size);
	if (DsaPointerIsValid(dp))
	{
		LokySharedSegment *segment = loky_area_address(dp);

		segment->next = InvalidDsaPointer;
		segment->used = size;
		memcpy(segment->data, writer->buffer.data, size);
		if (writer->last != NULL)
			writer->last->next = dp;
		else
			store->segments = dp;
		writer->last = segment;
	}
	else
		flush_to_file(writer);
	store->bytes += size;
	resetStringInfo(&writer->buffer);
}

/* Append a record whose len bytes are to be filled in at the place returned. */
static char *
append(LokyStoreWriter *writer, LokyRecordKind kind, Size len)
{
	StringInfo	buffer = &writer->buffer;
	Size		size = sizeof(LokyRecordHead) + MAXALIGN(len);
	Size		limit;
	LokyRecordHead head;
	char	   *place;

	Assert(writer->store != NULL);
	limit = writer->store->has_file ? FILE_BYTES : SEGMENT_BYTES;
	if (buffer->len > 0 && buffer->len + size > limit)
		flush(writer);
	enlargeStringInfo(buffer, (int) Min(size, (Size) MaxAllocSize));
	head.len = (uint32) len;
	head.kind = kind;
	place = buffer->data + buffer->len;
	memcpy(place, &head, sizeof(head));
	buffer->len += size;
	return place + sizeof(head);
}

/*
 * Append a record that is no row.  Raises an error where a file must be written and
 * cannot be, or where the record passes the limit of 1 GB.
 */
void
loky_store_put(LokyStoreWriter *writer, LokyRecordKind kind,
			   const void *data, Size len)
{
	Assert(kind != LOKY_RECORD_ROW);
	memcpy(append(writer, kind, len), data, len);
}

/*
 * Append a row of len bytes, which the caller fills in at the place returned before
 * it does anything else.  Raises the same errors.
 */
void *
loky_store_put_row(LokyStoreWriter *writer, Size len)
{
	return append(writer, LOKY_RECORD_ROW, len);
}

/* Complete the store; from now on it may be read. */
void
loky_store_end(LokyStoreWriter *writer)
{
	LokySharedStore *store = writer->store;

	Assert(store != NULL);
	if (writer->last == NULL && !store->has_file &&
		writer->buffer.len <= store->inline_size)
	{
		memcpy(store->inline_data, writer->buffer.data, writer->buffer.len);
		store->inline_used = writer->buffer.len;
		store->bytes = writer->buffer.len;
	}
	else
		flush(writer);
	writer->store = NULL;
	reset_writer(writer);
}

/* Is there a store that was begun and not ended? */
bool
loky_store_is_begun(const LokyStoreWriter *writer)
{
	return writer->store != NULL;
}

/*
 * Drop all that was written to the store, begun or already ended, as after an
 * error.  Raises an error as loky_store_free does.
 */
void
loky_store_abandon(LokyStoreWriter *writer, LokySharedStore *store)
{
	reset_writer(writer);
	writer->store = NULL;
	loky_store_free(store);
}

/*
 * Open a complete store for reading.  The reader lies in CurrentMemoryContext;
 * a file it opens belongs to CurrentResourceOwner.
 */
LokyStoreReader *
loky_store_open(LokySharedStore *store)
{
	LokyStoreReader *reader = palloc0(sizeof(LokyStoreReader));

	reader->store = store;
	reader->data = store->inline_data;
	reader->used = store->inline_used;
	reader->next = store->segments;
	reader->rest = store->bytes - store->inline_used;
	return reader;
}

/* The next record out of the file; false where all were read. */
static bool
next_from_file(LokyStoreReader *reader, LokyRecordKind *kind,
			   char **data, Size *len)
{
	LokyRecordHead head;
	size_t		nread;

	if (reader->rest == 0)
		return false;
	if (reader->file == NULL)
	{
		MemoryContext oldcontext =
			MemoryContextSwitchTo(GetMemoryChunkContext(reader));

		reader->file = BufFileOpenFileSet(&reader->store->fileset, STORE_FILE,
										  O_RDONLY, false);
		MemoryContextSwitchTo(oldcontext);
	}
	nread = BufFileRead(reader->file, &head, sizeof(head));
	if (reader->buffer != NULL)
	{
		pfree(reader->buffer);
		reader->buffer = NULL;
	}
	if (nread == sizeof(head))
	{
		Size		size = MAXALIGN(head.len);

		reader->buffer = MemoryContextAllocHuge(GetMemoryChunkContext(reader),
												Max(size, 1));
		nread = BufFileRead(reader->file, reader->buffer, size);
		if (nread == size)
		{
			reader->rest -= sizeof(head) + size;
			*kind = (LokyRecordKind) head.kind;
			*data = reader->buffer;
			*len = head.len;
			return true;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("temporary file with a result ends early")));
}

/*
 * The next record; false after the last one.  *data points to shared memory, or
 * into memory of the reader that is good until the next call.
 */
bool
loky_store_next(LokyStoreReader *reader, LokyRecordKind *kind,
				char **data, Size *len)
{
	const LokyRecordHead *head;

	while (reader->offset >= reader->used)
	{
		LokySharedSegment *segment;

		if (!DsaPointerIsValid(reader->next))
		{
			if (!reader->store->has_file)
				return false;
			return next_from_file(reader, kind, data, len);
		}
		segment = loky_area_address(reader->next);
		reader->data = segment->data;
		reader->used = segment->used;
		reader->offset = 0;
		reader->rest -= segment->used;
		reader->next = segment->next;
	}
	head = (const LokyRecordHead *) (reader->data + reader->offset);
	*kind = (LokyRecordKind) head->kind;
	*len = head->len;
	*data = unconstify(char *, (const char *) (head + 1));
	reader->offset += sizeof(LokyRecordHead) + MAXALIGN(head->len);
	return true;
}

/* Close the reader; the store itself stays. */
void
loky_store_close(LokyStoreReader *reader)
{
	if (reader->file != NULL)
		BufFileClose(reader->file);
	if (reader->buffer != NULL)
		pfree(reader->buffer);
	pfree(reader);
}
