/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ABSENT_H
#define GODWIT_ABSENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/batch.h>

#include "engine/memory.h"

/*
 * absent.h - pages that have no memory yet
 *
 * Private anonymous memory that nobody wrote to has nothing behind it, and reads as zeros. But to read it
 * may give it memory, a cleared huge page where huge pages are on: of a guest of 1 GB that uses the
 * half of it, a source that read each page and a destination that looked at each page of zeros had all of it
 * resident. So the system is asked instead, in /proc/self/pagemap (Linux 2.6.25; for everybody since 4.2): a
 * page that is neither present nor in swap is zeros. That one is absent is asked each time, for whoever else
 * writes to guest memory need not say so.
 *
 * Of memory with a file behind it, or that is shared, "not present" says nothing; nor of memory whose first access
 * a userfaultfd answers, which cannot be seen from here: the caller must know.
 */

/* The system's word; -1: there is none to have, and nothing to close. */
int godwit_absent_open(void);
void godwit_absent_close(int pagemap);

/* Does it know of memory that is there? In a sandbox /proc may be of somebody else's making. */
bool godwit_absent_is_sound(int pagemap);

/* Is all of mem private and anonymous? False also when it cannot be told, and for less than a huge page, where
 * nothing would be won by knowing. */
bool godwit_absent_may_be(const void *mem, size_t bytes);

/*
 * One thread's questions, of zeros before the first. Pages of a huge page are asked about together. That a page
 * is there is remembered, for to read it is never wrong; that one is absent only until the next begin.
 */
struct godwit_absent {
	int pagemap;
	bool is_new;			/* was asked since begin */
	unsigned nr_pages;
	uintptr_t first;		/* page number in our address space */
	uint64_t entry[GODWIT_HUGE_BYTES / GODWIT_PAGE_BYTES];
};

/* Of a page: there, or in swap, or what else is kept in its place, as markers of userfaultfd. */
#define GODWIT_ABSENT_NOT ((uint64_t)3 << 62)

/* From here on what is said of a page is of a moment after this call. pagemap -1: no page is absent. */
static inline void godwit_absent_begin(struct godwit_absent *absent, int pagemap)
{
	absent->pagemap = pagemap;
	absent->is_new = false;
}

bool godwit_absent_ask(struct godwit_absent *absent, uintptr_t number);

/*
 * Has this page no memory, and so reads as zeros? Pages may be asked about in any order, but none that was written
 * since begin: that one may still be called absent.
 */
static inline bool godwit_absent_is(struct godwit_absent *absent, const void *page)
{
	uintptr_t number = (uintptr_t)page / GODWIT_PAGE_BYTES;
	uintptr_t at = number - absent->first;

	/* A page of the guest's that does not begin where one of ours does lies in two. */
	if (absent->pagemap < 0 || (uintptr_t)page % GODWIT_PAGE_BYTES)
		return false;
	if (at < absent->nr_pages && absent->entry[at] & GODWIT_ABSENT_NOT)
		return false;
	return (at < absent->nr_pages && absent->is_new) || godwit_absent_ask(absent, number);
}

#endif
