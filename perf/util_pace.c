/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util_pace.c - a token bucket that sleeps
 *
 * Bytes are taken before they are sent and may put the bucket in debt by one write; the sleep pays
 * the debt. So the mean rate is exact whatever the size of the writes, and a write larger than the
 * bucket is not stuck. The bucket holds 2 ms (at least one collect's worth): a caller that was late
 * by a scheduling tick catches up, one that was idle for a second does not burst for a second.
 */
#include "perf.h"

#define BURST_NS 2000000u
#define BURST_MIN_BYTES (64u << 10)

void pace_init(struct pace *pace, uint64_t bytes_per_s)
{
	double burst = (double)bytes_per_s * BURST_NS / 1e9;

	*pace = (struct pace){
		.bytes_per_s = bytes_per_s,
		.burst_bytes = burst > BURST_MIN_BYTES ? (uint64_t)burst : BURST_MIN_BYTES,
		.last_ns = now_ns(),
	};
}

uint64_t pace_wait(struct pace *pace, uint64_t bytes)
{
	if (!pace->bytes_per_s)
		return 0;

	uint64_t now = now_ns();

	pace->level_bytes += (double)(now - pace->last_ns) * (double)pace->bytes_per_s / 1e9;
	if (pace->level_bytes > (double)pace->burst_bytes)
		pace->level_bytes = (double)pace->burst_bytes;
	pace->level_bytes -= (double)bytes;
	pace->last_ns = now;
	if (pace->level_bytes >= 0)
		return 0;

	uint64_t until = now + (uint64_t)(-pace->level_bytes / (double)pace->bytes_per_s * 1e9);

	sleep_until(until);
	return now_ns() - now;
}
