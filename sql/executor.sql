-- Executors: one for each configuration, shared, resized, ended.

CREATE FUNCTION t.current() RETURNS int LANGUAGE sql VOLATILE
AS $$SELECT current_setting('loky.executor')::int$$;
CREATE FUNCTION t.setting_of_task(name text) RETURNS text LANGUAGE sql VOLATILE
AS $$SELECT r FROM loky.result(loky.submit('SELECT current_setting($1)', name)) r$$;

-- Who never calls it has the default one, made on first use: here anew.
SELECT loky.shutdown();
SELECT current_setting('loky.executor') = '' AS none;
SELECT loky.submit('SELECT 1') AS f \gset
SELECT executor_id AS id_default FROM loky.tasks WHERE future = :f \gset
SELECT max_workers, timeout, state, context, database = current_database() AS database, role = current_user AS role FROM loky.executors WHERE executor_id = :id_default;
SELECT loky.get_reusable_executor() = :id_default AS same, t.current() = :id_default AS is_current;

-- Equal configurations are one executor, and values count, not spellings.
SELECT loky.get_reusable_executor(2) AS id2 \gset
SELECT :id2 = :id_default AS size_is_no_difference, max_workers FROM loky.executors WHERE executor_id = :id2;
SELECT loky.get_reusable_executor(2, timeout => '99 s') AS a \gset
SELECT :a <> :id_default AS another;
SELECT loky.get_reusable_executor(2, timeout => '00:01:39') = :a AS seconds, loky.get_reusable_executor(2, timeout => '1 min 39 s') = :a AS minutes,
       loky.get_reusable_executor(2, timeout => '99000 ms', context => 'bgworker') = :a AS context;
SELECT timeout FROM loky.executors WHERE executor_id = :a;
SELECT loky.get_reusable_executor(2, timeout => '10 s') = :id_default AS explicit_default, loky.get_reusable_executor(2, settings => '{}') = :id_default AS no_settings;
SELECT loky.get_reusable_executor(2, timeout => '-1 s') = loky.get_reusable_executor(2, timeout => '-5 min') AS never;
SELECT loky.get_reusable_executor(2, timeout => '0') <> loky.get_reusable_executor(2, timeout => '-1 s') AS at_once_is_not_never;
SELECT loky.get_reusable_executor(2, settings => '{"work_mem": "64MB", "enable_seqscan": "off"}') AS s \gset
SELECT loky.get_reusable_executor(2, settings => '{"enable_seqscan": "off", "work_mem": "64MB"}') = :s AS key_order,
       loky.get_reusable_executor(2, settings => '{"work_mem": 65536, "enable_seqscan": false}') = :s AS spelling,
       loky.get_reusable_executor(2, settings => '{"Work_Mem": "65536kB", "enable_seqscan": "no"}') = :s AS units,
       loky.get_reusable_executor(2, settings => '{"work_mem": "63MB", "enable_seqscan": "off"}') <> :s AS other_value;
SELECT loky.get_reusable_executor(2, settings => '{"seq_page_cost": 0.3, "vacuum_cost_delay": "1500us"}') AS r \gset
SELECT loky.get_reusable_executor(2, settings => '{"vacuum_cost_delay": 1.5, "seq_page_cost": "3e-1"}') = :r AS fractions,
       loky.get_reusable_executor(2, settings => '{"vacuum_cost_delay": 1.5, "seq_page_cost": 0.30000000000000004}') <> :r AS other_fraction;
BEGIN;
SET LOCAL loky.timeout = '99 s';
SELECT loky.get_reusable_executor(2) = :a AS setting_is_the_default;
COMMIT;
-- settings are in force in the tasks, above the session's, and stay
SELECT loky.get_reusable_executor(2, settings => '{"work_mem": "64MB", "enable_seqscan": "off", "my.own": "mine"}') > 0 AS ok;
BEGIN;
SET LOCAL work_mem = '1MB';
SET LOCAL enable_seqscan = on;
SELECT t.setting_of_task('work_mem'), t.setting_of_task('enable_seqscan'), t.setting_of_task('my.own');
COMMIT;
SELECT r FROM loky.map('SELECT current_setting($1)', ARRAY['work_mem', 'my.own']) r;
SELECT * FROM loky.result(loky.submit('RESET ALL'));
SELECT * FROM loky.result(loky.submit('SET work_mem = ''2MB'''));
SELECT t.setting_of_task('work_mem'), t.setting_of_task('enable_seqscan');
SELECT * FROM loky.result(loky.submit('DISCARD ALL'));
SELECT t.setting_of_task('work_mem'), t.setting_of_task('enable_seqscan');

-- loky.executor is a setting as others are.
SELECT loky.get_reusable_executor(2) = :id_default AS back;
BEGIN;
SELECT loky.get_reusable_executor(2, timeout => '99 s') = :a AS a;
SELECT t.current() = :a AS inside;
ROLLBACK;
SELECT t.current() = :id_default AS after_rollback;
BEGIN;
SELECT set_config('loky.executor', :'a', true) = :'a' AS set_local;
SELECT loky.submit('SELECT 1') AS f \gset
SELECT executor_id = :a AS in_a FROM loky.tasks WHERE future = :f;
COMMIT;
SELECT t.current() = :id_default AS after_commit;
SET loky.executor = :a;
RESET loky.executor;
SELECT current_setting('loky.executor') AS after_reset;
SELECT loky.get_reusable_executor(2, timeout => '99 s') = :a AS a;
DISCARD ALL;
SELECT current_setting('loky.executor') AS after_discard;
SET loky.executor = 'nonsense';
SET loky.executor = '-1';
-- the argument executor
SELECT (loky.submit_all('SELECT $1', ARRAY[1], executor => :a))[1] AS f \gset
SELECT executor_id = :a AS in_a FROM loky.tasks WHERE future = :f;
SELECT bool_and(r IN (SELECT pid FROM loky.workers WHERE executor_id = :a)) AS in_a FROM loky.map('t.pid', ARRAY[1, 2, 3], NULL::int, executor => :a) r;
SELECT state, hint <> '' AS hinted FROM t.error($$SELECT loky.submit_all('SELECT $1', ARRAY[1], executor => 2000000000)$$);
SELECT state FROM t.error($$SELECT loky.submit_all('SELECT $1', ARRAY[1], executor => -1)$$);
SELECT state FROM t.error($$SELECT loky.submit_all('SELECT $1', ARRAY[1], executor => 0)$$);

-- max_workers as a session's setting resizes the default executor.
SET loky.max_workers = 3;
SELECT loky.submit('SELECT 1') > 0 AS ok;
SELECT max_workers FROM loky.executors WHERE executor_id = :id_default;
RESET loky.max_workers;
SELECT loky.submit('SELECT 1') > 0 AS ok;
SELECT max_workers AS stays FROM loky.executors WHERE executor_id = :id_default;
SET loky.max_workers = 0;
-- larger than possible: accepted, with a warning
SELECT loky.get_reusable_executor(1000) > 0 AS ok;
SELECT count(*) FROM loky.map('t.id', ARRAY(SELECT generate_series(1, 50)));
SELECT count(*) <= 8 AS within FROM loky.workers;
SELECT loky.get_reusable_executor(2) > 0 AS ok;

-- reuse => 'true': keeps executor and configuration, whatever the others say
SELECT loky.get_reusable_executor(3, timeout => '42 s') AS b \gset
SELECT loky.get_reusable_executor(reuse => 'true') = :b AS same;
SELECT loky.get_reusable_executor(timeout => '7 s', settings => '{"work_mem": "1MB"}', reuse => 'true') = :b AS same;
SELECT max_workers, timeout FROM loky.executors WHERE executor_id = :b;
SELECT loky.get_reusable_executor(2, timeout => '7 s', reuse => 'true') = :b AS same;
SELECT max_workers, timeout FROM loky.executors WHERE executor_id = :b;
-- also when it was shut down: a new one with that configuration
SELECT loky.shutdown();
SELECT loky.get_reusable_executor(reuse => 'true') AS c \gset
SELECT :c <> :b AS new, max_workers, timeout, state FROM loky.executors WHERE executor_id = :c;
-- with loky.executor empty as 'auto'
RESET loky.executor;
SELECT loky.get_reusable_executor(2, timeout => '42 s', reuse => 'true') = :c AS found;
RESET loky.executor;
SELECT loky.get_reusable_executor(2, timeout => '43 s', reuse => 'true') > :c AS made;

-- reuse => 'false': a new one each time; the old ends when its tasks are done
SELECT t.reset();
SELECT loky.get_reusable_executor(2, timeout => '44 s', reuse => 'false') AS n1, loky.submit('t.pass', 1) AS f1 \gset
SELECT loky.get_reusable_executor(2, timeout => '44 s', reuse => 'false') AS n2, loky.submit('t.pass', 1) AS f2 \gset
SELECT loky.get_reusable_executor(2, timeout => '44 s', reuse => 'false') AS n3, loky.submit('t.pass', 1) AS f3 \gset
SELECT :n1 < :n2 AND :n2 < :n3 AS ascend;
SELECT t.until('last_value = 3 FROM t.arrived');
SELECT setval('t.gate', 1);
SELECT state, count(*) FROM loky.wait(ARRAY[:f1, :f2, :f3]) GROUP BY state;
SELECT t.until(format($$ARRAY(SELECT executor_id FROM loky.executors WHERE state = 'open' AND executor_id IN (%s, %s, %s)) = ARRAY[%3$s]$$, :n1, :n2, :n3));
-- others find the newest
SELECT loky.get_reusable_executor(2, timeout => '44 s') = :n3 AS newest;

-- A call never waits for tasks, and loses none.
SELECT t.reset();
SELECT loky.get_reusable_executor(1, timeout => '45 s') > 0 AS ok;
SELECT loky.submit_all('t.pass', ARRAY[1, 1, 1]) AS fs \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.get_reusable_executor(2, timeout => '46 s') > 0 AS ok;
SELECT count(*) FILTER (WHERE NOT done) AS open FROM loky.wait(:'fs', '0');
SELECT setval('t.gate', 1);
SELECT state, count(*) FROM loky.wait(:'fs') GROUP BY state;

-- kill_workers: the workers end now, what they ran fails, what is pending runs.
SELECT t.reset();
SELECT loky.get_reusable_executor(1, timeout => '47 s') AS k \gset
SELECT loky.get_reusable_executor(1, timeout => '47 s') = :k AS ok;
SELECT r AS pid FROM loky.result(loky.submit('t.pid'), NULL::int) r \gset
SELECT loky.submit('t.pass', 1) AS running, loky.submit('t.pid') AS pending \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.get_reusable_executor(1, timeout => '47 s', kill_workers => true) = :k AS same;
SELECT done, state FROM loky.wait(ARRAY[:running, :pending]);
SELECT state, message, hint <> '' AS hinted FROM t.error('SELECT * FROM loky.result(' || :running || ')');
SELECT r <> :pid AS fresh_worker FROM loky.result(:pending, NULL::int) r;
SELECT t.until(format('NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)', :pid));
-- of a different previous one the pending are cancelled
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS running, loky.submit('t.pid') AS pending \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.get_reusable_executor(1, timeout => '48 s', kill_workers => true) <> :k AS another;
SELECT done, state FROM loky.wait(ARRAY[:running, :pending]);
SELECT sqlstate FROM loky.exception(:running);
-- it clears what tasks have left in a worker
SELECT * FROM loky.result(loky.submit('CREATE TEMP TABLE left_behind (i int)'));
SELECT r IS NOT NULL AS still_there FROM loky.result(loky.submit('SELECT to_regclass(''left_behind'')')) r;
SELECT loky.get_reusable_executor(1, timeout => '48 s', kill_workers => true) > 0 AS ok;
SELECT r IS NULL AS gone FROM loky.result(loky.submit('SELECT to_regclass(''left_behind'')')) r;

-- Values that are refused leave the current executor as it is.
SELECT t.current() AS now \gset
SELECT a, (SELECT state || CASE WHEN hint <> '' THEN ' hinted' ELSE '' END FROM t.error(format('SELECT loky.get_reusable_executor(%s)', a)))
FROM unnest(ARRAY['0', '-1', '2, reuse => ''maybe''', '2, reuse => NULL', '2, context => ''fork''',
    '2, settings => ''{"nope_nope": "1"}''', '2, settings => ''{"work_mem": "many"}''', '2, settings => ''{"work_mem": "1"}''',
    '2, settings => ''{"work_mem": "100", "Work_mem": "200"}''', '2, settings => ''{"work_mem": null}''', '2, settings => ''{"work_mem": [1]}''',
    '2, settings => ''{"vacuum_cost_delay": "1.5s"}''', '2, settings => ''[1]''', '2, settings => ''"x"''', '2, settings => ''{"shared_buffers": "1GB"}''', '2, kill_workers => NULL']) a;
SELECT a, (SELECT state || CASE WHEN hint <> '' THEN ' hinted: ' ELSE ': ' END || message FROM t.error(format('SELECT loky.get_reusable_executor(2, %s)', a)))
FROM unnest(ARRAY['job_reducers => ''{"int4": "t.nope"}''', 'job_reducers => ''{"nope": "abs"}''', 'job_reducers => ''{"int4": "sum"}''',
    'job_reducers => ''{"int4": null}''', 'job_reducers => ''{"int4": "abs", "integer": "abs"}''', 'result_reducers => ''["int4"]''',
    'result_reducers => ''{"int4": "SELECT 1"}''', 'initializer => ''t.nope''', 'initializer => ''t.nope(int)''', 'initializer => ''SELEC 1''',
    'initializer => ''abs''', 'initializer => ''''',
    'env => ''{"A": [1]}''', 'env => ''{"": "1"}''', 'env => ''{"A=B": "1"}''', 'env => ''"A"''']) a;
SELECT message, hint FROM unnest(ARRAY['settings => ''{"work_mem": null}''', 'settings => ''{"work_mem": [1]}''', 'job_reducers => ''{"int4": [1]}''', 'env => ''{"A": [1]}''']) a,
    t.error(format('SELECT loky.get_reusable_executor(2, %s)', a));
SELECT t.current() = :now AS kept;

-- Resizing before any task starts no worker.
SELECT loky.get_reusable_executor(2, timeout => '49 s') AS z \gset
SELECT loky.get_reusable_executor(4, timeout => '49 s') = :z AS same;
SELECT workers, max_workers FROM loky.executors WHERE executor_id = :z;

-- Workers leave after their timeout, and come again; the executor stays.
SELECT loky.get_reusable_executor(1, timeout => '20 ms') AS e \gset
SELECT r AS pid FROM loky.result(loky.submit('t.pid'), NULL::int) r \gset
SELECT t.until(format('workers = 0 FROM loky.executors WHERE executor_id = %s', :e));
SELECT r <> :pid AS fresh FROM loky.result(loky.submit('t.pid'), NULL::int) r;
SELECT loky.get_reusable_executor(1, timeout => '20 ms') = :e AS same;
-- a task longer than the timeout is not disturbed
SELECT * FROM loky.result(loky.submit('SELECT pg_sleep(0.1), ''done'''), NULL::record) AS (a text, b text);
-- 0: at once
SELECT loky.get_reusable_executor(1, timeout => '0') AS e \gset
SELECT count(*) FROM generate_series(1, 20) i, loky.result(loky.submit('t.id', i)) r WHERE r = i::text;
SELECT t.until(format('workers = 0 FROM loky.executors WHERE executor_id = %s', :e));

-- shutdown: returns when all has run
SELECT t.reset();
SELECT loky.get_reusable_executor(1, timeout => '50 s') AS e \gset
CREATE FUNCTION t.count_up(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.01); PERFORM nextval('t.arrived'); RETURN x; END$$;
SELECT loky.submit_all('t.count_up', ARRAY(SELECT generate_series(1, 10))) AS fs \gset
SELECT loky.shutdown();
SELECT last_value FROM t.arrived;
SELECT state, count(*) FROM loky.wait(:'fs', '0') GROUP BY state;
SELECT t.until(format('coalesce((SELECT workers FROM loky.executors WHERE executor_id = %s), 0) = 0', :e));
-- twice, and unused: harmless
SELECT loky.shutdown(), loky.shutdown(false), loky.shutdown(true, true);
SELECT loky.get_reusable_executor(1, timeout => '51 s') > 0 AS ok, loky.shutdown();
-- a later submit goes to a fresh one with the same configuration, no error
SELECT loky.get_reusable_executor(1, timeout => '50 s') AS e2 \gset
SELECT :e2 > :e AS fresh;
SELECT loky.shutdown();
SELECT loky.submit('SELECT 1') AS f \gset
SELECT executor_id > :e2 AS fresh, timeout FROM loky.tasks JOIN loky.executors USING (executor_id) WHERE future = :f;
SELECT * FROM loky.result(:f);
-- wait => false: returns at once, and what is pending still runs
SELECT loky.get_reusable_executor(1, timeout => '52 s') AS e \gset
SELECT t.reset();
SELECT loky.submit_all('t.pass', ARRAY[1, 1, 1]) AS fs \gset
SELECT loky.shutdown(wait => false);
SELECT state FROM loky.executors WHERE executor_id = :e;
SELECT count(*) FILTER (WHERE NOT done) AS open FROM loky.wait(:'fs', '0');
SELECT setval('t.gate', 1);
SELECT state, count(*) FROM loky.wait(:'fs') GROUP BY state;
-- kill_workers => true: pending ones are cancelled, running ones fail
SELECT t.reset();
SELECT loky.get_reusable_executor(1, timeout => '53 s') AS e \gset
SELECT loky.submit('t.pass', 1) AS a, loky.submit('t.pass', 1) AS b, loky.submit('t.pass', 1) AS c \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.cancel(:c);
SELECT loky.shutdown(kill_workers => true);
SELECT done, state FROM loky.wait(ARRAY[:a, :b, :c], '0');
SELECT sqlstate, message FROM loky.exception(:a);
SELECT t.until(format('NOT EXISTS (SELECT FROM loky.workers WHERE executor_id = %s)', :e));
SELECT * FROM loky.result(loky.submit('SELECT ''goes on'''));
SELECT state FROM t.error('SELECT loky.shutdown(NULL)');
RESET loky.executor;
-- what was left to itself before can still be killed, or waited for, with no executor named
SELECT loky.shutdown();
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.shutdown(wait => false);
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS b, loky.submit('t.pass', 1) AS c \gset
SELECT t.until('last_value = 2 FROM t.arrived');
SELECT loky.shutdown(wait => false);
SELECT count(*) FROM loky.executors JOIN loky.tasks USING (executor_id) WHERE executors.state = 'closing' AND future IN (:a, :b, :c);
SELECT setval('t.gate', 1);
SELECT loky.shutdown();
SELECT state FROM loky.wait(ARRAY[:a, :b, :c], '0');
SELECT t.reset();
SELECT loky.submit_all('t.pass', ARRAY[1, 1, 1, 1, 1]) AS fs \gset
SELECT t.until('last_value = 4 FROM t.arrived');
SELECT loky.shutdown(wait => false);
SELECT loky.shutdown(kill_workers => true);
SELECT state, sqlstate, count(*) FROM loky.tasks WHERE future = ANY (:'fs') GROUP BY state, sqlstate ORDER BY state;

-- Many configurations: idle ones make room.
CREATE FUNCTION t.many(n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    right_ones int := 0;
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM loky.get_reusable_executor(1, settings => jsonb_build_object('my.n', i));
        IF t.setting_of_task('my.n') = i::text THEN
            right_ones := right_ones + 1;
        END IF;
    END LOOP;
    RETURN right_ones;
END$$;
SELECT t.many(150);
RESET loky.executor;

SELECT loky.cpu_count() >= 1 AS some, loky.cpu_count(only_physical_cores => true) BETWEEN 1 AND loky.cpu_count() AS physical;
SELECT t.clean();
