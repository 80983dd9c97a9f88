
# What a task leaves behind in its worker: PostgreSQL's own settings, the role,
# locks, LISTEN, cursors and an open transaction are put back before the next
# task; temporary tables, prepared statements and custom settings stay.  S36 and
# S36b of the contract with Python's loky; sql/session.sql and sql/submit.sql show
# the same within one session and for single tasks.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $config = q{timeout => '-1 s', settings => '{"work_mem": "5MB"}'};

# A role that may do less than a superuser, and one that it may become.
$node->safe_psql(
	'postgres', q{
CREATE ROLE worker LOGIN;
CREATE ROLE other;
GRANT other TO worker;
GRANT USAGE ON SCHEMA loky, t TO worker, other;
GRANT ALL ON ALL TABLES IN SCHEMA t TO worker;
GRANT pg_read_all_stats TO worker;
});

# What a task finds, in one line.  The settings are those that belong to what
# follows; temporary schemas come and go with their tables.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION t.found(x int DEFAULT 0) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r text;
BEGIN
	SELECT concat_ws(' ', session_user, current_user,
		current_setting('role'), current_setting('session_authorization'),
		current_setting('is_superuser'),
		'tx', current_setting('transaction_read_only'),
		current_setting('transaction_isolation'),
		current_setting('transaction_deferrable'),
		'locks', (SELECT count(*) FROM pg_catalog.pg_locks
			WHERE pid = pg_catalog.pg_backend_pid() AND
				(locktype = 'advisory' OR mode = 'AccessExclusiveLock')),
		'listens', (SELECT count(*) FROM pg_catalog.pg_listening_channels()),
		'cursors', (SELECT count(*) FROM pg_catalog.pg_cursors WHERE name <> ''),
		'client_encoding', current_setting('client_encoding'))
	INTO r;
	RETURN r || (SELECT string_agg(' ' || name || '=' || setting, '' ORDER BY name)
		FROM pg_catalog.pg_settings
		WHERE context IN ('user', 'superuser') AND name NOT LIKE '%.%' AND
			name NOT IN ('application_name', 'role', 'session_authorization',
				'transaction_read_only', 'transaction_isolation',
				'transaction_deferrable'));
END$$;
});

# The same, and then something is left behind.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION t.found_then(x int, command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r text := t.found();
BEGIN
	EXECUTE format('DO %L', 'BEGIN ' || command || '; END');
	RETURN r;
END$$;
});

# What one of two answers of t.found has and the other one has not.
sub differences
{
	my ($found, $fresh) = @_;
	my %found = map { $_ => 1 } split / (?=\S+=)/, $found;
	my %fresh = map { $_ => 1 } split / (?=\S+=)/, $fresh;

	return join ', ', sort(grep { !$fresh{$_} } keys %found), '/',
	  sort(grep { !$found{$_} } keys %fresh);
}

# A task finds what was found in a fresh worker.
sub finds
{
	my ($session, $fresh, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(
		differences(
			$session->query(q{SELECT loky.result(loky.submit('t.found'))}), $fresh),
		'/', $what);
}

for my $user ('worker', undef)
{
	my $who = defined $user ? "role $user" : 'a superuser';
	my $s = LokyTest::Session->new($node, user => $user);
	my $o = LokyTest::Session->new($node, user => $user);

	# The next task is another session's, which has settings of its own.
	$o->query(
		q{SET statement_timeout = '59 s'; SET search_path = t, pg_catalog;
		  SET work_mem = '7 MB'; SET datestyle = 'German'; SET my.own = 'theirs';
		  SET default_transaction_isolation = 'repeatable read'});
	$_->executor(1, $config) for $s, $o;
	my $pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
	my ($fresh_s, $fresh_o) =
	  map { $_->query(q{SELECT loky.result(loky.submit('t.found'))}) } $s, $o;
	like($fresh_s, qr/ work_mem=5120 /, "$who: the executor's settings are there");
	like($fresh_o, qr/ statement_timeout=59000 /, "$who: and the session's");
	isnt($fresh_s, $fresh_o, "$who: which are the session's own");

	# Found after the command, or in place of it where it is refused.
	my $leaves = sub {
		my ($name, $command, %opts) = @_;

		subtest "S36: $name, $who" => sub {
			my $state = $s->fails(
				'SELECT count(*) FROM loky.result(loky.submit($cmd$'
				  . $command
				  . '$cmd$))');
			like($state, $opts{state} // qr/^$/, "a task: $command");
			my $clean = finds($o, $fresh_o,
				'a task of another session finds all as it was');
			$clean &= finds($s, $fresh_s, 'as does one of the same');
			ok( poll(
					$s, "SELECT state, xact_start, backend_xmin
					FROM pg_stat_activity WHERE pid = $pid", 'idle||'),
				'the worker is in no transaction');
			is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
				$pid, 'and still the same');
			return if $clean;

			# What is left behind here is not to fail all that follows.
			$s->executor(1, "$config, kill_workers => true");
			$pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
		};
	};

	$leaves->('SET', q{SET statement_timeout = '1 ms'});
	$leaves->('an empty search_path', q{SET search_path = ''});
	$leaves->('read only', 'SET default_transaction_read_only = on');
	$leaves->('read only by SESSION CHARACTERISTICS',
		'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE'
	);
	$leaves->('SET TRANSACTION', 'SET TRANSACTION READ ONLY; SELECT 1',
		state => qr/^(|25001)$/);
	$leaves->('SET of what the executor sets', q{SET work_mem = '3MB'});
	$leaves->('SET of what the other session sets', q{SET datestyle = 'ISO'});
	$leaves->('SET LOCAL', q{SET LOCAL work_mem = '3MB'; SELECT 1});
	$leaves->('set_config', q{SELECT set_config('lock_timeout', '1', false)});
	$leaves->('SET in a procedure that commits',
		q{DO 'BEGIN SET lock_timeout = 1; COMMIT; SET lock_timeout = 2; END'});
	$leaves->('SET in a procedure that fails after a commit',
		q{DO 'BEGIN SET lock_timeout = 1; COMMIT; PERFORM 1 / 0; END'},
		state => qr/^22012$/);
	$leaves->('SET in a task that fails', 'SET lock_timeout = 1; SELECT 1 / 0',
		state => qr/^22012$/);
	$leaves->('SET of another encoding', q{SET client_encoding = 'LATIN1'});
	$leaves->('SET of another time zone', q{SET timezone = 'Asia/Tokyo'});
	$leaves->('session_replication_role',
		'SET session_replication_role = replica',
		state => defined $user ? qr/^42501$/ : qr/^$/);
	$leaves->('RESET of one', 'RESET work_mem');
	$leaves->('SET TO DEFAULT', 'SET work_mem TO DEFAULT');
	$leaves->('RESET ALL', 'RESET ALL');
	$leaves->('DISCARD ALL', 'DISCARD ALL');
	$leaves->('DISCARD PLANS', 'DISCARD PLANS');
	$leaves->('DISCARD SEQUENCES', 'DISCARD SEQUENCES');
	$leaves->('SET ROLE', 'SET ROLE other');
	$leaves->('SET LOCAL ROLE', 'SET LOCAL ROLE other; SELECT 1');
	$leaves->('RESET ROLE', 'RESET ROLE');
	$leaves->('the role as a setting',
		q{SELECT set_config('role', 'other', false)});
	$leaves->('SET SESSION AUTHORIZATION',
		'SET SESSION AUTHORIZATION other',
		state => defined $user ? qr/^42501$/ : qr/^$/);
	$leaves->('RESET SESSION AUTHORIZATION', 'RESET SESSION AUTHORIZATION');
	$leaves->('an advisory lock', 'SELECT pg_advisory_lock(36)');
	$leaves->('a shared one, twice',
		'SELECT count(pg_advisory_lock_shared(36)) FROM generate_series(1, 2)');
	$leaves->('one of a task that fails', 'SELECT pg_advisory_lock(36), 1 / 0',
		state => qr/^22012$/);
	$leaves->('a lock of the transaction', 'SELECT pg_advisory_xact_lock(36)');
	$leaves->('a lock of a table', 'BEGIN; LOCK TABLE t.log',
		state => qr/^(|25001)$/);
	# PostgreSQL has no listening background processes.
	$leaves->('LISTEN', 'LISTEN loky_test', state => qr/^(|0A000)$/);
	$leaves->('LISTEN in a function', q{DO 'BEGIN LISTEN loky_test; END'},
		state => qr/^(|0A000)$/);
	$leaves->('a cursor', 'BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH c',
		state => qr/^(|25001)$/);
	$leaves->('a held cursor',
		'DECLARE c CURSOR WITH HOLD FOR SELECT i FROM generate_series(1, 100000) i'
	);
	$leaves->('half of a held cursor',
		'DECLARE c CURSOR WITH HOLD FOR TABLE t.log; FETCH c');
	$leaves->('an open transaction', 'BEGIN', state => qr/^(|25001)$/);
	$leaves->('an open transaction with work',
		'BEGIN; INSERT INTO t.log (i) VALUES (36)', state => qr/^(|25001)$/);
	$leaves->('an aborted transaction', 'BEGIN; SELECT 1 / 0', state => qr/^22012$/);
	$leaves->('a savepoint', 'BEGIN; SAVEPOINT a; SELECT 1',
		state => qr/^(|25001)$/);
	$leaves->('COMMIT AND CHAIN',
		'BEGIN ISOLATION LEVEL SERIALIZABLE; COMMIT AND CHAIN',
		state => qr/^(|25001)$/);
	is($s->query('SELECT count(*) FROM pg_locks WHERE locktype = \'advisory\''),
		0, "$who: no lock is left");

	# A cancelled task, and one whose worker is taken in the middle of a map.
	subtest "S36: tasks that are cancelled, $who" => sub {
		my $gate = LokyTest::Session->new($node);

		$gate->query('SELECT pg_advisory_lock(1)');
		my $f = $s->query(
			q{SELECT loky.submit('SET lock_timeout = 0; SET work_mem = ''3MB'';
			  SELECT pg_advisory_lock(36); SELECT t.gate(1)')});
		at_gate($s, 1, 1);
		$s->query("SELECT loky.cancel($f, running => true)");
		is($s->outcomes("{$f}"), '1 cancelled', 'one is cancelled');
		finds($o, $fresh_o, 'another session finds all as it was');
		finds($s, $fresh_s, 'as does the same');
		$gate->query('SELECT pg_advisory_unlock(1)');
		$gate->quit;
	};

	# The items of a map, one after the other in the same worker.
	subtest "S36: items of a map, $who" => sub {
		for my $command ('SET lock_timeout = 1', 'SET work_mem = 64', 'RESET ALL',
			'SET ROLE other', 'SET search_path = public',
			'SET default_transaction_read_only = on',
			'PERFORM pg_advisory_lock(36)')
		{
			my @found = split /\n/, $s->query(
				qq{SELECT r FROM loky.map('t.found_then', ARRAY[1, 2, 3],
				   args => ROW('$command'::text)) r});

			is(join(' ', map { differences($_, $fresh_s) } @found),
				'/ / /', "each finds all as it was: $command");
			finds($o, $fresh_o, 'so does another session after it');
		}
	};

	# Each setting that the role may change, one by one.  Values that PostgreSQL
	# refuses, such as a directory that is not there, are passed over.
	subtest "S36: every setting, $who" => sub {
		my @settings = split /\n/, $s->query(
			q{SELECT concat_ws('|', name, CASE
				WHEN vartype = 'bool' THEN
					CASE setting WHEN 'on' THEN 'off' ELSE 'on' END
				WHEN vartype = 'enum' THEN
					(SELECT v FROM unnest(enumvals) v WHERE v <> setting
					 AND NOT (setting IN ('on', 'off') AND v IN ('true', 'false', 'yes', 'no', '1', '0'))
					 LIMIT 1)
				WHEN vartype IN ('integer', 'real') THEN
					CASE setting WHEN min_val THEN max_val ELSE min_val END
				WHEN name = 'search_path' THEN 'public, t'
				WHEN name LIKE 'lc\_%' THEN 'POSIX'
				WHEN name = 'datestyle' THEN 'SQL, DMY'
				WHEN name LIKE '%tablespace%' THEN 'pg_default'
				WHEN name = 'timezone_abbreviations' THEN 'India'
				WHEN name ILIKE '%timezone' THEN 'Asia/Tokyo'
				WHEN name = 'client_encoding' THEN 'LATIN1'
				WHEN name = 'default_text_search_config' THEN 'german'
				WHEN name = 'role' THEN 'other'
				WHEN name = 'application_name' THEN 'somebody'
				ELSE 'x' END)
			  FROM pg_settings WHERE name NOT LIKE '%.%' AND (context = 'user' OR
				context = 'superuser' AND current_setting('is_superuser')::bool)
			  ORDER BY name});
		my ($changed, @wrong) = (0);

		cmp_ok(scalar @settings, '>', 100, 'there are many');
		for my $pair (@settings)
		{
			my ($name, $value) = split /\|/, $pair;
			my $look =
			  qq{SELECT loky.result(loky.submit('SELECT current_setting(''$name'')'))};
			my $before = $s->query($look);
			my $before_o = $o->query($look);

			$changed++
			  if $s->fails(
				qq{SELECT loky.result(loky.submit(\$cmd\$SET "$name" = '$value'\$cmd\$))}
			  ) eq '';
			push @wrong, "$name of the other session"
			  if $o->query($look) ne $before_o;
			push @wrong, $name if $s->query($look) ne $before;
		}
		note("$changed of " . @settings . ' settings changed');
		cmp_ok($changed, '>', @settings * 0.8, 'most of which can be changed');
		is("@wrong", '', 'each is put back');
		finds($o, $fresh_o, 'another session finds all as it was');
		finds($s, $fresh_s, 'as does the same');
		is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
			$pid, 'in the same worker');
	};

	# What stays, for all sessions of the role, until the worker ends.
	subtest "S36: what stays, $who" => sub {
		$s->query(
			q{SELECT loky.result(loky.submit(
			  'CREATE TEMP TABLE kept AS SELECT 42 AS i'))});
		$s->query(q{SELECT loky.result(loky.submit('PREPARE kept AS SELECT 43'))});
		$s->query(q{SELECT loky.result(loky.submit('SET my.kept = ''44'''))});
		for my $session ($o, $s)
		{
			is($session->query(q{SELECT loky.result(loky.submit('SELECT i FROM pg_temp.kept'))}),
				42, 'a temporary table');
			is($session->query(q{SELECT loky.result(loky.submit('EXECUTE kept'))}),
				43, 'a prepared statement');
			is( $session->query(
					q{SELECT loky.result(loky.submit('SELECT current_setting(''my.kept'')'))}
				),
				44,
				'a custom setting');
		}
		is( $o->query(
				q{SELECT loky.result(loky.submit('SELECT current_setting(''my.own'')'))}
			),
			'theirs',
			"the session's own custom setting");
		is( $s->query(
				q{SELECT loky.result(loky.submit('SELECT current_setting(''my.own'', true)'))}
			),
			'',
			"is not the other session's");

		# DISCARD ALL is a task's own way to clear it.
		$s->query(q{SELECT loky.result(loky.submit('DISCARD ALL'))});
		is( $o->query(
				q{SELECT loky.result(loky.submit('SELECT to_regclass(''pg_temp.kept'') IS NULL'), NULL::bool)}
			),
			't',
			'DISCARD ALL drops a temporary table');
		is($o->fails(q{SELECT loky.result(loky.submit('EXECUTE kept'))}),
			'26000', 'and a prepared statement');
		$s->query(
			q{SELECT loky.result(loky.submit(
			  'CREATE TEMP TABLE kept AS SELECT 45 AS i'))});
		$s->executor(1, "$config, kill_workers => true");
		is( $o->query(
				q{SELECT loky.result(loky.submit('SELECT to_regclass(''pg_temp.kept'') IS NULL'), NULL::bool)}
			),
			't',
			'so does the end of the worker');
		is( $o->query(
				q{SELECT loky.result(loky.submit('SELECT current_setting(''my.kept'', true)'))}
			),
			'',
			'a custom setting goes with it');
		finds($o, $fresh_o, 'a fresh worker is as the first one was');
	};
	check_clean($_, "after all of $who") for $s, $o;
	$_->quit for $s, $o;
}

# What is defined anew between two runs is seen by workers that know the old one.
subtest 'S36b: definitions that change under a warm pool' => sub {
	my $s = LokyTest::Session->new($node);
	my $gate = LokyTest::Session->new($node);
	my $user = LokyTest::Session->new($node, user => 'worker');

	# What a map gives and what submitted tasks do, each value once.
	my $both = sub {
		my ($session, $task) = @_;
		my $mapped = $session->query(
			qq{SELECT string_agg(DISTINCT r, ' ') FROM loky.map(\$t\$$task\$t\$,
			   ARRAY(SELECT 1 FROM generate_series(1, 100))) r});
		my $all = $session->query(
			qq{SELECT loky.submit_all(\$t\$$task\$t\$, ARRAY[1, 1, 1, 1])});
		my $submitted = $session->query(
			qq{SELECT string_agg(DISTINCT r, ' ')
			   FROM unnest('$all'::bigint[]) f, loky.result(f) r});

		return $mapped eq $submitted ? $mapped : "$mapped, but $submitted";
	};
	my $fails = sub {
		my ($session, $task, $state, $name) = @_;

		is( $session->fails(
				qq{SELECT count(*) FROM loky.map(\$t\$$task\$t\$, ARRAY[1, 1, 1, 1])}),
			$state,
			"$name, mapped");
		is( $session->fails(
				qq{SELECT count(*) FROM loky.result(loky.submit(\$t\$$task\$t\$, 1))}),
			$state,
			"$name, submitted");
	};

	for my $session ($s, $user)
	{
		$session->executor(2);
		$gate->query('SELECT pg_advisory_lock(1)');
		my $all = $session->query(
			q{SELECT loky.submit_all('t.gate', ARRAY[ROW(1, 1), ROW(1, 2)])});
		at_gate($session, 1, 2);
		$gate->query('SELECT pg_advisory_unlock(1)');
		is($session->outcomes($all), '2 succeeded', 'the pool is warm');
	}
	my $pids = $s->query('SELECT array_agg(pid ORDER BY pid) FROM loky.workers');

	# Name, task, what comes of it, and the commands that come before.
	my $operator = 'SELECT $1 OPERATOR(t.###) 1';
	my $select = 'SELECT v FROM t.made WHERE i = $1';
	my $row = q{SELECT jsonb_populate_record(NULL::t.grows, '{"a": 1, "b": 2}')};
	my @steps = (
		[
			'a function', 't.changes', 1,
			q{CREATE FUNCTION t.changes(x int) RETURNS int LANGUAGE sql AS 'SELECT x'}
		],
		[
			'replaced', 't.changes', 2,
			q{CREATE OR REPLACE FUNCTION t.changes(x int) RETURNS int
			  LANGUAGE sql AS 'SELECT x + 1'}
		],
		[
			'in another language', 't.changes', 3,
			q{CREATE OR REPLACE FUNCTION t.changes(x int) RETURNS int
			  LANGUAGE plpgsql AS 'BEGIN RETURN x + 2; END'}
		],
		[ 'in a statement', 'SELECT t.changes($1)', 3, 'SELECT 1' ],
		[
			'replaced under a statement',
			'SELECT t.changes($1)',
			4,
			q{CREATE OR REPLACE FUNCTION t.changes(x int) RETURNS int
			  LANGUAGE sql IMMUTABLE AS 'SELECT x + 3'}
		],
		[ 'by its name again', 't.changes', 4, 'SELECT 1' ],
		[
			'made again with another type',
			't.changes', 'five',
			q{DROP FUNCTION t.changes;
			  CREATE FUNCTION t.changes(x int) RETURNS text
			  LANGUAGE sql AS 'SELECT current_setting(''my.way'', true)';
			  ALTER FUNCTION t.changes SET my.way = 'five'}
		],
		[
			'altered', 't.changes', 'six',
			q{ALTER FUNCTION t.changes SET my.way = 'six'}
		],
		[
			'made again with a default',
			't.changes', 17,
			q{DROP FUNCTION t.changes;
			  CREATE FUNCTION t.changes(x int, y int DEFAULT 7) RETURNS text
			  LANGUAGE sql AS 'SELECT x::text || y'}
		],
		[
			'with another default',
			't.changes', 18,
			q{CREATE OR REPLACE FUNCTION t.changes(x int, y int DEFAULT 8) RETURNS text
			  LANGUAGE sql AS 'SELECT x::text || y'}
		],
		[
			'made again for another type',
			't.changes', 'bigint',
			q{DROP FUNCTION t.changes;
			  CREATE FUNCTION t.changes(x bigint) RETURNS text
			  LANGUAGE sql AS 'SELECT ''bigint'''}
		],
		[ 'in a statement', 'SELECT t.changes($1)', 'bigint', 'SELECT 1' ],
		[
			'with a better one beside it',
			't.changes', 'int',
			q{CREATE FUNCTION t.changes(x int) RETURNS text
			  LANGUAGE sql AS 'SELECT ''int'''}
		],
		[ 'in a statement', 'SELECT t.changes($1)', 'int', 'SELECT 1' ],
		[
			'without a schema',
			'SELECT changes($1)',
			'int', 'CREATE SCHEMA t2; SET search_path = t2, t'
		],
		[
			'behind one in another schema',
			'SELECT changes($1)',
			'first',
			q{CREATE FUNCTION t2.changes(x int) RETURNS text
			  LANGUAGE sql AS 'SELECT ''first'''}
		],
		[ 'by its name alone', 'changes', 'first', 'SELECT 1' ],
		[ 'not behind it', 'changes', 'int', 'DROP SCHEMA t2 CASCADE' ],
		[
			'an operator', $operator, 2,
			q{RESET search_path;
			  CREATE FUNCTION t.op(bigint, bigint) RETURNS bigint
			  LANGUAGE sql AS 'SELECT $1 + $2';
			  CREATE OPERATOR t.### (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = t.op)}
		],
		[
			'with a better one beside it',
			$operator,
			1,
			q{CREATE FUNCTION t.op(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 * $2';
			  CREATE OPERATOR t.### (LEFTARG = int, RIGHTARG = int, FUNCTION = t.op)}
		],
		[
			'made again',
			$operator,
			0,
			q{DROP OPERATOR t.### (int, int); DROP FUNCTION t.op(int, int);
			  CREATE FUNCTION t.op(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 - $2';
			  CREATE OPERATOR t.### (LEFTARG = int, RIGHTARG = int, FUNCTION = t.op)}
		],
		[ 'a table', $select, 10, 'CREATE TABLE t.made AS SELECT 1 AS i, 10 AS v' ],
		[
			'made again with another type', $select, 'ten',
			q{DROP TABLE t.made;
			  CREATE TABLE t.made AS SELECT 1 AS i, 'ten'::text AS v}
		],
		[
			'with another column of that name', $select, 'new',
			q{ALTER TABLE t.made RENAME v TO old;
			  ALTER TABLE t.made ADD v text DEFAULT 'new'}
		],
		[
			'a view in its place', $select, 'view',
			q{DROP TABLE t.made;
			  CREATE VIEW t.made AS SELECT 1 AS i, 'view'::text AS v}
		],
		[
			'replaced', $select, 'replaced',
			q{CREATE OR REPLACE VIEW t.made AS SELECT 1 AS i, 'replaced'::text AS v}
		],
		[ 'a row type', $row, '(1)', 'CREATE TYPE t.grows AS (a int)' ],
		[ 'that has grown', $row, '(1,2)', 'ALTER TYPE t.grows ADD ATTRIBUTE b int' ],
		[
			'a domain', 'SELECT $1::t.limited',
			1, 'CREATE DOMAIN t.limited AS int CHECK (VALUE < 10)'
		]);
	for my $step (@steps)
	{
		my ($name, $task, $expected, $commands) = @$step;

		$s->query($commands);
		is($both->($s, $task), $expected, "$task: $name");
	}
	$s->query('ALTER DOMAIN t.limited ADD CHECK (VALUE > 5)');
	$fails->($s, 'SELECT $1::t.limited', '23514', 'a new constraint');
	$s->query('DROP FUNCTION t.changes(int), t.changes(bigint)');
	$fails->($s, 't.changes', '42883', 'a function that is gone');
	$fails->($s, 'SELECT t.changes($1)', '42883', 'the same in a statement');
	$s->query('DROP VIEW t.made');
	$fails->($s, $select, '42P01', 'a view that is gone');

	# Rights that are given and taken.
	$s->query(
		q{CREATE FUNCTION t.allowed(x int) RETURNS int LANGUAGE sql AS 'SELECT x';
		  CREATE TABLE t.readable AS SELECT 1 AS i});
	my $read = 'SELECT $1 FROM t.readable';
	for my $round (1, 2)
	{
		$s->query(
			q{GRANT EXECUTE ON FUNCTION t.allowed TO worker;
			  GRANT SELECT ON t.readable TO worker});
		is($both->($user, 't.allowed'), 1, 'a function that may be called');
		is($both->($user, $read), 1, 'a table that may be read');
		$s->query(
			q{REVOKE EXECUTE ON FUNCTION t.allowed FROM worker, PUBLIC;
			  REVOKE SELECT ON t.readable FROM worker});
		$fails->($user, 't.allowed', '42501', 'a function that may not be called');
		$fails->($user, $read, '42501', 'a table that may not be read');
	}
	is($s->query('SELECT array_agg(pid ORDER BY pid) FROM loky.workers'),
		$pids, 'all that in the same workers');
	check_clean($_, 'after it') for $s, $user;
	$_->quit for $s, $gate, $user;
};

check_rest($node);
$node->stop;

done_testing();
