/*-------------------------------------------------------------------------
 *
 * read_only.c
 *	  Tasks that may only read.
 *
 * A task that was submitted by a read-only transaction is read-only, in all the
 * transactions that it may have, as a procedure that commits has several.  The server
 * would let it set the next one read-write.  So in a worker, while such a task runs,
 * the two settings that tell it cannot be set so.  RESET asks nobody, but a transaction
 * that is read-write for that cannot be set back to read-only either, and is found at
 * its next statement at top level, or at its commit.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/read_only.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#include "compat.h"
#include "read_only.h"

#define MESSAGE "task of a read-only transaction cannot become read-write"
#define HINT	"Submit it outside of the read-only transaction."

/* the submitter's transaction was read-only: so is all that its task does */
static bool must_only_read = false;

/* the server's own checks of the two settings, or NULL */
static GucBoolCheckHook check_transaction = NULL;
static GucBoolCheckHook check_default = NULL;

/* Is what is submitted now to be read-only? */
bool
loky_read_only_is_due(void)
{
	return XactReadOnly || must_only_read;
}

/* Refuse a value of one of the settings. */
static bool
refuse(void)
{
	GUC_check_errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION);
	GUC_check_errmsg(MESSAGE);
	GUC_check_errhint(HINT);
	return false;
}

static bool
watch_transaction(bool *value, void **extra, GucSource source)
{
	if (must_only_read && source >= PGC_S_CLIENT && !(*value && XactReadOnly))
		return refuse();
	return check_transaction == NULL || check_transaction(value, extra, source);
}

static bool
watch_default(bool *value, void **extra, GucSource source)
{
	if (must_only_read && source >= PGC_S_CLIENT && !*value)
		return refuse();
	return check_default == NULL || check_default(value, extra, source);
}

/* Have the check of the setting called after ours.  Returns the one it had. */
static GucBoolCheckHook
replace_check(const char *name, GucBoolCheckHook check)
{
	struct config_generic *setting = loky_compat_find_setting(name);
	GucBoolCheckHook old = LokyGuc(bool, setting)->check_hook;

	LokyGuc(bool, setting)->check_hook = check;
	return old;
}

/* Called once, before the first transaction of a task. */
void
loky_read_only_watch(void)
{
	check_transaction = replace_check("transaction_read_only", watch_transaction);
	check_default = replace_check("default_transaction_read_only", watch_default);
}

/* The task's first transaction has started. */
void
loky_read_only_begin(bool read_only)
{
	must_only_read = read_only;
	if (read_only)
		XactReadOnly = true;
}

/* Raise 25006 where a task that may only read has a transaction that may write. */
void
loky_read_only_check(void)
{
	if (must_only_read && !XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg(MESSAGE),
				 errhint(HINT)));
}

/* The task's last transaction has ended. */
void
loky_read_only_end(void)
{
	must_only_read = false;
}
