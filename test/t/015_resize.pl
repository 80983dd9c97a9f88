
# An executor is resized while it works: what runs and waits is neither lost nor
# run twice, and the number of workers follows.  The S-numbers are those of the
# contract with Python's loky; those which are not here are in sql/parallel.sql
# (S18), 006_idle_timeout.pl (S21) and sql/executor.sql (S23).

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $o = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $total = $s->query('SHOW loky.max_total_workers');
my $mine = q{executor_id = current_setting('loky.executor')::int};

# The gates k to l, one lock each.
sub shut
{
	my ($k, $l) = @_;
	$gate->query('SELECT count(pg_advisory_lock(k)) FROM generate_series('
		  . $k . ', ' . ($l // $k) . ') k');
	return;
}

sub open_gate
{
	my ($k) = @_;
	is($gate->query("SELECT pg_advisory_unlock($k)"), 't', "gate $k opens");
	return;
}

# So many tasks that log their number, from 1 on, and stand at the gate.
sub gated
{
	my ($k, $n) = @_;
	return $s->query(
		qq{SELECT loky.submit_all('t.touch_gate', ARRAY(SELECT ROW($k, i)
		   FROM generate_series(1, $n) i))});
}

$s->query(
	q{CREATE FUNCTION t.brief(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (x);
		PERFORM pg_sleep(0.01);
		RETURN x;
	  END$$});

subtest 'S19: shrinking lets what runs finish' => sub {
	$s->executor(4);
	shut(1, 8);
	# Each at a gate of its own.
	my $all = $s->query(
		q{SELECT loky.submit_all('t.touch_gate', ARRAY(SELECT ROW(i, i)
		  FROM generate_series(1, 8) i))});
	at_gate($s, $_, 1) for 1 .. 4;
	$s->executor(1);
	is($s->query("SELECT running, pending FROM loky.executors WHERE $mine"),
		'4|4', 'four go on');
	open_gate($_) for 1 .. 3;
	ok(poll($s, "SELECT workers FROM loky.executors WHERE $mine", 1),
		'as they end, their workers leave');
	is($s->query("SELECT running, pending FROM loky.executors WHERE $mine"),
		'1|4', 'and no other task begins');
	for my $i (4 .. 7)
	{
		open_gate($i);
		at_gate($s, $i + 1, 1);
		is($s->query("SELECT running, pending FROM loky.executors WHERE $mine"),
			'1|' . (7 - $i), 'then they run one by one');
	}
	open_gate(8);
	is($s->outcomes($all), '8 succeeded', 'all succeed');
	is($s->logged, '8|8|1|8', 'and ran once');
	check_clean($s, 'after it');
};

# The same size at the end as in the beginning, whatever lies between.
for my $reuse ('auto', 'true', 'false')
{
	for my $kill ('false', 'true')
	{
		subtest "S20: many sizes, reuse => '$reuse', kill_workers => $kill" =>
		  sub {
			my $i = 1;
			my @futures;

			$s->executor(4, "timeout => '20 s'");
			for my $n (12, 2, 1, 12, 6, 1, 8, 5)
			{
				$s->executor($n,
					"timeout => '20 s', reuse => '$reuse', kill_workers => $kill");
				push @futures,
				  $s->query(
					qq{SELECT loky.submit_all('t.brief',
					   ARRAY(SELECT generate_series($i, $i + 5)))}) =~ /\d+/g;
				$i += 6;
			}
			$s->query('SELECT loky.shutdown()');
			my $outcomes = $s->outcomes('{' . join(',', @futures) . '}');
			if ($kill eq 'false')
			{
				is($outcomes, '48 succeeded', 'all tasks succeed');
			}
			elsif ($reuse eq 'false')
			{
				like($outcomes,
					qr/^(\d+ cancelled, )?(\d+ failed LK003, )?\d+ succeeded$/,
					'tasks succeed, fail with LK003 or are cancelled');
			}
			else
			{
				like($outcomes, qr/^(\d+ failed LK003, )?\d+ succeeded$/,
					'tasks succeed or fail with LK003');
			}
			my ($succeeded) = $outcomes =~ /(\d+) succeeded/;
			like($s->logged, qr/^$succeeded\|$succeeded\|/,
				'those that succeeded ran once, the others left nothing');
			check_clean($s, 'after it');
		  };
	}
}

subtest 'S22: workers stay over a resize' => sub {
	my $new = "timeout => '22 s'";

	$s->executor(1, $new);
	my $pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
	shut(1);
	$s->executor(2, $new);
	my $all = gated(1, 2);
	at_gate($s, 1, 2);
	my $pids = $s->query("SELECT array_agg(pid) FROM loky.workers WHERE $mine");
	like($pids, qr/\b$pid\b/, 'growing keeps the worker that was there');
	open_gate(1);
	is($s->outcomes($all), '2 succeeded', 'both run');
	$s->executor(1, $new);
	ok(poll($s, "SELECT workers FROM loky.executors WHERE $mine", 1),
		'shrinking ends one');
	is( $s->query("SELECT pid = ANY ('$pids') FROM loky.workers WHERE $mine"
			  . " AND state <> 'stopping'"),
		't', 'of the two one stays');
	$pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
	like($pids, qr/\b$pid\b/, 'which goes on working');
	shut(1);
	my $more = gated(1, 3);
	at_gate($s, 1, 1);
	$s->executor(1, $new);
	is($s->query("SELECT running, pending FROM loky.executors WHERE $mine"),
		'1|2', 'the same size waits for nothing');
	open_gate(1);
	is($s->outcomes($more), '3 succeeded', 'and changes nothing');
	is( $s->query(
			"SELECT count(*) FROM loky.tasks WHERE future = ANY ('$more')
			 AND worker <> $pid"), 0,
		'in the same worker');
	is($s->logged, '5|3|1|3', 'each ran once');
	check_clean($s, 'after it');
};

# Shrinking is in 002_worker_death.pl.
subtest 'S24: a worker dies after the executor has grown' => sub {
	$s->executor(2);
	shut(1);
	my $all = gated(1, 6);
	at_gate($s, 1, 2);
	my $pid =
	  $s->query("SELECT pid FROM loky.workers WHERE $mine AND state = 'busy' LIMIT 1");
	$s->executor(4);
	$s->query("SELECT pg_terminate_backend($pid)");
	# One has failed, the fifth took its place.
	ok( poll(
			$s, "SELECT count(*) FROM loky.tasks WHERE sqlstate = 'LK001'
			AND future = ANY ('$all')", 1),
		'one task fails');
	at_gate($s, 1, 4);
	is($s->query("SELECT running, pending FROM loky.executors WHERE $mine"),
		'4|1', 'four run');
	open_gate(1);
	is($s->outcomes($all), '1 failed LK001, 5 succeeded', 'the others succeed');
	like($s->logged, qr/^5\|5\|/, 'and ran once');
	check_clean($s, 'after it');
};

subtest 'S26: more workers than there can be' => sub {
	my $big = "timeout => '26 s'";

	$s->executor(1000, $big);
	is(scalar(() = $s->messages =~ /WARNING:  /g),
		1, 'are accepted with a WARNING');
	shut(1);
	my $all = gated(1, 50);
	at_gate($s, 1, $total);
	is($s->query('SELECT count(*) FROM loky.workers'),
		$total, 'so many as the server allows are there');
	is($s->query("SELECT running + pending FROM loky.executors WHERE $mine"),
		50, 'the other tasks wait');
	open_gate(1);
	is($s->outcomes($all), '50 succeeded', 'all succeed');
	is($s->logged, '50|50|1|50', 'and ran once');
	$s->executor(2, $big);
	is($s->messages, '', 'a size that is possible gives no WARNING');
	ok(poll($s, "SELECT workers <= 2 FROM loky.executors WHERE $mine"),
		'and is taken');
	check_clean($s, 'after it');
};

subtest 'S27: an executor of more workers than processors' => sub {
	my $n = $total - 2;

	cmp_ok($n, '>=', 6, 'six workers are allowed');
	$s->executor($n);
	shut(1);
	my $all = gated(1, $n);
	at_gate($s, 1, $n);
	is($s->query("SELECT running, pending FROM loky.executors WHERE $mine"),
		"$n|0", 'all tasks run at the same time');
	open_gate(1);
	is($s->outcomes($all), "$n succeeded", 'all succeed');
	$s->logged;
	check_clean($s, 'after it');
};

# The races of a resize with a map in fixed steps are in resize-map.spec; here
# at any moment.
subtest 'S27b: sizes change while a map runs' => sub {
	$s->executor(4);
	$o->executor(4);
	$s->send(
		q{SELECT string_agg(r::text, ' ') FROM loky.map('t.brief',
		  ARRAY(SELECT generate_series(1, 100)), NULL::int) r});
	my $resized = 0;
	until ($o->query('SELECT count(*) >= 60 FROM t.log') eq 't'
		|| $resized == 10_000)
	{
		$o->executor((1, 4, 2, 3)[ $resized++ % 4 ]);
	}
	cmp_ok($resized, '>', 0, 'it is resized meanwhile');
	$o->executor(1);
	is($s->answer, join(' ', 1 .. 100), 'the map is whole and in order');
	is($s->logged, '100|100|1|100', 'each item ran once');
	ok(poll($s, "SELECT workers <= 1 FROM loky.executors WHERE $mine"),
		'the last size counts');
	check_clean($s, 'after it');
};

$_->quit for $s, $o, $gate;
check_rest($node);
$node->stop;

done_testing();
