\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.check_equal(sum(r), 1001000::bigint) FROM loky.map('load.double', ARRAY(SELECT generate_series(1, 1000)), NULL::int, retries => 1000) r;
