#!/bin/bash
# Makes the CD of the installation test: Debian's cloud kernel, an initramfs that installs
# without a question, and the Debian 12 system it installs, as a tar file. Needs no root;
# everything stays in the cache until the list of packages or this file changes.
#
# usage: install.sh DIR
#
# In DIR: install.iso. The installed system has root's password "bhyve", asks for its
# address by DHCP on every network card, and has a console on ttyS0.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: install.sh DIR" >&2; exit 64; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
suite=bookworm
packages=systemd-sysv,udev,lvm2,initramfs-tools,zstd,busybox,linux-image-cloud-amd64
packages+=,e2fsprogs,fdisk,cpio,iproute2,iputils-ping
recipe="$suite $packages $(cksum <"$0")"
if [ -e "$out/.made-from" ] && [ "$(cat "$out/.made-from")" = "$recipe" ]; then
	exit 0
fi
rm -f "$out/.made-from"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
# mmdebstrap works as a user of a namespace unless root calls it.
chmod 755 "$work"
PATH=$PATH:/usr/sbin:/sbin
printf 'long tests: making an installation CD in %s\n' "$out" >&2

# What runs inside the new system, once its packages are there. The installer's tools
# are the system's own, with the libraries they name, in a folder of their own: many
# names in Debian's initramfs are links to busybox, which a file would replace. LVM is
# there already.
cat >"$work/finish" <<'SCRIPT'
#!/bin/sh
set -eu
echo root:bhyve | chpasswd
echo installed >/etc/hostname
printf '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n' >/etc/systemd/network/all.network
systemctl enable systemd-networkd
systemctl mask systemd-networkd-wait-online
cat >/etc/fstab <<'END'
/dev/mapper/VolGroup-lv_root / ext4 errors=remount-ro 0 1
/dev/vda1 /boot ext4 defaults 0 2
/dev/mapper/VolGroup-lv_swap none swap sw 0 0
END
mv /boot/vmlinuz-* /boot/vmlinuz
mv /boot/initrd.img-* /boot/initrd.img
rm -f /vmlinuz* /initrd.img*
mkdir -p /boot/grub
cat >/boot/grub/grub.cfg <<'END'
set timeout=5
menuentry "Debian on LVM" {
	linux /vmlinuz root=/dev/mapper/VolGroup-lv_root ro console=ttyS0
	initrd /initrd.img
}
END
mkdir -p /tools/installer
for f in sfdisk mke2fs mkswap; do
	cp "/usr/sbin/$f" /tools/installer/
	ldd "/usr/sbin/$f" | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p'
done | sort -u | xargs cp -L --parents -t /tools
cp --parents /etc/mke2fs.conf /tools/
cd /tools
find . ! -type d | sed 's,^\./,,' | { echo installer; cat; } |
	cpio -o -H newc -R 0:0 --quiet >/tools.cpio
cd /
rm -r /tools
SCRIPT

# The installer: no question, no answer but the disk's contents and a reboot.
mkdir "$work/init"
cat >"$work/init/init" <<'SCRIPT'
#!/bin/sh
# Errors stop here, where the console shows them.
export PATH=/installer:/usr/sbin:/usr/bin:/sbin:/bin
fail() {
	echo "installer: $* failed"
	poweroff -f
}
try() {
	echo "installer: $*"
	"$@" || fail "$@"
}
[ -d /dev ] || mkdir /dev
mkdir -p /proc /sys /run /tmp /cdrom /target /etc
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for m in virtio_pci virtio_blk ext4 dm_mod isofs; do
	try modprobe $m
done
i=0
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do
	i=$((i + 1))
	[ $i -lt 300 ] || fail "waiting for two disks"
	sleep 0.1
done
try mount -t iso9660 -o ro /dev/vdb /cdrom
printf 'label: dos\nsize=256MiB, type=83, bootable\ntype=8e\n' >/tmp/table
try sfdisk -q /dev/vda </tmp/table
# No udev here: LVM makes its device nodes itself.
config='activation{udev_sync=0 udev_rules=0 monitoring=0} devices{use_devicesfile=0}'
try lvm pvcreate --config "$config" /dev/vda2
try lvm vgcreate --config "$config" VolGroup /dev/vda2
# Swap first: the root's blocks lie beyond 4 GiB of the disk.
try lvm lvcreate --config "$config" -y -L 4G -n lv_swap VolGroup
try lvm lvcreate --config "$config" -y -l 100%FREE -n lv_root VolGroup
try mke2fs -q -t ext4 -L boot /dev/vda1
try mke2fs -q -t ext4 -L root /dev/mapper/VolGroup-lv_root
try mkswap /dev/mapper/VolGroup-lv_swap
try mount -t ext4 /dev/mapper/VolGroup-lv_root /target
try mkdir /target/boot
try mount -t ext4 /dev/vda1 /target/boot
try tar -xf /cdrom/root.tar -C /target
try umount /target/boot
try umount /target
sync
echo "installer: done, rebooting"
reboot -f
SCRIPT
chmod 755 "$work/finish" "$work/init/init"

mmdebstrap --quiet --variant=minbase --include="$packages" \
	--aptopt='Apt::Install-Recommends "false"' \
	--dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=path-exclude=/usr/share/doc/* \
	--dpkgopt=path-exclude=/usr/share/locale/* \
	--customize-hook="copy-in '$work/finish' /" \
	--customize-hook='chroot "$1" /finish' \
	--customize-hook="copy-out /tools.cpio '$work'" \
	--customize-hook='rm "$1/finish" "$1/tools.cpio"' \
	$suite - >"$work/root.tar"

mkdir -p "$work/cd/boot/grub"
for f in vmlinuz initrd.img; do
	tar -xOf "$work/root.tar" "./boot/$f" >"$work/cd/boot/$f"
done
# Archives behind the first add to it and replace its init; each begins on four bytes.
(cd "$work/init" && echo init | cpio -o -H newc -R 0:0 --quiet) >"$work/init.cpio"
for f in "$work/tools.cpio" "$work/init.cpio"; do
	truncate -s %4 "$work/cd/boot/initrd.img"
	cat "$f" >>"$work/cd/boot/initrd.img"
done
cat >"$work/cd/boot/grub/grub.cfg" <<'END'
set timeout=0
menuentry "Install" {
	linux /boot/vmlinuz console=ttyS0 panic=1
	initrd /boot/initrd.img
}
END
mv "$work/root.tar" "$work/cd/"
xorriso -as mkisofs -quiet -R -V INSTALL -o "$out/install.iso" "$work/cd" 2>"$work/log" ||
	{ cat "$work/log" >&2; exit 1; }
printf '%s\n' "$recipe" >"$out/.made-from"
