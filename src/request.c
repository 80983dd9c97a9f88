/*-------------------------------------------------------------------------
 *
 * request.c
 *	  What is to be run: text, arguments and the submitter's settings.
 *
 * A small request lies whole in the object that owns it, so that submitting
 * allocates nothing.  Longer texts lie in the area, longer arguments in the
 * area or, where it is full, in a temporary file.
 *
 * Locking
 * -------
 * A request is written before it is published and constant afterwards.  The
 * references of an environment are counted by an atomic.
 *
 * Failure
 * -------
 * Everything that loky_request_write allocates is in the shared head by the
 * time anything can raise an error: the caller frees it as a whole.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/request.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "area.h"
#include "codec.h"
#include "request.h"

/*
 * A new environment with one reference, which is the caller's.  Raises an error
 * where the area is full.
 */
dsa_pointer
loky_env_create(const char *data, Size len)
{
	dsa_pointer dp = loky_area_alloc(offsetof(LokySharedEnv, data) + len);
	LokySharedEnv *env;

	if (!DsaPointerIsValid(dp))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of shared memory for the settings of a task"),
				 errhint("Raise loky.shared_memory, or forget finished futures with loky.forget().")));
	env = loky_area_address(dp);
	pg_atomic_init_u32(&env->refs, 1);
	env->len = (uint32) len;
	memcpy(env->data, data, len);
	return dp;
}

/* One more reference. */
void
loky_env_pin(dsa_pointer dp)
{
	LokySharedEnv *env = loky_area_address(dp);

	pg_atomic_fetch_add_u32(&env->refs, 1);
}

/* One reference less; the last one frees the environment. */
void
loky_env_unpin(dsa_pointer dp)
{
	LokySharedEnv *env = loky_area_address(dp);

	if (pg_atomic_sub_fetch_u32(&env->refs, 1) == 0)
		loky_area_free(dp);
}

/* An empty request, which may be freed. */
void
loky_request_init(LokySharedRequest *shared)
{
	shared->env = InvalidDsaPointer;
	shared->texts = InvalidDsaPointer;
	shared->args_inline = false;
	shared->nargs = 0;
	loky_blob_init(&shared->args);
}

/* Copy the texts to place, one after the other, each with its terminator. */
static void
write_texts(char *place, const LokyRequest *request,
			const LokySharedRequest *shared)
{
	for (int i = 0; i < LOKY_REQUEST_TEXTS; i++)
	{
		if (shared->text_sizes[i] > 0)
			memcpy(place, request->texts[i], shared->text_sizes[i]);
		place += shared->text_sizes[i];
	}
}

/*
 * Fill the empty request.  Takes over the reference to request->env.  Raises
 * an error where there is no room; the caller then frees what was written.
 */
void
loky_request_write(LokySharedRequest *shared, const LokyRequest *request)
{
	Size		text_size = 0;
	Size		inline_used = 0;
	StringInfoData args;

	shared->env = request->env;
	shared->hash = request->hash;
	shared->depth = request->depth;
	shared->read_only = request->read_only;
	shared->nargs = request->nargs;
	for (int i = 0; i < LOKY_REQUEST_TEXTS; i++)
	{
		const char *text = request->texts[i];

		shared->text_sizes[i] = text != NULL ? (uint32) strlen(text) + 1 : 0;
		text_size += shared->text_sizes[i];
	}
	if (text_size <= LOKY_REQUEST_INLINE)
	{
		write_texts(shared->inline_data, request, shared);
		inline_used = text_size;
	}
	else
	{
		shared->texts = loky_area_alloc(text_size);
		if (!DsaPointerIsValid(shared->texts))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of shared memory for the text of a task"),
					 errhint("Raise loky.shared_memory, or forget finished futures with loky.forget().")));
		write_texts(loky_area_address(shared->texts), request, shared);
	}

	if (request->nargs == 0)
		return;
	initStringInfo(&args);
	loky_codec_encode_values(&args, request->nargs, request->types,
							 request->values, request->nulls);
	inline_used = MAXALIGN(inline_used);
	shared->args_inline = inline_used + args.len <= LOKY_REQUEST_INLINE;
	if (shared->args_inline)
	{
		shared->args_offset = (uint32) inline_used;
		shared->args_len = (uint32) args.len;
		memcpy(shared->inline_data + inline_used, args.data, args.len);
	}
	else
		loky_blob_write(&shared->args, args.data, args.len);
	pfree(args.data);
}

/*
 * Give back the memory that the request holds and make it empty.  True, with *file set,
 * where it had a file, which the caller is to delete.  Raises no error.
 */
bool
loky_request_detach(LokySharedRequest *shared, FileSet *file)
{
	bool		has_file = loky_blob_detach(&shared->args, file);

	if (DsaPointerIsValid(shared->texts))
		loky_area_free(shared->texts);
	if (DsaPointerIsValid(shared->env))
		loky_env_unpin(shared->env);
	loky_request_init(shared);
	return has_file;
}

/* One of the texts, or NULL where it is absent; in shared memory. */
const char *
loky_request_text(const LokySharedRequest *shared, LokyRequestText which)
{
	const char *text = DsaPointerIsValid(shared->texts) ?
		(const char *) loky_area_address(shared->texts) :
		shared->inline_data;

	for (int i = 0; i < (int) which; i++)
		text += shared->text_sizes[i];
	return shared->text_sizes[which] > 0 ? text : NULL;
}

/*
 * The encoded arguments: in shared memory, or in CurrentMemoryContext where
 * they had to be read from a file.
 */
const char *
loky_request_args(LokySharedRequest *shared, Size *len)
{
	if (shared->args_inline)
	{
		*len = shared->args_len;
		return shared->inline_data + shared->args_offset;
	}
	*len = (Size) shared->args.len;
	return loky_blob_read(&shared->args, 0, *len);
}
