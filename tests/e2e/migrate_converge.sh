#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_converge.sh - the guest that pages sent as they are never catch up with, and godwit does

. "$(dirname "$0")/migrate_lib.bash"

# 12000 page writes/s are 49 MB/s; the link carries 25. (The default run, at a fifth of its rate.)
guest=(--workload sweep --dirty-rate 12000 --working-set 8M --bandwidth 200Mbit --downtime-limit 100 --json)

migrate 1 "${guest[@]}" --raw --max-rounds 3
json "j['status'] == 'failed' and 'does not converge' in j['error'] and j['source_intact']"
json "len(j['rounds']) == 3 and j['rounds'][2]['predicted_ms'] > 100"
migrate 0 "${guest[@]}"
json "j['status'] == 'completed' and j['pages_differ'] == 0 and j['downtime_ms'] < 400"

migrate 1 "${guest[@]}" --raw --timeout 500ms
json "'timed out' in j['error']"
finish
