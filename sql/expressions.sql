-- A statement that is only an expression is evaluated without the executor.  Nobody
-- can tell: each expression is run in this way, and as the same statement with a limit
-- that says nothing, which the executor runs; item by item, all must be equal.

CREATE SCHEMA e;
SELECT loky.get_reusable_executor(1) > 0 AS ok;

-- What try_map tells of each item, but for its times.
CREATE FUNCTION e.outcomes(task text, items anyarray, way text, chunk int)
RETURNS TABLE (ord bigint, result text, ok boolean, sqlstate text, message text,
               detail text, hint text, context text)
LANGUAGE sql AS $$
    SELECT ord, result, ok, sqlstate, message, detail, hint, context
    FROM loky.try_map(task, items, NULL::text, args => ROW(way), chunksize => chunk)$$;

-- Items, failed ones, their SQLSTATEs, and whether both ways have the same outcomes.
CREATE FUNCTION e.both(expression text, items anyarray, chunk int DEFAULT NULL,
                       OUT items bigint, OUT failed bigint, OUT codes text, OUT same boolean)
LANGUAGE sql AS $$
    WITH fast AS MATERIALIZED (SELECT * FROM e.outcomes('SELECT ' || expression, items, 'fast', chunk)),
         slow AS MATERIALIZED (SELECT * FROM e.outcomes('SELECT ' || expression || ' LIMIT ALL OFFSET 0', items, 'slow', chunk))
    SELECT count(f.*), count(*) FILTER (WHERE NOT f.ok), string_agg(DISTINCT f.sqlstate, ' '),
           bool_and(f IS NOT DISTINCT FROM s)
    FROM fast f FULL JOIN slow s USING (ord)$$;

CREATE TYPE e.pair AS (x int, y int);

-- They are two ways: only the first one is compiled.
CREATE FUNCTION e.compiled() RETURNS bigint LANGUAGE sql AS $$
    SELECT * FROM loky.result(loky.submit('SELECT count(*) FROM pg_backend_memory_contexts WHERE name = ''loky expression'''), NULL::bigint)$$;
SELECT e.compiled() AS before \gset
SELECT * FROM e.both('int4abs($1)', ARRAY[1, -2, NULL, 0, -2147483647]);
SELECT e.compiled() - :before AS compiled;

-- Expressions of all kinds
SELECT * FROM e.both('$1', ARRAY['a', NULL, repeat('long', 1000)]);
SELECT * FROM e.both('42', ARRAY[1, 2]);
SELECT * FROM e.both('NULL::int', ARRAY[1, 2]);
SELECT * FROM e.both('CASE WHEN $1 > 1 THEN 10 / ($1 - 2) ELSE -1 END', ARRAY[1, 2, 3, NULL]);
SELECT * FROM e.both('coalesce($1, 7) + 1', ARRAY[1, NULL, 2147483647]);
SELECT * FROM e.both('$1 || ''-'' || length($2)', ARRAY['a', NULL]);
SELECT * FROM e.both('ROW($1, length($2))', ARRAY[1, 2]);
SELECT * FROM e.both('ARRAY[$1, $1 + 1]', ARRAY[1, NULL]);
SELECT * FROM e.both('$1 = ANY (ARRAY[1, 2])', ARRAY[1, 3, NULL]);
SELECT * FROM e.both('($1).x + ($1).y', ARRAY[ROW(1, 2), NULL, ROW(3, NULL)]::e.pair[]);
SELECT * FROM e.both('$1 + $2', ARRAY[ROW(1, 2), ROW(NULL::int, 1), ROW(2147483647, 1)]);
SELECT * FROM e.both('jsonb_build_object(''x'', $1) -> ''x''', ARRAY[1, NULL]);
SELECT * FROM e.both('$1::numeric / 3', ARRAY[1, NULL, 0]);
SELECT * FROM e.both('$1::int', ARRAY['1', 'x', NULL]);
SELECT * FROM e.both('length($1)', ARRAY[repeat('x', 100000), '']);
CREATE DOMAIN e.small AS int CHECK (VALUE < 10);
SELECT * FROM e.both('$1::e.small', ARRAY[1, 10, NULL]);
-- not an expression alone
SELECT * FROM e.both('generate_series(1, $1)', ARRAY[1, 2, 0]);
SELECT * FROM e.both('(SELECT max(i) FROM t.log)', ARRAY[1]);
SELECT * FROM e.both('count($1)', ARRAY[1]);
SELECT * FROM e.both('$1, $1', ARRAY[1]);
SELECT * FROM loky.flat_map('SELECT generate_series(1, $1)', ARRAY[2, 0, 1], NULL::int);
SELECT * FROM loky.flat_map('SELECT int4abs($1)', ARRAY[-2, NULL, 1], NULL::int);
-- whose plan is more than that, as here for the sake of a test
SELECT setting AS parallel_mode FROM (SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')) s, set_config(s.name, 'on', false) setting;
SELECT e.compiled() AS before \gset
SELECT * FROM e.both('int4abs($1) + int4abs(3)', ARRAY[1, -2, NULL]);
SELECT e.compiled() - :before AS compiled;
SELECT * FROM loky.run('SELECT int4abs($1) + int4abs(4)', ROW(-7));
SELECT name AS parallel_mode FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query') \gset
RESET :parallel_mode;
SELECT e.compiled() - :before AS compiled;

-- Functions of all kinds
CREATE FUNCTION e.strict_sql(x int) RETURNS int LANGUAGE sql STRICT AS 'SELECT x + 1; SELECT x + 2';
CREATE FUNCTION e.strict_volatile(x int) RETURNS int LANGUAGE plpgsql STRICT VOLATILE AS 'BEGIN RETURN 12 / x; END';
CREATE FUNCTION e.lax_stable(x int) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN coalesce(x::text, 'none'); END$$;
CREATE FUNCTION e.twice(x anyelement, OUT a anyelement, OUT b anyarray) LANGUAGE sql AS 'SELECT x, ARRAY[x, x]';
CREATE FUNCTION e.nothing(x int) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM 1 / x; END';
CREATE FUNCTION e.noisy(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN
    IF x % 2 = 0 THEN
        RAISE EXCEPTION 'even' USING ERRCODE = 'XY000', DETAIL = x, HINT = 'odd';
    END IF;
    RETURN x;
END$$;
CREATE FUNCTION e.catches(x int) RETURNS text LANGUAGE plpgsql AS $$BEGIN
    RETURN 1 / x;
EXCEPTION WHEN division_by_zero THEN
    RETURN 'caught';
END$$;
CREATE FUNCTION e.with_set(x int) RETURNS text LANGUAGE plpgsql SET work_mem = '3MB' SET search_path = e AS $$BEGIN
    RETURN current_setting('work_mem') || current_setting('search_path') || 1 / x;
END$$;
CREATE FUNCTION e.rows_of(x int) RETURNS SETOF int LANGUAGE sql AS 'SELECT generate_series(1, x)';
SELECT * FROM e.both('e.strict_sql($1)', ARRAY[1, NULL, 2]);
SELECT * FROM e.both('e.strict_volatile($1)', ARRAY[1, NULL, 0, 2]);
SELECT * FROM e.both('e.lax_stable($1)', ARRAY[1, NULL]);
SELECT * FROM e.both('e.twice($1)', ARRAY[1, NULL]);
SELECT * FROM e.both('e.twice($1)', ARRAY['x', 'y']);
SELECT * FROM e.both('(e.twice($1)).b', ARRAY[1.5, NULL]);
SELECT * FROM e.both('e.nothing($1)', ARRAY[1, 0]);
SELECT * FROM e.both('e.noisy($1)', ARRAY(SELECT generate_series(1, 50)));
SELECT * FROM e.both('e.noisy($1)', ARRAY(SELECT generate_series(1, 50)), 4);
SELECT * FROM e.both('e.catches($1)', ARRAY[1, 0, NULL, 0]);
SELECT * FROM e.both('e.with_set($1)', ARRAY[1, 0, 1]);
SELECT * FROM e.both('current_setting(''work_mem'')', ARRAY[1]);
SELECT * FROM e.both('e.rows_of($1)', ARRAY[1, 2, 0]);
SELECT * FROM e.both('set_config(''my.own'', $1::text, $1 = 2) || coalesce(current_setting(''my.other'', true), ''-'')', ARRAY[1, 2, 3]);
SELECT * FROM e.both('current_setting(''my.own'', true)', ARRAY[1, 2]);
SELECT e.compiled() > 10 AS many;

-- Side effects and transactions: how many of each; those of failed items are undone.
CREATE TABLE e.effects (way text, x int, xid xid8, seen bigint);
CREATE FUNCTION e.mark(x int, way text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint := (SELECT count(*) FROM e.effects e WHERE e.way = mark.way);
BEGIN
    INSERT INTO e.effects VALUES (way, x, pg_current_xact_id(), n);
    PERFORM 1 / x;
    RETURN n;
END$$;
CREATE VIEW e.summary AS
    SELECT way, count(*) AS effects, count(DISTINCT xid) AS transactions, sum(x) AS sum, sum(seen) AS seen
    FROM e.effects GROUP BY way;
SELECT * FROM e.both('e.mark($1, $2)', ARRAY[1, 2, 0, 4, NULL, 0, 7]);
SELECT * FROM e.summary ORDER BY way;
TRUNCATE e.effects;
SELECT * FROM e.both('e.mark($1, $2)', ARRAY[1, 2, 3, 4, 0, 6, 7, 8], 2);
SELECT * FROM e.summary ORDER BY way;
TRUNCATE e.effects;
-- map stops at the first error, and what was done before stays
SELECT (t.error($$SELECT loky.map('SELECT e.mark($1, $2)', ARRAY[1, 0, 2], NULL::int, args => ROW('fast'))$$)).*;
SELECT (t.error($$SELECT loky.map('SELECT e.mark($1, $2) OFFSET 0', ARRAY[1, 0, 2], NULL::int, args => ROW('slow'))$$)).*;
SELECT DISTINCT way, x FROM e.effects WHERE x < 2 ORDER BY way;
TRUNCATE e.effects;
-- what is deferred to the commit fails its own item
CREATE TABLE e.deferred (x int UNIQUE DEFERRABLE INITIALLY DEFERRED, way text);
CREATE FUNCTION e.defer(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN
    INSERT INTO e.deferred VALUES (x);
    RETURN x;
END$$;
SELECT ord, result, ok, sqlstate FROM loky.try_map('SELECT e.defer($1)', ARRAY[1, 1, 2], NULL::int);
TRUNCATE e.deferred;
SELECT ord, result, ok, sqlstate FROM loky.try_map('SELECT e.defer($1) OFFSET 0', ARRAY[1, 1, 2], NULL::int);
-- items that share a transaction
CREATE FUNCTION e.stable_xact(x int) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN transaction_timestamp(); END';
SELECT count(DISTINCT r) < 1000 AS shared FROM loky.map('SELECT e.stable_xact($1)', ARRAY(SELECT generate_series(1, 1000))) r;
SELECT count(DISTINCT r) < 1000 AS shared FROM loky.map('SELECT e.stable_xact($1) OFFSET 0', ARRAY(SELECT generate_series(1, 1000))) r;
-- Rights: whose the function is run with, and who may not run it, also no longer.
CREATE ROLE regress_loky_expression;
GRANT USAGE ON SCHEMA loky, e TO regress_loky_expression;
CREATE FUNCTION e.who(x int) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user <> session_user';
CREATE FUNCTION e.me(x int) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN current_user = session_user; END';
CREATE FUNCTION e.theirs(x int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
SET ROLE regress_loky_expression;
SELECT loky.get_reusable_executor(1) > 0 AS ok;
SELECT * FROM loky.map('SELECT e.who($1)', ARRAY[1]);
SELECT * FROM loky.map('SELECT e.me($1)', ARRAY[1]);
SELECT * FROM loky.map('SELECT e.theirs($1)', ARRAY[1, 2], NULL::int);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION e.theirs(int) FROM PUBLIC;
SET ROLE regress_loky_expression;
SELECT ord, result, sqlstate, message FROM loky.try_map('SELECT e.theirs($1)', ARRAY[1, 2], NULL::int);
SELECT ord, result, sqlstate, message FROM loky.try_map('SELECT e.theirs($1) OFFSET 0', ARRAY[1, 2], NULL::int);
RESET ROLE;
-- through a membership, which comes and goes
CREATE ROLE regress_loky_group;
GRANT EXECUTE ON FUNCTION e.theirs(int) TO regress_loky_group;
GRANT regress_loky_group TO regress_loky_expression;
SET ROLE regress_loky_expression;
SELECT * FROM loky.map('SELECT e.theirs($1)', ARRAY[1], NULL::int);
RESET ROLE;
REVOKE regress_loky_group FROM regress_loky_expression;
SET ROLE regress_loky_expression;
SELECT ord, result, sqlstate, message FROM loky.try_map('SELECT e.theirs($1)', ARRAY[1], NULL::int);
SELECT loky.shutdown();
RESET ROLE;
RESET loky.executor;
SELECT loky.get_reusable_executor(1) > 0 AS ok;

-- Functions that change between two maps on the same worker
CREATE FUNCTION e.changes(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 1';
SELECT * FROM loky.map('SELECT e.changes($1)', ARRAY[1], NULL::text);
CREATE OR REPLACE FUNCTION e.changes(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 2';
SELECT * FROM loky.map('SELECT e.changes($1)', ARRAY[1], NULL::text);
CREATE OR REPLACE FUNCTION e.changes(x int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN INSERT INTO e.effects (x) VALUES (x); RETURN x + 3; END';
SELECT * FROM loky.map('SELECT e.changes($1)', ARRAY[1], NULL::text);
DROP FUNCTION e.changes(int);
SELECT ord, ok, sqlstate, message FROM loky.try_map('SELECT e.changes($1)', ARRAY[1, 2], NULL::text);
CREATE FUNCTION e.changes(x bigint) RETURNS text LANGUAGE sql AS $$SELECT 'bigint ' || x$$;
SELECT * FROM loky.map('SELECT e.changes($1)', ARRAY[1], NULL::text);
CREATE FUNCTION e.changes(x int) RETURNS e.pair LANGUAGE sql AS 'SELECT x, -x';
SELECT * FROM loky.map('SELECT e.changes($1)', ARRAY[1], NULL::text);
-- tables, and domains
CREATE TABLE e.alters (a int, b int);
INSERT INTO e.alters VALUES (1, 2);
CREATE FUNCTION e.reads(x int) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT alters::text FROM e.alters); END';
SELECT * FROM loky.map('SELECT e.reads($1)', ARRAY[1]);
ALTER TABLE e.alters DROP COLUMN a, ADD COLUMN c text DEFAULT 'c';
SELECT * FROM loky.map('SELECT e.reads($1)', ARRAY[1]);
DROP TABLE e.alters;
SELECT ord, ok, sqlstate, message FROM loky.try_map('SELECT e.reads($1)', ARRAY[1], NULL::text);
SELECT * FROM loky.map('SELECT $1::e.small', ARRAY[5], NULL::int);
ALTER DOMAIN e.small DROP CONSTRAINT small_check;
ALTER DOMAIN e.small ADD CHECK (VALUE < 5);
SELECT ord, result, ok, sqlstate FROM loky.try_map('SELECT $1::e.small', ARRAY[4, 5], NULL::int);
-- a type of the same name
CREATE TYPE e.colour AS ENUM ('red');
CREATE FUNCTION e.paint(x text) RETURNS e.colour LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
SELECT * FROM loky.map('SELECT e.paint($1)', ARRAY['red']);
ALTER TYPE e.colour ADD VALUE 'blue';
SELECT * FROM loky.map('SELECT e.paint($1)', ARRAY['blue', 'red']);

-- An error leaves nothing behind, whatever state the function was in.
CREATE FUNCTION e.fickle(x int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1 / x; SELECT 10 / x';
SELECT ord, result, sqlstate FROM loky.try_map('SELECT e.fickle($1)', ARRAY[1, 0, 2, 0, 5], NULL::int);

-- Limits and modes
SELECT sqlstate, message FROM loky.try_map('SELECT pg_sleep($1) IS NULL', ARRAY[100], NULL::bool, item_timeout => '20 ms');
SET statement_timeout = '100 ms';
SELECT loky.submit('SELECT pg_sleep(100) IS NULL') AS f \gset
RESET statement_timeout;
SELECT (t.error(format('SELECT loky.result(%s)', :f))).*;
BEGIN READ ONLY;
SELECT loky.submit('SELECT t.touch(1)') AS f1, loky.submit('SELECT t.touch(1) OFFSET 0') AS f2 \gset
COMMIT;
SELECT (t.error(format('SELECT loky.result(%s)', :f1))).*;
SELECT (t.error(format('SELECT loky.result(%s)', :f2))).*;

-- Tasks
SELECT * FROM loky.result(loky.submit('SELECT t.div($1, $2)', 7, 2), NULL::int);
SELECT * FROM loky.run('SELECT ROW(1, ''x'')', result => NULL::text);
SELECT (t.error($$SELECT loky.run('SELECT t.div(1, 0)')$$)).*;

DROP OWNED BY regress_loky_expression, regress_loky_group;
DROP ROLE regress_loky_expression, regress_loky_group;
