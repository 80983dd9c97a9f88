-- Tables cut by the places of their rows.
SELECT loky.get_reusable_executor(2) > 0 AS ok;
CREATE TABLE t.cut (id int PRIMARY KEY, v int, pad text) WITH (fillfactor = 50);
INSERT INTO t.cut SELECT i, i % 10, repeat('x', 100) FROM generate_series(1, 20000) i;
ANALYZE t.cut;

-- The ranges lie side by side, from the first place to the last there can be.
CREATE FUNCTION t.check_chunks(rel regclass, chunks int DEFAULT NULL, OUT n bigint, OUT numbered boolean, OUT side_by_side boolean, OUT first tid, OUT last tid)
LANGUAGE sql AS $$
    SELECT count(*), bool_and(chunk = r), bool_and(lo = COALESCE(before, '(0,0)')), min(lo), max(hi)
    FROM (SELECT *, row_number() OVER (ORDER BY chunk) AS r, lag(hi) OVER (ORDER BY chunk) AS before
          FROM loky.table_chunks(rel, chunks)) c$$;
SELECT numbered, side_by_side, first, last, n BETWEEN 8 AND 100 AS some FROM t.check_chunks('t.cut');
SELECT * FROM t.check_chunks('t.cut', 1);
SELECT * FROM t.check_chunks('t.cut', 7);
SELECT max(size) - min(size) <= 1 AS equal FROM (
    SELECT COALESCE(lead((lo::text::point)[0]) OVER (ORDER BY chunk), pg_relation_size('t.cut') / current_setting('block_size')::int) - (lo::text::point)[0] AS size
    FROM loky.table_chunks('t.cut', 7)) s;
-- no more chunks than pages
SELECT n = pg_relation_size('t.cut') / current_setting('block_size')::int AS one_a_page, side_by_side FROM t.check_chunks('t.cut', 1000000);
-- left alone, they become smaller
SELECT bool_and(size <= before) AS smaller FROM (
    SELECT size, lag(size) OVER (ORDER BY chunk) AS before
    FROM (SELECT chunk, (hi::text::point)[0] - (lo::text::point)[0] AS size FROM loky.table_chunks('t.cut') OFFSET 0) a
    WHERE size < 1e9) b;
CREATE TABLE t.cut_none (v int);
SELECT * FROM loky.table_chunks('t.cut_none');
INSERT INTO t.cut_none VALUES (1);
SELECT * FROM loky.table_chunks('t.cut_none', 5);

-- A place range scan, not a scan of all.
EXPLAIN (COSTS off) SELECT count(*) FROM t.cut WHERE ctid >= '(0,0)' AND ctid < '(3,0)';
SELECT string_agg(DISTINCT substring(r FROM 'Tid Range Scan'), ',') FROM loky.map_table('EXPLAIN SELECT count(*) FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut') r;

-- Each row once.
SELECT sum(r), count(*) > 5 AS chunks FROM loky.map_table('SELECT count(*) FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut', NULL::bigint) r;
SELECT count(*), count(DISTINCT r), sum(r) FROM loky.map_table('SELECT id FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut', NULL::int) r;
SELECT v, sum(n) FROM loky.map_table('SELECT v, count(*) FROM t.cut WHERE ctid >= $1 AND ctid < $2 GROUP BY v', 't.cut', NULL::record, chunks => 3) AS (v int, n bigint) GROUP BY v ORDER BY v LIMIT 2;
SELECT count(*) FROM loky.map_table('SELECT count(*) FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut', chunks => 4);
SELECT * FROM loky.map_table('SELECT count(*) FROM t.cut_none WHERE ctid >= $1 AND ctid < $2', 't.cut_none', NULL::bigint);
-- while it grows and its rows move
CREATE FUNCTION t.grow(lo tid, hi tid) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT count(*) FROM t.cut WHERE ctid >= lo AND ctid < hi);
END$$;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM t.cut;
SELECT * FROM loky.run($$INSERT INTO t.cut SELECT i, 0, '' FROM generate_series(100001, 120000) i$$);
SELECT * FROM loky.run('UPDATE t.cut SET v = v + 1 WHERE id <= 10000');
SELECT * FROM loky.run('DELETE FROM t.cut WHERE id BETWEEN 15001 AND 15100');
SELECT sum(r) FROM loky.map_table('t.grow', 't.cut', NULL::bigint) r;
COMMIT;
SELECT sum(r) FROM loky.map_table('t.grow', 't.cut', NULL::bigint) r;
-- rows that come after the chunks were made are in the last one
SELECT hi FROM loky.table_chunks('t.cut') ORDER BY chunk DESC LIMIT 1;

-- Partitions, of different sizes and levels; children; materialized views.
CREATE TABLE t.parts (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE t.parts_1 PARTITION OF t.parts FOR VALUES FROM (0) TO (100);
CREATE TABLE t.parts_2 PARTITION OF t.parts FOR VALUES FROM (100) TO (20000);
CREATE TABLE t.parts_3 PARTITION OF t.parts FOR VALUES FROM (20000) TO (30000) PARTITION BY LIST (id);
CREATE TABLE t.parts_3d PARTITION OF t.parts_3 DEFAULT;
SELECT * FROM loky.table_chunks('t.parts_3');
INSERT INTO t.parts SELECT i, repeat('y', 50) FROM generate_series(1, 25000) i;
SELECT numbered, side_by_side, first, last, n > 4 AS some FROM t.check_chunks('t.parts');
SELECT n FROM t.check_chunks('t.parts', 5);
SELECT count(*), sum(r) FROM loky.map_table('SELECT id FROM t.parts WHERE ctid >= $1 AND ctid < $2', 't.parts', NULL::int, chunks => 5) r;
-- the ranges are of equal size in all of them together
SELECT max(pages) - min(pages) <= 8 AS equal FROM (
    SELECT chunk, (SELECT count(DISTINCT (tableoid, (ctid::text::point)[0])) FROM t.parts WHERE ctid >= lo AND ctid < hi) AS pages
    FROM loky.table_chunks('t.parts', 5)) c;
CREATE TABLE t.cut_parent (id int);
CREATE TABLE t.cut_child () INHERITS (t.cut_parent);
INSERT INTO t.cut_parent SELECT generate_series(1, 3000);
INSERT INTO t.cut_child SELECT generate_series(3001, 9000);
SELECT count(*), sum(r) FROM loky.map_table('SELECT id FROM t.cut_parent WHERE ctid >= $1 AND ctid < $2', 't.cut_parent', NULL::int) r;
-- what others have as a temporary child is not looked into
SELECT * FROM loky.run('CREATE TEMPORARY TABLE their_child () INHERITS (t.cut_parent)');
SELECT count(*), sum(r) FROM loky.map_table('SELECT id FROM t.cut_parent WHERE ctid >= $1 AND ctid < $2', 't.cut_parent', NULL::int) r;
SELECT count(*) > 1 AS chunks FROM loky.table_chunks('t.cut_parent');
SELECT loky.get_reusable_executor(2, kill_workers => true) > 0 AS ok;
CREATE TEMPORARY TABLE my_child () INHERITS (t.cut_parent);
SELECT state, message FROM t.error($$SELECT loky.map_table('SELECT 1', 't.cut_parent')$$);
DROP TABLE my_child;
CREATE MATERIALIZED VIEW t.cut_view AS SELECT id FROM t.cut;
SELECT sum(r) FROM loky.map_table('SELECT count(*) FROM t.cut_view WHERE ctid >= $1 AND ctid < $2', 't.cut_view', NULL::bigint) r;

-- What is no table of this kind.
CREATE VIEW t.view AS SELECT id FROM t.cut;
CREATE FOREIGN DATA WRAPPER t_wrapper;
CREATE SERVER t_server FOREIGN DATA WRAPPER t_wrapper;
CREATE FOREIGN TABLE t.foreign (id int) SERVER t_server;
CREATE TEMPORARY TABLE passing (id int);
SELECT rel, (t.error(format('SELECT loky.map_table(%L, %L)', 'SELECT 1', rel))).*
FROM unnest('{t.view,t.foreign,t.cut_pkey,t.arrived,passing}'::text[]) rel;
SELECT state FROM t.error($$SELECT loky.table_chunks('t.view')$$);
ALTER FOREIGN TABLE t.foreign INHERIT t.cut_parent;
SELECT state, message, detail FROM t.error($$SELECT loky.table_chunks('t.cut_parent')$$);
DROP FOREIGN DATA WRAPPER t_wrapper CASCADE;
SELECT state, message FROM t.error($$SELECT loky.table_chunks('t.cut', 0)$$);
SELECT state, message FROM t.error($$SELECT loky.table_chunks(NULL)$$);
SELECT state, message FROM t.error($$SELECT loky.map_table('SELECT 1', NULL)$$);
SELECT state, message FROM t.error($$SELECT loky.map_table(NULL, 't.cut')$$);
SELECT state, message FROM t.error($$SELECT loky.map_table('SELECT 1 / (count(*) - count(*)) FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut')$$);
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state FROM t.error($$SELECT loky.map_table('SELECT count(*) FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut')$$);
SELECT sum(r) FROM loky.map_table('SELECT count(*) FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut', NULL::bigint, snapshot => false) r;
COMMIT;

-- Workers have the rights of the caller, and see the rows that it may see.
CREATE ROLE t_reader;
GRANT USAGE ON SCHEMA t, loky TO t_reader;
SET ROLE t_reader;
SELECT state, message FROM t.error($$SELECT loky.map_table('SELECT count(*) FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut')$$);
RESET ROLE;
GRANT SELECT ON t.cut TO t_reader;
ALTER TABLE t.cut ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON t.cut TO t_reader USING (id <= 7);
SET ROLE t_reader;
SELECT sum(r) FROM loky.map_table('SELECT count(*) FROM t.cut WHERE ctid >= $1 AND ctid < $2', 't.cut', NULL::bigint) r;
SELECT chunk, lo, hi, rows FROM loky.key_chunks('t.cut', 'id');
RESET ROLE;
DROP POLICY few ON t.cut;
ALTER TABLE t.cut DISABLE ROW LEVEL SECURITY;
REVOKE ALL ON t.cut FROM t_reader;
-- who may not read a table cannot lock it either
SET ROLE t_reader;
SELECT state, message, hint FROM t.error($$SELECT * FROM loky.table_chunks('t.cut')$$);
RESET ROLE;
GRANT SELECT (id) ON t.cut TO t_reader;
SET ROLE t_reader;
SELECT count(*) > 1 AS chunks FROM loky.table_chunks('t.cut');
RESET ROLE;
REVOKE ALL (id) ON t.cut FROM t_reader;
REVOKE ALL ON SCHEMA t, loky FROM t_reader;
RESET loky.executor;
SELECT t.clean();
