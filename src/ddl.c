/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  Commands of the server for which workers have to leave.
 *
 * The server refuses some commands while other processes are connected to a
 * database, or while objects depend on what is to be dropped; to it, an idle worker is
 * a process as any other, and a temporary table that one has kept is an object.  So
 * before such a command does its work, those workers leave (vacate.c):
 *
 *	  DROP DATABASE				all of the database
 *	  ALTER DATABASE RENAME,	all of the database
 *		SET TABLESPACE
 *	  CREATE DATABASE			all of the template
 *	  DROP EXTENSION loky		all of this database
 *	  DROP ROLE					those of the role, in all databases
 *	  DROP OWNED, REASSIGN		those of the roles, in this database
 *		OWNED
 *
 * Work that runs in the database is treated as the server treats sessions: it gets some
 * seconds to end, and then the command fails with object_in_use.  What is pending
 * does not keep a database from being dropped, and goes with it; renamed, moved or
 * copied, it goes on afterwards.  With DROP DATABASE ... WITH (FORCE) the server ends
 * the workers itself.  The extension is not dropped while anything is unfinished, since
 * nobody could look after it then.  A role's running tasks go on, as sessions do whose
 * role is dropped; what is pending fails when the next worker finds no role
 * (worker_start.c).
 *
 * Where
 * -----
 * DROP DATABASE and DROP ROLE call the object access hook once they have checked the
 * caller's rights and, for a database, taken its lock.  The others have no such place, so
 * for them the same rights are looked at, and the same lock taken, before the command
 * itself does: with the lock nobody can connect any more, so no new worker takes
 * the place of those that have left.  Where the command is going to fail anyway,
 * nothing is done, and the error is the command's own.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/ddl.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "ddl.h"
#include "vacate.h"

static object_access_hook_type previous_object_access_hook = NULL;
static ProcessUtility_hook_type previous_ProcessUtility_hook = NULL;

/* of the DROP DATABASE that this process runs */
static bool drop_is_forced = false;
static Oid	dropped_database = InvalidOid;

/* Raise 55006: work is in the way. */
static void
raise_in_use(char *message, const LokyUse *use, const char *hint)
{
	StringInfoData running;

	initStringInfo(&running);
	loky_vacate_describe(use, &running);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg_internal("%s", message),
			 running.len > 0 ?
			 errdetail("Running: %s. Pending: %d.", running.data, use->npending) :
			 errdetail("Pending: %d.", use->npending),
			 errhint("%s", hint)));
}

/*
 * Have all workers of the database leave, or raise 55006 where they run something.
 * Nobody may be able to connect to it meanwhile.
 */
static void
vacate_database(Oid database, const char *what)
{
	LokyTenant	tenant = {.database = database};
	LokyUse		use;

	if (!loky_vacate(&tenant, LOKY_HEED_RUNNING, &use))
		raise_in_use(psprintf("%s \"%s\" is being accessed by loky tasks", what,
							  get_database_name(database)), &use,
					 "Wait for them, or cancel them in that database: SELECT loky.cancel(future, running => true) FROM loky.tasks.");
}

/* The database is about to be dropped; nobody can connect to it. */
static void
begin_drop_database(Oid database)
{
	LokyTenant	tenant = {.database = database};
	LokyUse		use;

	/* the command is about to refuse its own database */
	if (database == MyDatabaseId)
		return;
	if (!loky_vacate(&tenant, drop_is_forced ? LOKY_HEED_NOTHING :
					 LOKY_HEED_RUNNING, &use))
		raise_in_use(psprintf("database \"%s\" is being accessed by loky tasks",
							  get_database_name(database)), &use,
					 "Wait for them, or end them with DROP DATABASE ... WITH (FORCE).");
	dropped_database = database;
}

/* Something is about to be dropped, with this caller's rights. */
static void
access_object(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
			  void *arg)
{
	if (previous_object_access_hook)
		previous_object_access_hook(access, class_id, object_id, sub_id, arg);
	if (access != OAT_DROP)
		return;
	if (class_id == DatabaseRelationId)
		begin_drop_database(object_id);
	else if (class_id == AuthIdRelationId)
	{
		LokyTenant	tenant = {.role = object_id};
		LokyUse		use;

		(void) loky_vacate(&tenant, LOKY_HEED_NOTHING, &use);
	}
}

/* May the server be changed here at all? */
static bool
can_change(void)
{
	return !RecoveryInProgress() && !XactReadOnly;
}

/*
 * The database of this name, with its lock held until the end of the transaction, as the
 * command would take it; InvalidOid where there is none.
 */
static Oid
lock_database(const char *name, LOCKMODE mode)
{
	Oid			database = get_database_oid(name, true);

	if (!OidIsValid(database))
		return InvalidOid;
	LockSharedObject(DatabaseRelationId, database, 0, mode);

	/* it may have been renamed while we waited; then the command sees to it */
	return get_database_oid(name, true) == database ? database : InvalidOid;
}

/* Not all minor releases of the server let extensions call its own function. */
static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		result;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return result;
}

static bool
owns_database(const char *name)
{
	Oid			database = get_database_oid(name, true);

	return OidIsValid(database) &&
		LokyOwnsDatabase(database);
}

/* Is the database a template that everybody may copy? */
static bool
is_template(const char *name)
{
	Oid			database = get_database_oid(name, true);
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

static void
before_create_database(const CreatedbStmt *stmt, bool is_top_level)
{
	const char *name = "template1";
	Oid			database;
	ListCell   *lc;

	if (!can_change() || IsInTransactionBlock(is_top_level) ||
		!may_create_databases())
		return;
	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			name = defGetString(option);
	}
	if (!is_template(name) && !owns_database(name))
		return;
	database = lock_database(name, ShareLock);
	if (OidIsValid(database))
		vacate_database(database, "source database");
}

/* ALTER DATABASE ... RENAME or SET TABLESPACE */
static void
before_change_database(const char *name)
{
	Oid			database;

	if (!owns_database(name) || get_database_oid(name, true) == MyDatabaseId)
		return;
	database = lock_database(name, AccessExclusiveLock);
	if (OidIsValid(database))
		vacate_database(database, "database");
}

static void
before_alter_database(const AlterDatabaseStmt *stmt, bool is_top_level)
{
	ListCell   *lc;

	if (!can_change() || IsInTransactionBlock(is_top_level))
		return;
	foreach(lc, stmt->options)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
		{
			before_change_database(stmt->dbname);
			return;
		}
	}
}

static void
before_rename(const RenameStmt *stmt)
{
	if (stmt->renameType == OBJECT_DATABASE && can_change() &&
		may_create_databases())
		before_change_database(stmt->subname);
}

static void
before_drop(const DropStmt *stmt)
{
	LokyTenant	tenant = {.database = MyDatabaseId};
	LokyUse		use;
	Oid			extension = InvalidOid;
	ListCell   *lc;

	if (stmt->removeType != OBJECT_EXTENSION || !can_change())
		return;
	foreach(lc, stmt->objects)
	{
		if (strcmp(strVal(lfirst(lc)), "loky") == 0)
			extension = get_extension_oid("loky", true);
	}
	if (!OidIsValid(extension) ||
		!LokyOwnsExtension(extension))
		return;
	if (!loky_vacate(&tenant, LOKY_HEED_UNFINISHED, &use))
		raise_in_use(pstrdup("cannot drop extension loky because tasks of this database are not finished"),
					 &use,
					 "Wait for them, or cancel them: SELECT loky.cancel(future, running => true) FROM loky.tasks.");
}

/* DROP OWNED or REASSIGN OWNED by these roles */
static void
before_release_owned(List *roles)
{
	ListCell   *lc;

	if (!can_change())
		return;
	foreach(lc, roles)
	{
		LokyTenant	tenant = {.database = MyDatabaseId};
		LokyUse		use;

		tenant.role = get_rolespec_oid(lfirst_node(RoleSpec, lc), true);
		if (OidIsValid(tenant.role) &&
			has_privs_of_role(GetUserId(), tenant.role))
			(void) loky_vacate(&tenant, LOKY_HEED_NOTHING, &use);
	}
}

/* DROP DATABASE begins; what it drops is not yet known. */
static void
before_drop_database(const DropdbStmt *stmt)
{
	ListCell   *lc;

	drop_is_forced = false;
	dropped_database = InvalidOid;
	foreach(lc, stmt->options)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "force") == 0)
			drop_is_forced = true;
	}
}

/* It has dropped it: there is no way back. */
static void
after_drop_database(void)
{
	if (OidIsValid(dropped_database))
		loky_vacate_forget_database(dropped_database);
	dropped_database = InvalidOid;
}

static void
prepare_utility(Node *stmt, bool is_top_level)
{
	switch (nodeTag(stmt))
	{
		case T_AlterDatabaseStmt:
			before_alter_database((AlterDatabaseStmt *) stmt, is_top_level);
			break;
		case T_CreatedbStmt:
			before_create_database((CreatedbStmt *) stmt, is_top_level);
			break;
		case T_DropdbStmt:
			before_drop_database((DropdbStmt *) stmt);
			break;
		case T_DropOwnedStmt:
			before_release_owned(((DropOwnedStmt *) stmt)->roles);
			break;
		case T_DropStmt:
			before_drop((DropStmt *) stmt);
			break;
		case T_ReassignOwnedStmt:
			before_release_owned(((ReassignOwnedStmt *) stmt)->roles);
			break;
		case T_RenameStmt:
			before_rename((RenameStmt *) stmt);
			break;
		default:
			break;
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest,
				QueryCompletion *qc)
{
	bool		is_drop_database = IsA(pstmt->utilityStmt, DropdbStmt);

	prepare_utility(pstmt->utilityStmt, context == PROCESS_UTILITY_TOPLEVEL);
	(previous_ProcessUtility_hook ? previous_ProcessUtility_hook :
	 standard_ProcessUtility) (pstmt, query_string, read_only_tree, context,
							   params, environment, dest, qc);
	if (is_drop_database)
		after_drop_database();
}

/* Called once, as the library is loaded at server start. */
void
loky_ddl_install(void)
{
	previous_object_access_hook = object_access_hook;
	object_access_hook = access_object;
	previous_ProcessUtility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
