
# Workers that end: a task that ends its worker, workers terminated from outside
# while they run something or rest, and what pg_cancel_backend does to them.
# Exactly what a dead worker ran fails, with LK001; all else runs once.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my ($f, $executor);

sub size
{
	my ($n) = @_;
	return $s->query("SELECT loky.get_reusable_executor($n, timeout => '1 h')");
}

sub open_gate
{
	my ($k) = @_;
	is($gate->query("SELECT pg_advisory_unlock($k)"), 't', 'the gate was shut');
	return;
}

# S37: a task ends its worker, a hundred others do not notice.
size(2);
$f = $s->query(q{SELECT loky.submit('t.die')});
my $all = $s->query(
	q{SELECT loky.submit_all('t.touch', ARRAY(SELECT generate_series(1, 100)))});
is($s->outcomes($all), '100 succeeded', 'S37: all others succeed');
is($s->logged, '100|100|1|100', 'S37: each ran once');
my $pid = pid_of($s, $f);
is($s->fails("SELECT loky.result($f)"), 'LK001', 'S37: the one fails');
like($s->messages, qr/^DETAIL:  .*\b$pid\b.*terminating background worker/m,
	'S37: its detail names the worker and how it ended');
like($s->messages, qr/^HINT:  /m, 'S37: and there is a hint');
is($s->query("SELECT sqlstate FROM loky.exception($f)"),
	'LK001', 'S37: exception() says so too');
is($s->query("SELECT loky.state($f)"), 'failed', 'S37: and state()');
is( $s->query(
		"SELECT restarts > 0 FROM loky.workers LIMIT 1"), 't',
	'S37: the restart is counted');
check_clean($s, 'S37');

# S32: the only worker has left; the first task of a new one ends it, and nobody
# calls anything meanwhile but to look.
$s->query("SELECT loky.get_reusable_executor(1, timeout => '100 ms')");
$s->query("SELECT loky.result(loky.submit('t.id', 1))");
ok( poll(
		$s,
		q{SELECT count(*) FROM loky.workers
		  WHERE executor_id = current_setting('loky.executor')::int}, 0),
	'S32: the worker leaves');
$f = $s->query(q{SELECT loky.submit('t.die')});
ok( poll($s, "SELECT sqlstate FROM loky.tasks WHERE future = $f", 'LK001'),
	'S32: the death of the first worker is noticed');
check_clean($s, 'S32');

# S38: all workers end while they run something and much is queued.
size(4);
$gate->query('SELECT pg_advisory_lock(1)');
$all = $s->query(
	q{SELECT loky.submit_all('t.touch_gate', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 100) i))});
at_gate($s, 1, 4);
is( $s->query(
		q{SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))
		  FROM loky.workers WHERE state = 'busy'}),
	4,
	'S38: four workers are terminated');
ok( poll(
		$s, "SELECT count(*) FROM loky.tasks WHERE sqlstate = 'LK001'
		AND future = ANY ('$all')", 4),
	'S38: four tasks fail at once');
at_gate($s, 1, 4);
open_gate(1);
is($s->outcomes($all), '4 failed LK001, 96 succeeded', 'S38: the others succeed');
like($s->logged, qr/^96\|96\|/, 'S38: each once, and what failed left nothing');
check_clean($s, 'S38');

# S39: all idle workers end.
ok( poll(
		$s, q{SELECT count(*) FROM loky.workers WHERE state = 'idle'
		AND executor_id = current_setting('loky.executor')::int}, 4),
	'S39: four workers rest');
my $pids = $s->query('SELECT array_agg(pid) FROM loky.workers');
my $offset = log_end($node);
$s->query('SELECT pg_terminate_backend(pid) FROM loky.workers');
is( $s->query(
		q{SELECT string_agg(r::text, ' ') FROM
		  loky.map('t.touch', ARRAY[1,2,3,4,5,6,7,8], NULL::int) r}),
	'1 2 3 4 5 6 7 8',
	'S39: a map at once after it is right');
is($s->logged, '8|8|1|8', 'S39: and each item ran once');
is( $s->query(
		"SELECT count(*) FROM loky.workers WHERE pid = ANY ('$pids')
		 AND state <> 'stopping'"), 0,
	'S39: by other workers');

# The same again and again, so that the map meets them at all moments.
my @wrong;
for my $i (1 .. 30)
{
	my ($out, $err) = $s->send(
		q{SELECT count(pg_terminate_backend(pid)) > 0 FROM loky.workers
		  WHERE state = 'idle';
		  SELECT string_agg(r::text, ' ') FROM
		  loky.map('t.id', ARRAY[1,2,3], NULL::int) r})->receive;
	# A worker of the last round may have ended between the look and the signal,
	# and one may have taken the map before the signal came.
	push @wrong, "$out\n$err"
	  unless $out =~ /^[tf]\n1 2 3$/ && $err !~ /ERROR/
	  || $err =~ /ERROR:  LK001/;
}
is("@wrong", '', 'S39: so are thirty more');
check_clean($s, 'S39');

# An item that ends its worker takes what it has submitted along, but not what others
# have submitted that shared its transaction, as they succeed.  What shares one must only
# read, which this function is declared to do.
my $rows;
size(1);
$s->query(
	q{CREATE FUNCTION t.submit_or_die(x int) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
	  DECLARE
		f bigint;
	  BEGIN
		IF x = 9 THEN
			RETURN 0;
		END IF;
		f := loky.submit('t.touch', x);
		IF x = 0 THEN
			PERFORM pg_terminate_backend(pg_backend_pid());
		END IF;
		RETURN f;
	  END$$});
$rows = $s->query(
	q{WITH m AS MATERIALIZED (SELECT * FROM loky.try_map('t.submit_or_die',
		  array_fill(9, ARRAY[1500]) || ARRAY[1, 2, 0], NULL::bigint) WHERE ord > 1500)
	  SELECT string_agg(concat_ws(' ', ok, sqlstate), ', ' ORDER BY ord) FROM m});
is($rows, 't, t, f LK001', 'an item ends its worker');
$s->query(q{SELECT count(*) FROM loky.wait(ARRAY(SELECT future FROM loky.tasks WHERE task ~ 't\.touch\M'))});
is( $s->query(
		q{SELECT string_agg(state, ' ' ORDER BY future) FROM loky.tasks
		  WHERE future >= (SELECT max(future) - 2 FROM loky.tasks)}),
	'succeeded succeeded cancelled',
	'what it has submitted is cancelled, that of others is run');
is($s->logged, '2|2|1|2', 'once each');
size(4);

# A map loses a worker: that item fails, no other.
$gate->query('SELECT pg_advisory_lock(2)');
my $caller = LokyTest::Session->new($node);
$caller->query("SELECT loky.get_reusable_executor(4, timeout => '1 h')");
$caller->send(
	q{SELECT string_agg(concat_ws(' ', ord, result, ok, sqlstate), ', ' ORDER BY ord)
	  FROM loky.try_map('t.touch_gate', ARRAY(SELECT ROW(2, i)
	  FROM generate_series(1, 8) i), NULL::int)});
at_gate($s, 2, 4);
$pid = $s->query("SELECT pid FROM loky.workers WHERE state = 'busy' LIMIT 1");
$s->query("SELECT pg_terminate_backend($pid)");
ok( poll($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0),
	'a worker of a map is terminated');
at_gate($s, 2, 4);
open_gate(2);
$rows = $caller->answer;
my @failed = $rows =~ /(\d+) f LK001/g;
is(scalar @failed, 1, 'one item of the map fails with LK001') or diag($rows);
(my $expected = join ', ', map { "$_ $_ t" } 1 .. 8) =~ s/\b(\d) $failed[0] t/$1 f LK001/;
is($rows, $expected, 'the others are right');
is($s->logged =~ /^7\|7\|/, 1, 'and ran once each');

$gate->query('SELECT pg_advisory_lock(2)');
$caller->send(
	q{SELECT count(*) FROM loky.map('t.touch_gate', ARRAY(SELECT ROW(2, i)
	  FROM generate_series(1, 8) i), NULL::int)});
at_gate($s, 2, 4);
$s->query(
	q{SELECT pg_terminate_backend(pid) FROM loky.workers WHERE state = 'busy'});
is($caller->failure, 'LK001', 'map() raises the error of an item whose worker ended');
like($caller->messages, qr/loky task, item 1\b/, 'that of the first such item');
is(busy_workers($s), 0, 'and nothing of the map runs on');
open_gate(2);
$s->logged;

is($s->query(q{SELECT sqlstate, started >= now(), elapsed > '0', worker > 0 FROM loky.try_map('SELECT t.die() WHERE $1 > 0', ARRAY[1], NULL::int)}),
	'LK001|t|t|t', 'try_map tells when and where that item ran');

# Items of a function that is not what it is declared to be share transactions, and
# those before one that ends its worker are undone with it: they run again, and neither
# fail nor lose an attempt.
$s->query(
	q{CREATE FUNCTION t.untrue_die(x int) RETURNS int LANGUAGE plpgsql STABLE AS $$
	  BEGIN
		PERFORM pg_current_xact_id();
		RETURN CASE WHEN x % 50 = 0 THEN t.die() ELSE x END;
	  END$$});
for my $retries (0, 1)
{
	my $deaths = 4 * (1 + $retries);

	$s->query("SELECT loky.get_reusable_executor(1, timeout => '1 h', reuse => 'false')");
	is( $s->query(
			qq{SELECT count(*) FILTER (WHERE ok AND result = ord),
				string_agg(concat_ws(' ', ord, sqlstate), ', ' ORDER BY ord)
				FILTER (WHERE NOT ok)
			   FROM loky.try_map('t.untrue_die', ARRAY(SELECT generate_series(1, 200)),
				NULL::int, retries => $retries)}),
		'196|50 LK001, 100 LK001, 150 LK001, 200 LK001',
		"items that end their workers fail alone, $retries retries");
	is($s->query(q{SELECT loky.run('t.id', ROW(1))}), 1, 'there is a worker again');
	is( $s->query(
			q{SELECT max(restarts) FROM loky.workers
			  WHERE executor_id = current_setting('loky.executor')::int}),
		$deaths, 'and end no more workers than they have attempts');
	check_clean($s, "items that end their workers, $retries retries");
}

# The last of the items that share a transaction is the one that its commit belongs to,
# also where those behind it have yet to be run: it is so slow that they are given back.
SKIP:
{
	skip 'the library was built without debug points', 1
	  if $s->query(q{SELECT current_setting('loky.debug_point', true) IS NULL}) eq 't';

	$s->query(
		q{CREATE FUNCTION t.end_at_commit(x int, action text, writes boolean) RETURNS int
		  LANGUAGE plpgsql STABLE AS $$
		  BEGIN
			-- dear enough for the clock to be read after each item
			PERFORM count(*) FROM generate_series(1, 300);
			IF writes THEN
				PERFORM pg_current_xact_id();
			END IF;
			IF x % 50 = 0 THEN
				PERFORM set_config('loky.debug_point', 'sealed ' || action, true),
					pg_sleep(0.002);
			END IF;
			RETURN x;
		  END$$});
	for my $case (
		[ 'error', 'false', '57P01' ],
		[ 'error', 'true', '57P01' ],
		[ 'fatal', 'false', undef ],
		[ 'fatal', 'true', 'LK001' ])
	{
		my ($action, $writes, $sqlstate) = @$case;
		my @failed = defined $sqlstate ? map { "$_ $sqlstate" } 50, 100, 150, 200 : ();

		$s->query("SELECT loky.get_reusable_executor(1, timeout => '1 h', reuse => 'false')");
		is( $s->query(
				qq{SELECT count(*) FILTER (WHERE ok AND result = ord),
					string_agg(concat_ws(' ', ord, sqlstate), ', ' ORDER BY ord)
					FILTER (WHERE NOT ok)
				   FROM loky.try_map('SELECT t.end_at_commit(\$1, ''$action'', $writes)',
					ARRAY(SELECT generate_series(1, 200)), NULL::int)}),
			(200 - @failed) . '|' . join(', ', @failed),
			"an item at whose commit there is: $action, with a transaction id: $writes");
		check_clean($s, "commits, $action, $writes");
	}
}

# S40: a cancelled task in the queue of a worker that dies.
size(1);
$gate->query('SELECT pg_advisory_lock(3)');
$f = $s->query(
	q{SELECT loky.submit('SELECT t.gate(3), t.die()')});
$all = $s->query(
	q{SELECT loky.submit_all('t.touch', ARRAY(SELECT generate_series(1, 12)))});
at_gate($s, 3, 1);
is($s->query("SELECT loky.cancel(('$all'::bigint[])[7])"),
	't', 'S40: the seventh is cancelled');
open_gate(3);
is($s->outcomes($all), '1 cancelled, 11 succeeded', 'S40: the others succeed');
is($s->outcomes("{$f}"), '1 failed LK001', 'S40: the first one fails');
is($s->logged, '11|11|1|12', 'S40: each ran once');
check_clean($s, 'S40');

# S41: shutdown(kill_workers) with a cancelled task in the queue.
$executor = size(1);
$gate->query('SELECT pg_advisory_lock(4)');
$f = $s->query(q{SELECT loky.submit('t.touch_gate', 4, 0)});
$all = $s->query(
	q{SELECT loky.submit_all('t.touch', ARRAY(SELECT generate_series(1, 12)))});
at_gate($s, 4, 1);
$pid = pid_of($s, $f);
$s->query("SELECT loky.cancel(('$all'::bigint[])[7])");
$s->query('SELECT loky.shutdown(kill_workers => true)');
is( $s->query("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"),
	0, 'S41: the worker is gone when shutdown returns');
is($s->outcomes("{$f}"), '1 failed LK003', 'S41: the running task fails with LK003');
is($s->outcomes($all), '12 cancelled', 'S41: the pending ones are cancelled');
is( $s->query(
		"SELECT count(*) FROM loky.executors WHERE executor_id = $executor
		 AND state <> 'closed'"), 0,
	'S41: the executor is gone');
is($s->logged, '0|0||', 'S41: nothing was committed');
open_gate(4);
check_clean($s, 'S41');

# S42: tasks that terminate each other's workers.
for my $n (1, 2, 5, 8)
{
	size($n);
	$gate->query('SELECT pg_advisory_lock(5)');
	$all = $s->query(
		qq{SELECT loky.submit_all('SELECT pg_terminate_backend(pid)
		   FROM t.gate(5, \$1), LATERAL (SELECT pid FROM loky.workers
				WHERE pid <> pg_backend_pid() ORDER BY hashint4(pid + gate)
				LIMIT 1) x',
		   ARRAY(SELECT generate_series(1, $n)))});
	at_gate($s, 5, $n);
	open_gate(5);
	like($s->outcomes($all), qr/^(\d+ failed LK001)?(, )?(\d+ succeeded)?$/,
		"S42: $n tasks settle");
	check_clean($s, "S42: $n tasks");
}

# S50: the commit is the last moment at which a task can fail.
$s->query(
	q{CREATE TABLE t.late (i int);
	  CREATE FUNCTION t.late() RETURNS trigger LANGUAGE plpgsql AS $$
	  BEGIN
		IF NEW.i = 1 THEN
			RAISE EXCEPTION 'late' USING ERRCODE = 'XY002';
		ELSIF NEW.i = 2 THEN
			PERFORM t.die();
		END IF;
		RETURN NULL;
	  END$$;
	  CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t.late
	  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION t.late()});
$all = $s->query(
	q{SELECT loky.submit_all('INSERT INTO t.late VALUES ($1)', ARRAY[0, 1, 2])});
is( $s->outcomes($all),
	'1 failed LK001, 1 failed XY002, 1 succeeded',
	'S50: an error, and an end, in a deferred trigger');
is($s->query('SELECT string_agg(i::text, \' \') FROM t.late'),
	'0', 'S50: only what succeeded is there');
check_clean($s, 'S50');

# S57: FATAL in a task is an ERROR for whoever waits; and the SQLSTATE alone
# does not make a death.
$f = $s->query(q{SELECT loky.submit('t.die')});
$pid = $s->pid;
is($s->fails("SELECT loky.result($f)"), 'LK001', 'S57: the caller gets an error');
is($s->query('SELECT pg_backend_pid()'), $pid, 'S57: and its session lives');
size(1);
$pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
is( $s->fails(
		q{SELECT loky.result(loky.submit($$DO 'BEGIN RAISE EXCEPTION SQLSTATE ''57P01''; END'$$))}
	),
	'57P01',
	'S57: an error that looks like a termination');
is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
	$pid, 'S57: leaves the worker alive');
check_clean($s, 'S57');

# S44: pg_cancel_backend means nothing to an idle worker...
ok( poll($s, "SELECT state FROM loky.workers WHERE pid = $pid", 'idle'),
	'S44: the worker rests');
$offset = log_end($node);
$s->query("SELECT pg_cancel_backend($pid) FROM generate_series(1, 50)");
is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
	$pid, 'S44: fifty cancels of an idle worker do nothing');
unlike(log_since($node, $offset), qr/ \[$pid\] /, 'S44: not even to the log');

# ... and cancels what a busy one runs.  Many at once are as good as one, but
# the later of them may find the worker at its next task, if there is one.
$gate->query('SELECT pg_advisory_lock(6)');
for my $n (1, 1, 20, 200)
{
	$f = $s->query(q{SELECT loky.submit('t.gate', 6)});
	at_gate($s, 6, 1);
	$s->query("SELECT pg_cancel_backend($pid) FROM generate_series(1, $n)");
	is($s->fails("SELECT loky.result($f)"),
		'57014', "S44: $n cancels of a busy worker");
	is($s->query("SELECT loky.state($f)"), 'failed', 'S44: fail its task');
	is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
		$pid, 'S44: and the worker goes on with the next one');
}
open_gate(6);
check_clean($s, 'S44');

# S24: a resize, and a busy worker dies.
size(2);
$gate->query('SELECT pg_advisory_lock(7)');
$all = $s->query(
	q{SELECT loky.submit_all('t.touch_gate', ARRAY(SELECT ROW(7, i)
	  FROM generate_series(1, 4) i))});
at_gate($s, 7, 2);
size(1);
$s->query(
	q{SELECT pg_terminate_backend(pid) FROM loky.workers
	  WHERE state = 'busy' LIMIT 1});
ok( poll(
		$s, "SELECT count(*) FROM loky.tasks WHERE sqlstate = 'LK001'
		AND future = ANY ('$all')", 1),
	'S24: one worker dies after a resize');
size(4);
open_gate(7);
is($s->outcomes($all), '1 failed LK001, 3 succeeded', 'S24: one task fails');
like($s->logged, qr/^3\|3\|/, 'S24: the others ran once each');
check_clean($s, 'S24');

# S49: never more workers than the executor's size.
size(3);
$gate->query('SELECT pg_advisory_lock(8)');
$all = $s->query(
	q{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(8, i)
	  FROM generate_series(1, 45) i))});
at_gate($s, 8, 3);
is( $s->query(
		q{SELECT running, pending, workers FROM loky.executors
		  WHERE executor_id = current_setting('loky.executor')::int}),
	'3|42|3', 'S49: three run and the rest wait');
open_gate(8);
is($s->outcomes($all), '45 succeeded', 'S49: all succeed');
check_clean($s, 'S49');

# The last words of a worker are cut at a character's end, wherever that is.
$s->query(q{CREATE DATABASE characters TEMPLATE template0 ENCODING 'UTF8'
	LC_COLLATE 'C' LC_CTYPE 'C'});
loky_fixture($node, 'characters');
my $words = LokyTest::Session->new($node, db => 'characters');
$words->query(
	q{SET client_encoding = 'SQL_ASCII';
	  CREATE FUNCTION t.last_words(n int) RETURNS void LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM set_config('exit_on_error', 'on', true);
		RAISE EXCEPTION '%', repeat('x', n) || repeat(chr(8364), 200);
	  END$$});
for my $n (1 .. 3)
{
	my $dead = $words->query("SELECT loky.submit('t.last_words', $n)");

	is( $words->query(
			qq{SELECT length(convert_from(textsend(detail), 'UTF8')) > 80,
				detail LIKE '%' || repeat(chr(8364), 70) || '%'
			   FROM loky.exception($dead)}),
		't|t', "last words with $n characters of one byte");
}
$words->quit;

$_->quit for $s, $gate, $caller;
check_rest($node);
$node->stop;

done_testing();
