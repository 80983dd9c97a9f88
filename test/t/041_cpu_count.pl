
# The number of processors that the server may use, by what the system's files tell:
# quotas of control groups, both hierarchies, and the cores of processors.

use strict;
use warnings;

use File::Basename;
use File::Path qw(make_path);
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = loky_node();
my $s = LokyTest::Session->new($node);
my $has_points =
  $s->query(q{SELECT current_setting('loky.debug_point', true) IS NOT NULL}) eq 't';
my $cgroup = '/sys/fs/cgroup';

# What is counted where these files are all that the system has.
sub count_with
{
	my ($files, $arguments) = @_;
	my $root = PostgreSQL::Test::Utils::tempdir;

	for my $path (keys %$files)
	{
		make_path($root . dirname($path));
		append_to_file("$root$path", $files->{$path});
	}
	$s->query("SET loky.debug_point = 'root $root'");
	return $s->query('SELECT loky.cpu_count(' . ($arguments // '') . ')');
}

SKIP:
{
	skip 'the library was built without debug points', 1 unless $has_points;

	# Those of the machine, less those that the affinity mask leaves out.
	my $all = count_with({});

	skip 'there is one processor, the least number', 1 if $all < 2;

	for my $case (
		# what, expected, the process's groups, files of these
		[ 'no quota', $all, "0::/a/b\n", { 'a/b/cpu.max' => "max 100000\n" } ],
		[ 'a quota', 1, "0::/a/b\n", { 'a/b/cpu.max' => "100000 100000\n" } ],
		[ 'a quota is rounded up', 2, "0::/a\n", { 'a/cpu.max' => "100001 100000\n" } ],
		[ 'a quota of less than one', 1, "0::/a\n", { 'a/cpu.max' => "5000 100000\n" } ],
		[ 'a quota of more than there are', $all, "0::/a\n",
			{ 'a/cpu.max' => "99900000 100000\n" } ],
		[ 'a quota of the group above', 1, "0::/a/b\n",
			{ 'a/cpu.max' => "100000 100000\n", 'a/b/cpu.max' => "200000 100000\n" } ],
		[ 'a quota of the topmost group', 1, "0::/a/b\n",
			{ 'cpu.max' => "100000 100000\n" } ],
		[ 'the topmost group itself', 1, "0::/\n", { 'cpu.max' => "100000 100000\n" } ],
		[ 'a group that is not to be seen', 1, "0::/../../c\n",
			{ 'cpu.max' => "70000 100000\n" } ],
		[ 'a file of other content', $all, "0::/a\n", { 'a/cpu.max' => "1\n" } ],
		[ 'an empty file', $all, "0::/a\n", { 'a/cpu.max' => '' } ],
		[ 'no group', $all, "nothing\n0:\n", { 'cpu.max' => "100000 100000\n" } ],
		[ 'the older hierarchy', 1, "3:memory:/m\n2:cpu:/a\n",
			{ 'cpu/a/cpu.cfs_quota_us' => "100000\n",
				'cpu/a/cpu.cfs_period_us' => "100000\n" } ],
		[ 'with a period of its own', 2, "2:cpu,cpuacct:/a\n",
			{ 'cpu/a/cpu.cfs_quota_us' => "75000\n",
				'cpu/a/cpu.cfs_period_us' => "50000\n" } ],
		[ 'in another order', 1, "2:cpuacct,cpu:/a\n",
			{ 'cpu/a/cpu.cfs_quota_us' => "100000\n",
				'cpu/a/cpu.cfs_period_us' => "100000\n" } ],
		[ 'among others', 1, "2:cpuset,cpu,cpuacct:/a\n",
			{ 'cpu/cpu.cfs_quota_us' => "100000\n",
				'cpu/cpu.cfs_period_us' => "100000\n" } ],
		[ 'not that of others', $all, "2:cpuset:/a\n1:cpuacct:/a\n",
			{ 'cpu/a/cpu.cfs_quota_us' => "100000\n",
				'cpu/a/cpu.cfs_period_us' => "100000\n" } ],
		[ 'without a quota', $all, "2:cpu:/a\n",
			{ 'cpu/a/cpu.cfs_quota_us' => "-1\n",
				'cpu/a/cpu.cfs_period_us' => "100000\n" } ],
		[ 'without a period', $all, "2:cpu:/a\n",
			{ 'cpu/a/cpu.cfs_quota_us' => "100000\n" } ],
		[ 'both hierarchies', 1, "2:cpu:/a\n0::/b\n",
			{ 'cpu/a/cpu.cfs_quota_us' => "100000\n",
				'cpu/a/cpu.cfs_period_us' => "100000\n",
				'b/cpu.max' => "200000 100000\n" } ])
	{
		my ($what, $expected, $groups, $files) = @$case;
		my %paths = map { ("$cgroup/$_" => $files->{$_}) } keys %$files;

		is(count_with({ '/proc/self/cgroup' => $groups, %paths }), $expected, $what);
	}

	# Two processors to a core, in one package; then each in a package of its own.
  SKIP:
	{
		my $cpu = '/sys/devices/system/cpu/cpu';
		my $online = `getconf _NPROCESSORS_ONLN` + 0;
		my (%pairs, %packages);

		skip 'not all processors may be used', 4 if $all != $online;
		for my $i (0 .. $online - 1)
		{
			$pairs{"$cpu$i/topology/core_id"} = int($i / 2) . "\n";
			$pairs{"$cpu$i/topology/physical_package_id"} = "0\n";
			$packages{"$cpu$i/topology/core_id"} = "0\n";
			$packages{"$cpu$i/topology/physical_package_id"} = "$i\n";
		}
		is(count_with(\%pairs, 'true'), int(($online + 1) / 2), 'cores');
		is(count_with(\%packages, 'true'), $online, 'cores of as many packages');
		delete $pairs{"${cpu}0/topology/physical_package_id"};
		is(count_with(\%pairs, 'true'), $online, 'processors where no package is told');
		is(count_with({}, 'true'), $online, 'nor a core');
	}
}

# What the server is started with.
$s->quit;
for my $limit ('1', '0')
{
	local $ENV{LOKY_MAX_CPU_COUNT} = $limit;

	$node->restart;
	is($node->safe_psql('postgres', 'SELECT loky.cpu_count()'),
		1, "LOKY_MAX_CPU_COUNT=$limit");
}

check_rest($node);
$node->stop;

done_testing();
