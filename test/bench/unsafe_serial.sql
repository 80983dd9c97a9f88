-- unsafe_serial.sql - a parallel-unsafe function over 100,000 rows with map_table.
-- Peer: the same in one process.

\i :dir/unsafe.sql

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.seconds('SELECT sum(bench_work_volatile(id)) FROM bench_rows')$$;
