-- piece_submit.sql - submit alone: nobody takes the tasks meanwhile.
-- Peer: a call of a function in SQL that does nothing.

SELECT loky.get_reusable_executor(1, timeout => '1 h') \g /dev/null

CREATE FUNCTION bench.gate() RETURNS void
LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(1)';

CREATE FUNCTION bench_nothing(x text) RETURNS bigint
LANGUAGE sql VOLATILE SET work_mem = '4MB' AS 'SELECT 1::bigint';

CREATE FUNCTION bench.loky(n integer DEFAULT 5000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    futures bigint[];
    future bigint;
    start timestamptz;
    cost double precision;
BEGIN
    PERFORM pg_advisory_lock(1);
    futures := ARRAY[loky.submit('bench.gate')];
    start := clock_timestamp();
    FOR i IN 1 .. n LOOP
        future := loky.submit('SELECT 1');
    END LOOP;
    cost := 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
    PERFORM pg_advisory_unlock(1);
    futures := ARRAY(SELECT t.future FROM loky.tasks AS t);
    PERFORM count(*) FROM loky.wait(futures);
    PERFORM count(loky.forget(f)) FROM unnest(futures) AS f;
    RETURN cost;
END $$;

CREATE FUNCTION bench.peer(n integer DEFAULT 5000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    future bigint;
    start timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1 .. n LOOP
        future := bench_nothing('SELECT 1');
    END LOOP;
    RETURN 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
END $$;
