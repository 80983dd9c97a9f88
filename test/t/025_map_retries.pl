
# Maps whose items collide for real: upserts that deadlock, workers that die, and an
# executor that is shut down while items wait for their next attempt.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(conf => "deadlock_timeout = '10 ms'\n");
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $caller = LokyTest::Session->new($node);

$s->query(q{
CREATE TABLE t.counter (k int PRIMARY KEY, n int NOT NULL);
CREATE FUNCTION t.add(k int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO t.counter VALUES (k, 1)
	ON CONFLICT ON CONSTRAINT counter_pkey DO UPDATE SET n = t.counter.n + 1$$;
-- both in this order, with a gate between them
CREATE FUNCTION t.add_both(a int, b int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM t.add(a);
	PERFORM pg_advisory_xact_lock_shared(1);
	PERFORM t.add(b);
	RETURN a;
END$$;
-- five of seven, in an order of its own
CREATE FUNCTION t.add_five(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 0 .. 4 LOOP
		PERFORM t.add((x + i * (1 + x % 6)) % 7);
	END LOOP;
	RETURN x;
END$$;
CREATE SEQUENCE t.tries;
CREATE FUNCTION t.fail() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('t.tries');
	RAISE EXCEPTION 'collided' USING ERRCODE = '40001';
END$$;
CREATE PROCEDURE t.commit_gate(x int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO t.log (i) VALUES (x);
	COMMIT;
	PERFORM pg_advisory_xact_lock_shared(1);
END$$;
});

# Deadlocks of the database so far.
sub deadlocks
{
	return $node->safe_psql('postgres',
		'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()');
}

# What the counters hold: their number and sum.
sub counted
{
	my $row = $s->query('SELECT count(*), sum(n) FROM t.counter');

	$s->query('TRUNCATE t.counter');
	return $row;
}

# A worker that stands at the gate.
sub one_at_gate
{
	return $s->query(
		q{SELECT min(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
		  WHERE locktype = 'advisory' AND objid = 1 AND NOT granted AND backend_type = 'loky worker'});
}

# Two that are sure to deadlock: each holds what the other wants.
$caller->executor(2);
my $cross = q{t.add_both', ARRAY[ROW(1, 2), ROW(2, 1)], NULL::int};
for my $call ("loky.map('$cross, retries => 5)", "loky.flat_map('$cross, retries => 5)",
	"loky.map('$cross, retries => 5, ordered => false) ORDER BY 1",
	"loky.map('$cross, retries => 5, chunksize => 1)")
{
	$gate->query('SELECT pg_advisory_lock(1)');
	$caller->send("SELECT * FROM $call");
	at_gate($s, 1, 2);
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($caller->answer, "1\n2", "both go through: $call");
	is(counted(), '2|4', 'each once');
}
$gate->query('SELECT pg_advisory_lock(1)');
$caller->send("SELECT count(*) FILTER (WHERE ok), min(sqlstate) FROM loky.try_map('$cross)");
at_gate($s, 1, 2);
$gate->query('SELECT pg_advisory_unlock(1)');
is($caller->answer, '1|40P01', 'without, one of them is lost');
is(counted(), '2|2', 'with all it did');

# Many, as backfills do it: whatever collides goes through.
$caller->executor(4);
my $items = 'ARRAY(SELECT generate_series(1, 120))';
my $before = deadlocks();
is( $caller->query("SELECT count(*), sum(r) FROM loky.map('t.add_five', $items, NULL::int, retries => 1000) r"),
	'120|7260', 'map: all upserts go through');
is(counted(), '7|600', 'each once');
is( $caller->query("SELECT count(*) FILTER (WHERE ok), sum(result) FROM loky.try_map('t.add_five', $items, NULL::int, retries => 1000, chunksize => 7)"),
	'120|7260', 'try_map: all chunks go through');
is(counted(), '7|600', 'each once');
is( $caller->query("SELECT count(*), sum(r) FROM loky.flat_map('t.add_five', $items, NULL::int, retries => 1000, ordered => false) r"),
	'120|7260', 'flat_map: all upserts go through');
is(counted(), '7|600', 'each once');
ok( poll($s, "SELECT deadlocks > $before FROM pg_stat_database WHERE datname = current_database()"),
	'there were deadlocks');

# A worker that dies takes nothing along: what it ran is run again.
$caller->executor(2);
for my $chunksize ('NULL', 3)
{
	$gate->query('SELECT pg_advisory_lock(1)');
	$caller->send(
		"SELECT count(*), sum(r) FROM loky.map('t.touch_gate', ARRAY(SELECT ROW(1, i) FROM generate_series(1, 50) i), NULL::int, retries => 3, chunksize => $chunksize) r");
	for my $n (1 .. 3)
	{
		at_gate($s, 1, 2);
		my $pid = one_at_gate();
		$s->query("SELECT pg_terminate_backend($pid)");
		ok(poll($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0),
			"chunksize $chunksize: worker $n dies");
	}
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($caller->answer, '50|1275', 'the map is whole');
	is($s->logged, '50|50|1|50', 'each item once');
}
$gate->query('SELECT pg_advisory_lock(1)');
$caller->send(
	q{SELECT string_agg(concat_ws(' ', ord, ok, sqlstate), ', ' ORDER BY ord) FROM loky.try_map('t.touch_gate', ARRAY[ROW(1, 1), ROW(1, 2)], NULL::int)});
at_gate($s, 1, 2);
$s->query('SELECT pg_terminate_backend(' . one_at_gate() . ')');
at_gate($s, 1, 1);
$gate->query('SELECT pg_advisory_unlock(1)');
like($caller->answer, qr/^(1 f LK001, 2 t|1 t, 2 f LK001)$/, 'without, it fails');
is(substr($s->logged, 0, 3), '1|1', 'and has done nothing');

# ... but not what has committed something.
$gate->query('SELECT pg_advisory_lock(1)');
$caller->send(
	q{SELECT string_agg(concat_ws(' ', ord, ok, sqlstate), ', ' ORDER BY ord) FROM loky.try_map('t.commit_gate', ARRAY[1, 2], retries => 3)});
at_gate($s, 1, 2);
$s->query('SELECT pg_terminate_backend(' . one_at_gate() . ')');
at_gate($s, 1, 1);
$gate->query('SELECT pg_advisory_unlock(1)');
like($caller->answer, qr/^(1 f LK001, 2 t|1 t, 2 f LK001)$/, 'not after a commit');
is($s->logged, '2|2|1|2', 'which is done once');

# ... and again, where its only worker dies each time.
$caller->executor(1);
is( $caller->fails(
		q{SELECT * FROM loky.map('SELECT t.die() + $1', ARRAY[1], NULL::int, retries => 4, timeout => '30 s')}
	),
	'LK001',
	'it fails with its last attempt');
$s->query('CREATE TABLE t.one AS SELECT 1 AS id; CREATE INDEX ON t.one (id)');
is( $caller->query(
		q{SELECT attempts FROM loky.backfill('SELECT t.die() WHERE $1 = $2', 't.one', 'id', retries => 4)}
	),
	5,
	'which is the fifth of five');

# Those that wait for their time go when the map goes.
my $executor = $caller->executor(1);
my $fails = q{SELECT * FROM loky.map('SELECT t.fail()', ARRAY[1], NULL::int, retries => 100000)};

# Call it, and wait until it has failed some times.
sub call_fails
{
	$s->query(q{SELECT setval('t.tries', 1, false)});
	$caller->send($fails);
	ok(poll($s, 'SELECT last_value >= 3 FROM t.tries'), 'it fails, and fails');
	return;
}

call_fails();
$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
is($caller->failure, '57014', 'the caller is cancelled');
call_fails();
$s->query("SET loky.executor = $executor; SELECT loky.shutdown(true, true)");
is($caller->failure, 'LK003', 'the executor is shut down');
$caller->executor(1);
call_fails();
$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
like($caller->await_end, qr/57P01/, 'the caller is terminated');

# Past an item that has failed for good nothing is run again, neither what waits for
# its time nor what fails later.
$s->query(
	q{CREATE FUNCTION t.third(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM pg_advisory_xact_lock_shared(x);
		IF x > 1 THEN
			PERFORM nextval('t.tries');
			RAISE EXCEPTION USING ERRCODE = CASE x WHEN 2 THEN '22012' ELSE '40001' END;
		END IF;
		RETURN x;
	  END$$});
$caller = LokyTest::Session->new($node);
for my $waits (1, 0)
{
	my $what = $waits ? 'an item that waits' : 'an item that fails';

	$s->query(q{SELECT setval('t.tries', 1, false)});
	$gate->query("SELECT pg_advisory_lock($_)") for 1 .. ($waits ? 2 : 3);
	$caller->executor(3);
	$caller->send(
		q{SELECT * FROM loky.map('t.third', ARRAY[1, 2, 3], NULL::int, retries => 1000)});
	at_gate($s, 2, 1);
	if ($waits)
	{
		# the pauses have become long by then
		ok(poll($s, 'SELECT last_value >= 7 FROM t.tries'), "$what: again and again");
	}
	else
	{
		at_gate($s, 3, 1);
	}
	$gate->query('SELECT pg_advisory_unlock(2)');
	ok(poll($s, q{SELECT failed FROM loky.progress}, 1),
		"$what: another one before it fails for good");
	$gate->query('SELECT pg_advisory_unlock(3)') unless $waits;
	ok(poll($s, q{SELECT count(*) FROM loky.workers WHERE state = 'busy'}, 1),
		"$what: it is given up");
	my $tries = $s->query('SELECT last_value FROM t.tries');
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($caller->failure, '22012', "$what: the first error is raised");
	is($s->query('SELECT last_value FROM t.tries'), $tries,
		"$what: it is not run again");
	is($tries, 2, "$what: it has failed once") unless $waits;
}

# A table that changes between two items: each row is read as what it is.
$s->query(
	q{CREATE TABLE t.shape AS SELECT 1 AS a;
	  CREATE FUNCTION t.is_wide(x int) RETURNS boolean LANGUAGE plpgsql AS $$
	  BEGIN
		IF x > 1 AND NOT EXISTS (SELECT FROM pg_attribute
			WHERE attrelid = 't.shape'::regclass AND attname = 'b') THEN
			RAISE EXCEPTION USING ERRCODE = '40001';
		END IF;
		RETURN true;
	  END$$});
$caller->executor(1);
$caller->query(
	q{BEGIN; DECLARE c CURSOR FOR SELECT loky.flat_map('SELECT *, ROW(a) AS r FROM t.shape WHERE t.is_wide($1)',
	  ARRAY[1, 2, 3], NULL::jsonb, retries => 100000)});
is($caller->query('FETCH c'), '{"a": 1, "r": {"f1": 1}}', 'a row as the table was');
$s->query(q{ALTER TABLE t.shape ADD b text DEFAULT 'x'});
my $wide = '{"a": 1, "b": "x", "r": {"f1": 1}}';
is($caller->query('FETCH ALL FROM c'), "$wide\n$wide", 'rows as it is after a change');
$caller->query('COMMIT');

# An executor that is ended under a map that raises nothing.
$gate->query('SELECT pg_advisory_lock(1)');
$executor = $caller->executor(2);
for my $ordered ('true', 'false')
{
	$caller->send(
		"SELECT string_agg(concat_ws(' ', ord, result, sqlstate, message), ', ' ORDER BY ord)
		 FROM loky.try_map('t.gate', ARRAY[ROW(2, 10), ROW(1, 11), ROW(1, 12), ROW(1, 13)],
			NULL::int, ordered => $ordered)");
	at_gate($s, 1, 2);
	$s->query("SET loky.executor = $executor; SELECT loky.shutdown(true, true)");
	is( $caller->answer,
		'1 10, 2 LK003 worker was ended while it ran the task, 3 LK003 worker was ended while it ran the task, 4 LK003 the executor was ended before the item was done',
		"items of an executor that was ended, ordered: $ordered");
	$executor = $caller->executor(2);
}
$gate->query('SELECT pg_advisory_unlock(1)');

$_->quit for $s, $gate, $caller;
check_rest($node);
$node->stop;

done_testing();
