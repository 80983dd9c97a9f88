\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.check_equal(sum(length(r)), 60000000::bigint) FROM loky.map('SELECT repeat($1::text, 20000000)', ARRAY[1, 2, 3], NULL::text, retries => 1000) r;
SELECT load.attempt($$SELECT count(*) FROM (SELECT loky.flat_map('SELECT repeat(md5($1::text || i), 10) FROM generate_series(1, 20000) i', ARRAY[1,2,3,4,5,6]) LIMIT 10) x$$);
