/*-------------------------------------------------------------------------
 *
 * reduce.c
 *	  Reducers: functions that replace values of a type as they are sent.
 *
 * An executor may name, for a type, a function that each argument of exactly this
 * type goes through before it is sent to a worker, or each column of a result
 * before it is sent back.  What arrives is what the function gives, of the
 * function's type.  Nulls are of no type and go through nothing.
 *
 * In a configuration each reducer stands as "type's OID\0call\0", sorted by the
 * former, where the call is a SELECT of the function with the parameter $1.  The
 * function was looked up when the executor was made; its call is analyzed here
 * in each process, kept in the server's cache of expressions, which notices when
 * the function changes, and made ready once in each transaction, which checks
 * the right to execute it.
 *
 * A function may also change while values go through it; it can do so itself.  Others
 * are told the types of reduced values first, and then have the values, each of which
 * is checked to be still of the type told.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/reduce.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/params.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "json_pairs.h"
#include "reduce.h"
#include "subxact.h"
#include "resolve.h"

struct LokyReducer
{
	Oid			type;			/* of the values that it is for */
	char	   *call;
	CachedExpression *cached;	/* NULL: not analyzed yet */
	Oid			result_type;	/* of the cached call, and so of state */

	/* good in the transaction of this number */
	LocalTransactionId lxid;
	ExprContext *context;
	ExprState  *state;
	ParamListInfo params;
};

struct LokyReducers
{
	MemoryContext memory;		/* of all this */
	MemoryContextCallback release;	/* of the cached calls, with it */
	int			n;
	LokyReducer list[FLEXIBLE_ARRAY_MEMBER];
};

/* A reducer as it is read from JSON. */
typedef struct Entry
{
	Oid			type;
	const char *call;
} Entry;

/* The type of this name; raises 42704, or 42809 for one that no value is of. */
static Oid
look_up_type(const char *name)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		type = ObjectIdGetDatum(InvalidOid);

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(name);
	fcinfo->args[0].isnull = false;
	/* versions differ in whether to_regtype() takes a blank name for an error */
	if (name[strspn(name, " \t\n\r\f\v")] != '\0')
		type = to_regtype(fcinfo);
	if (fcinfo->isnull || !OidIsValid(DatumGetObjectId(type)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type \"%s\" does not exist", name),
				 errhint("The names in a reducer's object are those of types, its values those of functions.")));
	if (get_typtype(DatumGetObjectId(type)) == TYPTYPE_PSEUDO &&
		DatumGetObjectId(type) != RECORDOID)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("pseudo-type %s cannot have a reducer", name),
				 errhint("A reducer is for values of exactly its type; literals without a cast go through none.")));
	return DatumGetObjectId(type);
}

static int
compare_entries(const void *a, const void *b)
{
	Oid			left = ((const Entry *) a)->type;
	Oid			right = ((const Entry *) b)->type;

	return left < right ? -1 : left > right;
}

/*
 * Append the reducers that the argument of this name asks for.  Raises 22023 for
 * anything but an object of names, 42704 for a type that does not exist, 42883 for
 * a function that does not.
 */
void
loky_reduce_read(Jsonb *object, const char *argument, StringInfo part)
{
	int			n;
	LokyJsonPair *pairs =
		loky_json_pairs(object, psprintf("argument \"%s\"", argument),
						"{\"type\": \"function\"}",
						"Each value is the name of a function.", &n);
	Entry	   *entries = palloc(Max(n, 1) * sizeof(Entry));

	for (int i = 0; i < n; i++)
	{
		if (pairs[i].value == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" names no function for \"%s\"",
							argument, pairs[i].name),
					 errhint("Leave types out that no function is for.")));
		entries[i].type = look_up_type(pairs[i].name);
		entries[i].call = loky_resolve_call(pairs[i].value, entries[i].type);
	}
	qsort(entries, n, sizeof(Entry), compare_entries);
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && entries[i].type == entries[i - 1].type)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" names type %s twice", argument,
							format_type_be(entries[i].type)),
					 errhint("A type can have several names, but only one reducer.")));
		appendStringInfo(part, "%u%c%s%c", entries[i].type, '\0',
						 entries[i].call, '\0');
	}
}

/* The reducers' memory is about to go. */
static void
release_calls(void *arg)
{
	LokyReducers *reducers = arg;

	for (int i = 0; i < reducers->n; i++)
	{
		if (reducers->list[i].cached != NULL)
			FreeCachedExpression(reducers->list[i].cached);
	}
}

/* The reducers of a part of a configuration, to live until they are freed. */
LokyReducers *
loky_reduce_create(const char *part, Size len)
{
	const char *end = part + len;
	LokyReducers *reducers;
	MemoryContext memory;
	MemoryContext oldcontext;
	int			n = 0;

	if (len == 0)
		return NULL;
	for (const char *p = part; p < end; p++)
		n += *p == '\0';
	memory = AllocSetContextCreate(TopMemoryContext, "loky reducers",
								   ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(memory);
	reducers = palloc0(offsetof(LokyReducers, list) +
					   n / 2 * sizeof(LokyReducer));
	reducers->memory = memory;
	reducers->release.func = release_calls;
	reducers->release.arg = reducers;
	MemoryContextRegisterResetCallback(memory, &reducers->release);
	while (part < end)
	{
		LokyReducer *reducer = &reducers->list[reducers->n++];

		reducer->type = (Oid) strtoul(part, NULL, 10);
		part += strlen(part) + 1;
		reducer->call = pstrdup(part);
		part += strlen(part) + 1;
	}
	MemoryContextSwitchTo(oldcontext);
	return reducers;
}

/* From now on the reducers live as long as this memory context. */
void
loky_reduce_leave_to(LokyReducers *reducers, MemoryContext owner)
{
	MemoryContextSetParent(reducers->memory, owner);
}

/* Free the reducers. */
void
loky_reduce_free(LokyReducers *reducers)
{
	MemoryContextDelete(reducers->memory);
}

/* The reducer for values of this type, or NULL. */
LokyReducer *
loky_reduce_find(LokyReducers *reducers, Oid type)
{
	for (int i = 0; reducers != NULL && i < reducers->n; i++)
	{
		if (reducers->list[i].type == type)
			return &reducers->list[i];
	}
	return NULL;
}

/* Analyze the call, if that is not done yet or not valid any more. */
static void
analyze(LokyReducer *reducer)
{
	if (reducer->cached != NULL && reducer->cached->is_valid)
		return;
	if (reducer->cached != NULL)
		FreeCachedExpression(reducer->cached);
	reducer->cached = NULL;
	reducer->lxid = InvalidLocalTransactionId;
	reducer->cached =
		GetCachedExpression(loky_resolve_analyze_call(reducer->call,
													  reducer->type));
	reducer->result_type = exprType(reducer->cached->expr);
}

/* The type of what the reducer gives. */
Oid
loky_reduce_result_type(LokyReducer *reducer)
{
	analyze(reducer);
	return reducer->result_type;
}

/* Get ready to call the function in this transaction. */
static void
prepare(LokyReducer *reducer)
{
	MemoryContext oldcontext;

	analyze(reducer);
	if (reducer->lxid == LokyMyLocalXid())
		return;
	oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	reducer->params = makeParamList(1);
	reducer->context = CreateStandaloneExprContext();
	reducer->context->ecxt_param_list_info = reducer->params;
	reducer->state = ExecInitExprWithParams((Expr *) copyObject(reducer->cached->expr),
											reducer->params);
	reducer->lxid = LokyMyLocalXid();
	MemoryContextSwitchTo(oldcontext);
}

/*
 * What the reducer makes of a value that is not null, in CurrentMemoryContext.  It is
 * of the type that loky_reduce_result_type() has told before.  In a transaction;
 * raises whatever the function raises, and 42804 where it gives another type by now.
 */
Datum
loky_reduce_value(LokyReducer *reducer, Oid result_type, Datum value,
				  bool *isnull)
{
	ParamExternData *param;

	prepare(reducer);
	if (reducer->result_type != result_type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("reducer for type %s gives type %s where it gave type %s before",
						format_type_be(reducer->type),
						format_type_be(reducer->result_type),
						format_type_be(result_type)),
				 errhint("Do not replace a reducer by one that gives another type while values go through it.")));
	param = &reducer->params->params[0];
	param->ptype = reducer->type;
	param->pflags = 0;
	param->value = value;
	param->isnull = false;
	return ExecEvalExpr(reducer->state, reducer->context, isnull);
}

/* Replace types by those that values of them will have; true if there are any. */
bool
loky_reduce_types(LokyReducers *reducers, int n, Oid *types)
{
	bool		any = false;

	for (int i = 0; i < n; i++)
	{
		LokyReducer *reducer = loky_reduce_find(reducers, types[i]);

		if (reducer == NULL)
			continue;
		types[i] = loky_reduce_result_type(reducer);
		any = true;
	}
	return any;
}

/* The arguments of loky_reduce_try(). */
typedef struct ReduceCall
{
	LokyReducers *reducers;
	int			n;
	const Oid  *types;
	const Oid  *reduced_types;
	Datum	   *values;
	bool	   *nulls;
} ReduceCall;

/* Replace those of the values that there is a reducer for.  Needs a snapshot. */
static void
reduce_values(void *arg)
{
	ReduceCall *call = arg;

	Assert(ActiveSnapshotSet());
	for (int i = 0; i < call->n; i++)
	{
		LokyReducer *reducer = loky_reduce_find(call->reducers, call->types[i]);

		if (reducer != NULL && !call->nulls[i])
			call->values[i] = loky_reduce_value(reducer, call->reduced_types[i],
												call->values[i],
												&call->nulls[i]);
	}
}

/*
 * Replace those of the values, of these types, that there is a reducer for;
 * reduced_types are what loky_reduce_types() has made of the types.  Returns NULL, or
 * the error of a reducer that failed, in CurrentMemoryContext; what it did is undone.
 * A cancellation is raised.
 */
ErrorData *
loky_reduce_try(LokyReducers *reducers, int n, const Oid *types,
				const Oid *reduced_types, Datum *values, bool *nulls)
{
	ReduceCall	call = {reducers, n, types, reduced_types, values, nulls};

	return loky_subxact_try(reduce_values, &call, LOKY_SUBXACT_KEEP);
}

/* As loky_reduce_try(), and the types become those of what the values are replaced by. */
ErrorData *
loky_reduce_args(LokyReducers *reducers, int n, Oid *types, Datum *values,
				 bool *nulls)
{
	Oid		   *own_types;
	ErrorData  *error;

	if (n == 0)
		return NULL;
	own_types = palloc(n * sizeof(Oid));
	memcpy(own_types, types, n * sizeof(Oid));
	(void) loky_reduce_types(reducers, n, types);
	error = loky_reduce_try(reducers, n, own_types, types, values, nulls);
	pfree(own_types);
	return error;
}
