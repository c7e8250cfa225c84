/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_STATS_H
#define GODWIT_STATS_H

#include <godwit/common.h>

#ifdef __cplusplus
extern "C" {
#endif

enum godwit_codec {
	GODWIT_CODEC_NONE = 0,
	GODWIT_CODEC_LZ4 = 1,
	GODWIT_CODEC_ZSTD = 2,
	GODWIT_CODEC_ZLIB = 3,
	GODWIT_CODECS = 4,
};

/*
 * struct godwit_stats - what went through a source or a destination.
 *
 * Read from any thread at any time, and after the end. Each counter is exact; counters of one
 * snapshot taken while pages flow may differ from each other by what was in flight. After a drain:
 *
 *   pages = zero + fill + same + delta_words + delta_lines + whole + raw + busy
 *   wire_bytes = bytes of all frames handed to the caller (stream header and drain frames included)
 *
 * With the stock stream a fill has no kind of its own, whole stays 0, and pages go as
 *
 *   zero          QEMU's zero page
 *   delta_lines   XBZRLE made from signatures; delta_words: from an old page
 *   raw           QEMU's normal page
 *
 * and there is no codec: everything counts as in and out of none.
 *
 * Rates are of the span that the snapshot covers (since the source was made, or one round).
 */
struct godwit_stats {
	size_t size;			/* in: sizeof(struct godwit_stats) as the caller knows it */

	/* Pages, by how they went. */
	uint64_t pages;			/* queued, or sent by the caller because all were busy */
	uint64_t zero;
	uint64_t fill;			/* one 8-byte word repeated, not zero */
	uint64_t same;			/* the destination has it already: sent as nothing */
	uint64_t delta_words;
	uint64_t delta_lines;
	uint64_t whole;			/* through a codec, and smaller for it */
	uint64_t raw;			/* as it is: rung none, or the codec did not shrink it */
	uint64_t busy;			/* handed back to the caller, who sends it as it is */
	double busy_rate;		/* busy / pages */

	/* Bytes, by encoding: guest bytes stood for, and bytes in the payload before the codec. */
	uint64_t delta_guest_bytes;
	uint64_t delta_payload_bytes;	/* the delta's reduced size; stock: with the 3 bytes in front of it, as
					 * QEMU counts */
	double delta_rate;		/* delta_guest_bytes / delta_payload_bytes */
	uint64_t whole_guest_bytes;

	/* Bytes, by codec: into it and out of it. in = out for none. */
	uint64_t codec_in_bytes[GODWIT_CODECS];
	uint64_t codec_out_bytes[GODWIT_CODECS];
	uint64_t compressed_pages;	/* pages whose bytes went through a codec that shrank them */
	double compression_rate;	/* in / out over the codecs other than none */

	/* The base cache. */
	uint64_t base_bytes;		/* memory that it takes now */
	uint32_t base;			/* enum godwit_base_kind in force */
	uint32_t base_granule_bytes;	/* bytes per signature; 0 without signatures */
	uint64_t base_hits;		/* non-zero, non-fill pages with a known base: same or compared */
	uint64_t base_misses;		/* without one */
	double base_miss_rate;
	uint64_t overflow;		/* known base, but so much changed that the page went whole */

	/* The wire. */
	uint64_t frames;		/* batches encoded */
	uint64_t payload_bytes;		/* what came out of the LZ stage */
	uint64_t wire_bytes;		/* all bytes of all frames */
	uint64_t retired_bytes;		/* guest bytes that the frames stand for */
	double wire_bytes_per_s;
	double retired_bytes_per_s;

	/* Time and waiting. */
	uint64_t span_ns;		/* what this snapshot covers */
	uint64_t worker_cpu_ns;		/* source: encode; destination: decode and apply */
	uint64_t submit_cpu_ns;		/* of the thread that queues, collects and drains, inside the engine;
					 * sampled, see source.h */
	uint64_t wakes;			/* futex wakes of workers */
	uint64_t waits;			/* times the caller slept because every ring was full */
	uint64_t wait_ns;		/* for how long */
	uint64_t collect_ns;		/* from collect to release: the caller writing; and held back */

	/* Now. */
	uint32_t workers;
	uint32_t rounds;		/* rounds begun */
	char rung[16];			/* the rung most used over the last batches; stock: "xbzrle" */

	uint64_t base_seeds;		/* of base_misses, those of the first round: nothing could be known yet */
};
#define GODWIT_STATS_INIT { .size = sizeof(struct godwit_stats) }

#ifdef __cplusplus
}
#endif
#endif
