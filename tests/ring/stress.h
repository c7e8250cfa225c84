/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stress.h - what the ring tests share: threads that report, waits that end, patterns
 *
 * Criterion's asserts belong to the test's own thread. Other threads note the first thing that went
 * wrong and stop; the test looks at the note after joining them. No loop here waits without asking
 * stress_goes_on(), so a ring that loses something fails a test and does not hang it.
 */
#ifndef GODWIT_TESTS_RING_STRESS_H
#define GODWIT_TESTS_RING_STRESS_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../sanitized.h"

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S (1000 * NS_PER_MS)

static inline int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/*
 * 1, or more for a soak: GODWIT_FULL=1 in the environment. At most 40: a program takes about a second
 * at 1 on two CPUs, and several times that where others keep them busy.
 */
static inline unsigned soak_factor(unsigned factor)
{
	const char *full = getenv("GODWIT_FULL");

	if (!full || full[0] != '1')
		return 1;
	return factor < 40 ? factor : 40;
}

/* Sanitizers make an atomic some ten times dearer: fewer rounds reach as many interleavings. */
#ifdef IS_SANITIZED
#define STRESS_IS_SLOW 1
#else
#define STRESS_IS_SLOW 0
#endif

/* One run: the first complaint of any of its threads, and when it must be over. */
struct stress {
	_Atomic(const char *) complaint;
	_Atomic(uint64_t) detail;
	int64_t deadline_ns;
};

static inline void stress_start(struct stress *run, int64_t limit_ns)
{
	atomic_init(&run->complaint, NULL);
	atomic_init(&run->detail, 0);
	run->deadline_ns = now_ns() + limit_ns;
}

static inline void stress_complain(struct stress *run, const char *what, uint64_t detail)
{
	const char *none = NULL;

	if (atomic_compare_exchange_strong(&run->complaint, &none, what))
		atomic_store(&run->detail, detail);
}

static inline bool stress_goes_on(struct stress *run)
{
	if (atomic_load_explicit(&run->complaint, memory_order_relaxed))
		return false;
	if (now_ns() < run->deadline_ns)
		return true;
	stress_complain(run, "the deadline is over", 0);
	return false;
}

/* Fails the test with the first complaint and the circumstances, a format and its arguments. */
#define stress_expect_fine(run, ...)								\
	do {											\
		char where_[128];								\
												\
		snprintf(where_, sizeof(where_), __VA_ARGS__);					\
		cr_assert_null(atomic_load(&(run)->complaint), "%s (%lu): %s", where_,		\
			       (unsigned long)atomic_load(&(run)->detail),			\
			       atomic_load(&(run)->complaint));					\
	} while (0)

/* xorshift64*: each thread its own, never 0. */
static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

/* Now and then lets others run, or stalls a little, at a place of the caller's choice. */
static inline void perturb(uint64_t *state)
{
	uint64_t r = next_random(state) >> 40;

	if (r % 256 == 0)
		sched_yield();
	else if (r % 256 < 8)
		for (volatile unsigned i = 0; i < (r >> 8) % 128; i++)
			;
}

/* A pointer's worth that tells its place in the sequence; never NULL, never POISON. */
static inline void *pattern_of(uint64_t seq)
{
	return (void *)(uintptr_t)((seq + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1);
}

#define POISON ((void *)(uintptr_t)0xdead0000)

static inline void poison(void **items, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		items[i] = POISON;
}

/* From now on the calling thread has that one of its CPUs only; as before where there is one, or this is refused. */
static inline void stress_take_cpu(unsigned number)
{
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all) || CPU_COUNT(&all) < 2)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &all) && number-- == 0) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			sched_setaffinity(0, sizeof(one), &one);
			return;
		}
	}
}

#endif
