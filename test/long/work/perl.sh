# Perl: core modules under Test::More, big numbers, regular expressions, sorting, packing.
perl /work/perl.pl
for m in Math::BigInt Math::BigFloat Math::Trig Digest::SHA Digest::MD5 Storable Encode \
	POSIX Time::HiRes List::Util threads Compress::Zlib MIME::Base64 Unicode::Normalize; do
	perl -M$m -e "print \"$m \$$m::VERSION\n\""
done
