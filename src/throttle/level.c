/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * level.c - how high the water stands
 *
 * Each vCPU takes the common rate q, but no more than it wants and no less than what the cap leaves to it.
 * What they take together grows with q in straight pieces; wanted is the largest q that stays within what
 * is allowed. Newton's steps follow the pieces, halving sees to it that a kink cannot hold them up: some
 * ten looks at every vCPU, without sorting. The answer is defined by sums alone, so the order of the
 * vCPUs does not matter, and it can only grow with what is allowed and shrink with what others want.
 */
#include "throttle/throttle.h"

/* What is dirtied at the rate q; in *rising_ret, how many vCPUs would take more if q rose. */
static uint64_t taken(struct godwit_vcpu *const *vcpus, size_t nr_vcpus, uint64_t q, uint64_t *rising_ret)
{
	uint64_t sum = 0, rising = 0;

	for (size_t i = 0; i < nr_vcpus; i++) {
		uint64_t most = vcpus[i]->most_rate, least = vcpus[i]->least_rate;
		uint64_t takes = q > least ? q : least;

		rising += q >= least && q < most;
		sum += takes < most ? takes : most;
	}
	*rising_ret = rising;
	return sum;
}

uint64_t godwit_level_fill(struct godwit_vcpu *const *vcpus, size_t nr_vcpus, uint64_t allowed)
{
	uint64_t low = 0, high = 0;	/* taken at low is within what is allowed, at high it is not */
	uint64_t rising, sum, guess;

	for (size_t i = 0; i < nr_vcpus; i++)
		if (vcpus[i]->most_rate > high)
			high = vcpus[i]->most_rate;
	if (taken(vcpus, nr_vcpus, high, &rising) <= allowed)
		return high;
	sum = taken(vcpus, nr_vcpus, 0, &rising);
	if (sum > allowed)
		return 0;
	for (bool halve = false; high - low > 1; halve = !halve) {
		uint64_t left = allowed - sum, new_sum, new_rising;

		guess = low + (high - low) / 2;
		if (!halve && rising && left / rising < high - low)
			guess = low + left / rising;
		/* One beyond where low stands is the proof that low is the largest. */
		if (guess == low)
			guess++;
		new_sum = taken(vcpus, nr_vcpus, guess, &new_rising);
		if (new_sum <= allowed) {
			low = guess;
			sum = new_sum;
			rising = new_rising;
		} else {
			high = guess;
		}
	}
	return low;
}
