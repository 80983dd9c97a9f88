
# A pool on a physical replica: reading maps and tasks run there, writing ones
# fail, and after its promotion it writes.

use strict;
use warnings;

use File::Basename;
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf',
	slurp_file(dirname(__FILE__) . '/../loky.conf') . "log_statement = none\n");
$primary->start;
loky_fixture($primary);
my $p = LokyTest::Session->new($primary);
$p->query('CREATE TABLE t.big AS SELECT i AS id FROM generate_series(1, 50000) i; ALTER TABLE t.big ADD PRIMARY KEY (id)');

$p->quit;
$primary->stop;
$primary->backup_fs_cold('b');
$primary->start;
$p = LokyTest::Session->new($primary);
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'b', has_streaming => 1);
$standby->append_conf('postgresql.conf', "max_standby_streaming_delay = -1\n");
$standby->start;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

my $s = LokyTest::Session->new($standby);
my $watch = LokyTest::Session->new($standby);
is($s->query('SELECT pg_is_in_recovery()'), 't', 'this is a replica');
$s->executor(2);
is($s->query(q{SELECT count(*), sum(r) FROM loky.map('t.id', ARRAY(SELECT generate_series(1, 1000)), NULL::int) r}), '1000|500500', 'map');
is($s->query(q{SELECT sum(r) FROM loky.map_table('SELECT count(*) FROM t.big WHERE ctid >= $1 AND ctid < $2', 't.big', NULL::bigint) r}), '50000', 'map_table, in one snapshot');
is($s->query(q{SELECT count(*), sum(rows) FROM loky.key_chunks('t.big')}), '5|50000', 'key_chunks');
is($s->query(q{SELECT count(*) FROM loky.map('SELECT pg_backend_pid() + $1', ARRAY[0, 0, 0], NULL::int) r JOIN pg_stat_activity ON pid = r WHERE backend_type = 'loky worker'}), '3', 'in workers');
my $f = $s->query(q{SELECT loky.submit('SELECT pg_is_in_recovery()')});
is($s->query("SELECT * FROM loky.result($f)"), 'true', 'submit');
is($s->query(q{SELECT * FROM loky.run('SELECT count(*) FROM t.big')}), '50000', 'run');

# The caller's snapshot holds while the primary goes on.
$s->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($s->query('SELECT count(*) FROM t.big'), '50000', 'a snapshot is taken');
$p->query('INSERT INTO t.big SELECT generate_series(50001, 60000)');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is($watch->query('SELECT count(*) FROM t.big'), '60000', 'the replica has gone on');
is($s->query(q{SELECT sum(r) FROM loky.map_table('SELECT count(*) FROM t.big WHERE ctid >= $1 AND ctid < $2', 't.big', NULL::bigint) r}), '50000', 'the snapshot has not');
is($s->query(q{SELECT sum(r) FROM loky.map_table('SELECT count(*) FROM t.big WHERE ctid >= $1 AND ctid < $2', 't.big', NULL::bigint, snapshot => false) r}), '60000', 'what goes without it has');
$s->query('COMMIT');

# Writing is refused, item by item.
is($s->query(q{SELECT count(*) FILTER (WHERE NOT ok), min(sqlstate) FROM loky.try_map('t.touch', ARRAY[1, 2, 3], NULL::int)}), '3|25006', 'items that write fail');
is($s->fails(q{SELECT * FROM loky.run('INSERT INTO t.log (i) VALUES (1)')}), '25006', 'tasks that write fail');
is($s->query(q{SELECT bool_or(ok), min(sqlstate) FROM loky.backfill('DELETE FROM t.big WHERE id BETWEEN $1 AND $2', 't.big')}), 'f|25006', 'so does a backfill');

# A replay that conflicts with a worker cancels it, and the pool goes on.
$standby->append_conf('postgresql.conf', "max_standby_streaming_delay = '50ms'\n");
$standby->reload;
my $gate = LokyTest::Session->new($standby);
$gate->query('SELECT pg_advisory_lock(1)');
$s->send(q{SELECT ok, sqlstate FROM loky.try_map('SELECT t.gate(1, id) FROM t.big WHERE id = $1', ARRAY[1], NULL::int)});
at_gate($watch, 1, 1);
$p->query('DROP TABLE t.big');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is($s->answer, 'f|40001', 'the item fails as a session would');
$gate->query('SELECT pg_advisory_unlock(1)');

# After a promotion the same pool writes: workers of the time before too.
my $n = LokyTest::Session->new($standby);
$n->executor(2);
is($n->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2, 3], NULL::int)}), '3', 'the pool goes on');
$standby->promote;
is($n->query(q{SELECT count(*) FILTER (WHERE ok) FROM loky.try_map('t.touch', ARRAY[1, 2, 3], NULL::int)}), '3', 'items write');
is($n->query('SELECT count(*) FROM t.log'), '3', 'each once');

check_rest($standby);
$primary->stop;
$standby->stop;

done_testing();
