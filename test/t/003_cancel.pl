
# Cancelling, from all sides: a caller that waits is cancelled, times out, is
# terminated or loses its client; a task is cancelled by its future.  What a map
# runs ends before its caller gets control back; submitted tasks go on.

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

# Three items stand at the gate, seven are still to come.
my $map = q{loky.map('t.touch_gate', ARRAY(SELECT ROW(1, i)
	FROM generate_series(1, 10) i), NULL::int)};
my $size = 3;

sub new_caller
{
	$caller = LokyTest::Session->new($node);
	$caller->query("SELECT loky.get_reusable_executor($size, timeout => '1 h')");
	return;
}

# Nothing runs, at this very moment; nor is anything left of what ran.
sub nothing_runs
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $s->query(
			q{SELECT (SELECT count(*) FROM loky.workers WHERE state <> 'idle'),
			  (SELECT count(*) FROM pg_stat_activity
			   WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL),
			  (SELECT count(*) FROM t.log)}),
		'0|0|0',
		"$what: nothing runs behind the caller's back");
	return;
}

# The same a little later, where nobody gets control back.
sub nothing_runs_soon
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok( poll(
			$s, q{SELECT (SELECT count(*) FROM loky.workers WHERE state = 'busy') +
			  (SELECT count(*) FROM pg_stat_activity
			   WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL) +
			  (SELECT count(*) FROM t.log)}, 0),
		"$what: its map's items are cancelled");
	return;
}

$gate->query('SELECT pg_advisory_lock(1)');
new_caller();
$s->query("SELECT loky.get_reusable_executor($size, timeout => '1 h')");

# Submitted tasks survive whatever befalls those who wait for them.
my $f = $s->query(q{SELECT loky.submit('t.gate', 1, 42)});
at_gate($s, 1, 1);
for my $wait (
	"SELECT loky.result($f)",
	"SELECT * FROM loky.exception($f)",
	"SELECT * FROM loky.wait(ARRAY[$f])",
	"SELECT * FROM loky.wait(ARRAY[$f], return_when => 'FIRST_EXCEPTION')")
{
	$caller->send($wait);
	ok( poll(
			$s, 'SELECT count(*) FROM pg_stat_activity WHERE pid = '
			  . $caller->pid
			  . " AND state = 'active' AND wait_event_type = 'Extension'",
			1),
		"a caller waits: $wait");
	$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
	is($caller->failure, '57014', 'and is cancelled');
	is( $caller->fails("SET statement_timeout = '50 ms'; $wait; RESET statement_timeout"),
		'57014', 'and times out');
	$caller->query('RESET statement_timeout');
	is($s->query("SELECT loky.state($f)"), 'running', 'the task goes on');
}
is($caller->fails("SELECT loky.result($f, timeout => '50 ms')"),
	'LK004', 'result() past its timeout');
is($caller->fails("SELECT loky.exception($f, timeout => '0')"),
	'LK004', 'exception() that looks once');
is( $caller->query("SELECT done, state FROM loky.wait(ARRAY[$f], timeout => '50 ms')"),
	'f|running', 'wait() past its timeout raises nothing');
$caller->send("SELECT loky.result($f)");
$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
like($caller->await_end, qr/57P01/, 'a waiting caller is terminated');
is($s->query("SELECT loky.state($f)"), 'running', 'the task goes on after that too');
$gate->query('SELECT pg_advisory_unlock(1)');
is($s->query("SELECT loky.result($f, NULL::int)"), 42, 'and succeeds');

# A map's items do not.
$gate->query('SELECT pg_advisory_lock(1)');
for my $query (
	"SELECT count(*) FROM $map",
	"SELECT $map",
	"DO 'BEGIN PERFORM count(*) FROM " . ($map =~ s/'/''/gr) . "; END'",
	"SELECT count(*) FROM " . ($map =~ s/loky.map/loky.flat_map/r),
	"SELECT count(*) FROM " . ($map =~ s/loky.map/loky.try_map/r),
	"SELECT count(*) FROM " . ($map =~ s/NULL::int/NULL::int, ordered => false/r))
{
	new_caller();
	$caller->send($query);
	at_gate($s, 1, $size);
	$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
	is($caller->failure, '57014', "cancelled: $query");
	nothing_runs('cancel');

	is($caller->fails("SET statement_timeout = '300 ms'; $query"),
		'57014', 'it times out');
	nothing_runs('statement_timeout');
	$caller->quit;
}

# The caller catches the cancel: also then its items have ended before.
new_caller();
$caller->send(
	qq{DO \$\$
	DECLARE
		busy int;
	BEGIN
		PERFORM count(*) FROM $map;
	EXCEPTION WHEN query_canceled THEN
		SELECT count(*) INTO busy FROM pg_stat_activity
		WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL;
		RAISE NOTICE 'in transactions: %', busy;
	END\$\$});
at_gate($s, 1, $size);
$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
$caller->answer;
like($caller->messages, qr/in transactions: 0$/m, 'a cancel that is caught');
nothing_runs('caught');

# Past its own timeout.
is( $caller->fails("SELECT count(*) FROM " . ($map =~ s/NULL::int/NULL::int, timeout => '100 ms'/r)),
	'LK004', 'a map past its timeout');
nothing_runs('timeout');
is( $caller->query(
		"SELECT count(*), count(sqlstate), min(sqlstate) FROM "
		  . ($map =~ s/loky.map/loky.try_map/r =~ s/NULL::int/NULL::int, timeout => '100 ms'/r)),
	'10|10|LK004', 'try_map past its timeout tells it of each item');
nothing_runs('timeout of try_map');

# What traps its cancel, and goes on to its end, comes to nothing all the same.
$s->query(
	q{CREATE FUNCTION t.trap(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		BEGIN
			PERFORM t.gate(1);
		EXCEPTION WHEN query_canceled THEN
		END;
		RETURN t.touch(x);
	  END$$});
$s->logged;
for my $chunksize ('NULL', '2')
{
	is( $caller->query(
			qq{SELECT count(*), count(result), min(sqlstate) FROM loky.try_map('t.trap',
			ARRAY[1, 2], NULL::int, timeout => '100 ms', chunksize => $chunksize)}),
		'2|0|LK004', "items that trap their cancel, chunksize => $chunksize");
	nothing_runs('trapped');
}
is($s->logged, '0|0||', 'leave nothing behind');

# ... also while notices of its items come faster than they are raised.
$s->query(
	q{CREATE FUNCTION t.noisy(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		LOOP
			RAISE NOTICE '%', x;
		END LOOP;
	  END$$});
is( $caller->fails(
		q{SELECT count(*) FROM loky.map('t.noisy', ARRAY[1, 2, 3], NULL::int, timeout => '100 ms')}),
	'LK004', 'a map past its timeout, full of notices');
nothing_runs('notices');

# A cursor that is closed, and a LIMIT.  The first item passes its own gate.
for my $query (
	[ 'a closed cursor', 'CLOSE c; COMMIT' ],
	[ 'a rollback', 'ROLLBACK' ],
	[ 'a rollback to a savepoint', 'ROLLBACK TO a; COMMIT' ])
{
	$caller->query(
		q{BEGIN; SAVEPOINT a;
		  DECLARE c CURSOR FOR SELECT loky.map('t.gate',
			ARRAY(SELECT ROW(CASE i WHEN 1 THEN 99 ELSE 1 END, i)
			FROM generate_series(1, 10) i), NULL::int)});
	is($caller->query('FETCH c'), 1, "$query->[0]: the first row comes at once");
	at_gate($s, 1, $size);
	$caller->query($query->[1]);
	nothing_runs($query->[0]);
}
is( $caller->query(
		q{SELECT loky.map('t.gate',
			ARRAY(SELECT ROW(CASE i WHEN 1 THEN 99 ELSE 1 END, i)
			FROM generate_series(1, 10) i), NULL::int) LIMIT 1}),
	1,
	'a LIMIT ends a map');
nothing_runs('LIMIT');

# The caller is terminated, or its client is gone.
$caller->send("SELECT count(*) FROM $map");
at_gate($s, 1, $size);
$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
like($caller->await_end, qr/57P01/, 'a caller in a map is terminated');
nothing_runs_soon('terminate');

new_caller();
$caller->query("SET client_connection_check_interval = '50 ms'");
$caller->send("SELECT count(*) FROM $map");
at_gate($s, 1, $size);
$caller->kill;
nothing_runs_soon('disconnect');

# Ctrl-C.
new_caller();
$caller->send("SELECT count(*) FROM $map");
at_gate($s, 1, $size);
kill 'INT', $caller->psql_pid;
like($caller->await_end, qr/57014/, 'Ctrl-C in psql');
nothing_runs_soon('Ctrl-C');
$gate->query('SELECT pg_advisory_unlock(1)');
check_idle($node, 'after the maps');

# A worker that is deaf to a cancel is let go, with a line in the log.
$s->query(
	q{CREATE SEQUENCE t.cancels;
	  CREATE FUNCTION t.deaf(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		LOOP
			BEGIN
				IF x > 0 THEN
					PERFORM t.gate(2);
				END IF;
				RETURN x;
			EXCEPTION WHEN query_canceled THEN
				PERFORM nextval('t.cancels');
			END;
		END LOOP;
	  END$$});
$gate->query('SELECT pg_advisory_lock(2)');
new_caller();
my $offset = log_end($node);
my $memory = $s->query('SELECT loky._memory_used()');
$caller->send(q{SELECT * FROM loky.map('t.deaf', ARRAY[1, 2], NULL::int)});
at_gate($s, 2, 2);
my @deaf = split /\n/, $s->query(
	q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND NOT granted});
$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
is($caller->failure, '57014', 'a caller gets control back from a deaf worker');
like(log_since($node, $offset), qr/LOG:  .*did not answer/, 'the log tells of it');
is( $caller->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1,2,3,4], NULL::int)}),
	4, 'the pool goes on');
# One ends as it likes, the last one is terminated, and what the map had is freed.
$s->query("SELECT pg_terminate_backend($deaf[0])");
ok(poll($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $deaf[0]", 0),
	'a deaf worker ends when it is terminated');
$s->query("SELECT pg_terminate_backend($deaf[1])");
ok(poll($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $deaf[1]", 0),
	'so does the other');
cmp_ok($s->query('SELECT loky._memory_used()'), '<=', $memory + 1024,
	'nothing of their map is left');
$gate->query('SELECT pg_advisory_unlock(2)');
check_idle($node, 'after a deaf worker');

# So many cancels have come to deaf workers.
sub deaf_cancels
{
	my ($n) = @_;

	return poll($s, 'SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM t.cancels',
		$n);
}

# How often the log has told of deaf workers.
sub let_go
{
	my $n = () = log_since($node, $offset) =~ /did not answer/g;
	return $n;
}

# In such a time nothing is lost: the caller is cancelled while it waits for a deaf
# worker as it closes a cursor, and the executor can be shut down afterwards.
sub begin_deaf
{
	$gate->query('SELECT pg_advisory_lock(2)');
	$s->query('ALTER SEQUENCE t.cancels RESTART');
	new_caller();
	$offset = log_end($node);
	return;
}

sub end_deaf
{
	my ($what) = @_;

	$gate->query('SELECT pg_advisory_unlock(2)');
	is($s->fails(q{SET statement_timeout = '20 s';
			SELECT loky.get_reusable_executor(3, timeout => '1 h'), loky.shutdown()}),
		'', "$what: its executor can be shut down");
	$s->query('RESET statement_timeout');
	check_idle($node, $what);
	return;
}
my $deaf = q{CURSOR FOR SELECT loky.map('t.deaf', ARRAY[0, 1], NULL::int)};

begin_deaf();
$caller->query("BEGIN; DECLARE c $deaf; FETCH c");
at_gate($s, 2, 1);
$caller->send('CLOSE c');
deaf_cancels(1);
$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
like($caller->failure, qr/^(57014)?$/, 'a caller is cancelled as it closes a map');
$caller->query('ROLLBACK');
end_deaf('a cancel in a CLOSE');

# It is let go once: not again when what is left of it is given back.
for my $query (
	q{SELECT count(*) FROM loky.try_map('t.deaf', ARRAY[1], NULL::int, timeout => '100 ms')},
	q{SELECT loky.run('t.deaf', ROW(1), NULL::int, timeout => '100 ms')})
{
	my ($what) = $query =~ /(loky\.\w+)/;

	begin_deaf();
	$caller->send($query);
	at_gate($s, 2, 1);
	$caller->failure;
	is(let_go(), 1, "$what, late: a deaf worker is waited for once");
	end_deaf($what);
}

# Several maps are cancelled together, before the first is waited for; and a session
# that is terminated waits for none.
for my $end ('ROLLBACK', 'ROLLBACK TO a')
{
	begin_deaf();
	$caller->query('BEGIN; SAVEPOINT a; '
		  . join('; ', map { "DECLARE c$_ $deaf; FETCH c$_" } 1 .. 3));
	at_gate($s, 2, 3);
	$caller->send($end);
	deaf_cancels(3);
	is(let_go(), 0, "$end: all maps are cancelled before one is let go");
	$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
	ok( poll($s, 'SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $caller->pid, 0),
		"$end: its session is terminated");
	is(let_go(), 0, "$end: and does not wait for the deaf");
	$caller->await_end;
	end_deaf($end);
}
begin_deaf();
$caller->send(q{SELECT loky.run('t.deaf', ROW(1), NULL::int)});
at_gate($s, 2, 1);
$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
ok( poll($s, 'SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $caller->pid, 0),
	'a session in a run is terminated');
is(let_go(), 0, 'it does not wait for a deaf worker either');
$caller->await_end;
end_deaf('terminated in a run');

# Cancelling tasks by their futures.
$gate->query('SELECT pg_advisory_lock(3)');
$s->query("SELECT loky.get_reusable_executor(1, timeout => '1 h')");
my $pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
my ($running, $pending, $last) = map {
	$s->query(qq{SELECT loky.submit('t.touch_gate', 3, $_)})
} 1 .. 3;
at_gate($s, 3, 1);
is($s->query("SELECT loky.cancel($running)"),
	'f', 'a running task is not cancelled unless asked for');
is($s->query("SELECT loky.cancel($pending), loky.state($pending)"),
	't|cancelled', 'a pending one is, at once');
is($s->query("SELECT loky.cancel($pending)"), 't', 'and once more');
is($s->query("SELECT loky.cancel($running, running => true)"),
	't', 'a running one, when asked for');
is($s->query("SELECT done, state FROM loky.wait(ARRAY[$running])"),
	't|cancelled', 'ends as cancelled');
is($s->fails("SELECT loky.result($running)"), 'LK007', 'its result: LK007');
is($s->fails("SELECT * FROM loky.exception($pending)"),
	'LK007', 'its exception: LK007');
at_gate($s, 3, 1);
$gate->query('SELECT pg_advisory_unlock(3)');
is($s->query("SELECT loky.result($last)"), 3, 'the next one runs');
is( $s->query("SELECT loky.cancel($last, running => true), loky.state($last)"),
	'f|succeeded', 'what is done cannot be cancelled');
is($s->query('SELECT string_agg(i::text, \' \') FROM t.log'),
	3, 'what was cancelled left nothing');
is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
	$pid, 'the worker is still the same');
$s->query('TRUNCATE t.log');

# S45: a cancel hits what it is meant for and nothing else.
$s->query("SELECT loky.get_reusable_executor(4, timeout => '1 h')");
$s->query(
	qq{CREATE FUNCTION t.brief(x int) RETURNS int LANGUAGE plpgsql AS \$\$
	   BEGIN
		INSERT INTO t.log (i) VALUES (x);
		PERFORM pg_sleep((1 + x % 3) / 1000.0);
		RETURN x;
	   END\$\$;
	   CREATE TABLE t.cancelled AS
	   SELECT f, i, NULL::bool AS told FROM unnest(loky.submit_all('t.brief',
		ARRAY(SELECT generate_series(1, 500)))) WITH ORDINALITY u(f, i)});
$s->query(
	q{UPDATE t.cancelled SET told = loky.cancel(f, running => true) WHERE i % 2 = 0});
$s->query('SELECT count(*) FROM loky.wait(ARRAY(SELECT f FROM t.cancelled))');
is( $s->query(
		q{SELECT count(*) FROM t.cancelled
		  WHERE loky.state(f) <> CASE WHEN told THEN 'cancelled' ELSE 'succeeded' END}),
	0,
	'S45: exactly what cancel() said ends as cancelled, all else succeeds');
is( $s->query(
		q{SELECT count(*) FROM t.cancelled c
		  WHERE (SELECT count(*) FROM t.log l WHERE l.i = c.i) <>
			CASE WHEN told THEN 0 ELSE 1 END}),
	0,
	'S45: and leaves nothing, all else runs once');
is($s->query('SELECT count(*) > 100 FROM t.cancelled WHERE told'),
	't', 'S45: there was something to cancel');
check_clean($s, 'S45');

# The same from two sessions, on tasks that are just beginning or ending.
my $other = LokyTest::Session->new($node);
my $wrong = 0;
for my $i (1 .. 200)
{
	my $f = $s->query(q{SELECT loky.submit('t.wpid', 1)});
	my $next = $s->query(q{SELECT loky.submit('t.wpid', 1)});
	$other->send("SELECT loky.cancel($f, running => true)");
	my $outcome = $s->query("SELECT t.outcome($f)");
	my $told = $other->answer;
	$wrong++ if ($told eq 't') ne ($outcome eq 'LK007');
	$wrong++ if $s->query("SELECT t.outcome($next)") !~ /^\d+$/;
}
is($wrong, 0, 'no cancel comes late and hits the next task');

$_->quit for $s, $gate, $caller, $other;
check_rest($node);
$node->stop;

done_testing();
