\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT load.check_equal(sum(r), 120::bigint) FROM loky.map('SELECT sum(r)::int FROM loky.map(''load.double'', ARRAY[$1, 2 * $1, 3 * $1], NULL::int, retries => 1000) r', ARRAY[1,2,3,4], NULL::int, retries => 1000) r;
