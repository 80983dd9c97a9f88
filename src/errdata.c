/*-------------------------------------------------------------------------
 *
 * errdata.c
 *	  Errors and notices that travel from a worker to whoever waits.
 *
 * This file owns the flat form of an ErrorData and the way back from it to a
 * raised error.  The worker encodes what it caught; the process that waits
 * decodes it and raises it as its own.  Notices take another road: they are
 * kept as the protocol message that the worker would have sent to a client,
 * since a message can be caught before it is sent, but a notice cannot.
 *
 * Hazards
 * -------
 * 1. A FATAL or PANIC of a worker ended that worker; it must not end the
 *	  process that waits.  Everything is raised as ERROR.  A notice is below
 *	  ERROR, as the server has another kind of message for all else.
 * 2. A cursor position counts characters of the statement that the worker
 *	  ran.  A client would point with it into the statement that it sent
 *	  itself, so a position is shown only with the text it belongs to, as
 *	  internal position and internal query, and dropped without.
 * 3. The strings are texts, never formats: they may contain percent signs, so
 *	  they go through ThrowErrorData(), not through ereport().
 * 4. File, line and function of the worker are left out: the error stack keeps
 *	  only pointers to them, which would dangle after the memory of the
 *	  decoded error is gone.
 * 5. The strings are in the server encoding.  A notice is in whatever client
 *	  encoding the worker had, so workers run with the encoding of the
 *	  database as client encoding.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/errdata.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqmq.h"
#include "mb/pg_wchar.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "errdata.h"

/* so much is kept of the message of an error in short */
#define SHORT_MESSAGE	100

/* the length of a string that is not there */
#define STRING_ABSENT	(-1)

/* the numbers at the head of an encoded error, before its strings */
typedef struct EncodedErrorHead
{
	int32		elevel;
	int32		sqlerrcode;
	int32		cursorpos;
	int32		internalpos;
} EncodedErrorHead;

/* the strings of an ErrorData in the order of the encoding */
static const Size string_fields[] = {
	offsetof(ErrorData, message),
	offsetof(ErrorData, detail),
	offsetof(ErrorData, detail_log),
	offsetof(ErrorData, hint),
	offsetof(ErrorData, context),
	offsetof(ErrorData, schema_name),
	offsetof(ErrorData, table_name),
	offsetof(ErrorData, column_name),
	offsetof(ErrorData, datatype_name),
	offsetof(ErrorData, constraint_name),
	offsetof(ErrorData, internalquery)
};

#define STRING_FIELD(edata, i) \
	((char **) ((char *) (edata) + string_fields[i]))

/*
 * Append an error to buf, from which loky_error_decode() restores it.
 *
 * Strings that are NULL stay NULL; message_id, the place in the source and the
 * output flags are left out.  Raises 54000 if buf would pass the limit of a
 * StringInfo.
 */
void
loky_error_encode(StringInfo buf, const ErrorData *edata)
{
	EncodedErrorHead head;

	head.elevel = edata->elevel;
	head.sqlerrcode = edata->sqlerrcode;
	head.cursorpos = edata->cursorpos;
	head.internalpos = edata->internalpos;
	appendBinaryStringInfo(buf, (char *) &head, sizeof(head));

	for (int i = 0; i < lengthof(string_fields); i++)
	{
		const char *string = *STRING_FIELD(edata, i);
		int32		len;

		if (string == NULL && edata->cursorpos > 0 &&
			string_fields[i] == offsetof(ErrorData, internalquery))
			string = debug_query_string;	/* what the position counts in */
		len = string ? (int32) strlen(string) : STRING_ABSENT;
		appendBinaryStringInfo(buf, (char *) &len, sizeof(len));
		if (string)
			appendBinaryStringInfo(buf, string, len);
	}
}

/*
 * The same for an error that there is no room for: its SQLSTATE and the beginning of
 * its message, in less than LOKY_SHORT_ERROR bytes.
 */
void
loky_error_encode_short(StringInfo buf, const ErrorData *edata)
{
	ErrorData	brief = {0};
	const char *message = edata->message != NULL ? edata->message : "";
	int			len = (int) strnlen(message, SHORT_MESSAGE);

	brief.elevel = edata->elevel;
	brief.sqlerrcode = edata->sqlerrcode;
	brief.message = pnstrdup(message, pg_mbcliplen(message, len, len));
	brief.detail = "There was no room to keep all of the error.";
	loky_error_encode(buf, &brief);
	pfree(brief.message);
}

/*
 * Copy size bytes from *pos, which moves on; complain if they pass end.
 */
static void
read_bytes(const char **pos, const char *end, void *target, Size size)
{
	if (size > (Size) (end - *pos))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("encoded error ends early")));
	memcpy(target, *pos, size);
	*pos += size;
}

/*
 * Restore an error from what loky_error_encode() wrote.
 *
 * Returns an ErrorData of which every part is allocated in the current memory
 * context, which also is its assoc_context.  Nothing points into data, which
 * needs no alignment.  Raises ERRCODE_DATA_CORRUPTED on impossible lengths.
 */
ErrorData *
loky_error_decode(const char *data, Size len)
{
	const char *pos = data;
	const char *end = data + len;
	ErrorData  *edata = palloc0(sizeof(ErrorData));
	EncodedErrorHead head;

	read_bytes(&pos, end, &head, sizeof(head));
	edata->elevel = head.elevel;
	edata->sqlerrcode = head.sqlerrcode;
	edata->cursorpos = head.cursorpos;
	edata->internalpos = head.internalpos;
	edata->assoc_context = CurrentMemoryContext;

	for (int i = 0; i < lengthof(string_fields); i++)
	{
		int32		size;
		char	   *string;

		read_bytes(&pos, end, &size, sizeof(size));
		if (size == STRING_ABSENT)
			continue;
		if (size < 0 || size > end - pos)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("encoded error has a string of impossible length %d",
							size)));
		string = palloc((Size) size + 1);
		read_bytes(&pos, end, string, size);
		string[size] = '\0';
		*STRING_FIELD(edata, i) = string;
	}

	return edata;
}

/*
 * Keep a position only together with the text that it counts in (see the head
 * of this file).  A worker that knows the text of its statement puts it into
 * internalquery and leaves cursorpos alone; the position is then moved over.
 */
static void
confine_position(ErrorData *edata)
{
	if (edata->internalquery != NULL && edata->internalpos <= 0)
		edata->internalpos = edata->cursorpos;
	edata->cursorpos = 0;
}

/*
 * Raise a worker's error as an ERROR of this process; does not return.
 *
 * SQLSTATE and all texts are the worker's.  The context is that of the worker,
 * then the line `where` (none if NULL), then the context stack of this
 * process.  edata is left as it is; the raised error has its own copies.
 */
void
loky_error_rethrow(ErrorData *edata, const char *where)
{
	ErrorData	raised = *edata;
	char	   *context = raised.context;

	raised.elevel = ERROR;
	confine_position(&raised);
	if (where != NULL)
		raised.context = context ? psprintf("%s\n%s", context, where) :
			unconstify(char *, where);

	ThrowErrorData(&raised);
	pg_unreachable();
}

/*
 * Raise a worker's notice in this process, at its own level.
 *
 * message is the body of a NoticeResponse of protocol 3, without type and
 * length; it is only read and needs no alignment.  This process decides by its
 * own settings whether the notice goes to client and log.  Returns when it is
 * sent; leaves no memory behind.  Raises ERRCODE_DATA_CORRUPTED on a body that
 * does not end as one must.
 */
void
loky_notice_raise(const char *message, Size len)
{
	MemoryContext notice_context;
	MemoryContext oldcontext;
	StringInfoData body;
	ErrorData	edata;

	/*
	 * The last byte ends the list of fields.  With it in place, no string
	 * inside can run past the end.
	 */
	if (len == 0 || len > MaxAllocSize || message[len - 1] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("notice of a worker is malformed")));

	notice_context = AllocSetContextCreate(CurrentMemoryContext,
										   "loky notice",
										   ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(notice_context);

	body.data = unconstify(char *, message);
	body.len = body.maxlen = (int) len;
	body.cursor = 0;
	pq_parse_errornotice(&body, &edata);

	Assert(edata.elevel < ERROR);
	confine_position(&edata);

	ThrowErrorData(&edata);

	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(notice_context);
}
