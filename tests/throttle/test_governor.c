/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is governed, at which rate, until when: the step, alone and in a closed loop. */
#include <errno.h>

#include "throttle/throttle.h"

#include "guest.h"

#define PERIOD GODWIT_THROTTLE_PERIOD_NS
#define MAX_VCPUS 64

/* Bytes a second as pages. */
#define MB(x) ((uint64_t)((x) * 1e6 / 4096))

struct vm {
	struct godwit_throttle *t;
	struct godwit_vcpu *v[MAX_VCPUS];
	unsigned n;
	uint64_t now_ns;
	uint64_t demand[MAX_VCPUS];	/* pages per second that it would dirty, running all the time */
	struct godwit_throttle_input in;
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char memory[GODWIT_THROTTLE_BYTES];
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char vcpu_memory[MAX_VCPUS][GODWIT_VCPU_BYTES];
};

static void vm_init(struct vm *vm, unsigned n, unsigned max_percent, uint64_t now_ns)
{
	memset(vm, 0, sizeof(*vm));
	vm->t = godwit_throttle_init(vm->memory, max_percent);
	vm->n = n;
	vm->now_ns = now_ns;
	for (unsigned i = 0; i < n; i++)
		vm->v[i] = godwit_vcpu_init(vm->vcpu_memory[i], now_ns);
	vm->in = (struct godwit_throttle_input){
		.size = sizeof(vm->in), .now_ns = now_ns, .send_pages_per_s = MB(250), .remaining_pages = 1u << 20,
		.round_pages = 1u << 20, .threshold_pages = MB(75), .is_active = true };
}

static uint64_t rate_of_vcpu(const struct godwit_vcpu *v)
{
	struct godwit_vcpu_stats stats = GODWIT_VCPU_STATS_INIT;

	godwit_vcpu_stats(v, &stats);
	return stats.rate_pages_per_s;
}

static struct godwit_throttle_stats stats_of(const struct vm *vm)
{
	struct godwit_throttle_stats stats = GODWIT_THROTTLE_STATS_INIT;

	godwit_throttle_stats(vm->t, &stats);
	return stats;
}

/* The share of time that rate and floor let it run; it always wants to. */
static uint64_t running_ns_of(const struct vm *vm, unsigned i, uint64_t span_ns)
{
	uint64_t rate = rate_of_vcpu(vm->v[i]), least = span_ns * vm->v[i]->floor >> FRACTION_SHIFT;
	uint64_t ran_ns;

	if (!rate || !vm->demand[i] || rate >= vm->demand[i])
		return span_ns;
	ran_ns = (uint64_t)((double)span_ns * (double)rate / (double)vm->demand[i]);
	return ran_ns < least ? least : ran_ns;
}

/* A period as the vCPUs' threads would have reported it, then the step. */
static void vm_step_after(struct vm *vm, uint64_t span_ns)
{
	vm->now_ns += span_ns;
	for (unsigned i = 0; i < vm->n; i++) {
		uint64_t ran_ns = running_ns_of(vm, i, span_ns);

		godwit_vcpu_dirtied(vm->v[i], (uint64_t)((double)vm->demand[i] * (double)ran_ns / 1e9));
		godwit_vcpu_advance(vm->v[i], vm->now_ns, ran_ns);
		vm->v[i]->held_ns += span_ns - ran_ns;
	}
	vm->in.now_ns = vm->now_ns;
	cr_assert_eq(godwit_throttle_step(vm->t, &vm->in, vm->v, vm->n), 0);
}

static void vm_run(struct vm *vm, unsigned steps)
{
	while (steps--)
		vm_step_after(vm, PERIOD);
}

static unsigned nr_governed(const struct vm *vm)
{
	unsigned n = 0;

	for (unsigned i = 0; i < vm->n; i++)
		n += rate_of_vcpu(vm->v[i]) != 0;
	return n;
}

/* ---- the level (I8) ---- */

static uint64_t total(struct godwit_vcpu *const *v, unsigned n, uint64_t q)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t takes = q > v[i]->least_rate ? q : v[i]->least_rate;

		sum += takes < v[i]->most_rate ? takes : v[i]->most_rate;
	}
	return sum;
}

/* From wherever it starts. */
static uint64_t fill(struct godwit_vcpu *const *v, unsigned n, uint64_t allowed)
{
	uint64_t q = godwit_level_fill(v, n, allowed, 0);

	CHECK(godwit_level_fill(v, n, allowed, about(1, RATE_MAX)) == q, "depends on the hint");
	return q;
}

static void random_levels(struct vm *vm)
{
	vm_init(vm, (unsigned)between(1, MAX_VCPUS), 90, 0);
	for (unsigned i = 0; i < vm->n; i++) {
		vm->v[i]->most_rate = between(0, 4) ? about(1, RATE_MAX) : 0;
		vm->v[i]->least_rate = between(0, vm->v[i]->most_rate);
		if (between(0, 3) == 0)
			vm->v[i]->least_rate = 0;
	}
}

static struct vm vm, other;

Test(level, is_the_highest_that_stays_within_what_is_allowed)
{
	for (unsigned i = 0; i < 20000; i++) {
		random_levels(&vm);
		uint64_t least = total(vm.v, vm.n, 0), most = total(vm.v, vm.n, UINT64_MAX);

		if (most == least)
			continue;
		uint64_t allowed = between(least, most - 1);
		uint64_t q = fill(vm.v, vm.n, allowed);

		CHECK(total(vm.v, vm.n, q) <= allowed, "more than allowed");
		CHECK(total(vm.v, vm.n, q + 1) > allowed, "could be higher");
		CHECK(allowed - total(vm.v, vm.n, q) < vm.n, "does not use what is allowed");
		if (least)
			CHECK(fill(vm.v, vm.n, between(0, least - 1)) == 0, "floors too much");
		CHECK(total(vm.v, vm.n, fill(vm.v, vm.n, most)) == most, "all is allowed");
	}
}

Test(level, moves_one_way_with_allowance_and_demand_and_not_with_order_or_scale)
{
	for (unsigned i = 0; i < 20000; i++) {
		random_levels(&vm);
		uint64_t most = total(vm.v, vm.n, UINT64_MAX), allowed = between(0, most);
		uint64_t q = fill(vm.v, vm.n, allowed);
		unsigned j = (unsigned)between(0, vm.n - 1);

		CHECK(fill(vm.v, vm.n, allowed + between(0, most)) >= q, "falls with the allowance");

		/* The same in another order, and four times as much of everything. */
		struct godwit_vcpu *shuffled[MAX_VCPUS];

		for (unsigned k = 0; k < vm.n; k++)
			shuffled[k] = vm.v[(k * 7 + j) % vm.n];
		if (vm.n % 7)
			CHECK(fill(shuffled, vm.n, allowed) == q, "depends on the order");

		if (q < RATE_MAX / 8) {
			random_levels(&other);
			other.n = vm.n;
			for (unsigned k = 0; k < vm.n; k++) {
				other.v[k] = (struct godwit_vcpu *)other.vcpu_memory[k];
				other.v[k]->most_rate = vm.v[k]->most_rate * 4;
				other.v[k]->least_rate = vm.v[k]->least_rate * 4;
			}
			uint64_t scaled = fill(other.v, vm.n, allowed * 4);

			CHECK(scaled >= q * 4 && scaled < q * 4 + 4, "depends on the scale");
		}
		if (q) {
			vm.v[j]->most_rate += between(0, RATE_MAX);
			CHECK(fill(vm.v, vm.n, allowed) <= q, "rises with a demand");
		}
	}
}

/* ---- need ---- */

Test(governor, leaves_alone_what_converges_by_itself)
{
	vm_init(&vm, 4, 90, 1);
	vm.in.remaining_pages = vm.in.round_pages = MB(500);
	vm.demand[0] = MB(150);
	vm_run(&vm, 600);
	cr_assert_eq(nr_governed(&vm), 0);
	cr_assert_eq(stats_of(&vm).held_ns, 0);
	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_IDLE);

	/* As much again by devices: now it does not. */
	vm.in.device_pages_per_s = MB(150);
	vm_run(&vm, 1);
	cr_assert_eq(nr_governed(&vm), 4);
}

Test(governor, steps_in_when_convergence_would_take_longer_than_its_patience)
{
	vm_init(&vm, 1, 90, 1);
	vm.demand[0] = MB(150);
	vm.in.remaining_pages = MB(990);
	vm_run(&vm, 20);
	cr_assert_eq(nr_governed(&vm), 0, "10 s are endured");
	vm.in.remaining_pages = MB(1010);
	vm_run(&vm, 1);
	cr_assert_eq(nr_governed(&vm), 1);
}

/* I7 */
Test(governor, holds_nobody_when_it_has_no_say)
{
	vm_init(&vm, 4, 99, 1);
	for (unsigned i = 0; i < 4; i++)
		vm.demand[i] = MB(800);
	vm_run(&vm, 20);
	cr_assert_eq(nr_governed(&vm), 4);
	vm.in.is_active = false;
	vm_run(&vm, 1);
	cr_assert_eq(nr_governed(&vm), 0, "inactive");
	vm.in.is_active = vm.in.is_first_pass = true;
	vm_run(&vm, 1);
	cr_assert_eq(nr_governed(&vm), 0, "first pass");
	vm.in.is_first_pass = false;
	vm.in.send_pages_per_s = 0;
	vm_run(&vm, 1);
	cr_assert_eq(nr_governed(&vm), 0, "no channel");
	vm.in.send_pages_per_s = MB(250);
	vm_run(&vm, 1);
	cr_assert_eq(nr_governed(&vm), 4);
	godwit_throttle_stop(vm.t, vm.v, vm.n);
	cr_assert_eq(nr_governed(&vm), 0, "stopped");
	cr_assert_eq(stats_of(&vm).governed, 0);
	for (unsigned i = 0; i < 4; i++)
		cr_assert(godwit_vcpu_may_run(vm.v[i], vm.now_ns));
}

Test(governor, endures_a_guest_without_vcpus_and_refuses_what_it_does_not_know)
{
	vm_init(&vm, 0, 0, 1);
	vm_run(&vm, 3);
	cr_assert_eq(stats_of(&vm).max_percent, 90);
	vm.in.size = 8;
	cr_assert_eq(godwit_throttle_step(vm.t, &vm.in, vm.v, 0), -EINVAL);
	vm.in.size = sizeof(vm.in) + 64;
	cr_assert_eq(godwit_throttle_step(vm.t, &vm.in, vm.v, 0), 0, "a newer caller");
	cr_assert_eq(godwit_throttle_step(vm.t, &vm.in, vm.v, 1 << 20), -EINVAL);
	cr_assert_str_eq(godwit_throttle_state_name(GODWIT_THROTTLE_FUTILE), "futile");
	cr_assert_str_eq(godwit_throttle_state_name((enum godwit_throttle_state)99), "unknown");

	/* A caller of an earlier release gets what it knows of. */
	struct godwit_throttle_stats old = {
		.size = offsetof(struct godwit_throttle_stats, state), .state = 77 };

	godwit_throttle_stats(vm.t, &old);
	cr_assert_eq(old.state, 77);
}

/* ---- rates ---- */

/* I4 */
Test(governor, never_gives_less_than_it_must)
{
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t allowed;

		vm_init(&vm, (unsigned)between(1, 16), (unsigned)between(1, 99), draw() >> 1);
		for (unsigned k = 0; k < vm.n; k++)
			vm.demand[k] = between(0, 3) ? about(1, MB(4000)) : 0;
		vm.in.send_pages_per_s = about(MB(1), MB(5000));
		vm.in.round_pages = about(1000, 1u << 26);
		vm.in.remaining_pages = between(0, vm.in.round_pages);
		vm.in.dirtied_pages = between(0, vm.in.round_pages);
		vm.in.device_pages_per_s = between(0, 4) ? 0 : about(1, MB(500));
		vm_run(&vm, 1 + (unsigned)between(1, 40));
		allowed = stats_of(&vm).allowed_pages_per_s;
		for (unsigned k = 0; k < vm.n; k++) {
			uint64_t rate = rate_of_vcpu(vm.v[k]);

			if (!rate)
				continue;
			/* Rates are told in whole pages of a rounded cost. */
			CHECK(rate + 2 + rate / 1000 >= allowed / 2 / vm.n, "%lu of %lu for %u",
			      (unsigned long)rate, (unsigned long)allowed, vm.n);
			if (stats_of(&vm).state == GODWIT_THROTTLE_ARMED)
				CHECK(rate + 2 + rate / 1000 >= (vm.v[k]->demand >> RATE_SHIFT) / 2,
				      "armed below the demand");
			CHECK(rate >= 1 && vm.v[k]->resume_ns >= RESUME_NS &&
			      vm.v[k]->resume_ns <= RESUME_MAX_NS, "resume");
			CHECK(vm.v[k]->boost_ns >= BOOST_MIN_NS && vm.v[k]->boost_ns <= BOOST_MAX_NS, "boost");
		}
	}
	cr_assert_gt(nr_checks, 10000);
}

Test(governor, levels_the_dirtiest_and_leaves_the_others)
{
	vm_init(&vm, 4, 99, 1);
	vm.demand[0] = MB(2000);
	vm.demand[1] = MB(20);
	vm.demand[2] = MB(5);
	vm_run(&vm, 60);
	/* Three eighths of the link in this place of the round: 93.75, of which 25 are the others'. */
	uint64_t rate = rate_of_vcpu(vm.v[0]);

	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_LEVEL);
	cr_assert(rate > MB(67) && rate < MB(70), "%lu", (unsigned long)rate);
	for (unsigned i = 1; i < 4; i++) {
		cr_assert_geq(rate_of_vcpu(vm.v[i]) + 2, rate, "the same for all");
		cr_assert_eq(vm.v[i]->held_ns, 0);
	}
	cr_assert_gt(stats_of(&vm).held_ns, 5ull * S);
}

Test(governor, gives_a_little_more_to_who_nearly_has_what_it_wants)
{
	uint64_t heavy, light;

	vm_init(&vm, 3, 99, 1);
	vm.demand[0] = MB(2000);
	vm.demand[1] = MB(60);
	vm_run(&vm, 60);
	heavy = rate_of_vcpu(vm.v[0]);
	light = rate_of_vcpu(vm.v[1]);
	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_LEVEL);
	/* Together what is allowed; from the mean by less than a twelfth. */
	cr_assert(heavy + light > MB(92) && heavy + light < MB(95), "%lu", (unsigned long)(heavy + light));
	cr_assert(light > heavy * 102 / 100 && light < heavy * 118 / 100, "%lu, %lu", (unsigned long)heavy,
		  (unsigned long)light);
}

Test(governor, changes_a_rate_by_no_more_than_half_a_step)
{
	uint64_t rate;

	vm_init(&vm, 2, 99, 1);
	vm.demand[0] = MB(2000);
	vm_run(&vm, 40);
	rate = rate_of_vcpu(vm.v[0]);
	vm.in.send_pages_per_s = MB(25);
	vm_run(&vm, 1);
	cr_assert(rate_of_vcpu(vm.v[0]) >= rate / 2 - 2 && rate_of_vcpu(vm.v[0]) <= rate / 2 + 2);
	vm_run(&vm, 40);
	rate = rate_of_vcpu(vm.v[0]);
	cr_assert_lt(rate, MB(13));
	vm.in.send_pages_per_s = MB(1000);
	vm_run(&vm, 1);
	/* Unless it is entitled to more. */
	cr_assert_eq(rate_of_vcpu(vm.v[0]) / 100, MB(1000) * 3 / 8 / 2 / 2 / 100);
}

/* I9: with nothing that changes, rates turn at most twice in six seconds. */
Test(governor, settles)
{
	for (unsigned i = 0; i < 500; i++) {
		unsigned turns[MAX_VCPUS] = { 0 };
		uint64_t last[MAX_VCPUS];
		int trend[MAX_VCPUS] = { 0 };

		vm_init(&vm, (unsigned)between(1, 8), (unsigned)between(50, 99), 1);
		for (unsigned k = 0; k < vm.n; k++)
			vm.demand[k] = about(MB(1), MB(4000));
		vm_run(&vm, 1);
		for (unsigned k = 0; k < vm.n; k++)
			last[k] = rate_of_vcpu(vm.v[k]);
		for (unsigned step = 0; step < 60; step++) {
			vm_step_after(&vm, PERIOD);
			for (unsigned k = 0; k < vm.n; k++) {
				uint64_t rate = rate_of_vcpu(vm.v[k]);
				/* A fiftieth is no direction. */
				int way = rate > last[k] + last[k] / 50 ? 1 : rate + last[k] / 50 < last[k] ? -1 : 0;

				turns[k] += way && trend[k] && way != trend[k];
				trend[k] = way ? way : trend[k];
				last[k] = rate;
			}
		}
		for (unsigned k = 0; k < vm.n; k++)
			CHECK(turns[k] <= 2, "%u turns", turns[k]);
	}
}

/* ---- the cap ---- */

Test(governor, tells_an_infeasible_cap_at_once)
{
	vm_init(&vm, 4, 90, 1);
	for (unsigned i = 0; i < 4; i++)
		vm.demand[i] = MB(800);
	vm_run(&vm, 2);
	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_INFEASIBLE);
	cr_assert(stats_of(&vm).is_infeasible);
	/* Above 92 percent it can be done. */
	vm_init(&vm, 4, 99, 1);
	for (unsigned i = 0; i < 4; i++)
		vm.demand[i] = MB(800);
	vm_run(&vm, 50);
	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_LEVEL);
	cr_assert_not(stats_of(&vm).is_infeasible);
}

static void make_futile(unsigned max_percent)
{
	vm_init(&vm, 4, max_percent, 1);
	for (unsigned i = 0; i < 4; i++)
		vm.demand[i] = MB(800);
	vm_run(&vm, 49);
	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_INFEASIBLE, "not before 5 s");
	vm_run(&vm, 4);
	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_FUTILE);
	cr_assert_eq(nr_governed(&vm), 0);
}

Test(governor, gives_up_when_a_round_does_not_shrink_and_tries_again_after_a_minute)
{
	make_futile(90);
	cr_assert_leq(stats_of(&vm).release_ns, 60ull * S);
	vm_run(&vm, 590);
	cr_assert_eq(nr_governed(&vm), 0);
	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_FUTILE);
	vm_run(&vm, 12);
	cr_assert_eq(nr_governed(&vm), 4);
	cr_assert(stats_of(&vm).is_futile, "it was");
}

Test(governor, tries_again_when_the_channel_or_the_cap_changes)
{
	make_futile(90);
	vm.in.send_pages_per_s = MB(280);
	vm_run(&vm, 5);
	cr_assert_eq(nr_governed(&vm), 0, "a tenth is no change");
	vm.in.send_pages_per_s = MB(310);
	vm_run(&vm, 1);
	cr_assert_eq(nr_governed(&vm), 4);

	make_futile(90);
	godwit_throttle_set_max(vm.t, 97);
	vm_run(&vm, 1);
	cr_assert_eq(nr_governed(&vm), 4);
	cr_assert_eq(stats_of(&vm).max_percent, 97);
}

/* Who is alone above its floor's share runs at the cap, by its floor; the others do not pay for it. */
Test(governor, a_capped_vcpu_does_not_cost_the_others)
{
	vm_init(&vm, 3, 80, 1);
	vm.demand[0] = MB(800);		/* 160 at the cap, of 125 that are allowed */
	vm.demand[1] = MB(30);
	vm_run(&vm, 40);
	cr_assert_eq(stats_of(&vm).state, GODWIT_THROTTLE_CAPPED);
	cr_assert_eq(vm.v[1]->held_ns, 0);
	cr_assert_leq(rate_of_vcpu(vm.v[0]), MB(160), "its rate is not above its floor");
	cr_assert(vm.v[0]->taken > FRACTION_ONE * 75 / 100 && vm.v[0]->taken < FRACTION_ONE * 81 / 100);
}

/* ---- faults ---- */

Test(governor, vcpus_come_and_go)
{
	vm_init(&vm, 4, 99, 1);
	for (unsigned i = 0; i < 4; i++)
		vm.demand[i] = MB(400);
	vm_run(&vm, 30);
	uint64_t held_ns = stats_of(&vm).held_ns;

	cr_assert_gt(held_ns, 0);
	/* One goes: left out, stopped. Its losses stay in the sum, the others share its rate. */
	struct godwit_vcpu *gone = vm.v[3];
	uint64_t rate = rate_of_vcpu(vm.v[0]);

	vm.n = 3;
	vm_run(&vm, 1);
	godwit_vcpu_stop(gone);
	cr_assert(godwit_vcpu_may_run(gone, vm.now_ns));
	vm_run(&vm, 30);
	cr_assert_eq(rate_of_vcpu(gone), 0);
	cr_assert_gt(rate_of_vcpu(vm.v[0]), rate);
	cr_assert_gt(stats_of(&vm).held_ns, held_ns);

	/* One comes, in the same memory, with a past that is no business of this migration. */
	uint64_t pages = stats_of(&vm).pages;

	vm.v[3] = godwit_vcpu_init(vm.vcpu_memory[3], vm.now_ns);
	godwit_vcpu_dirtied(vm.v[3], 1u << 25);
	godwit_vcpu_advance(vm.v[3], vm.now_ns, 60ull * S);
	vm.n = 4;
	vm_run(&vm, 1);
	cr_assert_eq(vm.v[3]->demand, 0, "judged by its past");
	cr_assert_lt(stats_of(&vm).pages - pages, 1u << 24);
	vm_run(&vm, 29);
	cr_assert(rate_of_vcpu(vm.v[3]) > rate / 2 && rate_of_vcpu(vm.v[3]) < rate * 2);
}

/* A step that is late, or twice in an instant, or earlier than the last, measures no nonsense. */
Test(governor, steps_may_be_late_or_early)
{
	for (unsigned i = 0; i < 300; i++) {
		vm_init(&vm, 2, 99, draw());
		vm.demand[0] = MB(1000);
		vm.demand[1] = MB(10);
		for (unsigned step = 0; step < 60; step++) {
			if (between(0, 9) == 0)
				godwit_throttle_step(vm.t, &vm.in, vm.v, vm.n);
			if (between(0, 19) == 0) {
				vm.in.now_ns -= 10ull * S;
				godwit_throttle_step(vm.t, &vm.in, vm.v, vm.n);
			}
			vm_step_after(&vm, between(0, 9) ? PERIOD : between(1, 4ull * S));
		}
		CHECK(vm.v[0]->demand > 2 * ((MB(1000) << RATE_SHIFT) / 5), "demand %lu",
		      (unsigned long)vm.v[0]->demand >> RATE_SHIFT);
		CHECK(vm.v[0]->demand < (MB(1000) << RATE_SHIFT) * 3, "demand %lu",
		      (unsigned long)vm.v[0]->demand >> RATE_SHIFT);
		CHECK(vm.v[1]->held_ns == 0, "the quiet one was held");
	}
}

Test(governor, counters_and_clock_may_wrap)
{
	vm_init(&vm, 3, 97, 7 * MS);
	vm_init(&other, 3, 97, UINT64_MAX - 1200 * MS);
	for (unsigned i = 0; i < 3; i++) {
		struct godwit_vcpu *v = other.v[i];

		vm.demand[i] = other.demand[i] = MB(300) * i;
		v->dirtied_pages = v->charged_pages = UINT64_MAX - 1000;
		v->ran_ns = v->held_ns = UINT64_MAX - 700 * MS;
		v->holds = v->boosts = UINT32_MAX;
		v->io_events = v->boosted_events = UINT64_MAX;
		v->boost_until_ns = other.now_ns;
		vm.v[i]->boost_until_ns = vm.now_ns;
	}
	for (unsigned step = 0; step < 60; step++) {
		vm_step_after(&vm, PERIOD);
		vm_step_after(&other, PERIOD);
		for (unsigned i = 0; i < 3; i++)
			cr_assert_eq(rate_of_vcpu(vm.v[i]), rate_of_vcpu(other.v[i]), "step %u", step);
	}
	cr_assert_eq(stats_of(&vm).held_ns, stats_of(&other).held_ns);
	cr_assert_gt(stats_of(&vm).held_ns, 0);
}

Test(governor, huge_and_absurd_inputs_stay_finite)
{
	for (unsigned i = 0; i < 20000; i++) {
		vm_init(&vm, (unsigned)between(1, 8), (unsigned)draw(), draw());
		for (unsigned step = 0; step < 5; step++) {
			vm.in.now_ns = between(0, 3) ? vm.in.now_ns + PERIOD : draw();
			vm.in.send_pages_per_s = draw() >> between(0, 63);
			vm.in.remaining_pages = draw() >> between(0, 63);
			vm.in.round_pages = draw() >> between(0, 63);
			vm.in.dirtied_pages = draw() >> between(0, 63);
			vm.in.threshold_pages = draw() >> between(0, 63);
			vm.in.device_pages_per_s = draw() >> between(0, 63);
			for (unsigned k = 0; k < vm.n; k++) {
				godwit_vcpu_dirtied(vm.v[k], draw() >> between(0, 63));
				godwit_vcpu_advance(vm.v[k], vm.in.now_ns, draw() >> between(0, 63));
				if (between(0, 1))
					godwit_vcpu_may_run(vm.v[k], vm.in.now_ns);
			}
			CHECK(godwit_throttle_step(vm.t, &vm.in, vm.v, vm.n) == 0, "refused");
			for (unsigned k = 0; k < vm.n; k++) {
				CHECK(vm.v[k]->demand <= RATE_MAX && vm.v[k]->density <= RATE_MAX, "rates");
				CHECK(vm.v[k]->rate <= 3 * RATE_MAX, "rate %lu", (unsigned long)vm.v[k]->rate);
				/* New bounds are met at the next charge. */
				godwit_vcpu_advance(vm.v[k], vm.in.now_ns, 0);
				check_bounds(vm.v[k]);
			}
		}
	}
}

/* ---- the same everywhere ---- */

static uint64_t digest;

static void fold(uint64_t value)
{
	digest = (digest ^ value) * 0x100000001b3u;
}

/* Integers only: every compiler, at every level, for every processor, gives these rates. */
Test(governor, gives_equal_rates_on_every_machine)
{
	digest = 0xcbf29ce484222325u;
	for (unsigned i = 0; i < 50; i++) {
		vm_init(&vm, 1 + i % 9, 50 + i, 1000 * i);
		for (unsigned step = 0; step < 100; step++) {
			vm.in.dirtied_pages = 1000 * step;
			vm.in.remaining_pages = (1u << 20) - 9000 * step;
			for (unsigned k = 0; k < vm.n; k++) {
				godwit_vcpu_dirtied(vm.v[k], draw() % 40000);
				godwit_vcpu_io(vm.v[k], vm.now_ns);
				godwit_vcpu_advance(vm.v[k], vm.now_ns, draw() % PERIOD);
				godwit_vcpu_may_run(vm.v[k], vm.now_ns + draw() % PERIOD);
				fold(godwit_vcpu_next(vm.v[k], vm.now_ns));
			}
			vm.now_ns += PERIOD;
			vm.in.now_ns = vm.now_ns;
			godwit_throttle_step(vm.t, &vm.in, vm.v, vm.n);
			for (unsigned k = 0; k < vm.n; k++) {
				fold(vm.v[k]->page_cost);
				fold((uint64_t)vm.v[k]->page_credit);
				fold((uint64_t)vm.v[k]->floor_credit);
			}
			fold(stats_of(&vm).state);
		}
	}
	cr_assert_eq(digest, 0x9b545ffed35d755eu, "%#lx", (unsigned long)digest);
}
