-- Results: a task's rows as the type that is asked for.

CREATE TYPE t.ab AS (a int, b text);
CREATE TYPE t.cd AS (c int, d t.ab);
CREATE DOMAIN t.small AS int CHECK (VALUE < 10);
CREATE DOMAIN t.needed AS int NOT NULL;
CREATE DOMAIN t.ab_checked AS t.ab CHECK ((VALUE).a > 0);
CREATE TABLE t.target (id int, gone text, name text);
ALTER TABLE t.target DROP COLUMN gone;
CREATE TABLE t.rows (i int, v text);
-- Rows of a table that has lost a column: as arguments, as the result, and as all of it.
INSERT INTO t.target VALUES (1, 'one');
SELECT r FROM t.target x, loky.run('SELECT $1 || '' '' || $2', args => x) r;
SELECT * FROM loky.result(loky.submit('SELECT x FROM t.target x'), NULL::t.target);
SELECT * FROM loky.result(loky.submit('SELECT x FROM t.target x'), NULL::t.ab);
SELECT * FROM loky.result(loky.submit('SELECT x FROM t.target x'), NULL::jsonb);
SELECT * FROM loky.result(loky.submit('SELECT x, 2 FROM t.target x'), NULL::record) AS (x t.target, y int);
TRUNCATE t.target;
-- A row of one column that is a row: as that column, and as all of it.
CREATE TYPE t.only AS (x t.ab);
SELECT * FROM loky.result(loky.submit('SELECT ROW(1, ''a'')::t.ab'), NULL::t.only);
SELECT * FROM loky.result(loky.submit('SELECT ROW(ROW(1, ''a''))::t.only'), NULL::t.only);
SELECT r IS NULL AS none, (r).x IS NULL AS nothing FROM loky.result(loky.submit('SELECT NULL::t.only'), NULL::t.only) r;
DROP TYPE t.only;

-- Scalars, coerced as PL/pgSQL assigns.
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT 42')) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT 42'), NULL::bigint) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT 42::bigint'), NULL::smallint) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT 2.6'), NULL::int) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT ''12'''), NULL::int) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT ''2024-02-29''::text'), NULL::date) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT ARRAY[1, 2]'), NULL::text[]) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT ARRAY[1, 2]'), NULL::int[]) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT true')) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT 5'), NULL::t.small) r;
SELECT r IS NULL FROM loky.result(loky.submit('SELECT NULL::int'), NULL::int) r;
SELECT r IS NULL FROM loky.result(loky.submit('SELECT NULL'), NULL::text) r;
SELECT * FROM loky.result(loky.submit('SELECT 99999'), NULL::int2);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT ''abc'''), NULL::int)$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 10'), NULL::t.small)$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT NULL::int'), NULL::t.needed)$$);
SELECT state, detail, hint FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 1, 2'), NULL::int)$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 1, 2'))$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT'))$$);
SELECT * FROM loky.result(loky.submit('SELECT'), NULL::jsonb);
-- the future can still be read as another type
SELECT loky.submit('SELECT ''abc''') AS f \gset
SELECT state FROM t.error('SELECT * FROM loky.result(' || :f || ', NULL::int)');
SELECT * FROM loky.result(:f);
SELECT * FROM loky.result(:f, NULL::jsonb);

-- json and jsonb
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT 1'), NULL::jsonb) r;
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT ''x'' AS a'), NULL::json) r;
SELECT * FROM loky.result(loky.submit('SELECT 1 AS a, ''x'' AS b, NULL AS c, ARRAY[1, 2] AS d'), NULL::jsonb);
SELECT * FROM loky.result(loky.submit('SELECT 1 AS a, ''x'' AS b'), NULL::json);
SELECT * FROM loky.result(loky.submit('SELECT ROW(1, ''x'')::t.ab'), NULL::jsonb);
SELECT * FROM loky.result(loky.submit($$SELECT '{"a": 1}'::json$$), NULL::jsonb);
SELECT * FROM loky.result(loky.submit($$SELECT '{"a": 1}'::jsonb$$), NULL::json);
SELECT * FROM loky.result(loky.submit($$SELECT i, 'r' || i AS r FROM generate_series(1, 3) i$$), NULL::jsonb);
SELECT r IS NULL AS isnull FROM loky.result(loky.submit('SELECT NULL::int'), NULL::jsonb) r;

-- Rows
SELECT * FROM loky.result(loky.submit('SELECT 1, ''x'''), NULL::t.ab);
SELECT r, pg_typeof(r) FROM loky.result(loky.submit('SELECT ''7'', 8'), NULL::t.ab) r;
SELECT * FROM loky.result(loky.submit('SELECT ROW(1, ''x'')::t.ab'), NULL::t.ab);
SELECT * FROM loky.result(loky.submit('SELECT ROW(1, ''x'')'), NULL::t.ab);
SELECT * FROM loky.result(loky.submit('SELECT 1, ROW(2, ''y'')::t.ab'), NULL::t.cd);
SELECT (r).d.b FROM loky.result(loky.submit('SELECT 1, ROW(2, ''y'')'), NULL::t.cd) r;
SELECT * FROM loky.result(loky.submit('SELECT 1, ''one'''), NULL::t.target);
SELECT * FROM loky.result(loky.submit('SELECT 1, ''x'''), NULL::t.ab_checked);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 0, ''x'''), NULL::t.ab_checked)$$);
SELECT * FROM loky.result(loky.submit('SELECT 1 AS x, ''y'' AS y'), NULL::record) AS r (a int, b text);
SELECT * FROM loky.result(loky.submit('SELECT 1, ''2'', 3'), NULL::record) AS r (a numeric(4,1), b int, c text);
SELECT loky.result(loky.submit('SELECT 1, ''x'''), NULL::t.ab);
SELECT (loky.result(loky.submit('SELECT 1, ''x'''), NULL::t.ab)).b;
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 1'), NULL::t.ab)$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 1, 2, 3'), NULL::t.ab)$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 1, 2, 3'), NULL::record) AS r (a int, b int)$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT 1, ''x'''), NULL::record) AS r (a int, b int)$$);
-- a composite type that changes between two tasks
CREATE TYPE t.grows AS (a int);
SELECT * FROM loky.result(loky.submit('SELECT jsonb_populate_record(NULL::t.grows, ''{"a": 1, "b": 2}'')'), NULL::jsonb);
ALTER TYPE t.grows ADD ATTRIBUTE b int;
SELECT * FROM loky.result(loky.submit('SELECT jsonb_populate_record(NULL::t.grows, ''{"a": 1, "b": 2}'')'), NULL::jsonb);
SELECT * FROM loky.result(loky.submit('SELECT jsonb_populate_record(NULL::t.grows, ''{"a": 1, "b": 2}'')'), NULL::t.grows);

-- No row set: the command tag as text, the number of rows as an integer
SELECT * FROM loky.result(loky.submit('INSERT INTO t.rows SELECT i, i::text FROM generate_series(1, 3) i'));
SELECT * FROM loky.result(loky.submit('INSERT INTO t.rows SELECT i, i::text FROM generate_series(4, 5) i'), NULL::int);
SELECT * FROM loky.result(loky.submit('UPDATE t.rows SET v = v || ''!'' WHERE i > $1', 2));
SELECT * FROM loky.result(loky.submit('UPDATE t.rows SET v = v || ''!'' WHERE i > $1', 2), NULL::bigint);
SELECT * FROM loky.result(loky.submit('DELETE FROM t.rows WHERE i = 1'));
SELECT * FROM loky.result(loky.submit('DELETE FROM t.rows WHERE i = 1'), NULL::smallint);
SELECT * FROM loky.result(loky.submit('INSERT INTO t.rows VALUES (1, ''one'') RETURNING i'), NULL::int);
SELECT * FROM loky.result(loky.submit('DELETE FROM t.rows WHERE i = 1 RETURNING v'));
SELECT * FROM loky.result(loky.submit('DELETE FROM t.rows WHERE i = 1 RETURNING v'));
SELECT * FROM loky.result(loky.submit('CREATE TABLE t.copied AS SELECT * FROM t.rows'));
SELECT * FROM loky.result(loky.submit('SET my.thing = 1'));
SELECT * FROM loky.result(loky.submit('VACUUM t.rows'), NULL::int);
SELECT state, hint FROM t.error($$SELECT * FROM loky.result(loky.submit('VACUUM t.rows'), NULL::date)$$);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('VACUUM t.rows'), NULL::t.ab)$$);
-- statements that return rows without being a SELECT
SELECT * FROM loky.result(loky.submit('SHOW server_encoding'));
SELECT * FROM loky.result(loky.submit('EXPLAIN (COSTS OFF) SELECT 1'));
SELECT * FROM loky.result(loky.submit('WITH d AS (DELETE FROM t.rows WHERE i = 2 RETURNING i) SELECT count(*) FROM d'));

-- Empty results
SELECT count(*) FROM loky.result(loky.submit('SELECT 1 WHERE false'));
SELECT count(*) FROM loky.result(loky.submit('SELECT 1, 2 WHERE false'), NULL::t.ab);

-- A result is read as often as asked, whole or in part.
SELECT loky.submit('SELECT generate_series(1, 5)') AS f \gset
SELECT * FROM loky.result(:f, NULL::int);
SELECT * FROM loky.result(:f);
SELECT loky.result(:f, NULL::int) LIMIT 2;
SELECT sum(a + b) FROM loky.result(:f, NULL::int) a, loky.result(:f, NULL::int) b;
BEGIN;
DECLARE c CURSOR FOR SELECT loky.result(:f, NULL::int);
FETCH 2 FROM c;
SELECT loky.forget(:f);
FETCH 2 FROM c;
COMMIT;
SELECT state FROM t.error('SELECT loky.result(' || :f || ')');

-- A million rows, more than shared memory holds
SELECT loky.submit($$SELECT i, md5(i::text) FROM generate_series(1, 1000000) i$$) AS f \gset
SELECT count(*), sum((r).a), count(*) FILTER (WHERE (r).b = md5((r).a::text)) FROM (SELECT loky.result(:f, NULL::t.ab) AS r) s;
SELECT count(*) FROM loky.result(:f, NULL::t.ab) WHERE a % 1000 = 0;
SELECT loky.forget(:f);
SELECT count(*) FROM pg_ls_tmpdir();
