-- pending.sql - what a task costs while many are pending, from submit_task to
-- forget; bench.options() has further arguments of the i-th, bench.many() their
-- number.
-- Peer: the same with 1,000 pending.

SELECT loky.get_reusable_executor(1, timeout => '1 h') \g /dev/null

CREATE FUNCTION bench.gate() RETURNS void
LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(1)';

CREATE FUNCTION bench.cost(n integer) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    gate bigint;
    futures bigint[];
    start timestamptz;
    elapsed interval;
BEGIN
    PERFORM pg_advisory_lock(1);
    gate := loky.submit('bench.gate');
    start := clock_timestamp();
    futures := bench.submit(gate, n);
    elapsed := clock_timestamp() - start;
    IF (SELECT pending FROM loky.executors WHERE pending >= n) IS NULL THEN
        RAISE EXCEPTION 'fewer than % tasks are pending', n;
    END IF;
    start := clock_timestamp();
    PERFORM pg_advisory_unlock(1);
    IF (SELECT count(*) FROM loky.wait(futures) WHERE state = 'succeeded') <> n THEN
        RAISE EXCEPTION 'a task failed';
    END IF;
    PERFORM count(loky.forget(f)) FROM unnest(futures || gate) AS f;
    elapsed := elapsed + (clock_timestamp() - start);
    RETURN 1e6 * extract(epoch FROM elapsed) / n;
END $$;

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE sql AS 'SELECT bench.cost(bench.many())';

-- as many tasks in all as in one of 10,000
CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS 'SELECT avg(bench.cost(1000)) FROM generate_series(1, 10)';
