
# No room: on the disk, for results and arguments that do not fit into shared memory
# and for the ids of futures; and in shared memory itself.  Each is an error of the
# call or the task that it meets; the worker goes on, and nothing is left of it.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(conf => "loky.shared_memory = '8MB'\n");
my $s = LokyTest::Session->new($node);
my $temp = $node->data_dir . '/base/pgsql_tmp';
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my ($f, $memory);

sub files
{
	return scalar(grep { -f $_ && !-l $_ } temp_files($node));
}

sub memory
{
	poll($s, q{SELECT count(*) FROM loky.workers WHERE state = 'busy'}, 0);
	return $s->query('SELECT loky._memory_used()');
}

sub check_nothing_left
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(files(), 0, "$what: no file is left");
	cmp_ok(memory(), '<=', $memory + 1024, "$what: nor memory");
	return;
}

$s->query(
	q{CREATE PROCEDURE t.spill(INOUT n text) LANGUAGE plpgsql AS $$
	  BEGIN
		INSERT INTO t.log (i) VALUES (1);
		COMMIT;
		INSERT INTO t.log (i) VALUES (2);
		n := repeat(n, 20000000);
	  END$$;
	  CREATE FUNCTION t.fail(n int) RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		RAISE EXCEPTION '%', repeat('x', n) USING ERRCODE = 'XY001';
	  END$$});

#--------------------------------------------------------------------------
# A full disk
#--------------------------------------------------------------------------

# The next temporary files of results are /dev/full, which takes nothing, until
# make_room takes them away.  Their names are a matter of fileset.c and store.c.
sub fill_disk
{
	mkdir $temp;
	for my $i (0 .. 499)
	{
		my $dir = "$temp/pgsql_tmp$postmaster.$i.fileset";

		mkdir $dir or die "$dir: $!";
		symlink '/dev/full', "$dir/loky.0" or die "$dir: $!";
	}
	return;
}

sub make_room
{
	for my $dir (glob "$temp/*.fileset")
	{
		unlink "$dir/loky.0" if -l "$dir/loky.0";
		rmdir $dir;
	}
	return;
}

SKIP:
{
	skip 'there is no /dev/full', 1 unless -c '/dev/full';

	subtest 'a full disk' => sub {
		$s->executor(1);
		my $pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
		my $large = q{'SELECT repeat(''x'', 20000000 * $1)'};
		my $tasks = $s->query('SELECT count(*) FROM loky.tasks');

		$memory = memory();
		fill_disk();
		for my $call (
			q{SELECT loky.result(loky.submit('SELECT repeat(''x'', 20000000)'))},
			q{SELECT loky.result(loky.submit('SELECT repeat(i::text, 1000) FROM generate_series(1, 10000) i'))},
			q{SELECT * FROM loky.run('SELECT repeat(''x'', 20000000)')},
			q{SELECT loky.result(loky.submit('t.spill', 'x'))},
			"SELECT loky.map($large, ARRAY[0, 1, 2])",
			"SELECT * FROM loky.map($large, ARRAY[0, 1, 2], ordered => false)",
			"SELECT * FROM loky.flat_map($large, ARRAY[0, 1, 2], chunksize => 2)",
			q{SELECT loky.submit('SELECT $1', repeat('x', 20000000))},
			q{SELECT loky.submit_all('SELECT $1', ARRAY['x', repeat('x', 20000000)])},
			q{SELECT loky.map('SELECT $1', ARRAY['x', repeat('x', 20000000)])},
			q{SELECT loky.map('SELECT $1, $2', ARRAY[1, 2], args => ROW(repeat('x', 20000000)))},
			)
		{
			is($s->fails($call), '53100', $call);
			like($s->messages, qr/No space left on device/, 'an error that says why');
		}
		is( $s->query(
				"SELECT string_agg(concat_ws(':', ord, ok, sqlstate), ' ' ORDER BY ord)
				 FROM loky.try_map($large, ARRAY[0, 1, 0, 2])"),
			'1:t 2:f:53100 3:t 4:f:53100',
			'it fails the items that it meets');
		is($s->logged, '1|1|1|1', 'what a procedure has committed before is there');
		$f = $s->query(q{SELECT loky.submit('t.fail', 20000000)});
		is($s->outcomes("{$f}"), '1 failed XY001', 'an error that has no room itself');
		is( $s->query("SELECT length(message), message ~ '^x+\$', detail
				FROM loky.exception($f)"),
			'100|t|There was no room to keep all of the error.',
			'is kept in short');
		is( $s->query(
				q{SELECT string_agg(concat_ws(' ', ord, sqlstate, length(message), detail), ', ' ORDER BY ord)
				  FROM loky.try_map('t.fail', ARRAY[10, 20000000, 11])}),
			'1 XY001 10, 2 XY001 100 There was no room to keep all of the error., 3 XY001 11',
			'so is that of an item');
		is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
			$pid, 'the worker goes on');
		make_room();
		$s->query('SELECT loky.forget(future) FROM loky.tasks');
		check_nothing_left('a full disk');
		is($s->query(q{SELECT length(r) FROM loky.result(loky.submit('SELECT repeat(''x'', 20000000)')) r}),
			20000000, 'with room again, all is well');
		$s->query('SELECT loky.forget(future) FROM loky.tasks');
		check_clean($s, 'after it');
	};
}

$s->quit;
check_rest($node);
$node->stop;

done_testing();
