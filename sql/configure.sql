-- What an executor's workers have from its configuration: environment, settings.
-- Initializers and reducers have tests of their own.

CREATE ROLE regress_loky_env;
CREATE ROLE regress_loky_friend;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_env, regress_loky_friend;
-- the variables of this name as a task sees them
CREATE FUNCTION t.env(VARIADIC names text[]) RETURNS text LANGUAGE sql VOLATILE
AS $$SELECT string_agg(coalesce(r, '-'), ' ') FROM loky.map('loky.getenv', names) r$$;
-- what comes of an argument env
CREATE FUNCTION t.try_env(env text) RETURNS text LANGUAGE sql VOLATILE
AS $$SELECT coalesce(state || ': ' || message || ' / ' || hint, 'accepted')
     FROM t.error(format('SELECT loky.get_reusable_executor(1, env => %L)', env))$$;

--
-- env
--
-- S06: the first call of a session may ask to keep what there is not
SELECT current_setting('loky.executor') = '' AS first_call;
SELECT loky.get_reusable_executor(2, reuse => 'true', env => '{}') > 0 AS ok;
SELECT * FROM loky.map('t.id', ARRAY[1, 2, 3]);
-- F18: set, set to nothing, unset; numbers and booleans are text there
SELECT loky.get_reusable_executor(1, env => '{"A": "1", "N": 1.50, "B": true, "F": false, "EMPTY": "", "PATH": null, "NEVER": null}') AS e \gset
SELECT n, r AS value, r IS NULL AS unset FROM unnest(ARRAY['A', 'N', 'B', 'F', 'EMPTY', 'PATH', 'NEVER', 'LOKY_NO_SUCH', '']) n, loky.result(loky.submit('loky.getenv', n)) r;
-- the rest is the server's, and the server's is not touched
SELECT t.env('PGDATA') = coalesce(loky.getenv('PGDATA'), '-') AS same;
SELECT loky.getenv('A') IS NULL AS not_here, loky.getenv('PATH') IS NOT NULL AS here, loky.getenv(NULL) IS NULL AS null_name, loky.getenv('A=B') IS NULL AS no_name;
-- nor does a name with a part of the value confirm it
SELECT loky.getenv('REGRESS_LOKY=a') IS NULL, loky.run('SELECT loky.getenv(''REGRESS_LOKY=a'') IS NULL') AS no_guess FROM loky.get_reusable_executor(1, env => '{"REGRESS_LOKY": "a=b"}');
RESET loky.executor;
-- a value may be anything, and so may a name, but for = and nothing
SELECT loky.get_reusable_executor(1, env => '{"A": "x=y\n z", "a": "small", "É": "ü€", "A B": " blank "}') > 0 AS ok;
SELECT n, to_json(r) AS value FROM unnest(ARRAY['A', 'a', 'É', 'A B']) n, loky.result(loky.submit('loky.getenv', n)) r;
SELECT e, t.try_env(e) FROM unnest(ARRAY['[]', '["A"]', '1', 'null', '"A"', '{"A": {}}', '{"A": [1]}', '{"": 1}', '{"=": 1}', '{"A=": 1}', '{"A=B": null}']) e;
SELECT current_setting('loky.executor')::int > :e AS kept;
SELECT t.env('a') AS and_in_use;
-- S11, F02: values are compared, not spellings
SELECT loky.get_reusable_executor(2, env => '{"A": "1", "B": "2"}') AS ab \gset
SELECT loky.get_reusable_executor(2, env => '{"B": "2", "A": "1"}') = :ab AS key_order,
       loky.get_reusable_executor(2, env => '{ "A" : 1, "B":2 }') = :ab AS numbers,
       loky.get_reusable_executor(2, env => '{"A": "x", "A": "1", "B": "2"}') = :ab AS the_last_counts,
       loky.get_reusable_executor(2, env => '{"A": "1", "B": "3"}') <> :ab AS other_value,
       loky.get_reusable_executor(2, env => '{"A": "1"}') <> :ab AS fewer,
       loky.get_reusable_executor(2, env => '{"A": "1", "b": "2"}') <> :ab AS other_case,
       loky.get_reusable_executor(2, env => '{"A": "1", "B": null}') <> :ab AS unset;
SELECT loky.get_reusable_executor(2, env => '{"A": true}') = loky.get_reusable_executor(2, env => '{"A": "true"}') AS boolean,
       loky.get_reusable_executor(2, env => '{"A": null}') <> loky.get_reusable_executor(2) AS unset_is_something,
       loky.get_reusable_executor(2, env => '{}') = loky.get_reusable_executor(2) AS nothing,
       loky.get_reusable_executor(2, env => NULL) = loky.get_reusable_executor(2) AS nothing_either;
SELECT loky.get_reusable_executor(2, timeout => '10 s', env => '{"A": "1"}') = loky.get_reusable_executor(2, timeout => '00:00:10', env => '{"A": 1}') AS same_time;
-- S08: reuse => 'true' keeps it, however many workers are asked for
SELECT loky.get_reusable_executor(2, env => '{"A": "1"}') AS e \gset
SELECT t.env('A');
SET client_min_messages = error;
SELECT loky.get_reusable_executor(64, reuse => 'true') = :e AS same, t.env('A');
RESET client_min_messages;
SELECT loky.get_reusable_executor(2, reuse => 'true', env => '{"A": "2"}') = :e AS same, t.env('A');
SELECT loky.shutdown();
SELECT loky.get_reusable_executor(reuse => 'true', env => '{"A": "2"}') > :e AS fresh, t.env('A');
-- each worker has it
SELECT loky.get_reusable_executor(1, env => '{"A": "again"}') AS e \gset
SELECT r AS pid, t.env('A') FROM loky.result(loky.submit('t.pid'), NULL::int) r \gset
SELECT loky.get_reusable_executor(1, env => '{"A": "again"}', kill_workers => true) = :e AS same;
SELECT r <> :pid AS fresh, t.env('A') FROM loky.result(loky.submit('t.pid'), NULL::int) r;
-- a task's own tasks run in the same environment
SELECT r FROM loky.result(loky.submit('t.env', 'A'), NULL::text) r;

--
-- Who may set what
--
-- a superuser anything
SELECT t.try_env('{"LD_PRELOAD": null, "PATH": "/nowhere", "ANYTHING": 1}');
RESET loky.executor;
SET ROLE regress_loky_env;
SELECT t.try_env('{"A": 1}');
SELECT t.try_env('{"LD_PRELOAD": null}');
SELECT t.try_env('{}');
SET loky.env_allowed = '*';
RESET ROLE;
-- others what the setting lists: names, with * for anything, in this case
SET loky.env_allowed = 'OMP_*, X, *_END ,*mid*,LC_?, a**b,,';
SET ROLE regress_loky_env;
SELECT n, left(t.try_env(json_build_object(n, 1)::text), 8) AS outcome
FROM unnest(ARRAY['OMP_NUM_THREADS', 'OMP_', 'OMP', 'omp_x', ' OMP_X', 'X', 'XX', 'x', 'THE_END', '_END', 'END', '_END_', 'amidb', 'mid', 'MID', 'LC_A', 'LC_?', 'ab', 'axxb', 'abab', 'a', 'aba', '*', ',', 'LD_PRELOAD', 'PATH']) n;
-- each name counts, also one to be unset
SELECT t.try_env('{"OMP_X": 1, "LD_PRELOAD": null}');
SELECT loky.get_reusable_executor(1, env => '{"OMP_X": "threads", "X": null}') > 0 AS ok, t.env('OMP_X', 'X');
RESET ROLE;
RESET loky.env_allowed;
SET ROLE regress_loky_env;
-- what was allowed once is in use, and is not given anew
SELECT t.env('OMP_X') AS still;
SELECT t.try_env('{"OMP_X": "threads"}');
SELECT loky.get_reusable_executor(1, reuse => 'true') > 0 AS ok, t.env('OMP_X');
RESET ROLE;
RESET loky.executor;
-- rights on these settings are granted as on others
GRANT SET ON PARAMETER loky.env_allowed TO regress_loky_friend;
SET ROLE regress_loky_friend;
SET loky.env_allowed = '*';
SELECT t.try_env('{"ANYTHING": 1}');
RESET loky.env_allowed;
RESET ROLE;
RESET loky.executor;
-- for one role alone
SELECT current_user AS owner, current_database() AS db \gset
ALTER ROLE regress_loky_env LOGIN;
ALTER ROLE regress_loky_env SET loky.env_allowed = 'ANY*';
\c - regress_loky_env
SELECT t.try_env('{"OTHER": 1}');
SELECT loky.get_reusable_executor(1, env => '{"ANYTHING": 1}') > 0 AS ok, t.env('ANYTHING');
\c - :owner

--
-- loky.env: what env is where it is not given
--
SET loky.env = '{"Z": "the default", "Y": 5, "PATH": null}';
SELECT t.env('Z', 'Y', 'PATH');
-- for whoever, since a superuser has said so
SET ROLE regress_loky_env;
SELECT t.env('Z', 'Y', 'PATH');
SELECT loky.get_reusable_executor(1, env => '{}') = loky.get_reusable_executor(1) AS same, t.env('Z', 'Y', 'PATH');
SELECT t.try_env('{"Z": "mine"}');
SET loky.env = '{"Z": "mine"}';
RESET ROLE;
RESET loky.executor;
-- an env that names something stands in its place
SELECT loky.get_reusable_executor(1, env => '{"Y": 6}') > 0 AS ok, t.env('Z', 'Y', 'PATH') ~ '^- 6 [^-]' AS alone;
SELECT loky.get_reusable_executor(1, env => '{"Y": "5", "Z": "the default", "PATH": null}') = loky.get_reusable_executor(1) AS equal_to_the_default;
-- an executor keeps what it was made with; the default one is another then
SELECT loky.get_reusable_executor(1) AS e \gset
SET loky.env = ' {"Z": "another default"} ';
SELECT t.env('Z', 'Y');
SELECT loky.get_reusable_executor(1) <> :e AS another, t.env('Z', 'Y');
RESET loky.executor;
SELECT t.env('Z', 'Y');
SET loky.env = '{}';
SELECT t.env('Z', 'Y');
BEGIN;
SET LOCAL loky.env = '{"Z": "for the while"}';
SELECT t.env('Z', 'Y');
ROLLBACK;
SELECT t.env('Z', 'Y');
-- what is no JSON object is refused at once, the rest when it is used
SET loky.env = '5';
SET loky.env = '{"A": 1';
SET loky.env = 'null';
SET loky.env = '{"A=B": 1}';
SELECT state, message, hint FROM t.error('SELECT loky.submit(''SELECT 1'')');
SET loky.env = '{"A": {"B": 1}}';
SELECT state, message, hint FROM t.error('SELECT loky.get_reusable_executor(1)');
RESET loky.env;
SELECT t.env('Z', 'Y');
-- as a setting of the database
ALTER DATABASE :"db" SET loky.env = '{"Z": "the database''s"}';
\c -
SELECT t.env('Z', 'Y');
ALTER DATABASE :"db" RESET loky.env;
\c -
SELECT t.env('Z', 'Y');

--
-- loky.executor, with executors that differ
--
-- who of two executors a call goes to shows in A
SELECT loky.get_reusable_executor(1, env => '{"A": "one"}') AS one \gset
SELECT loky.get_reusable_executor(1, env => '{"A": "two"}') AS two \gset
SELECT t.env('A');
-- a rollback undoes the call
BEGIN;
SELECT loky.get_reusable_executor(1, env => '{"A": "one"}') = :one AS one, t.env('A');
SAVEPOINT s;
SELECT loky.get_reusable_executor(1, env => '{"A": "three"}') > :two AS three, t.env('A');
ROLLBACK TO s;
SELECT t.env('A');
ROLLBACK;
SELECT t.env('A');
-- SET LOCAL, SET, RESET, DISCARD ALL
BEGIN;
SET LOCAL loky.executor = :one;
SELECT t.env('A');
COMMIT;
SELECT t.env('A');
SET loky.executor = :one;
SELECT t.env('A');
RESET loky.executor;
SELECT t.env('A');
SET loky.executor = :two;
SELECT t.env('A');
DISCARD ALL;
SELECT current_setting('loky.executor') AS current, t.env('A');
-- a function with a SET clause
CREATE FUNCTION t.env_in(executor int) RETURNS text LANGUAGE plpgsql SET loky.executor = '' AS $$
BEGIN
    PERFORM set_config('loky.executor', executor::text, true);
    RETURN t.env('A');
END$$;
SELECT t.env_in(:one), t.env('A') AS outside;
-- the argument executor
SET loky.executor = :two;
SELECT r FROM loky.map('loky.getenv', ARRAY['A'], executor => :one) r;
SELECT r FROM loky.flat_map('loky.getenv', ARRAY['A'], executor => :one) r;
SELECT result FROM loky.try_map('loky.getenv', ARRAY['A'], executor => :one);
SELECT result FROM loky.try_map('loky.getenv', ARRAY['A'], NULL::name, executor => :one);
SELECT r FROM unnest(loky.submit_all('loky.getenv', ARRAY['A'], executor => :one)) f, loky.result(f) r;
SELECT r FROM loky.map('loky.getenv', ARRAY['A'], executor => NULL) r;
SELECT t.env('A') AS still;
-- one that was shut down acts as its configuration anew
SET loky.executor = :one;
SELECT loky.shutdown();
SET loky.executor = :two;
SELECT r FROM loky.map('loky.getenv', ARRAY['A'], executor => :one) r;
SELECT (loky.submit_all('loky.getenv', ARRAY['A'], executor => :one))[1] AS f \gset
SELECT r, executor_id > :two AS fresh, executor_id = loky.get_reusable_executor(1, env => '{"A": "one"}') AS for_all
FROM loky.tasks, loky.result(:f) r WHERE future = :f;
SET loky.executor = :two;
-- it counts for one role: a SECURITY DEFINER function has its owner's default one
CREATE FUNCTION t.definer_env() RETURNS text LANGUAGE sql VOLATILE SECURITY DEFINER
AS $$SELECT t.env('A') || ' ' || (SELECT r FROM loky.result(loky.submit('SELECT current_user')) r)$$;
ALTER FUNCTION t.definer_env() OWNER TO regress_loky_env;
SELECT t.definer_env(), t.env('A');
SET ROLE regress_loky_friend;
SELECT t.definer_env(), t.env('A');
RESET ROLE;
-- inside a task the current executor is the task's own, whatever it sets
SELECT r FROM loky.result(loky.submit('t.env_in', :one)) r;
RESET loky.executor;

--
-- F25: settings
--
SELECT loky.get_reusable_executor(1, settings => '{"work_mem": "64MB", "loky.max_depth": 3, "my.x": "y", "enable_sort": false}') > 0 AS ok;
SELECT r FROM loky.map('SELECT current_setting($1)', ARRAY['work_mem', 'loky.max_depth', 'my.x', 'enable_sort']) r;
-- a text that the settings of the executor make several statements of, other than the caller's
SELECT loky.get_reusable_executor(1, settings => '{"standard_conforming_strings": "on"}') > 0 AS ok;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SELECT sqlstate, message FROM loky.exception(loky.submit($$SELECT $1 || '\'; SELECT 2 --'$$, 'x'));
SELECT sqlstate, message FROM loky.exception(loky.submit($$SELECT '\'; SELECT $1 --'$$, 'x'));
SELECT sqlstate, message FROM loky.exception(loky.submit($$SELECT '\'; COPY t.log TO STDOUT --'$$));
RESET escape_string_warning;
RESET standard_conforming_strings;
-- both together, and in force before anything runs
SELECT loky.get_reusable_executor(1, settings => '{"my.x": "z"}', env => '{"A": "both"}') > 0 AS ok;
SELECT r FROM loky.result(loky.submit('SELECT current_setting(''my.x'') || '' '' || loky.getenv(''A'')')) r;
-- S12: more configurations than there is room for: idle ones make room
CREATE FUNCTION t.configure(n int) RETURNS bigint LANGUAGE sql VOLATILE
AS $$SELECT count(loky.get_reusable_executor(1, env => jsonb_build_object('A', i))) FROM generate_series(1, n) i$$;
SELECT t.configure(200);
SELECT loky.get_reusable_executor(1, env => jsonb_build_object('A', i)) > 0 AS ok, t.env('A') FROM generate_series(1, 3) i;
-- a session whose executor is gone, and its room another's, keeps its configuration
SELECT loky.get_reusable_executor(1, env => '{"A": "mine"}') AS e \gset
SELECT loky.shutdown();
SELECT t.env('A');
SELECT t.env('A');
SELECT r FROM loky.map('loky.getenv', ARRAY['A'], executor => :e) r;
SELECT loky.shutdown();
SELECT t.configure(20);
SET loky.executor = :e;
SELECT loky.get_reusable_executor(reuse => 'true') > :e AS fresh, t.env('A');
RESET loky.executor;

REVOKE SET ON PARAMETER loky.env_allowed FROM regress_loky_friend;
DROP FUNCTION t.definer_env();
DROP OWNED BY regress_loky_env, regress_loky_friend;
DROP ROLE regress_loky_env, regress_loky_friend;
SELECT t.clean();
