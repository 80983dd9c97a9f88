
# Workers that leave as soon as they are idle, where it hurts most: the first
# worker after that dies, arguments take long to send, tasks come in bursts, all
# executors' workers come and go at once.  The S-numbers are those of the contract
# with Python's loky; S28 to S31 and S34 are in 006_idle_timeout.pl.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $mine = q{executor_id = current_setting('loky.executor')::int};

# The session's executor has had a worker, and has none any more.
sub idle_out
{
	is($s->query(q{SELECT loky.result(loky.submit('t.id', 1))}), 1, 'a task runs');
	ok(poll($s, "SELECT workers FROM loky.executors WHERE $mine", 0),
		'its worker leaves');
	return;
}

# Whoever waits makes no other call than the one that waits.
subtest 'S32: the first worker after an idle time dies' => sub {
	$s->executor(1, "timeout => '50 ms'");
	for my $wait (
		q{SELECT loky.result(loky.submit('t.die'))},
		q{SELECT loky.map('SELECT t.die() FROM (SELECT $1) x', ARRAY[1])})
	{
		idle_out();
		is($s->fails($wait), 'LK001', "it is noticed: $wait");
	}
	for my $wait (
		[ q{SELECT state FROM loky.wait(ARRAY[loky.submit('t.die')])}, 'failed' ],
		[ q{SELECT sqlstate FROM loky.exception(loky.submit('t.die'))}, 'LK001' ],
		[ q{SELECT sqlstate FROM loky.try_map('SELECT t.die() FROM (SELECT $1) x', ARRAY[1])},
			'LK001' ])
	{
		idle_out();
		is($s->query($wait->[0]), $wait->[1], "it is noticed: $wait->[0]");
	}

	# What is queued behind it runs on another worker.
	idle_out();
	my $f = $s->query(q{SELECT loky.submit('t.die')});
	my $all = $s->query(
		q{SELECT loky.submit_all('t.touch', ARRAY(SELECT generate_series(1, 20)))});
	is($s->outcomes($all), '20 succeeded', 'those behind it succeed');
	is($s->outcomes("{$f}"), '1 failed LK001', 'it fails');
	is($s->logged, '20|20|1|20', 'each ran once');
	check_clean($s, 'after it');
};

# What a worker gets takes far longer to send than a worker waits for it.
subtest 'S35: large arguments and workers that leave at once' => sub {
	my $wanted = $s->query(
		q{SELECT string_agg(md5(repeat(chr(96 + i), 20000000)), ' ' ORDER BY i)
		  FROM generate_series(1, 5) i});
	my $strings =
	  q{(SELECT repeat(chr(96 + i), 20000000) FROM generate_series(1, 5) i)};

	$s->executor(2, "timeout => '1 ms'");
	is( $s->query(
			qq{SELECT string_agg(r, ' ') FROM loky.map('SELECT md5(\$1)',
			   ARRAY$strings) r}),
		$wanted,
		'a map is right');
	my $all = $s->query(
		qq{SELECT loky.submit_all('SELECT md5(\$1)', ARRAY$strings)});
	is( $s->query(
			qq{SELECT string_agg(r, ' ' ORDER BY n)
			   FROM unnest('$all'::bigint[]) WITH ORDINALITY u(f, n),
				loky.result(f) r}),
		$wanted,
		'so are tasks submitted at once');
	# One after the other, so that workers leave in between.
	is( $s->query(
			qq{SELECT string_agg(r, ' ' ORDER BY n)
			   FROM unnest(ARRAY$strings) WITH ORDINALITY u(v, n),
				LATERAL loky.result(loky.submit('SELECT md5(\$1)', v)) r}),
		$wanted,
		'and one by one');
	$s->query('SELECT loky.forget(future) FROM loky.tasks');
	check_clean($s, 'after it');
};

# Eight sessions on four executors of two workers each, which leave after 0 to 3 ms.
subtest 'S30: bursts of tasks and workers that leave at once' => sub {
	my $file = PostgreSQL::Test::Utils::tempdir . '/bursts.sql';

	$s->query(
		q{CREATE FUNCTION t.await(futures bigint[]) RETURNS void
			LANGUAGE plpgsql AS $$
		  BEGIN
			IF (SELECT count(*) FROM loky.wait(futures, '30 s')
				WHERE state = 'succeeded') <> cardinality(futures) THEN
				RAISE EXCEPTION 'not all succeeded';
			END IF;
		  END$$});
	append_to_file(
		$file, q{
SELECT loky.get_reusable_executor(2, timeout => :client_id % 4 * interval '1 ms');
SELECT t.await(loky.submit_all('t.touch',
	ARRAY(SELECT :client_id * 1000 + generate_series(1, 8))));
SELECT t.await(ARRAY[loky.submit('t.touch', :client_id * 1000)]);
});
	command_ok(
		[
			'timeout', '60', 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '50',
			'-f', $file, '-d', $node->connstr('postgres')
		],
		'no task is stranded');
	is($s->query('SELECT count(*) FROM t.log'), 8 * 50 * 9, 'all have run');
	is( $s->query(
			q{SELECT count(*) FROM (SELECT count(*) n FROM t.log GROUP BY i) x
			  WHERE n <> 50}),
		0,
		'none more than once');
	check_clean($s, 'after it');
};

$s->quit;
check_rest($node);
$node->stop;

done_testing();
