#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_cancel.sh - ^C: the workload runs on at the source, the destination ends by itself, 130

. "$(dirname "$0")/migrate_lib.bash"

# A background process of a script ignores SIGINT unless it is given back: python does.
interrupt_after()
{
	local seconds=$1
	shift
	status=0
	python3 - "$seconds" "$perf" migrate "${small[@]}" "$@" >"$work/out" 2>"$work/err" <<'PY' || status=$?
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
p = subprocess.Popen(sys.argv[2:])
time.sleep(float(sys.argv[1]))
p.send_signal(signal.SIGINT)
sys.exit(p.wait(timeout=20))
PY
	last="$* and ^C"
	[[ $status -eq 130 ]] || bad "'$last' ended with $status, not 130: $(<"$work/err")"
}

interrupt_after 0.7 --bandwidth 30Mbit
says 'migration cancelled; the workload runs on at the source \(8192 pages checked\)'
grep -q 'Migration status: cancelled' "$work/out" || bad "no status: $(<"$work/out")"

start_destination
interrupt_after 0.7 --bandwidth 30Mbit --connect "127.0.0.1:$port" --json
json "j['status'] == 'cancelled' and j['source_intact'] and not j['resumed_at_destination']"
status=0
wait $destination || status=$?
[[ $status -eq 1 ]] || bad "the destination of a cancelled migration ended with $status"
grep -q 'cancelled' "$work/there" || bad "the destination says: $(<"$work/there")"
finish
