
# Idle workers leave after the timeout of their executor, each for itself, and no
# task is ever lost to one that leaves.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $mine = q{executor_id = current_setting('loky.executor')::int};
my ($id, $f);

sub executor
{
	my ($n, $timeout) = @_;
	return $s->query(
		"SELECT loky.get_reusable_executor($n, timeout => '$timeout')");
}

sub workers
{
	return $s->query("SELECT count(*) FROM loky.workers WHERE $mine");
}

# S28: all leave; the executor stays and has new ones for the next task.
$id = executor(2, '300 ms');
my $pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1), NULL::int)});
is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1), NULL::int)}),
	$pid, 'S28: a worker is used again');
ok(poll($s, "SELECT count(*) FROM loky.workers WHERE $mine", 0),
	'S28: it leaves when idle for long');
ok( poll($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0),
	'S28: the process too');
isnt($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1), NULL::int)}),
	$pid, 'S28: the next task has another one');
is(executor(2, '300 ms'), $id, 'S28: of the same executor');
is($s->query("SELECT timeout FROM loky.executors WHERE $mine"),
	'00:00:00.3', 'S28: which shows its timeout');
check_clean($s, 'S28');

# S29: a task longer than the timeout is not ended by it.
executor(1, '20 ms');
$gate->query('SELECT pg_advisory_lock(1)');
$f = $s->query(q{SELECT loky.submit('t.gate', 1, 29)});
at_gate($s, 1, 1);
$pid = pid_of($s, $f);
# Another executor's workers come and go meanwhile, with the same timeout.
my $other = LokyTest::Session->new($node);
$other->query("SELECT loky.get_reusable_executor(1, timeout => '30 ms')");
$other->query(q{SELECT loky.result(loky.submit('t.id', 1))});
ok( poll($other, "SELECT count(*) FROM loky.workers WHERE $mine", 0),
	'S29: an idle worker leaves');
is($s->query("SELECT count(*) FROM loky.workers WHERE pid = $pid AND state = 'busy'"),
	1, 'S29: a busy one stays');
$gate->query('SELECT pg_advisory_unlock(1)');
is($s->query("SELECT loky.result($f)"), 29, 'S29: its task succeeds');
check_clean($s, 'S29');

# S31: of two workers the idle one leaves.
executor(2, '200 ms');
$gate->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
$f = $s->query(q{SELECT loky.submit('t.gate', 1, 31)});
my $g = $s->query(q{SELECT loky.submit('t.gate', 2, 31)});
at_gate($s, 1, 1);
at_gate($s, 2, 1);
$pid = pid_of($s, $f);
$gate->query('SELECT pg_advisory_unlock(2)');
$s->query("SELECT loky.result($g)");
ok( poll($s, "SELECT string_agg(pid::text, ' ') FROM loky.workers WHERE $mine", $pid),
	'S31: exactly the busy one is left');
$gate->query('SELECT pg_advisory_unlock(1)');
is($s->query("SELECT loky.result($f)"), 31, 'S31: its task succeeds');
check_clean($s, 'S31');

# A negative timeout: never.  Others with a positive one leave meanwhile.
executor(2, '-1 s');
is($s->query("SELECT timeout IS NULL FROM loky.executors WHERE $mine"),
	't', 'never is shown as a null');
$pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1), NULL::int)});
for (1 .. 3)
{
	$other->query(q{SELECT loky.result(loky.submit('t.id', 1))});
	poll($other, "SELECT count(*) FROM loky.workers WHERE $mine", 0);
}
is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1), NULL::int)}),
	$pid, 'a worker that never leaves is still there');

# Zero: at once, but what is there is done first.
executor(1, '0');
is( $s->query(
		q{SELECT count(*) FROM loky.wait(loky.submit_all('t.touch',
		  ARRAY(SELECT generate_series(1, 50)))) WHERE state = 'succeeded'}),
	50,
	'timeout zero: all tasks succeed');
is($s->query('SELECT count(*), count(DISTINCT i) FROM t.log'),
	'50|50', 'timeout zero: each ran once');
ok(poll($s, "SELECT count(*) FROM loky.workers WHERE $mine", 0),
	'timeout zero: the worker leaves');
is( $s->query(
		q{SELECT string_agg(r::text, ' ') FROM loky.map('t.id',
		  ARRAY[1,2,3,4,5], NULL::int) r}),
	'1 2 3 4 5', 'timeout zero: a map');
$s->query('TRUNCATE t.log');

# The setting does the same for the default executor.
$other->query("RESET loky.executor; SET loky.timeout = '50 ms'");
$other->query(q{SELECT loky.result(loky.submit('t.id', 1))});
ok( poll(
		$other, q{SELECT count(*) FROM loky.workers JOIN loky.executors
		  USING (executor_id) WHERE timeout = '50 ms'}, 0),
	'loky.timeout is that of an executor without one');

# S30: workers that leave and tasks that come at the same moment.  The pauses are
# the load, nothing waits for their end.
executor(4, '10 ms');
my @futures;
for my $i (1 .. 200)
{
	push @futures, $s->query("SELECT loky.submit('t.touch', $i)");
	usleep(9_000 + $i * 10);
}
my $list = 'ARRAY[' . join(',', @futures) . ']::bigint[]';
is( $s->query("SELECT count(*) FROM loky.wait($list) WHERE state = 'succeeded'"),
	200, 'S30: no task is stranded');
is($s->query('SELECT count(*), count(DISTINCT i) FROM t.log'),
	'200|200', 'S30: each ran once');
my $wrong = 0;
for my $i (1 .. 20)
{
	$wrong++
	  if $s->query(
		q{SELECT string_agg(r::text, ' ') FROM loky.map('t.id',
		  ARRAY[1,2,3,4,5,6,7,8], NULL::int) r}) ne '1 2 3 4 5 6 7 8';
	usleep(8_000 + $i * 200);
}
is($wrong, 0, 'S30: nor a burst of eight');
check_clean($s, 'S30');

# S21: workers leave while the executor is resized.
my @sums;
for my $n (2, 8, 2)
{
	executor($n, '1 ms');
	push @sums, $s->query(
		q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1,2,3,4], NULL::int) r});
	poll($s, "SELECT count(*) FROM loky.workers WHERE $mine", 0);
}
is("@sums", '10 10 10', 'S21: results are right after each resize');
check_clean($s, 'S21');

# S34: shutdown of what is about to leave anyway.
$wrong = 0;
for my $i (1 .. 20)
{
	executor(2, '1 ms');
	$f = $s->query("SELECT loky.submit('t.id', $i)");
	$s->query('SELECT loky.shutdown()');
	$wrong++ if $s->query("SELECT loky.state($f)") ne 'succeeded';
	$wrong++ if $s->query("SELECT loky.result($f)") ne $i;
}
is($wrong, 0, 'S34: all results are there after shutdown');
check_clean($s, 'S34');

$_->quit for $s, $gate, $other;
check_rest($node);
$node->stop;

done_testing();
