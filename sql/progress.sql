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
-- what an item has told is not the next one's, neither of one transaction nor of another
SELECT r FROM loky.map($$SELECT CASE WHEN $1 = 1 THEN (SELECT count(*) FROM loky.report_progress(1, 2, 'first')) ELSE 0 END + (SELECT count(*) FROM loky.progress WHERE pid = pg_backend_pid())$$, ARRAY[1, 2, 3], NULL::int, chunksize => 3) r;
SELECT sum(r) FROM loky.map($$SELECT CASE WHEN $1 = 1 THEN (SELECT count(*) FROM loky.report_progress(1, 2, 'first')) ELSE 0 END + (SELECT count(*) FROM loky.progress WHERE pid = pg_backend_pid())$$, ARRAY[1, 2, 3], NULL::int) r;
-- the time is that of the task, or of the item, also of one in a chunk
CREATE FUNCTION t.late(x int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.2);
    PERFORM loky.report_progress(1, 2);
    RETURN (SELECT concat_ws(', ', CASE WHEN elapsed > '0.19 s' THEN 'since its start' END, CASE WHEN clock_timestamp() - elapsed > now() + interval '0.19 s' THEN 'not that of the transaction' END)
            FROM loky.progress WHERE pid = pg_backend_pid());
END$$;
SELECT * FROM loky.run('t.late', ROW(1));
SELECT * FROM loky.map('t.late', ARRAY[1, 2], NULL::text, chunksize => 2);
-- in an initializer it means nothing, and is not that of the first task
SELECT loky.get_reusable_executor(1, initializer => 'SELECT loky.report_progress(1, 2, ''initializing'')') > 0 AS ok;
SELECT * FROM loky.run('SELECT count(*) FROM loky.progress', NULL, NULL::int);
SELECT loky.get_reusable_executor(2) > 0 AS ok;
-- in a session it means nothing
SELECT loky.report_progress(1, 2, 'unheard');
SELECT count(*) FROM loky.progress;
SELECT call, (t.error('SELECT loky.report_progress' || call)).* FROM unnest('{(NULL),(-1),(1\, -2)}'::text[]) call;

-- Notices: none for what takes less than a second.
SELECT count(*) FROM loky.map('SELECT $1', ARRAY[1, 2, 3], NULL::int, progress => true);
SELECT count(*) FROM loky.map('SELECT $1', ARRAY[1, 2, 3], NULL::int, progress => NULL);
-- ... but at the end of what took that long, however seldom its results are read
SET client_min_messages = warning;
CREATE FUNCTION t.read_slowly() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    c CURSOR FOR SELECT loky.map('SELECT $1', ARRAY[1, 2, 3], NULL::int, progress => true);
    x int;
BEGIN
    OPEN c;
    FETCH c INTO x;
    PERFORM pg_sleep(1.1);
    PERFORM set_config('client_min_messages', 'notice', true);
    FETCH c INTO x;
    FETCH c INTO x;
    FETCH c INTO x;
    RETURN 'read';
END$$;
SELECT t.read_slowly();
RESET client_min_messages;
RESET loky.executor;
SELECT t.clean();
