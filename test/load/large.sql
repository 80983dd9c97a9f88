\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT loky.submit_task($$SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 10000) i$$, retries => 1000) AS f \gset
SELECT load.check_equal(sum(a * length(b)), 16001600000::bigint) FROM loky.result(:f, NULL::record) AS t(a int, b text);
SELECT loky.forget(:f);
SELECT loky.submit_task('SELECT length($1) + length($2)', ROW(repeat('x', 1000000), repeat('y', 500000)), retries => 1000) AS f \gset
SELECT load.check_equal(r, 1500000) FROM loky.result(:f, NULL::int) r;
