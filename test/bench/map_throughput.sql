-- map_throughput.sql - items a second of a map of a function that does next to
-- nothing; volatile, so that each item has a transaction of its own.
-- Peer: the same function called for one item after the other over one dblink
-- connection that stays open.

CREATE EXTENSION IF NOT EXISTS dblink;
SELECT dblink_connect('c', :'conninfo') \g /dev/null

CREATE FUNCTION bench_add1(i integer) RETURNS integer
LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN i + 1; END';

CREATE FUNCTION bench.loky(n integer DEFAULT 100000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
    mapped bigint;
BEGIN
    SELECT count(*) INTO mapped
    FROM loky.map('bench_add1', ARRAY(SELECT generate_series(1, n)),
                  NULL::integer);
    IF mapped <> n THEN
        RAISE EXCEPTION '% of % items', mapped, n;
    END IF;
    RETURN n / extract(epoch FROM clock_timestamp() - start);
END $$;

CREATE FUNCTION bench.peer(n integer DEFAULT 5000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM * FROM dblink('c', format('SELECT bench_add1(%s)', i)) AS t(x integer);
    END LOOP;
    RETURN n / extract(epoch FROM clock_timestamp() - start);
END $$;
