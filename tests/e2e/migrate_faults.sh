#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# migrate_faults.sh - a connection that is cut, ends early, stalls or lies; a destination that dies: a
# clear error, exit status 1, and a source whose workload is intact

. "$(dirname "$0")/migrate_lib.bash"
find_relay

# through <mode> <connection> <bytes> <what both ends may say>
through()
{
	local patience=10s		# a busy machine is no stall

	[[ $1 != stall ]] || patience=1s
	start_destination
	start_relay "$1" "$2" "$3"
	migrate 1 --connect "127.0.0.1:$port" --bandwidth 1Gbit --stall-timeout $patience
	says "$4"
	source_is_intact
	grep -q 'intact' "$work/err" && [[ $(grep -c . "$work/err") -le 3 ]] || bad "too many words: $(<"$work/err")"
	status=0
	wait $destination || status=$?
	[[ $status -eq 1 ]] || bad "the destination ended with $status after $1: $(<"$work/there")"
	[[ -s $work/there ]] || bad "the destination says nothing after $1"
}

gone='closed the connection|connection broke|cut off'
through cut 2 3000000 "$gone"
through cut 1 600 "$gone"
through trunc 2 3000000 'cut off after [0-9]+ bytes'
through trunc 2 8 'cut off after 8 bytes'
through stall 2 3000000 'no byte|for 1\.0 s'
# A bit in the token, in a message head, in the stream header, in frames.
through flip 2 3 'belongs to another migration'
through flip 2 20 'corrupt'
for at in 45 100 1000 50000 2000000; do
	through flip 2 $at 'destination: .'
done
through flip 1 4 'corrupt|destination: message'

# A destination that is killed: its own by signal, one of ours by us.
GODWIT_MIGRATE_DIE=3000000 migrate 1 --bandwidth 1Gbit
says 'ended by signal 9|connection broke|closed the connection'
source_is_intact
# A destination that stands still.
start_destination
still=$(pgrep -P $destination)
( sleep 0.8; kill -STOP "$still"; sleep 3; kill -TERM "$still"; kill -CONT "$still" ) &
killer=$!
migrate 1 --connect "127.0.0.1:$port" --bandwidth 30Mbit --stall-timeout 1s
says 'taken no byte for 1\.0 s|has not answered for 1\.0 s'
source_is_intact
wait $killer

# Nobody there.
migrate 1 --connect 127.0.0.1:1
says 'cannot connect to 127.0.0.1:1'
migrate 1 --connect nowhere
says "'nowhere' is not HOST:PORT"
finish
