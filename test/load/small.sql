\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT nextval('load.item') AS i \gset
SELECT loky.submit_task('load.work', ROW(:i), retries => 1000) AS f \gset
INSERT INTO load.told SELECT :i, 'small', r = :i, true FROM loky.result(:f, NULL::int) r;
