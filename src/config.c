/*-------------------------------------------------------------------------
 *
 * config.c
 *	  The configuration of an executor, in one piece of memory.
 *
 * What two executors are compared by, with all values in one canonical form, so
 * that comparing is comparing bytes.  The search_path of who made the executor
 * comes along for its initializer, but makes no difference.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/config.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "config.h"

/* The bytes that are compared: these of the head, and the data of these parts. */
#define COMPARED_HEAD	offsetof(LokyConfig, ends[LOKY_CONFIG_SEARCH_PATH])
#define COMPARED_DATA(config)	((config)->ends[LOKY_CONFIG_SEARCH_PATH - 1])

/* Start an empty draft in CurrentMemoryContext. */
void
loky_config_draft_init(LokyConfigDraft *draft, int timeout)
{
	draft->timeout = timeout;
	for (int i = 0; i < LOKY_CONFIG_NPARTS; i++)
		initStringInfo(&draft->parts[i]);
}

/* The configuration of the draft, in CurrentMemoryContext. */
LokyConfig *
loky_config_create(const LokyConfigDraft *draft)
{
	Size		len = 0;
	LokyConfig *config;

	for (int i = 0; i < LOKY_CONFIG_NPARTS; i++)
		len += draft->parts[i].len;
	config = palloc0(offsetof(LokyConfig, data) + len);
	config->timeout = draft->timeout;
	len = 0;
	for (int i = 0; i < LOKY_CONFIG_NPARTS; i++)
	{
		memcpy(config->data + len, draft->parts[i].data, draft->parts[i].len);
		len += draft->parts[i].len;
		config->ends[i] = (uint32) len;
	}
	return config;
}

/* A copy in CurrentMemoryContext. */
LokyConfig *
loky_config_copy(const LokyConfig *config)
{
	Size		size = loky_config_size(config);

	return memcpy(palloc(size), config, size);
}

/* The size in bytes. */
Size
loky_config_size(const LokyConfig *config)
{
	return offsetof(LokyConfig, data) + config->ends[LOKY_CONFIG_NPARTS - 1];
}

/* A part, unaligned, and its length. */
const char *
loky_config_part(const LokyConfig *config, LokyConfigPart part, Size *len)
{
	uint32		start = part == 0 ? 0 : config->ends[part - 1];

	*len = config->ends[part] - start;
	return config->data + start;
}

/* Are the configurations equal in all that counts? */
bool
loky_config_equal(const LokyConfig *a, const LokyConfig *b)
{
	return memcmp(a, b, COMPARED_HEAD) == 0 &&
		memcmp(a->data, b->data, COMPARED_DATA(a)) == 0;
}

/* A hash of all that counts. */
uint64
loky_config_hash(const LokyConfig *config)
{
	uint64		head =
		DatumGetUInt64(hash_any_extended((const unsigned char *) config,
										 (int) COMPARED_HEAD, 0));

	return DatumGetUInt64(hash_any_extended((const unsigned char *) config->data,
											(int) COMPARED_DATA(config), head));
}
