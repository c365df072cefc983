#!/bin/sh
# clang-tidy's bug checks over our sources. usage: lint.sh BUILDDIR
set -eu
cd "$(dirname "$0")/.."
command -v clang-tidy >/dev/null || {
	echo "lint.sh: clang-tidy is missing; install Debian's package clang-tidy" >&2
	exit 1
}
git ls-files 'src/*.c' | grep -v '^src/load/grub/module/' | xargs -P 2 -n 8 \
	clang-tidy --quiet -p "$1" --warnings-as-errors='*' \
	--checks='-*,bugprone-*,clang-analyzer-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-macro-parentheses,-bugprone-narrowing-conversions,-bugprone-branch-clone,-bugprone-implicit-widening-of-multiplication-result,-bugprone-assignment-in-if-condition,-bugprone-sizeof-expression,-bugprone-misplaced-widening-cast,-bugprone-not-null-terminated-result,-clang-analyzer-valist.Uninitialized,-clang-analyzer-optin.performance.Padding,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling' \
	2>/dev/null
