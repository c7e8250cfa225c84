# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# Sourced by the tests in this folder. From ctest: GODWIT_SOURCE_DIR, GODWIT_BUILD_DIR, GODWIT_SO,
# GODWIT_A, CC, CMAKE.

set -eu
here=$GODWIT_SOURCE_DIR/tests/link
include=$GODWIT_SOURCE_DIR/include
libs=(-lzstd -llz4 -lz -lxxhash -lurcu-bp -lhwloc -lm -ldl -pthread)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail()
{
	echo "FAIL: $*" >&2
	exit 1
}

[[ -s $GODWIT_SO && -s $GODWIT_A ]] || fail "the library is not built"

# compile <output> <arguments>...
compile()
{
	local output=$1
	shift
	# The host's own code is compiled as any host's, position independent so that &malloc is malloc.
	"$CC" -std=gnu11 -Wall -Wextra -Werror -D_GNU_SOURCE -O1 -fPIE -pie -o "$output" "$@"
}
