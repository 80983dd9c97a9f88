-- map_select.sql - items a second of a map in the select list, of an immutable
-- function in C.
-- Peer: the same function over the same array in one process.

\i :dir/peers.sql

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.map('int4abs', 1000000)$$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$SELECT bench.alone('int4abs', 1000000)$$;
