-- update_dblink.sql - a million rows changed by backfill, in chunks of 10,000.
-- Peer: half of them each over two dblink connections.

\i :dir/update.sql

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bench.fill();
    RETURN bench.two('UPDATE bench_rows SET v = v + 1 WHERE id <= 500000',
                     'UPDATE bench_rows SET v = v + 1 WHERE id > 500000');
END $$;
