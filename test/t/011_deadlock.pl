
# Callers that wait for tasks which wait for them, where the specs cannot go:
# many that wait at the same time, snapshots, and places for workers that run out.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my ($s, $gate, $other, $f);

# Wait until the session waits for loky, and has looked for a deadlock several
# times.
sub patient
{
	my ($session) = @_;
	my $query = 'SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $session->pid;

	return poll($gate, $query, 'Extension') && do
	{
		$gate->query('SELECT pg_sleep(0.9)');
		$gate->query($query) eq 'Extension';
	};
}

# A caller gets 40P01, with a detail that names it and a worker, and a hint.
sub is_deadlock
{
	my ($session, $query, $what) = @_;
	my $pid = $session->pid;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->fails($query), '40P01', "$what: 40P01");
	like(
		$session->messages,
		qr/^DETAIL:  Process $pid waits for .* worker process \d+, .* for process $pid\.\nHINT:  /m,
		"$what: the detail names both, and there is a hint");
	return;
}

# Each of some sessions waits for a task that needs the lock of the next one.  They
# begin, and so look for a deadlock, all at the same time.  One of them gets 40P01;
# with its lock, the others can go on.  So does one more, which waits for a task that
# needs a lock of theirs, and for which nobody waits.
$node->safe_psql('postgres',
	q{CREATE FUNCTION t.together(f bigint) RETURNS text LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM t.gate(100);
		RETURN (SELECT r FROM loky.result(f) r);
	  END$$});
$gate = LokyTest::Session->new($node);
for my $n ((2) x 10, (3) x 5, 6)
{
	my @sessions = map { LokyTest::Session->new($node) } 0 .. $n;
	my (@futures, @outcomes);

	for my $i (0 .. $n)
	{
		$sessions[$i]->query("SELECT loky.get_reusable_executor(8, timeout => '1 h')");
		$sessions[$i]->query('BEGIN');
		$sessions[$i]->query("SELECT pg_advisory_xact_lock($i)");
	}
	# The task of the last one, and that of the one more, need the lock 1.
	for my $i (0 .. $n)
	{
		my $next = $i % $n + 1;

		push @futures, $sessions[$i]->query("SELECT loky.submit('t.gate', $next, 7)");
		at_gate($gate, $next, $i == $n ? 2 : 1);
	}
	$gate->query('SELECT pg_advisory_lock(100)');
	$sessions[$_]->send("SELECT t.together($futures[$_]);\nCOMMIT") for 0 .. $n;
	ok( poll(
			$gate, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
			  AND objid = 100 AND NOT granted}, $n + 1),
		"$n callers and one more are about to wait");
	$gate->query('SELECT pg_advisory_unlock(100)');
	for my $session (@sessions)
	{
		my ($out, $err) = $session->receive;

		push @outcomes, $err =~ /ERROR:  (\w{5}):/ ? $1 : $out;
	}
	is(shift @outcomes, 7, 'the one more gets its result');
	is_deeply([ sort @outcomes ], [ '40P01', (7) x ($n - 1) ],
		"of $n callers in a circle, one gets 40P01");
	is( $gate->query(
			'SELECT count(*) FROM loky.wait(ARRAY[' . join(', ', @futures)
			  . ']) WHERE state = \'succeeded\''),
		$n + 1,
		"$n callers in a circle: all tasks succeed");
	$_->quit for @sessions;
}
$gate->quit;

# Many callers, each of which has a lock that nobody needs, wait for tasks that need
# one lock, each for its own and then all for the same: no error, however often they
# look.
$gate = LokyTest::Session->new($node);
my @many = map { LokyTest::Session->new($node) } 1 .. 10;
$gate->query('SELECT pg_advisory_lock(200)');
for my $i (1 .. 10)
{
	$many[ $i - 1 ]->query("SELECT loky.get_reusable_executor(4, timeout => '3 h')");
	$many[ $i - 1 ]->query('BEGIN');
	$many[ $i - 1 ]->query("SELECT pg_advisory_xact_lock($i)");
}
$f = $gate->query(q{SELECT loky.submit('t.gate', 200, 0)});
for my $i (1 .. 10)
{
	my $own = $many[ $i - 1 ]->query("SELECT loky.submit('t.gate', 200, $i)");

	$many[ $i - 1 ]->send("SELECT loky.result($own, NULL::int) + loky.result($f, NULL::int)");
}
my $waiting = 'SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = \'Extension\' AND pid IN ('
  . join(', ', map { $_->pid } @many) . ')';
ok(poll($gate, $waiting, 10), 'many callers wait');
$gate->query('SELECT pg_sleep(0.9)');
is($gate->query($waiting), 10, 'and look for a deadlock several times');
$gate->query('SELECT pg_advisory_unlock(200)');
is(join(' ', map { $_->answer } @many), join(' ', 1 .. 10), 'all get their results');
$_->quit for @many, $gate;

# A task that many hold up, the caller among them; one who does not may wait for it.
$gate = LokyTest::Session->new($node);
@many = map { LokyTest::Session->new($node) } 1 .. 25;
$_->query('BEGIN; SELECT count(*) FROM t.log') for @many;
my $outsider = LokyTest::Session->new($node);
$f = $outsider->query(q{SELECT loky.submit('LOCK TABLE t.log; SELECT 1')});
ok( poll(
		$gate, q{SELECT count(*) FROM pg_locks WHERE relation = 't.log'::regclass
		  AND NOT granted}, 1),
	'many hold up a task');
$outsider->send("SELECT loky.result($f)");
ok(patient($outsider), 'somebody else waits for it');
is_deadlock($many[-1], "SELECT loky.result($f)", 'one of many');
$_->query('ROLLBACK') for @many;
is($outsider->answer, 1, 'the task goes on without them');
$_->quit for @many, $outsider, $gate;

# The snapshot of the caller: its own statement's, its transaction's, or that of a
# serializable one for which a deferrable one waits.
my $index = 'CREATE INDEX CONCURRENTLY some_i ON t.log (i)';

sub is_built
{
	my ($future, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(poll($s, "SELECT loky.done($future)"),
		"$what: done, as seen by statements of their own");
	is($s->query("SELECT loky.result($future)"), 'CREATE INDEX', "$what: built");
	$s->query('DROP INDEX t.some_i');
	return;
}

sub last_future
{
	return $gate->query('SELECT max(future) FROM loky.tasks');
}

$s = LokyTest::Session->new($node);
$gate = LokyTest::Session->new($node);
$f = $s->query("SELECT loky.submit('$index')");
is_built($f, 'an index');
is_deadlock($s, "SELECT loky.result(loky.submit('$index'))",
	'an index that is waited for in the same statement');
is_built(last_future(), 'an index that was waited for');
$s->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
$s->query('SELECT count(*) FROM t.log');
$f = $s->query("SELECT loky.submit('$index')");
is_deadlock($s, "SELECT * FROM loky.wait(ARRAY[$f])",
	'an index that is waited for in a repeatable read transaction');
$s->query('ROLLBACK');
is_built($f, 'an index that was waited for');
$s->query('BEGIN ISOLATION LEVEL SERIALIZABLE');
$s->query('INSERT INTO t.log (i) VALUES (1)');
$f = $s->query(
	q{SELECT loky.submit('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE;
	  SELECT 7')});
is_deadlock($s, "SELECT loky.result($f)",
	'a deferrable transaction that is waited for in a serializable one');
$s->query('COMMIT');
is($s->query("SELECT loky.result($f)"), 7, 'it goes on after the commit');
$_->quit for $s, $gate;

# Of these places, one is the launcher's and one is that of logical replication.
my %places = (
	'loky.max_total_workers' => "loky.max_total_workers = 2\n",
	'max_worker_processes' =>
	  "loky.max_total_workers = 8\nmax_worker_processes = 4\n");

# Two executors of one role.  The task that is waited for is in the second one,
# which has no worker, since those of the first one take all places.
for my $what (sort keys %places)
{
	$node->append_conf('postgresql.conf', $places{$what});
	$node->restart;
	$s = LokyTest::Session->new($node);
	$gate = LokyTest::Session->new($node);
	$s->query("SELECT loky.get_reusable_executor(1, timeout => '1 h')");
	$other = $s->query('SHOW loky.executor');
	$s->query("SELECT loky.get_reusable_executor(2, timeout => '2 h')");

	# One of the places is to become free, so this is no deadlock.
	$gate->query('SELECT pg_advisory_lock(2)');
	$s->query('BEGIN');
	$s->query('SELECT pg_advisory_xact_lock(1)');
	my $g = $s->query(q{SELECT loky.submit('t.gate', 2, 22)});
	my $w = $s->query(q{SELECT loky.submit('t.gate', 1, 11)});
	at_gate($gate, 1, 1);
	at_gate($gate, 2, 1);
	$s->query("SET LOCAL loky.executor = '$other'");
	$f = $s->query(q{SELECT loky.submit('t.id', 5)});
	$s->send("SELECT loky.result($f)");
	ok(patient($s), "$what: a caller waits for a place that another task holds");
	$gate->query('SELECT pg_advisory_unlock(2)');
	is($s->answer, 5, "$what: and goes on");
	$s->query('COMMIT');
	is( $s->query("SELECT count(*) FROM loky.wait(ARRAY[$g, $w]) WHERE state = 'succeeded'"),
		2,
		"$what: the others succeed");

	# All places are held by tasks that wait for the caller.
	for my $wait (
		'SELECT loky.result(%1$s)',
		"SELECT * FROM loky.wait(ARRAY[%1\$s, %2\$s], return_when => 'FIRST_COMPLETED')",
		q{SELECT loky.map('t.id', ARRAY[1, 2])},
		'SELECT loky.shutdown()')
	{
		$s->query('BEGIN');
		$s->query('SELECT pg_advisory_xact_lock(1)');
		my $all = $s->query(q{SELECT loky.submit_all('t.gate', ARRAY[ROW(1, 1), ROW(1, 2)])});
		at_gate($gate, 1, 2);
		$s->query("SET LOCAL loky.executor = '$other'");
		my @behind = map { $s->query(q{SELECT loky.submit('t.id', 5)}) } 1 .. 2;
		is_deadlock($s, sprintf($wait, @behind), "$what, $wait");
		$s->query('ROLLBACK');
		is( $s->query(
				"SELECT count(*) FROM loky.wait('$all' || ARRAY[$behind[0], $behind[1]])
				 WHERE state = 'succeeded'"),
			4,
			"$what: all go on after the rollback");
	}

	# The same where they are held by workers that are in their initializers.
	$s->query("SELECT loky.get_reusable_executor(2, timeout => '2 h', initializer => 't.gate', initargs => ROW(1, 0))");
	$s->query('BEGIN');
	$s->query('SELECT pg_advisory_xact_lock(1)');
	my $all = $s->query(q{SELECT loky.submit_all('t.id', ARRAY[1, 2])});
	at_gate($gate, 1, 2);
	$s->query("SET LOCAL loky.executor = '$other'");
	$f = $s->query(q{SELECT loky.submit('t.id', 5)});
	is_deadlock($s, "SELECT loky.result($f)", "$what, initializers");
	$s->query('ROLLBACK');
	is($s->query("SELECT count(*) FROM loky.wait('$all' || ARRAY[$f]) WHERE state = 'succeeded'"),
		3, "$what: all go on after the rollback");
	$_->quit for $s, $gate;
}

# A parallel query holds a place, and will leave.
$s = LokyTest::Session->new($node);
$gate = LokyTest::Session->new($node);
my $m = LokyTest::Session->new($node);
$s->query(
	q{CREATE FUNCTION t.parallel_gate(i int) RETURNS int LANGUAGE plpgsql
		PARALLEL SAFE AS $$
	  BEGIN
		PERFORM pg_advisory_lock_shared(4);
		RETURN i;
	  END$$;
	  CREATE TABLE t.some AS SELECT i FROM generate_series(1, 1000) i;
	  ALTER TABLE t.some SET (parallel_workers = 1);
	  ANALYZE t.some});
$m->query(
	q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
	  SET min_parallel_table_scan_size = 0; SET max_parallel_workers = 1;
	  SET max_parallel_workers_per_gather = 1});
$s->query("SELECT loky.get_reusable_executor(1, timeout => '1 h')");
$other = $s->query('SHOW loky.executor');
$s->query("SELECT loky.get_reusable_executor(1, timeout => '2 h')");
$s->query('SELECT pg_terminate_backend(pid) FROM loky.workers');
ok(poll($s, 'SELECT count(*) FROM loky.workers', 0), 'no worker is there');
$gate->query('SELECT pg_advisory_lock(4)');
$m->send('SELECT count(t.parallel_gate(i)) FROM t.some');
ok( poll(
		$s, q{SELECT count(*) FROM pg_stat_activity
		  WHERE backend_type = 'parallel worker' AND wait_event = 'advisory'}, 1),
	'a parallel query holds a place');
$s->query('BEGIN');
$s->query('SELECT pg_advisory_xact_lock(1)');
my $w = $s->query(q{SELECT loky.submit('t.gate', 1, 11)});
at_gate($gate, 1, 1);
$s->query("SET LOCAL loky.executor = '$other'");
$f = $s->query(q{SELECT loky.submit('t.id', 5)});
$s->send("SELECT loky.result($f)");
ok(patient($s), 'a caller waits for a place that a parallel query holds');
$gate->query('SELECT pg_advisory_unlock(4)');
is($s->answer, 5, 'and goes on');
is($m->answer, 1000, 'so does the query');
$s->query('COMMIT');
is($s->query("SELECT loky.result($w)"), 11, 'and the other task');

$_->quit for $s, $gate, $m;
check_rest($node);
$node->stop;

done_testing();
