/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_CODECS_H
#define GODWIT_CODECS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/stats.h>

/*
 * codecs - bytes in, bytes out.
 *
 * Three things, in three files, which know neither pages nor threads nor clocks:
 *   codec.c	a rung and a block of bytes -> fewer bytes, and back (none, LZ4, zstd, zlib)
 *   ladder.c	which rung for this block, when nobody asked for a particular one
 *   price.c	what a byte on the wire is worth just now
 */

/* Memory of the caller: src/ has no malloc of its own. alloc returns NULL or memory aligned to 64. */
struct godwit_alloc {
	void *(*alloc)(void *user, size_t bytes);
	void (*free)(void *user, void *mem);
	void *user;
};

/* ---- rungs ---- */

/*
 * One step of effort. codec: enum godwit_codec. level: LZ4 acceleration 1 to 65, zstd -20 to 19 but
 * not 0, zlib 1 to 9, and 0 for none.
 */
struct godwit_rung {
	uint8_t codec;
	int8_t level;
};

/*
 * godwit_rung_parse() - "none", "lz4", "lz4:8", "zstd1", "zstd-5", "zlib6" -> rung.
 *
 * Result: true and either *rung_ret set and *is_auto_ret false, or, for NULL and "auto", *is_auto_ret
 *         true and *rung_ret untouched. false: there is no such rung; both untouched.
 */
bool godwit_rung_parse(const char *name, struct godwit_rung *rung_ret, bool *is_auto_ret);

/* The name that parses to this rung; "?" for one that is not valid. */
void godwit_rung_name(struct godwit_rung rung, char name_ret[16]);

bool godwit_rung_is_valid(struct godwit_rung rung);

/* ---- codecs ---- */

/* Blocks longer than this are refused by compress and by decompress. */
#define GODWIT_CODEC_MAX_BYTES (1u << 20)

/*
 * One context a thread. create allocates (the struct and zlib's state from alloc, which is copied;
 * zstd's state inside libzstd) all that decompress needs. What a rung needs to compress is allocated and
 * touched at the first block of its size, once: at any rung, for blocks up to 128 KiB.
 *
 * create: 0 or -ENOMEM. destroy(NULL) does nothing.
 */
struct godwit_codec_ctx;
int godwit_codec_ctx_create(const struct godwit_alloc *alloc, struct godwit_codec_ctx **ctx_ret);
void godwit_codec_ctx_destroy(struct godwit_codec_ctx *ctx);

/*
 * godwit_codec_prepare() - what the first such block would wait for, for a caller who is about to time it.
 *
 * Result: false: no memory; compress will say 0.
 */
bool godwit_codec_prepare(struct godwit_codec_ctx *ctx, struct godwit_rung rung, size_t in_bytes);

/*
 * godwit_codec_compress() - one block, on its own: no history, no header but the codec's own.
 *
 * Shape:  in and out do not overlap; in holds still during the call. A caller who wants "smaller or
 *         not at all" passes out_cap_bytes = in_bytes - 1.
 * Result: bytes written to out; 0: did not fit in out_cap_bytes (or the block is empty or too long, or there is
 *         no memory for a rung's first block); then out is undefined. Nothing is written behind out_cap_bytes. An invalid rung is a bug.
 */
size_t godwit_codec_compress(struct godwit_codec_ctx *ctx, struct godwit_rung rung, const void *in,
			     size_t in_bytes, void *out, size_t out_cap_bytes);

/*
 * godwit_codec_decompress() - the way back, from a peer that may be hostile.
 *
 * Result: true only if in, all of it, is one block of this codec and decodes to exactly out_bytes.
 *         Nothing is written behind out_bytes, nothing is allocated, whatever in says; after false
 *         out is undefined, and the context is as good as before.
 */
bool godwit_codec_decompress(struct godwit_codec_ctx *ctx, unsigned codec, const void *in,
			     size_t in_bytes, void *out, size_t out_bytes);

/* ---- the ladder: which rung for this block ---- */

/*
 * The rungs of auto, lightest first; 0 is always none. The choice is the rung with the least
 *
 *	predicted worker time + price * predicted bytes out
 *
 * where price is picoseconds of worker time that one byte less on the wire is worth. The same price for
 * all workers makes the choice the best one over the whole mix of blocks (a Lagrange weight).
 */
enum { GODWIT_LADDER_MAX = 8, GODWIT_LADDER_KINDS = 2 };

extern const unsigned godwit_ladder_rungs;
struct godwit_rung godwit_ladder_rung(unsigned index);

/* One per worker, in the caller's memory; no atomics. Fields are ladder.c's. */
struct godwit_ladder {
	struct godwit_ladder_kind {
		float content;		/* how well the last blocks shrank, 1 = as the priors say */
		float entropy;		/* what a failed search for matches leaves of content */
		float slowness;		/* how slow the last blocks were, 1 = as the priors say */
		struct {
			float depth;	/* log2(bytes in / bytes out) at content 1 */
			float ns;	/* worker time per byte in at slowness 1 */
		} rung[GODWIT_LADDER_MAX];
		uint32_t picks;		/* blocks asked for */
		uint32_t probe_at;	/* value of picks when the next probe is due */
		uint32_t last;		/* rung of the block learned last */
		uint32_t probes;	/* probes so far */
		uint32_t comparisons;	/* of two families of codecs, up to where it matters */
		uint32_t twin_last;	/* value of picks when a block last went through both twins */
		uint32_t twin_gap;
		uint32_t twins;		/* blocks that did, up to where it matters */
	} kind[GODWIT_LADDER_KINDS];
};

/* Priors measured on real guests. */
void godwit_ladder_init(struct godwit_ladder *ladder);

/* kind: 0 a block that is mostly deltas, 1 one of whole pages. Returns an index into the ladder. */
unsigned godwit_ladder_pick(struct godwit_ladder *ladder, unsigned kind, size_t in_bytes,
			    uint64_t price_ps);

/* What came of it: out_bytes = in_bytes when it did not shrink; cpu_ns = 0 when it was not measured. */
void godwit_ladder_learn(struct godwit_ladder *ladder, unsigned kind, unsigned index, size_t in_bytes,
			 size_t out_bytes, uint64_t cpu_ns);

/*
 * The two heaviest rungs are so near to each other that only a block which went through both compares them.
 * After a pick: the other one of them, when that is due for this block, else the pick itself.
 */
unsigned godwit_ladder_twin(struct godwit_ladder *ladder, unsigned kind, unsigned pick);

struct godwit_ladder_result {
	size_t out_bytes;		/* the block's own when it did not shrink */
	uint64_t cpu_ns;		/* 0: not measured */
};

/* What came of that; godwit_ladder_learn() is told of the pick as ever. */
void godwit_ladder_learn_twins(struct godwit_ladder *ladder, unsigned kind, size_t in_bytes,
			       const struct godwit_ladder_result *light, const struct godwit_ladder_result *heavy);

/*
 * Nanoseconds that such a block would take on the machine of the priors: fixed cost per call included,
 * how slow the last blocks were left out. What a block took over this compares across rungs and sizes.
 */
uint64_t godwit_ladder_usual_ns(const struct godwit_ladder *ladder, unsigned kind, unsigned index,
				size_t in_bytes);

/* ---- the price controller ---- */

/* What happened since the last step. All but workers are differences over span_ns. */
struct godwit_price_input {
	uint64_t span_ns;		/* wall time */
	uint64_t link_busy_ns;		/* the caller was writing frames, or held back after that */
	uint64_t link_starved_ns;	/* the caller waited for workers and had nothing to write */
	uint64_t worker_idle_ns;	/* sum over workers: no batch to encode, or no processor yet */
	uint64_t worker_late_ns;	/* sum over workers: of that, no processor */
	uint64_t worker_cpu_ns;		/* sum over workers: encoding, CPU time */
	uint64_t worker_wall_ns;	/* sum over workers: encoding, wall time */
	uint32_t workers;
	uint64_t wire_bytes;		/* written */
	uint64_t retired_bytes;		/* payload that they stand for: without pages that need no bytes */
	uint64_t link_held_ns;		/* of link_busy_ns, by the caller's own limit; 0: none */
};

/* One per source, in the caller's memory. Fields are price.c's; link_ps_per_byte may be read. */
struct godwit_price {
	struct godwit_price_input sum;	/* inputs not acted upon yet */
	double octave;			/* log2 of the price in picoseconds */
	double link_ps_per_byte;	/* smoothed; 0: not known yet */
	double link_octave;		/* where the price is when neither side is short */
	double gain;			/* octaves that a short step takes when the imbalance is complete */
	double imbalance;		/* at the last step: above 0 workers idle, below 0 the link */
	double retired_rate;		/* bytes per ns, smoothed */
	double wire_rate;
	double preempted;		/* share of all worker time lost for want of a processor, smoothed */
	double late;			/* share of all time in which workers woke for want of one, smoothed */
	double above;			/* octaves by which the price may be above link_octave */
	struct godwit_price_mark {	/* a place to compare with */
		double octave;
		double retired_rate;
		double wire_rate;
		uint32_t step;
	} mark;
	uint32_t mode;			/* enum mode */
	uint32_t step;			/* steps taken */
	uint32_t until;			/* step at which the mode, or the truce, is over */
	uint32_t patience;		/* how long to hold after the next disappointment, in steps */
	uint32_t truce_until;		/* preemption is not acted upon before this step */
	uint32_t known_until;		/* step up to which a held link is known for what it is */
	uint32_t full_from;		/* step from which wire_rate is followed again */
	uint32_t truce;			/* how long the next truce is, in steps */
	bool is_preempted;		/* why the present descent began */
	bool has_helped;		/* it retired more */
};

void godwit_price_init(struct godwit_price *price);

/*
 * Called every few milliseconds by one thread; returns the new price_ps for godwit_ladder_pick(). A
 * link that is starved makes it fall, workers that idle make it rise, as long as that brings more
 * guest bytes over (price.c). Time that is neither busy nor starved is the caller's own.
 */
uint64_t godwit_price_step(struct godwit_price *price, const struct godwit_price_input *input);

#endif
