/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * futex.h - what the doorbell takes from the kernel: sleep on a word, wake a sleeper, the time
 *
 * Private to doorbell.c. The model checker has its own copy of this file, as of memory.h.
 * The futexes are process-private, which saves the kernel a look at the mapping.
 */
#ifndef GODWIT_RING_FUTEX_H
#define GODWIT_RING_FUTEX_H

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ring/memory.h"

#define GODWIT_NS_PER_S INT64_C(1000000000)

static inline int64_t godwit_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * GODWIT_NS_PER_S + now.tv_nsec;
}

/*
 * Sleeps while *word == expected, for timeout_ns (negative: for good) or until woken. Comparing and
 * going to sleep are one step against godwit_futex_wake(). May return early for no reason, so there
 * is no result: the caller looks at what it waits for.
 */
static inline void godwit_futex_wait(_Atomic(uint32_t) *word, uint32_t expected,
				     int64_t timeout_ns)
{
	struct timespec timeout = {
		.tv_sec = timeout_ns / GODWIT_NS_PER_S,
		.tv_nsec = timeout_ns % GODWIT_NS_PER_S,
	};

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected,
		timeout_ns < 0 ? NULL : &timeout, NULL, 0);
}

/* Wakes one thread that sleeps on word, if there is one. */
static inline void godwit_futex_wake(_Atomic(uint32_t) *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

#endif
