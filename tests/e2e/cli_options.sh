#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# cli_options.sh - help, version and wrong command lines: what is printed, where, and the exit status

set -u
perf=${GODWIT_PERF:?the path of godwit-perf}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

bad()
{
	echo "FAIL: $*" >&2
	failures=$((failures + 1))
}

# expect <status> <where: out|err> <pattern> <arguments>...
expect()
{
	local status=$1 where=$2 pattern=$3 got other=out
	shift 3
	[[ $where == out ]] && other=err
	"$perf" "$@" >"$work/out" 2>"$work/err" </dev/null
	got=$?
	[[ $got == "$status" ]] || bad "'$*' ended with $got, not $status: $(<"$work/err")"
	grep -qE -- "$pattern" "$work/$where" || bad "'$*' does not say '$pattern' on std$where"
	[[ ! -s $work/$other ]] || bad "'$*' wrote to std$other: $(head -3 "$work/$other")"
}

commands="migrate estimate encode delta ring"

expect 0 out '^godwit-perf [0-9]+\.[0-9]+\.[0-9]+$' --version
expect 2 err '^usage: godwit-perf COMMAND'
for help in --help -h help; do
	expect 0 out '^usage: godwit-perf COMMAND' $help
	for command in $commands; do
		grep -qE "^  $command " "$work/out" || bad "$help does not list $command"
	done
done
expect 2 err "no command 'frobnicate'; the commands are migrate, estimate, encode, delta, ring" frobnicate
expect 2 err "no option '--frob'" --frob

for command in $commands; do
	expect 0 out "^usage: godwit-perf $command " $command --help
	grep -qE '^  --json' "$work/out" || bad "$command --help does not list --json"
	grep -qE '^  --help' "$work/out" || bad "$command --help does not list --help"
	awk 'length > 100' "$work/out" | grep -q . && bad "$command --help has lines over 100 columns"
	expect 2 err "^godwit-perf $command: '--frob' is not an option" $command --frob
	expect 2 err "Try 'godwit-perf $command --help'" $command --frob
	expect 2 err "^godwit-perf $command: 'stray' is not an option" $command stray
done

# Each command's documented options are the ones that it has.
page=$(dirname "$0")/../../docs/godwit-perf.1
for command in $commands; do
	"$perf" $command --help | grep -oE '^  --[a-z-]+' | tr -d ' ' | sort -u >"$work/has"
	sed -n "/^\\.Ss godwit-perf $command\$/,/^\\.S[hs] /p" "$page" | grep -oE 'Fl -[a-z-]+' |
		sed 's/Fl -/--/' | sort -u >"$work/told"
	while read -r option; do
		[[ $option == --help ]] || grep -qx -- "$option" "$work/told" ||
			bad "$command $option is not in the man page"
	done <"$work/has"
	while read -r option; do
		grep -qx -- "$option" "$work/has" || bad "the man page tells of $command $option, which is not there"
	done <"$work/told"
done

# Values, and what is accepted instead.
head -c 8192 /dev/zero >"$work/pages"
encode=(encode --new "$work/pages")
expect 2 err -- '--new FILE is needed' encode
expect 2 err -- '--new needs a value' encode --new
for wrong in 0 -1 257 x 1x ''; do
	expect 2 err -- '--workers .*a number from 1 to 256' "${encode[@]}" --workers "$wrong"
done
for wrong in 1G 1g 1.Gb Gbit 1e9 -1Gbit 0x10 1Gbps nan 1Mbitt '1 Gbit'; do
	expect 2 err -- '--bandwidth .*1Gbit, 125MB' "${encode[@]}" --bandwidth "$wrong"
done
for wrong in '' K -1 1Q 1KiBi 99999999999T; do
	expect 2 err -- '--base-bytes .*such as 512M' "${encode[@]}" --base-bytes "$wrong"
done
for wrong in '' zstd zstd0 zstd20 lz4:0 lz4:66 zlib10 snappy; do
	expect 2 err -- "rung '$wrong'" "${encode[@]}" --rung "$wrong"
done
expect 2 err -- '--base lru: signatures, pages or off' "${encode[@]}" --base lru
expect 2 err -- '--repeat' "${encode[@]}" --repeat 0
expect 2 err -- 'takes no value' "${encode[@]}" --json=1
expect 2 err -- '--interval .*300ms' estimate --new "$work/pages" --old "$work/pages" --interval 5
expect 2 err -- 'either --pid PID or --new FILE' estimate
expect 2 err -- 'either --pid PID or --new FILE' estimate --pid 1 --new "$work/pages"
expect 2 err -- '--old goes with --new' estimate --pid 1 --old "$work/pages"
expect 2 err -- '--largest and --pages go with --pid' estimate --new "$work/pages" --largest
expect 2 err -- 'without limit' estimate --new "$work/pages" --bandwidth 1Gbit,0

# Files that are not what they should be: 1, for the command line was right.
expect 1 err "nowhere: No such file" encode --new "$work/nowhere"
expect 1 err "is a directory" encode --new "$work"
: >"$work/empty"
expect 1 err "is empty" encode --new "$work/empty"
head -c 5000 /dev/zero >"$work/odd"
expect 1 err "5000 bytes is not a whole number" encode --new "$work/odd"
head -c 4096 /dev/zero >"$work/one"
expect 1 err "page i of both must be the same" encode --new "$work/pages" --old "$work/one"
cp "$work/pages" "$work/not.zst"
expect 1 err "is it a zstd file" encode --new "$work/not.zst"
if command -v zstd >/dev/null; then
	head -c 100000 /dev/urandom | zstd -q -c | head -c 50000 >"$work/cut.zst"
	expect 1 err "ends in the middle" encode --new "$work/cut.zst"
fi

# Output that cannot be written is a failure.
if [[ -e /dev/full ]]; then
	"$perf" "${encode[@]}" --repeat 1 --json >/dev/full 2>"$work/err"
	[[ $? == 1 ]] || bad "encode --json onto a full device did not fail"
fi

((failures == 0)) || { echo "$failures failures" >&2; exit 1; }
