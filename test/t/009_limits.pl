
# Limits of futures, and settings that change while the server runs.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(
	conf => "loky.max_tasks = 20\nloky.max_total_workers = 4\n");
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);

sub reload
{
	my ($setting, $value) = @_;

	$s->query("ALTER SYSTEM SET $setting = '$value'");
	$s->query('SELECT pg_reload_conf()');
	ok( poll($s, "SELECT current_setting('$setting')", $value),
		"$setting is $value after a reload");
	return;
}

# Full of unfinished tasks.
$s->query("SELECT loky.get_reusable_executor(2, timeout => '1 h')");
$gate->query('SELECT pg_advisory_lock(1)');
my $all = $s->query(
	q{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 20) i))});
at_gate($s, 1, 2);
is($s->fails(q{SELECT loky.submit('t.id', 1)}), 'LK008', 'no room for another task');
like($s->messages, qr/^HINT:  .*loky\.max_tasks/m, 'the hint names the setting');
my $o = LokyTest::Session->new($node);
$o->query("SELECT loky.get_reusable_executor(1, timeout => '2 h')");
is($o->query(q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1, 2], NULL::int) r}),
	3, 'a map takes no place');
$gate->query('SELECT pg_advisory_unlock(1)');
is( $s->query("SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	20, 'all that had room succeed');

# The oldest finished futures make room, one for each new one.
my @futures = $all =~ /\d+/g;
is($s->query('SELECT count(*) FROM loky.tasks'), 20, 'all are kept');
my $f = $s->query(q{SELECT loky.submit('t.id', 1)});
is($s->query("SELECT loky.result($f)"), 1, 'a new task finds room');
# Which one was finished first is told by the view before.
my $gone = $s->query(
	"SELECT count(*) FROM unnest('$all'::bigint[]) f
	 WHERE f NOT IN (SELECT future FROM loky.tasks)");
is($gone, 1, 'one of the old ones made it');
my $oldest = $s->query(
	'SELECT future FROM loky.tasks ORDER BY finished, future LIMIT 1');
$f = $s->query(q{SELECT loky.submit('t.id', 2)});
is($s->query("SELECT loky.result($f)"), 2, 'and another one');
is($s->fails("SELECT loky.result($oldest)"),
	'42704', 'the oldest finished one has gone');
like($s->messages, qr/^HINT:  /m, 'with a hint');
is($s->query('SELECT count(*) FROM loky.tasks'), 20, 'so many are kept');

# More at once than can ever be held: nothing is queued.
my $last = $s->query('SELECT max(future) FROM loky.tasks');
is( $s->fails(
		q{SELECT loky.submit_all('t.touch', ARRAY(SELECT generate_series(1, 21)))}),
	'LK008', 'more tasks in one call than can be held');
like($s->messages, qr/^HINT:  .*loky\.max_tasks/m, 'the hint names the setting');

# Or more than there is room for beside unfinished ones.
$gate->query('SELECT pg_advisory_lock(1)');
$all = $s->query(
	q{SELECT loky.submit_all('t.gate', ARRAY(SELECT ROW(1, i)
	  FROM generate_series(1, 10) i))});
is( $s->fails(
		q{SELECT loky.submit_all('t.touch', ARRAY(SELECT generate_series(1, 11)))}),
	'LK008', 'more than there is room for at present');
is($s->query('SELECT count(*) FROM loky.tasks WHERE task = \'t.touch\''),
	0, 'none of them was queued');
$gate->query('SELECT pg_advisory_unlock(1)');
is( $s->query("SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	10, 'the unfinished ones succeed');
is( $s->query(
		q{SELECT count(*) FROM loky.wait(loky.submit_all('t.touch',
		  ARRAY(SELECT generate_series(1, 20)))) WHERE state = 'succeeded'}),
	20, 'as many as can be held can be submitted at once');
is($s->query('SELECT count(*), count(DISTINCT i) FROM t.log'),
	'20|20', 'each of them ran once');

# Ten thousand tasks go through twenty places.
$s->query(
	q{DO $$
	  DECLARE
		f bigint;
	  BEGIN
		FOR i IN 1 .. 2000 LOOP
			f := loky.submit('t.id', i);
			IF (SELECT r FROM loky.result(f, NULL::int) r) <> i THEN
				RAISE 'wrong result of %', i;
			END IF;
		END LOOP;
	  END$$});
pass('two thousand tasks go through twenty places');

# result_ttl: finished futures go, others do not.
$gate->query('SELECT pg_advisory_lock(1)');
$f = $s->query(q{SELECT loky.submit('t.gate', 1, 5)});
at_gate($s, 1, 1);
reload('loky.result_ttl', '1s');
ok(poll($s, 'SELECT string_agg(future::text, \' \') FROM loky.tasks', $f),
	'finished futures go after loky.result_ttl, an unfinished one stays');
reload('loky.result_ttl', '1h');
$gate->query('SELECT pg_advisory_unlock(1)');
is($s->query("SELECT loky.result($f)"), 5, 'the unfinished one succeeds');

# loky.enabled: off, nothing is accepted or started.
$gate->query('SELECT pg_advisory_lock(1)');
$s->query("SELECT loky.get_reusable_executor(1, timeout => '1 h')");
my $running = $s->query(q{SELECT loky.submit('t.gate', 1, 6)});
my $pending = $s->query(q{SELECT loky.submit('t.id', 7)});
at_gate($s, 1, 1);
reload('loky.enabled', 'off');
for my $call (
	q{loky.submit('t.id', 1)},
	q{loky.submit_all('t.id', ARRAY[1])},
	q{loky.map('t.id', ARRAY[1])})
{
	is($s->fails("SELECT $call"), '55000', "refused while off: $call");
	like($s->messages, qr/^HINT:  .*loky\.enabled/m, 'with a hint');
}
$gate->query('SELECT pg_advisory_unlock(1)');
is($s->query("SELECT loky.result($running)"), 6, 'what runs goes on');
ok( poll($s, "SELECT count(*) FROM loky.workers WHERE state = 'busy'", 0),
	'its worker rests');
is($s->query("SELECT loky.state($pending)"), 'pending', 'what is pending stays');
reload('loky.enabled', 'on');
is($s->query("SELECT loky.result($pending)"), 7, 'and goes on when it is on again');

# The same without a worker that could look.
reload('loky.enabled', 'off');
is($s->fails(q{SELECT loky.submit('t.id', 1)}), '55000', 'off once more');
reload('loky.enabled', 'on');
is( $s->query(q{SELECT sum(r) FROM loky.map('t.id', ARRAY[1,2,3], NULL::int) r}),
	6, 'and on once more');

# A reload changes nothing that runs.
$gate->query('SELECT pg_advisory_lock(1)');
$s->query("SELECT loky.get_reusable_executor(2, timeout => '1 h')");
$all = $s->query(
	q{SELECT loky.submit_all('t.gate', ARRAY[ROW(1, 1), ROW(1, 2)])});
at_gate($s, 1, 2);
reload('work_mem', '7MB');
$gate->query('SELECT pg_advisory_unlock(1)');
is( $s->query("SELECT count(*) FROM loky.wait('$all') WHERE state = 'succeeded'"),
	2, 'a reload disturbs no task');
is( $s->query(q{SELECT loky.result(loky.submit('SELECT current_setting(''work_mem'')'))}),
	'7MB', 'and reaches the workers');

# Many configurations: idle ones make room for new ones, and none is refused.
$s->query(
	q{DO $$
	  DECLARE
		f bigint;
	  BEGIN
		FOR i IN 1 .. 300 LOOP
			PERFORM loky.get_reusable_executor(1, timeout => '1 h',
				settings => jsonb_build_object('my.i', i));
			f := loky.submit('SELECT current_setting(''my.i'')');
			IF (SELECT r FROM loky.result(f, NULL::int) r) <> i THEN
				RAISE 'wrong result of %', i;
			END IF;
		END LOOP;
	  END$$});
pass('S12: 300 configurations');
cmp_ok($s->query('SELECT count(*) FROM loky.executors'),
	'<', 250, 'S12: idle executors made room');

$_->quit for $s, $gate, $o;
check_rest($node);
$node->stop;

done_testing();
