-- items_shared.sql - items a second of 20 microseconds each, which share transactions.
-- Peer: the same in one process.

\i :dir/peers.sql

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.map('bench_work', 50000)$$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.alone('bench_work', 50000)$$;
