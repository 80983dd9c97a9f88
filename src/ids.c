/*-------------------------------------------------------------------------
 *
 * ids.c
 *	  Numbers of futures that are never given out twice, restarts included.
 *
 * Ids are reserved in blocks: a small file in the data directory holds the
 * first one that was not.  After a crash the rest of the block is lost; a clean
 * shutdown writes down where it stopped.
 *
 * Locking
 * -------
 * The lock idfile is held while the file is written.  The limit is an atomic
 * that grows only under the lock.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/ids.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "pool.h"

#define ID_FILE		"pg_stat/loky.ids"
#define ID_MAGIC	0x4c4f4b59

/* With debug points so few that tests meet the end of a block. */
#ifdef LOKY_DEBUG
#define ID_BLOCK	UINT64CONST(1000)
#else
#define ID_BLOCK	(UINT64CONST(1) << 20)
#endif

typedef struct IdFile
{
	uint32		magic;
	uint32		padding;
	uint64		limit;			/* no id from here on was ever given out */
	pg_crc32c	crc;			/* of all before it */
} IdFile;

static pg_crc32c
compute_crc(const IdFile *content)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, content, offsetof(IdFile, crc));
	FIN_CRC32C(crc);
	return crc;
}

/*
 * Write the limit so that it survives a crash.  False, with a line in the log, where
 * that fails; but an error where the process has as many files open as it may.
 */
static bool
write_limit(uint64 limit, int elevel)
{
	IdFile		content;
	int			fd;

	memset(&content, 0, sizeof(content));
	content.magic = ID_MAGIC;
	content.limit = limit;
	content.crc = compute_crc(&content);

	fd = OpenTransientFile(ID_FILE ".tmp",
						   O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
	{
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", ID_FILE ".tmp")));
		return false;
	}
	errno = 0;
	if (write(fd, &content, sizeof(content)) != sizeof(content))
	{
		if (errno == 0)
			errno = ENOSPC;
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", ID_FILE ".tmp")));
		CloseTransientFile(fd);
		return false;
	}
	CloseTransientFile(fd);
	return durable_rename(ID_FILE ".tmp", ID_FILE, elevel) == 0;
}

/* The limit in the file; 1 where there is no file yet. */
static uint64
read_limit(void)
{
	IdFile		content;
	int			fd = OpenTransientFile(ID_FILE, O_RDONLY | PG_BINARY);
	ssize_t		nread;

	if (fd < 0 && errno == ENOENT)
		return 1;
	nread = fd < 0 ? -1 : read(fd, &content, sizeof(content));
	if (fd >= 0)
		CloseTransientFile(fd);
	if (nread == sizeof(content) && content.magic == ID_MAGIC &&
		content.crc == compute_crc(&content))
		return content.limit;

	/* the microseconds since 2000 are beyond any id given out so far */
	ereport(LOG,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("file \"%s\" is not usable, ids of futures start at the present time",
					ID_FILE)));
	return (uint64) GetCurrentTimestamp();
}

/* A clean shutdown gives back what is left of the block. */
static void
write_at_shutdown(int code, Datum arg)
{
	if (code == 0 && loky != NULL &&
		pg_atomic_read_u64(&loky->task_id_limit) !=
		pg_atomic_read_u64(&loky->next_task_id))
		write_limit(pg_atomic_read_u64(&loky->next_task_id), LOG);
}

/* Find out where to go on; called in the postmaster. */
void
loky_ids_startup(void)
{
	uint64		limit = read_limit();

	pg_atomic_init_u64(&loky->next_task_id, limit);
	pg_atomic_init_u64(&loky->task_id_limit, limit);
	if (!IsUnderPostmaster)
		on_shmem_exit(write_at_shutdown, (Datum) 0);
}

/*
 * Reserve another block.  Called where the next id passes the limit.  Fails as
 * write_limit does; nothing was given out then.
 */
bool
loky_ids_reserve(void)
{
	uint64		next;
	bool		reserved = true;

	LWLockAcquire(&loky->idfile, LW_EXCLUSIVE);
	next = pg_atomic_read_u64(&loky->next_task_id);
	if (next >= pg_atomic_read_u64(&loky->task_id_limit))
	{
		uint64		limit = next + ID_BLOCK;

		reserved = write_limit(limit, LOG);
		if (reserved)
			pg_atomic_write_u64(&loky->task_id_limit, limit);
	}
	LWLockRelease(&loky->idfile);
	return reserved;
}
