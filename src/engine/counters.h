/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_COUNTERS_H
#define GODWIT_COUNTERS_H

/*
 * counters.h - what a thread counts, and how others read it
 *
 * Each thread has a set of its own, on its own cache lines, and is the only one to write it: an add is
 * a load and a store, both relaxed. Readers load relaxed and sum over the sets: each number is whole (64
 * bits are not torn here) and never goes back; numbers read together may differ by what was in flight.
 */

#include <stdatomic.h>
#include <stdalign.h>

#include <godwit/stats.h>

enum godwit_counter {
	GODWIT_COUNT_ZERO,
	GODWIT_COUNT_FILL,
	GODWIT_COUNT_SAME,
	GODWIT_COUNT_WORDS,
	GODWIT_COUNT_LINES,
	GODWIT_COUNT_WHOLE,
	GODWIT_COUNT_RAW,
	GODWIT_COUNT_BUSY,
	GODWIT_COUNT_DELTA_BYTES,	/* of deltas, before the codec */
	GODWIT_COUNT_SHRUNK,		/* pages in blocks that a codec shrank */
	GODWIT_COUNT_CODEC_IN,
	GODWIT_COUNT_CODEC_OUT = GODWIT_COUNT_CODEC_IN + GODWIT_CODECS,
	GODWIT_COUNT_HITS = GODWIT_COUNT_CODEC_OUT + GODWIT_CODECS,
	GODWIT_COUNT_MISSES,
	GODWIT_COUNT_OVERFLOW,
	GODWIT_COUNT_FRAMES,
	GODWIT_COUNT_WIRE_BYTES,
	GODWIT_COUNT_WAKES,
	GODWIT_COUNT_WAITS,
	GODWIT_COUNT_WAIT_NS,
	GODWIT_COUNT_SUBMIT_NS,
	GODWIT_COUNT_COLLECT_NS,
	GODWIT_COUNT_IDLE_NS,		/* workers: no batch there */
	GODWIT_COUNT_LATE_NS,		/* and of that: a batch there, but no processor */
	GODWIT_COUNT_WALL_NS,		/* workers: a batch there */
	GODWIT_COUNT_CODEC_NS,		/* workers, rung auto: in codecs */
	GODWIT_COUNT_LOST_NS,		/* and of that, without a processor */
	GODWIT_COUNTERS,
};

struct godwit_counters {
	alignas(128) _Atomic uint64_t of[GODWIT_COUNTERS];
};

static inline void godwit_count(struct godwit_counters *counters, enum godwit_counter which,
				uint64_t more)
{
	/* Relaxed: one writer, and readers want no order; see the top. */
	uint64_t old = atomic_load_explicit(&counters->of[which], memory_order_relaxed);

	atomic_store_explicit(&counters->of[which], old + more, memory_order_relaxed);
}

/* What a job counted in plain numbers, all at its end. */
static inline void godwit_counters_add(struct godwit_counters *counters,
				       const uint64_t count[GODWIT_COUNTERS])
{
	for (unsigned i = 0; i < GODWIT_COUNTERS; i++) {
		if (count[i])
			godwit_count(counters, i, count[i]);
	}
}

/* Add a set to plain sums. */
static inline void godwit_counters_sum(const struct godwit_counters *counters,
				       uint64_t sum[GODWIT_COUNTERS])
{
	for (unsigned i = 0; i < GODWIT_COUNTERS; i++)
		/* Relaxed: see the top. */
		sum[i] += atomic_load_explicit(&counters->of[i], memory_order_relaxed);
}

/* The sums as the public struct shows them, derived figures included. Sets neither size nor what is
 * not counted (base, workers, rung, CPU time). */
void godwit_stats_derive(struct godwit_stats *stats, const uint64_t sum[GODWIT_COUNTERS],
			 uint64_t span_ns);

/* Give a caller, who may be older or newer, what fits; -EINVAL when out->size is no size at all. */
int godwit_stats_give(struct godwit_stats *out, const struct godwit_stats *stats);

#endif
