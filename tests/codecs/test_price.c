/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The price of a byte, alone: what it does at one kind of flow, step after step. test_loop.c has it with a
 * pipeline behind it.
 */
#include <criterion/criterion.h>

#include "codecs/approx.h"
#include "codecs/codecs.h"

static struct godwit_price_input flow(uint64_t starved_ns, uint64_t idle_ns)
{
	return (struct godwit_price_input){
		.span_ns = 4000000, .link_busy_ns = 4000000 - starved_ns, .link_starved_ns = starved_ns,
		.worker_idle_ns = idle_ns, .worker_cpu_ns = 4000000 - idle_ns,
		.worker_wall_ns = 4000000 - idle_ns, .workers = 1,
		.wire_bytes = 2000000, .retired_bytes = 4000000,
	};
}

static uint64_t step(struct godwit_price *price, struct godwit_price_input input, unsigned times)
{
	uint64_t last = 0;

	while (times--)
		last = godwit_price_step(price, &input);
	return last;
}

/* One step, the i-th, which must not lower it from what it was. */
static uint64_t step_up(struct godwit_price *price, struct godwit_price_input input, uint64_t last, unsigned i)
{
	uint64_t now = step(price, input, 1);

	cr_assert_geq(now, last, "step %u", i);
	return now;
}

Test(price, a_starved_link_lowers_it_to_a_bound)
{
	struct godwit_price price;
	uint64_t first, low;

	godwit_price_init(&price);
	first = step(&price, flow(0, 0), 1);
	low = step(&price, flow(2000000, 0), 1);
	cr_expect_lt(low, first);
	low = step(&price, flow(4000000, 0), 100);
	cr_expect_leq(low, 600);
	cr_expect_eq(step(&price, flow(4000000, 0), 100), low);
	cr_expect_gt(low, 0);
}

Test(price, idle_workers_raise_it_to_a_bound)
{
	struct godwit_price price;
	uint64_t high;

	godwit_price_init(&price);
	high = step(&price, flow(0, 4000000), 100);
	cr_expect_geq(high, 8000);	/* the link takes 2 ns a byte */
	cr_expect_eq(step(&price, flow(0, 4000000), 100), high);
}

/* Where processors are short and the link is quick, bytes are worth what the link's speed says, or less. */
Test(price, idle_workers_that_wake_late_do_not_raise_it_above_the_link)
{
	struct godwit_price_input late = flow(0, 3000000);
	const uint64_t link_ps = 2000;
	struct godwit_price price;

	late.worker_late_ns = 800000;
	godwit_price_init(&price);
	step(&price, late, 30);	/* until its speed is known */
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_leq(godwit_price_step(&price, &late), link_ps + 2, "step %u", i);
}

/* Between two holds the socket takes a burst at once: that says nothing of the link. */
Test(price, workers_that_wake_late_do_not_lower_it_between_two_holds)
{
	struct godwit_price_input burst = flow(0, 3000000), held = flow(0, 2000000);
	struct godwit_price price, calm;

	held.link_held_ns = 2000000;
	godwit_price_init(&price);
	godwit_price_init(&calm);
	for (unsigned i = 0; i < 400; i++) {
		struct godwit_price_input *in = i % 8 ? &burst : &held;

		burst.worker_late_ns = 800000;
		uint64_t now = godwit_price_step(&price, in);

		burst.worker_late_ns = 0;
		cr_assert_eq(now, godwit_price_step(&calm, in), "step %u", i);
	}
}

/* Encoding threads that wait for a processor make the price doubt a busy link, but not one that is held. */
struct seen {
	uint64_t lowest;
	double deepest_fall;		/* of one step, as a ratio; 1: none */
};

static struct seen follow(const struct godwit_price_input *input)
{
	struct seen seen = { .lowest = UINT64_MAX, .deepest_fall = 1 };
	struct godwit_price price;
	uint64_t last = 0;

	godwit_price_init(&price);
	for (unsigned i = 0; i < 40; i++) {
		uint64_t now = godwit_price_step(&price, input);
		double fall = (double)last / (double)now;

		seen.lowest = now < seen.lowest ? now : seen.lowest;
		seen.deepest_fall = fall > seen.deepest_fall ? fall : seen.deepest_fall;
		last = now;
	}
	return seen;
}

Test(price, a_held_link_is_followed_though_processors_are_short)
{
	struct godwit_price_input busy = flow(0, 2000000), held;
	const uint64_t link_ps = 20000;		/* a byte; the start is below that */
	struct seen seen;

	busy.span_ns = busy.link_busy_ns = 100000000;
	busy.worker_idle_ns = 50000000;
	busy.worker_wall_ns = 50000000;
	busy.worker_cpu_ns = 25000000;
	busy.wire_bytes = busy.retired_bytes = 5000000;
	held = busy;
	held.link_held_ns = 50000000;
	seen = follow(&busy);
	cr_expect_gt(seen.deepest_fall, 1.9, "by %.2f", seen.deepest_fall);
	seen = follow(&held);
	cr_expect_eq(seen.deepest_fall, 1);
	cr_expect_geq(seen.lowest, link_ps - 1);
}

/* It would not be full with heavier rungs still. */
Test(price, a_held_link_with_no_time_left_lowers_it)
{
	struct godwit_price_input held = flow(0, 2000000);
	struct godwit_price price;
	uint64_t before;

	godwit_price_init(&price);
	held.link_held_ns = 2000000;
	before = step(&price, held, 20);
	/* All the rest it waited for workers. */
	held = flow(3750000, 2000000);
	held.link_held_ns = 150000;
	cr_expect_lt(step(&price, held, 20), before);
}

/* Writing takes nearly all of the time, and a hold comes all the same now and then: the link is full. */
Test(price, a_link_no_quicker_than_the_limit_is_no_held_link)
{
	struct godwit_price_input full = flow(0, 3600000);
	const uint64_t link_ps = 2000;
	struct godwit_price price;

	full.link_held_ns = 200000;
	godwit_price_init(&price);
	step(&price, full, 30);
	for (unsigned i = 0; i < 200; i++)
		cr_assert_geq(godwit_price_step(&price, &full), 4 * link_ps, "step %u", i);
}

Test(price, holds_still_when_nobody_waits_or_nothing_flows)
{
	struct godwit_price_input silent = flow(4000000, 4000000);
	struct godwit_price price;
	uint64_t start;

	godwit_price_init(&price);
	start = step(&price, flow(0, 0), 100);	/* the link's speed is known */
	cr_expect_eq(step(&price, flow(0, 0), 50), start);
	silent.wire_bytes = silent.retired_bytes = 0;
	cr_expect_eq(step(&price, silent, 50), start);
	cr_expect_eq(step(&price, (struct godwit_price_input){ 0 }, 50), start);
}

Test(price, small_spans_add_up)
{
	struct godwit_price_input tenth = flow(4000000, 0);
	struct godwit_price all, parts;
	uint64_t price;

	tenth.span_ns /= 10;
	tenth.link_starved_ns /= 10;
	tenth.worker_cpu_ns /= 10;
	tenth.worker_wall_ns /= 10;
	tenth.wire_bytes /= 10;
	tenth.retired_bytes /= 10;
	godwit_price_init(&all);
	godwit_price_init(&parts);
	price = step(&all, flow(4000000, 0), 3);
	cr_expect_eq(step(&parts, tenth, 30), price);
}

Test(price, climbs_without_gain_are_taken_back)
{
	struct godwit_price_input input = flow(0, 2000000);
	struct godwit_price price;
	uint64_t start, worst = 0;

	godwit_price_init(&price);
	start = step(&price, flow(0, 0), 10);
	for (unsigned i = 0; i < 400; i++) {
		uint64_t now = godwit_price_step(&price, &input);

		worst = now > worst && i > 40 ? now : worst;
		/* The receiver takes the same guest bytes; dearer bytes only make the wire emptier. */
		input.wire_bytes = (uint64_t)(2000000 * godwit_exp2f(0.3f * godwit_log2f((float)start / (float)now)));
	}
	cr_expect_leq(worst, 16 * start, "%llu from %llu", (unsigned long long)worst, (unsigned long long)start);
}

/* What is written right after a starved link is in its buffers at once: no speed that a climb could lose. */
Test(price, what_buffers_swallow_is_not_what_a_climb_is_compared_with)
{
	struct godwit_price_input swallowed = flow(0, 4000000);
	struct godwit_price price;
	uint64_t start, last;

	swallowed.wire_bytes *= 2;
	swallowed.retired_bytes *= 2;
	godwit_price_init(&price);
	start = step(&price, flow(0, 0), 40);
	last = step(&price, flow(3600000, 0), 8);
	cr_assert_lt(last, start / 8);
	step(&price, swallowed, 3);
	for (unsigned i = 0; i < 80; i++)
		last = step_up(&price, flow(0, 4000000), last, i);
	cr_expect_geq(last, start);
}

/* A burst hits one step of workers that had next to nothing to do: processors are not short for that. */
Test(price, a_burst_that_idle_workers_meet_is_no_want_of_processors)
{
	struct godwit_price_input burst = flow(0, 3200000);
	struct godwit_price price;
	uint64_t last;

	burst.worker_cpu_ns /= 5;
	godwit_price_init(&price);
	last = step(&price, flow(0, 4000000), 10);
	for (unsigned i = 0; i < 80; i++)
		last = step_up(&price, i % 20 ? flow(0, 4000000) : burst, last, i);
}

/* Workers were short of processors while the link starved. Now they are idle: nothing is short that they would need. */
Test(price, want_of_processors_that_is_over_is_not_acted_upon)
{
	struct godwit_price_input hungry = flow(3600000, 0);
	struct godwit_price price;
	uint64_t last;

	hungry.worker_cpu_ns /= 2;
	godwit_price_init(&price);
	last = step(&price, hungry, 8);
	for (unsigned i = 0; i < 80; i++)
		last = step_up(&price, flow(0, 4000000), last, i);
}

/* 1 Gbit/s, which nothing but a link is; with a processor for a part of the time. */
Test(price, want_of_processors_does_not_keep_it_below_what_a_slow_link_takes)
{
	struct godwit_price_input slow = flow(0, 2000000), starved = flow(3600000, 0);
	const uint64_t link_ps = 8000;
	struct godwit_price price;
	uint64_t last;

	slow.wire_bytes = 500000;
	slow.worker_cpu_ns = slow.worker_wall_ns / 2;
	starved.wire_bytes = 50000;
	godwit_price_init(&price);
	last = step(&price, starved, 20);
	cr_assert_lt(last, link_ps / 4);
	for (unsigned i = 0; last < link_ps; i++) {
		last = step_up(&price, slow, last, i);
		cr_assert_lt(i, 80);
	}
}
