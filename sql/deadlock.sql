-- A caller that waits for a task which waits for it: 40P01 in the caller, and
-- the task goes on once the caller's transaction has ended.
\set VERBOSITY sqlstate
CREATE TABLE t.dl (a int);
INSERT INTO t.dl VALUES (1);

-- an executor of this test's own, so that its size is known
SELECT loky.get_reusable_executor(4, timeout => '21 s') IS NOT NULL AS four_workers;

-- directly, over a lock of the caller
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit('SELECT count(*) FROM t.dl') AS f \gset
SELECT * FROM loky.result(:f);
ROLLBACK;
SELECT * FROM loky.result(:f, NULL::bigint);

-- wait() for several, of which one can never end
BEGIN;
UPDATE t.dl SET a = 2;
SELECT loky.submit('UPDATE t.dl SET a = 3') AS f \gset
SELECT count(*) FROM loky.wait(ARRAY[:f, loky.submit('SELECT 1')]);
ROLLBACK;
SELECT * FROM loky.result(:f);
SELECT a FROM t.dl;

-- for the first one, there is no cycle while another can end
BEGIN;
UPDATE t.dl SET a = 2;
SELECT loky.submit('UPDATE t.dl SET a = 4') AS f \gset
SELECT count(*) FILTER (WHERE done)
  FROM loky.wait(ARRAY[:f, loky.submit('SELECT pg_sleep(1)')], NULL, 'FIRST_COMPLETED');
ROLLBACK;
SELECT * FROM loky.result(:f);

-- a map: its items are cancelled, as at any error of the caller
BEGIN;
UPDATE t.dl SET a = 2;
SELECT * FROM loky.map('UPDATE t.dl SET a = $1', ARRAY[5, 6, 7]);
ROLLBACK;
SELECT a FROM t.dl;

-- a pending task behind a worker that waits for the caller
SELECT loky.get_reusable_executor(1, timeout => '20 s') IS NOT NULL AS one_worker;
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit('SELECT count(*) FROM t.dl') AS f \gset
SELECT * FROM loky.result(loky.submit('SELECT 1'));
ROLLBACK;
SELECT * FROM loky.result(:f);
RESET loky.executor;

-- a task behind a key whose holder waits for the caller
SELECT loky.get_reusable_executor(3, timeout => '21 s') IS NOT NULL AS three_workers;
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit_task('SELECT count(*) FROM t.dl', key => 'a') AS f \gset
SELECT loky.submit_task('SELECT 1', key => 'a', label => 'behind') AS g \gset
SELECT * FROM loky.result(:g);
ROLLBACK;
SELECT * FROM loky.result(:f);
SELECT * FROM loky.result(:g);
-- not where the key has room for another one
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit_task('SELECT count(*) FROM t.dl', key => 'a', key_limit => 2) AS f \gset
SELECT * FROM loky.result(loky.submit_task('SELECT 1', key => 'a', key_limit => 2));
ROLLBACK;
SELECT * FROM loky.result(:f);

-- one that comes after another, at a distance, and after several
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit_task('SELECT count(*) FROM t.dl') AS f \gset
SELECT loky.submit_task('SELECT 1', after => ARRAY[loky.submit('SELECT 0'), :f]) AS g \gset
SELECT loky.submit_task('SELECT 2', after => ARRAY[:g]) AS h \gset
SELECT * FROM loky.result(:h);
ROLLBACK;
SELECT * FROM loky.result(:h);
-- also for the first of them, and where one of those before has gone
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit_task('SELECT 0', delay => '300 ms') AS gone, loky.submit('SELECT count(*) FROM t.dl') AS f \gset
SELECT loky.submit_task('SELECT 1', after => ARRAY[:gone, :f]) AS g \gset
SELECT loky.result(:gone);
SELECT loky.forget(:gone);
SELECT loky.submit_task('SELECT 2', after => ARRAY[:g]) AS h \gset
SAVEPOINT s;
SELECT loky.result(:h);
ROLLBACK TO s;
SELECT count(*) FROM loky.wait(ARRAY[:h, :g], NULL, 'FIRST_COMPLETED');
ROLLBACK TO s;
SELECT count(*) FROM loky.as_completed(ARRAY[:h]);
ROLLBACK;
SELECT * FROM loky.result(:h);
-- but not where one can end without it
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit('SELECT count(*) FROM t.dl') AS f, loky.submit('SELECT pg_sleep(1)') AS g \gset
SELECT loky.submit_task('SELECT 1', after => ARRAY[:f]) AS h,
       loky.submit_task('SELECT 2', after => ARRAY[:g]) AS i \gset
SELECT future = :i AS right_one FROM loky.wait(ARRAY[:h, :i], NULL, 'FIRST_COMPLETED') WHERE done;
ROLLBACK;
SELECT * FROM loky.result(:h);
-- and one that comes after a task behind a key
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit_task('SELECT count(*) FROM t.dl', key => 'a') AS f \gset
SELECT loky.submit_task('SELECT 1', after => ARRAY[loky.submit_task('SELECT 0', key => 'a')]) AS g \gset
SELECT count(*) FROM loky.wait(ARRAY[:g]);
ROLLBACK;
SELECT * FROM loky.result(:g);
-- not where it only waits for its time, or whoever is waited for does
BEGIN;
LOCK TABLE t.dl;
SELECT loky.submit('SELECT count(*) FROM t.dl') AS f \gset
SELECT * FROM loky.result(loky.submit_task('SELECT 1', after => ARRAY[loky.submit_task('SELECT 0', delay => '1 s')]));
ROLLBACK;
SELECT * FROM loky.result(:f);
RESET loky.executor;

-- the snapshot of the waiting statement itself
SELECT * FROM loky.result(loky.submit('CREATE INDEX CONCURRENTLY dl_a ON t.dl (a)'));
SELECT max(future) AS f FROM loky.tasks WHERE task LIKE 'CREATE INDEX%' \gset
SELECT * FROM loky.result(:f);

-- no false alarm for a wait that will end, past several looks
SELECT * FROM loky.result(loky.submit('SELECT pg_sleep(1), 1'), NULL::record) AS (a text, b int);

-- what the message says
\set VERBOSITY default
BEGIN;
LOCK TABLE t.dl;
DO $$
DECLARE
    d text;
    h text;
    f bigint := loky.submit('SELECT count(*) FROM t.dl');
BEGIN
    PERFORM loky.result(f);
EXCEPTION WHEN deadlock_detected THEN
    GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    RAISE NOTICE '%', replace(regexp_replace(d, format('\m(%s|%s)\M', pg_backend_pid(), f), 'N', 'g'),
        (SELECT worker FROM loky.tasks WHERE future = f)::text, 'W');
    RAISE NOTICE '%', h;
END $$;
ROLLBACK;
DROP TABLE t.dl;
