-- The initializer: what each new worker of an executor runs before its first task.

CREATE TABLE t.started (n int GENERATED ALWAYS AS IDENTITY, args text, who name DEFAULT current_user, pid int DEFAULT pg_backend_pid());
CREATE FUNCTION t.start(VARIADIC args text[] DEFAULT '{}') RETURNS void LANGUAGE sql
AS $$INSERT INTO t.started (args) VALUES (array_to_string(args, ',', 'null'))$$;
CREATE PROCEDURE t.start_proc(a int, b text) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.started (args) VALUES ('before ' || a);
    COMMIT;
    INSERT INTO t.started (args) VALUES ('after ' || b);
END$$;
-- a task that tells what was written when it began
CREATE FUNCTION t.seen() RETURNS text LANGUAGE sql VOLATILE
AS $$SELECT string_agg(args, ' | ' ORDER BY n) FROM t.started WHERE pid = pg_backend_pid()$$;
CREATE FUNCTION t.task(command text) RETURNS text LANGUAGE sql VOLATILE
AS $$SELECT string_agg(r, ' ') FROM loky.result(loky.submit(command)) r$$;

--
-- When it runs
--
-- F20: once in a worker, committed before its first task, as the executor's role
SELECT loky.get_reusable_executor(1, initializer => 't.start') AS e \gset
SELECT workers AS none_yet FROM loky.executors WHERE executor_id = :e;
SELECT count(*) AS not_yet FROM t.started;
SELECT t.task('t.seen') IS NOT NULL AS seen, t.task('t.seen') IS NOT NULL AS seen_again;
SELECT count(*), count(DISTINCT pid), bool_and(who = current_user) AS role FROM t.started;
-- the caller's rollback does not undo it
TRUNCATE t.started;
BEGIN;
SELECT loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW('x')) > 0 AS ok, t.task('t.seen');
ROLLBACK;
SELECT args FROM t.started;
-- S48: in each worker; three tasks that run at the same time have three
TRUNCATE t.started;
SELECT t.reset();
SELECT loky.get_reusable_executor(3, timeout => '50 ms', initializer => 't.start', initargs => ROW('S48')) AS e \gset
SELECT count(*) FROM loky.map('t.meet', ARRAY[1, 2, 3], args => ROW(3));
SELECT count(*), count(DISTINCT pid) FROM t.started;
-- and again in those that come after all have left (F29, S28)
SELECT t.until(format('workers = 0 FROM loky.executors WHERE executor_id = %s', :e));
SELECT t.reset();
SELECT count(*) FROM loky.map('t.meet', ARRAY[1, 2, 3], args => ROW(3));
SELECT count(*), count(DISTINCT pid) FROM t.started;
SELECT current_setting('loky.executor')::int = :e AS same_executor;
-- after kill_workers
TRUNCATE t.started;
SELECT loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW('k')) AS e \gset
SELECT t.task('SELECT 1');
SELECT loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW('k'), kill_workers => true) = :e AS same, t.task('t.seen');
SELECT count(*), count(DISTINCT pid) FROM t.started;
-- after a worker has died
SELECT sqlstate FROM loky.exception(loky.submit('SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)'));
SELECT t.task('t.seen');
SELECT count(*), count(DISTINCT pid) FROM t.started;

--
-- What it may be
--
-- F22: arguments of all types, untyped ones, nulls
SELECT loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW('a', 'b'::text, NULL)) > 0 AS ok, t.task('t.seen');
SELECT loky.get_reusable_executor(1, initializer => 'INSERT INTO t.started (args) SELECT concat_ws('';'', $1, $2, $3, $4, $5->''k'', $6.i, $7, coalesce($8, ''null''))',
    initargs => ROW(1, 2.50, 'text', ARRAY[[1, 2], [3, NULL]], '{"k": [1]}'::jsonb, ROW(7, 8)::t.log, date '2024-02-29', NULL)) > 0 AS ok, t.task('t.seen');
SELECT loky.get_reusable_executor(1, initializer => 'SELECT t.start($1::text)', initargs => ROW(ROW(1, ROW('in', NULL)))) > 0 AS ok, t.task('t.seen');
-- values are compared: two values are two executors
SELECT loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW('1')) AS one \gset
SELECT loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW('1')) = :one AS same,
       loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW('2')) <> :one AS other_value,
       loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW(NULL)) <> :one AS null_value,
       loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW('1', '1')) <> :one AS more,
       loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW()) <> :one AS fewer,
       loky.get_reusable_executor(1, initializer => 't.start') <> :one AS none,
       loky.get_reusable_executor(1, initargs => ROW('1')) <> :one AS no_initializer;
SELECT loky.get_reusable_executor(1, initializer => 't.start', initargs => ROW()) = loky.get_reusable_executor(1, initializer => 't.start') AS nothing_is_none;
SELECT state FROM t.error($$SELECT loky.get_reusable_executor(1, initializer => 'start')$$);
SET search_path = t, public;
SELECT loky.get_reusable_executor(1, initializer => 'start', initargs => ROW('1')) = :one AS same_function;
RESET search_path;
-- a procedure, which may commit
SELECT loky.get_reusable_executor(1, initializer => 't.start_proc', initargs => ROW(1, 'x')) > 0 AS ok, t.task('t.seen');
-- several statements; a query whose rows nobody reads; a block; what cannot run in a transaction block; its own transaction
SELECT loky.get_reusable_executor(1, initializer => 'SELECT t.start(''first''); SELECT t.start(''second''); VALUES (1)') > 0 AS ok, t.task('t.seen');
SELECT loky.get_reusable_executor(1, initializer => 'SELECT t.start(i::text) FROM generate_series(1, 3) i') > 0 AS ok, t.task('t.seen');
SELECT loky.get_reusable_executor(1, initializer => 'DO ''BEGIN PERFORM t.start(''''in a block''''); END''') > 0 AS ok, t.task('t.seen');
SELECT loky.get_reusable_executor(1, initializer => 'VACUUM t.log') > 0 AS ok, t.task('SELECT 1');
SELECT loky.get_reusable_executor(1, initializer => 'BEGIN; SELECT t.start(''own transaction''); COMMIT') > 0 AS ok, t.task('t.seen');
-- a set-returning function; one with an OUT row
SELECT loky.get_reusable_executor(1, initializer => 'generate_series', initargs => ROW(1, 3)) > 0 AS ok, t.task('SELECT 1');
SELECT loky.get_reusable_executor(1, initializer => 't.error', initargs => ROW('SELECT t.start(''of t.error'')')) > 0 AS ok, t.task('t.seen');
-- names are looked up when the executor is made, and for statements in its search_path
SET search_path = t, public;
SELECT loky.get_reusable_executor(1, initializer => 'SELECT start(''by the path'')') > 0 AS ok;
SET search_path = public;
SELECT t.task('t.seen'), t.task('SHOW search_path');
RESET search_path;
-- (the path of another session makes no other executor)
SELECT loky.get_reusable_executor(1, initializer => 'SELECT start(''by the path'')') = current_setting('loky.executor')::int AS same;
-- refused at the call
SELECT i, (SELECT state || ': ' || message || CASE WHEN hint <> '' THEN ' (hinted)' ELSE '' END FROM t.error(format('SELECT loky.get_reusable_executor(1, initializer => %s)', i)))
FROM unnest(ARRAY['''t.nope''', '''t.start_proc''', '''t.start'', initargs => ROW(1)', '''t.id'', initargs => ROW(1, 2)', '''t.id'', initargs => NULL::t.log',
    '''SELEC 1''', '''''', '''  -- nothing''', '''SELECT $1; SELECT $1'', initargs => ROW(1)', '''COPY t.log FROM STDIN''', '''COPY t.log TO STDOUT''']) i;

--
-- What it leaves
--
-- env and settings of the executor are in force; the caller's session's are not
SET my.caller = 'the caller''s';
SET work_mem = '5MB';
SELECT loky.get_reusable_executor(1, env => '{"A": "of env"}', settings => '{"my.setting": "of settings"}',
    initializer => 'SELECT t.start(loky.getenv(''A''), current_setting(''my.setting''), current_setting(''my.caller'', true), current_setting(''work_mem''))') > 0 AS ok;
SELECT t.task('t.seen');
RESET my.caller;
RESET work_mem;
-- temporary tables, prepared statements and custom settings stay, locks do not
SELECT loky.get_reusable_executor(1, initializer => 'CREATE TEMP TABLE cache AS SELECT 42 AS i; PREPARE p AS SELECT 43; SET my.own = ''44''; SELECT pg_advisory_lock(4711)') > 0 AS ok;
SELECT t.task('SELECT i FROM cache'), t.task('EXECUTE p'), t.task('SHOW my.own'), t.task('SELECT count(*) FROM pg_locks WHERE locktype = ''advisory'' AND objid = 4711') AS locks;
-- its SETs are the executor's: RESET and a failed task go back to them
SELECT loky.get_reusable_executor(1, initializer => 'SET work_mem = ''9MB''; SET LOCAL temp_buffers = ''2MB''; SET lock_timeout = ''7s''; SET search_path = ''nowhere''; SET my.own = ''mine''') > 0 AS ok;
SELECT t.task('SHOW work_mem'), t.task('SHOW lock_timeout'), t.task('SHOW my.own'), t.task('SHOW search_path'), t.task('SHOW temp_buffers') = current_setting('temp_buffers') AS local_is_gone;
SELECT t.task('SET work_mem = ''1MB''; SHOW work_mem') AS own, t.task('SHOW work_mem') AS next;
SELECT t.task('RESET work_mem; SHOW work_mem'), t.task('RESET ALL; SHOW work_mem'), t.task('DISCARD ALL'), t.task('SHOW work_mem');
SELECT t.task('DO ''BEGIN SET work_mem = ''''1MB''''; COMMIT; END''') AS commits, t.task('SHOW work_mem');
SELECT state FROM t.error($$SELECT t.task('SET work_mem = ''1MB''; SELECT 1 / 0')$$);
SELECT t.task('SHOW work_mem'), t.task('SHOW lock_timeout');
-- a caller's own SET wins for the caller's tasks
SET work_mem = '3MB';
SELECT t.task('SHOW work_mem'), t.task('RESET work_mem; SHOW work_mem') AS as_reset;
RESET work_mem;
SELECT t.task('SHOW work_mem');
BEGIN;
SET LOCAL work_mem = '4MB';
SELECT t.task('SHOW work_mem');
ROLLBACK;
SELECT t.task('SHOW work_mem');
-- not over what the argument settings names; there the initializer has the last word
SELECT loky.get_reusable_executor(1, initializer => 'SET work_mem = ''9MB''', settings => '{"work_mem": "8MB"}') > 0 AS ok, t.task('SHOW work_mem');
SET work_mem = '3MB';
SELECT t.task('SHOW work_mem');
RESET work_mem;
-- the role and the session's defaults of a transaction
CREATE ROLE regress_loky_init;
GRANT regress_loky_init TO CURRENT_USER;
SELECT loky.get_reusable_executor(1, initializer => 'SET ROLE regress_loky_init; SET SESSION AUTHORIZATION regress_loky_init; SET default_transaction_isolation = serializable') > 0 AS ok;
SELECT t.task('SELECT current_user') = current_user AS own_role, t.task('SELECT session_user') = current_user AS own_session, t.task('SHOW transaction_isolation');
-- it has the rights of the executor's role, no more
GRANT USAGE ON SCHEMA loky, t TO regress_loky_init;
GRANT INSERT, SELECT ON t.started TO regress_loky_init;
SET ROLE regress_loky_init;
SELECT loky.get_reusable_executor(1, initializer => 'SET lock_timeout = ''8s''; INSERT INTO t.started (args) VALUES (session_user)') > 0 AS ok, t.task('t.seen'), t.task('SHOW lock_timeout');
SELECT loky.get_reusable_executor(1, initializer => 'SET log_min_messages = debug5') > 0 AS ok;
SELECT state, detail FROM t.error($$SELECT t.task('SELECT 1')$$);
RESET ROLE;
-- F26: a library that it loads is there for the tasks
SELECT loky.get_reusable_executor(1, initializer => 'LOAD ''auto_explain''; SET auto_explain.log_format = json') > 0 AS ok, t.task('SHOW auto_explain.log_format');

--
-- It fails
--
-- F21, S47: everything pending fails with its error in the detail
SELECT loky.get_reusable_executor(2, initializer => 't.bad', initargs => ROW(7)) AS e \gset
SELECT loky.submit_all('t.id', ARRAY[1, 2, 3]) AS fs \gset
SELECT state, count(*) FROM loky.wait(:'fs') GROUP BY state;
SELECT DISTINCT e.* FROM unnest(:'fs'::bigint[]) f, loky.exception(f) e;
SELECT state, count(*) FROM loky.tasks WHERE future = ANY (:'fs') AND sqlstate = 'LK002' GROUP BY state;
SELECT state AS executor_is FROM loky.executors WHERE executor_id = :e AND state = 'open';
-- the next call with a good one works
SELECT loky.get_reusable_executor(2, initializer => 't.id', initargs => ROW(7)) > :e AS another;
SELECT * FROM loky.map('t.id', ARRAY[1, 2, 3]);
-- how it can fail, and what callers see
CREATE FUNCTION t.fails(initializer text, OUT result text, OUT detail text, OUT map text, OUT map_context text, OUT try_map text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM loky.get_reusable_executor(2, initializer => initializer);
    SELECT e.state, replace(e.detail, E'\n', '/') INTO result, detail FROM t.error('SELECT * FROM loky.result(loky.submit(''t.id'', 1))') e;
    SELECT e.state, substring(e.context from '^(.*)\nSQL statement "SELECT \* FROM loky') INTO map, map_context FROM t.error('SELECT * FROM loky.map(''t.id'', ARRAY[1, 2])') e;
    SELECT string_agg(e.ord || ' ' || e.ok || ' ' || e.sqlstate, ', ' ORDER BY e.ord) INTO try_map FROM loky.try_map('t.id', ARRAY[1, 2]) e;
END$$;
SELECT i AS initializer, f.result, f.detail, f.map, f.try_map FROM unnest(ARRAY['SELECT 1 / 0', 'SELECT * FROM t.nope', 'SET work_mem = ''x''', 'SELECT 1; SELECT 2; SELECT t.bad(8)',
    'BEGIN', 'BEGIN; SELECT t.start(''open'')', 'SAVEPOINT s', 'DO ''BEGIN COMMIT; PERFORM t.bad(9); END''', 'SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)', 'SET statement_timeout = ''50ms''; SELECT pg_sleep(60)',
    'DO ''BEGIN RAISE SQLSTATE ''''LK001''''; END''', 'LISTEN loky_init', 'SELECT loky.result(-1)']) i, t.fails(i) f;
SELECT count(*) AS undone FROM t.started WHERE args = 'open';
-- S46: it ends its own worker
SELECT result, detail, map, try_map FROM t.fails('SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)');
-- a deferred trigger fails its commit
CREATE TABLE t.deferred (i int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
INSERT INTO t.deferred VALUES (1);
SELECT result, detail FROM t.fails('INSERT INTO t.deferred VALUES (1)');
-- what it was given is dropped later
CREATE FUNCTION t.dropped() RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT loky.get_reusable_executor(1, initializer => 't.dropped') AS e \gset
SELECT t.task('SELECT 1');
DROP FUNCTION t.dropped();
SELECT t.task('SELECT 2') AS the_worker_lives;
SELECT loky.get_reusable_executor(1, reuse => 'true', kill_workers => true) = :e AS same;
SELECT state, detail FROM t.error($$SELECT t.task('SELECT 3')$$);
SELECT state FROM t.error($$SELECT loky.get_reusable_executor(1, initializer => 't.dropped')$$);
-- S07: a broken one is made anew with its configuration, by this call or the next submit
CREATE TABLE t.switch (broken boolean);
INSERT INTO t.switch VALUES (true);
CREATE FUNCTION t.start_unless_broken(a text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT broken FROM t.switch) THEN
        RAISE EXCEPTION 'broken';
    END IF;
    PERFORM t.start(a);
END$$;
SELECT loky.get_reusable_executor(2, timeout => '42 s', initializer => 't.start_unless_broken', initargs => ROW('S07'), env => '{"A": "S07"}') AS e \gset
SELECT sqlstate, detail FROM loky.exception(loky.submit('SELECT 1'));
SELECT loky.get_reusable_executor(reuse => 'true') > :e AS anew;
SELECT max_workers, timeout, state FROM loky.executors WHERE executor_id = current_setting('loky.executor')::int;
SELECT sqlstate FROM loky.exception(loky.submit('SELECT 1'));
UPDATE t.switch SET broken = false;
SELECT t.task('t.seen'), t.task('SELECT loky.getenv(''A'')');
-- S33: it fails only in a later worker; what is submitted then hears of it
SELECT loky.get_reusable_executor(1, timeout => '20 ms', initializer => 't.start_unless_broken', initargs => ROW('S33')) AS e \gset
SELECT t.task('t.seen');
SELECT t.until(format('workers = 0 FROM loky.executors WHERE executor_id = %s', :e));
UPDATE t.switch SET broken = true;
SELECT state, detail FROM t.error($$SELECT t.task('t.seen')$$);
UPDATE t.switch SET broken = false;
SELECT t.task('t.seen');
-- what runs while it breaks goes on, what is pending fails, what is done stays
SELECT t.reset();
SELECT loky.get_reusable_executor(1, initializer => 't.start_unless_broken', initargs => ROW('running')) AS e \gset
SELECT loky.submit('SELECT ''done''') AS done \gset
SELECT state FROM loky.wait(ARRAY[:done]);
SELECT loky.submit('t.pass', 1) AS running \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.submit_all('t.id', ARRAY[1, 2]) AS pending \gset
UPDATE t.switch SET broken = true;
SELECT loky.get_reusable_executor(2, reuse => 'true') = :e AS grown;
SELECT state, count(*) FROM loky.wait(:'pending') GROUP BY state;
SELECT loky.state(:running), state AS executor_is, running FROM loky.executors WHERE executor_id = :e;
-- shutting down what is broken is harmless, and kills nothing that is asked to go on
SELECT loky.shutdown(wait => false), loky.shutdown(wait => false);
SELECT setval('t.gate', 1);
SELECT * FROM loky.result(:running);
SELECT * FROM loky.result(:done);
UPDATE t.switch SET broken = false;
SELECT t.task('t.seen');

--
-- While it runs
--
-- S48b: waiting can be given up, what is pending can be cancelled
SELECT t.reset();
SELECT loky.get_reusable_executor(1, initializer => 't.pass', initargs => ROW(1)) AS e \gset
SELECT loky.submit('t.id', 1) AS f, loky.submit('t.id', 2) AS g \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.state(:f), state AS worker_is, w.task FROM loky.workers w WHERE executor_id = :e;
SELECT state FROM t.error('SELECT * FROM loky.result(' || :f || ', timeout => ''50 ms'')');
SET statement_timeout = '50 ms';
SELECT state FROM t.error('SELECT * FROM loky.result(' || :f || ')');
SELECT state FROM t.error('SELECT * FROM loky.map(''t.id'', ARRAY[1])');
RESET statement_timeout;
SELECT state FROM t.error('SELECT * FROM loky.map(''t.id'', ARRAY[1], timeout => ''50 ms'')');
SELECT loky.cancel(:f), loky.state(:f);
SELECT setval('t.gate', 1);
SELECT * FROM loky.result(:g);
SELECT loky.state(:f);
-- the executor can be killed, and the worker that it runs in ends, which is no failure
SELECT t.reset();
SELECT loky.get_reusable_executor(1, initializer => 't.pass', initargs => ROW(2)) AS e \gset
SELECT loky.submit('t.id', 1) AS f \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.shutdown(kill_workers => true);
SELECT state FROM loky.wait(ARRAY[:f]);
SELECT t.until(format('NOT EXISTS (SELECT FROM loky.workers WHERE executor_id = %s)', :e), 2000);
SELECT state AS executor_is FROM loky.executors WHERE executor_id = :e AND state = 'broken';
-- with kill_workers it runs anew, and what is pending waits for that
SELECT t.reset();
SELECT loky.get_reusable_executor(1, initializer => 't.pass', initargs => ROW(3)) AS e \gset
SELECT loky.submit('t.id', 1) AS f \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.get_reusable_executor(1, initializer => 't.pass', initargs => ROW(3), kill_workers => true) = :e AS same;
SELECT t.until('last_value = 2 FROM t.arrived');
SELECT setval('t.gate', 3);
SELECT * FROM loky.result(:f);

--
-- An initializer that uses loky
--
-- not its own executor
SELECT result, detail FROM unnest(ARRAY['SELECT loky.submit(''SELECT 1'')', 'SELECT * FROM loky.map(''t.id'', ARRAY[1])', 'SELECT loky.submit_all(''t.id'', ARRAY[1])']) i, t.fails(i);
-- another one
SELECT loky.get_reusable_executor(1, timeout => '63 s') AS other \gset
SELECT loky.get_reusable_executor(1, initializer => 'SELECT t.start(string_agg(r, '' '')) FROM loky.map(''t.id'', ARRAY[1, 2], executor => ' || :other || ') r') > 0 AS ok, t.task('t.seen');
SELECT loky.get_reusable_executor(1, initializer => 'SELECT loky.get_reusable_executor(1, timeout => ''63 s''); SELECT t.start(current_setting(''loky.executor''))') > 0 AS ok, t.task('t.seen') = :'other' AS other;
-- an error that comes from there is that of the initializer
SELECT result, detail FROM t.fails('SELECT * FROM loky.map(''t.bad'', ARRAY[1, 2], executor => ' || :other || ')');

RESET loky.executor;
DROP OWNED BY regress_loky_init;
DROP ROLE regress_loky_init;
DROP TABLE t.deferred, t.switch;
SELECT t.clean();
DROP FUNCTION t.task(text);
