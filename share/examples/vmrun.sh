#!/bin/sh
# Runs a guest for as long as it reboots: loads it, runs bhyve, and again while bhyve
# exits with 0. The options are those of FreeBSD's vmrun.sh; -L linux and -r are
# additions for guests that GRUB loads.
set -u

PATH=$PATH:/usr/local/sbin:/usr/sbin
program=$(basename "$0")

usage() {
	cat <<END
usage: $program [options] vmname

  -L linux      a Linux guest: grub-bhyve loads it, not bhyveload
  -r root       where GRUB starts (hd0; cd0 in an installation), as hd0,msdos1

  -c cpus       number of CPUs, as -c of bhyve ($cpus)
  -m size       memory ($memory)
  -C console    stdio, a null modem (/dev/nmdm0A) or tcp=address:port ($console)
  -d disk[,option...]
                image or device, made with 8G when missing; may be repeated
                (${default_disk})
  -A            disks are SATA disks (ahci-hd) in place of virtio
  -t tap        network interface; may be repeated. No network without it
  -n card       network card: virtio-net or e1000 ($nic)
  -i            boot from the installation CD, and from the disk when the guest
                reboots; also without -i if the first disk is empty
  -I image      the installation CD ($iso)
  -p B/S/F      pass a PCI device of the host through
  -9 share=path[,option...]
                share a directory
  -a            xAPIC mode
  -u            the clock shows UTC
  -w            ignore accesses to unknown MSRs
  -G [w][address:]port
                wait for a debugger
  -e name=value, -H directory, -l loader
                for bhyveload
  -E, -f firmware, -F size, -L address, -P port, -T, -v
                UEFI and its screen: not part of this version
  -h            this text
END
}

die() {
	printf '%s: %s\n' "$program" "$*" >&2
	exit 1
}

cpus=2
memory=512M
console=stdio
default_disk=./diskdev
iso=./release.iso
nic=virtio-net
guest=freebsd
disk_type=virtio-blk
install=no
root=
# Lists, one a line: names may hold blanks.
disks=
taps=
passthru=
shares=
flags=
debugger=
loader_options=
loader_option=
newline='
'

not_built() {
	die "-$1: $2 is not part of this version of bhyve; leave it out"
}

while getopts 9:aAc:C:d:e:Ef:F:G:hH:iI:l:L:m:n:p:P:r:t:Tuvw option; do
	case $option in
	9) shares=$shares$OPTARG$newline ;;
	a | u | w) flags="$flags -$option" ;;
	A) disk_type=ahci-hd ;;
	c) cpus=$OPTARG ;;
	C) console=$OPTARG ;;
	d) disks=$disks$OPTARG$newline ;;
	e | H | l)
		loader_option=$option
		loader_options=$loader_options-$option$newline$OPTARG$newline
		;;
	E | f) not_built "$option" "UEFI" ;;
	F | P | T | v) not_built "$option" "the screen of a UEFI guest" ;;
	G) debugger=$OPTARG ;;
	h)
		usage
		exit 0
		;;
	i) install=yes ;;
	I) iso=$OPTARG ;;
	L)
		case $OPTARG in
		linux) guest=linux ;;
		*[0-9].[0-9]* | *:* | localhost)
			not_built L "the screen of a UEFI guest, which -L $OPTARG is for," ;;
		*) die "-L $OPTARG: \"linux\" is the only kind of guest that needs a name" ;;
		esac
		;;
	m) memory=$OPTARG ;;
	n)
		case $OPTARG in
		virtio-net | e1000) nic=$OPTARG ;;
		*) die "-n $OPTARG: no such network card; use virtio-net or e1000" ;;
		esac
		;;
	p) passthru=$passthru$OPTARG$newline ;;
	r) root=$OPTARG ;;
	t) taps=$taps$OPTARG$newline ;;
	*)
		usage >&2
		exit 1
		;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || {
	usage >&2
	exit 1
}
vm=$1
disks=${disks:-$default_disk$newline}

if [ "$guest" = linux ]; then
	loader=grub-bhyve
	[ -z "$loader_option" ] ||
		die "-$loader_option is an option of bhyveload; with -L linux, grub-bhyve loads the guest"
else
	loader=bhyveload
	[ -z "$root" ] || die "-r $root: only GRUB has a root device; use it with -L linux"
fi
command -v "$loader" >/dev/null || {
	[ "$guest" = linux ] || die "bhyveload, which loads FreeBSD guests, is not installed: run" \
		"\"make install\"; a Linux guest needs \"-L linux\""
	die "$loader is not installed; run \"make install\""
}

work=$(mktemp -d "${TMPDIR:-/tmp}/vmrun.XXXXXX") || exit 1
keep_vm=no
# The VM goes with the script, unless bhyve failed: then it is left to be looked at.
finish() {
	status=$?
	trap - EXIT
	[ $keep_vm = yes ] || bhyvectl --destroy --vm="$vm" >/dev/null 2>&1
	rm -rf "$work"
	exit $status
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Images: made when missing; the options of -d are not the path's.
old_ifs=$IFS
IFS=$newline
set -f
first=
for disk in $disks; do
	path=${disk%%,*}
	first=${first:-$path}
	if [ ! -e "$path" ]; then
		truncate -s 8G "$path" || die "-d $path: cannot be made"
		printf '%s: made %s with 8G\n' "$program" "$path" >&2
	fi
done
# Only zeros: nothing can be booted from it.
if [ "$(head -c 65536 "$first" | tr -d '\000' | wc -c)" -eq 0 ]; then
	install=yes
fi
if [ $install = yes ] && [ ! -r "$iso" ]; then
	die "$first is to be installed, but the CD $iso is not there or cannot be read;" \
		"name it with -I"
fi

# GRUB's names of the images, in the order of -d.
write_map() {
	n=0
	for disk in $disks; do
		printf '(hd%d) %s\n' $n "${disk%%,*}"
		n=$((n + 1))
	done
	if [ $install = yes ]; then
		printf '(cd0) %s\n' "$iso"
	fi
}

load() {
	set --
	[ "$console" = stdio ] || set -- -c "$console"
	case $console in
	tcp=*) set -- ;; # loaders have no such console
	esac
	if [ "$guest" = linux ]; then
		write_map >"$work/device.map"
		from=${root:-hd0}
		[ $install = no ] || from=cd0
		grub-bhyve -m "$work/device.map" -r "$from" -M "$memory" "$@" "$vm"
		return
	fi
	# shellcheck disable=SC2086
	set -- "$@" $loader_options
	if [ $install = yes ]; then
		set -- "$@" -d "$iso"
	else
		for disk in $disks; do
			set -- "$@" -d "${disk%%,*}"
		done
	fi
	bhyveload -m "$memory" "$@" "$vm"
}

run() {
	slot=2
	set -- -c "$cpus" -m "$memory" -A -H -P -s 0:0,hostbridge -s 1:0,lpc
	for disk in $disks; do
		set -- "$@" -s "$slot:0,$disk_type,$disk"
		slot=$((slot + 1))
	done
	for share in $shares; do
		set -- "$@" -s "$slot:0,virtio-9p,$share"
		slot=$((slot + 1))
	done
	for tap in $taps; do
		set -- "$@" -s "$slot:0,$nic,$tap"
		slot=$((slot + 1))
	done
	for device in $passthru; do
		set -- "$@" -S -s "$slot:0,passthru,$device"
		slot=$((slot + 1))
	done
	[ $install = no ] || set -- "$@" -s "31:0,ahci-cd,$iso"
	[ -z "$debugger" ] || set -- "$@" -G "$debugger"
	IFS=$old_ifs
	for flag in $flags; do
		set -- "$@" "$flag"
	done
	IFS=$newline
	bhyve "$@" -l "com1,$console" "$vm"
}

while :; do
	bhyvectl --destroy --vm="$vm" >/dev/null 2>&1
	printf '%s: loading %s%s\n' "$program" "$vm" "$([ $install = no ] || echo " from $iso")" >&2
	load
	status=$?
	# bhyveload's menu leaves the loop by "reboot" and "quit".
	[ $status -eq 0 ] || exit $status
	run
	status=$?
	[ $status -eq 0 ] || break
	install=no
done
case $status in
0 | 1 | 2) ;;
*) keep_vm=yes ;;
esac
[ $status -lt 128 ] || keep_vm=no # a signal: the user wants an end
exit $status
