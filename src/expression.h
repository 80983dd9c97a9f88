/*-------------------------------------------------------------------------
 *
 * expression.h
 *	  Statements that are no more than an expression of their parameters.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/expression.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_EXPRESSION_H
#define LOKY_EXPRESSION_H

#include "access/tupdesc.h"
#include "nodes/params.h"

#include "run.h"

typedef struct LokyExpression LokyExpression;

extern bool loky_expression_is_possible(LokyPlan *plan);
extern LokyExpression *loky_expression_get(LokyPlan *plan);
extern bool loky_expression_is_current(const LokyExpression *expression);
extern void loky_expression_free(LokyExpression *expression);
extern ParamListInfo loky_expression_params(LokyExpression *expression);
extern TupleDesc loky_expression_desc(LokyExpression *expression);
extern Datum loky_expression_run(LokyExpression *expression, bool *isnull);

#endif							/* LOKY_EXPRESSION_H */
