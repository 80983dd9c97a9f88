/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  The differences between the versions of PostgreSQL, all in one place.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/compat.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_COMPAT_H
#define LOKY_COMPAT_H

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 200000
#error "loky needs PostgreSQL 15 to 19"
#endif

/* 18 made this a prefix of another name */
#ifndef pg_attribute_noreturn
#define pg_attribute_noreturn() __attribute__((noreturn))
#endif

/*
 * Declares and registers a function that SQL calls.  Until 16 the declaration
 * in PG_FUNCTION_INFO_V1 does not export the function itself.
 */
#define LOKY_FUNCTION(fn) \
	extern PGDLLEXPORT Datum fn(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(fn)

/* 17 replaced PGPROC.pgprocno by the process number and renamed the lxid */
#if PG_VERSION_NUM >= 170000
#define LokyMyProcNumber()		((int) MyProcNumber)
#define LokyProcNumberOf(proc)	((int) GetNumberFromPGProc(proc))
#define LokyMyLocalXid()		(MyProc->vxid.lxid)
#else
#define LokyMyProcNumber()		(MyProc->pgprocno)
#define LokyProcNumberOf(proc)	((proc)->pgprocno)
#define LokyMyLocalXid()		(MyProc->lxid)
#endif

/* 16 made this list one of another kind */
#if PG_VERSION_NUM >= 160000
#define LokyListIsEmpty(list)	dlist_is_empty(list)
#else
#define LokyListIsEmpty(list)	SHMQueueEmpty(list)
#endif

/* 16 made the list of settings a hash table */
static inline struct config_generic **
loky_compat_guc_variables(int *n)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(n);
#else
	*n = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/* 16 linked the settings that are not at their default, or are changed */
#if PG_VERSION_NUM >= 160000
#define LOKY_SETTINGS_ARE_LINKED
#endif

/* The setting of this name, or NULL; 16 gave its own function to extensions. */
static inline struct config_generic *
loky_compat_find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, true, 0);
#else
	int			n;
	struct config_generic **all = loky_compat_guc_variables(&n);

	for (int i = 0; i < n; i++)
	{
		if (pg_strcasecmp(all[i]->name, name) == 0)
			return all[i];
	}
	return NULL;
#endif
}

/* 19 put what is particular to a type into the generic struct of a setting */
#if PG_VERSION_NUM >= 190000
#define LokyGuc(type, setting)	(&(setting)->_##type)
#define LokyGucEnumName(setting) \
	config_enum_lookup_by_value((setting), *(setting)->_enum.variable)
#else
#define LokyGuc(type, setting)	((struct config_##type *) (setting))
#define LokyGucEnumName(setting) \
	config_enum_lookup_by_value(LokyGuc(enum, setting), \
								*LokyGuc(enum, setting)->variable)
#endif

/* 16 let a role have the rights of another one without becoming it */
#if PG_VERSION_NUM >= 160000
#define LokyMayBecome(member, role)	member_can_set_role((member), (role))
#else
#define LokyMayBecome(member, role)	is_member_of_role((member), (role))
#endif

/* 16 gave the "extra" data of settings an allocator of their own */
#if PG_VERSION_NUM >= 160000
#define LokyGucMalloc(size)		guc_malloc(LOG, (size))
#else
#define LokyGucMalloc(size)		malloc(size)
#endif

/* 16 let these report errors softly */
#if PG_VERSION_NUM >= 160000
#define LokyStringToQualifiedNameList(name) \
	stringToQualifiedNameList((name), NULL)
#else
#define LokyStringToQualifiedNameList(name) \
	stringToQualifiedNameList(name)
#endif

/* 16 has one function for all kinds of objects */
#if PG_VERSION_NUM >= 160000
#define LokyOwnsDatabase(oid) \
	object_ownercheck(DatabaseRelationId, (oid), GetUserId())
#define LokyOwnsExtension(oid) \
	object_ownercheck(ExtensionRelationId, (oid), GetUserId())
#else
#define LokyOwnsDatabase(oid)	pg_database_ownercheck((oid), GetUserId())
#define LokyOwnsExtension(oid)	pg_extension_ownercheck((oid), GetUserId())
#endif

/* 17 let the JSON lexer lie in memory of the caller's */
#if PG_VERSION_NUM >= 170000
#define LokyMakeJsonLexer(json, len) \
	makeJsonLexContextCstringLen(NULL, (json), (len), GetDatabaseEncoding(), false)
#else
#define LokyMakeJsonLexer(json, len) \
	makeJsonLexContextCstringLen((json), (len), GetDatabaseEncoding(), false)
#endif

/* 17 has JSON_VALUE, JSON_QUERY and JSON_EXISTS */
#if PG_VERSION_NUM >= 170000
#define LokyIsJsonExpr(node)	IsA((node), JsonExpr)
#else
#define LokyIsJsonExpr(node)	false
#endif

/* 19 has a tranche of locks named as it is made */
static inline int
loky_compat_new_tranche(const char *name)
{
#if PG_VERSION_NUM >= 190000
	return LWLockNewTrancheId(name);
#else
	int			tranche = LWLockNewTrancheId();

	LWLockRegisterTranche(tranche, name);
	return tranche;
#endif
}

/* 19 tells what was amiss where no function is found */
#if PG_VERSION_NUM >= 190000
#define LokyFuncnameGetCandidates(names) \
	FuncnameGetCandidates((names), -1, NIL, false, false, false, true, &(int) {0})
#else
#define LokyFuncnameGetCandidates(names) \
	FuncnameGetCandidates((names), -1, NIL, false, false, false, true)
#endif

/* 17 lets extensions name what they wait for */
#if PG_VERSION_NUM >= 170000
#define LokyNewWaitEvent(name)	WaitEventExtensionNew(name)
#else
#define LokyNewWaitEvent(name)	((void) (name), PG_WAIT_EXTENSION)
#endif

/* 17 gave BackgroundWorkerInitializeConnection its flag for NOLOGIN roles */
#if PG_VERSION_NUM >= 170000
#define LOKY_WORKER_CONNECT_FLAGS \
	(BGWORKER_BYPASS_ALLOWCONN | BGWORKER_BYPASS_ROLELOGINCHECK)
#else
#define LOKY_WORKER_CONNECT_FLAGS	BGWORKER_BYPASS_ALLOWCONN
#endif

/* 17 no longer keeps whether the authenticated user is a superuser */
#if PG_VERSION_NUM >= 170000
#define LokySetAuthenticatedUser(role, is_superuser) \
	SetAuthenticatedUserId(role)
#else
#define LokySetAuthenticatedUser(role, is_superuser) \
	SetAuthenticatedUserId((role), (is_superuser))
#endif

/* 18 dropped the run_once argument of PortalRun */
#if PG_VERSION_NUM >= 180000
#define LokyPortalRun(portal, dest, qc) \
	PortalRun(portal, FETCH_ALL, true, dest, dest, qc)
#else
#define LokyPortalRun(portal, dest, qc) \
	PortalRun(portal, FETCH_ALL, true, true, dest, dest, qc)
#endif

/* 18 dropped the execute_once argument of ExecutorRun */
#if PG_VERSION_NUM >= 180000
#define LokyExecutorRun(desc)	ExecutorRun((desc), ForwardScanDirection, 0)
#else
#define LokyExecutorRun(desc)	ExecutorRun((desc), ForwardScanDirection, 0, true)
#endif

/* 19 lets EXPLAIN have a say in planning */
#if PG_VERSION_NUM >= 190000
#define LokyPlanQuery(query, text, options) \
	pg_plan_query((query), (text), (options), NULL, NULL)
#else
#define LokyPlanQuery(query, text, options) \
	pg_plan_query((query), (text), (options), NULL)
#endif

/* 16 put what is to be checked of rights beside the range table */
#if PG_VERSION_NUM >= 160000
#define LOKY_PERMISSIONS_ARE_APART
#endif

#endif							/* LOKY_COMPAT_H */
