-- Who may use the schema, and who sees what.

CREATE ROLE regress_loky_app;
CREATE ROLE regress_loky_peer;
CREATE ROLE regress_loky_stats IN ROLE pg_read_all_stats;
GRANT USAGE ON SCHEMA t TO regress_loky_app, regress_loky_peer;
-- without USAGE nothing can be named
SET ROLE regress_loky_app;
SELECT loky.submit('SELECT 1');
SELECT count(*) FROM loky.tasks;
RESET ROLE;
GRANT USAGE ON SCHEMA loky TO regress_loky_app, regress_loky_peer, regress_loky_stats;
SET ROLE regress_loky_app;
SELECT loky.submit_all('SELECT ''a secret of app'' || $1', ARRAY[1], label => 'app''s label') AS fs \gset
SELECT (:'fs'::bigint[])[1] AS f \gset
SELECT loky.submit('SELECT 1 / 0 AS secret_error') AS g \gset
SELECT done FROM loky.wait(ARRAY[:f, :g]);
SELECT task, label, state, sqlstate, message FROM loky.tasks WHERE future = ANY (ARRAY[:f, :g]) ORDER BY future;
-- others see that there is something, not what
SET ROLE regress_loky_peer;
SELECT task, label, state, message FROM loky.tasks WHERE role = 'regress_loky_app' ORDER BY future;
SELECT count(*) > 0 AS workers, count(*) FILTER (WHERE w.task ~ 'secret') AS tasks FROM loky.workers w JOIN loky.executors USING (executor_id) WHERE role = 'regress_loky_app';
SELECT count(*) FROM loky.executors WHERE role = 'regress_loky_app';
-- who may read all statistics sees them
SET ROLE regress_loky_stats;
SELECT task, label, state, message FROM loky.tasks WHERE role = 'regress_loky_app' ORDER BY future;
RESET ROLE;
SELECT task, label, state, message FROM loky.tasks WHERE role = 'regress_loky_app' ORDER BY future;
-- each role has executors of its own
SET ROLE regress_loky_app;
SELECT loky.get_reusable_executor(1, timeout => '31 s') AS of_app \gset
SET ROLE regress_loky_peer;
SELECT loky.get_reusable_executor(1, timeout => '31 s') <> :of_app AS another;
SELECT state FROM t.error(format($$SELECT loky.submit_all('SELECT $1', ARRAY[1], executor => %s)$$, :of_app));
SELECT state FROM t.error(format($$SELECT * FROM loky.map('SELECT $1', ARRAY[1], executor => %s)$$, :of_app));
-- the right to execute a function is the task's to have
RESET ROLE;
CREATE FUNCTION t.guarded(x int) RETURNS int LANGUAGE sql AS 'SELECT x';
REVOKE EXECUTE ON FUNCTION t.guarded FROM PUBLIC;
SET ROLE regress_loky_peer;
SELECT state FROM t.error($$SELECT * FROM loky.result(loky.submit('t.guarded', 1))$$);
SELECT state FROM t.error($$SELECT * FROM loky.map('t.guarded', ARRAY[1])$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION t.guarded TO regress_loky_peer;
SET ROLE regress_loky_peer;
SELECT * FROM loky.result(loky.submit('t.guarded', 1));
SELECT * FROM loky.map('t.guarded', ARRAY[1]);
RESET ROLE;
-- settings that the role may not set
SET ROLE regress_loky_peer;
SELECT s, (SELECT state FROM t.error(format('SELECT loky.get_reusable_executor(1, settings => %L)', s)))
FROM unnest(ARRAY['{"log_min_messages": "panic"}', '{"session_preload_libraries": "x"}', '{"session_replication_role": "replica"}', '{"loky.max_depth": "100"}', '{"work_mem": "1MB"}', '{"role": "pg_monitor"}', '{"Role": "none"}', '{"session_authorization": "regress_loky_app"}']) s;
SELECT * FROM loky.result(loky.submit('SELECT current_user'));
RESET ROLE;
RESET loky.executor;
SELECT t.clean();
DROP OWNED BY regress_loky_app, regress_loky_peer, regress_loky_stats;
DROP ROLE regress_loky_app, regress_loky_peer, regress_loky_stats;
