-- What a role may not read of others, and what it may not plant for others to read.

SELECT current_user AS superuser \gset
CREATE ROLE regress_loky_app;
CREATE ROLE regress_loky_evil;
CREATE ROLE regress_loky_member IN ROLE regress_loky_app;
CREATE ROLE regress_loky_files IN ROLE pg_read_server_files;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_app, regress_loky_evil, regress_loky_member, regress_loky_files;

--
-- Futures of another role: nothing but that they are there
--
SET ROLE regress_loky_app;
SELECT loky.submit_task('SELECT ''secret'' || $1', ROW('x'::text), label => 'secret label') AS f \gset
SELECT done FROM loky.wait(ARRAY[:f]);
SELECT loky.submit_task('SELECT ''pending secret''', key => 'secret key', delay => '1 hour') AS p \gset
SELECT loky.submit('SELECT 1 / 0 AS secret') AS e \gset
SELECT done FROM loky.wait(ARRAY[:e]);
SELECT count(*) FROM loky.map('SELECT ''secret'' || $1', ARRAY[1, 2], label => 'secret label');
SET ROLE regress_loky_evil;
SELECT c, string_agg(DISTINCT state, ' ') AS states
FROM unnest(ARRAY['SELECT loky.state(%s)', 'SELECT loky.done(%s)', 'SELECT loky.running(%s)', 'SELECT loky.cancelled(%s)',
    'SELECT loky.cancel(%s)', 'SELECT loky.cancel(%s, running => true)', 'SELECT loky.forget(%s)',
    'SELECT * FROM loky.result(%s)', 'SELECT loky.result(%s, timeout => ''0'')', 'SELECT * FROM loky.result(%s, NULL::jsonb)',
    'SELECT * FROM loky.exception(%s)', 'SELECT * FROM loky.exception(%s, ''0'')',
    'SELECT * FROM loky.wait(ARRAY[%s])', 'SELECT * FROM loky.wait(ARRAY[%s], ''0'', ''FIRST_COMPLETED'')',
    'SELECT * FROM loky.as_completed(ARRAY[%s], ''0'')', 'SELECT loky.add_done_callback(%s, ''SELECT 1'')',
    'SELECT loky.submit_task(''SELECT 1'', after => ARRAY[%s])',
    'SELECT loky.submit_task(''SELECT 1'', after => ARRAY[%s], on_commit => true)']) WITH ORDINALITY u(c, n),
    unnest(ARRAY[:f, :p, :e]) f, t.error(format(c, f)) GROUP BY n, c ORDER BY n;
SELECT future = :p AS pending, task, label, key, state, message FROM loky.tasks WHERE role = 'regress_loky_app' ORDER BY future;
-- in no view, and in no picture
SELECT count(*) > 0 AS rows, count(*) FILTER (WHERE x::text ~ 'secret') AS secrets FROM loky.tasks x;
SELECT count(*) > 0 AS rows, count(*) FILTER (WHERE x::text ~ 'secret') AS secrets FROM loky.workers x;
SELECT count(*) > 0 AS rows, count(*) FILTER (WHERE x::text ~ 'secret') AS secrets FROM loky.stats x;
SELECT count(*) FILTER (WHERE x::text ~ 'secret') AS secrets FROM loky.progress x;
SELECT count(*) FILTER (WHERE x::text ~ 'secret') AS secrets FROM loky.executors x;
SELECT loky.trace()::text ~ 'secret' AS in_trace, loky.timeline_svg() ~ 'secret' AS in_picture;
SELECT count(*) FILTER (WHERE x ~ 'secret') AS in_timeline FROM loky.timeline() x;
SELECT count(*) > 0 AS rows, count(*) FILTER (WHERE x::text ~ 'secret') AS secrets FROM pg_stat_activity x WHERE backend_type = 'loky worker';
-- nor is a key shared with another role's: this one would wait for an hour
SELECT loky.submit_task('SELECT ''mine''', key => 'secret key') AS k \gset
SELECT * FROM loky.result(:k);
SET ROLE regress_loky_app;
SELECT loky.cancel(:p);
RESET ROLE;

--
-- The server's environment, tables, settings
--
SELECT loky.getenv('PATH') IS NOT NULL AS a_superuser;
SET ROLE regress_loky_files;
SELECT loky.getenv('PATH') IS NOT NULL AS one_who_reads_files, loky.run('SELECT loky.getenv(''PATH'') IS NOT NULL') AS in_task;
SET ROLE regress_loky_evil;
SELECT state, message, hint <> '' AS hinted FROM t.error('SELECT loky.getenv(''PATH'')');
SELECT state, message FROM t.error('SELECT * FROM loky.run(''SELECT loky.getenv(''''PATH'''')'')');
SELECT state FROM t.error('SELECT * FROM loky.map(''loky.getenv'', ARRAY[''PATH''])');
SELECT loky.getenv('LOKY_NO_SUCH') IS NULL AS unset;
RESET ROLE;
SET loky.env_allowed = 'LOKY_A*';
SET loky.env = '{"LOKY_B": "of all"}';
SET ROLE regress_loky_evil;
SELECT loky.run('SELECT loky.getenv(''LOKY_B'')') AS of_every_executor;
SELECT loky.get_reusable_executor(1, env => '{"LOKY_AA": "mine"}') > 0 AS ok;
SELECT loky.run('SELECT loky.getenv(''LOKY_AA'')') AS of_mine;
RESET ROLE;
RESET loky.env_allowed;
RESET loky.env;
RESET loky.executor;

-- Whoever may not read a table may not lock it, nor learn its keys.
CREATE TABLE t.closed (id int PRIMARY KEY, other int);
INSERT INTO t.closed SELECT i, i FROM generate_series(1, 10) i;
ANALYZE t.closed;
SET ROLE regress_loky_evil;
SELECT c, state FROM unnest(ARRAY['SELECT * FROM loky.table_chunks(''t.closed'')', 'SELECT * FROM loky.key_chunks(''t.closed'')',
    'SELECT * FROM loky.map_table(''SELECT $1, $2'', ''t.closed'')',
    'SELECT * FROM loky.backfill(''SELECT $1, $2'', ''t.closed'')']) c, t.error(c);
BEGIN;
SAVEPOINT s;
SELECT * FROM loky.table_chunks('t.closed');
ROLLBACK TO s;
SELECT count(*) AS locks FROM pg_locks WHERE relation = 't.closed'::regclass AND pid = pg_backend_pid();
COMMIT;
RESET ROLE;
GRANT SELECT (id) ON t.closed TO regress_loky_evil;
SET ROLE regress_loky_evil;
SELECT count(*) FROM loky.key_chunks('t.closed');
SELECT state FROM t.error('SELECT * FROM loky.key_chunks(''t.closed'', ''other'')');
RESET ROLE;
-- rows that a policy hides are hidden in tasks too, from chunks as from results
CREATE TABLE t.rows_of (id int PRIMARY KEY, owner name);
INSERT INTO t.rows_of SELECT i, CASE WHEN i <= 3 THEN 'regress_loky_app' ELSE 'regress_loky_evil' END FROM generate_series(1, 10) i;
ALTER TABLE t.rows_of ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON t.rows_of USING (owner = current_user);
GRANT SELECT ON t.rows_of TO regress_loky_app, regress_loky_evil;
SET ROLE regress_loky_app;
SELECT sum(r) FROM loky.run('SELECT count(*) FROM t.rows_of', result => NULL::bigint) r;
SELECT lo, hi, rows FROM loky.key_chunks('t.rows_of');
SELECT sum(r) FROM loky.map_table('SELECT count(*) FROM t.rows_of WHERE ctid >= $1 AND ctid < $2', 't.rows_of', NULL::bigint) r;
SELECT sum(r) FROM loky.map('SELECT count(*) FROM t.rows_of WHERE id = $1', ARRAY[1, 2, 3, 4, 5], NULL::bigint, snapshot => true) r;
SET ROLE regress_loky_evil;
SELECT sum(r) FROM loky.run('SELECT count(*) FROM t.rows_of', result => NULL::bigint) r;
RESET ROLE;

--
-- What is planted in a result for a superuser to read: casts, domains, functions
-- of types.  Whatever of it runs, runs as the one who planted it, restricted.
--
CREATE SCHEMA evil AUTHORIZATION regress_loky_evil;
CREATE TABLE t.ran (what text, who text DEFAULT current_user);
GRANT INSERT ON t.ran TO PUBLIC;
SET ROLE regress_loky_evil;
CREATE FUNCTION evil.ran(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.ran VALUES (what);
    RETURN true;
END$$;
CREATE TYPE evil.sly AS (a int);
CREATE FUNCTION evil.to_text(evil.sly) RETURNS text LANGUAGE sql AS $$SELECT evil.ran('cast to text')::text || current_user$$;
CREATE FUNCTION evil.to_int(evil.sly) RETURNS int LANGUAGE sql AS $$SELECT evil.ran('cast to int')::int$$;
CREATE FUNCTION evil.to_json(evil.sly) RETURNS json LANGUAGE sql AS $$SELECT to_json(evil.ran('cast to json')::text || current_user)$$;
CREATE FUNCTION evil.to_jsonb(evil.sly) RETURNS jsonb LANGUAGE sql AS $$SELECT to_jsonb(evil.ran('cast to jsonb')::text || current_user)$$;
CREATE CAST (evil.sly AS text) WITH FUNCTION evil.to_text AS ASSIGNMENT;
CREATE CAST (evil.sly AS int) WITH FUNCTION evil.to_int AS IMPLICIT;
CREATE CAST (evil.sly AS json) WITH FUNCTION evil.to_json AS IMPLICIT;
CREATE CAST (evil.sly AS jsonb) WITH FUNCTION evil.to_jsonb AS IMPLICIT;
CREATE DOMAIN evil.dom AS int CHECK (evil.ran('domain'));
CREATE TYPE evil.with_dom AS (a evil.dom);
CREATE FUNCTION evil.diff(x int, y int) RETURNS float8 LANGUAGE sql IMMUTABLE AS $$SELECT 1.0::float8$$;
CREATE TYPE evil.range AS RANGE (SUBTYPE = int, SUBTYPE_DIFF = evil.diff);
-- the ways up that such a function would try
CREATE FUNCTION evil.climb(evil.with_dom) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r text;
    c text;
BEGIN
    FOREACH c IN ARRAY ARRAY['SET ROLE regress_loky_app', 'RESET ROLE', 'SET ROLE none', 'SET SESSION AUTHORIZATION DEFAULT',
        'RESET SESSION AUTHORIZATION', 'SELECT set_config(''role'', ''none'', false)', 'DISCARD ALL',
        'CREATE TEMP TABLE trap ()', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1',
        'SELECT loky.submit(''SELECT 1'')', 'SELECT * FROM loky.run(''SELECT 1'')', 'LISTEN x',
        'TABLE t.closed', 'INSERT INTO evil.deferred VALUES (1)'] LOOP
        BEGIN
            EXECUTE c;
            r := concat_ws(' ', r, current_user = 'regress_loky_evil');
        EXCEPTION WHEN OTHERS THEN
            r := concat_ws(' ', r, SQLSTATE);
        END;
    END LOOP;
    PERFORM set_config('my.left', 'trap', false), set_config('search_path', 'evil', false);
    RETURN r || ' ' || current_user;
END$$;
CREATE CAST (evil.with_dom AS text) WITH FUNCTION evil.climb AS ASSIGNMENT;
CREATE TABLE evil.deferred (i int);
CREATE FUNCTION evil.later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM evil.ran('deferred trigger');
    RETURN NULL;
END$$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON evil.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.later();
SELECT loky.submit('SELECT ROW(1)::evil.sly') AS sly, loky.submit('SELECT ROW(1)::evil.sly, 2') AS two,
    loky.submit('SELECT 7::evil.dom') AS dom, loky.submit('SELECT ROW(7)::evil.with_dom') AS climb,
    loky.submit('SELECT ARRAY[ROW(1)::evil.sly]') AS sly_array, loky.submit('SELECT ROW(ROW(1)::evil.sly)') AS nested,
    loky.submit('SELECT ''[1,5)''::evil.range') AS range, loky.submit('SELECT NULL::evil.dom') AS null_dom,
    loky.submit('SELECT ROW(1)::evil.sly, NULL::evil.sly FROM generate_series(1, 3)') AS rows,
    loky.submit('DO ''BEGIN RAISE EXCEPTION $_$evil$_$ USING ERRCODE = $_$57P01$_$, HINT = $_$hint$_$; END''') AS error \gset
SELECT count(*) FROM loky.wait(ARRAY[:sly, :two, :dom, :climb, :sly_array, :nested, :range, :null_dom, :rows, :error]);
RESET ROLE;
TRUNCATE t.ran;
SELECT current_user = :'superuser' AS a_superuser_reads;
SELECT * FROM loky.result(:sly);
SELECT * FROM loky.result(:sly, NULL::int);
SELECT * FROM loky.result(:sly, NULL::json);
SELECT * FROM loky.result(:sly, NULL::jsonb);
SELECT * FROM loky.result(:sly, NULL::record) AS (a text);
SELECT * FROM loky.result(:sly, NULL::evil.sly);
SELECT loky.result(:sly);
SELECT * FROM loky.result(:two, NULL::jsonb);
SELECT * FROM loky.result(:two, NULL::record) AS (a text, b int);
SELECT * FROM loky.result(:dom);
SELECT * FROM loky.result(:dom, NULL::int);
SELECT * FROM loky.result(:dom, NULL::record) AS (a evil.dom);
SELECT * FROM loky.result(:null_dom, NULL::record) AS (a evil.dom);
SELECT * FROM loky.result(:climb, NULL::evil.with_dom);
SELECT * FROM loky.result(:dom, NULL::jsonb);
SELECT * FROM loky.result(:sly_array);
SELECT * FROM loky.result(:sly_array, NULL::jsonb);
SELECT * FROM loky.result(:nested);
SELECT * FROM loky.result(:nested, NULL::jsonb);
SELECT * FROM loky.result(:range);
SELECT count(*) FROM loky.result(:rows, NULL::record) AS (a text, b text);
SELECT * FROM loky.result(:climb);
SELECT current_user = :'superuser' AS nothing_is_left, current_setting('my.left', true) AS my_left, current_setting('search_path');
SELECT state, message, hint FROM t.error('SELECT * FROM loky.result(' || :error || ')');
SELECT what, who, count(*) > 0 AS ran FROM t.ran GROUP BY 1, 2 ORDER BY 1, 2;
-- What one converts oneself runs as oneself: the same in a session.
SET ROLE regress_loky_evil;
SELECT * FROM loky.result(:sly);
RESET ROLE;
-- A member of the role reads as that role, too.
GRANT regress_loky_evil TO regress_loky_member;
SET ROLE regress_loky_member;
SELECT * FROM loky.result(:sly);
RESET ROLE;

SELECT t.clean();
DROP TABLE t.closed, t.rows_of, t.ran;
SET client_min_messages = warning;
DROP OWNED BY regress_loky_app, regress_loky_evil, regress_loky_member, regress_loky_files CASCADE;
RESET client_min_messages;
DROP ROLE regress_loky_app, regress_loky_evil, regress_loky_member, regress_loky_files;
