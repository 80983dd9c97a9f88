\set n random_zipfian(1, :configurations, 1.05)
SELECT load.executor(:n);
SELECT nextval('load.item') AS i \gset
INSERT INTO load.told SELECT :i, 'run', load.attempt('SELECT loky.run(''load.work'', ROW(' || :i || '), NULL::int)'), false;
