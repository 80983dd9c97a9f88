-- How a task ends: what its commit goes by, and what is put back after it.
-- What is deferred to the commit runs with the task's own settings and role.
SELECT loky.get_reusable_executor(1, timeout => '61 s') > 0 AS ok;
CREATE ROLE regress_loky_ending LOGIN;
GRANT USAGE ON SCHEMA t, loky TO regress_loky_ending;
CREATE TABLE t.ending (i int);
CREATE TABLE t.seen (i int, work_mem text, isolation text, custom text, role name, path text);
GRANT INSERT, SELECT ON t.ending, t.seen TO regress_loky_ending;
CREATE FUNCTION t.see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.seen VALUES (new.i, current_setting('work_mem'), current_setting('transaction_isolation'),
        current_setting('my.custom', true), current_user, current_setting('search_path'));
    RETURN NULL;
END$$;
CREATE CONSTRAINT TRIGGER see AFTER INSERT ON t.ending DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION t.see();
SELECT loky.result(loky.submit($$SET work_mem = '77MB'; INSERT INTO t.ending VALUES (1)$$));
SELECT loky.result(loky.submit($$SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL work_mem = '78MB'; INSERT INTO t.ending VALUES (2)$$));
SELECT loky.result(loky.submit($$SET LOCAL my.custom = 'bob'; SET LOCAL search_path = t, pg_catalog; INSERT INTO ending VALUES (3)$$));
SELECT loky.result(loky.submit($$SET LOCAL ROLE regress_loky_ending; INSERT INTO t.ending VALUES (4)$$));
SELECT loky.result(loky.submit($$SET ROLE regress_loky_ending; SET my.custom = 'kept'; INSERT INTO t.ending VALUES (5)$$));
SELECT i, work_mem, isolation, custom, role = current_user AS own_role, path LIKE 't,%' AS own_path FROM t.seen ORDER BY i;
-- afterwards all is as it was, but for the custom setting
SELECT r = format('%s %s kept', current_setting('work_mem'), current_user) AS put_back
FROM loky.result(loky.submit($$SELECT format('%s %s %s', current_setting('work_mem'), current_user, current_setting('my.custom', true))$$)) r;
-- the isolation level lasts to the very end
SELECT loky.result(loky.submit($$SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t.ending$$));
SELECT loky.result(loky.submit($$BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t.ending VALUES (6); COMMIT$$));
SELECT state, message FROM t.error($q$SELECT loky.result(loky.submit($$BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t.ending$$))$q$);
SELECT state, message FROM t.error($q$SELECT loky.result(loky.submit('BEGIN; SAVEPOINT a'))$q$);
SELECT loky.result(loky.submit('SELECT current_setting($$transaction_isolation$$)'));
-- A task of a read-only transaction cannot make itself writable.
BEGIN READ ONLY;
SELECT state, message FROM t.error($q$SELECT loky.result(loky.submit($$SET TRANSACTION READ WRITE; INSERT INTO t.ending VALUES (7)$$))$q$);
SELECT state FROM t.error($q$SELECT loky.result(loky.submit($$BEGIN READ WRITE; INSERT INTO t.ending VALUES (7); COMMIT$$))$q$);
SELECT state FROM t.error($q$SELECT loky.result(loky.submit($$COMMIT; INSERT INTO t.ending VALUES (7)$$))$q$);
SELECT loky.result(loky.submit('SELECT count(*) FROM t.ending WHERE i = 7'));
COMMIT;
-- ... nor can a procedure make one that follows its own commits so.
CREATE PROCEDURE t.writable(statement text, before text, last text, after text) LANGUAGE plpgsql AS $$
BEGIN
    COMMIT;
    EXECUTE statement;
    IF before = 'commit' THEN
        COMMIT;
    END IF;
    EXECUTE 'INSERT INTO t.ending VALUES (7)';
    EXECUTE last;
    IF after = 'commit' THEN
        COMMIT;
    END IF;
END$$;
BEGIN READ ONLY;
SELECT statement, (SELECT string_agg(DISTINCT
                                     (t.error(format('SELECT loky.run(%L, ROW(%L, %L, %L, %L))', 't.writable', statement, before, last, after))).state,
                                     ' ')
                   FROM (VALUES ('commit'), ('go on')) b (before), (VALUES ('commit'), ('end')) a (after),
                        (VALUES ('SELECT 1'), ('SET TRANSACTION READ ONLY')) l (last)) AS states
FROM (VALUES ('SET TRANSACTION READ WRITE'), ('SET default_transaction_read_only = off'),
             ('SELECT set_config($$transaction_read_only$$, $$off$$, true)'),
             ('RESET default_transaction_read_only'), ('RESET ALL')) s (statement);
COMMIT;
SELECT count(*) FROM t.ending WHERE i = 7;
-- what it submits is read-only as it is
CREATE PROCEDURE t.submits(how text) LANGUAGE plpgsql AS $$BEGIN
    COMMIT;
    EXECUTE 'RESET default_transaction_read_only';
    COMMIT;
    EXECUTE how;
END$$;
BEGIN READ ONLY;
SELECT (t.error(format('SELECT loky.run(%L, ROW(%L::text))', 't.submits', how))).state, how
FROM (VALUES ($$SELECT loky.run('INSERT INTO t.ending VALUES (7)')$$),
             ($$SELECT count(*) FROM loky.map('INSERT INTO t.ending VALUES ($1)', ARRAY[7])$$)) h (how);
COMMIT;
SELECT count(*) FROM t.ending WHERE i = 7;
-- a procedure that reads may commit, and use temporary tables
CREATE PROCEDURE t.reads() LANGUAGE plpgsql AS $$BEGIN
    COMMIT;
    SET TRANSACTION READ ONLY;
    PERFORM count(*) FROM t.ending;
    COMMIT;
    SET default_transaction_read_only = on;
END$$;
BEGIN READ ONLY;
SELECT loky.run('t.reads');
COMMIT;
-- afterwards the worker writes as before
SELECT loky.run('SHOW default_transaction_read_only');
SELECT loky.run($$INSERT INTO t.ending VALUES (8)$$);
SELECT loky.run($$SET TRANSACTION READ WRITE; INSERT INTO t.ending VALUES (8)$$);
SELECT loky.run($$SET default_transaction_read_only = off; COMMIT; INSERT INTO t.ending VALUES (8)$$);
-- The custom settings of one session are not there for another, also after a task that commits by itself.
SELECT loky.get_reusable_executor(1, timeout => '61 s', kill_workers => true) AS e \gset
CREATE PROCEDURE t.commits() LANGUAGE plpgsql AS $$BEGIN COMMIT; END$$;
SET my.tenant = 'A';
SELECT loky.result(loky.submit('CALL t.commits()'));
\c -
SELECT loky.get_reusable_executor(1, timeout => '61 s') = :e AS same;
SELECT coalesce(r, '') = '' AS unknown FROM loky.result(loky.submit($$SELECT current_setting('my.tenant', true)$$)) r;
-- What a task leaves in its worker is hidden while others have the like, and is there again afterwards.
SELECT loky.result(loky.submit($$SET my.tenant = 'left'$$));
SET my.tenant = 'B';
SELECT loky.result(loky.submit($$SELECT current_setting('my.tenant')$$));
SELECT loky.result(loky.submit($$SET my.tenant = 'left again'$$));
SELECT loky.result(loky.submit($$SELECT current_setting('my.tenant')$$));
RESET my.tenant;
\c -
SELECT loky.get_reusable_executor(1, timeout => '61 s') = :e AS same;
SELECT loky.result(loky.submit($$SELECT current_setting('my.tenant')$$));
-- Nor does it go along with what another task submits there.
SELECT loky.result(loky.submit($$SELECT loky.result(loky.submit('SELECT coalesce(current_setting(''my.tenant'', true), '''') = ''left again'''))$$));
-- A value for a library that only the worker has loaded is set with the session's rights, not the server's.
SELECT loky.result(loky.submit($$DO 'BEGIN END'$$));
SELECT current_user AS owner \gset
\set options `echo "$PGOPTIONS"`
\setenv PGOPTIONS '-c plpgsql.variable_conflict=use_column'
\c - regress_loky_ending
SELECT loky.get_reusable_executor(1, timeout => '61 s') > 0 AS ok;
SELECT loky.result(loky.submit($$DO 'BEGIN END'; SELECT current_setting('plpgsql.variable_conflict')$$));
SELECT loky.result(loky.submit($$SELECT current_setting('plpgsql.variable_conflict')$$));
\setenv PGOPTIONS :options
\c -
SELECT loky.get_reusable_executor(1, timeout => '61 s') > 0 AS ok;
SET plpgsql.variable_conflict = 'use_variable';
SELECT loky.result(loky.submit($$SELECT current_setting('plpgsql.variable_conflict')$$));
SELECT loky.shutdown();
-- Several cursors on one result: each keeps it until it is closed.
\c - :owner
SELECT loky.submit('SELECT g, repeat(''x'', 100) FROM generate_series(1, 2000) g') AS f \gset
BEGIN;
DECLARE a CURSOR FOR SELECT loky.result(:f, NULL::jsonb);
DECLARE b CURSOR FOR SELECT loky.result(:f, NULL::jsonb);
MOVE 1 FROM a;
MOVE 1 FROM b;
CLOSE b;
SELECT loky.forget(:f);
SELECT count(*) FROM loky.wait(ARRAY[loky.submit('SELECT g, repeat(''y'', 100) FROM generate_series(1, 2000) g')]);
MOVE 998 FROM a;
SELECT 1 AS still_there;
FETCH 1 FROM a \gset
SELECT length(:'result') > 100 AND :'result' LIKE '%1000%' AND :'result' NOT LIKE '%yy%' AS right_row;
COMMIT;
-- and as many as there are
SELECT array_agg(loky.submit('SELECT $1 + g FROM generate_series(0, 1) g', i)) AS fs FROM generate_series(1, 100) i \gset
SELECT count(*) FROM loky.wait(:'fs');
CREATE FUNCTION t.read_all(fs bigint[], OUT firsts bigint, OUT seconds bigint) LANGUAGE plpgsql AS $$
DECLARE
    cursors refcursor[];
    c refcursor;
    x int;
BEGIN
    firsts := 0;
    seconds := 0;
    FOR i IN 1 .. cardinality(fs) LOOP
        c := NULL;
        OPEN c FOR SELECT loky.result(fs[i], NULL::int);
        FETCH c INTO x;
        firsts := firsts + x;
        cursors[i] := c;
    END LOOP;
    PERFORM loky.forget(f) FROM unnest(fs) f;
    FOREACH c IN ARRAY cursors LOOP
        FETCH c INTO x;
        seconds := seconds + x;
    END LOOP;
END$$;
SELECT * FROM t.read_all(:'fs');
DROP TABLE t.ending, t.seen;
DROP FUNCTION t.see();
DROP OWNED BY regress_loky_ending;
DROP ROLE regress_loky_ending;
SELECT t.clean();
