-- submit_busy.sql - the round trip of one small task while another process burns a
-- core: submit, wait, forget.
-- Peer: the same statement over one dblink connection that stays open.

CREATE EXTENSION IF NOT EXISTS dblink;
SELECT dblink_connect('c', :'conninfo') \g /dev/null
SELECT dblink_connect('busy', :'conninfo') \g /dev/null

CREATE TABLE bench.conninfo AS SELECT :'conninfo'::text AS conninfo;

-- Have the other process burn a core, until it is cancelled.
CREATE PROCEDURE bench.burn()
LANGUAGE plpgsql AS 'BEGIN LOOP NULL; END LOOP; END';

CREATE FUNCTION bench.begin_burning() RETURNS timestamptz
LANGUAGE sql AS $$
    SELECT dblink_send_query('busy', 'CALL bench.burn()');
    SELECT pg_sleep(0.2);
    SELECT clock_timestamp()$$;

CREATE FUNCTION bench.end_burning() RETURNS void
LANGUAGE sql AS $$
    SELECT dblink_cancel_query('busy');
    SELECT pg_sleep(0.2);
    SELECT dblink_disconnect('busy');
    SELECT dblink_connect('busy', (SELECT conninfo FROM bench.conninfo))$$;


CREATE FUNCTION bench.loky(n integer DEFAULT 25000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := bench.begin_burning();
    cost double precision;
    future bigint;
BEGIN
    FOR i IN 1 .. n LOOP
        future := loky.submit('SELECT 1');
        PERFORM loky.result(future);
        PERFORM loky.forget(future);
    END LOOP;
    cost := 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
    PERFORM bench.end_burning();
    RETURN cost;
END $$;

CREATE FUNCTION bench.peer(n integer DEFAULT 12000) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := bench.begin_burning();
    cost double precision;
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM * FROM dblink('c', 'SELECT 1') AS t(x integer);
    END LOOP;
    cost := 1e6 * extract(epoch FROM clock_timestamp() - start) / n;
    PERFORM bench.end_burning();
    RETURN cost;
END $$;
