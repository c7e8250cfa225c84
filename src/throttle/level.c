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
	uint64_t guess = hint;
	bool is_newton = false;

	for (size_t i = 0; i < nr_vcpus; i++)
		if (vcpus[i]->most_rate > high)
			high = vcpus[i]->most_rate;
	if (look_at(vcpus, nr_vcpus, high).sum <= allowed)
		return high;
	if (look_at(vcpus, nr_vcpus, 0).sum > allowed)
		return 0;
	while (high - low > 1) {
		uint64_t width = high - low, distance;
		struct look look;

		if (guess <= low || guess >= high) {
			guess = low + width / 2;
			is_newton = false;
		}
		look = look_at(vcpus, nr_vcpus, guess);
		if (look.sum <= allowed) {
			low = guess;
			/* One more would add one for each that rises. */
			if (allowed - look.sum < look.rising)
				return low;
			distance = look.rising ? (allowed - look.sum) / look.rising : 0;
			guess = low + distance;
		} else {
			high = guess;
			if (look.sum - allowed <= look.falling)
				return high - 1;
			distance = look.falling ? (look.sum - allowed) / look.falling : 0;
			guess = distance < high ? high - distance : low;
		}
		/* A step of Newton's that did not halve what is left met kinks: halve. */
		if (is_newton && high - low > width / 2)
			guess = low;
		is_newton = true;
	}
	return low;
}
