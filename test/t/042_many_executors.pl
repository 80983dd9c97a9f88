
# As many roles and configurations at a time as there are places for: one more is
# refused, and finds room as soon as there is some.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);

$s->query(
	q{GRANT USAGE ON SCHEMA loky, t TO public;
	  CREATE TABLE t.refused (message text, detail text);
	  GRANT ALL ON t.refused TO public;
	  SELECT format('CREATE ROLE r%s', i) FROM generate_series(1, 300) i \gexec
	  -- another role each time has a finished future; how many can
	  CREATE FUNCTION t.have_roles() RETURNS int LANGUAGE plpgsql AS $$
	  BEGIN
		FOR i IN 1 .. 300 LOOP
			PERFORM set_config('role', 'r' || i, true);
			BEGIN
				PERFORM loky.cancel(loky.submit_task('SELECT 1', delay => '1 h'));
			EXCEPTION WHEN configuration_limit_exceeded THEN
				INSERT INTO t.refused VALUES (SQLERRM);
				RETURN i - 1;
			END;
		END LOOP;
		RETURN 300;
	  END$$;
	  -- another configuration each time has something to run later; how many can
	  CREATE FUNCTION t.have_executors() RETURNS int LANGUAGE plpgsql AS $$
	  DECLARE
		d text;
	  BEGIN
		FOR i IN 1 .. 300 LOOP
			BEGIN
				PERFORM loky.get_reusable_executor(1, settings => jsonb_build_object('my.x', i));
				PERFORM loky.submit_task('SELECT 1', delay => '1 h');
			EXCEPTION WHEN configuration_limit_exceeded THEN
				GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL;
				INSERT INTO t.refused VALUES (SQLERRM, d);
				RETURN i - 1;
			END;
		END LOOP;
		RETURN 300;
	  END$$});

# What was refused: the message, and the number that its detail tells.
sub refused
{
	return $s->query(
		q{WITH x AS (DELETE FROM t.refused RETURNING *)
		  SELECT concat_ws(' ', message, substring(detail FROM '\d+')) FROM x});
}

sub forget_all
{
	$s->query(
		q{RESET ROLE; SELECT loky.cancel(future), loky.forget(future) FROM loky.tasks});
	is($s->query('SELECT count(*) FROM loky.tasks'), 0, 'all of it is forgotten');
	return;
}

is($s->query('SELECT t.have_roles()'), 256, 'so many roles have futures');
is(refused(), 'too many roles use loky at the same time', 'one more is told so');
forget_all();
$s->query("SET ROLE r300; SET loky.timeout = 0");
is($s->query(q{SELECT loky.result(loky.submit('t.id', 1))}), 1, 'then it has its turn');
forget_all();
ok(poll($s, 'SELECT count(*) FROM loky.workers', 0), 'and its worker leaves');

$s->query('SET ROLE r1');
my $half = $s->query('SELECT t.have_executors()');
is(refused(), "too many executors of this role are in use $half",
	'a role may have as many configurations as it is told');
$s->query('RESET ROLE');
my $rest = $s->query('SELECT t.have_executors()');
my $all = $half + $rest;
is(refused(), "too many executors are in use $all", 'so may all roles together');
is($half, int($all / 2), 'a role half as many');
$s->query('RESET loky.executor');
is($s->fails(q{SELECT loky.submit('t.id', 1)}),
	'53400', 'there is no room for the default one either');
like($s->messages, qr/HINT:  .*loky\.shutdown/, 'the hint says what makes room');
forget_all();
is($s->query(q{SELECT loky.result(loky.submit('t.id', 1))}),
	1, 'there is some as soon as one has nothing to run');

$s->quit;
check_rest($node);
$node->stop;

done_testing();
