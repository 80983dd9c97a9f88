\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(4)) AS a \gset
SELECT load.quote(ARRAY(SELECT loky.submit_task('load.work', ROW(i), retries => 1000) FROM unnest((:a::int[])[1:3]) i)) AS f \gset
SELECT loky.submit_task('load.work', ROW((:a::int[])[4]), retries => 1000, after => :f::bigint[]) AS g \gset
INSERT INTO load.told SELECT i, 'after', s = 'succeeded', true FROM unnest(:a::int[], ARRAY(SELECT state FROM loky.wait(:f::bigint[] || :g::bigint))) u(i, s);
