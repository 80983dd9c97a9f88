
# Maps in the caller's snapshot while others change what they read: the sum over
# all accounts stays the same to whoever sees one state of the database.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $caller = LokyTest::Session->new($node);

$s->query(q{
CREATE TABLE t.account (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO t.account SELECT i, 100 FROM generate_series(0, 999) i;
CREATE SEQUENCE t.moved;
CREATE TABLE t.go ();
-- move money between two accounts, one transaction each, while the table t.go is there
CREATE PROCEDURE t.transfer() LANGUAGE plpgsql AS $$
DECLARE
	a int;
	b int;
BEGIN
	WHILE to_regclass('t.go') IS NOT NULL LOOP
		a := random() * 499;
		b := 500 + random() * 499;
		UPDATE t.account SET v = v - 1 WHERE id = a;
		UPDATE t.account SET v = v + 1 WHERE id = b;
		PERFORM nextval('t.moved');
		COMMIT;
	END LOOP;
END$$;
CREATE FUNCTION t.held(x int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT sum(v) FROM t.account WHERE id % 20 = x);
END$$;
CREATE FUNCTION t.held_gate(x int, k int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(k);
	RETURN (SELECT sum(v) FROM t.account WHERE id % 20 = x);
END$$;
});
my $items = 'ARRAY(SELECT generate_series(0, 19))';

# Two sessions move money all the time.  Without the snapshot the sum is wrong now
# and then, which shows that the test can fail.
my @movers = map { LokyTest::Session->new($node) } 1 .. 2;
$_->send('CALL t.transfer()') for @movers;
ok(poll($s, 'SELECT last_value > 100 FROM t.moved'), 'money moves');
my %sums;
for my $level ('READ COMMITTED', 'REPEATABLE READ')
{
	for my $i (1 .. 15)
	{
		# a fresh executor each time: its workers start after the snapshot was taken
		$caller->query("SELECT loky.get_reusable_executor(3, reuse => 'false')") if $i % 5 == 1;
		$caller->query("BEGIN ISOLATION LEVEL $level");
		for my $map (
			"loky.map('t.held', $items, NULL::bigint, snapshot => true)",
			"loky.map('SELECT sum(v) FROM t.account WHERE id % 20 = \$1', $items, NULL::bigint, snapshot => true, ordered => false)",
			"loky.map('t.held', $items, NULL::bigint, snapshot => true, chunksize => 3)",
			"loky.map_table('SELECT sum(v) FROM t.account WHERE ctid >= \$1 AND ctid < \$2', 't.account', NULL::bigint)")
		{
			$sums{ $caller->query("SELECT sum(r) FROM $map r") }++;
		}
		$caller->query('COMMIT');
		$caller->query('SELECT loky.shutdown()') if $i % 5 == 0;
	}
}
is_deeply(\%sums, { 100000 => 120 }, 'every sum is right');
my %loose;
$caller->executor(2);
for my $i (1 .. 200)
{
	$loose{ $caller->query("SELECT sum(r) FROM loky.map('t.held', $items, NULL::bigint) r") }++;
	last if keys %loose > 2;
}
ok(keys %loose > 1, 'which they are not without the snapshot');

# Changes between the snapshot and the start of a late item.
$caller->executor(1);
$gate->query('SELECT pg_advisory_lock(1)');
$caller->send("SELECT sum(r) FROM loky.map('t.held_gate', $items, NULL::bigint, snapshot => true, args => ROW(1)) r");
at_gate($s, 1, 1);
my $moved = $s->query('SELECT last_value FROM t.moved');
ok(poll($s, "SELECT last_value > $moved + 500 FROM t.moved"), 'much happens while the first item runs');
$gate->query('SELECT pg_advisory_unlock(1)');
is($caller->answer, '100000', 'the later items see nothing of it');
$s->query('DROP TABLE t.go');
$_->answer for @movers;

# The worker dies that has the snapshot, and the next one takes it again.
$gate->query('SELECT pg_advisory_lock(1)');
$caller->send("SELECT sum(r) FROM loky.map('t.held_gate', $items, NULL::bigint, snapshot => true, retries => 1, args => ROW(1)) r");
at_gate($s, 1, 1);
$s->query('UPDATE t.account SET v = v + 1');
$s->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'loky worker'});
at_gate($s, 1, 1);
$gate->query('SELECT pg_advisory_unlock(1)');
is($caller->answer, '100000', 'another worker sees the same');
$caller->query('UPDATE t.account SET v = v - 1');

# A caller whose own changes are not committed yet: while others look at its rows in
# all ways, nothing of them is lost.
$caller->executor(3);
for my $round (1 .. 5)
{
	$caller->query(qq{
BEGIN;
INSERT INTO t.account SELECT 10000 * $round + i, 0 FROM generate_series(1, 200) i;
UPDATE t.account SET v = v WHERE id < 100;
DELETE FROM t.account WHERE id = 999 - $round;
DO \$\$BEGIN
	FOR i IN 1 .. 20 * $round LOOP
		BEGIN
			INSERT INTO t.account VALUES (10000 * $round + 500 + i, 0);
			IF i % 4 = 0 THEN
				RAISE EXCEPTION 'undone';
			END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END\$\$;
SAVEPOINT a;
INSERT INTO t.account VALUES (10000 * $round + 900, 0);});
	my $before = $s->query('SELECT count(*), sum(v) FROM t.account');
	my ($n, $sum) = split /\|/, $before;
	is( $caller->query("SELECT DISTINCT r FROM loky.map('SELECT count(*)::text || sum(v) FROM t.account WHERE \$1 > 0', ARRAY(SELECT generate_series(1, 50)), snapshot => true) r"),
		"$n$sum", "round $round: its workers see what others see");
	$caller->query('COMMIT');
	is( $s->query(qq{SELECT count(*) FROM t.account WHERE id BETWEEN 10000 * $round AND 10000 * $round + 999}),
		201 + 15 * $round, "round $round: all that was inserted is there");
	is( $s->query("SELECT count(*) FROM t.account WHERE id = 999 - $round OR id < 100"),
		100, "round $round: and what was deleted is gone");
}

# So it is while other transactions with subtransactions are in progress, older and
# younger than the caller's, and one of them with more than are listed for all to see.
# None of their rows is seen, and none is lost for having been looked at: each of them
# commits or aborts only afterwards.
for my $round (1 .. 4)
{
	my @others = map { LokyTest::Session->new($node) } 1 .. 4;
	my %many = $round == 4 ? (2 => 100) : ();
	my $base = 100000 * $round;
	my $all = "SELECT count(*)::text || ' ' || sum(v) FROM t.account";
	my $before = $s->query($all);

	# the caller is the third of five to get a transaction id
	for my $i (0, 1, 4, 2, 3)
	{
		my $session = $i == 4 ? $caller : $others[$i];
		my $from = $base + 1000 * $i;
		my $count = $many{$i} // 6;

		$session->query(qq{
BEGIN;
INSERT INTO t.account VALUES ($from, 1);
DELETE FROM t.account WHERE id = 900 - 5 * $round - $i;
DO \$\$BEGIN
	FOR i IN 1 .. $count LOOP
		BEGIN
			INSERT INTO t.account VALUES ($from + i, 1);
			DELETE FROM t.account WHERE id = 800 - 25 * $round - 5 * $i - i AND i <= 5;
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'undone';
			END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END\$\$;
SAVEPOINT a;
INSERT INTO t.account VALUES ($from + 900, 1);});
	}

	# the youngest of all ends: what is in progress is told apart by lists only
	$s->query(qq{BEGIN; INSERT INTO t.account VALUES ($base + 9999, 1); COMMIT});
	$before = join ' ', map { $_ + 1 } split / /, $before;
	is($s->query($all), $before, "round $round: others see what has been committed");
	is( $caller->query("SELECT DISTINCT r FROM loky.map(\$q\$$all WHERE \$1 > 0\$q\$, ARRAY(SELECT generate_series(1, 50)), snapshot => true) r"),
		$before, "round $round: so do the caller's workers");
	is( $caller->query(q{SELECT sum(r) FROM loky.map_table('SELECT count(*) FROM t.account WHERE ctid >= $1 AND ctid < $2', 't.account', NULL::bigint) r}),
		$before =~ s/ .*//r, "round $round: in each part of the table");

	# one of the others is undone, all else stays
	$_->query('COMMIT') for $caller, @others[ 0, 1, 2 ];
	$others[3]->query('ROLLBACK');
	my ($n, $deleted) = (0, 0);
	for my $i (0, 1, 2, 4)
	{
		my $count = $many{$i} // 6;

		$n += 2 + $count - int($count / 3);
		$deleted += 5;
	}
	is( $s->query("SELECT count(*) FROM t.account WHERE id BETWEEN $base AND $base + 9998"),
		$n, "round $round: all that was inserted is there");
	my ($rows, $sum) = split / /, $before;
	is($s->query('SELECT count(*) FROM t.account'),
		$rows + $n - $deleted, "round $round: and what was deleted is gone");
	$_->quit for @others;
}

# Chunks of a table run side by side.
$gate->query('SELECT pg_advisory_lock(3)');
$caller->executor(2);
$caller->send(q{SELECT sum(r) FROM loky.map_table('SELECT count(*) + t.gate(3) FROM t.account WHERE ctid >= $1 AND ctid < $2', 't.account', NULL::bigint) r});
at_gate($s, 3, 2);
$gate->query('SELECT pg_advisory_unlock(3)');
is($caller->answer, $s->query('SELECT count(*) FROM t.account'), 'two chunks at a time, all rows');

# Progress: a notice about once a second, and one at the end, for what takes longer.
$gate->query('SELECT pg_advisory_lock(2)');
$caller->executor(2);
$caller->send(q{SELECT count(*) FROM loky.map('SELECT CASE WHEN $1 > 1 THEN t.gate(2) ELSE 1 END', ARRAY[1, 2], progress => true)});
at_gate($s, 2, 1);
ok(poll($s, q{SELECT elapsed > '1.2 s' AND done = 1 AND bar ~ ' 50%' FROM loky.progress}), 'half of the map is done');
$gate->query('SELECT pg_advisory_unlock(2)');
is($caller->answer, '2', 'the map ends');
my @notices = $caller->messages =~ /NOTICE:  (?:\w+: )?(\[.*)/g;
ok(@notices >= 2, 'there were notices');
like($notices[0], qr/^\[##########\.{10}\]  50%  1\/2, 0:00:\d\d left$/, 'the first shows what was done');
like($notices[-1], qr/^\[#{20}\] 100%  2\/2$/, 'the last shows all');

# Failed items count among those that are done, and are told of.
$gate->query('SELECT pg_advisory_lock(2)');
$caller->send(q{SELECT count(*) FROM loky.try_map('SELECT 1 / ($1 - 1) + t.gate(2)', ARRAY[1, 2], progress => true)});
at_gate($s, 2, 1);
ok(poll($s, q{SELECT elapsed > '1.2 s' AND done = 1 AND failed = 1 FROM loky.progress}), 'one of two items has failed');
$gate->query('SELECT pg_advisory_unlock(2)');
is($caller->answer, '2', 'the map ends');
@notices = $caller->messages =~ /NOTICE:  (?:\w+: )?(\[.*)/g;
like($notices[0], qr/^\[##########\.{10}\]  50%  1\/2, 1 failed, 0:00:\d\d left$/, 'the first shows what failed');
like($notices[-1], qr/^\[#{20}\] 100%  2\/2, 1 failed$/, 'and so does the last');

# The log tells of what ran long, and of nothing else.
my $log = log_end($node);
$caller->query("SET loky.log_min_duration = '20ms'");
$caller->query(q{SELECT loky.run('SELECT pg_sleep(0.05) /* long */')});
$caller->query(q{SELECT loky.run('SELECT 1 /* short */')});
$caller->query(q{SELECT count(*) FROM loky.map('SELECT pg_sleep($1) /* items */', ARRAY[0.0, 0.05])});
my $logged = log_since($node, $log);
like($logged, qr/LOG:  loky task \d+ ran for \d\d+\.\d{3} ms: SELECT pg_sleep\(0\.05\) \/\* long/, 'a long task is logged');
unlike($logged, qr/short/, 'a short one is not');
like($logged, qr/LOG:  item 2 of a loky map ran for \d\d+\.\d{3} ms: SELECT pg_sleep.*items/, 'a long item is logged');
unlike($logged, qr/item 1 of/, 'a short one is not');

check_rest($node);
$node->stop;

done_testing();
