\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(40)) AS a \gset
INSERT INTO load.told SELECT i, 'abandon', NULL, false FROM unnest(:a::int[]) i;
SELECT load.attempt($$SELECT loky.map('load.work', '$$ || :a || $$'::int[], NULL::int) LIMIT 3$$);
