/*-------------------------------------------------------------------------
 *
 * json_pairs.c
 *	  A JSON object as names and texts.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/json_pairs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "json_pairs.h"

/* The value as text; raises 22023 for an array or an object, with the hint. */
static void
set_value(LokyJsonPair *pair, const JsonbValue *value, const char *what,
		  const char *hint)
{
	pair->is_bool = value->type == jbvBool;
	switch (value->type)
	{
		case jbvNull:
			pair->value = NULL;
			return;
		case jbvString:
			pair->value = pnstrdup(value->val.string.val,
								   value->val.string.len);
			return;
		case jbvNumeric:
			pair->value =
				DatumGetCString(DirectFunctionCall1(numeric_out,
													NumericGetDatum(value->val.numeric)));
			return;
		case jbvBool:
			pair->value = pstrdup(value->val.boolean ? "true" : "false");
			return;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s has no usable value for \"%s\"", what,
							pair->name),
					 errhint("%s", hint)));
	}
}

static int
compare_pairs(const void *a, const void *b)
{
	return strcmp(((const LokyJsonPair *) a)->name,
				  ((const LokyJsonPair *) b)->name);
}

/*
 * The members of the object, sorted by name, in CurrentMemoryContext; *n is their
 * number.  Raises 22023 for anything but an object of plain values; what says what
 * it is, an argument or a setting, and values, in a sentence, what each value is.
 */
LokyJsonPair *
loky_json_pairs(Jsonb *object, const char *what, const char *example,
				const char *values, int *n)
{
	LokyJsonPair *pairs;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", what),
				 errhint("For example '%s'.", example)));
	pairs = palloc0(Max(JB_ROOT_COUNT(object), 1) * sizeof(LokyJsonPair));
	*n = 0;
	iterator = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			pairs[*n].name = pnstrdup(value.val.string.val,
									  value.val.string.len);
		else if (token == WJB_VALUE)
			set_value(&pairs[(*n)++], &value, what, values);
	}
	qsort(pairs, *n, sizeof(LokyJsonPair), compare_pairs);
	return pairs;
}
