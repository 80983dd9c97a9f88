
# What the documents show is what happens: each block of SQL in doc/*.md is run as
# it stands, one session for each document, and must print the block of text that
# follows it.

use strict;
use warnings;

use FindBin;
use LokyTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The blocks of a document: pairs of SQL and the text that follows, if any does.
sub blocks
{
	my ($text) = @_;
	my @blocks;

	while ($text =~ /^```(\w+)\n(.*?)^```$/msg)
	{
		my ($kind, $content) = ($1, $2);

		push @blocks, [ $content, undef ] if $kind eq 'sql';
		$blocks[-1][1] = $content
		  if $kind eq 'text' && @blocks && !defined $blocks[-1][1];
	}
	return @blocks;
}

# Lines without the blanks at their ends, and without empty ones around them.
sub trimmed
{
	my ($text) = @_;

	$text =~ s/[ \t]+$//mg;
	$text =~ s/\A\n+|\n+\z//g;
	return $text;
}

my $node = loky_node();
my $dir = PostgreSQL::Test::Utils::tempdir;
my @documents = sort glob("$FindBin::Bin/../../doc/*.md");

cmp_ok(scalar @documents, '>', 0, 'there are documents');
for my $document (@documents)
{
	my ($name) = $document =~ m{([^/]+)\.md$};
	my @blocks = blocks(slurp_file($document));
	my $mark = 'end of block';
	my ($stdout, $stderr) = ('', '');

	$node->safe_psql('postgres', "CREATE DATABASE \"$name\"");
	$node->safe_psql($name, 'CREATE EXTENSION loky');
	append_to_file("$dir/$name.sql", join('', map { "$_->[0]\n\\echo '$mark'\n" } @blocks));
	my $status = IPC::Run::run(
		[
			'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/$name.sql",
			'-d', $node->connstr($name)
		],
		'>', \$stdout, '2>', \$stderr,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	is($stderr, '', "$name: no error and no notice");
	ok($status, "$name runs to its end");

	my @printed = split /^\Q$mark\E\n/m, $stdout;

	for my $i (0 .. $#blocks)
	{
		next unless defined $blocks[$i][1];
		is(trimmed($printed[$i] // ''),
			trimmed($blocks[$i][1]), "$name: block " . ($i + 1));
	}
}

check_rest($node);
$node->stop;

done_testing();
