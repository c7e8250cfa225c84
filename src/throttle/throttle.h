/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle.h - what a governor and a vCPU hold, and the units of it
 *
 *   rate	pages per second, 8 fractional bits, at most RATE_MAX
 *   credit	nanoseconds, 16 fractional bits, signed. Page credit is time as well: a page costs as much
 *		of it as it takes at the vCPU's rate, so that its bounds are constants, whatever the rate
 *   fraction	of one, 16 bits
 *
 * Integers throughout: equal inputs give equal outputs whatever the compiler and its flags, and a charge of
 * a + b is exactly the charge of a and then of b.
 */
#ifndef GODWIT_THROTTLE_THROTTLE_H
#define GODWIT_THROTTLE_THROTTLE_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/throttle.h>

#define MS 1000000u			/* ns */
#define S 1000000000u

#define RATE_SHIFT 8
#define RATE_MAX ((uint64_t)1 << 37)	/* 2 TB/s of pages */
#define CREDIT_SHIFT 16
#define CREDIT(ns) ((int64_t)(ns) * (1 << CREDIT_SHIFT))
#define FRACTION_SHIFT 16
#define FRACTION_ONE (1u << FRACTION_SHIFT)

/* Page credit that may be saved while little is dirtied, and what an I/O event may run up as debt. */
#define BURST_NS (500 * MS)
#define DEBT_NS (250 * MS)
/* The floor's share of a debt: how much wall time of its floor an I/O event may borrow. The longest hold is this
 * and the floor's time for 1.25 slices. */
#define FLOOR_DEBT_NS (46 * MS)
/* A hold ends once there is page credit for this long, or for this much work, whichever is more. */
#define RESUME_NS (10 * MS)
#define RESUME_WORK_NS 400000u
#define RESUME_MAX_NS (BURST_NS / 2)
/* CPU time that ends a hold by the floor: the least slice worth a wake-up. */
#define SLICE_NS 500000u
/* What an I/O event may run for. Shorter than the guest's work for one I/O is worse than none: that owes and has
 * not answered. */
#define BOOST_MIN_NS 350000u
#define BOOST_MAX_NS 600000u
#define BOOST_LEAST_NS 100000u		/* deep in debt */
/* When to look again. */
#define LOOK_MIN_NS 100000u
#define LOOK_MAX_NS (10 * MS)
#define LOOK_ROOM_NS (LOOK_MIN_NS + 60000u)	/* a short look that is late */

struct godwit_vcpu {
	/* Written by [step] alone. Relaxed, all of it: each of the orders makes sense without the others, and a
	 * vCPU that sees some a moment later is bounded by the credits' clamps. */
	alignas(64) _Atomic uint64_t page_cost;	/* credit per page; 0: not governed */
	_Atomic uint32_t floor;			/* fraction of wall time that is left to it */
	_Atomic uint32_t resume_ns;
	_Atomic uint32_t boost_ns;
	_Atomic uint32_t taken;			/* fraction of the time that it wanted, average */
	/* Averages and what they were taken from: no other thread reads them. */
	uint64_t rate;				/* behind page_cost, for the next step's slew */
	uint64_t density;			/* new pages per second of CPU time, as a rate */
	uint64_t dense;				/* the highest of one step, fading: right after a sync */
	uint64_t demand;			/* new pages per second if it were not held, as a rate */
	uint64_t least_rate, most_rate;		/* between what and what it can be levelled; scratch of a step */
	uint64_t ran_seen_ns, held_seen_ns, dirtied_seen_pages, io_seen_events;
	uint32_t io_rate;			/* I/O events per second, as a rate, average */
	uint32_t age_us;			/* what the averages cover so far */
	uint32_t holds_seen, boosts_seen;
	uint32_t is_measured;			/* the *_seen are of an earlier step */

	/*
	 * Written by any thread (the first two, atomic adds) or by [own] alone. Together, because on TCG [own]
	 * counts its pages itself, and I/O events are few.
	 */
	alignas(64) _Atomic uint64_t dirtied_pages;
	_Atomic uint64_t io_events;
	/* [own] alone from here; what is atomic is read by [step] or for statistics: relaxed, single numbers. */
	uint64_t last_ns;
	int64_t page_credit, floor_credit;
	uint64_t boost_until_ns;
	uint64_t charged_pages;			/* of dirtied_pages */
	uint64_t boosted_events;		/* of io_events */
	bool has_io_waiting;			/* an event came since it was let run */
	bool is_window_counted;			/* among the boosts */
	uint64_t peak_density;			/* pages per ms of CPU time, 8 fractional bits; fades */
	_Atomic uint64_t held_since_ns;		/* 0: not held */
	_Atomic uint64_t ran_ns, held_ns, longest_hold_ns;
	_Atomic uint32_t holds, boosts;
};
static_assert(sizeof(struct godwit_vcpu) <= GODWIT_VCPU_BYTES, "callers give GODWIT_VCPU_BYTES");
static_assert(alignof(struct godwit_vcpu) <= GODWIT_THROTTLE_ALIGN, "callers align to GODWIT_THROTTLE_ALIGN");

struct godwit_throttle {
	/* [step] alone. */
	uint32_t max_percent;
	bool has_stepped;
	uint64_t last_ns;
	uint64_t dirty_rate;			/* measured, devices included, average */
	uint32_t age_us;
	uint64_t hint;				/* the last level */
	uint32_t futile_us;			/* net time for which no progress was seen */
	bool is_futile;
	uint64_t futile_ns, futile_send_rate;	/* when it was found, and at which speed */
	uint32_t futile_max_percent;

	/* Written by [step], read by whoever asks for statistics: relaxed, single numbers. */
	_Atomic uint64_t held_ns, longest_hold_ns, holds, boosts, io_events, pages, pages_charged;
	_Atomic uint64_t level, wanted, allowed;	/* rates */
	_Atomic uint64_t release_ns;
	_Atomic uint32_t state, max_told, governed, was_infeasible, was_futile;
};
static_assert(sizeof(struct godwit_throttle) <= GODWIT_THROTTLE_BYTES, "callers give GODWIT_THROTTLE_BYTES");

/*
 * godwit_level_fill() - the common rate at which the vCPUs together dirty what they may.
 *
 * Result:  the largest q with sum of min(most_rate, max(q, least_rate)) <= allowed; 0 when q = 0 is too much,
 *          the highest most_rate when nothing is. Reads most_rate and least_rate of each. Where hint is near,
 *          the answer is found sooner; it does not depend on it.
 */
uint64_t godwit_level_fill(struct godwit_vcpu *const *vcpus, size_t nr_vcpus, uint64_t allowed, uint64_t hint);

#endif
