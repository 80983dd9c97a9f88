/*-------------------------------------------------------------------------
 *
 * resolve.c
 *	  What a task's text means: a function, a procedure, or statements.
 *
 * A text that has the form of a name, or of a name with argument types, is a
 * function or procedure if there is one of that name; then the call is written
 * out as a statement, with the schema that the caller's search_path led to, and
 * analyzed here, so that a function which does not exist, or does not take these
 * arguments, is an error in the caller.  Everything else is SQL.  It is parsed
 * here, so that a syntax error comes early too, but not analyzed: it may name
 * what exists only by the time it runs.
 *
 * What was found is remembered, since programs submit the same text again and
 * again, until a function, type or schema changes anywhere.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/resolve.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "common/hashfn.h"
#include "common/keywords.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/analyze.h"
#include "parser/parse_param.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "compat.h"
#include "resolve.h"

/* Texts that are remembered; a new one takes the place of one it collides with. */
#define CACHE_SIZE	64

typedef struct CacheEntry
{
	bool		valid;
	uint64		key;
	Oid			role;
	int			nargs;
	Oid		   *types;
	char	   *task;
	char	   *search_path;
	LokyCallable callable;
	MemoryContext context;		/* of all the above */
} CacheEntry;

static CacheEntry cache[CACHE_SIZE];

/* the text that is being parsed, for errors that point into it */
static const char *parsed_text = NULL;

/* A catalog has changed: look everything up again. */
static void
forget_all(Datum arg, int cacheid, uint32 hashvalue)
{
	for (int i = 0; i < CACHE_SIZE; i++)
		cache[i].valid = false;
}

/* A position in the text is not one in the caller's statement. */
static void
position_callback(void *arg)
{
	int			position = geterrposition();

	if (position > 0 && parsed_text != NULL)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(parsed_text);
	}
}

static List *
parse(const char *text)
{
	ErrorContextCallback callback;
	List	   *result;

	parsed_text = text;
	callback.callback = position_callback;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	result = raw_parser(text, RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;
	return result;
}

/* Analyze a call, the only statement of the text. */
static Query *
analyze(const char *text, int nargs, const Oid *given_types)
{
	ErrorContextCallback callback;
	List	   *raws = parse(text);
	ParseState *pstate = make_parsestate(NULL);
	Oid		   *types = palloc(Max(nargs, 1) * sizeof(Oid));
	Query	   *query;

	if (nargs > 0)
		memcpy(types, given_types, nargs * sizeof(Oid));
	callback.callback = position_callback;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	pstate->p_sourcetext = text;
	setup_parse_variable_parameters(pstate, &types, &nargs);
	query = transformTopLevelStmt(pstate, linitial_node(RawStmt, raws));
	check_variable_parameters(pstate, query);
	free_parsestate(pstate);
	error_context_stack = callback.previous;
	return query;
}

static bool
starts_identifier(char c)
{
	return c == '_' || IS_HIGHBIT_SET(c) ||
		(c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
continues_identifier(char c)
{
	return starts_identifier(c) || c == '$' || (c >= '0' && c <= '9');
}

/* Skip an identifier, quoted or not; NULL where there is none. */
static const char *
skip_identifier(const char *p)
{
	if (*p == '"')
	{
		p++;
		while (*p != '\0')
		{
			if (*p == '"' && p[1] == '"')
				p += 2;
			else if (*p == '"')
				return p + 1;
			else
				p++;
		}
		return NULL;
	}
	if (!starts_identifier(*p))
		return NULL;
	while (continues_identifier(*p))
		p++;
	return p;
}

static const char *
skip_space(const char *p)
{
	while (scanner_isspace(*p))
		p++;
	return p;
}

/*
 * Has the text the form "name" or "name(types)"?  Returns the name as a list,
 * and whether types follow.  NIL otherwise.
 */
static List *
parse_name_form(const char *task, bool *has_types)
{
	const char *start = skip_space(task);
	const char *p = start;
	const char *end;
	char	   *name;

	for (;;)
	{
		p = skip_identifier(p);
		if (p == NULL)
			return NIL;
		end = p;
		p = skip_space(p);
		if (*p != '.')
			break;
		p = skip_space(p + 1);
	}
	*has_types = *p == '(';
	if (*has_types)
	{
		const char *last = task + strlen(task) - 1;

		while (last > p && scanner_isspace(*last))
			last--;
		if (*last != ')' || strchr(p + 1, '(') != NULL)
		{
			/* numeric(10,2) is a type as well: then several may open */
			if (*last != ')')
				return NIL;
		}
	}
	else if (*p != '\0')
		return NIL;
	name = pnstrdup(start, end - start);
	return LokyStringToQualifiedNameList(name);
}

/* Is the single unquoted word the whole of some statement? */
static bool
is_whole_statement(const char *word)
{
	static const char *const statements[] = {
		"abort", "analyse", "analyze", "begin", "checkpoint", "cluster",
		"commit", "end", "rollback", "select", "vacuum"
	};

	for (int i = 0; i < lengthof(statements); i++)
	{
		if (strcmp(word, statements[i]) == 0)
			return true;
	}
	return false;
}

/* The functions of this name, whatever their arguments. */
static FuncCandidateList
find_candidates(List *names)
{
	return LokyFuncnameGetCandidates(names);
}

/* Is there the schema that the name gives, if it gives one? */
static bool
schema_exists(List *names)
{
	char	   *schema;
	char	   *name;

	DeconstructQualifiedName(names, &schema, &name);
	return schema == NULL || OidIsValid(LookupNamespaceNoError(schema));
}

/*
 * Is the text, which has the form of a name, to be taken as a function although
 * there is none of this name?  Then the error will say so.
 */
static bool
means_function(List *names, bool has_types, const char *task)
{
	const char *word;

	if (list_length(names) > 1 || *skip_space(task) == '"')
		return true;
	word = strVal(linitial(names));
	if (has_types)
		return ScanKeywordLookup(word, &ScanKeywords) < 0;
	return !is_whole_statement(word);
}

/* The function with the signature in the text, or InvalidOid. */
static Oid
lookup_signature(const char *task)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(task);
	fcinfo->args[0].isnull = false;
	result = to_regprocedure(fcinfo);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(result);
}

/* The name of the function, with its schema, quoted where need be. */
static char *
qualified_name(Oid funcid)
{
	return quote_qualified_identifier(get_namespace_name(get_func_namespace(funcid)),
									  get_func_name(funcid));
}

/*
 * Append the parameters of a call.  With a signature each is cast to the type
 * named there, except polymorphic ones.
 */
static void
append_arguments(StringInfo sql, int nargs, Oid signature)
{
	HeapTuple	tuple = NULL;
	Form_pg_proc proc = NULL;

	if (OidIsValid(signature))
	{
		tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(signature));
		if (HeapTupleIsValid(tuple))
			proc = (Form_pg_proc) GETSTRUCT(tuple);
	}
	appendStringInfoChar(sql, '(');
	for (int i = 0; i < nargs; i++)
	{
		appendStringInfo(sql, i > 0 ? ", $%d" : "$%d", i + 1);
		if (proc != NULL && i < proc->pronargs &&
			!OidIsValid(proc->provariadic) &&
			get_typtype(proc->proargtypes.values[i]) != TYPTYPE_PSEUDO)
			appendStringInfo(sql, "::%s",
							 format_type_be_qualified(proc->proargtypes.values[i]));
	}
	appendStringInfoChar(sql, ')');
	if (tuple != NULL)
		ReleaseSysCache(tuple);
}

/* Are all of the candidates procedures? */
static bool
all_procedures(FuncCandidateList candidates)
{
	for (; candidates != NULL; candidates = candidates->next)
	{
		if (get_func_prokind(candidates->oid) != PROKIND_PROCEDURE)
			return false;
	}
	return true;
}

/* The expression that the analyzed SELECT of a single call returns. */
static Node *
called_expression(Query *query)
{
	Assert(query->commandType == CMD_SELECT);
	return (Node *) linitial_node(TargetEntry, query->targetList)->expr;
}

/* The function, if the analyzed SELECT calls one that is no aggregate, or NULL. */
static FuncExpr *
called_function(Query *query)
{
	Node	   *expr = called_expression(query);

	return IsA(expr, FuncExpr) ? (FuncExpr *) expr : NULL;
}

/*
 * The statement that calls the function: its rows are those that a task is to
 * return, so a function with columns stands in FROM.
 */
static char *
build_call(List *names, FuncCandidateList candidates, Oid signature,
		   int nargs, const Oid *types)
{
	StringInfoData args;
	const char *name = NameListToQuotedString(names);
	Query	   *query;
	FuncExpr   *function;
	TupleDesc	desc;
	Oid			type;

	initStringInfo(&args);
	append_arguments(&args, nargs, signature);
	if (OidIsValid(signature) ? get_func_prokind(signature) == PROKIND_PROCEDURE :
		candidates != NULL && all_procedures(candidates))
	{
		char	   *call = psprintf("CALL %s%s", name, args.data);

		query = analyze(call, nargs, types);
		return psprintf("CALL %s%s",
						qualified_name(((CallStmt *) query->utilityStmt)->funcexpr->funcid),
						args.data);
	}
	query = analyze(psprintf("SELECT %s%s", name, args.data), nargs, types);
	function = called_function(query);
	if (function == NULL)
	{
		Node	   *expr = called_expression(query);

		/* or a cast that is written as a call */
		if (IsA(expr, Aggref))
			name = qualified_name(((Aggref *) expr)->aggfnoid);
		else if (candidates != NULL)
			name = qualified_name(candidates->oid);
		return psprintf("SELECT %s%s", name, args.data);
	}
	switch (get_expr_result_type((Node *) function, &type, &desc))
	{
		case TYPEFUNC_COMPOSITE:
		case TYPEFUNC_COMPOSITE_DOMAIN:
			return psprintf("SELECT * FROM %s%s",
							qualified_name(function->funcid), args.data);
		default:
			return psprintf("SELECT %s%s",
							qualified_name(function->funcid), args.data);
	}
}

/*
 * The call of the function of this name with one argument of this type, as SQL in
 * CurrentMemoryContext: "SELECT schema.name($1)".  Raises 42883 where there is
 * none, 42809 for what gives not exactly one value.
 */
char *
loky_resolve_call(const char *name, Oid type)
{
	StringInfoData args;
	bool		has_types = false;
	List	   *names = parse_name_form(name, &has_types);
	Oid			signature = InvalidOid;
	Query	   *query;
	FuncExpr   *function;

	if (names != NIL && schema_exists(names) && has_types)
		signature = lookup_signature(name);
	if (names == NIL || !schema_exists(names) ||
		(has_types && !OidIsValid(signature)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s does not exist", name),
				 errhint("Give the name of a function that takes one argument.")));
	initStringInfo(&args);
	append_arguments(&args, 1, signature);
	query = analyze(psprintf("SELECT %s%s", NameListToQuotedString(names),
							 args.data), 1, &type);
	function = called_function(query);
	if (function == NULL || function->funcretset)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a function that gives one value", name),
				 errhint("Aggregates, window functions and functions that return sets cannot be used here.")));
	return psprintf("SELECT %s%s", qualified_name(function->funcid), args.data);
}

/* The expression in such a call, analyzed.  Raises what analyzing it raises. */
Node *
loky_resolve_analyze_call(const char *call, Oid type)
{
	Query	   *query = analyze(call, 1, &type);

	return (Node *) linitial_node(TargetEntry, query->targetList)->expr;
}

/* Check statements as far as that can be done before they run. */
static void
check_statements(const char *task, int nargs)
{
	List	   *raws = parse(task);
	ListCell   *lc;

	if (raws == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("task is empty"),
				 errhint("A task is the name of a function or procedure, or SQL.")));
	if (nargs > 0 && list_length(raws) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("cannot pass arguments to several statements"),
				 errhint("Give one statement, or a function that runs them.")));
	foreach(lc, raws)
	{
		Node	   *stmt = lfirst_node(RawStmt, lc)->stmt;

		if (IsA(stmt, CopyStmt) && ((CopyStmt *) stmt)->filename == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot COPY to or from a client in a task"),
					 errhint("Use a file, a program, or a query that returns the rows.")));
	}
}

/* There is no function or procedure of this name, which has a schema or not. */
static void
raise_unknown_name(const char *task, bool has_schema)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("function %s does not exist", task),
			 has_schema ?
			 errhint("Check the spelling of the name and its schema, or pass SQL text such as 'SELECT ...'.") :
			 errhint("None of this name is in the search path: name its schema, or pass SQL text such as 'SELECT ...'.")));
}

/* What the text means, as SQL in CurrentMemoryContext. */
static const char *
resolve_text(const char *task, int nargs, const Oid *types)
{
	bool		has_types = false;
	List	   *names = parse_name_form(task, &has_types);

	if (names != NIL)
	{
		FuncCandidateList candidates = find_candidates(names);
		Oid			signature = InvalidOid;

		if (candidates != NULL && has_types)
		{
			signature = lookup_signature(task);
			if (!OidIsValid(signature) &&
				means_function(names, has_types, task))
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_FUNCTION),
						 errmsg("function %s does not exist", task),
						 errhint("There is none of this name with these argument types.")));
		}
		if ((candidates != NULL && (!has_types || OidIsValid(signature))) ||
			means_function(names, has_types, task))
		{
			if (candidates == NULL && (has_types || !schema_exists(names)))
				raise_unknown_name(task, list_length(names) > 1);
			return build_call(names, candidates, signature, nargs, types);
		}
	}
	check_statements(task, nargs);
	return task;
}

static bool
entry_matches(const CacheEntry *entry, uint64 key, const char *task,
			  int nargs, const Oid *types)
{
	return entry->valid && entry->key == key && entry->nargs == nargs &&
		entry->role == GetUserId() &&
		strcmp(entry->task, task) == 0 &&
		(nargs == 0 || memcmp(entry->types, types, nargs * sizeof(Oid)) == 0) &&
		strcmp(entry->search_path, namespace_search_path) == 0;
}

/*
 * Find out what a worker is to run for this text with arguments of these types.
 * Raises 42883 for a function that does not exist, 42601 for what is no SQL,
 * 0A000 for a COPY that needs a client.  The result is good until the next
 * call.
 */
const LokyCallable *
loky_resolve(const char *task, int nargs, const Oid *types)
{
	static bool registered = false;
	uint64		key = DatumGetUInt64(hash_any_extended((const unsigned char *) task,
													   strlen(task), nargs));
	CacheEntry *entry = &cache[key % CACHE_SIZE];
	CacheEntry	fresh = {0};
	MemoryContext oldcontext;
	const char *sql;
	MemoryContext scratch;

	if (entry_matches(entry, key, task, nargs, types))
		return &entry->callable;
	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_all, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_all, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, forget_all, (Datum) 0);
		registered = true;
	}

	scratch = AllocSetContextCreate(CurrentMemoryContext, "loky resolve",
									ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(scratch);
	sql = resolve_text(task, nargs, types);

	fresh.context = AllocSetContextCreate(scratch, "loky callable",
										  ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(fresh.context);
	fresh.valid = true;
	fresh.key = key;
	fresh.role = GetUserId();
	fresh.nargs = nargs;
	fresh.types = palloc(Max(nargs, 1) * sizeof(Oid));
	if (nargs > 0)
		memcpy(fresh.types, types, nargs * sizeof(Oid));
	fresh.task = pstrdup(task);
	fresh.search_path = pstrdup(namespace_search_path);
	fresh.callable.sql = pstrdup(sql);
	fresh.callable.hash =
		DatumGetUInt64(hash_any_extended((const unsigned char *) sql,
										 strlen(sql), nargs));
	MemoryContextSwitchTo(oldcontext);

	MemoryContextSetParent(fresh.context, TopMemoryContext);
	if (entry->context != NULL)
		MemoryContextDelete(entry->context);
	*entry = fresh;
	MemoryContextDelete(scratch);
	return &entry->callable;
}
