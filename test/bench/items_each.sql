-- items_each.sql - items a second of 20 microseconds each, a transaction for each.
-- Peer: the same in one process and one transaction.

\i :dir/peers.sql

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.map('bench_work_volatile', 50000)$$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.alone('bench_work_volatile', 50000)$$;
