#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_verify.sh - one page lost, old or wrong in the last round is found: by digests, and by the
# truth alone

. "$(dirname "$0")/migrate_lib.bash"

for harm in skip stale flip; do
	for finder in "" :checker; do
		export GODWIT_MIGRATE_INJECT=$harm$finder
		migrate 1 --json --bandwidth unlimited --downtime-limit 2s --warmup 200ms
		json "j['status'] == 'failed' and not j['verified'] and not j['resumed_at_destination']
			and j['pages_stale'] == 1 and j['pages_differ'] == ${finder:+0 *} 1
			and j['source_intact'] and j['source_pages_checked'] == 8192
			and 'block ' in j['error'] and ' page ' in j['error']"
	done
done
# In words, with the generations.
export GODWIT_MIGRATE_INJECT=stale
migrate 1 --bandwidth unlimited --downtime-limit 2s --warmup 200ms
says 'is stale: it holds generation [0-9]+, [0-9]+ was written last'
source_is_intact
finish
