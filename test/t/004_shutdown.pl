
# The server's end, and what comes after: a fast shutdown with tasks running and
# pending and callers waiting, an immediate one, and a worker that crashes.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(
	conf => "restart_after_crash = on\nloky.shared_memory = '8MB'\n");
my $seen = 0;
my ($s, $gate, @callers);

# Tasks that run, tasks that are pending, results that are kept, one of them in
# a file, and sessions that wait in all ways.
sub make_busy
{
	$s = LokyTest::Session->new($node);
	$gate = LokyTest::Session->new($node);
	$gate->query('SELECT pg_advisory_lock(1)');
	$s->query("SELECT loky.get_reusable_executor(3, timeout => '1 h')");
	my $done = $s->query(
		q{SELECT loky.submit('SELECT i, repeat(''x'', 1000)
		  FROM generate_series(1, 20000) i')});
	is( $s->query("SELECT count(*) FROM loky.result($done, NULL::record) AS t(a int, b text)"),
		20000, 'a large result');
	ok(scalar(temp_files($node)) > 0, 'lies in a file');
	my $running = $s->query(
		q{SELECT loky.submit('INSERT INTO t.log SELECT t.gate(1)')});
	$s->query(
		q{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(1, i)
		  FROM generate_series(1, 50) i))});
	@callers = map { LokyTest::Session->new($node) } 1 .. 4;
	$_->query("SELECT loky.get_reusable_executor(3, timeout => '1 h')")
	  for @callers;
	at_gate($s, 1, 3);
	$callers[0]->send("SELECT loky.result($running)");
	$callers[1]->send("SELECT * FROM loky.wait(ARRAY[$running])");
	$callers[2]->send(
		q{SELECT count(*) FROM loky.map('t.gate', ARRAY(SELECT ROW(1, i)
		  FROM generate_series(1, 50) i), NULL::int)});
	$callers[3]->send('SELECT loky.shutdown()');
	my $pids = join ',', map { $_->pid } @callers;
	ok( poll(
			$s, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'
			AND wait_event_type = 'Extension' AND pid IN ($pids)", 4),
		'four sessions wait');
	my $max = $s->query('SELECT max(future) FROM loky.tasks');
	cmp_ok($max, '>', $seen, 'ids ascend');
	$seen = $max;
	return ($done, $running);
}

sub end_sessions
{
	$_->await_end for $s, $gate, @callers;
	return;
}

# A server that has just come up is usable at once, and knows nothing of before.
sub check_fresh
{
	my ($what, @futures) = @_;
	my $fresh = LokyTest::Session->new($node);

	is( $fresh->query(
			q{SELECT count(*) FROM loky.map('t.id', ARRAY[1,2,3], NULL::int)}),
		3,
		"$what: a map runs at once");
	my $f = $fresh->query(q{SELECT loky.submit('t.id', 7)});
	cmp_ok($f, '>', $seen, "$what: ids of before are not given out again");
	$seen = $f;
	is($fresh->query("SELECT loky.result($f)"), 7, "$what: a task runs");
	is($fresh->fails("SELECT loky.state($_)"), '42704', "$what: future $_ is gone")
	  for @futures;
	is($fresh->query('SELECT count(*) FROM loky.tasks'),
		1, "$what: no task of before is left");
	is($fresh->query('SELECT count(*) FROM loky.executors'),
		1, "$what: no executor of before is left");
	is($fresh->query('SELECT count(*) FROM t.log'),
		0, "$what: nothing of what ran was committed");
	ok(launcher_pid($node), "$what: the launcher is there");
	is(join(' ', temp_files($node)), '', "$what: no temporary file is left");
	$fresh->quit;
	return;
}

# A fast shutdown; pg_ctl waits a minute for it, and stop() bails out then.
my @futures = make_busy();
my $offset = log_end($node);
my $start = time();
$node->stop('fast');
cmp_ok(time() - $start, '<', 20, 'a fast shutdown does not wait for tasks');
end_sessions();
my $log = log_since($node, $offset);
like($log, qr/database system is shut down/, 'the server was shut down');
unlike($log, qr/PANIC|TRAP|terminated by signal|exited with exit code [^1]/,
	'in good order');
$node->start;
check_fresh('after a fast shutdown', @futures);

# Once more, with nothing to do but idle workers and finished futures: the ids go
# on without a gap.
$node->restart;
my $first = $node->safe_psql('postgres', q{SELECT loky.submit('t.id', 1)});
is($first, $seen + 1, 'a clean restart wastes no ids');
$seen = $first;

# An immediate shutdown is a crash.
@futures = make_busy();
$node->stop('immediate');
end_sessions();
$node->start;
check_fresh('after an immediate shutdown', @futures);

# S43: a worker crashes, and with it the server, which restarts by itself.
@futures = make_busy();
$offset = log_end($node);
my $pid = pid_of($s, $futures[1]);
kill 'KILL', $pid;

# Sessions that end before the server knows of it would open the gate.
$node->wait_for_log(qr/\(PID $pid\) was terminated by signal 9/, $offset);
end_sessions();
$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
like(
	log_since($node, $offset),
	qr/DETAIL:  Failed process was running: INSERT INTO t.log SELECT t.gate\(1\)/,
	'S43: the log names what it ran');
check_fresh('S43', @futures);
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker'
		  AND pid <> ALL (SELECT pid FROM loky.workers)}),
	0,
	'S43: there is no worker that nobody started');

check_idle($node);
$offset = log_end($node);
$node->stop('fast');
unlike(log_since($node, $offset), qr/PANIC|TRAP|terminated by signal/,
	'the last shutdown is clean');

done_testing();
