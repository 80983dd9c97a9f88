
# What one role may have: loky.max_workers_per_role, loky.max_tasks_per_role, and
# whose futures make room.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(
	conf => "loky.max_tasks = 40\nloky.max_workers_per_role = 2\n"
	  . "max_worker_processes = 20\n");
$node->safe_psql(
	'postgres', q{
	CREATE ROLE one; CREATE ROLE two;
	GRANT USAGE ON SCHEMA loky, t TO one, two;
	GRANT ALL ON ALL TABLES IN SCHEMA t TO one, two;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA t TO one, two;
	CREATE TABLE t.locked ();
	GRANT ALL ON t.locked TO one;
	CREATE FUNCTION t.nest(depth int) RETURNS int LANGUAGE sql AS
	  $$SELECT CASE WHEN depth = 0 THEN 0 ELSE
		1 + (SELECT r FROM loky.result(loky.submit('t.nest', depth - 1), NULL::int) r) END$$;
	CREATE FUNCTION t.nest_map(depth int) RETURNS int LANGUAGE sql AS
	  $$SELECT CASE WHEN depth = 0 THEN 1 ELSE
		(SELECT sum(r)::int FROM loky.map('t.nest_map', ARRAY[depth - 1, depth - 1], NULL::int) r) END$$});

my $gate = LokyTest::Session->new($node);
my ($one, $one_too, $two) = map { LokyTest::Session->new($node) } 1 .. 3;
$one->query('SET ROLE one');
$one_too->query('SET ROLE one');
$two->query('SET ROLE two');
my $super = LokyTest::Session->new($node);

sub reload
{
	my ($setting, $value) = @_;

	$gate->query("ALTER SYSTEM SET $setting = '$value'");
	$gate->query('SELECT pg_reload_conf()');
	for my $session ($gate, $one, $one_too, $two, $super)
	{
		poll($session, "SELECT current_setting('$setting')", $value)
		  or die "$setting does not change";
	}
	return;
}

sub gated
{
	my ($session, $k, $n) = @_;
	return $session->query(
		qq{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW($k, i)
		   FROM generate_series(1, $n) i))});
}

# Workers of the role, as anybody may count them.
sub workers_of
{
	my ($role) = @_;
	return qq{SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'loky worker' AND usename = '$role'};
}

sub succeeded
{
	my ($session, $futures) = @_;
	return $session->query(
		"SELECT count(*) FROM loky.wait('$futures'::bigint[]) WHERE state = 'succeeded'");
}

#--------------------------------------------------------------------------
# loky.max_workers_per_role
#--------------------------------------------------------------------------

my $role_shortage = qr/LOG:  loky may start no more workers for the role/;
my $offset = log_end($node);

# Two at a time, however many executors and tasks.
$one->executor(4);
$one_too->executor(4, q{timeout => '-1 s', settings => '{"my.x": "1"}'});
$gate->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
my $all = gated($one, 1, 6);
at_gate($gate, 1, 2);
my $more = gated($one_too, 2, 6);
$node->wait_for_log($role_shortage, $offset);
like(log_since($node, $offset), qr/HINT:  .*loky\.max_workers_per_role/,
	'the log names the setting');
is($gate->query(workers_of('one')), 2, 'a role has as many workers as it may');
my ($f) = $more =~ /(\d+)/;
$one_too->query("SELECT * FROM loky.wait(ARRAY[$f], timeout => '3 s')");
like($one_too->messages, qr/WARNING:  .*\n.*loky\.max_workers_per_role/,
	'a caller without a worker is told');
unlike($one_too->messages, qr/max_total_workers/, 'and not of other settings');

# Others have their own, and superusers what they want.
$two->executor(4);
$super->executor(4);
my $of_two = gated($two, 1, 3);
my $of_super = gated($super, 1, 4);
at_gate($gate, 1, 8);
is($gate->query(workers_of('two')), 2, 'another role has its own');
is($gate->query(workers_of('postgres')), 4, 'a superuser has no limit');
$gate->query('SELECT pg_advisory_unlock(1)');

# The role's executors take turns: this one has a worker at last.
at_gate($gate, 2, 2);
pass('the second executor has its turn');
$gate->query('SELECT pg_advisory_unlock(2)');
is(succeeded($one, $all), 6, 'all tasks of one executor succeed');
is(succeeded($one_too, $more), 6, 'and of the other');
is(succeeded($two, $of_two), 3, 'and of the other role');
is(succeeded($super, $of_super), 4, 'and of the superuser');

# Idle workers of the role make room at once, those of others stay.
$gate->query('SELECT pg_advisory_lock(1)');
gated($one, 1, 2);
at_gate($gate, 1, 2);
$gate->query('SELECT pg_advisory_unlock(1)');
ok(poll($gate, workers_of('one') . q{ AND state = 'idle'}, 2), 'two workers rest');
is($gate->query(workers_of('postgres')), 4, 'and four of a superuser');
$gate->query('SELECT pg_advisory_lock(2)');
$all = gated($one_too, 2, 2);
at_gate($gate, 2, 2);
is($gate->query(workers_of('postgres')), 4, 'idle workers of other roles stay');
is($gate->query(workers_of('one')), 2, 'those of the role have left');

# A lower limit: between tasks, and when idle.
$more = gated($one_too, 2, 6);
reload('loky.max_workers_per_role', 1);
is( $one_too->query(
		"SELECT count(*) FROM unnest('$all'::bigint[]) f WHERE loky.running(f)"),
	2, 'what runs goes on under a lower limit');
$gate->query('SELECT pg_advisory_lock(3)');
my $last = gated($one_too, 3, 3);
$gate->query('SELECT pg_advisory_unlock(2)');
is(succeeded($one_too, $all), 2, 'and ends well');
is(succeeded($one_too, $more), 6, 'so does what was pending');
ok(poll($gate, workers_of('one'), 1), 'one worker is left');
at_gate($gate, 3, 1);
$gate->query('SELECT pg_advisory_unlock(3)');
is(succeeded($one_too, $last), 3, 'which goes on');

reload('loky.max_workers_per_role', 3);
$gate->query('SELECT pg_advisory_lock(1)');
$all = gated($one, 1, 3);
at_gate($gate, 1, 3);
$gate->query('SELECT pg_advisory_unlock(1)');
is(succeeded($one, $all), 3, 'a higher limit gives more');
ok(poll($gate, workers_of('one') . q{ AND state = 'idle'}, 3), 'three workers rest');
reload('loky.max_workers_per_role', 1);
ok(poll($gate, workers_of('one'), 1), 'idle ones leave when the limit is lowered');

# Nested tasks at a limit of one: those that wait do not count.
is($one->query(q{SELECT loky.result(loky.submit('t.nest', 5), NULL::int)}),
	5, 'nested tasks go on where a role may have one worker');
is($one->query(q{SELECT sum(r) FROM loky.map('t.nest_map', ARRAY[2, 2], NULL::int) r}),
	8, 'nested maps too');

# A caller that holds what the role's only worker waits for.
$one_too->query('BEGIN; LOCK TABLE t.locked');
$f = $one->query(q{SELECT loky.submit('SELECT count(*) FROM t.locked')});
ok( poll(
		$gate, q{SELECT count(*) FROM pg_locks WHERE relation = 't.locked'::regclass
		  AND NOT granted}, 1),
	'the only worker waits for a session');
is($one_too->fails(q{SELECT loky.result(loky.submit('t.id', 1))}),
	'40P01', 'which gets a deadlock when it waits for another executor');
$one_too->query('ROLLBACK');
is($one->query("SELECT loky.result($f)"), 0, 'the task goes on');

# The same where that worker runs what another one waits for.
$one_too->query('BEGIN; LOCK TABLE t.locked');
$f = $one->query(
	q{SELECT loky.submit('SELECT loky.result(loky.submit(''SELECT count(*) FROM t.locked''))')});
ok( poll(
		$gate, q{SELECT count(*) FROM pg_locks WHERE relation = 't.locked'::regclass
		  AND NOT granted}, 1),
	'a nested task waits for a session');
is($one_too->fails(q{SELECT loky.result(loky.submit('t.id', 1))}),
	'40P01', 'which gets a deadlock as well');
$one_too->query('ROLLBACK');
is($one->query("SELECT loky.result($f)"), 0, 'both tasks go on');

is($gate->fails('ALTER SYSTEM SET loky.max_workers_per_role = 0'),
	'22023', 'a limit of none is refused');
like($gate->messages, qr/^HINT:  /m, 'with a hint');
reload('loky.max_workers_per_role', -1);
$gate->query('SELECT pg_advisory_lock(1)');
$all = gated($one, 1, 4);
at_gate($gate, 1, 4);
$gate->query('SELECT pg_advisory_unlock(1)');
is(succeeded($one, $all), 4, 'there need be no limit');

#--------------------------------------------------------------------------
# loky.max_tasks_per_role
#--------------------------------------------------------------------------

# Forget all that there is.
sub forget_all
{
	$super->query(q{SELECT count(loky.forget(future)) FROM loky.tasks});
	is($super->query('SELECT count(*) FROM loky.tasks'), 0, 'nothing is left');
	return;
}

sub no_room
{
	my ($session, $call, $setting, $what) = @_;
	my $before = $super->query('SELECT count(*), max(future) FROM loky.tasks');

	is($session->fails("SELECT $call"), 'LK008', $what);
	like($session->messages, qr/^HINT:  .*loky\.$setting\b/m, '... the hint names the setting');
	is($super->query('SELECT count(*), max(future) FROM loky.tasks'),
		$before, '... nothing was queued, nothing was lost');
	return;
}

sub items
{
	my ($n) = @_;
	return "ARRAY(SELECT generate_series(1, $n))";
}

# Half of forty unless told.
forget_all();
$gate->query('SELECT pg_advisory_lock(1)');
$all = gated($one, 1, 20);
at_gate($gate, 1, 4);
no_room($one, q{loky.submit('t.id', 1)}, 'max_tasks_per_role',
	'a role has half of the places');
no_room($one_too, q{loky.submit_all('t.id', ARRAY[1])}, 'max_tasks_per_role',
	'in all its sessions');
is($one_too->query(q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2], NULL::int) r}),
	3, 'a map takes none');
no_room($two, 'loky.submit_all(\'t.id\', ' . items(21) . ')', 'max_tasks_per_role',
	'too many in one call');
$more = gated($two, 1, 19);
$f = $super->query(q{SELECT loky.submit('t.gate', 1, 1)});
no_room($super, q{loky.submit('t.id', 1)}, 'max_tasks', 'all places are taken');
no_room($super, q{loky.submit_all('t.id', ARRAY[1])}, 'max_tasks', 'for several too');

# Places come back when tasks are cancelled, end, or fail.
$one->query("SELECT loky.cancel(f) FROM unnest(('$all'::bigint[])[16:]) f");
is( $one->query(
		q{SELECT count(*) FROM loky.wait(loky.submit_all('t.id', } . items(5)
		  . q{), timeout => '0') WHERE state = 'pending'}),
	5, 'what is cancelled makes room');
no_room($one, q{loky.submit('t.id', 1)}, 'max_tasks_per_role', 'for as many');
$gate->query('SELECT pg_advisory_unlock(1)');
is(succeeded($two, $more), 19, 'the tasks of a role end');
is($super->query("SELECT loky.result($f)"), 1, 'and of the superuser');
ok( poll($super, q{SELECT count(*) FROM loky.tasks WHERE state IN ('pending', 'running')}, 0),
	'all end');
for my $round (1 .. 2)
{
	is( $one->query(
			q{SELECT count(*) FROM loky.wait(loky.submit_all('SELECT t.die() + $1', }
			  . items(20) . q{)) WHERE state = 'failed'}),
		20, "$round: as many as a role may have fail with their workers");
}
is( $one->query(
		q{SELECT count(*) FROM loky.wait(loky.submit_all('t.id', }
		  . items(20) . q{)) WHERE state = 'succeeded'}),
	20, 'they have left all places free');

# A statement that fails after it has submitted nothing or all.
is($one->fails(q{SELECT loky.submit_all('t.no_such', ARRAY[1])}), '42883', 'an error');
$one->fails(q{SELECT loky.submit_all('t.id', } . items(5) . q{), 1 / 0});
ok( poll($super, q{SELECT count(*) FROM loky.tasks WHERE state IN ('pending', 'running')}, 0),
	'all end');
reload('loky.max_tasks_per_role', 3);
no_room($one, 'loky.submit_all(\'t.id\', ' . items(4) . ')', 'max_tasks_per_role',
	'a limit by the setting');
is( $one->query(
		q{SELECT count(*) FROM loky.wait(loky.submit_all('t.id', }
		  . items(3) . q{)) WHERE state = 'succeeded'}),
	3, 'up to which there is room');
reload('loky.max_tasks_per_role', 0);
no_room($one, q{loky.submit('t.id', 1)}, 'max_tasks_per_role', 'a limit of none');
is($super->query(q{SELECT loky.result(loky.submit('t.id', 8))}),
	8, 'is none for superusers');
reload('loky.max_tasks_per_role', 40);

#--------------------------------------------------------------------------
# Whose futures make room
#--------------------------------------------------------------------------

sub kept
{
	return $super->query(
		q{SELECT string_agg(n || ' ' || role, ', ' ORDER BY role)
		  FROM (SELECT count(*) n, role FROM loky.tasks GROUP BY 2) x});
}

forget_all();
my $first = $two->query(q{SELECT loky.submit('t.id', 1)});
$two->query("SELECT loky.result($first)");
is(succeeded($two, $two->query('SELECT loky.submit_all(\'t.id\', ' . items(9) . ')')),
	9, 'one role has ten finished futures');
$f = $one->query(q{SELECT loky.submit('SELECT generate_series(7, 9)')});
is(succeeded($one, "{$f}"), 1, 'another one has one');
is(succeeded($one, $one->query('SELECT loky.submit_all(\'t.id\', ' . items(19) . ')')),
	19, 'and nineteen');
$gate->query('SELECT pg_advisory_lock(1)');
$all = gated($super, 1, 10);
is(kept(), '20 one, 10 postgres, 10 two', 'all places are taken');
no_room($super, 'loky.submit_all(\'t.id\', ' . items(31) . ')', 'max_tasks',
	'more than could be held');

# A cursor reads one of those that go.
$one->query(
	"BEGIN; DECLARE c CURSOR FOR SELECT loky.result($f, NULL::int)");
is($one->query('FETCH c'), 7, 'a reader');
is(succeeded($two, $two->query(q{SELECT loky.submit_all('t.id', ARRAY[1])})),
	1, 'a call that needs one more place');
# The place of the one that is read comes free only when that is done.
is(kept(), '18 one, 10 postgres, 11 two', 'gets it from the role that has most');
is($super->query("SELECT count(*) FROM loky.tasks WHERE future = $f"),
	0, 'whose oldest future has gone');
is($super->query("SELECT loky.result($first)"), 1, 'not the oldest of all');
is($one->query('FETCH ALL FROM c'), "8\n9", 'a reader reads on');
$one->query('COMMIT');
is($one->fails("SELECT loky.result($f)"), '42704', 'its result is gone');
is($one->fails("SELECT * FROM loky.wait(ARRAY[$f])"), '42704', 'for a wait too');
is($one->fails("SELECT loky.state($f)"), '42704', 'and its state');
$more = $super->query('SELECT loky.submit_all(\'t.id\', ' . items(30) . ')');
is( $super->query("SELECT count(*) FROM loky.wait('$all', '0') WHERE done"),
	0, 'what is not done never makes room');
is(kept(), '40 postgres', 'all that is done does');
$gate->query('SELECT pg_advisory_unlock(1)');
is(succeeded($super, $all), 10, 'what was kept succeeds');
is(succeeded($super, $more), 30, 'and what has come');

$_->quit for $gate, $one, $one_too, $two, $super;
check_rest($node);
$node->stop;

done_testing();
