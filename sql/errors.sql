-- Errors and notices of a task are raised again, whole, where its result is
-- asked for.

-- Every field of an error
CREATE FUNCTION t.fields(command text, OUT field text, OUT value text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE
    v text[];
BEGIN
    EXECUTE command;
EXCEPTION WHEN OTHERS THEN
    v := '{}';
    GET STACKED DIAGNOSTICS value = RETURNED_SQLSTATE; v := v || value;
    GET STACKED DIAGNOSTICS value = MESSAGE_TEXT; v := v || left(value, 60);
    GET STACKED DIAGNOSTICS value = PG_EXCEPTION_DETAIL; v := v || left(value, 60);
    GET STACKED DIAGNOSTICS value = PG_EXCEPTION_HINT; v := v || value;
    GET STACKED DIAGNOSTICS value = SCHEMA_NAME; v := v || value;
    GET STACKED DIAGNOSTICS value = TABLE_NAME; v := v || value;
    GET STACKED DIAGNOSTICS value = COLUMN_NAME; v := v || value;
    GET STACKED DIAGNOSTICS value = CONSTRAINT_NAME; v := v || value;
    GET STACKED DIAGNOSTICS value = PG_DATATYPE_NAME; v := v || value;
    GET STACKED DIAGNOSTICS value = PG_EXCEPTION_CONTEXT;
    v := v || regexp_replace(substring(value FROM '^(.*loky task(?: \d+)?(?:, item \d+)?)\n'), 'loky task \d+', 'loky task N');
    RETURN QUERY SELECT * FROM unnest('{sqlstate,message,detail,hint,schema,table,column,constraint,datatype,context}'::text[], v);
END$$;

SELECT loky.submit('t.bad', 1) AS f \gset
SELECT * FROM t.fields('SELECT * FROM loky.result(' || :f || ')');
-- again and again the same
SELECT count(*), count(DISTINCT (field, value)) FROM generate_series(1, 3), t.fields('SELECT * FROM loky.result(' || :f || ', NULL::int)');
-- through map and try_map
SELECT * FROM t.fields($$SELECT * FROM loky.map('t.bad', ARRAY[7], NULL::int)$$);
SELECT ord, result, ok, sqlstate, message, detail, hint, context FROM loky.try_map('t.bad', ARRAY[7], NULL::int) \gx
-- through exception(), which does not raise it
SELECT sqlstate, message, detail, hint, context FROM loky.exception(:f);
-- nor the notices that came before it
CREATE FUNCTION t.notice_and_bad() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'before';
    RETURN t.bad(2);
END$$;
SELECT sqlstate, message, detail, hint FROM loky.exception(loky.submit('t.notice_and_bad'));
SELECT (SELECT sqlstate FROM loky.exception(f)) IS NULL AS none, (SELECT x IS NULL FROM loky.exception(f) x) AS nulls FROM loky.submit('SELECT 1') f;
-- of a statement: the position is one in the task's text
\set SHOW_CONTEXT never
SELECT * FROM loky.result(loky.submit('SELECT 1, nope FROM t.log'));
SELECT * FROM loky.result(loky.submit('SELECT 1; SELECT 2 + true'));
SELECT * FROM loky.map('SELECT $1, nope FROM t.log', ARRAY[1]);
\set SHOW_CONTEXT errors
SELECT * FROM t.fields($$SELECT * FROM loky.result(loky.submit('SELECT 1 / 0'))$$);
-- of PostgreSQL's own constraints
CREATE TABLE t.strict (id int PRIMARY KEY, v int CHECK (v > 0), d int NOT NULL DEFAULT 0);
SELECT * FROM t.fields($$SELECT * FROM loky.result(loky.submit('INSERT INTO t.strict VALUES ($1, $2)', 1, -1))$$);
SELECT * FROM t.fields($$SELECT * FROM loky.result(loky.submit('INSERT INTO t.strict VALUES (1, 1), (1, 2)'))$$);
SELECT field, value FROM t.fields($$SELECT * FROM loky.result(loky.submit('INSERT INTO t.strict VALUES (1, 1, NULL)'))$$) WHERE field IN ('sqlstate', 'column', 'table');
SELECT count(*) FROM t.strict;
-- nested calls: the whole context of the worker
CREATE FUNCTION t.outer(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN t.bad(x) + 1; END$$;
SELECT value FROM t.fields($$SELECT * FROM loky.result(loky.submit('t.outer', 1))$$) WHERE field = 'context';
-- large messages, and such with characters of format strings
CREATE FUNCTION t.says(message text) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION USING MESSAGE = message; END$$;
SELECT * FROM t.fields($$SELECT * FROM loky.result(loky.submit('t.says', '100 %s %n "quoted" ''single'' \ back'))$$) WHERE field = 'message';
CREATE FUNCTION t.long_message() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM loky.result(loky.submit('t.says', repeat('x', 10000000)));
EXCEPTION WHEN OTHERS THEN
    RETURN length(SQLERRM);
END$$;
SELECT t.long_message();
-- in a transaction the error aborts it as any other; a savepoint helps
BEGIN;
SAVEPOINT s;
\set SHOW_CONTEXT never
SELECT * FROM loky.result(loky.submit('t.div', 1, 0));
SELECT 1;
ROLLBACK TO s;
SELECT * FROM loky.result(loky.submit('t.div', 4, 2));
COMMIT;

-- Notices come as they were, at the level that they had, with each reading.
CREATE FUNCTION t.notices(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'notice %', x USING DETAIL = 'its detail', HINT = 'its hint';
    RAISE WARNING 'warning %', x;
    RAISE INFO 'info %', x;
    RAISE DEBUG 'debug %', x;
    IF x < 0 THEN
        RAISE EXCEPTION 'after the notices';
    END IF;
    RETURN x;
END$$;
SELECT loky.submit('t.notices', 1) AS f \gset
SELECT * FROM loky.result(:f, NULL::int);
SELECT * FROM loky.result(:f, NULL::int);
SELECT * FROM loky.result(loky.submit('t.notices', -1), NULL::int);
SELECT * FROM loky.map('t.notices', ARRAY[5], NULL::int);
BEGIN;
SET LOCAL client_min_messages = error;
SELECT * FROM loky.result(:f, NULL::int);
COMMIT;
SELECT * FROM loky.result(loky.submit('DROP TABLE IF EXISTS t.not_there'));
-- those of map come in the items' order here, as one worker runs them
SELECT * FROM loky.map('t.notices', ARRAY[1, 2], NULL::int, chunksize => 2);

-- An error as late as the commit: failed, and nothing is there.
CREATE TABLE t.parent (id int PRIMARY KEY);
CREATE TABLE t.child (id int REFERENCES t.parent DEFERRABLE INITIALLY DEFERRED);
SELECT loky.submit('INSERT INTO t.child VALUES (1)') AS f \gset
SELECT * FROM loky.wait(ARRAY[:f]) \gset w_
SELECT :'w_state' AS state, :'w_done' AS done;
SELECT field, value FROM t.fields('SELECT * FROM loky.result(' || :f || ')') WHERE field IN ('sqlstate', 'table', 'constraint');
SELECT count(*) FROM t.child;
CREATE FUNCTION t.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'late' USING ERRCODE = 'XY002'; END$$;
CREATE TABLE t.triggered (i int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t.triggered DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION t.late();
SELECT state, message FROM t.error($$SELECT * FROM loky.result(loky.submit('INSERT INTO t.triggered VALUES (1)'))$$);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('INSERT INTO t.triggered VALUES ($1)', ARRAY[1])$$);
SELECT ord, ok, sqlstate, message FROM loky.try_map('INSERT INTO t.triggered VALUES ($1)', ARRAY[1, 2], chunksize => 2) ORDER BY ord;
SELECT count(*) FROM t.triggered;

-- A worker that ends takes its task along, nothing else: an error, of the class
-- ERROR, in a session that lives on.
CREATE FUNCTION t.die() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    PERFORM pg_sleep(30);
    RETURN 1;
END$$;
SELECT pg_backend_pid() AS mine \gset
SELECT loky.submit('t.die') AS f \gset
SELECT loky.submit_all('t.id', ARRAY[1, 2, 3]) AS fs \gset
SELECT state, message, detail, hint FROM t.error('SELECT * FROM loky.result(' || :f || ')');
SELECT sqlstate FROM loky.exception(:f);
SELECT loky.state(:f), pg_backend_pid() = :mine AS lives;
SELECT string_agg(r::text, ' ' ORDER BY r) FROM unnest(:'fs'::bigint[]) g, loky.result(g, NULL::int) r;
SELECT ord, ok, result, sqlstate FROM loky.try_map('SELECT CASE $1 WHEN 2 THEN t.die() ELSE $1 END', ARRAY[1, 2, 3], NULL::int) ORDER BY ord;
SELECT state FROM t.error($$SELECT * FROM loky.map('SELECT CASE $1 WHEN 2 THEN t.die() ELSE $1 END', ARRAY[1, 2, 3], NULL::int)$$);
-- one that ends in its commit
CREATE FUNCTION t.die_late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM t.die(); RETURN NULL; END$$;
CREATE TABLE t.deadly (i int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t.deadly DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION t.die_late();
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('INSERT INTO t.deadly VALUES (1)'))$$);
SELECT count(*) FROM t.deadly;
-- an error that only has such a code is an ordinary one, and the worker stays
SELECT loky.get_reusable_executor(1) > 0;
SELECT r AS pid FROM loky.result(loky.submit('t.pid'), NULL::int) r \gset
CREATE FUNCTION t.raises(code text) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'only said so' USING ERRCODE = code; END$$;
SELECT c, (SELECT state || ' ' || message FROM t.error(format('SELECT * FROM loky.result(loky.submit(''t.raises'', %L))', c))) FROM unnest('{57P01,LK001,57014,40001,XX000}'::text[]) c;
SELECT r = :pid AS same_worker FROM loky.result(loky.submit('t.pid'), NULL::int) r;
-- cancelled by hand: that error, and the worker stays
SELECT state, message FROM t.error($$SELECT * FROM loky.result(loky.submit('SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(30)'))$$);
SELECT r = :pid AS same_worker FROM loky.result(loky.submit('t.pid'), NULL::int) r;
RESET loky.executor;
SELECT t.clean();
