/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle_cost.c - what the governor itself costs: a step, and a vCPU's call
 *
 * The only part of this command that reads a clock. Each figure is the median of short runs, taken by
 * turns, so that a preempted run does not count. vCPUs are as they are in a migration: all of them
 * governed, some of them held, pages and I/O between the steps.
 */
#include <stdlib.h>

#include "throttle.h"

#define MAX_VCPUS 64
#define RUNS 401
#define STEPS_A_RUN 20
#define TURNS_A_RUN 500

struct governed {
	struct godwit_throttle *throttle;
	struct godwit_vcpu *vcpu[MAX_VCPUS];
	unsigned nr_vcpus;
	uint64_t now_ns;
	struct godwit_throttle_input in;
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char memory[GODWIT_THROTTLE_BYTES];
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char vcpu_memory[MAX_VCPUS][GODWIT_VCPU_BYTES];
};

static void setup(struct governed *g, unsigned nr_vcpus)
{
	g->throttle = godwit_throttle_init(g->memory, 99);
	g->nr_vcpus = nr_vcpus;
	g->now_ns = SIM_S;
	g->in = (struct godwit_throttle_input)GODWIT_THROTTLE_INPUT_INIT;
	g->in.send_pages_per_s = 10000 * nr_vcpus;
	g->in.remaining_pages = g->in.round_pages = 1u << 24;
	g->in.is_active = true;
	for (unsigned i = 0; i < nr_vcpus; i++)
		g->vcpu[i] = godwit_vcpu_init(g->vcpu_memory[i], g->now_ns);
}

/* A tenth of a second of guest for each; demands spread over two orders of magnitude. */
static void guest(struct governed *g)
{
	g->now_ns += GODWIT_THROTTLE_PERIOD_NS;
	for (unsigned i = 0; i < g->nr_vcpus; i++) {
		godwit_vcpu_dirtied(g->vcpu[i], 100 + 10000 * (i * 37 % 64) / 64);
		godwit_vcpu_io(g->vcpu[i], g->now_ns);
		godwit_vcpu_advance(g->vcpu[i], g->now_ns, GODWIT_THROTTLE_PERIOD_NS / (1 + i % 7));
		godwit_vcpu_may_run(g->vcpu[i], g->now_ns);
	}
}

static double time_steps(struct governed *g)
{
	uint64_t spent_ns = 0;

	for (unsigned i = 0; i < STEPS_A_RUN; i++) {
		guest(g);
		g->in.now_ns = g->now_ns;
		uint64_t start_ns = now_ns();

		godwit_throttle_step(g->throttle, &g->in, g->vcpu, g->nr_vcpus);
		spent_ns += now_ns() - start_ns;
	}
	return (double)spent_ns / STEPS_A_RUN;
}

/* What a look makes: pages counted, time charged, asked, and when to look again; four calls. */
static double time_turns(struct governed *g)
{
	struct godwit_vcpu *v = g->vcpu[0];
	uint64_t start_ns = now_ns(), held = 0;

	for (unsigned i = 0; i < TURNS_A_RUN; i++) {
		g->now_ns += 300000;
		godwit_vcpu_dirtied(v, 20);
		godwit_vcpu_advance(v, g->now_ns, i & 1 ? 300000 : 100000);
		held += !godwit_vcpu_may_run(v, g->now_ns);
		g->now_ns += godwit_vcpu_next(v, g->now_ns) >> 6;
	}
	start_ns = now_ns() - start_ns;
	/* So that no compiler leaves out what is not looked at. */
	if (held > TURNS_A_RUN)
		die("cannot be");
	return (double)start_ns / TURNS_A_RUN;
}

void throttle_cost(struct throttle_cost *cost)
{
	static struct governed few, many, one;
	struct godwit_throttle_stats stats = GODWIT_THROTTLE_STATS_INIT;
	static double step_few[RUNS], step_many[RUNS], turn[RUNS];

	setup(&few, 4);
	setup(&many, MAX_VCPUS);
	setup(&one, 1);
	time_steps(&one);
	for (unsigned run = 0; run < RUNS; run++) {
		step_few[run] = time_steps(&few);
		step_many[run] = time_steps(&many);
		turn[run] = time_turns(&one);
	}
	cost->step_4_ns = median(step_few, RUNS);
	cost->step_64_ns = median(step_many, RUNS);
	cost->turn_ns = median(turn, RUNS);
	cost->vcpu_bytes = GODWIT_VCPU_BYTES;
	/* The figures are of a governor at work. */
	godwit_throttle_stats(many.throttle, &stats);
	if (stats.state != GODWIT_THROTTLE_LEVEL)
		die("the vCPUs were not levelled, but %s", godwit_throttle_state_name(stats.state));
}
