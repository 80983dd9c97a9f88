/*-------------------------------------------------------------------------
 *
 * errdata.h
 *	  Errors and notices that travel from a worker to whoever waits.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/errdata.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_ERRDATA_H
#define LOKY_ERRDATA_H

#include "lib/stringinfo.h"
#include "utils/elog.h"

#include "compat.h"

/* SQLSTATEs of loky's own */
#define ERRCODE_LOKY_TERMINATED_WORKER	MAKE_SQLSTATE('L','K','0','0','1')
#define ERRCODE_LOKY_BROKEN_EXECUTOR	MAKE_SQLSTATE('L','K','0','0','2')
#define ERRCODE_LOKY_SHUTDOWN_EXECUTOR	MAKE_SQLSTATE('L','K','0','0','3')
#define ERRCODE_LOKY_TIMEOUT			MAKE_SQLSTATE('L','K','0','0','4')
#define ERRCODE_LOKY_MAX_DEPTH			MAKE_SQLSTATE('L','K','0','0','5')
#define ERRCODE_LOKY_DEPENDENCY_FAILED	MAKE_SQLSTATE('L','K','0','0','6')
#define ERRCODE_LOKY_CANCELLED			MAKE_SQLSTATE('L','K','0','0','7')
#define ERRCODE_LOKY_QUEUE_FULL			MAKE_SQLSTATE('L','K','0','0','8')

/* an error in short is smaller than this, so that it fits into a task */
#define LOKY_SHORT_ERROR	240

extern void loky_error_encode(StringInfo buf, const ErrorData *edata);
extern void loky_error_encode_short(StringInfo buf, const ErrorData *edata);
extern ErrorData *loky_error_decode(const char *data, Size len);
extern void loky_error_rethrow(ErrorData *edata, const char *where)
			pg_attribute_noreturn();

/* a notice is kept as the protocol message that the worker would have sent */
extern void loky_notice_raise(const char *message, Size len);

#endif							/* LOKY_ERRDATA_H */
