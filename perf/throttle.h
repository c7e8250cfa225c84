/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PERF_THROTTLE_H
#define GODWIT_PERF_THROTTLE_H

#include <stdalign.h>

#include <godwit/throttle.h>

#include "perf.h"

/*
 * throttle.h - a guest, a migration and what holds the guest back, in simulated time
 *
 * throttle_sim.c runs the guest, throttle_migration.c drains it, throttle_policy.c holds it, throttle.c asks
 * the questions. Discrete events, nanoseconds, one thread; equal seeds give equal runs everywhere that
 * exp() and log() round alike.
 */
#define SIM_MS 1000000ull
#define SIM_S 1000000000ull
#define SIM_NEVER UINT64_MAX
#define SIM_VCPUS 4
#define SIM_QUEUE 256			/* I/Os that wait in the guest; one more is dropped */

/* What timed sleeps and forced exits cost on a host that is not short of processors. */
#define SIM_SLEEP_SLACK_NS 50000u
#define SIM_KICK_NS 20000u
#define SIM_EXIT_NS 10000u

enum sim_policy { SIM_FREE, SIM_AUTO_CONVERGE, SIM_DIRTY_LIMIT, SIM_GOVERNOR, SIM_POLICIES };
extern const char *const sim_policy_names[SIM_POLICIES];

/* ---- what the guest does ---- */

struct sim_vcpu_load {
	double bytes_per_s;		/* dirtied by the batch task, all over its region; 0: it computes */
	double region_bytes;
	double io_per_s;		/* Poisson; each wants IO_FIXED_NS + exponential of IO_MEAN_NS of CPU */
	uint32_t on_ms, off_ms;		/* the batch task's bursts; off 0: always on */
	bool has_batch;
	double ipi_share;		/* of its I/Os that need an answer of vCPU 0 */
};

struct sim_load {
	const char *name;		/* "W1" */
	const char *text;
	struct sim_vcpu_load vcpu[SIM_VCPUS];
};
extern const struct sim_load sim_loads[];
extern const unsigned nr_sim_loads;
/* Like the guests of the published runs that the upstream models are calibrated against. */
extern const struct sim_load sim_published_load;

/* ---- latencies: a histogram of 1 % buckets ---- */

#define SIM_BUCKETS 2048
struct sim_latency {
	uint32_t bucket[SIM_BUCKETS];
	uint64_t count, dropped;
	uint64_t max_ns;
};
double sim_percentile_ns(const struct sim_latency *latency, double part);

/* ---- one run ---- */

struct sim_options {
	const struct sim_load *load;
	enum sim_policy policy;
	uint64_t seed;
	uint64_t end_ns;		/* simulated at most */
	uint64_t warm_ns;		/* open loop: not counted */
	double strength;		/* open loop: percent, MB/s of every vCPU, pages/s of the guest */
	uint32_t max_percent;		/* closed loop: the cap; and the governor's in the open loop */
	double send_bytes_per_s;	/* closed loop; 0: open loop, a sync every second */
	double ram_bytes;
	double quota_mb;		/* closed loop: dirty-limit's, of every vCPU */
	bool has_sync_timer;		/* auto-converge: the one of QEMU 9.2 and later */
	double tick_per_s;		/* on vCPUs with a batch task: look like I/O, want 5 us of CPU */
	bool is_deaf;			/* the governor is not told of I/O */
	bool charges_time;		/* pages are not counted by vCPU: CPU time x the guest's density */
	bool is_late;			/* governor: a fifth of the wakes 60 us late */
	struct sim_series *series;	/* filled if not NULL */
};

enum sim_end { SIM_RAN, SIM_CONVERGED, SIM_TIMED_OUT, SIM_FUTILE };

struct sim_vcpu_result {
	double wanted_s, got_s;		/* of the batch task */
	double held_s;			/* while it wanted to run */
	uint64_t longest_hold_ns;
	uint64_t exits;			/* forced */
	uint64_t looks;			/* governor: of them, while it was governed */
	double governed_s;
	struct sim_latency io;
};

struct sim_result {
	enum sim_end end;
	double seconds;			/* counted */
	double pages_per_s;		/* newly dirtied */
	double downtime_ms;
	uint64_t infeasible_ns, futile_ns, onset_ns;	/* when the governor said so, and began; SIM_NEVER: not */
	unsigned futile_rounds;		/* since onset */
	struct sim_vcpu_result vcpu[SIM_VCPUS];
	struct godwit_throttle_stats stats;
};

/* What happened in each step of time. */
struct sim_point {
	double pages;
	double held_s[SIM_VCPUS];
	uint64_t worst_io_ns;
};
struct sim_series {
	uint64_t step_ns;
	unsigned nr_points, cap_points;
	struct sim_point *point;
};

void sim_run(const struct sim_options *options, struct sim_result *result);

/* ---- inside ---- */

struct sim;

struct sim_vcpu {
	const struct sim_vcpu_load *load;
	unsigned index;
	uint64_t at_ns;			/* accounted up to here */

	/* The guest. */
	uint64_t io_rng, service_rng;
	uint64_t next_io_ns, next_tick_ns, next_burst_ns;
	bool is_batch_on;
	struct { uint64_t since_ns; unsigned from; bool is_ipi, is_tick; } queue[SIM_QUEUE];
	unsigned head, queued;
	uint64_t serving_ns;		/* CPU that the I/O in service still wants; 0: none is */
	uint64_t stall_ns;		/* CPU that an exit still takes from the guest */

	/* Pages of its region, expected values. */
	double region, clean, ring_clean;	/* clean: in the dirty log; in the vCPU's ring */
	double unsent;			/* to be sent in this pass */

	/* The policy's. */
	bool is_held, wants, runs;
	uint64_t held_since_ns, policy_ns;	/* next event of its own */
	double sleep_us;		/* dirty-limit: a full ring */
	double ring_pages, ring_total, ring_seen;
	double told_pages;		/* governor: of new_pages */
	uint64_t ran_ns, told_ran_ns, tick_ran_ns;
	double density_of_guest, time_pages;	/* governor, charging by time: pages per ns, part of a page */
	bool was_governed;
	uint64_t governed_at_ns;
	struct godwit_vcpu *governed;
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char memory[GODWIT_VCPU_BYTES];

	/* Figures. */
	double new_pages;
	struct sim_vcpu_result *out;
};

struct sim_policy_ops {
	void (*init)(struct sim *sim);
	void (*look)(struct sim *sim, struct sim_vcpu *v);	/* policy_ns is due */
	void (*io)(struct sim *sim, struct sim_vcpu *v);	/* an event for it came in */
	void (*wants)(struct sim *sim, struct sim_vcpu *v);	/* it was idle and is not any more */
	void (*tick)(struct sim *sim);				/* sim->policy_ns is due */
	void (*trigger)(struct sim *sim, double period_bytes, double threshold_bytes);
};
extern const struct sim_policy_ops sim_policy_ops[SIM_POLICIES];

struct sim_migration {
	double rest_unsent;		/* pages outside of all regions */
	double round_pages, sent_pages;
	unsigned syncs;
	uint64_t period_ns;		/* when its figures began */
	double period_new, period_sent;
	unsigned high_count;
	uint64_t timer_ns;		/* the 5 s sync timer, auto-converge only */
	unsigned timer_syncs;
};

struct sim {
	const struct sim_options *options;
	const struct sim_policy_ops *ops;
	struct sim_result *result;
	uint64_t now_ns, counted_from_ns;
	uint64_t policy_ns, drain_ns;	/* next tick of the policy, of the migration */
	bool is_over;
	struct sim_vcpu vcpu[SIM_VCPUS];
	struct sim_migration migration;

	unsigned percent;		/* auto-converge */
	bool has_quota;			/* dirty-limit */
	double quota_mb, fastest_mb;
	struct godwit_throttle *throttle;
	alignas(GODWIT_THROTTLE_ALIGN) unsigned char memory[GODWIT_THROTTLE_BYTES];
};

/* Account a vCPU, or all, up to now. */
void sim_settle(struct sim *sim, struct sim_vcpu *v);
void sim_settle_all(struct sim *sim);
/* It stops, or goes on; costs an exit if it ran. */
void sim_hold(struct sim *sim, struct sim_vcpu *v);
void sim_free(struct sim *sim, struct sim_vcpu *v);
/* It ran and was interrupted. */
void sim_exit(struct sim_vcpu *v);

/* throttle_migration.c */
void sim_migration_init(struct sim *sim);
void sim_migration_drain(struct sim *sim);
void sim_sync(struct sim *sim);
double sim_dirtied(const struct sim *sim);	/* pages since the last sync */
double sim_unsent(const struct sim *sim);

/* throttle_cost.c: measured, not simulated. */
struct throttle_cost {
	double step_4_ns, step_64_ns;	/* a step, by vCPUs */
	double turn_ns;			/* dirtied, advance, may_run and next of one vCPU, together */
	unsigned vcpu_bytes;
};
void throttle_cost(struct throttle_cost *cost);

/* throttle_svg.c: one panel for each series, in the order given. 0 or -errno. */
struct throttle_panel {
	const char *title;
	struct sim_series series;
	double total_s, p99_ms;
};
int throttle_svg_write(const char *path, const char *title, double send_bytes_per_s,
		       const struct throttle_panel *panels, unsigned nr_panels);

#endif
