#!/bin/bash
# Boots Debian's kernel to a shell on this terminal: the programs in BUILD, one after
# the other as a user types them.
#
# usage: demo.sh BUILD [CPUS [MEMORY]]
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: demo.sh BUILD [CPUS [MEMORY]]" >&2; exit 64; }
build=$(cd "$1" && pwd)
cpus=${2:-2}
memory=${3:-512M}
scripts=$(cd "$(dirname "$0")" && pwd)
vm=demo$$
guest=$build/demo-guest
"$scripts/demo-guest.sh" "$guest"

work=$(mktemp -d "${TMPDIR:-/tmp}/bhyve-demo.XXXXXX")
if [ -z "${VMM_DIR:-}" ] && [ "$(id -u)" -ne 0 ] && [ -z "${XDG_RUNTIME_DIR:-}" ]; then
	export VMM_DIR=$work/vmm
fi
bhyvectl=$build/src/bhyvectl/bhyvectl
finish() {
	"$bhyvectl" --destroy --vm="$vm" >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap finish EXIT

# show COMMAND ARGUMENT... : as it would be typed, then done.
show() {
	printf '\n$ %s' "$(basename "$1")" >&2
	printf ' %s' "${@:2}" >&2
	printf '\n' >&2
	"$@"
}

cd "$work"
truncate -s 256M linux.img
PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -L demo linux.img
ln -s "$guest/grub.iso" linux.iso
printf '(hd0) ./linux.img\n(cd0) ./linux.iso\n' >device.map

while :; do
	show "$build/src/load/grub/grub-bhyve" -m device.map -r cd0 -M "$memory" "$vm"
	status=0
	show "$build/src/bhyve/bhyve" -A -H -P -s 0:0,hostbridge -s 1:0,lpc \
		-s 2:0,virtio-net,slirp,open -s 3:0,virtio-blk,./linux.img \
		-s 5:0,virtio-rnd -l com1,stdio -c "$cpus" -m "$memory" "$vm" || status=$?
	[ $status -eq 0 ] || break # 0: the guest rebooted
done
show "$bhyvectl" --destroy --vm="$vm"
# 1 and 2: powered off, halted.
[ $status -le 2 ] || exit $status
