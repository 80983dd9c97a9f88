-- map_from.sql - items a second of a map in FROM, of an immutable function in C.
-- Peer: the same function over the same array in one process.

\i :dir/peers.sql

CREATE FUNCTION bench.loky(n integer DEFAULT 1000000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    items integer[] := bench.items(n);
    start timestamptz := clock_timestamp();
    done bigint;
BEGIN
    SELECT count(*) INTO done FROM loky.map('int4abs', items, NULL::integer);
    IF done <> n THEN
        RAISE EXCEPTION '% of % items', done, n;
    END IF;
    RETURN n / bench.since(start);
END $$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.alone('int4abs', 1000000)$$;
