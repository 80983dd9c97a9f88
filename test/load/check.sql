-- What must hold once all sessions have left: a line for each, with what was found and
-- what it should be.  Ends all executors.
\set QUIET on
\pset tuples_only on
\pset format unaligned
\pset fieldsep '|'
SET client_min_messages = warning;

-- What was submitted and not waited for ends.
DO $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		EXIT WHEN (SELECT coalesce(sum(pending + running), 0) = 0 FROM loky.executors)
			AND NOT EXISTS (SELECT FROM loky.workers WHERE state = 'busy');
		PERFORM pg_sleep(0.1);
	END LOOP;
END$$;
SELECT 'tasks pending or running', count(*), 0 FROM loky.tasks WHERE state IN ('pending', 'running');
SELECT 'of these counted by executors', coalesce(sum(pending + running), 0), 0 FROM loky.executors;

-- Each side effect, exactly once.
CREATE TEMP TABLE ran AS SELECT i, count(*) AS n FROM load.done GROUP BY i;
ANALYZE ran;
SELECT 'tasks and items that have run twice', count(*), 0 FROM ran WHERE n > 1;
SELECT 'that have succeeded and not run', count(*), 0 FROM load.told LEFT JOIN ran USING (i) WHERE told AND n IS NULL;
SELECT 'that have run and not succeeded', count(*), 0 FROM load.told JOIN ran USING (i) WHERE NOT told;
SELECT 'that nobody has asked for', count(*), 0 FROM ran LEFT JOIN load.told USING (i) WHERE told.i IS NULL;
SELECT 'that are told of twice', count(*) - count(DISTINCT i), 0 FROM load.told;
SELECT 'that had to succeed and did not', count(*), 0 FROM load.told WHERE must AND NOT told;
SELECT 'keyed tasks that ran at the same time', (SELECT count(*) FROM load.told WHERE kind = 'key') - sum(n), 0 FROM load.counter;

-- Nothing is left over.
DO $$
DECLARE
	id int;
BEGIN
	FOR id IN SELECT executor_id FROM loky.executors LOOP
		PERFORM set_config('loky.executor', id::text, false), loky.shutdown();
	END LOOP;
	FOR i IN 1 .. 600 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM loky.workers);
		PERFORM pg_sleep(0.1);
	END LOOP;
END$$;
RESET loky.executor;
SELECT 'workers', count(*), 0 FROM loky.workers;
SELECT 'their processes', count(*), 0 FROM pg_stat_activity WHERE backend_type = 'loky worker';
SELECT count(loky.forget(future)) FROM loky.tasks \g /dev/null
SELECT 'futures', count(*), 0 FROM loky.tasks;

-- As many workers as there may be come at the same time, twice.
SELECT current_setting('loky.max_total_workers')::int AS n \gset
SELECT loky.get_reusable_executor(:n, timeout => '0') \g /dev/null
SELECT 'workers at a time', count(DISTINCT r), :n FROM loky.map('load.meet', ARRAY(SELECT ROW(1, :n) FROM generate_series(1, :n)), NULL::int, timeout => '30 s') r;
SELECT loky.get_reusable_executor(:n, timeout => '1 ms') \g /dev/null
SELECT 'workers at a time', count(DISTINCT r), :n FROM loky.map('load.meet', ARRAY(SELECT ROW(2, :n) FROM generate_series(1, :n)), NULL::int, timeout => '30 s') r;
SELECT loky.shutdown() \g /dev/null
SELECT 'shared memory in use but for configurations, kB', greatest(loky._memory_used() / 1024 - 64, 0), 0;
