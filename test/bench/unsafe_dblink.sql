-- unsafe_dblink.sql - a parallel-unsafe function over 100,000 rows with map_table.
-- Peer: half of them each over two dblink connections.

\i :dir/unsafe.sql

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE sql AS $$
    SELECT bench.two('SELECT sum(bench_work_volatile(id)) FROM bench_rows WHERE id <= 50000',
                     'SELECT sum(bench_work_volatile(id)) FROM bench_rows WHERE id > 50000')$$;
