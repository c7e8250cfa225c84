/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everybody at once: vCPU threads in their transitions, a thread that raises interrupts and finds dirty pages,
 * one that steps and stops, one that reads statistics. ThreadSanitizer looks for races; without it the sums
 * are what is checked: nothing that was counted may be lost, nothing that was stopped may stay held.
 */
#include <pthread.h>
#include <sched.h>

#include <criterion/criterion.h>

#include "throttle/throttle.h"

#define VCPUS 3
#define STEPS 3000

static struct {
	struct godwit_throttle *t;
	struct godwit_vcpu *v[VCPUS];
	_Atomic uint64_t now_ns;		/* simulated; moves with the steps */
	_Atomic uint64_t told_pages[VCPUS], told_events[VCPUS];
	uint64_t ran_ns[VCPUS];
	atomic_bool is_over, is_stopped;
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char memory[GODWIT_THROTTLE_BYTES];
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char vcpu_memory[VCPUS][GODWIT_VCPU_BYTES];
} all;

static void *run_vcpu(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	struct godwit_vcpu *v = all.v[i];
	uint64_t last_ns = atomic_load(&all.now_ns);

	while (!atomic_load(&all.is_over)) {
		uint64_t now_ns = atomic_load(&all.now_ns);
		uint64_t ran_ns = (now_ns - last_ns) / 2;

		if (godwit_vcpu_may_run(v, now_ns)) {
			godwit_vcpu_dirtied(v, 300);
			atomic_fetch_add(&all.told_pages[i], 300);
			godwit_vcpu_advance(v, now_ns, ran_ns);
			all.ran_ns[i] += ran_ns;
		}
		cr_assert_leq(godwit_vcpu_next(v, now_ns), GODWIT_THROTTLE_PERIOD_NS);
		/* The bottom moves with the orders; no further than this. */
		cr_assert_leq(v->page_credit, CREDIT(BURST_NS));
		cr_assert_geq(v->page_credit, -CREDIT(DEBT_NS + RESUME_MAX_NS));
		last_ns = now_ns;
		sched_yield();
	}
	/* Stopped before it was over: whatever was owed, it may run. */
	cr_assert(atomic_load(&all.is_stopped));
	cr_assert(godwit_vcpu_may_run(v, atomic_load(&all.now_ns)));
	return NULL;
}

static void *raise_events(void *arg)
{
	for (unsigned n = 0; !atomic_load(&all.is_over); n++) {
		unsigned i = n % VCPUS;

		godwit_vcpu_io(all.v[i], atomic_load(&all.now_ns));
		atomic_fetch_add(&all.told_events[i], 1);
		if (n % 5 == 0) {
			godwit_vcpu_dirtied(all.v[i], 7);
			atomic_fetch_add(&all.told_pages[i], 7);
		}
		sched_yield();
	}
	return NULL;
}

static void *read_statistics(void *arg)
{
	struct godwit_throttle_stats last = GODWIT_THROTTLE_STATS_INIT;

	while (!atomic_load(&all.is_over)) {
		struct godwit_throttle_stats now = GODWIT_THROTTLE_STATS_INIT;
		struct godwit_vcpu_stats one = GODWIT_VCPU_STATS_INIT;

		godwit_throttle_stats(all.t, &now);
		cr_assert_geq(now.pages, last.pages, "a total fell");
		cr_assert_geq(now.held_ns, last.held_ns, "a total fell");
		cr_assert_leq(now.state, GODWIT_THROTTLE_FUTILE);
		godwit_vcpu_stats(all.v[0], &one);
		cr_assert_leq(one.taken_percent, 100);
		last = now;
		sched_yield();
	}
	return NULL;
}

Test(throttle_threads, step_transitions_events_and_statistics_run_together)
{
	struct godwit_throttle_input in = GODWIT_THROTTLE_INPUT_INIT;
	struct godwit_throttle_stats stats = GODWIT_THROTTLE_STATS_INIT;
	pthread_t vcpus[VCPUS], events, reader;
	uint64_t pages = 0, seen_events = 0;

	all.t = godwit_throttle_init(all.memory, 95);
	for (unsigned i = 0; i < VCPUS; i++)
		all.v[i] = godwit_vcpu_init(all.vcpu_memory[i], 0);
	in.send_pages_per_s = 60000;
	in.remaining_pages = in.round_pages = 1u << 20;
	in.is_active = true;
	godwit_throttle_step(all.t, &in, all.v, VCPUS);
	for (unsigned i = 0; i < VCPUS; i++)
		cr_assert_eq(pthread_create(&vcpus[i], NULL, run_vcpu, (void *)(uintptr_t)i), 0);
	cr_assert_eq(pthread_create(&events, NULL, raise_events, NULL), 0);
	cr_assert_eq(pthread_create(&reader, NULL, read_statistics, NULL), 0);

	/* A busy host may not let the vCPUs run for a while: at least so many, and until there was something to see. */
	for (unsigned step = 0; step < STEPS || (step < 1000 * STEPS && !(stats.holds && stats.boosts)); step++) {
		/* In small pieces, so that the vCPUs see time pass. */
		for (unsigned piece = 0; piece < 20; piece++) {
			atomic_fetch_add(&all.now_ns, GODWIT_THROTTLE_PERIOD_NS / 20);
			sched_yield();
		}
		in.now_ns = atomic_load(&all.now_ns);
		if (step % 400 == 399)
			godwit_throttle_stop(all.t, all.v, VCPUS);
		else
			godwit_throttle_step(all.t, &in, all.v, VCPUS);
		godwit_throttle_stats(all.t, &stats);
	}
	godwit_throttle_stop(all.t, all.v, VCPUS);
	atomic_store(&all.is_stopped, true);
	atomic_store(&all.is_over, true);
	pthread_join(events, NULL);
	pthread_join(reader, NULL);
	for (unsigned i = 0; i < VCPUS; i++)
		pthread_join(vcpus[i], NULL);

	godwit_throttle_stop(all.t, all.v, VCPUS);
	godwit_throttle_stats(all.t, &stats);
	for (unsigned i = 0; i < VCPUS; i++) {
		struct godwit_vcpu_stats one = GODWIT_VCPU_STATS_INIT;

		godwit_vcpu_stats(all.v[i], &one);
		cr_assert_eq(one.pages, all.told_pages[i]);
		cr_assert_eq(one.io_events, all.told_events[i]);
		cr_assert_eq(one.ran_ns, all.ran_ns[i]);
		cr_assert_eq(one.rate_pages_per_s, 0);
		cr_assert_not(one.is_held);
		pages += one.pages;
		seen_events += one.io_events;
	}
	/* The first step came before the first page. */
	cr_assert_eq(stats.pages, pages);
	cr_assert_eq(stats.io_events, seen_events);
	cr_assert_gt(stats.holds, 0, "nobody was ever held");
	cr_assert_gt(stats.boosts, 0, "no event ever helped");
}
