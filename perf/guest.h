/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PERF_GUEST_H
#define GODWIT_PERF_GUEST_H

#include "perf.h"

/*
 * guest.h - guest RAM in a memfd, and the truth about each of its pages
 *
 * Guest RAM is two blocks of one mapping (a machine has several). The truth, a generation and a
 * 64-bit sum for each page, lives outside guest RAM and never crosses with the pages: a page that
 * arrives stale agrees with itself, but not with the truth.
 *
 * Threads: a page and its truth are written by the one vCPU that owns the page; read by others only
 * while the vCPUs are paused. The migration reads pages, never the truth, while they run.
 */

/* What writes to guest RAM behind the back of a migration that reads it: a race by design. */
#define GUEST_WRITER __attribute__((no_sanitize("thread")))

#define GUEST_BLOCKS 2u
#define GUEST_MIN_BYTES (16ull << 20)
#define GUEST_PAGE_WORDS (GODWIT_PAGE_BYTES / 8)

struct guest_block {
	uint32_t id;		/* on the wire */
	const char *name;
	uint64_t first;		/* its first page, in pages of the guest */
	uint64_t pages;
};

/* Plain data; goes over the control pipe as it is. */
struct guest_truth {
	uint64_t generation;	/* writes to the page since the beginning */
	uint64_t sum;		/* guest_sum() of what it must hold */
};

struct guest {
	int fd;
	uint8_t *ram;
	uint64_t bytes;
	uint64_t pages;
	struct guest_block block[GUEST_BLOCKS];
	struct guest_truth *truth;
};

/* RAM of `bytes` (a multiple of 1 MiB), all zero, truth to match. 0 or -errno. */
int guest_create(struct guest *guest, uint64_t bytes);
void guest_destroy(struct guest *guest);

static inline uint8_t *guest_page(const struct guest *guest, uint64_t page)
{
	return guest->ram + page * GODWIT_PAGE_BYTES;
}

/* The block that holds a page of the guest. */
const struct guest_block *guest_block_of(const struct guest *guest, uint64_t page);
/* The guest's page for a page of a block, or UINT64_MAX when there is no such page. */
uint64_t guest_find_page(const struct guest *guest, uint32_t id, uint64_t page);

/*
 * guest_write() - a store by a vCPU: bytes into a page, generation and sum along with it.
 * The sum is moved by what changed, so a small write costs little: see guest_sum().
 */
void guest_write(struct guest *guest, uint64_t page, unsigned offset, const void *bytes, unsigned len_bytes);

/*
 * guest_sum() - sum over the 512 words of word * weight(index), mod 2^64, weights odd and random.
 * Any one changed word changes it, a moved word changes it, a zero page has 0, and it can be kept up
 * to date without reading the page.
 */
uint64_t guest_sum(const void *page);

#endif
