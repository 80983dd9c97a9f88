/*-------------------------------------------------------------------------
 *
 * expression.c
 *	  Statements that are no more than an expression of their parameters.
 *
 * Most maps call a function for each item: SELECT f($1).  To plan, start, run and
 * end such a statement costs several times as much as the call.  So its expression
 * is compiled once and evaluated for each item, as PL/pgSQL does with its simple
 * expressions, from which the conditions are taken: no table, no set, no aggregate,
 * no subquery.  Hooks of the executor do not see it, so that where there are any, as
 * those of pg_stat_statements and auto_explain, all runs as statements.
 *
 * What is compiled is kept from transaction to transaction.  It has been checked
 * then that the role may call the functions, and functions remember there what they
 * know of types and tables, for the length of a query as they think.  So it is made
 * anew where anything in the catalogs has changed, and also after an error, which may
 * have left a function's own state in the middle of something.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/expression.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "expression.h"
#include "log.h"
#include "plan.h"

struct LokyExpression
{
	MemoryContext context;		/* of all below */
	CachedPlan *cached;			/* held by plan_owner */
	CachedPlanSource *source;
	uint64		changes;		/* as they were when it was compiled */
	bool		running;		/* still after an error */
	ExprState  *state;
	ExprContext *econtext;
	TupleDesc	desc;
};

/* holds cached plans across transactions */
static ResourceOwner plan_owner = NULL;

/* grows with changes that this process makes, which others learn of at its commit */
static uint64 own_changes = 0;

static void
count_row(Datum arg, int cacheid, uint32 hashvalue)
{
	own_changes++;
}

static void
count_relation(Datum arg, Oid relid)
{
	own_changes++;
}

/* A number that grows with each change of the catalogs that this process learns of. */
static uint64
count_changes(void)
{
	return own_changes + SharedInvalidMessageCounter;
}

static void
initialize(void)
{
	if (plan_owner != NULL)
		return;
	plan_owner = ResourceOwnerCreate(NULL, "loky expressions");
	CacheRegisterRelcacheCallback(count_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, count_row, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, count_row, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, count_row, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, count_row, (Datum) 0);
}

/* Does the query only evaluate one expression? */
static bool
is_bare(const Query *query)
{
	return query->commandType == CMD_SELECT &&
		query->utilityStmt == NULL &&
		query->rtable == NIL &&
		!query->hasAggs && !query->hasWindowFuncs &&
		!query->hasTargetSRFs && !query->hasSubLinks &&
		query->cteList == NIL &&
		query->jointree->fromlist == NIL &&
		query->jointree->quals == NULL &&
		query->groupClause == NIL && query->groupingSets == NIL &&
		query->havingQual == NULL && query->windowClause == NIL &&
		query->distinctClause == NIL && query->sortClause == NIL &&
		query->limitOffset == NULL && query->limitCount == NULL &&
		query->setOperations == NULL && query->rowMarks == NIL &&
		list_length(query->targetList) == 1;
}

/* Can the plan's text be an expression at all?  Its plan may yet tell otherwise. */
static bool
is_candidate(const LokyPlan *plan)
{
	CachedPlanSource *source = plan->source;

	if (source == NULL ||
		list_length(source->query_list) != 1 ||
		!is_bare(linitial_node(Query, source->query_list)))
		return false;

	/* a literal without a type is converted for each item */
	for (int i = 0; i < plan->nargs; i++)
	{
		if (plan->types[i] != plan->final_types[i])
			return false;
	}
	return true;
}

/* The expression that the plan evaluates; NULL where there is more to it. */
static Expr *
planned_expression(CachedPlan *cached)
{
	PlannedStmt *stmt;
	Plan	   *plan;
	TargetEntry *entry;

	if (list_length(cached->stmt_list) != 1)
		return NULL;
	stmt = linitial_node(PlannedStmt, cached->stmt_list);
	plan = stmt->planTree;
	if (stmt->commandType != CMD_SELECT || !IsA(plan, Result) ||
		plan->lefttree != NULL || plan->righttree != NULL ||
		plan->initPlan != NIL || plan->qual != NIL ||
		((Result *) plan)->resconstantqual != NULL ||
		list_length(plan->targetlist) != 1)
		return NULL;
	entry = linitial_node(TargetEntry, plan->targetlist);
	return entry->resjunk ? NULL : entry->expr;
}

/* A list of parameters of the plan's types, for values to be filled in. */
static ParamListInfo
make_params(const LokyPlan *plan)
{
	ParamListInfo params = makeParamList(plan->nargs);

	for (int i = 0; i < plan->nargs; i++)
	{
		params->params[i].ptype = plan->final_types[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].isnull = true;
		params->params[i].value = (Datum) 0;
	}
	return params;
}

/* Compile the plan's expression; NULL where the plan is more than that. */
static LokyExpression *
compile(LokyPlan *plan)
{
	uint64		changes = count_changes();
	CachedPlan *cached = GetCachedPlan(plan->source, NULL, plan_owner, NULL);
	Expr	   *expr = planned_expression(cached);
	LokyExpression *expression;
	MemoryContext context;
	MemoryContext oldcontext;

	if (expr == NULL ||
		!CachedPlanAllowsSimpleValidityCheck(plan->source, cached, NULL))
	{
		ReleaseCachedPlan(cached, plan_owner);
		return NULL;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "loky expression",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	PG_TRY();
	{
		expression = palloc0(sizeof(LokyExpression));
		expression->context = context;
		expression->cached = cached;
		expression->source = plan->source;
		expression->changes = changes;
		expression->desc =
			CreateTupleDescCopy(plan->source->resultDesc);
		expression->econtext = CreateStandaloneExprContext();
		expression->econtext->ecxt_param_list_info = make_params(plan);
		expression->state =
			ExecInitExprWithParams(copyObject(expr),
								   expression->econtext->ecxt_param_list_info);
	}
	PG_CATCH();
	{
		ReleaseCachedPlan(cached, plan_owner);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	MemoryContextSetParent(context, plan->context);
	return expression;
}

/* Forget what was compiled. */
void
loky_expression_free(LokyExpression *expression)
{
	ReleaseCachedPlan(expression->cached, plan_owner);
	MemoryContextDelete(expression->context);
}

/* Has a module asked to be shown all that the executor does? */
static bool
executor_is_watched(void)
{
	return ExecutorStart_hook != NULL || ExecutorRun_hook != NULL ||
		ExecutorFinish_hook != NULL || ExecutorEnd_hook != NULL;
}

/* Is it worth while to ask for the expression that is all of the plan? */
bool
loky_expression_is_possible(LokyPlan *plan)
{
	if (executor_is_watched())
		return false;
	if (!plan->no_expression && plan->expression == NULL && !is_candidate(plan))
		plan->no_expression = true;
	return !plan->no_expression;
}

/* Has nothing changed since the expression was compiled? */
bool
loky_expression_is_current(const LokyExpression *expression)
{
	return expression->changes == count_changes();
}

/*
 * The compiled expression that is all of the plan, good for the present transaction;
 * NULL where the plan must be run as a statement.  In a transaction with an active
 * snapshot; raises 42501 where the role may not call a function, and what planning
 * raises.
 */
LokyExpression *
loky_expression_get(LokyPlan *plan)
{
	LokyExpression *expression = plan->expression;

	if (expression != NULL)
	{
		if (!expression->running && loky_expression_is_current(expression) &&
			CachedPlanIsSimplyValid(plan->source, expression->cached, NULL))
			return expression;
		plan->expression = NULL;
		loky_expression_free(expression);
	}
	initialize();
	if (loky_expression_is_possible(plan))
		plan->expression = compile(plan);
	plan->no_expression = plan->expression == NULL;
	return plan->expression;
}

/* The parameters, whose values are set before each run. */
ParamListInfo
loky_expression_params(LokyExpression *expression)
{
	return expression->econtext->ecxt_param_list_info;
}

/* What its only column is. */
TupleDesc
loky_expression_desc(LokyExpression *expression)
{
	return expression->desc;
}

/*
 * Evaluate the expression as a statement.  The value is good until the next run.
 * Needs an active snapshot; raises whatever the functions raise.
 */
Datum
loky_expression_run(LokyExpression *expression, bool *isnull)
{
	ParamListInfo params = loky_expression_params(expression);
	bool		logging = loky_log_is_on();
	bool		was_logged = logging &&
		loky_log_begin(debug_query_string, NIL, params);
	Datum		value;

	loky_run_begin_statement();
	ResetExprContext(expression->econtext);
	expression->running = true;
	value = ExecEvalExprSwitchContext(expression->state, expression->econtext,
									  isnull);
	expression->running = false;
	loky_run_reset_timeout();
	if (logging)
		loky_log_end(debug_query_string, params, was_logged);
	return value;
}
