-- Arguments of every type reach the worker as they are.

CREATE TYPE t.color AS ENUM ('red', 'green', 'blue');
CREATE TYPE t.pair AS (a int, b text);
CREATE TYPE t.nested AS (id int, p t.pair, ps t.pair[], c t.color);
CREATE DOMAIN t.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN t.positives AS int[] CHECK (0 < ALL (VALUE));
CREATE TYPE t.floatrange AS RANGE (subtype = float8);
CREATE TABLE t.wide (id int PRIMARY KEY, gone int, txt text, num numeric DEFAULT 1.5);
ALTER TABLE t.wide DROP COLUMN gone;

-- Type and value as the worker sees them, in text, are those of the caller.
CREATE FUNCTION t.show(x anyelement) RETURNS text LANGUAGE plpgsql
AS $$BEGIN RETURN pg_typeof(x) || ' ' || coalesce(x::text, 'NULL'); END$$;
CREATE FUNCTION t.sent(f bigint) RETURNS text LANGUAGE sql AS $$SELECT * FROM loky.result(f)$$;

\set task 'SELECT pg_typeof($1) || '' '' || coalesce($1::text, ''NULL'')'
SELECT t.sent(loky.submit(:'task', true));
SELECT t.sent(loky.submit(:'task', 'x'::"char"));
SELECT t.sent(loky.submit(:'task', 'name'::name));
SELECT t.sent(loky.submit(:'task', 32767::int2)), t.sent(loky.submit(:'task', -2147483648));
SELECT t.sent(loky.submit(:'task', 9223372036854775807)), t.sent(loky.submit(:'task', 4294967295::oid));
SELECT t.sent(loky.submit(:'task', 'NaN'::float4)), t.sent(loky.submit(:'task', '-Infinity'::float8));
SELECT t.sent(loky.submit(:'task', 0.1::float8)), t.sent(loky.submit(:'task', 1.10::numeric(10,2)));
SELECT t.sent(loky.submit(:'task', 'NaN'::numeric)), t.sent(loky.submit(:'task', '1e500'::numeric)) = 'numeric ' || 1e500;
SELECT t.sent(loky.submit(:'task', 'a text'::text)), t.sent(loky.submit(:'task', ''::text));
SELECT t.sent(loky.submit(:'task', 'ab'::char(4))), t.sent(loky.submit(:'task', 'ab'::varchar(4)));
SELECT t.sent(loky.submit(:'task', '\x00ff'::bytea)), t.sent(loky.submit(:'task', B'101'));
SELECT t.sent(loky.submit(:'task', date '2024-02-29')), t.sent(loky.submit(:'task', time '12:34:56.789'));
SELECT t.sent(loky.submit(:'task', timestamp 'infinity')), t.sent(loky.submit(:'task', interval '1 mon -2 days 03:04:05'));
SELECT t.sent(loky.submit(:'task', timestamptz '2024-01-01 00:00+00'));
SELECT t.sent(loky.submit(:'task', '00000000-0000-0000-0000-00000000002a'::uuid)), t.sent(loky.submit(:'task', inet '10.0.0.1/8'));
SELECT t.sent(loky.submit(:'task', point '(1,2)')), t.sent(loky.submit(:'task', money '12.50')) LIKE 'money%12.50';
SELECT t.sent(loky.submit(:'task', '{"a": [1, null]}'::json)), t.sent(loky.submit(:'task', '{"b": 1, "a": 2}'::jsonb));
SELECT t.sent(loky.submit(:'task', 't.id(integer)'::regprocedure)), t.sent(loky.submit(:'task', 't.wide'::regclass));
SELECT t.sent(loky.submit(:'task', 'a & b'::tsquery)), t.sent(loky.submit(:'task', '0/16B3740'::pg_lsn));
-- enums, domains, ranges, multiranges
SELECT t.sent(loky.submit(:'task', 'green'::t.color)), t.sent(loky.submit(:'task', 5::t.positive));
SELECT t.sent(loky.submit(:'task', '{1,2}'::t.positives));
SELECT t.sent(loky.submit(:'task', int4range(1, 5))), t.sent(loky.submit(:'task', 'empty'::int4range));
SELECT t.sent(loky.submit(:'task', t.floatrange(1.5, NULL))), t.sent(loky.submit(:'task', '{[1,2),[5,6)}'::int4multirange));
-- arrays
SELECT t.sent(loky.submit(:'task', ARRAY[1, NULL, 3])), t.sent(loky.submit(:'task', '{}'::text[]));
SELECT t.sent(loky.submit(:'task', '[0:1][2:3]={{1,2},{3,4}}'::int[])), t.sent(loky.submit(:'task', ARRAY['a b', NULL, '"']::text[]));
SELECT t.sent(loky.submit(:'task', ARRAY['red', 'blue']::t.color[])), t.sent(loky.submit(:'task', ARRAY[int4range(1, 2)]));
SELECT t.sent(loky.submit(:'task', ARRAY[1, 2]::t.positive[]));
-- named row types
SELECT t.sent(loky.submit(:'task', ROW(1, 'x')::t.pair)), t.sent(loky.submit(:'task', NULL::t.pair)), t.sent(loky.submit(:'task', ROW(NULL, NULL)::t.pair));
SELECT t.sent(loky.submit(:'task', ROW(1, ROW(2, 'two'), ARRAY[ROW(3, 'three'), NULL]::t.pair[], 'blue')::t.nested));
SELECT t.sent(loky.submit('SELECT ($1).p.b || ($1).ps[1].b || ($1).c', ROW(1, ROW(2, 'two'), ARRAY[ROW(3, 'three')]::t.pair[], 'blue')::t.nested));
SELECT t.sent(loky.submit(:'task', w)) FROM (VALUES (ROW(1, 'x', 2)::t.wide)) v (w);
-- anonymous rows: the worker knows their columns, at any depth
SELECT t.sent(loky.submit('SELECT $1::text', ROW(1, 'a'::text)));
SELECT t.sent(loky.submit('SELECT $1::text', ROW('untyped', 5, NULL)));
SELECT t.sent(loky.submit('SELECT row_to_json($1)::text', ROW(1, 'a', 2.5)));
SELECT t.sent(loky.submit('SELECT row_to_json($1)::text', ROW(1, ROW(2, ROW(3, 'deep'), ARRAY[ROW(4, 'four'), ROW(5, 'five')]))));
SELECT t.sent(loky.submit('SELECT to_json($1)::text', ARRAY[ROW(1, ROW(true, 'x')), ROW(2, ROW(false, 'y'))]));
-- rows of different shapes in one array
SELECT t.sent(loky.submit('SELECT to_json($1)::text', ARRAY[ROW(1, 'x'), ROW(2, 3.5, date '2024-01-01')]));
SELECT t.sent(loky.submit('SELECT row_to_json($1)::text', v)) FROM (SELECT 1 AS one, 'b' AS two) v;
-- the number of a row type in one process says nothing in another: here the
-- worker has registered many others
SELECT count(t.sent(loky.submit(format('SELECT row_to_json(r)::text FROM (SELECT 1 AS a%s, 2 AS b) r', i)))) FROM generate_series(1, 20) i;
SELECT t.sent(loky.submit('SELECT row_to_json($1)::text', r)) FROM (SELECT ROW('one column', 1.5, true) AS r) s;
-- NULLs and untyped literals
SELECT t.sent(loky.submit(:'task', NULL::int)), t.sent(loky.submit(:'task', NULL::int[])), t.sent(loky.submit(:'task', NULL::t.color));
SELECT t.sent(loky.submit('SELECT $1::date - 1', '2024-03-01'));
SELECT t.sent(loky.submit('SELECT coalesce($1, $2)', NULL, 7));
SELECT t.sent(loky.submit('SELECT $1', NULL)) IS NULL;
SELECT t.sent(loky.submit('SELECT pg_typeof($1)', 'x'));
-- polymorphic functions see the type
SELECT t.sent(loky.submit('t.show', 'green'::t.color)), t.sent(loky.submit('t.show', 5::t.positive)), t.sent(loky.submit('t.show', ROW(1, 'x')::t.pair));
SELECT t.sent(loky.submit('t.show', ARRAY[1, 2])), t.sent(loky.submit('t.show', NULL::numeric));
-- many arguments
SELECT t.sent(loky.submit('SELECT ' || string_agg('$' || i, '+' ORDER BY i), VARIADIC array_agg(i ORDER BY i))) FROM generate_series(1, 90) i;
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT $2', 1))$$);
SELECT t.sent(loky.submit('SELECT 1', 2, 'not used'));
-- a value that the type refuses: the task's error
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT $1::int', 'abc'))$$);
-- settings of the caller that change how text is read apply
BEGIN;
SET LOCAL datestyle = 'ISO, DMY';
SELECT t.sent(loky.submit('SELECT ($1::date)::text', '02/03/2024'));
SET LOCAL datestyle = 'ISO, MDY';
SELECT t.sent(loky.submit('SELECT ($1::date)::text', '02/03/2024'));
COMMIT;

-- Toasted values, also where the row is gone by the time the task runs.
CREATE TABLE t.big (id int, v text);
ALTER TABLE t.big ALTER v SET STORAGE EXTERNAL;
INSERT INTO t.big SELECT i, repeat(md5(i::text), 30000) FROM generate_series(1, 3) i;
SELECT md5(v) AS want FROM t.big WHERE id = 2 \gset
SELECT loky.get_reusable_executor(1) > 0 AS one_worker;
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS blocker \gset
SELECT loky.submit('SELECT md5($1)', v) AS f, loky.submit('SELECT md5(($1).v)', b) AS g,
       loky.submit('SELECT md5(($1)[1].v)', ARRAY[b]) AS h, loky.submit('SELECT md5(to_json($1) ->> ''f2'')', ROW(1, v)) AS i
FROM t.big b WHERE id = 2 \gset
SELECT loky.state(:f);
DELETE FROM t.big;
VACUUM t.big;
TRUNCATE t.big;
SELECT setval('t.gate', 1);
SELECT t.sent(:f) = :'want', t.sent(:g) = :'want', t.sent(:h) = :'want', t.sent(:i) = :'want';
-- compressed ones
CREATE TABLE t.compressed (v text);
INSERT INTO t.compressed VALUES (repeat('x', 1000000));
SELECT t.sent(loky.submit('SELECT length($1) || substr($1, 1, 3)', v)) FROM t.compressed;
-- large ones, there and back, past what shared memory holds
SELECT length(r), md5(r) = md5(repeat('0123456789', 2000000)) FROM loky.result(loky.submit('SELECT $1', repeat('0123456789', 2000000))) r;
SELECT r FROM loky.result(loky.submit('SELECT length($1)', repeat('x', 100000000)), NULL::int) r;
SELECT length(r) FROM loky.result(loky.submit('SELECT repeat($1, 100000000)', 'x'::text)) r;
SELECT sum(length(r)) FROM loky.map('SELECT $1 || $1', ARRAY(SELECT repeat('y', 3000000) FROM generate_series(1, 6))) r;

-- Of types that the worker cannot know only that task fails.
CREATE TEMP TABLE temp_rows (a int, b text);
BEGIN;
CREATE TYPE t.uncommitted AS (a int);
SAVEPOINT s;
SELECT state, message FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT $1::text', ROW(1)::t.uncommitted))$$);
SELECT t.sent(loky.submit('t.id', 1));
ROLLBACK;
SELECT t.sent(loky.submit('SELECT ($1).b', ROW(1, 'x')::temp_rows));
SELECT t.sent(loky.submit('t.id', 2));
RESET loky.executor;
SELECT t.clean();
