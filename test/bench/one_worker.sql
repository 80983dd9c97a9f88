-- one_worker.sql - items a second of 20 microseconds each, with one worker.
-- Peer: the same in one process without loky.

\i :dir/peers.sql
SELECT loky.get_reusable_executor(1, timeout => '1 h') \g /dev/null

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.map('bench_work', 50000)$$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.alone('bench_work', 50000)$$;
