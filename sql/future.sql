-- Futures: their states, waiting for them, cancelling, forgetting.

-- One worker and a gate: the first task runs, the others are pending.
SELECT loky.get_reusable_executor(1) > 0 AS ok;
SELECT t.reset();
TRUNCATE t.log;
SELECT loky.submit('t.pass', 1) AS a, loky.submit('t.touch', 2) AS b, loky.submit('t.touch', 3) AS c \gset
SELECT t.until('loky.running(' || :a || ')');
SELECT n, loky.state(f), loky.done(f), loky.running(f), loky.cancelled(f) FROM (VALUES (1, :a), (2, :b), (3, :c)) v (n, f) ORDER BY n;
-- ids ascend
SELECT :a < :b AND :b < :c AS ascend;

-- result and exception do not wait longer than told
SELECT state, message, hint <> '' AS hinted FROM t.error('SELECT * FROM loky.result(' || :a || ', timeout => ''10 ms'')');
SELECT state FROM t.error('SELECT * FROM loky.result(' || :a || ', NULL::int, ''0'')');
SELECT state FROM t.error('SELECT * FROM loky.result(' || :b || ', NULL::int, ''-1 s'')');
SELECT state FROM t.error('SELECT * FROM loky.exception(' || :a || ', ''10 ms'')');
SELECT loky.state(:a), loky.state(:b);
-- forget keeps what is not finished
SELECT loky.forget(:a), loky.forget(:b), loky.state(:a), loky.state(:b);

-- cancel: pending at once, running only if told to
SELECT loky.cancel(:c), loky.state(:c), loky.done(:c), loky.cancelled(:c), loky.running(:c);
SELECT loky.cancel(:c) AS again, loky.cancel(:c, running => true) AS and_again;
SELECT loky.cancel(:a), loky.state(:a);
-- a cancelled one is done although its turn has not come
SELECT done, state FROM loky.wait(ARRAY[:c]);
SELECT state, message, hint <> '' AS hinted FROM t.error('SELECT * FROM loky.result(' || :c || ')');
SELECT state FROM t.error('SELECT * FROM loky.exception(' || :c || ')');

-- wait: a row for each distinct future in the order given, never an error for time
SELECT f, done, state FROM loky.wait(ARRAY[:b, :a, :b, :c, :a], '10 ms'), LATERAL (SELECT CASE future WHEN :a THEN 'a' WHEN :b THEN 'b' ELSE 'c' END) n (f);
SELECT count(*) FROM loky.wait(ARRAY[:a], '0');
SELECT count(*) FROM loky.wait(ARRAY[:a], '-1 s');
SELECT (SELECT count(*) FROM loky.wait('{}')) AS of_none, (SELECT count(*) FROM loky.wait(NULL)) AS of_null;
-- at the first one done, which is the cancelled one
SELECT done, state FROM loky.wait(ARRAY[:a, :b, :c], return_when => 'FIRST_COMPLETED');
-- open the gate
SELECT setval('t.gate', 1);
SELECT done, state FROM loky.wait(ARRAY[:a, :b, :c]);
SELECT n, loky.state(f), loky.done(f), loky.running(f), loky.cancelled(f), loky.cancel(f, true) FROM (VALUES (1, :a), (2, :b), (3, :c)) v (n, f) ORDER BY n;
SELECT * FROM loky.result(:a, NULL::int);
SELECT * FROM loky.result(:a, NULL::int, '-1 s');
SELECT e IS NULL AS nothing FROM loky.exception(:a) e;
-- the cancelled one has not run
SELECT i FROM t.log ORDER BY i;

-- Cancelling a running task, and the worker goes on.
SELECT t.reset();
SELECT r AS pid FROM loky.result(loky.submit('t.pid'), NULL::int) r \gset
SELECT loky.submit('INSERT INTO t.log VALUES (50); SELECT t.pass(1)') AS a, loky.submit('t.touch', 51) AS b \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.cancel(:a, running => true), loky.cancel(:a, true) AS again;
SELECT done, state FROM loky.wait(ARRAY[:a, :b]);
SELECT state FROM t.error('SELECT * FROM loky.result(' || :a || ')');
SELECT i FROM t.log WHERE i >= 50;
SELECT r = :pid AS same_worker FROM loky.result(loky.submit('t.pid'), NULL::int) r;
-- one that catches the cancel goes on, and ends as cancelled nonetheless
CREATE FUNCTION t.stubborn() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.log VALUES (60);
    PERFORM nextval('t.arrived');
    PERFORM pg_sleep(30);
    RETURN 1;
EXCEPTION WHEN query_canceled THEN
    PERFORM t.until('last_value = 1 FROM t.gate');
    RETURN 2;
END$$;
SELECT t.reset();
SELECT loky.submit('t.stubborn') AS a \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.cancel(:a), loky.cancel(:a, running => true);
SELECT loky.cancel(:a) AS again, loky.running(:a), setval('t.gate', 1);
SELECT done, state FROM loky.wait(ARRAY[:a]);
SELECT count(*) FROM t.log WHERE i = 60;
-- failed ones cannot be cancelled
SELECT loky.submit('t.bad', 1) AS a \gset
SELECT done, state FROM loky.wait(ARRAY[:a]);
SELECT loky.cancel(:a), loky.cancel(:a, true), loky.state(:a);

-- return_when
SELECT loky.get_reusable_executor(3) > 0 AS ok;
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS a, loky.submit('t.pass', 1) AS b, loky.submit('t.id', 3) AS c \gset
SELECT done, state <> 'succeeded' AS open FROM loky.wait(ARRAY[:a, :b, :c], return_when => 'FIRST_COMPLETED');
-- neither a success nor a cancelled one is an exception
SELECT loky.submit('t.pass', 2) AS d \gset
SELECT t.until('last_value = 3 FROM t.arrived');
SELECT loky.submit('t.id', 4) AS e \gset
SELECT loky.cancel(:e);
SELECT clock_timestamp() AS since \gset
SELECT done FROM loky.wait(ARRAY[:a, :c, :e], '100 ms', 'FIRST_EXCEPTION');
SELECT clock_timestamp() - :'since' >= '100 ms' AS waited;
SELECT loky.cancel(:d, true);
SELECT loky.submit('t.bad', 5) AS g \gset
SELECT done, state FROM loky.wait(ARRAY[:a, :b, :g], return_when => 'FIRST_EXCEPTION') WHERE future = :g;
SELECT loky.done(:a), loky.done(:b);
-- one that has failed already
SELECT count(*) FROM loky.wait(ARRAY[:a, :g], return_when => 'first_exception');
SELECT setval('t.gate', 2);
SELECT state, done FROM loky.wait(ARRAY[:a, :b, :c], return_when => 'FIRST_EXCEPTION');
SELECT state, hint <> '' AS hinted FROM t.error('SELECT * FROM loky.wait(ARRAY[' || :a || '], NULL, ''SOMETIMES'')');
SELECT state FROM t.error('SELECT * FROM loky.wait(ARRAY[' || :a || ', NULL])');

-- A waiter is woken by a task that ends later: the gate is opened by a task.
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT t.until('loky.running(' || :a || ')');
SELECT loky.submit('SELECT setval(''t.gate'', 1)') AS b \gset
SELECT * FROM loky.result(:a, NULL::int);

-- forget
SELECT loky.forget(:a);
SELECT f, (SELECT state || ' ' || message FROM t.error(format(f, :a))) FROM unnest(ARRAY[
    'SELECT loky.state(%s)', 'SELECT loky.done(%s)', 'SELECT loky.running(%s)',
    'SELECT loky.cancelled(%s)', 'SELECT loky.cancel(%s)', 'SELECT loky.forget(%s)',
    'SELECT * FROM loky.result(%s)', 'SELECT * FROM loky.exception(%s)', 'SELECT * FROM loky.wait(ARRAY[%s])']) f;
SELECT state, hint FROM t.error('SELECT loky.state(1000000000000)');
SELECT state FROM t.error('SELECT loky.state(0)');
SELECT state FROM t.error('SELECT loky.state(-1)');
SELECT state FROM t.error('SELECT loky.state(NULL)');
SELECT state FROM t.error('SELECT * FROM loky.result(NULL)');

-- A cancelled caller leaves a submitted task alone.
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS a \gset
SET statement_timeout = '50 ms';
SELECT * FROM loky.result(:a);
SELECT * FROM loky.wait(ARRAY[:a]);
RESET statement_timeout;
SELECT loky.done(:a);
SELECT setval('t.gate', 1);
SELECT * FROM loky.result(:a);

-- Results survive the session that asked, and the executor.
SELECT loky.submit('SELECT ''kept''') AS a \gset
SELECT * FROM loky.result(:a);
SELECT loky.shutdown();
\c -
SELECT * FROM loky.result(:a);

-- Futures are their role's: not another's, but its members' and a superuser's.
CREATE ROLE regress_loky_one;
CREATE ROLE regress_loky_two;
CREATE ROLE regress_loky_member IN ROLE regress_loky_one;
CREATE ROLE regress_loky_signal IN ROLE pg_signal_backend;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_one, regress_loky_two, regress_loky_member, regress_loky_signal;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA t TO regress_loky_one;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA t TO regress_loky_one;
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS s \gset
SET ROLE regress_loky_one;
SELECT loky.submit('SELECT current_user') AS a, loky.submit('t.pass', 1) AS p, loky.submit('t.pass', 1) AS q \gset
SELECT * FROM loky.result(:a);
SET ROLE regress_loky_two;
SELECT f, (SELECT state FROM t.error(format(f, :a))) FROM unnest(ARRAY[
    'SELECT loky.state(%s)', 'SELECT loky.done(%s)', 'SELECT loky.running(%s)',
    'SELECT loky.cancelled(%s)', 'SELECT loky.cancel(%s)', 'SELECT loky.forget(%s)',
    'SELECT * FROM loky.result(%s)', 'SELECT * FROM loky.exception(%s)', 'SELECT * FROM loky.wait(ARRAY[%s])']) f;
SELECT state, hint FROM t.error('SELECT loky.state(' || :s || ')');
SET ROLE regress_loky_signal;
SELECT state FROM t.error('SELECT * FROM loky.result(' || :p || ', timeout => ''0'')');
SELECT loky.cancel(:p, running => true);
SELECT state FROM t.error('SELECT loky.cancel(' || :s || ', true)');
SET ROLE regress_loky_member;
SELECT * FROM loky.result(:a);
SELECT loky.cancel(:q, running => true);
RESET ROLE;
SELECT * FROM loky.result(:a);
SELECT done, state FROM loky.wait(ARRAY[:p, :q]);
SELECT setval('t.gate', 1);
SELECT * FROM loky.result(:s);
SELECT t.clean();
DROP OWNED BY regress_loky_one, regress_loky_two, regress_loky_member, regress_loky_signal;
DROP ROLE regress_loky_one, regress_loky_two, regress_loky_member, regress_loky_signal;
