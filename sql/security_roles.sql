-- A task cannot become another role, whatever it says, in whatever kind of task, and
-- leaves no identity behind; neither for a role that may log in nor for one that may not.

SELECT current_user AS superuser, (SELECT rolname FROM pg_roles WHERE oid = 10) AS bootstrap \gset
CREATE ROLE regress_loky_login LOGIN;
CREATE ROLE regress_loky_nologin NOLOGIN;
CREATE ROLE regress_loky_victim SUPERUSER;
CREATE ROLE regress_loky_group;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_login, regress_loky_nologin, regress_loky_group;
GRANT regress_loky_group TO regress_loky_login, regress_loky_nologin;
CREATE TABLE t.treasure (s text);
INSERT INTO t.treasure VALUES ('gold');

-- Who one is, and what one may.
CREATE FUNCTION t.whoami() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT format('%s, %s%s%s', current_user, session_user,
        CASE WHEN current_setting('is_superuser')::bool THEN ', superuser' ELSE '' END,
        CASE WHEN has_table_privilege('t.treasure', 'SELECT') THEN ', reads' ELSE '' END)
$$;
-- The same after a command; as a procedure also after a commit.
CREATE FUNCTION t.do_in(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command;
    RETURN t.whoami();
END$$;
CREATE PROCEDURE t.do_call(command text, INOUT who text DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command;
    COMMIT;
    who := t.whoami();
    EXECUTE command;
    who := who || '; ' || t.whoami();
END$$;

CREATE TABLE t.attempts (n int GENERATED ALWAYS AS IDENTITY, command text);
INSERT INTO t.attempts (command)
SELECT format(c, r) FROM unnest(ARRAY['SET ROLE %s', 'SET SESSION ROLE %s', 'SET LOCAL ROLE %s',
        'SET role = %s', 'SET role TO %s', 'SET SESSION AUTHORIZATION %s', 'SET SESSION SESSION AUTHORIZATION %s',
        'SET LOCAL SESSION AUTHORIZATION %s', 'SET session_authorization = %s', 'SELECT set_config(''role'', ''%s'', false)',
        'SELECT set_config(''role'', ''%s'', true)', 'SELECT set_config(''session_authorization'', ''%s'', false)',
        'SELECT set_config(''session_authorization'', ''%s'', true)']) c,
    unnest(ARRAY[:'bootstrap', 'regress_loky_victim']) r;
INSERT INTO t.attempts (command) VALUES
    ('SET ROLE none'), ('RESET ROLE'), ('RESET role'), ('SET role TO DEFAULT'),
    ('SET SESSION AUTHORIZATION DEFAULT'), ('RESET SESSION AUTHORIZATION'), ('SET session_authorization TO DEFAULT'),
    ('RESET session_authorization'), ('RESET ALL'), ('DISCARD ALL'), ('SET is_superuser = on'),
    ('SELECT set_config(''is_superuser'', ''on'', false)'),
    ('ALTER ROLE CURRENT_USER SUPERUSER'), ('ALTER ROLE regress_loky_victim RESET ALL'),
    ('CREATE ROLE regress_loky_more'), ('GRANT regress_loky_victim TO CURRENT_USER'),
    ('UPDATE pg_authid SET rolsuper = true'), ('TABLE t.treasure'), ('COPY t.treasure TO PROGRAM ''true'''),
    ('SELECT pg_read_file(''postgresql.conf'')'), ('DROP ROLE regress_loky_victim'),
    ('ALTER TABLE t.treasure OWNER TO CURRENT_USER');

-- The outcome of each attempt in each kind of task, and who the next task is then.
CREATE FUNCTION t.attempt(kind text, command text, OUT outcome text, OUT next text) LANGUAGE plpgsql AS $$
DECLARE
    f bigint;
BEGIN
    BEGIN
        CASE kind
            WHEN 'statement' THEN
                outcome := (SELECT r FROM loky.run(command || '; SELECT t.whoami()') r);
            WHEN 'function' THEN
                outcome := (SELECT r FROM loky.run('t.do_in', ROW(command)) r);
            WHEN 'procedure' THEN
                outcome := (SELECT r FROM loky.run('t.do_call', ROW(command)) r);
            WHEN 'item' THEN
                outcome := (SELECT r FROM loky.map('t.do_in', ARRAY[command]) r);
            WHEN 'callback' THEN
                f := loky.submit('SELECT 1');
                f := loky.add_done_callback(f, format('SELECT t.do_in(%L) WHERE $1 > 0', command));
                outcome := (SELECT r FROM loky.result(f) r);
            WHEN 'nested' THEN
                outcome := (SELECT r FROM loky.run('SELECT r FROM loky.run(''t.do_in'', ROW($1)) r', ROW(command)) r);
        END CASE;
    EXCEPTION WHEN OTHERS THEN
        outcome := SQLSTATE;
    END;
    next := (SELECT r FROM loky.run('t.whoami') r);
END$$;
CREATE FUNCTION t.attempts() RETURNS TABLE (attempts bigint, many_refused boolean, gained text, next_gained text) LANGUAGE sql VOLATILE AS $$
    SELECT count(*), count(*) FILTER (WHERE outcome ~ '^.{5}$') > 200,
        string_agg(kind || ': ' || command || ': ' || outcome, E'\n')
            FILTER (WHERE outcome !~ '^.{5}$' AND replace(outcome, format('%1$s, %1$s', current_user), '') NOT IN ('', '; ')),
        string_agg(kind || ': ' || command || ': ' || next, E'\n') FILTER (WHERE next <> format('%1$s, %1$s', current_user))
    FROM (SELECT kind, command, a.* FROM unnest('{statement,function,procedure,item,callback,nested}'::text[]) kind, t.attempts, t.attempt(kind, command) a) x
$$;
GRANT SELECT ON t.attempts TO PUBLIC;

SET ROLE regress_loky_nologin;
SELECT loky.get_reusable_executor(1) > 0 AS one_worker;
SELECT * FROM t.attempts();
-- An initializer.
CREATE FUNCTION pg_temp.initialize(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM loky.get_reusable_executor(1, initializer => command);
    RETURN (SELECT r FROM loky.run('t.whoami') r);
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END$$;
SELECT r, count(*) > 0 AS some FROM (SELECT pg_temp.initialize(command) r FROM t.attempts) x GROUP BY r ORDER BY r;
RESET ROLE;
RESET loky.executor;
-- a real login, without the superuser's session behind it
\c - regress_loky_login
SELECT loky.get_reusable_executor(1) > 0 AS one_worker;
SELECT * FROM t.attempts();
-- SET SESSION AUTHORIZATION of a superuser's session is as good as a login
\c - :superuser
SET SESSION AUTHORIZATION regress_loky_login;
SELECT loky.get_reusable_executor(1) > 0 AS one_worker;
SELECT * FROM t.attempts();
-- A role that one is a member of is another matter, but the next task's own again.
SELECT * FROM loky.run('SET ROLE regress_loky_group; SELECT t.whoami()');
SELECT * FROM loky.run('t.whoami');
-- The worker is who its executor is for, whatever the role's own settings say.
RESET SESSION AUTHORIZATION;
RESET loky.executor;
SET client_min_messages = error;
ALTER ROLE regress_loky_nologin SET role = 'regress_loky_victim';
ALTER ROLE regress_loky_nologin SET session_authorization = 'regress_loky_victim';
ALTER ROLE regress_loky_login SET role = 'regress_loky_group';
RESET client_min_messages;
SET ROLE regress_loky_nologin;
SELECT loky.get_reusable_executor(1, kill_workers => true) > 0 AS fresh_worker;
SELECT * FROM loky.run('t.whoami');
SELECT * FROM loky.run('RESET ROLE; SELECT t.whoami()');
SELECT * FROM loky.run('SET role TO DEFAULT; SELECT t.whoami()');
SELECT * FROM loky.run('RESET SESSION AUTHORIZATION; SELECT t.whoami()');
SET ROLE regress_loky_login;
SELECT loky.get_reusable_executor(1, kill_workers => true) > 0 AS fresh_worker;
SELECT * FROM loky.run('t.whoami');
SELECT * FROM loky.run('RESET ROLE; SELECT t.whoami()');
RESET ROLE;
RESET loky.executor;

-- A SECURITY DEFINER function's tasks are its owner's: not in an executor of the
-- caller, and not with its reducers, initializer, environment or settings.
GRANT CREATE, USAGE ON SCHEMA t TO regress_loky_login;
CREATE FUNCTION t.as_owner(what text, OUT r text) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f bigint;
BEGIN
    CASE what
        WHEN 'run' THEN r := (SELECT x FROM loky.run('SELECT t.whoami()') x);
        WHEN 'submit' THEN r := (SELECT x FROM loky.result(loky.submit('SELECT t.whoami() || $1', '!'::text)) x);
        WHEN 'map' THEN r := (SELECT x FROM loky.map('SELECT t.whoami() || $1', ARRAY['!']) x);
        WHEN 'executor' THEN r := loky.get_reusable_executor(1, reuse => 'true');
        WHEN 'kill' THEN PERFORM loky.get_reusable_executor(1, kill_workers => true);
        WHEN 'shutdown' THEN PERFORM loky.shutdown(kill_workers => true);
        WHEN 'commit' THEN
            f := loky.submit_task('INSERT INTO t.treasure SELECT t.whoami()', on_commit => true);
    END CASE;
END$$;
ALTER FUNCTION t.as_owner OWNER TO regress_loky_victim;
GRANT USAGE ON SCHEMA loky TO regress_loky_victim;
SET SESSION AUTHORIZATION regress_loky_login;
CREATE FUNCTION t.spy(text) RETURNS text LANGUAGE sql VOLATILE AS $$SELECT 'spied on by ' || t.whoami()$$;
SELECT loky.get_reusable_executor(1, job_reducers => '{"text": "t.spy"}', result_reducers => '{"text": "t.spy"}', initializer => 't.whoami', settings => '{"my.spy": "1"}') AS mine \gset
SELECT * FROM loky.run('SELECT $1', ROW('x'::text));
SELECT w, t.as_owner(w) FROM unnest('{run,submit,map}'::text[]) w;
-- it neither gets nor ends the caller's executor
SELECT t.as_owner('executor') <> :'mine' AS another;
SELECT current_setting('loky.executor') <> :'mine' AS it_is_the_sessions_now;
SELECT set_config('loky.executor', :'mine', false) = :'mine' AS mine_again;
SELECT r AS pid FROM loky.run('SELECT pg_backend_pid()', result => NULL::int) r \gset
SELECT t.as_owner('shutdown');
SELECT t.as_owner('kill');
SELECT set_config('loky.executor', :'mine', false) = :'mine' AS mine_again;
SELECT r = :pid AS same_worker FROM loky.run('SELECT pg_backend_pid()', result => NULL::int) r;
-- nor does the caller get the owner's, whose id it has
SELECT t.as_owner('executor') AS owners \gset
SELECT * FROM loky.run('t.whoami');
SELECT c, (SELECT state FROM t.error(format(c, :'owners'))) FROM unnest(ARRAY[
    'SELECT loky.submit_task(''t.whoami'', executor => %s)', 'SELECT loky.submit_all(''SELECT $1'', ARRAY[1], executor => %s)',
    'SELECT * FROM loky.map(''SELECT $1'', ARRAY[1], executor => %s)', 'SELECT * FROM loky.try_map(''SELECT $1'', ARRAY[1], executor => %s)',
    'SELECT * FROM loky.flat_map(''SELECT $1'', ARRAY[1], executor => %s)',
    'SELECT * FROM loky.map_table(''SELECT $1, $2'', ''t.attempts'', executor => %s)']) c;
SELECT set_config('loky.executor', :'owners', false) = :'owners' AS set;
SELECT loky.get_reusable_executor(reuse => 'true') <> :'owners' AS another;
SELECT loky.shutdown(kill_workers => true);
RESET SESSION AUTHORIZATION;
RESET loky.executor;
SELECT state FROM loky.executors WHERE executor_id = :owners;
-- a task that is queued later is still the owner's
SET SESSION AUTHORIZATION regress_loky_login;
BEGIN;
SELECT t.as_owner('commit');
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT t.clean();
SELECT s FROM t.treasure ORDER BY s;

SELECT t.clean();
DROP FUNCTION t.as_owner, t.attempts, t.attempt, t.do_in, t.whoami, t.spy CASCADE;
DROP PROCEDURE t.do_call;
DROP TABLE t.treasure, t.attempts;
DROP OWNED BY regress_loky_login, regress_loky_nologin, regress_loky_victim, regress_loky_group;
DROP ROLE regress_loky_login, regress_loky_nologin, regress_loky_victim, regress_loky_group;
