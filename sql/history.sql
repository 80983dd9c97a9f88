-- What has been run: statistics, the log, traces, timelines.
SELECT loky.get_reusable_executor(2) > 0 AS ok;
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

-- Others see numbers; a reset is for superusers, and whom they let.
CREATE ROLE t_looker;
GRANT USAGE ON SCHEMA loky TO t_looker;
SET ROLE t_looker;
SELECT DISTINCT task FROM loky.stats;
SELECT DISTINCT e ->> 'name' AS name FROM jsonb_array_elements(loky.trace() -> 'traceEvents') e WHERE e ->> 'ph' = 'X';
SELECT loky.stats_reset();
RESET ROLE;
REVOKE ALL ON SCHEMA loky FROM t_looker;
SELECT loky.stats_reset();
SELECT count(*) FROM loky.stats;
SELECT succeeded, failed, cancelled FROM loky.executors WHERE executor_id = current_setting('loky.executor')::int;

-- More tasks than there is room for: the table stays as large as it is.
SELECT count(*) FROM (SELECT loky.submit_all('SELECT ' || i, ARRAY[1]) FROM generate_series(1, 5) i) s;
DO $$
BEGIN
    FOR i IN 1 .. 4000 LOOP
        PERFORM loky.run(format('SELECT %s', i));
    END LOOP;
END$$;
SELECT count(*) BETWEEN 1500 AND 2048 AS kept FROM loky.stats;
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

-- Timelines: a line for each worker, of the width that is asked for.
SELECT DISTINCT length(l) FROM loky.timeline() l;
SELECT DISTINCT length(l) FROM loky.timeline(120) l;
SELECT count(*) = count(DISTINCT substring(l FROM '\d+')) AS one_each, bool_or(l ~ '×') AS failed, bool_or(l ~ '█') AS busy, bool_and(l ~ '^ *\d+ \|[ ░▒▓█×]+\| *\d+%$') AS drawn FROM loky.timeline(60) l;
SELECT state, message FROM t.error('SELECT loky.timeline(19)');
SELECT state FROM t.error('SELECT loky.timeline(1001)');
SELECT state FROM t.error('SELECT loky.timeline(NULL)');

-- The picture is well-formed, whatever the names are.
SELECT p ~ '^<svg ' AND p ~ '</svg>\n$' AS svg, p ~ 'with a &quot;label&quot; &lt;&amp;&gt;' OR p ~ 'with a "label" &lt;&amp;&gt;' AS escaped,
       p ~ 'failed' AS failed, p ~ '>worker \d+<' AS lanes, p ~ '<title>' AS tips, p ~ 'class="tick"' AS axis
FROM loky.timeline_svg() p;
SELECT count(*) FROM loky.map(E'SELECT $1 /* \x01 ä€ ]]> */', ARRAY[1, 2], NULL::int, label => E'\x01\x02 <ä€> ' || repeat('langer Name ', 20));
SELECT p ~ '[\x01-\x08]' AS control FROM loky.timeline_svg() p;

-- The log tells of tasks that ran long.
SET loky.log_min_duration = 0;
SELECT * FROM loky.run('t.id', ROW(1), NULL::int);
SELECT * FROM loky.map('t.id', ARRAY[1], NULL::int);
RESET loky.log_min_duration;
DROP VIEW t.events;
RESET loky.executor;
SELECT t.clean();
