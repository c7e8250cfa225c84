/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vcpu.c - may this vCPU run now: two buckets and a moment's grace for I/O
 *
 * Page credit grows with time and shrinks with every newly dirtied page by what the page costs at the
 * vCPU's rate. Floor credit grows with the part of time that the cap leaves to the vCPU and shrinks with
 * the CPU time it uses. Running turns into held when both are used up, held into running when one has
 * recovered: the space between keeps a hold from being many short ones. So a vCPU that dirties little
 * never notices, one that dirties much runs at its rate, and none gets less than its floor.
 *
 * An I/O event opens a window in which it may run on debt. Nothing is given: pages and time are charged as
 * always, and the slices after it are shorter. At the bottom the debt is cut off: who has run into
 * it gets its floor and no windows, until it has paid back a slice.
 *
 * Charges are by counts and timestamps, never by where a tick finds the vCPU: that could be played.
 * Always: -(debt + resume) <= page credit <= burst, -(floor * its debt + slice/4) <= floor credit <= 2 slices.
 */
#include <string.h>

#include "throttle/throttle.h"

#define SPAN_MAX_NS ((uint64_t)1 << 36)	/* longer ones say no more: 69 s fill every bucket */

static uint64_t load(const _Atomic uint64_t *figure)
{
	return atomic_load_explicit(figure, memory_order_relaxed);
}

static uint32_t load32(const _Atomic uint32_t *figure)
{
	return atomic_load_explicit(figure, memory_order_relaxed);
}

/* Add to a figure that only this thread writes. */
static void count(_Atomic uint64_t *figure, uint64_t add)
{
	atomic_store_explicit(figure, load(figure) + add, memory_order_relaxed);
}

static void count_one(_Atomic uint32_t *figure)
{
	atomic_store_explicit(figure, load32(figure) + 1, memory_order_relaxed);
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
	return value < low ? low : value > high ? high : value;
}

static int64_t page_bottom(const struct godwit_vcpu *v)
{
	return -CREDIT(DEBT_NS + load32(&v->resume_ns));
}

/* The fraction times a time is a credit: both have 16 bits. */
static int64_t floor_debt(const struct godwit_vcpu *v)
{
	return (int64_t)load32(&v->floor) * FLOOR_DEBT_NS;
}

struct godwit_vcpu *godwit_vcpu_init(void *memory, uint64_t now_ns)
{
	struct godwit_vcpu *v = memory;

	memset(v, 0, sizeof(*v));
	v->last_ns = now_ns;
	v->page_credit = CREDIT(RESUME_NS);
	v->floor_credit = CREDIT(SLICE_NS);
	atomic_init(&v->floor, FRACTION_ONE);
	atomic_init(&v->resume_ns, RESUME_NS);
	atomic_init(&v->boost_ns, BOOST_MAX_NS);
	return v;
}

void godwit_vcpu_dirtied(struct godwit_vcpu *v, uint64_t pages)
{
	/* Relaxed: a number, nothing is published by it. */
	atomic_fetch_add_explicit(&v->dirtied_pages, pages, memory_order_relaxed);
}

void godwit_vcpu_io(struct godwit_vcpu *v, uint64_t now_ns)
{
	(void)now_ns;	/* for callers' symmetry: a window begins when the vCPU gets to run */
	atomic_fetch_add_explicit(&v->io_events, 1, memory_order_relaxed);
}

/* The part of a window that is left of a debt. */
static uint64_t shorten(uint64_t window_ns, int64_t left, int64_t debt)
{
	if (left <= 0)
		return 0;
	return left < debt ? window_ns * (uint64_t)left / (uint64_t)debt : window_ns;
}

/*
 * Windows get shorter as the rest of both debts fills, so that frequent events do not run into the
 * bottom, where there are none: a short answer soon is worth more than a long one late.
 */
static void open_window(struct godwit_vcpu *v, uint64_t from_ns)
{
	uint64_t window_ns = load32(&v->boost_ns);
	uint64_t by_pages = shorten(window_ns, (int64_t)DEBT_NS + v->page_credit / CREDIT(1), DEBT_NS);
	uint64_t by_floor = shorten(window_ns, floor_debt(v) + v->floor_credit, floor_debt(v));
	uint64_t until_ns;

	window_ns = by_pages > by_floor ? by_pages : by_floor;
	until_ns = from_ns + (window_ns > BOOST_LEAST_NS ? window_ns : BOOST_LEAST_NS);
	if ((int64_t)(until_ns - v->boost_until_ns) <= 0)
		return;
	v->boost_until_ns = until_ns;
	v->is_window_counted = false;
}

/*
 * A window begins when the vCPU gets to run after the event: one that came at the bottom of the debt, or
 * whose vCPU the host left waiting, is not lost.
 */
static void take_io(struct godwit_vcpu *v)
{
	/* Relaxed: a number, nothing is published by it. */
	uint64_t events = load(&v->io_events);

	if (events == v->boosted_events)
		return;
	v->boosted_events = events;
	v->has_io_waiting = true;
}

/* What it may owe ends so far above the floor's bottom that a short look fits between: the bottom forgives. */
static int64_t floor_limit(const struct godwit_vcpu *v)
{
	return -floor_debt(v) + CREDIT(LOOK_ROOM_NS - SLICE_NS / 4);
}

static bool may_owe(const struct godwit_vcpu *v)
{
	return v->page_credit > -CREDIT(DEBT_NS) || v->floor_credit > floor_limit(v);
}

static bool is_boosted(const struct godwit_vcpu *v)
{
	return (int64_t)(v->boost_until_ns - v->last_ns) > 0 && may_owe(v);
}

/* The densest slice of late: after a sync all pages are clean again, and the density jumps tenfold. */
static void learn_peak(struct godwit_vcpu *v, uint64_t span_ns, uint64_t pages, uint64_t ran_ns)
{
	uint64_t fade_us = span_ns >> 10;

	/* By half in about 6 s. */
	v->peak_density -= fade_us < (1u << 23) ? (v->peak_density * fade_us) >> 23 : v->peak_density;
	if (!pages || ran_ns < LOOK_MIN_NS / 2)
		return;
	if (pages > RATE_MAX)
		pages = RATE_MAX;
	uint64_t density = pages * ((uint64_t)MS << 8) / ran_ns;
	if (density > v->peak_density)
		v->peak_density = density;
}

/* Time has passed, and this much of it was used. */
static void settle(struct godwit_vcpu *v, uint64_t now_ns, uint64_t ran_ns)
{
	int64_t cost = (int64_t)load(&v->page_cost);
	uint64_t dirtied = load(&v->dirtied_pages);
	uint64_t pages = dirtied - v->charged_pages;
	uint64_t span_ns = now_ns - v->last_ns;
	int64_t charge, floor;

	if ((int64_t)span_ns < 0)
		span_ns = 0;
	else
		v->last_ns = now_ns;
	if (load(&v->held_since_ns))
		count(&v->held_ns, span_ns);
	v->charged_pages = dirtied;
	count(&v->ran_ns, ran_ns);
	learn_peak(v, span_ns, pages, ran_ns);

	if (span_ns > SPAN_MAX_NS)
		span_ns = SPAN_MAX_NS;
	if (ran_ns > SPAN_MAX_NS)
		ran_ns = SPAN_MAX_NS;
	if (pages > INT64_MAX || __builtin_mul_overflow((int64_t)pages, cost, &charge) ||
	    charge > CREDIT(SPAN_MAX_NS))
		charge = CREDIT(SPAN_MAX_NS) + CREDIT(BURST_NS + DEBT_NS);
	v->page_credit = clamp(v->page_credit + CREDIT(span_ns) - charge, page_bottom(v), CREDIT(BURST_NS));
	floor = v->floor_credit + (int64_t)(span_ns * load32(&v->floor)) - CREDIT(ran_ns);
	v->floor_credit = clamp(floor, -floor_debt(v) - CREDIT(SLICE_NS / 4), CREDIT(2 * SLICE_NS));
	take_io(v);
}

static void begin_hold(struct godwit_vcpu *v)
{
	/* 0 says that there is none. */
	atomic_store_explicit(&v->held_since_ns, v->last_ns ? v->last_ns : 1, memory_order_relaxed);
	count_one(&v->holds);
}

static void end_hold(struct godwit_vcpu *v)
{
	uint64_t hold_ns = v->last_ns - load(&v->held_since_ns);

	if (hold_ns > load(&v->longest_hold_ns))
		atomic_store_explicit(&v->longest_hold_ns, hold_ns, memory_order_relaxed);
	atomic_store_explicit(&v->held_since_ns, 0, memory_order_relaxed);
}

void godwit_vcpu_advance(struct godwit_vcpu *v, uint64_t now_ns, uint64_t ran_ns)
{
	settle(v, now_ns, ran_ns);
}

bool godwit_vcpu_may_run(struct godwit_vcpu *v, uint64_t now_ns)
{
	bool is_held, has_credit;

	settle(v, now_ns, 0);
	is_held = load(&v->held_since_ns);
	if (!load(&v->page_cost))
		has_credit = true;
	else if (is_held)
		has_credit = v->page_credit >= CREDIT(load32(&v->resume_ns)) ||
			     v->floor_credit >= CREDIT(SLICE_NS);
	else
		has_credit = v->page_credit > 0 || v->floor_credit > 0;
	if (v->has_io_waiting && (has_credit || may_owe(v))) {
		v->has_io_waiting = false;
		open_window(v, v->last_ns);
	}
	if (!has_credit && is_boosted(v)) {
		if (!v->is_window_counted)
			count_one(&v->boosts);
		v->is_window_counted = true;
		has_credit = true;
	}
	if (has_credit && is_held)
		end_hold(v);
	else if (!has_credit && !is_held)
		begin_hold(v);
	return has_credit;
}

bool godwit_vcpu_may_boost(const struct godwit_vcpu *v)
{
	return !load(&v->page_cost) || may_owe(v);
}

/* Until both are used up, at the peak density; cost is not 0. */
static uint64_t running_ns(const struct godwit_vcpu *v, uint64_t cost)
{
	uint64_t rate = ((uint64_t)MS << (8 + CREDIT_SHIFT)) / cost;	/* as peak_density */
	uint32_t fraction = load32(&v->floor);
	uint64_t look_ns = 0, pages, by_floor, by_boost;

	if (v->page_credit > 0) {
		pages = (uint64_t)v->page_credit / cost;
		if (v->peak_density <= rate || pages >= RATE_MAX || fraction == FRACTION_ONE)
			return LOOK_MAX_NS;
		look_ns = pages * ((uint64_t)MS << 8) / (v->peak_density - rate);
	}
	if (v->floor_credit > 0 && fraction < FRACTION_ONE) {
		by_floor = (uint64_t)v->floor_credit / (FRACTION_ONE - fraction);
		if (by_floor > look_ns)
			look_ns = by_floor;
	}
	if (is_boosted(v)) {
		by_boost = v->boost_until_ns - v->last_ns;
		if (by_boost > look_ns)
			look_ns = by_boost;
	}
	return look_ns;
}

/* Until one has recovered; with an event waiting, until it owes little enough of one. */
static uint64_t held_ns(const struct godwit_vcpu *v)
{
	bool is_asked = v->has_io_waiting;
	int64_t page = (is_asked ? -CREDIT(DEBT_NS) : CREDIT(load32(&v->resume_ns))) - v->page_credit;
	int64_t floor = (is_asked ? floor_limit(v) : CREDIT(SLICE_NS)) - v->floor_credit;
	uint64_t by_pages, by_floor;

	if (page < 0 || floor < 0)
		return 0;
	/* Up: a look that is a nanosecond early is one look too many. */
	by_pages = ((uint64_t)page >> CREDIT_SHIFT) + 1;
	by_floor = (uint64_t)floor / load32(&v->floor) + 1;
	return by_pages < by_floor ? by_pages : by_floor;
}

uint64_t godwit_vcpu_next(const struct godwit_vcpu *v, uint64_t now_ns)
{
	uint64_t passed_ns = now_ns - v->last_ns;
	uint64_t cost = load(&v->page_cost);
	uint64_t look_ns, least_ns;

	if (!cost)
		return GODWIT_THROTTLE_PERIOD_NS;
	look_ns = load(&v->held_since_ns) ? held_ns(v) : running_ns(v, cost);
	if ((int64_t)passed_ns > 0)
		look_ns = look_ns > passed_ns ? look_ns - passed_ns : 0;
	/* Half as often where it is not for I/O: a look that is later is only paid back later. */
	least_ns = v->has_io_waiting || is_boosted(v) ? LOOK_MIN_NS : 2 * LOOK_MIN_NS;
	return look_ns < least_ns ? least_ns : look_ns > LOOK_MAX_NS ? LOOK_MAX_NS : look_ns;
}

void godwit_vcpu_stop(struct godwit_vcpu *v)
{
	/* Relaxed: the kick that follows orders it for who sleeps, by whatever it sleeps on. */
	atomic_store_explicit(&v->page_cost, 0, memory_order_relaxed);
}

void godwit_vcpu_stats(const struct godwit_vcpu *v, struct godwit_vcpu_stats *stats)
{
	uint64_t cost = load(&v->page_cost);
	size_t size = stats->size < sizeof(*stats) ? stats->size : sizeof(*stats);
	struct godwit_vcpu_stats s = {
		.size = stats->size,
		.ran_ns = load(&v->ran_ns),
		.held_ns = load(&v->held_ns),
		.longest_hold_ns = load(&v->longest_hold_ns),
		.holds = load32(&v->holds),
		.boosts = load32(&v->boosts),
		.io_events = load(&v->io_events),
		.pages = load(&v->dirtied_pages),
		.rate_pages_per_s = cost ? ((uint64_t)S << CREDIT_SHIFT) / cost : 0,
		.taken_percent = (load32(&v->taken) * 100 + FRACTION_ONE / 2) >> FRACTION_SHIFT,
		.is_held = load(&v->held_since_ns) != 0,
	};

	memcpy(stats, &s, size);
}
