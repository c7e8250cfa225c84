#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_json.sh - the keys that programs rely on, and that the figures agree with each other

. "$(dirname "$0")/migrate_lib.bash"

fits=30
[[ -z ${GODWIT_SLOW-} ]] || fits=300	# a build under a sanitizer
migrate 0 --json --bandwidth 500Mbit --downtime-limit $fits
json "set('''status error total_ms downtime_ms setup_ms verify_ms paused_ms rounds pages zero fill same delta
	delta_words delta_lines whole raw busy ratio compression_rate base base_bytes base_hits base_misses overflow
	rung wire_bytes head_bytes socket_bytes kernel_bytes received_bytes bytes_add_up wire_bytes_per_s
	retired_bytes_per_s workers encode_cpu_ns decode_cpu_ns submit_ns_per_page thread_ns_per_page
	wakes_per_1000_pages verified pages_compared tracking changes'''.split()) <= set(j)"
json "j['delta'] == j['delta_words'] + j['delta_lines']"
json "set('''round pages dirtied_pages remaining_pages predicted_ms dirty_pages_per_s ms wire_bytes zero same
	delta_lines rung'''.split()) <= set(j['rounds'][0])"
json "j['rounds'][0]['pages'] >= 8192 and [r['is_last'] for r in j['rounds']].index(True) == len(j['rounds']) - 1"
json "sum(r['wire_bytes'] for r in j['rounds']) <= j['frame_bytes']"
json "j['wire_bytes'] + j['head_bytes'] == j['socket_bytes'] == j['received_bytes']"
json "j['kernel_bytes'] in (0, j['socket_bytes'])"
json "j['downtime_ms'] <= j['paused_ms'] <= j['total_ms']"
# The cap is kept: over the whole run, not faster than asked for.
json "j['wire_bytes_per_s'] < 500e6 / 8 * 1.05"
json "j['downtime_ms'] < 1000"
finish
