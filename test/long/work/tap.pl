# tap.pl FILE... : runs tests and prints, for each, how they ended and what failed.
use strict;
use warnings;

for my $file (@ARGV) {
	my ($ok, $skip, $plan, @bad) = (0, 0, '?');
	open my $tap, '-|', "exec timeout -k 5 300 perl $file 2>/dev/null </dev/null" or die;
	while (<$tap>) {
		$plan = $1 if /^1\.\.(\d+)/;
		if (/^not ok\b\s*(\d*)(?!.*# *TODO)/i) { push @bad, $1 }
		elsif (/^(?:not )?ok\b.*# *skip/i) { $skip++ }
		elsif (/^(?:not )?ok\b/) { $ok++ }
	}
	close $tap;
	print "$file: $ok of $plan, $skip skipped, status $?",
	    (@bad ? ", not ok: @bad" : ''), "\n";
}
