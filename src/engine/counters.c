/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * counters.c - from what threads counted to struct godwit_stats
 */
#include <errno.h>
#include <string.h>

#include "engine/counters.h"

static double ratio(uint64_t over, uint64_t under)
{
	return under ? (double)over / (double)under : 0.0;
}

void godwit_stats_derive(struct godwit_stats *stats, const uint64_t sum[GODWIT_COUNTERS],
			 uint64_t span_ns)
{
	uint64_t shrunk_in = 0, shrunk_out = 0;

	stats->zero = sum[GODWIT_COUNT_ZERO];
	stats->fill = sum[GODWIT_COUNT_FILL];
	stats->same = sum[GODWIT_COUNT_SAME];
	stats->delta_words = sum[GODWIT_COUNT_WORDS];
	stats->delta_lines = sum[GODWIT_COUNT_LINES];
	stats->whole = sum[GODWIT_COUNT_WHOLE];
	stats->raw = sum[GODWIT_COUNT_RAW];
	stats->busy = sum[GODWIT_COUNT_BUSY];
	stats->pages = stats->zero + stats->fill + stats->same + stats->delta_words +
		       stats->delta_lines + stats->whole + stats->raw + stats->busy;
	stats->busy_rate = ratio(stats->busy, stats->pages);

	stats->delta_guest_bytes = (stats->delta_words + stats->delta_lines) * GODWIT_PAGE_BYTES;
	stats->delta_payload_bytes = sum[GODWIT_COUNT_DELTA_BYTES];
	stats->delta_rate = ratio(stats->delta_guest_bytes, stats->delta_payload_bytes);
	stats->whole_guest_bytes = (stats->whole + stats->raw) * GODWIT_PAGE_BYTES;

	for (unsigned codec = 0; codec < GODWIT_CODECS; codec++) {
		stats->codec_in_bytes[codec] = sum[GODWIT_COUNT_CODEC_IN + codec];
		stats->codec_out_bytes[codec] = sum[GODWIT_COUNT_CODEC_OUT + codec];
		stats->payload_bytes += stats->codec_out_bytes[codec];
		if (codec != GODWIT_CODEC_NONE) {
			shrunk_in += stats->codec_in_bytes[codec];
			shrunk_out += stats->codec_out_bytes[codec];
		}
	}
	stats->compressed_pages = sum[GODWIT_COUNT_SHRUNK];
	stats->compression_rate = ratio(shrunk_in, shrunk_out);

	stats->base_hits = sum[GODWIT_COUNT_HITS];
	stats->base_misses = sum[GODWIT_COUNT_MISSES];
	stats->base_miss_rate = ratio(stats->base_misses, stats->base_hits + stats->base_misses);
	stats->overflow = sum[GODWIT_COUNT_OVERFLOW];

	stats->frames = sum[GODWIT_COUNT_FRAMES];
	stats->wire_bytes = sum[GODWIT_COUNT_WIRE_BYTES];
	stats->retired_bytes = (stats->pages - stats->busy) * GODWIT_PAGE_BYTES;
	stats->span_ns = span_ns;
	stats->wire_bytes_per_s = 1e9 * ratio(stats->wire_bytes, span_ns);
	stats->retired_bytes_per_s = 1e9 * ratio(stats->retired_bytes, span_ns);

	stats->submit_cpu_ns = sum[GODWIT_COUNT_SUBMIT_NS];
	stats->wakes = sum[GODWIT_COUNT_WAKES];
	stats->waits = sum[GODWIT_COUNT_WAITS];
	stats->wait_ns = sum[GODWIT_COUNT_WAIT_NS];
	stats->collect_ns = sum[GODWIT_COUNT_COLLECT_NS];
}

int godwit_stats_give(struct godwit_stats *out, const struct godwit_stats *stats)
{
	size_t size = out->size;

	if (size < offsetof(struct godwit_stats, zero))
		return -EINVAL;
	memset(out, 0, size);
	memcpy(out, stats, size < sizeof(*stats) ? size : sizeof(*stats));
	out->size = size;
	return 0;
}
