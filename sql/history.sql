-- What has been run: statistics, the log, traces, timelines.
SELECT loky.get_reusable_executor(2) > 0 AS ok;
SELECT extract(epoch FROM clock_timestamp()) * 1e6 AS since \gset
SELECT loky.stats_reset();
SELECT count(*) FROM loky.stats;

-- Tasks, by text: calls, failures, rows and times.
CREATE FUNCTION t.slow(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.02);
    RETURN 10 / x;
END$$;
SELECT loky.submit('t.slow', 1) AS a, loky.submit('t.slow', 2) AS b, loky.submit('t.slow', 0) AS c, loky.submit('SELECT generate_series(1, 7)') AS d \gset
SELECT count(*) FROM loky.wait(ARRAY[:a, :b, :c, :d]);
SELECT task, calls, failures, rows, total_exec_time > 60 AS total, mean_exec_time BETWEEN 20 AND total_exec_time AS mean, max_exec_time BETWEEN mean_exec_time AND total_exec_time AS max, mean_wait_time >= 0 AS wait, stats_since <= now() AS since
FROM loky.stats WHERE task = 't.slow';
SELECT task, calls, failures, rows FROM loky.stats ORDER BY task COLLATE "C";
-- whoever has the result finds it counted
DO $$
BEGIN
    FOR i IN 1 .. 200 LOOP
        PERFORM loky.run('t.id', ROW(i));
        IF (SELECT calls FROM loky.stats WHERE task = 't.id') IS DISTINCT FROM i THEN
            RAISE EXCEPTION 'call % is not counted', i;
        END IF;
    END LOOP;
END$$;
-- each attempt is a call; what is changed counts as rows
CREATE TABLE t.counted (i int);
SELECT * FROM loky.run('INSERT INTO t.counted SELECT generate_series(1, 9)');
SELECT calls, rows FROM loky.stats WHERE task LIKE 'INSERT INTO t.counted%';
SELECT loky.submit_task($$DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''40001''; END'$$, retries => 2) AS f \gset
SELECT sqlstate FROM loky.exception(:f);
SELECT calls, failures FROM loky.stats WHERE task LIKE 'DO%';
-- by executor
SELECT executor_id = current_setting('loky.executor')::int AS mine, count(*) FROM loky.stats GROUP BY 1;

-- Items of maps.
SELECT count(*) FROM loky.map('SELECT $1 + 1', ARRAY(SELECT generate_series(1, 5000)), NULL::int);
SELECT count(*) FROM loky.flat_map('SELECT generate_series(1, $1)', ARRAY[1, 2, 3]);
SELECT count(*) FROM loky.try_map('SELECT 1 / $1', ARRAY[1, 0, 1]);
SELECT count(*) FROM loky.map('t.touch', ARRAY(SELECT generate_series(1, 100)), NULL::int, chunksize => 30);
SELECT sum(rows) FROM loky.backfill('UPDATE t.counted SET i = i + 100 WHERE i BETWEEN $1::int AND $2::int', 'pg_class', 'oid', ranges => '[{"lo": 1, "hi": 4}, {"lo": 5, "hi": 9}]');
SELECT task, calls, failures, rows, mean_wait_time FROM loky.stats WHERE task ~ '[$]1|touch' ORDER BY task COLLATE "C";
SELECT succeeded > 5000 AS succeeded, failed > 1 AS failed FROM loky.executors WHERE executor_id = current_setting('loky.executor')::int;

-- Rows are those that are returned, or changed where none are, whichever way the task
-- is run.
SELECT * FROM loky.run('INSERT INTO t.counted SELECT generate_series(1, 9) /* run */');
SELECT loky.result(loky.submit('INSERT INTO t.counted SELECT generate_series(1, 9) RETURNING i /* submit */')) LIMIT 1;
SELECT count(*) FROM loky.map('INSERT INTO t.counted SELECT generate_series(1, 9) WHERE $1 > 0 /* map */', ARRAY[1, 2]);
SELECT count(*) FROM loky.flat_map('INSERT INTO t.counted SELECT generate_series(1, 9) WHERE $1 > 0 /* flat_map */', ARRAY[1, 2]);
SELECT count(*) FROM loky.try_map('INSERT INTO t.counted SELECT generate_series(1, 9) WHERE $1 > 0 /* try_map */', ARRAY[1, 2], chunksize => 2);
SELECT sum(rows) FROM loky.backfill('INSERT INTO t.counted SELECT generate_series(1, 9) WHERE $1::int <= $2::int /* backfill */', 'pg_class', 'oid', ranges => '[{"lo": 1, "hi": 4}, {"lo": 5, "hi": 9}]');
SELECT count(*) FROM loky.flat_map('SELECT generate_series(1, $1) /* none */', ARRAY[0, 0]);
SELECT count(*) FROM loky.map('SELECT $1 WHERE $1 > 1 /* none, one */', ARRAY[1, 2], NULL::int);
SELECT substring(task FROM '/[*] (.*) [*]/') AS way, calls, rows FROM loky.stats WHERE task LIKE '%/*%' ORDER BY 1;

-- An attempt at an item is a call, and what a dead worker ran is one that failed.
CREATE SEQUENCE t.third;
CREATE FUNCTION t.third_time(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('t.third') % 3 <> 0 THEN
        RAISE EXCEPTION USING ERRCODE = '40001';
    END IF;
    RETURN x;
END$$;
CREATE FUNCTION t.die(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    PERFORM pg_sleep(60);
    RETURN x;
END$$;
SELECT * FROM loky.map('t.third_time', ARRAY[1], NULL::int, retries => 2);
SELECT * FROM loky.map('SELECT CASE WHEN $1 = 1 THEN t.third_time($1) ELSE $1 END', ARRAY[1, 2], NULL::int, retries => 2, chunksize => 2);
SELECT loky.submit_task('t.die', ROW(1), retries => 1) AS f \gset
SELECT sqlstate FROM loky.exception(:f);
SELECT ok, sqlstate FROM loky.try_map('SELECT t.die($1)', ARRAY[1, 2], NULL::int);
SELECT t.reset();
SELECT loky.submit('t.pass', 1) AS f \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.get_reusable_executor(2, kill_workers => true) > 0 AS ok;
SELECT sqlstate FROM loky.exception(:f);
SELECT task, calls, failures, rows, max_exec_time <= total_exec_time AS times FROM loky.stats WHERE task ~ 'third|die|pass' ORDER BY task COLLATE "C";
SELECT e ->> 'name' AS name, e ->> 'cat' AS cat, e -> 'args' ->> 'state' AS state, count(*)
FROM jsonb_array_elements(loky.trace() -> 'traceEvents') e WHERE e ->> 'cat' <> 'map' AND e ->> 'name' ~ 'die|pass' AND (e ->> 'ts')::numeric > :since GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- Others see numbers, but no text and no label; those who may read all statistics do.
CREATE ROLE t_looker;
CREATE ROLE t_reader IN ROLE pg_read_all_stats;
GRANT USAGE ON SCHEMA loky, t TO t_looker, t_reader;
SELECT loky.result(loky.submit_task('SELECT 1 AS my_secret', label => 'my label'));
SELECT t.reset();
SELECT loky.submit_task('SELECT t.pass(1) AS my_secret', label => 'my label') AS f \gset
SELECT t.until('last_value = 1 FROM t.arrived');
CREATE FUNCTION t.secrets() RETURNS TABLE (place text, shown bigint, hidden bigint) LANGUAGE sql AS $$
    SELECT place, count(*) FILTER (WHERE x ~ 'my_secret|my label'), count(*) FILTER (WHERE x ~ 'insufficient privilege|insufficient&gt;|&lt;insufficient')
    FROM (SELECT 'stats' AS place, s::text AS x FROM loky.stats s
          UNION ALL SELECT 'trace', e::text FROM jsonb_array_elements(loky.trace() -> 'traceEvents') e
          UNION ALL SELECT 'timeline', l FROM loky.timeline() l
          UNION ALL SELECT 'timeline_svg', loky.timeline_svg()
          UNION ALL SELECT 'workers', w::text FROM loky.workers w
          UNION ALL SELECT 'tasks', k::text FROM loky.tasks k) y
    GROUP BY place ORDER BY place COLLATE "C"$$;
SET ROLE t_looker;
SELECT place, shown, hidden > 0 AS hidden FROM t.secrets();
SELECT DISTINCT task FROM loky.stats;
SELECT DISTINCT e ->> 'name' AS name FROM jsonb_array_elements(loky.trace() -> 'traceEvents') e WHERE e ->> 'ph' = 'X';
-- each starts its own anew, but not others'
SELECT * FROM loky.run('SELECT 7');
SELECT count(*) FILTER (WHERE task = 'SELECT 7') AS own, count(*) > 1 AS others FROM loky.stats;
SELECT loky.stats_reset();
SELECT count(*) FILTER (WHERE task = 'SELECT 7') AS own, count(*) > 0 AS others FROM loky.stats;
SELECT max(succeeded) FROM loky.executors WHERE role = 't_looker';
SET ROLE t_reader;
SELECT place, shown > 0 AS shown, hidden FROM t.secrets();
RESET ROLE;
SELECT place, shown > 0 AS shown, hidden FROM t.secrets();
SELECT setval('t.gate', 1);
SELECT * FROM loky.result(:f);
DROP OWNED BY t_looker, t_reader;
DROP ROLE t_looker, t_reader;
SELECT loky.stats_reset();
SELECT count(*) FROM loky.stats;
SELECT succeeded, failed, cancelled FROM loky.executors WHERE executor_id = current_setting('loky.executor')::int;
-- deaths are not forgotten with it
SELECT restarts > 0 AS restarts FROM loky.workers WHERE executor_id = current_setting('loky.executor')::int LIMIT 1;

-- More tasks than there is room for: the table stays as large as it is, and what is
-- run often stays in it.
DO $$
BEGIN
    FOR i IN 1 .. 100 LOOP
        PERFORM loky.run('t.id', ROW(i));
    END LOOP;
END$$;
SELECT count(*) FROM (SELECT loky.submit_all('SELECT ' || i, ARRAY[1]) FROM generate_series(1, 5) i) s;
DO $$
BEGIN
    FOR i IN 1 .. 4000 LOOP
        PERFORM loky.run(format('SELECT %s', i));
    END LOOP;
END$$;
SELECT count(*) BETWEEN 1500 AND 2048 AS kept FROM loky.stats;
SELECT calls FROM loky.stats WHERE task = 't.id';
SELECT loky.stats_reset();

-- Traces: one event for each task, range of items and map, in the form that
-- viewers of Chrome traces read.
SELECT * FROM loky.run('t.slow', ROW(5), NULL::int);
SELECT loky.submit('t.slow', 0) AS f, loky.submit_task('SELECT t.slow(5)', label => 'with a "label" <&>') AS g \gset
SELECT count(*) FROM loky.wait(ARRAY[:f, :g]);
SELECT count(*) FROM loky.try_map('t.slow', ARRAY[5, 0], NULL::int, chunksize => 1, label => 'traced');
SELECT jsonb_typeof(loky.trace() -> 'traceEvents'), loky.trace() ->> 'displayTimeUnit';
CREATE VIEW t.events AS
SELECT e ->> 'ph' AS ph, e ->> 'cat' AS cat, e ->> 'name' AS name, (e ->> 'ts')::numeric AS ts, (e ->> 'dur')::numeric AS dur,
       (e ->> 'pid')::int AS pid, (e ->> 'tid')::int AS tid, e -> 'args' AS args
FROM jsonb_array_elements(loky.trace() -> 'traceEvents') e;
SELECT cat, name, args ->> 'state' AS state, args ->> 'items' AS items, args ->> 'failed' AS failed, dur > 15000 AS dur
FROM (SELECT * FROM t.events WHERE ph = 'X' ORDER BY ts DESC LIMIT 6) e ORDER BY cat COLLATE "C", name COLLATE "C", state;
SELECT bool_and(to_timestamp(ts / 1e6) BETWEEN now() - interval '1 h' AND clock_timestamp()) AS time, bool_and(dur >= 0) AS dur FROM t.events WHERE ph = 'X';
SELECT count(*) AS unnamed FROM t.events x WHERE ph = 'X' AND NOT EXISTS (
    SELECT FROM t.events m WHERE m.ph = 'M' AND m.name = 'thread_name' AND m.pid = x.pid AND m.tid = x.tid
    AND m.args ->> 'name' IN ('worker ' || x.tid, 'caller ' || x.tid));
SELECT count(*) AS caller FROM t.events WHERE cat = 'map' AND name = 'traced' AND tid = pg_backend_pid();
SELECT (args ->> 'future')::bigint = :g AS future FROM t.events WHERE name LIKE 'with a "label"%';

-- Items that are cancelled as they run are there, others of their range are not.
SELECT t.reset();
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.pass', ARRAY[0, 1, 2, 3], NULL::int, label => 'cancelled map');
FETCH 1 FROM c;
SELECT t.until('last_value = 3 FROM t.arrived');
-- what runs is in traces and pictures
SELECT DISTINCT cat, args ->> 'state' AS state, dur > 0 AS dur FROM t.events WHERE name = 'cancelled map' AND args ->> 'state' = 'running';
SELECT count(*) FILTER (WHERE l ~ '>\|') AS arrows FROM loky.timeline() l;
SELECT p ~ ', 2 running' AS head, p ~ 'so far, running' AS tip FROM loky.timeline_svg() p;
COMMIT;
SELECT cat, args ->> 'state' AS state, sum((args ->> 'items')::int) AS items FROM t.events WHERE name = 'cancelled map' GROUP BY 1, 2 ORDER BY cat COLLATE "C", state;
SELECT calls, failures FROM loky.stats WHERE task = 't.pass';
SELECT t.reset();
SELECT loky.submit_task('t.pass', ROW(1), label => 'running task') AS f \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT cat, args ->> 'state' AS state, (args ->> 'future')::bigint = :f AS future FROM t.events WHERE name = 'running task';
SELECT setval('t.gate', 1);
SELECT * FROM loky.result(:f);
SELECT cat, args ->> 'state' AS state, (args ->> 'future')::bigint = :f AS future FROM t.events WHERE name = 'running task';

-- Ranges of cheap items share events, and no item is lost or told twice.
SELECT count(*) FROM loky.map('SELECT $1 + 3 /* cheap */', ARRAY(SELECT generate_series(1, 500000)), NULL::int);
SELECT sum((args ->> 'items')::int) AS items, min((args ->> 'first_item')::int) AS first, max((args ->> 'last_item')::int) AS last, count(*) < 250 AS few
FROM t.events WHERE cat = 'items' AND name LIKE 'SELECT $1 + 3%';

-- Names and texts are cut between characters, wherever that is.
SELECT count(*) FROM loky.wait(ARRAY(SELECT loky.submit_task('SELECT 1', label => repeat('x', n) || c) FROM generate_series(59, 63) n, unnest('{ä,€,😀}'::text[]) c));
SELECT length(name), octet_length(name), count(*) FROM t.events WHERE name LIKE 'xxxxx%' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) FROM loky.wait(ARRAY(SELECT loky.submit(rpad('SELECT 2 /*', n, 'x') || c || 'x*/') FROM unnest('{59,60,61,62,63,507,508,509,510,511}'::int[]) n, unnest('{ä,€,😀}'::text[]) c));
SELECT length(task), octet_length(task), count(*) FROM loky.stats WHERE task LIKE 'SELECT 2 /*%' AND length(task) > 100 GROUP BY 1, 2 ORDER BY 1, 2;
SELECT p ~ '</svg>' AS drawn FROM loky.timeline_svg() p;

-- Something for the pictures that ends last.
SELECT loky.submit('t.slow', 0) AS f, loky.submit_task('SELECT t.slow(5) FROM pg_sleep(0.2)', label => 'with a "label" <&>') AS g, loky.submit(E'\n\t SELECT 5 AS five\n    FROM pg_sleep(0.2)') AS h \gset
SELECT count(*) FROM loky.wait(ARRAY[:f, :g, :h]);

-- Timelines: a line for each worker, of the width that is asked for.
SELECT DISTINCT length(l) FROM loky.timeline() l;
SELECT DISTINCT length(l) FROM loky.timeline(120) l;
SELECT count(*) = count(DISTINCT substring(l FROM '\d+')) AS one_each, bool_or(l ~ '×') AS failed, bool_or(l ~ '█') AS busy, bool_and(l ~ '^ *\d+ \|[- ░▒▓█×]+\| *\d+%$') AS drawn FROM loky.timeline(60) l;
SELECT state, message FROM t.error('SELECT loky.timeline(19)');
SELECT state FROM t.error('SELECT loky.timeline(1001)');
SELECT state FROM t.error('SELECT loky.timeline(NULL)');

-- The picture is well-formed, whatever the names are, and plain ASCII.
SELECT p ~ '^<svg ' AND p ~ '</svg>\n$' AS svg, p ~ 'with a &quot;label&quot; &lt;&amp;&gt;' AS escaped,
       p ~ '<title>SELECT 5 AS five FROM pg_sleep' AS one_line, p ~ 'failed' AS failed, p ~ '>worker \d+<' AS lanes, p ~ '<title>' AS tips, p ~ 'class="tick"' AS axis
FROM loky.timeline_svg() p;
SELECT count(*) FROM loky.map(E'SELECT $1 FROM pg_sleep(0.2) /* \x01 ä€ ]]> */', ARRAY[1, 2], NULL::int, label => E'\x01\x02 <ä€> \uFFFE\uFFFF😀' || repeat('langer Name ', 20));
SELECT p ~ '[^\x0A\x20-\x7E]' AS other, p ~ '  &lt;&#228;&#8364;&gt; &#65533;&#65533;&#128512;langer Name' AS name FROM loky.timeline_svg() p;

-- The log tells of tasks that ran long.
SET loky.log_min_duration = 0;
SELECT * FROM loky.run('t.id', ROW(1), NULL::int);
SELECT * FROM loky.map('t.id', ARRAY[1], NULL::int);
RESET loky.log_min_duration;
DROP VIEW t.events;
RESET loky.executor;
SELECT t.clean();
