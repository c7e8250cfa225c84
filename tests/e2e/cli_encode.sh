#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# cli_encode.sh - encode and estimate on images made here: keys, kinds, sums, and what is verified

set -u
perf=${GODWIT_PERF:?the path of godwit-perf}
command -v python3 >/dev/null || { echo "python3 is needed to read JSON"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"; [[ -n ${victim-} ]] && kill $victim 2>/dev/null' EXIT
failures=0

bad()
{
	echo "FAIL: $*" >&2
	failures=$((failures + 1))
}

# 256 pages: 64 zero, 64 fill, 64 text, 64 random; new: 16 text and 16 random changed by a byte, 16 random
# become text.
python3 - "$work" <<'PY'
import random, sys
random.seed(1)
words = [b'godwit ', b'eleven ', b'thousand ', b'kilometres ', b'without ', b'stopping ']
def text():
    return b''.join(random.choice(words) for _ in range(1000))[:4096]
pages = [bytes(4096) for _ in range(64)]
pages += [bytes([i]) * 4096 for i in range(1, 65)]
pages += [text() for _ in range(64)]
pages += [random.randbytes(4096) for _ in range(64)]
open(sys.argv[1] + '/old', 'wb').write(b''.join(pages))
for i in list(range(128, 144)) + list(range(192, 208)):
    page = bytearray(pages[i])
    page[777] ^= 255
    pages[i] = bytes(page)
for i in range(240, 256):
    pages[i] = text()
open(sys.argv[1] + '/new', 'wb').write(b''.join(pages))
PY
old=$work/old new=$work/new

# json <check in python, j is the document> <arguments>...
json()
{
	local check=$1
	shift
	"$perf" "$@" --json >"$work/out" 2>"$work/err" </dev/null || bad "'$*' ended with $?: $(<"$work/err")"
	[[ ! -s $work/err ]] || bad "'$*' wrote to stderr: $(<"$work/err")"
	python3 - "$work/out" "$check" <<'PY' || bad "'$*': not so: $check"
import json, sys
j = json.load(open(sys.argv[1]), parse_constant=lambda c: sys.exit('no number: ' + c))
assert eval('(' + sys.argv[2] + ')'), {k: v for k, v in j.items() if not isinstance(v, list)}
PY
}

# The keys that are promised, in their order, and their types.
keys="'pages zero fill same delta whole raw payload_bytes_per_page wire_bytes wire_bytes_per_page'
 ' encode_ns_per_page submit_ns_per_page decode_ns_per_page base_bytes verified'"
json "list(j)[:15] == ($keys).split()" encode --new "$new" --old "$old"
json "all(type(j[k]) is int for k in 'pages zero fill same delta whole raw wire_bytes base_bytes'.split())" \
	encode --new "$new" --old "$old"
grep -qE '[0-9][eE][+-]?[0-9]' "$work/out" && bad "a number has an exponent"

sums="j['pages'] == 256 == sum(j[k] for k in 'zero fill same delta whole raw'.split()) and j['verified'] is True
 and abs(j['wire_bytes_per_page'] - j['wire_bytes'] / 256) < 0.001
 and 0 < j['encode_ns_per_page'] < 1e6 and 0 < j['decode_ns_per_page'] < 1e6 and j['submit_ns_per_page'] < 1e6"
for rung in auto none lz4 lz4:8 zstd1 zstd-5 zlib1; do
	json "$sums and j['zero'] == 64 and j['fill'] == 64 and j['same'] == 80 and j['delta'] == 32" \
		encode --new "$new" --old "$old" --rung $rung --repeat 2
done
for base in signatures pages; do
	json "$sums and j['same'] == 80 and j['delta'] == 32 and j['base_bytes'] > 0" \
		encode --new "$new" --old "$old" --base $base --base-bytes 4M --repeat 1 --rung zstd1
done
json "$sums and j['same'] == 0 and j['delta'] == 0 and j['whole'] + j['raw'] == 128 and j['base_bytes'] == 0" \
	encode --new "$new" --old "$old" --base off --repeat 1
json "$sums and j['same'] == 0 and j['delta'] == 0" encode --new "$new" --repeat 1
# What any QEMU reads has no fill, and XBZRLE from lines or from bytes. It is one thread that decodes.
for base in signatures pages; do
	json "$sums and j['stream'] == 'stock' and j['rung'] == 'xbzrle' and j['zero'] == 64 and j['fill'] == 0
	 and j['same'] == 144 and j['delta'] == 32 and j['raw'] == 16 and j['overflow'] == 16
	 and j['wire_bytes'] < 16 * 4104 + 32 * 300 + 64 * 9 + 8 * 6" \
		encode --new "$new" --old "$old" --stream stock --base $base --base-bytes 4M --repeat 1
done
json "$sums and j['delta'] == 0 and j['raw'] == 192" encode --new "$new" --stream stock --base off --repeat 1
"$perf" encode --new "$new" --stream stock --rung zstd1 >"$work/out" 2>"$work/err"
[[ $? == 2 ]] && grep -q 'no codecs' "$work/err" || bad "a rung for the stock stream: $(<"$work/err")"
for workers in 1 2 5; do
	json "$sums and j['workers'] == $workers" encode --new "$new" --old "$old" --workers $workers --repeat 1
done
# 256 pages, 128 of them raw, are more than half a MiB: at 10 MB/s at least 40 ms.
json "$sums and j['round_ns'] > 30e6" encode --new "$new" --rung none --bandwidth 10MB --repeat 1

# An odd number of repeats, an even one, and text for people.
json "$sums and j['repeat'] == 4 and j['encode_ns_per_page_min'] <= j['encode_ns_per_page']
 <= j['encode_ns_per_page_max']" encode --new "$new" --old "$old" --repeat 4
"$perf" encode --new "$new" --old "$old" --repeat 1 >"$work/out" || bad "encode as text failed"
grep -q 'every page verified' "$work/out" || bad "text does not say that pages were verified"
grep -qE '^same +80 +31\.2 %' "$work/out" || bad "text does not have the kinds"

# zstd, with a long window, unpacks to the same pages.
if command -v zstd >/dev/null; then
	zstd -q --long=27 "$new" -o "$work/new.zst"
	zstd -q "$old" -o "$work/old.zst"
	json "$sums and j['same'] == 80" encode --new "$work/new.zst" --old "$work/old.zst" --repeat 1
	# Exactly what the first buffer holds, and one page more.
	for pages in 8192 8193; do
		head -c $((pages * 4096)) /dev/zero | zstd -q >"$work/zero.zst"
		json "j['pages'] == j['zero'] == $pages and j['verified']" encode --new "$work/zero.zst" --repeat 1
	done
fi

# estimate: from an image, from two, from two with the time between them.
json "j['pages'] == 256 and j['zero_pages'] == 64 and j['dirty_pages'] == 0 and len(j['rungs']) >= 4
 and len(j['links']) == 5 and 'interval_s' not in j and 'converges' not in j['links'][0]['raw']" \
	estimate --new "$new"
json "j['dirty_pages'] == 48 and all(r['again']['wire_bytes_per_page'] < 4200 for r in j['rungs'])
 and j['rungs'][0]['rung'] == 'none' and j['rungs'][-1]['first']['ratio'] > j['rungs'][0]['first']['ratio']" \
	estimate --new "$new" --old "$old"
json "[l['bandwidth_bytes_per_s'] for l in j['links']] == [125000000, 1000] and j['interval_s'] == 1
 and j['links'][0]['godwit']['converges'] and j['links'][0]['raw']['converges']
 and not j['links'][1]['raw']['converges'] and j['links'][1]['raw']['total_s'] is None
 and j['dirty_bytes_per_s'] == 48 * 4096" \
	estimate --new "$new" --old "$old" --interval 1s --bandwidth 1Gbit,1000
"$perf" estimate --new "$new" --old "$old" --interval 1s --bandwidth 1kbit >"$work/out" ||
	bad "estimate as text failed"
grep -q 'does not converge' "$work/out" || bad "1 kbit/s should not converge"

# estimate: a process that writes 512 pages again and again among 4096 that it keeps.
python3 - "$work/ready" <<'PY' &
import sys, time
memory = bytearray(b'the godwit flies ' * (4096 * 4096 // 17 + 1))
n, end = 0, time.time() + 60
open(sys.argv[1], 'w').close()
while time.time() < end:
    for page in range(512):
        memory[page * 4096:page * 4096 + 4] = (n & 0xffffffff).to_bytes(4, 'little')
    n += 1
    time.sleep(0.01)
PY
victim=$!
for _ in $(seq 100); do [[ -e $work/ready ]] && break; sleep 0.1; done
if "$perf" estimate --pid $victim --interval 10ms >"$work/out" 2>"$work/err"; then
	json "4096 <= j['pages'] < 20000 and 400 <= j['dirty_pages'] < 1200
	 and j['rungs'][-1]['again']['ratio'] > 10 and 0.3 < j['interval_s'] < 2" \
		estimate --pid $victim --interval 400ms
	json "j['sampled_pages'] <= 640" estimate --pid $victim --interval 50ms --largest --pages 640
	kill -0 $victim 2>/dev/null || bad "the process did not survive being looked at"
else
	grep -q 'may not be read' "$work/err" || bad "estimate --pid: $(<"$work/err")"
	echo "estimate --pid is not allowed here; not tested" >&2
fi
kill $victim
wait $victim 2>/dev/null
victim=
"$perf" estimate --pid 4194303 2>"$work/err" >"$work/out"
[[ $? == 1 ]] && grep -q 'there is no process' "$work/err" || bad "a process that is not there: $(<"$work/err")"

((failures == 0)) || { echo "$failures failures" >&2; exit 1; }
