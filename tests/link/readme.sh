#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# readme.sh - the README's "Smallest program" compiles as it stands, links and runs.

. "$(dirname "$0")/common.sh"

readme=$GODWIT_SOURCE_DIR/README.md
[[ -e $readme ]] || { echo "no README.md"; exit 77; }
# The first ```c block below the heading.
awk '/^#+ *Smallest program/ { below = 1 } below && /^```c$/ { inside = 1; next }
	inside && /^```/ { exit } inside' "$readme" >"$work/smallest.c"
[[ -s $work/smallest.c ]] || fail "README.md has no C program under \"Smallest program\""

compile "$work/shared" "$work/smallest.c" -I"$include" "$GODWIT_SO"
compile "$work/static" "$work/smallest.c" -I"$include" "$GODWIT_A" "${libs[@]}"
for program in shared static; do
	(cd "$work" && LD_LIBRARY_PATH=${GODWIT_SO%/*} timeout 60 "./$program" </dev/null >"$program.txt") ||
		fail "the smallest program, $program, ended with status $?"
done
