/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ladder.c - which rung for this block, when nobody asked for a particular one
 *
 * Each block takes the rung with the least predicted worker time + price * predicted bytes out. That
 * needs a prediction for every rung, while only one of them is tried. Two facts of real guests carry it:
 *  - a block is like the block before it of the same kind, so the last result is the predictor;
 *  - rungs move together: what shrinks twice as deep (in the logarithm of the ratio) under LZ4 does so
 *    under zstd, and what does not shrink under one shrinks under none.
 * So the belief is one quick number for the content times one slow number for each rung:
 *
 *	log2(in / out) of rung i = content * depth[i]	time of rung i = slowness * (fixed[i] + ns[i] * in)
 *
 * Every block moves the quick number. The slow ones move when two rungs were tried on one block: from
 * block to block contents differ more than rungs do, and what is compared across blocks drifts until a light
 * rung is believed to shrink more than a heavy one.
 *
 * A probe tries a second rung on a block, which is then stored by the first. A neighbour is asked, as what
 * is further away is dear. The rung none tells nothing of the content and is known itself, so there the
 * block is stored by the rung that this price would take were the content typical: that one costs less than
 * not to compress a typical block, so at worst a probe doubles the cost of one block. Probes are as far apart
 * as keeps their cost at half a hundredth of all: where bytes are dear and worker time is not, they are frequent.
 *
 * At a price where two rungs cost the same, workers that all took the cheaper one would swing from all
 * light to all heavy. A price that is spread by half up and down, evenly from block to block, turns
 * that edge into a slope, and mixing two neighbours is often the best there is.
 *
 * The rungs and their figures: 64 KiB blocks of changed pages of three guests on Sapphire Rapids, whole and as
 * deltas, all on the convex hull of (time, bytes out) of some guest. zstd 2, 4, 5 and 7 to 19, zstd -2 to
 * -20 and zlib were left out: off the hull, or less than 2 % away from a mix of the two rungs beside them.
 */
#include <assert.h>
#include <float.h>
#include <string.h>

#include "codecs/approx.h"
#include "codecs/codecs.h"

#define RUNGS 7

/* Blocks between two probes; what they may cost beside all the others. */
#define PROBE_GAP_MIN 8.0f
#define PROBE_GAP_MAX 256.0f
#define PROBE_COST 0.005f

/* The content of a block is what it shrank to, but not above this: constant blocks are no guide. */
#define CONTENT_MAX 4.0f

#define ENTROPY_MAX 0.25f		/* see learn_entropy() */

/* How far one comparison moves what is believed. */
#define LEARN_DEPTH 0.5f
#define LEARN_TIME 0.08f

/*
 * Rungs that only look for matches, and rungs that code the literals by frequency as well: content
 * differs in what that is worth (a block of deltas: LZ4 1.4, zstd -1 1.5, zstd 1 1.9), so a comparison
 * of the two says something of every rung.
 */
enum family { PLAIN, MATCHES, FREQUENCIES };

static const struct prior {
	struct godwit_rung rung;
	enum family family;
	float fixed_ns;				/* per call, whatever the size */
	float depth[GODWIT_LADDER_KINDS];
	float ns[GODWIT_LADDER_KINDS];
} priors[RUNGS] = {
	{ { GODWIT_CODEC_NONE, 0 }, PLAIN, 100, { 0, 0 }, { 0.06f, 0.08f } },
	{ { GODWIT_CODEC_LZ4, 16 }, MATCHES, 300, { 0.87f, 0.95f }, { 1.05f, 1.00f } },
	{ { GODWIT_CODEC_LZ4, 1 }, MATCHES, 300, { 1.25f, 1.30f }, { 2.00f, 1.45f } },
	{ { GODWIT_CODEC_ZSTD, -1 }, MATCHES, 2500, { 1.59f, 1.62f }, { 2.90f, 2.10f } },
	{ { GODWIT_CODEC_ZSTD, 1 }, FREQUENCIES, 6000, { 1.80f, 1.73f }, { 3.00f, 2.40f } },
	{ { GODWIT_CODEC_ZSTD, 3 }, FREQUENCIES, 6500, { 1.83f, 1.77f }, { 3.50f, 2.75f } },
	{ { GODWIT_CODEC_ZSTD, 6 }, FREQUENCIES, 9000, { 1.89f, 1.83f }, { 11.0f, 8.30f } },
};

static_assert(RUNGS <= GODWIT_LADDER_MAX, "struct godwit_ladder has room for every rung");

const unsigned godwit_ladder_rungs = RUNGS;

struct godwit_rung godwit_ladder_rung(unsigned index)
{
	assert(index < RUNGS);
	return priors[index].rung;
}

void godwit_ladder_init(struct godwit_ladder *ladder)
{
	memset(ladder, 0, sizeof(*ladder));
	for (unsigned kind = 0; kind < GODWIT_LADDER_KINDS; kind++) {
		struct godwit_ladder_kind *k = &ladder->kind[kind];

		k->content = 1;
		k->slowness = 1;
		k->entropy = ENTROPY_MAX;
		for (unsigned i = 0; i < RUNGS; i++) {
			k->rung[i].depth = priors[i].depth[kind];
			k->rung[i].ns = priors[i].ns[kind];
		}
		k->probe_at = 64;
	}
}

static float usual_ns(const struct godwit_ladder_kind *k, unsigned i, size_t in_bytes)
{
	return priors[i].fixed_ns + k->rung[i].ns * (float)in_bytes;
}

static float predict_ns(const struct godwit_ladder_kind *k, unsigned i, size_t in_bytes)
{
	return k->slowness * usual_ns(k, i, in_bytes);
}

uint64_t godwit_ladder_usual_ns(const struct godwit_ladder *ladder, unsigned kind, unsigned index,
				size_t in_bytes)
{
	return (uint64_t)usual_ns(&ladder->kind[kind], index, in_bytes);
}

static unsigned cheapest(const struct godwit_ladder_kind *k, float content, size_t in_bytes,
			 float price_ns)
{
	float least = FLT_MAX;
	unsigned best = 0;

	for (unsigned i = 0; i < RUNGS; i++) {
		float out = (float)in_bytes * godwit_exp2f(-content * k->rung[i].depth);
		float cost = predict_ns(k, i, in_bytes) + price_ns * out;

		if (cost < least) {
			least = cost;
			best = i;
		}
	}
	return best;
}

/* An even spread over [1/2, 3/2): multiples of the golden ratio never clump. */
static float spread(uint32_t n)
{
	return 0.5f + 1.0f * (float)(n * 2654435769u >> 8) * 0x1p-24f;
}

static unsigned neighbour(const struct godwit_ladder_kind *k, unsigned best)
{
	if (best == RUNGS - 1)
		return best - 1;
	/* None is no probe: its result is known. */
	return k->probes % 2 && best > 1 ? best - 1 : best + 1;
}

/* Blocks to the next probe, when this one takes `extra_ns` more than the `cost_ns` of the block. */
static uint32_t probe_gap(float extra_ns, float cost_ns, float least)
{
	return (uint32_t)godwit_clampf(extra_ns / (PROBE_COST * cost_ns), least, PROBE_GAP_MAX);
}

static struct godwit_pick probe(struct godwit_ladder_kind *k, unsigned best, size_t in_bytes, float price_ns)
{
	float bytes = (float)in_bytes, cost, extra;
	struct godwit_pick pick = { best, best };
	uint32_t gap;

	if (best) {
		pick.probe = neighbour(k, best);
		cost = predict_ns(k, best, in_bytes) +
		       price_ns * bytes * godwit_exp2f(-k->content * k->rung[best].depth);
		gap = probe_gap(predict_ns(k, pick.probe, in_bytes), cost, PROBE_GAP_MIN);
	} else {
		/* Were it not to shrink. */
		pick.rung = pick.probe = cheapest(k, 1, in_bytes, price_ns);
		cost = predict_ns(k, 0, in_bytes) + price_ns * bytes;
		extra = predict_ns(k, pick.rung, in_bytes) - predict_ns(k, 0, in_bytes);
		gap = probe_gap(extra, cost, 1);
	}
	k->probe_at = k->picks + gap;
	k->probes++;
	return pick;
}

struct godwit_pick godwit_ladder_pick(struct godwit_ladder *ladder, unsigned kind, size_t in_bytes,
				      uint64_t price_ps)
{
	struct godwit_ladder_kind *k = &ladder->kind[kind];
	float price_ns = (float)price_ps * 1e-3f;
	unsigned best = cheapest(k, k->content, in_bytes, price_ns * spread(k->picks));
	struct godwit_pick pick = { best, best };

	if ((int32_t)(k->picks - k->probe_at) >= 0)
		pick = probe(k, best, in_bytes, price_ns);
	k->picks++;
	return pick;
}

static float depth_of(const struct godwit_trial *trial)
{
	return godwit_log2f((float)trial->in_bytes / (float)trial->out_bytes);
}

/*
 * A block without matches may still shrink by a quarter where literals are coded by frequency (text in
 * base64 does). So a rung of matches that failed says no less than this of the content, until a rung of
 * frequencies has failed too, or several of matches have.
 */
static void learn_entropy(struct godwit_ladder_kind *k, enum family family, float seen)
{
	if (family == FREQUENCIES) {
		k->entropy = godwit_clampf(k->content, 0, ENTROPY_MAX);
	} else if (seen > 0) {
		k->entropy = ENTROPY_MAX;
	} else {
		if (k->content < k->entropy)
			k->content = k->entropy;
		k->entropy *= 0.7f;
	}
}

/* How much longer it took than was believed. One measurement may be off by an interrupt. */
static float slower(const struct godwit_ladder_kind *k, const struct godwit_trial *trial)
{
	return godwit_clampf((float)trial->cpu_ns / predict_ns(k, trial->rung, trial->in_bytes), 0.25f, 4);
}

void godwit_ladder_learn(struct godwit_ladder *ladder, unsigned kind, const struct godwit_trial *trial)
{
	struct godwit_ladder_kind *k = &ladder->kind[kind];
	float seen, depth;

	/* None shows neither what the content is nor how fast the others would be. */
	if (!trial->in_bytes || !trial->out_bytes || trial->rung == 0)
		return;
	seen = depth_of(trial);
	depth = k->rung[trial->rung].depth;
	/* A rung that says little of the content (a small depth) moves it little. */
	k->content += 0.6f * (seen - k->content * depth) * depth / (depth * depth + 0.01f);
	k->content = godwit_clampf(k->content, 0, CONTENT_MAX);
	learn_entropy(k, priors[trial->rung].family, seen);
	if (trial->cpu_ns) {
		k->slowness *= 1 + LEARN_TIME * (slower(k, trial) - 1);
		k->slowness = godwit_clampf(k->slowness, 0.05f, 50);
	}
}

/* A rung turned out this much deeper than believed; with one of the other family, so will its family. */
static void deepen(struct godwit_ladder_kind *k, unsigned index, float octaves, bool is_family)
{
	float factor = 1 + octaves / k->rung[index].depth;

	for (unsigned i = 1; i < RUNGS; i++) {
		if (i == index || (is_family && priors[i].family == priors[index].family))
			k->rung[i].depth *= factor;
	}
}

void godwit_ladder_compare(struct godwit_ladder *ladder, unsigned kind, const struct godwit_trial trial[2])
{
	struct godwit_ladder_kind *k = &ladder->kind[kind];
	const struct godwit_trial *a = &trial[0], *b = &trial[1];
	bool is_family = priors[a->rung].family != priors[b->rung].family;
	float depth_a = k->rung[a->rung].depth, depth_b = k->rung[b->rung].depth;
	float seen_a = depth_of(a), seen_b = depth_of(b);
	/* Of this block; what either rung misses is laid to both, so that their scale stays. */
	float content = (seen_a * depth_a + seen_b * depth_b) / (depth_a * depth_a + depth_b * depth_b);
	/* What hardly shrinks says little of depths. */
	float share = LEARN_DEPTH * content / (content * content + 0.05f);

	deepen(k, a->rung, share * (seen_a - content * depth_a), is_family);
	deepen(k, b->rung, share * (seen_b - content * depth_b), is_family);
	if (a->cpu_ns && b->cpu_ns) {
		float ratio = godwit_clampf(slower(k, a) / slower(k, b), 0.25f, 4);

		k->rung[a->rung].ns *= 1 + 0.5f * LEARN_TIME * (ratio - 1);
		k->rung[b->rung].ns *= 1 + 0.5f * LEARN_TIME * (1 / ratio - 1);
	}
}
