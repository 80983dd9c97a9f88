-- Tables cut by keys, and changed chunk by chunk.
SELECT loky.get_reusable_executor(2) > 0 AS ok;
CREATE TABLE t.fill (id int PRIMARY KEY, k int, s text, n int NOT NULL DEFAULT 0);
INSERT INTO t.fill SELECT i * 3, i / 10, 'k' || i % 50, 0 FROM generate_series(1, 1000) i;
CREATE INDEX ON t.fill (k, s);
CREATE INDEX ON t.fill (s);

-- Gaps, and the last chunk with what is left.
SELECT * FROM loky.key_chunks('t.fill', chunk_rows => 300);
SELECT count(*), sum(rows) FROM loky.key_chunks('t.fill', 'id', 1);
SELECT * FROM loky.key_chunks('t.fill', 'id', 1000);
SELECT * FROM loky.key_chunks('t.fill');
-- Equal keys stay together.
SELECT * FROM loky.key_chunks('t.fill', 'k', 333);
SELECT chunk, rows FROM loky.key_chunks('t.fill', 's', 1) ORDER BY chunk LIMIT 2;
-- Each row is in one chunk.
SELECT count(*), count(DISTINCT f.id) FROM loky.key_chunks('t.fill', 's', 77) c JOIN t.fill f ON f.s BETWEEN c.lo AND c.hi;
DELETE FROM t.fill;
SELECT * FROM loky.key_chunks('t.fill');
SELECT * FROM loky.backfill('UPDATE t.fill SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't.fill');
INSERT INTO t.fill SELECT i * 3, NULLIF(i / 10, 7), 'k' || i % 50, 0 FROM generate_series(1, 1000) i;
SELECT * FROM loky.key_chunks('t.fill', 'k', 500);

-- Any type with an order.
CREATE TABLE t.typed (a bigint, b numeric, c text, d date, e timestamptz, f uuid, g float8, h interval, i boolean, j int[], l char(4), m bytea, o int4range, p inet);
INSERT INTO t.typed SELECT i, i / 7.0, 'x' || i, '2020-01-01'::date + i, '2020-01-01 00:00+00'::timestamptz + i * interval '1 h', lpad(to_hex(i), 32, '0')::uuid, i / 3.0, i * interval '1 min', i % 2 = 0, ARRAY[i, 1], lpad(i::text, 4, '0'), lpad(i::text, 4, '0')::bytea, int4range(i, i + 5), '10.0.0.0'::inet + i
FROM generate_series(1, 100) i;
DO $$
DECLARE
    c name;
BEGIN
    FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = 't.typed'::regclass AND attnum > 0 LOOP
        EXECUTE format('CREATE INDEX ON t.typed (%I)', c);
    END LOOP;
END$$;
SET datestyle = 'SQL, DMY';
SET intervalstyle = 'sql_standard';
SET extra_float_digits = 0;
SELECT a.attname, count(*), sum(rows), min(c.lo COLLATE "C") FILTER (WHERE chunk = 2) AS second
FROM pg_attribute a, loky.key_chunks('t.typed', a.attname, 40) c
WHERE attrelid = 't.typed'::regclass AND attnum > 0 GROUP BY attnum, attname ORDER BY attnum;
-- chunks that go through text and back are the same ones
SELECT a.attname, sum(b.rows), bool_and(b.ok)
FROM pg_attribute a,
    LATERAL (SELECT jsonb_agg(jsonb_build_object('lo', lo, 'hi', hi)) AS ranges FROM loky.key_chunks('t.typed', a.attname, 40)) c,
    LATERAL loky.backfill(format('UPDATE t.typed SET %1$I = %1$I WHERE %1$I BETWEEN $1 AND $2', a.attname), 't.typed', a.attname, ranges => c.ranges) b
WHERE attrelid = 't.typed'::regclass AND attnum > 0 GROUP BY attnum, attname ORDER BY attnum;
-- and so are those that come back to a session with other settings
CREATE TABLE t.typed_ranges AS
SELECT a.attname, jsonb_agg(jsonb_build_object('lo', lo, 'hi', hi)) AS ranges
FROM pg_attribute a, loky.key_chunks('t.typed', a.attname, 40) c
WHERE attrelid = 't.typed'::regclass AND attnum > 0 GROUP BY attname;
RESET extra_float_digits;
SET datestyle = 'German, YMD';
SET intervalstyle = 'iso_8601';
SELECT bool_and(rows = 100) AS all_rows, count(*) AS types
FROM (SELECT attname, sum(b.rows) AS rows FROM t.typed_ranges r, loky.backfill(format('UPDATE t.typed SET %1$I = %1$I WHERE %1$I BETWEEN $1 AND $2', r.attname), 't.typed', r.attname, ranges => r.ranges) b
      GROUP BY attname) x;
RESET datestyle;
RESET intervalstyle;
SELECT rows FROM loky.backfill('SELECT 1 FROM t.typed WHERE i BETWEEN $1 AND $2', 't.typed', 'i', ranges => '[{"lo": false, "hi": true}]');

-- keys so long that they are kept compressed
CREATE TABLE t.long_keys (k text PRIMARY KEY);
INSERT INTO t.long_keys SELECT lpad(i::text, 3, '0') || repeat('x', 5000 + i) FROM generate_series(1, 100) i;
SELECT bool_and(pg_column_size(k) < 1000) AS compressed FROM t.long_keys;
SELECT chunk, left(lo, 3) AS lo, left(hi, 3) AS hi, length(lo) AS length, rows FROM loky.key_chunks('t.long_keys', chunk_rows => 30);
SELECT count(*), sum(rows), bool_and(ok) FROM loky.backfill('UPDATE t.long_keys SET k = k WHERE k BETWEEN $1 AND $2', 't.long_keys', chunk_rows => 30);
DROP TABLE t.long_keys;

-- Types of users' making, and names that want quotes.
CREATE TYPE t.size AS ENUM ('small', 'middle', 'large');
CREATE TYPE t.couple AS (a int, b text);
CREATE DOMAIN t."Odd Domain" AS int CHECK (VALUE > 0);
CREATE TABLE t."Odd ""Table" ("Odd Key" t."Odd Domain" PRIMARY KEY, size t.size, pair t.couple, name name, n numeric(6,2));
CREATE INDEX ON t."Odd ""Table" (size);
CREATE INDEX ON t."Odd ""Table" (pair DESC NULLS LAST);
CREATE INDEX ON t."Odd ""Table" (name);
CREATE INDEX ON t."Odd ""Table" (n);
INSERT INTO t."Odd ""Table" SELECT i, (enum_range(NULL::t.size))[1 + i % 3], ROW(i, ',"'::text)::t.couple, 'n' || i, i / 3.0 FROM generate_series(1, 90) i;
SELECT * FROM loky.key_chunks('t."Odd ""Table"', chunk_rows => 50);
SELECT * FROM loky.key_chunks('t."Odd ""Table"', 'size', 1);
SELECT * FROM loky.key_chunks('t."Odd ""Table"', 'pair', 45);
SELECT a.attname, sum(b.rows), bool_and(b.ok), count(*)
FROM pg_attribute a, LATERAL loky.backfill(format('UPDATE t."Odd ""Table" SET n = n WHERE %I BETWEEN $1 AND $2', a.attname), 't."Odd ""Table"', a.attname, 30) b
WHERE attrelid = 't."Odd ""Table"'::regclass AND attnum > 0 GROUP BY attnum, attname ORDER BY attnum;
-- a primary key that is checked at the commit is one
CREATE TABLE t.late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, n int);
INSERT INTO t.late SELECT i, 0 FROM generate_series(1, 10) i;
SELECT chunk, rows, ok FROM loky.backfill('UPDATE t.late SET n = 1 WHERE id BETWEEN $1 AND $2', 't.late', chunk_rows => 5);

-- Each row once, each chunk in a transaction of its own, in workers.
SELECT chunk, lo, hi, rows, ok, attempts, sqlstate, message, elapsed > '0' AS elapsed FROM loky.backfill('UPDATE t.fill SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't.fill', chunk_rows => 400);
SELECT count(*), sum(n), count(DISTINCT xmin::text) AS transactions FROM t.fill;
-- rows: what the command affected, whatever kind it is
SELECT task, sum(rows) FROM unnest('{DELETE FROM t.typed WHERE a BETWEEN $1 AND $2,SELECT 1 FROM t.fill WHERE id BETWEEN $1 AND $2,INSERT INTO t.typed SELECT i FROM generate_series($1::int\, $2::int) i}'::text[]) task,
    loky.backfill(task, 't.typed', 'a', 30) b GROUP BY task ORDER BY task;
CREATE PROCEDURE t.fill_some(a int, b int) LANGUAGE sql AS 'UPDATE t.fill SET n = n + 1 WHERE id BETWEEN a AND b';
SELECT chunk, rows, ok FROM loky.backfill('CALL t.fill_some($1, $2)', 't.fill', chunk_rows => 600);
SELECT min(n), max(n) FROM t.fill;

-- Chunks that fail do not stop the others; they are run again alone.
UPDATE t.fill SET n = 0;
CREATE FUNCTION t.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id IN (999, 2001) THEN
        RAISE EXCEPTION 'row % is not ready', NEW.id;
    END IF;
    RETURN NEW;
END$$;
CREATE TRIGGER refuse BEFORE UPDATE ON t.fill FOR EACH ROW EXECUTE FUNCTION t.refuse();
CREATE TABLE t.fill_report AS SELECT * FROM loky.backfill('UPDATE t.fill SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't.fill', chunk_rows => 100);
SELECT chunk, lo, hi, rows, attempts, sqlstate, message FROM t.fill_report WHERE NOT ok ORDER BY chunk;
SELECT sum(rows), bool_or(rows IS NULL) FROM t.fill_report WHERE ok;
SELECT n, count(*) FROM t.fill GROUP BY n ORDER BY n;
DROP TRIGGER refuse ON t.fill;
SELECT chunk, lo, hi, rows, ok FROM loky.backfill('UPDATE t.fill SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't.fill',
    ranges => (SELECT jsonb_agg(jsonb_build_object('lo', lo, 'hi', hi)) FROM t.fill_report WHERE NOT ok));
SELECT n, count(*) FROM t.fill GROUP BY n ORDER BY n;
-- where nothing has failed, nothing is run: an aggregate of no rows is no wish for all
SELECT state, message, hint FROM t.error($$SELECT * FROM loky.backfill('UPDATE t.fill SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't.fill',
    ranges => (SELECT jsonb_agg(jsonb_build_object('lo', lo, 'hi', hi)) FROM t.fill_report WHERE ok AND NOT ok))$$);
SELECT * FROM loky.backfill('UPDATE t.fill SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't.fill',
    ranges => (SELECT coalesce(jsonb_agg(jsonb_build_object('lo', lo, 'hi', hi)), '[]') FROM t.fill_report WHERE ok AND NOT ok));
SELECT count(*), sum(rows) FROM loky.backfill('UPDATE t.fill SET n = n WHERE id BETWEEN $1 AND $2', 't.fill', ranges => NULL);
SELECT n, count(*) FROM t.fill GROUP BY n ORDER BY n;
-- ranges that meet are told of
SELECT chunk, rows FROM loky.backfill('UPDATE t.fill SET n = n WHERE id BETWEEN $1 AND $2', 't.fill',
    ranges => '[{"lo": "61", "hi": "90"}, {"lo": "1", "hi": "30"}, {"lo": "30", "hi": "60"}]');
SELECT chunk, rows FROM loky.backfill('UPDATE t.fill SET n = n WHERE id BETWEEN $1 AND $2', 't.fill',
    ranges => '[{"lo": "61", "hi": "90"}, {"lo": "1", "hi": "29"}, {"lo": "30", "hi": "60"}]');
-- numbers will do as bounds
SELECT rows FROM loky.backfill('UPDATE t.fill SET n = n WHERE id BETWEEN $1 AND $2', 't.fill', ranges => '[{"lo": 1, "hi": 30}]');
SELECT * FROM loky.backfill('UPDATE t.fill SET n = n WHERE id BETWEEN $1 AND $2', 't.fill', ranges => '[]');

-- Collisions are tried again, three times if nothing else is said.
CREATE SEQUENCE t.fill_tries;
CREATE FUNCTION t.fill_collide(a int, b int, times int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('t.fill_tries') <= times THEN
        RAISE EXCEPTION 'collided' USING ERRCODE = '40001';
    END IF;
END$$;
SELECT chunk, ok, attempts, sqlstate FROM loky.backfill('SELECT t.fill_collide($1, $2, 2)', 't.fill', chunk_rows => 1000);
SELECT setval('t.fill_tries', 1, false);
SELECT chunk, ok, attempts, sqlstate FROM loky.backfill('SELECT t.fill_collide($1, $2, 100)', 't.fill', chunk_rows => 1000);
SELECT setval('t.fill_tries', 1, false);
SELECT chunk, ok, attempts, sqlstate FROM loky.backfill('SELECT t.fill_collide($1, $2, 100)', 't.fill', chunk_rows => 1000, retries => 0);

-- With a delay, a worker rests after each chunk; the last rest is cut short.
SELECT loky.get_reusable_executor(1) > 0 AS ok;
SELECT clock_timestamp() AS before \gset
SELECT sum(rows), count(*) FROM loky.backfill('UPDATE t.fill SET n = n WHERE id BETWEEN $1 AND $2', 't.fill', chunk_rows => 250, delay => '100 ms');
SELECT clock_timestamp() - :'before' >= '300 ms' AS rested;
SELECT sum(rows) FROM loky.backfill('UPDATE t.fill SET n = n WHERE id BETWEEN $1 AND $2', 't.fill', chunk_rows => 1000, delay => '1 h');
SET statement_timeout = '300 ms';
SELECT state FROM t.error($$SELECT * FROM loky.backfill('UPDATE t.fill SET n = n WHERE id BETWEEN $1 AND $2', 't.fill', chunk_rows => 500, delay => '1 h')$$);
RESET statement_timeout;
SELECT t.clean();
SELECT loky.get_reusable_executor(2) > 0 AS ok;

-- Partitioned tables.
CREATE TABLE t.fill_parts (id int PRIMARY KEY, n int) PARTITION BY HASH (id);
CREATE TABLE t.fill_parts_0 PARTITION OF t.fill_parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE t.fill_parts_1 PARTITION OF t.fill_parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO t.fill_parts SELECT i, 0 FROM generate_series(1, 100) i;
SELECT chunk, lo, hi, rows, ok FROM loky.backfill('UPDATE t.fill_parts SET n = n + 1 WHERE id BETWEEN $1 AND $2', 't.fill_parts', chunk_rows => 40);
SELECT min(n), max(n), count(*) FROM t.fill_parts;

-- What cannot be done is said before anything is.
CREATE TABLE t.unkeyed (a int, b int, c int, d point, e text);
CREATE INDEX ON t.unkeyed (a, b);
CREATE INDEX ON t.unkeyed (c) WHERE c > 0;
CREATE INDEX ON t.unkeyed (e text_pattern_ops);
CREATE INDEX ON t.unkeyed ((a + 1));
SELECT key, (t.error(format('SELECT * FROM loky.key_chunks(%L, %L)', 't.unkeyed', key))).*
FROM unnest('{b,c,d,e,nope,ctid}'::text[]) key;
SELECT * FROM loky.key_chunks('t.unkeyed', 'a');
SELECT state, message, hint FROM t.error($$SELECT * FROM loky.key_chunks('t.unkeyed')$$);
ALTER TABLE t.unkeyed ADD PRIMARY KEY (a, b);
SELECT state, message, hint FROM t.error($$SELECT * FROM loky.backfill('SELECT 1', 't.unkeyed')$$);
CREATE TEMPORARY TABLE passing_fill (id int PRIMARY KEY);
SELECT call, (t.error('SELECT * FROM loky.' || call)).* FROM unnest(ARRAY[
    $$key_chunks('pg_views')$$, $$key_chunks(NULL)$$, $$key_chunks('t.fill', chunk_rows => 0)$$, $$key_chunks('t.fill', chunk_rows => NULL)$$,
    $$backfill('SELECT $1', 'passing_fill')$$, $$backfill(NULL, 't.fill')$$,
    $$backfill('SELECT 1', 't.fill', retries => -1)$$, $$backfill('SELECT 1', 't.fill', delay => '-1 s')$$,
    $$backfill('SELECT 1', 't.fill', ranges => '{}')$$, $$backfill('SELECT 1', 't.fill', ranges => '1')$$, $$backfill('SELECT 1', 't.fill', ranges => '[1]')$$,
    $$backfill('SELECT 1', 't.fill', ranges => '[{"lo": "1"}]')$$, $$backfill('SELECT 1', 't.fill', ranges => '[{"lo": "1", "hi": null}]')$$, $$backfill('SELECT 1', 't.fill', ranges => '[{"lo": "1", "hi": "x"}]')$$,
    $$backfill('SELECT 1', 't.fill', ranges => '[{"lo": 1, "hi": 2}, {"lo": "9", "hi": "8"}]')$$, $$key_chunks(4000000000::oid)$$, $$table_chunks(4000000000::oid)$$,
    $$backfill('SELECT 1', 't.fill', executor => -5)$$]) call;
-- which range it is stands in the context
SELECT * FROM loky.backfill('SELECT 1', 't.fill', ranges => '[{"lo": 1, "hi": 2}, {"lo": "x", "hi": "8"}]');
-- the hint is one that can be followed
CREATE TABLE t.unkeyed_parts (a int) PARTITION BY LIST (a);
SELECT hint FROM t.error($$SELECT * FROM loky.key_chunks('t.unkeyed_parts', 'a')$$);
-- a temporary child, which workers do not see
CREATE TABLE t.fill_parent (id int PRIMARY KEY);
CREATE TEMPORARY TABLE fill_child () INHERITS (t.fill_parent);
SELECT state, message FROM t.error($$SELECT * FROM loky.backfill('SELECT 1', 't.fill_parent')$$);
DROP TABLE fill_child;
-- an error of the text itself is one of each chunk
SELECT chunk, ok, sqlstate FROM loky.backfill('UPDATE t.fill SET nope = 1 WHERE id BETWEEN $1 AND $2', 't.fill', chunk_rows => 500);
RESET loky.executor;
SELECT t.clean();
