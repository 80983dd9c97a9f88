
# LokyTest.pm - what the TAP tests of loky share.
#
# A test makes a server with loky_node, opens sessions with
# LokyTest::Session->new, and ends with check_rest, which tells whether the pool
# is at rest and usable, and whether the log is free of crashes.
#
# Nothing here sleeps in order to meet another process: a test polls for what it
# waits for, waits for a line in the log, or holds a gate (an advisory lock that
# tasks take, see t.gate).  Every wait ends after PG_TEST_TIMEOUT_DEFAULT
# seconds, 60 unless told.

package LokyTest;

use strict;
use warnings;

BEGIN
{
	$ENV{PG_TEST_TIMEOUT_DEFAULT} = 60
	  unless defined $ENV{PG_TEST_TIMEOUT_DEFAULT};
}

use Carp;
use Exporter 'import';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(loky_node loky_conf loky_fixture poll set_debug_points pid_of at_gate busy_workers
  temp_files launcher_pid
  log_end log_since check_rest check_log check_idle check_clean);

# Functions that tasks call.  Those named in LOKY-CONTRACT.md are as there; more:
#   t.gate(k, x)	waits while a session holds the advisory lock k
#   t.outcome(f)	SQLSTATE with which loky.result(f) fails, or its text
my $fixture = q{
CREATE SCHEMA t;
CREATE TABLE t.log (i int, pid int DEFAULT pg_backend_pid(),
	at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION t.id(x int) RETURNS int LANGUAGE sql AS 'SELECT x';
CREATE FUNCTION t.wpid(x int) RETURNS int LANGUAGE sql VOLATILE
	AS 'SELECT pg_backend_pid()';
CREATE FUNCTION t.touch(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO t.log (i) VALUES (x);
	RETURN x;
END$$;
CREATE FUNCTION t.gate(k int, x int DEFAULT 0) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(k);
	RETURN x;
END$$;
CREATE FUNCTION t.touch_gate(k int, x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO t.log (i) VALUES (x);
	PERFORM pg_advisory_xact_lock_shared(k);
	RETURN x;
END$$;
CREATE FUNCTION t.die() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_terminate_backend(pg_backend_pid());
	PERFORM pg_sleep(60);
	RETURN 1;
END$$;
CREATE FUNCTION t.outcome(f bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT min(r) FROM loky.result(f) r);
EXCEPTION WHEN OTHERS OR query_canceled THEN
	RETURN SQLSTATE;
END$$;
};

# What servers of tests have in their configuration.
sub loky_conf
{
	# log_statement would bring the texts of the tests into the log that is
	# searched for crashes.
	return slurp_file(dirname(__FILE__) . '/../../loky.conf')
	  . "log_statement = none\n";
}

# Make and start a server with loky, the extension and the functions above.
# Options: conf, lines to add to the configuration; name.
sub loky_node
{
	my (%opts) = @_;
	my $node = PostgreSQL::Test::Cluster->new($opts{name} // 'main');

	$node->init;
	$node->append_conf('postgresql.conf', loky_conf() . ($opts{conf} // ''));
	$node->start;
	loky_fixture($node);
	return $node;
}

sub loky_fixture
{
	my ($node, $db) = @_;

	$node->safe_psql($db // 'postgres', "CREATE EXTENSION loky; $fixture");
	return;
}

# Ask a session the same query until it answers as expected ("t" unless told).
# Returns true, or false after the time for all waits.
sub poll
{
	my ($session, $query, $expected) = @_;
	my $limit = time() + $PostgreSQL::Test::Utils::timeout_default;
	my $answer;

	$expected = 't' unless defined $expected;
	do
	{
		$answer = $session->query($query);
		return 1 if $answer eq $expected;
		usleep(20_000);
	} while (time() < $limit);
	diag("waited in vain for \"$expected\" of: $query\nlast: $answer");
	return 0;
}

# What is to happen at which debug points from now on.  The session has read it when
# this returns; the signal is on its way to all others.
sub set_debug_points
{
	my ($session, $value) = @_;

	$session->query("ALTER SYSTEM SET loky.debug_point = '$value'");
	$session->query('SELECT pg_reload_conf()');
	poll($session, 'SHOW loky.debug_point', $value)
	  or croak 'the configuration is not read again';
	return;
}

# Wait until so many workers stand at the gate k; a test cannot go on without.
sub at_gate
{
	my ($session, $k, $n) = @_;

	poll(
		$session, qq{
		SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND objid = $k AND NOT granted AND
			backend_type = 'loky worker'}, $n)
	  or croak "there are not $n workers at the gate $k";
	return;
}

# The pid of the worker that runs the future.
sub pid_of
{
	my ($session, $future) = @_;

	return $session->query(
		"SELECT worker FROM loky.tasks WHERE future = $future");
}

# How many workers run something at this moment.
sub busy_workers
{
	my ($session) = @_;

	return $session->query(
		"SELECT count(*) FROM loky.workers WHERE state IN ('busy', 'waiting')");
}

# The temporary files of the server.
sub temp_files
{
	my ($node) = @_;
	my $dir = $node->data_dir . '/base/pgsql_tmp';

	return map { -d $_ ? ($_, glob "$_/*") : $_ } glob "$dir/*";
}

# The pid of the launcher, which no view shows; undef while there is none.
sub launcher_pid
{
	my ($node) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my @lines = `ps -o pid= -o args= --ppid $postmaster`;
	my ($line) = grep { /: loky launcher/ } @lines;

	return defined $line && $line =~ /^\s*(\d+)/ ? $1 : undef;
}

# The log's present length, and what has come since.
sub log_end
{
	my ($node) = @_;

	return -s $node->logfile // 0;
}

sub log_since
{
	my ($node, $offset) = @_;

	return slurp_file($node->logfile, $offset);
}

# Nothing crashed.
sub check_log
{
	my ($node, $what) = @_;
	my @bad = grep { /\bPANIC:  |TRAP: |was terminated by signal/ }
	  split /\n/, slurp_file($node->logfile);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join("\n", @bad), '', ($what // 'the log') . ' tells of no crash');
	return;
}

# What holds after every scenario, as the session sees it: the pool comes to rest
# (no busy worker, nothing pending or running, no worker in a transaction, with a
# snapshot or a lock), and a plain map in the session's executor is right.
sub check_clean
{
	my ($session, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok( poll(
			$session, q{
		SELECT (SELECT count(*) FROM loky.workers
				WHERE state NOT IN ('idle', 'stopping')) || ' ' ||
			(SELECT coalesce(sum(pending + running), 0) FROM loky.executors) || ' ' ||
			(SELECT count(*) FROM loky.tasks
				WHERE state IN ('pending', 'running')) || ' ' ||
			(SELECT count(*) FROM pg_stat_activity
				WHERE backend_type = 'loky worker' AND
					(xact_start IS NOT NULL OR backend_xmin IS NOT NULL)) || ' ' ||
			(SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
				WHERE backend_type = 'loky worker')},
			'0 0 0 0 0'),
		"$what: the pool is at rest");
	is($session->query(q{SELECT * FROM loky.map('t.id', ARRAY[1,2,3])}),
		"1\n2\n3", "$what: the pool works");
	return;
}

# The same as a session sees it that knows nothing of the test.
sub check_idle
{
	my ($node, $what) = @_;
	my $session = LokyTest::Session->new($node);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	check_clean($session, $what // 'at the end');
	$session->quit;
	return;
}

# Both, at the end of a test.
sub check_rest
{
	my ($node) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	check_idle($node);
	check_log($node);
	return;
}

#--------------------------------------------------------------------------
# A session: one psql that is fed as the test goes on
#--------------------------------------------------------------------------

package LokyTest::Session;

use strict;
use warnings;

use Carp;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

# Connect to the node.  Options: db; user; options, as in PGOPTIONS.
sub new
{
	my ($class, $node, %opts) = @_;
	my $connstr = $node->connstr($opts{db} // 'postgres');
	my $self = bless {
		stdin => '',
		stdout => '',
		stderr => '',
		number => 0,
		sent => 0
	}, $class;

	$connstr .= " user=$opts{user}" if defined $opts{user};
	$connstr .= " options='$opts{options}'" if defined $opts{options};
	$self->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$self->{run} = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $connstr, '-f', '-'
		],
		'<', \$self->{stdin}, '>', \$self->{stdout}, '2>', \$self->{stderr},
		$self->{timer});
	$self->{pid} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

# The process of the server, and that of psql.
sub pid
{
	my ($self) = @_;
	return $self->{pid};
}

sub psql_pid
{
	my ($self) = @_;
	return $self->{run}{KIDS}[0]{PID};
}

# Send a query, and do not wait for its answer.
sub send
{
	my ($self, $sql) = @_;
	my $mark;

	croak "session is busy" if $self->{sent};
	$self->{sent} = 1;
	$mark = 'end of ' . ++$self->{number};
	$self->{sql} = $sql;
	$self->{stdin} .= "$sql\n;\n\\echo '$mark'\n\\warn '$mark'\n";
	# It still runs since the last answer, and is looked at here.
	$self->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	$self->{run}->pump_nb;
	return $self;
}

# Wait for the answer to what was sent: rows and messages.
sub receive
{
	my ($self) = @_;
	my $mark = 'end of ' . $self->{number};
	my ($out, $err);

	croak "nothing was sent" unless $self->{sent};
	$self->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	# The end of the line may come later than the rest of it.
	until ($self->{stdout} =~ /^\Q$mark\E\n/m && $self->{stderr} =~ /^\Q$mark\E\n/m)
	{
		# IPC::Run dies when the time is over, or psql has ended.
		eval { $self->{run}->pump; 1 }
		  or croak "no answer to: $self->{sql}\n$@$self->{stdout}$self->{stderr}";
	}
	$self->{sent} = 0;
	($out, $err) = ($self->{stdout}, $self->{stderr});
	$self->{stdout} = $self->{stderr} = '';
	s/\n?\Q$mark\E\n\z// for $out, $err;
	return ($out, $err);
}

# The answer to what was sent; croaks if that was an error.
sub answer
{
	my ($self) = @_;
	my $sql = $self->{sql};
	my ($out, $err) = $self->receive;

	croak "$err\nin: $sql" if $err =~ /\b(?:ERROR|FATAL|PANIC):  /;
	$self->{messages} = $err;
	return $out;
}

# The SQLSTATE with which what was sent failed; '' if it did not.
sub failure
{
	my ($self) = @_;
	my ($out, $err) = $self->receive;

	$self->{messages} = $err;
	return $err =~ /\b(?:ERROR|FATAL):  (\w{5}):/ ? $1 : '';
}

# The messages that came with the answer that was received last.
sub messages
{
	my ($self) = @_;
	return $self->{messages} // '';
}

sub query
{
	my ($self, $sql) = @_;
	return $self->send($sql)->answer;
}

sub fails
{
	my ($self, $sql) = @_;
	return $self->send($sql)->failure;
}

# Make an executor with so many workers, which rest for ever, the current one;
# more arguments as SQL has them.
sub executor
{
	my ($self, $size, $more) = @_;
	$more //= q{timeout => '-1 s'};
	return $self->query("SELECT loky.get_reusable_executor($size, $more)");
}

# Wait for all futures of the array; their states and SQLSTATEs, counted.
sub outcomes
{
	my ($self, $futures) = @_;

	$self->query("SELECT count(*) FROM loky.wait('$futures'::bigint[])");
	return $self->query(
		qq{SELECT string_agg(concat_ws(' ', n, state, sqlstate), ', ' ORDER BY state, sqlstate)
		   FROM (SELECT count(*) n, state, sqlstate FROM loky.tasks
				 WHERE future = ANY ('$futures'::bigint[]) GROUP BY 2, 3) x});
}

# The items that tasks wrote to t.log since the last call: number, distinct,
# least, greatest.
sub logged
{
	my ($self) = @_;
	my $row = $self->query(
		'SELECT count(*), count(DISTINCT i), min(i), max(i) FROM t.log');

	$self->query('TRUNCATE t.log');
	return $row;
}

# Wait until psql has ended, as it does when its connection has.
sub await_end
{
	my ($self) = @_;

	$self->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	eval { $self->{run}->finish };
	return $self->{stderr};
}

sub quit
{
	my ($self) = @_;

	$self->{stdin} .= "\\q\n";
	eval { $self->{run}->finish };
	return;
}

# End psql without a word to the server.
sub kill
{
	my ($self) = @_;

	$self->{run}->kill_kill(grace => 0);
	return;
}

1;
