/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PERF_WORKLOAD_H
#define GODWIT_PERF_WORKLOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "guest.h"

/*
 * workload.h - vCPU threads that run something real in guest RAM, and check it
 *
 *   store   a hash table of JSON records, updated under zipf, some by copy to a free slot
 *   sweep   a writer that goes over its working set in address order, again and again
 *   burst   nothing for a while, then runs of pages as fast as it can
 *   mix     all three
 *
 * All of them also toggle pages A -> B -> A and x -> 0 -> x, which hold no generation and return to
 * bytes they had before, and all of them keep checking pages against the truth while they run.
 *
 * A vCPU is its registers: everything that it knows between two operations is in struct vcpu_regs or
 * in guest RAM. So a workload moves by moving both: workload_init() with the same configuration lays
 * out the same guest anywhere.
 *
 * Threads: init, fill, pause, resume, stop, check from one thread; workload_writes() from any.
 */
enum workload_kind { WORKLOAD_MIX, WORKLOAD_STORE, WORKLOAD_SWEEP, WORKLOAD_BURST, WORKLOAD_KINDS };
extern const char *const workload_names[WORKLOAD_KINDS];

#define WORKLOAD_MAX_VCPUS 16u

/* Plain data; goes over the control pipe as it is. */
struct workload_config {
	uint32_t kind;			/* enum workload_kind */
	uint32_t vcpus;
	uint64_t seed;
	uint64_t writes_per_s;		/* page writes, all vCPUs together; 0: as fast as it can */
	uint64_t working_set_pages;	/* pages that are written at all */
	uint32_t sparsity_bytes;	/* changed by one write to a page; at least 8 */
	uint32_t reserved;
};

/* The registers of a vCPU. Plain data; goes over the control pipe as it is. */
struct vcpu_regs {
	uint64_t rng;
	uint64_t writes;		/* page writes so far */
	uint64_t checks;		/* pages compared with the truth so far */
	uint64_t errors;		/* pages that differed */
	uint64_t owed_milli;		/* thousandths of a write that the rate still owes */
	uint64_t ticks;			/* guest time, ms */
	uint64_t sweep_at;
	uint64_t check_at;
	uint64_t burst_at;
	uint64_t burst_left;
	uint64_t free_first;		/* its store's free slots, oldest first: slot + 1, 0 for none */
	uint64_t free_last;
	uint64_t blink_at;
};

struct workload;

/* Text of the first page that was wrong. */
#define WORKLOAD_TEXT 200

/* 0; -EINVAL when the working set does not fit (why says what would), -ENOMEM. */
int workload_init(struct workload **workload_ret, struct guest *guest,
		  const struct workload_config *config, char why[WORKLOAD_TEXT]);
/* Stops the vCPUs first. */
void workload_destroy(struct workload *workload);

/* The guest's contents at power-on (source only), by several threads. */
void workload_fill(struct workload *workload);

/* The vCPUs run; the first call makes their threads. 0 or -errno. */
int workload_resume(struct workload *workload);
/* No vCPU is between the halves of an operation, nor will be, when this returns. */
void workload_pause(struct workload *workload);

/* The registers of a vCPU; valid while paused. */
const struct vcpu_regs *workload_regs(const struct workload *workload, unsigned vcpu);
/* [paused] Registers that came from elsewhere: refused (false) if one points past what there is. */
bool workload_set_regs(struct workload *workload, unsigned vcpu, const struct vcpu_regs *regs);

/* Page writes and checks so far; any thread. */
uint64_t workload_writes(const struct workload *workload);
uint64_t workload_checks(const struct workload *workload);

/* [paused] Compare one page with the truth; text gets what is wrong with it. */
bool workload_check(const struct workload *workload, uint64_t page, char text[WORKLOAD_TEXT]);
/* [paused] Compare all of them. Returns the number that differ, those the vCPUs met included; text
 * has the first one. */
uint64_t workload_check_all(const struct workload *workload, char text[WORKLOAD_TEXT]);

/*
 * workload_ratio() - how well zstd level 1 packs what is in guest RAM: bytes in over bytes out, in
 * blocks of 64 KiB of non-zero pages, over a sample of `blocks` of them. [paused]
 */
double workload_ratio(const struct workload *workload, unsigned blocks);
/* Pages that are not zero. [paused] */
uint64_t workload_used_pages(const struct workload *workload);

#endif
