
# What a DBA watches and sets: statements in the log, timeouts, the configuration,
# vacuum, and messages of invalidation, beside workers that work or are idle.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(
	conf => "autovacuum_naptime = '1s'\nautovacuum_vacuum_threshold = 0\n"
	  . "autovacuum_vacuum_scale_factor = 0\nlog_autovacuum_min_duration = 0\n");
my $s = LokyTest::Session->new($node);
my $idle = q{timeout => '-1 s'};

# Set it for all, and wait until sessions and the present worker of this one know.
sub configure
{
	my ($name, $value) = @_;

	$s->query("ALTER SYSTEM SET $name = '$value'");
	$s->query('SELECT pg_reload_conf()');
	ok(poll($s, "SHOW $name", $value), "$name is $value");
	ok( poll($s, qq{SELECT loky.result(loky.submit('SHOW $name'))}, $value),
		'in workers too');
	return;
}

sub reset_configuration
{
	my ($name) = @_;

	$s->query("ALTER SYSTEM RESET $name");
	$s->query('SELECT pg_reload_conf()');
	return;
}

# What workers have written to the log since then.
sub logged_by_workers
{
	my ($offset) = @_;

	return join "\n", grep { /\] loky worker (?:LOG|DETAIL|STATEMENT):/ }
	  split /\n/, log_since($node, $offset);
}

$s->executor(1, $idle);

subtest 'log_statement' => sub {
	configure('log_statement', 'all');
	my $offset = log_end($node);
	$s->query(q{SELECT loky.result(loky.submit('SELECT 4244 AS seen'))});
	$s->query(q{SELECT loky.result(loky.submit('SELECT $1 + 4245 AS seen', 1))});
	$s->query(q{SELECT loky.result(loky.submit('SELECT 4246; SELECT 4247'))});
	$s->query(q{SELECT * FROM loky.map('SELECT $1 + 4248', ARRAY[1, 2])});
	$s->query(q{SELECT * FROM loky.map('SELECT i FROM t.log WHERE i > $1 + 4249', ARRAY[1])});
	$s->query(q{SELECT loky.result(loky.submit('CREATE TABLE t.seen (i int)'))});
	my $log = logged_by_workers($offset);
	like($log, qr/LOG:  statement: SELECT 4244 AS seen$/m, 'a task');
	like($log, qr/LOG:  execute <unnamed>: SELECT \$1 \+ 4245 AS seen$/m,
		'one with an argument');
	like($log, qr/DETAIL:  [pP]arameters: \$1 = '1'$/m, 'and the argument');
	like($log, qr/LOG:  statement: SELECT 4246; SELECT 4247$/m, 'two in one text');
	is(scalar(() = $log =~ /LOG:  execute <unnamed>: SELECT \$1 \+ 4248$/mg),
		2, 'each item of a map');
	like($log, qr/DETAIL:  [pP]arameters: \$1 = '2'$/m, 'with its value');
	like($log, qr/LOG:  execute <unnamed>: SELECT i FROM t.log WHERE i > \$1 \+ 4249$/m,
		'also one that is more than an expression');
	like($log, qr/LOG:  statement: CREATE TABLE t.seen/m, 'a definition');

	configure('log_statement', 'ddl');
	$offset = log_end($node);
	$s->query(q{SELECT loky.result(loky.submit('SELECT 4250'))});
	$s->query(q{SELECT * FROM loky.map('SELECT $1 + 4250', ARRAY[1, 2])});
	$s->query(q{SELECT loky.result(loky.submit('INSERT INTO t.seen VALUES (4250)'))});
	$s->query(q{SELECT loky.result(loky.submit('SELECT 1; DROP TABLE t.seen'))});
	$log = logged_by_workers($offset);
	unlike($log, qr/4250/, 'definitions only');
	like($log, qr/LOG:  statement: SELECT 1; DROP TABLE t.seen$/m, 'wherever they stand');
	reset_configuration('log_statement');
};

subtest 'log_duration and log_min_duration_statement' => sub {
	configure('log_duration', 'on');
	my $offset = log_end($node);
	$s->query(q{SELECT loky.result(loky.submit('SELECT 4251'))});
	like(logged_by_workers($offset), qr/LOG:  duration: [0-9.]+ ms$/m, 'durations alone');
	reset_configuration('log_duration');

	configure('log_min_duration_statement', '0');
	$offset = log_end($node);
	$s->query(q{SELECT loky.result(loky.submit('SELECT $1 + 4252', 1))});
	$s->query(q{SELECT * FROM loky.map('t.id', ARRAY[42, 43])});
	my $log = logged_by_workers($offset);
	like($log, qr/LOG:  duration: [0-9.]+ ms  execute <unnamed>: SELECT \$1 \+ 4252$/m,
		'a task and how long it took');
	like($log, qr/DETAIL:  [pP]arameters: \$1 = '43'$/m, 'items of a map');
	configure('log_min_duration_statement', '1h');
	$offset = log_end($node);
	$s->query(q{SELECT * FROM loky.map('t.id', ARRAY[42, 43])});
	unlike(logged_by_workers($offset), qr/duration/, 'nothing that is shorter');
	reset_configuration('log_min_duration_statement');
};

subtest 'timeouts' => sub {
	my $gate = LokyTest::Session->new($node);

	$gate->query('BEGIN; LOCK TABLE t.log');
	$s->query(q{SET lock_timeout = '20 ms'});
	for my $call (
		q{SELECT loky.result(loky.submit('TABLE t.log'))},
		q{SELECT * FROM loky.map('SELECT i FROM t.log WHERE i = $1', ARRAY[1])})
	{
		is($s->fails($call), '55P03', "lock_timeout: $call");
	}
	$s->query('RESET lock_timeout');
	$gate->query('COMMIT');

	# Of the session, and of the role; waiting for a gate takes longer.
	$gate->query('SELECT pg_advisory_lock(1)');
	$s->query(q{SELECT set_config('statement_timeout', '300', false)});
	my $f = $s->query(q{SELECT loky.submit('SELECT t.gate(1)')});
	my $all = $s->query(q{SELECT loky.submit_all('t.gate', ARRAY[1, 1])});
	$s->query('RESET statement_timeout');
	is($s->fails("SELECT loky.result($f)"), '57014', 'statement_timeout of the session');
	like($s->messages, qr/due to statement timeout/, 'in the words of the server');
	is($s->outcomes($all), '2 failed 57014', 'and for each task');
	is( $s->query(
			q{SELECT sqlstate FROM loky.try_map('t.gate', ARRAY[1], NULL::int, item_timeout => '100 ms')}
		), '57014', 'and an item');
	$node->safe_psql(
		'postgres', q{CREATE ROLE hasty LOGIN; ALTER ROLE hasty SET statement_timeout = '300 ms';
		GRANT USAGE ON SCHEMA loky, t TO hasty});
	my $h = LokyTest::Session->new($node, user => 'hasty');
	$h->query('SET statement_timeout = 0');
	$h->executor(1, $idle);
	is($h->query(q{SELECT loky.result(loky.submit('SHOW statement_timeout'))}),
		'0', 'what the session sets goes before what the role has');
	$h->quit;
	$h = LokyTest::Session->new($node, user => 'hasty');
	is($h->fails(q{SELECT loky.run('SELECT t.gate(1)')}), '57014',
		'statement_timeout of the role');
	$h->quit;
	$gate->query('SELECT pg_advisory_unlock(1)');
	$gate->quit;

	# Those of idle sessions are not for workers.
	$s->executor(1,
		qq{$idle, settings => '{"idle_in_transaction_session_timeout": "1ms",
		  "idle_session_timeout": "1ms"}'});
	my $pid = $s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
	$s->query(q{SELECT loky.result(loky.submit('DO ''BEGIN COMMIT; PERFORM pg_sleep(0.02); COMMIT; END'''))});
	is($s->query('SELECT pg_sleep(0.02)'), '', 'a while');
	is($s->query(q{SELECT loky.result(loky.submit('t.wpid', 1))}),
		$pid, 'an idle worker stays, whatever the timeouts of idle sessions');
};

# Each setting as ALTER SYSTEM and a reload change it.
subtest 'every setting' => sub {
	my %values = (
		'loky.enabled' => 'off',
		'loky.env' => '{"A": "1"}',
		'loky.env_allowed' => 'A*',
		'loky.executor' => '12345',
		'loky.log_min_duration' => '1h',
		'loky.max_depth' => '5',
		'loky.max_tasks' => '8192',
		'loky.max_tasks_per_role' => '100',
		'loky.max_tasks_per_worker' => '1000',
		'loky.max_total_workers' => '9',
		'loky.max_workers' => '3',
		'loky.max_workers_per_role' => '5',
		'loky.result_ttl' => '2h',
		'loky.shared_memory' => '65MB',
		'loky.timeout' => '20s',
		'loky.trace_size' => '1024',
		'loky.worker_memory_limit' => '1GB');
	my %contexts = split /[|\n]/, $s->query(
		q{SELECT name, context FROM pg_settings WHERE name LIKE 'loky.%'});
	my $n = LokyTest::Session->new($node);

	is(join(' ', sort keys %contexts), join(' ', sort keys %values),
		'a value for each setting');
	for my $name (sort keys %values)
	{
		my $old = $n->query("SHOW $name");

		$s->query("ALTER SYSTEM SET $name = '$values{$name}'");
		$s->query('SELECT pg_reload_conf()');
		if ($contexts{$name} eq 'postmaster')
		{
			ok( poll(
					$n, "SELECT pending_restart FROM pg_settings WHERE name = '$name'"),
				"$name waits for a restart");
			is($n->query("SHOW $name"), $old, 'as it was until then');
		}
		else
		{
			ok(poll($n, "SHOW $name", $values{$name}), "$name is changed");
		}
		$s->query("ALTER SYSTEM RESET $name");
		$s->query('SELECT pg_reload_conf()');
		ok(poll($n, "SHOW $name", $old), 'and back');
		is($n->query(q{SELECT loky.result(loky.submit('t.id', 1))}), 1, 'tasks run');
	}
	$n->quit;

	# All together, with a restart.
	$s->query("ALTER SYSTEM SET $_ = '$values{$_}'") for keys %values;
	$s->query('ALTER SYSTEM SET loky.enabled = on');
	$s->quit;
	$node->restart;
	$s = LokyTest::Session->new($node);
	$values{'loky.enabled'} = 'on';
	is($s->query("SHOW $_"), $values{$_}, "$_ after a restart") for sort keys %values;
	is($s->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}), 3, 'a map runs');
	$s->query("ALTER SYSTEM RESET $_") for keys %values;
	$s->quit;
	$node->restart;
	$s = LokyTest::Session->new($node);
	$s->executor(2, $idle);
};

subtest 'reloads under load' => sub {
	my $dir = PostgreSQL::Test::Utils::tempdir;

	append_to_file("$dir/map.sql",
		"SELECT count(*) FROM loky.map('t.id', ARRAY(SELECT generate_series(1, 50)));\n"
		  . "SELECT loky.result(loky.submit('t.touch', :client_id));\n");
	append_to_file("$dir/reload.sql",
		"ALTER SYSTEM SET loky.result_ttl = '2h';\nSELECT pg_reload_conf();\n"
		  . "ALTER SYSTEM RESET loky.result_ttl;\nSELECT pg_reload_conf();\n");
	command_ok(
		[
			'pgbench', '-n', '-c', '4', '-j', '2', '-t', '100',
			'-f', "$dir/map.sql\@5", '-f', "$dir/reload.sql\@5", '-d',
			$node->connstr('postgres')
		],
		'maps and tasks run while the configuration is read again and again');
	check_clean($s, 'after it');
};

subtest 'vacuum' => sub {
	$s->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3], snapshot => true)});
	$s->query('CREATE TABLE t.many AS SELECT i FROM generate_series(1, 1000) i');
	is($s->query(q{SELECT loky.result(loky.submit('SELECT count(*) FROM t.many'))}),
		1000, 'workers have seen the rows');
	is( $s->query(
			q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'loky%'
			  AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)}),
		0, 'and hold no snapshot when idle');
	$s->query('DELETE FROM t.many');
	$s->query('VACUUM t.many');
	is($s->query(q{SELECT pg_relation_size('t.many')}), 0,
		'VACUUM removes what they could have seen');
};

# Many more messages of invalidation than the server keeps for who does not listen.
subtest 'ten thousand definitions beside idle workers' => sub {
	# those of earlier sessions may leave meanwhile
	my $list = q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM loky.workers
		WHERE executor_id = current_setting('loky.executor')::int};
	my $pids = $s->query($list);

	$s->query(q{CREATE OR REPLACE FUNCTION t.version() RETURNS int LANGUAGE sql AS 'SELECT 0'});
	is($s->query(q{SELECT loky.result(loky.submit('t.version'))}), 0, 'before');
	$s->query(q{DO $$
		BEGIN
			FOR i IN 1..10000 LOOP
				EXECUTE format('ALTER FUNCTION t.id(int) COST %s', 1 + i % 100);
				COMMIT;
			END LOOP;
		END $$});
	$s->query(q{CREATE OR REPLACE FUNCTION t.version() RETURNS int LANGUAGE sql AS 'SELECT 1'});
	is($s->query(q{SELECT loky.result(loky.submit('t.version'))}),
		1, 'a worker sees the last definition');
	is($s->query($list), $pids, 'the workers are the same');
};

# A round of autovacuum after now has ended.
sub await_autovacuum
{
	my ($what) = @_;

	$s->query('DROP TABLE IF EXISTS t.dirty; CREATE TABLE t.dirty AS SELECT 1 AS i; DELETE FROM t.dirty');
	return ok(
		poll(
			$s, q{SELECT last_autovacuum IS NOT NULL FROM pg_stat_user_tables
			WHERE relid = 't.dirty'::regclass}),
		$what);
}

subtest 'autovacuum and temporary tables' => sub {
	$s->executor(1, $idle);
	$s->query(q{SELECT loky.result(loky.submit('CREATE TEMP TABLE kept AS SELECT 42 AS i'))});
	await_autovacuum('autovacuum passes by');
	is($s->query(q{SELECT loky.result(loky.submit('SELECT i FROM kept'))}),
		42, 'an idle worker has its temporary table still');
	$s->query("SELECT loky.get_reusable_executor(1, $idle, kill_workers => true)");
	ok(poll($s, q{SELECT count(*) FROM pg_class WHERE relname = 'kept'}, 0),
		'which goes with the worker');

	# After a crash nobody is there to remove it.
	$s->query(q{SELECT loky.result(loky.submit('CREATE TEMP TABLE orphan AS SELECT 42 AS i; SELECT 1'))});
	$s->query('CHECKPOINT');
	$node->stop('immediate');
	$s->await_end;
	$node->start;
	$s = LokyTest::Session->new($node);
	ok(poll($s, q{SELECT count(*) FROM pg_class WHERE relname = 'orphan'}, 0),
		'autovacuum removes what a crash has left');
};

$s->quit;
check_rest($node);
$node->stop;

done_testing();
