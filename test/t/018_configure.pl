
# Executors with a configuration, and many sessions: environments that change,
# initializers that fail while others are at work, and what the log tells.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(conf => "loky.env_allowed = 'A, OMP_*'\n");
my $dir = PostgreSQL::Test::Utils::tempdir;
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $mine = q{executor_id = current_setting('loky.executor')::int};

# t.start(x) is the initializer: it leaves a row, and fails while t.switch says so.
# t.same raises an error unless the two are equal.
$s->query(
	q{CREATE TABLE t.switch (broken boolean);
	  INSERT INTO t.switch VALUES (false);
	  CREATE TABLE t.started (x int, pid int DEFAULT pg_backend_pid());
	  CREATE FUNCTION t.start(x int) RETURNS void LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.started (x) VALUES (x);
		IF (SELECT broken FROM t.switch) THEN
			RAISE EXCEPTION 'broken' USING ERRCODE = 'XY001';
		END IF;
	  END$$;
	  CREATE FUNCTION t.same(a anyelement, b anyelement) RETURNS void
		LANGUAGE plpgsql AS $$
	  BEGIN
		IF a IS DISTINCT FROM b THEN
			RAISE EXCEPTION 'expected %, got %', b, a;
		END IF;
	  END$$;
	  CREATE FUNCTION t.square(x int) RETURNS int LANGUAGE plpgsql AS
		'BEGIN RETURN x * x; END';
	  CREATE ROLE app LOGIN;
	  GRANT USAGE ON SCHEMA loky, t TO app});

# Make an executor of n workers whose initializer is t.start(x) the current one.
sub executor
{
	my ($session, $n, $x, $more) = @_;

	return $session->query(
		"SELECT loky.get_reusable_executor($n, initializer => 't.start',
		 initargs => ROW($x)" . ($more // '') . ')');
}

sub set_broken
{
	my ($broken) = @_;

	$s->query("UPDATE t.switch SET broken = $broken");
	return;
}

# Ten sessions, so many transactions each.
sub run_sessions
{
	my ($what, $transactions, $user, $script) = @_;
	my $file = "$dir/" . ($what =~ s/\W+/_/gr);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	append_to_file($file, $script);
	command_ok(
		[
			'timeout', '240', 'pgbench', '-n', '-c', '10', '-j', '2', '-t',
			$transactions, '--random-seed', '20260101', '-f', $file, '-d',
			$node->connstr('postgres') . " user=$user"
		],
		$what);
	return;
}

#--------------------------------------------------------------------------
# Many sessions
#--------------------------------------------------------------------------

# S16: ten environments in turn; each task sees that of its session.
run_sessions('S16: environments that change', 20, 'app', q{
\set i random(1, 10)
SELECT loky.get_reusable_executor(2, env => jsonb_build_object('A', :i));
SELECT loky.submit('SELECT loky.getenv(''A'')::int') AS f \gset
SELECT t.same(r, :i) FROM loky.result(:f, NULL::int) r;
SELECT t.same(array_agg(r), array_fill(:i, ARRAY[5]))
FROM loky.map('SELECT loky.getenv(''A'')::int', ARRAY[1,2,3,4,5], NULL::int) r;
});
is( $s->query(
		q{SELECT count(*) FROM loky.tasks WHERE role = 'app' AND state <> 'succeeded'}
	),
	0,
	'S16: no task has failed');

# S17: one configuration with an initializer, whose size changes all the time:
# from a clean start, and from a broken executor.
my $s17 = q{
\set n random(1, 4)
SELECT loky.get_reusable_executor(:n, initializer => 't.start', initargs => ROW(17));
SELECT t.same(array_agg(r), ARRAY[1,4,9,16,25,36,49,64,81,100])
FROM loky.map('t.square', ARRAY[1,2,3,4,5,6,7,8,9,10], NULL::int) r;
};
my $user = $s->query('SELECT current_user');
run_sessions('S17: sizes that change, from a clean start', 5, $user, $s17);
my $id = executor($s, 2, 17);
ok( poll(
		$s, "SELECT count(*) FROM loky.workers w WHERE executor_id = $id AND
		  (SELECT count(*) FROM t.started s WHERE s.pid = w.pid AND x = 17) <> 1", 0),
	'S17: each worker has been initialized, once');
set_broken('true');
executor($s, 2, 17, ', kill_workers => true');
is($s->query(q{SELECT t.outcome(loky.submit('t.id', 1))}),
	'LK002', 'S17: the executor is broken');
set_broken('false');
run_sessions('S17: from a broken one', 5, $user, $s17);

# Reducers of ten executors in turn, each session with its own.
run_sessions('reducers that change', 20, $user, q{
\set i random(1, 10)
SELECT loky.get_reusable_executor(2, job_reducers => jsonb_build_object('int4', 't.square'),
	result_reducers => jsonb_build_object('int4', CASE WHEN :i % 2 = 0 THEN 't.square' ELSE 't.id' END));
SELECT t.same(r, CASE WHEN :i % 2 = 0 THEN :i * :i * :i * :i ELSE :i * :i END)
FROM loky.result(loky.submit('t.id', :i), NULL::int) r;
SELECT t.same(sum(r), CASE WHEN :i % 2 = 0 THEN 98 ELSE 14 END::bigint)
FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int) r;
});

#--------------------------------------------------------------------------
# Workers that come and go
#--------------------------------------------------------------------------

# S28: all leave; the next task has a worker that was initialized.
$id = executor($s, 1, 28, q{, timeout => '50 ms'});
my %pids;
for my $round (1 .. 3)
{
	my $pid = $s->query(
		q{SELECT loky.result(loky.submit('SELECT pid FROM t.started WHERE
		  x = 28 AND pid = pg_backend_pid()'), NULL::int)});

	$pids{$pid} = 1;
	ok(poll($s, "SELECT count(*) FROM loky.workers WHERE $mine", 0),
		"S28: round $round: the worker leaves");
}
is($s->query('SELECT count(*) FROM t.started WHERE x = 28'),
	3, 'S28: each has run the initializer, once');
is(executor($s, 1, 28, q{, timeout => '50 ms'}), $id,
	'S28: the executor is the same');

# S33: the initializer fails in the worker that comes next.
set_broken('true');
is($s->query(q{SELECT t.outcome(loky.submit('t.id', 1))}),
	'LK002', 'S33: a later initializer fails');
set_broken('false');
is($s->query(q{SELECT t.outcome(loky.submit('t.id', 1))}),
	'1', 'S33: the next submit starts afresh');

# S48: three sessions at the same executor; three tasks at once have three
# initialized workers, and their rows are there before the tasks begin.
my @sessions = map { LokyTest::Session->new($node) } 1 .. 3;
my %ids = map { executor($_, 3, 48) => 1 } @sessions;
is(scalar(keys %ids), 1, 'S48: sessions with equal initargs share an executor');
$gate->query('SELECT pg_advisory_lock(1)');
my @futures = map {
	$_->query(
		q{SELECT loky.submit('SELECT count(*) FROM t.started, t.gate(1) WHERE
		  x = 48 AND pid = pg_backend_pid()')})
} @sessions;
at_gate($s, 1, 3);
is($s->query('SELECT count(*), count(DISTINCT pid) FROM t.started WHERE x = 48'),
	'3|3', 'S48: three workers, each initialized');
$gate->query('SELECT pg_advisory_unlock(1)');
is( join(' ',
		map { $sessions[$_]->query("SELECT loky.result($futures[$_])") } 0 .. 2),
	'1 1 1',
	'S48: before its first task');

#--------------------------------------------------------------------------
# Broken while others are at work
#--------------------------------------------------------------------------

my ($a, $b, $c) = @sessions;
$s->query('TRUNCATE t.started');
$id = executor($_, 2, 47) for @sessions;
$gate->query('SELECT pg_advisory_lock(1)');
my $running = $a->query(q{SELECT loky.submit('t.touch_gate', 1, 47)});
at_gate($s, 1, 1);
$b->send(
	q{SELECT ord, result, ok, sqlstate FROM loky.try_map('t.gate',
	  ARRAY[ROW(1, 1), ROW(1, 2), ROW(1, 3)], chunksize => 1)});
at_gate($s, 1, 2);
my $pending = $a->query(
	q{SELECT loky.submit_all('t.id', ARRAY(SELECT generate_series(1, 20)))});
$c->send(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int)});
ok( poll(
		$s, "SELECT count(*) FROM pg_stat_activity WHERE pid = " . $c->pid
		  . " AND wait_event_type = 'Extension'", 1),
	'a session waits for its map');
set_broken('true');
$s->query("SET loky.executor = $id");
is($s->query(q{SELECT loky.get_reusable_executor(3, reuse => 'true')}),
	$id, 'the executor grows');
is($c->failure, 'LK002', 'a map of which nothing runs fails');
like($c->messages, qr/^DETAIL:  XY001: broken/m, '... with the cause');
is( $s->query(
		"SELECT string_agg(DISTINCT state, ' ') FROM loky.wait('$pending')"),
	'failed',
	'what was pending fails');
is( $s->query(
		"SELECT string_agg(DISTINCT sqlstate || ' ' || detail, ',') FROM
		 unnest('$pending'::bigint[]) f, loky.exception(f)"),
	'LK002 XY001: broken',
	'... with the cause');
is($s->query("SELECT loky.state($running)"), 'running', 'what runs goes on');
is($s->query("SELECT state FROM loky.executors WHERE executor_id = $id"),
	'broken', 'the view says what it is');

# While its tasks still run, others go on with a new one.
set_broken('false');
is($c->query(q{SELECT t.outcome(loky.submit('t.id', 48))}),
	'48', 'another session heals at its next submit');
my $fresh = executor($c, 2, 47);
cmp_ok($fresh, '>', $id, '... with a new executor');
is( $s->query(
		q{SELECT string_agg(r::text, ' ') FROM loky.map('t.id', ARRAY[1,2,3], NULL::int) r}
	),
	'1 2 3',
	'so does one with a map');
is( $s->query(
		"SELECT count(*) FROM loky.executors WHERE state = 'open' AND executor_id >= $fresh"
	),
	1,
	'in the same one');
is($s->query("SELECT loky.state($running)"), 'running', 'what runs still does');
$gate->query('SELECT pg_advisory_unlock(1)');
is($a->query("SELECT loky.result($running)"), '47', 'and ends well');
is($b->answer, "1|1|t|\n2||f|LK002\n3||f|LK002",
	'a try_map tells what has run, and why the rest has not');
is($s->query('SELECT count(*) FROM t.log WHERE i = 47'),
	1, 'what ran is committed');
$s->query('TRUNCATE t.log');
ok(poll($s, "SELECT count(*) FROM loky.workers WHERE executor_id = $id", 0),
	'the workers of the broken one leave');
is($a->query(q{SELECT t.outcome(loky.submit('t.id', 49))}),
	'49', 'the session whose executor broke goes on');

# Items that run end as they would have, with a result or an error of their own.
for my $map ('map', 'try_map')
{
	$id = executor($_, 2, 46) for $a, $s;
	$gate->query('SELECT pg_advisory_lock(1)');
	$a->send(
		$map eq 'map'
		? q{SELECT * FROM loky.map('t.gate', ARRAY[ROW(1, 1), ROW(1, 2)], NULL::int,
			chunksize => 1)}
		: q{SELECT ord, result, sqlstate FROM loky.try_map('SELECT 2 / (t.gate($1, $2) - 1)',
			ARRAY[ROW(1, 1), ROW(1, 2)], chunksize => 1)});
	at_gate($s, 1, 2);
	my $f = $s->query(q{SELECT loky.submit('t.id', 1)});
	set_broken('true');
	executor($s, 3, 46);
	is($s->query("SELECT t.outcome($f)"), 'LK002', "$map: what was pending fails");
	set_broken('false');
	$gate->query('SELECT pg_advisory_unlock(1)');
	is( $a->answer,
		$map eq 'map' ? "1\n2" : "1||22012\n2|2|",
		"$map: what runs ends by itself");
}

# Many sessions at an executor that breaks again and again: each call has one of
# two outcomes, and afterwards all is well.
$s->query(
	q{CREATE FUNCTION t.sometimes() RETURNS void LANGUAGE plpgsql AS $$
	  BEGIN
		IF pg_backend_pid() % 2 = 0 THEN
			RAISE EXCEPTION 'even';
		END IF;
	  END$$;
	  CREATE FUNCTION t.check_some() RETURNS void LANGUAGE plpgsql AS $$
	  DECLARE
		n int;
	  BEGIN
		SELECT count(*) INTO n FROM loky.try_map('t.id', ARRAY[1,2,3,4], NULL::int)
			WHERE ok AND result = ord OR NOT ok AND sqlstate = 'LK002';
		PERFORM t.same(n, 4);
		BEGIN
			PERFORM t.same(sum(r), 10::bigint) FROM loky.map('t.id', ARRAY[1,2,3,4], NULL::int) r;
		EXCEPTION WHEN SQLSTATE 'LK002' THEN
		END;
		PERFORM t.same(t.outcome(loky.submit('t.id', 5)) IN ('5', 'LK002'), true);
	  END$$});
run_sessions('an executor that breaks again and again', 20, $user, q{
\set n random(1, 4)
SELECT loky.get_reusable_executor(:n, timeout => '10 ms', initializer => 't.sometimes');
SELECT t.check_some();
});
check_idle($node, 'after an executor that breaks');

#--------------------------------------------------------------------------
# Locks
#--------------------------------------------------------------------------

# An initializer waits for a lock of the caller, who waits for the worker.
$s->query('CREATE TABLE t.locked (i int)');
my $locking = q{SELECT loky.get_reusable_executor(2,
	initializer => 'INSERT INTO t.locked VALUES (1)')};
for my $call (
	q{SELECT loky.result(loky.submit('t.id', 1))},
	q{SELECT * FROM loky.map('t.id', ARRAY[1, 2, 3])},
	q{SELECT * FROM loky.try_map('t.id', ARRAY[1, 2, 3])},
	q{SELECT * FROM loky.wait(loky.submit_all('t.id', ARRAY[1, 2, 3]))},
	q{SELECT loky.shutdown() FROM loky.submit('t.id', 1)})
{
	$a->query("$locking; BEGIN; LOCK TABLE t.locked");
	is($a->fails($call), '40P01', "40P01 in the caller of: $call");
	like($a->messages, qr/^HINT:/m, '... with a hint');
	$a->query('ROLLBACK');
	is($a->query(q{SELECT t.outcome(loky.submit('t.id', 2))}),
		'2', '... and the executor is not broken');
	$a->query('SELECT loky.shutdown()');
}
# A lock that another session holds is waited for, and no deadlock.
$b->query('BEGIN; LOCK TABLE t.locked');
$a->query($locking);
$a->send(q{SELECT loky.result(loky.submit('t.id', 3))});
ok( poll(
		$s, q{SELECT count(*) FROM pg_locks WHERE relation = 't.locked'::regclass
		  AND NOT granted}, 1),
	'an initializer waits for a lock of another session');
$b->query('COMMIT');
is($a->answer, '3', '... and then the task runs');

#--------------------------------------------------------------------------
# What the log tells
#--------------------------------------------------------------------------

# S46: an initializer that ends its own worker, or fails: no storm of new ones.
$node->append_conf('postgresql.conf', "log_min_messages = debug1\n");
$node->reload;
for my $init (
	q{'SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)'},
	q{'SELECT 1 / 0'})
{
	my $fresh = LokyTest::Session->new($node);
	my $offset = log_end($node);
	my $n = $fresh->query('SHOW loky.max_total_workers');

	ok(poll($fresh, 'SHOW log_min_messages', 'debug1'), 'the log tells of starts');
	my $e = $fresh->query(
		"SELECT loky.get_reusable_executor($n, initializer => $init)");
	is( $fresh->query(
			q{SELECT DISTINCT t.outcome(f) FROM unnest(loky.submit_all('t.id',
			  ARRAY(SELECT generate_series(1, 100)))) f}),
		'LK002',
		"S46: all fail: $init");
	ok( poll($fresh, "SELECT count(*) FROM loky.workers WHERE executor_id = $e", 0),
		'S46: no worker stays');
	my @starts = log_since($node, $offset) =~
	  /starting background worker process "loky worker of executor $e"/g;
	cmp_ok(scalar(@starts), '>=', 1, 'S46: a worker was started');
	cmp_ok(scalar(@starts), '<', 10, 'S46: and not many');
	$fresh->quit;
}
$node->append_conf('postgresql.conf', "log_min_messages = warning\n");
$node->reload;
check_idle($node, 'after S46');

# F26: what an initializer switches on is on for the tasks.
my $offset = log_end($node);
$s->query(
	q{SELECT loky.get_reusable_executor(1, initializer => 'LOAD ''auto_explain'';
	  SET auto_explain.log_min_duration = 0; SET auto_explain.log_level = log')});
$s->query(q{SELECT loky.result(loky.submit('SELECT ''is explained'''))});
$node->wait_for_log(qr/Query Text: SELECT 'is explained'/, $offset);
pass('F26: a task is explained in the log');

#--------------------------------------------------------------------------
# The environment of what is loaded at the start
#--------------------------------------------------------------------------

# A library in session_preload_libraries finds what env sets when it is loaded.
SKIP:
{
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	my $include = `$pg_config --includedir-server 2>&1`;
	chomp $include;
	skip 'no compiler, or no headers of the server', 2
	  if system('cc --version >/dev/null 2>&1') != 0
	  || !-e "$include/postgres.h";

	append_to_file("$dir/probe.c", <<'END');
#include "postgres.h"
#include <stdlib.h>
#include "fmgr.h"
#include "utils/guc.h"
PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
static char *seen;
void
_PG_init(void)
{
	const char *value = getenv("OMP_NUM_THREADS");

	DefineCustomStringVariable("env_probe.seen", "", NULL, &seen,
							   value ? value : "unset", PGC_INTERNAL, 0,
							   NULL, NULL, NULL);
}
END
	is( system('cc', '-shared', '-fPIC', '-w', "-I$include", '-o',
			"$dir/probe.so", "$dir/probe.c"),
		0,
		'a library is built');
	$s->query("ALTER ROLE app SET session_preload_libraries = '$dir/probe.so'");
	my $app = LokyTest::Session->new($node, user => 'app');
	my @seen = ($app->query('SHOW env_probe.seen'));
	for my $env ('{"OMP_NUM_THREADS": 1}', '{"OMP_NUM_THREADS": null}', '{}')
	{
		$app->query("SELECT loky.get_reusable_executor(1, env => '$env',
			initializer => 'SELECT set_config(''my.seen'',
				current_setting(''env_probe.seen''), false)')");
		push @seen,
		  $app->query(q{SELECT loky.result(loky.submit('SELECT
			current_setting(''env_probe.seen'') || current_setting(''my.seen'')'))});
	}
	is("@seen", 'unset 11 unsetunset unsetunset',
		'F18: env is in force before libraries are loaded');
	$app->quit;
	$s->query('ALTER ROLE app RESET session_preload_libraries');
}

#--------------------------------------------------------------------------
# The end of the server, or of a session, in the middle of it
#--------------------------------------------------------------------------

# A session that leaves while it waits for an initializer: the task goes on.
$gate->query('SELECT pg_advisory_lock(2)');
$b->query(
	q{SELECT loky.get_reusable_executor(1, initializer => 't.gate', initargs => ROW(2))});
my $left = $b->query(q{SELECT loky.submit('t.touch', 50)});
$b->send("SELECT loky.result($left)");
at_gate($s, 2, 1);
$b->kill;
$gate->query('SELECT pg_advisory_unlock(2)');
is($s->query("SELECT loky.result($left)"), '50',
	'a task goes on when its session has left in the initializer');
$s->query('TRUNCATE t.log');
check_rest($node);

# The server is shut down while an initializer runs.
$gate->query('SELECT pg_advisory_lock(2)');
$a->query(
	q{SELECT loky.get_reusable_executor(2, initializer => 't.gate',
	  initargs => ROW(2, 5))});
$a->query(q{SELECT loky.submit_all('t.id', ARRAY[1, 2, 3])});
at_gate($s, 2, 2);
$offset = log_end($node);
$node->stop('fast');
like(log_since($node, $offset), qr/database system is shut down/,
	'a fast shutdown ends initializers');
unlike(log_since($node, $offset), qr/PANIC|TRAP|terminated by signal/,
	'in good order');
$_->await_end for $s, $gate, $a, $c;

done_testing();
