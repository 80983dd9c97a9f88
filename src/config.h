/*-------------------------------------------------------------------------
 *
 * config.h
 *	  The configuration of an executor, in one piece of memory.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/config.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_CONFIG_H
#define LOKY_CONFIG_H

#include "lib/stringinfo.h"

/* The parts of a configuration, in the order in which they lie. */
typedef enum LokyConfigPart
{
	LOKY_CONFIG_SETTINGS,		/* "name\0value\0" each, sorted by name */
	LOKY_CONFIG_ENV,			/* see environ.c */
	LOKY_CONFIG_JOB_REDUCERS,	/* see reduce.c */
	LOKY_CONFIG_RESULT_REDUCERS,
	LOKY_CONFIG_INITIALIZER,	/* SQL; empty: there is none */
	LOKY_CONFIG_INITARGS,		/* values as codec.c has them; empty: none */
	LOKY_CONFIG_SEARCH_PATH,	/* for the initializer; not compared */
	LOKY_CONFIG_NPARTS
} LokyConfigPart;

/*
 * A configuration in its one canonical form: but for the search_path, equal
 * configurations have equal bytes.
 */
typedef struct LokyConfig
{
	int32		timeout;		/* ms, -1: never */
	uint32		ends[LOKY_CONFIG_NPARTS];	/* of the parts in data */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} LokyConfig;

/* A configuration as it is put together. */
typedef struct LokyConfigDraft
{
	int			timeout;
	StringInfoData parts[LOKY_CONFIG_NPARTS];
} LokyConfigDraft;

extern void loky_config_draft_init(LokyConfigDraft *draft, int timeout);
extern LokyConfig *loky_config_create(const LokyConfigDraft *draft);
extern LokyConfig *loky_config_copy(const LokyConfig *config);
extern Size loky_config_size(const LokyConfig *config);
extern const char *loky_config_part(const LokyConfig *config,
									LokyConfigPart part, Size *len);
extern bool loky_config_equal(const LokyConfig *a, const LokyConfig *b);
extern uint64 loky_config_hash(const LokyConfig *config);

#endif							/* LOKY_CONFIG_H */
