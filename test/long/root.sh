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
mkdir -p "$1"
out=$(cd "$1" && pwd)
suite=bookworm
packages=gcc,libc6-dev,make,python3,libpython3.11-testsuite,perl,openssl,sqlite3,libsqlite3-dev
packages+=,stress-ng,luajit,nodejs,coreutils,binutils,bc,xz-utils,bzip2,zstd,gzip,file
recipe="$suite $packages $(cksum <"$0")"
if [ -e "$out/.made-from" ] && [ "$(cat "$out/.made-from")" = "$recipe" ]; then
	exit 0
fi
rm -f "$out/.made-from"

mode=unshare
inside=(mmdebstrap --unshare-helper)
if [ "$(id -u)" -eq 0 ]; then
	mode=root
	inside=()
fi
PATH=$PATH:/usr/sbin:/sbin

printf 'long tests: making a Debian root file system in %s\n' "$out" >&2
# Owned by the namespace's users, so only they can remove it.
[ ! -e "$out/root" ] || "${inside[@]}" rm -rf "$out/root"
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

mkdir -p "$out/root"
[ "$mode" = root ] || chmod 777 "$out" "$out/root"

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

mmdebstrap --quiet --mode=$mode --variant=minbase --include="$packages" \
	--aptopt='Apt::Install-Recommends "false"' \
	--dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=path-exclude=/usr/share/doc/* \
	--dpkgopt=path-exclude=/usr/share/locale/* \
	--customize-hook="copy-in '$out/init' /sbin" \
	--customize-hook='mv "$1/sbin/init" "$1/sbin/work-init"; mkdir -p "$1/work"' \
	--customize-hook='echo "127.0.0.1 localhost" >"$1/etc/hosts"' \
	--customize-hook="sh '$out/perl' \"\$1\"" \
	$suite "$out/root"
rm -f "$out/init" "$out/perl" "$out/root.img"
truncate -s 2G "$out/root.img"
[ "$mode" = root ] || chmod 666 "$out/root.img"
"${inside[@]}" mke2fs -q -F -t ext4 -O ^has_journal -d "$out/root" "$out/root.img"
printf '%s\n' "$recipe" >"$out/.made-from"
