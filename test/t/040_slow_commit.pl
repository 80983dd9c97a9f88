
# A commit that takes long: tasks submitted with on_commit are promised to an
# executor, and not queued yet, while it is shut down, killed or broken.  They run as
# if it had been before or after.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# There is no standby, so a commit that asks for one takes until it is cancelled.
my $node = loky_node(
	conf => "wal_level = replica\nmax_wal_senders = 1\nsynchronous_standby_names = 'nobody'\n");
my $s = LokyTest::Session->new($node);
my $other = LokyTest::Session->new($node);

$s->query('CREATE TABLE t.base (i int)');

# Submit tasks in a transaction, and have something done while it commits.
sub commit_beside
{
	my ($meanwhile, @tasks) = @_;
	my @futures;

	$s->query('BEGIN; INSERT INTO t.base VALUES (1)');
	push @futures, $s->query("SELECT loky.submit_task($_, on_commit => true)") for @tasks;
	$s->query('SET LOCAL synchronous_commit = on');
	$s->send('COMMIT');
	ok( poll(
			$other, 'SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $s->pid, 'SyncRep'),
		'the commit is under way');
	$meanwhile->(@futures);
	$other->query('SELECT pg_cancel_backend(' . $s->pid . ')');
	$s->answer;
	return @futures;
}

for my $size (1, 2)
{
	for my $how ('wait => false', 'wait => true', 'kill_workers => true')
	{
		my $id = $s->executor($size);
		my $number = $s->query('SELECT count(*) + 1 FROM t.base');
		my ($f, $g);

		is($s->query(q{SELECT loky.result(loky.submit('t.id', 1))}), 1, 'the executor works');
		($f, $g) = commit_beside(
			sub {
				$other->query("SET loky.executor = $id");
				is($other->fails("SELECT loky.shutdown($how)"), '', "shutdown($how) meanwhile");
				$other->query('RESET loky.executor');
			},
			"'SELECT count(*) FROM t.base'", "'t.touch', ROW(7)");
		is($s->query("SELECT loky.result($f)"), $number, "$how: the task runs after the commit");
		is($s->query("SELECT loky.result($g)"), 7, "$how: so does the next one");
		is($s->query(q{SELECT loky.result(loky.submit('t.id', 2))}), 2, "$how: the session goes on");
		is($s->logged, '1|1|7|7', "$how: once");
	}
}

# One that is cancelled meanwhile stays so, and does not open what was shut down.
my $id = $s->executor(1, q{timeout => '7 s'});
my ($f) = commit_beside(
	sub {
		my ($future) = @_;

		$other->query("SET loky.executor = $id");
		$other->query('SELECT loky.shutdown()');
		is($other->query("SELECT loky.cancel($future)"), 't', 'a cancel meanwhile');
		$other->query('RESET loky.executor');
	},
	"'t.touch', ROW(8)");
is($s->query("SELECT loky.state($f)"), 'cancelled', 'the task does not run');
is($s->query("SELECT count(*) FROM loky.executors WHERE executor_id = $id AND state = 'open'"),
	0, 'and its executor accepts nothing');
is($s->query(q{SELECT loky.result(loky.submit('t.id', 3))}), 3, 'the session goes on');
is($s->logged, '0|0||', 'nothing has run');

# An executor that breaks meanwhile breaks again for its task.
$s->query('CREATE TABLE t.fine ()');
$id = $s->executor(1, q{timeout => '8 s', initializer => 'SELECT FROM t.fine'});
($f) = commit_beside(
	sub {
		$other->query('DROP TABLE t.fine');
		$other->query("SET loky.executor = $id");
		is($other->fails(q{SELECT loky.result(loky.submit('t.id', 1))}), 'LK002', 'it breaks meanwhile');
		$other->query('RESET loky.executor');
	},
	"'t.touch', ROW(9)");
is($s->fails("SELECT loky.result($f)"), 'LK002', 'the task fails');
like($s->messages, qr/^DETAIL:  .*relation "t\.fine" does not exist/m, 'with the reason');
is($s->logged, '0|0||', 'and has not run');

$s->query('RESET loky.executor');
$_->quit for $s, $other;
check_rest($node);
$node->stop;

done_testing();
