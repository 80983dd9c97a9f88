
# Tasks that submit tasks.  One that is cancelled, or whose worker ends, takes
# with it what it has submitted and what is not yet done, and so on down; so does
# an item of a map that is cancelled.  One that succeeds or fails takes nothing.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $caller = LokyTest::Session->new($node);
my $family = 0;
my ($f, $kids, $pid, $side);

# Outer tasks stand at gate 1, or go through gate 9, which is always open; inner
# ones stand at gate 2.  Where nothing else is said, inner tasks leave a row in
# t.log and run in the executor of the outer one.
$s->query(
	q{CREATE FUNCTION t.sow(label text, n int, executor int DEFAULT NULL)
	  RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM loky.submit_all('t.touch_gate',
			ARRAY(SELECT ROW(2, i) FROM generate_series(1, n) i),
			label => label, executor => executor);
		RETURN n;
	  END$$;
	  CREATE FUNCTION t.outer(own int, label text, n int, executor int DEFAULT NULL)
	  RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM t.sow(label, n, executor);
		RETURN t.gate(own, n);
	  END$$;
	  CREATE FUNCTION t.undone(own int, label text, n int) RETURNS int
	  LANGUAGE plpgsql AS $$
	  BEGIN
		BEGIN
			PERFORM t.sow(label, n);
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
		RETURN t.gate(own, n);
	  END$$;
	  CREATE FUNCTION t.stubborn(own int, label text) RETURNS int
	  LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM t.sow(label, 1);
		BEGIN
			PERFORM t.gate(own);
		EXCEPTION WHEN query_canceled THEN
			PERFORM t.sow(label, 2);
		END;
		RETURN 1;
	  END$$;
	  CREATE FUNCTION t.failing(own int, label text, n int, executor int DEFAULT NULL)
	  RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM t.sow(label, n, executor), t.gate(own);
		RAISE EXCEPTION SQLSTATE 'XY003';
	  END$$;
	  CREATE FUNCTION t.chain(own int, label text, level int) RETURNS int
	  LANGUAGE plpgsql AS $$
	  BEGIN
		IF level > 1 THEN
			PERFORM loky.submit_all('t.chain', ARRAY[ROW(own, label, level - 1)],
				label => label || ' ' || level);
		END IF;
		PERFORM t.sow(label || ' ' || level, 1);
		RETURN t.gate(own);
	  END$$;
	  CREATE FUNCTION t.down(own int, label text, level int) RETURNS int
	  LANGUAGE plpgsql AS $$
	  DECLARE
		f bigint[];
	  BEGIN
		IF level = 1 THEN
			RETURN t.gate(own, 1);
		END IF;
		f := loky.submit_all('t.down', ARRAY[ROW(own, label, level - 1)],
			label => label || ' ' || level);
		RETURN (SELECT r FROM loky.result(f[1], NULL::int) r);
	  END$$});

# The session's executor has so many workers; with a second number there is
# another one, in $side.
sub size
{
	my ($session, $n, $m) = @_;

	$side = $session->query("SELECT loky.get_reusable_executor($m, timeout => '2 h')")
	  if defined $m;
	return $session->query("SELECT loky.get_reusable_executor($n, timeout => '1 h')");
}

# A new family: both gates are shut, its label is new.
sub begin
{
	$gate->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
	return 'family ' . ++$family;
}

sub open_gate
{
	my ($k) = @_;
	is($gate->query("SELECT pg_advisory_unlock($k)"), 't', 'the gate was shut');
	return;
}

# States of the tasks with this label, or one that begins so, counted.
sub states
{
	my ($label) = @_;

	return $s->query(
		qq{SELECT string_agg(concat_ws(' ', n, state, sqlstate), ', ' ORDER BY state, sqlstate)
		   FROM (SELECT count(*) n, state, sqlstate FROM loky.tasks
				 WHERE label LIKE '$label%' GROUP BY 2, 3) x});
}

# The same once all of them are done.
sub outcomes
{
	my ($label) = @_;

	$s->query(
		qq{SELECT count(*) FROM loky.wait(ARRAY(SELECT future FROM loky.tasks
		   WHERE label LIKE '$label%'))});
	return states($label);
}

# How the future ends: its state and SQLSTATE.
sub outcome
{
	my ($f) = @_;

	$s->query("SELECT count(*) FROM loky.wait(ARRAY[$f])");
	return $s->query(
		"SELECT concat_ws(' ', state, sqlstate) FROM loky.tasks WHERE future = $f");
}

sub cancel
{
	my ($f) = @_;
	return $s->query("SELECT loky.cancel($f, running => true)");
}

sub terminate
{
	my ($f) = @_;
	return $s->query('SELECT pg_terminate_backend(' . pid_of($s, $f) . ')');
}

# How many rows inner tasks have left.
sub logged
{
	my $n = $s->query('SELECT count(*) FROM t.log');

	$s->query('TRUNCATE t.log');
	return $n;
}

# The gates are opened; nothing is left that went through.
sub nothing_left
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	open_gate(1);
	open_gate(2);
	check_idle($node, $what);
	is(logged(), 0, "$what: no inner task has done anything");
	return;
}

# A cancelled task, and one whose worker ends.
for my $way ([ 'cancelled', \&cancel, 'cancelled' ],
	[ 'terminated', \&terminate, 'failed LK001' ])
{
	my ($how, $end, $expected) = @$way;

	# All inner tasks are pending, and never begin.
	size($s, 1);
	$kids = begin();
	$f = $s->query("SELECT loky.submit('t.outer', 1, '$kids', 3)");
	at_gate($s, 1, 1);
	is(states($kids), '3 pending', "$how, one worker: the inner tasks wait");
	is($end->($f), 't', "$how, one worker");
	is(outcome($f), $expected, "$how, one worker: the outer task ends");
	is(states($kids), '3 cancelled', 'the inner ones have been cancelled before');
	is( $s->query(
			qq{SELECT string_agg(DISTINCT t.outcome(future), ' ') FROM loky.tasks
			   WHERE label = '$kids'}),
		'LK007',
		'their results: LK007');
	nothing_left("$how, one worker");

	# One of them runs, somebody waits for it.
	size($s, 2);
	$kids = begin();
	$f = $s->query("SELECT loky.submit('t.outer', 1, '$kids', 3)");
	at_gate($s, 1, 1);
	at_gate($s, 2, 1);
	$caller->send(
		qq{SELECT * FROM loky.result((SELECT future FROM loky.tasks
		   WHERE label = '$kids' AND state = 'running'))});
	ok( poll(
			$s,
			'SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $caller->pid,
			'Extension'),
		'a session waits for an inner task that runs');
	$end->($f);
	is(outcome($f), $expected, "$how, two workers: the outer task ends");
	unlike(states($kids), qr/pending/, 'no inner one is pending any more');
	is($caller->failure, 'LK007', 'who waits for the running one gets LK007');
	is(outcomes($kids), '3 cancelled', 'all are cancelled');
	nothing_left("$how, two workers");

	# Inner tasks in another executor.
	size($s, 1, 2);
	$kids = begin();
	$f = $s->query("SELECT loky.submit('t.outer', 1, '$kids', 3, $side)");
	at_gate($s, 1, 1);
	at_gate($s, 2, 2);
	$end->($f);
	is(outcome($f), $expected, "$how, another executor: the outer task ends");
	is(outcomes($kids), '3 cancelled', 'the inner ones in another executor too');
	nothing_left("$how, another executor");

	# Submitted in a subtransaction that was undone: it stays submitted.
	size($s, 1);
	$kids = begin();
	$f = $s->query("SELECT loky.submit('t.undone', 1, '$kids', 2)");
	at_gate($s, 1, 1);
	is(states($kids), '2 pending', "$how, subtransaction: its tasks wait");
	$end->($f);
	is(outcome($f), $expected, "$how, subtransaction: the outer task ends");
	is(states($kids), '2 cancelled', 'and those that it has submitted');
	nothing_left("$how, subtransaction");

	# Three levels, of which each submits more than the next one.
	size($s, 4);
	$kids = begin();
	$f = $s->query("SELECT loky.submit('t.chain', 1, '$kids', 3)");
	ok( poll(
			$s, "SELECT count(*) FROM loky.tasks WHERE label LIKE '$kids%'", 5),
		"$how, three levels: all are submitted");
	ok( poll(
			$s, q{SELECT count(*) FROM pg_locks
			WHERE locktype = 'advisory' AND objid IN (1, 2) AND NOT granted}, 4),
		"$how, three levels: four tasks run");
	$end->($f);
	is(outcome($f), $expected, "$how, three levels: the outermost task ends");
	is(outcomes($kids), '5 cancelled', 'and all below');
	nothing_left("$how, three levels");

	# Each waits for the next one, on one worker.
	size($s, 1);
	$kids = begin();
	$f = $s->query("SELECT loky.submit('t.down', 1, '$kids', 3)");
	at_gate($s, 1, 1);
	$end->($f);
	is(outcome($f), $expected, "$how, waiting: the outermost task ends");
	is(outcomes($kids), '2 cancelled', 'and all below');
	nothing_left("$how, waiting");

	# An inner map goes by the hand of its reader, and takes with it what its
	# items have submitted.
	size($s, 3, 1);
	$kids = begin();
	$f = $s->query(
		qq{SELECT loky.submit(\$\$SELECT count(*) FROM loky.map('t.outer',
		   ARRAY(SELECT ROW(1, '$kids', 1, $side) FROM generate_series(1, 4)),
		   NULL::int)\$\$)});
	at_gate($s, 1, 3);
	at_gate($s, 2, 1);
	$end->($f);
	is(outcome($f), $expected, "$how, an inner map: the outer task ends");
	ok( poll(
			$s, q{SELECT count(*) FROM loky.workers
			WHERE executor_id = current_setting('loky.executor')::int
			AND state NOT IN ('idle', 'stopping')}, 0),
		'the workers of the map are free');
	is(outcomes($kids), '3 cancelled', 'what its items have submitted goes too');
	nothing_left("$how, an inner map");
}

# One that catches its cancel and submits more ends as cancelled all the same.
size($s, 1);
$kids = begin();
$f = $s->query("SELECT loky.submit('t.stubborn', 1, '$kids')");
at_gate($s, 1, 1);
cancel($f);
is(outcome($f), 'cancelled', 'a cancel that is caught cancels the task');
is(states($kids), '3 cancelled', 'and what was submitted before and after');
nothing_left('a cancel that is caught');

# A map that is not wanted any more stays so where its executor breaks before its item
# has ended, as another worker's initializer fails.
$s->query(
	q{CREATE SEQUENCE t.starts;
	  CREATE FUNCTION t.lingering(label text, executor int) RETURNS int
	  LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM t.sow(label, 1, executor), t.gate(1);
	  EXCEPTION WHEN query_canceled THEN
		PERFORM t.gate(3);
		RAISE;
	  END$$});
size($s, 1, 1);
$kids = begin();
$gate->query('SELECT pg_advisory_lock(3)');
my $ahead = $s->query("SELECT loky.submit_all('t.gate', ARRAY[ROW(2, 1)], executor => $side)");
at_gate($s, 2, 1);
my $breaking = $caller->query(
	q{SELECT loky.get_reusable_executor(2, timeout => '1 h',
		initializer => 'SELECT 1 / (2 - nextval(''t.starts''))')});
$caller->send("SELECT loky.map('t.lingering', ARRAY[ROW('$kids'::text, $side)], NULL::int)");
at_gate($s, 1, 1);
$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
at_gate($s, 3, 1);
$f = $s->query("SELECT (loky.submit_all('t.id', ARRAY[1], executor => $breaking))[1]");
is(outcome($f), 'failed LK002', 'an executor breaks after its map is cancelled');
is(states($kids), '1 pending', 'whose item still runs');
open_gate(3);
is($caller->failure, '57014', 'its caller gets control back');
ok( poll(
		$s, q{SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND objid = 3 AND backend_type = 'loky worker'}, 0),
	'once the item has ended');
is(states($kids), '1 cancelled', 'and what that had submitted is cancelled');
nothing_left('a map that is not wanted');
is($s->outcomes($ahead), '1 succeeded', 'what another submitted is not');

# The middle of three that wait for each other is cancelled: the first one fails
# for that, which is an error as any other.
size($s, 2);
$kids = begin();
$f = $s->query(
	qq{SELECT loky.submit(\$\$SELECT t.sow('$kids other', 1), t.down(1, '$kids down', 3)\$\$)});
at_gate($s, 1, 1);
cancel($s->query("SELECT future FROM loky.tasks WHERE label = '$kids down 3'"));
is(outcome($f), 'failed LK007', 'the middle is cancelled: the first one fails');
is(outcomes("$kids down"), '2 cancelled', 'the last one goes with the middle');
at_gate($s, 2, 1);
is(states("$kids other"), '1 running', 'what the first one has submitted goes on');
open_gate(1);
open_gate(2);
is(outcomes("$kids other"), '1 succeeded', 'and succeeds');
is(logged(), 1, 'once');

# Workers that are ended on purpose.  What they run fails with LK003, inner or
# outer; inner tasks that are pending or run elsewhere are cancelled, others run.
size($s, 2, 1);
for my $way (
	[
		'kill_workers',
		q{SELECT loky.get_reusable_executor(2, timeout => '1 h', kill_workers => true)},
		'succeeded'
	],
	[ 'shutdown', 'SELECT loky.shutdown(kill_workers => true)', 'cancelled' ])
{
	my ($how, $end, $expected) = @$way;

	$kids = begin();
	$f = $s->query(
		qq{SELECT loky.submit(\$\$SELECT t.sow('$kids here', 3),
		   t.sow('$kids there', 2, $side), t.gate(1)\$\$)});
	at_gate($s, 1, 1);
	at_gate($s, 2, 2);
	my $other = $s->query(q{SELECT loky.submit('t.id', 1)});
	is(states("$kids here"), '2 pending, 1 running', "$how: inner tasks here");
	is(states("$kids there"), '1 pending, 1 running', "$how: and there");
	$s->query($end);
	is(outcome($f), 'failed LK003', "$how: the outer task fails");
	is(outcomes("$kids here"),
		'2 cancelled, 1 failed LK003', "$how: the inner ones here");
	is(outcomes("$kids there"), '2 cancelled', "$how: those of another executor");
	is(outcome($other), $expected, "$how: others, not inner ones");
	nothing_left($how);
}

# Whatever else an outer task ends with leaves its inner ones alone.
size($s, 2);
for my $way (
	[ 'success', 'outer', sub { }, 'succeeded' ],
	[ 'failure', 'failing', sub { }, 'failed XY003' ],
	[
		'pg_cancel_backend',
		'outer',
		sub { $s->query('SELECT pg_cancel_backend(' . pid_of($s, $f) . ')') },
		'failed 57014'
	])
{
	my ($how, $task, $end, $expected) = @$way;

	$kids = begin();
	$f = $s->query("SELECT loky.submit('t.$task', 1, '$kids', 3)");
	at_gate($s, 1, 1);
	at_gate($s, 2, 1);
	$end->();
	open_gate(1);
	is(outcome($f), $expected, "$how: the outer task ends");
	at_gate($s, 2, 2);
	is(states($kids), '1 pending, 2 running', "$how: the inner ones go on");
	open_gate(2);
	is(outcomes($kids), '3 succeeded', "$how: and succeed");
	is(logged(), 3, "$how: once each");
}

# What befalls a worker's later tasks does not touch what its earlier ones have
# submitted.
size($s, 1, 4);
$kids = begin();
$f = $s->query("SELECT loky.submit('t.outer', 9, '$kids first', 2, $side)");
is(outcome($f), 'succeeded', 'an outer task succeeds');
$pid = pid_of($s, $f);
for my $task ("'t.gate', 1", "'t.outer', 1, '$kids second', 2, $side")
{
	$f = $s->query("SELECT loky.submit($task)");
	at_gate($s, 1, 1);
	is(pid_of($s, $f), $pid, 'another one runs in the same worker');
	cancel($f);
	is(outcome($f), 'cancelled', 'and is cancelled');
}
$f = $s->query("SELECT loky.submit('t.gate', 1)");
at_gate($s, 1, 1);
is(pid_of($s, $f), $pid, 'a third one too');
terminate($f);
is(outcome($f), 'failed LK001', 'until the worker is terminated');
is(outcomes("$kids second"), '2 cancelled', 'the second one took its own');
at_gate($s, 2, 2);
is(states("$kids first"), '2 running', 'those of the first one still run');
open_gate(1);
open_gate(2);
is(outcomes("$kids first"), '2 succeeded', 'and succeed');
is(logged(), 2, 'once each');

# Nor does the end of a worker that rests.
$kids = begin();
$f = $s->query("SELECT loky.submit('t.outer', 9, '$kids', 2, $side)");
is(outcome($f), 'succeeded', 'an outer task succeeds');
$pid = pid_of($s, $f);
at_gate($s, 2, 2);
ok(poll($s, "SELECT state FROM loky.workers WHERE pid = $pid", 'idle'),
	'its worker rests');
$s->query("SELECT pg_terminate_backend($pid)");
ok(poll($s, "SELECT count(*) FROM loky.workers WHERE pid = $pid", 0),
	'and is terminated');
is(states($kids), '2 running', 'the inner ones go on');
open_gate(1);
open_gate(2);
is(outcomes($kids), '2 succeeded', 'and succeed');
is(logged(), 2, 'once each');

# A map's items: those that a cancel finds running take their own, those that
# are done do not; neither where one worker ran both.
sub items
{
	my ($map) = @_;

	return qq{$map('t.outer', ARRAY[ROW(9, '$kids done', 2, $side),
		ROW(1, '$kids runs', 2, $side), ROW(1, '$kids runs', 2, $side)], NULL::int};
}

for my $n (1, 2)
{
	my $running = $n == 1 ? 2 : 4;

	for my $way (
		[ 'a closed cursor', sub { $caller->query('CLOSE c; COMMIT') } ],
		[
			'a cancelled caller',
			sub {
				$caller->send('FETCH c');
				ok( poll(
						$s,
						'SELECT wait_event_type FROM pg_stat_activity WHERE pid = '
						  . $caller->pid,
						'Extension'),
					'the caller waits');
				$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
				is($caller->failure, '57014', 'and is cancelled');
				$caller->query('ROLLBACK');
			}
		],
		[
			'a session that ends',
			sub {
				$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
				$caller->await_end;
				$caller = LokyTest::Session->new($node);
			}
		])
	{
		my ($how, $end) = @$way;

		size($caller, $n, 1);
		$kids = begin();
		$caller->query('BEGIN; DECLARE c CURSOR FOR SELECT ' . items('loky.map') . ')');
		is($caller->query('FETCH c'), 2, "$how, $n workers: the first item is done");
		at_gate($s, 1, $n);
		$end->();
		is(outcomes("$kids runs"),
			"$running cancelled", "$how, $n workers: what items that ran have submitted");
		at_gate($s, 2, 1);
		is(states("$kids done"),
			'1 pending, 1 running', 'what one that was done has, goes on');
		open_gate(1);
		open_gate(2);
		is(outcomes("$kids done"), '2 succeeded', 'and succeeds');
		is(logged(), 2, 'once each');
	}
}

# LIMIT; the first item ends when the others stand at their gate.
size($caller, 3, 1);
$kids = begin();
$gate->query('SELECT pg_advisory_lock(9)');
$caller->send('SELECT ' . items('loky.map') . ') LIMIT 1');
at_gate($s, 1, 2);
at_gate($s, 9, 1);
$gate->query('SELECT pg_advisory_unlock(9)');
is($caller->answer, 2, 'a LIMIT ends the map');
unlike(states("$kids runs"), qr/pending/, 'when it returns, nothing of the items waits');
is(outcomes("$kids runs"), '4 cancelled', 'what they have submitted is cancelled');
open_gate(1);
open_gate(2);
is(outcomes("$kids done"), '2 succeeded', 'but not that of the first one');
is(logged(), 2, 'which runs once');

# Items of a chunk share a transaction, and so what they have submitted.
size($caller, 1, 1);
$kids = begin();
$caller->send('SELECT count(*) FROM ' . items('loky.map') . ', chunksize => 2)');
at_gate($s, 1, 1);
at_gate($s, 2, 1);
is(states($kids), '3 pending, 1 running', 'two items of a chunk have submitted');
$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
is($caller->failure, '57014', 'the map is cancelled');
is(outcomes($kids), '4 cancelled', 'what the whole chunk has submitted goes');
nothing_left('a chunk');

# An item that fails, and one whose worker ends.
size($caller, 2, 4);
$kids = begin();
$caller->send(
	qq{SELECT string_agg(concat_ws(' ', ord, ok, sqlstate), ', ' ORDER BY ord)
	   FROM loky.try_map(\$\$SELECT CASE WHEN \$1 = 1 THEN t.failing(9, '$kids done', 1, $side)
			ELSE t.outer(1, '$kids ' || \$1, 1, $side) END\$\$,
		ARRAY[1, 2, 3], NULL::int)});
at_gate($s, 1, 2);
$s->query(
	qq{SELECT pg_terminate_backend(submitter) FROM loky.tasks WHERE label = '$kids 2'});
is(outcomes("$kids 2"), '1 cancelled', 'an item goes with its worker, and takes its own');
open_gate(1);
is($caller->answer, '1 f XY003, 2 f LK001, 3 t', 'one item fails, one goes, one is done');
open_gate(2);
is(outcomes("$kids 3"), '1 succeeded', 'what the one that is done has submitted');
is(outcomes("$kids done"), '1 succeeded', 'and what the one that failed has');
is(logged(), 2, 'once each');

# Nothing is lost: neither memory nor slots.
sub forget_all
{
	$s->query('SELECT loky.forget(future) FROM loky.tasks');
	poll($s, q{SELECT count(*) FROM loky.workers WHERE state = 'busy'}, 0);
	return $s->query('SELECT loky._memory_used(), (SELECT count(*) FROM loky.tasks)');
}
size($s, 1, 1);
my $before;
for my $i (0 .. 20)
{
	$kids = begin();
	$f = $s->query(
		qq{SELECT loky.submit(\$\$SELECT t.sow('$kids ' || repeat('x', 10000), 20),
		   t.sow('$kids', 20, $side), t.gate(1)\$\$)});
	at_gate($s, 1, 1);
	at_gate($s, 2, 1);
	cancel($f);
	$s->query("SELECT count(*) FROM loky.wait(ARRAY[$f])");
	outcomes($kids) eq '40 cancelled' or fail("round $i: all inner tasks are cancelled");
	$gate->query('SELECT pg_advisory_unlock_all()');
	my $now = forget_all();
	$before //= $now;
	is($now, $before, "nothing is lost in round $i") if $i % 10 == 0 && $i > 0;
}

# At any moment: outer tasks are cancelled, or their workers terminated, while
# they submit and their inner ones run, which take somewhat longer.
size($s, 3);
my $other = LokyTest::Session->new($node);
$s->query(
	q{CREATE FUNCTION t.brief(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (x);
		PERFORM pg_sleep((1 + x % 3) / 1000.0);
		RETURN x;
	  END$$;
	  CREATE FUNCTION t.litter(label text) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		FOR i IN 1 .. 20 LOOP
			PERFORM loky.submit_all('t.brief', ARRAY[i], label => label);
			PERFORM pg_sleep(0.0005);
		END LOOP;
		RETURN 20;
	  END$$;
	  CREATE TABLE t.outer (label text, f bigint)});
for my $i (1 .. 100)
{
	$s->query("INSERT INTO t.outer SELECT 'round $i', loky.submit('t.litter', 'round $i')");
	$f = $s->query("SELECT f FROM t.outer WHERE label = 'round $i'");
	# not yet begun, or so long after its begin
	$other->query(
		qq{DO 'BEGIN
		   FOR i IN 1 .. 100000 LOOP
			EXIT WHEN loky.state($f) <> ''pending'';
		   END LOOP;
		   END';
		   SELECT count(*) FROM generate_series(1, $i % 25 * 4000)}) if $i % 10 > 0;
	$i % 3 == 0
	  ? $other->query(
		"SELECT pg_terminate_backend(worker) FROM loky.tasks WHERE future = $f AND state = 'running'")
	  : $other->query("SELECT loky.cancel($f, running => true)");
}
check_idle($node, 'a hundred outer tasks');
$s->query(
	q{CREATE VIEW t.families AS
	  SELECT o.state AS outer_state, o.sqlstate AS outer_sqlstate, k.*,
		k.started > o.finished AS late
	  FROM t.outer JOIN loky.tasks o ON o.future = f
		JOIN loky.tasks k ON k.label = t.outer.label});
is( $s->query(
		q{SELECT count(*) FROM t.families WHERE outer_state <> 'succeeded' AND late}),
	0,
	'no inner task begins after its outer one was cancelled or died');
is( $s->query(
		q{SELECT count(*) FROM t.families WHERE outer_state <> 'succeeded'
		  AND state NOT IN ('cancelled', 'succeeded') AND sqlstate <> 'LK001'}),
	0,
	'each was done before, or is cancelled');
is( $s->query(
		q{SELECT count(*) FROM t.families
		  WHERE outer_state = 'succeeded' AND state = 'cancelled'}),
	0,
	'none is cancelled whose outer one succeeded');
is( $s->query(
		q{SELECT count(*) FROM t.log}),
	$s->query(
		q{SELECT count(*) FROM loky.tasks WHERE label LIKE 'round %' AND state = 'succeeded'}),
	'exactly those that succeeded have done something');
for my $state ('cancelled', 'failed')
{
	cmp_ok(
		$s->query(
			qq{SELECT count(*) FROM t.families WHERE outer_state = '$state'
			   AND state = 'cancelled'}),
		'>', 0, "some were cancelled as their outer task was $state");
}

$_->quit for $s, $gate, $caller, $other;
check_rest($node);
$node->stop;

done_testing();
