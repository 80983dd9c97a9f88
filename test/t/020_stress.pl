
# Everything at once, for a bounded number of steps: sessions that submit, map,
# wait, cancel, resize, configure, kill, shut down and terminate workers, with a
# fixed seed.  LOKY_STRESS_SEED and LOKY_STRESS_STEPS give other ones.  Whatever
# happens on the way, at the end every future is in one final state, what succeeded
# has run exactly once and nothing else has, and nothing is left over.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{LOKY_STRESS_SEED} // 4711;
my $steps = $ENV{LOKY_STRESS_STEPS} // 200;
note("seed $seed, $steps steps in each session");

my $node = loky_node(
	conf => "loky.shared_memory = '8MB'\nloky.max_tasks = 65536\n"
	  . "loky.max_total_workers = 6\nmax_worker_processes = 12\n");
my $dir = PostgreSQL::Test::Utils::tempdir;
my $s = LokyTest::Session->new($node);

# Each step is a function that expects the errors which the others may cause:
# 57014 a cancel, 57P01 a termination, 42704 a future that was forgotten, LK001
# a dead worker, LK002 a broken executor, LK003 a worker ended on purpose, LK004 a
# timeout, LK006 one before it that did not succeed, LK007 a cancelled task, 53200
# no memory for a map.  Any other one ends pgbench.
$s->query(
	q{CREATE SEQUENCE t.item;
	  CREATE INDEX ON t.log (i);
	  CREATE TABLE t.submitted (f bigint, i int);
	  CREATE TABLE t.steps (step text, outcome text);
	  CREATE FUNCTION t.try(step text, command text) RETURNS void
		LANGUAGE plpgsql AS $$
	  BEGIN
		EXECUTE command;
		INSERT INTO t.steps VALUES (step, 'done');
	  EXCEPTION WHEN OTHERS OR query_canceled THEN
		IF SQLSTATE NOT IN ('57014', '42704', 'LK001', 'LK002', 'LK003', 'LK004',
			'LK006', 'LK007', '53200') THEN
			RAISE EXCEPTION 'step %: % %', step, SQLSTATE, SQLERRM;
		END IF;
		INSERT INTO t.steps VALUES (step, SQLSTATE);
	  END$$;
	  CREATE FUNCTION t.busy(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (x);
		PERFORM pg_sleep((x % 4) / 1000.0);
		RETURN x;
	  END$$;
	  CREATE FUNCTION t.erratic(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (x);
		IF random() < 0.5 THEN
			RAISE EXCEPTION 'once more' USING ERRCODE = '40001';
		END IF;
		RETURN x;
	  END$$;
	  -- two with the same key in one executor find a lock; a third would not
	  CREATE TABLE t.crowd (key text);
	  CREATE FUNCTION t.keyed(x int, key text) RETURNS int LANGUAGE plpgsql AS $$
	  DECLARE
		place int := (SELECT hashtext(key || executor_id) FROM loky.workers
			WHERE pid = pg_backend_pid());
	  BEGIN
		IF NOT pg_try_advisory_xact_lock(place, 1) AND
			NOT pg_try_advisory_xact_lock(place, 2) THEN
			INSERT INTO t.crowd VALUES (key);
		END IF;
		RETURN t.busy(x);
	  END$$;
	  -- two counters in either order, so that others meet it half way
	  CREATE TABLE t.counter (k int PRIMARY KEY, n int);
	  INSERT INTO t.counter SELECT k, 0 FROM generate_series(1, 4) k;
	  CREATE FUNCTION t.collide(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (x);
		UPDATE t.counter SET n = n + 1 WHERE k = x % 4 + 1;
		UPDATE t.counter SET n = n + 1 WHERE k = x / 4 % 4 + 1;
		RETURN x;
	  END$$;
	  CREATE TABLE t.mapped (i int, ok boolean);
	  CREATE TABLE t.ran (i int);
	  CREATE FUNCTION t.flaky(x int) RETURNS void LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM set_config('my.init', x::text, false);
		IF random() < 0.3 THEN
			RAISE 'not this time';
		END IF;
	  END$$;
	  CREATE FUNCTION t.halve(x numeric) RETURNS numeric LANGUAGE plpgsql AS $$
	  BEGIN
		RETURN x / 2;
	  END$$;
	  CREATE FUNCTION t.some_future() RETURNS bigint LANGUAGE sql AS $$
		SELECT f FROM t.submitted ORDER BY f DESC
		OFFSET (random() * 8)::int LIMIT 1$$});
$s->query(
	q{INSERT INTO t.submitted SELECT loky.submit('t.busy', i), i
	  FROM (SELECT nextval('t.item')::int AS i FROM generate_series(1, 10)) x});

my %scripts = (
	# submit, and note it in the same transaction
	'submit@20' => q{
INSERT INTO t.submitted SELECT loky.submit('t.busy', i), i
FROM (SELECT nextval('t.item')::int AS i) x;
},
	'submit_all@6' => q{
INSERT INTO t.submitted
SELECT f, i FROM (SELECT array_agg(nextval('t.item')::int) AS a FROM generate_series(1, 10)) x,
	LATERAL unnest(loky.submit_all('t.busy', a), a) u(f, i);
},
	# each of these runs t.busy once at most, if it succeeds exactly once
	'after@4' => q{
INSERT INTO t.submitted SELECT loky.submit_task('t.busy', ROW(i), after => ARRAY(SELECT loky.submit('t.id', i) FROM generate_series(1, 3)) ||
	CASE WHEN random() < 0.3 THEN ARRAY(SELECT f FROM t.submitted JOIN loky.tasks ON future = f ORDER BY f DESC LIMIT 3) END), i
FROM (SELECT nextval('t.item')::int AS i) x;
},
	'key@6' => q{
\set k random(1, 4)
INSERT INTO t.submitted SELECT loky.submit_task('t.keyed', ROW(i, 'k:k'), key => 'k:k', key_limit => 2, priority => i % 3), i
FROM (SELECT nextval('t.item')::int AS i FROM generate_series(1, 3)) x;
},
	'delay@4' => q{
INSERT INTO t.submitted SELECT loky.submit_task('t.busy', ROW(i), delay => random() * interval '50 ms', timeout => '10 s'), i
FROM (SELECT nextval('t.item')::int AS i) x;
},
	'retry@4' => q{
INSERT INTO t.submitted SELECT loky.submit_task('t.erratic', ROW(i), retries => 20, key => 'r'), i
FROM (SELECT nextval('t.item')::int AS i) x;
},
	'commit@4' => q{
BEGIN;
INSERT INTO t.submitted SELECT loky.submit_task('t.busy', ROW(i), on_commit => true), i
FROM (SELECT nextval('t.item')::int AS i) x;
SAVEPOINT s;
INSERT INTO t.submitted SELECT loky.submit_task('t.busy', ROW(i), on_commit => true, key => 'r'), i
FROM (SELECT nextval('t.item')::int AS i) x;
ROLLBACK TO s;
COMMIT;
},
	'abort@2' => q{
BEGIN;
INSERT INTO t.submitted SELECT loky.submit_task('t.busy', ROW(i), on_commit => true, delay => '1 ms'), i
FROM (SELECT nextval('t.item')::int AS i) x;
ROLLBACK;
},
	'callback@3' => q{
SELECT t.try('callback', 'SELECT loky.add_done_callback(t.some_future(), ''SELECT $1''), loky.add_done_callback(t.some_future(), ''SELECT 1 / ($1 % 2)'')');
},
	'discard@3' => q{
SELECT loky.submit_task('t.id', ROW(1), discard => true), loky.submit_task('SELECT 1 / (random() < 0.5)::int', discard => true, retries => 1, retry_on => '{22}');
},
	'result@10' => q{
SELECT t.try('result', 'SELECT count(*) FROM loky.result(t.some_future(), timeout => ''2 s'')');
},
	'wait@5' => q{
SELECT t.try('wait', 'SELECT count(*) FROM loky.wait(ARRAY(SELECT t.some_future() FROM generate_series(1, 5)), timeout => ''2 s'', return_when => ''FIRST_COMPLETED'')');
},
	'cancel@8' => q{
SELECT t.try('cancel', 'SELECT loky.cancel(t.some_future(), running => random() < 0.7)');
},
	'map@10' => q{
\set n random(1, 200)
SELECT t.try('map', 'SELECT 1 / (sum(r) = :n::bigint * (:n + 1) / 2)::int FROM loky.map(''t.id'', ARRAY(SELECT generate_series(1, :n)), NULL::int) r');
},
	'map_retry@3' => q{
\set c random(1, 4)
SELECT t.try('map_retry', 'INSERT INTO t.mapped SELECT a[ord], ok FROM (SELECT array_agg(nextval(''t.item'')::int) AS a FROM generate_series(1, 20)) x,
	LATERAL loky.try_map(''t.collide'', a, NULL::int, retries => 30, item_timeout => ''5 s'', chunksize => nullif(:c, 4))');
},
	'item_timeout@2' => q{
SELECT t.try('item_timeout', 'SELECT count(*) FROM loky.try_map(''SELECT pg_sleep(0.002 * $1)'', ARRAY[1,2,3,4,5,6,7,8], item_timeout => ''8 ms'') r');
},
	'run@6' => q{
SELECT t.try('run', 'INSERT INTO t.ran SELECT loky.run(''t.busy'', ROW(nextval(''t.item'')::int), NULL::int, timeout => random() * interval ''100 ms'')');
},
	'as_completed@4' => q{
SELECT t.try('as_completed', 'SELECT 1 / (count(*) = count(DISTINCT f))::int FROM loky.as_completed(ARRAY(SELECT DISTINCT t.some_future() FROM generate_series(1, 5)), timeout => ''2 s'') f');
},
	'as_completed_early@2' => q{
SELECT t.try('as_completed_early', 'SELECT loky.as_completed(ARRAY(SELECT t.some_future() FROM generate_series(1, 5)), timeout => ''2 s'') LIMIT 1');
},
	'map_slow@4' => q{
SELECT t.try('map_slow', 'SELECT count(*) FROM loky.map(''SELECT pg_sleep(0.01 * $1)'', ARRAY[1,2,3,4,5,6,7,8], timeout => random() * interval ''100 ms'') r');
},
	'map_early@4' => q{
SELECT t.try('map_early', 'SELECT loky.map(''t.id'', ARRAY(SELECT generate_series(1, 1000)), NULL::int, ordered => random() < 0.5) LIMIT 3');
},
	'map_fails@4' => q{
SELECT t.try('map_fails', 'SELECT count(*) FROM loky.try_map(''SELECT 10 / ($1 % 7)'', ARRAY(SELECT generate_series(1, 50)), NULL::int)');
},
	'spill@3' => q{
SELECT t.try('spill', 'SELECT 1 / (count(*) = 30000)::int FROM loky.flat_map(''SELECT repeat(md5(i::text), 10) FROM generate_series(1, 10000) i'', ARRAY[1,2,3])');
},
	'nested@3' => q{
SELECT t.try('nested', 'SELECT 1 / (sum(r) = 18)::int FROM loky.map(''SELECT sum(r)::int FROM loky.map(''''t.id'''', ARRAY[1,2,3], NULL::int) r WHERE $1 > 0'', ARRAY[1,2,3], NULL::int) r');
},
	'resize@4' => q{
\set n random(1, 5)
SELECT loky.get_reusable_executor(:n);
},
	'other@3' => q{
\set n random(1, 3)
SELECT loky.get_reusable_executor(2, timeout => :n * interval '5 ms');
},
	'configured@3' => q{
\set n random(1, 2)
SELECT loky.get_reusable_executor(2, env => jsonb_build_object('LOKY_STRESS', :n),
	initializer => 'SELECT set_config(''my.init'', loky.getenv(''LOKY_STRESS'') || $1::text, false)', initargs => ROW(:n),
	settings => '{"work_mem": "5MB"}', job_reducers => '{"numeric": "t.halve"}', result_reducers => '{"numeric": "t.halve"}');
SELECT t.try('configured', 'SELECT 1 / (count(*) = 20)::int FROM loky.map(''SELECT current_setting(''''my.init'''') || current_setting(''''work_mem'''')'', ARRAY(SELECT generate_series(1, 20))) r WHERE r = ''' || :n || :n || '5MB''');
SELECT t.try('reduced', 'SELECT 1 / (sum(r) = 4)::int FROM loky.map(''SELECT $1'', ARRAY[1.0, 5.0, 10.0], NULL::numeric) r');
},
	'broken@2' => q{
\set n random(1, 3)
SELECT loky.get_reusable_executor(2, initializer => 't.flaky', initargs => ROW(:n));
SELECT t.try('broken', 'SELECT count(*) FROM loky.map(''SELECT current_setting(''''my.init'''')'', ARRAY(SELECT generate_series(1, 20))) r');
},
	'inner@3' => q{
SELECT t.try('inner', 'SELECT 1 / (r = 6)::int FROM loky.result(loky.submit($q$SELECT sum(r) FROM unnest(loky.submit_all($$SELECT $1 FROM pg_sleep(0.002)$$, ARRAY[1,2,3])) f, LATERAL loky.result(f, NULL::int) r$q$), NULL::int, timeout => ''2 s'') r');
},
	'kill@1' => q{
SELECT loky.get_reusable_executor(3, kill_workers => true);
},
	'new@1' => q{
SELECT loky.get_reusable_executor(3, reuse => 'false');
},
	'shutdown@1' => q{
SELECT loky.shutdown(wait => random() < 0.5, kill_workers => random() < 0.3);
},
	'terminate@2' => q{
SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM loky.workers ORDER BY random() LIMIT 1) x;
},
	'sigint@2' => q{
SELECT count(pg_cancel_backend(pid)) FROM (SELECT pid FROM loky.workers ORDER BY random() LIMIT 1) x;
},
	'views@1' => q{
SELECT count(*) FROM loky.executors, loky.workers;
SELECT count(*) FROM loky.tasks WHERE message IS NOT NULL;
},);

my @files;
for my $name (sort keys %scripts)
{
	my ($step, $weight) = split /@/, $name;

	append_to_file("$dir/$step.sql", $scripts{$name});
	push @files, '-f', "$dir/$step.sql\@$weight";
}
command_ok(
	[
		'timeout', 120 + $steps, 'pgbench', '-n', '-c', '8', '-j', '2',
		'-t', $steps, '--random-seed', $seed,
		'-d', $node->connstr('postgres'), @files
	],
	"$steps transactions in each of eight sessions");
note($s->query(
		'SELECT step, outcome, count(*) FROM t.steps GROUP BY 1, 2 ORDER BY 1, 2'));

# Every future comes to one final state.
is( $s->query(
		q{SELECT count(*) FROM loky.wait(ARRAY(SELECT f FROM t.submitted))
		  WHERE NOT done}),
	0,
	'every future is done');
ok( poll(
		$s, q{SELECT coalesce(sum(pending + running), 0) FROM loky.executors}, 0),
	'no executor has anything to do');
is( $s->query(
		q{SELECT count(*) FROM t.submitted JOIN loky.tasks ON f = future
		  WHERE state NOT IN ('succeeded', 'failed', 'cancelled') OR
			(state = 'failed') <> (sqlstate IS NOT NULL)}),
	0,
	'each in one state that fits');

# A broken executor lets what runs end, but does not run it again.
is( $s->query(
		q{SELECT string_agg(DISTINCT sqlstate, ' ' ORDER BY sqlstate) FROM loky.tasks
		  WHERE sqlstate NOT IN ('57014', 'LK001', 'LK002', 'LK003', 'LK006', 'LK007')
			AND NOT (sqlstate = '40001' AND task = 't.erratic')
			AND NOT (sqlstate = '22012' AND task LIKE '%$1 \% 2%')}),
	'',
	'none failed but for what was done to it');
is( $s->query(
		q{SELECT count(*) FROM t.submitted WHERE f NOT IN (SELECT future FROM loky.tasks)}),
	0,
	'none is lost');

# What succeeded has run exactly once; nothing else has left anything.
is( $s->query(
		q{SELECT count(*) FROM t.submitted s
		  WHERE (SELECT count(*) FROM t.log l WHERE l.i = s.i) <>
			CASE WHEN loky.state(f) = 'succeeded' THEN 1 ELSE 0 END}),
	0,
	'what succeeded has run once, and nothing else has');
is( $s->query(
		q{SELECT count(*) FROM (SELECT i, ok FROM t.mapped UNION ALL SELECT i, true FROM t.ran) s
		  WHERE (SELECT count(*) FROM t.log l WHERE l.i = s.i) <> s.ok::int}),
	0,
	'so it is with items of maps, and with runs');
is( $s->query('SELECT count(*) FROM (SELECT FROM t.log GROUP BY i HAVING count(*) > 1) x'),
	0,
	'nothing has run twice, whatever its caller was told');
is($s->query('SELECT count(*) FROM t.crowd'),
	0, 'no key was ever over its limit');
cmp_ok(
	$s->query(q{SELECT count(*) FROM loky.tasks WHERE state = 'succeeded'}),
	'>', 100, 'and much has succeeded');
cmp_ok(
	$s->query(q{SELECT count(*) FROM loky.tasks WHERE state <> 'succeeded'}),
	'>', 0, 'though not all');

# Nothing is left over.
$s->query(
	q{DO $$
	  DECLARE
		id int;
	  BEGIN
		FOR id IN SELECT executor_id FROM loky.executors LOOP
			PERFORM set_config('loky.executor', id::text, false), loky.shutdown();
		END LOOP;
	  END$$});
$s->query('RESET loky.executor');
ok(poll($s, 'SELECT count(*) FROM loky.workers', 0), 'all workers leave');
ok( poll(
		$s, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker'},
		0),
	'and their processes');
$s->query('SELECT loky.forget(future) FROM loky.tasks');
is(join(' ', temp_files($node)), '', 'no temporary file is left');
cmp_ok($s->query('SELECT loky._memory_used()'),
	'<', 40 * 1024, 'no memory but the configurations of executors');
is( $s->query(
		q{SELECT count(*) FROM loky.map('t.gate', ARRAY(SELECT ROW(1, i)
		  FROM generate_series(1, 6) i), NULL::int)}),
	6,
	'new workers come');

$s->quit;
check_rest($node);
$node->stop;

done_testing();
