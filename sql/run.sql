-- run: submit, result and forget in one.

-- an executor of this test's own, so that its size is known
SELECT loky.get_reusable_executor(2, timeout => '31 s') > 0 AS ok;
TRUNCATE t.log;

-- Nothing of a run is left behind: neither a future nor memory, but for what a
-- session's settings take.
SELECT count(loky.forget(future)) >= 0 AS forgotten FROM loky.tasks;
CREATE TABLE t.before AS SELECT loky._memory_used() AS bytes;
CREATE FUNCTION t.left_behind(OUT futures bigint, OUT memory boolean) LANGUAGE sql AS $$
    SELECT (SELECT count(*) FROM loky.tasks), loky._memory_used() - b.bytes > 1000 FROM t.before b$$;
-- What keeps a worker busy at this very moment.
CREATE FUNCTION t.busy() RETURNS bigint LANGUAGE sql AS $$
    SELECT (SELECT count(*) FROM loky.workers WHERE state NOT IN ('idle', 'stopping')) +
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL)$$;

-- An autonomous transaction: what it has done outlives the caller's rollback, and it
-- does not see what the caller has not committed.
CREATE TABLE t.audit (who text);
BEGIN;
INSERT INTO t.audit VALUES ('undone');
SELECT loky.run('INSERT INTO t.audit VALUES ($1)', ROW('kept'));
SELECT * FROM loky.run('SELECT count(*) FROM t.audit', result => NULL::bigint);
ROLLBACK;
SELECT * FROM t.audit;
-- in each iteration of a loop, of which the caller's part fails
DO $$
BEGIN
    FOR i IN 1 .. 3 LOOP
        BEGIN
            PERFORM loky.run('t.touch', ROW(i));
            PERFORM 1 / (i - 2);
        EXCEPTION WHEN division_by_zero THEN
            PERFORM loky.run('INSERT INTO t.audit VALUES (format(''%s: %s'', $1, $2))', ROW(i, SQLERRM));
        END;
    END LOOP;
    RAISE EXCEPTION 'all for nothing';
END$$;
SELECT i FROM t.log ORDER BY i;
SELECT * FROM t.audit ORDER BY who;

-- Rows of all types, as result() has them; arguments in a row.
SELECT * FROM loky.run('SELECT 1');
SELECT * FROM loky.run('t.id', ROW(7), NULL::int);
SELECT * FROM loky.run('t.div', ROW(7, 2), NULL::bigint);
SELECT r = pg_backend_pid() AS here FROM loky.run('t.pid', result => NULL::int) r;
SELECT * FROM loky.run('SELECT i, -i FROM generate_series(1, 3) i', result => NULL::record) AS (a int, b numeric);
SELECT * FROM loky.run('SELECT $1 AS a, $2 AS b', ROW(5, 'five'), NULL::jsonb);
SELECT * FROM loky.run('SELECT $1::int + 1', ROW('5'), NULL::int);
SELECT * FROM loky.run('SELECT NULL', result => NULL::int);
SELECT count(*) FROM loky.run('SELECT 1 WHERE false');
SELECT * FROM loky.run('INSERT INTO t.log SELECT generate_series(11, 13)', NULL, NULL::int);
SELECT * FROM loky.run('VACUUM t.log');
SELECT count(*), sum(r), max(r) FROM loky.run('SELECT generate_series(1, 20000)', result => NULL::int) r;
SELECT length(r) FROM loky.run('SELECT repeat($1, 2000000)', ROW('x'::text)) r;
SELECT i, loky.run('SELECT generate_series(1, $1)', ROW(i), NULL::int) AS r FROM generate_series(1, 3) i ORDER BY 1, 2;
CREATE TYPE t.run_pair AS (a int, b text);
SELECT * FROM loky.run('SELECT 1, ''one''', result => NULL::t.run_pair);
SELECT * FROM loky.run('SELECT ($1).b || ($1).a', ROW(ROW(3, 'three')::t.run_pair));
-- a row as a whole is the list of arguments
SELECT * FROM loky.run('SELECT $2 || $1', ROW(4, 'four')::t.run_pair);
SELECT * FROM t.left_behind();

-- Errors as result() raises them, notices too.
SELECT * FROM t.error('SELECT loky.run(''t.bad'', ROW(3))');
DO $$
DECLARE
    c text; s text; t text; d text; k text;
BEGIN
    PERFORM loky.run('t.bad', ROW(4));
EXCEPTION WHEN SQLSTATE 'XY001' THEN
    GET STACKED DIAGNOSTICS c = COLUMN_NAME, s = SCHEMA_NAME, t = TABLE_NAME, d = PG_DATATYPE_NAME, k = CONSTRAINT_NAME;
    RAISE NOTICE '% % % % %', s, t, c, d, k;
END$$;
SELECT * FROM loky.run('DO $_$BEGIN RAISE NOTICE ''from %'', ''afar''; END$_$');
SELECT state, message, hint <> '' AS hinted FROM t.error('SELECT loky.run(''nosuch'', ROW(1))');
SELECT state FROM t.error('SELECT loky.run(''SELEC 1'')');
SELECT state, message FROM t.error('SELECT loky.run(NULL)');
SELECT state, message, hint FROM t.error('SELECT loky.run(''SELECT 1'', NULL::t.run_pair)');
SELECT * FROM t.error('SELECT * FROM loky.run(''SELECT 1, 2'', result => NULL::int)');
SELECT * FROM t.error('SELECT * FROM loky.run(''SELECT 1 UNION ALL SELECT 0'', result => NULL::t.run_pair)');
SELECT state, message FROM t.error('SELECT * FROM loky.run(''SELECT ''''x'''''', result => NULL::int)');
SELECT state, message FROM t.error('SELECT loky.run(''SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(30)'')');
-- a deferred constraint fails at its commit
CREATE TABLE t.unique_later (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);
SELECT state FROM t.error('SELECT loky.run(''INSERT INTO t.unique_later VALUES (1), (1)'')');
SELECT count(*) FROM t.unique_later;
SELECT * FROM t.left_behind();

-- Past the timeout the task is cancelled in its worker.
SELECT t.reset();
SELECT loky.run('t.id', ROW(1), NULL::int, '1 min');
SELECT * FROM t.error('SELECT loky.run(''INSERT INTO t.log VALUES (21); SELECT t.pass(1)'', timeout => ''100 ms'')');
SELECT t.busy(), t.at_gate();
-- zero and less look once
SELECT state FROM t.error('SELECT loky.run(''t.pass'', ROW(1), timeout => ''0'')');
SELECT state FROM t.error('SELECT loky.run(''t.pass'', ROW(1), timeout => ''-1 h'')');
SELECT t.busy(), t.at_gate();
SELECT i FROM t.log WHERE i > 20;
SELECT * FROM t.left_behind();

-- A caller that is cancelled, or fails while it reads, leaves nothing running.
SET statement_timeout = '100 ms';
SELECT loky.run('INSERT INTO t.log VALUES (22); SELECT t.pass(1)');
SELECT count(*) FROM loky.run('INSERT INTO t.log VALUES (23); SELECT t.pass(1)');
RESET statement_timeout;
SELECT t.busy(), t.at_gate();
DO $$
BEGIN
    SET LOCAL statement_timeout = '100 ms';
    PERFORM loky.run('INSERT INTO t.log VALUES (24); SELECT t.pass(1)');
EXCEPTION WHEN query_canceled THEN
    RAISE NOTICE 'caught; % busy, % at the gate, left behind: %', t.busy(), t.at_gate(), t.left_behind();
END$$;
SELECT 1 / (r - 2) AS inverse FROM loky.run('SELECT generate_series(1, 30000)', result => NULL::int) r;
SELECT 1 / (loky.run('SELECT generate_series(1, 30000)', result => NULL::int) - 2) AS inverse;
SELECT i FROM t.log WHERE i > 20;
SELECT * FROM t.left_behind();

-- Read no further: nothing is kept.
SELECT loky.run('SELECT generate_series(1, 30000)', result => NULL::int) LIMIT 1;
SELECT * FROM t.left_behind();
BEGIN;
DECLARE c CURSOR FOR SELECT loky.run('SELECT generate_series(1, 30000)', result => NULL::int);
FETCH 2 FROM c;
-- it is there while it is read
SELECT task, state, rows FROM loky.tasks ORDER BY future DESC LIMIT 1;
SELECT * FROM t.left_behind();
SAVEPOINT a;
FETCH c;
ROLLBACK TO a;
FETCH c;
CLOSE c;
SELECT * FROM t.left_behind();
DECLARE c CURSOR FOR SELECT loky.run('SELECT generate_series(1, 30000)', result => NULL::int);
FETCH c;
ROLLBACK;
SELECT * FROM t.left_behind();
-- somebody forgets it meanwhile
BEGIN;
DECLARE c CURSOR FOR SELECT loky.run('SELECT generate_series(1, 3)', result => NULL::int);
FETCH c;
SELECT loky.forget((SELECT max(future) FROM loky.tasks));
SELECT * FROM t.left_behind();
FETCH ALL FROM c;
COMMIT;
SELECT * FROM t.left_behind();
-- somebody still reads it, from whom it is kept
BEGIN;
DECLARE c CURSOR FOR SELECT loky.run('SELECT generate_series(1, 3)', result => NULL::int);
FETCH c;
SELECT max(future) AS f FROM loky.tasks \gset
DECLARE d CURSOR FOR SELECT loky.result(:f, NULL::int);
FETCH d;
CLOSE c;
SELECT state FROM t.error('SELECT loky.state(' || :f || ')');
FETCH ALL FROM d;
COMMIT;
SELECT * FROM t.left_behind();

-- What waits for the caller's lock: 40P01, and it is cancelled.
BEGIN;
LOCK TABLE t.audit;
SELECT state, hint <> '' AS hinted FROM t.error('SELECT loky.run(''SELECT count(*) FROM t.audit'')');
SELECT t.busy();
SELECT * FROM t.left_behind();
ROLLBACK;

-- A task that is pending, as all workers have others.
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS a, loky.submit('t.pass', 1) AS b \gset
SELECT t.until('last_value = 2 FROM t.arrived');
SELECT state FROM t.error('SELECT loky.run(''INSERT INTO t.log VALUES (31)'', timeout => ''50 ms'')');
SELECT setval('t.gate', 1);
SELECT count(*) FROM loky.wait(ARRAY[:a, :b]);
SELECT loky.forget(:a), loky.forget(:b);
SELECT count(*) FROM t.log WHERE i = 31;
SELECT * FROM t.left_behind();

-- Inside a task: its worker steps aside for the inner one, level after level.
SELECT loky.get_reusable_executor(1, timeout => '32 s') > 0 AS one_worker;
CREATE FUNCTION t.run_down(n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE n WHEN 0 THEN 0
        ELSE 1 + (SELECT * FROM loky.run('t.run_down', ROW(n - 1), NULL::int)) END;
END$$;
SELECT * FROM loky.run('t.run_down', ROW(3), NULL::int);
BEGIN;
SET LOCAL loky.max_depth = 2;
SELECT state, message, detail FROM t.error('SELECT loky.run(''t.run_down'', ROW(3), NULL::int)');
ROLLBACK;
-- an error passes through all of them, a cancel too
SELECT state, message, regexp_replace(context, 'task \d+', 'task N', 'g') AS context FROM t.error($$SELECT loky.run('SELECT loky.run(''t.bad'', ROW(5))')$$);
SELECT t.reset();
SELECT state FROM t.error($$SELECT loky.run('INSERT INTO t.log VALUES (41); SELECT loky.run(''INSERT INTO t.log VALUES (42); SELECT t.pass(1)'')', timeout => '300 ms')$$);
SELECT t.clean(), t.at_gate();
SELECT count(*) FROM t.log WHERE i > 40;
SELECT * FROM t.left_behind();

-- A shut down executor is replaced, as at a submit; reducers apply as there.
SELECT loky.shutdown();
SELECT * FROM loky.run('SELECT 2');
CREATE FUNCTION t.run_reduce(x t.run_pair) RETURNS text LANGUAGE plpgsql
AS $$BEGIN IF x.a = 0 THEN RAISE EXCEPTION 'no zero'; END IF; RETURN x.b; END$$;
SELECT loky.get_reusable_executor(1, job_reducers => '{"t.run_pair": "t.run_reduce"}') > 0 AS ok;
SELECT * FROM loky.run('SELECT $1 || pg_typeof($1)', ROW((1, 'b ')::t.run_pair));
SELECT state, message, context FROM t.error('SELECT loky.run(''SELECT $1'', ROW((0, ''b'')::t.run_pair))');
RESET loky.executor;

-- A read-only transaction has read-only tasks.
BEGIN READ ONLY;
SELECT state FROM t.error('SELECT loky.run(''INSERT INTO t.log VALUES (51)'')');
SELECT * FROM loky.run('SELECT 3');
COMMIT;

-- Not where other people's expressions are computed.
CREATE MATERIALIZED VIEW t.run_view AS SELECT * FROM loky.run('SELECT 1');
-- Not run when it is not read.
SELECT count(*) FROM (SELECT loky.run('t.touch', ROW(61)) LIMIT 0) x;
SELECT count(*) FROM t.log WHERE i > 50;

SELECT * FROM t.left_behind();
SELECT t.clean();
DROP TABLE t.before, t.audit, t.unique_later;
DROP FUNCTION t.left_behind, t.busy, t.run_down, t.run_reduce;
DROP TYPE t.run_pair;
