#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# exports.sh - what the shared library exports and what the static one defines is the public interface:
# every name in a header and no other.

. "$(dirname "$0")/common.sh"

# Public functions, as the headers declare them.
cat "$include"/godwit/*.h | tr '\n' ' ' | grep -oE 'GODWIT_API [^;(]*\(' |
	grep -oE 'godwit_[a-z0-9_]+\($' | tr -d '(' | sort -u >"$work/declared"
nm -D --defined-only "$GODWIT_SO" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/shared"
nm -g --defined-only "$GODWIT_A" | awk 'NF == 3 { print $3 }' | sort -u >"$work/static"

[[ $(wc -l <"$work/declared") -gt 10 ]] || fail "the headers were not understood"
for kind in shared static; do
	if grep -vE '^godwit_' "$work/$kind"; then
		fail "the $kind library shows names that are not its own"
	fi
	diff "$work/declared" "$work/$kind" >"$work/diff" ||
		fail "the headers (<) and the $kind library (>) differ: $(cat "$work/diff")"
done
nm -D --defined-only --with-symbol-versions "$GODWIT_SO" | grep ' T ' | grep -v '@@GODWIT_0.1$' &&
	fail "an export has no version"

# And jemalloc is inside, or the tests of who owns malloc prove nothing.
nm "$GODWIT_SO" | grep -q ' t godwit_je_mallocx$' || fail "no jemalloc in the shared library"
nm "$GODWIT_A" | grep -q ' t godwit_je_mallocx$' || fail "no jemalloc in the static library"
echo "$(wc -l <"$work/declared") functions, as declared"

# Each header stands alone, in strict C and in C++.
for header in "$include"/godwit/*.h; do
	echo "#include <godwit/${header##*/}>" >"$work/alone.c"
	"$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror -I"$include" -fsyntax-only "$work/alone.c" ||
		fail "${header##*/} in C"
	if command -v c++ >/dev/null; then
		c++ -x c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -I"$include" -fsyntax-only \
			"$work/alone.c" || fail "${header##*/} in C++"
	fi
done
