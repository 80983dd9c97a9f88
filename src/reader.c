/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  Reading the records of a result as rows of the type that was asked for.
 *
 * The type is that of the function's argument "result"; for a record it is the
 * column definition list of the query.  Converting a row may run functions, as
 * an assignment does.  Another role's result is converted as that role, in a
 * security-restricted operation whose settings are undone: a cast or domain of
 * its making must neither run with the reader's rights nor outlive its call.  One
 * of the reader's making runs as the other role, too, so the reader must be one who
 * may become it anyway.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/reader.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "codec.h"
#include "compat.h"
#include "reader.h"

/* Who we were before a conversion. */
typedef struct Identity
{
	Oid			userid;
	int			context;
	int			guc_level;
	bool		changed;
} Identity;

/*
 * Become the owner of the result, restricted, unless that is us.  Raises 42501 for
 * one that we may not become.
 */
static Identity
become_owner(LokyRowReader *reader)
{
	Identity	old;

	GetUserIdAndSecContext(&old.userid, &old.context);
	old.changed = reader->owner != old.userid;
	if (old.changed && reader->of_other &&
		!LokyMayBecome(old.userid, reader->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to convert a result of role \"%s\"",
						GetUserNameFromId(reader->owner, true)),
				 errhint("Ask for the type that the task returns, or be granted the role with the SET option.")));
	if (old.changed)
	{
		SetUserIdAndSecContext(reader->owner,
							   old.context | SECURITY_RESTRICTED_OPERATION);
		old.guc_level = NewGUCNestLevel();
	}
	return old;
}

static void
become_again(Identity old)
{
	if (old.changed)
	{
		AtEOXact_GUC(false, old.guc_level);
		SetUserIdAndSecContext(old.userid, old.context);
	}
}

/*
 * A reader in CurrentMemoryContext for rows of the type: the declared result of
 * the call, whose column definition list counts for a record.  Raises 42804 for
 * a record without one in a call that needs it.
 */
LokyRowReader *
loky_reader_create(FunctionCallInfo fcinfo, Oid type, Oid owner)
{
	LokyRowReader *reader = palloc0(sizeof(LokyRowReader));
	TupleDesc	rowdesc = NULL;

	reader->context = CurrentMemoryContext;
	reader->owner = owner;
	reader->of_other = owner != GetUserId();
	if (type == RECORDOID)
	{
		ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

		if (rsinfo != NULL && IsA(rsinfo, ReturnSetInfo) &&
			rsinfo->expectedDesc != NULL)
			rowdesc = BlessTupleDesc(CreateTupleDescCopy(rsinfo->expectedDesc));
	}
	reader->converter = loky_convert_create(type, -1, rowdesc);
	return reader;
}

/* The rows that follow have this encoded descriptor. */
void
loky_reader_set_desc(LokyRowReader *reader, const char *data, Size len)
{
	MemoryContext oldcontext;
	TupleDesc	desc;
	Oid			type;

	reader->plain =
		loky_codec_desc_is_value(data, len, &type, &reader->typlen,
								 &reader->byval) &&
		loky_convert_is_nothing(reader->converter, type);
	if (reader->plain)
		return;
	oldcontext = MemoryContextSwitchTo(reader->context);
	desc = loky_codec_decode_desc(data, len);
	if (reader->desc == NULL || !equalTupleDescs(reader->desc, desc))
	{
		if (reader->desc != NULL)
		{
			if (reader->storage != reader->desc)
				FreeTupleDesc(reader->storage);
			FreeTupleDesc(reader->desc);
			pfree(reader->values);
			pfree(reader->nulls);
		}
		reader->desc = desc;
		reader->storage = loky_codec_storage_desc(desc);
		reader->values = palloc(Max(desc->natts, 1) * sizeof(Datum));
		reader->nulls = palloc(Max(desc->natts, 1) * sizeof(bool));
	}
	else
		FreeTupleDesc(desc);
	MemoryContextSwitchTo(oldcontext);
}

/* A row record, converted; allocated in CurrentMemoryContext. */
Datum
loky_reader_row(LokyRowReader *reader, const char *data, bool *isnull)
{
	Identity	old;
	Datum		result;

	if (reader->plain)
	{
		result = loky_codec_row_value((MinimalTuple) unconstify(char *, data),
									  reader->typlen, reader->byval, isnull);
		return *isnull ? result :
			datumCopy(result, reader->byval, reader->typlen);
	}
	old = become_owner(reader);
	loky_codec_deform_row((MinimalTuple) unconstify(char *, data),
						  reader->desc, reader->storage, reader->values,
						  reader->nulls);
	result = loky_convert_row(reader->converter, reader->desc, reader->values,
							  reader->nulls, isnull);
	become_again(old);
	return result;
}

/* A row with one column that is not in a record, converted. */
Datum
loky_reader_values(LokyRowReader *reader, Datum value, bool is_null,
				   bool *isnull)
{
	Identity	old;
	Datum		result;

	if (reader->plain)
	{
		*isnull = is_null;
		return is_null ? (Datum) 0 : value;
	}
	old = become_owner(reader);
	result = loky_convert_row(reader->converter, reader->desc, &value,
							  &is_null, isnull);
	become_again(old);
	return result;
}

/* The outcome of a command without rows, converted. */
Datum
loky_reader_command(LokyRowReader *reader, const char *data, bool *isnull)
{
	const LokyCommandRecord *command = (const LokyCommandRecord *) data;
	Identity	old = become_owner(reader);
	Datum		result;

	result = loky_convert_command(reader->converter, command->tag,
								  command->processed, isnull);
	become_again(old);
	return result;
}
