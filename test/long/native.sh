#!/bin/bash
# native.sh ROOT WORK NAME : one workload on this machine, in the guest's root file system.
set -euo pipefail

root=$1 work=$2 name=$3
run='
mount --bind "$2" "$1/work"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmp "$1/tmp"
mount -t proc proc "$1/proc"
exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin bash /work/run "$3"'
inside=(unshare -m -p -f)
if [ "$(id -u)" -ne 0 ]; then
	inside=(mmdebstrap --unshare-helper unshare -m -p -f)
fi
exec "${inside[@]}" bash -c "$run" native "$root" "$work" "$name" </dev/null
