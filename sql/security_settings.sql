-- Settings are no way up: one that a role may not make is not made for it by a
-- worker, and counts in a worker of another role as it counts in the session.

SELECT current_user AS superuser \gset
CREATE ROLE regress_loky_evil LOGIN;
CREATE ROLE regress_loky_owner SUPERUSER;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_evil;
-- plpgsql.variable_conflict is a superuser's.  A process that has not loaded
-- plpgsql yet takes any value, and drops it then if the role may not set it.
CREATE FUNCTION t.loaded() RETURNS text LANGUAGE plpgsql AS $$BEGIN
    RETURN current_setting('plpgsql.variable_conflict');
END$$;
CREATE FUNCTION t.owners() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$SELECT * FROM loky.run('t.loaded')$$;
ALTER FUNCTION t.owners OWNER TO regress_loky_owner;
CREATE FUNCTION t.owners_path() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$SELECT * FROM loky.run('SHOW search_path')$$;
ALTER FUNCTION t.owners_path OWNER TO regress_loky_owner;
CREATE FUNCTION t.owners_executors() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM loky.run('SELECT 1');
    RETURN (SELECT string_agg(max_workers || ' ' || extract(epoch FROM timeout)::int, ', ')
        FROM loky.executors WHERE role = current_user AND state = 'open');
END$$;
ALTER FUNCTION t.owners_executors OWNER TO regress_loky_owner;
CREATE FUNCTION t.owners_choice() RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET loky.max_workers = 3
AS $$
BEGIN
    PERFORM loky.run('SELECT 1');
    RETURN (SELECT max_workers FROM loky.executors WHERE role = current_user AND state = 'open');
END$$;
ALTER FUNCTION t.owners_choice OWNER TO regress_loky_owner;

\c - regress_loky_evil
SELECT loky.get_reusable_executor(1) > 0 AS one_worker;
-- what a task has left, while the session has the same setting, and then not
SET plpgsql.variable_conflict = use_variable;
SELECT * FROM loky.run('SELECT set_config(''plpgsql.variable_conflict'', ''use_column'', false)');
RESET plpgsql.variable_conflict;
SELECT * FROM loky.run('SELECT current_setting(''plpgsql.variable_conflict'')');
SELECT * FROM loky.run('t.loaded');
SELECT * FROM loky.run('t.loaded');
-- what the session has
SET plpgsql.variable_conflict = use_variable;
SELECT loky.get_reusable_executor(1, kill_workers => true) > 0 AS fresh_worker;
SELECT * FROM loky.run('t.loaded');
RESET plpgsql.variable_conflict;
-- what the executor has, or its initializer has left
SELECT loky.get_reusable_executor(1, settings => '{"plpgsql.variable_conflict": "use_column"}') > 0 AS ok;
SELECT * FROM loky.run('t.loaded');
SELECT loky.get_reusable_executor(1, initializer => 'SET plpgsql.variable_conflict = use_column') > 0 AS ok;
SELECT * FROM loky.run('t.loaded');
-- and in the worker of another role, before it has loaded plpgsql and after
RESET loky.executor;
SET plpgsql.variable_conflict = use_column;
SELECT * FROM t.owners();
SET plpgsql.variable_conflict = use_variable;
SELECT * FROM t.owners();
-- a definer's settings are not lost when as many settings go as come
\c -
SET client_min_messages = error;
SELECT count(set_config('plpgsql.z' || i, '1', false)) FROM generate_series(1, 9) i;
SELECT loky.run('SELECT 1');
DO 'BEGIN END';
SELECT count(set_config('zz.a' || i, '1', false)) FROM generate_series(1, 4) i;
SELECT * FROM t.owners_path();
RESET client_min_messages;
-- the caller does not decide how the owner's executors are, in its own session or by
-- its connection; the function and the owner do
SET loky.max_workers = 1;
SET loky.timeout = -1;
SELECT t.owners_executors();
SELECT t.owners_choice();
\c -reuse-previous=on "options='-c loky.max_workers=1 -c loky.timeout=-1'"
SELECT t.owners_executors();
\c -reuse-previous=on "options=''"
-- nor whether an error ends a worker, the owner's or its own
SET exit_on_error = on;
SELECT sqlstate FROM loky.exception(loky.submit('SELECT 1 / 0'));
RESET exit_on_error;
SELECT loky.get_reusable_executor(1, settings => '{"exit_on_error": "on"}');
-- what a function of a lesser role leaves behind in a superuser's task
\c - :superuser
CREATE FUNCTION t.leaves() RETURNS text LANGUAGE sql VOLATILE SECURITY DEFINER
AS $$SELECT set_config('plpgsql.variable_conflict', 'use_column', false)$$;
ALTER FUNCTION t.leaves OWNER TO regress_loky_evil;
SET ROLE regress_loky_owner;
SELECT loky.get_reusable_executor(1, timeout => '30 s') > 0 AS ok;
SELECT * FROM loky.run('t.leaves');
SELECT * FROM loky.run('t.loaded');
-- A superuser's own value counts, as does that of a role that was granted it.
SELECT loky.get_reusable_executor(1, timeout => '30 s', kill_workers => true) > 0 AS fresh_worker;
SELECT * FROM loky.run('SELECT set_config(''plpgsql.variable_conflict'', ''use_column'', false)');
SELECT * FROM loky.run('t.loaded');
RESET ROLE;
GRANT SET ON PARAMETER plpgsql.variable_conflict TO regress_loky_evil;
SET ROLE regress_loky_evil;
SELECT loky.get_reusable_executor(1, timeout => '30 s') > 0 AS ok;
SET plpgsql.variable_conflict = use_variable;
SELECT * FROM loky.run('t.loaded');
RESET ROLE;
REVOKE SET ON PARAMETER plpgsql.variable_conflict FROM regress_loky_evil;
-- a connection's options
\c -reuse-previous=on "user=regress_loky_evil options='-c plpgsql.variable_conflict=use_variable'"
SELECT current_setting('plpgsql.variable_conflict') AS given, current_user;
SELECT * FROM t.owners();
\set back 'options='''' user=' :superuser
\c -reuse-previous=on :back
SELECT t.clean();
DROP FUNCTION t.owners, t.owners_path, t.owners_executors, t.owners_choice, t.leaves, t.loaded;
DROP OWNED BY regress_loky_evil;
DROP ROLE regress_loky_evil, regress_loky_owner;
