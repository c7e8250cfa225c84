/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ABSENT_H
#define GODWIT_ABSENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/batch.h>

/*
 * absent.h - pages that have no memory yet
 *
 * Private anonymous memory that nobody wrote to has nothing behind it, and reads as zeros. But to read it
 * may give it memory, a cleared huge page where huge pages are on: of a guest of 1 GB that uses the
 * half of it, a destination that looked at each page of zeros had all of it resident. So the system is asked
 * instead, in /proc/self/pagemap (Linux 2.6.25; for everybody since 4.2): a page that is neither present
 * nor in swap is zeros. It is asked each time, for whoever else writes to guest memory need not say so.
 *
 * Of memory with a file behind it, or that is shared, "not present" says nothing.
 */

/* The system's word; -1: there is none to have. To be closed. */
int godwit_absent_open(void);

/* Is all of mem private and anonymous? False also when it cannot be told. */
bool godwit_absent_may_be(const void *mem, size_t bytes);

/* What was asked last: pages beside each other are asked about together. */
struct godwit_absent {
	int pagemap;			/* -1: nothing is absent */
	unsigned nr_pages;
	uintptr_t first;		/* page number in our address space */
	uint64_t entry[GODWIT_BATCH_PAGES];
};

static inline void godwit_absent_init(struct godwit_absent *absent, int pagemap)
{
	absent->pagemap = pagemap;
	absent->nr_pages = 0;
	absent->first = 0;
}

/*
 * Has this page no memory, and so reads as zeros? Pages may be asked about in any order, but none that was written
 * since init: that one may still be called absent.
 */
bool godwit_absent_is(struct godwit_absent *absent, const void *page);

#endif
