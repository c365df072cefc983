use strict;
use warnings;
use Test::More;
use Math::BigInt;
use Math::BigFloat;
use Digest::SHA qw(sha1_hex sha256_hex sha512_hex);
use Digest::MD5 qw(md5_hex);
use List::Util qw(sum reduce shuffle max);
use Storable qw(freeze thaw);
use Compress::Zlib;
use MIME::Base64;
use POSIX qw(floor fmod strtol);
use Unicode::Normalize;
use threads;
use threads::shared;

my $x = 12345;

sub rnd { $x = ($x * 1103515245 + 12345) % 2147483648; return $x }

my $f = Math::BigInt->new(1);
$f *= $_ for 1 .. 400;
is(sha256_hex("$f"), sha256_hex(Math::BigInt->new(400)->bfac()), 'factorial');
diag(Math::BigFloat->bpi(150));
is(sha1_hex('abc'), 'a9993e364706816aba3e25717850c26c9cd0d89d', 'sha1');
is(md5_hex(''), 'd41d8cd98f00b204e9800998ecf8427e', 'md5');
my $data = join '', map { chr(rnd() >> 16 & 255) } 1 .. 100000;
is(uncompress(compress($data)), $data, 'zlib');
is(decode_base64(encode_base64($data)), $data, 'base64');
diag(sha512_hex($data));
my %h = map { ("key$_" => rnd()) } 1 .. 20000;
is_deeply(thaw(freeze(\%h)), \%h, 'storable');
my @s = sort { $a <=> $b } values %h;
ok(!(grep { $s[$_ - 1] > $s[$_] } 1 .. $#s), 'sorted');
diag(sha256_hex(join ',', @s));
my $text = join ' ', map { sprintf '%x', rnd() } 1 .. 20000;
my $n = () = $text =~ /([0-9])([a-f])\1?(?=[0-9])/g;
diag("matches $n");
(my $t = $text) =~ s/(\w)(\w)/$2$1/g;
diag(sha256_hex($t));
my $u = join '', map { pack 'nNCvVwd>', rnd() & 0xffff, rnd(), rnd() & 255, rnd() & 0xffff,
    rnd(), rnd(), rnd() / 7 } 1 .. 3000;
diag(sha256_hex($u));
diag(sprintf '%.15g %.15g %.15g', exp(1), atan2(1, 2), sqrt(3) ** 3.3);
diag(sha256_hex(join ' ', map { sprintf '%.17g', sin($_) * cos($_ / 3) } 1 .. 20000));
my $total : shared = 0;
my @t = map {
	my $me = $_;
	threads->create(sub { for (1 .. 2000) { lock $total; $total += $me } return $me })
} 1 .. 4;
is(sum(map { $_->join } @t), 10, 'joined');
is($total, 20000, 'counted');
is(NFC(NFD("\x{e9}\x{1e69}")), "\x{e9}\x{1e69}", 'unicode');
my $pid = open(my $pipe, '-|') // die;
if (!$pid) { print "child $_\n" for 1 .. 1000; exit 3 }
my @lines = <$pipe>;
close $pipe;
is($? >> 8, 3, 'status');
is(scalar @lines, 1000, 'lines');
sub fib { my $n = shift; $n < 2 ? $n : fib($n - 1) + fib($n - 2) }
is(fib(20), 6765, 'fib');
done_testing();
