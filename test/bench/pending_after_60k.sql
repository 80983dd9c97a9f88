-- pending_after_60k.sql - tasks each after the one before and the first, 60,000 of them; see pending.sql.

CREATE FUNCTION bench.many() RETURNS integer LANGUAGE sql AS 'SELECT 60000';

CREATE FUNCTION bench.submit(gate bigint, n integer) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    futures bigint[] := '{}';
    future bigint := gate;
BEGIN
    FOR i IN 1 .. n LOOP
        future := loky.submit_task('SELECT 1', after => ARRAY[gate, future]);
        futures := futures || future;
    END LOOP;
    RETURN futures;
END $$;

\i :dir/pending.sql
