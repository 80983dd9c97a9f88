
# Which executor a session gets: reuse, kill_workers, executors that others have
# shut down or that have broken.  The S-numbers are those of the contract with
# Python's loky; those which are not here are in sql/executor.sql (S03, S03b, S09
# to S11), 009_limits.pl (S12) and 010_sessions.pl (S01, S04, S17).

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $o = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);

# The pids of the workers of the session's executor, two of which are there.
sub two_workers
{
	my ($session) = @_;

	$gate->query('SELECT pg_advisory_lock(1)');
	my $all = $session->query(
		q{SELECT loky.submit_all('t.gate', ARRAY[ROW(1, 1), ROW(1, 2)])});
	at_gate($session, 1, 2);
	my $pids = $session->query(
		"SELECT array_agg(worker) FROM loky.tasks WHERE future = ANY ('$all')");
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($session->outcomes($all), '2 succeeded', 'two tasks at a time');
	return $pids;
}

subtest 'S02: kill_workers ends the present workers' => sub {
	my $id = $s->executor(2, "timeout => '1 h'");
	my $old = two_workers($s);

	is($s->executor(2, "timeout => '1 h', kill_workers => true"),
		$id, 'the executor is the same');
	my $new = two_workers($s);
	is($s->query("SELECT '$old'::int[] && '$new'::int[]"),
		'f', 'no worker of before is left');
	ok( poll($s,
			"SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ('$old')", 0),
		'nor its process');

	# With tasks running and pending.
	$gate->query('SELECT pg_advisory_lock(1)');
	my $running = $s->query(
		q{SELECT loky.submit_all('t.touch_gate', ARRAY[ROW(1, 1), ROW(1, 2)])});
	at_gate($s, 1, 2);
	my $pending = $s->query(
		q{SELECT loky.submit_all('t.touch', ARRAY[3, 4, 5])});
	is($s->executor(2, "timeout => '1 h', kill_workers => true"),
		$id, 'the executor is the same once more');
	is($s->outcomes($running), '2 failed LK003', 'what ran fails');
	is($s->outcomes($pending), '3 succeeded', 'what was pending runs');
	is( $s->query(
			"SELECT count(*) FROM loky.tasks WHERE future = ANY ('$pending')
			 AND worker = ANY ('$new')"), 0,
		'on fresh workers');
	is($s->logged, '3|3|3|5', 'what failed left nothing');
	$gate->query('SELECT pg_advisory_unlock(1)');
	check_clean($s, 'after it');
};

subtest "S05: reuse => 'true' keeps the configuration" => sub {
	my $id = $s->executor(3, "timeout => '42 s'");
	my $look = q{SELECT max_workers, timeout FROM loky.executors
		WHERE executor_id = current_setting('loky.executor')::int};

	is($s->query("SELECT loky.get_reusable_executor(reuse => 'true')"),
		$id, 'the executor is the same');
	is($s->query($look), '3|00:00:42', 'and as it was');
	my $default = $s->query('SELECT loky.get_reusable_executor()');
	isnt($default, $id, 'a call without arguments leads to another one');
	is($s->query($look), '4|00:00:10', 'of the default size and timeout');
	is($s->query('SELECT loky.get_reusable_executor()'), $default, 'again');
	is($s->query("SELECT loky.get_reusable_executor(reuse => 'true')"),
		$default, "and with reuse => 'true'");
	is($s->query($look), '4|00:00:10', 'it is as it was');
	check_clean($s, 'after it');
};

for my $how ('', 'wait => false', 'kill_workers => true')
{
	subtest "S15: another session calls shutdown($how)" => sub {
		my $id = $s->executor(2, "timeout => '15 s'");

		is($o->executor(2, "timeout => '15 s'"), $id, 'two sessions share it');
		is($s->query(q{SELECT loky.result(loky.submit('t.id', 1))}),
			1, 'which works');
		$o->query("SELECT loky.shutdown($how)");
		my $f = $s->query(q{SELECT loky.submit('t.id', 2)});
		is($s->query("SELECT loky.result($f)"), 2, 'the other one goes on');
		my $new =
		  $s->query("SELECT executor_id FROM loky.tasks WHERE future = $f");
		cmp_ok($new, '>', $id, 'on a fresh executor');
		is( $s->query(
				"SELECT max_workers, timeout FROM loky.executors WHERE executor_id = $new"
			),
			'2|00:00:15',
			'with its own configuration');
		$f = $o->query(q{SELECT loky.submit('t.id', 3)});
		is($o->query("SELECT executor_id FROM loky.tasks WHERE future = $f"),
			$new, 'that the one who called finds as well');
		$o->query('SELECT loky.shutdown()');
		is($s->query(q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2], NULL::int) r}),
			3, 'a map after it');
		$o->query('SELECT loky.shutdown()');
		is( $s->query("SELECT loky.get_reusable_executor(reuse => 'true') > $new"),
			't', "so does reuse => 'true'");
		is( $s->query(
				q{SELECT timeout FROM loky.executors
				  WHERE executor_id = current_setting('loky.executor')::int}),
			'00:00:15',
			'with the configuration');
		check_clean($_, 'after it') for $s, $o;
	};
}

# A map whose reader rests counts as long as some of it has yet to be run.
subtest 'shutdown beside cursors' => sub {
	my $use = sub {
		my ($session) = @_;

		return $session->executor(2, "timeout => '16 s'");
	};
	my $rest_after_one = sub {
		my ($session, $n) = @_;

		$session->query('BEGIN');
		$session->query(
			"DECLARE c CURSOR FOR SELECT loky.map('t.id', ARRAY(SELECT generate_series(1, $n)))");
		return is($session->query('FETCH 1 FROM c'), 1, "a cursor rests over $n items");
	};
	my $state_of = sub {
		my ($id) = @_;

		return $o->query("SELECT state FROM loky.executors WHERE executor_id = $id");
	};

	# another session's, that goes on no more
	my $id = $use->($s);
	$use->($o);
	$o->query("SET statement_timeout = '60 s'");
	$rest_after_one->($s, 100_000);
	$o->query('SELECT loky.shutdown(kill_workers => true)');
	is($state_of->($id), 'closing', 'shutdown with kill_workers does not wait for its reader');
	is($o->query("SELECT loky.run('SELECT 1')"), 1, 'a fresh executor');
	$o->query('SELECT loky.shutdown()');
	is($state_of->($id), 'closing', 'nor does the shutdown of that');
	is($s->fails('FETCH ALL FROM c'), 'LK003', 'which is told');
	$s->query('ROLLBACK');

	# one that has been run
	$id = $use->($s);
	$use->($o);
	$rest_after_one->($s, 3);
	$o->query('SELECT loky.shutdown()');
	is($state_of->($id), 'closing', 'nor is what has been run, and not read, waited for');
	is($s->query('FETCH ALL FROM c'), "2\n3", 'and it can be read');
	$s->query('COMMIT');

	# one that is still to be run
	$id = $use->($s);
	$use->($o);
	$rest_after_one->($s, 100_000);
	$o->send('SELECT loky.shutdown()');
	ok( poll(
			$s,
			q{SELECT wait_event_type FROM pg_stat_activity WHERE pid = } . $o->pid,
			'Extension'),
		'what has yet to be run is waited for');
	is($s->query('SELECT count(*) FROM loky.executors e WHERE state = \'closing\''),
		1, 'while the executor closes');
	is($s->query('MOVE FORWARD 99998 FROM c'), '', 'the reader goes on');
	$o->answer;
	is($s->query('FETCH ALL FROM c'), 100_000, 'and reads what is left');
	$s->query('COMMIT');

	# one's own, of an executor of before
	$id = $use->($s);
	$rest_after_one->($s, 100_000);
	$s->query('SELECT loky.shutdown(wait => false)');
	my $f = $s->query(q{SELECT loky.submit('t.id', 1)});
	my $fresh = $s->query("SELECT executor_id FROM loky.tasks WHERE future = $f");
	cmp_ok($fresh, '>', $id, 'a cursor of our own on an earlier executor');
	$s->query('SELECT loky.shutdown()');
	isnt($state_of->($fresh), 'open', 'is in the way of no other shutdown');
	$s->query('COMMIT');

	$use->($s);
	$rest_after_one->($s, 100_000);
	is($s->fails('SELECT loky.shutdown()'),
		'55000', 'one on the present executor cannot be waited for');
	$s->query('ROLLBACK');
	$o->query('RESET statement_timeout');
	check_clean($_, 'after it') for $s, $o;
};

# Workers that cannot start break an executor: here because the role may not set
# any more what the configuration asks for.
subtest 'S17: ten sessions use an executor that has broken' => sub {
	my $settings = q{timeout => '0', settings => '{"log_duration": "on"}'};
	my $file = PostgreSQL::Test::Utils::tempdir . '/squares.sql';

	$s->query(
		q{CREATE ROLE breaker SUPERUSER LOGIN;
		  GRANT USAGE ON SCHEMA loky, t TO breaker;
		  CREATE FUNCTION t.check_squares(a int[]) RETURNS void
			LANGUAGE plpgsql AS $$
		  BEGIN
			IF a IS DISTINCT FROM '{1,4,9,16,25,36,49,64,81,100}' THEN
				RAISE EXCEPTION 'wrong squares: %', a;
			END IF;
		  END$$});
	my $user = LokyTest::Session->new($node, user => 'breaker');
	$user->executor(2, $settings);
	is($user->query(q{SELECT loky.result(loky.submit('SELECT 1'))}),
		1, 'it works');
	ok( poll(
			$user, q{SELECT workers FROM loky.executors
			  WHERE executor_id = current_setting('loky.executor')::int}, 0),
		'its worker leaves');
	$s->query('ALTER ROLE breaker NOSUPERUSER');
	my $all = $user->query(
		q{SELECT loky.submit_all('SELECT $1', ARRAY[1, 2, 3])});
	is($user->outcomes($all), '3 failed LK002', 'it breaks');
	$s->query('ALTER ROLE breaker SUPERUSER');
	append_to_file(
		$file, qq{
SELECT loky.get_reusable_executor(1 + :client_id % 4, $settings);
SELECT t.check_squares(array_agg(r))
FROM loky.map('SELECT \$1 * \$1', ARRAY[1,2,3,4,5,6,7,8,9,10], NULL::int) r;
});
	command_ok(
		[
			'timeout', '60', 'pgbench', '-n', '-c', '10', '-j', '2', '-t', '5',
			'-U', 'breaker', '-f', $file, '-d', $node->connstr('postgres')
		],
		'ten sessions right after it');
	is($user->query(q{SELECT loky.result(loky.submit('SELECT 2'))}),
		2, 'and the session in which it broke');
	check_clean($user, 'after it');
	$user->quit;
};

$_->quit for $s, $o, $gate;
check_rest($node);
$node->stop;

done_testing();
