/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ladder with the price in a closed loop: a simulated pipeline of workers, a link and a receiver, in simulated
 * time, so that nothing here depends on the machine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "contents.h"

#define MAX_WORKERS 16

/* ---- the pipeline ---- */

struct plan {
	const struct profile *profile;
	const struct profile *then;	/* NULL, or the profile of the second half */
	unsigned workers;
	double link;			/* bytes per ns */
	double processors;		/* shared by workers, writing and receiver; 0: one for each */
	double write_ns;		/* processor time per byte written */
	double decode_ns;		/* receiver's processor time per guest byte; 0: no receiver */
	double decode_wire_ns;		/* and per byte on the wire */
	int fixed;			/* rung, or -1 for auto */
	double span_ns;
};

struct outcome {
	double rate;			/* guest bytes per ns after the first quarter */
	double start_rate;		/* and from the start */
	unsigned used[RUNGS];
	double octave;
};

#define QUEUE 4

struct sim {
	struct plan plan;
	double now;
	struct {
		double left;		/* processor ns */
		double cpu;		/* of the whole block */
		double twin_cpu;	/* of that, for a comparison */
		double out;
		unsigned rung;
		bool busy;
		struct godwit_ladder ladder;
	} worker[MAX_WORKERS];
	double done[4 * MAX_WORKERS + 8];	/* sizes of finished frames */
	unsigned nr_done, in_flight, slots;
	double write_bytes, write_cpu, write_size;	/* left of the frame being written */
	bool writing;
	double queue[QUEUE];
	unsigned nr_queue;
	double decode_cpu;
	bool decoding;
	struct godwit_price price;
	struct godwit_price_input in;
	uint64_t price_ps;
	double in_wall, in_cpu, in_busy, in_starved, in_idle, in_since;
	double retired, retired_early;
	struct outcome outcome;
};

static void start_block(struct sim *s, unsigned w)
{
	const struct profile *p = s->plan.then && s->now > s->plan.span_ns / 2 ? s->plan.then :
										  s->plan.profile;
	unsigned rung = s->plan.fixed >= 0 ? (unsigned)s->plan.fixed :
					     godwit_ladder_pick(&s->worker[w].ladder, 1, BLOCK_BYTES, s->price_ps);
	double vary = 0.8 + 0.4 * uniform();
	double out = BLOCK / (1 + (p->ratio[rung] - 1) * vary);

	s->worker[w].rung = rung;
	s->worker[w].out = out;
	/* 0.1 ns a byte to read the pages and to make the frame, whatever the rung. */
	s->worker[w].cpu = BLOCK * (0.1 + p->ns[rung] * (0.9 + 0.2 * uniform()));
	s->worker[w].twin_cpu = s->plan.fixed >= 0 ? 0 : both_twins(&s->worker[w].ladder, p, rung, vary);
	s->worker[w].cpu += s->worker[w].twin_cpu;
	s->worker[w].left = s->worker[w].cpu;
	s->worker[w].busy = true;
	s->in_flight++;
	s->outcome.used[rung]++;
}

static void end_block(struct sim *s, unsigned w)
{
	double cpu = s->worker[w].cpu - s->worker[w].twin_cpu - 0.1 * BLOCK;

	if (s->plan.fixed < 0)
		godwit_ladder_learn(&s->worker[w].ladder, 1, s->worker[w].rung, BLOCK_BYTES,
				    (size_t)s->worker[w].out, (uint64_t)cpu);
	s->in_cpu += s->worker[w].cpu;
	s->worker[w].busy = false;
	s->done[s->nr_done++] = s->worker[w].out;
}

/* All that can begin now begins. */
static void begin(struct sim *s)
{
	if (!s->decoding && s->nr_queue) {
		double bytes = s->queue[0];

		memmove(s->queue, s->queue + 1, --s->nr_queue * sizeof(s->queue[0]));
		s->decode_cpu = BLOCK * s->plan.decode_ns + bytes * s->plan.decode_wire_ns;
		s->decoding = true;
	}
	if (!s->writing && s->nr_done && s->nr_queue < QUEUE) {
		s->write_size = s->write_bytes = s->done[0];
		memmove(s->done, s->done + 1, --s->nr_done * sizeof(s->done[0]));
		s->write_cpu = s->write_bytes * s->plan.write_ns;
		s->writing = true;
	}
	for (unsigned w = 0; w < s->plan.workers; w++) {
		if (!s->worker[w].busy && s->in_flight < s->slots)
			start_block(s, w);
	}
}

static void run_until_next(struct sim *s)
{
	double hungry = 0, speed = 1, dt = 1e6;
	bool is_writing_cpu = s->writing && s->write_cpu > 0;
	/* Frames that wait for a full receiver are a write() that blocks. */
	bool is_link_busy = s->writing || s->nr_done;

	for (unsigned w = 0; w < s->plan.workers; w++)
		hungry += s->worker[w].busy;
	hungry += is_writing_cpu;
	hungry += s->decoding;
	if (s->plan.processors && hungry > s->plan.processors)
		speed = s->plan.processors / hungry;

	for (unsigned w = 0; w < s->plan.workers; w++) {
		if (s->worker[w].busy)
			dt = least(dt, s->worker[w].left / speed);
	}
	if (s->writing)
		dt = least(dt, s->write_cpu > 0 ? s->write_cpu / speed : s->write_bytes / s->plan.link);
	if (s->decoding)
		dt = least(dt, s->decode_cpu / speed);
	dt += 1e-6;

	s->now += dt;
	for (unsigned w = 0; w < s->plan.workers; w++) {
		if (s->worker[w].busy) {
			s->in_wall += dt;
			s->worker[w].left -= dt * speed;
			if (s->worker[w].left <= 0)
				end_block(s, w);
		} else {
			s->in_idle += dt;
		}
	}
	if (is_link_busy)
		s->in_busy += dt;
	else
		s->in_starved += dt;
	if (is_writing_cpu) {
		s->write_cpu -= dt * speed;
		/* The wire drains while the processor copies. */
		s->write_bytes -= dt * s->plan.link;
	} else if (s->writing) {
		s->write_bytes -= dt * s->plan.link;
	}
	if (s->writing && s->write_cpu <= 0 && s->write_bytes <= 0) {
		s->writing = false;
		s->in_flight--;
		s->in.wire_bytes += (uint64_t)s->write_size;
		s->in.retired_bytes += BLOCK_BYTES;
		s->retired += BLOCK;
		if (s->plan.decode_ns + s->plan.decode_wire_ns > 0)
			s->queue[s->nr_queue++] = s->write_size;
	}
	if (s->decoding) {
		s->decode_cpu -= dt * speed;
		s->decoding = s->decode_cpu > 0;
	}
}

static void step_price(struct sim *s)
{
	s->in.span_ns = (uint64_t)(s->now - s->in_since);
	s->in.link_busy_ns = (uint64_t)s->in_busy;
	s->in.link_starved_ns = (uint64_t)s->in_starved;
	s->in.worker_idle_ns = (uint64_t)s->in_idle;
	s->in.worker_cpu_ns = (uint64_t)s->in_cpu;
	s->in.worker_wall_ns = (uint64_t)s->in_wall;
	s->in.workers = s->plan.workers;
	s->price_ps = godwit_price_step(&s->price, &s->in);
	memset(&s->in, 0, sizeof(s->in));
	s->in_wall = s->in_cpu = s->in_busy = s->in_starved = s->in_idle = 0;
	s->in_since = s->now;
}

static struct outcome simulate(struct plan plan)
{
	static struct sim s;

	rng = 88172645463325252ull;
	memset(&s, 0, sizeof(s));
	s.plan = plan;
	s.slots = 4 * plan.workers + 4;
	godwit_price_init(&s.price);
	s.price_ps = godwit_price_step(&s.price, &s.in);
	for (unsigned w = 0; w < plan.workers; w++)
		godwit_ladder_init(&s.worker[w].ladder);
	while (s.now < plan.span_ns) {
		begin(&s);
		run_until_next(&s);
		if (s.now - s.in_since >= 2e6)
			step_price(&s);
		if (s.now < plan.span_ns / 4)
			s.retired_early = s.retired;
	}
	s.outcome.rate = (s.retired - s.retired_early) / (plan.span_ns * 0.75);
	s.outcome.start_rate = s.retired / plan.span_ns;
	s.outcome.octave = s.price.octave;
	return s.outcome;
}

/* The best of all fixed rungs, raw among them. */
static double best_fixed(struct plan plan, unsigned *rung_ret)
{
	double best = 0;

	for (plan.fixed = 0; plan.fixed < RUNGS; plan.fixed++) {
		double rate = simulate(plan).rate;

		if (rate > best) {
			best = rate;
			*rung_ret = (unsigned)plan.fixed;
		}
	}
	return best;
}

static void expect_near_best(struct plan plan, double share)
{
	unsigned rung = 0;
	double best = best_fixed(plan, &rung);
	struct outcome got;

	plan.fixed = -1;
	got = simulate(plan);
	if (getenv("GODWIT_TEST_SHOW"))
		printf("%-8s %5.1f Gbit/s %2u workers: best %u %.3f auto %.3f (%.3f, start %.3f) 2^%.1f "
		       "use %u %u %u %u %u %u %u\n",
		       plan.profile->name, plan.link * 8, plan.workers, rung, best, got.rate,
		       got.rate / best, got.start_rate / best, got.octave, got.used[0], got.used[1],
		       got.used[2], got.used[3], got.used[4], got.used[5], got.used[6]);
	cr_expect_geq(got.rate, share * best, "%s, %.1f Gbit/s, %u workers: %.3f of rung %u",
		      plan.profile->name, plan.link * 8, plan.workers, got.rate / best, rung);
}

static const double gbits[] = { 0.1, 1, 10, 25, 100 };
static const unsigned workers[] = { 1, 2, 4, 16 };

static double span_for(double gbit)
{
	return gbit < 1 ? 8e9 : gbit < 10 ? 2e9 : 0.4e9;
}

static void all_links(const struct profile *profile, double share)
{
	for (unsigned g = 0; g < 5; g++) {
		for (unsigned w = 0; w < 4; w++) {
			struct plan plan = { .profile = profile, .workers = workers[w],
					     .link = gbits[g] / 8, .span_ns = span_for(gbits[g]) };

			expect_near_best(plan, share);
		}
	}
}

/* ---- the loop ---- */

Test(loop, auto_is_as_good_as_the_best_rung_on_every_link)
{
	for (unsigned i = 0; i < PROFILES; i++)
		all_links(&profiles[i], 0.95);
}

Test(loop, auto_is_as_good_as_raw_on_noise)
{
	all_links(&noise, 0.95);
}

/* codecs.md: matching the effort to the link by mixing two rungs beats every rung alone. */
Test(loop, auto_mixes_neighbours_where_that_is_better_than_either)
{
	struct plan plan = { .profile = &profiles[0], .workers = 4, .link = 10.0 / 8, .span_ns = 0.4e9 };
	unsigned rung = 0;
	double best = best_fixed(plan, &rung);
	struct outcome got;

	plan.fixed = -1;
	got = simulate(plan);
	cr_expect_gt(got.rate, 1.02 * best, "%.3f of rung %u", got.rate / best, rung);
}

Test(loop, a_change_of_content_is_followed)
{
	static const struct {
		const struct profile *first, *then;
	} changes[] = { { &profiles[3], &noise }, { &noise, &profiles[3] }, { &profiles[4], &profiles[2] } };

	for (unsigned i = 0; i < 3; i++) {
		for (unsigned g = 0; g < 5; g++) {
			struct plan plan = { .profile = changes[i].first, .then = changes[i].then, .workers = 4,
					     .link = gbits[g] / 8, .span_ns = span_for(gbits[g]) };

			/* The time to find out is in this as well. */
			expect_near_best(plan, 0.9);
		}
	}
}

/* Two processors for four workers, both ends' sockets and the receiver: a loopback migration. */
Test(loop, scarce_processors_do_not_drive_the_rung_up)
{
	static const struct {
		unsigned profile, workers;
		double gbit, processors;
	} hosts[] = {
		{ 0, 4, 10, 2 },  { 0, 4, 100, 2 }, { 0, 2, 100, 2 }, { 0, 4, 1, 2 },	{ 0, 4, 100, 1 },
		{ 1, 8, 1, 2 },	  { 1, 1, 100, 2 }, { 2, 4, 10, 2 },  { 0, 2, 25, 2 },	{ 1, 2, 10, 2 },
		{ 4, 2, 100, 2 }, { 2, 2, 100, 2 }, { 3, 4, 25, 2 },  { 3, 2, 100, 2 },
	};

	for (unsigned i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		struct plan plan = { .profile = &profiles[hosts[i].profile], .workers = hosts[i].workers,
				     .link = hosts[i].gbit / 8, .processors = hosts[i].processors,
				     .write_ns = 0.25, .decode_ns = 0.3, .decode_wire_ns = 0.1,
				     .span_ns = span_for(hosts[i].gbit) };

		expect_near_best(plan, 0.92);
	}
}

/* It has its own processor, and is the slowest of all: bytes saved on the link are no gain. */
Test(loop, a_slow_receiver_does_not_drive_the_rung_up)
{
	for (unsigned w = 1; w < 4; w++) {
		struct plan plan = { .profile = &profiles[0], .workers = workers[w], .link = 100.0 / 8,
				     .decode_ns = 0.5, .decode_wire_ns = 0.1, .span_ns = 0.4e9 };

		/* Finding out, now and then, that heavier does not pay has its price. */
		expect_near_best(plan, 0.93);
	}
}
