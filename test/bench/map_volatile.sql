-- map_volatile.sql - items a second of a volatile function in PL/pgSQL, each with a
-- transaction of its own.
-- Peer: transactions a second of pgbench with SELECT 1, prepared, two clients.

\i :dir/peers.sql

CREATE FUNCTION bench_add1(i integer) RETURNS integer
LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN i + 1; END';

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.map('bench_add1', 1000000)$$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.pgbench('SELECT 1')$$;
