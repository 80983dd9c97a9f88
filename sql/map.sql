-- map: one result for each item, whatever the items and the workers do.

-- The items' order, and one result each.
SELECT * FROM loky.map('t.id', ARRAY[3, 1, 2], NULL::int);
SELECT * FROM loky.map('t.id', ARRAY[3, 1, 2]);
SELECT loky.map('SELECT $1 * $1', ARRAY[3, 1, 2], NULL::bigint);
SELECT count(*), sum(r), bool_and(r = n) FROM loky.map('t.id', ARRAY(SELECT generate_series(1, 20000)), NULL::int) WITH ORDINALITY u (r, n);
SELECT count(*), bool_and(r = (n * 2)::text) FROM (SELECT loky.map('SELECT $1 * 2', ARRAY(SELECT generate_series(1, 5000)), chunksize => 7) AS r, generate_series(1, 5000) AS n) s;
-- no matter which is done first: item 1 ends after the others
SELECT t.reset();
CREATE FUNCTION t.in_turn(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    -- the last first
    IF NOT t.until(format('last_value >= %s FROM t.arrived', 3 - x)) THEN
        RAISE EXCEPTION 'out of turn';
    END IF;
    PERFORM nextval('t.arrived');
    RETURN x;
END$$;
SELECT loky.get_reusable_executor(3) > 0 AS ok;
SELECT * FROM loky.map('t.in_turn', ARRAY[1, 2, 3], NULL::int);
SELECT t.reset();
-- ordered => false: as they complete; each once
SELECT string_agg(r::text, ' ' ORDER BY r) FROM loky.map('t.id', ARRAY[4, 2, 3], NULL::int, ordered => false) r;
-- the first row comes while item 1 waits for somebody to open the gate
SELECT t.reset();
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.pass', ARRAY[1, 0, 0], NULL::int, ordered => false);
FETCH 1 FROM c;
FETCH 1 FROM c;
SELECT setval('t.gate', 1);
FETCH 2 FROM c;
COMMIT;
RESET loky.executor;

-- What is mapped over
SELECT * FROM loky.map('t.div', ARRAY[ROW(6, 3), ROW(8, 2)], NULL::int);
SELECT * FROM loky.map('SELECT $1 || $2', ARRAY[ROW('a', 'b'), ROW('c', 'd')]);
SELECT * FROM loky.map('SELECT $1', ARRAY[ROW(1, 'not used'), ROW(2, 'neither')]);
SELECT * FROM loky.map('t.id', ARRAY[1, NULL, 3], NULL::int);
SELECT coalesce(r, 'null') FROM loky.map('SELECT ''<'' || $1 || $2 || ''>''', ARRAY[ROW(1, 2), NULL, ROW(3, 4)]) r;
SELECT coalesce(r, 'null') FROM loky.map('SELECT coalesce($1, 0) + coalesce($2, 0)', ARRAY[NULL, ROW(1, 2)]) r;
SELECT count(*) FROM loky.map('t.id', '{}'::int[], NULL::int);
SELECT count(*) FROM loky.map('t.id', NULL::int[], NULL::int);
SELECT count(*) FROM loky.map('t.id', NULL, NULL::int);
SELECT loky.submit_all('t.id', NULL);
SELECT count(*) FROM loky.map('SELECT 1', ARRAY[NULL, NULL]::record[]);
SELECT * FROM loky.map('t.id', '{{1,2},{3,4}}'::int[], NULL::int);
SELECT * FROM loky.map('t.id', '[5:6]={7,8}'::int[], NULL::int);
SELECT * FROM loky.map('SELECT $1', ARRAY['a', NULL, 'c d']);
SELECT * FROM loky.map('SELECT pg_typeof($1) || '' '' || $1', ARRAY[int4range(1, 3), 'empty']);
-- rows of a named type are one value
CREATE TYPE t.point2 AS (x int, y int);
SELECT * FROM loky.map('SELECT ($1).x + ($1).y', ARRAY[ROW(1, 2), ROW(3, 4)]::t.point2[], NULL::int);
-- several arrays
SELECT * FROM loky.map('SELECT $1 || $2', ARRAY(SELECT ROW(a, b) FROM unnest(ARRAY[1, 2], ARRAY['x', 'y']) u (a, b)));
-- args: the same for every item, after the item's own
SELECT * FROM loky.map('SELECT $1 * $2 + $3', ARRAY[1, 2, 3], NULL::int, args => ROW(10, 5));
SELECT * FROM loky.map('SELECT concat($1, $2, $3)', ARRAY[ROW(1, 2), ROW(3, 4)], args => ROW('x'::text));
SELECT * FROM loky.map('t.div', ARRAY[10, 20], NULL::int, args => ROW(5));
SELECT * FROM loky.map('SELECT coalesce($2, ''none'') || $1', ARRAY[1], args => ROW(NULL::text));
SELECT * FROM loky.map('SELECT $1 || $2', ARRAY[1], args => ROW('untyped'));
SELECT state, hint <> '' AS hinted FROM t.error($$SELECT * FROM loky.map('SELECT $1', ARRAY[1], args => NULL::t.point2)$$);
-- rows of a table that has lost a column, before and after others
CREATE TABLE t.lossy AS SELECT 6 AS a, 0 AS gone, 3 AS b;
ALTER TABLE t.lossy DROP COLUMN gone;
CREATE FUNCTION t.lossy_row() RETURNS record LANGUAGE plpgsql AS $$DECLARE r t.lossy; BEGIN SELECT * INTO r FROM t.lossy; RETURN r; END$$;
SELECT * FROM loky.map('t.div', ARRAY[t.lossy_row(), ROW(8, 2)], NULL::int);
SELECT * FROM loky.map('t.div', ARRAY[ROW(8, 2), NULL, t.lossy_row()], NULL::int);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('SELECT $1', ARRAY[ROW(8), t.lossy_row()])$$);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.div', ARRAY[t.lossy_row(), ROW(6)], NULL::int)$$);
-- a literal or null takes the type that its column has in another row
SELECT coalesce(r, 0) FROM loky.map('SELECT coalesce($1, 0) + $2', ARRAY[ROW(2, 3), ROW(NULL, '2'), NULL, ROW('5', 1)], NULL::int) r;
SELECT * FROM loky.map('SELECT concat($1, $2, pg_typeof($2))', ARRAY[ROW('a', NULL), NULL, ROW('b', '{2}'), ROW('c'::text, ARRAY[3])]);
SELECT loky.result(f) FROM unnest(loky.submit_all('SELECT $1 + 1', ARRAY[ROW('2024-01-01'), ROW(date '2024-02-01')])) f;
SELECT * FROM loky.map('SELECT $1', ARRAY[ROW(1), ROW('x')]);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('SELECT $1', ARRAY[ROW('1'), ROW(1), ROW('x'::text)])$$);
-- rows of different shapes
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.div', ARRAY[ROW(1, 2), ROW(1, 2, 3)], NULL::int)$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('t.div', ARRAY[ROW(1, 2), ROW(1, 'x'::text)], NULL::int)$$);

-- Result types
SELECT * FROM loky.map('SELECT $1, -$1', ARRAY[1, 2], NULL::t.point2);
SELECT * FROM loky.map('SELECT $1 AS a, ''x'' AS b', ARRAY[1, 2], NULL::jsonb);
SELECT * FROM loky.map('SELECT $1, ''x''', ARRAY[1, 2], NULL::record) AS r (a int, b text);
SELECT * FROM loky.map('UPDATE t.log SET i = $1 WHERE false', ARRAY[1]);
SELECT * FROM loky.map('UPDATE t.log SET i = $1 WHERE false', ARRAY[1], NULL::int);
SELECT state FROM t.error($$SELECT * FROM loky.map('SELECT $1, 1', ARRAY[1], NULL::int)$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('SELECT ''x'' || $1', ARRAY[1], NULL::int)$$);
-- no row is NULL, more than one an error
SELECT n, r FROM loky.map('SELECT $1 WHERE $1 <> 2', ARRAY[1, 2, 3], NULL::int) WITH ORDINALITY u (r, n);
SELECT state, message, hint, context FROM t.error($$SELECT * FROM loky.map('SELECT generate_series(1, $1)', ARRAY[1, 2], NULL::int)$$);
SELECT * FROM loky.map('SELECT repeat($1::text, 2)', ARRAY['a', 'b']);

-- An error is raised at its position, once all before it have run; it names the item.
TRUNCATE t.log;
CREATE FUNCTION t.touch_or_fail(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF x < 0 THEN
        RAISE EXCEPTION 'item is %', x USING ERRCODE = 'XY003';
    END IF;
    INSERT INTO t.log (i) VALUES (x);
    RETURN x;
END$$;
SELECT state, message, context FROM t.error($$SELECT * FROM loky.map('t.touch_or_fail', ARRAY[1, 2, -3, 4, -5], NULL::int)$$);
SELECT i FROM t.log WHERE i <= 2 ORDER BY i;
SELECT t.clean();
-- the rows before it can be read
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.touch_or_fail', ARRAY[11, 12, -13, 14], NULL::int);
FETCH 2 FROM c;
\set SHOW_CONTEXT never
FETCH 1 FROM c;
\set SHOW_CONTEXT errors
ROLLBACK;
-- the first in the items' order, even where a later one fails before it: item 2
-- fails, then item 1
SELECT loky.get_reusable_executor(2) > 0 AS ok;
CREATE FUNCTION t.fail_in_turn(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF x = 1 AND NOT t.until('last_value >= 1 FROM t.arrived') THEN
        RAISE EXCEPTION 'out of turn';
    END IF;
    PERFORM nextval('t.arrived');
    RAISE EXCEPTION 'item %', x;
END$$;
SELECT t.reset();
SELECT message, context FROM t.error($$SELECT * FROM loky.map('t.fail_in_turn', ARRAY[1, 2], NULL::int)$$);
-- ... where it cannot be converted here, too
SELECT state, context FROM t.error($$SELECT * FROM loky.map('SELECT CASE $1 WHEN 2 THEN ''two'' ELSE ''1'' END', ARRAY[1, 2, 3], NULL::int)$$);
SELECT state, context FROM t.error($$SELECT * FROM loky.map('SELECT $1, 2', ARRAY[7], NULL::int)$$);
SELECT state, context FROM t.error($$SELECT * FROM loky.flat_map('SELECT CASE g WHEN 9 THEN ''nine'' ELSE ''1'' END FROM generate_series($1, $1 + 4) g', ARRAY[1, 5, 20], NULL::int)$$);
SELECT ord, ok, sqlstate FROM loky.try_map('SELECT CASE $1 WHEN 2 THEN ''two'' ELSE ''1'' END', ARRAY[1, 2, 3], NULL::int);
-- what runs is cancelled before the error is raised, what has not started never runs
SELECT t.reset();
TRUNCATE t.log;
CREATE FUNCTION t.fail_or_stay(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.log (i) VALUES (x);
    IF x = 1 THEN
        IF NOT t.until('last_value >= 1 FROM t.arrived') THEN
            RAISE EXCEPTION 'alone';
        END IF;
        RAISE EXCEPTION 'item 1';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(77);
    PERFORM nextval('t.arrived');
    PERFORM pg_sleep(30);
    RETURN x;
END$$;
SELECT message FROM t.error($$SELECT * FROM loky.map('t.fail_or_stay', ARRAY[1, 2, 3, 4], NULL::int)$$);
SELECT t.at_gate();
SELECT last_value AS other_items_started FROM t.arrived;
SELECT count(*) FROM t.log;
RESET loky.executor;

-- A transaction an item, for what writes or is volatile.
CREATE FUNCTION t.txid(x int) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT txid_current()';
CREATE FUNCTION t.stable_txid() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN txid_current(); END';
SELECT count(DISTINCT r) FROM loky.map('t.txid', ARRAY[1, 2, 3, 4], NULL::bigint) r;
TRUNCATE t.log;
SELECT state FROM t.error($$SELECT * FROM loky.map('t.touch_or_fail', ARRAY[1, 2, 3, -4], NULL::int)$$);
SELECT i FROM t.log ORDER BY i;
-- ... also where that is in what an aggregate or a domain consists of, or below the top
CREATE FUNCTION t.touch_sum(s int, x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM t.touch_or_fail(x);
    RETURN s + x;
END$$;
CREATE AGGREGATE t.touching(int) (SFUNC = t.touch_sum, STYPE = int, INITCOND = 0);
CREATE FUNCTION t.touch_check(x int) RETURNS boolean LANGUAGE sql AS 'SELECT t.touch_or_fail(x) = x';
CREATE DOMAIN t.checked AS int CHECK (t.touch_check(VALUE));
CREATE TYPE t.holder AS (x t.checked);
CREATE TYPE t.span AS RANGE (SUBTYPE = t.checked, MULTIRANGE_TYPE_NAME = t.spans);
CREATE FUNCTION t.as_checked(x int) RETURNS t.checked IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
CREATE TABLE t.locked AS SELECT i FROM generate_series(0, 99) i;
CREATE FUNCTION t.stable_touch(x int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN t.touch_or_fail(x); END';
CREATE FUNCTION t.last_checked(s t.checked, x int) RETURNS t.checked IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
CREATE FUNCTION t.one(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE t.checking(int) (SFUNC = t.last_checked, STYPE = t.checked, FINALFUNC = t.one);
CREATE AGGREGATE t.checked_max(int) (SFUNC = int4larger, STYPE = int, FINALFUNC = t.as_checked);
CREATE OPERATOR t.@#@ (RIGHTARG = int, FUNCTION = t.as_checked);
-- ok and rows; does any transaction write more than one row?
CREATE FUNCTION t.effects(task text) RETURNS TABLE (ok bigint, rows bigint, shared boolean) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM t.log;
    SELECT count(*) FILTER (WHERE m.ok) INTO effects.ok
    FROM loky.try_map(task, ARRAY(SELECT CASE WHEN i % 50 = 0 THEN -i ELSE i END FROM generate_series(1, 400) i)) m;
    SELECT count(*), count(*) > count(DISTINCT xmin::text) INTO rows, shared FROM t.log;
    RETURN NEXT;
END$$;
SELECT e.*, task FROM unnest(ARRAY[
    'SELECT t.touching(v) FROM (VALUES ($1)) u (v)',
    'SELECT t.touching(v) OVER () FROM (VALUES ($1)) u (v)',
    'SELECT (SELECT t.touching(v) FROM (VALUES ($1)) u (v))',
    'SELECT $1::t.checked',
    'SELECT ARRAY[$1]::t.checked[]',
    'SELECT t.as_checked($1)',
    'SELECT ($1::text)::t.checked',
    'SELECT (''{'' || $1::text || ''}'')::t.checked[]',
    'SELECT (''('' || $1::text || '')'')::t.holder',
    'SELECT (''['' || $1::text || '',)'')::t.span',
    'SELECT (''{['' || $1::text || '',)}'')::t.spans']) WITH ORDINALITY u (task, n), t.effects(task) e ORDER BY n;
SELECT e.*, task FROM unnest(ARRAY[
    'SELECT OPERATOR(t.@#@) $1',
    'SELECT t.checking(v) FROM (VALUES ($1)) u (v)',
    'SELECT t.checking(v) OVER () FROM (VALUES ($1)) u (v)',
    'SELECT t.checked_max(v) FROM (VALUES ($1)) u (v)',
    'SELECT t.checked_max(v) OVER () FROM (VALUES ($1)) u (v)',
    'SELECT a FROM jsonb_to_record(jsonb_build_object(''a'', $1)) x (a t.checked)']) WITH ORDINALITY u (task, n), t.effects(task) e ORDER BY n;
-- ... in columns of XML and JSON, where the server has them
SELECT e.*, what FROM (VALUES
    ('XMLTABLE', (SELECT state IS NULL FROM t.error('SELECT xmlparse(CONTENT '''')')),
     'SELECT a FROM xmltable(''/a'' PASSING ((''<a>'' || $1 || ''</a>'')::xml) COLUMNS a t.checked PATH ''.'') x'),
    ('JSON_VALUE', current_setting('server_version_num')::int >= 170000,
     'SELECT JSON_VALUE(to_jsonb($1::int), ''$'' RETURNING t.checked)'),
    ('JSON_TABLE', current_setting('server_version_num')::int >= 170000,
     'SELECT a FROM JSON_TABLE(to_jsonb($1::int), ''$'' COLUMNS (a t.checked PATH ''$'')) x')) u (what, there, task),
    t.effects(CASE WHEN there THEN task ELSE 'SELECT $1::t.checked' END) e ORDER BY what;
-- a function that is not what it is declared to be: what fails is undone alone
SELECT ok, rows, task FROM unnest(ARRAY[
    'SELECT t.stable_touch($1)',
    'SELECT t.stable_touch($1) OFFSET 0']) WITH ORDINALITY u (task, n), t.effects(task) ORDER BY n;
-- locks of rows are kept for an item
CREATE FUNCTION t.transactions(task text) RETURNS bigint LANGUAGE sql AS $$
SELECT count(DISTINCT r) FROM loky.map(task, ARRAY(SELECT generate_series(1, 99))) r$$;
SELECT t.transactions(task) = 99 AS apart, task FROM unnest(ARRAY[
    'SELECT t.stable_txid() FROM t.locked WHERE i = $1 FOR UPDATE',
    'SELECT t.stable_txid() FROM (SELECT FROM t.locked WHERE i = $1 FOR UPDATE) x',
    'WITH x AS (SELECT FROM t.locked WHERE i = $1 FOR SHARE) SELECT t.stable_txid() FROM x',
    'SELECT t.stable_txid() WHERE EXISTS (SELECT FROM t.locked WHERE i = $1 FOR UPDATE)']) task;
-- what only reads shares transactions, aggregates and domains included: while items are
-- quick, so a machine that is busy is asked again
CREATE DOMAIN t.above_0 AS int CHECK (VALUE > 0) NOT NULL;
CREATE DOMAIN t.unchecked AS int;
CREATE FUNCTION t.shares(task text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..100 LOOP
        IF t.transactions(task) < 99 THEN RETURN true; END IF;
    END LOOP;
    RETURN false;
END$$;
SELECT t.shares(task), task FROM unnest(ARRAY[
    'SELECT concat(t.stable_txid(), sum(v), count(*), avg(v), array_agg(v), json_agg(v)) FROM (VALUES (1), (2)) u (v) WHERE v <> $1',
    'SELECT concat(t.stable_txid(), sum(v) OVER (), row_number() OVER ()) FROM (VALUES (1)) u (v) WHERE $1 > 0',
    'SELECT concat(t.stable_txid(), max(i)) FROM t.locked WHERE i = $1 - 200',
    'SELECT concat(t.stable_txid(), (1 + 0 * $1)::t.above_0, ''1''::text::t.above_0)',
    'SELECT concat(t.stable_txid(), (0 * $1)::text::t.unchecked)']) task;
-- what tells its transaction has one for each item
SELECT t.transactions(format('SELECT concat(%s, t.stable_txid()) WHERE $1 > 0', what)) = 99 AS apart, what FROM unnest(ARRAY[
    'txid_current()', 'pg_current_xact_id()', 'now()', 'transaction_timestamp()', 'statement_timestamp()', 'CURRENT_TIMESTAMP', 'CURRENT_TIMESTAMP(0)', 'CURRENT_DATE', 'LOCALTIME(3)', 'LOCALTIMESTAMP']) what;
SELECT t.shares('SELECT concat(CURRENT_USER, CURRENT_CATALOG, pg_backend_pid(), t.stable_txid()) WHERE $1 > 0');
-- and so has what is serializable
SET default_transaction_isolation = serializable;
SELECT t.shares('SELECT t.stable_txid() WHERE $1 > 0');
RESET default_transaction_isolation;
SELECT t.shares('SELECT t.stable_txid() WHERE $1 > 0');
-- chunksize items share one, which fails as a whole
SELECT n, count(DISTINCT r) FROM (SELECT (n - 1) / 2 AS n, r FROM loky.map('t.txid', ARRAY[1, 2, 3, 4, 5], NULL::bigint, chunksize => 2) WITH ORDINALITY u (r, n)) s GROUP BY n ORDER BY n;
SELECT count(DISTINCT r) FROM loky.map('t.txid', ARRAY[1, 2, 3, 4, 5], NULL::bigint, chunksize => 2) r;
SELECT count(DISTINCT r) FROM loky.map('t.txid', ARRAY[1, 2, 3, 4, 5], NULL::bigint, chunksize => 1000000) r;
TRUNCATE t.log;
SELECT state, message, context FROM t.error($$SELECT * FROM loky.map('t.touch_or_fail', ARRAY[1, 2, 3, -4, 5, 6], NULL::int, chunksize => 2)$$);
SELECT i FROM t.log WHERE i <= 4 ORDER BY i;
SELECT state, context FROM t.error($$SELECT * FROM loky.map('BEGIN', ARRAY[1, 2, 3], chunksize => 3)$$);
TRUNCATE t.log;
SELECT ord, ok, result, message FROM loky.try_map('t.touch_or_fail', ARRAY[1, 2, 3, -4, 5, 6], NULL::int, chunksize => 2);
SELECT i FROM t.log ORDER BY i;
-- a chunk is not begun before there is room for all of it
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.id', ARRAY(SELECT generate_series(1, 100000)), NULL::int, chunksize => 30000);
FETCH c;
SELECT t.until('done >= 60000 FROM loky.progress');
SELECT t.until('count(*) = 0 FROM loky.workers WHERE state = ''busy''');
SELECT done, total FROM loky.progress;
MOVE FORWARD 99998 FROM c;
FETCH ALL FROM c;
COMMIT;
SELECT state, hint <> '' AS hinted FROM t.error($$SELECT * FROM loky.map('t.id', ARRAY[1], chunksize => 0)$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('t.id', ARRAY[1], chunksize => -1)$$);
-- procedures commit as they like
CREATE PROCEDURE t.commit_item(x int) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.log (i) VALUES (x);
    COMMIT;
    INSERT INTO t.log (i) VALUES (-x);
    ROLLBACK;
END$$;
TRUNCATE t.log;
SELECT * FROM loky.map('t.commit_item', ARRAY[1, 2]);
SELECT i FROM t.log ORDER BY i;

-- timeout
SELECT t.reset();
SELECT state, hint <> '' AS hinted FROM t.error($$SELECT * FROM loky.map('t.pass', ARRAY[0, 1], NULL::int, timeout => '100 ms')$$);
SELECT t.at_gate();
SELECT * FROM loky.map('t.id', ARRAY[1, 2], NULL::int, timeout => '20 s');
-- what is ready is handed out even after it
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.id', ARRAY[1, 2, 3], NULL::int, timeout => '1 s');
FETCH 1 FROM c;
SELECT t.clean();
SELECT pg_sleep(1.1);
FETCH ALL FROM c;
COMMIT;

-- Reading no further stops the rest.
SELECT t.reset();
SELECT loky.map('t.pass', ARRAY[0, 1, 1, 1], NULL::int) LIMIT 1;
SELECT t.at_gate();
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.pass', ARRAY[0, 1, 1, 1], NULL::int);
FETCH 1 FROM c;
CLOSE c;
SELECT t.at_gate();
COMMIT;
-- so does cancelling the caller, whose time is not the items' here
SELECT loky.get_reusable_executor(settings => '{"statement_timeout": 0}') > 0 AS ok;
SET statement_timeout = '100 ms';
SELECT count(*) FROM loky.map('t.pass', ARRAY[0, 1, 1, 1], NULL::int);
RESET statement_timeout;
RESET loky.executor;
SELECT t.at_gate();
-- and an error elsewhere in the query
SELECT 1 / (r - 1) FROM (SELECT loky.map('t.pass', ARRAY[0, 1, 2, 2], NULL::int) AS r OFFSET 0) s, LATERAL (SELECT setval('t.gate', 1)) g;
SELECT t.at_gate();
SELECT t.clean();

-- A map whose reader rests holds no worker, also at one worker; and memory is
-- bounded: not all of a hundred thousand items have run.
SELECT loky.get_reusable_executor(1) > 0 AS ok;
SELECT t.reset();
CREATE FUNCTION t.count(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('t.arrived'); RETURN x; END$$;
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.count', ARRAY(SELECT generate_series(1, 100000)), NULL::int);
FETCH 2 FROM c;
SELECT * FROM loky.result(loky.submit('SELECT ''served'''));
SELECT * FROM loky.map('t.id', ARRAY[1, 2], NULL::int);
SELECT last_value < 100000 AS bounded FROM t.arrived;
-- nor does anybody wait for the end of what only they can read
SELECT state, message, hint FROM t.error('SELECT loky.shutdown()');
FETCH 2 FROM c;
COMMIT;
SELECT t.clean();
-- two maps in one query, a submit in a loop over a map
SELECT count(*), sum(a), sum(b) FROM (SELECT loky.map('t.id', ARRAY(SELECT generate_series(1, 3000)), NULL::int) AS a, loky.map('t.id', ARRAY(SELECT generate_series(1, 3000)), NULL::int) AS b) s;
CREATE FUNCTION t.loop() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    x int;
    total bigint := 0;
BEGIN
    FOR x IN SELECT loky.map('t.id', ARRAY(SELECT generate_series(1, 500)), NULL::int) LOOP
        total := total + (SELECT r FROM loky.result(loky.submit('t.id', x), NULL::int) r);
    END LOOP;
    RETURN total;
END$$;
SELECT t.loop();
RESET loky.executor;

-- Errors of the call itself
SELECT state FROM t.error($$SELECT * FROM loky.map('t.nope', ARRAY[1])$$);
SELECT state FROM t.error($$SELECT * FROM loky.map(NULL, ARRAY[1])$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('', ARRAY[1])$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('SELEC $1', ARRAY[1])$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('SELECT $1; SELECT 2', ARRAY[1])$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('SELECT $2', ARRAY[1])$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('t.id', ARRAY[1], executor => 2000000000)$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('t.id', ARRAY[1], ordered => NULL)$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('COPY t.log TO STDOUT', ARRAY[1])$$);
-- rows of no columns are no parameters, so that there may be several statements
SELECT * FROM loky.map('SELECT 1; SELECT 2', ARRAY[ROW(), ROW()], NULL::int);
-- rules, which make another number of statements of one
CREATE TABLE t.ruled (i int);
CREATE TABLE t.rule_log (i int);
CREATE RULE two AS ON INSERT TO t.ruled DO ALSO INSERT INTO t.rule_log VALUES (NEW.i);
CREATE RULE none AS ON DELETE TO t.ruled DO INSTEAD NOTHING;
SELECT * FROM loky.map('INSERT INTO t.ruled VALUES ($1)', ARRAY[1, 2]);
SELECT * FROM loky.map('DELETE FROM t.ruled WHERE i = $1', ARRAY[1, 2]);
SELECT (SELECT sum(i) FROM t.ruled), (SELECT sum(i) FROM t.rule_log);
DROP TABLE t.ruled, t.rule_log;

-- flat_map: any number of rows for each item
SELECT * FROM loky.flat_map('SELECT $1 * 10 + i FROM generate_series(1, $1) i', ARRAY[2, 0, 3, 1], NULL::int);
SELECT * FROM loky.flat_map('SELECT generate_series(1, $1)', ARRAY[0], NULL::int);
SELECT * FROM loky.flat_map('SELECT $1, i FROM generate_series(1, 2) i', ARRAY[1, 2], NULL::t.point2);
SELECT * FROM loky.flat_map('SELECT $1, i FROM generate_series(1, 2) i', ARRAY[1, 2], NULL::record) AS r (a int, b int);
SELECT r, count(*) FROM loky.flat_map('SELECT $1 FROM generate_series(1, $1)', ARRAY[1, 2, 3], NULL::int, ordered => false) r GROUP BY r ORDER BY r;
SELECT count(*), sum(r) FROM loky.flat_map('SELECT generate_series(1, 100000)', ARRAY[1, 2, 3, 4], NULL::bigint, args => ROW(1)) r;
SELECT count(*), max(length(r)) FROM loky.flat_map('SELECT repeat(''x'', 1000000) FROM generate_series(1, $1)', ARRAY[20, 30, 40]) r;
SELECT loky.flat_map('SELECT generate_series(1, 1000000)', ARRAY[1, 2, 3], NULL::int) LIMIT 2;
SELECT state, message, context FROM t.error($$SELECT * FROM loky.flat_map('SELECT 1 / (i - 2) FROM generate_series(1, $1) i', ARRAY[1, 3], NULL::int)$$);
SELECT * FROM loky.flat_map('t.touch', ARRAY[1, 2], NULL::int);
SELECT count(*) FROM loky.flat_map('t.id', NULL::int[], NULL::int);
SELECT * FROM loky.flat_map('DELETE FROM t.log WHERE i = $1', ARRAY[1, 2]);

-- try_map: a row for each item, never an error for one
SELECT ord, result, pg_typeof(result), ok, sqlstate, message FROM loky.try_map('t.div', ARRAY[ROW(6, 3), ROW(1, 0), ROW(8, 2)], NULL::int);
SELECT ord, result, pg_typeof(result), ok, sqlstate FROM loky.try_map('t.div', ARRAY[ROW(6, 3), ROW(1, 0)]);
SELECT ord, result, ok FROM loky.try_map('SELECT $1, 2', ARRAY[1], NULL::t.point2);
SELECT ord, (result).y, ok FROM loky.try_map('SELECT $1, 2', ARRAY[1], NULL::t.point2);
SELECT ord, result, ok FROM loky.try_map('SELECT $1 AS a, 2 AS b', ARRAY[1], NULL::jsonb);
SELECT ord, result IS NULL AS isnull, ok FROM loky.try_map('SELECT $1 WHERE false', ARRAY[1, 2]);
SELECT ord, ok, sqlstate FROM loky.try_map('SELECT generate_series(1, $1)', ARRAY[1, 2]);
SELECT count(*), count(*) FILTER (WHERE ok), count(DISTINCT ord), min(ord), max(ord) FROM loky.try_map('SELECT 1 / ($1 % 3)', ARRAY(SELECT generate_series(1, 999)), ordered => false);
-- every column
CREATE FUNCTION t.slow_div(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.02); RETURN 1 / x; END$$;
SELECT ord, ok, worker IN (SELECT pid FROM loky.workers) AS worker, worker <> pg_backend_pid() AS another,
       started BETWEEN now() AND clock_timestamp() AS started, elapsed BETWEEN '10 ms' AND clock_timestamp() - now() AS elapsed
FROM loky.try_map('t.slow_div', ARRAY[1, 0], NULL::int);
SELECT ord, detail, hint, context FROM loky.try_map('t.bad', ARRAY[1]);
-- what its timeout leaves unfinished
SELECT t.reset();
SELECT ord, result, ok, sqlstate FROM loky.try_map('t.pass', ARRAY[0, 1, 0], NULL::int, timeout => '1500 ms', executor => loky.get_reusable_executor(3));
SELECT t.at_gate();
SELECT ord, ok, sqlstate FROM loky.try_map('t.pass', ARRAY[1, 2], timeout => '0', executor => loky.get_reusable_executor(1));
SELECT t.at_gate();
RESET loky.executor;
SELECT count(*) FROM loky.try_map('t.id', NULL::int[]);
SELECT state FROM t.error($$SELECT * FROM loky.try_map('t.nope', ARRAY[1])$$);
SELECT state, hint <> '' AS hinted FROM t.error($$SELECT loky.try_map('SELECT 1, 2', ARRAY[1], NULL::record)$$);

-- Arguments that say what is so without them.
SELECT * FROM loky.map('SELECT $1', ARRAY[1], snapshot => false, progress => false, item_timeout => NULL, retries => 0, label => 'plain', executor => NULL);
SELECT t.clean();
