-- Reducers: functions that arguments go through before they are sent to a worker,
-- and columns of results before they are sent back.

CREATE DOMAIN t.small AS int CHECK (VALUE < 1000);
CREATE TYPE t.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE t.twin AS (a int, b text);
CREATE TABLE t.rel (i int, s text);
INSERT INTO t.rel VALUES (1, 'one'), (2, 'two');
CREATE FUNCTION t.plus5(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 5';
CREATE FUNCTION t.times7(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x * 7';
CREATE FUNCTION t.label(x int) RETURNS text LANGUAGE sql STABLE AS $$SELECT '#' || x$$;
CREATE FUNCTION t.of_small(x t.small) RETURNS t.small LANGUAGE sql IMMUTABLE AS 'SELECT (x + 100)::t.small';
CREATE FUNCTION t.of_mood(x t.mood) RETURNS t.mood LANGUAGE sql IMMUTABLE AS $$SELECT 'happy'::t.mood$$;
CREATE FUNCTION t.of_twin(x t.twin) RETURNS t.twin LANGUAGE sql IMMUTABLE AS $$SELECT ROW(x.a + 1, x.b || '!')::t.twin$$;
CREATE FUNCTION t.total(x int[]) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT sum(i)::int FROM unnest(x) i';
CREATE FUNCTION t.kind(x int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'int ' || x$$;
CREATE FUNCTION t.kind(x text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'text ' || x$$;
CREATE FUNCTION t.kind(x int, y int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'ints ' || x || ' ' || y$$;
CREATE FUNCTION t.kind(x text, y text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'texts ' || x || ' ' || y$$;
-- make an executor with these reducers the current one
CREATE FUNCTION t.use(job jsonb, result jsonb DEFAULT NULL) RETURNS boolean LANGUAGE sql VOLATILE
AS $$SELECT loky.get_reusable_executor(2, job_reducers => job, result_reducers => result) > 0$$;

--
-- F23, S53c: arguments
--
SELECT t.use('{"int4": "t.plus5"}', '{"int4": "t.times7"}');
SELECT * FROM loky.result(loky.submit('t.id', 1), NULL::int);
-- none for results unless they are given, other than in Python
SELECT t.use('{"int4": "t.plus5"}');
SELECT * FROM loky.result(loky.submit('t.id', 1), NULL::int);
-- nulls go through none; a function without arguments has nothing to reduce
SELECT * FROM loky.result(loky.submit('SELECT $1 IS NULL', NULL::int));
SELECT * FROM loky.result(loky.submit('SELECT 3'), NULL::int);
-- in all ways to submit
SELECT r FROM unnest(loky.submit_all('t.id', ARRAY[1, NULL, 2])) f, loky.result(f, NULL::int) r;
SELECT * FROM loky.map('t.id', ARRAY[1, NULL, 2], NULL::int);
SELECT * FROM loky.map('t.id', ARRAY[[1, 2], [3, 4]], NULL::int, chunksize => 3);
SELECT r FROM loky.map('t.id', ARRAY[1, NULL, 2], NULL::int, ordered => false) r ORDER BY r;
SELECT * FROM loky.flat_map('SELECT $1 UNION ALL SELECT $1 + 10 ORDER BY 1', ARRAY[1, 2], NULL::int);
SELECT ord, result, ok FROM loky.try_map('t.id', ARRAY[1, NULL, 2], NULL::int);
SELECT ord, result, ok FROM loky.try_map('t.id', ARRAY[1, NULL, 2]);
SELECT * FROM loky.map('t.id', ARRAY[]::int[]) a, loky.map('t.id', NULL::int[]) b;
SELECT loky.submit_all('t.id', ARRAY[]::int[]), loky.submit_all('t.id', NULL::int[]);
-- rows are spread first; args too, and once
SELECT * FROM loky.map('SELECT concat_ws('' '', $1, $2, $3, $4)', ARRAY[ROW(1, 'a'::text, 2::int8), NULL, ROW(3, 'b'::text, 4::int8)], args => ROW(7));
SELECT * FROM loky.map('SELECT concat_ws('' '', $1, $2, $3)', ARRAY['x', NULL, 'y'], args => ROW(7, 8::int2));
SELECT count(*), sum(r) FROM loky.map('SELECT $1 + $2', ARRAY(SELECT generate_series(1, 20000)), NULL::int, args => ROW(1)) r;
-- of more values than one block of memory holds
SELECT t.use('{"text": "upper", "bytea": "md5"}');
SELECT sum(length(r)), min(left(r, 2)) FROM loky.map('SELECT $1', ARRAY(SELECT 'ab' || repeat('x', 10000 + i) FROM generate_series(1, 200) i)) r;
SELECT * FROM loky.map('SELECT $1', ARRAY[repeat('x', 3000000)::bytea]);
-- resolved by the types after it
SELECT t.use('{"int4": "t.label"}');
SELECT * FROM loky.result(loky.submit('t.kind', 1));
SELECT * FROM loky.result(loky.submit('t.kind', NULL::int)) AS of_text;
SELECT * FROM loky.map('t.kind', ARRAY[1, 2]);
SELECT * FROM loky.map('t.kind', ARRAY[1, 2], args => ROW(3));
SELECT * FROM loky.result(loky.submit('SELECT pg_typeof($1) || '' '' || $1', 5));
SELECT state, message FROM t.error($$SELECT loky.submit('t.id', 1)$$);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.id', ARRAY[1])$$);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.id', ARRAY[]::int[])$$);
-- also where another executor is meant than the session's
SELECT current_setting('loky.executor') AS with_reducers \gset
SELECT loky.get_reusable_executor(2) AS without \gset
SELECT * FROM loky.map('t.kind', ARRAY[1], executor => :with_reducers);
SELECT r FROM unnest(loky.submit_all('t.kind', ARRAY[1], executor => :with_reducers)) f, loky.result(f) r;
SELECT result FROM loky.try_map('t.kind', ARRAY[1], executor => :with_reducers);
SELECT * FROM loky.map('t.kind', ARRAY[1]);
SET loky.executor = :with_reducers;
SELECT * FROM loky.map('t.kind', ARRAY[1], executor => :without);
-- and for what a task submits
SELECT * FROM loky.result(loky.submit('SELECT r FROM loky.result(loky.submit(''SELECT $1 || '''' '''' || pg_typeof($1)'', 1)) r'));

--
-- Which values
--
-- exactly the type: no domain over it, no array, no row, no other number
SELECT t.use('{"integer": "t.plus5"}');
SELECT * FROM loky.result(loky.submit('SELECT $1, $2, $3, $4, $5, $6', 1, 2::t.small, ARRAY[3], ROW(4, 'x')::t.twin, 5::int8, ROW(6)), NULL::record) AS (a int, b int, c int[], d t.twin, e int8, f text);
-- a domain, an enum, a composite type, an array, whole rows of a table
SELECT t.use('{"t.small": "t.of_small", "t.mood": "t.of_mood", "t.twin": "t.of_twin", "int[]": "t.total", "t.rel": "row_to_json"}');
SELECT * FROM loky.result(loky.submit('SELECT $1, $2, $3, $4, $5, $6', 1, 2::t.small, 'sad'::t.mood, ROW(5, 'x')::t.twin, ARRAY[1, 2, 3], ROW(6, 'six')::t.rel), NULL::record) AS (a int, b int, c t.mood, d t.twin, e int, f text);
SELECT * FROM loky.map('SELECT $1', ARRAY[1, 2]::t.small[]);
SELECT * FROM loky.map('SELECT $1', ARRAY['sad', NULL]::t.mood[], NULL::t.mood);
SELECT * FROM loky.map('SELECT $1', ARRAY[ROW(5, 'x')::t.twin, NULL, ROW(6, 'y')::t.twin], NULL::t.twin);
SELECT * FROM loky.map('SELECT $1', (SELECT array_agg(r) FROM t.rel r));
SELECT sqlstate, message FROM loky.exception(loky.submit('SELECT $1', 950::t.small));
-- an anonymous row that is one argument; an item that is one is spread
SELECT t.use('{"record": "to_jsonb"}');
SELECT * FROM loky.result(loky.submit('SELECT pg_typeof($1) || '' '' || $1', ROW(1, 'a'::text)));
SELECT * FROM loky.map('SELECT $1 + $2', ARRAY[ROW(1, 2)]);
-- a literal without a cast is of no type
SELECT t.use('{"text": "upper"}');
SELECT * FROM loky.result(loky.submit('SELECT $1, $2, $3', 'untyped', 'typed'::text, 'other'::varchar), NULL::record) AS (a text, b text, c text);
-- a function that takes the type by an implicit cast; one by signature; with a default; polymorphic; of any type
CREATE FUNCTION t.power(x int, y int DEFAULT 2) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT power(x, y)::int';
SELECT t.use('{"int2": "t.plus5", "int4": "t.power", "int8": "abs(bigint)", "text[]": "cardinality", "varchar": "upper", "date": "pg_typeof"}');
SELECT * FROM loky.result(loky.submit('SELECT $1, $2, $3, $4, $5, $6', 1::int2, 3, -4::int8, ARRAY['a', 'b'], 'ok'::varchar, date '2024-02-29'), NULL::record) AS (a text, b text, c text, d text, e text, f text);
SELECT * FROM loky.map('SELECT pg_typeof($1) || '' '' || $1', ARRAY[1, 2]::int2[]);
-- names of types as elsewhere, in the search_path of the call
SET search_path = t, public;
SELECT t.use('{"small": "of_small", "int": "plus5"}');
RESET search_path;
SELECT * FROM loky.map('SELECT $1 || '' '' || $2', ARRAY[ROW(1, 1::t.small)]);
SELECT t.use('{"t.small": "t.of_small", "pg_catalog.int4": "t.plus5"}') AS ok, loky.get_reusable_executor(2, job_reducers => '{"integer": "t.plus5", "t.small": "t.of_small(t.small)"}') = current_setting('loky.executor')::int AS equal;
SELECT loky.get_reusable_executor(2, job_reducers => '{"int4": "t.plus5"}') <> loky.get_reusable_executor(2, result_reducers => '{"int4": "t.plus5"}') AS job_is_not_result,
       loky.get_reusable_executor(2, job_reducers => '{"int4": "t.plus5"}') <> loky.get_reusable_executor(2, job_reducers => '{"int4": "t.times7"}') AS other_function,
       loky.get_reusable_executor(2, job_reducers => '{}', result_reducers => '{}') = loky.get_reusable_executor(2) AS none;
-- refused at the call
SELECT j, (SELECT state || ': ' || message || CASE WHEN hint <> '' THEN ' (hinted)' ELSE '' END FROM t.error(format('SELECT loky.get_reusable_executor(1, job_reducers => %L)', j)))
FROM unnest(ARRAY['{"int4": "t.nope"}', '{"t.nope": "abs"}', '{"text": "t.plus5"}', '{"int8": "t.plus5"}', '{"int4": "t.plus5(text)"}', '{"int4": "sum"}', '{"int4": "row_number"}', '{"int4": "unnest"}', '{"int[]": "unnest"}',
    '{"int4": null}', '{"int4": ""}', '{"int4": "SELECT $1"}', '{"int4": {"a": 1}}', '{"int4": "abs", "integer": "abs"}', '{"": "abs"}', '{"int4 int4": "abs"}', '{"unknown": "upper"}', '{"anyelement": "to_jsonb"}', '{"void": "pg_typeof"}', '[]', '"int4"']) j;

--
-- F24: results
--
SELECT t.use(NULL, '{"int4": "t.times7", "text": "upper", "t.twin": "t.of_twin", "t.small": "t.of_small", "jsonb": "jsonb_pretty"}');
-- column by column, exactly the type, nulls as they are
SELECT * FROM loky.result(loky.submit('SELECT g, ''a'' || g, g::int8, NULL::int, ROW(g, ''p'')::t.twin, g::t.small, ARRAY[g] FROM generate_series(1, 3) g'), NULL::record) AS (a int, b text, c int8, d int, e t.twin, f int, g int[]);
-- read as any type; one result that is read twice went through once
SELECT loky.submit('SELECT 3') AS f \gset
SELECT r, (SELECT n FROM loky.result(:f, NULL::numeric) n), (SELECT j FROM loky.result(:f, NULL::jsonb) j) FROM loky.result(:f) r;
SELECT * FROM loky.result(loky.submit('SELECT ''{"a": 1}''::jsonb'));
-- a set-returning function, an empty set, RETURNING, the last of several statements
SELECT * FROM loky.result(loky.submit('generate_series', 1, 3), NULL::int);
SELECT * FROM loky.result(loky.submit('SELECT 3, ''x''::text WHERE false'), NULL::record) AS (a int, b text);
SELECT * FROM loky.result(loky.submit('INSERT INTO t.rel VALUES (3, ''three'') RETURNING *'), NULL::t.rel);
SELECT * FROM loky.result(loky.submit('SELECT 1; SELECT 2, ''b''; SELECT 5'), NULL::int);
SELECT * FROM loky.result(loky.submit('EXPLAIN (COSTS OFF) SELECT 1'));
-- a whole row is of the table's type, not of its columns'
SELECT * FROM loky.result(loky.submit('SELECT r FROM t.rel r'), NULL::t.rel);
-- what returns no rows has none: a command's tag and count
SELECT * FROM loky.result(loky.submit('UPDATE t.rel SET i = i'));
SELECT * FROM loky.result(loky.submit('UPDATE t.rel SET i = i'), NULL::int);
-- an OUT parameter of a procedure
CREATE PROCEDURE t.gives(INOUT x int) LANGUAGE plpgsql AS $$BEGIN COMMIT; x := x + 1; END$$;
SELECT * FROM loky.result(loky.submit('t.gives', 1), NULL::int);
-- maps
SELECT * FROM loky.map('t.id', ARRAY[1, NULL, 2], NULL::int);
SELECT * FROM loky.map('SELECT $1 + g FROM generate_series(1, 1) g', ARRAY[1, 2], NULL::int);
SELECT * FROM loky.map('SELECT repeat(''x'', $1)', ARRAY[1, 2]);
SELECT * FROM loky.flat_map('SELECT $1, g::text FROM generate_series(1, 2) g', ARRAY[1, 2], NULL::record) AS (a int, b text);
SELECT r FROM loky.map('t.id', ARRAY[1, 2], NULL::int, ordered => false) r ORDER BY r;
SELECT ord, result FROM loky.try_map('t.id', ARRAY[1, 2], NULL::int);
SELECT count(*), sum(r) FROM loky.map('t.id', ARRAY(SELECT generate_series(1, 20000)), NULL::int) r;
-- to another type: what is converted is what the function gives
SELECT t.use(NULL, '{"int4": "t.label"}');
SELECT * FROM loky.result(loky.submit('t.id', 1));
SELECT state, message FROM t.error($$SELECT * FROM loky.result(loky.submit('t.id', 1), NULL::int)$$);
SELECT * FROM loky.map('t.id', ARRAY[1, 2]);
-- both ways, with a task between
SELECT t.use('{"t.rel": "row_to_json"}', '{"json": "json_typeof"}');
SELECT * FROM loky.map('SELECT $1', (SELECT array_agg(r) FROM t.rel r WHERE i < 3));

--
-- Functions that do something
--
-- one that writes: in the caller's transaction, and in the task's
CREATE FUNCTION t.logs(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO t.log (i) VALUES (x); RETURN x + 1; END$$;
TRUNCATE t.log;
SELECT t.use('{"int4": "t.logs"}');
SELECT * FROM loky.map('t.id', ARRAY[1, NULL, 2], NULL::int, args => ROW()), loky.result(loky.submit('t.id', 3), NULL::int);
SELECT i, pid = pg_backend_pid() AS here FROM t.log ORDER BY i;
TRUNCATE t.log;
BEGIN;
SELECT loky.submit('t.id', 1) AS f \gset
ROLLBACK;
SELECT * FROM loky.result(:f);
SELECT count(*) AS undone FROM t.log;
BEGIN READ ONLY;
SELECT sqlstate FROM loky.exception(loky.submit('t.id', 1));
ROLLBACK;
SELECT t.use(NULL, '{"int4": "t.logs"}');
SELECT * FROM loky.map('t.id', ARRAY[1, NULL, 2], NULL::int);
SELECT i, pid <> pg_backend_pid() AS in_worker FROM t.log ORDER BY i;
TRUNCATE t.log;
-- a stable one sees what its statement sees
CREATE FUNCTION t.count_rel(x int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) + x FROM t.rel';
SELECT t.use('{"int4": "t.count_rel"}');
BEGIN;
INSERT INTO t.rel VALUES (4, 'four');
SELECT * FROM loky.map('SELECT $1', ARRAY[0, 100]);
ROLLBACK;
SELECT * FROM loky.map('SELECT $1', ARRAY[0, 100]);
-- one that raises a notice
CREATE FUNCTION t.says(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'reducing %', x; RETURN x; END$$;
SELECT t.use('{"int4": "t.says"}');
SELECT * FROM loky.map('t.id', ARRAY[1, 2], NULL::int);
SELECT t.use(NULL, '{"int4": "t.says"}');
SELECT * FROM loky.result(loky.submit('SELECT 3'), NULL::int);
-- one that uses loky itself: another executor with reducers, and its own
CREATE FUNCTION t.by_other(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RETURN 1 + (SELECT sum(r) FROM loky.map('t.id', ARRAY[x, x], NULL::int, executor => current_setting('my.other')::int) r);
END$$;
SELECT set_config('my.other', loky.get_reusable_executor(1, job_reducers => '{"int4": "t.times7", "text": "upper", "numeric": "round"}')::text, false) <> '' AS ok;
SELECT t.use('{"int4": "t.by_other", "text": "lower"}');
SELECT * FROM loky.map('t.id', ARRAY(SELECT generate_series(1, 5)), NULL::int);
SELECT * FROM loky.result(loky.submit('SELECT concat_ws('' '', $1, $2, $3, $4)', 1, 'Ab'::text, 2.5, 2));
CREATE FUNCTION t.by_itself(x int) RETURNS int LANGUAGE sql AS $$
    SELECT CASE WHEN x > 0 THEN (SELECT 1 + r::int FROM loky.result(loky.submit('SELECT $1', x - 1)) r) ELSE 100 END
$$;
SELECT t.use('{"int4": "t.by_itself"}');
SELECT * FROM loky.result(loky.submit('SELECT $1', 4));
SELECT * FROM loky.map('t.id', ARRAY[0, 1, 2, 3], NULL::int);
CREATE FUNCTION t.for_ever(x int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN loky.submit('SELECT $1', x);
EXCEPTION WHEN statement_too_complex THEN
    RETURN -1;
END$$;
SELECT t.use('{"int4": "t.for_ever"}');
SET max_stack_depth = '500kB';
SELECT r > 0 AS ended FROM loky.result(loky.submit('SELECT $1', 1), NULL::bigint) r;
SELECT t.clean();
RESET max_stack_depth;
SELECT count(*) > 10 AS many, bool_and(loky.forget(future)) FROM loky.tasks WHERE task = 'SELECT $1';

--
-- Functions that fail
--
-- of a submitted task: its future, with the function's own error
SELECT t.use('{"int4": "t.bad"}');
SELECT loky.submit('t.id', 1) AS f \gset
SELECT state, message, detail, hint, context FROM t.error('SELECT * FROM loky.result(' || :f || ')');
SELECT loky.state(:f), e.sqlstate, e.message FROM loky.exception(:f) e;
SELECT state, sqlstate, message, worker, attempts FROM loky.tasks WHERE future = :f;
SELECT loky.cancel(:f), done, state FROM loky.wait(ARRAY[:f]);
-- others go on
SELECT f.n, e.sqlstate, e.message FROM unnest(loky.submit_all('t.id', ARRAY[1, NULL, 2])) WITH ORDINALITY f(f, n), loky.exception(f) e ORDER BY n;
-- of a map: that item
SELECT state, message, right(context, 17) AS context FROM t.error('SELECT * FROM loky.map(''t.id'', ARRAY[NULL, 5, NULL, 6])');
SELECT state, message FROM t.error('SELECT * FROM loky.flat_map(''t.id'', ARRAY[NULL, 5], ordered => false)');
SELECT ord, result, ok, sqlstate, message, detail, hint FROM loky.try_map('t.id', ARRAY[NULL, 5, NULL]);
CREATE FUNCTION t.not_two(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.log (i) VALUES (x);
    IF x = 2 THEN
        RAISE EXCEPTION 'two' USING ERRCODE = 'XY002';
    END IF;
    RETURN x * 10;
END$$;
SELECT t.use('{"int4": "t.not_two"}');
SELECT ord, result, ok, sqlstate FROM loky.try_map('t.id', ARRAY[1, 2, 3], NULL::int);
-- (what it did is undone)
SELECT array_agg(i ORDER BY i) FROM t.log;
SELECT state, message FROM t.error('SELECT * FROM loky.map(''t.id'', ARRAY[1, 3, 2])');
-- of the args of a map, which all items share: the call, and nothing has run
TRUNCATE t.log;
CREATE FUNCTION t.no_text(x text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no %', x USING ERRCODE = 'XY003'; END$$;
SELECT t.use('{"text": "t.no_text"}');
SELECT state, message FROM t.error($$SELECT * FROM loky.map('SELECT t.touch($1) WHERE $2 IS NULL', ARRAY[1, 2], args => ROW('a'::text))$$);
SELECT state, message FROM t.error($$SELECT * FROM loky.try_map('SELECT t.touch($1) WHERE $2 IS NULL', ARRAY[1, 2], args => ROW('a'::text))$$);
SELECT count(*) AS none FROM t.log;
SELECT ord, result, ok, sqlstate FROM loky.try_map('SELECT t.touch($1) WHERE $2 IS NULL', ARRAY[1, 2], args => ROW(NULL::text));
TRUNCATE t.log;
-- of a result: that task, which is undone; the worker goes on
SELECT t.use(NULL, '{"int4": "t.not_two"}');
SELECT loky.get_reusable_executor(1, reuse => 'true') > 0 AS one_worker;
SELECT r AS pid FROM loky.result(loky.submit('SELECT pg_backend_pid()::text')) r \gset
SELECT sqlstate, message FROM loky.exception(loky.submit('INSERT INTO t.log (i) VALUES (2) RETURNING i'));
SELECT ord, result, ok, sqlstate FROM loky.try_map('t.touch', ARRAY[1, 2, 3], NULL::int);
SELECT state, message, right(context, 17) AS context FROM t.error('SELECT * FROM loky.map(''t.id'', ARRAY[1, 2, 3])');
SELECT i FROM t.log ORDER BY i;
SELECT r = :'pid' AS same_worker FROM loky.result(loky.submit('SELECT pg_backend_pid()::text')) r;
TRUNCATE t.log;

--
-- Functions that change meanwhile
--
CREATE FUNCTION t.changes(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 1';
SELECT t.use('{"int4": "t.changes"}', '{"int4": "t.changes"}');
SELECT * FROM loky.map('t.id', ARRAY[0], NULL::int), loky.result(loky.submit('t.id', 0), NULL::int);
CREATE OR REPLACE FUNCTION t.changes(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 10';
SELECT * FROM loky.map('t.id', ARRAY[0], NULL::int), loky.result(loky.submit('t.id', 0), NULL::int);
BEGIN;
CREATE OR REPLACE FUNCTION t.changes(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 1000';
SELECT * FROM loky.map('t.id', ARRAY[0], NULL::int) AS here_not_there;
ROLLBACK;
SELECT * FROM loky.map('t.id', ARRAY[0], NULL::int);
-- dropped
DROP FUNCTION t.changes(int);
SELECT state, message, hint <> '' AS hinted FROM t.error($$SELECT loky.submit('t.id', 0)$$);
SELECT state FROM t.error($$SELECT * FROM loky.try_map('t.id', ARRAY[0])$$);
SELECT sqlstate, message FROM loky.exception(loky.submit('SELECT 0'));
SELECT * FROM loky.result(loky.submit('SELECT ''of another type''::text'));
-- made again, of another type
CREATE FUNCTION t.changes(x int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'x' || x$$;
SELECT * FROM loky.map('SELECT pg_typeof($1) || $1', ARRAY[0]), loky.result(loky.submit('SELECT 0'));
-- its type is dropped
CREATE TYPE t.gone AS ENUM ('a');
CREATE FUNCTION t.of_gone(x t.gone) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'gone'$$;
SELECT t.use('{"t.gone": "t.of_gone"}', '{"t.gone": "t.of_gone"}');
SELECT * FROM loky.map('SELECT $1', ARRAY['a']::t.gone[]);
DROP FUNCTION t.of_gone(t.gone);
DROP TYPE t.gone;
SELECT * FROM loky.map('SELECT $1', ARRAY['b']);
-- EXECUTE is taken away, which is the role's own loss
CREATE ROLE regress_loky_reduce;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_reduce;
CREATE FUNCTION t.guards(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN x + 1; END$$;
REVOKE EXECUTE ON FUNCTION t.guards FROM PUBLIC;
SET ROLE regress_loky_reduce;
SELECT t.use('{"int4": "t.guards"}', '{"int4": "t.guards"}');
SELECT sqlstate, message FROM loky.exception(loky.submit('t.id', 1));
RESET ROLE;
GRANT EXECUTE ON FUNCTION t.guards TO regress_loky_reduce;
SET ROLE regress_loky_reduce;
SELECT * FROM loky.map('t.id', ARRAY[1, 2], NULL::int);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION t.guards FROM regress_loky_reduce;
SET ROLE regress_loky_reduce;
SELECT ord, ok, sqlstate, message FROM loky.try_map('t.id', ARRAY[1, NULL]);
SELECT sqlstate, message FROM loky.exception(loky.submit('SELECT 1'));
RESET ROLE;
-- A SECURITY DEFINER function's tasks do not meet the reducers of its caller.
CREATE FUNCTION t.who(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'reduced as %', current_user; RETURN x + 1000; END$$;
CREATE FUNCTION t.definer_sum() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER
AS $$SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2], NULL::int) r$$;
SELECT current_user AS owner \gset
SET ROLE regress_loky_reduce;
SELECT t.use('{"int4": "t.who"}', '{"int4": "t.who"}');
SELECT t.definer_sum();
SELECT sum(r) FROM loky.map('t.id', ARRAY[1], NULL::int) r;
SELECT current_setting('loky.executor') AS of_role \gset
RESET ROLE;
-- (nor does another role that has the setting, or names the executor)
SELECT sum(r) FROM loky.map('t.id', ARRAY[1], NULL::int) r;
SELECT state FROM t.error(format($$SELECT * FROM loky.map('t.id', ARRAY[1], executor => %s)$$, :of_role));
RESET loky.executor;

--
-- A reducer that makes itself one of another type: no value is taken for another
--
CREATE FUNCTION t.turn_into(type text, value text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DROP FUNCTION IF EXISTS t.turns(int);
    EXECUTE format('CREATE FUNCTION t.turns(x int) RETURNS %s LANGUAGE sql AS %L', type, 'SELECT ' || value);
END$$;
-- one that gives the first type, and is replaced meanwhile by one that gives the second
CREATE FUNCTION t.turn(type text, value text, type2 text, value2 text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DROP FUNCTION IF EXISTS t.turns(int);
    EXECUTE format('CREATE FUNCTION t.turns(x int) RETURNS %s LANGUAGE plpgsql AS %L', type,
        format('BEGIN PERFORM t.turn_into(%L, %L); RETURN %s; END', type2, value2, value));
END$$;
CREATE FUNCTION t.turn_to_text() RETURNS void LANGUAGE sql AS $$SELECT t.turn('bigint', '81985529216486895', 'text', '''abc''')$$;
CREATE FUNCTION t.turn_to_int() RETURNS void LANGUAGE sql AS $$SELECT t.turn('text', '''abc''', 'bigint', '81985529216486895')$$;
SET client_min_messages = warning;
-- the value is of the type that was told
SELECT t.turn_to_text(), t.use('{"int4": "t.turns"}');
SELECT * FROM loky.result(loky.submit('SELECT pg_typeof($1) || '' '' || $1', 5));
SELECT t.turn_to_int(), t.use('{"int4": "t.turns"}');
SELECT * FROM loky.result(loky.submit('SELECT pg_typeof($1) || '' '' || $1', 5));
-- or is not sent
SELECT t.turn_to_text(), t.use('{"int4": "t.turns"}');
SELECT sqlstate, message FROM loky.exception(loky.submit('SELECT concat(pg_typeof($1), '' '', $1, '' '', $2)', 5, 6));
SELECT t.turn_to_text(), t.use('{"int4": "t.turns"}');
SELECT ord, result, sqlstate, message FROM loky.try_map('SELECT pg_typeof($1) || '' '' || $1', ARRAY[1, 2, 3]);
SELECT t.turn_to_int(), t.use('{"int4": "t.turns"}');
SELECT ord, result, sqlstate, message FROM loky.try_map('SELECT pg_typeof($1) || '' '' || $1', ARRAY[1, 2, 3]);
SELECT t.turn_to_text(), t.use('{"int4": "t.turns"}');
SELECT state, message, hint FROM t.error($$SELECT * FROM loky.map('SELECT concat($1, $2, $3)', ARRAY['x'], args => ROW(7, 8))$$);
-- nor sent back
SELECT t.turn_to_text(), t.use(NULL, '{"int4": "t.turns"}');
SELECT * FROM loky.result(loky.submit('SELECT 1, pg_backend_pid() > 0'), NULL::record) AS (a text, b text);
SELECT t.turn_to_text(), t.use(NULL, '{"int4": "t.turns"}');
SELECT sqlstate, message FROM loky.exception(loky.submit('SELECT x FROM generate_series(1, 2) x'));
SELECT t.turn_to_int(), t.use(NULL, '{"int4": "t.turns"}');
SELECT sqlstate, message FROM loky.exception(loky.submit('SELECT x FROM generate_series(1, 2) x'));
RESET client_min_messages;

--
-- Cancelling
--
CREATE FUNCTION t.waits(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('t.arrived');
    PERFORM t.until('last_value >= 1 FROM t.gate', 10000);
    RETURN x;
EXCEPTION WHEN OTHERS THEN
    RETURN -1;
END$$;
\set SHOW_CONTEXT never
-- in the caller: the call ends, nothing was queued
SELECT t.reset();
SELECT t.use('{"int4": "t.waits"}');
SELECT count(*) AS n FROM loky.tasks \gset
SET statement_timeout = '100 ms';
SELECT loky.submit('t.id', 1);
SELECT loky.submit_all('t.id', ARRAY[1, 2]);
SELECT * FROM loky.map('t.id', ARRAY[1, 2]);
SELECT * FROM loky.try_map('t.id', ARRAY[1, 2]);
SELECT * FROM loky.try_map('SELECT 1', ARRAY['a', 'b'], args => ROW(1));
RESET statement_timeout;
SELECT count(*) - :n AS queued FROM loky.tasks;
-- in the worker: the task is cancelled, the map's before control returns
SELECT t.reset();
SELECT t.use(NULL, '{"int4": "t.waits"}');
SELECT loky.submit('SELECT 1') AS f \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.state(:f), loky.cancel(:f) AS pending_only, loky.cancel(:f, running => true);
SELECT done, state FROM loky.wait(ARRAY[:f]);
SET statement_timeout = '200 ms';
SELECT * FROM loky.map('t.id', ARRAY[1, 2, 3]);
\unset SHOW_CONTEXT
RESET statement_timeout;
SELECT count(*) AS running FROM pg_stat_activity WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL;
SELECT setval('t.gate', 1);
SELECT * FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int);

RESET loky.executor;
RESET my.other;
DROP OWNED BY regress_loky_reduce;
DROP ROLE regress_loky_reduce;
TRUNCATE t.log;
SELECT t.clean();
SET client_min_messages = warning;
DROP DOMAIN t.small CASCADE;
DROP TYPE t.twin CASCADE;
DROP FUNCTION t.changes(int);
RESET client_min_messages;
