/*-------------------------------------------------------------------------
 *
 * cpu_count.c
 *	  The number of processors that this server may use.
 *
 * The least of what the machine has, what the affinity mask allows, what the
 * control groups grant, and the environment variable LOKY_MAX_CPU_COUNT of the
 * server; at least one.  A quota of a control group is rounded up, and that of
 * each group above the process counts.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/cpu_count.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>
#include <sched.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "storage/fd.h"

#include "cpu_count.h"
#include "debug_point.h"

#define CGROUP_ROOT		"/sys/fs/cgroup"

/* Open a file of the system; NULL where there is none. */
static FILE *
open_file(const char *path)
{
	char		full[MAXPGPATH];

	snprintf(full, sizeof(full), "%s%s", loky_debug_root(), path);
	return AllocateFile(full, "r");
}

/* The first line of a small file, without its end; NULL where there is none. */
static char *
read_line(const char *path, char *line, size_t size)
{
	FILE	   *file = open_file(path);
	char	   *result;

	if (file == NULL)
		return NULL;
	result = fgets(line, (int) size, file);
	FreeFile(file);
	if (result != NULL)
		line[strcspn(line, "\n")] = '\0';
	return result;
}

/* Processors that quota of each period amounts to; 0: no limit. */
static int
quota_to_count(double quota, double period)
{
	if (quota <= 0 || period <= 0)
		return 0;
	return Max(1, (int) ceil(quota / period));
}

/* The limit of one group of the unified hierarchy; 0: none. */
static int
read_unified_limit(const char *group)
{
	char		path[MAXPGPATH];
	char		line[128];
	double		quota;
	double		period;

	snprintf(path, sizeof(path), "%s%s/cpu.max", CGROUP_ROOT, group);
	if (read_line(path, line, sizeof(line)) == NULL ||
		sscanf(line, "%lf %lf", &quota, &period) != 2)
		return 0;
	return quota_to_count(quota, period);
}

/* The limit of one group of the older hierarchy; 0: none. */
static int
read_legacy_limit(const char *group)
{
	char		path[MAXPGPATH];
	char		quota[64];
	char		period[64];

	snprintf(path, sizeof(path), "%s/cpu%s/cpu.cfs_quota_us", CGROUP_ROOT, group);
	if (read_line(path, quota, sizeof(quota)) == NULL)
		return 0;
	snprintf(path, sizeof(path), "%s/cpu%s/cpu.cfs_period_us", CGROUP_ROOT, group);
	if (read_line(path, period, sizeof(period)) == NULL)
		return 0;
	return quota_to_count(atof(quota), atof(period));
}

/* The least limit of the group and all those above it; 0: none. */
static int
least_limit(const char *group, int (*read_limit) (const char *))
{
	char		path[MAXPGPATH];
	int			least = 0;

	strlcpy(path, group, sizeof(path));
	for (;;)
	{
		int			limit;
		char	   *slash;

		if (strcmp(path, "/") == 0)
			path[0] = '\0';
		limit = read_limit(path);
		if (limit > 0 && (least == 0 || limit < least))
			least = limit;
		slash = strrchr(path, '/');
		if (slash == NULL)
			break;
		*slash = '\0';
	}
	return least;
}

/* Is "cpu" among the names, which stand in any order with commas between them? */
static bool
has_cpu(const char *names)
{
	for (; names != NULL; names = strchr(names, ','))
	{
		names += *names == ',';
		if (strncmp(names, "cpu", 3) == 0 && (names[3] == ',' || names[3] == '\0'))
			return true;
	}
	return false;
}

/* What the control groups of this process grant; 0: no limit. */
static int
count_by_cgroups(void)
{
	FILE	   *file = open_file("/proc/self/cgroup");
	char		line[MAXPGPATH];
	int			least = 0;

	if (file == NULL)
		return 0;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		char	   *controllers = strchr(line, ':');
		char	   *group = controllers ? strchr(controllers + 1, ':') : NULL;
		int			limit = 0;

		if (group == NULL)
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		controllers++;
		if (controllers[0] == '\0')
			limit = least_limit(group, read_unified_limit);
		else if (has_cpu(controllers))
			limit = least_limit(group, read_legacy_limit);
		if (limit > 0 && (least == 0 || limit < least))
			least = limit;
	}
	FreeFile(file);
	return least;
}

static int
count_by_affinity(void)
{
#ifdef CPU_COUNT
	cpu_set_t	set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		return CPU_COUNT(&set);
#endif
	return 0;
}

/* Processor n's core, as a number that is unique in the machine; -1: unknown. */
static int
read_core(int n)
{
	char		path[MAXPGPATH];
	char		core[32];
	char		package[32];

	snprintf(path, sizeof(path),
			 "/sys/devices/system/cpu/cpu%d/topology/core_id", n);
	if (read_line(path, core, sizeof(core)) == NULL)
		return -1;
	snprintf(path, sizeof(path),
			 "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", n);
	if (read_line(path, package, sizeof(package)) == NULL)
		return -1;
	return atoi(package) * 65536 + atoi(core);
}

/* The cores among n processors; n where that cannot be told. */
static int
count_cores(int n)
{
	int		   *cores = palloc(n * sizeof(int));
	int			ncores = 0;

	for (int i = 0; i < n; i++)
	{
		int			core = read_core(i);
		bool		known = false;

		if (core < 0)
			return n;
		for (int j = 0; j < ncores && !known; j++)
			known = cores[j] == core;
		if (!known)
			cores[ncores++] = core;
	}
	return ncores;
}

static void
lower(int *count, int limit)
{
	if (limit > 0 && limit < *count)
		*count = limit;
}

/*
 * The number of processors that this server may use.  Physical cores count only
 * where nothing else limits the number.
 */
int
loky_cpu_count(bool only_physical_cores)
{
	int			online = Max(1, (int) sysconf(_SC_NPROCESSORS_ONLN));
	int			count = online;
	const char *limit = getenv("LOKY_MAX_CPU_COUNT");

	lower(&count, count_by_affinity());
	lower(&count, count_by_cgroups());
	if (limit != NULL)
		count = Min(count, Max(1, atoi(limit)));
	if (only_physical_cores && count == online)
		count = count_cores(online);
	return Max(1, count);
}
