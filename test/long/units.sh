#!/bin/bash
# Makes the host of the units' test: a Debian 12 with systemd as an ext4 image, with the
# libraries and the GRUB that our programs use; the test adds the programs. A shell is on
# ttyS0. Needs no root; everything stays in the cache until the list of packages or this
# file changes.
#
# usage: units.sh DIR
#
# In DIR: units.img.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: units.sh DIR" >&2; exit 64; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
suite=bookworm
packages=systemd-sysv,udev,grub-emu,libzydis4.0,liburing2,libseccomp2,libmd0,libslirp0
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

printf 'long tests: making a Debian with systemd in %s\n' "$out" >&2
# Owned by the namespace's users, so only they can remove it.
[ ! -e "$out/root" ] || "${inside[@]}" rm -rf "$out/root"
mkdir -p "$out/root"
[ "$mode" = root ] || chmod 777 "$out" "$out/root"

cat >"$out/finish" <<'SCRIPT'
#!/bin/sh
set -eu
echo host >/etc/hostname
systemd-machine-id-setup
getty=/etc/systemd/system/serial-getty@ttyS0.service.d
mkdir -p $getty
printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %%I vt100\n' \
	>$getty/shell.conf
# ttyS0 is there when the kernel has its console on it; udev need not tell.
printf '[Unit]\nBindsTo=\nAfter=\nAfter=systemd-user-sessions.service\n' >>$getty/shell.conf
SCRIPT
chmod 755 "$out/finish"

mmdebstrap --quiet --mode=$mode --variant=minbase --include="$packages" \
	--aptopt='Apt::Install-Recommends "false"' \
	--dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=path-exclude=/usr/share/doc/* \
	--dpkgopt=path-exclude=/usr/share/locale/* \
	--customize-hook="copy-in '$out/finish' /" \
	--customize-hook='chroot "$1" /finish' \
	--customize-hook='rm "$1/finish"' \
	$suite "$out/root"
rm -f "$out/finish" "$out/units.img"
truncate -s 2G "$out/units.img"
[ "$mode" = root ] || chmod 666 "$out/units.img"
"${inside[@]}" mke2fs -q -F -t ext4 -O ^has_journal -d "$out/root" "$out/units.img"
"${inside[@]}" rm -rf "$out/root"
printf '%s\n' "$recipe" >"$out/.made-from"
