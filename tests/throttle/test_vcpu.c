/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What holds of a vCPU whatever the guest, the host and the rates do: some ten million checks over random
 * ones. The bounds are derived from the constants in throttle.h, never from a run.
 */
#include "throttle/throttle.h"

#include "guest.h"

#define WINDOW_NS (100 * MS)
#define WINDOWS 60
#define EPISODES 1200

/* One guest for six seconds; counters at every window's end. */
struct episode {
	struct guest guest;
	uint64_t rate, most_per_ms;
	unsigned max_percent;
	uint64_t ran_ns[WINDOWS + 1], pages[WINDOWS + 1], at_ns[WINDOWS + 1];
};

static void play(struct episode *e)
{
	struct guest *g = &e->guest;
	uint64_t start_ns = about(1, UINT64_MAX / 2), resume_ns;

	guest_init(g, start_ns);
	e->rate = about(20, 1u << 20);
	e->max_percent = (unsigned)between(1, 99);
	/* Up to 600 times the rate: beyond, the longest resume is shorter than a look's work. */
	e->most_per_ms = about(1, e->rate * 600 / 1000 < 2000 ? e->rate * 600 / 1000 : 2000);
	resume_ns = RESUME_WORK_NS * 1000 * e->most_per_ms / e->rate;
	resume_ns = resume_ns < RESUME_NS ? RESUME_NS : resume_ns > RESUME_MAX_NS ? RESUME_MAX_NS : resume_ns;
	set_rate(g->v, e->rate, e->max_percent, (uint32_t)resume_ns);
	g->io_per_s = between(0, 1) ? about(1, 5000) : 0;
	g->late_percent = (unsigned)between(0, 1) * 20;
	g->late_ns = 60000;
	g->pages_per_ms = e->most_per_ms;
	for (unsigned w = 0; w <= WINDOWS; w++) {
		while (g->now_ns - start_ns < w * (uint64_t)WINDOW_NS)
			guest_turn(g);
		e->at_ns[w] = g->now_ns;
		e->ran_ns[w] = g->ran_ns;
		e->pages[w] = g->pages;
	}
}

static uint64_t floor_ns(const struct episode *e, uint64_t window_ns)
{
	return window_ns * e->guest.v->floor >> FRACTION_SHIFT;
}

static uint64_t floor_debt_ns(const struct episode *e)
{
	return (uint64_t)floor_debt_of(e->guest.v) >> CREDIT_SHIFT;
}

/* I1: what the cap leaves is had in every window. */
static void check_cap(const struct episode *e, unsigned from, unsigned to)
{
	uint64_t window_ns = e->at_ns[to] - e->at_ns[from];
	uint64_t ran_ns = e->ran_ns[to] - e->ran_ns[from];
	/* A wake that is late by a slice or more makes the floor overflow: 6 % for those. */
	uint64_t least = floor_ns(e, window_ns) * 94 / 100;
	uint64_t owed = floor_debt_ns(e) + 2 * SLICE_NS;

	CHECK(ran_ns + owed + SLICE_NS / 4 >= least, "ran %lu of %lu ns, cap %u %%", (unsigned long)ran_ns,
	      (unsigned long)window_ns, e->max_percent);
}

/* I3: pages stay within the rate, what may be saved and owed, and what the floor cannot do without. */
static void check_pages(const struct episode *e, unsigned from, unsigned to)
{
	const struct godwit_vcpu *v = e->guest.v;
	double window_ns = (double)(e->at_ns[to] - e->at_ns[from]);
	double credit_ns = window_ns + BURST_NS + DEBT_NS + 2.0 * v->resume_ns;
	/* The floor's running, and one look that came before the density was known. */
	double run_ns = (double)floor_ns(e, (uint64_t)window_ns) + (double)floor_debt_ns(e) + 3 * SLICE_NS +
			LOOK_MAX_NS + 60000;
	double most = (double)e->rate * credit_ns / 1e9 + (double)e->most_per_ms * run_ns / 1e6 + 2;
	double pages = (double)(e->pages[to] - e->pages[from]);

	CHECK(pages <= most * 1.001, "%.0f pages in %.0f ms at %lu/s, at most %.0f", pages, window_ns / 1e6,
	      (unsigned long)e->rate, most);
}

/* I2: the floor ends every hold. */
static void check_hold(const struct episode *e)
{
	const struct godwit_vcpu *v = e->guest.v;
	double most_ns = (1.25 * SLICE_NS + (double)floor_debt_ns(e)) * FRACTION_ONE / v->floor;

	/* The last look may be the shortest there is, and late. */
	CHECK((double)e->guest.longest_hold_ns <= most_ns + LOOK_MIN_NS + 60000 + 1000,
	      "held for %.3f ms, cap %u %%, at most %.3f ms", (double)e->guest.longest_hold_ns / 1e6,
	      e->max_percent, most_ns / 1e6);
}

Test(vcpu, keeps_cap_budget_and_hold_bound_over_random_guests)
{
	static struct episode e;

	for (unsigned i = 0; i < EPISODES; i++) {
		play(&e);
		for (unsigned from = 0; from < WINDOWS; from++)
			for (unsigned to = from + 1; to <= WINDOWS; to++) {
				check_cap(&e, from, to);
				check_pages(&e, from, to);
			}
		check_hold(&e);
	}
	cr_assert_gt(nr_checks, 5000000, "%lu checks", (unsigned long)nr_checks);
}

Test(vcpu, bounds_hold_whatever_the_host_reports)
{
	static struct guest g;

	for (unsigned i = 0; i < 2000; i++) {
		guest_init(&g, draw());
		for (unsigned turn = 0; turn < 500; turn++) {
			uint64_t ns = between(0, 3) ? about(1, 1ull << 40) : draw();

			if (between(0, 9) == 0)
				set_rate(g.v, about(1, 1u << 29), (unsigned)between(1, 99),
					 (uint32_t)between(RESUME_NS, RESUME_MAX_NS));
			if (between(0, 30) == 0)
				godwit_vcpu_stop(g.v);
			g.now_ns += between(0, 5) ? ns : -ns;
			switch (between(0, 3)) {
			case 0: godwit_vcpu_dirtied(g.v, between(0, 3) ? about(1, 1u << 30) : draw()); break;
			case 1: godwit_vcpu_io(g.v, between(0, 3) ? g.now_ns : draw()); break;
			case 2: godwit_vcpu_advance(g.v, g.now_ns, between(0, 3) ? ns : draw()); break;
			default: godwit_vcpu_may_run(g.v, g.now_ns); break;
			}
			/* A bottom that rises with a shorter resume is met at the next charge. */
			godwit_vcpu_advance(g.v, g.now_ns, 0);
			check_bounds(g.v);
			uint64_t look_ns = godwit_vcpu_next(g.v, g.now_ns);
			CHECK(look_ns >= LOOK_MIN_NS && look_ns <= GODWIT_THROTTLE_PERIOD_NS, "look");
		}
	}
	cr_assert_gt(nr_checks, 4000000, "%lu checks", (unsigned long)nr_checks);
}

/* I5 */
Test(vcpu, runs_at_the_instant_of_an_io_event_unless_deep_in_debt)
{
	static struct guest g;
	uint64_t asked = 0, held = 0;

	for (unsigned i = 0; i < 300; i++) {
		guest_init(&g, draw() >> 1);
		g.pages_per_ms = about(1, 2000);
		set_rate(g.v, about(20, 1u << 16), (unsigned)between(50, 99), RESUME_NS);
		g.io_per_s = about(1, 2000);
		for (unsigned turn = 0; turn < 2000; turn++) {
			guest_turn(&g);
			if (between(0, 3))
				continue;
			held += g.v->held_since_ns != 0;
			godwit_vcpu_advance(g.v, g.now_ns, 0);
			bool is_deep = g.v->page_credit <= -CREDIT(DEBT_NS);
			bool may_boost = godwit_vcpu_may_boost(g.v);
			godwit_vcpu_io(g.v, g.now_ns);
			bool may_run = godwit_vcpu_may_run(g.v, g.now_ns);
			CHECK(may_run || is_deep, "an event did not let it run");
			CHECK(may_run == may_boost, "an event did not do what was said of it");
			asked++;
		}
	}
	cr_assert_gt(held * 10, asked, "too few of the events met a hold");
}

/* An event at the bottom of the debt used to be forgotten when its window had passed unused. */
Test(vcpu, runs_for_an_event_that_came_too_deep_in_debt_as_soon_as_it_may_owe)
{
	static struct guest g;

	guest_init(&g, 1000);
	set_rate(g.v, 1000, 99, RESUME_NS);
	godwit_vcpu_dirtied(g.v, 1000000);
	godwit_vcpu_advance(g.v, 2000000, 2000000);
	cr_assert_not(godwit_vcpu_may_run(g.v, 2000000));
	godwit_vcpu_io(g.v, 2100000);
	cr_assert_not(godwit_vcpu_may_run(g.v, 2100000), "at the bottom nobody owes more");
	/* No more than the resume margin below the debt, and the floor's part of it. */
	uint64_t now_ns = 2100000, looks = 0;

	while (!godwit_vcpu_may_run(g.v, now_ns)) {
		now_ns += godwit_vcpu_next(g.v, now_ns);
		cr_assert_lt(++looks, 10, "looks without end");
	}
	cr_assert_leq(now_ns, 2100000 + RESUME_NS + LOOK_MIN_NS);
	cr_assert_lt(g.v->page_credit, 0);
}

/* An event that came while it ran used to be forgotten if that was at the bottom of its debt, or if the host left the
 * vCPU waiting for longer than a window: then it was held with an interrupt that it had not handled. */
Test(vcpu, serves_an_event_that_came_while_it_ran_but_before_it_could_run_on)
{
	static struct guest g;

	for (unsigned is_deep = 0; is_deep < 2; is_deep++) {
		guest_init(&g, 1000);
		set_rate(g.v, 1000, 99, RESUME_NS);
		cr_assert(godwit_vcpu_may_run(g.v, 1000));
		godwit_vcpu_dirtied(g.v, is_deep ? 1000000 : 20);
		godwit_vcpu_io(g.v, 1500000);
		godwit_vcpu_advance(g.v, 4000000, 3000000);
		cr_assert_eq(godwit_vcpu_may_run(g.v, 4000000), !is_deep);

		uint64_t now_ns = 4000000, looks = 0;

		while (!godwit_vcpu_may_run(g.v, now_ns)) {
			now_ns += godwit_vcpu_next(g.v, now_ns);
			cr_assert_lt(++looks, 10, "looks without end");
		}
		cr_assert_leq(now_ns, 4000000 + RESUME_NS + LOOK_MIN_NS);
		cr_assert_lt(g.v->page_credit, 0);
	}
}

/* I4 */
Test(vcpu, who_stays_below_the_rate_is_never_held)
{
	static struct guest g;

	for (unsigned i = 0; i < 400; i++) {
		uint64_t rate = about(1000, 1u << 20), start_ns = draw() >> 1;

		guest_init(&g, start_ns);
		set_rate(g.v, rate, (unsigned)between(1, 99), RESUME_NS);
		/* 95 % of the rate, some of it in slices of a few ms at a high density. */
		while (g.now_ns - start_ns < 2ull * S) {
			uint64_t period_ns = between(MS, 5 * MS), ran_ns = between(MS / 10, period_ns);

			CHECK(godwit_vcpu_may_run(g.v, g.now_ns), "held below the rate");
			godwit_vcpu_dirtied(g.v, rate * period_ns / S * 95 / 100);
			godwit_vcpu_advance(g.v, g.now_ns + ran_ns, ran_ns);
			check_bounds(g.v);
			g.now_ns += period_ns;
		}
		cr_assert_eq(g.v->held_ns, 0);
	}
}

/* I7 */
Test(vcpu, stop_ends_a_hold_in_the_same_instant)
{
	static struct guest g;

	for (unsigned i = 0; i < 20000; i++) {
		guest_init(&g, draw() >> 1);
		set_rate(g.v, about(1, 1000), 99, RESUME_NS);
		godwit_vcpu_dirtied(g.v, 100000);
		godwit_vcpu_advance(g.v, g.now_ns + MS, MS);
		CHECK(!godwit_vcpu_may_run(g.v, g.now_ns + MS), "not held");
		godwit_vcpu_stop(g.v);
		CHECK(godwit_vcpu_may_run(g.v, g.now_ns + MS), "held after stop");
		CHECK(g.v->held_since_ns == 0, "still counts as held");
	}
}

/* I10 */
Test(vcpu, a_charge_in_parts_is_the_charge)
{
	static struct guest whole, parts;

	for (unsigned i = 0; i < 200000; i++) {
		uint64_t rate = about(1000, 1u << 24);

		guest_init(&whole, draw() >> 1);
		set_rate(whole.v, rate, (unsigned)between(1, 99), RESUME_NS);
		/* Somewhere inside of both buckets. */
		whole.v->page_credit = CREDIT(between(0, 100 * MS)) - CREDIT(50 * MS);
		whole.v->floor_credit = 0;
		parts = whole;
		parts.v = (struct godwit_vcpu *)parts.memory;

		uint64_t a_ns = between(0, 100000), b_ns = between(0, 100000);
		uint64_t a_ran = between(0, a_ns), b_ran = between(0, b_ns);
		uint64_t a_pages = between(0, rate / 1000), b_pages = between(0, rate / 1000);

		godwit_vcpu_dirtied(whole.v, a_pages + b_pages);
		godwit_vcpu_advance(whole.v, whole.now_ns + a_ns + b_ns, a_ran + b_ran);
		godwit_vcpu_dirtied(parts.v, a_pages);
		godwit_vcpu_advance(parts.v, parts.now_ns + a_ns, a_ran);
		godwit_vcpu_dirtied(parts.v, b_pages);
		godwit_vcpu_advance(parts.v, parts.now_ns + a_ns + b_ns, b_ran);
		if (whole.v->floor_credit <= -floor_debt_of(whole.v))
			continue;	/* at a clamp the order matters */
		CHECK(whole.v->page_credit == parts.v->page_credit, "page credit differs");
		CHECK(whole.v->floor_credit == parts.v->floor_credit, "floor credit differs");
	}
	cr_assert_gt(nr_checks, 200000);
}

/* ---- faults ---- */

/* A hook that does not tell of I/O costs latency, never more than the bound of every hold. */
Test(vcpu, falls_back_to_the_hold_bound_when_events_are_lost)
{
	static struct episode e;
	struct guest *g = &e.guest;

	for (unsigned percent = 50; percent <= 99; percent += 7) {
		guest_init(g, 0);
		e.max_percent = percent;
		g->pages_per_ms = 500;
		set_rate(g->v, 100, percent, RESUME_NS);
		g->io_per_s = 500;
		g->is_io_lost = true;
		while (g->now_ns < 20ull * S)
			guest_turn(g);
		check_hold(&e);
		cr_assert_eq(g->v->boosts, 0);
		cr_assert_gt(g->v->holds, 10);
	}
}

/* A host that wakes nobody for seconds: what is owed stays bounded, and so does what may be made up for. */
Test(vcpu, is_not_thrown_off_by_looks_that_are_seconds_late)
{
	static struct guest g;

	for (unsigned i = 0; i < 200; i++) {
		guest_init(&g, draw() >> 1);
		g.pages_per_ms = about(1, 1000);
		g.io_per_s = 100;
		g.late_percent = 20;
		g.late_ns = 3ull * S;
		set_rate(g.v, about(100, 1u << 18), (unsigned)between(50, 99), RESUME_NS);
		for (unsigned turn = 0; turn < 1000; turn++)
			guest_turn(&g);
	}
}

/* All counters and the clock near their end: the same as from zero. */
Test(vcpu, counters_and_clock_may_wrap)
{
	static struct guest a, b;
	uint64_t start_rng;

	for (unsigned i = 0; i < 200; i++) {
		uint64_t rate = about(100, 1u << 18), density = about(1, 1000);
		unsigned percent = (unsigned)between(50, 99);

		guest_init(&a, 5 * MS);
		guest_init(&b, UINT64_MAX - 300 * MS);
		b.v->dirtied_pages = b.v->charged_pages = UINT64_MAX - 10;
		b.v->io_events = b.v->boosted_events = UINT64_MAX - 3;
		b.v->ran_ns = b.v->held_ns = UINT64_MAX - MS;
		/* A window from before the beginning of time is over. */
		b.v->boost_until_ns = b.now_ns;
		a.v->boost_until_ns = a.now_ns;
		a.pages_per_ms = b.pages_per_ms = density;
		a.io_per_s = b.io_per_s = 300;
		set_rate(a.v, rate, percent, RESUME_NS);
		set_rate(b.v, rate, percent, RESUME_NS);
		start_rng = rng;
		for (unsigned turn = 0; turn < 1000; turn++)
			guest_turn(&a);
		rng = start_rng;
		for (unsigned turn = 0; turn < 1000; turn++)
			guest_turn(&b);
		CHECK(a.ran_ns == b.ran_ns && a.pages == b.pages, "ran otherwise near the wrap");
		CHECK(a.v->holds == b.v->holds && a.v->boosts == b.v->boosts, "held otherwise near the wrap");
		CHECK(a.v->page_credit == b.v->page_credit, "owes otherwise near the wrap");
	}
}

Test(vcpu, tells_what_it_lost)
{
	static struct guest g;
	struct godwit_vcpu_stats stats = GODWIT_VCPU_STATS_INIT;
	uint64_t held_ns;

	guest_init(&g, 1);
	g.pages_per_ms = 400;
	g.io_per_s = 100;
	set_rate(g.v, 40000, 90, RESUME_NS);
	while (g.now_ns < 5ull * S)
		guest_turn(&g);
	godwit_vcpu_stats(g.v, &stats);
	held_ns = g.now_ns - 1 - g.ran_ns;
	cr_assert_eq(stats.ran_ns, g.ran_ns);
	cr_assert_eq(stats.pages, g.pages);
	cr_assert_leq(stats.held_ns, held_ns);
	cr_assert_geq(stats.held_ns + LOOK_MAX_NS, held_ns, "%lu of %lu", (unsigned long)stats.held_ns,
		      (unsigned long)held_ns);
	cr_assert_gt(stats.boosts, 0);
	cr_assert_leq(stats.longest_hold_ns, g.longest_hold_ns);
	cr_assert_gt(stats.longest_hold_ns, 0);
	/* 40000 pages a second, give or take what may be owed and saved. */
	cr_assert_leq(stats.pages, 40000 * 5 + 40000 * 3 / 4 + 400 * 5);
	cr_assert_eq(stats.rate_pages_per_s, 40000);

	/* A caller of an earlier release gets what it knows of. */
	struct godwit_vcpu_stats old = { .size = offsetof(struct godwit_vcpu_stats, held_ns), .held_ns = 77 };

	godwit_vcpu_stats(g.v, &old);
	cr_assert_eq(old.ran_ns, g.ran_ns);
	cr_assert_eq(old.held_ns, 77);
}
