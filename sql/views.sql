-- What the views, and PostgreSQL's own, tell of tasks and workers.

SELECT now() AS since, pg_backend_pid() AS me \gset
SELECT loky.get_reusable_executor(1, timeout => '33 s') AS e \gset
SELECT t.reset();
SELECT loky.submit_all('t.pass', ARRAY[1, 1], label => 'gated') AS fs \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT label, task, state, priority, submitted >= :'since' AS submitted, started >= submitted AS started, finished, worker IS NOT NULL AS worker,
       rows, sqlstate, role = current_user AS role, submitter = :me AS submitter, attempts, key, waiting_for
FROM loky.tasks WHERE future = ANY (:'fs') ORDER BY future \gx
SELECT state, future = (:'fs'::bigint[])[1] AS is_the_first, task, executor_id = :e AS executor, tasks_done, memory_bytes > 0 AS memory, started <= last_active AS times
FROM loky.workers WHERE executor_id = :e;
SELECT max_workers, workers, idle, pending, running, succeeded, failed, cancelled, timeout, state, created >= :'since' AS created FROM loky.executors WHERE executor_id = :e;
-- PostgreSQL's views show the worker as any backend, with its query
SELECT a.backend_type, a.application_name, a.state, a.query, a.datname = current_database() AS database, a.usename = current_user AS role
FROM pg_stat_activity a JOIN loky.workers w USING (pid) WHERE w.executor_id = :e;
SELECT setval('t.gate', 1);
SELECT state, count(*) FROM loky.wait(:'fs') GROUP BY state;
SELECT state, finished >= started AS finished, rows, attempts, waiting_for, worker IS NOT NULL AS worker FROM loky.tasks WHERE future = ANY (:'fs');
SELECT t.until(format($$state = 'idle' AND future IS NULL FROM loky.workers WHERE executor_id = %s$$, :e));
SELECT t.until(format($$a.state = 'idle' AND application_name = 'loky:%s' FROM pg_stat_activity a JOIN loky.workers USING (pid) WHERE executor_id = %1$s$$, :e));
SELECT idle, pending, running, succeeded FROM loky.executors WHERE executor_id = :e;
SELECT tasks_done FROM loky.workers WHERE executor_id = :e;
-- rows, errors, counts
SELECT loky.submit('SELECT generate_series(1, 7)') AS a, loky.submit('t.bad', 1) AS b, loky.submit('INSERT INTO t.log (i) VALUES (1), (2)') AS c \gset
SELECT count(*) FROM loky.wait(ARRAY[:a, :b, :c]);
SELECT task, state, rows, sqlstate, message FROM loky.tasks WHERE future IN (:a, :b, :c) ORDER BY future;
SELECT succeeded, failed, cancelled FROM loky.executors WHERE executor_id = :e;
SELECT loky.forget(:a);
SELECT count(*) FROM loky.tasks WHERE future = :a;
-- a map is no task, but its worker shows it
SELECT t.reset();
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.pass', ARRAY[0, 1], NULL::int, label => 'a map');
FETCH 1 FROM c;
SELECT t.until('last_value = 2 FROM t.arrived');
SELECT a.application_name, a.query, w.state FROM pg_stat_activity a JOIN loky.workers w USING (pid) WHERE w.executor_id = :e;
COMMIT;
RESET loky.executor;
SELECT t.clean();
