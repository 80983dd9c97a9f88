
# Processes that end at any moment.  A worker before and after its task's commit: what
# was committed has succeeded and is never run again, and what was not has failed, also
# where the worker has temporary tables, which the server removes as it ends.  A caller at each stage of a map:
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
	  CREATE FUNCTION t.untrue(x int) RETURNS int LANGUAGE plpgsql STABLE AS
	  'BEGIN RETURN t.touch(x); END';
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
	  END$$;
	  CREATE PROCEDURE t.commit_submit() LANGUAGE plpgsql AS $$
	  BEGIN
		COMMIT;
		PERFORM loky.result(loky.submit('t.gate', 1, 1));
	  END$$});

# Processes wait at this point from now on, or do something else there; or at none.
sub set_point
{
	my ($name, $action) = @_;
	my $value = $name eq '' ? '' : "$name " . ($action // 'wait');

	$offset = log_end($node);
	set_debug_points($s, $value);
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

# Its worker has temporary tables; then the server commits as the process ends.
sub new_executor_with_table
{
	my $id = new_executor();

	$s->query(q{SELECT loky.run('CREATE TEMP TABLE own (i int)')});
	return $id;
}

# What becomes of a task whose worker ends at the point; and what ran.
sub end_at
{
	my ($point, $task, $retries, $way, $make_executor) = @_;
	my ($pid, $outcome, $caller);

	$s->query('TRUNCATE t.log');
	my $id = ($make_executor // \&new_executor)->();
	set_point($point);
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
			is( end_at($point, 't.touch', $retries, $terminate,
					\&new_executor_with_table),
				$of_function, "$point, $retries retries: with a temporary table");
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

	subtest 'the settings of a task are set and cannot be committed' => sub {
		my $id = new_executor();
		my $bare = LokyTest::Session->new($node);
		my $worker = q{SELECT loky.run('SELECT pg_backend_pid()')};

		$bare->query("SET loky.executor = $id");
		my $pid = $bare->query($worker);
		set_point('commit', 'fail 1 1');
		# the commit of the first task that sees the point passes
		ok(poll($bare, q{SELECT t.outcome(loky.submit('SHOW loky.debug_point'))}, 'commit fail 1 1'),
			'the worker is to have an error');
		$s->query(q{SET my.a = 'given'});
		is($s->fails(q{SELECT loky.run('SHOW my.a')}), '57P01', 'the task fails');
		set_point('');
		is($s->query(q{SELECT loky.run('SHOW my.a')}), 'given', 'the next one has its settings');
		is( $s->query(
				q{SELECT loky.run('SELECT count(*) FROM pg_backend_memory_contexts
				  WHERE name = ''loky environment''')}),
			1, 'and nothing is left of those that failed');
		is($bare->query($worker), $pid, 'in the same worker');
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

	# An attempt has failed, and another one would follow.
	subtest 'a task is cancelled when its attempt has failed' => sub {
		$s->query(
			q{TRUNCATE t.log;
			  CREATE FUNCTION t.collide() RETURNS int LANGUAGE plpgsql AS $$
			  BEGIN
				PERFORM loky.submit_task('t.touch', ROW(1), label => 'child',
					delay => '1 h');
				RAISE EXCEPTION USING errcode = '40001';
			  END$$});
		for my $way ('loky.cancel(%s, running => true)', 'loky.cancel(%s)')
		{
			my $running = $way =~ /running/;

			set_point('failed');
			new_executor();
			$f = $s->query(q{SELECT loky.submit_task('t.collide', retries => 1)});
			pid_at_point('failed');
			is($s->query('SELECT ' . sprintf $way, $f),
				$running ? 't' : 'f', "$way: the answer");
			set_point('');
			is($s->outcomes("{$f}"),
				$running ? '1 cancelled' : '1 failed 40001', "$way: the end");
			is($s->query("SELECT attempts FROM loky.tasks WHERE future = $f"),
				$running ? 1 : 2, "$way: attempts");
			is($s->fails("SELECT loky.exception($f)"),
				$running ? 'LK007' : '', "$way: its result");
			is( $s->query(
					q{SELECT string_agg(DISTINCT state, ' ') FROM loky.tasks
					  WHERE label = 'child'}),
				$running ? 'cancelled' : 'pending', "$way: what it has submitted");
			$s->query(q{SELECT loky.forget(future) FROM
				(SELECT future, loky.cancel(future) FROM loky.tasks
				 WHERE label = 'child' OFFSET 0) x});
		}
		check_clean($s, 'after it');
	};

	# What hangs on the task goes on: its key, what comes after it, its callbacks.
	# The caller of a run gives it up, but its commit was first.
	subtest 'the time of a run is up around the commit' => sub {
		for my $point ('sealed', 'committed')
		{
			my $caller = LokyTest::Session->new($node);

			$s->query('TRUNCATE t.log');
			set_point($point);
			$caller->executor(1, q{timeout => '1 h', reuse => 'false'});
			$caller->send(q{SELECT loky.run('t.touch', ROW(7), timeout => '3 s')});
			pid_at_point($point);
			poll($s, q{SELECT clock_timestamp() - query_start > '3.3 s' FROM pg_stat_activity WHERE pid = }
				  . $caller->pid);
			set_point('');
			is($caller->answer, 7, "$point: it returns the result");
			is($s->query('SELECT count(*) FROM t.log'), 1, "$point: of what was committed");
			$caller->quit;
		}
	};

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
		my $untrue = q{'t.untrue', ARRAY[1, 2, 3, 4, 5, 6], NULL::int};
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
			[ 'sealed', $untrue, '1:LK001 2:t 3:t 4:t 5:t 6:t', '5|5|2|6' ],
			[ 'sealed', "$untrue, retries => 3", $ok, '6|6|1|6' ],
			[ 'committed', $untrue, $ok, '6|6|1|6' ],
			[ 'taken', $plain, $ok, '0|0||' ],
			[ 'sealed', $plain, $ok, '0|0||' ],
			[ 'committed', $plain, $ok, '0|0||' ],
			[ 'ended', $plain, $ok, '0|0||' ])
		{
			my ($point, $map, $outcome, $logged) = @$case;
			my $caller = LokyTest::Session->new($node);

			for my $with_table (0, 1)
			{
				my $what = "$point: $map" . ($with_table ? ', with a table' : '');

				$caller->query(
					q{SELECT loky.get_reusable_executor(1, timeout => '1 h', reuse => 'false')}
				);
				$caller->query(q{SELECT loky.run('CREATE TEMP TABLE own (i int)')})
				  if $with_table;
				set_point($point);
				$caller->send(
					"SELECT string_agg(ord || ':' || coalesce(sqlstate, ok::text), ' ' ORDER BY ord)
					 FROM loky.try_map($map)");
				end_process(pid_at_point($point));
				set_point('');
				is($caller->answer =~ s/:true/:t/gr, $outcome, $what);
				is($s->logged, $logged, "$what: what ran");
				$caller->query('SELECT loky.shutdown()');
			}
			$caller->quit;
		}
		check_clean($s, 'after it');
	};
}

SKIP:
{
	skip 'the library was built without debug points', 1 unless $has_points;

	# The transaction has ended, and what is to be put back after it cannot be.
	subtest 'a worker cannot clean up behind a task' => sub {
		my $pid = sub { return $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}) };
		my $before;

		$s->query('TRUNCATE t.log');
		$s->executor(1,
			q{timeout => '1 h', settings => '{"loky.debug_point": "cleaning error"}'});
		for my $case (
			[ q{loky.result(loky.submit('t.touch', 1))}, 1 ],
			[ q{(loky.exception(loky.submit('SELECT 1 / 0'))).sqlstate}, '22012' ],
			[ q{loky.result(loky.submit('t.twice', 2))}, 'CALL' ],
			[ q{sum(r) FROM loky.map('t.touch', ARRAY[3, 4], NULL::int) r}, 7 ],
			[ q{count(*) FROM loky.map('t.plain', ARRAY[3, 4], NULL::int) r}, 2 ],
			[
				q{string_agg(coalesce(sqlstate, result), ' ' ORDER BY ord)
				  FROM loky.try_map('SELECT 6 / $1', ARRAY[1, 0, 2], chunksize => 1)},
				'6 22012 3'
			])
		{
			my ($call, $expected) = @$case;

			$before = $pid->();
			$offset = log_end($node);
			is($s->query("SELECT $call"), $expected, "it tells what came of it: $call");
			like(log_since($node, $offset),
				qr/ loky worker ERROR:  stopped at debug point "cleaning"/, 'the log says why');
			isnt($pid->(), $before, 'but is replaced');
		}
		is( $s->query(q{SELECT string_agg(i::text, ' ' ORDER BY i) FROM t.log}),
			'-2 1 2 3 4', 'each task has run once');

		# What an item leaves in a session that cannot be cleaned, no other one meets,
		# though it was claimed together with it.
		$s->executor(1);
		$s->query(
			q{TRUNCATE t.log;
			  CREATE PROCEDURE t.soil(x int) LANGUAGE plpgsql AS $$
			  BEGIN
				IF current_setting('my.soil', true) <> '' THEN
					INSERT INTO t.log (i) VALUES (x);
				ELSIF x % 100 = 0 THEN
					PERFORM set_config('my.soil', 'left', false),
						set_config('loky.debug_point', 'cleaning error', false);
					COMMIT;
				END IF;
			  END$$});
		is( $s->query(
				q{SELECT count(*) FROM loky.map('t.soil',
				  ARRAY(SELECT generate_series(1, 2000)), NULL::text)}),
			2000, 'items of which some cannot be cleaned up behind');
		is($s->query('SELECT count(*) FROM t.log'), 0, 'the others find a clean session');
		$s->executor(1);
		check_clean($s, 'after it');
	};

	# No worker ever gets as far as to say why.
	subtest 'workers end before they are known' => sub {
		$s->executor(1, q{timeout => '1 h', reuse => 'false'});
		$s->query(q{ALTER SYSTEM SET loky.debug_point = 'starting fatal'});
		$s->query('SELECT pg_reload_conf()');
		poll($s, 'SHOW loky.debug_point', 'starting fatal') or die;
		$f = $s->query(q{SELECT loky.submit('t.id', 1)});
		is( $s->query("SELECT sqlstate || ': ' || detail FROM loky.exception($f)"),
			'LK002: The last attempt ended before the worker was ready.',
			'after some attempts the task is told so');
		is( $s->query(
				q{SELECT count(*) FROM loky.workers
				  WHERE executor_id = current_setting('loky.executor')::int}),
			0, 'none of them is left');
		set_point('');
		is($s->query(q{SELECT loky.result(loky.submit('t.id', 2))}),
			2, 'the executor goes on once they can');
		check_clean($s, 'after it');
	};

	# An attempt that has not begun is none.
	subtest 'a worker ends as it takes an item again' => sub {
		$s->query(
			q{TRUNCATE t.log;
			  CREATE SEQUENCE t.nth;
			  CREATE FUNCTION t.second(x int) RETURNS int LANGUAGE plpgsql AS $$
			  BEGIN
				IF nextval('t.nth') = 1 THEN
					PERFORM pg_advisory_xact_lock_shared(1);
					RAISE EXCEPTION USING ERRCODE = '40001';
				END IF;
				INSERT INTO t.log (i) VALUES (x);
				RETURN x;
			  END$$});
		$gate->query('SELECT pg_advisory_lock(1)');
		$s->executor(1);
		my $caller = LokyTest::Session->new($node);
		$caller->executor(1);
		$caller->send(
			q{SELECT loky.map('t.second', ARRAY[5], NULL::int, retries => 1)});
		at_gate($s, 1, 1);
		set_point('taken');
		$gate->query('SELECT pg_advisory_unlock(1)');
		end_process(pid_at_point('taken'));
		set_point('');
		is($caller->answer, 5, 'it has its second attempt all the same');
		is($s->logged, '1|1|5|5', 'and has run once');
		$caller->quit;
		check_clean($s, 'after it');
	};
}

# What a procedure has begun after its own commit ends with it.
new_executor();
$gate->query('SELECT pg_advisory_lock(1)');
$f = $s->query(q{SELECT loky.submit('CALL t.commit_submit()')});
at_gate($s, 1, 1);
end_process(pid_of($s, $f));
is($s->outcomes("{$f}"), '1 failed LK001', 'a procedure whose worker ends as it waits');
ok(poll($s, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 0),
	'what it has submitted is cancelled');
$gate->query('SELECT pg_advisory_unlock(1)');

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

# A worker that has temporary tables, as it ends in the middle of a task: in what is
# deferred to the commit, in the task itself, and before the task has begun.
for my $with_table (0, 1)
{
	my $what = $with_table ? 'with a temporary table' : 'with none';
	my $make_executor = $with_table ? \&new_executor_with_table : \&new_executor;
	my $caller;
	my $await_row = q{CREATE OR REPLACE FUNCTION t.await() RETURNS trigger
		LANGUAGE plpgsql AS 'BEGIN PERFORM t.gate(1); RETURN NULL; END';
		DROP TABLE IF EXISTS t.deferred;
		CREATE TABLE t.deferred (i int);
		CREATE CONSTRAINT TRIGGER await AFTER INSERT ON t.deferred
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION t.await()};

	$s->query($await_row);
	$gate->query('SELECT pg_advisory_lock(1)');
	$make_executor->();
	$f = $s->query(q{SELECT loky.submit('INSERT INTO t.deferred VALUES (1)')});
	at_gate($s, 1, 1);
	end_process(pid_of($s, $f));
	is($s->outcomes("{$f}"), '1 failed LK001', "$what: ended in its final commit");

	$caller = LokyTest::Session->new($node);
	$caller->executor(1, q{timeout => '1 h', reuse => 'false'});
	$caller->query(q{SELECT loky.run('CREATE TEMP TABLE own (i int)')}) if $with_table;
	$caller->send(
		q{SELECT string_agg(coalesce(sqlstate, 'ok'), ' ')
		  FROM loky.try_map('INSERT INTO t.deferred VALUES ($1)', ARRAY[1], NULL::text)});
	at_gate($s, 1, 1);
	end_process(
		$s->query(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted})
	);
	is($caller->answer, 'LK001', "$what: so is an item");
	$caller->query('SELECT loky.shutdown()');
	$caller->quit;
	is($s->query('SELECT count(*) FROM t.deferred'), 0, "$what: and neither has a row");

	$make_executor->();
	$s->query('TRUNCATE t.log');
	$f = $s->query(
		q{SELECT loky.submit_task('t.touch_gate', ROW(1, 7), retries => 2)});
	at_gate($s, 1, 1);
	end_process(pid_of($s, $f));
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($s->outcomes("{$f}"), '1 succeeded', "$what: ended while it runs, it runs again");
	is($s->logged, '1|1|7|7', "$what: what was undone is there once");

	$make_executor->();
	$s->query('ALTER ROLE CURRENT_USER CONNECTION LIMIT ' . (50 + $with_table));
	is($s->query('SELECT loky.run($$SELECT 1$$)'),
		1, "$what: a task whose worker leaves as its role has changed");
	$s->query('ALTER ROLE CURRENT_USER CONNECTION LIMIT -1');
}

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

# The same, once no more than so many are left, which go last.
sub files_left
{
	my ($n) = @_;
	my $limit = time() + $PostgreSQL::Test::Utils::timeout_default;

	usleep(20_000) while (files() > $n && time() < $limit);
	return files();
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
	# A caller that ends leaves the freeing of its map to the last worker.
	ok(poll($s, "SELECT loky._memory_used() <= $memory + 1024"),
		"$what: no memory is left");
	is(files_left(0), 0, "$what: nor a file");
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
		is(files_left($kept), $kept, "$what, $end: its files are gone, but for those kept");
		ok(poll($s, "SELECT loky._memory_used() <= $memory + 1024"),
			"$what, $end: so is its memory");
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
# The launcher
#--------------------------------------------------------------------------

# It ends when it has promised a worker, and before there is a process.
if ($has_points)
{
	subtest 'the launcher ends before a worker starts' => sub {
		my $total = $s->query('SHOW loky.max_total_workers');
		my $caller = LokyTest::Session->new($node);

		# one that comes later has the setting from its start
		set_point('claimed', 'fatal');
		my $old = launcher_pid($node) // 0;
		kill 'TERM', $old if $old != 0;
		for (1 .. 3000)
		{
			last if $old == 0 || (launcher_pid($node) // 0) != $old;
			usleep(20_000);
		}
		$caller->executor(2, q{timeout => '1 h', reuse => 'false'});
		$f = $caller->query(q{SELECT loky.submit('t.touch', 3)});
		for my $i (1 .. 2)
		{
			$node->wait_for_log(qr/stopped at debug point "claimed"/, $offset);
			$offset = log_end($node);
			pass("the launcher ends: $i");
		}
		is($s->query("SELECT loky.state($f)"), 'pending', 'the task waits');
		set_point('');
		is($caller->query("SELECT loky.result($f)"), 3, 'and runs once a launcher stays');
		is($s->query('SELECT count(*) FROM t.log WHERE i = 3'), 1, 'once');

		# The places of those that never came are free again.
		$caller->executor($total, q{timeout => '1 h', reuse => 'false'});
		$gate->query('SELECT pg_advisory_lock(3)');
		my $all = $caller->query(
			qq{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(3, i) FROM generate_series(1, $total) i))});
		at_gate($s, 3, $total);
		$gate->query('SELECT pg_advisory_unlock(3)');
		is($caller->outcomes($all), "$total succeeded", 'all workers that there may be are there');
		$caller->quit;
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
	$launchers += kill 'TERM', $pid if defined $pid && $workers % 5 == 4;
	usleep(20_000);
}
$load->finish;
is($load->result(0), 0, 'all sessions came to their end') or diag($err);
note("$workers workers and $launchers launchers were terminated");
cmp_ok($workers, '>=', 5, 'workers were terminated');
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
