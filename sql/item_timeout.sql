-- item_timeout: an item that runs longer fails with 57014, and it alone.

CREATE FUNCTION t.nap(x float8) RETURNS float8 LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.log (i) VALUES (x::int);
    PERFORM pg_sleep(x);
    RETURN x;
END$$;
SELECT loky.get_reusable_executor(1, timeout => '1 min') > 0 AS ok;

-- What it may be
SELECT m, a, (SELECT e FROM t.error(format($$SELECT * FROM loky.%s('t.id', ARRAY[1], item_timeout => %s)$$, m, a)) e)
FROM unnest('{''0'',''-1 s'',''-1 month'',''-1 day 1 hour''}'::text[]) a, unnest('{map,flat_map,try_map}'::text[]) m ORDER BY m, a;
SELECT state FROM t.error($$SELECT * FROM loky.map('t.id', '{}'::int[], item_timeout => '0')$$);
SELECT * FROM loky.map('t.id', ARRAY[1, 2], NULL::int, item_timeout => NULL);
SELECT * FROM loky.map('t.id', ARRAY[1, 2], NULL::int, item_timeout => '100 years');

-- One item is late; the others go on, in the same worker.
TRUNCATE t.log;
SELECT ord, result, ok, sqlstate, message, detail, hint FROM loky.try_map('t.nap', ARRAY[0, 60, 0, 0], NULL::float8, item_timeout => '2 s');
SELECT array_agg(i) FROM t.log;
SELECT count(DISTINCT worker), bool_and(elapsed >= '100 ms') FILTER (WHERE NOT ok) FROM loky.try_map('t.nap', ARRAY[60, 0, 60], NULL::float8, item_timeout => '100 ms');
-- the others raise it
SELECT * FROM t.error($$SELECT * FROM loky.map('t.nap', ARRAY[0, 60, 0], NULL::float8, item_timeout => '500 ms')$$);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.nap', ARRAY[0, 60, 0], NULL::float8, item_timeout => '500 ms', ordered => false)$$);
SELECT state, message FROM t.error($$SELECT * FROM loky.flat_map('SELECT pg_sleep($1) FROM generate_series(1, 2)', ARRAY[0, 60], item_timeout => '500 ms')$$);

-- A clock that runs out as its item ends hits no other one: who fails has had
-- its time.
SELECT count(*), bool_and(ok OR (sqlstate = '57014' AND message LIKE '%item_timeout' AND elapsed >= '10 ms')) AS good
FROM loky.try_map('SELECT pg_sleep($1)', ARRAY(SELECT CASE WHEN i % 2 = 0 THEN 0 ELSE 0.009 + i * 0.00001 END FROM generate_series(1, 200) i), item_timeout => '10 ms');

-- Items that share a transaction have their time each.
CREATE FUNCTION t.stable_nap(x float8) RETURNS float8 STABLE LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(x); RETURN x; END$$;
SELECT count(*) FILTER (WHERE ok), array_agg(ord) FILTER (WHERE sqlstate = '57014') AS late
FROM loky.try_map('t.stable_nap', ARRAY(SELECT CASE WHEN i IN (90, 150) THEN 60 ELSE 0 END FROM generate_series(1, 300) i), NULL::float8, item_timeout => '1 s');
-- a chunk fails for one item of it
TRUNCATE t.log;
SELECT ord, ok, sqlstate FROM loky.try_map('t.nap', ARRAY[0, 0, 0, 60, 0, 0], NULL::float8, item_timeout => '1 s', chunksize => 2);
SELECT count(*) FROM t.log;
-- ... not for all together
SELECT count(*) FILTER (WHERE ok) FROM loky.try_map('t.nap', ARRAY[0.7, 0.7, 0.7], NULL::float8, item_timeout => '2 s', chunksize => 3);

-- Whoever traps the cancel does not get away with it.
CREATE FUNCTION t.trap_late(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(x);
    RETURN x;
EXCEPTION WHEN query_canceled THEN
    RETURN -1;
END$$;
SELECT ord, result, ok, sqlstate, message, detail FROM loky.try_map('t.trap_late', ARRAY[60, 0], NULL::int, item_timeout => '500 ms');
CREATE FUNCTION t.trap_always(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        BEGIN
            BEGIN
                PERFORM pg_sleep(x);
                RETURN x;
            EXCEPTION WHEN query_canceled THEN
                PERFORM pg_sleep(60);
            END;
        EXCEPTION WHEN query_canceled OR OTHERS THEN
            NULL;
        END;
    END LOOP;
END$$;
SELECT ord, result, ok, sqlstate, message FROM loky.try_map('t.trap_always', ARRAY[60, 0], NULL::int, item_timeout => '500 ms');
-- nor does one that makes something else of it
CREATE FUNCTION t.convert(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        PERFORM pg_sleep(x);
    EXCEPTION WHEN query_canceled THEN
        BEGIN
            RAISE EXCEPTION 'too slow' USING ERRCODE = '40001';
        EXCEPTION WHEN query_canceled THEN
            RAISE EXCEPTION 'still too slow' USING ERRCODE = '40001';
        END;
    END;
    RETURN x;
END$$;
SELECT ord, ok, sqlstate, message FROM loky.try_map('t.convert', ARRAY[60, 0], NULL::int, item_timeout => '500 ms', retries => 3);
-- a block that traps other errors keeps its meaning
CREATE FUNCTION t.trap_others(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 / x;
    RETURN 1;
EXCEPTION WHEN division_by_zero THEN
    RETURN 0;
END$$;
SELECT * FROM loky.map('t.trap_others', ARRAY[0, 1], NULL::int, item_timeout => '1 min');

-- What is deferred to the commit belongs to the item, of a chunk to its last one.
CREATE TABLE t.at_commit (x int);
CREATE FUNCTION t.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(NEW.x); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t.at_commit INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION t.at_commit();
SELECT ord, ok, sqlstate, message FROM loky.try_map('INSERT INTO t.at_commit VALUES ($1)', ARRAY[0, 60, 0], item_timeout => '1 s');
SELECT ord, ok, sqlstate FROM loky.try_map('INSERT INTO t.at_commit VALUES ($1)', ARRAY[0, 60, 0, 0], item_timeout => '1 s', chunksize => 2);
SELECT state, context FROM t.error($$SELECT * FROM loky.map('INSERT INTO t.at_commit VALUES ($1)', ARRAY[60, 0], item_timeout => '1 s', chunksize => 2)$$);
SELECT array_agg(x) FROM t.at_commit;
DROP TABLE t.at_commit;

-- A procedure has one limit, whatever it commits.
CREATE PROCEDURE t.commits_for_ever(x int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 100000 LOOP
        IF i <= 3 THEN
            INSERT INTO t.log (i) VALUES (i);
        END IF;
        COMMIT;
        EXIT WHEN x = 0;
        PERFORM pg_sleep(0.01);
    END LOOP;
END$$;
TRUNCATE t.log;
SELECT ord, ok, sqlstate, message FROM loky.try_map('t.commits_for_ever', ARRAY[0, 1, 0], item_timeout => '1 s');
SELECT i, count(*) FROM t.log GROUP BY i ORDER BY i;

-- What the item waits for: items of its own, a program
CREATE FUNCTION t.inner_map(x int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT count(*) FROM loky.map('SELECT pg_sleep($1)', ARRAY[x]));
END$$;
SELECT ord, result, ok, sqlstate FROM loky.try_map('t.inner_map', ARRAY[60, 0], NULL::bigint, item_timeout => '2 s');
CREATE TABLE t.copied_late (x text);
CREATE FUNCTION t.copy(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN EXECUTE format('COPY t.copied_late FROM PROGRAM ''sleep %s''', x); RETURN x; END$$;
SELECT ord, result, ok, sqlstate, message FROM loky.try_map('t.copy', ARRAY[60, 0], NULL::int, item_timeout => '2 s');
DROP TABLE t.copied_late;

-- statement_timeout goes on to count, too; the shorter one is told.
SELECT loky.get_reusable_executor(1, settings => '{"statement_timeout": "500ms"}') > 0 AS ok;
SELECT ord, ok, sqlstate, message FROM loky.try_map('t.nap', ARRAY[60, 0], item_timeout => '30 s');
SELECT loky.get_reusable_executor(1, settings => '{"statement_timeout": "30s"}') > 0 AS ok;
SELECT ord, ok, sqlstate, message FROM loky.try_map('t.nap', ARRAY[60, 0], item_timeout => '500 ms');
-- and so do the map's own timeout, and a cancel of the caller
SELECT ord, ok, sqlstate FROM loky.try_map('t.nap', ARRAY[0, 60], item_timeout => '30 s', timeout => '1 s');
SET statement_timeout = '500 ms';
SELECT count(*) FROM loky.map('t.nap', ARRAY[60], item_timeout => '30 s');
RESET statement_timeout;

RESET loky.executor;
SELECT t.clean();
DROP FUNCTION t.nap, t.stable_nap, t.trap_late, t.trap_always, t.convert, t.trap_others, t.at_commit, t.inner_map, t.copy;
DROP PROCEDURE t.commits_for_ever;
