/*-------------------------------------------------------------------------
 *
 * messages.h
 *	  Messages of a worker to the client that it does not have.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/messages.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_MESSAGES_H
#define LOKY_MESSAGES_H

/* where notices of what runs go */
typedef void (*LokyNoticeSink) (const char *message, Size len);

extern void loky_messages_redirect(void);
extern void loky_messages_set_sink(LokyNoticeSink sink);

#endif							/* LOKY_MESSAGES_H */
