
# What a hostile role tries that takes sessions, databases or protocol messages of
# its own: calls outside of any query, the making of the extension, rights that are
# taken away while workers are there, and the room that others need.

use strict;
use warnings;

use IO::Socket::UNIX;
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;

my $node = loky_node(conf => "max_worker_processes = 16\n");
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);

$s->query(
	q{CREATE ROLE evil LOGIN; CREATE ROLE good LOGIN;
	  GRANT USAGE ON SCHEMA loky, t TO evil, good;
	  CREATE TABLE t.secret AS SELECT 'gold' AS s;
	  CREATE TABLE t.of_group AS SELECT 'silver' AS s});
my $evil = LokyTest::Session->new($node, user => 'evil');

#--------------------------------------------------------------------------
# Functions called by the protocol's function call message: then there is no
# expression to tell the types of arguments.
#--------------------------------------------------------------------------

my $socket;

sub read_bytes
{
	my ($n) = @_;
	my $bytes = '';

	while (length $bytes < $n)
	{
		read($socket, $bytes, $n - length $bytes, length $bytes)
		  or die "the server has closed the connection\n";
	}
	return $bytes;
}

# Send a message; the SQLSTATE of the answer, or ''.
sub ask
{
	my ($kind, $text) = @_;
	my $state = '';

	print $socket $kind . pack('N', 4 + length $text) . $text;
	$socket->flush;
	for (;;)
	{
		my ($type, $length) = unpack('aN', read_bytes(5));
		my $data = $length > 4 ? read_bytes($length - 4) : '';

		return $state if $type eq 'Z';
		($state) = $data =~ /(?:^|\0)C(\w{5})\0/ if $type eq 'E';
	}
}

sub call
{
	my ($oid, @args) = @_;

	return ask('F',
		pack('Nnn', $oid, 0, scalar @args)
		  . join('', map { defined $_ ? pack('N/a*', $_) : pack('N', 0xffffffff) } @args)
		  . pack('n', 0));
}

subtest 'calls outside of any query' => sub {
	$socket = IO::Socket::UNIX->new(
		Type => SOCK_STREAM,
		Peer => $node->host . '/.s.PGSQL.' . $node->port)
	  or die "no connection: $!";
	is( ask('',
			pack('N', 196608) . "user\0evil\0database\0postgres\0"
			  . "options\0-c statement_timeout=5s\0\0"),
		'',
		'a connection without a library');
	my %values = (
		'text' => [ '', 'SELECT 1', 'SELECT $1', 't.id', "x\ny" ],
		'bigint' => [ 0, 1, -1, '9223372036854775807' ],
		'integer' => [ 0, 1, -1, 2147483647 ],
		'boolean' => [ 't', 'f' ],
		'interval' => [ '0', '1 s', '-1 s', '178000000 years' ],
		'bigint[]' => [ '{}', '{1}', '{NULL}', '{{1},{2}}' ],
		'text[]' => [ '{}', '{40001}', '{NULL}' ],
		'jsonb' => [ '{}', '[]', '{"a": 1}' ]);
	my (%seen, @bad);
	my $functions = $s->query(
		q{SELECT oid, proname, array_to_string(ARRAY(SELECT format_type(t, -1)
			FROM unnest(proargtypes) t), ',')
		  FROM pg_proc WHERE pronamespace = 'loky'::regnamespace ORDER BY oid::regprocedure::text});
	for my $function (split /\n/, $functions)
	{
		my ($oid, $name, $list) = split /\|/, $function;
		my @types = split /,/, $list // '';
		my @calls = ([ map { undef } @types ]);

		for my $i (0 .. $#types)
		{
			for my $value (@{ $values{ $types[$i] } // ['1'] })
			{
				# alone, and with a task before it
				push @calls, [ map { $_ == $i ? $value : undef } 0 .. $#types ];
				push @calls,
				  [
					map { $_ == $i ? $value : $_ == 0 ? 'SELECT $1' : undef }
					  0 .. $#types
				  ] if $types[0] eq 'text';
			}
		}
		for my $args (@calls)
		{
			my $state = call($oid, @$args);

			$seen{ $state eq '' ? 'good' : 'refused' }++;
			push @bad, "$name(" . join(', ', map { $_ // 'NULL' } @$args) . "): $state"
			  if $state =~ /^(XX|57P)/;
		}
	}
	cmp_ok($seen{good}, '>', 20, 'some succeed');
	cmp_ok($seen{refused}, '>', 100, 'more do not');
	is("@bad", '', 'none with an internal error');
	is(ask('Q', "SELECT 1\0"), '', 'the session is still there');
	close $socket;
};

#--------------------------------------------------------------------------
# CREATE EXTENSION, in a database where somebody else was first
#--------------------------------------------------------------------------

subtest 'the making of the extension' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE trap OWNER evil');
	my $owner = LokyTest::Session->new($node, user => 'evil', db => 'trap');
	my $super = LokyTest::Session->new($node, db => 'trap');

	is($owner->fails('CREATE EXTENSION loky'),
		'42501', 'the owner of a database cannot make it');
	$owner->query(
		q{CREATE SCHEMA loky;
		  CREATE FUNCTION loky.submit(text) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'});
	is($super->fails('CREATE EXTENSION loky'),
		'42P06', 'a schema that is there already is not adopted');
	is($super->fails('CREATE EXTENSION loky SCHEMA loky'),
		'0A000', 'not even by name');
	is($super->query(q{SELECT count(*) FROM pg_extension WHERE extname = 'loky'}),
		0, 'and nothing is half made');

	# Names that the script uses, in front of those of the server.
	$owner->query(
		q{DROP SCHEMA loky CASCADE;
		  CREATE SCHEMA evil;
		  CREATE DOMAIN evil.text AS pg_catalog.text;
		  CREATE DOMAIN evil.name AS pg_catalog.text;
		  CREATE DOMAIN evil.regclass AS pg_catalog.oid;
		  CREATE DOMAIN evil.jsonb AS pg_catalog.text;
		  CREATE DOMAIN evil.timestamptz AS pg_catalog.text;
		  CREATE TYPE evil.tid AS (a int)});
	$super->query(
		q{SET search_path = evil, pg_catalog, public; CREATE EXTENSION loky});
	is( $super->query(
			q{SELECT count(*) FROM pg_depend d JOIN pg_depend e
				ON e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e' AND
				   e.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
			  WHERE d.refobjid IN (SELECT oid FROM pg_catalog.pg_type WHERE typnamespace = 'evil'::pg_catalog.regnamespace
				UNION SELECT oid FROM pg_catalog.pg_proc WHERE pronamespace = 'evil'::pg_catalog.regnamespace
				UNION SELECT 'evil'::pg_catalog.regnamespace)}),
		0,
		'nothing of the extension is made of what lies in the way');
	is( $super->query(
			q{SELECT count(*) FROM pg_catalog.pg_proc p, pg_catalog.unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype) a (t)
			  JOIN pg_catalog.pg_type t ON t.oid = a.t
			  WHERE p.pronamespace = 'loky'::pg_catalog.regnamespace AND t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace}
		),
		0,
		'all its types are the server\'s');
	is( $super->query(q{SELECT nspowner::pg_catalog.regrole FROM pg_catalog.pg_namespace WHERE nspname = 'loky'}),
		$super->query('SELECT current_user'),
		'its schema is the superuser\'s');
	is($owner->fails(q{CREATE FUNCTION loky.trap() RETURNS int LANGUAGE sql AS 'SELECT 1'}),
		'42501', 'in which others make nothing');
	is($owner->query(q{SELECT loky.run('SELECT current_user')}),
		'evil', 'the owner of the database may use it');
	$_->quit for $owner, $super;
	$node->safe_psql('postgres', 'DROP DATABASE trap WITH (FORCE)');
};

#--------------------------------------------------------------------------
# A caller's settings in a SECURITY DEFINER function: that of another role makes no
# executors in the name of its owner, who has those of the server's values
#--------------------------------------------------------------------------

subtest 'the executors of an owner' => sub {
	my @callers = (
		[ 'a session',          '', 'SET loky.timeout = 5000; SET loky.max_workers = 9' ],
		[ 'a connection',       '-c loky.timeout=5s -c loky.max_workers=9', '' ],
		[ 'an altered role',    '', '', 'ALTER ROLE evil SET loky.timeout = 5000;
		   ALTER ROLE evil SET loky.max_workers = 9' ],
		[ 'one in a database',  '', '', 'ALTER ROLE evil IN DATABASE postgres SET loky.timeout = 5000;
		   ALTER ROLE evil IN DATABASE postgres SET loky.max_workers = 9' ]);

	# The size and timeout of the executor that runs a task of the owner's; and its end.
	$s->query(
		q{CREATE FUNCTION t.goods() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$
		  SELECT * FROM loky.run(
			'SELECT max_workers || '' '' || extract(epoch FROM timeout)::int
			 FROM loky.executors JOIN loky.workers USING (executor_id)
			 WHERE pid = pg_backend_pid()') $$;
		  CREATE FUNCTION t.end_goods() RETURNS void LANGUAGE sql SECURITY DEFINER
			AS 'SELECT loky.shutdown()';
		  ALTER FUNCTION t.goods OWNER TO good;
		  ALTER FUNCTION t.end_goods OWNER TO good});

	# Each kind of caller finds these values, also within a task of its own.
	my $check = sub {
		my ($values, $what) = @_;

		for (@callers)
		{
			my ($name, $options, $set, $alter) = @$_;

			$s->query($alter) if defined $alter;
			my $caller = LokyTest::Session->new($node, user => 'evil', options => $options);
			$caller->query($set);
			is($caller->query('SHOW loky.timeout'), '5s', "$name has values of its own");
			is($caller->query('SELECT t.goods()'), $values, "$name: $what");
			$caller->query('SELECT t.end_goods()');
			$caller->executor(1, 'kill_workers => true');
			is($caller->query(q{SELECT loky.run('SELECT t.goods()')}),
				$values, "$name, in a task: $what");
			$caller->query('RESET loky.executor; SELECT t.end_goods()');
			$caller->quit;
			$s->query(
				'ALTER ROLE evil RESET ALL; ALTER ROLE evil IN DATABASE postgres RESET ALL');
		}
	};
	# ... and so does one that was there before them.
	my $long = LokyTest::Session->new($node, user => 'evil', options => $callers[1][1]);
	my $reload = sub {
		my ($sql, $values) = @_;

		$s->query($_) for split(/; /, $sql), 'SELECT pg_reload_conf()';
		ok( poll($long, 'SELECT t.goods(), t.end_goods()', "$values|"),
			"after a reload: $values");
	};

	$reload->("ALTER SYSTEM SET loky.timeout = '60 s'; ALTER SYSTEM SET loky.max_workers = 3",
		'3 60');
	$check->('3 60', 'those of the file count');

	# what only might come does not count
	$s->query("ALTER SYSTEM SET loky.timeout = '61 s'");
	$s->query("ALTER DATABASE template1 SET loky.timeout = '62 s'");
	$s->query('SELECT count(*) FROM pg_file_settings');
	$check->('3 60', 'those that are not in force do not');

	$s->query("ALTER ROLE ALL SET loky.timeout = '70 s'; ALTER ROLE ALL SET loky.max_workers = 5");
	$check->('5 70', 'those of all roles do');
	$s->query("ALTER DATABASE postgres SET loky.timeout = '80 s'");
	$check->('5 80', 'that of the database does');
	$s->query('ALTER DATABASE postgres RESET ALL; ALTER ROLE ALL RESET ALL; ALTER DATABASE template1 RESET ALL');
	$reload->('ALTER SYSTEM RESET loky.timeout; ALTER SYSTEM RESET loky.max_workers', '4 10');
	$long->quit;
};

#--------------------------------------------------------------------------
# Rights that are taken away while workers are there
#--------------------------------------------------------------------------

subtest 'a superuser no more' => sub {
	$s->query(
		q{CREATE ROLE boss LOGIN SUPERUSER;
		  GRANT USAGE ON SCHEMA loky, t TO boss;
		  CREATE FUNCTION t.gate_and_read() RETURNS text LANGUAGE plpgsql AS $$
		  BEGIN
			PERFORM pg_advisory_xact_lock_shared(1);
			RETURN (SELECT s FROM t.secret);
		  END$$});
	my $boss = LokyTest::Session->new($node, user => 'boss');

	$boss->executor(1);
	is($boss->query(q{SELECT loky.run('SELECT s FROM t.secret')}),
		'gold', 'a superuser reads all');
	my $pid = $boss->query(q{SELECT loky.run('SELECT pg_backend_pid()')});
	$gate->query('SELECT pg_advisory_lock(1)');
	my $running = $boss->query(q{SELECT loky.submit('t.gate_and_read')});
	at_gate($s, 1, 1);
	my $pending = $boss->query(q{SELECT loky.submit('SELECT s FROM t.secret')});
	my $waiting = $boss->query(
		q{SELECT loky.submit_task('SET SESSION AUTHORIZATION good', after => ARRAY[}
		  . $running
		  . q{])});
	$s->query('ALTER ROLE boss NOSUPERUSER');
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($boss->query("SELECT t.outcome($running)"),
		'42501', 'what runs reads no more');
	is($boss->query("SELECT t.outcome($pending)"),
		'42501', 'nor does what was pending');
	is( $boss->query("SELECT state FROM loky.wait(ARRAY[$waiting])"),
		'failed', 'nor does what waited for it get run');
	is( $boss->fails(
			q{SELECT loky.run('SET SESSION AUTHORIZATION good; SELECT current_user')}),
		'42501',
		'and no worker remembers');
	isnt($boss->query(q{SELECT loky.run('SELECT pg_backend_pid()')}),
		$pid, 'the old one has left');

	# An executor with settings that only a superuser may make.
	$s->query('ALTER ROLE boss SUPERUSER');
	$boss->query(
		q{SELECT loky.get_reusable_executor(1, settings => '{"session_replication_role": "replica"}')}
	);
	is($boss->query(q{SELECT loky.run('SHOW session_replication_role')}),
		'replica', 'a setting of a superuser');
	$s->query('ALTER ROLE boss NOSUPERUSER');
	isnt($boss->fails(q{SELECT loky.run('SHOW session_replication_role')}),
		'', 'does not outlive the right to make it');
	$boss->query('RESET loky.executor');
	is($boss->query(q{SELECT loky.run('SHOW session_replication_role')}),
		'origin', 'other executors go on');
	$boss->quit;
};

subtest 'a member no more' => sub {
	$s->query(
		q{CREATE ROLE circle; GRANT USAGE ON SCHEMA t TO circle;
		  GRANT SELECT ON t.of_group TO circle; GRANT circle TO evil});
	$evil->executor(1);
	my $pid = $evil->query(q{SELECT loky.run('SELECT pg_backend_pid()')});
	for my $task ('SELECT s FROM t.of_group', 'SET ROLE circle; SELECT s FROM t.of_group')
	{
		is($evil->query("SELECT loky.run('$task')"), 'silver', "a member: $task");
	}
	is($evil->query(q{SELECT loky.map('SELECT s FROM t.of_group WHERE $1 > 0', ARRAY[1])}),
		'silver', 'in a map');
	$s->query('REVOKE circle FROM evil');
	for my $task ('SELECT s FROM t.of_group', 'SET ROLE circle; SELECT s FROM t.of_group')
	{
		is($evil->fails("SELECT loky.run('$task')"), '42501', "not any more: $task");
	}
	is($evil->fails(q{SELECT loky.map('SELECT s FROM t.of_group WHERE $1 > 0', ARRAY[1])}),
		'42501', 'nor in a map');
	is($evil->query(q{SELECT loky.run('SELECT pg_backend_pid()')}),
		$pid, 'all that in the same worker');

	# Futures of a role that one was a member of.
	my $circle = LokyTest::Session->new($node);
	$s->query('GRANT USAGE ON SCHEMA loky TO circle; GRANT circle TO evil');
	$circle->query('SET ROLE circle');
	my $f = $circle->query(q{SELECT loky.submit('SELECT 1')});
	is($evil->query("SELECT loky.result($f)"), 1, 'a member reads the future of a role');
	$s->query('REVOKE circle FROM evil');
	is($evil->fails("SELECT loky.result($f)"), '42501', 'and then no more');

	# A member that has the rights of the role, but may not become it, must not have
	# a function run as the role.
	SKIP:
	{
		skip 'a member may always become the role', 3
		  if $s->query('SHOW server_version_num') < 160000;
		$s->query('GRANT circle TO evil WITH INHERIT TRUE, SET FALSE');
		is($evil->query("SELECT loky.result($f, NULL::int)"),
			1, 'who may not become the role reads what needs no conversion');
		is($evil->fails("SELECT loky.result($f)"), '42501', 'and nothing else');
		like($evil->messages, qr/^HINT:  /m, 'with a hint');
		$s->query('REVOKE circle FROM evil');
	}
	$circle->quit;
};

subtest 'a role that may not log in, and limits of connections' => sub {
	$s->query('ALTER ROLE evil CONNECTION LIMIT 1');
	$evil->executor(3);
	$gate->query('SELECT pg_advisory_lock(2)');
	my $all = $evil->query(q{SELECT loky.submit_all('t.gate', ARRAY[ROW(2, 1), ROW(2, 2), ROW(2, 3)])});
	at_gate($s, 2, 3);
	command_fails_like(
		[ 'psql', '-X', '-d', $node->connstr('postgres') . ' user=evil', '-c', 'SELECT 1' ],
		qr/too many connections for role/,
		'the limit counts sessions');
	$evil->quit;
	ok( poll($s, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'evil' AND backend_type = 'client backend'}, 0),
		'the only session leaves');
	$evil = LokyTest::Session->new($node, user => 'evil');
	is($evil->query('SELECT current_user'), 'evil', 'three workers are no sessions');
	$gate->query('SELECT pg_advisory_unlock(2)');
	is($evil->outcomes($all), '3 succeeded', 'which do their work');
	$s->query('ALTER ROLE evil NOLOGIN CONNECTION LIMIT -1');
	$evil->executor(1, 'kill_workers => true');
	is($evil->query(q{SELECT loky.run('SELECT current_user')}),
		'evil', 'a session that is there works on without LOGIN');
	$s->query('ALTER ROLE evil LOGIN');
};

subtest 'a role that is gone' => sub {
	$s->query('CREATE ROLE gone LOGIN; GRANT USAGE ON SCHEMA loky, t TO gone');
	my $gone = LokyTest::Session->new($node, user => 'gone');

	$gone->executor(1);
	is($gone->query(q{SELECT loky.run('SELECT 1')}), 1, 'it has a worker');
	$gate->query('SELECT pg_advisory_lock(3)');
	my $running = $gone->query(q{SELECT loky.submit('SELECT t.gate(3); CREATE TABLE t.of_nobody ()')});
	at_gate($s, 3, 1);
	my $pending = $gone->query(q{SELECT loky.submit('SELECT current_user')});
	my $later = $gone->query(
		q{SELECT loky.submit_task('SELECT current_user', delay => '0.5 s')});
	$gone->quit;
	$s->query('DROP OWNED BY gone; DROP ROLE gone');
	$gate->query('SELECT pg_advisory_unlock(3)');
	ok( poll(
			$s,
			"SELECT count(*) FROM loky.tasks WHERE future IN ($running, $pending, $later) AND state IN ('pending', 'running')",
			0),
		'its tasks come to an end');
	is( $s->query(
			"SELECT string_agg(DISTINCT state, ' ') FROM loky.tasks WHERE future IN ($running, $pending, $later)"
		),
		'failed',
		'none of them has been run as anybody');
	is($s->query(q{SELECT to_regclass('t.of_nobody') IS NULL}), 't', 'nor has left anything');
};

#--------------------------------------------------------------------------
# Room for others
#--------------------------------------------------------------------------

subtest 'processes of workers that wait' => sub {
	my $good = LokyTest::Session->new($node, user => 'good');

	$s->query('ALTER SYSTEM SET loky.max_workers_per_role = 1');
	$s->query('SELECT pg_reload_conf()');
	ok(poll($_, 'SHOW loky.max_workers_per_role', 1), 'a role may have one worker')
	  for $good, $evil;
	# Each waits for a task that will not come, and so does not count.
	my $outer = $evil->query(
		q{SELECT loky.submit_all('SELECT loky.result(loky.submit_task(''SELECT 1'', delay => ''1 day'')) WHERE $1 > 0',
		  ARRAY(SELECT generate_series(1, 30)))});
	ok( poll(
			$s,
			q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker' AND usename = 'evil'},
			12),
		'those that wait for tasks of their own take three quarters of the processes');
	ok( poll(
			$s, q{SELECT count(*) > 0 FROM loky.tasks WHERE role = 'evil' AND state = 'pending' AND waiting_for = 'worker'}),
		'more would like to');
	is($good->query(q{SELECT loky.run('SELECT current_user')}),
		'good', 'another role has room');
	is($good->query(q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int) r}),
		6, 'for a map, too');
	is( $s->query(
			q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker' AND usename = 'evil'}
		),
		12,
		'and nothing was taken from the first');
	is( $evil->query(
			"SELECT count(*) FROM unnest('$outer'::bigint[]) f, loky.cancel(f, true)"),
		30,
		'it can be cancelled');
	$evil->query(q{SELECT count(loky.cancel(future, true)) FROM loky.tasks WHERE state IN ('pending', 'running')});

	# A chain as long as the room: the innermost is told, nobody waits for ever.
	$s->query(
		q{CREATE FUNCTION t.nest(depth int) RETURNS int LANGUAGE sql AS
		  $$SELECT CASE WHEN depth = 0 THEN 0 ELSE
			1 + (SELECT r FROM loky.run('t.nest', ROW(depth - 1), NULL::int) r) END$$});
	is($evil->query(q{SELECT loky.run('t.nest', ROW(8), NULL::int)}),
		8, 'tasks nest in one worker that counts');
	$outer = $evil->query(
		q{SELECT loky.submit_all('t.nest', ARRAY(SELECT 1 FROM generate_series(1, 30)))});
	like(
		$evil->outcomes($outer),
		qr/^(\d+ failed LK002, )?\d+ succeeded$/,
		'many at once end, one way or the other');
	$s->query('ALTER SYSTEM RESET loky.max_workers_per_role');
	$s->query('SELECT pg_reload_conf()');
	$good->quit;
};

subtest 'executors' => sub {
	my $good = LokyTest::Session->new($node, user => 'good');

	# As many as there can be, each with a task that waits for its time.
	$s->query(
		q{CREATE FUNCTION t.fill() RETURNS int LANGUAGE plpgsql AS $$
		  BEGIN
			FOR i IN 1 .. 1000 LOOP
				PERFORM loky.submit_task('SELECT 1', delay => '1 day', executor =>
					loky.get_reusable_executor(1, settings => jsonb_build_object('my.n', i)));
			END LOOP;
		  EXCEPTION WHEN configuration_limit_exceeded THEN
			RETURN (SELECT count(*) FROM loky.executors WHERE role = current_user AND pending + workers > 0);
		  END$$});
	is($evil->query('SELECT t.fill()'),
		(128 + 16) / 2, 'a role may have half of the executors in use');
	is( $evil->fails(q{SELECT loky.get_reusable_executor(1, settings => '{"my.n": "more"}')}),
		'53400', 'but no more');
	like($evil->messages, qr/^HINT:  /m, 'with a hint');
	is($good->query(q{SELECT loky.run('SELECT current_user')}),
		'good', 'another role has one');
	$evil->query(q{SELECT count(loky.cancel(future)) FROM loky.tasks WHERE state = 'pending'});
	ok( $evil->query(q{SELECT loky.get_reusable_executor(1, settings => '{"my.n": "more"}') > 0}),
		'what is not in use makes room');
	$good->quit;
};

$_->quit for $s, $gate, $evil;
check_rest($node);
$node->stop;

done_testing();
