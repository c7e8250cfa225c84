/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * level.c - how high the water stands
 *
 * Each vCPU takes the common rate q, but no more than it wants and no less than what the cap leaves to it.
 * What they take together grows with q in straight pieces; wanted is the largest q that stays within what
 * is allowed. Newton's steps follow the pieces from either side, halving sees to it that kinks cannot hold
 * them up, and the level of the step before is a good first guess: a handful of looks at every vCPU,
 * without sorting. The answer is defined by sums alone, so neither the order of the vCPUs nor the guess
 * matters, and it can only grow with what is allowed and shrink with what others want.
 */
#include "throttle/throttle.h"

struct look {
	uint64_t sum;			/* dirtied at the rate q */
	uint64_t rising;		/* vCPUs that would take more above it */
	uint64_t falling;		/* that would take less below it */
};

static struct look look_at(struct godwit_vcpu *const *vcpus, size_t nr_vcpus, uint64_t q)
{
	struct look look = { 0 };

	for (size_t i = 0; i < nr_vcpus; i++) {
		uint64_t most = vcpus[i]->most_rate, least = vcpus[i]->least_rate;
		uint64_t takes = q > least ? q : least;

		look.rising += q >= least && q < most;
		look.falling += q > least && q <= most;
		look.sum += takes < most ? takes : most;
	}
	return look;
}

uint64_t godwit_level_fill(struct godwit_vcpu *const *vcpus, size_t nr_vcpus, uint64_t allowed, uint64_t hint)
{
	uint64_t low = 0, high = 0;	/* taken at low is within what is allowed, at high it is not */
	struct look below, above, look;
	uint64_t guess = hint;

	for (size_t i = 0; i < nr_vcpus; i++)
		if (vcpus[i]->most_rate > high)
			high = vcpus[i]->most_rate;
	above = look_at(vcpus, nr_vcpus, high);
	if (above.sum <= allowed)
		return high;
	below = look_at(vcpus, nr_vcpus, 0);
	if (below.sum > allowed)
		return 0;
	while (high - low > 1) {
		uint64_t width = high - low;

		if (guess <= low || guess >= high)
			guess = low + width / 2;
		look = look_at(vcpus, nr_vcpus, guess);
		if (look.sum <= allowed) {
			low = guess;
			below = look;
		} else {
			high = guess;
			above = look;
		}
		if (high - low > width / 2)
			guess = 0;	/* a kink: halve */
		else if (look.sum > allowed && above.falling)
			guess = high - (above.sum - allowed + above.falling - 1) / above.falling;
		else if (look.sum <= allowed && below.rising)
			guess = low + (allowed - below.sum) / below.rising;
		/* One beyond where low stands is the proof that low is the largest. */
		if (guess == low)
			guess++;
	}
	return low;
}
