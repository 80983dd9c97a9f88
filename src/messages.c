/*-------------------------------------------------------------------------
 *
 * messages.c
 *	  Messages of a worker to the client that it does not have.
 *
 * The server sends notices and errors to its client in the form of protocol
 * messages.  In a worker these are caught: notices go on to whoever waits for the
 * task, as they are, and the text of the error that ends the process is kept in
 * the worker's slot, for whoever settles it.  Errors that do not end the process
 * never get here, as the worker catches them itself.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/messages.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "tcop/tcopprot.h"

/* the structures of connections, which we do not touch, need GSSAPI's headers */
#undef ENABLE_GSS
#include "libpq/libpq.h"

#include "messages.h"
#include "worker.h"

/* where notices go; NULL: nowhere */
static LokyNoticeSink notice_sink = NULL;

static void
nothing(void)
{
}

static int
nothing_to_flush(void)
{
	return 0;
}

static bool
nothing_pending(void)
{
	return false;
}

/* The text of a message's primary field and its severity, cut for the slot. */
static void
note_last_words(const char *message, size_t len)
{
	const char *place = message;
	const char *end = message + len;
	const char *severity = "";
	const char *primary = "";
	char	   *words = LokyMyWorker->last_words;
	int			words_len;

	while (place < end && *place != '\0')
	{
		char		field = *place++;

		if (field == PG_DIAG_SEVERITY)
			severity = place;
		else if (field == PG_DIAG_MESSAGE_PRIMARY)
			primary = place;
		place += strlen(place) + 1;
	}
	snprintf(words, LOKY_LAST_WORDS, "%s:  %s", severity, primary);

	/* whole characters alone */
	words_len = (int) strlen(words);
	words[pg_mbcliplen(words, words_len, words_len)] = '\0';
}

/*
 * A message to the client that we do not have.  Notices go to the sink; an
 * error that is sent is one that ends this process.
 */
static int
put_message(char type, const char *message, size_t len)
{
	if (type == 'N' && notice_sink != NULL)
		notice_sink(message, len);
	else if (type == 'E' && LokyMyWorker != NULL)
		note_last_words(message, len);
	return 0;
}

static void
put_message_noblock(char type, const char *message, size_t len)
{
	(void) put_message(type, message, len);
}

static const PQcommMethods message_methods = {
	.comm_reset = nothing,
	.flush = nothing_to_flush,
	.flush_if_writable = nothing_to_flush,
	.is_send_pending = nothing_pending,
	.putmessage = put_message,
	.putmessage_noblock = put_message_noblock
};

/* Let notices go to sink until told otherwise; NULL: nowhere. */
void
loky_messages_set_sink(LokyNoticeSink sink)
{
	notice_sink = sink;
}

/* Have this process's messages caught from now on. */
void
loky_messages_redirect(void)
{
	PqCommMethods = &message_methods;
	whereToSendOutput = DestRemote;
	FrontendProtocol = PG_PROTOCOL_LATEST;
}
