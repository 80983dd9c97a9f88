
# The load of test/load for a bounded number of steps: fifty sessions, more
# configurations than there are places for executors, small tasks and large ones, while
# workers and the launcher are terminated.  "make load" runs it for minutes and looks
# at the memory of the processes as well.

use strict;
use warnings;

use File::Basename;
use IPC::Run;
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $steps = $ENV{LOKY_LOAD_STEPS} // 6;
my $dir = dirname(__FILE__) . '/../load';
my $node = loky_node(
	conf => "max_connections = 80\nloky.shared_memory = '32MB'\n"
	  . "loky.max_tasks = 1024\nloky.max_total_workers = 10\n");
my $connstr = $node->connstr('postgres');
my ($out, $err) = ('', '');

command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $connstr, '-f', "$dir/schema.sql"
	],
	'the schema');
my @scripts = map { /^(\w+)\s+(\d+)/ ? ('-f', "$dir/$1.sql\@$2") : () }
  split /\n/, slurp_file("$dir/load.list");
my $load = IPC::Run::start(
	[
		'timeout', 50 + $steps, 'pgbench', '-n', '-c', '50', '-j', '2', '-t', $steps,
		'--random-seed', '39', '-D', 'configurations=1000', '-d', $connstr, @scripts
	],
	'>', \$out, '2>', \$err);
my $rounds = 0;
while ($load->pumpable)
{
	$load->pump_nb;
	if ($rounds++ % 50 == 49)
	{
		my $pid = launcher_pid($node);

		kill 'TERM', $pid if defined $pid;
	}
	usleep(20_000);
}
$load->finish;
is($load->result(0), 0, 'all sessions come to their end') or diag($err);

my @checks = split /\n/, `psql -X -d "$connstr" -f $dir/check.sql 2>&1`;
cmp_ok(scalar @checks, '>', 10, 'there is something to check');
for my $check (@checks)
{
	my ($what, $found, $expected) = split /\|/, $check;

	is($found, $expected, $what);
}
my $s = LokyTest::Session->new($node);
note($s->query('SELECT kind, count(*) FROM load.told GROUP BY 1 ORDER BY 1'));
cmp_ok($s->query('SELECT count(*) FROM load.told WHERE told'), '>', 500,
	'much has succeeded');
cmp_ok($s->query('SELECT count(DISTINCT kind) FROM load.told'), '>', 8, 'of all kinds');
$s->quit;
is(join(' ', temp_files($node)), '', 'no temporary file is left');
check_rest($node);
$node->stop;

done_testing();
