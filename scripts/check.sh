#!/bin/sh
# Builds and runs the tests; the last line counts them. usage: check.sh [long]
set -u
cd "$(dirname "$0")/.."
level=${1:-normal}
passed=0
failed=0

say() {
	printf '== %s\n' "$*"
}

# configure DIR OPTION... : set up a build folder once, build it.
build() {
	dir=$1
	shift
	if [ ! -f "$dir/build.ninja" ]; then
		meson setup "$dir" "$@" >/dev/null || {
			tail -n 30 "$dir/meson-logs/meson-log.txt"
			return 1
		}
	fi
	ninja -C "$dir" --quiet
}

# one NAME COMMAND... : a check that is a single command.
one() {
	name=$1
	shift
	log=$(mktemp)
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
		printf '   ok    %s\n' "$name"
	else
		failed=$((failed + 1))
		printf '   FAIL  %s\n' "$name"
		tail -n 60 "$log"
	fi
	rm -f "$log"
}

# suite DIR SUITE... : Meson's tests of these suites, counted one by one.
suite() {
	dir=$1
	shift
	args=
	for s in "$@"; do
		args="$args --suite $s"
	done
	out=$(mktemp)
	# shellcheck disable=SC2086
	meson test -C "$dir" --no-rebuild --print-errorlogs $args >"$out" 2>&1
	status=$?
	grep -E '^ *[0-9]+/[0-9]+ ' "$out" | sed 's/^/   /'
	ok=$(awk '/^Ok:/ { print $2 }' "$out")
	bad=$(awk '/^(Fail|Timeout|Unexpected Pass):/ { n += $NF } END { print n + 0 }' "$out")
	if [ -z "$ok" ] || { [ $status -ne 0 ] && [ $bad -eq 0 ]; }; then
		bad=$((bad + 1))
	fi
	if [ $bad -ne 0 ]; then
		tail -n 150 "$out"
	fi
	passed=$((passed + ${ok:-0}))
	failed=$((failed + bad))
	rm -f "$out"
}

say "build (gcc)"
build build || { echo "0 passed, 1 failed"; exit 1; }
say "unit tests, instructions against this CPU, bare-metal guests"
suite build unit cpu guest
say "manual pages"
for page in doc/*.[1-9]; do
	one "$page" mandoc -Tlint -Wwarning "$page"
done
say "build (gcc, address and undefined-behaviour sanitizers) and its tests"
if build build-asan -Db_sanitize=address,undefined -Db_lundef=false; then
	suite build-asan unit
else
	failed=$((failed + 1))
fi
say "build (clang)"
one "clang builds without a warning" env CC=clang sh -c \
	'[ -f build-clang/build.ninja ] || meson setup build-clang; ninja -C build-clang --quiet'
say "whole flows: real guests on a terminal"
suite build system

if [ "$level" = long ]; then
	say "fuzz targets, a minute each"
	if CC=clang build build-fuzz -Dfuzz=true -Dtests=false \
		-Db_sanitize=address,undefined -Db_lundef=false; then
		for f in build-fuzz/test/fuzz/*_fuzz; do
			one "$(basename "$f")" "$f" -max_total_time=60 -rss_limit_mb=4096
		done
	else
		failed=$((failed + 1))
	fi
	suite build long
	say "clang-tidy"
	one "clang-tidy's bug checks" scripts/lint.sh build
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
