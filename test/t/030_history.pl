# What has been run, where the trace is small, off or larger than what can be shown, other databases run tasks too,
# or have other encodings; and what the server log tells.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(conf => "loky.trace_size = 16\n");
my $s = LokyTest::Session->new($node);
my $gate = LokyTest::Session->new($node);

# A row for each event, and one for each lane of the picture.
sub traced
{
	my ($session, $what) = @_;

	return $session->query(
		qq{SELECT $what FROM jsonb_array_elements(loky.trace() -> 'traceEvents') e WHERE e ->> 'ph' = 'X'});
}

sub lanes
{
	my ($session) = @_;

	return $session->query('SELECT count(*) FROM loky.timeline()');
}

# A ring that was written over many times: the newest are there, each whole and once.
$s->executor(1);
$s->query(q{DO $$BEGIN FOR i IN 1 .. 1000 LOOP PERFORM loky.run('t.id', ROW(i)); END LOOP; END$$});
is(traced($s, 'count(*)'), 16, 'as many as there is room for are kept');
is(traced($s, q{count(DISTINCT e -> 'args' -> 'future')}), 16, '... each once');
is(traced($s, q{(max((e -> 'args' ->> 'future')::bigint) - min((e -> 'args' ->> 'future')::bigint))}),
	15, '... without gaps');
is(traced($s, q{bool_and(e ->> 'name' = 't.id' AND (e ->> 'dur')::bigint < 60e6)}),
	't', '... and whole');
is(lanes($s), 1, 'the timeline has a lane');
like($s->query('SELECT loky.timeline_svg()'), qr/16 tasks and items by 1 worker/, '... and so has the picture');
$s->query(q{SELECT count(*) FROM generate_series(1, 100) i, loky.map('t.id', ARRAY[i], NULL::int)});
is(traced($s, q{count(*) FILTER (WHERE e ->> 'cat' = 'map')}), 16, 'maps have as much room');

# One worker's ring is written over while another runs something long: its lane begins
# with what is kept, and the other is there in full.
$s->executor(2, q{timeout => '-1 s', reuse => 'false'});
$gate->query('SELECT pg_advisory_lock(1)');
my $long = $s->query(q{SELECT loky.submit_task('t.gate', ROW(1), label => 'long')});
at_gate($s, 1, 1);
$s->query(q{DO $$BEGIN FOR i IN 1 .. 100 LOOP PERFORM loky.run('t.id', ROW(i)); END LOOP; END$$});
my $lines = $s->query('SELECT loky.timeline()');
like($lines, qr/^ *\d+ \|[^-|]*>\|/m, 'a long task fills its lane');
like($lines, qr/^ *\d+ \|-+[^-|]+\|/m, 'dashes stand for what is not kept of the other');

# Another database's load is in other rings, and leaves ours alone.
$node->safe_psql('postgres', 'CREATE DATABASE other');
loky_fixture($node, 'other');
my $other = LokyTest::Session->new($node, db => 'other');
my $other_gate = LokyTest::Session->new($node, db => 'other');
my $before = lanes($s);
$other->executor(1);
$other->query(q{DO $$BEGIN FOR i IN 1 .. 100 LOOP PERFORM loky.run('SELECT $1 AS foreign_text', ROW(i)); END LOOP; END$$});
is(lanes($s), $before, 'the timeline is not emptied by another database');
is(traced($s, q{count(*) FILTER (WHERE e::text ~ 'foreign_text')}), 0, 'its texts are not there');
is($s->query(q{SELECT count(*) FROM loky.stats WHERE task ~ 'foreign_text'}), 0, '... nor in the statistics');
is(lanes($other), 1, 'it sees its own');
$other_gate->query('SELECT pg_advisory_lock(1)');
$other->query(q{SELECT loky.submit('SELECT t.gate(1) /* foreign_text */')});
at_gate($s, 1, 2);
is($s->query(q{SELECT w.state || ' ' || (task IS NULL) FROM loky.workers w JOIN loky.executors USING (executor_id) WHERE database = 'other'}),
	'busy true', 'a worker of another database is shown without what it runs');
is($other->query(q{SELECT task FROM loky.workers JOIN loky.executors USING (executor_id) WHERE database = 'other'}),
	'SELECT t.gate(1) /* foreign_text */', '... but in its own');
unlike($s->query('SELECT loky.timeline_svg()'), qr/foreign_text/, '... and not in the picture');

# A reset is for the database in which it is made.
my $query = q{SELECT calls || ' ' || succeeded FROM loky.stats JOIN loky.executors USING (executor_id) WHERE task ~ 'foreign_text'};
is($other->query($query), '100 100', 'the other database counts');
$s->query('SELECT loky.stats_reset()');
is($s->query('SELECT count(*) FROM loky.stats'), 0, 'a reset forgets what was here');
is($other->query($query), '100 100', '... and nothing that was there');
$other_gate->query('SELECT pg_advisory_unlock(1)');
$gate->query('SELECT pg_advisory_unlock(1)');
$s->query("SELECT loky.result($long)");

# Pictures are plain ASCII and well-formed in any encoding.
my ($unsupported) = $node->psql('postgres', q{SELECT xml_is_well_formed_document('<a/>')});
for my $case ([ 'UTF8', "E'<\\u00e4\\uFFFE\\u20ac>'", '&lt;&#228;&#65533;&#8364;&gt;' ],
	[ 'LATIN1', "'<' || chr(228) || '&>'", '&lt;&#228;&amp;&gt;' ],
	[ 'EUC_JP', "convert_from('\\xa4a2', 'EUC_JP') || '<'", '&#12354;&lt;' ],
	[ 'SQL_ASCII', "convert_from('\\xe43c', 'SQL_ASCII')", '\?&lt;' ])
{
	my ($encoding, $label, $drawn) = @$case;
	my $db = lc $encoding;

	$node->safe_psql('postgres',
		"CREATE DATABASE $db TEMPLATE template0 ENCODING $encoding LC_COLLATE 'C' LC_CTYPE 'C'");
	loky_fixture($node, $db);
	my $session = LokyTest::Session->new($node, db => $db);
	$session->executor(1);
	$session->query(qq{SELECT loky.result(loky.submit_task('SELECT 1', label => $label))});
	$session->query(qq{SELECT loky.result(loky.submit_task('SELECT 1', label => repeat('x', 62) || $label))});
	my $picture = $session->query('SELECT loky.timeline_svg()');
	like($picture, qr/>$drawn</, "$encoding: the label is drawn");
	unlike($picture, qr/[^\n\x20-\x7e]/, "$encoding: the picture is plain ASCII");
	SKIP:
	{
		skip 'the server has no libxml', 1 if $unsupported;
		is($session->query('SELECT xml_is_well_formed_document(loky.timeline_svg())'),
			't', "$encoding: the picture is well-formed");
	}
	$session->quit;
}

# The log has one line for each, which says whose the task was, and none is sent to
# the caller, whatever he asks for.
$node->safe_psql('postgres', 'CREATE ROLE looker LOGIN; GRANT USAGE ON SCHEMA loky, t TO looker');
$node->safe_psql('postgres', q{ALTER ROLE looker SET loky.log_min_duration = 0});
my $looker = LokyTest::Session->new($node, user => 'looker', options => '-c client_min_messages=debug1');
my $executor = $looker->executor(1);
my $log = log_end($node);
$looker->query(q{SELECT loky.run('SELECT 4241')});
unlike($looker->messages, qr/ran for/, 'a task is not told to the caller');
$looker->query(q{SELECT loky.result(loky.submit_task('SELECT 4242', label => 'of looker'))});
$looker->query(q{SELECT count(*) FROM loky.map('t.wpid', ARRAY[1, 2, 3], chunksize => 1)});
unlike($looker->messages, qr/ran for/, 'nor are items');
$looker->query(q{SELECT count(*) FROM loky.map('t.wpid', ARRAY[1, 2, 3], chunksize => 3, label => 'chunk')});
my $lines_since = log_since($node, $log);
my @lines = $lines_since =~ /LOG:  (.*ran for.*)/g;
is(scalar @lines, 6, 'a line each') or diag($lines_since);
like($lines[5], qr/^items 1 to 3 of a loky map ran for [\d.]+ ms: t\.wpid$/, 'a chunk has one');
like($lines_since, qr/4241\n.*DETAIL:  Executor $executor, role "looker", database "postgres"\.\n/,
	'whose the task was');
like($lines_since, qr/4242\n.*DETAIL:  Executor $executor, role "looker", database "postgres", label "of looker"\.\n/,
	'... and its label');
my @more = $lines_since =~ /ran for.*\n.*DETAIL.*\n.*((?:STATEMENT|CONTEXT).*)/g;
is("@more", '', 'neither statement nor context');

# An item that is cancelled has its line, those behind it in its range were never run.
$gate->query('SELECT pg_advisory_lock(1)');
$log = log_end($node);
$looker->query('BEGIN');
$looker->query(q{DECLARE c CURSOR FOR SELECT loky.map('SELECT CASE WHEN $1 < 40 THEN $1 ELSE t.gate(1) END', ARRAY(SELECT generate_series(1, 100)), NULL::int)});
$looker->query('MOVE 20 IN c');
at_gate($s, 1, 1);
$looker->query('COMMIT');
$gate->query('SELECT pg_advisory_unlock(1)');
my $behind = () = log_since($node, $log) =~ /items? (?:\d+ to )?(?:4[1-9]|[5-9]\d|100) of a loky map/g;
is($behind, 0, 'items that were not run have no line');
like(log_since($node, $log), qr/item 40 of a loky map/, '... the cancelled one has');

# Without a trace.
$_->quit for ($s, $gate, $other, $other_gate, $looker);
$node->append_conf('postgresql.conf', "loky.trace_size = 0\n");
$node->restart;
$s = LokyTest::Session->new($node);
$s->executor(1);
$s->query(q{SELECT loky.run('SELECT 1')});
$s->query(q{SELECT count(*) FROM loky.map('t.id', ARRAY[1, 2])});
is(traced($s, 'count(*)'), 0, 'no trace is kept');
is(lanes($s), 0, 'the timeline is empty');
like($s->query('SELECT loky.timeline_svg()'), qr/nothing has been run/, '... and the picture says so');
is($s->query(q{SELECT calls FROM loky.stats WHERE task = 't.id'}), 2, 'statistics are');

# More than can be shown: the youngest are.
my $most = 262144;
$s->quit;
$node->append_conf('postgresql.conf',
	"loky.trace_size = 65536\nloky.max_tasks = 65536\nloky.shared_memory = '256MB'\n");
$node->restart;
$s = LokyTest::Session->new($node);
$s->executor(8);
my ($first, $last);
my $shown = 0;
for my $round (1 .. 30)
{
	($first, $last) = split /\|/, $s->query(
		q{SELECT min(f), max(f) FROM (SELECT future AS f, loky.forget(future) FROM loky.wait(
			loky.submit_all('SELECT $1 -- a text that is longer than the trace keeps of it, and more than that',
				ARRAY(SELECT generate_series(1, 50000)))) OFFSET 0) x});
	next if $round < 7;
	$shown = traced($s, 'count(*)');
	last if $shown >= $most;
}
is($shown, $most, 'as many are shown as can be');
is(traced($s, "count(DISTINCT e -> 'args' -> 'future') FILTER (WHERE (e -> 'args' ->> 'future')::bigint BETWEEN $first AND $last)"),
	50000, '... all of the last ones among them');
is($s->query('SELECT count(*) > 0 FROM loky.timeline()'), 't', 'there is a timeline');
like($s->query('SELECT loky.timeline_svg()'), qr/<\/svg>\s*$/, '... and a picture');

$s->quit;
check_rest($node);
$node->stop;

done_testing();
