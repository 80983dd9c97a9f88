
# Nested tasks on a server with hardly any place for workers: LK002 for the innermost
# one that waits, where all places are taken by tasks that wait for their own, and
# not where a place will be free.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Of these places, one is the launcher's and one is that of logical replication.
my $node = loky_node(conf => "max_worker_processes = 4\n");
my $s = LokyTest::Session->new($node);
my $o = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my ($f, $g);

$s->query(
	q{CREATE FUNCTION t.deep_map(level int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		RETURN CASE WHEN level <= 1 THEN 1 ELSE 1 +
			(SELECT r FROM loky.map('t.deep_map', ARRAY[level - 1], NULL::int) r) END;
	  END$$;
	  CREATE FUNCTION t.deep_result(level int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		RETURN CASE WHEN level <= 1 THEN 1 ELSE 1 +
			(SELECT r FROM loky.result(loky.submit('t.deep_result', level - 1), NULL::int) r) END;
	  END$$;
	  CREATE FUNCTION t.deep_wait(level int) RETURNS int LANGUAGE plpgsql AS $$
	  DECLARE
		f bigint;
	  BEGIN
		IF level <= 1 THEN
			RETURN 1;
		END IF;
		f := loky.submit('t.deep_wait', level - 1);
		PERFORM loky.wait(ARRAY[f]);
		RETURN 1 + (SELECT r FROM loky.result(f, NULL::int) r);
	  END$$;
	  -- go through the gate, then wait for an inner task
	  CREATE FUNCTION t.gate_nest(k int, x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM t.gate(k);
		RETURN (SELECT r FROM loky.result(loky.submit('t.id', x), NULL::int) r);
	  END$$;
	  -- the same with a lock
	  CREATE FUNCTION t.lock_nest(k int, l int, x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM pg_advisory_xact_lock(l);
		RETURN t.gate_nest(k, x);
	  END$$});

# Wait until so many workers wait for tasks of their own, and have looked several
# times whether they ever end.
sub patient_workers
{
	my ($n) = @_;
	my $query = q{SELECT count(*) FROM loky.workers WHERE state = 'waiting'};

	return poll($gate, $query, $n) && do
	{
		$gate->query('SELECT pg_sleep(0.9)');
		$gate->query($query) == $n;
	};
}

# Each level takes one of the two places.
for my $size (1, 2)
{
	$s->query("SELECT loky.get_reusable_executor($size, timeout => '1 h')");
	for my $how ('deep_map', 'deep_result', 'deep_wait')
	{
		is( $s->query("SELECT loky.result(loky.submit('t.$how', 2))"),
			2, "$how, $size workers: two levels work");
		is( $s->fails("SELECT loky.result(loky.submit('t.$how', 3))"),
			'LK002', "$how, $size workers: there is no process for the third");
		like($s->messages, qr/^HINT:  .*max_worker_processes/m,
			'the hint names the setting');
		is($s->query(q{SELECT loky.result(loky.submit('t.id', 5))}),
			5, 'the executor goes on');
	}
}
is( $s->query(q{SELECT count(*) FROM loky.tasks WHERE state IN ('pending', 'running')}),
	0, 'nothing is left of them');
is( $s->fails(q{SELECT loky.map('t.deep_map', ARRAY[3], NULL::int)}),
	'LK002', 'a map of maps: the same');

# Two tasks that both wait: one of them fails, and so makes room for the inner task of
# the other one.
$o->query("SELECT loky.get_reusable_executor(2, timeout => '1 h')");
for my $round (1 .. 5)
{
	my %outcomes;

	$gate->query('SELECT pg_advisory_lock(1)');
	$f = $s->query("SELECT loky.submit('t.gate_nest', 1, 5)");
	$g = $o->query("SELECT loky.submit('t.gate_nest', 1, 5)");
	at_gate($gate, 1, 2);
	$gate->query('SELECT pg_advisory_unlock(1)');
	$outcomes{ $s->query("SELECT t.outcome($_)") }++ for $f, $g;
	is_deeply(\%outcomes, { LK002 => 1, 5 => 1 }, 'one of two gets LK002');
}

# A place that will be free: a task of the same executor, or of another one, ends.
for my $hours (1, 2)
{
	$s->query("SELECT loky.get_reusable_executor(2, timeout => '1 h')");
	$o->query("SELECT loky.get_reusable_executor(2, timeout => '$hours h')");
	$gate->query('SELECT pg_advisory_lock(1)');
	$gate->query('SELECT pg_advisory_lock(2)');
	$f = $s->query("SELECT loky.submit('t.gate_nest', 1, 5)");
	$g = $o->query("SELECT loky.submit('t.gate', 2, 7)");
	at_gate($gate, 1, 1);
	at_gate($gate, 2, 1);
	$gate->query('SELECT pg_advisory_unlock(1)');
	ok(patient_workers(1), 'an inner task waits for the place of another one');
	$gate->query('SELECT pg_advisory_unlock(2)');
	is($s->query("SELECT loky.result($f)"), 5, 'and gets it');
	is($o->query("SELECT loky.result($g)"), 7, 'when that one ends');
}

# An idle worker makes room.
$o->query("SELECT loky.get_reusable_executor(1, timeout => '-1 s')");
is($o->query(q{SELECT loky.result(loky.submit('t.id', 6))}), 6, 'a worker rests for ever');
is($s->query(q{SELECT loky.result(loky.submit('t.deep_map', 2))}),
	2, 'it leaves for an inner task of another executor');

# A place whose task waits for a lock of the outer task.
$gate->query('SELECT pg_advisory_lock(1)');
$f = $s->query("SELECT loky.submit('t.lock_nest', 1, 3, 5)");
at_gate($gate, 1, 1);
$g = $o->query("SELECT loky.submit('t.gate', 3, 7)");
at_gate($gate, 3, 1);
$gate->query('SELECT pg_advisory_unlock(1)');
is($s->query("SELECT t.outcome($f)"), '40P01', 'a place that waits for the outer task');
is($o->query("SELECT loky.result($g)"), 7, 'goes on when that has failed');

$_->quit for $s, $o, $gate;
check_rest($node);
$node->stop;

done_testing();
