-- piece_wakeup.sql - a round trip when both sides sleep: after a rest of 1 ms each.
-- Peer: the same over one dblink connection that stays open.

CREATE EXTENSION IF NOT EXISTS dblink;
SELECT dblink_connect('c', :'conninfo') \g /dev/null

CREATE FUNCTION bench.loky(n integer DEFAULT 200) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz;
    spent interval := '0';
    future bigint;
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM pg_sleep(0.001);
        start := clock_timestamp();
        future := loky.submit('SELECT 1');
        PERFORM loky.result(future);
        PERFORM loky.forget(future);
        spent := spent + (clock_timestamp() - start);
    END LOOP;
    RETURN 1e6 * extract(epoch FROM spent) / n;
END $$;

CREATE FUNCTION bench.peer(n integer DEFAULT 200) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz;
    spent interval := '0';
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM pg_sleep(0.001);
        start := clock_timestamp();
        PERFORM * FROM dblink('c', 'SELECT 1') AS t(x integer);
        spent := spent + (clock_timestamp() - start);
    END LOOP;
    RETURN 1e6 * extract(epoch FROM spent) / n;
END $$;
