/*-------------------------------------------------------------------------
 *
 * convert.c
 *	  A task's rows as values of the type that the caller asked for.
 *
 * This file owns the rules by which a row becomes a value: a single column is
 * assigned to a scalar as PL/pgSQL assigns, a row becomes an object for json,
 * and column by column a row for a composite target.  A converter serves one
 * query; it remembers, per column and source type, the expression that makes
 * the assignment, so tasks may well return rows of different types.
 *
 * Hazards
 * -------
 * 1. The source may lie in shared memory that goes away.  Each result is
 *	  copied into the caller's context, once: rows by being formed, scalars at
 *	  the end.  What a cast leaves behind stays in the per-tuple context of the
 *	  converter, which is reset before the next row.
 * 2. Expressions are compiled in the context of the converter, as they hold
 *	  caches and references to domain constraints that must live as long.
 * 3. A domain may reject NULL, so NULL goes through the cast like any value;
 *	  even a value of the same domain does, as an outer join makes NULLs of it.
 * 4. The descriptor of the next row may lie where that of the last one lay and
 *	  be another one: types are compared, not pointers.
 * 5. Casts run functions as the current user.  Who converts the results of
 *	  others sees to it that the current user is the right one.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/convert.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "convert.h"

typedef enum TargetKind
{
	TARGET_SCALAR,
	TARGET_JSON,
	TARGET_ROW
} TargetKind;

/* how to assign values of one type to another */
typedef struct Assignment
{
	Oid			srctype;
	int32		srctypmod;
	Oid			dsttype;
	int32		dsttypmod;
	int16		dstlen;
	bool		dstbyval;
	FmgrInfo   *output;			/* the text that this function makes of it, or ... */
	ExprState  *state;			/* ... this; both NULL: it is taken as it is */
	Datum		emptytext;		/* what void is to a string; 0: void is NULL */
} Assignment;

/* a value on its way */
typedef struct Source
{
	Oid			type;
	int32		typmod;
	Datum		value;
	bool		isnull;
} Source;

struct LokyConverter
{
	MemoryContext context;		/* lives as long as the converter */
	ExprContext *econtext;		/* NULL before the first conversion */
	TargetKind	kind;
	Oid			type;
	int32		typmod;
	Oid			basetype;		/* type without its domains */

	/* of rows: target is NULL for a record that takes any columns */
	TupleDesc	target;
	int			ncolumns;		/* without dropped ones */
	bool		nested;			/* is there one column, of a row type? */
	void	   *domaincheck;	/* cache of domain_check() for type */
	TupleDesc	blessed;		/* a task's columns as registered last */

	/* all assignments so far, and the one used last for each column */
	List	   *assignments;
	Assignment **current;
};

/*
 * Prepare the conversion of rows to a type.
 *
 * For RECORD, rowdesc has the columns that the caller expects, or is NULL for
 * a record of the columns that each task returns.  Returns a converter that
 * lives, with all it ever keeps, in the current memory context.
 */
LokyConverter *
loky_convert_create(Oid type, int32 typmod, TupleDesc rowdesc)
{
	LokyConverter *conv = palloc0(sizeof(LokyConverter));

	conv->context = CurrentMemoryContext;
	conv->type = type;
	conv->typmod = typmod;
	conv->basetype = getBaseType(type);

	if (conv->basetype == JSONOID || conv->basetype == JSONBOID)
		conv->kind = TARGET_JSON;
	else if (type_is_rowtype(conv->basetype))
		conv->kind = TARGET_ROW;

	if (conv->kind == TARGET_ROW && conv->basetype != RECORDOID)
		conv->target = lookup_rowtype_tupdesc_copy(conv->basetype, -1);
	else if (conv->kind == TARGET_ROW && rowdesc != NULL)
		conv->target = BlessTupleDesc(CreateTupleDescCopy(rowdesc));

	for (int i = 0; conv->target && i < conv->target->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(conv->target, i);

		if (att->attisdropped)
			continue;
		conv->ncolumns++;
		conv->nested = conv->ncolumns == 1 && type_is_rowtype(att->atttypid);
	}
	conv->current = palloc0(sizeof(Assignment *) * Max(conv->ncolumns, 1));
	return conv;
}

/*
 * Does a type take any text?
 */
static bool
is_string_type(Oid type)
{
	char		category;
	bool		preferred;

	get_type_category_preferred(type, &category, &preferred);
	return category == TYPCATEGORY_STRING || type == UNKNOWNOID;
}

/*
 * The expression that makes a value of type dsttype out of the CaseTestExpr
 * source; NULL if the value can be taken as it is.  jsontype is the kind of
 * json to go through, or InvalidOid.
 */
static Expr *
build_expression(CaseTestExpr *source, Oid jsontype, Oid dsttype,
				 int32 dsttypmod)
{
	Node	   *expr = (Node *) source;
	Oid			type = source->typeId;

	if (OidIsValid(jsontype) && getBaseType(type) != jsontype)
	{
		expr = (Node *) makeFuncExpr(jsontype == JSONOID ?
									 F_TO_JSON : F_TO_JSONB,
									 jsontype, list_make1(expr), InvalidOid,
									 InvalidOid, COERCE_EXPLICIT_CALL);
		type = jsontype;
	}

	/* the parser coerces neither unknown nor record; they go by their text */
	if (type != UNKNOWNOID && type != RECORDOID)
		expr = coerce_to_target_type(NULL, expr, type, dsttype, dsttypmod,
									 COERCION_PLPGSQL, COERCE_IMPLICIT_CAST,
									 -1);
	else
		expr = NULL;
	if (expr == NULL)
	{
		CoerceViaIO *bytext = makeNode(CoerceViaIO);

		bytext->arg = (Expr *) source;
		bytext->resulttype = dsttype;
		bytext->coerceformat = COERCE_IMPLICIT_CAST;
		bytext->location = -1;
		expr = coerce_to_target_type(NULL, (Node *) bytext, dsttype, dsttype,
									 dsttypmod, COERCION_ASSIGNMENT,
									 COERCE_IMPLICIT_CAST, -1);
	}

	expr = (Node *) expression_planner((Expr *) expr);
	if (IsA(expr, CaseTestExpr) ||
		(IsA(expr, RelabelType) &&
		 IsA(((RelabelType *) expr)->arg, CaseTestExpr)))
		return NULL;
	return (Expr *) expr;
}

/*
 * The output function of a type, if that alone turns its values into text as an
 * assignment does, or NULL.  Most results are asked for as text, once each, so that
 * to compile an expression for it would be dear.
 */
static FmgrInfo *
find_output(Oid type)
{
	FmgrInfo   *output;
	Oid			function;
	bool		varlena;

	if (type == UNKNOWNOID || type == RECORDOID || type == TEXTOID ||
		find_coercion_pathway(TEXTOID, type, COERCION_PLPGSQL,
							  &function) != COERCION_PATH_COERCEVIAIO)
		return NULL;
	getTypeOutputInfo(type, &function, &varlena);
	output = palloc(sizeof(FmgrInfo));
	fmgr_info(function, output);
	return output;
}

/*
 * Make an assignment for values like source and keep it in the converter.
 */
static Assignment *
create_assignment(LokyConverter *conv, const Source *source, Oid dsttype,
				  int32 dsttypmod)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(conv->context);
	Assignment *assignment = palloc0(sizeof(Assignment));
	CaseTestExpr *input = makeNode(CaseTestExpr);
	Oid			jsontype = InvalidOid;
	Expr	   *expr;

	assignment->srctype = source->type;
	assignment->srctypmod = source->typmod;
	assignment->dsttype = dsttype;
	assignment->dsttypmod = dsttypmod;
	get_typlenbyval(dsttype, &assignment->dstlen, &assignment->dstbyval);

	/* from its base type even to the same domain, which may reject NULL */
	input->typeMod = source->typmod;
	input->typeId = getBaseTypeAndTypmod(source->type, &input->typeMod);
	if (source->type == VOIDOID)
	{
		input->typeId = UNKNOWNOID;
		if (is_string_type(getBaseType(dsttype)))
		{
			input->typeId = TEXTOID;
			assignment->emptytext = CStringGetTextDatum("");
		}
	}
	input->collation = get_typcollation(input->typeId);

	if (conv->kind == TARGET_JSON)
		jsontype = conv->basetype;
	if (input->typeId != dsttype ||
		(input->typeMod != dsttypmod && dsttypmod != -1))
	{
		if (dsttype == TEXTOID)
			assignment->output = find_output(input->typeId);
		if (assignment->output == NULL)
		{
			expr = build_expression(input, jsontype, dsttype, dsttypmod);
			if (expr != NULL)
				assignment->state = ExecInitExpr(expr, NULL);
		}
	}

	conv->assignments = lappend(conv->assignments, assignment);
	MemoryContextSwitchTo(oldcontext);
	return assignment;
}

/*
 * The assignment of values like source to a column of the target.
 */
static inline Assignment *
find_assignment(LokyConverter *conv, int column, const Source *source,
				Oid dsttype, int32 dsttypmod)
{
	Assignment *found = conv->current[column];
	ListCell   *cell;

	if (found && found->srctype == source->type &&
		found->srctypmod == source->typmod)
		return found;

	found = NULL;
	foreach(cell, conv->assignments)
	{
		Assignment *known = lfirst(cell);

		if (known->srctype == source->type &&
			known->srctypmod == source->typmod &&
			known->dsttype == dsttype && known->dsttypmod == dsttypmod)
			found = known;
	}
	if (found == NULL)
		found = create_assignment(conv, source, dsttype, dsttypmod);
	conv->current[column] = found;
	return found;
}

/*
 * Assign a value in place.  The result may still be the source's own, or lie
 * in the per-tuple context, which is the current one.
 */
static inline void
assign_value(LokyConverter *conv, Assignment *assignment, Source *source)
{
	if (source->type == VOIDOID)
	{
		source->value = assignment->emptytext;
		source->isnull = assignment->emptytext == (Datum) 0;
	}
	if (assignment->output != NULL)
	{
		if (!source->isnull)
			source->value = CStringGetTextDatum(
				OutputFunctionCall(assignment->output, source->value));
	}
	else if (assignment->state != NULL)
	{
		conv->econtext->caseValue_datum = source->value;
		conv->econtext->caseValue_isNull = source->isnull;
		source->value = ExecEvalExpr(assignment->state, conv->econtext,
									 &source->isnull);
	}
}

/*
 * Convert one value to the type of a scalar or json target; the result is
 * copied into the context result.
 */
static Datum
convert_value(LokyConverter *conv, Source *source, MemoryContext result,
			  bool *isnull)
{
	Assignment *assignment = find_assignment(conv, 0, source, conv->type,
											 conv->typmod);

	assign_value(conv, assignment, source);
	MemoryContextSwitchTo(result);
	*isnull = source->isnull;
	return source->isnull ? (Datum) 0 :
		datumCopy(source->value, assignment->dstbyval, assignment->dstlen);
}

/*
 * Form a record of the columns that a task returned, in the current context.
 */
static Datum
form_record(LokyConverter *conv, TupleDesc desc, const Datum *values,
			const bool *nulls)
{
	bool		same = conv->blessed && conv->blessed->natts == desc->natts;

	for (int i = 0; same && i < desc->natts; i++)
	{
		Form_pg_attribute new = TupleDescAttr(desc, i);
		Form_pg_attribute old = TupleDescAttr(conv->blessed, i);

		same = new->atttypid == old->atttypid &&
			new->atttypmod == old->atttypmod &&
			strcmp(NameStr(new->attname), NameStr(old->attname)) == 0;
	}
	if (!same)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(conv->context);

		conv->blessed = CreateTupleDescCopy(desc);
		conv->blessed->tdtypeid = RECORDOID;
		conv->blessed->tdtypmod = -1;
		BlessTupleDesc(conv->blessed);
		MemoryContextSwitchTo(oldcontext);
	}
	return HeapTupleGetDatum(heap_form_tuple(conv->blessed,
											 unconstify(Datum *, values),
											 unconstify(bool *, nulls)));
}

/*
 * The columns of a row; *n becomes their number, without dropped ones.
 */
static Source *
read_columns(TupleDesc desc, const Datum *values, const bool *nulls, int *n)
{
	Source	   *columns = palloc(sizeof(Source) * Max(desc->natts, 1));

	*n = 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Source	   *column = &columns[*n];

		if (att->attisdropped)
			continue;
		column->type = att->atttypid;
		column->typmod = att->atttypmod;
		column->value = values[i];
		column->isnull = nulls[i];
		(*n)++;
	}
	return columns;
}

/*
 * The columns of a value of a row type; NULL is a row of NULLs of the target.
 */
static Source *
expand_value(LokyConverter *conv, const Source *source, int *n)
{
	HeapTupleData tuple = {0};
	TupleDesc	desc = conv->target;
	Datum	   *values;
	bool	   *nulls;
	Source	   *columns;

	if (!source->isnull)
	{
		tuple.t_data = DatumGetHeapTupleHeader(source->value);
		tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
		desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(tuple.t_data),
									  HeapTupleHeaderGetTypMod(tuple.t_data));
	}

	values = palloc0(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	memset(nulls, true, desc->natts);
	if (!source->isnull)
		heap_deform_tuple(&tuple, desc, values, nulls);

	columns = read_columns(desc, values, nulls, n);
	if (!source->isnull)
		ReleaseTupleDesc(desc);
	return columns;
}

/*
 * Convert columns to the row of the target, formed in the context result.
 */
static Datum
convert_columns(LokyConverter *conv, Source *columns, int n,
				MemoryContext result)
{
	TupleDesc	target = conv->target;
	Datum	   *values = palloc0(sizeof(Datum) * target->natts);
	bool	   *nulls = palloc(sizeof(bool) * target->natts);
	int			column = 0;
	Datum		row;

	if (n != conv->ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg_plural("task returned %d column, but %d were expected",
							   "task returned %d columns, but %d were expected",
							   n, n, conv->ncolumns),
				 errhint("Give a row type with as many columns, or have the task return as many.")));

	for (int i = 0; i < target->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target, i);
		Source	   *source = &columns[column];

		nulls[i] = att->attisdropped;
		if (att->attisdropped)
			continue;
		assign_value(conv, find_assignment(conv, column, source, att->atttypid,
										   att->atttypmod), source);
		values[i] = source->value;
		nulls[i] = source->isnull;
		column++;
	}

	MemoryContextSwitchTo(result);
	row = HeapTupleGetDatum(heap_form_tuple(target, values, nulls));
	if (conv->type != conv->basetype)
		domain_check(row, false, conv->type, &conv->domaincheck,
					 conv->context);
	return row;
}

/* Is a row of one value of this type taken as it is? */
bool
loky_convert_is_nothing(const LokyConverter *conv, Oid type)
{
	return conv->kind == TARGET_SCALAR && conv->type == conv->basetype &&
		conv->typmod < 0 && conv->type == type;
}

/* A conversion begins; its working memory becomes the current one. */
static void
begin(LokyConverter *conv)
{
	if (conv->econtext == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(conv->context);

		conv->econtext = CreateStandaloneExprContext();
		MemoryContextSwitchTo(oldcontext);
	}
	ResetExprContext(conv->econtext);
	MemoryContextSwitchTo(conv->econtext->ecxt_per_tuple_memory);
}

/*
 * Convert one row of a task, with columns as in desc.
 *
 * Returns a value of the converter's type in the current memory context, which
 * shares nothing with values.  Raises 42804 if the number of columns does not
 * fit, and whatever casts and checks of domains raise.
 */
Datum
loky_convert_row(LokyConverter *conv, TupleDesc desc, const Datum *values,
				 const bool *nulls, bool *isnull)
{
	MemoryContext result = CurrentMemoryContext;
	Source	   *columns;
	int			n;

	*isnull = false;
	if (conv->kind == TARGET_ROW && conv->target == NULL)
		return form_record(conv, desc, values, nulls);

	begin(conv);
	columns = read_columns(desc, values, nulls, &n);

	if (conv->kind == TARGET_ROW)
	{
		/* one value may stand for all columns of the target */
		if (n == 1 && (conv->nested ?
					   getBaseType(columns->type) == conv->basetype :
					   type_is_rowtype(columns->type)))
			columns = expand_value(conv, columns, &n);
		return convert_columns(conv, columns, n, result);
	}

	if (conv->kind == TARGET_JSON && n != 1)
	{
		Source		record = {RECORDOID, -1, (Datum) 0, false};

		record.value = form_record(conv, desc, values, nulls);
		return convert_value(conv, &record, result, isnull);
	}

	if (n != 1)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("task returned a row that cannot be converted to type %s",
						format_type_be(conv->type)),
				 errdetail_plural("The row has %d column; exactly one is needed.",
								  "The row has %d columns; exactly one is needed.",
								  n, n),
				 errhint("Ask for a composite type, for record with a column definition list, or for jsonb.")));
	return convert_value(conv, columns, result, isnull);
}

/*
 * Convert the outcome of a task that has no rows: the command tag for strings
 * and json, the number of rows processed for integers and numeric.
 *
 * Returns a value of the converter's type in the current memory context.
 * Raises 42804 for all other types, 22003 if the number is out of range, and
 * whatever checks of domains raise.
 */
Datum
loky_convert_command(LokyConverter *conv, const char *tag, uint64 processed,
					 bool *isnull)
{
	MemoryContext result = CurrentMemoryContext;
	Source		source = {TEXTOID, -1, (Datum) 0, false};

	begin(conv);
	if (conv->basetype == INT2OID || conv->basetype == INT4OID ||
		conv->basetype == INT8OID || conv->basetype == NUMERICOID)
	{
		source.type = INT8OID;
		source.value = Int64GetDatum((int64) processed);
	}
	else if (conv->kind == TARGET_JSON ||
			 (conv->kind == TARGET_SCALAR && is_string_type(conv->basetype)))
		source.value = CStringGetTextDatum(tag);
	else
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("task returned no rows to convert to type %s",
						format_type_be(conv->type)),
				 errhint("Ask for text to get the command tag, or for bigint to get the number of rows.")));
	return convert_value(conv, &source, result, isnull);
}
