-- unsafe.sql - a function that may not be run in parallel, over 100,000 rows.

\i :dir/tables.sql

CREATE TABLE bench_rows AS SELECT i AS id, repeat('x', 40) AS pad FROM generate_series(1, 100000) AS i;
ALTER TABLE bench_rows ADD PRIMARY KEY (id);
VACUUM ANALYZE bench_rows;

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE sql AS $$
    SELECT bench.seconds('SELECT sum(r) FROM loky.map_table(
        ''SELECT sum(bench_work_volatile(id)) FROM bench_rows WHERE ctid >= $1 AND ctid < $2'',
        ''bench_rows'', NULL::bigint) AS r')$$;
