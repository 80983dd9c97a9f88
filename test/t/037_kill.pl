
# Processes that are killed with SIGKILL, which ends all of the server: a worker, a
# caller and the launcher, each in the middle of much that is under way.  The server
# restarts by itself, loky is usable at once, files of results are gone, what was
# committed is there, and no id has been given out twice.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(
	conf => "restart_after_crash = on\nloky.shared_memory = '8MB'\n"
	  . "synchronous_commit = on\n");
my %given;
my $highest = 0;

# The ids of all futures that there are, each of which is new.
sub note_ids
{
	my ($session, $what) = @_;
	my @ids = split /\n/, $session->query('SELECT future FROM loky.tasks ORDER BY future');

	is(scalar(grep { $_ <= $highest } @ids), 0, "$what: ids ascend");
	$given{$_}++ for @ids;
	$highest = $ids[-1] if @ids;
	is(scalar(grep { $_ > 1 } values %given), 0, "$what: none is given out twice");
	return;
}

# Who is to be killed: the pid, of what make_busy returns.
my %victims = (
	worker => sub {
		my ($s, $running) = @_;
		return pid_of($s, $running);
	},
	caller => sub { return $_[2]->pid },
	launcher => sub { return launcher_pid($node) });

for my $victim (sort keys %victims)
{
	my $s = LokyTest::Session->new($node);
	my $gate = LokyTest::Session->new($node);
	my $caller = LokyTest::Session->new($node);
	my $waiter = LokyTest::Session->new($node);

	# Tasks that have ended, one with a result in a file; that run; that wait for
	# all there is to wait for; and a map that is read half way.
	$s->executor(3);
	$caller->executor(3);
	$waiter->executor(3);
	$gate->query('SELECT pg_advisory_lock(1)');
	my $all = $s->query(
		q{SELECT loky.submit_all('t.touch', ARRAY(SELECT generate_series(1, 20)))});
	is($s->outcomes($all), '20 succeeded', "$victim: some tasks have ended");
	$s->query(q{SELECT loky.wait(ARRAY[loky.submit('SELECT repeat(''x'', 20000000)')])});
	$caller->query(
		q{BEGIN; DECLARE c CURSOR FOR SELECT loky.flat_map(
		  'SELECT repeat(md5($1::text || i), 100) FROM generate_series(1, 5000) i',
		  ARRAY(SELECT generate_series(1, 8)))});
	$caller->query('FETCH 10 FROM c');
	my $running = $s->query(q{SELECT loky.submit('t.touch_gate', 1, 100)});
	$s->query(
		qq{SELECT loky.submit_task('t.touch_gate', ROW(1, 101), key => 'k', retries => 9),
		   loky.submit_task('t.touch', ROW(102), delay => '1 h', retries => 9),
		   loky.submit_task('t.touch', ROW(103), after => ARRAY[$running]),
		   loky.submit_task('t.touch_gate', ROW(1, 104), key => 'k'),
		   loky.add_done_callback($running, 'SELECT t.touch(105) FROM (SELECT \$1) x')});
	at_gate($s, 1, 2);
	ok(scalar(grep { -f $_ } temp_files($node)) > 1, "$victim: results lie in files");
	$waiter->send(
		q{SELECT count(*) FROM loky.map('t.touch_gate', ARRAY(SELECT ROW(1, i)
		  FROM generate_series(200, 220) i), NULL::int)});
	at_gate($s, 1, 3);
	note_ids($s, $victim);

	my $offset = log_end($node);
	my $pid = $victims{$victim}->($s, $running, $caller);
	kill 'KILL', $pid;

	# Sessions that end before the server knows of it would open the gate.
	$node->wait_for_log(qr/\(PID $pid\) was terminated by signal 9/, $offset);
	$_->await_end for $s, $gate, $caller, $waiter;
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);

	# At once, without any preparation.
	$s = LokyTest::Session->new($node);
	is($s->query(q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int) r}),
		6, "$victim: a map runs");
	is($s->query(q{SELECT loky.result(loky.submit('t.id', 7), NULL::int)}),
		7, "$victim: and a task");
	is($s->query(q{SELECT loky.result(loky.submit_task('t.id', ROW(8), key => 'k'), NULL::int)}),
		8, "$victim: and one with the key of one that was lost");
	note_ids($s, "$victim, after");
	is(join(' ', temp_files($node)), '', "$victim: no temporary file is left");
	is($s->query('SELECT count(*) FROM loky.executors'), 1, "$victim: no executor");
	is($s->query("SELECT count(*) FROM loky.tasks WHERE state IN ('pending', 'running')"),
		0, "$victim: nothing that waits");
	is($s->logged, '20|20|1|20', "$victim: what had succeeded is there, once, and nothing else");
	$s->query('SELECT loky.forget(future) FROM loky.tasks');
	cmp_ok($s->query('SELECT loky._memory_used()'), '<', 16 * 1024,
		"$victim: hardly any memory is in use");
	$s->quit;
	check_idle($node, "after the $victim");
}

$node->stop;

done_testing();
