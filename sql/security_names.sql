-- Names that somebody has put in front of the server's own: loky's functions, views
-- and the statements that it makes do not meet them.

SELECT current_user AS superuser \gset
CREATE ROLE regress_loky_evil;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_evil;
CREATE SCHEMA evil AUTHORIZATION regress_loky_evil;
CREATE TABLE t.caught (what text, who text DEFAULT current_user);
GRANT INSERT ON t.caught TO PUBLIC;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE TABLE t.keyed AS SELECT i AS id, i::text AS word, i * 1.5 AS number FROM generate_series(1, 100) i;
CREATE UNIQUE INDEX ON t.keyed (id);
CREATE INDEX ON t.keyed (word);
CREATE INDEX ON t.keyed (number);
SET ROLE regress_loky_evil;
CREATE FUNCTION evil.caught(what text) RETURNS void LANGUAGE sql SET search_path = pg_catalog AS $$INSERT INTO t.caught VALUES (what)$$;
-- operators, functions and types of the same names as the server's
DO $do$
DECLARE
    o text;
    f text;
    a text;
BEGIN
    FOREACH a IN ARRAY ARRAY['int, int', 'bigint, bigint', 'text, text', 'tid, tid', 'oid, oid', 'name, name', 'numeric, numeric', 'int, bigint', 'name, text', 'bigint, int'] LOOP
        FOREACH o IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>='] LOOP
            EXECUTE format('CREATE OR REPLACE FUNCTION evil.%I(%s) RETURNS boolean LANGUAGE plpgsql AS $f$BEGIN PERFORM evil.caught(%L); RETURN true; END$f$', 'op' || o, a, o || ' ' || a);
            EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.%I)', o, split_part(a, ', ', 1), split_part(a, ', ', 2), 'op' || o);
        END LOOP;
    END LOOP;
    FOREACH f IN ARRAY ARRAY['to_json(anyelement)', 'to_jsonb(anyelement)', 'length(text)', 'now()', 'current_setting(text)', 'pg_backend_pid()', 'int4(text)', 'text(int)', 'nextval(regclass)', 'format_type(oid, int)', 'quote_ident(text)', 'set_config(text, text, boolean)', 'unnest(anyarray)', 'generate_series(int, int)', 'row_to_json(record)', 'lower(text)'] LOOP
        EXECUTE format('CREATE FUNCTION evil.%s RETURNS text LANGUAGE plpgsql AS $f$BEGIN PERFORM evil.caught(%L); RETURN NULL; END$f$', f, f);
    END LOOP;
END$do$;
CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.caught('text') IS NULL);
CREATE DOMAIN evil.int4 AS pg_catalog.int4 CHECK (evil.caught('int4') IS NULL);
CREATE DOMAIN evil.int8 AS pg_catalog.int8 CHECK (evil.caught('int8') IS NULL);
CREATE DOMAIN evil.tid AS pg_catalog.tid CHECK (evil.caught('tid') IS NULL);
CREATE DOMAIN evil.jsonb AS pg_catalog.jsonb CHECK (evil.caught('jsonb') IS NULL);
CREATE FUNCTION evil.table_caught() RETURNS TABLE (oid oid, relname name, typname name) LANGUAGE plpgsql AS $$BEGIN PERFORM evil.caught('table'); END$$;
CREATE VIEW evil.pg_class AS SELECT * FROM evil.table_caught();
CREATE VIEW evil.pg_type AS SELECT * FROM evil.table_caught();
CREATE VIEW evil.pg_proc AS SELECT * FROM evil.table_caught();
CREATE VIEW evil.keyed AS SELECT * FROM evil.table_caught();
CREATE FUNCTION evil.double(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM evil.caught('double'); RETURN x; END$$;
RESET ROLE;
CREATE FUNCTION t.double(x int) RETURNS int LANGUAGE sql SET search_path = pg_catalog AS 'SELECT x * 2';
CREATE FUNCTION t.to_word(x int) RETURNS text LANGUAGE sql SET search_path = pg_catalog AS 'SELECT x::text';

-- the trap is set
SET search_path = evil, pg_catalog, public;
SELECT 1 = 2 AS caught;
SELECT what, who = :'superuser' AS a_superuser FROM t.caught;
TRUNCATE t.caught;
-- the views, the pictures, and each function that makes statements or calls of its own
SELECT (SELECT pg_catalog.count(*) FROM loky.executors) IS NULL AS no_executors, (SELECT pg_catalog.count(*) FROM loky.workers) IS NULL AS no_workers, (SELECT pg_catalog.count(*) FROM loky.tasks) IS NULL AS no_tasks, (SELECT pg_catalog.count(*) FROM loky.progress) IS NULL AS no_progress, (SELECT pg_catalog.count(*) FROM loky.stats) IS NULL AS no_stats;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>=) 0 AS ok FROM loky.timeline();
SELECT loky.trace() IS NULL AS nothing, loky.timeline_svg() IS NULL AS no_picture;
SELECT chunk, lo, hi, rows FROM loky.key_chunks('t.keyed', 'id', 50);
SELECT pg_catalog.count(*) FROM loky.key_chunks('t.keyed', 'word', 30);
SELECT pg_catalog.count(*) FROM loky.key_chunks('t.keyed', 'number', 30);
SELECT pg_catalog.count(*) FROM loky.table_chunks('t.keyed', 2);
SELECT pg_catalog.count(*) FROM loky.map_table('SELECT ROW($1, $2)', 't.keyed');
SELECT pg_catalog.count(*) FROM loky.backfill('SELECT $1, $2', 't.keyed', 'id', 50);
SELECT pg_catalog.count(*) FROM loky.backfill('SELECT $1, $2', 't.keyed', 'id', ranges => '[{"lo": 1, "hi": 2}]'::pg_catalog.jsonb);
SELECT * FROM loky.map('t.double', ARRAY[1, 2]::pg_catalog.int4[], NULL::pg_catalog.int4);
SELECT * FROM loky.map('t.double', ARRAY[1, 2]::pg_catalog.int4[], NULL::pg_catalog.jsonb);
SELECT * FROM loky.map('t.double', ARRAY[1, 2]::pg_catalog.int4[], NULL::pg_catalog.int8);
SELECT * FROM loky.run('t.double', ROW(5), NULL::pg_catalog.text);
SELECT * FROM loky.run('t.double(int)', ROW(5), NULL::pg_catalog.jsonb);
SELECT * FROM loky.run('t.to_word(integer)', ROW(5));
SELECT loky.submit('t.double', 4) AS f \gset
SELECT * FROM loky.result(:f, NULL::pg_catalog.text);
SELECT done, state FROM loky.wait(ARRAY[:f]::pg_catalog.int8[]);
SELECT loky.state(loky.add_done_callback(:f, 'SELECT $1')) IS NULL AS no_state;
SELECT loky.get_reusable_executor(1, result_reducers => '{"integer": "t.to_word"}'::pg_catalog.jsonb, job_reducers => '{"integer": "t.double"}'::pg_catalog.jsonb, initializer => 't.double', initargs => ROW(1::pg_catalog.int4), settings => '{"work_mem": "1MB"}'::pg_catalog.jsonb, env => '{"A": "1"}'::pg_catalog.jsonb) IS NULL AS no_executor;
SELECT * FROM loky.map('t.double', ARRAY[1, 2]::pg_catalog.int4[]);
RESET loky.executor;
-- what they met: nothing but what the statements above say themselves
SELECT what FROM t.caught ORDER BY 1;
-- A name in a task is looked up as the caller would: qualify it, or set search_path.
SELECT * FROM loky.run('double', ROW(5::pg_catalog.int4));
SET search_path = pg_catalog, public;
SELECT what, who = :'superuser' AS a_superuser FROM t.caught ORDER BY 1;
RESET search_path;

SELECT t.clean();
DROP TABLE t.caught, t.keyed;
DROP FUNCTION t.double, t.to_word;
SET client_min_messages = warning;
DROP OWNED BY regress_loky_evil CASCADE;
RESET client_min_messages;
DROP ROLE regress_loky_evil;
