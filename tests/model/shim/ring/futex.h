/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * futex.h - the model's stand-in for src/ring/futex.h
 *
 * The kernel's promise, and no more: comparing the word and going to sleep are one step against a wake,
 * and see the word's newest value. A sleep has no timeout here, so a lost wake is a deadlock, which
 * Relacy reports. Time stands still.
 */
#ifndef GODWIT_RING_FUTEX_H
#define GODWIT_RING_FUTEX_H

#include "ring/memory.h"

static inline int64_t godwit_clock_ns(void)
{
	return 0;
}

static inline void godwit_futex_wait(rl::atomic<uint32_t> *word, uint32_t expected, int64_t)
{
	rl::context &c = rl::ctx();

	c.sched();
	/* No scheduling point from here to the sleep. */
	if (word->debug_value() == expected)
		word->wait(c, false, false, $);
}

static inline void godwit_futex_wake(rl::atomic<uint32_t> *word)
{
	rl::context &c = rl::ctx();

	c.sched();
	word->wake(c, 1, $);
}

#endif
