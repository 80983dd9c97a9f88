/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Running the text of a task at top level.
 *
 * A statement runs as one that came over the wire: through the plan cache and
 * a portal at top level, never inside a function, so that VACUUM, CALL with a
 * COMMIT inside and the like work.  Plans are kept from task to task, the ones
 * used least recently are dropped; the plan cache itself notices when a table
 * or function has changed.  What it does not notice is a new function that fits
 * the call better than the one that was chosen: where one is made, all plans are
 * made anew, so that it does not matter whether a worker knows the text already.
 *
 * Several statements in one text run one after the other in an implicit
 * transaction block, as a query string does.
 *
 * The parameters have the types of the caller's values.  A value of unknown
 * type, a plain literal, takes the type that the statement wants, as a parameter
 * without a type does in the extended query protocol.
 *
 * Memory: all that a run needs lies in the memory context that is current when
 * it starts; it must outlive transactions, since a task may commit.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/run.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "tcop/cmdtag.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "compat.h"
#include "effects.h"
#include "log.h"
#include "plan.h"
#include "read_only.h"
#include "settings.h"

/* Plans kept by a worker. */
#define MAX_PLANS	64

static dlist_head plans = DLIST_STATIC_INIT(plans);
static int	nplans = 0;

/* grows when a function is made or changed anywhere */
static uint64 functions = 0;

/* A plan may have to call another function from now on. */
static void
count_change(Datum arg, int cacheid, uint32 hashvalue)
{
	functions++;
}

static void
drop_plan(LokyPlan *plan)
{
	dlist_delete(&plan->node);
	nplans--;
	if (plan->expression != NULL)
		loky_expression_free(plan->expression);
	if (plan->source != NULL)
		DropCachedPlan(plan->source);
	MemoryContextDelete(plan->context);
}

static LokyPlan *
find_plan(const char *sql, uint64 hash, int nargs, const Oid *types)
{
	dlist_iter	iter;

	dlist_foreach(iter, &plans)
	{
		LokyPlan   *plan = dlist_container(LokyPlan, node, iter.cur);

		if (plan->hash == hash && plan->nargs == nargs &&
			strcmp(plan->sql, sql) == 0 &&
			(nargs == 0 ||
			 memcmp(plan->types, types, nargs * sizeof(Oid)) == 0) &&
			strcmp(plan->search_path, namespace_search_path) == 0)
		{
			dlist_move_head(&plans, &plan->node);
			return plan;
		}
	}
	return NULL;
}

/* Refuse what would talk to a client that is not there. */
static void
check_statement(Node *stmt)
{
	if (IsA(stmt, CopyStmt) && ((CopyStmt *) stmt)->filename == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot COPY to or from a client in a task"),
				 errhint("Use a file, a program, or a query that returns the rows.")));
}

/*
 * A parameter to which the statement gives no type is a text.  Returns whether
 * there was any.
 */
static bool
settle_types(Oid *types, int n)
{
	bool		any = false;

	for (int i = 0; i < n; i++)
	{
		if (types[i] != InvalidOid && types[i] != UNKNOWNOID)
			continue;
		types[i] = TEXTOID;
		any = true;
	}
	return any;
}

/*
 * Analyze the only statement of the plan, in a transaction and with
 * CurrentMemoryContext to be thrown away soon.
 */
static CachedPlanSource *
prepare_statement(LokyPlan *plan, RawStmt *raw)
{
	CachedPlanSource *source;
	Query	   *query;
	List	   *queries;
	Oid		   *types = NULL;
	int			ntypes = plan->nargs;
	bool		snapshot_set = false;

	check_statement(raw->stmt);
	source = CreateCachedPlan(raw, plan->sql, CreateCommandTag(raw->stmt));
	if (analyze_requires_snapshot(raw))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		snapshot_set = true;
	}
	if (ntypes > 0)
	{
		types = palloc(ntypes * sizeof(Oid));
		memcpy(types, plan->types, ntypes * sizeof(Oid));
	}
	for (int i = 0; i < ntypes; i++)
	{
		if (OidIsValid(types[i]) &&
			!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(types[i])))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("type of argument $%d does not exist", i + 1),
					 errhint("A task sees a type once the transaction that made it has committed.")));
	}
	query = parse_analyze_varparams(raw, plan->sql, &types, &ntypes, NULL);
	if (settle_types(types, ntypes))
		query = parse_analyze_varparams(copyObject(source->raw_parse_tree),
										plan->sql, &types, &ntypes, NULL);
	queries = pg_rewrite_query(query);
	if (snapshot_set)
		PopActiveSnapshot();

	if (ntypes > plan->nargs)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_PARAMETER),
				 errmsg("there is no parameter $%d", ntypes),
				 errdetail_plural("The task was given %d argument.",
								  "The task was given %d arguments.",
								  plan->nargs, plan->nargs)));
	for (int i = 0; i < ntypes; i++)
		plan->final_types[i] = types[i];
	CompleteCachedPlan(source, queries, NULL, types, ntypes, NULL, NULL,
					   CURSOR_OPT_PARALLEL_OK, false);
	return source;
}

/*
 * The plan of this text with parameters of these types.  In a transaction;
 * raises what parsing and analyzing the text raises.  The plan is good until
 * the next call.
 */
LokyPlan *
loky_plan_get(const char *sql, uint64 hash, int nargs, const Oid *types)
{
	static bool registered = false;
	LokyPlan   *plan = find_plan(sql, hash, nargs, types);
	MemoryContext context;
	MemoryContext oldcontext;
	List	   *raws;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, count_change, (Datum) 0);
		registered = true;
	}

	/* what has changed may give parameters and result other types */
	if (plan != NULL && plan->source != NULL &&
		(plan->functions != functions || !CachedPlanIsValid(plan->source)))
	{
		drop_plan(plan);
		plan = NULL;
	}
	if (plan != NULL)
		return plan;

	/* a child of the current context until nothing can fail any more */
	context = AllocSetContextCreate(CurrentMemoryContext, "loky plan",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	plan = palloc0(sizeof(LokyPlan));
	plan->context = context;
	plan->hash = hash;
	plan->functions = functions;
	plan->sql = pstrdup(sql);
	plan->search_path = pstrdup(namespace_search_path);
	plan->nargs = nargs;
	if (nargs > 0)
	{
		plan->types = palloc(nargs * sizeof(Oid));
		memcpy(plan->types, types, nargs * sizeof(Oid));
		plan->final_types = palloc(nargs * sizeof(Oid));
	}
	MemoryContextSwitchTo(oldcontext);

	raws = pg_parse_query(plan->sql);
	if (list_length(raws) == 1)
		plan->source = prepare_statement(plan, linitial_node(RawStmt, raws));
	else if (nargs > 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a task with arguments must be exactly one statement")));

	if (nplans >= MAX_PLANS)
		drop_plan(dlist_tail_element(LokyPlan, node, &plans));
	if (plan->source != NULL)
		SaveCachedPlan(plan->source);
	MemoryContextSetParent(context, TopMemoryContext);
	dlist_push_head(&plans, &plan->node);
	nplans++;
	return plan;
}

/*
 * May the statement be run again, and together with others in a transaction,
 * without anybody being able to tell?  So it is as far as the server knows, where it
 * reads only and calls nothing volatile.  In a transaction; uses CurrentMemoryContext,
 * which is to be reset soon.
 */
bool
loky_plan_is_repeatable(LokyPlan *plan)
{
	if (plan->source == NULL)
		return false;
	if (plan->repeatable_known && plan->source->is_valid)
		return plan->repeatable;
	plan->repeatable_known = true;
	plan->repeatable = false;
	if (list_length(plan->source->query_list) != 1)
		return false;
	for (int i = 0; i < plan->nargs; i++)
	{
		/* a literal without a type is converted for each run */
		if (plan->types[i] == UNKNOWNOID &&
			loky_effects_of_type(plan->final_types[i]))
			return false;
	}
	plan->repeatable = !loky_effects_are_possible(linitial_node(Query,
																plan->source->query_list));
	return plan->repeatable;
}

/* The parameters as the executor wants them; NULL where there are none. */
static ParamListInfo
build_params(const LokyPlan *plan, const LokyValues *args)
{
	ParamListInfo params;

	if (args == NULL || args->n == 0)
		return NULL;
	params = makeParamList(args->n);
	for (int i = 0; i < args->n; i++)
	{
		ParamExternData *param = &params->params[i];
		Oid			type = plan->final_types[i];

		param->ptype = type;
		param->pflags = PARAM_FLAG_CONST;
		param->isnull = args->nulls[i];
		param->value = args->values[i];
		if (args->types[i] == UNKNOWNOID)
		{
			Oid			input;
			Oid			ioparam;

			getTypeInputInfo(type, &input, &ioparam);
			param->value = OidInputFunctionCall(input, args->nulls[i] ? NULL :
												DatumGetCString(args->values[i]),
												ioparam, -1);
		}
	}
	return params;
}

/* The command tag as a client would be told. */
static void
set_completion(LokyCompletion *completion, const QueryCompletion *qc,
			   bool has_rows)
{
	const char *name = GetCommandTagName(qc->commandTag);

	completion->has_rows = has_rows;
	completion->processed = qc->nprocessed;
	if (!command_tag_display_rowcount(qc->commandTag))
		strlcpy(completion->tag, name, sizeof(completion->tag));
	else
		snprintf(completion->tag, sizeof(completion->tag),
				 qc->commandTag == CMDTAG_INSERT ? "%s 0 " UINT64_FORMAT :
				 "%s " UINT64_FORMAT, name, qc->nprocessed);
}

/* Run a portal that has been defined to its end, and drop it. */
static void
run_portal(Portal portal, ParamListInfo params, LokyDest *dest,
		   LokyCompletion *completion)
{
	QueryCompletion qc;

	InitializeQueryCompletion(&qc);
	PortalStart(portal, params, 0, InvalidSnapshot);
	dest->started = false;
	(void) LokyPortalRun(portal, &dest->pub, &qc);
	set_completion(completion, &qc, dest->started);
	PortalDrop(portal, false);
}

static Portal
create_portal(void)
{
	Portal		portal = CreatePortal("", true, true);

	portal->visible = false;
	return portal;
}

/* The limit of loky's own and the setting apply to each statement. */
static void
start_statement_timeout(void)
{
	if (StatementTimeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
}

/* No statement runs any more. */
void
loky_run_reset_timeout(void)
{
	if (get_timeout_active(STATEMENT_TIMEOUT))
		disable_timeout(STATEMENT_TIMEOUT, false);
}

/*
 * A statement begins: its clock starts.  Raises 25006 where it could write, but must
 * not.
 */
void
loky_run_begin_statement(void)
{
	loky_read_only_check();
	start_statement_timeout();
}

/*
 * Run the statement as the expression that is all of it.  False, and nothing done,
 * where it is more than that.
 */
static bool
run_expression(LokyPlan *plan, const LokyValues *args, LokyDest *dest,
			   LokyCompletion *completion)
{
	LokyExpression *expression;
	ParamListInfo params;
	Datum		value;
	bool		isnull;

	if (!loky_expression_is_possible(plan))
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	expression = loky_expression_get(plan);
	if (expression == NULL)
	{
		PopActiveSnapshot();
		return false;
	}
	params = loky_expression_params(expression);
	for (int i = 0; i < plan->nargs; i++)
	{
		params->params[i].value = args->values[i];
		params->params[i].isnull = args->nulls[i];
	}
	loky_dest_open(dest, loky_expression_desc(expression));
	value = loky_expression_run(expression, &isnull);
	loky_dest_put(dest, value, isnull);
	PopActiveSnapshot();
	completion->has_rows = true;
	completion->processed = 1;
	strlcpy(completion->tag, "SELECT 1", sizeof(completion->tag));
	return true;
}

static void
run_single(LokyPlan *plan, const LokyValues *args, LokyDest *dest,
		   LokyCompletion *completion)
{
	CachedPlanSource *source = plan->source;
	Portal		portal;
	ParamListInfo params;
	CachedPlan *cached;
	bool		snapshot_set = false;
	bool		logging = loky_log_is_on();
	bool		was_logged = false;

	if (run_expression(plan, args, dest, completion))
		return;
	loky_run_begin_statement();
	if (plan->nargs > 0 || analyze_requires_snapshot(source->raw_parse_tree))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		snapshot_set = true;
	}
	params = build_params(plan, args);
	if (logging)
		was_logged = loky_log_begin(plan->sql, list_make1(source->raw_parse_tree),
									params);
	portal = create_portal();
	cached = GetCachedPlan(source, params, NULL, NULL);
	PortalDefineQuery(portal, NULL, plan->sql, source->commandTag,
					  cached->stmt_list, cached);
	if (snapshot_set)
		PopActiveSnapshot();
	run_portal(portal, params, dest, completion);
	loky_run_reset_timeout();
	if (logging)
		loky_log_end(plan->sql, params, was_logged);
}

/* One of several statements. */
static void
run_raw(const LokyPlan *plan, RawStmt *raw, bool last, LokyDest *dest,
		LokyCompletion *completion)
{
	List	   *queries;
	List	   *statements;
	Portal		portal;
	bool		snapshot_set = false;

	/* an error ends the task, so no statement is run after one */
	Assert(IsTransactionState());
	check_statement(raw->stmt);
	BeginImplicitTransactionBlock();
	loky_read_only_check();
	CHECK_FOR_INTERRUPTS();
	start_statement_timeout();
	if (analyze_requires_snapshot(raw))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		snapshot_set = true;
	}
	queries = pg_analyze_and_rewrite_varparams(raw, plan->sql,
											   &(Oid *) {NULL}, &(int) {0},
											   NULL);
	statements = pg_plan_queries(queries, plan->sql, CURSOR_OPT_PARALLEL_OK,
								 NULL);
	if (snapshot_set)
		PopActiveSnapshot();
	CHECK_FOR_INTERRUPTS();
	portal = create_portal();
	PortalDefineQuery(portal, NULL, plan->sql, CreateCommandTag(raw->stmt),
					  statements, NULL);
	run_portal(portal, NULL, dest, completion);
	loky_run_reset_timeout();
	if (last)
		EndImplicitTransactionBlock();
	else if (IsA(raw->stmt, TransactionStmt))
	{
		CommitTransactionCommand();
		StartTransactionCommand();
	}
	else
		CommandCounterIncrement();
}

static void
run_several(LokyPlan *plan, LokyDest *dest, LokyCompletion *completion)
{
	List	   *raws = pg_parse_query(plan->sql);
	ListCell   *lc;
	bool		logging = loky_log_is_on();
	bool		was_logged = logging && loky_log_begin(plan->sql, raws, NULL);

	/* a text of white space and comments is no task */
	Assert(raws != NIL);
	foreach(lc, raws)
	{
		bool		last = lnext(raws, lc) == NULL;

		run_raw(plan, lfirst_node(RawStmt, lc), last,
				last ? dest : loky_dest_null(), completion);
	}
	if (logging)
		loky_log_end(plan->sql, NULL, was_logged);
}

/*
 * Run the plan, in the transaction that the caller has started and will end.
 * Rows go to dest; *completion tells about the last statement.  Raises whatever
 * the task raises.
 */
void
loky_plan_run(LokyPlan *plan, const LokyValues *args, LokyDest *dest,
			  LokyCompletion *completion)
{
	if (plan->source != NULL)
		run_single(plan, args, dest, completion);
	else
		run_several(plan, dest, completion);
}

/* Write down that the task returned no set of rows. */
void
loky_run_put_completion(LokyStoreWriter *writer,
						const LokyCompletion *completion)
{
	union
	{
		LokyCommandRecord record;
		char		bytes[offsetof(LokyCommandRecord, tag) +
						  sizeof(completion->tag)];
	}			command;
	Size		len = strlen(completion->tag) + 1;

	command.record.processed = completion->processed;
	memcpy(command.bytes + offsetof(LokyCommandRecord, tag),
		   completion->tag, len);
	loky_store_put(writer, LOKY_RECORD_COMMAND, &command,
				   offsetof(LokyCommandRecord, tag) + len);
}
