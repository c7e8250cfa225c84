/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle_sim.c - four vCPUs that dirty memory and answer I/O, event by event
 *
 * Each vCPU has a core of its own, a batch task that dirties its region uniformly, and I/O that comes
 * as a Poisson process, goes before the batch task and is answered when its CPU time is served. Memory is
 * expected values: t touches leave clean * exp(-t / region) pages clean. What a policy does to a vCPU is
 * hold it and let it go; an exit that is forced on a running one costs it 10 us.
 *
 * Arrivals and service times come from generators of their own for each vCPU, so that all policies see the
 * same I/O.
 */
#include <math.h>
#include <string.h>

#include "throttle.h"

/* An I/O wants 40 us and an exponential of 60 us of CPU, and dirties two pages. */
#define IO_FIXED_NS 40000.0
#define IO_MEAN_NS 60000.0
#define IO_PAGES_PER_NS (2 / (IO_FIXED_NS + IO_MEAN_NS))
#define SMALL_NS 5000u			/* a tick, or the answer to an IPI */
#define SYNC_NS SIM_S			/* of the open loop */

#define GB 1e9
#define MIB 1048576.0
#define GIB (1024 * MIB)

const char *const sim_policy_names[SIM_POLICIES] = { "free", "auto-converge", "dirty-limit", "governor" };

#define DIRTIES(rate, bytes) .has_batch = true, .bytes_per_s = (rate), .region_bytes = (bytes)
#define SERVES(rate) { .io_per_s = (rate) }

const struct sim_load sim_loads[] = {
	{ "W1", "one dirties, three serve", {
		{ DIRTIES(2 * GB, 2 * GIB), .io_per_s = 50 }, SERVES(500), SERVES(500), SERVES(500) } },
	{ "W2", "four dirty and serve", {
		{ DIRTIES(0.8 * GB, GIB), .io_per_s = 100 }, { DIRTIES(0.8 * GB, GIB), .io_per_s = 100 },
		{ DIRTIES(0.8 * GB, GIB), .io_per_s = 100 }, { DIRTIES(0.8 * GB, GIB), .io_per_s = 100 } } },
	{ "W3", "mixed", {
		{ DIRTIES(1.6 * GB, 2 * GIB), .io_per_s = 200 }, { DIRTIES(0.25 * GB, GIB), .io_per_s = 500 },
		SERVES(1000), { .has_batch = true } } },
	{ "W4", "bursts", {
		{ DIRTIES(1.6 * GB, GIB), .io_per_s = 200, .on_ms = 300, .off_ms = 700 },
		{ DIRTIES(1.6 * GB, GIB), .io_per_s = 200, .on_ms = 300, .off_ms = 700 },
		SERVES(500), SERVES(500) } },
	{ "W5", "a small hot set beside a large one", {
		{ DIRTIES(4 * GB, 32 * MIB), .io_per_s = 50 }, { DIRTIES(1.6 * GB, 2 * GIB), .io_per_s = 50 },
		SERVES(500), SERVES(500) } },
	{ "W6", "W1, and a fifth of the I/O asks the one that dirties", {
		{ DIRTIES(2 * GB, 2 * GIB), .io_per_s = 50 }, { .io_per_s = 500, .ipi_share = 0.2 },
		{ .io_per_s = 500, .ipi_share = 0.2 }, { .io_per_s = 500, .ipi_share = 0.2 } } },
};
const unsigned nr_sim_loads = sizeof(sim_loads) / sizeof(sim_loads[0]);

const struct sim_load sim_published_load = {
	"published", "a hot set of 1 GiB", { { DIRTIES(2 * GB, GIB) } } };

/* ---- chance ---- */

static double uniform(uint64_t *rng)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return (double)(*rng >> 11) * 0x1p-53;
}

static double exponential(uint64_t *rng, double mean)
{
	return -mean * log(1 - uniform(rng));
}

static uint64_t next_arrival(uint64_t *rng, uint64_t now_ns, double per_s)
{
	return per_s > 0 ? now_ns + 1 + (uint64_t)exponential(rng, 1e9 / per_s) : SIM_NEVER;
}

/* ---- latencies ---- */

#define BUCKET_OF_NS(ns) (log2((ns) / 1e3) * 64 + 128)	/* from 250 ns on */

static void note_latency(struct sim_latency *l, uint64_t ns)
{
	int bucket = ns ? (int)BUCKET_OF_NS((double)ns) : 0;

	l->bucket[bucket < 0 ? 0 : bucket >= SIM_BUCKETS ? SIM_BUCKETS - 1 : bucket]++;
	l->count++;
	if (ns > l->max_ns)
		l->max_ns = ns;
}

double sim_percentile_ns(const struct sim_latency *l, double part)
{
	uint64_t below = 0, wanted = (uint64_t)ceil(part * (double)l->count);

	if (!l->count)
		return NAN;
	for (unsigned b = 0; b < SIM_BUCKETS; b++) {
		below += l->bucket[b];
		if (below >= wanted) {
			double ns = exp2((b + 1 - 128.0) / 64) * 1e3;

			return ns < (double)l->max_ns ? ns : (double)l->max_ns;
		}
	}
	return (double)l->max_ns;
}

/* ---- time passes ---- */

static bool is_counted(const struct sim *sim)
{
	return sim->now_ns > sim->counted_from_ns;
}

static struct sim_point *point_at(const struct sim *sim, uint64_t ns)
{
	struct sim_series *s = sim->options->series;
	uint64_t index;

	if (!s)
		return NULL;
	index = ns / s->step_ns;
	if (index >= s->cap_points)
		return NULL;
	if (index >= s->nr_points)
		s->nr_points = (unsigned)index + 1;
	return &s->point[index];
}

static void touch(struct sim *sim, struct sim_vcpu *v, double touches)
{
	struct sim_point *point = point_at(sim, v->at_ns);
	double left, dirtied;

	if (v->region <= 0 || touches <= 0)
		return;
	left = exp(-touches / v->region);
	dirtied = v->clean * (1 - left);
	v->clean -= dirtied;
	v->ring_pages += v->ring_clean * (1 - left);
	v->ring_total += v->ring_clean * (1 - left);
	v->ring_clean *= left;
	v->new_pages += dirtied;
	if (point)
		point->pages += dirtied;
}

static double touches_per_ns(const struct sim_vcpu *v)
{
	return v->load->bytes_per_s / GODWIT_PAGE_BYTES / 1e9;
}

void sim_settle(struct sim *sim, struct sim_vcpu *v)
{
	uint64_t span = sim->now_ns - v->at_ns;
	bool counts = is_counted(sim);
	struct sim_point *point = point_at(sim, v->at_ns);

	if (v->is_batch_on && counts)
		v->out->wanted_s += (double)span / 1e9;
	if (v->wants && v->is_held && span) {
		if (counts)
			v->out->held_s += (double)span / 1e9;
		if (point)
			point->held_s[v->index] += (double)span / 1e9;
	}
	if (v->runs && span) {
		uint64_t part = span < v->stall_ns ? span : v->stall_ns;

		v->stall_ns -= part;
		span -= part;
		v->ran_ns += span;
		part = span < v->serving_ns ? span : v->serving_ns;
		v->serving_ns -= part;
		span -= part;
		touch(sim, v, (double)part * IO_PAGES_PER_NS);
		if (v->is_batch_on) {
			touch(sim, v, (double)span * touches_per_ns(v));
			if (counts)
				v->out->got_s += (double)span / 1e9;
		}
	}
	v->at_ns = sim->now_ns;
}

void sim_settle_all(struct sim *sim)
{
	for (unsigned i = 0; i < SIM_VCPUS; i++)
		sim_settle(sim, &sim->vcpu[i]);
}

/* ---- the guest ---- */

static bool has_service(const struct sim_vcpu *v)
{
	return v->queued > 0;
}

static void begin_service(struct sim_vcpu *v)
{
	bool is_small = v->queue[v->head].is_ipi || v->queue[v->head].is_tick;

	v->serving_ns = is_small ? SMALL_NS :
			1 + (uint64_t)(IO_FIXED_NS + exponential(&v->service_rng, IO_MEAN_NS));
}

/* What it wants and whether it is held say whether it runs. */
static void refresh(struct sim *sim, struct sim_vcpu *v)
{
	bool wanted = v->wants;

	v->wants = has_service(v) || v->is_batch_on;
	if (v->wants && !wanted) {
		v->held_since_ns = sim->now_ns;
		if (sim->ops->wants)
			sim->ops->wants(sim, v);
	}
	v->runs = v->wants && !v->is_held;
}

void sim_exit(struct sim_vcpu *v)
{
	if (!v->runs)
		return;
	v->out->exits++;
	v->stall_ns += SIM_EXIT_NS;
}

void sim_hold(struct sim *sim, struct sim_vcpu *v)
{
	if (v->is_held)
		return;
	v->is_held = true;
	v->held_since_ns = sim->now_ns;
	v->runs = false;
}

void sim_free(struct sim *sim, struct sim_vcpu *v)
{
	uint64_t hold_ns = sim->now_ns - v->held_since_ns;

	if (!v->is_held)
		return;
	v->is_held = false;
	v->runs = v->wants;
	if (v->wants && is_counted(sim) && hold_ns > v->out->longest_hold_ns)
		v->out->longest_hold_ns = hold_ns;
}

static void arrive(struct sim *sim, struct sim_vcpu *v, uint64_t since_ns, unsigned from, bool is_ipi,
		   bool is_tick)
{
	sim_settle(sim, v);
	if (v->queued == SIM_QUEUE) {
		if (is_counted(sim) && !is_tick)
			sim->vcpu[from].out->io.dropped++;
		return;
	}
	unsigned slot = (v->head + v->queued++) % SIM_QUEUE;

	v->queue[slot].since_ns = since_ns;
	v->queue[slot].from = from;
	v->queue[slot].is_ipi = is_ipi;
	v->queue[slot].is_tick = is_tick;
	if (v->queued == 1)
		begin_service(v);
	if (sim->ops->io)
		sim->ops->io(sim, v);
	refresh(sim, v);
}

/* What was in service has been served. */
static void answer(struct sim *sim, struct sim_vcpu *v)
{
	uint64_t since_ns = v->queue[v->head].since_ns;
	unsigned from = v->queue[v->head].from;
	bool is_ipi = v->queue[v->head].is_ipi, is_tick = v->queue[v->head].is_tick;
	struct sim_point *point = point_at(sim, sim->now_ns);

	v->head = (v->head + 1) % SIM_QUEUE;
	if (--v->queued)
		begin_service(v);
	if (is_tick) {
		refresh(sim, v);
		return;
	}
	if (!is_ipi && v->load->ipi_share > 0 && uniform(&v->service_rng) < v->load->ipi_share) {
		arrive(sim, &sim->vcpu[0], since_ns, v->index, true, false);
	} else {
		uint64_t ns = sim->now_ns - since_ns;

		if (since_ns >= sim->counted_from_ns)
			note_latency(&sim->vcpu[from].out->io, ns);
		if (point && ns > point->worst_io_ns)
			point->worst_io_ns = ns;
	}
	refresh(sim, v);
}

static void burst(struct sim *sim, struct sim_vcpu *v)
{
	sim_settle(sim, v);
	v->is_batch_on = !v->is_batch_on;
	v->next_burst_ns = sim->now_ns + (v->is_batch_on ? v->load->on_ms : v->load->off_ms) * SIM_MS;
	refresh(sim, v);
}

/* When what it has in service is done, if nothing comes between. */
static uint64_t done_ns(const struct sim_vcpu *v)
{
	return v->runs && has_service(v) ? v->at_ns + v->stall_ns + v->serving_ns : SIM_NEVER;
}

static uint64_t next_ns(const struct sim_vcpu *v)
{
	uint64_t next = done_ns(v);

	if (v->next_io_ns < next)
		next = v->next_io_ns;
	if (v->next_tick_ns < next)
		next = v->next_tick_ns;
	if (v->next_burst_ns < next)
		next = v->next_burst_ns;
	return v->policy_ns < next ? v->policy_ns : next;
}

static void one_event(struct sim *sim, struct sim_vcpu *v)
{
	if (done_ns(v) <= sim->now_ns) {
		sim_settle(sim, v);
		answer(sim, v);
	} else if (v->next_io_ns <= sim->now_ns) {
		v->next_io_ns = next_arrival(&v->io_rng, sim->now_ns, v->load->io_per_s);
		arrive(sim, v, sim->now_ns, v->index, false, false);
	} else if (v->next_tick_ns <= sim->now_ns) {
		v->next_tick_ns += (uint64_t)(1e9 / sim->options->tick_per_s);
		arrive(sim, v, sim->now_ns, v->index, false, true);
	} else if (v->next_burst_ns <= sim->now_ns) {
		burst(sim, v);
	} else {
		v->policy_ns = SIM_NEVER;
		sim_settle(sim, v);
		sim->ops->look(sim, v);
		refresh(sim, v);
	}
}

/* ---- a run ---- */

static void init_vcpu(struct sim *sim, unsigned index)
{
	struct sim_vcpu *v = &sim->vcpu[index];
	uint64_t seed = (sim->options->seed + 1) * 0x9e3779b97f4a7c15u + index * 0xbf58476d1ce4e5b9u;

	v->load = &sim->options->load->vcpu[index];
	v->index = index;
	v->out = &sim->result->vcpu[index];
	v->io_rng = seed | 1;
	v->service_rng = (seed >> 7) | 1;
	for (unsigned i = 0; i < 8; i++) {
		uniform(&v->io_rng);
		uniform(&v->service_rng);
	}
	v->region = v->load->region_bytes / GODWIT_PAGE_BYTES;
	v->clean = v->ring_clean = v->region;
	v->next_io_ns = next_arrival(&v->io_rng, 0, v->load->io_per_s);
	v->next_tick_ns = sim->options->tick_per_s > 0 && v->load->has_batch ?
			  (index + 1) * 100000u : SIM_NEVER;
	v->is_batch_on = v->load->has_batch;
	v->next_burst_ns = v->load->off_ms ? (v->load->on_ms - index * 20) * SIM_MS : SIM_NEVER;
	v->policy_ns = SIM_NEVER;
	v->wants = v->runs = v->is_batch_on;
}

static void sync_or_drain(struct sim *sim)
{
	sim_settle_all(sim);
	if (sim->options->send_bytes_per_s > 0) {
		sim_migration_drain(sim);
		return;
	}
	sim_sync(sim);
	sim->drain_ns = sim->now_ns + SYNC_NS;
}

/* Figures of the warm-up are thrown away. */
static void begin_to_count(struct sim *sim)
{
	sim_settle_all(sim);
	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		memset(sim->vcpu[i].out, 0, sizeof(*sim->vcpu[i].out));
		sim->vcpu[i].new_pages -= floor(sim->vcpu[i].told_pages);
		sim->vcpu[i].told_pages -= floor(sim->vcpu[i].told_pages);
		sim->result->pages_per_s -= sim->vcpu[i].new_pages;
	}
	sim->counted_from_ns = sim->options->warm_ns;
}

void sim_run(const struct sim_options *options, struct sim_result *result)
{
	static struct sim sim;		/* large; the tool has one thread */
	bool is_warm = options->warm_ns == 0;

	memset(&sim, 0, sizeof(sim));
	memset(result, 0, sizeof(*result));
	sim.options = options;
	sim.result = result;
	sim.ops = &sim_policy_ops[options->policy];
	sim.policy_ns = SIM_NEVER;
	sim.counted_from_ns = is_warm ? 0 : SIM_NEVER;
	result->infeasible_ns = result->futile_ns = result->onset_ns = SIM_NEVER;
	for (unsigned i = 0; i < SIM_VCPUS; i++)
		init_vcpu(&sim, i);
	sim.drain_ns = SYNC_NS;
	sim_migration_init(&sim);
	if (sim.ops->init)
		sim.ops->init(&sim);
	while (!sim.is_over) {
		struct sim_vcpu *first = NULL;
		uint64_t next = sim.policy_ns < sim.drain_ns ? sim.policy_ns : sim.drain_ns;

		for (unsigned i = 0; i < SIM_VCPUS; i++)
			if (next_ns(&sim.vcpu[i]) < next) {
				first = &sim.vcpu[i];
				next = next_ns(first);
			}
		if (!is_warm && next >= options->warm_ns) {
			sim.now_ns = options->warm_ns;
			begin_to_count(&sim);
			is_warm = true;
		}
		if (next >= options->end_ns) {
			sim.now_ns = options->end_ns;
			break;
		}
		sim.now_ns = next;
		if (first)
			one_event(&sim, first);
		else if (sim.policy_ns <= sim.now_ns)
			sim.ops->tick(&sim);
		else
			sync_or_drain(&sim);
	}
	sim_settle_all(&sim);
	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		sim_free(&sim, &sim.vcpu[i]);
		result->pages_per_s += sim.vcpu[i].new_pages;
		if (sim.vcpu[i].was_governed)
			result->vcpu[i].governed_s += (double)(sim.now_ns - sim.vcpu[i].governed_at_ns) / 1e9;
	}
	result->seconds = (double)(sim.now_ns - options->warm_ns) / 1e9;
	result->pages_per_s /= result->seconds;
	if (sim.throttle) {
		result->stats.size = sizeof(result->stats);
		godwit_throttle_stats(sim.throttle, &result->stats);
	}
	if (result->end == SIM_RAN && options->send_bytes_per_s > 0)
		result->end = SIM_TIMED_OUT;
}
