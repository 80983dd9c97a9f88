-- skew.sql - seconds of a map over 20,000 items, one of which, at bench.place(), takes
-- as long as 1,000 others.
-- Peer: half of what one process needs, the best that two can do.

\i :dir/peers.sql

CREATE FUNCTION bench_skewed(i integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    x integer := i;
BEGIN
    FOR j IN 1 .. CASE WHEN i < 0 THEN 500000 ELSE 500 END LOOP
        x := (x + j) % 1000;
    END LOOP;
    RETURN x;
END $$;

CREATE FUNCTION bench.skewed() RETURNS integer[]
LANGUAGE sql AS $$
    SELECT array_agg(CASE WHEN i = bench.place() THEN -1 ELSE i END ORDER BY i)
    FROM generate_series(1, 20000) AS i$$;

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    items integer[] := bench.skewed();
    start timestamptz := clock_timestamp();
BEGIN
    PERFORM count(*) FROM (SELECT loky.map('bench_skewed', items, NULL::integer)) AS mapped;
    RETURN bench.since(start);
END $$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    items integer[] := bench.skewed();
    start timestamptz := clock_timestamp();
BEGIN
    PERFORM count(bench_skewed(x)) FROM unnest(items) AS x;
    RETURN bench.since(start) / 2;
END $$;
