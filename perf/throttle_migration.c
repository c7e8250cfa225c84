/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle_migration.c - a precopy as QEMU does it, in expected values
 *
 * Pages to be sent drain evenly over all regions. A pass ends when what is left is under the threshold (what
 * the last 100 ms say fits 300 ms): then the dirty log is synced, and if it is still under, that was it.
 * A page that is dirtied and was to be sent anyway is not new. At a sync at least a second after the last
 * one that looked, upstream compares what was newly dirtied with half of what was sent; the second time
 * that it is more, it throttles, and a period that was good does not take back the first. While
 * auto-converge is on, a timer syncs when nothing else has for five seconds.
 */
#include <math.h>

#include "throttle.h"

#define TICK_NS (50 * SIM_MS)		/* how long QEMU writes before it looks */
#define DOWNTIME_S 0.3
#define PERIOD_NS SIM_S
#define TRIGGER 0.5
#define SYNC_TIMER_NS (5 * SIM_S)

static double send_pages_per_s(const struct sim *sim)
{
	return sim->options->send_bytes_per_s / GODWIT_PAGE_BYTES;
}

void sim_migration_init(struct sim *sim)
{
	struct sim_migration *m = &sim->migration;

	if (sim->options->send_bytes_per_s <= 0)
		return;
	m->rest_unsent = sim->options->ram_bytes / GODWIT_PAGE_BYTES;
	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		sim->vcpu[i].unsent = sim->vcpu[i].region;
		m->rest_unsent -= sim->vcpu[i].region;
	}
	m->round_pages = sim_unsent(sim);
	m->syncs = 1;			/* at set-up */
	m->timer_ns = sim->options->has_sync_timer ? SYNC_TIMER_NS : SIM_NEVER;
	sim->drain_ns = TICK_NS;
}

double sim_unsent(const struct sim *sim)
{
	double sum = sim->migration.rest_unsent;

	for (unsigned i = 0; i < SIM_VCPUS; i++)
		sum += sim->vcpu[i].unsent;
	return sum;
}

double sim_dirtied(const struct sim *sim)
{
	double sum = 0;

	for (unsigned i = 0; i < SIM_VCPUS; i++)
		sum += sim->vcpu[i].region - sim->vcpu[i].clean;
	return sum;
}

void sim_sync(struct sim *sim)
{
	struct sim_migration *m = &sim->migration;

	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		struct sim_vcpu *v = &sim->vcpu[i];
		double dirty = v->region - v->clean, fresh;

		fresh = v->region > 0 ? dirty * (1 - v->unsent / v->region) : 0;
		m->period_new += fresh;
		v->unsent += fresh;
		v->clean = v->ring_clean = v->region;
		v->ring_pages = 0;
	}
	m->syncs++;
	if (sim->options->send_bytes_per_s <= 0 || sim->now_ns <= m->period_ns + PERIOD_NS)
		return;
	if (m->period_new > m->period_sent * TRIGGER && ++m->high_count >= 2) {
		m->high_count = 0;
		if (sim->ops->trigger)
			sim->ops->trigger(sim, m->period_new, m->period_sent * TRIGGER);
	}
	m->period_ns = sim->now_ns;
	m->period_new = m->period_sent = 0;
}

/* The guest has to be stopped: who sleeps and does not listen is waited for. */
static double stop_ns(const struct sim *sim)
{
	double longest = 0;

	if (sim->options->policy != SIM_DIRTY_LIMIT)
		return 0;
	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		const struct sim_vcpu *v = &sim->vcpu[i];

		if (v->is_held && v->policy_ns != SIM_NEVER && (double)(v->policy_ns - sim->now_ns) > longest)
			longest = (double)(v->policy_ns - sim->now_ns);
	}
	return longest;
}

void sim_migration_drain(struct sim *sim)
{
	struct sim_migration *m = &sim->migration;
	double unsent = sim_unsent(sim), send = send_pages_per_s(sim) * TICK_NS / 1e9;
	double threshold = send_pages_per_s(sim) * DOWNTIME_S, left;

	send = send < unsent ? send : unsent;
	left = unsent > 0 ? 1 - send / unsent : 0;
	for (unsigned i = 0; i < SIM_VCPUS; i++)
		sim->vcpu[i].unsent *= left;
	m->rest_unsent *= left;
	m->sent_pages += send;
	m->period_sent += send;
	sim->drain_ns = sim->now_ns + TICK_NS;

	if (sim->now_ns >= m->timer_ns) {
		m->timer_ns = sim->now_ns + SYNC_TIMER_NS;
		if (m->syncs > 1 && m->syncs == m->timer_syncs)
			sim_sync(sim);
		m->timer_syncs = m->syncs;
	}
	if (sim_unsent(sim) >= threshold)
		return;
	sim_sync(sim);
	m->round_pages = sim_unsent(sim);
	if (m->round_pages < threshold) {
		sim->result->downtime_ms = m->round_pages / send_pages_per_s(sim) * 1e3 + stop_ns(sim) / 1e6;
		sim->result->end = SIM_CONVERGED;
		sim->is_over = true;
	}
}
