#!/bin/sh
# Installs the Debian packages the project needs, only those that are missing.
# usage: deps.sh GROUP...   (build run demo check long bench)
set -eu

build="gcc libc6-dev make meson ninja-build pkg-config python3 acpica-tools
	libzydis-dev liburing-dev libseccomp-dev libmd-dev libslirp-dev
	libarchive-dev libcmocka-dev"
run="grub-emu"
demo="busybox-static cpio xorriso e2fsprogs xz-utils"
check="clang libclang-rt-14-dev mandoc python3-pexpect git cu screen picocom tmux gdb
	iproute2 procps systemd makefs mtools dosfstools"
long="mmdebstrap clang-tidy"
bench="qemu-system-x86 fio iperf3 iproute2"

# Debian 13's clang brings another version of its runtime.
if [ -r /etc/os-release ]; then
	. /etc/os-release
	[ "${VERSION_ID:-12}" = 12 ] || check=$(echo "$check" | sed 's/libclang-rt-14-dev/libclang-rt-dev/')
fi

want=
for group in "$@"; do
	case $group in
	build | run | demo | check | long | bench) eval "want=\"\$want \$$group\"" ;;
	*)
		echo "deps.sh: unknown group '$group' (build run demo check long bench)" >&2
		exit 2
		;;
	esac
done

missing=
for p in $want; do
	if [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" != installed ]; then
		missing="$missing $p"
	fi
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps.sh: these packages are missing and only root can install them:$missing" >&2
		exit 1
	fi
	as_root=sudo
fi
echo "installing:$missing"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { $as_root apt-get -q update && $as_root apt-get -q install -y \
	--no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "deps.sh: apt-get failed (whole log above)" >&2
	rm -f "$log"
	exit 1
fi
rm -f "$log"
