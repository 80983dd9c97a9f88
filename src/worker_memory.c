/*-------------------------------------------------------------------------
 *
 * worker_memory.c
 *	  How much memory a process holds.
 *
 * What counts is resident memory that is the process's own: neither shared
 * memory, of which every process touches more and more, nor pages of files.
 * Linux tells it in /proc/PID/statm; elsewhere the size of our own memory
 * contexts has to do, and nothing is known of other processes.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/worker_memory.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "storage/fd.h"
#include "utils/memutils.h"

#include "worker_memory.h"

/* Read the statm that is open here, from its start: bytes, or -1. */
static int64
read_statm(int fd)
{
	char		text[128];
	long		resident;
	long		shared;
	ssize_t		len = pread(fd, text, sizeof(text) - 1, 0);

	if (len <= 0)
		return -1;
	text[len] = '\0';
	if (sscanf(text, "%*d %ld %ld", &resident, &shared) != 2)
		return -1;
	return (int64) (resident - shared) * sysconf(_SC_PAGESIZE);
}

/* Memory that the process holds for itself, in bytes; -1: unknown. */
int64
loky_worker_memory_of(int pid)
{
	char		path[64];
	int			fd;
	int64		bytes;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	fd = OpenTransientFile(path, O_RDONLY);
	if (fd < 0)
		return -1;
	bytes = read_statm(fd);
	(void) CloseTransientFile(fd);
	return bytes;
}

/*
 * The same for this process, and always known.  Cheap enough to be called after
 * each task: the file stays open for the life of the process.
 */
int64
loky_worker_memory_own(void)
{
	static int	fd = -1;
	static bool opened = false;
	int64		bytes = -1;

	if (!opened)
	{
		opened = true;
		fd = BasicOpenFile("/proc/self/statm", O_RDONLY);
		if (fd >= 0)
			ReserveExternalFD();
	}
	if (fd >= 0)
		bytes = read_statm(fd);
	if (bytes < 0)
		bytes = (int64) MemoryContextMemAllocated(TopMemoryContext, true);
	return bytes;
}

/* Give back to the system what has been freed, as far as the library can. */
void
loky_worker_memory_trim(void)
{
#ifdef __GLIBC__
	(void) malloc_trim(0);
#endif
}
