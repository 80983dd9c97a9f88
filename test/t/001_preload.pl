
# Without shared_preload_libraries: the extension can be made, the server and the
# session live, and each function says what is missing.

use strict;
use warnings;

use FindBin;
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A call of each function of the schema.
my %calls = (
	submit => [ q{submit('SELECT 1')}, q{submit('SELECT $1', 1)} ],
	submit_all => [q{submit_all('SELECT $1', ARRAY[1])}],
	submit_task => [q{submit_task('SELECT 1')}],
	run => [q{run('SELECT 1')}],
	result => [q{result(1)}],
	exception => [q{exception(1)}],
	done => [q{done(1)}],
	running => [q{running(1)}],
	cancelled => [q{cancelled(1)}],
	state => [q{state(1)}],
	cancel => [q{cancel(1)}],
	wait => [q{wait(ARRAY[1::bigint])}],
	as_completed => [q{as_completed(ARRAY[1::bigint])}],
	forget => [q{forget(1)}],
	add_done_callback => [q{add_done_callback(1, 'SELECT $1')}],
	map => [q{map('SELECT $1', ARRAY[1])}],
	flat_map => [q{flat_map('SELECT $1', ARRAY[1])}],
	try_map => [
		q{try_map('SELECT $1', ARRAY[1])},
		q{try_map('SELECT $1', ARRAY[1], NULL::int)}
	],
	get_reusable_executor => [q{get_reusable_executor(1)}],
	shutdown => [q{shutdown()}],
	cpu_count => [q{cpu_count()}],
	getenv => [q{getenv('PATH')}],
	table_chunks => [q{table_chunks('pg_class')}],
	map_table => [q{map_table('SELECT 1', 'pg_class')}],
	key_chunks => [q{key_chunks('pg_class', 'oid')}],
	backfill => [q{backfill('SELECT 1', 'pg_class', 'oid')}],
	report_progress => [q{report_progress(1)}],
	_progress => [q{_progress()}],
	_stats => [q{_stats()}],
	stats_reset => [q{stats_reset()}],
	trace => [q{trace()}],
	timeline => [q{timeline()}],
	timeline_svg => [q{timeline_svg()}],
	_executors => [q{_executors()}],
	_memory_used => [q{_memory_used()}],
	_workers => [q{_workers()}],
	_tasks => [q{_tasks()}],);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
# The settings stay in the file, as they do when somebody takes the library out.
$node->append_conf('postgresql.conf',
	slurp_file($FindBin::Bin . '/../loky.conf')
	  . "shared_preload_libraries = ''\n");
$node->start;
my ($rc, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION loky');
is($rc, 0, 'the extension can be made');
like($err, qr/WARNING:  loky is not loaded.*HINT:  .*shared_preload_libraries/s,
	'which warns that it cannot be used yet');

my $s = LokyTest::Session->new($node);
is( $s->query(
		q{SELECT proname FROM pg_proc WHERE pronamespace = 'loky'::regnamespace
		  GROUP BY proname ORDER BY proname::text COLLATE "C"}),
	join("\n", sort keys %calls),
	'every function is tried here');
for my $name (sort keys %calls)
{
	for my $call (@{ $calls{$name} })
	{
		is($s->fails("SELECT * FROM loky.$call"), '55000', "loky.$call fails");
		like($s->messages, qr/^HINT:  .*shared_preload_libraries/m,
			"loky.$call has a hint");
	}
}
for my $view (qw(executors workers tasks progress stats))
{
	is($s->fails("SELECT * FROM loky.$view"), '55000', "loky.$view fails");
}

# Loading the library late must not end the session.
$s->query("LOAD 'loky'");
is($s->query('SHOW loky.timeout'), '10s', 'settings of a session are known');
$s->query("SET loky.timeout = '1min'");
is($s->fails('SET loky.max_workers = 0'), '22023', 'and checked');
is($s->fails("SELECT loky.submit('SELECT 1')"),
	'55000', 'functions still fail after LOAD');
$s->quit;
$node->safe_psql('postgres', 'DROP EXTENSION loky');
pass('the extension can be dropped');

# With the library all is well, from the same file.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'loky'\n");
$node->restart;
$node->safe_psql('postgres', 'CREATE EXTENSION loky');
is( $node->safe_psql(
		'postgres', q{SELECT loky.result(loky.submit('SELECT $1 + 1', 41))}),
	'42',
	'a task runs once the library is preloaded');
check_log($node);
$node->stop;

done_testing();
