\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(3)) AS a \gset
SELECT load.quote(ARRAY(SELECT loky.submit_task('load.keyed', ROW(i, :n), key => 'k', priority => i % 3, retries => 1000) FROM unnest(:a::int[]) i)) AS f \gset
INSERT INTO load.told SELECT i, 'key', s = 'succeeded', true FROM unnest(:a::int[], ARRAY(SELECT state FROM loky.wait(:f::bigint[]))) u(i, s);
