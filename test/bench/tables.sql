-- tables.sql - tables that several benchmarks read or change, and ways to do so.

\i :dir/peers.sql
CREATE EXTENSION IF NOT EXISTS dblink;
SELECT dblink_connect('c1', :'conninfo') \g /dev/null
SELECT dblink_connect('c2', :'conninfo') \g /dev/null

-- Seconds that a statement takes in this session.
CREATE FUNCTION bench.seconds(statement text) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
BEGIN
    EXECUTE statement;
    RETURN bench.since(start);
END $$;

-- Seconds that two statements take side by side in two other sessions.
CREATE FUNCTION bench.two(first text, second text) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := clock_timestamp();
BEGIN
    PERFORM dblink_send_query('c1', first), dblink_send_query('c2', second);
    PERFORM FROM dblink_get_result('c1') AS t(x text);
    PERFORM FROM dblink_get_result('c2') AS t(x text);
    PERFORM FROM dblink_get_result('c1') AS t(x text);
    PERFORM FROM dblink_get_result('c2') AS t(x text);
    RETURN bench.since(start);
END $$;
