/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TEST_CONTENTS_H
#define GODWIT_TEST_CONTENTS_H

/*
 * What blocks of real guests do under each rung: speeds and ratios as measured on ten of them, 64 KiB blocks (mean,
 * and three of them).
 */

#include "codecs/codecs.h"

#define BLOCK 65536.0
#define BLOCK_BYTES 65536u
#define RUNGS 7

struct profile {
	const char *name;
	double ratio[RUNGS];
	double ns[RUNGS];		/* per byte in, encoding */
};

/* The rungs are none, lz4:16, lz4, zstd-1, zstd1, zstd3, and zstd6, which auto does not take. */
static const struct profile profiles[] = {
	{ "mean", { 1, 2.0, 2.47, 2.95, 3.31, 3.42, 3.55 }, { 0.06, 0.60, 0.95, 1.29, 1.61, 2.42, 7.0 } },
	{ "redis", { 1, 1.54, 2.26, 2.85, 3.13, 3.21, 3.34 }, { 0.08, 0.75, 1.72, 2.60, 3.18, 4.05, 10.7 } },
	{ "gcc", { 1, 2.82, 3.41, 5.25, 5.59, 5.76, 6.00 }, { 0.08, 1.42, 1.61, 2.28, 2.54, 2.69, 8.6 } },
	{ "pgbench", { 1, 3.73, 4.78, 7.32, 7.90, 8.14, 8.49 }, { 0.08, 0.82, 0.99, 1.56, 1.67, 1.76, 6.0 } },
	{ "deltas", { 1, 1.12, 1.44, 1.49, 1.90, 1.93, 1.98 }, { 0.06, 0.72, 3.08, 4.64, 4.96, 6.52, 16.8 } },
};
#define PROFILES (sizeof(profiles) / sizeof(profiles[0]))

static const struct profile noise = {
	"noise", { 1, 1, 1, 1, 1, 1, 1 }, { 0.06, 0.10, 0.25, 0.80, 0.90, 1.20, 5.0 }
};

static uint64_t rng;

static inline double uniform(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (double)(rng >> 11) * 0x1p-53;
}

static inline double least(double a, double b)
{
	return a < b ? a : b;
}

/* Now and then a block goes through both twins; what the other one took. */
static inline double both_twins(struct godwit_ladder *ladder, const struct profile *p, unsigned rung, double vary)
{
	unsigned twin = godwit_ladder_twin(ladder, 1, rung);
	struct godwit_ladder_result result[2];

	if (twin == rung)
		return 0;
	for (unsigned i = 0; i < 2; i++) {
		unsigned r = (rung < twin ? rung : twin) + i;

		result[i].out_bytes = (size_t)(BLOCK / (1 + (p->ratio[r] - 1) * vary));
		result[i].cpu_ns = (uint64_t)(BLOCK * p->ns[r] * (0.9 + 0.2 * uniform()));
	}
	godwit_ladder_learn_twins(ladder, 1, BLOCK_BYTES, &result[0], &result[1]);
	return BLOCK * p->ns[twin];
}

#endif
