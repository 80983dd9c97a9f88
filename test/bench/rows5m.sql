-- rows5m.sql - an aggregate over five million rows.

\i :dir/tables.sql

CREATE UNLOGGED TABLE bench_rows AS
    SELECT i AS id, i % 1000 AS v, i / 7.0::float8 AS w FROM generate_series(1, 5000000) AS i;
VACUUM ANALYZE bench_rows;

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE sql AS $$
    SELECT bench.seconds('SELECT sum(r.n), sum(r.v), sum(r.w) / sum(r.n) FROM loky.map_table(
        ''SELECT count(*), sum(v), sum(w) FROM bench_rows WHERE ctid >= $1 AND ctid < $2'',
        ''bench_rows'', NULL::record) AS r(n bigint, v bigint, w double precision)')$$;
