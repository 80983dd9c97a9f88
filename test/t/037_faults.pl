
# Processes that end at any moment.  A worker before and after its task's commit: what
# was committed has succeeded and is never run again.  A caller at each stage of a map:
# nothing of it is left.  Workers and the launcher at random while all are at work:
# each task has run exactly once.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run;
use Time::HiRes qw(usleep);

my $node = loky_node(conf => "loky.shared_memory = '8MB'\n");
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $has_points =
  $s->query(q{SELECT current_setting('loky.debug_point', true) IS NOT NULL}) eq 't';
my ($f, $offset);

$s->query(
	q{CREATE FUNCTION t.plain(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	  'BEGIN RETURN x; END';
	  CREATE PROCEDURE t.twice(x int) LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (x);
		COMMIT;
		INSERT INTO t.log (i) VALUES (-x);
	  END$$;
	  CREATE PROCEDURE t.commit_gate(x int) LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (x);
		COMMIT;
		PERFORM pg_advisory_xact_lock_shared(1);
	  END$$});

# Processes wait at this point from now on, or have an error there; or at none.
sub set_point
{
	my ($name, $action) = @_;
	my $value = $name eq '' ? '' : $name . ' ' . ($action // 'wait');

	$offset = log_end($node);
	$s->query("ALTER SYSTEM SET loky.debug_point = '$value'");
	$s->query('SELECT pg_reload_conf()');
	poll($s, 'SHOW loky.debug_point', $value)
	  or die 'the configuration is not read again';
	return;
}

# The process that waits at the point.
sub pid_at_point
{
	my ($name) = @_;
	my $line = qr/\[(\d+)\] .*waiting at debug point "\Q$name\E"/;

	$node->wait_for_log($line, $offset);
	my ($pid) = log_since($node, $offset) =~ $line;
	return $pid;
}

sub end_process
{
	my ($pid) = @_;

	$s->query("SELECT pg_terminate_backend($pid)");
	poll($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0)
	  or die "process $pid does not end";
	return;
}

# One worker that nobody has had before.
sub new_executor
{
	return $s->executor(1, q{timeout => '1 h', reuse => 'false'});
}

sub memory
{
	poll($s, q{SELECT count(*) FROM loky.workers WHERE state = 'busy'}, 0);
	return $s->query('SELECT loky._memory_used()');
}

# What becomes of a task whose worker ends at the point; and what ran.
sub end_at
{
	my ($point, $task, $retries, $way) = @_;
	my ($pid, $outcome, $caller);

	$s->query('TRUNCATE t.log');
	set_point($point);
	my $id = new_executor();
	$f = $s->query("SELECT loky.submit_task('$task', ROW(7), retries => $retries)");
	$pid = pid_at_point($point);
	$caller = LokyTest::Session->new($node);
	$caller->send("SELECT coalesce(loky.exception($f)::text, 'none')");
	$way->($id, $pid);
	set_point('');
	$outcome = $caller->answer eq '(,,,,)' ? 'none' : 'raised';
	$caller->quit;
	return $s->query(
		qq{SELECT concat_ws(' ', state, sqlstate, 'attempts', attempts, 'ran',
			(SELECT string_agg(i::text, ',' ORDER BY i DESC) FROM t.log))
		   FROM loky.tasks WHERE future = $f}) . " $outcome";
}

my $terminate = sub { end_process($_[1]) };

SKIP:
{
	skip 'the library was built without debug points', 1 unless $has_points;

	subtest 'a worker ends at a point of a task' => sub {
		for my $case (
			# point, retries, of a function, of a procedure that commits
			[ 'taken', 0, 'succeeded attempts 1 ran 7 none',
				'succeeded attempts 1 ran 7,-7 none' ],
			[ 'sealed', 0, 'failed LK001 attempts 1 ran raised',
				'failed LK001 attempts 1 ran 7 raised' ],
			[ 'sealed', 3, 'succeeded attempts 2 ran 7 none',
				'failed LK001 attempts 1 ran 7 raised' ],
			[ 'committed', 0, 'succeeded attempts 1 ran 7 none',
				'succeeded attempts 1 ran 7,-7 none' ],
			[ 'committed', 3, 'succeeded attempts 1 ran 7 none',
				'succeeded attempts 1 ran 7,-7 none' ],
			[ 'ended', 3, 'succeeded attempts 1 ran 7 none',
				'succeeded attempts 1 ran 7,-7 none' ])
		{
			my ($point, $retries, $of_function, $of_procedure) = @$case;

			is(end_at($point, 't.touch', $retries, $terminate),
				$of_function, "$point, $retries retries: a function");
			is($s->query("SELECT loky.result($f, NULL::int)"),
				7, "$point: and its result")
			  if $of_function =~ /^succeeded/;
			is(end_at($point, 't.twice', $retries, $terminate),
				$of_procedure, "$point, $retries retries: a procedure");
		}
		check_clean($s, 'after it');
	};

	subtest 'an error as the settings of a task come into force' => sub {
		my $id = new_executor();
		my $bare = LokyTest::Session->new($node);
		my $worker_has_point = q{SELECT t.outcome(loky.submit('SHOW loky.debug_point'))};

		# The worker has a value of its own, which the submitter's hides.
		$bare->query("SET loky.executor = $id");
		$bare->query(q{SELECT loky.run('SELECT set_config(''my.a'', ''own'', false)')});
		$s->query(q{SET my.a = 'given'});
		set_point('applied', 'error');
		ok(poll($bare, $worker_has_point, 'applied error'), 'the worker is to have an error');
		$f = $s->query(q{SELECT loky.submit('SHOW my.a')});
		is($s->query("SELECT t.outcome($f)"), '57P01', 'the task fails');
		set_point('');
		ok(poll($bare, $worker_has_point, ''), 'no more errors');
		is($bare->query(q{SELECT loky.run('SHOW my.a')}), 'own', 'the worker has its own');
		is($s->query(q{SELECT loky.run('SHOW my.a')}), 'given', 'the submitter\'s is set');
		is($bare->query(q{SELECT loky.run('SHOW my.a')}), 'own', 'and put back');
		$bare->query(q{SELECT loky.run('SELECT set_config(''my.a'', ''newer'', false)')});
		is($s->query(q{SELECT loky.run('SHOW my.a')}), 'given', 'once more,');
		is($bare->query(q{SELECT loky.run('SHOW my.a')}),
			'newer', 'with nothing left of the time before');
		$s->query('RESET my.a');
		$bare->quit;
	};

	subtest 'a task is cancelled or its worker ended on purpose around the commit' =>
	  sub {
		my $kill = sub {
			$s->query('SELECT loky.shutdown(kill_workers => true)');
		};
		my $cancel = sub {
			is($s->query("SELECT loky.cancel($f, running => true)"),
				'f', 'a cancel comes too late');
		};
		my $interrupt = sub {
			$s->query("SELECT pg_cancel_backend($_[1])");
		};
		my $committed = 'succeeded attempts 1 ran 7 none';

		is(end_at('sealed', 't.touch', 3, $kill),
			'failed LK003 attempts 1 ran raised', 'sealed: shutdown');
		is(end_at('committed', 't.touch', 3, $kill), $committed,
			'committed: shutdown');
		is(end_at('sealed', 't.touch', 3, $cancel), $committed, 'sealed: cancel');
		is(end_at('committed', 't.touch', 3, $cancel),
			$committed, 'committed: cancel');
		is(end_at('sealed', 't.touch', 3, $interrupt),
			'failed 57014 attempts 1 ran raised', 'sealed: pg_cancel_backend');
		is(end_at('committed', 't.touch', 3, $interrupt),
			$committed, 'committed: pg_cancel_backend');
		check_clean($s, 'after it');
	  };

	# What hangs on the task goes on: its key, what comes after it, its callbacks.
	subtest 'a worker ends after the commit of a task on which others wait' => sub {
		$s->query('TRUNCATE t.log');
		set_point('committed');
		new_executor();
		$f = $s->query(
			q{SELECT loky.submit_task('t.touch', ROW(1), key => 'k', retries => 9)});
		my $pid = pid_at_point('committed');
		my $next = $s->query(
			qq{SELECT ARRAY[loky.submit_task('t.touch', ROW(2), key => 'k'),
			   loky.submit_task('t.touch', ROW(3), after => ARRAY[$f]),
			   loky.add_done_callback($f, 'SELECT t.touch(4) FROM (SELECT \$1) x'),
			   loky.submit_task('t.touch', ROW(5))]});
		is($s->query("SELECT string_agg(waiting_for, ' ' ORDER BY future)
				FROM loky.tasks WHERE future = ANY ('$next')"),
			'key after after worker', 'four tasks wait, each for its own reason');
		end_process($pid);
		set_point('');
		is($s->outcomes($next), '4 succeeded', 'they run');
		is($s->query("SELECT loky.state($f)"), 'succeeded', 'as does the first');
		is($s->logged, '5|5|1|5', 'each once');
		check_clean($s, 'after it');
	};

	subtest 'a worker ends at a point of a map' => sub {
		my $touched = q{'t.touch', ARRAY[1, 2, 3, 4, 5, 6], NULL::int};
		my $twice = q{'t.twice', ARRAY[1, 2, 3], NULL::text};
		my $plain = q{'t.plain', ARRAY[1, 2, 3, 4, 5, 6], NULL::int};
		my $ok = '1:t 2:t 3:t 4:t 5:t 6:t';

		for my $case (
			[ 'taken', "$touched", $ok, '6|6|1|6' ],
			[ 'sealed', "$touched", '1:LK001 2:t 3:t 4:t 5:t 6:t', '5|5|2|6' ],
			[ 'sealed', "$touched, retries => 3", $ok, '6|6|1|6' ],
			[ 'committed', "$touched, retries => 3", $ok, '6|6|1|6' ],
			[ 'ended', "$touched, retries => 3", $ok, '6|6|1|6' ],
			[ 'taken', "$touched, chunksize => 3", $ok, '6|6|1|6' ],
			[ 'sealed', "$touched, chunksize => 3",
				'1:LK001 2:LK001 3:LK001 4:t 5:t 6:t', '3|3|4|6' ],
			[ 'sealed', "$touched, chunksize => 3, retries => 1", $ok, '6|6|1|6' ],
			[ 'committed', "$touched, chunksize => 3, retries => 1", $ok, '6|6|1|6' ],
			[ 'sealed', "$twice, retries => 3", '1:LK001 2:t 3:t', '5|5|-3|3' ],
			[ 'committed', "$twice, retries => 3", '1:t 2:t 3:t', '6|6|-3|3' ],
			[ 'taken', $plain, $ok, '0|0||' ],
			[ 'sealed', $plain, $ok, '0|0||' ],
			[ 'committed', $plain, $ok, '0|0||' ],
			[ 'ended', $plain, $ok, '0|0||' ])
		{
			my ($point, $map, $outcome, $logged) = @$case;
			my $caller = LokyTest::Session->new($node);

			set_point($point);
			$caller->query(
				q{SELECT loky.get_reusable_executor(1, timeout => '1 h', reuse => 'false')}
			);
			$caller->send(
				"SELECT string_agg(ord || ':' || coalesce(sqlstate, ok::text), ' ' ORDER BY ord)
				 FROM loky.try_map($map)");
			end_process(pid_at_point($point));
			set_point('');
			is($caller->answer =~ s/:true/:t/gr, $outcome, "$point: $map");
			is($s->logged, $logged, "$point: what ran");
			$caller->query('SELECT loky.shutdown()');
			$caller->quit;
		}
		check_clean($s, 'after it');
	};
}

# A procedure that has committed something is not run again, without any seam.
new_executor();
$s->query('TRUNCATE t.log');
$gate->query('SELECT pg_advisory_lock(1)');
$f = $s->query(
	q{SELECT loky.submit_task('t.commit_gate', ROW(1), retries => 5)});
at_gate($s, 1, 1);
$s->query('SELECT pg_terminate_backend(' . pid_of($s, $f) . ')');
is($s->outcomes("{$f}"), '1 failed LK001',
	'a procedure that has committed fails with its worker');
is($s->query("SELECT attempts FROM loky.tasks WHERE future = $f"),
	1, 'and is not run again');
is($s->logged, '1|1|1|1', 'what it has committed is there once');
$gate->query('SELECT pg_advisory_unlock(1)');

#--------------------------------------------------------------------------
# Callers
#--------------------------------------------------------------------------

# Ways in which a caller that waits comes to its end.  Those that leave the session
# alive return the SQLSTATE.
my %ways = (
	cancel => sub {
		my ($caller) = @_;
		$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
		is($caller->failure, '57014', 'the caller is cancelled');
	},
	terminate => sub {
		my ($caller) = @_;
		$s->query('SELECT pg_terminate_backend(' . $caller->pid . ')');
		like($caller->await_end, qr/57P01/, 'the caller is terminated');
	},
	disconnect => sub {
		my ($caller) = @_;
		$caller->kill;
		ok( poll($s, 'SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $caller->pid, 0),
			'the caller loses its client');
	});

# Its items write to t.log, and some results are too large for shared memory.
my $map = q{loky.map('SELECT t.touch($1), repeat(''x'', 1000000 * ($1 % 4))',
	ARRAY(SELECT generate_series(1, 40)), NULL::t.large)};
$s->query('CREATE TYPE t.large AS (i int, filler text)');

sub files
{
	return scalar(grep { -f $_ } temp_files($node));
}

sub new_caller
{
	my $caller = LokyTest::Session->new($node);

	$caller->executor(3);
	$caller->query("SET client_connection_check_interval = '50 ms'");
	return $caller;
}

# Nothing is left of a map of a caller that has gone.
sub check_gone
{
	my ($what, $memory) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok( poll(
			$s, q{SELECT (SELECT count(*) FROM loky.workers WHERE state = 'busy') ||
			  ' ' || (SELECT count(*) FROM pg_stat_activity
			   WHERE backend_type = 'loky worker' AND xact_start IS NOT NULL)},
			'0 0'),
		"$what: nothing runs any more");
	is(files(), 0, "$what: no file is left");
	cmp_ok(memory(), '<=', $memory + 1024, "$what: nor memory");
	is($s->query('SELECT count(*) FROM (SELECT FROM t.log GROUP BY i HAVING count(*) > 1) x'),
		0, "$what: no item has run twice");
	$s->query('TRUNCATE t.log');
	return;
}

# Let the executor, with its workers, be there before the memory is measured.
my $caller = new_caller();
$caller->query(q{SELECT count(*) FROM loky.map('t.gate', ARRAY(SELECT ROW(9, i)
	FROM generate_series(1, 9) i), NULL::int)});
$caller->quit;

# A caller that waits at a gate of its own when it has read so many rows.
my $reading = qq{SELECT t.gate(3, (r).i) FROM (SELECT $map AS r OFFSET 0) x
	WHERE (r).i < %d OR t.gate(2) = 0};
for my $way (sort keys %ways)
{
	for my $stage (1, 20, 40)
	{
		my $memory = memory();

		$caller = new_caller();
		$gate->query('SELECT pg_advisory_lock(2)');
		$caller->send(sprintf $reading, $stage);
		ok( poll(
				$s, q{SELECT count(*) FROM pg_stat_activity
				  WHERE wait_event = 'advisory' AND pid = } . $caller->pid, 1),
			"a caller has read up to row $stage");
		$ways{$way}->($caller);
		$gate->query('SELECT pg_advisory_unlock(2)');
		check_gone("$way, row $stage", $memory);
		$caller->quit if $way eq 'cancel';
	}
}

# A caller whose own query fails, in its transaction and in a subtransaction.
for my $stage (1, 20, 40)
{
	my $memory = memory();
	my $fails = qq{SELECT 1 / ((r).i - $stage) FROM (SELECT $map AS r OFFSET 0) x};

	$caller = new_caller();
	is($caller->fails($fails), '22012', "a caller fails at row $stage");
	check_gone("failed, row $stage", $memory);
	$caller->query(
		qq{BEGIN;
		   DO \$\$
		   DECLARE
			one int;
		   BEGIN
			FOR one IN $fails LOOP END LOOP;
		   EXCEPTION WHEN division_by_zero THEN NULL;
		   END\$\$});
	check_gone("failed in a block, row $stage", $memory);
	is($caller->query(q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2], NULL::int) r; COMMIT}),
		3, 'its transaction goes on');
	$caller->quit;
}

# Huge results, abandoned half way: those of a map through a cursor, and that of a
# task, which stays until it is forgotten.
$f = $s->query(
	q{SELECT loky.submit('SELECT i, repeat(''y'', 100000) FROM generate_series(1, 400) i')});
$s->query("SELECT loky.wait(ARRAY[$f])");
my $kept = files();
my $memory = memory();
cmp_ok($kept, '>', 0, 'a large result lies in a file');
for my $query ("loky.flat_map('SELECT \$1, repeat(''z'', 100000) FROM generate_series(1, 60)',
		ARRAY[1, 2, 3, 4, 5, 6, 7, 8], NULL::t.large)", "loky.result($f, NULL::t.large)")
{
	my ($what) = $query =~ /(\w+\.\w+)/;

	for my $end ('CLOSE c; COMMIT', 'ROLLBACK', 'SELECT 1/0', 'terminate', 'disconnect')
	{
		$caller = new_caller();
		$caller->query("BEGIN; DECLARE c CURSOR FOR SELECT ($query).i");
		$caller->query('FETCH 30 FROM c');
		if ($ways{$end})
		{
			$caller->send('SELECT pg_sleep(60)');
			$ways{$end}->($caller);
		}
		else
		{
			$caller->fails($end);
			$caller->query('ROLLBACK');
			$caller->quit;
		}
		ok( poll($s, q{SELECT count(*) FROM loky.workers WHERE state = 'busy'}, 0),
			"$what, $end: nothing runs");
		is(files(), $kept, "$what, $end: its files are gone, but for those kept");
		cmp_ok(memory(), '<=', $memory + 1024, "$what, $end: so is its memory");
	}
}
is($s->query("SELECT count(*) FROM loky.result($f, NULL::t.large)"),
	400, 'the result is as whole as before');
$s->query("SELECT loky.forget($f)");
is(files(), 0, 'and goes when it is forgotten');

SKIP:
{
	skip 'the library was built without debug points', 1 unless $has_points;

	subtest 'a caller ends before its map has begun' => sub {
		$s->executor(3);
		$s->query('TRUNCATE t.log');
		for my $point ('laid out', 'offered')
		{
			for my $way (sort keys %ways)
			{
				my $before = memory();

				set_point($point);
				$caller = new_caller();
				$caller->send("SELECT $map");
				is(pid_at_point($point), $caller->pid, "a caller is at: $point");
				is(files(), 0, 'no worker has spilled anything')
				  if $point eq 'laid out';
				$ways{$way}->($caller);
				set_point('');
				is($s->query('SELECT count(*) FROM t.log'), 0, 'nothing has run')
				  if $point eq 'laid out';
				check_gone("$point, $way", $before);
				$caller->quit if $way eq 'cancel';
			}
		}
	};
}

#--------------------------------------------------------------------------
# At random
#--------------------------------------------------------------------------

# Sessions submit and map, all with retries, while workers and the launcher are ended.
# Whoever asked is told that all has succeeded, and each task and item has left one
# row, and one row alone.
my $dir = PostgreSQL::Test::Utils::tempdir;
$s->query(
	q{TRUNCATE t.log;
	  CREATE SEQUENCE t.item;
	  CREATE INDEX ON t.log (i);
	  CREATE TABLE t.asked (i int);
	  CREATE FUNCTION t.busy(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (x);
		PERFORM pg_sleep(0.001 * (x % 5));
		RETURN x;
	  END$$});
append_to_file("$dir/submit.sql", <<'SQL');
INSERT INTO t.asked SELECT loky.result(loky.submit_task('t.busy', ROW(nextval('t.item')::int), retries => 1000), NULL::int);
SQL
append_to_file("$dir/map.sql", <<'SQL');
INSERT INTO t.asked SELECT r FROM loky.map('t.busy', ARRAY(SELECT nextval('t.item')::int FROM generate_series(1, 20)), NULL::int, retries => 1000) r;
SQL
append_to_file("$dir/chunk.sql", <<'SQL');
INSERT INTO t.asked SELECT r FROM loky.map('t.busy', ARRAY(SELECT nextval('t.item')::int FROM generate_series(1, 20)), NULL::int, retries => 1000, chunksize => 5, ordered => false) r;
SQL
my ($out, $err) = ('', '');
my $load = IPC::Run::start(
	[
		'timeout', '50', 'pgbench', '-n', '-c', '6', '-j', '1', '-t', '100',
		'--random-seed', '37', '-d', $node->connstr('postgres'),
		'-f', "$dir/submit.sql\@6", '-f', "$dir/map.sql\@3", '-f', "$dir/chunk.sql\@1"
	],
	'>', \$out, '2>', \$err);
my ($workers, $launchers) = (0, 0);
while ($load->pumpable)
{
	$load->pump_nb;
	$workers += $s->query(
		q{SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM
		  (SELECT pid FROM loky.workers ORDER BY random() LIMIT 1) x});
	my $pid = launcher_pid($node);
	$launchers += kill 'TERM', $pid if defined $pid && $workers % 10 == 9;
	usleep(20_000);
}
$load->finish;
is($load->result(0), 0, 'all sessions came to their end') or diag($err);
note("$workers workers and $launchers launchers were terminated");
cmp_ok($workers, '>', 20, 'workers were terminated');
cmp_ok($launchers, '>', 0, 'and the launcher');
is( $s->query(
		q{SELECT (SELECT count(*) = count(DISTINCT i) FROM t.log),
		  (SELECT count(*) = count(DISTINCT i) FROM t.asked),
		  (SELECT count(*) FROM t.asked WHERE i NOT IN (SELECT i FROM t.log)),
		  (SELECT count(*) FROM t.log WHERE i NOT IN (SELECT i FROM t.asked)),
		  (SELECT count(*) = last_value FROM t.log, t.item GROUP BY last_value)}),
	't|t|0|0|t',
	'each task and item has run exactly once');

$_->quit for $s, $gate;
check_rest($node);
$node->stop;

done_testing();
