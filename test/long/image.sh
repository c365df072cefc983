# What root.sh and units.sh share: a Debian 12 as a folder and as an ext4 image, made with
# mmdebstrap without being root, and kept until the list of packages or a script changes.

suite=bookworm
PATH=$PATH:/usr/sbin:/sbin
mode=unshare
inside=(mmdebstrap --unshare-helper)
if [ "$(id -u)" -eq 0 ]; then
	mode=root
	inside=()
fi

# image_begin DIR PACKAGES WHAT: ends the script if all is there; else $out/root is a folder.
image_begin() {
	mkdir -p "$1"
	out=$(cd "$1" && pwd)
	packages=$2
	recipe="$suite $packages $(cat "$0" "$(dirname "$0")/image.sh" | cksum)"
	if [ -e "$out/.made-from" ] && [ "$(cat "$out/.made-from")" = "$recipe" ]; then
		exit 0
	fi
	rm -f "$out/.made-from"
	printf 'long tests: making a Debian %s in %s\n' "$3" "$out" >&2
	# Owned by the namespace's users, so only they can remove it.
	[ ! -e "$out/root" ] || "${inside[@]}" rm -rf "$out/root"
	mkdir -p "$out/root"
	[ "$mode" = root ] || chmod 777 "$out" "$out/root"
}

# image_make NAME HOOK...: installs the packages; $out/NAME becomes the image.
image_make() {
	local image=$out/$1

	shift
	mmdebstrap --quiet --mode=$mode --variant=minbase --include="$packages" \
		--aptopt='Apt::Install-Recommends "false"' \
		--dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=path-exclude=/usr/share/doc/* \
		--dpkgopt=path-exclude=/usr/share/locale/* \
		"${@/#/--customize-hook=}" $suite "$out/root"
	rm -f "$image"
	truncate -s 2G "$image"
	[ "$mode" = root ] || chmod 666 "$image"
	"${inside[@]}" mke2fs -q -F -t ext4 -O ^has_journal -d "$out/root" "$image"
}

# image_done: the next run has nothing to do.
image_done() {
	printf '%s\n' "$recipe" >"$out/.made-from"
}
