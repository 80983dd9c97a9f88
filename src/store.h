/*-------------------------------------------------------------------------
 *
 * store.h
 *	  Bytes that one process writes and others read: requests and results.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_STORE_H
#define LOKY_STORE_H

#include "storage/buffile.h"
#include "storage/fileset.h"
#include "utils/dsa.h"

/*
 * A blob: written whole once, read in any part.  In memory, or in a file where
 * memory does not suffice.
 */
typedef struct LokySharedBlob
{
	uint64		len;
	dsa_pointer memory;			/* invalid: in the file */
	bool		has_file;
	FileSet		fileset;
} LokySharedBlob;

extern void loky_blob_init(LokySharedBlob *blob);
extern void loky_blob_write(LokySharedBlob *blob, const char *data, Size len);
extern char *loky_blob_read(LokySharedBlob *blob, uint64 offset, Size len);
extern bool loky_blob_detach(LokySharedBlob *blob, FileSet *file);

/* What a record of a store is. */
typedef enum LokyRecordKind
{
	LOKY_RECORD_DESC = 1,		/* descriptor of the rows that follow */
	LOKY_RECORD_ROW,			/* a minimal tuple */
	LOKY_RECORD_COMMAND,		/* LokyCommandRecord: the task returns no rows */
	LOKY_RECORD_NOTICE,			/* body of a NoticeResponse message */
	LOKY_RECORD_ERROR			/* an encoded ErrorData, always the last */
} LokyRecordKind;

typedef struct LokyCommandRecord
{
	uint64		processed;
	char		tag[FLEXIBLE_ARRAY_MEMBER];
} LokyCommandRecord;

/*
 * A store: a sequence of records.  Its writer is one process; it is read only
 * after the writer has ended it.  Small ones lie in the bytes behind the head.
 */
typedef struct LokySharedStore
{
	uint64		bytes;			/* of all records together */
	dsa_pointer segments;		/* the first one, or invalid */
	bool		has_file;		/* the file's records follow the segments' */
	FileSet		fileset;
	uint32		inline_size;	/* room for inline_data, constant */
	uint32		inline_used;
	char		inline_data[FLEXIBLE_ARRAY_MEMBER];
} LokySharedStore;

typedef struct LokyStoreWriter LokyStoreWriter;
typedef struct LokyStoreReader LokyStoreReader;

extern void loky_store_init(LokySharedStore *store, uint32 inline_size);
extern bool loky_store_detach(LokySharedStore *store, FileSet *file);
extern void loky_store_free(LokySharedStore *store);
extern void loky_store_delete_file(FileSet *fileset);
extern void loky_store_spill(LokySharedStore *store);
extern void loky_store_set(LokySharedStore *store, LokyRecordKind kind,
						   const void *data, Size len);

extern LokyStoreWriter *loky_store_writer_create(void);
extern void loky_store_begin(LokyStoreWriter *writer, LokySharedStore *store);
extern void loky_store_put(LokyStoreWriter *writer, LokyRecordKind kind,
						   const void *data, Size len);
extern void *loky_store_put_row(LokyStoreWriter *writer, Size len);
extern void loky_store_end(LokyStoreWriter *writer);
extern bool loky_store_is_begun(const LokyStoreWriter *writer);
extern void loky_store_abandon(LokyStoreWriter *writer,
							   LokySharedStore *store);

extern LokyStoreReader *loky_store_open(LokySharedStore *store);
extern bool loky_store_next(LokyStoreReader *reader, LokyRecordKind *kind,
							char **data, Size *len);
extern void loky_store_close(LokyStoreReader *reader);

#endif							/* LOKY_STORE_H */
