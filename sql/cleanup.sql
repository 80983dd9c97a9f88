-- Nothing is left behind by all the tests before.

SELECT loky.shutdown();
SELECT t.clean();
SELECT count(*) AS unfinished FROM loky.tasks WHERE state IN ('pending', 'running');
SELECT count(*) AS busy_executors FROM loky.executors WHERE pending > 0 OR running > 0;
SELECT count(*) AS in_transaction FROM pg_stat_activity WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL;
SELECT count(*) AS locks FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'loky worker';
SELECT count(*) AS prepared FROM pg_prepared_xacts;
-- all futures can be forgotten, with them goes what they hold
SELECT bool_and(loky.forget(future)) AS forgotten FROM loky.tasks;
SELECT count(*) AS futures FROM loky.tasks;
SELECT count(*) AS temporary_files FROM pg_ls_tmpdir();
-- shared memory is free again: twelve arguments of 4 MB find room at the same time
SELECT loky.get_reusable_executor(1) > 0 AS ok;
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS f \gset
SELECT loky.submit_all('SELECT length($1)', ARRAY(SELECT repeat('x', 4000000) FROM generate_series(1, 12))) AS fs \gset
SELECT setval('t.gate', 1);
SELECT count(*), sum(r) FROM unnest(:'fs'::bigint[]) f, loky.result(f, NULL::int) r;
SELECT bool_and(loky.forget(future)) AS forgotten FROM loky.tasks;
SELECT * FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int);
-- the extension goes although its workers idle, and comes back
DROP EXTENSION loky;
SELECT count(*) FROM pg_namespace WHERE nspname = 'loky';
CREATE EXTENSION loky;
SELECT * FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int);
SELECT loky.shutdown();
