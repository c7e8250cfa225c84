#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_syscalls.sh - between the first frame and the last, the migration thread makes no system call but
# the socket's, pacing, dirty tracking and wakes (and waits when every worker is busy); so it asks
# for no memory either

. "$(dirname "$0")/migrate_lib.bash"
command -v strace >/dev/null || { echo "strace is needed"; exit 77; }
strace -o /dev/null true 2>/dev/null || { echo "strace may not trace here"; exit 77; }
grep -qE '__(asan|tsan)_init' "$perf" && { echo "sanitizers make system calls of their own"; exit 77; }

last="strace migrate"
timeout 60 strace -f -o "$work/trace" "$perf" migrate "${small[@]}" --ram 64M --bandwidth 500Mbit --json \
	>"$work/out" 2>"$work/err" </dev/null || bad "under strace: $(tail -n 3 "$work/err")"
json "j['verified']"
python3 - "$work" <<'PY' || bad "the steady state has other system calls"
import collections, json, re, sys
work = sys.argv[1]
report = json.load(open(work + '/out'))
lines = open(work + '/trace').read().splitlines()
thread = lines[0].split()[0]
calls = [l.split(None, 1)[1] for l in lines if l.split(None, 1)[0] == thread]
calls = [c for c in calls if not c.startswith('<...')]
# Messages on the data connection begin with these bytes.
frames = [i for i, c in enumerate(calls) if c.startswith('sendmsg') and '"it-l' in c]
assert len(frames) > 10, len(frames)
steady = calls[frames[0]:frames[-1] + 1]
count = collections.Counter(c.split('(')[0] for c in steady)
print(dict(count), 'for', report['pages'], 'pages')
allowed = {'sendmsg', 'clock_nanosleep', 'futex', 'ioctl'}
# Reading a round's statistics asks for the workers' CPU time; without a vDSO every clock is a call.
clocks = [c for c in steady if c.startswith('clock_gettime') and 'MONOTONIC' not in c]
assert len(clocks) <= 16 * (report['workers'] + 1) * len(report['rounds']), len(clocks)
assert set(count) - {'clock_gettime'} <= allowed, count
wakes = sum('FUTEX_WAKE' in c for c in steady)
# Below, not equal: strace slows what makes the difference.
assert wakes <= report['wakes'] + 64, (wakes, report['wakes'])
PY
finish
