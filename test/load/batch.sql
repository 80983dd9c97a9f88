\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(20)) AS a \gset
SELECT load.quote(loky.submit_all('load.work', :a::int[])) AS f \gset
INSERT INTO load.told SELECT i, 'batch', s = 'succeeded', false FROM unnest(:a::int[], ARRAY(SELECT state FROM loky.wait(:f::bigint[]))) u(i, s);
