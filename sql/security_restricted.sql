-- A security-restricted operation, in which a superuser runs what the owner of a
-- table has written, starts no work and cancels none; the rest is the owner's.

SELECT current_user AS superuser \gset
CREATE ROLE regress_loky_evil;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_evil;
CREATE SCHEMA evil AUTHORIZATION regress_loky_evil;
SELECT loky.submit('SELECT ''a superuser''''s''') AS s \gset
SELECT * FROM loky.result(:s);
SET ROLE regress_loky_evil;
SELECT loky.submit('SELECT ''evil''') AS f, loky.submit('SELECT 1') AS g \gset
SELECT done FROM loky.wait(ARRAY[:f, :g]);

-- What the trap tries is read from a table, what comes of it noted in another.
CREATE TABLE evil.orders (n int GENERATED ALWAYS AS IDENTITY, name text, command text, PRIMARY KEY (n));
CREATE TABLE evil.present (n int);
CREATE TABLE evil.log (n int, who text, outcome text);
CREATE FUNCTION evil.spring() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    o record;
BEGIN
    FOR o IN EXECUTE 'SELECT orders.* FROM evil.orders JOIN evil.present USING (n)' LOOP
        BEGIN
            EXECUTE o.command;
            EXECUTE 'INSERT INTO evil.log VALUES ($1, current_user, ''done'')' USING o.n;
        EXCEPTION WHEN OTHERS THEN
            EXECUTE 'INSERT INTO evil.log VALUES ($1, current_user, $2)' USING o.n, SQLSTATE;
        END;
    END LOOP;
END$$;
CREATE FUNCTION evil.trap(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE
AS $$BEGIN PERFORM evil.spring(); RETURN x; END$$;
INSERT INTO evil.orders (name, command) VALUES
    ('submit', 'SELECT loky.submit(''SELECT 1'')'),
    ('submit', 'SELECT loky.submit(''SELECT $1'', 1)'),
    ('submit_task', 'SELECT loky.submit_task(''SELECT 1'')'),
    ('submit_task', 'SELECT loky.submit_task(''SELECT 1'', on_commit => true)'),
    ('submit_task', 'SELECT loky.submit_task(''SELECT 1'', delay => ''1 s'', discard => true)'),
    ('submit_all', 'SELECT loky.submit_all(''SELECT $1'', ARRAY[1])'),
    ('run', 'SELECT * FROM loky.run(''SELECT 1'')'),
    ('run', 'SELECT loky.run(''SELECT 1'')'),
    ('map', 'SELECT loky.map(''SELECT $1'', ARRAY[1])'),
    ('map', 'SELECT * FROM loky.map(''SELECT $1'', ''{}''::int[])'),
    ('flat_map', 'SELECT * FROM loky.flat_map(''SELECT $1'', ARRAY[1])'),
    ('try_map', 'SELECT * FROM loky.try_map(''SELECT $1'', ARRAY[1])'),
    ('try_map', 'SELECT * FROM loky.try_map(''SELECT $1'', ARRAY[1], NULL::int)'),
    ('map_table', 'SELECT * FROM loky.map_table(''SELECT $1, $2'', ''evil.orders'')'),
    ('backfill', 'SELECT * FROM loky.backfill(''SELECT $1, $2'', ''evil.orders'')'),
    ('add_done_callback', format('SELECT loky.add_done_callback(%s, ''SELECT 1'')', :f)),
    ('cancel', format('SELECT loky.cancel(%s)', :f)),
    ('cancel', format('SELECT loky.cancel(%s, running => true)', :s)),
    ('get_reusable_executor', 'SELECT loky.get_reusable_executor(1)'),
    ('get_reusable_executor', 'SELECT loky.get_reusable_executor(1, kill_workers => true, reuse => ''true'')'),
    ('shutdown', 'SELECT loky.shutdown()'),
    ('shutdown', 'SELECT loky.shutdown(false, true)'),
    -- these start nothing, and are the owner's to call, on the owner's futures
    ('result', format('SELECT * FROM loky.result(%s)', :f)),
    ('exception', format('SELECT * FROM loky.exception(%s)', :f)),
    ('state', format('SELECT loky.state(%1$s), loky.done(%1$s), loky.running(%1$s), loky.cancelled(%1$s)', :f)),
    ('wait', format('SELECT * FROM loky.wait(ARRAY[%s])', :f)),
    ('as_completed', format('SELECT * FROM loky.as_completed(ARRAY[%s])', :f)),
    ('table_chunks', 'SELECT * FROM loky.table_chunks(''evil.orders'')'),
    ('key_chunks', 'SELECT * FROM loky.key_chunks(''evil.orders'')'),
    ('report_progress', 'SELECT loky.report_progress(1)'),
    ('views', 'SELECT (SELECT count(*) FROM loky.executors), (SELECT count(*) FROM loky.workers), (SELECT count(*) FROM loky.tasks), (SELECT count(*) FROM loky.progress), (SELECT count(*) FROM loky.stats)'),
    ('timeline', 'SELECT loky.timeline()'),
    ('stats_reset', 'SELECT loky.stats_reset()'),
    -- and not on those of whoever is caught
    ('the superuser''s', format('SELECT * FROM loky.result(%s)', :s)),
    ('the superuser''s', format('SELECT loky.forget(%s)', :s)),
    ('the superuser''s', format('SELECT * FROM loky.wait(ARRAY[%s])', :s)),
    ('the superuser''s', 'SELECT * FROM loky.table_chunks(''pg_authid'')');
CREATE TABLE evil.bait (x int PRIMARY KEY);
INSERT INTO evil.bait VALUES (1);
CREATE INDEX trap ON evil.bait (evil.trap(x));
CREATE MATERIALIZED VIEW evil.view AS SELECT evil.trap(x) AS x FROM evil.bait;
CREATE UNIQUE INDEX ON evil.view (x);
CREATE STATISTICS evil.stats ON (evil.trap(x)) FROM evil.bait;
SELECT count(*) FROM loky.tasks WHERE role = current_user;

-- A superuser takes the bait in each way, once for each order.
RESET ROLE;
CREATE FUNCTION t.take_bait(operation text) RETURNS TABLE (name text, who text, outcome text) LANGUAGE plpgsql AS $$
DECLARE
    i int;
BEGIN
    TRUNCATE evil.log;
    FOR i IN SELECT n FROM evil.orders ORDER BY n LOOP
        TRUNCATE evil.present;
        INSERT INTO evil.present VALUES (i);
        EXECUTE operation;
        IF to_regclass('evil.another') IS NOT NULL THEN
            DROP INDEX evil.another;
        END IF;
    END LOOP;
    TRUNCATE evil.present;
    RETURN QUERY SELECT o.name, string_agg(DISTINCT l.who, ' '), string_agg(DISTINCT coalesce(l.outcome, 'not tried'), ' ')
        FROM evil.orders o LEFT JOIN evil.log l USING (n) GROUP BY o.name ORDER BY min(o.n);
END$$;
SELECT * FROM t.take_bait('ANALYZE evil.bait');
CREATE TABLE t.outcomes AS SELECT * FROM t.take_bait('ANALYZE evil.bait');
-- the other ways come to the same
SELECT operation, count(*) AS kinds, string_agg(o.name || ': ' || o.who || ' ' || o.outcome, ', ') FILTER (WHERE x.name IS NULL) AS differences
FROM unnest(ARRAY['REINDEX TABLE evil.bait', 'REINDEX INDEX evil.trap', 'CREATE INDEX another ON evil.bait (evil.trap(x))',
    'CLUSTER evil.bait USING bait_pkey', 'CREATE INDEX another ON evil.bait (x) WHERE evil.trap(x) > 0',
    'REFRESH MATERIALIZED VIEW evil.view', 'REFRESH MATERIALIZED VIEW CONCURRENTLY evil.view']) operation,
    t.take_bait(operation) o LEFT JOIN t.outcomes x USING (name, who, outcome) GROUP BY operation ORDER BY operation;
SET ROLE regress_loky_evil;
SELECT count(*) FROM loky.tasks WHERE role = current_user;
-- forgetting is the owner's to do, too
INSERT INTO evil.present SELECT max(n) + 1 FROM evil.orders;
INSERT INTO evil.orders (name, command) VALUES ('forget', format('SELECT loky.forget(%s)', :g));
RESET ROLE;
ANALYZE evil.bait;
SELECT who, outcome FROM evil.log ORDER BY n DESC LIMIT 1;
TRUNCATE evil.present;
-- the superuser's own are as they were
SELECT * FROM loky.result(:s);

SELECT t.clean();
DROP FUNCTION t.take_bait;
DROP TABLE t.outcomes;
SET client_min_messages = warning;
DROP OWNED BY regress_loky_evil CASCADE;
RESET client_min_messages;
DROP ROLE regress_loky_evil;
