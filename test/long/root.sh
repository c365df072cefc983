#!/bin/bash
# Makes the guest of the long tests: a Debian 12 root file system with compilers,
# interpreters and their own tests, as a folder (for the native half) and as an ext4
# image. Needs no root; everything stays in the cache until the list of packages or this
# file changes.
#
# usage: root.sh DIR
#
# In DIR: root/ (owned by the users of a namespace unless made by root), root.img.
# The image's init mounts /dev/vdb at /work and runs /work/init. Perl's own tests, which no
# package holds, come from its source and run with the installed Perl: /opt/perl/t, beside
# a lib/ of links, for they know of no other place.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: root.sh DIR" >&2; exit 64; }
packages=gcc,libc6-dev,make,python3,libpython3.11-testsuite,perl,openssl,sqlite3,libsqlite3-dev
packages+=,stress-ng,luajit,nodejs,coreutils,binutils,bc,xz-utils,bzip2,zstd,gzip,file
. "$(dirname "$0")/image.sh"
image_begin "$1" "$packages" "root file system"

cat >"$out/perl" <<'SCRIPT'
# In mmdebstrap's namespace, outside of the new root. Not every mirror of the updates has
# their sources.
set -eu
apt=$1/etc/apt/sources.list.d/source.list
sed -n 's/^deb \(.* bookworm main\)$/deb-src \1/p' "$1/etc/apt/sources.list" >"$apt"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
apt-get -qq update
mkdir -p "$1/opt/perl/lib"
cd "$1/opt/perl"
apt-get -qq source --download-only perl
tar -xf perl_*.orig.tar.xz --strip-components=1 --wildcards '*/t' '*/regen' '*/MANIFEST'
rm -f perl_* "$apt"
dirs=$(chroot "$1" perl -e 'print join " ", grep m{^/usr/(lib|share)/}, reverse @INC')
for d in $dirs; do
	[ ! -d "$1$d" ] || chroot "$1" cp -rsf "$d/." /opt/perl/lib/
done
ln -s /usr/bin/perl "$1/opt/perl/perl"
ln -s /usr/bin/perl "$1/opt/perl/t/perl"
SCRIPT

cat >"$out/init" <<'SCRIPT'
#!/bin/sh
# The tests' init: the work is on the second disk.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
[ -e /dev/null ] || mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -o ro /dev/vdb /work
hostname bhyve
exec /bin/bash /work/init </dev/ttyS0 >/dev/ttyS0 2>&1
SCRIPT
chmod 755 "$out/init"

image_make root.img "copy-in '$out/init' /sbin" \
	'mv "$1/sbin/init" "$1/sbin/work-init"; mkdir -p "$1/work"' \
	'echo "127.0.0.1 localhost" >"$1/etc/hosts"' \
	"sh '$out/perl' \"\$1\""
rm -f "$out/init" "$out/perl"
image_done
