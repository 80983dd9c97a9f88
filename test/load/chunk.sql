\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(50)) AS a \gset
INSERT INTO load.told SELECT (:a::int[])[ord], 'chunk', ok, true FROM loky.try_map('load.work', :a::int[], NULL::int, chunksize => 7, retries => 1000);
