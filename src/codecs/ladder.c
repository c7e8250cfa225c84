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
 * Blocks of one rung only move the quick number. The slow ones move when two rungs are tried one after
 * the other, for only then is there something to compare. Two rungs are too near to each other for that in what
 * they save, zstd 1 and 3: 6 % of real guests' pages, nothing of text without matches, and less than what
 * blocks differ by. So a block goes through both now and then.
 *
 * A probe is a block on a rung that is not believed best. Its neighbour is asked first, as a neighbour
 * costs nearly the same. From the rung none nothing is learned about the content, so the probe there is
 * the rung that this price would take were the content typical: that one costs less than not to
 * compress a typical block, so at worst a probe doubles the cost of one block. Probes are as far apart as
 * keeps their cost at half a hundredth of all: where bytes are dear and worker time is not, they are frequent,
 * and from none, where they take no bytes, three times as frequent.
 *
 * At a price where two rungs cost the same, workers that all took the cheaper one would swing from all
 * light to all heavy. A price that is spread by half up and down, evenly from block to block, turns
 * that edge into a slope, and mixing two neighbours is often the best there is.
 *
 * The rungs and their figures: 64 KiB blocks of changed pages of three guests on Sapphire Rapids, whole and as
 * deltas, all on the convex hull of (time, bytes out) of some guest. zstd 2, 4, 5 and 7 to 19, zstd -2 to
 * -20 and zlib were left out: off the hull, or less than 2 % away from a mix of the two rungs beside them; and
 * zstd 6, which takes three times the processor time of zstd 3 for 4 % fewer bytes.
 */
#include <assert.h>
#include <float.h>
#include <string.h>

#include "codecs/approx.h"
#include "codecs/codecs.h"

#define RUNGS 6

/* Blocks between two probes; what they may cost beside all the others. */
#define PROBE_GAP_MIN 8.0f
#define PROBE_GAP_MAX 256.0f
#define PROBE_GAP_RARE 1024.0f
#define PROBE_COST 0.005f
#define PROBE_OF_SAVED 0.25f		/* or of what a lighter rung could save, if that is less */
#define PROBE_COST_MAX 0.015f		/* from none, where bytes are dear: on noise it costs the link nothing */
#define DEAR_NS 15.0f			/* what a byte costs where it is that much */

/* The content of a block is what it shrank to, but not above this: constant blocks are no guide. */
#define CONTENT_MAX 4.0f

#define ENTROPY_MAX 0.25f		/* see learn_entropy() */

#define DRIFT 1.6f			/* see near_prior() */

/* Blocks between two that go through both twins: what keeps their cost at a hundredth of the worker's time. On
 * the heavy one this many to the first, and twice as many each time, until that is more. */
#define TWIN_FIRST 8u
#define TWIN_COST 0.01f
#define TWIN_GAP_MAX 512u
#define TWIN_LEAST_BYTES 16384u
#define SLOWER_MIN 0.7f			/* what the heavy one takes of the light one's time */
#define SLOWER_MAX 8.0f
#define HEAVY_WORTH 1.003f		/* what the twins differ by is uncertain: the light one needs no reason */

/*
 * Rungs that only look for matches, and rungs that code the literals by frequency as well: content
 * differs in what that is worth (a block of deltas: LZ4 1.4, zstd -1 1.5, zstd 1 1.9).
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
};

static_assert(RUNGS <= GODWIT_LADDER_MAX, "struct godwit_ladder has room for every rung");

/* The twins: the family of frequencies. */
enum { LIGHT = RUNGS - 2, HEAVY = RUNGS - 1 };

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
		k->twin_gap = TWIN_FIRST;
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

/*
 * Rungs of frequencies shrink at least as much more than lighter ones as the priors say: what was compared
 * from block to block may say otherwise where blocks differ, and then a light rung is taken at any price.
 */
static float predict_depth(const struct godwit_ladder_kind *k, unsigned kind, unsigned rung)
{
	float stretch = 0;

	if (priors[rung].family != FREQUENCIES)
		return k->rung[rung].depth;
	for (unsigned i = 1; i <= LIGHT; i++) {
		float seen = k->rung[i].depth / priors[i].depth[kind];

		stretch = seen > stretch ? seen : stretch;
	}
	return stretch * priors[LIGHT].depth[kind] * k->rung[rung].depth / k->rung[LIGHT].depth;
}

static float predict_cost(const struct godwit_ladder_kind *k, unsigned kind, unsigned rung, float content,
			  size_t in_bytes, float price_ns)
{
	float out = (float)in_bytes * godwit_exp2f(-content * predict_depth(k, kind, rung));

	return predict_ns(k, rung, in_bytes) + price_ns * out;
}

static unsigned cheapest(const struct godwit_ladder_kind *k, unsigned kind, float content, size_t in_bytes,
			 float price_ns)
{
	float least = FLT_MAX;
	unsigned best = 0;

	for (unsigned i = 0; i < RUNGS; i++) {
		float cost = predict_cost(k, kind, i, content, in_bytes, price_ns);

		if (i == HEAVY)
			cost *= HEAVY_WORTH;
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

static unsigned probe(const struct godwit_ladder_kind *k, unsigned kind, unsigned best, size_t in_bytes,
		      float price_ns)
{
	if (best == 0)
		return cheapest(k, kind, 1, in_bytes, price_ns);
	if (priors[best].family == FREQUENCIES)
		return LIGHT - 1;
	/* None is no probe: its result is known. */
	return k->probes % 2 && best > 1 ? best - 1 : best + 1;
}

/* The gap to the next probe after this one, were it to bring nothing: from none, were it not to shrink. */
static uint32_t probe_gap(const struct godwit_ladder_kind *k, unsigned kind, unsigned best, unsigned pick,
			  size_t in_bytes, float price_ns)
{
	float cost = predict_cost(k, kind, best, k->content, in_bytes, price_ns);
	float extra = predict_cost(k, kind, pick, best ? k->content : 0, in_bytes, price_ns) - cost;
	float share = best ? PROBE_COST :
			     godwit_clampf(PROBE_COST_MAX * price_ns / DEAR_NS, PROBE_COST, PROBE_COST_MAX);
	float most = share * cost, saved = predict_ns(k, best, in_bytes) - predict_ns(k, pick, in_bytes);

	/* A lighter rung saves worker time at best, and where bytes are dear that is little. */
	if (saved > 0 && saved * PROBE_OF_SAVED < most)
		return (uint32_t)godwit_clampf(extra / (saved * PROBE_OF_SAVED), PROBE_GAP_MIN, PROBE_GAP_RARE);
	return (uint32_t)godwit_clampf(extra / most, PROBE_GAP_MIN, PROBE_GAP_MAX);
}

unsigned godwit_ladder_pick(struct godwit_ladder *ladder, unsigned kind, size_t in_bytes,
			    uint64_t price_ps)
{
	struct godwit_ladder_kind *k = &ladder->kind[kind];
	float price_ns = (float)price_ps * 1e-3f;
	unsigned best = cheapest(k, kind, k->content, in_bytes, price_ns * spread(k->picks));
	int32_t left = (int32_t)(k->probe_at - k->picks);
	unsigned pick = best;

	/* A gap that another rung left, or another price, may be too far for none. */
	if (left <= 0 || (best == 0 && k->probes)) {
		unsigned next = probe(k, kind, best, in_bytes, price_ns);
		int32_t gap = (int32_t)probe_gap(k, kind, best, next, in_bytes, price_ns);

		if (left <= 0) {
			pick = next;
			k->probes++;
		}
		if (left <= 0 || left > gap)
			k->probe_at = k->picks + (uint32_t)gap;
	}
	k->picks++;
	return pick;
}

/*
 * What is believed of a rung stays this near to its prior. Else, where blocks differ much from one to the
 * next, rungs take the blame, and content and slowness drift the other way until only the products are right.
 */
static float near_prior(float value, float prior)
{
	return godwit_clampf(value, prior / DRIFT, prior * DRIFT);
}

/* Both twins by this much, of which the light one stays near its prior: what they know of each other stays, too. */
static void scale_twins(float *light, float *heavy, float by, float prior)
{
	float next = near_prior(*light * by, prior);

	*heavy *= next / *light;
	*light = next;
}

/* How deep this block shrank against what was believed: content for every rung, depth for this one. */
static void learn_depth(struct godwit_ladder_kind *k, unsigned kind, unsigned index, float seen,
			bool is_comparison)
{
	float depth = k->rung[index].depth;
	float miss = seen - k->content * depth;
	float share = is_comparison ? 0.3f : 0.6f;
	enum family family = priors[index].family;

	/* A rung that says little of the content (a small depth) moves it little. */
	k->content += share * miss * depth / (depth * depth + 0.01f);
	k->content = godwit_clampf(k->content, 0, CONTENT_MAX);
	if (!is_comparison || k->content < 0.02f)
		return;
	miss /= godwit_clampf(k->content, 0.25f, CONTENT_MAX);
	if (priors[k->last].family == family) {
		if (family == MATCHES)
			k->rung[index].depth = near_prior(depth + miss / 8, priors[index].depth[kind]);
		return;
	}
	/* The prior counts like two comparisons; then the mean of all, later of the last twenty. */
	miss /= 3.0f + (float)k->comparisons;
	if (k->comparisons < 17)
		k->comparisons++;
	if (family == FREQUENCIES) {
		scale_twins(&k->rung[LIGHT].depth, &k->rung[HEAVY].depth, 1 + miss / depth,
			    priors[LIGHT].depth[kind]);
		return;
	}
	for (unsigned i = 0; i < RUNGS; i++) {
		if (priors[i].family == family)
			k->rung[i].depth = near_prior(k->rung[i].depth * (1 + miss / depth),
						      priors[i].depth[kind]);
	}
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

/* Twins may be far from each other in time: where short matches abound that save nothing, by a factor of five. */
static void heavy_takes(struct godwit_ladder_kind *k, float ns)
{
	k->rung[HEAVY].ns = godwit_clampf(ns, SLOWER_MIN * k->rung[LIGHT].ns, SLOWER_MAX * k->rung[LIGHT].ns);
}

static void learn_time(struct godwit_ladder_kind *k, unsigned kind, unsigned index, size_t in_bytes,
		       float ns, bool is_comparison)
{
	/* One measurement may be off by an interrupt. */
	float ratio = godwit_clampf(ns / predict_ns(k, index, in_bytes), 0.25f, 4);

	k->slowness *= 1 + 0.08f * (ratio - 1);
	k->slowness = godwit_clampf(k->slowness, 0.05f, 50);
	if (!is_comparison)
		return;
	ratio = 1 + 0.08f * (ratio - 1);
	if (priors[index].family != FREQUENCIES) {
		k->rung[index].ns = near_prior(k->rung[index].ns * ratio, priors[index].ns[kind]);
	} else if (priors[k->last].family != FREQUENCIES) {
		/* One of the twins compares with the lighter rungs for both. */
		scale_twins(&k->rung[LIGHT].ns, &k->rung[HEAVY].ns, ratio, priors[LIGHT].ns[kind]);
	} else {
		/* What blocks differ by is less than what the twins may. */
		heavy_takes(k, k->rung[HEAVY].ns * (index == HEAVY ? ratio : 1 / ratio));
	}
}

void godwit_ladder_learn(struct godwit_ladder *ladder, unsigned kind, unsigned index, size_t in_bytes,
			 size_t out_bytes, uint64_t cpu_ns)
{
	struct godwit_ladder_kind *k = &ladder->kind[kind];
	bool is_comparison = index != k->last;
	float seen;

	if (!in_bytes || !out_bytes)
		return;
	/* None shows neither what the content is nor how fast the others would be. */
	if (index == 0)
		return;
	seen = godwit_log2f((float)in_bytes / (float)out_bytes);
	learn_depth(k, kind, index, seen, is_comparison);
	learn_entropy(k, priors[index].family, seen);
	if (cpu_ns)
		learn_time(k, kind, index, in_bytes, (float)cpu_ns, is_comparison);
	k->last = index;
}

unsigned godwit_ladder_twin(struct godwit_ladder *ladder, unsigned kind, unsigned pick)
{
	struct godwit_ladder_kind *k = &ladder->kind[kind];
	unsigned twin = pick == LIGHT ? HEAVY : LIGHT;
	uint32_t gap;

	if (priors[pick].family != FREQUENCIES)
		return pick;
	gap = (uint32_t)godwit_clampf(k->rung[twin].ns / (TWIN_COST * k->rung[pick].ns), TWIN_FIRST, TWIN_GAP_MAX);
	/* The heavy one is soon asked whether it is worth what it takes. */
	if (pick == HEAVY && k->twin_gap < gap)
		gap = k->twin_gap;
	if (k->picks - k->twin_last < gap)
		return pick;
	k->twin_last = k->picks;
	k->twin_gap = k->twin_gap < TWIN_GAP_MAX ? 2 * k->twin_gap : TWIN_GAP_MAX;
	return twin;
}

void godwit_ladder_learn_twins(struct godwit_ladder *ladder, unsigned kind, size_t in_bytes,
			       const struct godwit_ladder_result *light, const struct godwit_ladder_result *heavy)
{
	struct godwit_ladder_kind *k = &ladder->kind[kind];
	float in = (float)in_bytes, depth = godwit_log2f(in / (float)light->out_bytes);
	float deeper, slower, ns, share;

	/* Of a small block the time says how long a call takes. */
	if (depth < 0.1f || in_bytes < TWIN_LEAST_BYTES || !light->cpu_ns || !heavy->cpu_ns)
		return;
	deeper = godwit_clampf(godwit_log2f(in / (float)heavy->out_bytes) / depth, 0.9f, DRIFT);
	/* One of the two may have lost the processor meanwhile. */
	slower = godwit_clampf((float)heavy->cpu_ns / (float)light->cpu_ns, SLOWER_MIN, SLOWER_MAX);
	ns = (slower * usual_ns(k, LIGHT, in_bytes) - priors[HEAVY].fixed_ns) / in;
	/* The mean of all and of the prior, later of the last eight. */
	k->twins += k->twins < 7;
	share = 1 / (1 + (float)k->twins);
	k->rung[HEAVY].depth += share * (deeper * k->rung[LIGHT].depth - k->rung[HEAVY].depth);
	heavy_takes(k, k->rung[HEAVY].ns + share * (ns - k->rung[HEAVY].ns));
}
