\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(3)) AS a \gset
INSERT INTO load.told SELECT i, 'discard', true, true FROM unnest(:a::int[]) i WHERE loky.submit_task('load.work', ROW(i), retries => 1000, discard => true, delay => random() * interval '50 ms') > 0;
