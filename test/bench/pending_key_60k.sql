-- pending_key_60k.sql - tasks behind 500 keys, 60,000 of them; see pending.sql.

CREATE FUNCTION bench.many() RETURNS integer LANGUAGE sql AS 'SELECT 60000';

CREATE FUNCTION bench.submit(gate bigint, n integer) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    futures bigint[] := '{}';
    future bigint := gate;
BEGIN
    FOR i IN 1 .. n LOOP
        future := loky.submit_task('SELECT 1', key => 'k' || i % 500);
        futures := futures || future;
    END LOOP;
    RETURN futures;
END $$;

\i :dir/pending.sql
