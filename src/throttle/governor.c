/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * governor.c - every 100 ms: what do the vCPUs want, what may they have
 *
 * 1. Measure. A vCPU's density is new pages per CPU second; its demand what it would dirty if it were not held:
 *    its pages, scaled up by the time for which it was held. Averages of about a second decide whether
 *    to hold at all; the buckets (vcpu.c) police every page. A faster average let bursty guests go too soon.
 * 2. Need. Nobody is governed while the migration converges in time by itself, nor in the first pass.
 * 3. Allow. A round may leave three eighths of what it began with, or what the downtime limit takes, whichever
 *    is more. What of that is not dirtied yet is spread over the rest of the round.
 * 4. Level. All get the same page rate but for a tilt, water-filled (level.c), so that who dirties little does
 *    not notice.
 * 5. Cap. Where the floors alone are more than allowed, vCPUs whose floor is above the level run at the cap,
 *    and the others are levelled for what the channel bears beside them. If then what is left does not
 *    shrink, measured, for a while, holding is futile: everybody is released until something changes.
 *
 * Pages per second with 8 fractional bits below 2^37 and times in us below 2^21: products fit 64 bits. A
 * vCPU's share of a step multiplies by reciprocals where it can: a wide division takes as long as 20 products.
 */
#include <errno.h>
#include <string.h>

#include "throttle/throttle.h"

#define US 1000u			/* ns */
#define TAU_US 1000000u			/* of the averages */
#define STEP_MAX_US 2000000u		/* a later step counts as this late */
#define VCPUS_MAX 65535u
#define DENSE_FADE 6			/* a 64th a step: to half in 4 s */

#define TILT 12				/* by a twelfth of the level at most */

#define PATIENCE_S 10			/* a migration that is over in so long is left alone */
#define SPAN_MIN_DIVISOR 4		/* 1/s: the end of a round is not planned closer than 250 ms */
#define FUTILE_US 5000000u
#define RETRY_NS (60ull * S)

static uint64_t load(const _Atomic uint64_t *figure)
{
	return atomic_load_explicit(figure, memory_order_relaxed);
}

static void store(_Atomic uint64_t *figure, uint64_t value)
{
	atomic_store_explicit(figure, value, memory_order_relaxed);
}

static void store32(_Atomic uint32_t *figure, uint32_t value)
{
	atomic_store_explicit(figure, value, memory_order_relaxed);
}

static uint64_t at_most(uint64_t value, uint64_t most)
{
	return value < most ? value : most;
}

static uint64_t at_least(uint64_t value, uint64_t least)
{
	return value > least ? value : least;
}

static uint64_t to_rate(uint64_t pages_per_s)
{
	return at_most(pages_per_s, RATE_MAX >> RATE_SHIFT) << RATE_SHIFT;
}

/* To divide by us with a product; us is not 0, and exact enough for what is measured. */
struct reciprocal {
	uint64_t value;			/* 32 fractional bits */
};

static struct reciprocal reciprocal_of(uint32_t us)
{
	return (struct reciprocal){ us > 1 ? UINT32_MAX / us + 1 : (uint64_t)1 << 32 };
}

/* At most RATE_MAX. */
static uint64_t divide(uint64_t a, struct reciprocal by)
{
	unsigned __int128 product = (unsigned __int128)a * by.value >> 32;

	return product < RATE_MAX ? (uint64_t)product : RATE_MAX;
}

/* Pages in a time as a rate. */
static uint64_t rate_of(uint64_t pages, struct reciprocal us)
{
	/* 2^26 pages are 256 GB. */
	return divide((at_most(pages, 1u << 26) << RATE_SHIFT) * 1000000u, us);
}

/* a * b / c for what is done once a step; at most RATE_MAX. */
static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 product = (unsigned __int128)a * b / (c ? c : 1);

	return product < RATE_MAX ? (uint64_t)product : RATE_MAX;
}

/*
 * Averages move towards the new value by the part that us is of what they then cover: a plain mean over the
 * first second, from the first value on; later they forget exponentially.
 */
static uint64_t grow_older(uint32_t *age_us, uint32_t us, uint64_t grown_up)
{
	/* Most are: one division for all of them. */
	if (*age_us >= TAU_US) {
		*age_us = TAU_US + us;
		return grown_up;
	}
	*age_us = (uint32_t)at_most((uint64_t)*age_us + us, (uint64_t)TAU_US + us);
	return ((uint64_t)us << FRACTION_SHIFT) / *age_us;
}

static uint64_t average(uint64_t so_far, uint64_t value, uint64_t fraction)
{
	/* Without a branch, which would be guessed wrong half of the time. */
	int64_t change = (int64_t)(value - so_far) * (int64_t)fraction;

	return so_far + (uint64_t)(change >> FRACTION_SHIFT);
}

/* ---- measure ---- */

struct sums {
	/* In this step. */
	uint64_t pages, pages_charged, held_ns, longest_hold_ns, io_events;
	uint32_t holds, boosts;
	/* Rates. */
	uint64_t demand;
	uint64_t floor_rate;		/* at the cap */
};

static uint64_t since(uint64_t *seen, uint64_t now)
{
	uint64_t grown = now - *seen;

	*seen = now;
	return grown;
}

/* What a vCPU did since the last step. Differences, so that counters may wrap. */
struct deltas {
	uint64_t pages, ran_ns, held_ns, io_events;
};

/* False for the first time: then the counters may be of an earlier migration. */
static bool see(struct godwit_vcpu *v, struct sums *sums, struct deltas *d)
{
	uint32_t holds = atomic_load_explicit(&v->holds, memory_order_relaxed);
	uint32_t boosts = atomic_load_explicit(&v->boosts, memory_order_relaxed);
	bool is_known = v->is_measured;

	d->pages = since(&v->dirtied_seen_pages, load(&v->dirtied_pages));
	d->ran_ns = since(&v->ran_seen_ns, load(&v->ran_ns));
	d->held_ns = since(&v->held_seen_ns, load(&v->held_ns));
	d->io_events = since(&v->io_seen_events, load(&v->io_events));
	if (is_known) {
		sums->pages += d->pages;
		sums->pages_charged += load(&v->page_cost) ? d->pages : 0;
		sums->held_ns += d->held_ns;
		sums->io_events += d->io_events;
		sums->holds += holds - v->holds_seen;
		sums->boosts += boosts - v->boosts_seen;
		sums->longest_hold_ns = at_least(sums->longest_hold_ns, load(&v->longest_hold_ns));
	}
	v->holds_seen = holds;
	v->boosts_seen = boosts;
	v->is_measured = 1;
	return is_known;
}

/* held of held and ran, as a fraction; 10 bits of it. */
static uint64_t part_of(uint32_t held_us, uint32_t ran_us)
{
	return held_us ? (held_us << 10) / (held_us + ran_us) << (FRACTION_SHIFT - 10) : 0;
}

static void learn(struct godwit_vcpu *v, const struct deltas *d, uint32_t us, struct reciprocal a_us,
		  uint64_t grown_up)
{
	uint32_t ran_us = (uint32_t)at_most(d->ran_ns / US, STEP_MAX_US);
	uint32_t held_us = (uint32_t)at_most(d->held_ns / US, STEP_MAX_US);
	uint64_t taken = part_of(held_us, ran_us);
	uint64_t fraction = grow_older(&v->age_us, us, grown_up), wanted, density;

	/* Pages of one that has not said how long it ran: all the time. */
	if (d->pages && !ran_us)
		ran_us = us;
	if (ran_us) {
		struct reciprocal a_ran_us = reciprocal_of(ran_us);

		wanted = rate_of(d->pages, a_us);
		wanted += divide(wanted * held_us, a_ran_us);
		density = rate_of(d->pages, a_ran_us);
		v->density = v->density ? average(v->density, density, fraction) : density;
		v->dense = at_least(v->dense - (v->dense >> DENSE_FADE), ran_us > us / 256 ? density : 0);
	} else {
		wanted = divide(v->density * held_us, a_us);
	}
	v->demand = average(v->demand, at_most(wanted, RATE_MAX), fraction);
	v->io_rate = (uint32_t)average(v->io_rate, at_most(rate_of(d->io_events, a_us), UINT32_MAX), fraction);
	taken = average(atomic_load_explicit(&v->taken, memory_order_relaxed), taken, fraction);
	store32(&v->taken, (uint32_t)taken);
}

/* What it dirties at the cap. */
static uint64_t floor_rate(const struct godwit_throttle *t, const struct godwit_vcpu *v)
{
	return at_most(v->density * (100 - t->max_percent) / 100, v->demand);
}

/* And right after a sync, when all pages are clean: at most 1000 times as dense. */
static uint64_t floor_peak(const struct godwit_vcpu *v)
{
	if (v->dense <= v->density || !v->density)
		return v->least_rate;
	return v->least_rate * at_most((v->dense << FRACTION_SHIFT) / v->density, 1000u << FRACTION_SHIFT) >>
	       FRACTION_SHIFT;
}

static uint64_t floor_peaks(struct godwit_vcpu *const *vcpus, size_t nr_vcpus)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < nr_vcpus; i++)
		sum += floor_peak(vcpus[i]);
	return sum;
}

static void measure(struct godwit_throttle *t, uint32_t us, uint64_t device_rate,
		    struct godwit_vcpu *const *vcpus, size_t nr_vcpus, struct sums *sums)
{
	uint64_t grown_up = ((uint64_t)us << FRACTION_SHIFT) / (TAU_US + us);
	struct reciprocal a_us = reciprocal_of(us);
	struct deltas deltas;
	uint64_t rate;

	for (size_t i = 0; i < nr_vcpus; i++) {
		struct godwit_vcpu *v = vcpus[i];

		if (see(v, sums, &deltas) && us)
			learn(v, &deltas, us, a_us, grown_up);
		v->most_rate = v->demand;
		v->least_rate = floor_rate(t, v);
		sums->demand += v->most_rate;
		sums->floor_rate += v->least_rate;
	}
	if (!us)
		return;
	rate = rate_of(sums->pages, a_us) + device_rate;
	t->dirty_rate = average(t->dirty_rate, at_most(rate, RATE_MAX), grow_older(&t->age_us, us, grown_up));
}

/* ---- decide ---- */

/* Would it be over in time if nobody were held? */
static bool converges_alone(const struct godwit_throttle_input *in, uint64_t send_rate, uint64_t dirty_rate)
{
	return dirty_rate <= send_rate - send_rate / 20 &&
	       to_rate(in->remaining_pages) / PATIENCE_S <= send_rate - dirty_rate;
}

/* New pages per second that the rest of the round may have, devices' included. */
static uint64_t allowance(const struct godwit_throttle_input *in, uint64_t send_rate)
{
	uint64_t budget = at_least(in->round_pages / 8 * 3, in->threshold_pages - in->threshold_pages / 5);
	uint64_t base = at_most(mul_div(budget, send_rate, in->round_pages), send_rate);
	uint64_t left = budget > in->dirtied_pages ? budget - in->dirtied_pages : 0;
	uint64_t span_pages = at_least(in->remaining_pages, (send_rate >> RATE_SHIFT) / SPAN_MIN_DIVISOR);
	uint64_t pace = mul_div(left, send_rate, span_pages);

	return at_most(at_least(pace, base / 2), 2 * base);
}

/* Capped, and measured no progress for a while: what a round leaves is what it began with. */
static bool finds_futile(struct godwit_throttle *t, const struct godwit_throttle_input *in, uint64_t send_rate,
			 uint32_t us)
{
	uint64_t left = in->dirtied_pages + mul_div(t->dirty_rate, in->remaining_pages, send_rate);

	if (left > in->round_pages - in->round_pages / 50)
		t->futile_us += us;
	else
		t->futile_us -= (uint32_t)at_most(t->futile_us, us / 2);
	return t->futile_us >= FUTILE_US;
}

static bool still_futile(struct godwit_throttle *t, uint64_t now_ns, uint64_t send_rate)
{
	uint64_t fifth = t->futile_send_rate / 5;

	if (!t->is_futile)
		return false;
	t->is_futile = now_ns - t->futile_ns < RETRY_NS && t->max_percent == t->futile_max_percent &&
		       send_rate < t->futile_send_rate + fifth && send_rate > t->futile_send_rate - fifth;
	if (!t->is_futile)
		t->futile_us = 0;
	return t->is_futile;
}

/* ---- act ---- */

static void release(struct godwit_vcpu *const *vcpus, size_t nr_vcpus)
{
	for (size_t i = 0; i < nr_vcpus; i++) {
		vcpus[i]->rate = 0;
		godwit_vcpu_stop(vcpus[i]);
	}
}

/* Not by more than half down or up in a step; the first from what it did when it was free. */
static uint64_t slew(const struct godwit_vcpu *v, uint64_t rate)
{
	uint64_t from = v->rate ? v->rate : at_least(v->demand, rate);

	return at_most(at_least(rate, from / 2), from + from / 2);
}

/* Windows that spend the rate if the guest works through them, within bounds. */
static uint32_t boost_for(const struct godwit_vcpu *v, uint64_t rate)
{
	/* Of a second: rate / density, over events per second. */
	uint64_t all = at_most(rate, 1ull << 33) * S;
	unsigned __int128 dense = (unsigned __int128)v->density * (v->io_rate >> RATE_SHIFT);

	/* The division only where it is between the bounds. */
	if (all >= dense * BOOST_MAX_NS)
		return BOOST_MAX_NS;
	return all <= dense * BOOST_MIN_NS ? BOOST_MIN_NS : (uint32_t)(all / (uint64_t)dense);
}

static void govern(struct godwit_vcpu *v, uint64_t rate, uint64_t entitled, uint32_t floor)
{
	uint64_t page_cost, works;

	v->rate = rate = at_least(at_least(slew(v, rate), entitled), 1 << RATE_SHIFT);
	page_cost = at_least(((uint64_t)S << (CREDIT_SHIFT + RATE_SHIFT)) / rate, 1);
	/* How long its rate takes for a second of its work, ns, and for the work that a hold must be worth. */
	works = (uint64_t)((unsigned __int128)v->density * page_cost >> (CREDIT_SHIFT + RATE_SHIFT));
	works /= S / RESUME_WORK_NS;
	store32(&v->resume_ns, (uint32_t)at_most(at_least(works, RESUME_NS), RESUME_MAX_NS));
	store32(&v->boost_ns, boost_for(v, rate));
	store32(&v->floor, floor);
	store(&v->page_cost, page_cost);
}

struct plan {
	enum godwit_throttle_state state;
	uint64_t level;			/* common rate; ARMED: what each gets above its demand */
	uint64_t capped_level;		/* of those whose floor is above it; 0: nobody is capped */
	uint64_t entitled;		/* who dirties less than this is never held */
};

/*
 * The floors are too much: who has a floor above the level that there would be without floors is at the cap.
 * Its page rate is below its floor, so that the floor alone says when it runs, and it profits from pages
 * that are dirty already. All others get what the channel bears beside those.
 */
static void plan_cap(const struct godwit_throttle *t, uint64_t allowed, uint64_t bearable,
		     struct godwit_vcpu *const *vcpus, size_t nr_vcpus, struct plan *plan)
{
	for (size_t i = 0; i < nr_vcpus; i++)
		vcpus[i]->least_rate = 0;
	plan->capped_level = at_least(godwit_level_fill(vcpus, nr_vcpus, allowed, t->hint), 1);
	for (size_t i = 0; i < nr_vcpus; i++) {
		vcpus[i]->least_rate = floor_rate(t, vcpus[i]);
		if (vcpus[i]->least_rate > plan->capped_level)
			vcpus[i]->most_rate = vcpus[i]->least_rate;
	}
	plan->level = at_least(plan->capped_level, godwit_level_fill(vcpus, nr_vcpus, bearable, t->hint));
}

static struct plan plan_rates(const struct godwit_throttle *t, const struct sums *sums, uint64_t send_rate,
			      uint64_t allowed, uint64_t device_rate, struct godwit_vcpu *const *vcpus,
			      size_t nr_vcpus)
{
	struct plan plan = { .state = GODWIT_THROTTLE_LEVEL, .entitled = allowed / 2 / nr_vcpus };
	uint64_t bearable = send_rate - send_rate * 15 / 100;

	if (sums->demand <= allowed) {
		plan.state = GODWIT_THROTTLE_ARMED;
		plan.level = (allowed - sums->demand) / nr_vcpus;
	} else if (sums->floor_rate <= allowed) {
		plan.level = godwit_level_fill(vcpus, nr_vcpus, allowed, t->hint);
	} else {
		plan.state = floor_peaks(vcpus, nr_vcpus) + device_rate > send_rate - send_rate / 20 ?
			     GODWIT_THROTTLE_INFEASIBLE : GODWIT_THROTTLE_CAPPED;
		bearable = bearable > device_rate ? bearable - device_rate : 0;
		plan_cap(t, allowed, bearable, vcpus, nr_vcpus, &plan);
	}
	return plan;
}

/* What of its demand the level is, for one that is levelled; others are left alone. */
static uint64_t satisfied(const struct godwit_vcpu *v, uint64_t level)
{
	unsigned shift;

	if (v->demand <= level)
		return 0;
	/* A narrow division: 16 bits of it by 16. */
	shift = v->demand >> FRACTION_SHIFT ? 64 - FRACTION_SHIFT - (unsigned)__builtin_clzll(v->demand) : 0;
	return ((uint32_t)(level >> shift) << FRACTION_SHIFT) / (uint32_t)(v->demand >> shift);
}

/*
 * A page less costs a vCPU the more work the fewer pages it dirties with it. So of those that are levelled
 * who nearly gets what it wants gets a little more, the others as much less; the sum stays.
 */
static void tilt(uint64_t level, struct godwit_vcpu *const *vcpus, size_t nr_vcpus)
{
	uint64_t sum = 0, nr_levelled = 0, mean;

	for (size_t i = 0; i < nr_vcpus; i++) {
		uint64_t part = satisfied(vcpus[i], level);

		vcpus[i]->most_rate = part;
		sum += part;
		nr_levelled += part > 0;
	}
	mean = nr_levelled ? sum / nr_levelled : 0;
	for (size_t i = 0; i < nr_vcpus; i++) {
		uint64_t part = vcpus[i]->most_rate;
		int64_t above = part ? (int64_t)part - (int64_t)mean : 0;

		vcpus[i]->most_rate = level + (uint64_t)((int64_t)level * above / (TILT * (int64_t)FRACTION_ONE));
	}
}

static void act(struct godwit_throttle *t, const struct plan *plan, struct godwit_vcpu *const *vcpus,
		size_t nr_vcpus)
{
	uint32_t floor = (100 - t->max_percent) * FRACTION_ONE / 100;

	if (plan->state == GODWIT_THROTTLE_LEVEL)
		tilt(plan->level, vcpus, nr_vcpus);
	for (size_t i = 0; i < nr_vcpus; i++) {
		struct godwit_vcpu *v = vcpus[i];
		uint64_t rate = plan->level;

		if (plan->state == GODWIT_THROTTLE_ARMED)
			rate += v->demand;
		else if (plan->state == GODWIT_THROTTLE_LEVEL)
			rate = v->most_rate;
		else if (v->least_rate > plan->capped_level)
			rate = plan->capped_level;
		govern(v, rate, plan->entitled, floor);
	}
	t->hint = plan->level;
	store(&t->level, plan->state == GODWIT_THROTTLE_ARMED ? 0 : at_least(plan->level, plan->entitled));
}

static void add(_Atomic uint64_t *figure, uint64_t more)
{
	store(figure, load(figure) + more);
}

static void tell(struct godwit_throttle *t, enum godwit_throttle_state state, uint64_t release_ns,
		 uint64_t allowed, size_t nr_governed, const struct sums *sums)
{
	add(&t->pages, sums->pages);
	add(&t->pages_charged, sums->pages_charged);
	add(&t->held_ns, sums->held_ns);
	add(&t->io_events, sums->io_events);
	add(&t->holds, sums->holds);
	add(&t->boosts, sums->boosts);
	store(&t->longest_hold_ns, at_least(load(&t->longest_hold_ns), sums->longest_hold_ns));
	if (!nr_governed)
		store(&t->level, 0);
	if (state == GODWIT_THROTTLE_INFEASIBLE)
		store32(&t->was_infeasible, 1);
	if (state == GODWIT_THROTTLE_FUTILE)
		store32(&t->was_futile, 1);
	store(&t->release_ns, release_ns);
	store(&t->wanted, sums->demand);
	store(&t->allowed, allowed);
	store32(&t->governed, (uint32_t)nr_governed);
	store32(&t->max_told, t->max_percent);
	store32(&t->state, state);
}

/* Until what is left fits, at the rates of the moment. */
static uint64_t time_left_ns(const struct godwit_throttle *t, const struct godwit_throttle_input *in,
			     uint64_t send_rate)
{
	uint64_t gain = send_rate > t->dirty_rate ? send_rate - t->dirty_rate : 0;
	uint64_t left = in->remaining_pages > in->threshold_pages ? in->remaining_pages - in->threshold_pages : 0;

	if (!gain)
		return UINT64_MAX;
	return mul_div(to_rate(left), 1000, gain) * MS;
}

struct godwit_throttle *godwit_throttle_init(void *memory, uint32_t max_percent)
{
	struct godwit_throttle *t = memory;

	memset(t, 0, sizeof(*t));
	godwit_throttle_set_max(t, max_percent);
	store32(&t->max_told, t->max_percent);
	return t;
}

void godwit_throttle_set_max(struct godwit_throttle *t, uint32_t max_percent)
{
	t->max_percent = !max_percent ? 90 : max_percent > 99 ? 99 : max_percent;
}

int godwit_throttle_step(struct godwit_throttle *t, const struct godwit_throttle_input *in,
			 struct godwit_vcpu *const *vcpus, size_t nr_vcpus)
{
	uint64_t send_rate, device_rate, allowed;
	struct sums sums = { 0 };
	struct plan plan;
	int64_t span_ns;
	uint32_t us;

	if (in->size < sizeof(*in) || nr_vcpus > VCPUS_MAX)
		return -EINVAL;
	span_ns = t->has_stepped ? (int64_t)(in->now_ns - t->last_ns) : 0;
	if (span_ns > 0 || !t->has_stepped)
		t->last_ns = in->now_ns;
	t->has_stepped = true;
	us = span_ns > 0 ? (uint32_t)at_most((uint64_t)span_ns / US, STEP_MAX_US) : 0;
	send_rate = to_rate(in->send_pages_per_s);
	device_rate = to_rate(in->device_pages_per_s);
	measure(t, us, device_rate, vcpus, nr_vcpus, &sums);

	if (!nr_vcpus || !in->is_active || in->is_first_pass || !send_rate) {
		release(vcpus, nr_vcpus);
		t->futile_us = 0;
		tell(t, GODWIT_THROTTLE_IDLE, 0, send_rate, 0, &sums);
		return 0;
	}
	if (converges_alone(in, send_rate, sums.demand + device_rate)) {
		release(vcpus, nr_vcpus);
		tell(t, GODWIT_THROTTLE_IDLE, 0, send_rate, 0, &sums);
		return 0;
	}
	if (still_futile(t, in->now_ns, send_rate)) {
		release(vcpus, nr_vcpus);
		tell(t, GODWIT_THROTTLE_FUTILE, t->futile_ns + RETRY_NS - in->now_ns, send_rate, 0, &sums);
		return 0;
	}
	allowed = allowance(in, send_rate);
	allowed = allowed > device_rate ? allowed - device_rate : 0;
	plan = plan_rates(t, &sums, send_rate, allowed, device_rate, vcpus, nr_vcpus);
	if (plan.state < GODWIT_THROTTLE_CAPPED) {
		t->futile_us = 0;
	} else if (finds_futile(t, in, send_rate, us)) {
		t->is_futile = true;
		t->futile_ns = in->now_ns;
		t->futile_send_rate = send_rate;
		t->futile_max_percent = t->max_percent;
		release(vcpus, nr_vcpus);
		tell(t, GODWIT_THROTTLE_FUTILE, RETRY_NS, allowed, 0, &sums);
		return 0;
	}
	act(t, &plan, vcpus, nr_vcpus);
	tell(t, plan.state, time_left_ns(t, in, send_rate), allowed, nr_vcpus, &sums);
	return 0;
}

void godwit_throttle_stop(struct godwit_throttle *t, struct godwit_vcpu *const *vcpus, size_t nr_vcpus)
{
	struct sums sums = { 0 };

	/* The last of the figures; the averages take nothing from a part of a period. */
	measure(t, 0, 0, vcpus, nr_vcpus, &sums);
	release(vcpus, nr_vcpus);
	t->futile_us = 0;
	tell(t, GODWIT_THROTTLE_IDLE, 0, 0, 0, &sums);
}

const char *godwit_throttle_state_name(enum godwit_throttle_state state)
{
	static const char *const names[] = { "idle", "armed", "level", "capped", "infeasible", "futile" };

	return (unsigned)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

void godwit_throttle_stats(const struct godwit_throttle *t, struct godwit_throttle_stats *stats)
{
	size_t size = stats->size < sizeof(*stats) ? stats->size : sizeof(*stats);
	struct godwit_throttle_stats s = {
		.size = stats->size,
		.held_ns = load(&t->held_ns),
		.longest_hold_ns = load(&t->longest_hold_ns),
		.holds = load(&t->holds),
		.boosts = load(&t->boosts),
		.io_events = load(&t->io_events),
		.pages = load(&t->pages),
		.pages_charged = load(&t->pages_charged),
		.level_pages_per_s = load(&t->level) >> RATE_SHIFT,
		.wanted_pages_per_s = load(&t->wanted) >> RATE_SHIFT,
		.allowed_pages_per_s = load(&t->allowed) >> RATE_SHIFT,
		.release_ns = load(&t->release_ns),
		.state = atomic_load_explicit(&t->state, memory_order_relaxed),
		.max_percent = atomic_load_explicit(&t->max_told, memory_order_relaxed),
		.governed = atomic_load_explicit(&t->governed, memory_order_relaxed),
		.is_infeasible = atomic_load_explicit(&t->was_infeasible, memory_order_relaxed),
		.is_futile = atomic_load_explicit(&t->was_futile, memory_order_relaxed),
	};

	memcpy(stats, &s, size);
}
