-- map_key.sql - items a second of a SELECT by primary key, of 2,000,000 rows, with
-- random keys.
-- Peer: the same query by pgbench, prepared, two clients.

\i :dir/peers.sql

CREATE TABLE bench_rows (id integer PRIMARY KEY, value integer);
INSERT INTO bench_rows SELECT i, i FROM generate_series(1, 2000000) AS i;
VACUUM ANALYZE bench_rows;
CREATE TABLE bench.keys AS
    SELECT array_agg((1 + random() * 1999999)::integer) AS keys FROM generate_series(1, 500000);

CREATE FUNCTION bench.loky(n integer DEFAULT 500000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    items integer[] := (SELECT keys FROM bench.keys);
    start timestamptz := clock_timestamp();
    done bigint;
BEGIN
    SELECT count(*) INTO done
    FROM (SELECT loky.map('SELECT value FROM bench_rows WHERE id = $1', items,
                          NULL::integer)) AS mapped;
    IF done <> n THEN
        RAISE EXCEPTION '% of % items', done, n;
    END IF;
    RETURN n / bench.since(start);
END $$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.pgbench(E'\\set id random(1, 2000000)\nSELECT value FROM bench_rows WHERE id = :id;')$$;
