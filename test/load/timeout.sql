\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(30)) AS a \gset
INSERT INTO load.told SELECT i, 'timeout', NULL, false FROM unnest(:a::int[]) i;
SELECT load.attempt($$SELECT count(*) FROM loky.map('load.slow', '$$ || :a || $$'::int[], NULL::int, timeout => '30 ms')$$);
BEGIN;
SET LOCAL statement_timeout = '500 ms';
SELECT load.attempt($$SELECT count(*) FROM loky.map('SELECT pg_sleep(5)', ARRAY[1, 2, 3], retries => 1000)$$);
COMMIT;
