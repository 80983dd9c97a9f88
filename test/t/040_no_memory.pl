
# Shared memory that is used up at any moment: each single allocation of a call is
# refused, alone, with the next ones, and with all that follow, in the caller and in
# the worker.  The answer is right all the same, as what has no room lies in a file, or
# the call fails with an error that says so; and nothing is left of it.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(conf => "loky.shared_memory = '8MB'\n");
my $s = LokyTest::Session->new($node);
my $has_points =
  $s->query(q{SELECT current_setting('loky.debug_point', true) IS NOT NULL}) eq 't';
my ($f, $memory, $messages);

# So many allocations are refused, from one of them on.
my @refused = (1, 2, 3, 1000000);

sub files
{
	return scalar(grep { -f $_ } temp_files($node));
}

sub memory
{
	poll($s, q{SELECT count(*) FROM loky.workers WHERE state = 'busy'}, 0);
	return $s->query('SELECT loky._memory_used()');
}

# What the call answers, or the SQLSTATE that it fails with.
sub outcome
{
	my ($sql) = @_;
	my $out;

	($out, $messages) = $s->send($sql)->receive;
	return $messages =~ /\b(?:ERROR|FATAL):  (\w{5}):/ ? $1 : $out;
}

# Is it an answer that the call may give?  Tell of one that is not.
sub is_right
{
	my ($got, $expected, $what) = @_;

	if ($got eq '53200')
	{
		return 1 if $messages =~ /HINT:  .*loky\.shared_memory/;
		diag("$what: no hint:\n$messages");
	}
	elsif (ref $expected ? $got =~ $expected : $got eq $expected)
	{
		return 1;
	}
	else
	{
		diag("$what: $got\n$messages");
	}
	return 0;
}

sub check_nothing_left
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->query('SELECT loky.forget(future) FROM loky.tasks');
	is(files(), 0, "$what: no file is left");
	cmp_ok(memory(), '<=', $memory + 1024, "$what: nor memory");
	return;
}

if (!$has_points)
{
	$s->quit;
	plan skip_all => 'the library was built without debug points';
}

$s->query(
	q{CREATE FUNCTION t.fail(n int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		RAISE EXCEPTION '%', repeat('x', n) USING ERRCODE = 'XY001';
	  END$$;
	  CREATE FUNCTION t.tell(n int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		RAISE NOTICE 'item %', n;
		RETURN n;
	  END$$;
	  CREATE TABLE t.numbers AS SELECT i FROM generate_series(1, 10) i;
	  ALTER TABLE t.numbers ADD PRIMARY KEY (i);
	  ANALYZE t.numbers});

# The same executor for all, whose workers have all that they need.
sub settle_executor
{
	$s->executor(1,
		q{timeout => '-1 s', settings => '{"loky.debug_point": ""}'});
	return;
}

subtest 'in the caller' => sub {
	my $long = q{repeat('x', 5000)};

	settle_executor();
	$f = $s->query(q{SELECT loky.submit('t.id', 1)});
	$s->query("SELECT loky.wait(ARRAY[$f])");
	my @cases = (
		[ q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2, NULL, 3], NULL::int) r}, 6 ],
		[
			q{SELECT string_agg(r, ' ') FROM loky.map('SELECT $1 || $2', ARRAY[ROW('a'::text, 1), NULL, ROW('b'::text, 2)]) r},
			'a1 b2'
		],
		[
			q{SELECT string_agg(concat_ws(' ', ord, result, sqlstate), ', ' ORDER BY ord) FROM loky.try_map('SELECT 6 / $1', ARRAY[1, 0, 2], NULL::int, ordered => false)},
			'1 6, 2 22012, 3 3'
		],
		[
			q{SELECT count(*) FROM loky.flat_map('SELECT i FROM t.numbers', ARRAY[1, 2], snapshot => true, retries => 2)},
			20
		],
		[
			"SELECT min(r) FROM loky.map('SELECT length(\$2)', ARRAY[1, 2], args => ROW($long), label => $long) r",
			5000
		],
		[ "SELECT min(r) FROM loky.map('SELECT length(\$1)', ARRAY[$long, repeat('y', 20000)]) r", 20000 ],
		[ q{SELECT count(*) FROM loky.map('t.id', '{}'::int[])}, 0 ],
		[ q{SELECT count(*) FROM loky.map_table('SELECT 1 FROM t.numbers WHERE ctid >= $1 AND ctid < $2', 't.numbers')}, 10 ],
		[ q{SELECT sum(rows) FROM loky.backfill('UPDATE t.numbers SET i = i WHERE i BETWEEN $1 AND $2', 't.numbers', chunk_rows => 4)}, 10 ],
		[ q{SELECT loky.result(loky.submit('t.id', 5))}, 5 ],
		[ "SELECT loky.result(loky.submit('SELECT length(\$1) /* ' || $long || '*/', $long))", 5000 ],
		[ "SELECT sum(r::int) FROM unnest(loky.submit_all('SELECT length(\$1)', ARRAY[$long, 'x'])) x, loky.result(x) r", 5001 ],
		[ "SELECT loky.result(loky.submit_task('t.id', ROW(6), after => ARRAY[$f], retries => 1, key => 'k'))", 6 ],
		[ "SELECT loky.result(loky.add_done_callback($f, 'SELECT \$1'))", $f ],
		[ "SELECT loky.result(loky.submit_task('SELECT length(\$1)', ROW($long), label => $long, delay => '1 ms'))", 5000 ],
		[ q{SELECT * FROM loky.run('t.id', ROW(7))}, 7 ]);

	# what stays, as what is known of the session's settings, is there from now on
	is(outcome($_->[0]), $_->[1], $_->[0]) for @cases;
	$memory = memory();
	for my $case (@cases)
	{
		my ($sql, $expected) = @$case;
		my ($wrong, $failed, $spared) = (0, 0, 0);

		# until an allocation that is not needed any more is refused
		for (my $last = ''; $last ne $expected; $spared++)
		{
			for my $n (@refused)
			{
				$s->query("SET loky.debug_point = 'area fail $spared $n'");
				$last = outcome($sql);
				$s->query("SET loky.debug_point = ''");
				$wrong++
				  unless is_right($last, $expected, "$spared $n: $sql");
				$failed++ if $last eq '53200';
			}
			last if $spared > 50;
		}
		is($wrong, 0, "$spared allocations, $failed times no room: $sql");
		cmp_ok($failed, '>', 0, 'and an error tells of it');
	}
	check_nothing_left('calls that found no room');

	for my $config (
		q{settings => '{"my.x": "y"}'}, q{initializer => 't.id', initargs => ROW(1)},
		q{env => '{"X": "1"}'}, q{job_reducers => '{"integer": "t.id"}'})
	{
		$s->query("SET loky.debug_point = 'area fail 0 1'");
		is(outcome("SELECT loky.get_reusable_executor(1, $config)"),
			'53200', "an executor with $config");
		like($messages, qr/HINT:  .*loky\.shared_memory/, 'the hint names the setting');
	}
	$s->query("SET loky.debug_point = ''");
	check_nothing_left('executors that found no room');
	check_clean($s, 'after it');
};

# Have the next task run by a new worker that is refused so much.
sub fresh_worker
{
	my ($spared, $n) = @_;

	$s->executor(1,
		qq[kill_workers => true, timeout => '1 h', settings => '{"loky.debug_point": "area fail $spared $n"}']);
	return;
}

subtest 'in the worker' => sub {
	my $last_spared = 5;

	for my $spared (0 .. $last_spared)
	{
		fresh_worker($spared, $_) for @refused;
	}
	$s->executor(1);
	$memory = memory();
	for my $case (
		[ q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int) r}, 6 ],
		[ q{SELECT count(*) || ' ' || sum(length(r)) FROM loky.map('SELECT repeat($1::text, 5000)', ARRAY[1, 2, 3, 4]) r}, '4 20000' ],
		[ q{SELECT count(*) || ' ' || sum(length(r)) FROM loky.map('SELECT repeat($1::text, 5000)', ARRAY[1, 2, 3, 4], chunksize => 2, ordered => false) r}, '4 20000' ],
		[ q{SELECT count(*) || ' ' || sum(length(r)) FROM loky.flat_map('SELECT repeat(i::text, 9) FROM generate_series(1, 1000 * $1) i', ARRAY[1, 2, 10], chunksize => 1) r}, '13000 438120' ],
		[
			q{SELECT string_agg(concat_ws(' ', ord, length(result), sqlstate), ', ' ORDER BY ord) FROM loky.try_map('SELECT repeat($1::text, 4000)', ARRAY[1, 2, 3])},
			qr/^1 (?:4000|53200), 2 (?:4000|53200), 3 (?:4000|53200)$/
		],
		[
			q{SELECT string_agg(concat_ws(' ', ord, sqlstate), ', ' ORDER BY ord) FROM loky.try_map('t.fail', ARRAY[10, 5000, 20000])},
			qr/^1 (?:XY001|53200), 2 (?:XY001|53200), 3 (?:XY001|53200)$/
		],
		[ q{SELECT loky.map('t.tell', ARRAY[1, 2, 3])}, "1\n2\n3" ],
		[ q{SELECT loky.result(loky.submit('t.tell', 4))}, 4 ],
		[ q{SELECT sum(length(r)) FROM loky.result(loky.submit('SELECT repeat(''x'', 50000) FROM generate_series(1, 3)')) r}, 150000 ],
		[ q{SELECT length(message) || sqlstate FROM loky.exception(loky.submit('t.fail', 6000))}, '6000XY001' ])
	{
		my ($sql, $expected) = @$case;
		my ($wrong, $failed) = (0, 0);

		for my $spared (0 .. $last_spared)
		{
			for my $n (@refused)
			{
				fresh_worker($spared, $n);
				my $got = outcome($sql);
				$wrong++ unless is_right($got, $expected, "$spared $n: $sql");
				$failed++ if $got =~ /53200/;
			}
		}
		is($wrong, 0, "$failed times no room: $sql");
	}

	$s->query('SELECT loky.forget(future) FROM loky.tasks');

	# No room for a result, but for the word that it lies in a file.
	fresh_worker(3, 2);
	$s->query(
		q{BEGIN; DECLARE c CURSOR FOR SELECT loky.map('SELECT repeat($1::text, 5000)', ARRAY[1, 2])});
	is($s->query('FETCH c'), '1' x 5000, 'a result that has no room');
	is(files(), 1, 'lies in a file');
	is($s->query('FETCH c'), '2' x 5000, 'the next one has room again');
	$s->query('COMMIT');
	# Nor is there room for what broke the executor.
	$s->executor(1,
		q{initializer => 'SELECT 1 / 0', settings => '{"loky.debug_point": "area fail 0 1000000"}'});
	is(outcome(q{SELECT loky.map('t.id', ARRAY[1])}), 'LK002', 'an executor that breaks');
	like($messages, qr/HINT:  See the server log/, 'the hint says where to look');
	is( outcome(
			q{SELECT string_agg(concat_ws(' ', ord, ok, sqlstate), ', ' ORDER BY ord)
			  FROM loky.try_map('t.id', ARRAY[1, 2])}),
		'1 f LK002, 2 f LK002',
		'and its items');
	is(outcome(q{SELECT sqlstate FROM loky.exception(loky.submit('t.id', 1))}),
		'LK002', 'and a task');
	check_nothing_left('a worker that found no room');
	$s->executor(1);
	check_clean($s, 'after it');
};

$s->quit;
check_rest($node);
$node->stop;

done_testing();
