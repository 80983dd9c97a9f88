
# Taking turns: sessions within an executor, and executors where there are fewer
# places than workers wanted.  Order is told by numbers of a sequence that tasks
# draw: a small piece of work must not draw the last ones.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my ($long, $small, $gate);

# t.turn(k, x) waits at the gate k and draws a number; t.work(x) takes a while.
$node->safe_psql(
	'postgres', q{
	CREATE SEQUENCE t.turns;
	CREATE FUNCTION t.turn(k int, x int) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(k);
		RETURN nextval('t.turns');
	END$$;
	CREATE FUNCTION t.work(x int) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(0.01);
		RETURN nextval('t.turns');
	END$$});

# Sessions of their own after each start of the server; numbers begin at 1.
sub begin
{
	($long, $small, $gate) = map { LokyTest::Session->new($node) } 1 .. 3;
	$gate->query(q{SELECT setval('t.turns', 1, false)});
	return;
}

sub places
{
	my ($n) = @_;

	$_->quit for $long, $small, $gate;
	$node->append_conf('postgresql.conf', "loky.max_total_workers = $n\n");
	$node->restart;
	begin();
	return;
}

# The session has sent a query and waits for others.
sub waits
{
	my ($session) = @_;

	return poll(
		$gate, 'SELECT count(*) FROM pg_stat_activity WHERE state = \'active\'
		AND wait_event_type = \'Extension\' AND pid = ' . $session->pid, 1);
}

sub numbers
{
	my ($session, $futures) = @_;

	return $session->query(
		qq{SELECT max(r) FROM unnest('$futures'::bigint[]) f,
		   LATERAL loky.result(f, NULL::bigint) r});
}

#--------------------------------------------------------------------------
# Sessions within an executor
#--------------------------------------------------------------------------

begin();
$_->executor(2) for $long, $small;
$gate->query('SELECT pg_advisory_lock(1)');
my $all = $long->query(
	q{SELECT loky.submit_all('t.turn', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 3000) i))});
at_gate($gate, 1, 2);
my $few = $small->query(
	q{SELECT loky.submit_all('t.turn', ARRAY[ROW(1, 1), ROW(1, 2), ROW(1, 3)])});
$small->send(
	q{SELECT max(r) FROM loky.map('t.turn', ARRAY[ROW(1, 1), ROW(1, 2), ROW(1, 3)],
	  NULL::bigint) r});
ok(waits($small), 'a small map waits beside three thousand tasks of another session');
$gate->query('SELECT pg_advisory_unlock(1)');
cmp_ok($small->answer, '<', 100, 'it does not wait for them');
cmp_ok(numbers($small, $few), '<', 100, 'nor do three tasks');
is( $long->query(
		"SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	3000, 'the others run as well');
is($gate->query('SELECT last_value FROM t.turns'), 3006, 'each of them once');

# The other way round.
$gate->query(q{SELECT setval('t.turns', 1, false)});
$_->executor(2) for $long, $small;
$gate->query('SELECT pg_advisory_lock(1)');
$long->send(
	q{SELECT count(*), count(DISTINCT r) FROM loky.map('t.turn',
	  ARRAY(SELECT ROW(1, i) FROM generate_series(1, 3000) i), NULL::bigint) r});
at_gate($gate, 1, 2);
$few = $small->query(
	q{SELECT loky.submit_all('t.turn', ARRAY[ROW(1, 1), ROW(1, 2), ROW(1, 3)])});
$gate->query('SELECT pg_advisory_unlock(1)');
cmp_ok(numbers($small, $few), '<', 300, 'three tasks do not wait for a long map');
is($long->answer, '3000|3000', 'which comes to its end');

#--------------------------------------------------------------------------
# Executors, for places
#--------------------------------------------------------------------------

my $shortage = qr/LOG:  .*no free slot/;

for my $places (1, 2)
{
	places($places);
	$long->query("SELECT loky.get_reusable_executor(4, timeout => '1 h')");
	$small->query("SELECT loky.get_reusable_executor(4, timeout => '2 h')");

	# An executor with a long queue holds all places.
	$all = $long->query(
		q{SELECT loky.submit_all('t.work', ARRAY(SELECT generate_series(1, 2000)))});
	ok(poll($gate, q{SELECT last_value > 5 FROM t.turns}), "$places: many tasks run");
	$few = $small->query(q{SELECT loky.submit_all('t.work', ARRAY[1, 2, 3])});
	my $n = $small->query(
		q{SELECT max(r) FROM loky.map('t.work', ARRAY[1, 2, 3], NULL::bigint) r});
	cmp_ok($n, '<', 1000,
		"$places: a small map of another executor need not wait for them");
	cmp_ok(numbers($small, $few), '<', 1000, "$places: nor three tasks");
	$long->query('SELECT loky.shutdown(kill_workers => true)');

	# So does a long map.
	$gate->query(q{SELECT setval('t.turns', 1, false)});
	$long->send(
		q{SELECT count(*) FROM loky.map('t.work',
		  ARRAY(SELECT generate_series(1, 2000)), NULL::bigint)});
	ok(poll($gate, q{SELECT last_value > 5 FROM t.turns}), "$places: a long map runs");
	$few = $small->query(q{SELECT loky.submit_all('t.work', ARRAY[1, 2, 3])});
	cmp_ok(numbers($small, $few), '<', 1000, "$places: three tasks need not wait for it");
	$gate->query('SELECT pg_cancel_backend(' . $long->pid . ')');
	is($long->failure, '57014', "$places: the long map is cancelled");
	check_idle($node, "$places places");
}

# Two long queues share one place in turns, and no process is started for each
# task of theirs.
places(1);
$long->query("SELECT loky.get_reusable_executor(2, timeout => '1 h')");
$small->query("SELECT loky.get_reusable_executor(2, timeout => '2 h')");
for my $session ($long, $small)
{
	$session->query(
		q{SELECT loky.submit_all('t.work', ARRAY(SELECT generate_series(1, 2000)))});
}
ok( poll(
		$gate, q{SELECT count(*) FILTER (WHERE n >= 30) FROM
		  (SELECT count(*) AS n FROM loky.tasks WHERE state = 'succeeded'
		   GROUP BY executor_id) x}, 2),
	'two executors go on side by side');
is( $gate->query(
		q{SELECT count(DISTINCT worker) * 2 < count(*) FROM loky.tasks
		  WHERE state = 'succeeded'}),
	't', 'a worker runs more than one task before it makes room');
is( $gate->query(q{SELECT sum(pending) > 0 FROM loky.executors}),
	't', 'all that while both had tasks');
$_->query('SELECT loky.shutdown(kill_workers => true)') for $long, $small;

# Whoever has waited comes next, not the one that made room, though that has more
# to do.  A worker that is asked to go while it runs a long task ends it.
places(1);
$long->query("SELECT loky.get_reusable_executor(1, timeout => '1 h')");
$small->query("SELECT loky.get_reusable_executor(1, timeout => '2 h')");
$gate->query('SELECT pg_advisory_lock(1)');
$all = $long->query(
	q{SELECT loky.submit_all('t.turn', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 50) i))});
at_gate($gate, 1, 1);
my $offset = log_end($node);
$few = $small->query(q{SELECT loky.submit_all('t.turn', ARRAY[ROW(2, 1)])});
$node->wait_for_log($shortage, $offset);
$gate->query('SELECT pg_advisory_unlock(1)');
is(numbers($small, $few), 2, 'the next place is for the one that has waited');
is( $long->query(
		"SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	50, 'then the other goes on');
is($gate->query('SELECT last_value FROM t.turns'), 51, 'and nothing ran twice');

# An executor whose tasks are long does not keep others from making room.
places(3);
my $third = LokyTest::Session->new($node);
$long->query("SELECT loky.get_reusable_executor(2, timeout => '1 h')");
$small->query("SELECT loky.get_reusable_executor(1, timeout => '2 h')");
$third->query("SELECT loky.get_reusable_executor(1, timeout => '3 h')");
$gate->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
$all = $long->query(
	q{SELECT loky.submit_all('t.turn', ARRAY[ROW(1, 1), ROW(1, 2)])});
at_gate($gate, 1, 2);
my $more = $third->query(
	q{SELECT loky.submit_all('t.turn', ARRAY(SELECT ROW(2, i)
	  FROM generate_series(1, 50) i))});
at_gate($gate, 2, 1);
$offset = log_end($node);
$few = $small->query(q{SELECT loky.submit_all('t.turn', ARRAY[ROW(3, 1)])});
$node->wait_for_log($shortage, $offset);
$gate->query('SELECT pg_advisory_unlock(2)');
is(numbers($small, $few), 2, 'another executor than the deaf one makes room');
is( $third->query(
		"SELECT count(*) FROM loky.wait('$more') WHERE state = 'succeeded'"),
	50, 'and goes on');
$gate->query('SELECT pg_advisory_unlock(1)');
is( $long->query(
		"SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	2, 'what ran all the while ends well');

# Nobody is asked for the sake of tasks that wait for the caller: a cycle over
# the places is still seen.
$third->quit;
places(1);
$long->query("SELECT loky.get_reusable_executor(1, timeout => '1 h')");
$small->query("SELECT loky.get_reusable_executor(1, timeout => '2 h')");
$small->query('SELECT pg_advisory_lock(1)');
$all = $long->query(
	q{SELECT loky.submit_all('t.turn', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 5) i))});
at_gate($gate, 1, 1);
is($small->fails(q{SELECT loky.result(loky.submit('t.turn', 2, 1))}),
	'40P01', 'a caller that keeps the only place busy gets a deadlock');
$small->query('SELECT pg_advisory_unlock(1)');
is( $long->query(
		"SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	5, 'the tasks go on');

$_->quit for $long, $small, $gate;
check_rest($node);
$node->stop;

done_testing();
