\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
BEGIN;
SELECT load.quote(load.items(4)) AS a \gset
INSERT INTO load.told SELECT i, 'commit', true, true FROM unnest((:a::int[])[1:2]) i WHERE loky.submit_task('load.work', ROW(i), retries => 1000, on_commit => true, discard => true) > 0;
SAVEPOINT a;
INSERT INTO load.told SELECT i, 'commit', true, true FROM unnest((:a::int[])[3:3]) i WHERE loky.submit_task('load.work', ROW(i), retries => 1000, on_commit => true) > 0;
ROLLBACK TO a;
INSERT INTO load.told SELECT i, 'commit', true, true FROM unnest((:a::int[])[4:4]) i WHERE loky.submit_task('load.work', ROW(i), retries => 1000, on_commit => true, key => 'c') > 0;
COMMIT;
