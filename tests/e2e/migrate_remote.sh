#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_remote.sh - two processes started apart; parameters that change while pages flow

. "$(dirname "$0")/migrate_lib.bash"

start_destination
migrate 0 --connect "127.0.0.1:$port" --bandwidth unlimited --json
json "j['verified']"
wait $destination || bad "the destination ended with $?: $(<"$work/there")"
grep -q 'The workload runs here: .*then all 8192: none is wrong' "$work/port" || bad "$(<"$work/port")"

find_relay
start_destination
start_relay none 1 0
migrate 0 --connect "127.0.0.1:$port" --bandwidth 1Gbit --json
json "j['verified'] and j['bytes_add_up']"
wait $destination || bad "the destination behind a relay ended with $?"

# Another program, and another version, on the port.
start_destination
printf 'GET / HTTP/1.0\r\n\r\n' >"/dev/tcp/127.0.0.1/$port"
wait $destination && bad "a destination took a web browser for a guest"
grep -qE 'corrupt|closed' "$work/there" || bad "the destination says: $(<"$work/there")"

# Each in flight, some by round, some by time; refused ones change nothing.
migrate 0 --json --bandwidth 150Mbit --downtime-limit 1 --max-rounds 40 \
	--set rung=lz4@100ms --set workers=3@150ms --set rung=zstd1@200ms --set workers=1@250ms \
	--set base-bytes=1M@2 --set base=pages@3 --set base=off@4 --set base=signatures@5 \
	--set when-busy=raw@300ms --set bandwidth=200Mbit@350ms --set when-busy=wait@400ms \
	--set rung=gzip@2 --set workers=100000@2 --set base=cache@2 --set downtime-limit=300@6
json "j['verified'] and j['bytes_add_up'] and len(j['changes']) == 15"
json "all(c['done'] == (c['value'] not in ('gzip', '100000', 'cache')) for c in j['changes'])"
json "all(c['refused'] for c in j['changes'] if c['value'] in ('gzip', '100000', 'cache'))"
json "j['workers'] == 1 and j['rung'] == 'zstd1' and j['base'] == 'signatures'"
finish
