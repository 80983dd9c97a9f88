-- update.sql - a million rows that are changed, made anew before each run.

\i :dir/tables.sql

CREATE TABLE bench_rows (id integer, v integer, pad text);

CREATE FUNCTION bench.fill() RETURNS void
LANGUAGE sql AS $$
    SELECT dblink_exec('c1', 'TRUNCATE bench_rows; ALTER TABLE bench_rows DROP CONSTRAINT IF EXISTS bench_rows_pkey;
        INSERT INTO bench_rows SELECT i, 0, repeat(''x'', 60) FROM generate_series(1, 1000000) AS i;
        ALTER TABLE bench_rows ADD PRIMARY KEY (id)');
    SELECT dblink_exec('c1', 'VACUUM ANALYZE bench_rows');
    SELECT dblink_exec('c1', 'CHECKPOINT')$$;

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bench.fill();
    RETURN bench.seconds('SELECT sum(rows) FROM loky.backfill(
        ''UPDATE bench_rows SET v = v + 1 WHERE id BETWEEN $1 AND $2'', ''bench_rows'')');
END $$;
