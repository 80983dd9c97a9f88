-- submit_latency.sql - the round trip of one small task: submit, wait, forget.
-- Peer: the same statement over one dblink connection that stays open.
--
-- Both sides are measured for some tenths of a second, by as many rounds as that
-- takes: for up to a tenth of a second after a rest the kernel may have the caller and
-- the worker share a core.

CREATE EXTENSION IF NOT EXISTS dblink;
SELECT dblink_connect('c', :'conninfo') \g /dev/null

CREATE FUNCTION bench.loky(n integer DEFAULT 50000) RETURNS double precision
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

CREATE FUNCTION bench.peer(n integer DEFAULT 5000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM * FROM dblink('c', 'SELECT 1') AS t(x integer);
    END LOOP;
    RETURN 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
END $$;
