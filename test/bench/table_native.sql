-- table_native.sql - an aggregate over five million rows with map_table.
-- Peer: PostgreSQL's own parallel plan, with two processes as loky has.

\i :dir/rows5m.sql

SET max_parallel_workers_per_gather = 2;
SET parallel_leader_participation = off;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.seconds('SELECT count(*), sum(v), avg(w) FROM bench_rows')$$;
