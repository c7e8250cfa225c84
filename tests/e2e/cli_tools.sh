#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# cli_tools.sh - delta and ring: JSON that parses, with the keys that are promised

set -u
perf=${GODWIT_PERF:?the path of godwit-perf}
command -v python3 >/dev/null || { echo "python3 is needed to read JSON"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 - "$work" <<'PY'
import random, sys
random.seed(2)
old = bytearray(random.randbytes(64 * 4096))
open(sys.argv[1] + '/old', 'wb').write(old)
for page in range(64):
    old[page * 4096 + page * 60] ^= 255
open(sys.argv[1] + '/new', 'wb').write(old)
PY
"$perf" delta --old "$work/old" --new "$work/new" --repeat 3 --json >"$work/delta" || exit 1
"$perf" ring --slices 3 --json >"$work/ring" || exit 1
python3 - "$work" <<'PY'
import json, sys
delta = json.load(open(sys.argv[1] + '/delta'))
kinds = {row['kind'] for row in delta['rows']}
assert {'xbzrle', 'words', 'signatures'} <= kinds, kinds
seen = {}
for row in delta['rows']:
    assert row['encode_ns_per_page'] is None or row['encode_ns_per_page'] > 0, row
    if row['kind'] in ('xbzrle', 'words', 'signatures'):
        assert row['variant'] in ('scalar', 'avx2', 'avx512'), row
        assert row['overflow_pages'] == 0 and row['decode_ns_per_page'] > 0, row
        # Every variant of a kind gives the same bytes.
        assert seen.setdefault(row['kind'], row['bytes_per_page']) == row['bytes_per_page'], row
assert seen['xbzrle'] < 8 and seen['words'] == 17 and seen['signatures'] == 72, seen
ring = json.load(open(sys.argv[1] + '/ring'))
pairs = {(row['kind'], row['burst']) for row in ring['rings']}
assert pairs == {(k, b) for k in ('spsc', 'mpmc') for b in (1, 8, 32, 64)}, pairs
PY
