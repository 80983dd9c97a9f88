\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.quote(load.items(6)) AS a \gset
SELECT load.quote(loky.submit_all('load.slow', :a::int[])) AS f \gset
SELECT count(CASE WHEN o % 2 = 0 THEN loky.cancel(f, running => true) END) FROM unnest(:f::bigint[]) WITH ORDINALITY u(f, o);
INSERT INTO load.told SELECT i, 'cancel', s = 'succeeded', false FROM unnest(:a::int[], ARRAY(SELECT state FROM loky.wait(:f::bigint[]))) u(i, s);
