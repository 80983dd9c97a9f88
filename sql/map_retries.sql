-- retries: items that have collided with others are run again, and only those.

-- Fails as often as told, with the SQLSTATE given.  Attempts are counted by a
-- sequence for each item, which no rollback undoes.
CREATE FUNCTION t.prepare(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL client_min_messages = warning;
    TRUNCATE t.log;
    FOR i IN 1 .. 6 LOOP
        EXECUTE format('DROP SEQUENCE IF EXISTS t.try_%s', i);
    END LOOP;
    FOR i IN 1 .. n LOOP
        EXECUTE format('CREATE SEQUENCE t.try_%s', i);
    END LOOP;
END$$;
CREATE FUNCTION t.collide(x int, times int, state text DEFAULT '40001') RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    attempt int := nextval('t.try_' || x);
BEGIN
    INSERT INTO t.log (i) VALUES (x);
    IF attempt <= times THEN
        RAISE EXCEPTION 'item % in attempt %', x, attempt USING ERRCODE = state;
    END IF;
    RETURN attempt;
END$$;
-- attempts at each item, and the items that wrote something
CREATE FUNCTION t.attempts(OUT attempts text, OUT log text) LANGUAGE sql AS $$
SELECT (SELECT string_agg(coalesce(pg_sequence_last_value(oid), 0)::text, ' ' ORDER BY substr(relname, 5)::int)
        FROM pg_class WHERE relnamespace = 't'::regnamespace AND relname LIKE 'try\_%' AND relkind = 'S'),
       (SELECT string_agg(i::text, ' ' ORDER BY i) FROM t.log)$$;

SELECT m, (SELECT e FROM t.error(format($$SELECT * FROM loky.%s('t.id', ARRAY[1], retries => -1)$$, m)) e) FROM unnest('{map,flat_map,try_map}'::text[]) m;
SELECT * FROM loky.map('t.id', ARRAY[1, 2], NULL::int, retries => NULL);
SELECT * FROM loky.map('t.id', ARRAY[1, 2], NULL::int, retries => 2147483647);

SELECT loky.get_reusable_executor(3, timeout => '1 min') > 0 AS ok;

-- As many as were given are made, and no more; the last error is raised.
SELECT t.prepare(3);
SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 0), ROW(2, 3), ROW(3, 1)], NULL::int, retries => 3);
SELECT * FROM t.attempts();
SELECT t.prepare(3);
SELECT state, message, context ~ 'loky task, item 2$' AS context FROM t.error($$SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 0), ROW(2, 3), ROW(3, 1)], NULL::int, retries => 2)$$);
SELECT split_part(attempts, ' ', 2), split_part(log, ' ', 1) FROM t.attempts();
SELECT t.prepare(3);
SELECT ord, result, ok, sqlstate, message FROM loky.try_map('t.collide', ARRAY[ROW(1, 1), ROW(2, 5), ROW(3, 0)], NULL::int, retries => 2);
SELECT * FROM t.attempts();
-- none without
SELECT t.prepare(1);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 1)], NULL::int)$$);
SELECT * FROM t.attempts();
-- flat_map, and a map whose order does not matter
SELECT t.prepare(3);
SELECT * FROM loky.flat_map('SELECT t.collide($1, $2), generate_series(1, 2)', ARRAY[ROW(1, 1), ROW(2, 0)], NULL::record, retries => 2) AS r (attempt int, n int);
SELECT t.prepare(3);
SELECT array_agg(r ORDER BY r) FROM loky.map('t.collide', ARRAY[ROW(1, 3), ROW(2, 0), ROW(3, 1)], NULL::int, retries => 3, ordered => false) r;
SELECT * FROM t.attempts();

-- Deadlocks count as well; other errors do not.
SELECT t.prepare(6);
SELECT ord, result, sqlstate FROM loky.try_map('t.collide', ARRAY[ROW(1, 1, '40P01'), ROW(2, 1, '40001'), ROW(3, 1, '40002'), ROW(4, 1, 'P0001'), ROW(5, 1, '55P03'), ROW(6, 1, '57014')]::record[], NULL::int, retries => 3);
SELECT * FROM t.attempts();

-- A statement that only reads shares its transaction with others; an attempt is
-- one at its item alone.
CREATE FUNCTION t.read_flaky(x int) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
    IF x % 50 = 0 AND nextval('t.try_' || x / 50) <= 2 THEN
        RAISE EXCEPTION 'item %', x USING ERRCODE = '40001';
    END IF;
    RETURN x;
END$$;
SELECT t.prepare(6);
SELECT count(*), bool_and(r = n) FROM loky.map('t.read_flaky', ARRAY(SELECT generate_series(1, 300)), NULL::int, retries => 2) WITH ORDINALITY u (r, n);
SELECT * FROM t.attempts();

-- A chunk is run again as a whole; what it did before is undone.
SELECT t.prepare(6);
SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 0), ROW(2, 2), ROW(3, 0), ROW(4, 0), ROW(5, 0), ROW(6, 1)], NULL::int, retries => 2, chunksize => 3);
SELECT * FROM t.attempts();
SELECT t.prepare(6);
SELECT ord, result, sqlstate FROM loky.try_map('t.collide', ARRAY[ROW(1, 0), ROW(2, 2), ROW(3, 0), ROW(4, 0), ROW(5, 0), ROW(6, 1)], NULL::int, retries => 1, chunksize => 3);
SELECT * FROM t.attempts();

-- What fails at the commit is run again, too.
CREATE TABLE t.collide_late (x int, times int);
CREATE FUNCTION t.collide_late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM t.collide(NEW.x, NEW.times); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON t.collide_late INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION t.collide_late();
SELECT t.prepare(3);
SELECT count(*) FROM loky.map('INSERT INTO t.collide_late VALUES ($1, $2)', ARRAY[ROW(1, 0), ROW(2, 2), ROW(3, 1)], retries => 2);
SELECT *, (SELECT string_agg(x::text, ' ' ORDER BY x) FROM t.collide_late) FROM t.attempts();
DROP TABLE t.collide_late;

-- What has committed something is not run again; what has not is.
CREATE PROCEDURE t.commits_early(x int, early boolean) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t.log (i) VALUES (x * 10);
    IF early THEN
        COMMIT;
    END IF;
    PERFORM t.collide(x, 1);
    COMMIT;
END$$;
SELECT t.prepare(3);
SELECT ord, ok, sqlstate, message FROM loky.try_map('t.commits_early', ARRAY[ROW(1, true), ROW(2, false), ROW(3, true)], retries => 5);
SELECT * FROM t.attempts();

-- Others fail for good meanwhile: what is before them is waited for, what is
-- behind them is not.
SELECT t.prepare(3);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 4, '40001'), ROW(2, 1, 'P0001'), ROW(3, 1000, '40001')]::record[], NULL::int, retries => 1000)$$);
SELECT split_part(attempts, ' ', 1), split_part(attempts, ' ', 2) FROM t.attempts();
SELECT t.prepare(3);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 4, '40001'), ROW(2, 1, 'P0001'), ROW(3, 1000, '40001')]::record[], NULL::int, retries => 1000, ordered => false)$$);
SELECT split_part(attempts, ' ', 1), split_part(attempts, ' ', 2) FROM t.attempts();
SELECT t.prepare(3);
SELECT state, message FROM t.error($$SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 9, '40001'), ROW(2, 1, 'P0001')]::record[], NULL::int, retries => 4, ordered => false)$$);

-- Nothing waits on when the caller does not: a LIMIT, a closed cursor, a timeout,
-- a cancel.
SELECT t.prepare(3);
SELECT loky.map('t.collide', ARRAY[ROW(1, 0), ROW(2, 1), ROW(3, 1000)], NULL::int, retries => 1000) LIMIT 2;
SELECT t.clean(), last_value >= 0 AS ok FROM t.try_3;
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('t.collide', ARRAY[ROW(1, 2), ROW(2, 1000)], NULL::int, retries => 1000);
FETCH 1 FROM c;
CLOSE c;
COMMIT;
SELECT t.prepare(3);
SELECT ord, result, ok, sqlstate FROM loky.try_map('t.collide', ARRAY[ROW(1, 0), ROW(2, 1000), ROW(3, 1)], NULL::int, retries => 1000, timeout => '2 s');
SELECT t.prepare(3);
SELECT state, message, detail FROM t.error($$SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 1000)], NULL::int, retries => 1000, timeout => '500 ms', ordered => false)$$);
SET statement_timeout = '500 ms';
SELECT * FROM loky.map('t.collide', ARRAY[ROW(2, 1000)], NULL::int, retries => 1000);
RESET statement_timeout;
SELECT last_value AS before FROM t.try_2 \gset
SELECT t.clean(), last_value = :before AS rests FROM t.try_2;

-- The caller holds what a later item wants: that is no deadlock as long as the
-- next one only waits for its time.
SELECT t.prepare(2);
CREATE FUNCTION t.want(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF x = 1 THEN
        RETURN t.collide(1, 7);
    END IF;
    PERFORM pg_advisory_xact_lock(78);
    RETURN x;
END$$;
BEGIN;
SELECT pg_advisory_xact_lock(78);
DECLARE c CURSOR FOR SELECT loky.map('t.want', ARRAY[1, 2], NULL::int, retries => 7);
FETCH 1 FROM c;
CLOSE c;
COMMIT;

-- One worker goes on with others while an item waits, and may leave: items 2 to 4
-- are done before the first, which waits for them.
CREATE FUNCTION t.after_all(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF x > 1 THEN
        RETURN nextval('t.arrived');
    END IF;
    IF (SELECT last_value FROM t.arrived) < 3 THEN
        RAISE EXCEPTION 'too early' USING ERRCODE = '40001';
    END IF;
    RETURN x;
END$$;
SELECT t.reset();
SELECT * FROM loky.map('t.after_all', ARRAY[1, 2, 3, 4], NULL::int, retries => 5, executor => loky.get_reusable_executor(1, timeout => '0'));
SELECT t.prepare(2);
SELECT * FROM loky.map('t.collide', ARRAY[ROW(1, 2), ROW(2, 3)], NULL::int, retries => 5);

-- Many at a time
CREATE FUNCTION t.flaky_many(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('t.try_1') <= 3000 THEN
        RAISE EXCEPTION 'item %', x USING ERRCODE = '40001';
    END IF;
    INSERT INTO t.log (i) VALUES (x);
    RETURN x;
END$$;
SELECT loky.get_reusable_executor(3, timeout => '1 min') > 0 AS ok;
SELECT t.prepare(1);
SELECT count(*), bool_and(r = n) FROM loky.map('t.flaky_many', ARRAY(SELECT generate_series(1, 3000)), NULL::int, retries => 1000) WITH ORDINALITY u (r, n);
SELECT last_value, (SELECT count(*) FROM t.log), (SELECT count(DISTINCT i) FROM t.log) FROM t.try_1;
SELECT t.prepare(1);
SELECT count(*), sum(r) FROM loky.map('t.flaky_many', ARRAY(SELECT generate_series(1, 3000)), NULL::int, retries => 1000, ordered => false, chunksize => 7) r;
SELECT count(*), count(DISTINCT i) FROM t.log;

-- Inside a task, where the only worker waits for the inner items
SELECT t.prepare(3);
SELECT * FROM loky.map($$SELECT sum(r) FROM loky.map('t.collide', ARRAY[ROW($1, 2), ROW($1 + 1, 1)], NULL::int, retries => 2) r$$, ARRAY[1], NULL::bigint, executor => loky.get_reusable_executor(1));
SELECT * FROM t.attempts();

RESET loky.executor;
SELECT t.clean();
SELECT t.prepare(0);
DROP FUNCTION t.prepare, t.collide, t.attempts, t.read_flaky, t.collide_late, t.want, t.after_all, t.flaky_many;
DROP PROCEDURE t.commits_early;
