-- What a task has from its caller's session, and what it leaves behind.

SELECT loky.get_reusable_executor(1) > 0 AS one_worker;
CREATE FUNCTION t.task(command text) RETURNS text LANGUAGE sql VOLATILE
AS $$SELECT string_agg(r, ' ') FROM loky.result(loky.submit(command)) r$$;
CREATE FUNCTION t.show_in_task(name text) RETURNS text LANGUAGE sql VOLATILE
AS $$SELECT r FROM loky.result(loky.submit('SELECT current_setting($1, true)', name)) r$$;
SELECT t.task('SELECT pg_backend_pid()') AS pid \gset

-- Settings of the session come along: SET and SET LOCAL, and are gone with them.
SET work_mem = '7MB';
SELECT t.show_in_task('work_mem');
BEGIN;
SET LOCAL work_mem = '8MB';
SELECT t.show_in_task('work_mem');
ROLLBACK;
SELECT t.show_in_task('work_mem');
RESET work_mem;
SELECT t.show_in_task('work_mem') = current_setting('work_mem') AS as_here;
SET search_path = t, public;
SELECT t.show_in_task('search_path'), task('SELECT id(5)');
RESET search_path;
SET timezone = 'Asia/Tokyo';
SELECT t.task($$SELECT timestamptz '2024-01-01 00:00+00'$$);
RESET timezone;
SET my.custom = 'from the caller';
SELECT t.show_in_task('my.custom');
-- numbers to the last digit, and each change of one
CREATE TABLE t.one_page (i int);
INSERT INTO t.one_page VALUES (1);
VACUUM t.one_page;
SET cursor_tuple_fraction = 0.3;
SET seq_page_cost = 12345678901234568;
SELECT t.show_in_task('cursor_tuple_fraction'), t.task('EXPLAIN SELECT * FROM t.one_page') ~ '[.][.]12345678901234568[.]00 ' AS exact;
SET seq_page_cost = 12345678901234570;
SELECT t.task('EXPLAIN SELECT * FROM t.one_page') ~ '[.][.]12345678901234570[.]00 ' AS exact;
RESET seq_page_cost;
RESET cursor_tuple_fraction;
SELECT t.show_in_task('seq_page_cost') = current_setting('seq_page_cost') AS as_here;
-- however many there are
DO $$BEGIN
    FOR i IN 1 .. 200 LOOP
        PERFORM set_config('many.s' || i, 'value ' || i, false);
    END LOOP;
END$$;
SELECT t.task($_$SELECT count(*) FROM generate_series(1, 200) i WHERE current_setting('many.s' || i) = 'value ' || i$_$);
DO $$BEGIN
    FOR i IN 1 .. 200 LOOP
        PERFORM set_config('many.s' || i, NULL, false);
    END LOOP;
END$$;
BEGIN;
SET LOCAL default_transaction_isolation = 'repeatable read';
SELECT t.task('SHOW transaction_isolation');
COMMIT;
SELECT t.task('SHOW transaction_isolation');
SET statement_timeout = '500 ms';
SELECT loky.submit('SELECT pg_sleep(20)') AS f \gset
RESET statement_timeout;
SELECT state, message FROM t.error('SELECT * FROM loky.result(' || :f || ')');
SELECT t.task('SELECT pg_sleep(0.6)');
-- not these
SET application_name = 'somebody';
SELECT t.show_in_task('application_name') <> 'somebody' AS its_own;
RESET application_name;
SET client_encoding = 'LATIN1';
SELECT t.show_in_task('client_encoding') = current_setting('server_encoding') AS its_own, t.task($$SELECT 'é'$$) = 'é' AS same_text;
RESET client_encoding;
BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE;
SELECT t.task('SHOW transaction_isolation');
COMMIT;
-- of functions with SET, and of the database
CREATE FUNCTION t.with_set() RETURNS text LANGUAGE sql VOLATILE SET work_mem = '9MB'
AS $$SELECT t.show_in_task('work_mem')$$;
SELECT t.with_set(), t.show_in_task('work_mem') = current_setting('work_mem') AS as_here;

-- What a task leaves behind is put back before the next.
CREATE FUNCTION t.here(what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r text;
BEGIN
    EXECUTE what INTO r;
    RETURN r;
END$$;
CREATE TABLE t.left_behind (n int GENERATED ALWAYS AS IDENTITY, command text, look text);
INSERT INTO t.left_behind (command, look) VALUES
    ('SET statement_timeout = ''1ms''', 'SHOW statement_timeout'),
    ('SET search_path = ''''', 'SHOW search_path'),
    ('SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY', 'SHOW transaction_read_only'),
    ('SET default_transaction_read_only = on', 'SHOW transaction_read_only'),
    ('SET default_transaction_isolation = serializable', 'SHOW transaction_isolation'),
    ('SET work_mem = ''3MB''; SELECT 1', 'SHOW work_mem'),
    ('SET datestyle = ''German''', 'SELECT date ''2024-02-01'''),
    ('SELECT set_config(''timezone'', ''Asia/Tokyo'', false)', 'SHOW timezone'),
    ('DO ''BEGIN PERFORM set_config(''''work_mem'''', ''''4MB'''', false); COMMIT; END''', 'SHOW work_mem'),
    ('SET ROLE pg_monitor', 'SELECT current_user = session_user'),
    ('SET SESSION AUTHORIZATION pg_monitor', 'SELECT current_user = session_user AND current_user <> ''pg_monitor'''),
    ('LISTEN loky_left', 'SELECT count(*) FROM pg_listening_channels()'),
    ('SELECT pg_advisory_lock(4711)', 'SELECT count(*) FROM pg_locks WHERE locktype = ''advisory'' AND objid = 4711'),
    ('SELECT pg_advisory_lock_shared(4711), 1 / 0', 'SELECT count(*) FROM pg_locks WHERE locktype = ''advisory'' AND objid = 4711'),
    ('DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 10)', 'SELECT count(*) FROM pg_cursors WHERE name = ''c'''),
    ('BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH c', 'SELECT count(*) FROM pg_cursors WHERE name = ''c'''),
    ('BEGIN; LOCK TABLE t.log', 'SELECT count(*) FROM pg_locks WHERE relation = ''t.log''::regclass'),
    ('SET CONSTRAINTS ALL DEFERRED', 'SELECT 1'),
    ('SET LOCAL work_mem = ''5MB''; SELECT 1', 'SHOW work_mem'),
    ('SET TIME ZONE INTERVAL ''-08:00'' HOUR TO MINUTE', 'SHOW timezone'),
    ('SELECT setseed(0.5)', 'SELECT 1'),
    ('SET session_replication_role = replica', 'SHOW session_replication_role'),
    ('SET client_min_messages = error', 'SHOW client_min_messages'),
    ('SET jit = off; SET enable_sort = off; SELECT 1 / 0', 'SHOW enable_sort'),
    ('DISCARD ALL', 'SHOW search_path'),
    ('DISCARD PLANS', 'SELECT t.id(1)'),
    ('RESET ALL', 'SHOW search_path'),
    ('DEALLOCATE ALL', 'SELECT t.id(1)'),
    ('CLOSE ALL', 'SELECT t.id(1)'),
    ('UNLISTEN *', 'SELECT t.id(1)');
-- What the next task sees is what a fresh session with the caller's settings sees.
CREATE FUNCTION t.check_left(command text, look text, OUT left_behind text, OUT fresh text) LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        PERFORM * FROM loky.result(loky.submit(command));
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    left_behind := t.task(look);
    fresh := t.here(look);
END$$;
SELECT command, left_behind FROM t.left_behind, t.check_left(command, look) c WHERE left_behind IS DISTINCT FROM fresh ORDER BY n;
SELECT count(*) AS checked FROM t.left_behind;
SELECT t.task('SELECT pg_backend_pid()') = :'pid' AS same_worker;
-- also where the next caller is another session with other settings
SELECT t.task('SET work_mem = ''3MB''');
\c -
SET work_mem = '6MB';
SELECT loky.get_reusable_executor(1) > 0 AS one_worker;
SELECT t.task('SELECT pg_backend_pid()') = :'pid' AS same_worker, t.show_in_task('work_mem');
\c -
SELECT loky.get_reusable_executor(1) > 0 AS one_worker;
SELECT t.task('SELECT pg_backend_pid()') = :'pid' AS same_worker, t.show_in_task('work_mem') = current_setting('work_mem') AS as_here;

-- These stay for the next task in the same worker.
SELECT t.task('CREATE TEMP TABLE kept AS SELECT 42 AS i');
SELECT t.task('SELECT i FROM kept');
SELECT t.task('SET my.kept = ''yes''');
SELECT t.show_in_task('my.kept');
-- not what was set for the transaction only
SELECT t.task('SET my.kept = ''still''; SET LOCAL my.kept = ''not for long''; SHOW my.kept');
SELECT t.show_in_task('my.kept');
-- a caller's own go before them
SELECT t.task('SET my.kept_too = ''too''');
BEGIN;
SET LOCAL my.kept = 'mine';
SAVEPOINT s;
SET LOCAL my.kept_too = 'mine too';
SELECT t.show_in_task('my.kept'), t.show_in_task('my.kept_too');
ROLLBACK TO s;
SELECT t.show_in_task('my.kept'), t.show_in_task('my.kept_too');
ROLLBACK;
SELECT t.show_in_task('my.kept'), t.show_in_task('my.kept_too');
SELECT t.task('PREPARE kept AS SELECT 43');
SELECT t.task('EXECUTE kept');
SELECT t.task('DROP TABLE kept');

--
-- The role
--
CREATE ROLE regress_loky_worker NOLOGIN;
CREATE ROLE regress_loky_owner NOLOGIN;
CREATE ROLE regress_loky_other NOLOGIN;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_worker, regress_loky_owner;
ALTER ROLE regress_loky_worker SET my.of_role = 'set for the role';
CREATE TABLE t.secret (s text);
INSERT INTO t.secret VALUES ('secret');
SET ROLE regress_loky_worker;
SELECT t.task('SELECT current_user || '' '' || session_user || '' '' || (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)::text');
SELECT t.show_in_task('my.of_role');
SELECT state FROM t.error($$SELECT t.task('SELECT * FROM t.secret')$$);
-- it cannot become more than it is
SELECT c, (SELECT state FROM t.error(format('SELECT t.task(%L)', c))) FROM unnest(ARRAY[
    'RESET ROLE; SELECT * FROM t.secret',
    'SET ROLE NONE; SELECT * FROM t.secret',
    'SET ROLE regress_loky_other',
    'RESET SESSION AUTHORIZATION; SELECT * FROM t.secret',
    'SET SESSION AUTHORIZATION DEFAULT; SELECT * FROM t.secret',
    'SET SESSION AUTHORIZATION regress_loky_other',
    'DISCARD ALL',
    'SET session_authorization = regress_loky_owner',
    'ALTER ROLE regress_loky_worker SUPERUSER',
    'SET is_superuser = on',
    'CREATE ROLE regress_loky_more',
    'SET log_min_messages = panic',
    'COPY t.secret FROM PROGRAM ''true''']) c;
SELECT format('SET SESSION AUTHORIZATION %I', rolname) AS c FROM pg_roles WHERE oid = 10 \gset
SELECT state FROM t.error(format('SELECT t.task(%L)', :'c'));
SELECT t.task('SELECT current_user');
RESET ROLE;
-- the caller's right is that of the current_user, not of the session
SELECT t.task('SELECT current_user') = current_user AS myself;
-- a SECURITY DEFINER function's tasks run as its owner, in the owner's default executor
GRANT SELECT ON t.secret TO regress_loky_owner;
CREATE FUNCTION t.definer(OUT who text, OUT secret text) LANGUAGE sql VOLATILE SECURITY DEFINER
AS $$SELECT t.task('SELECT current_user'), t.task('SELECT s FROM t.secret')$$;
ALTER FUNCTION t.definer() OWNER TO regress_loky_owner;
SET ROLE regress_loky_worker;
SELECT loky.get_reusable_executor(1, settings => '{"work_mem": "1MB"}') > 0 AS ok;
SELECT * FROM t.definer();
SELECT t.show_in_task('work_mem');
RESET ROLE;
-- an executor of another role does not count
SELECT current_setting('loky.executor') AS of_worker \gset
SELECT t.show_in_task('work_mem') = current_setting('work_mem') AS not_in_it, t.task('SELECT current_user') = current_user AS myself;
SELECT state FROM t.error(format($$SELECT loky.submit_all('SELECT $1', ARRAY[1], executor => %s)$$, :of_worker));
RESET loky.executor;
-- A security-restricted operation may not use it: the owner of an index could
-- leave a trap for whoever builds it.
CREATE FUNCTION t.trap(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM loky.submit('SELECT 1');
    RETURN x;
END$$;
CREATE FUNCTION t.trap_map(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE
AS $$BEGIN RETURN (SELECT sum(r) FROM loky.map('SELECT $1', ARRAY[x], NULL::int) r); END$$;
CREATE FUNCTION t.trap_executor(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE
AS $$BEGIN RETURN loky.get_reusable_executor(1); END$$;
CREATE FUNCTION t.trap_shutdown(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE
AS $$BEGIN PERFORM loky.shutdown(false); RETURN 1; END$$;
CREATE FUNCTION t.trap_cancel(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE
AS $$BEGIN PERFORM loky.cancel(1); RETURN 1; END$$;
CREATE TABLE t.trapped (x int);
INSERT INTO t.trapped VALUES (1);
SELECT f, (SELECT state FROM t.error(format('CREATE INDEX ON t.trapped (t.%s(x))', f)))
FROM unnest('{trap,trap_map,trap_executor,trap_shutdown,trap_cancel}'::text[]) f;
-- A result of another role is converted as that role: its cast does not run as
-- the reader.
GRANT CREATE, USAGE ON SCHEMA t TO regress_loky_other;
GRANT USAGE ON SCHEMA loky TO regress_loky_other;
SET ROLE regress_loky_other;
CREATE TYPE t.sly AS (a int);
CREATE FUNCTION t.sly_text(t.sly) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN current_user; END$$;
CREATE CAST (t.sly AS text) WITH FUNCTION t.sly_text(t.sly) AS ASSIGNMENT;
SELECT loky.submit('SELECT ROW(1)::t.sly') AS f \gset
RESET ROLE;
SELECT * FROM loky.result(:f);
DROP CAST (t.sly AS text);
-- A worker's rights are those of now: the role is dropped, altered.
SELECT t.clean();
ALTER ROLE regress_loky_worker SUPERUSER;
SET ROLE regress_loky_worker;
SELECT t.task('SELECT s FROM t.secret');
RESET ROLE;
ALTER ROLE regress_loky_worker NOSUPERUSER;
SET ROLE regress_loky_worker;
SELECT state FROM t.error($$SELECT t.task('SELECT s FROM t.secret')$$);
RESET ROLE;
ALTER ROLE regress_loky_worker RENAME TO regress_loky_renamed;
SET ROLE regress_loky_renamed;
SELECT t.task('SELECT current_user');
RESET ROLE;
SELECT t.clean();
DROP OWNED BY regress_loky_renamed, regress_loky_owner, regress_loky_other;
DROP ROLE regress_loky_renamed, regress_loky_owner, regress_loky_other;
RESET loky.executor;
SELECT t.clean();
