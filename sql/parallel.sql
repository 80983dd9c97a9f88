-- Tasks run at the same time, on workers that are used again.

-- Two, three, four tasks that can only finish together.
SELECT loky.get_reusable_executor(4) > 0 AS ok;
SELECT t.reset();
SELECT * FROM loky.map('t.meet', ARRAY[ROW(1, 2), ROW(2, 2)], NULL::int);
SELECT t.reset();
SELECT * FROM loky.map('t.meet', ARRAY[1, 2, 3, 4], NULL::int, args => ROW(4));
SELECT t.reset();
SELECT ord, result, ok FROM loky.try_map('t.meet', ARRAY[1, 2, 3], NULL::int, args => ROW(3));
SELECT t.reset();
SELECT string_agg(r::text, ' ' ORDER BY r) FROM loky.flat_map('t.meet', ARRAY[1, 2, 3], NULL::int, args => ROW(3), ordered => false) r;
SELECT t.reset();
SELECT loky.submit_all('t.meet', ARRAY[ROW(1, 4), ROW(2, 4), ROW(3, 4), ROW(4, 4)]) AS fs \gset
SELECT r FROM unnest(:'fs'::bigint[]) WITH ORDINALITY u (f, n), loky.result(f, NULL::int) r ORDER BY n;
SELECT t.reset();
SELECT loky.submit('t.meet', 1, 3) AS a, loky.submit('SELECT t.meet($1, 3)', 2) AS b, loky.submit('t.meet(int, int)', 3, 3) AS c \gset
SELECT done, state FROM loky.wait(ARRAY[:a, :b, :c]);
-- a submitted task and a map
SELECT t.reset();
SELECT loky.submit('t.meet', 1, 3) AS a \gset
SELECT * FROM loky.map('t.meet', ARRAY[2, 3], NULL::int, args => ROW(3));
SELECT * FROM loky.result(:a);
-- the caller itself goes on meanwhile
SELECT t.reset();
SELECT loky.submit('t.meet', 1, 2) AS a \gset
SELECT t.meet(2, 2);
SELECT * FROM loky.result(:a);
-- chunks as well
SELECT t.reset();
SELECT * FROM loky.map('SELECT CASE WHEN $1 % 2 = 1 THEN t.meet($1, 2) ELSE $1 END', ARRAY[1, 2, 3, 4], NULL::int, chunksize => 2);
-- loky decides about batches, but not so that one worker keeps it all
SELECT t.reset();
SELECT count(*), sum(r) FROM loky.map('SELECT CASE WHEN $1 IN (1, 2) THEN t.meet($1, 2) ELSE $1 END', ARRAY(SELECT generate_series(1, 200)), NULL::int) r;

-- With one worker they would never meet: never more than max_workers run.
SELECT loky.get_reusable_executor(2) > 0 AS ok;
SELECT t.reset();
SELECT loky.submit_all('t.pass', ARRAY[1, 1, 1, 1, 1]) AS fs \gset
SELECT t.until('last_value = 2 FROM t.arrived');
SELECT state, count(*) FROM loky.wait(:'fs', '50 ms') GROUP BY state ORDER BY state;
SELECT last_value AS started FROM t.arrived;
SELECT pending, running, workers, max_workers FROM loky.executors WHERE executor_id = current_setting('loky.executor')::int;
SELECT setval('t.gate', 1);
SELECT state, count(*) FROM loky.wait(:'fs') GROUP BY state ORDER BY state;

-- The same workers serve later batches.
SELECT loky.get_reusable_executor(3) > 0 AS ok;
CREATE FUNCTION t.meet_pid(x int, n int) RETURNS int LANGUAGE plpgsql
AS $$BEGIN PERFORM t.meet(x, n); RETURN pg_backend_pid(); END$$;
SELECT t.reset();
SELECT array_agg(DISTINCT r) AS pids, count(DISTINCT r) AS first FROM loky.map('t.meet_pid', ARRAY[1, 2, 3], NULL::int, args => ROW(3)) r \gset
SELECT t.reset();
SELECT array_agg(DISTINCT r) AS pids2 FROM loky.map('t.meet_pid', ARRAY[1, 2, 3], NULL::int, args => ROW(3)) r \gset
SELECT :first AS workers, :'pids' = :'pids2' AS same, :'pids'::int[] @> ARRAY[pg_backend_pid()] AS is_caller;
SELECT bool_and(r = ANY (:'pids'::int[])) AS served_by_them FROM loky.map('t.pid', ARRAY(SELECT generate_series(1, 1000)), NULL::int) r;
SELECT bool_and(pid = ANY (:'pids'::int[])) AS only_them, count(*) FROM loky.workers WHERE executor_id = current_setting('loky.executor')::int;

-- Tasks one after the other need one worker.
SELECT loky.get_reusable_executor(4, reuse => 'false') > 0 AS ok;
CREATE FUNCTION t.sequential(n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    pids int[] := '{}';
BEGIN
    FOR i IN 1 .. n LOOP
        pids := pids || (SELECT r FROM loky.result(loky.submit('t.pid'), NULL::int) r);
    END LOOP;
    RETURN (SELECT count(DISTINCT p) FROM unnest(pids) p);
END$$;
SELECT t.sequential(10) AS workers_used;
SELECT count(*) AS workers_there FROM loky.workers WHERE executor_id = current_setting('loky.executor')::int;
SELECT workers, idle, succeeded FROM loky.executors WHERE executor_id = current_setting('loky.executor')::int;

-- Order: first come first served.
SELECT loky.get_reusable_executor(1) > 0 AS ok;
SELECT t.reset();
CREATE TABLE t.turns (n int GENERATED ALWAYS AS IDENTITY, i int);
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT loky.submit_all('INSERT INTO t.turns (i) VALUES ($1)', ARRAY(SELECT generate_series(1, 50))) AS fs \gset
SELECT setval('t.gate', 1);
SELECT count(*) FROM loky.wait(:'fs');
SELECT count(*), bool_and(n = i) AS in_order FROM t.turns;

-- Growing takes effect at once, for tasks that already run or wait.
SELECT t.reset();
SELECT loky.submit_all('t.meet', ARRAY[ROW(1, 3), ROW(2, 3), ROW(3, 3)]) AS fs \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.get_reusable_executor(3) > 0 AS ok;
SELECT state, count(*) FROM loky.wait(:'fs') GROUP BY state;
-- so does shrinking, once what runs is done
SELECT t.reset();
SELECT loky.submit_all('t.pass', ARRAY[1, 1, 1, 2, 2, 2]) AS fs \gset
SELECT t.until('last_value = 3 FROM t.arrived');
SELECT loky.get_reusable_executor(1) > 0 AS ok;
SELECT setval('t.gate', 1);
SELECT t.until('last_value = 4 FROM t.arrived');
SELECT t.until($$workers = 1 FROM loky.executors WHERE executor_id = current_setting('loky.executor')::int$$);
SELECT last_value AS started FROM t.arrived;
SELECT setval('t.gate', 2);
SELECT state, count(*) FROM loky.wait(:'fs') GROUP BY state;

-- In a worker of a parallel plan, where a function has been declared to be safe in one,
-- nothing is begun or cancelled: its transaction ends before the caller's, and so does
-- its session.  Nor does it wait, done or not: whether that can end is for the caller to
-- know.  What is there can be looked at.
CREATE FUNCTION t.safe(command text) RETURNS text LANGUAGE plpgsql PARALLEL SAFE
AS $$DECLARE r text; BEGIN EXECUTE command INTO r; RETURN r; END$$;
CREATE TABLE t.some AS SELECT i FROM generate_series(1, 1000) i;
ALTER TABLE t.some SET (parallel_workers = 2);
ANALYZE t.some;
SELECT loky.submit('t.id', 1) AS f, loky.submit_task('t.id', ROW(1), delay => '1 day') AS later \gset
SELECT * FROM loky.result(:f);
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
SELECT command, state, message, hint <> '' AS hinted
FROM unnest(ARRAY['loky.submit(''SELECT 1'')', 'loky.submit_task(''SELECT 1'', on_commit => true)',
    'loky.submit_all(''SELECT $1'', ARRAY[1])', 'loky.add_done_callback(' || :f || ', ''t.id'')',
    'loky.run(''SELECT 1'')', 'loky.map(''t.id'', ARRAY[1])', 'loky.cancel(' || :later || ')',
    'loky.get_reusable_executor(1)', 'loky.shutdown()',
    'loky.result(' || :f || ')', 'loky.result(' || :later || ', timeout => ''0'')',
    'loky.exception(' || :f || ')', 'loky.exception(' || :later || ', ''0'')',
    'loky.wait(ARRAY[' || :f || '])', 'loky.wait(ARRAY[' || :later || '], ''0'')',
    'loky.as_completed(ARRAY[' || :f || '])', 'loky.as_completed(ARRAY[' || :later || '], ''0'')']) WITH ORDINALITY u (call, n),
    regexp_replace(call, '[(].*', '') command,
    t.error(format('SELECT count(t.safe(%L)) FROM t.some', 'SELECT ' || call))
ORDER BY n;
SELECT t.safe('SELECT loky.state(' || :f || ')') AS state, count(*) FROM t.some GROUP BY 1;
SELECT t.safe('SELECT count(*) FROM loky.tasks WHERE future = ' || :f) AS tasks, count(*) FROM t.some GROUP BY 1;
SELECT loky.state(:later), loky.cancel(:later);
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET parallel_leader_participation;
DROP TABLE t.some;
DROP FUNCTION t.safe(text);
RESET loky.executor;
SELECT t.clean();
