
# Modules that watch the executor see all that tasks and maps run, also what would be
# evaluated without it.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node(
	conf => "shared_preload_libraries = 'pg_stat_statements,auto_explain,loky'\n"
	  . "auto_explain.log_min_duration = 0\n");
my $s = LokyTest::Session->new($node);

$s->executor(1);
$s->query('CREATE EXTENSION pg_stat_statements');
$s->query('SELECT pg_stat_statements_reset()');

is( $s->query(q{SELECT sum(r) FROM loky.map('SELECT $1 + 4242', ARRAY[1, 2, 3], NULL::int) r}),
	12732, 'a map of an expression');
is($s->query(q{SELECT loky.result(loky.submit('SELECT 4243 AS from_a_task'))}),
	4243, 'a task that is an expression');
is( $s->query(
		q{SELECT string_agg(query || ': ' || calls, ', ' ORDER BY query) FROM pg_stat_statements
		  WHERE query IN ('SELECT $1 + $2', 'SELECT $1 AS from_a_task')}),
	'SELECT $1 + $2: 3, SELECT $1 AS from_a_task: 1',
	'pg_stat_statements counts each item, and the task');

my $log = slurp_file($node->logfile);
my $items = () = $log =~ /Query Text: SELECT \$1 \+ 4242$/mg;
is($items, 3, 'auto_explain shows each item');
like($log, qr/Query Text: SELECT 4243 AS from_a_task$/m, '... and the task');

done_testing();
