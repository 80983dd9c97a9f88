\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(5)) AS a \gset
SELECT load.quote(ARRAY(SELECT loky.submit_task('load.erratic', ROW(i), retries => 1000) FROM unnest(:a::int[]) i)) AS f \gset
INSERT INTO load.told SELECT i, 'retry', s = 'succeeded', true FROM unnest(:a::int[], ARRAY(SELECT state FROM loky.wait(:f::bigint[]))) u(i, s);
