
# Many sessions at the same time, with equal and with different configurations.
# Each statement of the scripts fails where a result is wrong, and with it pgbench.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $dir = PostgreSQL::Test::Utils::tempdir;
my $s = LokyTest::Session->new($node);

# Raises an error unless the two are equal.
$s->query(
	q{CREATE FUNCTION t.same(a anyelement, b anyelement) RETURNS void
		LANGUAGE plpgsql AS $$
	  BEGIN
		IF a IS DISTINCT FROM b THEN
			RAISE EXCEPTION 'expected %, got %', b, a;
		END IF;
	  END$$;
	  CREATE FUNCTION t.square(x int) RETURNS int LANGUAGE plpgsql AS
		'BEGIN RETURN x * x; END'});

# Ten sessions, so many transactions each.
sub run_sessions
{
	my ($what, $transactions, $script) = @_;
	my $file = "$dir/" . ($what =~ s/\W+/_/gr);

	append_to_file($file, $script);
	command_ok(
		[
			'timeout', '120', 'pgbench', '-n', '-c', '10', '-j', '2', '-t',
			$transactions, '--random-seed', '20260101', '-f', $file, '-d',
			$node->connstr('postgres')
		],
		$what);
	return;
}

# S01, S04: the same configuration is the same executor, whoever asks.
my $o = LokyTest::Session->new($node);
is( $s->query('SELECT loky.get_reusable_executor(2)'),
	$o->query('SELECT loky.get_reusable_executor(2)'),
	'S01: two sessions share an executor');
my %ids;
my $wrong = 0;
for my $i (1 .. 20)
{
	for my $session ($s, $o)
	{
		my $seconds = ($i + ($session == $s)) % 2 ? 30 : 60;

		$ids{ $session->query(
			"SELECT loky.get_reusable_executor(2, timeout => '$seconds s')") } = 1;
		$wrong++
		  if $session->query("SELECT loky.result(loky.submit('t.id', $i))") ne $i;
	}
}
is(scalar(keys %ids), 2, 'S04: two configurations are two executors');
is($wrong, 0, 'S04: 40 right results');

# S16: ten configurations in turn, as settings; each task sees its own.
run_sessions('S16: configurations that change', 20, q{
\set i random(1, 10)
SELECT loky.get_reusable_executor(2, settings => jsonb_build_object('my.i', :i));
SELECT loky.submit('SELECT current_setting(''my.i'')::int') AS f \gset
SELECT t.same(r, :i) FROM loky.result(:f, NULL::int) r;
SELECT t.same(array_agg(r), array_fill(:i, ARRAY[5]))
FROM loky.map('SELECT current_setting(''my.i'')::int', ARRAY[1,2,3,4,5], NULL::int) r;
});

# What a connection was opened with goes along, but for what a session cannot set.
my $c = LokyTest::Session->new($node,
	options => '-c work_mem=3MB -c random_page_cost=1.25 -c ignore_system_indexes=on');
is($c->query('SHOW ignore_system_indexes'), 'on', 'a connection with options');
is( $c->query(
		q{SELECT string_agg(r, ' ') FROM loky.map('SELECT current_setting($1)',
		  ARRAY['work_mem', 'random_page_cost', 'ignore_system_indexes']) r}),
	'3MB 1.25 off', 'its tasks have those that any session can set');
$c->quit;

# S17: one configuration whose size changes all the time.
run_sessions('S17: sizes that change', 20, q{
\set n random(1, 4)
SELECT loky.get_reusable_executor(:n);
SELECT t.same(array_agg(r), ARRAY[1,4,9,16,25,36,49,64,81,100])
FROM loky.map('t.square', ARRAY[1,2,3,4,5,6,7,8,9,10], NULL::int) r;
});

# The default executor, with sessions that shut it down under each other.
run_sessions('S15: an executor that others shut down', 20, q{
\set i random(1, 1000)
SELECT t.same(r, :i) FROM loky.result(loky.submit('t.id', :i), NULL::int) r;
SELECT CASE WHEN :i % 4 = 0 THEN loky.shutdown(wait => false)::text
	WHEN :i % 4 = 1 THEN loky.shutdown()::text END;
SELECT t.same(sum(r), 6::bigint) FROM loky.map('t.id', ARRAY[1,2,3], NULL::int) r;
});

# Executors that are always new.
run_sessions('S09: executors that are always new', 5, q{
\set i random(1, 1000)
SELECT loky.get_reusable_executor(2, reuse => 'false');
SELECT t.same(r, :i) FROM loky.result(loky.submit('t.id', :i), NULL::int) r;
});

# Small maps of all sessions are served beside a long one: sessions take turns.
my $gate = LokyTest::Session->new($node);
$s->query("SELECT loky.get_reusable_executor(1, timeout => '20 s')");
$o->query("SELECT loky.get_reusable_executor(1, timeout => '20 s')");
$gate->query('SELECT pg_advisory_lock(1)');
my $first = $s->query(q{SELECT loky.submit('t.gate', 1)});
at_gate($gate, 1, 1);
my $many = $s->query(
	q{SELECT loky.submit_all('t.touch', ARRAY(SELECT generate_series(1, 1000)))});
my $few = $o->query(
	q{SELECT loky.submit_all('t.touch', ARRAY[-1, -2, -3])});
$gate->query('SELECT pg_advisory_unlock(1)');
$s->query("SELECT loky.wait('$many')");
$o->query("SELECT loky.wait('$few')");
cmp_ok(
	$s->query(
		q{SELECT max(n) FROM (SELECT i, row_number() OVER (ORDER BY at) n
		  FROM t.log) x WHERE i < 0}),
	'<', 20,
	'three tasks do not wait behind a thousand of another session');
is( $s->query(
		q{SELECT count(*) FROM (SELECT i, lag(i) OVER (ORDER BY at) before
		  FROM t.log WHERE i > 0) x WHERE i <= before}),
	0,
	'F32: tasks of one session start in their order');

$_->quit for $s, $o, $gate;
check_rest($node);
$node->stop;

done_testing();
