/*-------------------------------------------------------------------------
 *
 * effects.c
 *	  Whether running a query may leave anything behind, or tells its transaction.
 *
 * A query has none where it only reads, locks no rows and calls nothing volatile.
 * The server's own search for volatile functions looks at what a query calls by
 * name.  It takes an aggregate at its word, which is never volatile, whatever the
 * functions are that it consists of, and does not look into the checks of a domain,
 * which run where a value of it comes to be: by a cast, as the result of a function,
 * operator or aggregate, within an array or a row that is read from a text, or in the
 * columns that are made of XML or JSON.  All other expressions pass values on.
 *
 * The number of a transaction, and the time when it or its statement began, are stable,
 * but tell apart what runs in one transaction from what runs in several.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/effects.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rangetypes.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "effects.h"

static bool has_effects(Node *node, void *context);

/* Does the function return what is of its transaction, or statement, alone? */
static bool
function_tells_transaction(Oid function)
{
	switch (function)
	{
		case F_NOW:
		case F_TRANSACTION_TIMESTAMP:
		case F_STATEMENT_TIMESTAMP:
		case F_TXID_CURRENT:
		case F_PG_CURRENT_XACT_ID:
			return true;
		default:
			return false;
	}
}

static bool
function_is_volatile(Oid function)
{
	return OidIsValid(function) &&
		func_volatile(function) == PROVOLATILE_VOLATILE;
}

/* Has any of the functions effects that the aggregate consists of? */
static bool
aggregate_has_effects(Oid aggregate)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	Form_pg_aggregate form;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;			/* a window function, which is but one */
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	result = function_is_volatile(form->aggtransfn) ||
		function_is_volatile(form->aggfinalfn) ||
		function_is_volatile(form->aggcombinefn) ||
		function_is_volatile(form->aggserialfn) ||
		function_is_volatile(form->aggdeserialfn) ||
		function_is_volatile(form->aggmtransfn) ||
		function_is_volatile(form->aggminvtransfn) ||
		function_is_volatile(form->aggmfinalfn) ||
		loky_effects_of_type(form->aggtranstype) ||
		(OidIsValid(form->aggmtranstype) &&
		 loky_effects_of_type(form->aggmtranstype));
	ReleaseSysCache(tuple);
	return result;
}

/* Do the checks of the domain have effects, those of what it is made of included? */
static bool
domain_has_effects(Oid domain)
{
	DomainConstraintRef *ref;
	ListCell   *lc;

	if (!DomainHasConstraints(domain))
		return false;

	/* given back when the context is reset */
	ref = palloc(sizeof(DomainConstraintRef));
	InitDomainConstraintRef(domain, ref, CurrentMemoryContext, false);
	foreach(lc, ref->constraints)
	{
		DomainConstraintState *constraint = lfirst(lc);
		Node	   *check = (Node *) constraint->check_expr;

		if (contain_volatile_functions(check) || has_effects(check, NULL))
			return true;
	}
	return false;
}

static bool
row_has_effects(Oid type)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);
	bool		result = false;

	for (int i = 0; i < desc->natts && !result; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		result = !attribute->attisdropped &&
			loky_effects_of_type(attribute->atttypid);
	}
	ReleaseTupleDesc(desc);
	return result;
}

/*
 * May it have effects that a value of the type comes to be?  In a transaction; uses
 * CurrentMemoryContext, which is to be reset soon.
 */
bool
loky_effects_of_type(Oid type)
{
	Oid			element;

	check_stack_depth();
	switch (get_typtype(type))
	{
		case TYPTYPE_DOMAIN:
			return domain_has_effects(type) ||
				loky_effects_of_type(getBaseType(type));
		case TYPTYPE_COMPOSITE:
			return row_has_effects(type);
		case TYPTYPE_RANGE:
			return loky_effects_of_type(get_range_subtype(type));
		case TYPTYPE_MULTIRANGE:
			return loky_effects_of_type(get_multirange_range(type));
		default:
			element = get_element_type(type);
			return OidIsValid(element) && loky_effects_of_type(element);
	}
}

/* May it have effects that values of any of the types come to be? */
static bool
types_have_effects(List *types)
{
	ListCell   *lc;

	foreach(lc, types)
	{
		if (loky_effects_of_type(lfirst_oid(lc)))
			return true;
	}
	return false;
}

/* What the server's search for volatile functions does not find. */
static bool
has_effects(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (LokyIsJsonExpr(node) && loky_effects_of_type(exprType(node)))
		return true;
	switch (nodeTag(node))
	{
		case T_Query:
			{
				Query	   *query = (Query *) node;

				return query->commandType != CMD_SELECT ||
					query->rowMarks != NIL ||
					query_tree_walker(query, has_effects, context, 0);
			}
		case T_Aggref:
			if (aggregate_has_effects(((Aggref *) node)->aggfnoid) ||
				loky_effects_of_type(exprType(node)))
				return true;
			break;
		case T_WindowFunc:
			if (aggregate_has_effects(((WindowFunc *) node)->winfnoid) ||
				loky_effects_of_type(exprType(node)))
				return true;
			break;
		case T_RangeTblFunction:
			if (types_have_effects(((RangeTblFunction *) node)->funccoltypes))
				return true;
			break;
		case T_TableFunc:
			if (types_have_effects(((TableFunc *) node)->coltypes))
				return true;
			break;
		case T_SQLValueFunction:
			/* those behind it tell of roles and names */
			if (((SQLValueFunction *) node)->op <= SVFOP_LOCALTIMESTAMP_N)
				return true;
			break;
		case T_FuncExpr:
			if (function_tells_transaction(((FuncExpr *) node)->funcid))
				return true;
			/* FALLTHROUGH */
		case T_OpExpr:
		case T_CoerceViaIO:
		case T_CoerceToDomain:
			if (loky_effects_of_type(exprType(node)))
				return true;
			break;
		default:
			break;
	}
	return expression_tree_walker(node, has_effects, context);
}

/*
 * May running the query, which has been analyzed and rewritten, leave anything
 * behind, or tell which transaction it runs in?  In a transaction; uses
 * CurrentMemoryContext, which is to be reset soon.
 */
bool
loky_effects_are_possible(Query *query)
{
	return query->commandType != CMD_SELECT || query->hasModifyingCTE ||
		contain_volatile_functions((Node *) query) ||
		has_effects((Node *) query, NULL);
}
