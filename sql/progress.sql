-- How far maps, backfills and tasks have come.
SELECT loky.get_reusable_executor(2) > 0 AS ok;
SELECT count(*) FROM loky.progress;
CREATE FUNCTION t.progress(OUT task text, OUT total bigint, OUT done bigint, OUT failed bigint, OUT bar text, OUT elapsed boolean, OUT eta boolean) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT task, total, done, failed, bar, elapsed > '0', eta IS NOT NULL AND (done = 0) = (eta IS NULL) FROM loky.progress ORDER BY total$$;

-- A map, as another session sees it: two of four items are done, one with an error.
SELECT t.reset();
CREATE FUNCTION t.pass_some(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF x = 1 THEN
        RAISE EXCEPTION 'no';
    END IF;
    RETURN CASE WHEN x <= 2 THEN x ELSE t.pass(x) END;
END$$;
SELECT loky.submit($$SELECT count(*) FROM loky.try_map('t.pass_some', ARRAY[1, 2, 3, 4], NULL::int, chunksize => 1)$$) AS f \gset
SELECT t.until($$2 = last_value FROM t.arrived$$);
SELECT t.until($$2 = (SELECT done FROM loky.progress)$$);
SELECT * FROM t.progress();
SELECT pid IN (SELECT pid FROM loky.workers), executor_id = current_setting('loky.executor')::int AS executor FROM loky.progress;
-- others see that there is something, not what
CREATE ROLE t_nosy;
GRANT USAGE ON SCHEMA loky TO t_nosy;
SET ROLE t_nosy;
SELECT task, total, done, failed, bar FROM loky.progress;
RESET ROLE;
GRANT pg_read_all_stats TO t_nosy;
SET ROLE t_nosy;
SELECT task FROM loky.progress;
RESET ROLE;
SELECT setval('t.gate', 9);
SELECT * FROM loky.result(:f);
SELECT count(*) FROM loky.progress;

-- What a task tells of itself.
SELECT r FROM loky.map($$SELECT concat_ws(' ', total, done, failed, bar) FROM loky.report_progress(3, 10, 'half way'), loky.progress WHERE pid = pg_backend_pid() AND $1 > 0$$, ARRAY[1]) r;
SELECT r FROM loky.map($$SELECT concat_ws(' ', total, done, failed, eta IS NULL, bar) FROM loky.report_progress(3), loky.progress WHERE pid = pg_backend_pid() AND $1 > 0$$, ARRAY[1]) r;
SELECT * FROM loky.run($$SELECT concat_ws(' ', total, done, bar) FROM loky.report_progress(7, 7), loky.progress WHERE pid = pg_backend_pid()$$);
SELECT * FROM loky.run($$SELECT bar FROM loky.report_progress(0, 0, repeat('ä', 100)), loky.progress$$);
SELECT count(*) FROM loky.progress;
-- in a session it means nothing
SELECT loky.report_progress(1, 2, 'unheard');
SELECT count(*) FROM loky.progress;
SELECT call, (t.error('SELECT loky.report_progress' || call)).* FROM unnest('{(NULL),(-1),(1\, -2)}'::text[]) call;

-- Notices: none for what takes less than a second.
SELECT count(*) FROM loky.map('SELECT $1', ARRAY[1, 2, 3], NULL::int, progress => true);
SELECT count(*) FROM loky.map('SELECT $1', ARRAY[1, 2, 3], NULL::int, progress => NULL);
RESET loky.executor;
SELECT t.clean();
