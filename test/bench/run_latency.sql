-- run_latency.sql - an autonomous transaction in one call.
-- Peer: the same by submit, result and forget.

CREATE FUNCTION bench.loky(n integer DEFAULT 50000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM loky.run('SELECT 1');
    END LOOP;
    RETURN 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
END $$;

CREATE FUNCTION bench.peer(n integer DEFAULT 50000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
    future bigint;
BEGIN
    FOR i IN 1 .. n LOOP
        future := loky.submit('SELECT 1');
        PERFORM loky.result(future);
        PERFORM loky.forget(future);
    END LOOP;
    RETURN 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
END $$;
