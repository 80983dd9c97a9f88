/*-------------------------------------------------------------------------
 *
 * request.h
 *	  What is to be run: the part that tasks and maps have in common.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/request.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_REQUEST_H
#define LOKY_REQUEST_H

#include "port/atomics.h"
#include "utils/dsa.h"

#include "store.h"

/*
 * The settings of a submitting session, shared by all that it submits while
 * they stay the same.  In the area; freed with its last reference.
 */
typedef struct LokySharedEnv
{
	pg_atomic_uint32 refs;
	uint32		len;
	char		data[FLEXIBLE_ARRAY_MEMBER];	/* see settings.c */
} LokySharedEnv;

extern dsa_pointer loky_env_create(const char *data, Size len);
extern void loky_env_pin(dsa_pointer env);
extern void loky_env_unpin(dsa_pointer env);

/* Room for the texts and arguments of small requests, behind the head. */
#define LOKY_REQUEST_INLINE	208

/* The texts of a request, in the order in which they are stored. */
typedef enum LokyRequestText
{
	LOKY_TEXT_SQL,				/* what the worker runs */
	LOKY_TEXT_TASK,				/* what the user wrote */
	LOKY_TEXT_LABEL,
	LOKY_TEXT_KEY,
	LOKY_TEXT_RETRY_ON			/* SQLSTATEs and classes, comma-separated */
} LokyRequestText;

#define LOKY_REQUEST_TEXTS	(LOKY_TEXT_RETRY_ON + 1)

/*
 * A request.  Written by the submitter before it is published, constant until
 * it is freed.  The texts always lie in memory, arguments possibly in a file.
 */
typedef struct LokySharedRequest
{
	uint64		hash;			/* of the SQL text and the parameter types */
	dsa_pointer env;
	dsa_pointer texts;			/* invalid: inline */
	uint32		text_sizes[LOKY_REQUEST_TEXTS];	/* with the end; 0: absent */
	int			nargs;			/* 0: no arguments are stored */
	int			depth;			/* 1: submitted by a session */
	bool		read_only;		/* the submitter's transaction was */
	bool		args_inline;
	uint32		args_offset;	/* of inline arguments */
	uint32		args_len;		/* of inline arguments */
	LokySharedBlob args;		/* of others */
	char		inline_data[LOKY_REQUEST_INLINE] pg_attribute_aligned(8);
} LokySharedRequest;

/* A request as the submitter puts it together. */
typedef struct LokyRequest
{
	const char *texts[LOKY_REQUEST_TEXTS];	/* all but the first two may be NULL */
	uint64		hash;
	int			nargs;
	const Oid  *types;
	const Datum *values;
	const bool *nulls;
	dsa_pointer env;			/* the reference passes to the request */
	int			depth;
	bool		read_only;
} LokyRequest;

extern void loky_request_init(LokySharedRequest *shared);
extern void loky_request_write(LokySharedRequest *shared,
							   const LokyRequest *request);
extern bool loky_request_detach(LokySharedRequest *shared, FileSet *file);
extern const char *loky_request_text(const LokySharedRequest *shared,
									 LokyRequestText which);
extern const char *loky_request_args(LokySharedRequest *shared, Size *len);

#endif							/* LOKY_REQUEST_H */
