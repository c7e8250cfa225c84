/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PERF_WORKLOAD_PRIVATE_H
#define GODWIT_PERF_WORKLOAD_PRIVATE_H

#include "workload.h"

/* What a page is for; laid out in runs of 64 pages, in an order shuffled by the seed. */
enum page_class {
	PAGE_ZERO,	/* free memory */
	PAGE_FILL,	/* one word repeated */
	PAGE_BINARY,	/* like a page cache: packs badly, overwritten whole */
	PAGE_INDEX,	/* the store's bucket heads */
	PAGE_RECORDS,	/* the store's records */
	PAGE_NUMBERS,	/* arrays */
	PAGE_TOGGLE,	/* A -> B -> A */
	PAGE_BLINK,	/* x -> 0 -> x */
	PAGE_CLASSES,
};

/* Records and numbers begin with this; the other classes return to bytes they had before. */
struct page_head {
	uint64_t page;		/* its own number, scrambled */
	uint64_t generation;	/* as in the truth: a stale page shows how old it is */
	char text[48];
};

struct page_list {
	uint32_t *page;
	uint32_t count;
	uint32_t active;	/* the first so many are written */
};

struct zipf {
	double theta, zetan, alpha, eta;
	uint64_t n;
};

struct vcpu {
	struct workload *workload;
	unsigned number;
	pthread_t thread;
	struct vcpu_regs regs;		/* the vCPU's own; others read it while paused */
	struct page_list list[PAGE_CLASSES];
	uint32_t *sweep;		/* active pages of all classes in address order */
	uint32_t sweep_count;
	uint64_t active_slots, keys, slots;
	struct zipf zipf;
	char text[WORKLOAD_TEXT];	/* the first wrong page it met */

	/* Written by the vCPU each tick, read by any: relaxed, they are figures to show. */
	_Atomic uint64_t writes_shown, checks_shown;
};

struct workload {
	struct workload_config config;
	struct guest *guest;
	uint8_t *class_of;		/* enum page_class of each page */
	uint32_t *owner_index;		/* its index in its owner's list */
	unsigned used_vcpus;		/* threads made */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool paused, stopping;		/* under lock */
	_Atomic bool interrupt;		/* set with paused or stopping: looked at after each operation */
	unsigned standing;		/* vCPUs that stand still; under lock */
	struct vcpu vcpu[WORKLOAD_MAX_VCPUS];
};

/* splitmix64: any state is good, one add to go on. */
static inline uint64_t rng_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* 0 <= result < n, without a division. */
static inline uint64_t rng_below(uint64_t *state, uint64_t n)
{
	return (uint64_t)((unsigned __int128)rng_next(state) * n >> 64);
}

/* ---- pages that hold no records (workload_pages.c) ---- */

uint64_t page_mark(uint64_t page);
/* Contents at power-on. */
void page_fill(struct workload *w, struct vcpu *v, enum page_class class, uint64_t page, uint64_t *rng);
/* One write to a page of class FILL, BINARY, NUMBERS, TOGGLE or BLINK. */
void page_touch(struct workload *w, struct vcpu *v, enum page_class class, uint64_t page);
/* The page's head gets the truth's next generation. */
void page_stamp(struct workload *w, uint64_t page);

/* ---- the store (workload_store.c) ---- */

#define SLOT_BYTES 576u
#define PAGE_SLOTS 7u

int store_init(struct vcpu *v);
void store_fill(struct workload *w, struct vcpu *v);
/* One update of a record chosen by zipf; counts its page writes. */
void store_update(struct workload *w, struct vcpu *v);
/* One update of some record in a page. */
void store_touch(struct workload *w, struct vcpu *v, uint64_t page);

#endif
