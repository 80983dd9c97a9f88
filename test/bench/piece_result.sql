-- piece_result.sql - result alone, of a task that is done.
-- Peer: a call of a function of the server that returns one row.

CREATE FUNCTION bench.loky(n integer DEFAULT 10000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    future bigint := loky.submit('SELECT 1');
    start timestamptz;
    cost double precision;
BEGIN
    PERFORM loky.result(future);
    start := clock_timestamp();
    FOR i IN 1 .. n LOOP
        PERFORM loky.result(future);
    END LOOP;
    cost := 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
    PERFORM loky.forget(future);
    RETURN cost;
END $$;

CREATE FUNCTION bench.peer(n integer DEFAULT 10000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM generate_series(1, 1);
    END LOOP;
    RETURN 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
END $$;
