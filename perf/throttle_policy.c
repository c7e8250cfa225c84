/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle_policy.c - four ways to hold a guest back: not at all, two of QEMU 10.0, the governor
 *
 * The models of auto-converge and dirty-limit were written from what QEMU's source does, not from it:
 *
 *   auto-converge	after 10 ms of running every vCPU, idle or not, sleeps so long that the percentage is
 *		reached; I/O does not end the sleep. 20 percent at first, 10 more each time it is triggered.
 *   dirty-limit	a vCPU whose dirty ring is full sleeps; nothing ends that. Each second, from the rate
 *		that each vCPU had in whole MiB/s, the sleep is set anew: by the error if that is above
 *		half, else by a tenth of the time that the ring takes to fill at the highest rate ever seen.
 *		In rings re-dirtied pages count, as emptying one protects its pages again. Flushing the rings
 *		does not wait for sleepers here, which favours it; stopping the guest does.
 *   governor	the library itself.
 */
#include <math.h>

#include "throttle.h"

/* ---- auto-converge ---- */

#define AC_SLICE_NS 10000000.0
#define AC_FIRST 20
#define AC_STEP 10

static void ac_tick(struct sim *sim)
{
	double part = sim->percent / 100.0;
	double sleep_ns = AC_SLICE_NS * part / (1 - part);

	sim_settle_all(sim);
	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		struct sim_vcpu *v = &sim->vcpu[i];

		/* One that still sleeps from the last time is left alone. */
		if (v->is_held)
			continue;
		if (v->runs)
			v->out->exits++;
		sim_hold(sim, v);
		v->policy_ns = sim->now_ns + (uint64_t)sleep_ns + SIM_SLEEP_SLACK_NS;
	}
	sim->policy_ns = sim->now_ns + (uint64_t)(AC_SLICE_NS / (1 - part));
}

static void ac_look(struct sim *sim, struct sim_vcpu *v)
{
	sim_free(sim, v);
}

static void ac_init(struct sim *sim)
{
	if (sim->options->send_bytes_per_s > 0)
		return;
	sim->percent = (unsigned)sim->options->strength;
	if (sim->percent)
		sim->policy_ns = 0;
}

static void ac_trigger(struct sim *sim, double period, double threshold)
{
	unsigned most = sim->options->max_percent;

	if (!sim->percent) {
		sim->percent = AC_FIRST;
		sim->policy_ns = sim->now_ns;
		return;
	}
	sim->percent = sim->percent + AC_STEP < most ? sim->percent + AC_STEP : most;
}

/* ---- dirty-limit ---- */

#define DL_RING 4096.0
#define DL_SOFT_FULL (DL_RING - 576)
#define DL_RING_MIB (DL_RING * GODWIT_PAGE_BYTES / 1048576)
#define DL_TOLERANCE 25
#define DL_LINEAR_PERCENT 50
#define DL_MOST 99

/* When the ring will be full if the batch task goes on. */
static void dl_plan(struct sim *sim, struct sim_vcpu *v)
{
	double rate = v->load->bytes_per_s / GODWIT_PAGE_BYTES / 1e9;
	double room = DL_SOFT_FULL - v->ring_pages;

	v->policy_ns = SIM_NEVER;
	if (!v->wants || !v->is_batch_on || rate <= 0 || v->ring_clean <= room)
		return;
	/* I/O between makes it later: then the look finds room, and plans again. */
	v->policy_ns = sim->now_ns + v->stall_ns + v->serving_ns + 1 +
		       (uint64_t)ceil(-v->region * log(1 - (room > 0 ? room : 0) / v->ring_clean) / rate);
}

static void dl_look(struct sim *sim, struct sim_vcpu *v)
{
	if (v->is_held) {
		sim_free(sim, v);
		dl_plan(sim, v);
		return;
	}
	if (v->ring_pages < DL_SOFT_FULL - 0.5) {
		dl_plan(sim, v);
		return;
	}
	/* Full: an exit, the ring emptied, its pages clean for the ring again. */
	v->ring_pages = 0;
	v->ring_clean = v->region;
	v->out->exits++;
	v->stall_ns += SIM_EXIT_NS;
	if (sim->has_quota && v->sleep_us >= 1) {
		sim_hold(sim, v);
		v->policy_ns = sim->now_ns + (uint64_t)(v->sleep_us * 1e3) + SIM_SLEEP_SLACK_NS;
	} else {
		dl_plan(sim, v);
	}
}

static void dl_adjust(struct sim *sim, struct sim_vcpu *v, double current)
{
	double quota = sim->quota_mb, low = fmin(quota, current), high = fmax(quota, current), full_us, change;

	if (high - low <= DL_TOLERANCE)
		return;
	if (current < 1) {
		v->sleep_us = 0;
		return;
	}
	sim->fastest_mb = fmax(sim->fastest_mb, current);
	full_us = floor(DL_RING_MIB * 1e6 / sim->fastest_mb);
	if (floor((high - low) * 100 / high) > DL_LINEAR_PERCENT) {
		double percent = floor((high - low) * 100 / high);

		/* A quota of 0 or a rate of none gives 100 percent; the bound below makes it 99. */
		change = percent < 100 ? full_us * percent / (100 - percent) : full_us * DL_MOST;
	} else {
		change = floor(full_us / 10);
	}
	v->sleep_us += quota < current ? change : -change;
	v->sleep_us = fmax(0, fmin(floor(v->sleep_us), full_us * DL_MOST));
}

/* Each second, rings are emptied for the rates. */
static void dl_tick(struct sim *sim)
{
	sim_settle_all(sim);
	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		struct sim_vcpu *v = &sim->vcpu[i];
		double mib = floor((v->ring_total - v->ring_seen) * GODWIT_PAGE_BYTES / 1048576);

		v->ring_seen = v->ring_total;
		v->ring_pages = 0;
		v->ring_clean = v->region;
		if (sim->has_quota)
			dl_adjust(sim, v, mib);
		if (!v->is_held)
			dl_plan(sim, v);
	}
	sim->policy_ns = sim->now_ns + SIM_S;
}

static void dl_init(struct sim *sim)
{
	bool is_closed = sim->options->send_bytes_per_s > 0;

	sim->has_quota = !is_closed;
	sim->quota_mb = floor(is_closed ? sim->options->quota_mb : sim->options->strength);
	sim->policy_ns = SIM_S;
	for (unsigned i = 0; i < SIM_VCPUS; i++)
		dl_plan(sim, &sim->vcpu[i]);
}

static void dl_trigger(struct sim *sim, double period, double threshold)
{
	sim->has_quota = true;
}

/* Woken, or a burst began. */
static void dl_wants(struct sim *sim, struct sim_vcpu *v)
{
	if (!v->is_held)
		dl_plan(sim, v);
}

/* ---- the governor ---- */

/* Whole pages to the library; the parts wait. In charging by time nobody knows whose they are. */
static void gov_tell(struct sim *sim, struct sim_vcpu *v)
{
	double pages = floor(v->new_pages - v->told_pages);
	uint64_t ran_ns = v->ran_ns - v->told_ran_ns;

	if (!sim->options->charges_time) {
		v->told_pages += pages;
		if (pages > 0)
			godwit_vcpu_dirtied(v->governed, (uint64_t)pages);
	} else if (v->density_of_guest > 0) {
		v->time_pages += (double)ran_ns * v->density_of_guest;
		godwit_vcpu_dirtied(v->governed, (uint64_t)v->time_pages);
		v->time_pages -= floor(v->time_pages);
	}
	v->told_ran_ns = v->ran_ns;
	godwit_vcpu_advance(v->governed, sim->now_ns, ran_ns);
}

static uint64_t late_ns(struct sim *sim, struct sim_vcpu *v)
{
	return sim->options->is_late && (v->out->looks * 2654435761u >> 8) % 5 == 0 ? 60000 : 0;
}

static void gov_ask(struct sim *sim, struct sim_vcpu *v)
{
	struct godwit_vcpu_stats stats = GODWIT_VCPU_STATS_INIT;

	if (!v->wants) {
		v->policy_ns = SIM_NEVER;
		return;
	}
	if (godwit_vcpu_may_run(v->governed, sim->now_ns)) {
		sim_free(sim, v);
		v->policy_ns = sim->now_ns + godwit_vcpu_next(v->governed, sim->now_ns);
	} else {
		sim_hold(sim, v);
		v->policy_ns = sim->now_ns + godwit_vcpu_next(v->governed, sim->now_ns) + SIM_SLEEP_SLACK_NS +
			       late_ns(sim, v);
	}
	godwit_vcpu_stats(v->governed, &stats);
	if (stats.rate_pages_per_s && !v->was_governed)
		v->governed_at_ns = sim->now_ns;
	else if (!stats.rate_pages_per_s && v->was_governed)
		v->out->governed_s += (double)(sim->now_ns - v->governed_at_ns) / 1e9;
	v->was_governed = stats.rate_pages_per_s != 0;
}

static void gov_look(struct sim *sim, struct sim_vcpu *v)
{
	if (v->was_governed)
		v->out->looks++;
	sim_exit(v);
	gov_tell(sim, v);
	gov_ask(sim, v);
}

static void gov_io(struct sim *sim, struct sim_vcpu *v)
{
	if (sim->options->is_deaf)
		return;
	godwit_vcpu_io(v->governed, sim->now_ns);
	if (v->is_held && v->policy_ns > sim->now_ns + SIM_KICK_NS)
		v->policy_ns = sim->now_ns + SIM_KICK_NS;
}

static void gov_wants(struct sim *sim, struct sim_vcpu *v)
{
	gov_tell(sim, v);
	gov_ask(sim, v);
}

static void gov_note(struct sim *sim)
{
	struct godwit_throttle_stats stats = GODWIT_THROTTLE_STATS_INIT;
	struct sim_result *r = sim->result;

	godwit_throttle_stats(sim->throttle, &stats);
	if (stats.state == GODWIT_THROTTLE_INFEASIBLE && r->infeasible_ns == SIM_NEVER)
		r->infeasible_ns = sim->now_ns;
	if (stats.state >= GODWIT_THROTTLE_LEVEL && r->onset_ns == SIM_NEVER) {
		r->onset_ns = sim->now_ns;
		r->futile_rounds = sim->migration.syncs;
	}
	if (stats.state == GODWIT_THROTTLE_FUTILE && r->futile_ns == SIM_NEVER) {
		r->futile_ns = sim->now_ns;
		r->futile_rounds = sim->migration.syncs - r->futile_rounds;
		r->end = SIM_FUTILE;
		sim->is_over = true;
	}
}

static void gov_tick(struct sim *sim)
{
	struct godwit_throttle_input in = GODWIT_THROTTLE_INPUT_INIT;
	struct godwit_vcpu *vcpus[SIM_VCPUS];
	double guest_pages = 0, guest_ns = 0;

	sim_settle_all(sim);
	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		struct sim_vcpu *v = &sim->vcpu[i];

		guest_pages += v->new_pages - v->told_pages;
		guest_ns += (double)(v->ran_ns - v->tick_ran_ns);
		v->tick_ran_ns = v->ran_ns;
		if (sim->options->charges_time)
			v->told_pages = v->new_pages;
		vcpus[i] = v->governed;
	}
	for (unsigned i = 0; i < SIM_VCPUS && guest_ns > 0; i++)
		sim->vcpu[i].density_of_guest = guest_pages / guest_ns;
	in.now_ns = sim->now_ns;
	in.is_active = true;
	if (sim->options->send_bytes_per_s > 0) {
		in.send_pages_per_s = (uint64_t)(sim->options->send_bytes_per_s / GODWIT_PAGE_BYTES);
		in.remaining_pages = (uint64_t)sim_unsent(sim);
		in.round_pages = (uint64_t)sim->migration.round_pages;
		in.dirtied_pages = (uint64_t)sim_dirtied(sim);
		in.threshold_pages = in.send_pages_per_s * 3 / 10;
		in.is_first_pass = sim->migration.syncs <= 1;
	} else {
		/* A round that never gets on allows three eighths of what is sent. */
		in.send_pages_per_s = (uint64_t)(2 * sim->options->strength);
		in.remaining_pages = in.round_pages = 1u << 26;
	}
	godwit_throttle_step(sim->throttle, &in, vcpus, SIM_VCPUS);
	sim->policy_ns = sim->now_ns + GODWIT_THROTTLE_PERIOD_NS;
	gov_note(sim);
}

static void gov_init(struct sim *sim)
{
	sim->throttle = godwit_throttle_init(sim->memory, sim->options->max_percent);
	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		sim->vcpu[i].governed = godwit_vcpu_init(sim->vcpu[i].memory, 0);
		gov_ask(sim, &sim->vcpu[i]);
	}
	sim->policy_ns = GODWIT_THROTTLE_PERIOD_NS;
}

const struct sim_policy_ops sim_policy_ops[SIM_POLICIES] = {
	[SIM_FREE] = { .init = NULL },
	[SIM_AUTO_CONVERGE] = { .init = ac_init, .look = ac_look, .tick = ac_tick, .trigger = ac_trigger },
	[SIM_DIRTY_LIMIT] = { .init = dl_init, .look = dl_look, .wants = dl_wants, .tick = dl_tick,
			      .trigger = dl_trigger },
	[SIM_GOVERNOR] = { .init = gov_init, .look = gov_look, .io = gov_io, .wants = gov_wants,
			   .tick = gov_tick },
};
