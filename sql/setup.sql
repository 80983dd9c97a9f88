-- The extension, and what the other tests use.

CREATE EXTENSION loky;

-- It brings its own schema, whose use is the owner's until somebody grants it.
SELECT extrelocatable, nspname AS schema
FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
WHERE extname = 'loky';
SELECT has_schema_privilege('pg_database_owner', 'loky', 'USAGE WITH GRANT OPTION') AS owner_may_grant;
CREATE ROLE regress_loky_nobody;
SELECT has_schema_privilege('regress_loky_nobody', 'loky', 'USAGE') AS nobody_may;
DROP ROLE regress_loky_nobody;

-- Names, arguments, defaults and results are a contract.
\pset format unaligned
SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS arguments,
       pg_get_function_result(p.oid) AS result
FROM pg_proc p
WHERE p.pronamespace = 'loky'::regnamespace
  AND p.proname IN ('submit', 'submit_task', 'submit_all', 'run', 'result',
                    'exception', 'done', 'running', 'cancelled', 'state',
                    'cancel', 'wait', 'as_completed', 'forget',
                    'add_done_callback', 'map', 'flat_map', 'try_map',
                    'get_reusable_executor', 'shutdown', 'cpu_count',
                    'getenv', 'table_chunks', 'map_table', 'key_chunks',
                    'backfill', 'report_progress', 'stats_reset', 'trace',
                    'timeline', 'timeline_svg')
ORDER BY 1, 2;

SELECT c.relname AS view, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'loky'::regnamespace AND c.relname IN ('executors', 'workers', 'tasks', 'progress', 'stats')
GROUP BY 1 ORDER BY 1;
\pset format aligned

SELECT name, boot_val, unit, context FROM pg_settings
WHERE name IN ('loky.max_workers', 'loky.executor', 'loky.timeout',
               'loky.max_total_workers', 'loky.max_tasks', 'loky.shared_memory',
               'loky.result_ttl', 'loky.max_depth', 'loky.enabled',
               'loky.env', 'loky.env_allowed', 'loky.max_workers_per_role',
               'loky.max_tasks_per_role', 'loky.log_min_duration',
               'loky.trace_size')
ORDER BY 1;

-- The first task starts the first worker.
SELECT * FROM loky.result(loky.submit('SELECT 6 * 7'));

--
-- Fixtures
--
CREATE SCHEMA t;

-- Work of all kinds.
CREATE TABLE t.log (i int, pid int DEFAULT pg_backend_pid());
CREATE FUNCTION t.id(x int) RETURNS int LANGUAGE sql AS 'SELECT x';
CREATE FUNCTION t.pid(x int DEFAULT 0) RETURNS int LANGUAGE sql VOLATILE
AS 'SELECT pg_backend_pid()';
CREATE FUNCTION t.touch(x int) RETURNS int LANGUAGE plpgsql
AS $$BEGIN INSERT INTO t.log (i) VALUES (x); RETURN x; END$$;
CREATE FUNCTION t.bad(x int) RETURNS int LANGUAGE plpgsql
AS $$BEGIN RAISE EXCEPTION 'bad %', x USING ERRCODE = 'XY001', DETAIL = 'd', HINT = 'h', SCHEMA = 's', TABLE = 'tb', COLUMN = 'c', CONSTRAINT = 'k', DATATYPE = 'dt'; END$$;
CREATE FUNCTION t.div(a int, b int) RETURNS int LANGUAGE plpgsql
AS $$BEGIN RETURN a / b; END$$;

-- A sequence changes for all to see at once, whatever becomes of the
-- transaction: with it sessions and workers wait for each other.
CREATE SEQUENCE t.arrived MINVALUE 0;
CREATE SEQUENCE t.gate MINVALUE 0;

-- Wait until the condition holds, but not for ever: with 4000 looks some 20 s.
CREATE FUNCTION t.until(condition text, looks int DEFAULT 4000) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
BEGIN
    FOR i IN 1 .. looks LOOP
        PERFORM pg_stat_clear_snapshot();
        EXECUTE 'SELECT ' || condition INTO holds;
        IF holds THEN
            RETURN true;
        END IF;
        PERFORM pg_sleep(0.005);
    END LOOP;
    RETURN false;
END$$;

-- Come together with others: true once n are there, an error if they do not
-- come.  So n of these can only succeed where they run at the same time.
CREATE FUNCTION t.meet(x int, n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('t.arrived');
    IF NOT t.until(format('last_value >= %s FROM t.arrived', n)) THEN
        RAISE EXCEPTION 'nobody came';
    END IF;
    RETURN x;
END$$;

-- Count as arrived, and wait until the gate is open for the numbers up to x.
CREATE FUNCTION t.pass(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(77);
    PERFORM nextval('t.arrived');
    IF NOT t.until(format('last_value >= %s FROM t.gate', x)) THEN
        RAISE EXCEPTION 'the gate stayed closed';
    END IF;
    RETURN x;
END$$;

-- How many transactions wait at the gate.
CREATE FUNCTION t.at_gate() RETURNS bigint LANGUAGE sql
AS $$SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77$$;

-- Nobody has arrived, and the gate is closed.
CREATE FUNCTION t.reset() RETURNS void LANGUAGE sql
AS $$SELECT setval('t.arrived', 0), setval('t.gate', 0)$$;

-- Nothing is pending or running, and no worker is in a transaction.
CREATE FUNCTION t.clean() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN t.until($_$NOT EXISTS (SELECT FROM loky.tasks
                                  WHERE state IN ('pending', 'running'))
                      AND NOT EXISTS (SELECT FROM pg_stat_activity
                                      WHERE backend_type = 'loky worker'
                                      AND (xact_start IS NOT NULL OR state <> 'idle'))$_$, 1500);
END$$;

-- The error that a command raises, with what differs from run to run masked,
-- and its context up to the end of what loky says.
CREATE FUNCTION t.error(command text, OUT state text, OUT message text,
                        OUT detail text, OUT hint text, OUT context text)
LANGUAGE plpgsql AS $$
DECLARE
    lines text[];
    last int;
BEGIN
    EXECUTE command;
EXCEPTION WHEN OTHERS OR query_canceled THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
        context = PG_EXCEPTION_CONTEXT;
    message := regexp_replace(message, '(future|task|executor|process|PID) \d+', '\1 N', 'gi');
    detail := regexp_replace(detail, '(future|task|executor|process|PID|worker) \d+', '\1 N', 'gi');
    lines := string_to_array(context, E'\n');
    SELECT max(n) INTO last FROM generate_subscripts(lines, 1) n WHERE lines[n] ~ '^loky task';
    context := regexp_replace(array_to_string(lines[:last], E'\n'), 'loky task \d+', 'loky task N');
END$$;
