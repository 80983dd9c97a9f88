
# Arguments, results and statements that cannot be: each harms the call or the task
# that it belongs to, and nothing else.  The S-numbers are those of the contract with
# Python's loky; of those between S37 and S58 that are not here, workers that end
# are in 002_worker_death.pl (S37 to S42, S44, S49, S50, S57), cancels in
# 003_cancel.pl (S45), the crash of the server in 004_shutdown.pl (S43), large data
# also in 008_spill.pl (S54), toasted arguments in sql/arguments.sql (S55), and the
# fields of errors in sql/errors.sql (S56).

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);

# The only worker of the session's executor, which has to outlive what fails.
sub worker
{
	return $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
}

subtest 'S51: results that cannot be what is asked for' => sub {
	$s->executor(1);
	my $pid = worker();

	$s->query(
		q{CREATE DOMAIN t.small AS int CHECK (VALUE < 10);
		  CREATE TYPE t.pair AS (a int, b int)});
	my $f = $s->query(q{SELECT loky.submit('SELECT ''abc''')});
	my $g = $s->query(q{SELECT loky.submit('SELECT 12')});
	my $h = $s->query(q{SELECT loky.submit('SELECT 1, 2, 3')});

	for my $try (1, 2)
	{
		is($s->fails("SELECT loky.result($f, NULL::int)"),
			'22P02', 'a text as a number');
		is($s->query("SELECT loky.result($f)"), 'abc', 'and as it is');
		is($s->fails("SELECT loky.result($g, NULL::t.small)"),
			'23514', 'a value that a domain refuses');
		is($s->query("SELECT loky.result($g, NULL::int)"), 12, 'and as it is');
		is($s->fails("SELECT loky.result($h, NULL::t.pair)"),
			'42804', 'too many columns');
		is($s->query("SELECT loky.result($h, NULL::jsonb) ->> '?column?'"),
			3, 'and as they are');
	}
	is($s->query("SELECT loky.state(f) FROM unnest(ARRAY[$f, $g, $h]) f"),
		"succeeded\nsucceeded\nsucceeded", 'the tasks have succeeded');

	# The same through the maps, after whose error nothing of them is left.
	for my $map ('map', 'flat_map')
	{
		is( $s->fails(
				qq{SELECT * FROM loky.$map('SELECT \$1', ARRAY['1', 'x'], NULL::int)}),
			'22P02', "$map: a text as a number");
		is( $s->fails(
				qq{SELECT * FROM loky.$map('SELECT \$1', ARRAY[1, 12], NULL::t.small)}),
			'23514', "$map: a value that a domain refuses");
		is( $s->fails(
				qq{SELECT * FROM loky.$map('SELECT \$1, 2', ARRAY[1, 2], NULL::int)}),
			'42804', "$map: too many columns");
	}

	# try_map raises for no item, and tells which one it was.
	my $row = q{concat_ws(' ', ord, result, ok, sqlstate)};
	is( $s->query(
			qq{SELECT string_agg($row, ', ') FROM loky.try_map('SELECT \$1',
			   ARRAY['1', 'x', '3'], NULL::int)}),
		'1 1 t, 2 f 22P02, 3 3 t',
		'try_map: a text as a number');
	is( $s->query(
			qq{SELECT string_agg($row, ', ') FROM loky.try_map('SELECT \$1',
			   ARRAY[1, 12, 3], NULL::t.small, chunksize => 3)}),
		'1 1 t, 2 f 23514, 3 3 t',
		'try_map: a value that a domain refuses');
	is( $s->query(
			q{SELECT string_agg(concat_ws(' ', ord, ok, sqlstate), ', ')
			  FROM loky.try_map('SELECT $1, 2, 3', ARRAY[1, 2], NULL::t.pair)}),
		'1 f 42804, 2 f 42804',
		'try_map: too many columns');
	$s->query(
		q{CREATE DOMAIN t.short AS text CHECK (length(VALUE) < 10);
		  BEGIN; DECLARE c CURSOR FOR SELECT loky.try_map(
			'SELECT CASE WHEN $1 = 2 THEN ''short'' ELSE repeat(''x'', 30000000) END',
			ARRAY[1, 2, 3, 4], NULL::t.short)});
	is(join(' ', $s->query('FETCH 2 FROM c') =~ /^\((\d,\w*,\w,\w*)/mg),
		'1,,f,23514 2,short,t,', 'try_map: large values, through a cursor');
	is(join(' ', $s->query('FETCH ALL FROM c') =~ /^\((\d,\w*,\w,\w*)/mg),
		'3,,f,23514 4,,f,23514', 'and the rest of them');
	$s->query('COMMIT');
	is(join(' ', grep { -f $_ } temp_files($node)), '', 'no file is left');

	is(worker(), $pid, 'the worker has noticed nothing');
	check_clean($s, 'after it');
};

subtest 'S52: results of types that come and go' => sub {
	$s->executor(1);
	my $pid = worker();

	$s->query(
		q{CREATE TYPE t.row AS (a int);
		  CREATE TYPE t.color AS ENUM ('red', 'green');
		  CREATE DOMAIN t.number AS int;
		  CREATE TYPE t.span AS RANGE (subtype = float8);
		  CREATE TABLE t.dropped (i int);
		  CREATE TYPE t.changed AS (a int, b text);
		  CREATE TABLE t.at_commit (command text);
		  CREATE FUNCTION t.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
		  BEGIN
			EXECUTE NEW.command;
			RETURN NULL;
		  END$$;
		  CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON t.at_commit
		  DEFERRABLE INITIALLY DEFERRED
		  FOR EACH ROW EXECUTE FUNCTION t.at_commit()});

	# Dropped when the task has run.
	my %gone = map { $_ => $s->query("SELECT loky.submit('SELECT ' || \$\$$_\$\$)") }
	  (
		'ROW(1)::t.row', q{'green'::t.color}, '1::t.number', 't.span(1, 2)',
		'NULL::t.dropped', q{ARRAY['red'::t.color]}, 'ROW(1, ROW(2)::t.row)');
	my $f = $s->query(q{SELECT loky.submit('SELECT ''t.dropped''::regclass')});
	my $changed = $s->query(q{SELECT loky.submit('SELECT ROW(1, ''x'')::t.changed')});
	$s->query('SELECT loky.wait(ARRAY(SELECT future FROM loky.tasks))');
	$s->query(
		q{DROP TYPE t.row; DROP TYPE t.color; DROP DOMAIN t.number; DROP TYPE t.span;
		  DROP TABLE t.dropped; ALTER TYPE t.changed ADD ATTRIBUTE c int});
	for my $value (sort keys %gone)
	{
		is($s->fails("SELECT loky.result($gone{$value})"),
			'42704', "its type was dropped: $value");
		is($s->query("SELECT loky.state($gone{$value})"),
			'succeeded', 'the task has succeeded');
	}
	like($s->query("SELECT loky.result($f)"),
		qr/^\d+$/, 'a regclass of a dropped table is a number');
	is($s->query("SELECT loky.result($changed)"),
		'(1,x,)', 'a row whose type has a new column');

	# Made by the task itself.
	is( $s->query(
			q{SELECT loky.result(loky.submit(
			  'CREATE TYPE t.made AS ENUM (''x''); SELECT ''x''::t.made'))}),
		'x', 'a type that the task has made');
	is( $s->fails(
			q{SELECT loky.result(loky.submit(
			  'ALTER TYPE t.made ADD VALUE ''y''; SELECT ''y''::t.made'))}),
		'55P04', 'a label that the task has added');
	$f = $s->query(
		q{SELECT loky.submit('CREATE TYPE t.brief AS (a int);
		  INSERT INTO t.at_commit VALUES (''DROP TYPE t.brief''); SELECT ROW(1)::t.brief')}
	);
	is($s->fails("SELECT loky.result($f)"),
		'42704', 'a type that the task has made and dropped');
	is($s->query("SELECT loky.state($f)"), 'succeeded', 'it has succeeded');

	# An output function that raises: the label of an enum is lost.
	my $all = $s->query(
		q{SELECT loky.submit_all('SELECT CASE $1 WHEN 2 THEN ''x'' END::t.made',
		  ARRAY[1, 2, 3])});
	my ($first, $second, $third) = $all =~ /\d+/g;
	$s->query("SELECT loky.wait('$all')");
	$s->query('SET allow_system_table_mods = on');
	$s->query(q{DELETE FROM pg_enum WHERE enumtypid = 't.made'::regtype});
	$s->query('RESET allow_system_table_mods');
	is($s->fails("SELECT loky.result($second)"),
		'22P03', 'a value that cannot be shown');
	is($s->query("SELECT loky.result(f) IS NULL FROM unnest(ARRAY[$first, $third]) f"),
		"t\nt", 'does not harm its neighbours');
	$s->query('DROP TYPE t.made');

	is(worker(), $pid, 'the worker has noticed nothing');
	check_clean($s, 'after it');
};

subtest 'S53: arguments of types that tasks do not know' => sub {
	$s->executor(4);
	$s->query(
		q{CREATE TEMP TABLE known (a int);
		  CREATE TABLE t.kinds (i int, f bigint, kind text);
		  BEGIN;
		  CREATE TYPE t.unborn AS (a int);
		  CREATE TYPE t.unborn_enum AS ENUM ('x');
		  CREATE TEMP TABLE unborn (a int)});
	$s->query(
		q{INSERT INTO t.kinds
		  SELECT i, CASE i % 6
			WHEN 0 THEN loky.submit('SELECT ($1).a', ROW(i)::t.unborn)
			WHEN 1 THEN loky.submit('SELECT ($1).a', ROW(i)::unborn)
			WHEN 2 THEN loky.submit('SELECT $2', ARRAY['x']::t.unborn_enum[], i)
			WHEN 3 THEN loky.submit('SELECT $2', ROW(ROW(1)::t.unborn, 2), i)
			WHEN 4 THEN loky.submit('SELECT ($1).a', ROW(i)::known)
			ELSE loky.submit('t.touch', i) END,
			CASE WHEN i % 6 < 4 THEN 'bad' ELSE 'good' END
		  FROM generate_series(1, 300) i});
	is( $s->query(
			q{SELECT kind, state, count(*) FROM t.kinds,
				loky.wait(ARRAY(SELECT f FROM t.kinds)) w
			  WHERE w.future = f GROUP BY 1, 2 ORDER BY 1}),
		"bad|failed|200\ngood|succeeded|100",
		'the bad ones fail, the good ones succeed');
	is( $s->query(
			q{SELECT count(*), count(*) FILTER (WHERE sqlstate = '42704' AND hint <> '')
			  FROM t.kinds, loky.exception(f) WHERE kind = 'bad'}),
		'200|200',
		'each with an error that says why');
	is( $s->query(
			q{SELECT count(*), count(*) FILTER (WHERE r = i)
			  FROM t.kinds, loky.result(f, NULL::int) r WHERE kind = 'good'}),
		'100|100',
		'each with its result');
	is($s->logged, '50|50|5|299', 'which ran once');
	$s->query('SAVEPOINT a');
	is( $s->fails(
			q{SELECT * FROM loky.map('SELECT ($1).a', ARRAY[ROW(1)::t.unborn])}),
		'42704', 'a map of such items fails as well');
	$s->query('ROLLBACK TO a; COMMIT');
	is( $s->query(
			q{SELECT string_agg(r, ' ') FROM loky.map('SELECT ($1).a',
			  ARRAY[ROW(1), ROW(2)]::t.unborn[]) r}),
		'1 2',
		'once they are committed all is well');
	check_clean($s, 'after it');
};

subtest 'S54: large arguments of tasks that die' => sub {
	$s->executor(4);
	$s->query('SELECT count(*) FROM loky.map(\'t.id\', ARRAY[1, 2, 3, 4])');
	check_clean($s, 'before it');
	my $memory = $s->query('SELECT loky._memory_used()');
	my $strings = q{ARRAY(SELECT repeat(chr(96 + i), 10000000)
		FROM generate_series(1, 10) i)};

	my $all = $s->query(
		qq{SELECT loky.submit_all('SELECT t.die() FROM (SELECT \$1) x', $strings)});
	is($s->outcomes($all), '10 failed LK001', 'all of them die');
	is( $s->query(
			qq{SELECT count(*), string_agg(DISTINCT sqlstate, ' ')
			   FROM loky.try_map('SELECT t.die() FROM (SELECT \$1) x', $strings)}),
		'10|LK001',
		'and all items of a map');
	$s->query("SELECT loky.forget(f) FROM unnest('$all'::bigint[]) f");
	is(join(' ', grep { -f $_ } temp_files($node)), '', 'no file is left');
	cmp_ok($s->query('SELECT loky._memory_used()'),
		'<=', $memory + 1024, 'nor memory');

	is($s->fails(q{SELECT loky.result(loky.submit('SELECT repeat(''x'', 1100000000)'))}),
		'54000', 'a value that is too large fails its task');
	is( $s->query(
			q{SELECT length(r) FROM loky.result(loky.submit('SELECT $1',
			  decode(repeat('00ff', 50000000), 'hex')), NULL::bytea) r}),
		100000000,
		'100 MB of bytes there and back');
	$s->query('SELECT loky.forget(future) FROM loky.tasks');
	is(join(' ', grep { -f $_ } temp_files($node)), '', 'no file is left of it');
	cmp_ok($s->query('SELECT loky._memory_used()'),
		'<=', $memory + 1024, 'nor memory of it');
	check_clean($s, 'after it');
};

# What comes of each: its SQLSTATE, or '' where it is a statement like others.
my @statements = (
	[ 'COPY t.log FROM STDIN', '0A000' ],
	[ 'COPY t.log TO STDOUT', '0A000' ],
	[ 'COPY (SELECT 1) TO STDOUT', '0A000' ],
	[ 'LISTEN loky_test', '0A000' ],
	[ 'LISTEN loky_test; NOTIFY loky_test', '0A000' ],
	[ 'NOTIFY loky_test', '' ],
	[ 'UNLISTEN *', '' ],
	[ q{PREPARE TRANSACTION 'loky_test'}, undef ],
	[ q{BEGIN; SELECT 1; PREPARE TRANSACTION 'loky_test'}, undef ],
	[ 'BEGIN', undef ],
	[ 'BEGIN; SELECT 1', undef ],
	[ 'ROLLBACK', undef ],
	[ 'COMMIT', undef ],
	[ 'SELECT 1; ROLLBACK; SELECT 2', undef ],
	[ 'SAVEPOINT a', undef ],
	[ '', '42601' ],
	[ '  ', '42601' ],
	[ '-- a comment', '42601' ],
	[ '/* a comment */', '42601' ],
	[ ';;', '42601' ],
	[ ';;SELECT 1;;', '' ]);

subtest 'S58: statements that are none of a task' => sub {
	$s->executor(1);
	my $pid = worker();

	for my $case (@statements)
	{
		my ($statement, $expected) = @$case;
		my $item = $statement =~ s/'/''/gr;
		my @calls = (
			"SELECT loky.result(loky.submit('$item'))",
			"SELECT * FROM loky.map('$item', ARRAY[1])",
			"SELECT 1 / ok::int FROM loky.try_map('$item', ARRAY[1])");

		for my $call (@calls)
		{
			my $state = $s->fails($call);

			# A map takes one statement.
			next if $call ne $calls[0] && $state eq '42601';
			# So try_map's row tells of an error.
			$state = $expected
			  if $state eq '22012' && $expected && $call eq $calls[2];
			if (defined $expected)
			{
				is($state, $expected, "$call: '$expected'");
			}
			else
			{
				like($state, qr/^(|0A000|25...|22012|2D000|3B001)$/, "$call: '$state'");
			}
			is(worker(), $pid, 'the worker goes on');
		}
	}
	is( $s->query(
			q{SELECT count(*), count(*) FILTER (WHERE gid = 'loky_test')
			  FROM pg_prepared_xacts}),
		'1|1',
		'what a task has prepared can be ended');
	$s->query(q{ROLLBACK PREPARED 'loky_test'});
	check_clean($s, 'after it');
};

$s->quit;
check_rest($node);
$node->stop;

done_testing();
