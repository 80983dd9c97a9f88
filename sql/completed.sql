-- as_completed: futures one after the other, as their tasks end.

SELECT loky.get_reusable_executor(3, timeout => '33 s') > 0 AS ok;
SELECT t.reset();

-- The finished ones first, in the order given, then as they come.  An open gate lets
-- one through after the other; d is done, and e cancelled.
SELECT loky.submit('t.id', 4) AS d \gset
SELECT * FROM loky.result(:d);
SELECT loky.submit('t.pass', 3) AS c, loky.submit('t.pass', 1) AS a, loky.submit('t.pass', 2) AS b, loky.submit('t.pass', 9) AS e \gset
SELECT loky.cancel(:e);
CREATE FUNCTION t.name(f bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE current_setting('my.e')::bigint WHEN f THEN 'cancelled' ELSE (SELECT r FROM loky.result(f) r) END$$;
SET my.e = :e;
BEGIN;
DECLARE s CURSOR FOR SELECT loky.as_completed(ARRAY[:c, :a, :d, :a, :b, :e, :d, :c]) AS f;
-- these while all others stand at the gate
FETCH s \gset
SELECT t.name(:f);
FETCH s \gset
SELECT t.name(:f);
SELECT loky.done(:a), loky.done(:b), loky.done(:c);
SELECT setval('t.gate', 1);
FETCH s \gset
SELECT t.name(:f);
SELECT setval('t.gate', 2);
FETCH s \gset
SELECT t.name(:f);
SELECT loky.running(:c);
SELECT setval('t.gate', 3);
FETCH s \gset
SELECT t.name(:f);
FETCH s;
FETCH s;
COMMIT;

-- What is already done comes in the order given.
SELECT t.name(f) FROM loky.as_completed(ARRAY[:c, :e, :a, :d, :b, :a]) f;
SELECT t.name(loky.as_completed(ARRAY[:b, :a, :b], '0'));
-- none
SELECT count(*) FROM loky.as_completed(NULL);
SELECT count(*) FROM loky.as_completed('{}', '0');
SELECT state, message FROM t.error('SELECT loky.as_completed(ARRAY[' || :a || ', NULL])');
SELECT state, message, hint <> '' AS hinted FROM t.error('SELECT loky.as_completed(ARRAY[' || :a || ', 1000000000000])');
SELECT state FROM t.error('SELECT loky.as_completed(ARRAY[0])');
SELECT state FROM t.error('SELECT loky.as_completed(ARRAY[-1], ''-1 s'')');

-- Past the timeout: what is done, then LK004.
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS p, loky.submit('t.pass', 2) AS q \gset
CREATE FUNCTION t.collect(futures bigint[], timeout interval DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    c CURSOR FOR SELECT loky.as_completed(futures, timeout) f;
    f bigint;
    given text[] = '{}';
    what text; detail text; hint text;
BEGIN
    OPEN c;
    LOOP
        FETCH c INTO f;
        EXIT WHEN NOT FOUND;
        given := given || t.name(f);
    END LOOP;
    RETURN given;
EXCEPTION WHEN SQLSTATE 'LK004' THEN
    GET STACKED DIAGNOSTICS what = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN format('%s, then LK004 %s: %s %s', given, what, detail, hint <> '');
END$$;
SELECT t.collect(ARRAY[:p, :a, :q, :d], '0');
SELECT t.collect(ARRAY[:p, :a, :q, :d], '-1 h');
SELECT t.collect(ARRAY[:p, :a, :q, :d], '50 ms');
SELECT t.collect(ARRAY[:p, :p, :p], '0');
SELECT t.collect(ARRAY[:a, :d], '0');
-- the tasks go on
SELECT loky.running(:p), loky.running(:q);
SELECT loky.cancel(:p, true), loky.cancel(:q, true);
SELECT done FROM loky.wait(ARRAY[:p, :q]);

-- The deadline counts from the call, and past it there is one look more.
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS p, loky.submit('t.pass', 2) AS q \gset
BEGIN;
DECLARE s CURSOR FOR SELECT t.name(loky.as_completed(ARRAY[:p, :d, :q], '500 ms'));
FETCH s;
SELECT pg_sleep(0.5);
SELECT setval('t.gate', 1);
SELECT done FROM loky.wait(ARRAY[:p]);
FETCH s;
-- nor does it wait for q any more, which would end as soon as it did
SELECT loky.submit('SELECT t.until(''EXISTS (SELECT FROM pg_stat_activity WHERE pid = ' || pg_backend_pid() || ' AND wait_event_type = ''''Extension'''')''); SELECT setval(''t.gate'', 2)') AS opener \gset
FETCH s;
ROLLBACK;
SELECT loky.running(:q);
SELECT loky.cancel(:opener, true);
SELECT setval('t.gate', 2);
SELECT done FROM loky.wait(ARRAY[:q, :opener]);

-- One that is forgotten meanwhile counts as done.
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS p, loky.submit('t.pass', 1) AS q, loky.submit('t.id', 1) AS r \gset
SELECT done FROM loky.wait(ARRAY[:r]);
BEGIN;
DECLARE s CURSOR FOR SELECT CASE f WHEN :p THEN 'p' WHEN :q THEN 'q' ELSE 'r' END FROM (SELECT loky.as_completed(ARRAY[:r, :p, :q]) AS f) x;
FETCH s;
SELECT setval('t.gate', 1);
SELECT done FROM loky.wait(ARRAY[:p, :q]);
SELECT loky.forget(:p), loky.forget(:r);
FETCH s;
FETCH s;
FETCH s;
COMMIT;

-- Read no further: nothing is left of it, and nobody is taken for one that waits.
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS p, loky.submit('t.id', 1) AS r \gset
SELECT loky.as_completed(ARRAY[:r, :p]) = :r AS r LIMIT 1;
SELECT count(*) FROM loky.wait(ARRAY[:r, :p], '0');
-- a cursor that rests while its task waits for a lock of its session is no deadlock
CREATE TABLE t.ac (a int);
BEGIN;
DECLARE s CURSOR FOR SELECT loky.as_completed(ARRAY[:r, :p]) = :r AS r;
FETCH s;
LOCK TABLE t.ac;
SELECT loky.submit('SELECT count(*) FROM t.ac') AS w \gset
SELECT t.until('EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = ''loky worker'' AND wait_event = ''relation'')');
SELECT count(*) FROM loky.result(loky.submit('SELECT pg_sleep(1)'));
COMMIT;
SELECT count(*) FROM loky.result(:w);
SELECT setval('t.gate', 1);

-- Deadlock: no way out when none of the rest can end, but not before.
SELECT t.reset();
BEGIN;
LOCK TABLE t.ac;
SELECT loky.submit('SELECT count(*) FROM t.ac') AS w, loky.submit('SELECT count(*) FROM t.ac') AS v, loky.submit('SELECT pg_sleep(1)') AS z \gset
DECLARE s CURSOR FOR SELECT loky.as_completed(ARRAY[:w, :z, :v]) = :z AS z;
FETCH s;
SAVEPOINT a;
\set VERBOSITY sqlstate
FETCH s;
\set VERBOSITY default
ROLLBACK TO a;
SELECT state, hint <> '' AS hinted, detail ~ '^Process N waits for loky task N in worker process N, which' AS detailed
FROM t.error('SELECT loky.as_completed(ARRAY[' || :w || ', ' || :v || '])');
COMMIT;
SELECT count(*) FROM loky.as_completed(ARRAY[:w, :v, :z]);

-- In a task: its worker steps aside, so that one worker is enough.
SELECT loky.get_reusable_executor(1, timeout => '34 s') > 0 AS one_worker;
CREATE FUNCTION t.completes(n int) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM loky.as_completed(loky.submit_all('t.id', ARRAY(SELECT generate_series(1, n))))$$;
SELECT * FROM loky.result(loky.submit('t.completes', 5));

-- Many: each once, in one statement.
SELECT loky.get_reusable_executor(2, timeout => '35 s') > 0 AS two_workers;
SELECT count(*), count(DISTINCT f), min(loky.state(f)), max(loky.state(f))
FROM loky.as_completed(loky.submit_all('t.id', ARRAY(SELECT generate_series(1, 2000)))) f;

-- Other roles'.
CREATE ROLE regress_loky_completed;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_completed;
SELECT loky.submit('SELECT 1') AS s \gset
SET ROLE regress_loky_completed;
SELECT state, hint <> '' AS hinted FROM t.error('SELECT loky.as_completed(ARRAY[' || :s || '])');
SELECT count(*) FROM loky.as_completed(ARRAY[loky.submit('SELECT 1')]);
RESET ROLE;

RESET my.e;
RESET loky.executor;
SELECT t.clean();
DROP OWNED BY regress_loky_completed;
DROP ROLE regress_loky_completed;
DROP TABLE t.ac;
DROP FUNCTION t.name, t.collect, t.completes;
