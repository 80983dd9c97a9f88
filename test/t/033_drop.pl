
# DROP DATABASE, DROP ROLE, DROP OWNED and REASSIGN OWNED beside workers: idle ones
# leave, temporary tables and all; what runs is heeded as sessions are; what is pending
# goes with its database, or fails with its role.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $idle = q{timeout => '-1 s'};

# Advisory locks belong to a database, so a session in another one has to use a lock of
# a catalog that all share to keep tasks waiting.
my $wait = 'SELECT count(*) FROM pg_catalog.pg_replication_origin';

sub close_gate
{
	return $gate->query('BEGIN; LOCK TABLE pg_replication_origin');
}

sub open_gate
{
	return $gate->query('COMMIT');
}

sub await_at_gate
{
	my ($n) = @_;

	return poll(
		$s, q{SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE relation = 'pg_replication_origin'::regclass AND NOT granted AND
			backend_type = 'loky worker'}, $n);
}

sub make_database
{
	my ($name, $more) = @_;

	$s->query("CREATE DATABASE $name " . ($more // ''));
	loky_fixture($node, $name);
	return;
}

# Workers that are connected to the database; more conditions as SQL has them.
sub workers_in
{
	my ($name, $more) = @_;

	$more //= '';
	return $s->query(
		qq{SELECT count(*) FROM pg_stat_activity
		   WHERE datname = '$name' AND backend_type = 'loky worker' $more});
}

# Leave the database, and wait until the server knows.
sub leave
{
	my ($session) = @_;
	my $pid = $session->pid;

	$session->quit;
	return poll($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
}

# Two idle workers, each with a temporary table; called in a session that has an
# executor of two.
sub make_temporary_tables
{
	my ($session) = @_;

	$session->query('SELECT pg_advisory_lock(9)');
	my $all = $session->query(
		q{SELECT loky.submit_all('CREATE TEMP TABLE kept AS SELECT t.gate(9, $1) AS i',
		  ARRAY[1, 2])});
	at_gate($s, 9, 2);
	$session->query('SELECT pg_advisory_unlock(9)');
	return $session->outcomes($all);
}

subtest 'DROP DATABASE beside idle workers' => sub {
	make_database('d1');
	my $oid = $s->query(q{SELECT oid FROM pg_database WHERE datname = 'd1'});
	my $d = LokyTest::Session->new($node, db => 'd1');

	$d->executor(2, $idle);
	is(make_temporary_tables($d), '2 succeeded', 'tasks leave temporary tables');
	my $later = $d->query(
		q{SELECT loky.submit_task('SELECT 1', delay => '1 h')});
	$d->query("SELECT loky.submit_task('SELECT 1', after => ARRAY[$later])");
	$d->query(q{SELECT loky.submit_task('SELECT 1', key => 'k', delay => '1 h')});
	is( $d->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}),
		3, 'a map runs');
	leave($d);
	is(workers_in('d1'), 2, 'two workers are idle');
	is($s->fails('DROP DATABASE d1'), '', 'the database is dropped');
	is($s->query(qq{SELECT count(*) FROM loky.executors WHERE database = 'd1'}),
		0, 'so are its executors');

	# What belongs to the number of a database is seen in a new one that gets it.
	$s->query("CREATE DATABASE d1 OID = $oid");
	loky_fixture($node, 'd1');
	$d = LokyTest::Session->new($node, db => 'd1');
	is($d->query('SELECT oid FROM pg_database WHERE datname = current_database()'),
		$oid, 'another database gets its number');
	is($d->query("SELECT count(*) FROM loky.$_"), 0, "and has none of its $_")
	  for qw(tasks stats workers);
	is($d->fails("SELECT loky.state($later)"), '42704', 'nor its futures');
	is($d->query(q{SELECT loky.result(loky.submit('t.id', 1))}), 1, 'it works');
	leave($d);
	is($s->fails('DROP DATABASE d1'), '', 'it is dropped as well');
};

subtest 'DROP DATABASE beside work' => sub {
	make_database('d2');
	my $d = LokyTest::Session->new($node, db => 'd2');

	$d->executor(3, $idle);
	is(make_temporary_tables($d), '2 succeeded', 'there are idle workers');
	close_gate();
	my $f = $d->query("SELECT loky.submit('$wait')");
	my $m = LokyTest::Session->new($node, db => 'd2');
	my $g = $d->query("SELECT loky.submit_task('SELECT 1', delay => '1 h')");
	leave($d);
	await_at_gate(1);
	leave($m);
	my $before = workers_in('d2');
	is($s->fails('DROP DATABASE d2'), '55006', 'a task runs: refused');
	like($s->messages, qr/database "d2" is being accessed by loky tasks/, 'by us');
	like($s->messages, qr/^DETAIL:  Running: task $f\. Pending: 1\.$/m,
		'the detail names the task');
	like($s->messages, qr/^HINT:  .*WITH \(FORCE\)/m, 'the hint says what to do');
	is(workers_in('d2'), $before, 'no worker has left for it');

	is($s->fails(q{SET statement_timeout = '100 ms'; DROP DATABASE d2}),
		'57014', 'its wait can be cancelled');
	$s->query('RESET statement_timeout');

	# It waits for what ends soon.
	$s->send('DROP DATABASE d2');
	ok( poll(
			$gate, 'SELECT count(*) FROM pg_stat_activity
			WHERE wait_event_type = \'Extension\' AND pid = ' . $s->pid, 1),
		'once more: it waits for the task');
	open_gate();
	is($s->failure, '', 'the task ends, and the database is dropped');
};

# All that can be in the way, more of it than the message names.
subtest 'DROP DATABASE beside work of all kinds' => sub {
	make_database('d7');
	my ($d, $m, $i) = map { LokyTest::Session->new($node, db => 'd7') } 1 .. 3;

	$d->executor(6, $idle);
	$m->executor(1, q{timeout => '3 h'});
	$i->executor(1, qq{timeout => '2 h', initializer => '$wait'});
	close_gate();
	my @tasks = map { $d->query("SELECT loky.submit('$wait')") } 1 .. 6;
	$m->send(qq{SELECT loky.map('$wait WHERE \$1 > 0', ARRAY[1, 2])});
	my $f = $i->query(q{SELECT loky.submit('t.id', 3)});
	ok(await_at_gate(8), 'six tasks, a map and an initializer');
	is($s->fails('DROP DATABASE d7'), '55006', 'refused');
	like(
		$s->messages,
		qr/^DETAIL:  Running: tasks (?:\d+, ){4}\d+ and 1 more; items of maps in 1 worker; the initializer of 1 worker\. Pending: 1\.$/m,
		'the detail names all');
	my ($named) = $s->messages =~ /tasks ([\d, ]+) and/;
	my %is_task = map { $_ => 1 } @tasks;
	is(scalar(grep { $is_task{$_} } split /, /, $named), 5, 'the tasks are those');

	# What is another database's is not seen here.
	is($s->fails("SELECT loky.state($f)"), '42704', 'a future of another database is unknown');
	is($s->fails("SELECT loky.cancel($tasks[0], true)"), '42704', 'and cannot be cancelled');
	open_gate();
	is($m->answer, "0\n0", 'the map goes on');
	is($i->query("SELECT loky.result($f)"), 3, 'so does the initializer');
	is($d->outcomes('{' . join(',', @tasks) . '}'), '6 succeeded', 'and the tasks');
	leave($_) for $d, $m, $i;
	is($s->fails('DROP DATABASE d7'), '', 'then the database is dropped');
};

subtest 'DROP DATABASE WITH (FORCE)' => sub {
	make_database('d3');
	my $d = LokyTest::Session->new($node, db => 'd3');

	$d->executor(2, $idle);
	close_gate();
	$d->query(
		"SELECT loky.submit('$wait') FROM generate_series(1, 5)");
	$d->query(
		"SELECT loky.submit_task('$wait', retries => 3) FROM generate_series(1, 5)");
	await_at_gate(2);
	is($s->fails('DROP DATABASE d3 WITH (FORCE)'), '', 'dropped with all that ran');
	open_gate();
	is($s->query(q{SELECT count(*) FROM loky.executors WHERE database = 'd3'}),
		0, 'nothing is left of it');
	$d->await_end;
};

# All workers that there may be are busy elsewhere.
subtest 'DROP DATABASE beside what is finished and what is pending' => sub {
	make_database('d4');
	my $d = LokyTest::Session->new($node, db => 'd4');
	my $p = LokyTest::Session->new($node);

	# More than are forgotten in one walk.
	$d->executor(1);
	is( $d->query(
			q{SELECT count(*) FILTER (WHERE state = 'succeeded') FROM loky.wait(
			loky.submit_all('SELECT $1', ARRAY(SELECT generate_series(1, 300))))}),
		'300',
		'there are finished tasks');
	$d->query('SELECT loky.shutdown()');
	close_gate();
	$p->executor(8);
	$p->query("SELECT loky.submit('$wait') FROM generate_series(1, 8)");
	await_at_gate(8);
	$d->query("SELECT loky.submit('SELECT 1') FROM generate_series(1, 20)");
	leave($d);
	is($s->fails('DROP DATABASE d4'), '', 'it is dropped with what is pending');
	open_gate();
	$p->query('SELECT loky.shutdown()');
	$p->quit;
};

subtest 'who may drop' => sub {
	$s->query('CREATE ROLE owner LOGIN CREATEDB; CREATE ROLE nobody LOGIN CREATEDB');
	make_database('d5', 'OWNER owner');
	my $d = LokyTest::Session->new($node, db => 'd5');
	my $o = LokyTest::Session->new($node, user => 'owner');
	my $n = LokyTest::Session->new($node, user => 'nobody');

	$d->executor(1, $idle);
	my $pid = $d->query(q{SELECT loky.result(loky.submit('t.wpid', 1))});
	leave($d);
	for my $command (
		'DROP DATABASE d5',
		'ALTER DATABASE d5 RENAME TO d6',
		'ALTER DATABASE d5 SET TABLESPACE pg_default',
		'CREATE DATABASE d6 TEMPLATE d5')
	{
		is($n->fails($command), '42501', "not everybody: $command");
	}
	is( $s->query("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"),
		1, 'and no worker has left for it');
	is($_->fails('CREATE DATABASE d6 TEMPLATE no_such'), '3D000', 'a template that is not there')
	  for $n, $s;
	is($s->fails('BEGIN; CREATE DATABASE d6 TEMPLATE d5'), '25001', 'not in a transaction');
	$s->query('ROLLBACK');
	is($o->fails('DROP DATABASE d5'), '', 'the owner, beside a worker of a superuser');
	leave($_) for $o, $n;
	$s->query('DROP ROLE owner, nobody');
};

subtest 'DROP DATABASE where it fails, or in a task, or without a launcher' => sub {
	make_database('d7');
	my $d = LokyTest::Session->new($node, db => 'd7');
	my $p = LokyTest::Session->new($node);

	$p->executor(2, $idle);
	$d->executor(2, $idle);
	is($d->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}), 3, 'workers');
	is($d->fails('DROP DATABASE d7'), '55006', 'not the present one');
	is($s->fails('DROP DATABASE d7'), '55006', 'nor one with a session');
	like($s->messages, qr/is being accessed by other users/, 'in the words of the server');
	is($d->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}),
		3, 'where work goes on');
	leave($d);
	is($p->query(q{SELECT loky.result(loky.submit('DROP DATABASE d7'))}),
		'DROP DATABASE', 'a task drops one');

	make_database('d8');
	$d = LokyTest::Session->new($node, db => 'd8');
	$d->executor(2, $idle);
	is(make_temporary_tables($d), '2 succeeded', 'more workers');
	leave($d);
	my $pid = launcher_pid($node);
	kill 'STOP', $pid;
	is($s->fails('DROP DATABASE d8'), '', 'without a launcher that answers');
	kill 'CONT', $pid;
	is($p->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}),
		3, 'which goes on afterwards');
	$p->quit;
};

# Everybody may use loky, so that the roles below have no rights of their own.
$s->query('GRANT USAGE ON SCHEMA loky, t TO PUBLIC');
make_database('other');
$node->safe_psql('other', 'GRANT USAGE ON SCHEMA loky, t TO PUBLIC');

subtest 'DROP ROLE beside idle workers' => sub {
	$s->query('CREATE ROLE r1 LOGIN');
	my @r = map { LokyTest::Session->new($node, user => 'r1', db => $_) }
	  'postgres', 'other';

	$_->executor(2, $idle) for @r;
	is(make_temporary_tables($_), '2 succeeded', 'temporary tables') for @r;
	is( $s->query(
			q{SELECT count(*) FROM pg_shdepend WHERE refobjid = 'r1'::regrole AND deptype = 'o'}),
		4, 'which the role owns, in two databases');
	$s->query('BEGIN; DROP ROLE r1; ROLLBACK');
	is($r[0]->query(q{SELECT loky.result(loky.submit('SELECT current_user'))}),
		'r1', 'a drop that is rolled back does no harm');
	leave($_) for @r;
	is($s->fails('DROP ROLE r1'), '', 'the role is dropped');
	is( $s->query(
			q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'loky worker'
			  AND usename IS NULL}),
		0, 'and none of its workers is left');
};

subtest 'DROP ROLE beside work' => sub {
	$s->query('CREATE ROLE r2 LOGIN');
	my $r = LokyTest::Session->new($node, user => 'r2');

	$r->executor(1, $idle);
	$gate->query('SELECT pg_advisory_lock(1)');
	my $running = $r->query(q{SELECT loky.submit('t.gate', 1, 77)});
	my $pending = $r->query(q{SELECT loky.submit('SELECT 1')});
	my $delayed = $r->query(q{SELECT loky.submit_task('SELECT 1', delay => '1 h')});
	my $kept = $r->query(q{SELECT loky.submit_task(
		'CREATE TEMP TABLE kept AS SELECT t.gate(1)', executor => NULL)});
	at_gate($s, 1, 1);
	is($s->fails('DROP ROLE r2'), '', 'the role is dropped while its task runs');
	$gate->query('SELECT pg_advisory_unlock(1)');
	is( $s->query("SELECT * FROM loky.result($running, NULL::int)"),
		77, 'which goes on, as a session does');
	for my $f ($pending, $delayed, $kept)
	{
		is($s->fails("SELECT loky.result($f)"), 'LK002', 'what is pending fails');
		like($s->messages, qr/role of the executor does not exist any more/,
			'with the reason');
	}
	$r->quit;
	ok( poll(
			$s, q{SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'loky worker' AND usename IS NULL}, 0),
		'its worker leaves');

	# Temporary tables of a task that runs are objects as any others.
	$s->query('CREATE ROLE r3 LOGIN');
	$r = LokyTest::Session->new($node, user => 'r3');
	$gate->query('SELECT pg_advisory_lock(1)');
	my $f = $r->query(
		q{SELECT loky.submit('DO ''BEGIN CREATE TEMP TABLE kept (); COMMIT; PERFORM t.gate(1); END''')});
	at_gate($s, 1, 1);
	is($s->fails('DROP ROLE r3'), '2BP01', 'a running task has a temporary table: refused');
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($r->outcomes("{$f}"), '1 succeeded', 'the task goes on');
	$r->quit;
	is($s->fails('DROP ROLE r3'), '', 'and afterwards the role is dropped');
};

subtest 'DROP OWNED and REASSIGN OWNED' => sub {
	$s->query('CREATE ROLE r4 LOGIN; CREATE ROLE heir');
	for my $command ('REASSIGN OWNED BY r4 TO heir', 'DROP OWNED BY r4')
	{
		my $r = LokyTest::Session->new($node, user => 'r4');

		$r->executor(2, $idle);
		is(make_temporary_tables($r), '2 succeeded', 'temporary tables');
		leave($r);
		is(workers_in('postgres', q{AND usename = 'r4'}), 2, 'workers');
		is($s->fails($command), '', $command);
		is(workers_in('postgres', q{AND usename = 'r4'}), 0, 'no worker is left');
		is( $s->query(
				q{SELECT count(*) FROM pg_class WHERE relname = 'kept'}),
			0, 'nor its table');
	}
	is($s->fails('DROP ROLE r4, heir'), '', 'the roles own nothing');
	$s->query('CREATE ROLE r5');
	for my $command ('REASSIGN OWNED BY r5 TO CURRENT_USER', 'DROP OWNED BY r5')
	{
		is($s->fails("BEGIN READ ONLY; $command"), '25006', "not in a read-only transaction: $command");
		$s->query('ROLLBACK');
	}
	is($s->fails('DROP ROLE r5'), '', 'nor owns this one');
};

$_->quit for $s, $gate;
check_rest($node);
$node->stop;

done_testing();
