/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PERF_DIRTY_H
#define GODWIT_PERF_DIRTY_H

#include "perf.h"

/*
 * dirty.h - which guest pages were written since they were last looked at
 *
 * Three ways, one interface. userfaultfd write-protect in its async form with PAGEMAP_SCAN (Linux
 * 6.7) reports and protects again in one step, page by page, while the guest runs. mprotect with a
 * SIGSEGV handler works on any kernel, one signal for each first write. Soft-dirty bits can only be
 * cleared for the whole process and not in one step with reading them, so the vCPUs have to stand
 * still meanwhile: the last choice.
 */
enum dirty_way { DIRTY_AUTO, DIRTY_UFFD, DIRTY_SOFT, DIRTY_MPROTECT };

/* One bit a page; a set bit: must be sent. Owned by the migration thread. */
struct dirty_bitmap {
	uint64_t *word;
	uint64_t pages;
	uint64_t set;		/* bits that are set */
};
int dirty_bitmap_init(struct dirty_bitmap *bitmap, uint64_t pages);
void dirty_bitmap_fini(struct dirty_bitmap *bitmap);
void dirty_bitmap_fill(struct dirty_bitmap *bitmap);
/* The first set bit at or after page, below end; end when there is none. */
uint64_t dirty_bitmap_next(const struct dirty_bitmap *bitmap, uint64_t page, uint64_t end);

static inline void dirty_bitmap_clear(struct dirty_bitmap *bitmap, uint64_t page)
{
	bitmap->word[page / 64] &= ~(1ull << page % 64);
	bitmap->set--;
}

struct dirty_tracker;

/*
 * dirty_start() - watch `pages` pages at ram; all count as clean now.
 * Result: 0 or -errno with the reason in why (what each way lacks here). One mprotect tracker at a
 * time in a process (the signal handler finds it through a static pointer).
 * RAM's protection is back to what it was after dirty_stop().
 */
#define DIRTY_WHY 320
int dirty_start(struct dirty_tracker **tracker_ret, enum dirty_way way, void *ram, uint64_t pages,
		char why[DIRTY_WHY]);
void dirty_stop(struct dirty_tracker *tracker);

/* "userfaultfd write-protect (async) + PAGEMAP_SCAN", ... Static storage. */
const char *dirty_name(const struct dirty_tracker *tracker);
/* dirty_scan() must cover all pages and needs the vCPUs paused. */
bool dirty_needs_pause(const struct dirty_tracker *tracker);

/*
 * dirty_scan() - add the pages of [first, first + pages) written since their last scan to the bitmap,
 * and watch them anew. A write during the call is in this scan or in the next one; what is read from
 * a page after the call is never older than the last write that was reported.
 * Result: 0 or -errno; *found_ret counts pages reported, also those whose bit was set already.
 */
int dirty_scan(struct dirty_tracker *tracker, uint64_t first, uint64_t pages,
	       struct dirty_bitmap *bitmap, uint64_t *found_ret);

#endif
