-- What a task may be: a function or procedure by name, or statements.

CREATE FUNCTION t.over(x int) RETURNS text LANGUAGE sql AS $$SELECT 'int ' || x$$;
CREATE FUNCTION t.over(x text) RETURNS text LANGUAGE sql AS $$SELECT 'text ' || x$$;
CREATE FUNCTION t.over(x int, y int) RETURNS text LANGUAGE sql AS $$SELECT 'two ints ' || x || ' ' || y$$;
CREATE FUNCTION t.defaults(a int, b int DEFAULT 10, c text DEFAULT 'c') RETURNS text
LANGUAGE sql AS $$SELECT a || ' ' || b || ' ' || c$$;
CREATE FUNCTION t.variadic(VARIADIC x int[]) RETURNS text LANGUAGE sql
AS $$SELECT cardinality(x) || ': ' || array_to_string(x, ' ')$$;
CREATE FUNCTION t.strict(x int) RETURNS text STRICT LANGUAGE sql AS $$SELECT 'called'$$;
CREATE FUNCTION t.series(n int) RETURNS SETOF int LANGUAGE sql
AS $$SELECT generate_series(1, n)$$;
CREATE FUNCTION t.pairs(n int) RETURNS TABLE (a int, b text) LANGUAGE sql
AS $$SELECT i, 'b' || i FROM generate_series(1, n) i$$;
CREATE FUNCTION t.outs(x int, OUT half int, OUT twice int) LANGUAGE sql
AS $$SELECT x / 2, x * 2$$;
CREATE FUNCTION t.nothing() RETURNS void LANGUAGE sql AS $$SELECT$$;
CREATE FUNCTION t."Mixed Name"(x int) RETURNS int LANGUAGE sql AS $$SELECT -x$$;

--
-- Functions by name
--
SELECT * FROM loky.result(loky.submit('t.id', 42), NULL::int);
SELECT * FROM loky.result(loky.submit('t.over', 1));
SELECT * FROM loky.result(loky.submit('t.over', 'one'::text));
SELECT * FROM loky.result(loky.submit('t.over', 1, 2));
-- an untyped literal is resolved as in a plain call
SELECT t.over('7') AS plain, r AS submitted FROM loky.result(loky.submit('t.over', '7')) r;
SELECT * FROM loky.result(loky.submit('t.id', '7'));
SELECT t.over(NULL) IS NULL AS plain, r IS NULL AS submitted FROM loky.result(loky.submit('t.over', NULL)) r;
-- and so is a smallint, which fits int better than text
SELECT * FROM loky.result(loky.submit('t.over', 3::smallint));
-- by signature: the overload is named, and the values are cast to it
SELECT * FROM loky.result(loky.submit('t.over(text)', '1'));
SELECT * FROM loky.result(loky.submit('t.over(integer)', '1'));
SELECT * FROM loky.result(loky.submit('t.over(int4, int)', 1, 2));
SELECT * FROM loky.result(loky.submit(' t . over ( pg_catalog.int4 ) ', 5));
-- defaults and VARIADIC
SELECT * FROM loky.result(loky.submit('t.defaults', 1));
SELECT * FROM loky.result(loky.submit('t.defaults', 1, 2));
SELECT * FROM loky.result(loky.submit('t.defaults(int, int, text)', 1));
SELECT * FROM loky.result(loky.submit('t.variadic', 1, 2, 3));
SELECT * FROM loky.result(loky.submit('t.variadic', VARIADIC ARRAY[1, 2, 3, 4]));
SELECT * FROM loky.result(loky.submit('t.over', VARIADIC ARRAY[5, 6]));
SELECT * FROM loky.result(loky.submit('t.strict', NULL::int));
SELECT * FROM loky.result(loky.submit('t.strict', NULL));
-- several rows, several columns, none
SELECT * FROM loky.result(loky.submit('t.series', 3), NULL::int);
SELECT * FROM loky.result(loky.submit('t.pairs', 2), NULL::record) AS (a int, b text);
SELECT * FROM loky.result(loky.submit('t.outs', 7), NULL::record) AS (half int, twice int);
SELECT * FROM loky.result(loky.submit('t.series', 0), NULL::int);
SELECT r, r IS NULL AS isnull FROM loky.result(loky.submit('t.nothing')) r;
-- names as SQL has them
SELECT * FROM loky.result(loky.submit('t."Mixed Name"', 4), NULL::int);
SELECT * FROM loky.result(loky.submit('T.ID', 5), NULL::int);
-- built-in, polymorphic, aggregates and window functions aside
SELECT * FROM loky.result(loky.submit('upper', 'x'::text));
SELECT * FROM loky.result(loky.submit('array_append', ARRAY[1, 2], 3), NULL::int[]);
SELECT * FROM loky.result(loky.submit('pi'), NULL::float8);
SELECT * FROM loky.result(loky.submit('pi()'), NULL::float8);

-- The caller's search_path says which function is meant.
CREATE SCHEMA t2;
CREATE FUNCTION t2.id(x int) RETURNS int LANGUAGE sql AS 'SELECT -x';
BEGIN;
SET LOCAL search_path = t2, t;
SELECT * FROM loky.result(loky.submit('id', 1), NULL::int);
SET LOCAL search_path = t, t2;
SELECT * FROM loky.result(loky.submit('id', 1), NULL::int);
SET LOCAL search_path = t2;
SELECT * FROM loky.result(loky.submit('t.id', 1), NULL::int);
ROLLBACK;
-- so it does for an aggregate of which others have the name too
CREATE AGGREGATE t.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE AGGREGATE t2.total(text) (SFUNC = textcat, STYPE = text, INITCOND = '');
SET search_path = t, t2;
SELECT * FROM loky.run('total', ROW(5)), loky.run('total', ROW('x'::text)) AS x;
SET search_path = t2, t;
SELECT * FROM loky.run('total', ROW(5)), loky.run('total', ROW('x'::text)) AS x;
SELECT state, message FROM t.error($$SELECT loky.submit('total', true)$$);
RESET search_path;
DROP AGGREGATE t.total(int), t2.total(text);
-- Nothing of that is left in the worker.
SELECT * FROM loky.result(loky.submit('SHOW search_path'));

-- What does not exist is an error in the caller, and nothing is queued.
SELECT count(*) AS before FROM loky.tasks \gset
SELECT (t.error($$SELECT loky.submit('t.nope', 1)$$)).state;
SELECT (t.error($$SELECT loky.submit('nope')$$)).state;
SELECT (t.error($$SELECT loky.submit('t.id', 'x'::text)$$)).state;
SELECT (t.error($$SELECT loky.submit('t.id(bigint)', 1)$$)).state;
SELECT (t.error($$SELECT loky.submit('nope(integer)', 1)$$)).state;
SELECT (t.error($$SELECT loky.submit('t.id')$$)).state;
SELECT (t.error($$SELECT loky.submit('t.id', 1, 2)$$)).state;
SELECT (t.error($$SELECT loky.submit('nope.id', 1)$$)).state;
SELECT state, message, hint FROM t.error($$SELECT loky.submit('t.nope', 1)$$);
SELECT message, hint FROM unnest('{nope(integer),t.nope(integer),nope.id}'::text[]) task, t.error(format('SELECT loky.submit(%L, 1)', task));
SELECT state, message, hint <> '' AS hinted FROM t.error($$SELECT loky.submit('t.id(bigint)', 1)$$);
SELECT state, message FROM t.error('SELECT loky.submit(NULL)');
SELECT state, message, hint <> '' AS hinted FROM t.error($$SELECT loky.submit('')$$);
SELECT state FROM t.error($$SELECT loky.submit('   ')$$);
SELECT state FROM t.error($$SELECT loky.submit('-- only a comment')$$);
SELECT state FROM t.error($$SELECT loky.submit(';;')$$);
SELECT loky.submit('SELECT 1 +');
SELECT loky.submit('SELEC 1');
SELECT state FROM t.error($$SELECT loky.submit('SELECT $1; SELECT 2', 1)$$);
SELECT count(*) - :before AS queued FROM loky.tasks;

--
-- Procedures, which may commit
--
CREATE PROCEDURE t.commits(n int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        INSERT INTO t.log (i) VALUES (i);
        IF i % 2 = 0 THEN
            COMMIT;
        ELSE
            ROLLBACK;
        END IF;
    END LOOP;
END$$;
CREATE PROCEDURE t.inout(a int, INOUT b int DEFAULT 3) LANGUAGE plpgsql
AS $$BEGIN b := a * b; END$$;
TRUNCATE t.log;
SELECT * FROM loky.result(loky.submit('t.commits', 5));
SELECT i FROM t.log ORDER BY i;
SELECT * FROM loky.result(loky.submit('t.commits(int)', 2));
SELECT * FROM loky.result(loky.submit('CALL t.commits(2)'));
SELECT * FROM loky.result(loky.submit('CALL t.commits($1)', 4));
SELECT i, count(*) FROM t.log GROUP BY i ORDER BY i;
SELECT * FROM loky.result(loky.submit('t.inout', 5), NULL::int);
SELECT * FROM loky.result(loky.submit('t.inout', 5, 6), NULL::int);
SELECT * FROM loky.result(loky.submit('DO $_$BEGIN INSERT INTO t.log (i) VALUES (99); COMMIT; END$_$'));
SELECT count(*) FROM t.log WHERE i = 99;
-- what it had committed stays when it fails
CREATE PROCEDURE t.commits_and_fails() LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.log (i) VALUES (100);
    COMMIT;
    INSERT INTO t.log (i) VALUES (101);
    PERFORM 1 / 0;
END$$;
SELECT state, message FROM t.error($$SELECT * FROM loky.result(loky.submit('t.commits_and_fails'))$$);
SELECT i FROM t.log WHERE i >= 100;

--
-- Statements
--
SELECT * FROM loky.result(loky.submit('SELECT $1 + $2', 1, 2), NULL::int);
SELECT * FROM loky.result(loky.submit('SELECT $2 || $1', 'a'::text, 'b'::text));
SELECT * FROM loky.result(loky.submit('SELECT $1::int + 1', '41'), NULL::int);
SELECT * FROM loky.result(loky.submit('  /* a comment */ SELECT 1; ; '));
SELECT * FROM loky.result(loky.submit('VALUES (1), (2)'), NULL::int);
SELECT * FROM loky.result(loky.submit('SELECT 1; SELECT 2; SELECT 3'));
-- the last one's result, also where it has none
SELECT * FROM loky.result(loky.submit('SELECT 1; TRUNCATE t.log'));
-- several share one transaction
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('INSERT INTO t.log (i) VALUES (1); SELECT 1 / 0'))$$);
SELECT count(*) FROM t.log;
SELECT * FROM loky.result(loky.submit('CREATE TEMP TABLE x AS SELECT txid_current() AS id; SELECT id = txid_current() FROM x; '), NULL::boolean);
SELECT * FROM loky.result(loky.submit('DROP TABLE x'));
-- the error is the task's own where the table is missing only as it runs
SELECT loky.submit('SELECT * FROM t.not_yet') AS f \gset
SELECT state, message FROM t.error('SELECT * FROM loky.result(' || :f || ')');

-- Statements that need the top level.
SELECT * FROM loky.result(loky.submit('VACUUM t.log'));
SELECT * FROM loky.result(loky.submit('VACUUM (ANALYZE) t.log'));
SELECT * FROM loky.result(loky.submit('CHECKPOINT'));
SELECT * FROM loky.result(loky.submit('ANALYZE'));
SELECT * FROM loky.result(loky.submit('CREATE DATABASE regression_loky_made'));
SELECT count(*) FROM pg_database WHERE datname = 'regression_loky_made';
SELECT * FROM loky.result(loky.submit('DROP DATABASE regression_loky_made'));
SELECT count(*) FROM pg_database WHERE datname = 'regression_loky_made';
SELECT * FROM loky.result(loky.submit('ALTER SYSTEM RESET work_mem'));
-- they must stand alone
SELECT state, message FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 1; VACUUM t.log'))$$);
-- CREATE INDEX CONCURRENTLY waits for all snapshots, so look from statements of
-- their own.
SELECT loky.submit('CREATE INDEX CONCURRENTLY log_i ON t.log (i)') AS f \gset
CREATE PROCEDURE t.await(f bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 4000 LOOP
        EXIT WHEN loky.done(f);
        COMMIT;
        PERFORM pg_sleep(0.005);
        COMMIT;
    END LOOP;
END$$;
CALL t.await(:f);
SELECT * FROM loky.result(:f);
SELECT indisvalid FROM pg_index WHERE indexrelid = 't.log_i'::regclass;
-- A word that is a whole statement, unless there is a function of that name.
SELECT * FROM loky.result(loky.submit('Analyze'));
CREATE FUNCTION public.checkpoint() RETURNS text LANGUAGE sql AS $$SELECT 'the function'$$;
SELECT * FROM loky.result(loky.submit('CHECKPOINT'));
DROP FUNCTION public.checkpoint();
SELECT * FROM loky.result(loky.submit('CHECKPOINT'));

-- DDL, and a prepared plan follows it.
SELECT * FROM loky.result(loky.submit('CREATE TABLE t.made (a int)'));
SELECT * FROM loky.result(loky.submit('SELECT count(*) FROM t.made'), NULL::int);
SELECT * FROM loky.result(loky.submit('INSERT INTO t.made SELECT generate_series(1, $1)', 3), NULL::int);
SELECT * FROM loky.result(loky.submit('SELECT * FROM t.made WHERE a = $1', 2), NULL::jsonb);
ALTER TABLE t.made ADD COLUMN b text DEFAULT 'b';
SELECT * FROM loky.result(loky.submit('SELECT * FROM t.made WHERE a = $1', 2), NULL::jsonb);
SELECT * FROM loky.result(loky.submit('DROP TABLE t.made'));
CREATE TABLE t.made (z text);
SELECT * FROM loky.result(loky.submit('SELECT count(*) FROM t.made'), NULL::int);
DROP TABLE t.made;
-- The types of untyped literals are those that the statement wants today.
CREATE TABLE t.made (a int);
SELECT * FROM loky.result(loky.submit('INSERT INTO t.made VALUES ($1) RETURNING a', '07'), NULL::jsonb);
DROP TABLE t.made;
CREATE TABLE t.made (a text);
SELECT * FROM loky.result(loky.submit('INSERT INTO t.made VALUES ($1) RETURNING a', '07'), NULL::jsonb);
DROP TABLE t.made;
-- A function that is replaced, dropped, altered, between two calls.
CREATE FUNCTION t.changes(x int) RETURNS int LANGUAGE sql AS 'SELECT x';
SELECT * FROM loky.result(loky.submit('t.changes', 1), NULL::int);
CREATE OR REPLACE FUNCTION t.changes(x int) RETURNS int LANGUAGE sql AS 'SELECT x + 1';
SELECT * FROM loky.result(loky.submit('t.changes', 1), NULL::int);
DROP FUNCTION t.changes;
CREATE FUNCTION t.changes(x int) RETURNS text LANGUAGE sql AS $$SELECT current_setting('my.way', true)$$;
ALTER FUNCTION t.changes SET my.way = 'altered';
SELECT * FROM loky.result(loky.submit('t.changes', 1));
DROP FUNCTION t.changes;
SELECT state FROM t.error($$SELECT loky.submit('t.changes', 1)$$);

-- Each task is a transaction of its own: the caller's rows are not seen, its
-- rollback undoes nothing.
BEGIN;
INSERT INTO t.log (i) VALUES (7);
SELECT * FROM loky.result(loky.submit('SELECT count(*) FROM t.log'), NULL::int);
SELECT * FROM loky.result(loky.submit('t.touch', 8), NULL::int);
SELECT i FROM t.log ORDER BY i;
ROLLBACK;
SELECT i FROM t.log ORDER BY i;
SELECT count(DISTINCT r) FROM generate_series(1, 3) i, loky.result(loky.submit('SELECT txid_current() + 0 * $1', i), NULL::bigint) r;
-- A task of a read-only transaction is read-only.
BEGIN READ ONLY;
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('t.touch', 9))$$);
COMMIT;
SELECT * FROM loky.result(loky.submit('t.touch', 9), NULL::int);

-- Copying to and from a client that is not there.
SELECT state, message, hint <> '' AS hinted FROM t.error($$SELECT * FROM loky.result(loky.submit('COPY t.log FROM STDIN'))$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('COPY t.log TO STDOUT'))$$);
CREATE FUNCTION t."Odd ""Name"".x"(x int) RETURNS int LANGUAGE sql AS 'SELECT x + 1';
SELECT * FROM loky.result(loky.submit('t."Odd ""Name"".x"', 1));
SELECT * FROM loky.result(loky.submit('"t" . "Odd ""Name"".x"(int)', 2));
SELECT state, message FROM t.error($$SELECT loky.submit('t."Odd ""Nam"', 1)$$);
SELECT state FROM t.error($$SELECT loky.submit('t."Odd ""Name', 1)$$);
DROP FUNCTION t."Odd ""Name"".x";
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 1; COPY (SELECT 1) TO STDOUT'))$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('DO $_$BEGIN EXECUTE ''COPY t.log FROM STDIN''; END$_$'))$$);
SELECT * FROM loky.result(loky.submit($$COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'$$));

-- Statements about transactions cannot leave the worker in one.
CREATE TABLE t.left (i int);
CREATE FUNCTION t.outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r text;
BEGIN
    SELECT * INTO r FROM loky.result(loky.submit(command));
    RETURN r;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END$$;
SELECT c AS command, t.outcome(c) AS outcome, t.clean() AS clean FROM unnest(ARRAY[
    'BEGIN', 'COMMIT', 'ROLLBACK', 'END', 'ABORT',
    'BEGIN; INSERT INTO t.left VALUES (1)',
    'BEGIN; INSERT INTO t.left VALUES (2); COMMIT',
    'BEGIN; INSERT INTO t.left VALUES (3); ROLLBACK',
    'INSERT INTO t.left VALUES (4); COMMIT; INSERT INTO t.left VALUES (5)',
    'INSERT INTO t.left VALUES (6); ROLLBACK; INSERT INTO t.left VALUES (7)',
    'BEGIN; SELECT 1 / 0',
    'START TRANSACTION READ ONLY', 'SAVEPOINT s', 'RELEASE s', 'ROLLBACK TO s',
    'SET TRANSACTION READ ONLY', 'SET LOCAL work_mem = 64',
    'BEGIN; PREPARE TRANSACTION ''loky_left''', 'PREPARE TRANSACTION ''loky_left''',
    'INSERT INTO t.left VALUES (8); COMMIT AND CHAIN; INSERT INTO t.left VALUES (9)']) c;
SELECT i FROM t.left ORDER BY i;
SELECT gid FROM pg_prepared_xacts;
SELECT * FROM loky.result(loky.submit('ROLLBACK PREPARED ''loky_left'''));
SELECT * FROM loky.result(loky.submit('t.id', 1), NULL::int);

-- submit_all: a future for each item
SELECT loky.submit_all('t.touch', ARRAY[3, 1, 2]) AS fs \gset
SELECT count(*), bool_and(done), string_agg(state, ' ') FROM loky.wait(:'fs');
SELECT n, r FROM unnest(:'fs'::bigint[]) WITH ORDINALITY u (f, n), loky.result(f, NULL::int) r ORDER BY n;
SELECT n, r FROM unnest(loky.submit_all('t.div', ARRAY[ROW(6, 3), ROW(8, 2)])) WITH ORDINALITY u (f, n), loky.result(f, NULL::int) r ORDER BY n;
SELECT loky.submit_all('t.id', '{}'::int[]), loky.submit_all('t.id', NULL::int[]);
SELECT cardinality(loky.submit_all('t.id', '{{1,2},{3,4}}'::int[]));
SELECT loky.submit_all('t.id', ARRAY[1, 2], label => 'labelled') AS fs \gset
SELECT label, count(*) FROM loky.tasks WHERE future = ANY (:'fs') GROUP BY 1;
SELECT state FROM t.error($$SELECT loky.submit_all('t.nope', ARRAY[1])$$);
SELECT state FROM t.error($$SELECT loky.submit_all('t.div', ARRAY[ROW(1, 2), ROW(1, 2, 3)])$$);
SELECT count(*) AS before FROM loky.tasks \gset
SELECT state, hint ~ 'loky.max_tasks' AS names_setting FROM t.error($$SELECT loky.submit_all('t.id', ARRAY(SELECT generate_series(1, 5000)))$$);
SELECT count(*) - :before AS queued FROM loky.tasks;
SELECT state FROM t.error($$SELECT loky.submit_all('t.id', ARRAY[1], executor => 2000000000)$$);

SELECT t.clean();
