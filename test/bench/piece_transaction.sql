-- piece_transaction.sql - an item with a transaction of its own, one worker.
-- Peer: a procedure that calls the same function and commits, again and again.

\i :dir/peers.sql
SELECT loky.get_reusable_executor(1, timeout => '1 h') \g /dev/null

CREATE FUNCTION bench_add1(i integer) RETURNS integer
LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN i + 1; END';

CREATE FUNCTION bench.loky(n integer DEFAULT 200000) RETURNS double precision
LANGUAGE sql AS $$SELECT 1e6 / bench.map('bench_add1', n)$$;

CREATE PROCEDURE bench.commits(n integer, INOUT cost double precision)
LANGUAGE plpgsql AS $$
DECLARE
    x integer;
    start timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1 .. n LOOP
        x := bench_add1(i);
        COMMIT;
    END LOOP;
    cost := 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
END $$;

-- a procedure commits only outside of a function
CREATE EXTENSION IF NOT EXISTS dblink;
SELECT dblink_connect('c', :'conninfo') \g /dev/null

CREATE FUNCTION bench.peer(n integer DEFAULT 200000) RETURNS double precision
LANGUAGE sql AS $$
    SELECT cost FROM dblink('c', format('CALL bench.commits(%s, NULL)', n)) AS t(cost double precision)$$;
