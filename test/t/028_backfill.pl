
# A backfill of a million rows with a writer beside it, rows that refuse to be
# changed, deadlocks, workers that die and a caller that gives up: in the end each
# row has been changed exactly once.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(conf => "deadlock_timeout = '10 ms'\nmax_wal_size = '4GB'\n");
my $s = LokyTest::Session->new($node);
my $caller = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);
my $rows = 1_000_000;

$s->query(qq{
CREATE TABLE t.fill (id int PRIMARY KEY, n int NOT NULL, w int NOT NULL);
INSERT INTO t.fill SELECT i * 2, 0, 0 FROM generate_series(1, $rows) i;
VACUUM ANALYZE t.fill;
CREATE TABLE t.go ();
CREATE SEQUENCE t.written;
CREATE TABLE t.refused (id int PRIMARY KEY);
INSERT INTO t.refused VALUES (2), (1000000), (1000002), (2000000);
CREATE FUNCTION t.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	RAISE EXCEPTION 'row % refuses', NEW.id;
END\$\$;
CREATE TRIGGER refuse BEFORE UPDATE OF n ON t.fill FOR EACH ROW
	WHEN (NEW.id IN (2, 1000000, 1000002, 2000000)) EXECUTE FUNCTION t.refuse();
-- writes all over the table, new rows included, while t.go is there; rows in
-- descending order, so that it deadlocks with the backfill now and then
CREATE PROCEDURE t.writer() LANGUAGE plpgsql AS \$\$
DECLARE
	a int;
BEGIN
	WHILE to_regclass('t.go') IS NOT NULL LOOP
		a := 1 + (random() * 990000)::int;
		BEGIN
			FOR i IN REVERSE 20 .. 1 LOOP
				UPDATE t.fill SET w = w + 1 WHERE id = 2 * (a + i);
			END LOOP;
			INSERT INTO t.fill VALUES (4 * $rows + nextval('t.written'), -1, 0);
		EXCEPTION WHEN deadlock_detected THEN NULL;
		END;
		COMMIT;
	END LOOP;
END\$\$;
});

my $writer = LokyTest::Session->new($node);
$writer->send('CALL t.writer()');
ok(poll($s, 'SELECT last_value > 10 FROM t.written'), 'others write');
$caller->executor(2);

# A row of the last chunks, to which others do not write.
$gate->query('BEGIN; SELECT FROM t.fill WHERE id = 1990000 FOR UPDATE');
$caller->send(q{
CREATE TABLE t.report AS
SELECT * FROM loky.backfill('UPDATE t.fill SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND n >= 0', 't.fill',
	chunk_rows => 5000, retries => 100, label => 'fill')});
ok(poll($s, q{SELECT done > 20 FROM loky.progress}), 'chunks are done');
$s->query(q{SELECT pg_terminate_backend(min(pid)) FROM loky.workers WHERE state = 'busy'});
my $waiting = 'FROM loky.workers WHERE ' . $gate->pid . ' = ANY (pg_blocking_pids(pid))';
ok(poll($s, "SELECT count(*) $waiting", 1), 'a worker waits for a row');
my $first = $s->query("SELECT pid $waiting");
$s->query("SELECT pg_terminate_backend($first)");
ok(poll($s, "SELECT count(*) $waiting AND pid <> $first", 1),
	'it is gone, and another one waits');
$gate->query('COMMIT');
$caller->answer;
$s->query('DROP TABLE t.go');
$writer->answer;

is($s->query(q{SELECT count(*) FROM t.report WHERE NOT ok AND (sqlstate, message) IS DISTINCT FROM ('P0001', 'row ' || (SELECT min(id) FROM t.refused WHERE id BETWEEN lo::int AND hi::int) || ' refuses')}),
	'0', 'what failed is what refuses');
is($s->query('SELECT count(*) FROM t.report WHERE NOT ok'), '4', 'in four chunks');
is($s->query("SELECT sum(rows) FROM t.report WHERE ok"), $s->query('SELECT count(*) FROM t.fill WHERE n = 1'),
	'the report tells how many rows were changed');
is($s->query('SELECT count(*) FROM t.report r WHERE NOT ok AND EXISTS (SELECT FROM t.fill WHERE id BETWEEN r.lo::int AND r.hi::int AND n > 0)'),
	'0', 'chunks that failed are untouched');
is($s->query('SELECT count(*) FROM t.fill WHERE n > 1'), '0', 'no row was changed twice');
ok($s->query('SELECT count(*) > 0 FROM t.report WHERE attempts > 1') eq 't', 'some chunks were tried again');
$s->query('DROP TRIGGER refuse ON t.fill');
is( $caller->query(q{
SELECT bool_and(ok), count(*) FROM loky.backfill('UPDATE t.fill SET n = n + 1 WHERE id BETWEEN $1 AND $2 AND n >= 0', 't.fill',
	ranges => (SELECT jsonb_agg(jsonb_build_object('lo', lo, 'hi', hi)) FROM t.report WHERE NOT ok))}),
	't|4', 'the failed ones are run again');
is($s->query("SELECT n, count(*) FROM t.fill WHERE id <= 2 * $rows GROUP BY n"), "1|$rows", 'each row was changed once');

# The caller gives up: whole chunks are done, and nothing goes on.
$s->query('CREATE TABLE t.fill_2 (id int PRIMARY KEY, n int NOT NULL); INSERT INTO t.fill_2 SELECT i, 0 FROM generate_series(1, 1000) i');
$s->query(q{
CREATE FUNCTION t.fill_chunk(a int, b int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE t.fill_2 SET n = n + 1 WHERE id BETWEEN a AND b;
	IF b >= 500 THEN
		PERFORM pg_advisory_xact_lock_shared(1);
	END IF;
END$$});
$gate->query('SELECT pg_advisory_lock(1)');
$caller->send(q{SELECT * FROM loky.backfill('t.fill_chunk', 't.fill_2', chunk_rows => 100)});
at_gate($s, 1, 2);
$s->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
is($caller->failure, '57014', 'the caller is cancelled');
is($s->query(q{SELECT count(*) FROM loky.workers WHERE state = 'busy'}), '0', 'nothing runs behind its back');
is($s->query('SELECT n, count(*), max(id) FROM t.fill_2 GROUP BY n ORDER BY n'), "0|600|1000\n1|400|400", 'whole chunks are done');
$gate->query('SELECT pg_advisory_unlock(1)');

# A change of the table that waits for a chunk goes between two of them.
$s->query('UPDATE t.fill_2 SET n = 0');
$s->query(q{
CREATE OR REPLACE FUNCTION t.fill_chunk(a int, b int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE t.fill_2 SET n = n + 1 WHERE id BETWEEN a AND b;
	PERFORM pg_advisory_xact_lock_shared(2);
END$$});
for my $ranges ('', q{, ranges => '[{"lo": 1, "hi": 500}, {"lo": 501, "hi": 1000}]'})
{
	my $column = $ranges eq '' ? 'x' : 'y';

	$gate->query('SELECT pg_advisory_lock(2)');
	$caller->executor(1);
	$caller->send("SELECT bool_and(ok), sum(attempts) = count(*) FROM loky.backfill('t.fill_chunk', 't.fill_2', chunk_rows => 100$ranges)");
	at_gate($s, 2, 1);
	$writer->send("ALTER TABLE t.fill_2 ADD COLUMN $column int");
	ok(poll($s, q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 't.fill_2'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted}),
		'a change waits for the first chunk');
	$gate->query('SELECT pg_advisory_unlock(2)');
	is($caller->answer, 't|t', 'all chunks are done');
	$writer->answer;
}
is($s->query('SELECT n, count(*) FROM t.fill_2 GROUP BY n'), '2|1000', 'each row twice, in two backfills');

check_rest($node);
$node->stop;

done_testing();
