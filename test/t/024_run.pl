
# run, from all sides: whatever becomes of the caller, its task ends with it, before
# control returns where it returns, and leaves neither a future nor memory.  And
# as_completed for those who cease to listen.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Few places, so that all can be taken.
my $places = 64;
my $node = loky_node(conf => "loky.max_tasks = $places\nloky.result_ttl = '1 h'\n");
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $caller;
my $run = q{loky.run('t.touch_gate', ROW(1, 5), NULL::int)};

sub new_caller
{
	$caller = LokyTest::Session->new($node);
	$caller->executor(2);
	return;
}

# At this very moment nothing runs, and there is no future.
sub nothing_left
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $s->query(
			q{SELECT (SELECT count(*) FROM loky.workers WHERE state NOT IN ('idle', 'stopping')),
			  (SELECT count(*) FROM pg_stat_activity
			   WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL),
			  (SELECT count(*) FROM t.log), (SELECT count(*) FROM loky.tasks)}),
		'0|0|0|0',
		"$what: nothing runs, nothing is left");
	return;
}

# The same a little later, where nobody gets control back.
sub nothing_left_soon
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok( poll(
			$s, q{SELECT (SELECT count(*) FROM loky.workers WHERE state = 'busy') +
			  (SELECT count(*) FROM pg_stat_activity
			   WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL) +
			  (SELECT count(*) FROM t.log) + (SELECT count(*) FROM loky.tasks)}, 0),
		"$what: the task is cancelled, and nothing is left");
	return;
}

# Wait until the session waits for loky.
sub waits
{
	my ($session, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok( poll(
			$s, 'SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $session->pid
			  . " AND state = 'active' AND wait_event_type = 'Extension'", 1),
		$what);
	return;
}

$s->executor(2);
$gate->query('SELECT pg_advisory_lock(1)');

# Cancelled, or past a timeout: the worker has ended the task before the caller goes on.
for my $query (
	"SELECT $run",
	"SELECT * FROM $run",
	"DO 'BEGIN PERFORM " . ($run =~ s/'/''/gr) . "; END'",
	"SELECT loky.run('SELECT loky.run(''t.touch_gate'', ROW(1, 6))')",
	"SELECT * FROM loky.run('t.touch_gate', ROW(1, 7), timeout => '1 h')")
{
	new_caller();
	$caller->send($query);
	at_gate($s, 1, 1);
	$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
	is($caller->failure, '57014', "cancelled: $query");
	nothing_left('cancel');
	is($caller->fails("SET statement_timeout = '300 ms'; $query"), '57014', 'it times out');
	nothing_left_soon('statement_timeout');
	$caller->quit;
}
new_caller();
$caller->query('SELECT ' . ($run =~ s/1, 5/2, 5/r));
$s->query('TRUNCATE t.log');
is($caller->fails('SELECT ' . ($run =~ s/NULL::int/NULL::int, '300 ms'/r)),
	'LK004', 'past its own timeout');
nothing_left('timeout');
is($caller->query('SELECT 1'), 1, 'the session goes on');

# The caller catches the cancel: also then the task has ended before.
$caller->send(
	qq{DO \$\$
	DECLARE
		busy int;
	BEGIN
		PERFORM $run;
	EXCEPTION WHEN query_canceled THEN
		SELECT count(*) INTO busy FROM pg_stat_activity
		WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL;
		RAISE NOTICE 'in transactions: %, futures: %', busy, (SELECT count(*) FROM loky.tasks);
	END\$\$});
at_gate($s, 1, 1);
$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
$caller->answer;
like($caller->messages, qr/in transactions: 0, futures: 0$/m, 'a cancel that is caught');

# Terminated, without a client, interrupted by its user.
$caller->send("SELECT $run");
at_gate($s, 1, 1);
$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
like($caller->await_end, qr/57P01/, 'a caller is terminated');
nothing_left_soon('terminate');

new_caller();
$caller->query("SET client_connection_check_interval = '50 ms'");
$caller->send("SELECT $run");
at_gate($s, 1, 1);
$caller->kill;
nothing_left_soon('disconnect');

new_caller();
$caller->send("SELECT $run");
at_gate($s, 1, 1);
kill 'INT', $caller->psql_pid;
like($caller->await_end, qr/57014/, 'Ctrl-C in psql');
nothing_left_soon('Ctrl-C');

# The worker is terminated, that of an outer run too, which takes the inner one along.
new_caller();
$caller->send("SELECT $run");
at_gate($s, 1, 1);
$s->query(q{SELECT pg_terminate_backend(worker) FROM loky.tasks});
is($caller->failure, 'LK001', 'the worker is terminated');
nothing_left_soon('a dead worker');
$caller->send("SELECT loky.run('SELECT loky.run(''t.touch_gate'', ROW(1, 8))')");
at_gate($s, 1, 1);
$s->query(q{SELECT pg_terminate_backend(worker) FROM loky.tasks ORDER BY future LIMIT 1});
is($caller->failure, 'LK001', 'the worker of an outer run is terminated');
nothing_left_soon('a dead outer worker');

# Its future can be seen, and cancelled, by others.
$caller->send("SELECT $run");
at_gate($s, 1, 1);
is($s->query('SELECT loky.cancel(future, true) FROM loky.tasks'), 't', 'others may cancel it');
is($caller->failure, 'LK007', 'then the caller is told');
nothing_left('cancelled by another');

# A worker that is deaf to a cancel is let go; its task goes with its end, whichever.
$s->query(
	q{CREATE FUNCTION t.deaf(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		LOOP
			BEGIN
				PERFORM t.gate(1);
				RETURN x;
			EXCEPTION WHEN query_canceled THEN
				NULL;
			END;
		END LOOP;
	  END$$});
for my $end ('the gate opens', 'it is terminated')
{
	my $offset = log_end($node);

	$caller->send("SELECT loky.run('t.deaf', ROW(1))");
	at_gate($s, 1, 1);
	$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
	is($caller->failure, '57014', 'a caller gets control back from a deaf worker');
	like(log_since($node, $offset), qr/LOG:  .*did not answer/, 'the log tells of it');
	is($s->query('SELECT state FROM loky.tasks'), 'running', 'the task still runs');
	is($caller->query('SELECT ' . ($run =~ s/1, 5/2, 5/r)), 5, 'the pool goes on');
	$s->query('TRUNCATE t.log');
	if ($end eq 'the gate opens')
	{
		$gate->query('SELECT pg_advisory_unlock(1)');
	}
	else
	{
		$s->query('SELECT pg_terminate_backend(worker) FROM loky.tasks');
	}
	nothing_left_soon("after a deaf worker, as $end");
	$gate->query('SELECT pg_advisory_lock(1)') if $end eq 'the gate opens';
}
$gate->query('SELECT pg_advisory_unlock(1)');
check_clean($caller, 'after cancels');

# What is read no further is freed, in memory and in files.
my $rows = q{loky.run('SELECT repeat(md5(i::text), 100) FROM generate_series(1, 50000) i')};
my $used = $caller->query('SELECT loky._memory_used()');
is($caller->query("SELECT length($rows) LIMIT 1"), 3200, 'LIMIT 1 of many rows');
nothing_left('LIMIT');
is($caller->query("BEGIN; DECLARE c CURSOR FOR SELECT length($rows); FETCH c"),
	3200, 'a cursor');
ok(temp_files($node) > 0, 'its rows are in a file too');
$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
$caller->send('FETCH c');
like($caller->await_end, qr/57P01/, 'the session ends');
nothing_left_soon('end of a session that reads');
new_caller();
$caller->query('SELECT ' . ($run =~ s/1, 5/2, 5/r));
$s->query('TRUNCATE t.log');
is(scalar(grep { -f $_ } temp_files($node)), 0, 'and so are the files');
ok( poll($s, "SELECT loky._memory_used() <= $used"), 'no memory is left');

# Again and again, in all ways to end: exactly what was there before is there.
$s->query(
	q{CREATE FUNCTION t.runs(n int) RETURNS int LANGUAGE plpgsql AS $$
	  DECLARE
		failed int := 0;
	  BEGIN
		FOR i IN 1 .. n LOOP
			BEGIN
				PERFORM loky.run('SELECT $1 / ($2 % 3), repeat(''x'', $2)', ROW(i, i), NULL::jsonb);
				PERFORM loky.run('SELECT generate_series(1, $1)', ROW(i)) LIMIT 1;
				PERFORM loky.run('SELECT pg_sleep(1)', timeout => '0') WHERE i % 10 = 1;
			EXCEPTION WHEN division_by_zero OR SQLSTATE 'LK004' THEN
				failed := failed + 1;
			END;
		END LOOP;
		RETURN failed;
	  END$$});
$caller->query('SELECT t.runs(30)');
$used = $caller->query('SELECT loky._memory_used()');
is($caller->query('SELECT t.runs(900)'), 300 + 60, 'runs that end in all ways');
is($caller->query('SELECT loky._memory_used()'), $used, 'leave no memory behind');
nothing_left('many runs');

# It takes one place, and needs one.
$gate->query('SELECT pg_advisory_lock(1)');
my $all = $s->query(
	"SELECT loky.submit_all('t.gate', array_agg(ROW(1, i))) FROM generate_series(1, $places - 1) i");
at_gate($s, 1, 2);
$caller->executor(1, q{timeout => '1 h'});
$caller->send("SELECT $run");
at_gate($s, 1, 3);
is($s->fails(q{SELECT loky.run('SELECT 1')}), 'LK008', 'no place for another one');
is($s->query("SELECT count(*) FROM loky.tasks"), $places, 'all are taken');
$gate->query('SELECT pg_advisory_unlock(1)');
is($caller->answer, 5, 'it ends');
is($s->query("SELECT count(loky.state(f)) FROM loky.as_completed('$all') f"),
	$places - 1, 'and so do the others');
# a run that is being read is no future to make room, as one that is finished is
is($caller->query(q{BEGIN; DECLARE c CURSOR FOR SELECT loky.run('SELECT generate_series(1, 3)'); FETCH c}),
	1, 'a run is being read');
$s->query("SELECT count(*) FROM loky.wait(loky.submit_all('t.id', ARRAY(SELECT generate_series(1, $places - 1))))")
  for 1 .. 2;
is($caller->query('FETCH ALL FROM c; COMMIT'), "2\n3", 'and is read to its end');
$s->query('SELECT count(*) FROM loky.wait(ARRAY(SELECT future FROM loky.tasks))');
$s->query('SELECT count(loky.forget(future)) FROM loky.tasks');
$s->query('TRUNCATE t.log');
nothing_left('all places');

# as_completed: its tasks go on, whatever becomes of who waits for them.
$gate->query('SELECT pg_advisory_lock(1)');
$s->executor(2);
my $futures = $s->query(q{SELECT loky.submit_all('t.gate', ARRAY[ROW(2, 1), ROW(1, 2)])});
my $completed = "loky.as_completed('$futures')";
for my $query ("SELECT $completed", "SELECT count(*) FROM $completed")
{
	$caller->send($query);
	waits($caller, "a caller waits: $query");
	$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
	is($caller->failure, '57014', 'and is cancelled');
	is($caller->fails("SET statement_timeout = '50 ms'; $query"), '57014', 'and times out');
	$caller->query('RESET statement_timeout');
	is($caller->fails($query =~ s/\)$/, '50 ms')/r), 'LK004', 'also by its own timeout');
}
$caller->send("SELECT $completed");
waits($caller, 'a caller waits once more');
$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
like($caller->await_end, qr/57P01/, 'and is terminated');
is($s->query("SELECT loky.state(max(f)) FROM unnest('$futures'::bigint[]) f"),
	'running', 'the task goes on');

# Two sessions at a time: each gets every future, as it ends.
new_caller();
my $other = LokyTest::Session->new($node);
for my $session ($caller, $other)
{
	$session->query("BEGIN; DECLARE c CURSOR FOR SELECT $completed");
	is($session->query('FETCH c'), $futures =~ s/^.(\d+),.*$/$1/r, 'the one that is done');
	$session->send('FETCH ALL FROM c');
	waits($session, 'waits for the other one');
}
$gate->query('SELECT pg_advisory_unlock(1)');
is($_->answer, $futures =~ s/^.*,(\d+).$/$1/r, 'and gets it') for $caller, $other;
$_->query('COMMIT') for $caller, $other;
$other->quit;
$gate->query('SELECT pg_advisory_lock(1)');
$futures = $s->query(q{SELECT loky.submit_all('t.gate', ARRAY[ROW(2, 1), ROW(1, 2)])});
$completed = "loky.as_completed('$futures')";

# The place of one that was forgotten is taken by others, which still run: it counts
# as done nonetheless.
new_caller();
is( $caller->query("BEGIN; DECLARE c CURSOR FOR SELECT f = ANY ('$futures') FROM (SELECT $completed f) x; FETCH c"),
	't', 'the first one is done');
$gate->query('SELECT pg_advisory_unlock(1)');
$s->query("SELECT count(*) FROM loky.wait('$futures')");
$s->query("SELECT loky.forget(f) FROM unnest('$futures'::bigint[]) f");
$gate->query('SELECT pg_advisory_lock(1)');
$all = $s->query(
	"SELECT loky.submit_all('t.gate', array_agg(ROW(1, i))) FROM generate_series(1, $places) i");
at_gate($s, 1, 2);
is($caller->query('FETCH ALL FROM c; COMMIT'), 't', 'one that is gone is done');
$gate->query('SELECT pg_advisory_unlock(1)');
is($caller->query("SELECT count(*), count(DISTINCT f) FROM loky.as_completed('$all') f"),
	"$places|$places", 'all places at once');

# In a task that is cancelled while it waits.
$gate->query('SELECT pg_advisory_lock(1)');
$s->query('SELECT count(loky.forget(future)) FROM loky.tasks');
$s->executor(1);
my $outer = $s->query(
	q{SELECT loky.submit('SELECT loky.as_completed(ARRAY[loky.submit(''t.gate'', 1)])')});
at_gate($s, 1, 1);
is($s->query(q{SELECT count(*) FROM loky.workers WHERE state = 'waiting'}),
	1, 'a worker that waits steps aside');
$s->query("SELECT loky.cancel($outer, true)");
is($s->query("SELECT t.outcome($outer)"), 'LK007', 'it is cancelled');
ok( poll($s, q{SELECT count(*) FROM loky.tasks WHERE state <> 'cancelled'}, 0),
	'and the inner one with it');
$gate->query('SELECT pg_advisory_unlock(1)');

$_->quit for $s, $gate, $caller;
check_rest($node);
$node->stop;

done_testing();
