-- table_serial.sql - an aggregate over five million rows with map_table.
-- Peer: the same in one process.

\i :dir/rows5m.sql

SET max_parallel_workers_per_gather = 0;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.seconds('SELECT count(*), sum(v), avg(w) FROM bench_rows')$$;
