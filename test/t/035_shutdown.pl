
# Smart and fast shutdowns beside workers that are idle, run, or wait for tasks of
# their own; and a server with next to no room in /dev/shm.

use strict;
use warnings;

use IPC::Run;
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $idle = q{timeout => '-1 s'};

# A session whose executor has idle workers, one with a temporary table, one worker that
# runs a task, and one that waits for a task that is pending.
sub make_busy
{
	my $s = LokyTest::Session->new($node);

	# A prepared transaction keeps the gate shut, whoever leaves.
	$s->query(q{BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'gate'});
	$s->executor(2, $idle);
	$s->query(q{SELECT loky.result(loky.submit('CREATE TEMP TABLE kept AS SELECT 1 AS i'))});
	is($s->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3])}), 3, 'idle workers');
	my $other = $s->query(
		q{SELECT loky.get_reusable_executor(1, timeout => '1 h', reuse => 'false')});
	$s->query(q{SELECT loky.submit_task('INSERT INTO t.log SELECT t.gate(1)')});
	$s->query(q{SELECT loky.get_reusable_executor(1, timeout => '2 h')});
	$s->query(q{SELECT loky.submit('SELECT loky.run(''SELECT t.gate(1)'')')});
	at_gate($s, 1, 2);
	ok( poll($s, q{SELECT count(*) FROM loky.workers WHERE state = 'waiting'}, 1),
		'one that waits for its own');
	$s->query(q{SELECT loky.submit('SELECT 1') FROM generate_series(1, 10)});
	return $s;
}

sub begin_stop
{
	my ($mode) = @_;
	my $out = '';

	return IPC::Run::start(
		[ 'pg_ctl', '-D', $node->data_dir, '-m', $mode, '-w', 'stop' ],
		'>&', \$out, IPC::Run::timeout(60));
}

# The server, which pg_ctl has stopped, has ended in good order; it is started again.
sub check_stopped
{
	my ($h, $offset, $what) = @_;

	ok($h->finish, "$what: the server is stopped");
	# The module is to know, as it was not it that has stopped the server.
	$node->_update_pid(0);
	my $log = log_since($node, $offset);
	like($log, qr/database system is shut down/, "$what: shut down");
	unlike($log, qr/PANIC|TRAP|terminated by signal|exited with exit code [^1]/,
		"$what: in good order");
	$node->start;
	return;
}

for my $mode ('fast', 'smart')
{
	my $s = make_busy();
	my $offset = log_end($node);

	# A smart one waits for sessions, not for what they have left to workers.
	$s->quit if $mode eq 'smart';
	check_stopped(begin_stop($mode), $offset, $mode);
	$s->quit if $mode eq 'fast';
	is($node->safe_psql('postgres', 'SELECT count(*) FROM t.log'),
		0, "$mode: nothing of what ran was committed");
	$node->safe_psql('postgres', q{COMMIT PREPARED 'gate'});
}

# ... and while sessions last, workers are there for them.
subtest 'a smart shutdown waits for a session and its map' => sub {
	my $s = LokyTest::Session->new($node);
	my $gate = LokyTest::Session->new($node);
	my $offset = log_end($node);

	$s->query(q{SELECT loky.get_reusable_executor(2, timeout => '0')});
	$gate->query('SELECT pg_advisory_lock(1)');
	$s->send(
		q{SELECT count(*), sum(r) FROM loky.map('t.gate',
		  ARRAY(SELECT ROW(1, i) FROM generate_series(1, 50) i), NULL::int) r});
	at_gate($gate, 1, 2);
	my $h = begin_stop('smart');
	$node->wait_for_log(qr/received smart shutdown request/, $offset);
	command_fails([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', 'SELECT 1' ],
		'nobody else may connect');
	$gate->query('SELECT pg_advisory_unlock(1)');
	is($s->answer, '50|1275', 'the map goes on to its end');
	is($s->query(q{SELECT loky.result(loky.submit('t.id', 7))}),
		7, 'and a new task has a new worker');
	$_->quit for $s, $gate;
	check_stopped($h, $offset, 'smart, with a map');
};

check_rest($node);
$node->stop;

# In a mount namespace of its own, where the system lets users make one, the server
# finds a /dev/shm as small as containers may have it.
my $uid = $>;
my $gid = $) + 0;
my @private = (
	'unshare', '--map-root-user', '--mount', 'sh', '-c',
	'mount -t tmpfs -o size=$0 none /dev/shm && exec unshare --user '
	  . "--map-user=$uid --map-group=$gid \"\$@\"",
	'4m');

SKIP:
{
	my $out = '';

	skip 'no mount namespaces here', 1
	  unless eval { IPC::Run::run([ @private, 'true' ], '>&', \$out) };
	subtest 'a small /dev/shm' => sub {
		$node->append_conf('postgresql.conf',
			"dynamic_shared_memory_type = posix\nloky.shared_memory = '256MB'\n"
			  . "loky.max_total_workers = 8\n");
		ok( IPC::Run::run(
				[
					@private, 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile,
					'-w', 'start'
				],
				'>', \$out, '2>', \$out),
			'the server starts');
		$node->_update_pid(1);
		my $s = LokyTest::Session->new($node);

		is($s->query('SHOW dynamic_shared_memory_type'), 'posix', 'which uses /dev/shm');
		$s->executor(4, $idle);
		is( $s->query(
				q{SELECT count(*), sum(r) FROM loky.map('t.id',
				  ARRAY(SELECT generate_series(1, 20000)), NULL::int) r}),
			'20000|200010000', 'a large map');
		is( $s->query(
				q{SELECT sum(length(r)) FROM loky.map('SELECT repeat(''x'', $1)',
				  ARRAY(SELECT 1000000 FROM generate_series(1, 40)), NULL::text) r}),
			'40000000', 'larger results than there is room in /dev/shm');
		my $f = $s->query(
			q{SELECT loky.submit('SELECT repeat(''x'', 1000) FROM generate_series(1, 50000)')});
		is($s->query("SELECT sum(length(r)) FROM loky.result($f) r"),
			50000000, 'in one task, too');
		is( $s->query(
				q{SELECT length(loky.result(loky.submit('SELECT $1', repeat('x', 30000000))))}),
			30000000, 'and arguments');
		$s->query("SELECT loky.forget($f)");
		$s->quit;
		check_rest($node);
		$node->stop;
	};
}

done_testing();
