-- demo.sql - a computation that PostgreSQL's parallel query cannot share out,
-- shared out with loky.  Run by "make demo"; takes about a minute.

\pset footer off
\pset null '-'
SET client_min_messages = warning;
CREATE EXTENSION loky;
RESET client_min_messages;

\set rows 1200000
\set chunks 64

\echo
\echo == The data: :rows order lines in the manner of TPC-H
\echo
SELECT clock_timestamp() AS t0 \gset

CREATE UNLOGGED TABLE lineitem (
    orderkey      integer NOT NULL,
    linenumber    integer NOT NULL,
    partkey       integer NOT NULL,
    suppkey       integer NOT NULL,
    quantity      integer NOT NULL,
    extendedprice numeric(12,2) NOT NULL,
    discount      numeric(4,2) NOT NULL,
    tax           numeric(4,2) NOT NULL,
    returnflag    "char" NOT NULL,
    linestatus    "char" NOT NULL,
    shipdate      date NOT NULL,
    receiptdate   date NOT NULL
);

-- Four lines an order; all values follow from the line's number, so that each
-- run computes the same.
INSERT INTO lineitem
SELECT (n - 1) / 4 + 1, (n - 1) % 4 + 1, part, (part * 7 + n) % 10000 + 1, quantity,
       quantity * (90000 + part % 20001 + 100 * (part % 1000)) / 100.0,
       (h2 % 11) / 100.0, (h2 / 11 % 9) / 100.0,
       CASE WHEN ship > date '1995-06-17' THEN 'N'
            WHEN h2 / 99 % 2 = 0 THEN 'R' ELSE 'A' END::"char",
       CASE WHEN ship > date '1995-06-17' THEN 'O' ELSE 'F' END::"char",
       ship, ship + (h2 / 198 % 30)::int + 1
FROM (SELECT n, h2, (h1 % 200000)::int + 1 AS part,
             (h1 / 200000 % 50)::int + 1 AS quantity,
             date '1992-01-02' + (h2 / 6000 % 2520)::int AS ship
      FROM (SELECT n, n::bigint * 2654435761 % 4294967291 AS h1,
                   (n::bigint * 1597334677 + 907) % 4294967279 AS h2
            FROM generate_series(1, :rows) AS n) AS hashed) AS line;

CREATE INDEX ON lineitem (orderkey);
VACUUM ANALYZE lineitem;

SELECT count(*) AS lines, count(DISTINCT orderkey) AS orders,
       min(shipdate) AS first_shipped, max(shipdate) AS last_shipped,
       pg_size_pretty(pg_table_size('lineitem')) AS size,
       round(extract(epoch FROM clock_timestamp() - :'t0'), 1) AS seconds
FROM lineitem;

-- The work: what the orders of a range would bring if the price of a line fell
-- every four days that the goods travel, at the best of five rates.  A loop over
-- the lines, in numeric: exact, and out of reach of a parallel plan.
CREATE FUNCTION price_chunk(lo integer, hi integer) RETURNS numeric
LANGUAGE plpgsql STABLE PARALLEL UNSAFE AS $$
DECLARE
    line lineitem;
    price numeric;
    best numeric;
    rate numeric;
    periods integer;
    total numeric := 0;
BEGIN
    FOR line IN SELECT * FROM lineitem WHERE orderkey BETWEEN lo AND hi LOOP
        best := 0;
        periods := 1 + (line.receiptdate - line.shipdate) / 4;
        FOREACH rate IN ARRAY ARRAY[0.999, 0.995, 0.99, 0.98, 0.97] LOOP
            price := line.extendedprice * (1 - line.discount);
            FOR period IN 1 .. periods LOOP
                price := round(price * rate, 4);
            END LOOP;
            best := greatest(best, price * (1 + line.tax));
        END LOOP;
        IF line.returnflag = 'R' THEN
            total := total - best;
        ELSE
            total := total + best;
        END IF;
    END LOOP;
    RETURN total;
END $$;

-- The orders in ranges of equal length: the items of the map.
CREATE TABLE chunk AS
SELECT n AS chunk, 1 + (n - 1) * width AS lo, n * width AS hi
FROM (SELECT (:rows / 4 + :chunks - 1) / :chunks AS width) AS w,
     generate_series(1, :chunks) AS n;
ANALYZE chunk;

\echo == PostgreSQL alone: with parallel plans as cheap as they can be made,
\echo == counting the lines gets one, the PL/pgSQL function does not
\echo
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 4;
\echo EXPLAIN SELECT count(*) FROM lineitem
\pset tuples_only on
EXPLAIN (COSTS OFF) SELECT count(*) FROM lineitem;
\echo EXPLAIN SELECT sum(price_chunk(lo, hi)) FROM chunk
EXPLAIN (COSTS OFF) SELECT sum(price_chunk(lo, hi)) FROM chunk;
\pset tuples_only off
DO $$
DECLARE
    line text;
BEGIN
    FOR line IN EXPLAIN SELECT sum(price_chunk(lo, hi)) FROM chunk LOOP
        IF line LIKE '%Gather%' THEN
            RAISE EXCEPTION 'PostgreSQL has found a parallel plan: %', line;
        END IF;
    END LOOP;
END $$;

\echo == One after the other, in this session: SELECT price_chunk(lo, hi) FROM chunk
\echo
SELECT clock_timestamp() AS t0 \gset
CREATE TEMP TABLE serial AS
SELECT chunk, price_chunk(lo, hi) AS revenue FROM chunk ORDER BY chunk;
SELECT extract(epoch FROM clock_timestamp() - :'t0') AS serial_seconds \gset
SELECT count(*) AS chunks, sum(revenue) AS revenue,
       round(:serial_seconds, 2) AS seconds FROM serial;

\echo '== The same over the workers of loky:'
\echo '== loky.map(''price_chunk'', ARRAY(SELECT ROW(lo, hi) FROM chunk), NULL::numeric)'
\echo
SELECT clock_timestamp() AS t0 \gset
CREATE TEMP TABLE mapped AS
SELECT chunk::integer, revenue
FROM loky.map('price_chunk', ARRAY(SELECT ROW(lo, hi) FROM chunk ORDER BY chunk),
              NULL::numeric) WITH ORDINALITY AS m(revenue, chunk);
SELECT extract(epoch FROM clock_timestamp() - :'t0') AS mapped_seconds \gset
SELECT count(*) AS chunks, sum(revenue) AS revenue,
       round(:mapped_seconds, 2) AS seconds FROM mapped;

DO $$
DECLARE
    different bigint;
BEGIN
    SELECT count(*) INTO different
    FROM serial FULL JOIN mapped USING (chunk)
    WHERE serial.revenue IS DISTINCT FROM mapped.revenue;
    IF different > 0 THEN
        RAISE EXCEPTION 'the results of % chunks differ', different;
    END IF;
END $$;
\echo == All results are equal, chunk by chunk
\echo

\echo == Who did it: loky.executors and loky.workers
\echo
SELECT executor_id, max_workers, workers, idle, pending, running, succeeded,
       failed, state FROM loky.executors ORDER BY executor_id;
SELECT pid, executor_id, state, tasks_done,
       pg_size_pretty(memory_bytes) AS memory,
       date_trunc('milliseconds', last_active - started) AS active
FROM loky.workers ORDER BY pid;

\echo == When each worker was busy: loky.timeline()
\echo
\pset tuples_only on
SELECT * FROM loky.timeline(100);
\pset tuples_only off

\echo == The same as a picture: loky.timeline_svg(), in timeline.svg
\echo
\pset format unaligned
\pset tuples_only on
\o timeline.svg
SELECT loky.timeline_svg();
\o
\pset tuples_only off
\pset format aligned

\echo == The result
\echo
SELECT round(:serial_seconds, 2) AS serial_seconds,
       round(:mapped_seconds, 2) AS loky_seconds,
       loky.cpu_count() AS cores,
       round(:serial_seconds / :mapped_seconds, 2) AS speed_up;
