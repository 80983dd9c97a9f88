
# Commands of a DBA beside workers: ALTER DATABASE, CREATE DATABASE from a template,
# DROP EXTENSION and CREATE EXTENSION again, a dump and its restore, pg_upgrade, and
# DROP DATABASE and DROP ROLE as a replica sees them.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
my $conf = loky_conf();
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', $conf);
$node->start;
loky_fixture($node);
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $idle = q{timeout => '-1 s'};

# As in 033_drop.pl: sessions of another database keep tasks waiting.
my $wait = 'SELECT count(*) FROM pg_catalog.pg_replication_origin';

sub leave
{
	my ($session) = @_;
	my $pid = $session->pid;

	$session->quit;
	return poll($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
}

# Cancel what is pending in any database.
sub cancel_all
{
	for my $db (split /\n/, $node->safe_psql('postgres', 'SELECT datname FROM pg_database WHERE datallowconn'))
	{
		next if $node->safe_psql($db, q{SELECT to_regclass('loky.tasks') IS NULL}) eq 't';
		$node->safe_psql($db,
			q{SELECT loky.cancel(future) FROM loky.tasks WHERE state = 'pending'});
	}
	return;
}

sub workers_in
{
	my ($name) = @_;

	return $s->query(
		qq{SELECT count(*) FROM pg_stat_activity
		   WHERE datname = '$name' AND backend_type = 'loky worker'});
}

# How many of these workers are still there.  Another one may have been on its way, and
# come once the command is done.
sub remaining
{
	my (@pids) = @_;

	return $s->query('SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (ARRAY['
		  . join(', ', @pids) . ']::int[])');
}

# The pids of the workers in the database.
sub pids_in
{
	my ($name) = @_;

	return split /\n/, $s->query(
		qq{SELECT pid FROM pg_stat_activity
		   WHERE datname = '$name' AND backend_type = 'loky worker'});
}

# Leave idle workers, and one with a temporary table, in the database, and a task that is
# not to run yet; returns its future.
sub leave_workers
{
	my ($name) = @_;
	my $d = LokyTest::Session->new($node, db => $name);

	$d->executor(2, $idle);
	$d->query(q{SELECT loky.result(loky.submit('CREATE TEMP TABLE IF NOT EXISTS kept AS SELECT 1 AS i'))});
	$d->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY(SELECT generate_series(1, 100)))});
	my $f = $d->query(q{SELECT loky.submit_task('SELECT 42', delay => '1 h')});
	leave($d);
	cmp_ok(workers_in($name), '>', 0, "$name has idle workers");
	return $f;
}

$s->query('CREATE DATABASE d1');
loky_fixture($node, 'd1');
my $space = PostgreSQL::Test::Utils::tempdir;
$s->query("CREATE TABLESPACE space LOCATION '$space'");

subtest 'commands that want a database for themselves' => sub {
	my $name = 'd1';

	for my $command (
		'ALTER DATABASE d1 RENAME TO d2',
		'BEGIN; ALTER DATABASE d2 RENAME TO d3; ROLLBACK',
		'ALTER DATABASE d2 SET TABLESPACE space',
		'ALTER DATABASE d2 SET TABLESPACE pg_default',
		'CREATE DATABASE d4 TEMPLATE d2')
	{
		my $f = leave_workers($name);
		my @pids = pids_in($name);

		is($s->fails($command), '', $command);
		$name = 'd2';
		is(remaining(@pids), 0, 'the workers have left');
		my $d = LokyTest::Session->new($node, db => $name);
		is($d->query("SELECT loky.state($f)"), 'pending', 'what is pending stays');
		is($d->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}),
			3, 'and work goes on');
		$d->query("SELECT loky.cancel($f), loky.shutdown()");
		leave($d);
	}
	my $d = LokyTest::Session->new($node, db => 'd4');
	is($d->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}),
		3, 'the copy works');
	is($d->query(q{SELECT count(*) FROM pg_class WHERE relname = 'kept'}),
		0, 'and has no temporary table of the template');
	leave($d);

	# the backup below is a plain copy of the data directory
	$s->query('DROP TABLESPACE space');
};

subtest 'the present database as the template' => sub {
	leave_workers('postgres');
	my @pids = pids_in('postgres');
	$gate->quit;
	is($s->fails('CREATE DATABASE d5 TEMPLATE postgres'), '', 'beside idle workers');
	is(remaining(@pids), 0, 'which have left');
	$gate = LokyTest::Session->new($node);
};

subtest 'beside work' => sub {
	my $d = LokyTest::Session->new($node, db => 'd2');

	$d->executor(2, $idle);
	$gate->query('BEGIN; LOCK TABLE pg_replication_origin');
	my $f = $d->query("SELECT loky.submit('$wait')");
	poll(
		$s, q{SELECT count(*) FROM pg_locks WHERE NOT granted AND
		relation = 'pg_replication_origin'::regclass}, 1);
	leave($d);
	for my $command ('ALTER DATABASE d2 RENAME TO d3', 'CREATE DATABASE d6 TEMPLATE d2')
	{
		is($s->fails($command), '55006', "refused: $command");
		like($s->messages, qr/database "d2" is being accessed by loky tasks/, 'by us');
		like($s->messages, qr/^DETAIL:  Running: task $f\. Pending: 0\.$/m,
			'the detail names the task');
		like($s->messages, qr/^HINT:  .*loky\.cancel/m, 'the hint says what to do');
	}
	$s->send('ALTER DATABASE d2 RENAME TO d3');
	ok( poll(
			$gate, 'SELECT count(*) FROM pg_stat_activity
			WHERE wait_event_type = \'Extension\' AND pid = ' . $s->pid, 1),
		'once more: it waits for the task');
	$gate->query('COMMIT');
	is($s->failure, '', 'the task ends, and the database is renamed');
};

subtest 'DROP EXTENSION and CREATE EXTENSION' => sub {
	my $d = LokyTest::Session->new($node, db => 'd4');
	my $g = LokyTest::Session->new($node, db => 'd4');

	is($d->query(q{ALTER EXTENSION loky UPDATE}), '', 'ALTER EXTENSION UPDATE');
	$d->executor(2, $idle);
	$d->query('CREATE VIEW public.watch AS SELECT 1 AS i');
	is( $d->query(
			q{SELECT loky.result(loky.submit('CREATE TEMP TABLE kept AS SELECT t FROM loky.tasks t'))}),
		'SELECT 1', 'a temporary table depends on the extension');
	my $f = $d->query(q{SELECT loky.submit_task('SELECT 42', delay => '1 h')});
	is($d->fails('DROP EXTENSION loky'), '55006', 'refused while a task is pending');
	like($d->messages, qr/^DETAIL:  Pending: 1\.$/m, 'with a detail');
	like($d->messages, qr/^HINT:  .*loky\.cancel/m, 'and a hint');
	$d->query("SELECT loky.cancel($f)");
	$g->query('SELECT pg_advisory_lock(1)');
	$f = $d->query(q{SELECT loky.submit('t.gate', 1)});
	at_gate($s, 1, 1);
	is($d->fails('DROP EXTENSION loky CASCADE'), '55006', 'refused while a task runs');
	like($d->messages, qr/^DETAIL:  Running: task $f\. Pending: 0\.$/m, 'with a detail');
	$g->query('SELECT pg_advisory_unlock(1)');
	is($d->query("SELECT loky.result($f)"), 0, 'it goes on');
	is($d->fails('DROP EXTENSION loky'), '', 'dropped beside idle workers');
	is($d->fails(q{SELECT loky.submit('SELECT 1')}), '3F000', 'it is gone');
	is($g->fails('CREATE EXTENSION loky'), '', 'made again');
	is($d->query("SELECT loky.state($f)"), 'succeeded', 'what is finished is kept');
	is($d->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}), 3, 'it works');
	is($d->fails('BEGIN; DROP EXTENSION loky; SAVEPOINT a; ROLLBACK'), '', 'a drop undone');
	is($d->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}), 3, 'works as well');
	leave($_) for $d, $g;
};

# A dump made beside workers is restored with all rights on the extension.
subtest 'pg_dump and its restore' => sub {
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $d;

	$s->query('CREATE ROLE app LOGIN; CREATE ROLE auditor LOGIN; CREATE ROLE boss LOGIN');
	$s->query('ALTER DATABASE d4 OWNER TO boss');
	leave_workers('d4');
	$node->safe_psql('d4',
		'GRANT USAGE ON SCHEMA loky TO app; GRANT USAGE ON SCHEMA t TO app;
		 GRANT EXECUTE ON FUNCTION loky.stats_reset() TO app;
		 REVOKE SELECT ON loky.tasks FROM PUBLIC');
	$d = LokyTest::Session->new($node, db => 'd4', user => 'boss');
	$d->query('GRANT USAGE ON SCHEMA loky TO auditor');
	leave($d);
	my $rights = q{SELECT nspacl, (SELECT relacl FROM pg_class WHERE oid = 'loky.tasks'::regclass),
		(SELECT proacl FROM pg_proc WHERE oid = 'loky.stats_reset()'::regprocedure)
		FROM pg_namespace WHERE nspname = 'loky'};

	command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", '-d', $node->connstr('d4') ],
		'pg_dump');
	$s->query('CREATE DATABASE d7 OWNER boss');
	command_ok(
		[ 'pg_restore', '-e', '-d', $node->connstr('d7'), "$dir/dump" ],
		'pg_restore');
	is($node->safe_psql('d7', $rights), $node->safe_psql('d4', $rights),
		'the same rights');
	$d = LokyTest::Session->new($node, db => 'd7', user => 'app');
	is($d->query(q{SELECT loky.result(loky.submit('t.id', 42))}), 42, 'the role may use it');
	is($d->fails('SELECT count(*) FROM loky.tasks'), '42501', 'what was revoked is');
	leave($d);
	$d = LokyTest::Session->new($node, db => 'd7', user => 'auditor');
	is($d->query('SELECT count(*) FROM loky.executors') > 0, 1, 'what the owner granted is');
	leave($d);
	command_ok(
		[ 'pg_dumpall', '-f', "$dir/all", '-d', $node->connstr('postgres') ],
		'pg_dumpall');
};

# What a replica replays ends its own workers.
subtest 'a replica' => sub {
	$node->backup('b');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'b', has_streaming => 1);
	$standby->start;

	$s->query('CREATE ROLE reader LOGIN');
	$node->safe_psql('d5', 'GRANT USAGE ON SCHEMA loky, t TO PUBLIC');
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	my $r = LokyTest::Session->new($standby);
	my @d = map { LokyTest::Session->new($standby, db => 'd5', user => $_) } 'postgres', 'reader';

	$_->executor(2, $idle) for @d;
	is($_->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}), 3, 'idle workers')
	  for @d;
	is($r->fails('ALTER DATABASE d5 RENAME TO d8'), '25006', 'no commands there');
	my $f = $d[1]->query(q{SELECT loky.submit_task('SELECT 1', delay => '1 s')});
	$s->query('DROP ROLE reader');
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	is($d[0]->query("SELECT sqlstate FROM loky.exception($f)"),
		'LK002', 'what is pending of a role that was dropped fails');
	$_->quit for @d;
	$s->query('DROP DATABASE d5');
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	is( $r->query(
			q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker'}),
		0, 'the workers of a database that was dropped have left');
	$r->quit;
	check_log($standby);
	$standby->stop;
};

# pg_upgrade, to the same version.
subtest 'pg_upgrade' => sub {
	my $new = PostgreSQL::Test::Cluster->new('upgraded');

	leave_workers('d3');
	my $acl = $node->safe_psql('d4',
		q{SELECT nspacl FROM pg_namespace WHERE nspname = 'loky'});
	$_->quit for $s, $gate;
	cancel_all();
	check_rest($node);
	$node->stop;
	$new->init(allows_streaming => 1);
	$new->append_conf('postgresql.conf', $conf);
	my $bin = $node->config_data('--bindir');
	chdir PostgreSQL::Test::Utils::tempdir;
	command_ok(
		[
			'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir,
			'-b', $bin, '-B', $bin, '-s', $new->host, '-p', $node->port, '-P', $new->port
		],
		'pg_upgrade');
	$new->start;
	my $n = LokyTest::Session->new($new, db => 'd4');
	is($n->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}), 3,
		'the extension works');
	is($n->query(q{SELECT nspacl FROM pg_namespace WHERE nspname = 'loky'}), $acl,
		'and has the rights that it had');
	$n->quit;
	check_rest($new);
	$new->stop;
};

done_testing();
