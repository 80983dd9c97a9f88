
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
	  CREATE TYPE t.pair AS (i int, y text);
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

# A file that cannot grow past 17 MB, which is more than a segment of the WAL: the limit
# is that of one process, and can be lifted again.
my $mb = 1024 * 1024;

sub limit_files
{
	my ($pid, $limit) = @_;

	return system('prlimit', '--pid', $pid, "--fsize=$limit:") == 0;
}

SKIP:
{
	skip 'there is no prlimit', 1
	  if system('prlimit --version >/dev/null 2>&1') != 0;

	subtest 'a file that cannot grow' => sub {
		$s->executor(1);
		my $pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
		my $rows = q{SELECT i, repeat(''y'', 1000) FROM generate_series(1, 40000) i};
		my $caller = LokyTest::Session->new($node);

		$caller->executor(1);
		$memory = memory();
		BAIL_OUT('no limit can be set') unless limit_files($pid, 17 * $mb);
		for my $call (
			"SELECT count(*) FROM loky.result(loky.submit('$rows'), NULL::t.pair)",
			"SELECT loky.flat_map('$rows WHERE \$1 = 1', ARRAY[1], NULL::t.pair)",
			q{SELECT loky.map('SELECT repeat($1, 40000000)', ARRAY['x'])})
		{
			isnt($s->fails($call), '', $call);
			like($s->messages, qr/could not write to file.*: File too large/,
				'an error that says why');
			$s->query('SELECT loky.forget(future) FROM loky.tasks');
			check_nothing_left('half of a result');
		}

		# What finds its end there is one task of many.
		my $all = $s->query(
			q{SELECT loky.submit_all('SELECT repeat(''z'', $1)', ARRAY[10, 40000000, 8000000, 20])});
		is( $s->query(
				"SELECT string_agg(state, ' ' ORDER BY future) FROM loky.wait('$all')"),
			'succeeded failed succeeded succeeded',
			'others succeed');
		limit_files($pid, 'unlimited');
		is( $s->query(
				q{SELECT length(r) FROM loky.result(loky.submit('SELECT repeat(''x'', 40000000)')) r}),
			40000000, 'without the limit it goes on');
		is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
			$pid, 'the worker is the same');

		# A caller whose arguments have no room.
		$s->query('SELECT loky.forget(future) FROM loky.tasks');
		limit_files($caller->pid, 17 * $mb);
		for my $call (
			q{loky.submit('SELECT $1', repeat('x', 40000000))},
			q{loky.submit_all('SELECT $1', ARRAY['x', repeat('x', 40000000)])},
			q{loky.map('SELECT $1', ARRAY['x', repeat('x', 40000000)])})
		{
			isnt($caller->fails("SELECT $call"), '', $call);
			like($caller->messages, qr/File too large/, 'an error that says why');
			is($s->query('SELECT count(*) FROM loky.tasks'), 0, 'nothing is queued');
			check_nothing_left('half of an argument');
		}
		limit_files($caller->pid, 'unlimited');
		is( $caller->query(
				q{SELECT length(r) FROM loky.result(loky.submit('SELECT $1', repeat('x', 40000000))) r}),
			40000000, 'without the limit it goes on');
		$s->query('SELECT loky.forget(future) FROM loky.tasks');
		$caller->quit;
		check_clean($s, 'after it');
	};
}

# The file with the limit of ids cannot be written: no future is given out, as its id
# could be given out again.
subtest 'no room for ids' => sub {
	my $in_the_way = $node->data_dir . '/pg_stat/loky.ids.tmp';
	my $last = $s->query(q{SELECT loky.submit('t.id', 1)});

	$s->quit;
	$node->restart;
	mkdir $in_the_way or die "$in_the_way: $!";
	$s = LokyTest::Session->new($node);
	is($s->fails(q{SELECT loky.submit('t.id', 1)}), '58030', 'no id can be had');
	like($s->messages, qr/HINT:  /, 'with a hint');
	is($s->query('SELECT count(*) FROM loky.tasks'), 0, 'and no task is there');
	is($s->query(q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2], NULL::int) r}),
		3, 'a map needs none');
	rmdir $in_the_way;
	if (-c '/dev/full')
	{
		symlink '/dev/full', $in_the_way or die "$in_the_way: $!";
		my $offset = log_end($node);

		is($s->fails(q{SELECT loky.submit('t.id', 1)}), '58030', 'nor on a full disk');
		like(log_since($node, $offset), qr/could not write file .*No space left/,
			'of which the log tells');
		unlink $in_the_way;
	}
	$f = $s->query(q{SELECT loky.submit('t.id', 2)});
	cmp_ok($f, '>', $last, 'then they go on');
	is($s->query("SELECT loky.result($f)"), 2, 'and the task runs');
	check_clean($s, 'after it');
};

# What was written there cannot be read at the start: the ids that follow lie beyond all
# that can have been given out, each time.
subtest 'a file of ids that is of no use' => sub {
	my $file = $node->data_dir . '/pg_stat/loky.ids';
	my $last = $f;

	for my $case (
		[ 'a directory', sub { mkdir $file or die "$file: $!" } ],
		[ 'cut off', sub { append_to_file($file, 'loky') } ],
		[ 'of other content', sub { append_to_file($file, 'x' x 24) } ])
	{
		my ($what, $make) = @$case;
		my $offset;

		$s->quit;
		$node->stop;
		unlink $file or die "$file: $!";
		$make->();
		$offset = log_end($node);
		$node->start;
		like(log_since($node, $offset), qr/LOG:  file "pg_stat\/loky.ids" is not usable/,
			"$what: the log tells of it");
		$s = LokyTest::Session->new($node);
		if (-d $file)
		{
			is($s->fails(q{SELECT loky.submit('t.id', 1)}),
				'58030', "$what: no id can be had while it is in the way");
			rmdir $file or die "$file: $!";
		}
		$f = $s->query(q{SELECT loky.submit('t.id', 3)});
		cmp_ok($f, '>', $last, "$what: ids ascend all the same");
		is($s->query("SELECT loky.result($f)"), 3, "$what: and the task runs");
		$s->quit;
		$offset = log_end($node);
		$node->restart;
		unlike(log_since($node, $offset), qr/not usable/, "$what: the next start is as ever");
		$s = LokyTest::Session->new($node);
		$last = $s->query(q{SELECT loky.submit('t.id', 4)});
		is($last, $f + 1, "$what: and goes on where the last one ended");
	}
	check_clean($s, 'after it');
};

# The file cannot even be opened, since the session has as many files open as it may: so
# many COPY, each in a trigger of the one before.
subtest 'no more files for ids' => sub {
	my $rows = $node->data_dir . '/row';

	$s->quit;
	append_to_file($rows, "1\n");
	$node->append_conf('postgresql.conf', 'max_files_per_process = 120');
	$node->restart;
	$s = LokyTest::Session->new($node);
	$s->query(
		qq{CREATE TABLE t.nested (i int);
		   CREATE FUNCTION t.nest() RETURNS trigger LANGUAGE plpgsql AS \$\$
		   BEGIN
			COPY t.nested FROM '$rows';
			RETURN NEW;
		   EXCEPTION WHEN insufficient_resources THEN
			BEGIN
				PERFORM loky.submit('t.id', 1);
			EXCEPTION WHEN OTHERS THEN
				RAISE EXCEPTION 'submit: %', SQLSTATE USING ERRCODE = 'XY001';
			END;
			RETURN NEW;
		   END\$\$;
		   CREATE TRIGGER nest BEFORE INSERT ON t.nested
			FOR EACH ROW EXECUTE FUNCTION t.nest()});
	is($s->fails("COPY t.nested FROM '$rows'"), 'XY001', 'a submit fails');
	like($s->messages, qr/submit: 53000/, 'as no file can be opened');
	is( $s->query(
			q{SELECT cardinality(loky.submit_all('t.id', ARRAY(SELECT generate_series(1, 4096))))}),
		4096, 'all places can be had');
	check_clean($s, 'after it');
	$s->quit;
	$node->append_conf('postgresql.conf', 'max_files_per_process = 1000');
	$node->restart;
	$s = LokyTest::Session->new($node);
};

#--------------------------------------------------------------------------
# Full shared memory
#--------------------------------------------------------------------------

subtest 'full shared memory' => sub {
	my $hog = LokyTest::Session->new($node);
	my $ncursors = 0;

	$s->executor(2);
	$s->query(q{SELECT count(*) FROM loky.map('t.gate', ARRAY[ROW(1, 1), ROW(1, 2)])});
	$s->query('SELECT loky.forget(future) FROM loky.tasks');
	$memory = memory();

	# Maps that rest take all of it.
	$hog->executor(2);
	$hog->query('BEGIN');
	for my $n (60000, 3000, 300, 1)
	{
		my $state;

		for (1 .. 500)
		{
			$ncursors++;
			$state = $hog->fails(
				"SAVEPOINT a; DECLARE c$ncursors CURSOR FOR SELECT loky.map('t.id', ARRAY(SELECT generate_series(1, $n)), NULL::int); FETCH c$ncursors");
			last if $state ne '';
		}
		is($state, '53200', "there is no room for a map of $n items");
		like($hog->messages, qr/HINT:  .*loky\.shared_memory/, 'the hint names the setting');
		$hog->query('ROLLBACK TO a');
	}
	note("$ncursors maps, " . $s->query('SELECT loky._memory_used()') . ' bytes');

	# What needs none goes on, what can lie in a file does so, and the rest is refused.
	is($s->query(q{SELECT loky.result(loky.submit('t.id', 1))}), 1, 'a small task');
	is($s->query(q{SELECT length(r) FROM loky.result(loky.submit('SELECT $1 || $1', repeat('x', 30000))) r}),
		60000, 'one with a larger argument and result');
	is($s->query(q{SELECT count(*) FROM loky.result(loky.submit('SELECT generate_series(1, 100000)'))}),
		100000, 'one with many rows');
	is($s->query(q{SELECT count(*) FROM loky.run('SELECT generate_series(1, 10000)')}),
		10000, 'a run');
	$f = $s->query(q{SELECT loky.submit('t.fail', 5000)});
	is($s->fails("SELECT loky.result($f)"), 'XY001', 'an error');
	$f = $s->query(q{SELECT loky.submit('t.die')});
	is($s->fails("SELECT loky.result($f)"), 'LK001', 'a worker that dies');
	is($s->query(q{SELECT loky.result(loky.submit_task('t.id', ROW(3), key => 'k', delay => '1 ms'))}),
		3, 'a task with a key and a delay');
	my $late = $s->query(q{SELECT loky.submit_task('t.id', ROW(1), delay => '1 h')});
	for my $call (
		q{loky.map('t.id', ARRAY[1])},
		q{loky.try_map('t.id', ARRAY[1], NULL::int)},
		"loky.submit_task('t.id', ROW(1), after => ARRAY[$late]) FROM generate_series(1, 2000)",
		q{loky.get_reusable_executor(1, settings => jsonb_build_object('my.x', repeat('x', 100000)))}
	  )
	{
		is($s->fails("SELECT $call"), '53200', "refused: $call");
		like($s->messages, qr/HINT:  .*loky\.shared_memory/, 'the hint names the setting');
	}

	is($s->query("SELECT loky.cancel($late)"), 't', 'some were queued before that');

	# Then the maps go on and end, as if nothing had been.
	my $wrong = 0;
	for my $i (1 .. 8)
	{
		my $state = $hog->fails("SAVEPOINT a; MOVE FORWARD ALL FROM c$i");

		$wrong++ if $state ne '' && $state ne '53200' && $state ne '34000';
		$hog->query('ROLLBACK TO a') if $state ne '';
	}
	is($wrong, 0, 'a map that was begun goes on, or is told why not');
	$hog->query('ROLLBACK');
	$hog->quit;
	$s->query('SELECT loky.forget(future) FROM loky.tasks');
	check_nothing_left('full shared memory');
	check_clean($s, 'after it');
};

$s->quit;
check_rest($node);
$node->stop;

done_testing();
