
# The launcher is terminated: it comes back, tasks submitted meanwhile run, what
# runs goes on, and no worker slot is lost.

use strict;
use warnings;

use Carp;
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $total = $s->query('SHOW loky.max_total_workers');

# Wait until there is a launcher; returns its pid.
sub await_launcher
{
	for (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $pid = launcher_pid($node);
		return $pid if defined $pid;
		usleep(20_000);
	}
	croak "there is no launcher";
}

# End the launcher; returns when it is gone.
sub end_launcher
{
	my $pid = await_launcher();

	kill 'TERM', $pid;
	for (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return $pid if (launcher_pid($node) // 0) != $pid;
		usleep(20_000);
	}
	croak "the launcher does not end";
}

for my $round (1 .. 3)
{
	# Three workers are busy and one rests.
	$s->query("SELECT loky.get_reusable_executor($total, timeout => '$round h')");
	$gate->query('SELECT pg_advisory_lock(1)');
	my $running = $s->query(
		q{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(1, i)
		  FROM generate_series(1, 3) i))});
	at_gate($s, 1, 3);
	$s->query("SELECT loky.result(loky.submit('t.id', 1))");
	my $old = end_launcher();

	# New workers come as soon as somebody starts them.
	my $all = $s->query(
		qq{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(1, i)
		   FROM generate_series(1, $total) i))});
	at_gate($s, 1, $total);
	isnt(await_launcher(), $old, "$round: the launcher is back");
	is( $s->query(
			"SELECT bool_and(loky.state(f) = 'running') FROM unnest('$running'::bigint[]) f"),
		't',
		"$round: what ran goes on");
	$gate->query('SELECT pg_advisory_unlock(1)');
	is( $s->query(
			"SELECT count(*) FROM loky.wait('$running'::bigint[] || '$all'::bigint[])
			 WHERE state = 'succeeded'"),
		3 + $total,
		"$round: all tasks succeed");
}

# All slots can still be used at the same time, by one executor after the other.
for my $round (1 .. 3)
{
	$gate->query('SELECT pg_advisory_lock(2)');
	$s->query("SELECT loky.get_reusable_executor($total, timeout => '$round min')");
	my $all = $s->query(
		qq{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(2, i)
		   FROM generate_series(1, $total) i))});
	at_gate($s, 2, $total);
	pass("$round: no worker slot is lost");
	$gate->query('SELECT pg_advisory_unlock(2)');
	$s->query("SELECT count(*) FROM loky.wait('$all')");
}

# The launcher ends in the middle of starting workers: workers come and go at
# once, so that there is always one to be started.
my $wrong = 0;
$s->query("SELECT loky.get_reusable_executor(4, timeout => '0')");
for my $round (1 .. 3)
{
	my @futures;

	for my $i (1 .. 20)
	{
		push @futures, $s->query(q{SELECT loky.submit('t.id', 1)});
		kill 'TERM', await_launcher() if $i == 5;
	}
	$wrong++
	  if $s->query('SELECT count(*) FROM loky.wait(ARRAY['
		  . join(',', @futures)
		  . "]::bigint[]) WHERE state = 'succeeded'") != 20;
}
is($wrong, 0, 'tasks run while the launcher ends again and again');

# A worker comes at the very moment at which a new launcher gives it up: it leaves, and
# another one takes its place.
SKIP:
{
	skip 'the library was built without debug points', 5
	  if $s->query(q{SELECT current_setting('loky.debug_point', true) IS NULL}) eq 't';

	my $offset = log_end($node);
	my $pid_at = sub {
		my $line = qr/\[(\d+)\] .*waiting at debug point "$_[0]"/;

		$node->wait_for_log($line, $offset);
		return (log_since($node, $offset) =~ $line)[0];
	};

	# Workers that are on their way for what was before must not come between.
	$s->query('SELECT loky.shutdown()');
	poll($s, 'SELECT count(*) FROM loky.workers', 0) or croak 'there are workers left';
	set_debug_points($s, 'starting wait,adopting wait,attached wait');
	$gate->query('SELECT pg_advisory_lock(4)');
	$s->query(q{SELECT loky.get_reusable_executor(1, timeout => '2 h', reuse => 'false')});
	my $future = $s->query(q{SELECT loky.submit('t.gate', 4, 9)});
	my $worker = $pid_at->('starting');
	end_launcher();
	is($pid_at->('adopting'), launcher_pid($node), 'a launcher gives a worker up');
	set_debug_points($s, 'adopting wait,attached wait');
	for (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if !kill(0, $worker) || log_since($node, $offset) =~ /\[$worker\] .*point "attached"/;
		usleep(20_000);
	}
	unlike(log_since($node, $offset),
		qr/\[$worker\] .*point "attached"/,
		'the worker that comes late leaves');
	set_debug_points($s, 'attached wait');
	isnt($pid_at->('attached'), $worker, 'another one takes its place');
	set_debug_points($s, '');
	at_gate($s, 4, 1);
	$gate->query('SELECT pg_advisory_unlock(4)');
	is($s->query("SELECT loky.result($future)"), 9, 'and runs the task');

	# Neither a worker that dies nor the launcher can settle what it had, as they would
	# without memory: a later launcher does.
	set_debug_points($s, 'settling error');
	$gate->query('SELECT pg_advisory_lock(5)');
	$future = $s->query(q{SELECT loky.submit('t.gate', 5, 9)});
	at_gate($s, 5, 1);
	$worker = pid_of($s, $future);
	$offset = log_end($node);
	$s->query("SELECT pg_terminate_backend($worker)");
	for my $who ("\\[$worker\\] loky worker FATAL", 'loky launcher ERROR')
	{
		$node->wait_for_log(qr/$who:  .*debug point "settling"/, $offset);
	}
	set_debug_points($s, '');
	is($s->outcomes("{$future}"), '1 failed LK001',
		'what a worker has left is settled in the end');
	$gate->query('SELECT pg_advisory_unlock(5)');
}

# What is there is put away: no worker but those of the last call stays.
$s->query("SELECT loky.get_reusable_executor($total, timeout => '1 h')");
$gate->query('SELECT pg_advisory_lock(3)');
my $all = $s->query(
	qq{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(3, i)
	   FROM generate_series(1, $total) i))});
at_gate($s, 3, $total);
$gate->query('SELECT pg_advisory_unlock(3)');
$s->query("SELECT count(*) FROM loky.wait('$all')");
ok( poll(
		$s, q{SELECT (SELECT count(*) FROM loky.workers) -
		  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker')},
		0),
	'the view and the processes agree');

$_->quit for $s, $gate;
check_rest($node);
$node->stop;

done_testing();
