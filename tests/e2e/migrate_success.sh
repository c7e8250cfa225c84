#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_success.sh - every workload, tracker, rung and base moves, is compared and resumes there

. "$(dirname "$0")/migrate_lib.bash"

moved="j['status'] == 'completed' and j['verified'] and j['pages_compared'] == j['ram_bytes'] / 4096
 and j['pages_differ'] == 0 and j['resumed_at_destination'] and j['destination_wrong'] == 0
 and j['bytes_add_up'] and j['socket_bytes'] == j['received_bytes']"
kinds="j['zero'] + j['fill'] + j['same'] + j['delta_words'] + j['delta_lines'] + j['whole'] + j['raw'] + j['busy']"

# What is dirtied while a page is on its way has to fit: a build under a sanitizer encodes ten times slower.
fits=50
limit=100	# with whole pages only
[[ -z ${GODWIT_SLOW-} ]] || fits=500 limit=2000

for workload in store sweep burst mix; do
	migrate 0 --json --bandwidth unlimited --downtime-limit $fits --workload $workload --verify-time 400
	json "$moved"
	json "$kinds == j['pages'] == sum(r['pages'] for r in j['rounds'])"
	json "j['destination_writes'] > 1000 and j['destination_checks'] > 50"
	json "1.5 <= j['content_ratio_zstd1'] <= 4"
	[[ ! -s $work/err ]] || bad "'$last' wrote to stderr: $(<"$work/err")"
done

for rung in none lz4 lz4:8 zstd1 zstd-5 zlib1; do
	migrate 0 --json --dirty-rate 5000 --bandwidth unlimited --downtime-limit $fits --rung $rung
	json "$moved and j['rung'] == '$rung'"
done
json "j['compression_rate'] > 1.5"

migrate 0 --json --dirty-rate 5000 --downtime-limit $limit --base off
json "$moved and j['same'] == 0 and j['delta_words'] + j['delta_lines'] == 0"
migrate 0 --json --bandwidth 500Mbit --downtime-limit $fits --base pages --base-bytes 16M
json "$moved and j['base'] == 'pages' and j['delta_words'] > 0 and j['delta_lines'] == 0"
migrate 0 --json --bandwidth 500Mbit --downtime-limit $fits --base signatures
json "$moved and j['base'] == 'signatures' and j['delta_lines'] > 0 and j['delta_words'] == 0"

migrate 0 --json --track mprotect --bandwidth 500Mbit --downtime-limit $fits
json "$moved and 'mprotect' in j['tracking']"
# Not every kernel has soft-dirty bits: then that is what it says, and nothing else happens.
if "$perf" migrate "${small[@]}" --track soft-dirty --bandwidth unlimited >"$work/out" 2>"$work/err"; then
	grep -q 'dirty tracking by soft-dirty' "$work/out" || bad "another tracker than asked for"
else
	says 'dirty pages cannot be tracked here: soft-dirty bits: kernel without'
fi
for vcpus in 1 4; do
	migrate 0 --json --vcpus $vcpus --workers 3 --bandwidth unlimited
	json "$moved and j['vcpus'] == $vcpus and j['workers'] == 3"
done
slow=(--workers 1 --rung zlib6 --dirty-rate 2000 --bandwidth unlimited)
migrate 0 --json --when-busy raw "${slow[@]}"
json "$moved and j['busy'] > 0 and j['page_bytes'] == j['busy'] * 4096"
migrate 0 --json --when-busy wait "${slow[@]}"
json "$moved and j['busy'] == 0"
migrate 0 --json --dirty-rate 0 --sparsity 2000 --working-set 4M --bandwidth unlimited
json "$moved"
migrate 0 --json --raw --bandwidth unlimited
json "$moved and j['without_engine'] and j['frame_bytes'] == 0"

# The text names what the JSON names.
migrate 0 --svg "$work/run.svg"
for line in 'Migration status: completed' 'total time: [0-9]+ ms' 'downtime: [0-9.]+ ms' 'verified: 8192 pages' \
	'zstd 1 shrinks that [0-9.]+ times' 'resumed at the destination'; do
	grep -qE "$line" "$work/out" || bad "no '$line' in: $(<"$work/out")"
done
python3 - "$work/run.svg" <<'PY' || bad "the picture is not well-formed"
import sys, xml.dom.minidom
text = open(sys.argv[1]).read()
xml.dom.minidom.parseString(text)
assert text.count('class="line ') == 4 and 'prefers-color-scheme: dark' in text
PY
finish
