
# What the recipes say of neighbours, with the real ones: a job of pg_cron that
# submits, a transaction pooler between a client and its futures, PL/Python with an
# environment of its own.  What is not installed is left out.

use strict;
use warnings;

use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $libdir = qx{"$ENV{PG_CONFIG}" --pkglibdir};
my $sharedir = qx{"$ENV{PG_CONFIG}" --sharedir};
chomp($libdir, $sharedir);
my $cron = -e "$libdir/pg_cron.so" && -e "$sharedir/extension/pg_cron.control";
my $node = loky_node(
	$cron
	? (conf => "shared_preload_libraries = 'loky, pg_cron'\n"
		  . "cron.use_background_workers = on\ncron.database_name = 'postgres'\n")
	: ());
my $s = LokyTest::Session->new($node);

# A job of pg_cron runs once a minute at most: it is asked for first, and looked at
# last.
$s->query(q{
CREATE EXTENSION pg_cron;
SELECT cron.schedule('often', '* * * * *', $$
	SELECT loky.submit_task('SELECT t.touch(99)', discard => true, label => 'nightly')$$)}) if $cron;

SKIP:
{
	skip 'no pgbouncer', 8 unless $ENV{PGBOUNCER};

	# One connection to the server for all clients, each for a transaction.
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $file = "$dir/pgbouncer.ini";
	my $port = $node->port;
	append_to_file($file, <<"INI");
[databases]
* = host=@{[ $node->host ]} port=$port
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = $dir
auth_type = any
pool_mode = transaction
default_pool_size = 1
ignore_startup_parameters = options,extra_float_digits
logfile = $dir/log
INI
	my $user = $s->query('SELECT current_user');
	my $log = '';
	$s->query("ALTER ROLE $user SET application_name = 'app'");
	append_to_file($file, "\n");
	# "any" lets everybody in as the user that the database names
	my $text = slurp_file($file);
	$text =~ s/^(\* = .*)$/$1 user=$user/m;
	unlink $file;
	append_to_file($file, $text);
	my $pooler = IPC::Run::start([ $ENV{PGBOUNCER}, $file ], '<', \undef, '>&', \$log);
	my $pooled = "host=$dir port=6432 dbname=postgres user=$user";
	my $one = sub {
		my ($sql) = @_;
		my ($out, $err);

		IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $pooled, '-c', $sql ],
			'>', \$out, '2>', \$err) or return "failed: $err";
		chomp $out;
		return $out;
	};
	my $limit = time() + $PostgreSQL::Test::Utils::timeout_default;
	my $ready;
	until (($ready = $one->('SELECT 1')) eq '1' || time() > $limit)
	{
		$pooler->pump_nb;
		Time::HiRes::usleep(20_000);
	}
	is($ready, '1', 'the pooler is there');

	my $first = $one->(q{SELECT loky.submit_task('SELECT t.touch(1)', on_commit => true)});
	like($first, qr/^\d+$/, 'one client submits');
	is($one->("SELECT * FROM loky.result($first, NULL::int, timeout => '30 s')"), '1', 'another has the result');
	is($one->("SELECT loky.forget($first)"), 't', 'and forgets it');

	# Two clients share a server's connection, and do not meet each other's executor.
	my $id = $one->("BEGIN; SELECT set_config('loky.executor', loky.get_reusable_executor(1, settings => '{\"my.x\": \"a\"}')::text, true); SELECT r FROM loky.run('SELECT current_setting(''my.x'')') r; COMMIT");
	like($id, qr/^\d+\na$/, 'an executor for one transaction');
	$id =~ s/\n.*//;
	$one->('RESET loky.executor');
	is($one->(q{SELECT r FROM loky.run('SELECT coalesce(current_setting(''my.x'', true), ''none'')') r}), 'none', 'does not stay for the next client');
	my $named = $one->("SELECT loky.submit_task('SELECT current_setting(''my.x'')', executor => $id)");
	is($one->("SELECT * FROM loky.result($named, timeout => '30 s')"), 'a', 'and is there by its number');
	$pooler->kill_kill(grace => 10);
	is($s->query('SELECT count(*) FROM t.log WHERE i = 1'), '1', 'the task ran once');
}

SKIP:
{
	skip 'no PL/Python', 3 unless $s->query(q{SELECT count(*) FROM pg_available_extensions WHERE name = 'plpython3u'});

	$s->query(q{
CREATE EXTENSION plpython3u;
CREATE FUNCTION t.env(name text) RETURNS text LANGUAGE plpython3u AS $$
import os
return os.environ.get(name)
$$;
CREATE FUNCTION t.count() RETURNS int LANGUAGE plpython3u AS $$
GD['n'] = GD.get('n', 0) + 1
return GD['n']
$$});
	$s->executor(1, q{timeout => '-1 s', env => '{"OMP_NUM_THREADS": "1", "REGION": "eu"}'});
	is($s->query(q{SELECT string_agg(r, ',') FROM loky.map('t.env', '{OMP_NUM_THREADS,REGION,NONE}'::text[]) r}), '1,eu', 'Python has the environment');
	is($s->query(q{SELECT string_agg(r::text, ',') FROM loky.map('SELECT t.count() + 0 * $1', ARRAY[0, 0, 0], NULL::int) r}), '1,2,3', 'and keeps its state in a worker');
	is($s->fails(q{SELECT * FROM loky.run('DO LANGUAGE plpython3u ''plpy.error("no", sqlstate="XY001")''')}), 'XY001', 'its errors come whole');
}

SKIP:
{
	skip 'no pg_cron', 2 unless $cron;

	# On the minute: longer than all else may take.
	my $limit = time() + 90;
	Time::HiRes::usleep(200_000) until $s->query('SELECT count(*) > 0 FROM t.log WHERE i = 99') eq 't' || time() > $limit;
	is($s->query(q{SELECT cron.unschedule('often')}), 't', 'no more jobs');
	is($s->query('SELECT count(*) FROM t.log WHERE i = 99'), '1', 'the job submitted a task, which ran');
}

check_rest($node);
$node->stop;

done_testing();
