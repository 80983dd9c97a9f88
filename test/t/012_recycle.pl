
# loky.max_tasks_per_worker and loky.worker_memory_limit: workers are replaced
# when they have served long enough; no task, item or result is lost by it, and
# no client hears of it.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $mine = q{executor_id = current_setting('loky.executor')::int};
my $wpid = q{loky.result(loky.submit('t.wpid', 1), NULL::int)};
my $hours = 0;
my ($f, $pid, $offset);

# t.hold keeps so many megabytes in its worker, t.peak uses and frees them, but
# for a little in their midst, without which the C library gives them back by
# itself.
$s->query(
	q{CREATE FUNCTION t.hold(mb int, name text DEFAULT 'x') RETURNS int
	  LANGUAGE plpgsql AS $$
	  BEGIN
		PERFORM set_config('my.' || name, repeat('x', mb * 1024 * 1024), false);
		RETURN mb;
	  END$$;
	  CREATE FUNCTION t.peak(mb int) RETURNS bigint LANGUAGE sql AS
	  $$SELECT array_length(array_agg(repeat('x', 100 * 1024)), 1) + 0 *
			count(CASE WHEN i % 20 = 0 THEN
				set_config('my.p' || i, repeat('p', 120000), false) END)
		FROM generate_series(1, mb * 10) i$$});

# A new executor of this size, with workers that are started after the call.
sub executor
{
	my ($n) = @_;

	$hours++;
	return $s->query(
		"SELECT loky.get_reusable_executor($n, timeout => '$hours h')");
}

sub reload
{
	my ($setting, $value) = @_;

	$s->query("ALTER SYSTEM SET $setting = '$value'");
	$s->query('SELECT pg_reload_conf()');
	poll($s, "SELECT current_setting('$setting')", $value)
	  or die "$setting is not $value after a reload";
	return;
}

# How often each value of the list follows itself: "1 1 2" gives "2 1".
sub runs
{
	my ($last, @n) = ('');

	for (split /\s+/, $_[0])
	{
		push @n, 0 if $_ ne $last;
		$last = $_;
		$n[-1]++;
	}
	return "@n";
}

# The pids of the workers that ran the futures, or items, in their order.
sub pids_of_all
{
	my ($futures) = @_;

	$s->query("SELECT count(*) FROM loky.wait('$futures'::bigint[])");
	return $s->query(
		qq{SELECT string_agg(worker::text, ' ' ORDER BY future) FROM loky.tasks
		   WHERE future = ANY ('$futures'::bigint[]) AND state = 'succeeded'});
}

sub pids_of_map
{
	my ($task, $n, $options) = @_;

	$options //= '';
	return $s->query(
		qq{SELECT string_agg(r::text, ' ') FROM loky.map('$task',
		   ARRAY(SELECT generate_series(1, $n)), NULL::int $options) r});
}

sub restarts
{
	return $s->query("SELECT max(restarts) FROM loky.workers WHERE $mine");
}

#--------------------------------------------------------------------------
# The number of tasks
#--------------------------------------------------------------------------

is($s->query('SHOW loky.max_tasks_per_worker'), '0', 'off by default: tasks');
is($s->query('SHOW loky.worker_memory_limit'), '0', 'off by default: memory');
executor(1);
is(runs(pids_of_map('t.wpid', 100)), '100', 'off: one worker for a map');
is( runs(pids_of_all($s->query(
				q{SELECT loky.submit_all('t.wpid', ARRAY(SELECT generate_series(1, 100)))}))),
	'100', 'off: and for tasks');
is(restarts(), 0, 'off: none was replaced');
is($s->fails('SET loky.max_tasks_per_worker = 1'), '55P02', 'not for a session');
is($s->fails('SET loky.worker_memory_limit = 1'), '55P02', 'nor the other');

# A reload reaches the worker at rest, which has had enough.
reload('loky.max_tasks_per_worker', 3);
ok(poll($s, "SELECT count(*) FROM loky.workers WHERE $mine", 0),
	'a worker at rest leaves when a reload says so');

executor(1);
$offset = log_end($node);
is(runs(join ' ', map { $s->query("SELECT $wpid") } 1 .. 10),
	'3 3 3 1', 'tasks one after the other: a new worker after each three');
is(restarts(), 3, 'three were replaced');
is($s->query("SELECT tasks_done FROM loky.workers WHERE $mine AND state <> 'stopping'"),
	1, 'and the present one has run one');
my @lines = log_since($node, $offset) =~
  /LOG:  worker of loky executor \d+ is replaced after 3 tasks/g;
is(scalar @lines, 3, 'the log tells of each');
like(log_since($node, $offset), qr/DETAIL: .*loky\.max_tasks_per_worker is 3/,
	'and why');

executor(1);
is( runs(pids_of_all($s->query(
				q{SELECT loky.submit_all('t.wpid', ARRAY(SELECT generate_series(1, 10)))}))),
	'3 3 3 1', 'tasks in a queue');
executor(1);
$s->query('SET client_min_messages = log');
is(runs(pids_of_map('t.wpid', 10)), '3 3 3 1', 'items of a map');
is($s->messages, '', 'nobody is told');
$s->query('RESET client_min_messages');
is(restarts(), 3, 'these are counted too');
is(runs(pids_of_map('t.wpid', 3)), '2 1', 'a further map goes on where it was');

# Tasks that fail, or are cancelled, count like others.
executor(1);
is( $s->query(
		q{SELECT string_agg(concat_ws(' ', result, ok), ', ' ORDER BY ord)
		  FROM loky.try_map('SELECT 1 / ($1 - 1)', ARRAY[1, 2, 1, 2, 1], NULL::int)}),
	'f, 1 t, f, 1 t, f', 'items that fail');
is(restarts(), 1, 'count');

# A chunk is not cut.
executor(1);
is(runs(pids_of_map('t.wpid', 10, ', chunksize => 2')),
	'4 4 2', 'chunks: the one that completes the number is the last');

# Statements that share transactions.  Some items are heavy, so that ranges are
# given back and taken by workers that may not run all of it.
reload('loky.max_tasks_per_worker', 100);
$s->query(
	q{CREATE FUNCTION t.stable_wpid(x int) RETURNS int STABLE LANGUAGE plpgsql AS $$
	  BEGIN
		IF x % 50 = 0 THEN
			PERFORM pg_sleep(0.002);
		END IF;
		RETURN pg_backend_pid();
	  END$$});
executor(1);
is(runs(pids_of_map('t.stable_wpid', 450)),
	'100 100 100 100 50', 'items that share transactions');
executor(3);
my %count;
$count{$_}++ for split / /, pids_of_map('t.stable_wpid', 5000);
is(scalar(grep { $_ > 100 } values %count),
	0, 'by three workers: none runs more than it may');
cmp_ok(scalar(grep { $_ < 100 } values %count),
	'<=', 3, 'and each but the last ones as many');

# A worker that may run two more takes over what a dead one has left.
reload('loky.max_tasks_per_worker', 1000);
$s->query(
	q{CREATE FUNCTION t.stable_gate(x int) RETURNS int STABLE LANGUAGE plpgsql AS $$
	  BEGIN
		IF x = 700 THEN
			PERFORM pg_advisory_xact_lock_shared(2);
		END IF;
		RETURN x;
	  END$$});
executor(1);
$s->query(
	q{SELECT count(*) FROM loky.map('t.id', ARRAY(SELECT generate_series(1, 997)))});
$gate->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
$f = $s->query(q{SELECT loky.submit('t.gate', 1)});
at_gate($gate, 1, 1);
$pid = pid_of($s, $f);
$s->query("SELECT loky.get_reusable_executor(2, timeout => '$hours h')");
$s->send(
	qq{SELECT count(*), count(*) FILTER (WHERE ok), count(*) FILTER (WHERE worker = $pid)
	   FROM loky.try_map('t.stable_gate',
	   ARRAY(SELECT generate_series(1, 1200)), NULL::int)});
at_gate($gate, 2, 1);
$gate->query("SELECT loky.get_reusable_executor(1, timeout => '$hours h')");
my $dead = $gate->query(
	"SELECT pid FROM loky.workers WHERE $mine AND pid <> $pid AND state = 'busy'");
$gate->query("SELECT pg_terminate_backend($dead)");
ok(poll($gate, "SELECT count(*) FROM loky.workers WHERE pid = $dead", 0),
	'a worker dies in a map');
$gate->query('SELECT pg_advisory_unlock(1), pg_advisory_unlock(2)');
is($s->answer, '1200|1199|2', 'another one takes no more than it may of its items');
$gate->query('RESET loky.executor');

#--------------------------------------------------------------------------
# Nothing is lost
#--------------------------------------------------------------------------

my @all = (1 .. 300);
my $sum = 150 * 301;

reload('loky.max_tasks_per_worker', 7);
executor(1);
is( $s->query(
		q{SELECT count(*) FROM loky.wait(loky.submit_all('t.touch',
		  ARRAY(SELECT generate_series(1, 300)))) WHERE state = 'succeeded'}),
	300, 'one worker: 300 tasks succeed');
is($s->logged, '300|300|1|300', 'each once');
is( $s->query(
		q{SELECT string_agg(r::text, ' ') FROM loky.map('t.touch',
		  ARRAY(SELECT generate_series(1, 300)), NULL::int) r}),
	"@all", 'one worker: so do 300 items');
is($s->logged, '300|300|1|300', 'each once');
is(restarts(), int(600 / 7), 'by as many workers as it takes');

# All leave at once, after each item.
reload('loky.max_tasks_per_worker', 1);
executor(4);
is( $s->query(
		q{SELECT count(*), sum(r) FROM loky.map('t.touch',
		  ARRAY(SELECT generate_series(1, 60)), NULL::int, ordered => false) r}),
	'60|1830', 'four workers, each for one item');
is($s->logged, '60|60|1|60', 'each ran once');
$gate->query('SELECT pg_advisory_lock(1)');
$f = $s->query(
	q{SELECT loky.submit_all('t.touch_gate', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 12) i))});
at_gate($s, 1, 4);
$gate->query('SELECT pg_advisory_unlock(1)');
my %pids = map { $_ => 1 } split / /, pids_of_all($f);
is(scalar keys %pids, 12, 'four end at once: twelve tasks, twelve workers');
$s->logged;

# The executor is resized meanwhile, and the reader rests.
reload('loky.max_tasks_per_worker', 2);
executor(4);
$s->query(
	q{BEGIN; DECLARE c CURSOR FOR SELECT loky.map('t.touch',
	  ARRAY(SELECT generate_series(1, 120)), NULL::int)});
my @got = split /\n/, $s->query('FETCH 10 FROM c');
for my $n (1, 5, 2, 8, 1)
{
	my $o = LokyTest::Session->new($node);

	$o->query("SELECT loky.get_reusable_executor($n, timeout => '$hours h')");
	push @got, split /\n/, $s->query('FETCH 15 FROM c');
	is( $o->query(
			q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1,2,3,4,5], NULL::int) r}),
		15, "another session's map, at size $n");
	$o->quit;
}
push @got, split /\n/, $s->query('FETCH ALL FROM c');
$s->query('COMMIT');
is("@got", "@all[0 .. 119]", 'a map that is resized while workers leave');
is($s->logged, '120|120|1|120', 'each item ran once');

# Tasks that wait for tasks of their own.
reload('loky.max_tasks_per_worker', 1);
for my $n (1, 2)
{
	executor($n);
	is( $s->query(
			q{SELECT sum(r) FROM loky.map('SELECT sum(i) FROM
			  loky.map(''t.id'', ARRAY[$1, $1 + 1, $1 + 2], NULL::int) i',
			  ARRAY(SELECT generate_series(1, 6)), NULL::bigint) r}),
		3 * 21 + 3 * 6, "maps inside of items, at size $n");
	is( $s->query(
			q{SELECT sum(r) FROM unnest(loky.submit_all('SELECT i FROM
			  loky.result(loky.submit(''t.id'', $1), NULL::int) i',
			  ARRAY(SELECT generate_series(1, 6)))) f, loky.result(f, NULL::int) r}),
		21, "tasks inside of tasks, at size $n");
}
is($s->messages, '', 'nobody is told');

# Switched off while an item runs, and on: a worker looks between items.
for my $limit (0, 1)
{
	reload('loky.max_tasks_per_worker', 1 - $limit);
	executor(1);
	$gate->query('SELECT pg_advisory_lock(1)');
	$s->send(
		q{SELECT count(DISTINCT worker), sum(result) FROM loky.try_map('t.gate',
		  ARRAY(SELECT ROW(1, i) FROM generate_series(1, 6) i), NULL::int)});
	at_gate($gate, 1, 1);
	$gate->query("ALTER SYSTEM SET loky.max_tasks_per_worker = $limit");
	$gate->query('SELECT pg_reload_conf()');
	# The signal of a reload goes to the younger process first.
	poll($gate, q{SELECT current_setting('loky.max_tasks_per_worker')}, $limit);
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($s->answer, $limit ? '6|21' : '1|21', "a map in which it becomes $limit");
}

#--------------------------------------------------------------------------
# Memory
#--------------------------------------------------------------------------

reload('loky.max_tasks_per_worker', 0);
executor(1);
$pid = $s->query("SELECT $wpid");
$s->query(q{SELECT loky.result(loky.submit('t.hold', 60))});
is($s->query("SELECT $wpid"), $pid, 'no limit: a worker keeps what it wants');
cmp_ok($s->query("SELECT memory_bytes FROM loky.workers WHERE pid = $pid"),
	'>', 60 * 1024 * 1024, 'and the view says so');
$offset = log_end($node);
reload('loky.worker_memory_limit', '40MB');
ok(poll($s, "SELECT count(*) FROM loky.workers WHERE pid = $pid", 0),
	'a reload replaces it');
like(log_since($node, $offset),
	qr/LOG:  worker of loky executor \d+ is replaced as it holds \d+ kB after a task/,
	'the log says so');
like(log_since($node, $offset),
	qr/DETAIL: .*loky\.worker_memory_limit is 40960 kB/, 'and why');

executor(1);
$pid = $s->query("SELECT $wpid");
$s->query(q{SELECT loky.result(loky.submit('t.hold', 2))});
is($s->query("SELECT $wpid"), $pid, 'a worker that keeps little stays');
is( $s->query(
		q{SELECT loky.result(loky.submit('SELECT length(current_setting(''my.x''))'))}),
	2 * 1024 * 1024, 'with what it keeps');
is( $s->query(q{SELECT count(*), sum(r) FROM loky.result(loky.submit(
		'SELECT h * i FROM t.hold(60) h, generate_series(1, 1000) i'), NULL::int) r}),
	'1000|' . 60 * 500 * 1001, 'a task that keeps much: its result is there');
is($s->messages, '', 'and nobody is told');
isnt($s->query("SELECT $wpid"), $pid, 'its worker is replaced');
is( $s->query(
		q{SELECT loky.result(loky.submit('SELECT current_setting(''my.x'', true)'))}),
	'', 'by one that keeps nothing');
is(restarts(), 1, 'which is counted');

# What was freed does not count, in tasks and items.
$pid = $s->query("SELECT $wpid");
for my $mb (100, 60, 100)
{
	is( $s->query(
			qq{SELECT loky.result(loky.submit('t.peak', $mb), NULL::bigint)}),
		$mb * 10, "a task that uses much and frees it: $mb");
	is($s->query("SELECT $wpid"), $pid, 'its worker stays');
}
is( $s->query(
		q{SELECT count(DISTINCT worker), sum(result) FROM loky.try_map('t.peak',
		  ARRAY[60, 61, 62, 63], NULL::bigint)}),
	'1|' . 246 * 10, 'items that do');
is($s->query("SELECT $wpid"), $pid, 'the worker stays');
is(restarts(), 1, 'none was replaced');

# Nor what a worker must have for its task or map: arguments that lie in a file.
is( $s->query(
		q{SELECT loky.result(loky.submit('SELECT length($1)',
		  repeat('x', 80 * 1024 * 1024)))}),
	80 * 1024 * 1024, 'a task with a large argument');
is($s->query("SELECT $wpid"), $pid, 'the worker stays');
is( $s->query(
		q{SELECT count(DISTINCT worker), sum(result) FROM loky.try_map(
		  'SELECT $1 + length($2)', ARRAY(SELECT generate_series(1, 20)),
		  NULL::int, args => ROW(repeat('x', 80 * 1024 * 1024)))}),
	'1|' . (210 + 20 * 80 * 1024 * 1024), 'a map with large arguments');
is($s->query("SELECT $wpid"), $pid, 'the worker stays');

# Items that keep more and more.
executor(2);
is( $s->query(
		q{SELECT count(*), sum(result), count(DISTINCT worker) > 4
		  FROM loky.try_map('t.hold', ARRAY(SELECT ROW(8, 'x' || i)
			FROM generate_series(1, 40) i), NULL::int)}),
	'40|320|t', 'a map whose items keep more and more');
is($s->messages, '', 'nobody is told');
ok( poll($s, "SELECT count(*) FROM loky.workers
		WHERE $mine AND memory_bytes > 40 * 1024 * 1024", 0),
	'no worker is left that keeps too much');

# A limit that no worker can meet: each runs one task.
reload('loky.worker_memory_limit', '1kB');
executor(1);
is(runs(pids_of_map('t.wpid', 5)), '1 1 1 1 1', 'a limit that none can meet');
reload('loky.worker_memory_limit', '0');
executor(1);
$s->query(q{SELECT loky.result(loky.submit('t.hold', 60))});
is(runs(pids_of_map('t.wpid', 20)), '20', 'switched off again');

#--------------------------------------------------------------------------
# What else loky.workers.restarts counts
#--------------------------------------------------------------------------

executor(2);
$s->query('SELECT ' . $wpid);
is(restarts(), 0, 'none has ended');
is($s->fails(q{SELECT loky.result(loky.submit('t.die'))}), 'LK001', 'one dies in a task');
$s->query("SELECT $wpid");
is(restarts(), 1, 'which is counted');
is($s->fails(q{SELECT loky.map('SELECT t.die() + $1', ARRAY[1])}),
	'LK001', 'one dies in a map');
$s->query("SELECT $wpid");
is(restarts(), 2, 'so is this');
$gate->query('SELECT pg_advisory_lock(1)');
$f = $s->query(q{SELECT loky.submit('t.gate', 1)});
at_gate($s, 1, 1);
$s->query(
	"SELECT loky.get_reusable_executor(2, timeout => '$hours h', kill_workers => true)");
is($s->fails("SELECT loky.result($f)"), 'LK003', 'one is ended on purpose');
$gate->query('SELECT pg_advisory_unlock(1)');
$s->query("SELECT $wpid");
is(restarts(), 2, 'which is not');

$_->quit for $s, $gate;
check_rest($node);
$node->stop;

done_testing();
