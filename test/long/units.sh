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
packages=systemd-sysv,udev,grub-emu,libzydis4.0,liburing2,libseccomp2,libmd0,libslirp0
. "$(dirname "$0")/image.sh"
image_begin "$1" "$packages" "with systemd"

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

image_make units.img "copy-in '$out/finish' /" 'chroot "$1" /finish' 'rm "$1/finish"'
rm -f "$out/finish"
"${inside[@]}" rm -rf "$out/root"
image_done
