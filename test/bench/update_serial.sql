-- update_serial.sql - a million rows changed by backfill, in chunks of 10,000.
-- Peer: one UPDATE in one process.

\i :dir/update.sql

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz;
BEGIN
    PERFORM bench.fill();
    start := clock_timestamp();
    PERFORM dblink_exec('c1', 'UPDATE bench_rows SET v = v + 1');
    RETURN bench.since(start);
END $$;
