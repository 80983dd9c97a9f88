-- What the sessions of a load share.  Each task and item has a number of its own, and
-- leaves a row in load.done; what its caller was told of it is in load.told.
CREATE EXTENSION IF NOT EXISTS loky;
CREATE SCHEMA load;
CREATE SEQUENCE load.item;
CREATE TABLE load.done (i int);

-- told: it succeeded; NULL: the caller was not told, and it has run once at most.
-- must: it has as many attempts as it takes, and nobody cancels it.
CREATE TABLE load.told (i int, kind text, told boolean, must boolean);

-- Which are added to without a lock by tasks that bear the same key.
CREATE TABLE load.counter (k int PRIMARY KEY, n int) WITH (fillfactor = 10);
INSERT INTO load.counter SELECT k, 0 FROM generate_series(1, 1000) k;

-- So many numbers.
CREATE FUNCTION load.items(n int) RETURNS int[] LANGUAGE sql AS
$$SELECT array_agg(nextval('load.item')::int) FROM generate_series(1, n)$$;

-- An array as pgbench can keep it in a variable.
CREATE FUNCTION load.quote(a anyarray) RETURNS text LANGUAGE sql AS
'SELECT quote_literal(a::text)';

-- The configuration with this number becomes the session's.
CREATE FUNCTION load.executor(n int) RETURNS int LANGUAGE sql AS
$$SELECT loky.get_reusable_executor(1 + n % 4, timeout => n % 7 * interval '100 ms',
	settings => jsonb_build_object('my.load', n))$$;

-- Some leave a temporary table in their worker, for which the server has a transaction
-- of its own when the worker ends, be it in the middle of another task.
CREATE FUNCTION load.work(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO load.done VALUES (x);
	IF x % 50 = 0 AND to_regclass('pg_temp.kept') IS NULL THEN
		CREATE TEMPORARY TABLE kept (i int);
	END IF;
	IF x % 20 = 0 THEN
		PERFORM pg_sleep(0.01);
	END IF;
	RETURN x;
END$$;

CREATE FUNCTION load.slow(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO load.done VALUES (x);
	PERFORM pg_sleep(0.01);
	RETURN x;
END$$;

CREATE FUNCTION load.erratic(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO load.done VALUES (x);
	IF random() < 0.3 THEN
		RAISE EXCEPTION 'once more' USING ERRCODE = '40001';
	END IF;
	RETURN x;
END$$;

CREATE FUNCTION load.keyed(x int, c int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	old int := (SELECT n FROM load.counter WHERE k = c);
BEGIN
	PERFORM pg_sleep(0.001), load.work(x);
	UPDATE load.counter SET n = old + 1 WHERE k = c;
	RETURN x;
END$$;

CREATE FUNCTION load.double(x int) RETURNS int LANGUAGE plpgsql STABLE AS
'BEGIN RETURN 2 * x; END';

-- Returns once so many tasks are here at the same time.
CREATE FUNCTION load.meet(k int, n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(k);
	INSERT INTO load.done VALUES (-k);

	-- those that have left can be seen, too
	WHILE (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = k) +
		(SELECT count(*) FROM load.done WHERE i = -k AND
			xmin <> pg_current_xact_id()::xid) < n LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN pg_backend_pid();
END$$;

-- Run the command, which may lose its worker, or its time.
CREATE FUNCTION load.attempt(command text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN true;
EXCEPTION WHEN query_canceled OR SQLSTATE 'LK001' OR SQLSTATE 'LK004' THEN
	RETURN false;
END$$;

CREATE FUNCTION load.check_equal(value anyelement, expected anyelement)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF value IS DISTINCT FROM expected THEN
		RAISE EXCEPTION 'found %, expected %', value, expected;
	END IF;
END$$;

-- Much for one worker, and for the session that calls it.
CREATE FUNCTION load.live(n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	f bigint;
BEGIN
	FOR i IN 1 .. n LOOP
		f := loky.submit('load.double', i);
		PERFORM loky.result(f, NULL::int);
		PERFORM loky.forget(f);
		PERFORM loky.run('load.slow', ROW(-100)) FROM generate_series(1, (i % 50 = 0)::int);
		PERFORM loky.run('SELECT ' || i);
		PERFORM count(*) FROM loky.try_map('SELECT 1 / ($1 % 3)', ARRAY[1, 2, 3, 4, 5, 6]);
		PERFORM count(*) FROM loky.flat_map('SELECT repeat(''x'', $1) FROM generate_series(1, 50)', ARRAY[1000]);
		PERFORM length(r) FROM loky.map('SELECT repeat($1::text, 2000000)', ARRAY(SELECT generate_series(1, (i % 100 = 0)::int)), NULL::text) r;
	END LOOP;
END$$;
