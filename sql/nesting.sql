-- Tasks that use loky themselves, also where there is but one worker.

SELECT loky.get_reusable_executor(1) > 0 AS ok;
SELECT * FROM loky.result(loky.submit($$SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int) r$$));
SELECT * FROM loky.result(loky.submit($$SELECT r FROM loky.result(loky.submit('t.id', 42)) r$$));
SELECT * FROM loky.result(loky.submit($$SELECT state FROM loky.wait(ARRAY[loky.submit('t.id', 42)])$$));
SELECT * FROM loky.map($$SELECT sum(r) FROM loky.map('SELECT $1 * 10', ARRAY[$1, $1 + 1], NULL::int) r$$, ARRAY[1, 2, 3], NULL::int);
SELECT * FROM loky.flat_map($$SELECT loky.flat_map('SELECT generate_series(1, $1)', ARRAY[$1, 1], NULL::int)$$, ARRAY[1, 2], NULL::int);
-- Six inner tasks that only finish together: while the outer three wait they do
-- not count in max_workers.
SELECT loky.get_reusable_executor(6) > 0 AS ok;
SELECT t.reset();
SELECT * FROM loky.map($$SELECT sum(r) FROM loky.map('t.meet', ARRAY[$1, $1 + 1], NULL::int, args => ROW(6)) r$$, ARRAY[10, 20, 30], NULL::int);
SELECT loky.get_reusable_executor(1) > 0 AS ok;
-- the inner task runs in the task's own executor, as its role
SELECT current_setting('loky.executor') AS id \gset
SELECT r = :'id' AS own FROM loky.result(loky.submit($$SELECT (SELECT executor_id FROM loky.tasks WHERE future = f) FROM (SELECT loky.submit('SELECT 1') AS f OFFSET 0) s$$)) r;
-- fire and forget from inside a task
SELECT r AS inner FROM loky.result(loky.submit($$SELECT loky.submit('t.id', 7)$$), NULL::bigint) r \gset
SELECT * FROM loky.result(:inner);
-- errors travel up, with all of their context
SELECT state, message, context FROM t.error($outer$SELECT * FROM loky.result(loky.submit($$SELECT * FROM loky.map('t.bad', ARRAY[1], NULL::int)$$))$outer$);
-- ten levels work, the eleventh does not
CREATE FUNCTION t.deep(level int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF level <= 1 THEN
        RETURN 1;
    END IF;
    RETURN 1 + (SELECT r FROM loky.map('t.deep', ARRAY[level - 1], NULL::int) r);
END$$;
SELECT * FROM loky.result(loky.submit('t.deep', 3), NULL::int);
SELECT * FROM loky.map('t.deep', ARRAY[10], NULL::int);
SELECT state, hint ~ 'loky.max_depth' AS names_setting FROM t.error($$SELECT * FROM loky.map('t.deep', ARRAY[11], NULL::int)$$);
CREATE FUNCTION t.deep_submit(level int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF level <= 1 THEN
        RETURN 1;
    END IF;
    RETURN 1 + (SELECT r FROM loky.result(loky.submit('t.deep_submit', level - 1), NULL::int) r);
END$$;
SELECT * FROM loky.result(loky.submit('t.deep_submit', 10), NULL::int);
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('t.deep_submit', 11), NULL::int)$$);
-- in turns of a map, result, and wait, over two executors of one worker each
SELECT loky.get_reusable_executor(1, timeout => '23 s') AS other \gset
SELECT loky.get_reusable_executor(1) > 0 AS ok;
CREATE FUNCTION t.deep_mixed(level int, other int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    f bigint[];
BEGIN
    IF level <= 1 THEN
        RETURN 1;
    ELSIF level % 3 = 0 THEN
        RETURN 1 + (SELECT r FROM loky.map('t.deep_mixed', ARRAY[ROW(level - 1, other)], NULL::int, executor => other) r);
    ELSIF level % 3 = 1 THEN
        RETURN 1 + (SELECT r FROM loky.result(loky.submit('t.deep_mixed', level - 1, other), NULL::int) r);
    END IF;
    f := loky.submit_all('t.deep_mixed', ARRAY[ROW(level - 1, other)], executor => other);
    PERFORM loky.wait(f);
    RETURN 1 + (SELECT r FROM loky.result(f[1], NULL::int) r);
END$$;
SELECT * FROM loky.result(loky.submit('t.deep_mixed', 10, :other), NULL::int);
SELECT state FROM t.error(format($$SELECT * FROM loky.result(loky.submit('t.deep_mixed', 11, %s), NULL::int)$$, :other));
-- tasks that submit the next one and do not wait for it
CREATE TABLE t.chained (level int);
CREATE FUNCTION t.chain(level int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.chained VALUES (level);
    PERFORM loky.submit('t.chain', level + 1);
    RETURN level;
END$$;
SELECT loky.submit('t.chain', 1) > 0 AS ok;
SELECT t.until($$EXISTS (SELECT FROM loky.tasks WHERE task = 't.chain' AND state = 'failed')$$);
SELECT array_agg(level ORDER BY level) AS levels FROM t.chained;
SELECT state, sqlstate, count(*) FROM loky.tasks WHERE task = 't.chain' GROUP BY 1, 2 ORDER BY 1;
BEGIN;
SET LOCAL loky.max_depth = 2;
SELECT * FROM loky.map('t.deep', ARRAY[2], NULL::int);
SELECT state FROM t.error($$SELECT * FROM loky.map('t.deep', ARRAY[3], NULL::int)$$);
SET LOCAL loky.max_depth = 0;
SELECT * FROM loky.map('t.deep', ARRAY[12], NULL::int);
COMMIT;
-- a task cannot shut down what it runs on
SELECT state, hint <> '' AS hinted FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT loky.shutdown()'))$$);
-- when the outer task is cancelled, its inner map is, too
SELECT t.reset();
SELECT loky.submit($$SELECT count(*) FROM loky.map('t.pass', ARRAY[1, 1], NULL::int)$$) AS a \gset
SELECT t.until('last_value >= 1 FROM t.arrived');
SELECT loky.cancel(:a, running => true);
SELECT state FROM loky.wait(ARRAY[:a]);
SELECT t.clean();
-- or when its worker dies
SELECT t.reset();
SELECT loky.submit($$SELECT count(*) FROM loky.map('t.pass', ARRAY[1, 1], NULL::int)$$) AS a \gset
SELECT t.until('last_value >= 1 FROM t.arrived');
SELECT pg_terminate_backend(worker) FROM loky.tasks WHERE future = :a;
SELECT state FROM loky.wait(ARRAY[:a]);
SELECT sqlstate FROM loky.exception(:a);
SELECT t.clean();
-- many that nest, on few workers
SELECT loky.get_reusable_executor(2) > 0 AS ok;
SELECT count(*), sum(r) FROM loky.map('t.deep', ARRAY(SELECT 1 + i % 4 FROM generate_series(0, 39) i), NULL::int) r;
RESET loky.executor;
SELECT t.clean();
-- much outer work does not take all processes before the inner gets its turn
SELECT loky.get_reusable_executor(2, timeout => '62 s') > 0 AS ok;
CREATE FUNCTION t.outer_work(i int) RETURNS bigint LANGUAGE sql AS
    $$SELECT sum(r) FROM loky.map('SELECT $1 FROM pg_sleep(0.002)', ARRAY(SELECT generate_series(1, 10)), NULL::int) r$$;
SELECT count(*), min(r), max(r) FROM loky.map('t.outer_work', ARRAY(SELECT generate_series(1, 40)), NULL::bigint) r;
SELECT loky.submit_all('t.outer_work', ARRAY(SELECT generate_series(1, 40))) AS fs \gset
SELECT state, count(*) FROM loky.wait(:'fs') GROUP BY state;
RESET loky.executor;
SELECT t.clean();
