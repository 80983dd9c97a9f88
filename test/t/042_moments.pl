
# Two processes that meet at one moment in the life of a task, and requests to cancel
# that come at one.  Nothing is freed twice or left, and nobody's tasks are another's.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(
	conf => "loky.max_tasks = 64\nloky.shared_memory = '8MB'\nloky.max_tasks_per_role = 1\n");
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my ($f, $offset);

plan skip_all => 'the library was built without debug points'
  if $s->query(q{SELECT current_setting('loky.debug_point', true) IS NULL}) eq 't';

$s->query(
	q{CREATE FUNCTION t.fail(x int) RETURNS int LANGUAGE plpgsql AS
	  'BEGIN RAISE EXCEPTION ''no''; END'});

# Processes wait at this point from now on, or at none.
sub set_point
{
	my ($name) = @_;
	my $value = $name eq '' ? '' : "$name wait";

	$offset = log_end($node);
	set_debug_points($s, $value);
	return;
}

sub await_point
{
	my ($name) = @_;

	$node->wait_for_log(qr/waiting at debug point "\Q$name\E"/, $offset);
	return;
}

# Each place for a future can be had, and is free again.
sub check_places
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->query('SELECT count(loky.forget(future)) FROM loky.tasks');
	is( $s->query(
			q{SELECT count(*) FROM loky.wait(loky.submit_all('t.id',
			  ARRAY(SELECT generate_series(1, 64)))) WHERE state = 'succeeded'}),
		64, "$what: all places can be had");
	$s->query('SELECT count(loky.forget(future)) FROM loky.tasks');
	return;
}

# Tasks that fail with their executor's initializer, and that nobody is to keep, are
# forgotten before they are discarded; others get their places.
my $other = LokyTest::Session->new($node);
$other->executor(1);
set_point('discarding');
$gate->query('SELECT pg_advisory_lock(1)');
$s->query(
	q{SELECT loky.get_reusable_executor(1, initializer => 'SELECT 1 / t.gate(1)')});
my @futures = map {
	$s->query(q{SELECT loky.submit_task('SELECT 1', discard => true)})
} 1 .. 3;
at_gate($s, 1, 1);
$gate->query('SELECT pg_advisory_unlock(1)');
await_point('discarding');
is($other->query("SELECT loky.forget($_)"), 't', 'a failed task is forgotten')
  for @futures;
$other->query(
	q{DO $$
	  DECLARE
		f bigint;
	  BEGIN
		FOR i IN 1 .. 60 LOOP
			f := loky.submit_task('SELECT 1', delay => '1 day');
			PERFORM loky.cancel(f), loky.forget(f);
		END LOOP;
	  END$$});
my $others = $other->query(
	q{SELECT array_agg(loky.submit_task('SELECT 1', delay => '1 day'))
	  FROM generate_series(1, 10)});
set_point('');
$node->wait_for_log(qr/loky task $futures[$_] failed: the executor's initializer failed/,
	$offset)
  for 0 .. 2;
pass('the log tells of each of them');
is( $other->query(
		"SELECT state, count(*) FROM loky.tasks WHERE future = ANY ('$others') GROUP BY 1"),
	'pending|10', 'those of others wait as before');
is($other->query("SELECT count(*) FROM unnest('$others'::bigint[]) f WHERE loky.cancel(f)"),
	10, 'and can be cancelled');
$s->executor(2);
check_places('discarded tasks');

# A task that fails as it is submitted, and that nobody is to keep; the submitter is
# cancelled as it discards it.
$s->query(q{SELECT loky.get_reusable_executor(1, job_reducers => '{"int": "t.fail"}')});
for my $more ('', ', on_commit => true', ", key => 'k'")
{
	my $submit =
	  "SELECT loky.submit_task('t.id', ROW(1), discard => true$more) IS NULL";

	$s->query("SET loky.debug_point = 'discarding cancel'");
	is($s->fails($submit), '57014', "a submitter is cancelled$more");
	$s->query('RESET loky.debug_point');
	is($s->query('SELECT count(*) FROM loky.tasks'), 0, 'its task is gone');
}
$s->executor(2);
check_places('submitters that were cancelled');

# A callback is added before another one, of an adder that has yet to queue it: that
# runs first, and if it is not queued after all, the one behind it has its turn.
for my $goes_on (1, 0)
{
	my $adder = LokyTest::Session->new($node);
	my $add = "SELECT loky.add_done_callback(%d, 'SELECT t.gate(%d) FROM (SELECT \$1) x')";

	$s->query("SET loky.debug_point = ''");
	$gate->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
	my $future = $s->query(q{SELECT loky.submit('t.id', 1)});
	my $first = $s->query(sprintf $add, $future, 1);
	at_gate($s, 1, 1);
	$s->query('RESET loky.debug_point');
	set_point('prepared');
	$adder->send(sprintf $add, $future, 2);
	await_point('prepared');
	$s->query("SET loky.debug_point = ''");
	my $last = $s->query(sprintf $add, $future, 3);
	is($s->query("SELECT waiting_for FROM loky.tasks WHERE future = $last"),
		'after', 'a callback waits, behind one that is not queued');
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($s->query("SELECT state FROM loky.wait(ARRAY[$first])"), 'succeeded', 'the first one ends');
	is($s->query("SELECT waiting_for FROM loky.tasks WHERE future = $last"),
		'after', 'the last one still waits');
	$s->query('RESET loky.debug_point');
	if ($goes_on)
	{
		set_point('');
		my $middle = $adder->answer;
		at_gate($s, 2, 1);
		is($s->query("SELECT waiting_for FROM loky.tasks WHERE future = $last"),
			'after', 'and while the one in the middle runs');
		$gate->query('SELECT pg_advisory_unlock(2)');
		is($s->query("SELECT state FROM loky.wait(ARRAY[$middle])"), 'succeeded', 'which ends');
	}
	else
	{
		$s->query('SELECT pg_cancel_backend(' . $adder->pid . ')');
		is($adder->failure, '57014', 'the adder is cancelled');
		set_point('');
		$gate->query('SELECT pg_advisory_unlock(2)');
	}
	is($s->query("SELECT state FROM loky.wait(ARRAY[$last])"), 'succeeded', 'then the last one runs');
	check_places('callbacks');
	$adder->quit;
}

# The slot of an idle executor becomes another role's while its session submits: the
# task is as if the session had named an equal one, and the role's own.
$s->query(
	q{CREATE ROLE alice; CREATE ROLE bob;
	  GRANT USAGE ON SCHEMA loky, t TO alice, bob;
	  CREATE FUNCTION t.twice(x int) RETURNS int LANGUAGE sql AS 'SELECT 2 * x'});
my $alice = LokyTest::Session->new($node);
my $bob = LokyTest::Session->new($node);
$alice->query('SET ROLE alice');
$bob->query('SET ROLE bob');

# Make so many executors of bob's that all idle ones of before have gone.
sub fill_slots
{
	my ($then) = @_;

	$bob->query(
		qq{DO \$\$
		   BEGIN
			FOR i IN 1 .. 300 LOOP
				PERFORM loky.get_reusable_executor(1, settings => format('{"my.x": "%s"}', i)::jsonb);
				$then
			END LOOP;
		   END\$\$});
	return;
}

$gate->query('SELECT pg_advisory_lock(1)');
my $executor = $alice->query(
	q{SELECT loky.get_reusable_executor(1, job_reducers => '{"int": "t.twice"}')});
set_point('resolved');
$alice->send(q{SELECT loky.submit('SELECT t.gate(1, $1)', 5)});
await_point('resolved');
fill_slots('');
is($s->query("SELECT count(*) FROM loky.executors WHERE executor_id = $executor"),
	0, 'an executor has gone as its session submits');
set_point('');
$f = $alice->answer;
at_gate($s, 1, 1);
is($alice->fails(q{SELECT loky.submit('t.id', 1)}), 'LK008', 'its task counts for its role');
is($bob->query(q{SELECT loky.result(loky.submit('t.id', 1))}), 1, 'and not for another');
$gate->query('SELECT pg_advisory_unlock(1)');
is($alice->query("SELECT loky.result($f)"), 10, 'its arguments went through the reducers');

# ... or is found to be shut down before a commit, while its task is cancelled.
$alice->query(
	q{SELECT loky.get_reusable_executor(1); BEGIN});
$f = $alice->query(q{SELECT loky.submit_task('SELECT 1', on_commit => true)});
$alice->query('SELECT loky.shutdown()');
set_point('renewing');
$alice->send('COMMIT');
await_point('renewing');
is($s->query("SELECT loky.cancel($f)"), 't', 'a pledged task is cancelled before the commit');
fill_slots('PERFORM loky.shutdown();');
set_point('');
$alice->answer;
is( $s->query(
		q{SELECT count(*) FROM loky.executors WHERE role = 'bob' AND state = 'open'}),
	0, 'the commit opens no executor of another role');

# ... or is shut down between that and the commit, which opens it again; while its task
# is cancelled the slot becomes that of another one, which is shut down with a task that
# is pledged to it.
fill_slots('');
my $twin = LokyTest::Session->new($node);
my $make = q{SELECT loky.get_reusable_executor(1, settings => '{"my.x": "twin"}')};
$twin->query('SET ROLE alice');
$executor = $alice->query("$make; BEGIN");
$f = $alice->query(q{SELECT loky.submit_task('SELECT 1', on_commit => true)});
set_point('renewed');
$alice->send('COMMIT');
await_point('renewed');
is($twin->query($make), $executor, 'two sessions have one executor');
$twin->query('SELECT loky.shutdown(wait => false)');
set_point('reopening');
await_point('reopening');
is($s->query("SELECT loky.cancel($f)"), 't', 'a pledged task is cancelled in the commit');
ok( poll(
		$s, "SELECT count(*) FROM loky.executors WHERE executor_id = $executor AND state <> 'closed'", 0),
	'its executor is closed');
$executor = $bob->query(
	q{SELECT loky.get_reusable_executor(1, settings => '{"my.x": "new"}'); BEGIN});
$bob->query(
	q{SELECT loky.submit_task('SELECT 1', on_commit => true); SELECT loky.shutdown(wait => false)});
set_point('');
$alice->answer;
is($s->query("SELECT count(*) FROM loky.executors WHERE executor_id = $executor AND state = 'open'"),
	0, 'the commit does not open the one that has the slot now');
$bob->query('ROLLBACK');
$alice->query('RESET ROLE');
$bob->query('RESET ROLE');
$_->quit for $alice, $bob, $twin;
check_places('executors that have gone');

# What a failed attempt has left lies in a file: others submit and cancel in the
# executor while that is removed.
$s->query(
	q{CREATE FUNCTION t.fail_at_length(x int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		RAISE EXCEPTION '%', repeat('x', 20000000) USING ERRCODE = '40001';
	  END$$});
$s->executor(1, q{settings => '{"my.x": "one worker"}'});
set_point('deleting');
$f = $s->query(q{SELECT loky.submit_task('t.fail_at_length', ROW(1), retries => 1)});
await_point('deleting');
is($s->query("SELECT state FROM loky.tasks WHERE future = $f"), 'pending',
	'a task waits for its next attempt');
is($s->query("SELECT loky.cancel($f)"), 't', 'and is cancelled as the file is removed');
set_point('');
is($s->query(q{SELECT loky.run('SELECT 1')}), 1, 'its worker goes on');
is(scalar(grep { -f $_ } temp_files($node)), 0, 'no file is left');
$s->executor(2);
check_places('files of failed attempts');

# Whoever frees what lies in a file is cancelled as it does: who forgets it, who was
# its last reader, and who ends a run or a map.
my $large = q{'SELECT repeat(''x'', 20000000 + $1)'};
my $memory = $s->query('SELECT loky._memory_used()');

sub check_cancelled
{
	my ($what, $query, $error) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->query("SET loky.debug_point = 'deleting cancel'");
	is($s->fails($query), $error // '57014', "$what is cancelled as it deletes a file");
	$s->query('RESET loky.debug_point; ROLLBACK');
	is(scalar(grep { -f $_ } temp_files($node)), 0, "$what: the file is gone");
	check_places($what);
	cmp_ok($s->query('SELECT loky._memory_used()'), '<=', $memory + 1024, "$what: so is memory");
	return;
}

sub large_result
{
	$f = $s->query("SELECT loky.submit($large, 1)");
	is($s->query("SELECT state FROM loky.wait(ARRAY[$f])"), 'succeeded', 'a large result');
	is(scalar(grep { -f $_ } temp_files($node)), 1, 'lies in a file');
	return;
}

large_result();
check_cancelled('forget', "SELECT loky.forget($f) IS NULL");
large_result();
$s->query("BEGIN; DECLARE c CURSOR FOR SELECT length(loky.result($f, NULL::text))");
$s->query('FETCH 1 FROM c');
is($other->query("SELECT loky.forget($f)"), 't', 'a result is forgotten as it is read');
# nothing serves interrupts before the command is done
check_cancelled('a reader', 'CLOSE c', '');
check_cancelled('a run', "SELECT length(loky.run($large, ROW(1), NULL::text)) UNION ALL SELECT 1");
check_cancelled('a map',
	"SELECT length(loky.map($large, ARRAY[1, 2], NULL::text)) UNION ALL SELECT 1");

# A file cannot be deleted: of a future that is forgotten, and of one that is evicted for
# another.  The file stays, and that alone.
for my $way ('forget', 'evict')
{
	large_result();
	$s->query(
		q{SELECT loky.wait(loky.submit_all('t.id', ARRAY(SELECT generate_series(1, 63))))})
	  if $way eq 'evict';
	$s->query("SET loky.debug_point = 'deleting error'");
	is( $s->fails(
			$way eq 'evict' ? q{SELECT loky.submit('t.id', 1)} : "SELECT loky.forget($f)"),
		'57P01', "$way: an error as a file is deleted");
	$s->query('RESET loky.debug_point');
	is($s->fails("SELECT loky.state($f)"), '42704', "$way: its future is gone");
	check_places($way);
	cmp_ok($s->query('SELECT loky._memory_used()'), '<=', $memory + 1024, "$way: so is memory");
	unlink grep { -f $_ } temp_files($node);
}

$_->quit for $s, $other, $gate;
check_rest($node);
$node->stop;

done_testing();
