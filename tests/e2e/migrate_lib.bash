# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_lib.bash - what the migrate_*.sh tests share: run, judge, clean up. Sourced.

set -u
perf=${GODWIT_PERF:?the path of godwit-perf}
here=$(dirname "${BASH_SOURCE[0]}")
command -v python3 >/dev/null || { echo "python3 is needed to read JSON"; exit 77; }
work=$(mktemp -d)
started=()
trap 'for p in ${started[@]+"${started[@]}"}; do kill "$p" 2>/dev/null; done; rm -rf "$work"' EXIT
failures=0

# A small guest that is over in a second or two.
small=(--ram 32M --dirty-rate 20000 --warmup 50ms --verify-time 150ms --stall-timeout 5s)

bad()
{
	echo "FAIL: $*" >&2
	failures=$((failures + 1))
}

finish()
{
	[[ $failures -eq 0 ]] && echo "ok" && exit 0
	echo "$failures failed" >&2
	exit 1
}

# migrate <expected exit status> <options>...: output to $work/out, messages to $work/err
migrate()
{
	local expected=$1 status=0
	shift
	timeout 60 "$perf" migrate "${small[@]}" "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
	last="migrate $*"
	[[ $status -eq $expected ]] ||
		bad "'$last' ended with $status, not $expected: $(tail -n 5 "$work/err")"
}

# json <check in python, j is the document>: of the last migrate
json()
{
	python3 - "$work/out" "$1" <<'PY' || bad "'$last': not so: $1"
import json, sys
j = json.load(open(sys.argv[1]), parse_constant=lambda c: sys.exit('no number: ' + c))
assert eval('(' + sys.argv[2] + ')'), {k: v for k, v in j.items() if not isinstance(v, list)}
PY
}

says()
{
	grep -qE -- "$1" "$work/err" || bad "'$last' does not say '$1' but: $(<"$work/err")"
}

source_is_intact()
{
	says 'source workload intact: .*pages checked'
}

# start_destination <options>...: its port in $port, its process in $destination
start_destination()
{
	: >"$work/port"
	timeout 60 "$perf" migrate --listen 127.0.0.1:0 --stall-timeout 5s "$@" \
		>"$work/port" 2>"$work/there" </dev/null &
	destination=$!
	started+=("$destination")
	for _ in {1..200}; do
		port=$(sed -n 's/^listening on port //p' "$work/port")
		[[ -n $port ]] && return
		sleep 0.02
	done
	bad "the destination does not listen: $(<"$work/there")"
}

# The tests' build makes it; without, it is made here.
find_relay()
{
	local beside
	beside=$(dirname "$perf")/../tests/relay
	relay=${GODWIT_RELAY:-$beside}
	[[ -x $relay ]] && return
	relay=$work/relay
	${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O1 -pthread -o "$relay" "$here/relay.c" && return
	echo "no relay and no compiler"
	exit 77
}

# start_relay <mode> <connection> <bytes>: in front of $port, which becomes the relay's
start_relay()
{
	: >"$work/relay.port"
	"$relay" "$port" "$@" >"$work/relay.port" &
	started+=($!)
	for _ in {1..200}; do
		[[ -s $work/relay.port ]] && break
		sleep 0.02
	done
	port=$(<"$work/relay.port")
}
