/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_THROTTLE_H
#define GODWIT_THROTTLE_H

#include <stdbool.h>

#include <godwit/common.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The governor: holds vCPUs back so that a migration converges, and lets their I/O through.
 *
 * Pure: it reads no clock, takes no lock, allocates nothing, computes in integers. Whoever calls it knows
 * the time, stops a vCPU's thread and wakes it. Two kinds of state, in memory of the caller: one
 * struct godwit_throttle for the guest, one struct godwit_vcpu for each of its vCPUs.
 *
 * What is charged is newly dirtied pages: a page that was clean since the last sync of the dirty bitmap.
 * Each governed vCPU has a page rate, and as a floor the part of CPU time that must be left to it.
 * It is held only when both are used up, and an I/O event lets it run at once, on credit.
 *
 * Threads
 *	[step]	one thread at a time per guest: the one with the 100 ms timer
 *	[own]	one thread at a time per vCPU: the vCPU's own, or the one that runs several by turns
 *	[any]	any thread at any time while the memory lives
 * [step] and [own] run together without waiting for each other: rates go one way and counters the other
 * in relaxed atomics, each of which makes sense by itself. Every call is wait-free.
 *
 * The loop of a vCPU's thread:
 *
 *	for (;;) {
 *		while (!godwit_vcpu_may_run(v, now_ns) && !stop)
 *			sleep for at most godwit_vcpu_next(v, now_ns), less if kicked;
 *		see to it that the guest is left after godwit_vcpu_next(v, now_ns);
 *		run the guest;
 *		godwit_vcpu_advance(v, now_ns, ran_ns);
 *	}
 *
 * and wherever an interrupt is raised for the vCPU: godwit_vcpu_io(v, now_ns), then a kick if its thread
 * sleeps in a hold. A sleeper must look at may_run after it has made itself visible to whoever kicks
 * (QEMU: under the lock of its halt_cond). A kick that is lost costs at most a hold that goes on until
 * godwit_vcpu_next().
 */
struct godwit_throttle;
struct godwit_vcpu;

/* Memory that the caller gives; aligned to GODWIT_THROTTLE_ALIGN. */
#define GODWIT_THROTTLE_BYTES 512u
#define GODWIT_VCPU_BYTES 256u
#define GODWIT_THROTTLE_ALIGN 64u

/* How often to step, and how late a step may be without harm to the averages. */
#define GODWIT_THROTTLE_PERIOD_NS 100000000u

/* ---- a vCPU ---- */

/*
 * Make a vCPU that is not governed, of GODWIT_VCPU_BYTES at memory. Nothing is owed at its end. One that lives
 * on into the next migration is fine; but its longest hold is then that of all of them.
 */
GODWIT_API struct godwit_vcpu *godwit_vcpu_init(void *memory, uint64_t now_ns);

/*
 * [any] The vCPU dirtied this many pages that were clean. They are charged at its next call marked [own];
 * where another thread finds them (a dirty ring's reaper), find them before advance.
 */
GODWIT_API void godwit_vcpu_dirtied(struct godwit_vcpu *vcpu, uint64_t pages);

/* [any] An I/O event for the vCPU: for a moment it may run whatever it owes, as long as it does not owe much. */
GODWIT_API void godwit_vcpu_io(struct godwit_vcpu *vcpu, uint64_t now_ns);

/* [own] The guest used ran_ns of CPU time since the last advance. Wall time since then comes from now_ns, which
 * never goes back: what does is taken as no time. */
GODWIT_API void godwit_vcpu_advance(struct godwit_vcpu *vcpu, uint64_t now_ns, uint64_t ran_ns);

/*
 * [own] May it run now? Asked when the guest wants to (it is not halted); false begins or continues a
 * hold, true ends it.
 */
GODWIT_API bool godwit_vcpu_may_run(struct godwit_vcpu *vcpu, uint64_t now_ns);

/*
 * [own] Would an I/O event let it run, as of the last advance or may_run? False for one that owes too much. For
 * whoever cannot keep interrupts from waking it while it is held.
 */
GODWIT_API bool godwit_vcpu_may_boost(const struct godwit_vcpu *vcpu);

/*
 * [own] After how many ns the answer of may_run may change, if nothing is charged but what the vCPU is known to
 * dirty: 50 us to 10 ms when governed, GODWIT_THROTTLE_PERIOD_NS when not.
 */
GODWIT_API uint64_t godwit_vcpu_next(const struct godwit_vcpu *vcpu, uint64_t now_ns);

/* [any] From here on it may run; until the next step that governs it. For a vCPU that goes away: first
 * leave it out of the steps, then stop, then kick. */
GODWIT_API void godwit_vcpu_stop(struct godwit_vcpu *vcpu);

/* ---- the guest ---- */

/* Make a governor of GODWIT_THROTTLE_BYTES at memory. max_percent: see set_max. */
GODWIT_API struct godwit_throttle *godwit_throttle_init(void *memory, uint32_t max_percent);

/*
 * [step] The cap: at most this many percent of a vCPU's wall time are taken from it. 0 means 90; above
 * 99 is 99. In force with the next step.
 */
GODWIT_API void godwit_throttle_set_max(struct godwit_throttle *throttle, uint32_t max_percent);

/* What a step is told. Pages are guest pages; "sent" is retired: as many as the frames stood for. */
struct godwit_throttle_input {
	size_t size;			/* sizeof(struct godwit_throttle_input); what is beyond is ignored */
	uint64_t now_ns;
	uint64_t send_pages_per_s;	/* what the channel takes just now; 0: not known, nobody is held */
	uint64_t remaining_pages;	/* left in this pass over the dirty bitmap */
	uint64_t round_pages;		/* there were at its beginning */
	uint64_t dirtied_pages;		/* new ones since its beginning, by anybody */
	uint64_t threshold_pages;	/* so many fit the downtime limit */
	uint64_t device_pages_per_s;	/* dirtied by others than vCPUs */
	uint32_t is_active;		/* a precopy that can still converge is running */
	uint32_t is_first_pass;		/* all memory is on its way for the first time: nobody is held */
};
#define GODWIT_THROTTLE_INPUT_INIT { .size = sizeof(struct godwit_throttle_input) }

/*
 * [step] Every GODWIT_THROTTLE_PERIOD_NS while a migration runs: measures the vCPUs, decides whom to hold
 * how much. vcpus are those plugged at the moment, in any order; 0 to 65535 of them.
 * Nobody need be kicked: a change is seen within 10 ms by who is held, within a period by who is not.
 * Returns 0, or -EINVAL for a size that is too small or too many vCPUs, and then nothing changed.
 */
GODWIT_API int godwit_throttle_step(struct godwit_throttle *throttle,
				    const struct godwit_throttle_input *input,
				    struct godwit_vcpu *const *vcpus, size_t nr_vcpus);

/* [step] The end, a pause, a cancel: nobody is governed when this returns. Then kick those that sleep. */
GODWIT_API void godwit_throttle_stop(struct godwit_throttle *throttle, struct godwit_vcpu *const *vcpus,
				     size_t nr_vcpus);

/* ---- what it did ---- */

enum godwit_throttle_state {
	GODWIT_THROTTLE_IDLE = 0,	/* no migration, its first pass, or it converges by itself */
	GODWIT_THROTTLE_ARMED = 1,	/* rates are in force, above what the guest dirties */
	GODWIT_THROTTLE_LEVEL = 2,	/* vCPUs are held to a common page rate */
	GODWIT_THROTTLE_CAPPED = 3,	/* the cap allows less than was wanted; what is left still shrinks */
	GODWIT_THROTTLE_INFEASIBLE = 4,	/* even at the cap the guest dirties as fast as the channel sends */
	GODWIT_THROTTLE_FUTILE = 5,	/* measured: what is left does not shrink; all are released */
};
/* "idle", "armed", "level", "capped", "infeasible", "futile". Static storage. */
GODWIT_API const char *godwit_throttle_state_name(enum godwit_throttle_state state);

struct godwit_throttle_stats {
	size_t size;			/* in: sizeof(struct godwit_throttle_stats) as the caller knows it */

	/* Totals over all vCPUs since init, unplugged ones included; as of the last step. */
	uint64_t held_ns;
	uint64_t longest_hold_ns;	/* of one vCPU at a stretch */
	uint64_t holds;
	uint64_t boosts;		/* times that an I/O event ended or prevented a hold */
	uint64_t io_events;
	uint64_t pages;			/* dirtied by vCPUs */
	uint64_t pages_charged;		/* of these, by governed ones */

	/* As of the last step. */
	uint64_t level_pages_per_s;	/* the common rate; 0 when nobody is governed */
	uint64_t wanted_pages_per_s;	/* what the guest would dirty if nobody were held */
	uint64_t allowed_pages_per_s;	/* what it may */
	uint64_t release_ns;		/* until the holds end, at the rates of the moment: convergence, or the
					 * next try after futile; UINT64_MAX: not in sight */
	uint32_t state;			/* enum godwit_throttle_state */
	uint32_t max_percent;		/* the cap */
	uint32_t governed;		/* vCPUs with a rate */
	uint32_t is_infeasible;		/* has been since init */
	uint32_t is_futile;		/* has been since init */
	uint32_t reserved;
};
#define GODWIT_THROTTLE_STATS_INIT { .size = sizeof(struct godwit_throttle_stats) }

struct godwit_vcpu_stats {
	size_t size;
	uint64_t ran_ns;
	uint64_t held_ns;
	uint64_t longest_hold_ns;
	uint64_t holds;
	uint64_t boosts;
	uint64_t io_events;
	uint64_t pages;			/* dirtied */
	uint64_t rate_pages_per_s;	/* that it may dirty; 0: not governed */
	uint32_t taken_percent;		/* of its wall time, over the last second or so */
	uint32_t is_held;
};
#define GODWIT_VCPU_STATS_INIT { .size = sizeof(struct godwit_vcpu_stats) }

/* [any] Each figure is exact by itself. A size smaller than ours: the fields that fit. */
GODWIT_API void godwit_throttle_stats(const struct godwit_throttle *throttle,
				      struct godwit_throttle_stats *stats);
GODWIT_API void godwit_vcpu_stats(const struct godwit_vcpu *vcpu, struct godwit_vcpu_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
