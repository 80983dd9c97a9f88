
# loky.enabled off: what runs ends, what is pending stays and has no worker started
# for it, a map pauses; all goes on when it is on again.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my ($s, $m, $gate) = map { LokyTest::Session->new($node) } 1 .. 3;

# Every session that does not wait has seen the value, and the launcher has.
sub enable
{
	my ($value, @sessions) = @_;

	$gate->query("ALTER SYSTEM SET loky.enabled = $value");
	$gate->query('SELECT pg_reload_conf()');
	for my $session ($gate, @sessions)
	{
		ok(poll($session, 'SHOW loky.enabled', $value), "loky.enabled is $value");
	}
	return;
}

my $workers =
  q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker'};

# Tasks and a map, with workers that leave as soon as they have nothing to do.
$_->executor(2, q{timeout => '0'}) for $s, $m;
$gate->query('SELECT pg_advisory_lock(1)');
my $all = $s->query(
	q{SELECT loky.submit_all('t.touch_gate', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 50) i))});
$m->send(
	q{SELECT count(*), sum(r) FROM loky.map('t.touch_gate', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(101, 150) i), NULL::int) r});
at_gate($gate, 1, 2);
ok( poll(
		$gate, 'SELECT count(*) FROM pg_stat_activity WHERE state = \'active\'
		AND wait_event_type = \'Extension\' AND pid = ' . $m->pid, 1),
	'a map waits as well');

enable('off', $s);
for my $call (
	q{loky.submit('t.id', 1)},
	q{loky.submit_task('t.id', ROW(1))},
	q{loky.submit_all('t.id', ARRAY[1])},
	q{loky.map('t.id', ARRAY[1])},
	q{loky.flat_map('t.id', ARRAY[1])},
	q{loky.try_map('t.id', ARRAY[1])})
{
	is($s->fails("SELECT $call"), '55000', "refused while off: $call");
	like($s->messages, qr/^HINT:  .*loky\.enabled/m, 'with a hint');
}
my $executor = $s->query('SHOW loky.executor');
is($s->executor(2, q{timeout => '0'}), $executor, 'executors can be asked for');
is($s->query("SELECT loky.done(('$all'::bigint[])[50])"), 'f', 'and futures');
is($s->query("SELECT loky.cancel(('$all'::bigint[])[50])"), 't', 'and cancelled');

# What runs ends; then the workers have nothing to do, and leave.
$gate->query('SELECT pg_advisory_unlock(1)');
ok(poll($gate, $workers, 0), 'what runs ends, and the workers leave');
my $done = $gate->query('SELECT count(*) FROM t.log');
cmp_ok($done, '<=', 4, 'nothing more was begun');
cmp_ok(
	$s->query(
		"SELECT count(*) FROM unnest('$all'::bigint[]) f WHERE loky.state(f) = 'pending'"),
	'>=', 45, 'what is pending stays');

# Whoever wakes the launcher, nothing is started.
for (1 .. 3)
{
	$s->executor($_ + 1, q{timeout => '0'});
}
is($gate->query($workers), 0, 'no worker is started for it');
is($gate->query('SELECT count(*) FROM t.log'), $done, 'the map pauses');
is($gate->query("SELECT state FROM pg_stat_activity WHERE pid = " . $m->pid),
	'active', 'and its caller waits');

# On again.
enable('on', $s);
is($m->answer, '50|6275', 'the map goes on');
is( $s->query("SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	49, 'and what was pending');
is($gate->query('SELECT count(*), count(DISTINCT i) FROM t.log'),
	'99|99', 'each of them ran once');
is($s->query(q{SELECT loky.result(loky.submit('t.id', 3))}), 3, 'new tasks are accepted');

# With idle workers, which rest meanwhile.
$_->executor(2) for $s, $m;
$gate->query('SELECT pg_advisory_lock(1)');
$m->send(
	q{SELECT sum(r) FROM loky.map('t.gate', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 50) i), NULL::int) r});
at_gate($gate, 1, 2);
enable('off', $s);
$gate->query('SELECT pg_advisory_unlock(1)');
ok( poll($gate, $workers . q{ AND state = 'idle'}, 2), 'workers of a paused map rest');
enable('on', $s);
is($m->answer, 1275, 'and go on');

# A paused map can be given up.
$gate->query('SELECT pg_advisory_lock(1)');
$m->send(q{SELECT * FROM loky.map('t.gate', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 50) i))});
at_gate($gate, 1, 2);
enable('off', $s);
$gate->query('SELECT pg_cancel_backend(' . $m->pid . ')');
is($m->failure, '57014', 'a paused map can be cancelled');
$gate->query('SELECT pg_advisory_unlock(1)');
enable('on', $s, $m);

$_->quit for $s, $m, $gate;
check_rest($node);
$node->stop;

done_testing();
