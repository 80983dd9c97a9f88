
# Too few places for workers: fewer workers run everything; with none at all the
# caller waits, is told why once, and goes on as soon as a place is free.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Of these, one is the launcher's and one is that of logical replication.
my $node = loky_node(conf => "max_worker_processes = 4\n");
$node->safe_psql('postgres', 'CREATE ROLE other; GRANT USAGE ON SCHEMA loky, t TO other');
my $s = LokyTest::Session->new($node);
my $o = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my ($all, $f, $offset, $log);

sub gated
{
	my ($session, $k, $n) = @_;
	return $session->query(
		qq{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW($k, i)
		   FROM generate_series(1, $n) i))});
}

sub workers_of
{
	my ($session) = @_;
	return $session->query(
		q{SELECT count(*) FROM loky.workers
		  WHERE executor_id = current_setting('loky.executor')::int});
}

sub warnings_in
{
	my ($messages) = @_;
	return scalar(() = $messages =~ /WARNING:  /g);
}

my $shortage = qr/LOG:  .*no free slot/;

# More workers than there are places: as many as there are do it.
$s->send("SELECT loky.get_reusable_executor(6, timeout => '-1 s')");
$s->answer;
is(warnings_in($s->messages), 1, 'more workers than the server can have: a WARNING');
like($s->messages, qr/max_worker_processes/, 'that names the setting');
$gate->query('SELECT pg_advisory_lock(1)');
$all = gated($s, 1, 6);
at_gate($s, 1, 2);
is(workers_of($s), 2, 'two workers are there for six tasks');
$gate->query('SELECT pg_advisory_unlock(1)');
is( $s->query("SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	6, 'they do all of them');
is( $s->query(
		q{SELECT count(*), sum(r) FROM loky.map('t.id',
		  ARRAY(SELECT generate_series(1, 1000)), NULL::int) r}),
	'1000|500500', 'and a map');
is(warnings_in($s->messages), 0, 'without a WARNING, as there are workers');

# They rest for ever, but not where others need their places: at once.
is(workers_of($s), 2, 'two workers rest, without a timeout');
$o->query('SET ROLE other');
$o->query("SELECT loky.get_reusable_executor(2, timeout => '-1 s')");
$gate->query('SELECT pg_advisory_lock(2)');
gated($o, 2, 1);
at_gate($s, 2, 1);
is(workers_of($s), 1, 'one idle worker leaves for a task of another role');
gated($o, 2, 1);
at_gate($s, 2, 2);
is(workers_of($s), 0, 'so does the second one');

# None at all: the first session waits, and is told once.
$offset = log_end($node);
$f = $s->query(q{SELECT loky.submit('t.id', 42)});
$s->send("SELECT loky.result($f, timeout => '3 s')");
is($s->failure, 'LK004', 'nothing runs where all places are busy');
is(warnings_in($s->messages), 1, 'a caller that waits is warned once');
like($s->messages, qr/max_worker_processes/, 'the WARNING names one setting');
like($s->messages, qr/loky\.max_total_workers/, 'and the other');
is(scalar(() = log_since($node, $offset) =~ /$shortage/g),
	1, 'the log tells of it in one line');
is($s->query("SELECT loky.state($f)"), 'pending', 'the task waits');
is( $s->query("SELECT waiting_for FROM loky.tasks WHERE future = $f"),
	'worker', 'for a worker');
for my $wait (
	"SELECT * FROM loky.wait(ARRAY[$f], timeout => '1.2 s')",
	"SELECT * FROM loky.try_map('t.id', ARRAY[1], timeout => '1.2 s')")
{
	$s->query($wait);
	is(warnings_in($s->messages), 1, "a WARNING also in: $wait");
}
is( $s->fails("SELECT loky.map('t.id', ARRAY[1], timeout => '1.2 s')"),
	'LK004', 'a map waits as well');
is(warnings_in($s->messages), 1, 'with a WARNING');

# A caller without a timeout goes on as soon as a place is free.
$s->send("SELECT loky.result($f, NULL::int)");
my $m = LokyTest::Session->new($node);
$m->send(
	q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1,2,3,4], NULL::int) r});
ok( poll(
		$gate, 'SELECT count(*) FROM pg_stat_activity WHERE state = \'active\'
		AND wait_event_type = \'Extension\' AND pid IN (' . $s->pid . ', ' . $m->pid . ')',
		2),
	'two callers wait');
$gate->query('SELECT pg_advisory_unlock(2)');
is($s->answer, 42, 'the task runs once a place is free');
is($m->answer, 10, 'and the map');
is( scalar(() = log_since($node, $offset) =~ /$shortage/g),
	1, 'still one line in the log');

# It is a new shortage after the old one has healed.
$offset = log_end($node);
$gate->query('SELECT pg_advisory_lock(3)');
gated($o, 3, 2);
at_gate($gate, 3, 2);
$f = $s->query(q{SELECT loky.submit('t.id', 43)});
$node->wait_for_log($shortage, $offset);
pass('the next shortage has a line of its own');

# A pending task can be cancelled meanwhile, and a caller.
is($s->query("SELECT loky.cancel($f)"), 't', 'what waits for a place can be cancelled');
$s->send(q{SELECT loky.map('t.id', ARRAY[1])});
ok( poll(
		$gate, 'SELECT count(*) FROM pg_stat_activity WHERE state = \'active\'
		AND wait_event_type = \'Extension\' AND pid = ' . $s->pid, 1),
	'a map waits for a place');
$gate->query('SELECT pg_cancel_backend(' . $s->pid . ')');
is($s->failure, '57014', 'so can a map');
$gate->query('SELECT pg_advisory_unlock(3)');
check_idle($node, 'after the shortages');

# Places that something else than loky holds, here a parallel query.
$s->query(
	q{CREATE FUNCTION t.parallel_gate(i int) RETURNS int LANGUAGE plpgsql
		PARALLEL SAFE AS $$
	  BEGIN
		PERFORM pg_advisory_lock_shared(4);
		RETURN i;
	  END$$;
	  CREATE TABLE t.some AS SELECT i FROM generate_series(1, 1000) i;
	  ALTER TABLE t.some SET (parallel_workers = 2);
	  ANALYZE t.some});
$gate->query('SELECT pg_advisory_lock(4)');
$m->query(
	q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
	  SET min_parallel_table_scan_size = 0; SET max_parallel_workers = 2;
	  SET max_parallel_workers_per_gather = 2});
$s->query('SELECT pg_terminate_backend(pid) FROM loky.workers');
ok(poll($s, 'SELECT count(*) FROM loky.workers', 0), 'no worker is there');
$m->send('SELECT count(t.parallel_gate(i)) FROM t.some');
ok( poll(
		$s, q{SELECT count(*) FROM pg_stat_activity
		  WHERE backend_type = 'parallel worker' AND wait_event = 'advisory'}, 2),
	'a parallel query holds all places');
$offset = log_end($node);
$s->query("SELECT loky.get_reusable_executor(2, timeout => '1 h')");
$f = $s->query(q{SELECT loky.submit('t.id', 44)});
$node->wait_for_log($shortage, $offset);
is($s->query("SELECT loky.state($f)"), 'pending', 'a task waits for its end');
$gate->query('SELECT pg_advisory_unlock(4)');
is($s->query("SELECT loky.result($f, NULL::int)"), 44, 'and runs then');
is($m->answer, 1000, 'the parallel query is right too');

$_->quit for $s, $o, $gate, $m;
check_rest($node);
$node->stop;

# The same with loky's own limit, across executors of one role and databases.
$node->append_conf('postgresql.conf',
	"max_worker_processes = 16\nloky.max_total_workers = 2\n");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE second');
loky_fixture($node, 'second');
$s = LokyTest::Session->new($node);
$o = LokyTest::Session->new($node, db => 'second');
$gate = LokyTest::Session->new($node);
# Advisory locks belong to a database.
my $gate2 = LokyTest::Session->new($node, db => 'second');
$s->send("SELECT loky.get_reusable_executor(3, timeout => '-1 s')");
$s->answer;
like($s->messages, qr/WARNING:  .*\n.*loky\.max_total_workers/,
	'more than loky.max_total_workers: a WARNING');
for my $i (1 .. 6)
{
	# Six executors, each of two workers that rest for ever.
	my $where = $i % 2 ? $s : $o;

	$where->query(
		qq{SELECT loky.get_reusable_executor(2, timeout => '-1 s',
		   settings => '{"work_mem": "$i MB"}')});
	($i % 2 ? $gate : $gate2)->query('SELECT pg_advisory_lock(5)');
	$f = gated($where, 5, 2);
	at_gate($where, 5, 2);
	is($s->query('SELECT count(*) FROM loky.workers WHERE state <> \'stopping\''),
		2, "executor $i: two workers are there, those of before have left");
	($i % 2 ? $gate : $gate2)->query('SELECT pg_advisory_unlock(5)');
	is( $where->query("SELECT count(*) FROM loky.wait('$f') WHERE state = 'succeeded'"),
		2, "executor $i: its tasks run");
}
$gate2->query('SELECT pg_advisory_lock(6)');
gated($o, 6, 2);
at_gate($o, 6, 2);
$f = $s->query(q{SELECT loky.submit('t.id', 45)});
is($s->fails("SELECT loky.result($f, timeout => '1.2 s')"),
	'LK004', 'busy workers of another database do not leave');
is(warnings_in($s->messages), 1, 'the caller is warned');
$gate2->query('SELECT pg_advisory_unlock(6)');
is($s->query("SELECT loky.result($f, NULL::int)"), 45, 'and goes on');

$_->quit for $s, $o, $gate, $gate2;
check_rest($node);
$node->stop;

done_testing();
