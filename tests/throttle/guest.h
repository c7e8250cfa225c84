/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guest.h - a vCPU that always wants to run, driven through the library as a hypervisor would
 *
 * The host may be late, the density may jump, I/O events may come and get lost: whatever is set. Time is
 * simulated. Every call is followed by a check of what must always hold.
 */
#ifndef GODWIT_TEST_THROTTLE_GUEST_H
#define GODWIT_TEST_THROTTLE_GUEST_H

#include <string.h>

#include <criterion/criterion.h>

#include "throttle/throttle.h"

static uint64_t rng = 88172645463325252u;

static inline uint64_t draw(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static inline uint64_t between(uint64_t low, uint64_t high)
{
	return low + (draw() >> 11) % (high - low + 1);
}

/* Spread evenly over the orders of magnitude; low is not 0. */
static inline uint64_t about(uint64_t low, uint64_t high)
{
	unsigned octaves = 63 - (unsigned)__builtin_clzll(high / low);
	uint64_t from = low << between(0, octaves);
	uint64_t value = between(from, 2 * from);

	return value > high ? high : value;
}

/* Millions of checks a second, which Criterion's own are not made for. */
static uint64_t nr_checks;

#define CHECK(condition, ...)							\
	do {									\
		nr_checks++;							\
		if (__builtin_expect(!(condition), 0))				\
			cr_assert_fail(__VA_ARGS__);					\
	} while (0)

/* Rates and a cap as a step would set them. */
static inline void set_rate(struct godwit_vcpu *v, uint64_t pages_per_s, unsigned max_percent, uint32_t resume_ns)
{
	v->page_cost = ((uint64_t)S << CREDIT_SHIFT) / pages_per_s;
	v->floor = (100 - max_percent) * FRACTION_ONE / 100;
	v->resume_ns = resume_ns;
	v->boost_ns = BOOST_MIN_NS;
}

static inline int64_t floor_debt_of(const struct godwit_vcpu *v)
{
	return (int64_t)v->floor * FLOOR_DEBT_NS;
}

/* I6, and that nobody is held who is not governed. */
static inline void check_bounds(const struct godwit_vcpu *v)
{
	int64_t resume = CREDIT(v->resume_ns);

	CHECK(v->page_credit <= CREDIT(BURST_NS), "page credit above the burst");
	CHECK(v->page_credit >= -CREDIT(DEBT_NS) - resume, "page credit below the debt");
	CHECK(v->floor_credit <= CREDIT(2 * SLICE_NS), "floor credit above two slices");
	CHECK(v->floor_credit >= -floor_debt_of(v) - CREDIT(SLICE_NS / 4), "floor credit below the debt");
}

struct guest {
	struct godwit_vcpu *v;
	uint64_t now_ns;
	uint64_t pages_per_ms;		/* of running */
	uint64_t io_per_s;		/* 0: none */
	bool is_io_lost;		/* they come, and the hook does not tell */
	unsigned late_percent;		/* of looks and wakes */
	uint64_t late_ns;
	/* What became of it. */
	uint64_t ran_ns, pages, longest_hold_ns, held_from_ns;
	uint64_t part_ns;		/* of a page */
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char memory[GODWIT_VCPU_BYTES];
};

static inline void guest_init(struct guest *g, uint64_t now_ns)
{
	memset(g, 0, sizeof(*g));
	g->now_ns = now_ns;
	g->v = godwit_vcpu_init(g->memory, now_ns);
}

static inline uint64_t lateness(const struct guest *g)
{
	return between(1, 100) <= g->late_percent ? between(0, g->late_ns) : 0;
}

static inline void guest_runs(struct guest *g, uint64_t ns)
{
	uint64_t pages = (g->part_ns + ns * g->pages_per_ms) / MS;

	g->part_ns = (g->part_ns + ns * g->pages_per_ms) % MS;
	g->now_ns += ns;
	g->ran_ns += ns;
	g->pages += pages;
	godwit_vcpu_dirtied(g->v, pages);
	godwit_vcpu_advance(g->v, g->now_ns, ns);
	check_bounds(g->v);
}

/* An event between here and there? Then when. */
static inline uint64_t next_io(const struct guest *g, uint64_t span_ns)
{
	uint64_t ns;

	if (!g->io_per_s)
		return UINT64_MAX;
	ns = between(1, 2 * S / g->io_per_s);
	return ns < span_ns ? ns : UINT64_MAX;
}

/* One look: run until the next one, or stay held until it. */
static inline void guest_turn(struct guest *g)
{
	bool may_run = godwit_vcpu_may_run(g->v, g->now_ns);
	uint64_t span_ns = godwit_vcpu_next(g->v, g->now_ns), io_ns;

	check_bounds(g->v);
	CHECK(span_ns >= LOOK_MIN_NS && span_ns <= GODWIT_THROTTLE_PERIOD_NS, "a look after %lu ns",
	      (unsigned long)span_ns);
	io_ns = next_io(g, span_ns);
	if (may_run) {
		g->held_from_ns = 0;
		span_ns += lateness(g);
		if (io_ns < span_ns && !g->is_io_lost) {
			guest_runs(g, io_ns);
			godwit_vcpu_io(g->v, g->now_ns);
			span_ns -= io_ns;
		}
		guest_runs(g, span_ns);
		return;
	}
	if (!g->held_from_ns)
		g->held_from_ns = g->now_ns;
	if (io_ns < span_ns && !g->is_io_lost) {
		g->now_ns += io_ns;
		godwit_vcpu_io(g->v, g->now_ns);
	} else {
		g->now_ns += span_ns + lateness(g);
	}
	if (g->now_ns - g->held_from_ns > g->longest_hold_ns)
		g->longest_hold_ns = g->now_ns - g->held_from_ns;
}

#endif
