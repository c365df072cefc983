#!/bin/bash
# Makes a small Linux guest: Debian's kernel, an initramfs of busybox and the drivers
# that bhyve's machine needs, and two CDs of them. Needs no root.
#
# usage: demo-guest.sh [-f cloud|amd64] DIR
#   -f  which of Debian's kernels: linux-image-cloud-amd64 (small, starts fast, no
#       AHCI; the default) or linux-image-amd64
#
# In DIR: vmlinuz, initrd.img, linux.iso (isolinux/ as the Handbook's example has
# it), grub.iso (boot/grub/grub.cfg with a menu that starts at once).
set -euo pipefail

flavour=cloud
while getopts f: option; do
	case $option in
	f) flavour=$OPTARG ;;
	*) exit 64 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || { echo "usage: demo-guest.sh [-f cloud|amd64] DIR" >&2; exit 64; }
case $flavour in
cloud) meta=linux-image-cloud-amd64 ;;
amd64) meta=linux-image-amd64 ;;
*) echo "demo-guest.sh: -f $flavour: cloud or amd64 is wanted" >&2; exit 64 ;;
esac
mkdir -p "$1"
out=$(cd "$1" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/bhyve/$flavour
mkdir -p "$cache"

say() {
	printf 'demo guest: %s\n' "$*" >&2
}

die() {
	printf 'demo-guest.sh: %s\n' "$*" >&2
	exit 1
}

# fetch PACKAGE : its .deb into the cache, unless there; prints the file's name.
fetch() {
	local version file
	version=$(apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n 's/^Version: //p')
	[ -n "$version" ] || die "apt knows no package $1; run apt-get update"
	file=$cache/$1_$(printf %s "$version" | tr : _).deb
	if [ ! -s "$file" ]; then
		say "fetching $1 $version"
		rm -rf "$cache/get"
		mkdir -p "$cache/get"
		(cd "$cache/get" && apt-get -qq download "$1" 2>/dev/null) ||
			die "cannot download $1; is there a network?"
		mv "$cache/get/"*.deb "$file"
		rmdir "$cache/get"
	fi
	printf '%s\n' "$file"
}

# A kernel package named by the one that follows the current version.
kernel=$(apt-cache depends "$meta" 2>/dev/null |
	sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
[ -n "$kernel" ] || die "apt knows no package $meta; run apt-get update"
deb=$(fetch "$kernel")

stamp=$out/.made-from
recipe="$deb $(cksum <"$0")"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ]; then
	exit 0
fi
rm -f "$stamp"

tree=$(mktemp -d "${TMPDIR:-/tmp}/demo-guest.XXXXXX")
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/kernel" "$tree/root"
say "unpacking $kernel"
dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tree/kernel" --wildcards \
	'./boot/vmlinuz-*' './lib/modules/*/kernel/drivers/virtio/*' \
	'./lib/modules/*/kernel/drivers/block/virtio*' './lib/modules/*/kernel/drivers/ata/*' \
	'./lib/modules/*/kernel/drivers/scsi/s*' './lib/modules/*/kernel/drivers/cdrom/*' \
	'./lib/modules/*/kernel/drivers/char/hw_random/*' \
	'./lib/modules/*/kernel/drivers/acpi/button*' './lib/modules/*/kernel/drivers/input/evdev*' \
	'./lib/modules/*/kernel/drivers/net/*failover*' \
	'./lib/modules/*/kernel/drivers/net/virtio*' \
	'./lib/modules/*/kernel/drivers/net/ethernet/intel/e1000/*' './lib/modules/*/kernel/net/core/*' \
	'./lib/modules/*/kernel/fs/ext4/*' './lib/modules/*/kernel/fs/jbd2/*' \
	'./lib/modules/*/kernel/fs/mbcache*' './lib/modules/*/kernel/fs/isofs/*' \
	'./lib/modules/*/kernel/block/*' './lib/modules/*/kernel/lib/*' \
	'./lib/modules/*/kernel/crypto/*' 2>/dev/null || true # not every kernel has all
[ -n "$(find "$tree/kernel/boot" -name 'vmlinuz-*')" ] || die "$kernel holds no kernel"
cp "$tree/kernel/boot/"vmlinuz-* "$out/vmlinuz"

if busybox=$(command -v busybox) && ! ldd "$busybox" >/dev/null 2>&1; then
	:
else
	dpkg-deb -x "$(fetch busybox-static)" "$tree/busybox"
	busybox=$tree/busybox/bin/busybox
fi

say "making the initramfs"
root=$tree/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,mnt,cdrom,etc,root,lib/modules}
cp "$busybox" "$root/bin/busybox"

# Modules in the order of loading: each after those it names itself.
order=$root/lib/modules/order
: >"$order"
add_module() {
	local file name dep plain
	name=$(printf %s "$1" | tr - _)
	! grep -qx "$name.ko" "$order" || return 0
	file=$(find "$tree/kernel/lib/modules" -name "$name.ko*" -o -name "${name//_/-}.ko*" |
		head -n 1)
	[ -n "$file" ] || return 0 # built in, or not in this kernel
	plain=$root/lib/modules/$name.ko
	case $file in
	*.xz) xz -dc "$file" >"$plain" ;;
	*.zst) zstd -qdc "$file" >"$plain" ;;
	*) cp "$file" "$plain" ;;
	esac
	for dep in $(tr '\0' '\n' <"$plain" | sed -n 's/^depends=//p' | tr , ' '); do
		add_module "$dep"
	done
	printf '%s.ko\n' "$name" >>"$order"
}
for module in virtio_pci virtio_blk virtio_rng virtio_net e1000 crc32c_generic ext4 ahci sd_mod \
	sr_mod isofs button evdev; do
	add_module "$module"
done

cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
exec /bin/init
END
cat >"$root/etc/inittab" <<'END'
::sysinit:/etc/rc
ttyS0::once:/etc/session
::once:/etc/button
::restart:/bin/init
::shutdown:/bin/umount -r /mnt /cdrom 2>/dev/null
END
cat >"$root/etc/rc" <<'END'
#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
for m in $(cat /lib/modules/order); do
	insmod "/lib/modules/$m"
done
for disk in /dev/vda1 /dev/vda; do
	if [ -b "$disk" ] && mount -t ext4 "$disk" /mnt 2>/dev/null; then
		break
	fi
done
hostname bhyve
ip link set lo up
for card in /sys/class/net/eth*; do
	if [ -e "$card" ]; then
		udhcpc -q -n -i "${card##*/}" -s /etc/lease >/dev/null 2>&1 &
	fi
done
END
# What udhcpc calls with what the DHCP server gave.
cat >"$root/etc/lease" <<'END'
#!/bin/sh
export PATH=/bin
case $1 in
deconfig)
	ip addr flush dev "$interface"
	ip link set "$interface" up
	;;
bound | renew)
	ip addr add "$ip/$mask" dev "$interface"
	[ -z "$router" ] || ip route replace default via "${router%% *}"
	for server in $dns; do
		echo "nameserver $server"
	done >/etc/resolv.conf
	;;
esac
END
# The ACPI power button: a key on an input device of its own.
cat >"$root/etc/button" <<'END'
#!/bin/sh
export PATH=/bin
for event in /sys/class/input/event*; do
	if [ "$(cat "$event/device/name")" = "Power Button" ]; then
		head -c 1 "/dev/input/${event##*/}" >/dev/null && exec poweroff
	fi
done
END
cat >"$root/etc/session" <<'END'
#!/bin/sh
export PATH=/bin HOME=/root TERM=linux PS1='\h# '
cd /root
cpus=$(grep -c ^processor /proc/cpuinfo)
memory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
echo
echo "A Linux guest of bhyve: kernel $(uname -r), $cpus CPUs, $memory MB of memory."
if grep -q ' /mnt ' /proc/mounts; then
	echo "The disk is mounted at /mnt."
fi
echo "Leave with exit or poweroff; reboot starts it again."
echo
sh
poweroff
END
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
chmod 755 "$root/init" "$root/etc/rc" "$root/etc/session" "$root/etc/lease" \
	"$root/etc/button"
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet | gzip -1) \
	>"$out/initrd.img"

say "making the CDs"
mkdir -p "$tree/cd/isolinux" "$tree/grub/boot/grub"
cp "$out/vmlinuz" "$out/initrd.img" "$tree/cd/isolinux/"
printf 'A file on the CD.\n' >"$tree/cd/README"
cp "$out/vmlinuz" "$out/initrd.img" "$tree/grub/boot/"
cat >"$tree/grub/boot/grub/grub.cfg" <<'END'
set default=0
set timeout=0
menuentry "Debian's kernel with a shell" --id shell {
	linux /boot/vmlinuz quiet
	initrd /boot/initrd.img
}
menuentry "The same, with the kernel's messages" --id verbose {
	linux /boot/vmlinuz
	initrd /boot/initrd.img
}
END
make_cd() {
	xorriso -as mkisofs -quiet -R -J -V "$1" --protective-msdos-label \
		-partition_offset 16 -o "$out/$2" "$3" 2>"$tree/log" ||
		{ cat "$tree/log" >&2; die "xorriso failed"; }
}
make_cd LINUX linux.iso "$tree/cd"
make_cd GRUB grub.iso "$tree/grub"
printf '%s\n' "$recipe" >"$stamp"
say "made in $out"
