-- update_apart.sql - a million rows changed by backfill, in chunks of 10,000.
-- Peer: half of them each over two dblink connections, in a table for each, so
-- that they share nothing but the server: about what the machine can do at all.

\i :dir/update.sql

CREATE TABLE bench_other (LIKE bench_rows);

CREATE FUNCTION bench.split() RETURNS void
LANGUAGE sql AS $$
    SELECT bench.fill();
    SELECT dblink_exec('c1', 'TRUNCATE bench_other; ALTER TABLE bench_other DROP CONSTRAINT IF EXISTS bench_other_pkey;
        INSERT INTO bench_other SELECT * FROM bench_rows WHERE id > 500000;
        DELETE FROM bench_rows WHERE id > 500000;
        ALTER TABLE bench_other ADD PRIMARY KEY (id)');
    SELECT dblink_exec('c1', 'VACUUM (FULL, ANALYZE) bench_rows');
    SELECT dblink_exec('c1', 'VACUUM ANALYZE bench_rows, bench_other');
    SELECT dblink_exec('c1', 'CHECKPOINT')$$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bench.split();
    RETURN bench.two('UPDATE bench_rows SET v = v + 1', 'UPDATE bench_other SET v = v + 1');
END $$;
