-- result_text.sql - seconds for a million texts of 100 bytes, out of a table.
-- Peer: the same query through dblink.

CREATE EXTENSION IF NOT EXISTS dblink;
SELECT dblink_connect('c', :'conninfo') \g /dev/null
\i :dir/peers.sql

CREATE TABLE bench_texts AS
    SELECT lpad(i::text, 100, 'x') AS line FROM generate_series(1, 1000000) AS i;
VACUUM ANALYZE bench_texts;

CREATE FUNCTION bench.loky() RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
    future bigint := loky.submit('SELECT line FROM bench_texts');
    done bigint;
BEGIN
    SELECT count(*) INTO done FROM (SELECT loky.result(future)) AS result;
    PERFORM loky.forget(future);
    IF done <> 1000000 THEN
        RAISE EXCEPTION '% rows', done;
    END IF;
    RETURN bench.since(start);
END $$;

CREATE FUNCTION bench.peer() RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
BEGIN
    PERFORM count(*) FROM dblink('c', 'SELECT line FROM bench_texts') AS t(line text);
    RETURN bench.since(start);
END $$;
