
# What the documents show is what happens.  Each block of SQL in doc/*.md is run
# as it stands, all blocks of a document in one psql from top to bottom; what it
# prints must be the block of text that comes next, if one comes before the next
# SQL.  Of README.md, which leans on tables of a reader's own, only blocks with
# such an output are run.
#
# A statement must not fail unless the output shows its ERROR.  Numbers of tasks,
# futures, executors and processes in messages are no difference, nor are blanks
# at the ends of lines.

use strict;
use warnings;

use FindBin;
use IPC::Run;
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::Bin/../..";

# The fenced blocks of a document: kind, line of the fence, text.
sub read_blocks
{
	my ($file) = @_;
	my ($block, @blocks);
	my $number = 0;

	for my $line (split /\n/, slurp_file($file))
	{
		$number++;
		if (!defined $block)
		{
			next unless $line =~ /^(`{3,})(\w*)\s*$/;
			$block = { fence => $1, kind => $2, line => $number, text => '' };
		}
		elsif ($line =~ /^\Q$block->{fence}\E\s*$/)
		{
			push @blocks, $block;
			$block = undef;
		}
		else
		{
			$block->{text} .= "$line\n";
		}
	}
	die "$file: the block at line $block->{line} has no end\n" if defined $block;
	return @blocks;
}

# The SQL blocks, each with the output that is shown for it, if one is.
sub read_examples
{
	my ($file) = @_;
	my @examples;

	for my $block (read_blocks($file))
	{
		if ($block->{kind} eq 'sql')
		{
			push @examples, $block;
		}
		elsif ($block->{kind} eq 'text' && @examples)
		{
			$examples[-1]{output} //= $block->{text};
		}
	}
	return @examples;
}

# An output without what may differ from run to run.
sub normalize
{
	my ($text) = @_;
	my @arrived;

	$text =~ s/[ \t]+$//mg;

	# a notification shows up after whichever statement it has arrived by
	push @arrived, $1
	  while $text =~ s/^(Asynchronous notification [^\n]*\n)//m;
	$text .= join('', map { "\n$_" } @arrived);
	$text =~ s/\n{2,}/\n/g;
	$text =~ s/\A\n+//;
	$text =~ s/\n+\z/\n/;
	$text =~ s/\b(task|future|executor|PID|process) \d+/$1 N/gi;
	return $text;
}

# Run the examples in a psql; returns the outputs of those that ran to their end,
# and what came after them.
sub run_examples
{
	my ($node, $db, @examples) = @_;
	my $script = '';
	my ($output, @outputs);

	for my $i (0 .. $#examples)
	{
		my $stop = ($examples[$i]{output} // '') =~ /^ERROR:  /m ? 'off' : 'on';

		$script .= "\\set ON_ERROR_STOP $stop\n$examples[$i]{text}\n"
		  . "\\echo 'end of example $i'\n";
	}
	IPC::Run::run(
		[ 'psql', '-Xq', '-d', $node->connstr($db) ],
		'<', \$script, '>', \$output, '2>&1',
		IPC::Run::timeout(3 * $PostgreSQL::Test::Utils::timeout_default));
	for my $i (0 .. $#examples)
	{
		last unless $output =~ s/\A(.*?)^end of example $i\n//ms;
		push @outputs, $1;
	}
	return (\@outputs, $output);
}

# The examples of one document.
sub check_document
{
	my ($node, $file, $only_shown) = @_;
	my ($name) = $file =~ m{([^/]+)\z};
	my $db = lc($name =~ s/\W+/_/gr);
	my @examples = grep { defined $_->{output} || !$only_shown }
	  read_examples($file);

	ok(@examples > 0, "$name has examples");
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION loky');
	my ($outputs, $rest) = run_examples($node, $db, @examples);
	for my $i (0 .. $#examples)
	{
		my ($example, $output) = ($examples[$i], $outputs->[$i]);
		my $what = "$name, line $example->{line}";

		if (!defined $output)
		{
			fail("$what runs to its end");
			diag($rest);
			last;
		}
		if (defined $example->{output})
		{
			is(normalize($output), normalize($example->{output}), $what);
		}
		else
		{
			unlike($output, qr/^(?:ERROR|FATAL|WARNING):  /m, "$what runs");
		}
	}
	return;
}

my $node = loky_node();

check_document($node, $_) for sort glob "$top/doc/*.md";
check_document($node, "$top/README.md", 1);
check_rest($node);
$node->stop;

done_testing();
