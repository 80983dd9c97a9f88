-- Callbacks: tasks that run when a future is done.

SELECT loky.get_reusable_executor(3, settings => '{"my.test": "callbacks"}') > 0 AS ok;
CREATE TABLE t.called (n int GENERATED ALWAYS AS IDENTITY, what text, future bigint, who name DEFAULT current_user, state text);
CREATE FUNCTION t.call(f bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.called (what, future, state) VALUES ('call', f, loky.state(f));
    RETURN loky.state(f);
END$$;

-- In the order added, before and after the end, each with the future's id.
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT array_agg(loky.add_done_callback(:a, format('INSERT INTO t.called (what, future) VALUES (%L, $1)', i))) AS cs FROM generate_series(1, 5) i \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT DISTINCT state, waiting_for FROM loky.tasks WHERE future = ANY (:'cs');
SELECT count(*) FROM t.called;
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(:'cs');
SELECT string_agg(what, ' ' ORDER BY n), bool_and(future = :a) AS same FROM t.called;
SELECT * FROM loky.result(loky.add_done_callback(:a, 't.call'));

-- After success, failure and cancel alike.
SELECT loky.submit('t.bad', 1) AS a \gset
SELECT * FROM loky.result(loky.add_done_callback(:a, 't.call'));
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT loky.add_done_callback(:a, 't.call') AS c \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.cancel(:a, running => true);
SELECT * FROM loky.result(:c);
SELECT loky.submit_task('t.id', ROW(1), delay => '1 day') AS a \gset
SELECT loky.add_done_callback(:a, 't.call') AS c \gset
SELECT loky.cancel(:a);
SELECT * FROM loky.result(:c);
SELECT loky.submit('SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(10)') AS a \gset
SELECT * FROM loky.result(loky.add_done_callback(:a, 't.call'));
SELECT loky.exception(:a) IS NULL AS ok;

-- One that fails, or is cancelled, harms nobody; each has a future of its own.
SELECT t.reset();
TRUNCATE t.called;
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT loky.add_done_callback(:a, 'SELECT 1 / (0 * $1)') AS b,
       loky.add_done_callback(:a, 't.call') AS c,
       loky.add_done_callback(:a, 't.call') AS d,
       loky.add_done_callback(:a, 't.call') AS e \gset
SELECT loky.cancel(:c);
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(ARRAY[:a, :b, :c, :d, :e]);
SELECT sqlstate FROM loky.exception(:b);
SELECT count(*) FROM t.called;
SELECT loky.result(:a, NULL::int);
-- a callback of a callback
SELECT loky.add_done_callback(loky.add_done_callback(:a, 'SELECT $1'), 't.call') AS c \gset
SELECT * FROM loky.result(:c);

-- Those in the middle are cancelled while the first one runs: the last one waits.
SELECT t.reset();
TRUNCATE t.called;
SELECT loky.submit('t.id', 1) AS a \gset
SELECT loky.add_done_callback(:a, 'SELECT t.pass(1 + 0 * $1::int)') AS b,
       loky.add_done_callback(:a, 't.call') AS c,
       loky.add_done_callback(:a, 't.call') AS d,
       loky.add_done_callback(:a, 't.call') AS e,
       loky.add_done_callback(:a, 't.call') AS f \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.cancel(:d), loky.cancel(:c), loky.forget(:c), loky.forget(:d);
SELECT state, waiting_for FROM loky.tasks WHERE future IN (:e, :f);
SELECT loky.cancel(:e);
SELECT state, waiting_for FROM loky.tasks WHERE future = :f;
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(ARRAY[:b, :e, :f]);
SELECT count(*) FROM t.called;
-- so it does where what they are called for has been forgotten
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT loky.add_done_callback(:a, 'SELECT t.pass(2 + 0 * $1::int)') AS b,
       loky.add_done_callback(:a, 'SELECT $1') AS c,
       loky.add_done_callback(:a, 'SELECT $1') AS d \gset
SELECT setval('t.gate', 1);
SELECT t.until('last_value = 2 FROM t.arrived');
SELECT loky.forget(:a), loky.cancel(:c);
SELECT state, waiting_for FROM loky.tasks WHERE future = :d;
SELECT setval('t.gate', 2);
SELECT state FROM loky.wait(ARRAY[:b, :d]);

-- One that blocks does not block the pool.
SELECT t.reset();
SELECT loky.submit('t.id', 1) AS a \gset
SELECT loky.add_done_callback(:a, 'SELECT t.pass(1 + 0 * $1::int)') AS b \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT * FROM loky.result(loky.submit('t.id', 2));
SELECT setval('t.gate', 1);
SELECT * FROM loky.result(:b);

-- As whoever added it, who must be allowed to use the future.
CREATE ROLE regress_loky_a;
CREATE ROLE regress_loky_b IN ROLE regress_loky_a;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_a, regress_loky_b;
GRANT INSERT, SELECT ON t.called TO regress_loky_a, regress_loky_b;
TRUNCATE t.called;
SET ROLE regress_loky_a;
SELECT loky.submit('SELECT current_user') AS a \gset
SELECT * FROM loky.result(:a);
SELECT loky.add_done_callback(:a, 't.call') AS b \gset
SELECT * FROM loky.result(:b);
SET ROLE regress_loky_b;
SELECT * FROM loky.result(loky.add_done_callback(:a, 't.call'));
SELECT loky.submit('SELECT 1') AS c \gset
SET ROLE regress_loky_a;
SELECT state, hint <> '' AS hinted FROM t.error('SELECT loky.add_done_callback(' || :c || ', ''t.call'')');
RESET ROLE;
SELECT * FROM loky.result(loky.add_done_callback(:c, 't.call'));
SELECT who = current_user AS own, CASE WHEN who <> current_user THEN who END AS who FROM t.called ORDER BY n;

-- The depth goes on through them: ten levels, and not an eleventh.
CREATE FUNCTION t.descend(f bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.called (what, future) VALUES ('level', f);
    PERFORM loky.add_done_callback(loky.submit('SELECT 1'), 't.descend');
    RETURN 'went on';
EXCEPTION WHEN SQLSTATE 'LK005' THEN
    INSERT INTO t.called (what, future) VALUES ('bottom', f);
    RETURN 'bottom';
END$$;
TRUNCATE t.called;
SELECT loky.add_done_callback(loky.submit('SELECT 1'), 't.descend') > 0 AS ok;
SELECT t.until('count(*) = 1 FROM t.called WHERE what = ''bottom''');
SELECT what, count(*) FROM t.called GROUP BY 1 ORDER BY 1;

-- They run although the task that added them is cancelled.
CREATE FUNCTION t.adds() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    f bigint := loky.submit('t.pass', 5);
BEGIN
    PERFORM loky.add_done_callback(f, 't.call');
    PERFORM nextval('t.arrived');
    PERFORM loky.result(f);
END$$;
SELECT t.reset();
TRUNCATE t.called;
SELECT loky.submit('t.adds') AS a \gset
SELECT t.until('last_value = 2 FROM t.arrived');
SELECT loky.cancel(:a, running => true);
SELECT t.until('count(*) = 1 FROM t.called');
SELECT state FROM t.called;

-- Bad ones are refused at once.
SELECT state FROM t.error('SELECT loky.add_done_callback(' || :a || ', ''t.nope'')');
SELECT state FROM t.error('SELECT loky.add_done_callback(1000000000000, ''t.call'')');
SELECT state FROM t.error('SELECT loky.add_done_callback(NULL, ''t.call'')');
SELECT state FROM t.error('SELECT loky.add_done_callback(' || :a || ', NULL)');
SELECT t.clean();
SELECT loky.shutdown();
SET ROLE regress_loky_a;
SELECT loky.shutdown();
SELECT count(loky.forget(future)) > 0 AS ok FROM loky.tasks WHERE role = current_user;
SET ROLE regress_loky_b;
SELECT loky.shutdown();
SELECT count(loky.forget(future)) > 0 AS ok FROM loky.tasks WHERE role = current_user;
RESET ROLE;
DROP TABLE t.called;
REVOKE ALL ON SCHEMA loky, t FROM regress_loky_a, regress_loky_b;
DROP ROLE regress_loky_b, regress_loky_a;
