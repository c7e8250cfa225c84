/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * doorbell.h - how one thread sleeps until others have something for it
 *
 * A wake costs the waker microseconds and the sleeper more, a ring operation nanoseconds; so the bell's
 * whole business is not to wake. Its one word says whether its owner sleeps, and from how much progress
 * on waking is worth it; who rings looks at that word behind a fence and mostly leaves again.
 *
 *   owner                                      ringer
 *   need = wake_at            (relaxed)        publish: push to a ring, set a flag
 *   W1 fence (seq_cst)                         R1 fence (seq_cst)
 *   look: is there something? (ready())        look: need? (relaxed)
 *   no: futex_wait(need == wake_at)            yes, and it is enough: need = 0, futex_wake
 *
 * Of the two fences one is first. If W1 is, the ringer sees need; if R1 is, the owner sees what was
 * published. Without either of them both can look past each other and the owner sleeps for good, on x86
 * too, where a store may pass a later load. Between the owner's look and its sleep the kernel compares
 * the word again. W1 and R1 are each other's only partners; everything else here is relaxed because what
 * was published is synchronised by the ring or flag it was published with, never by the bell.
 * The protocol is that of io_uring's SQPOLL and AF_XDP's need-wakeup; the threshold is virtio's
 * event index.
 *
 * Threads: wait by the owner only; ring, ring_at, has_sleeper and nr_sleeps by anybody, together. Who
 *          rings may still touch the bell's memory after the owner has seen what it waited for:
 *          keep the memory until the ringers are joined.
 * Progress: ringing is wait-free apart from the wake's system call. Waiting blocks.
 */
#ifndef GODWIT_RING_DOORBELL_H
#define GODWIT_RING_DOORBELL_H

#include "ring/memory.h"

/*
 * gcc warns that ThreadSanitizer takes no notice of fences. It need not: nothing is published by ours,
 * so that it neither misses a race for want of them nor sees one that is not there.
 */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif

struct godwit_doorbell {
	/*
	 * 0: the owner is awake, or about to be. Else it sleeps, or is about to look once more before
	 * it does, and this is the progress that is worth a wake. The owner sets it; who exchanges it
	 * for 0 owes the wake. Ringers read it at each ring, so it has its own pair of lines.
	 */
	alignas(2 * GODWIT_LINE) _Atomic(uint32_t) need;

	/* Written by the owner only, about when it writes need: same line. Relaxed: a statistic. */
	_Atomic(uint64_t) nr_sleeps;
};

static_assert(sizeof(struct godwit_doorbell) >= 2 * GODWIT_LINE, "bells in an array share a line");

/* godwit_doorbell_init() - a bell whose owner is awake. Nothing to undo. */
static inline void godwit_doorbell_init(struct godwit_doorbell *bell)
{
	atomic_init(&bell->need, 0);
	atomic_init(&bell->nr_sleeps, 0);
}

/*
 * godwit_doorbell_wait_at() - wait until there is something, being woken rarely.
 *
 * Shape:   ready(arg) says whether there is something; it is called often, must not have effects, and
 *          may read with relaxed order. It must include every reason to come back: work, and also quit.
 *          wake_at (at least 1) is the progress from which on ringers are asked to wake.
 *          spin_ns is how long to poll before sleeping, by the clock, so that it costs the same on
 *          every machine; 0 is right when threads outnumber CPUs, more than 5000 rarely is.
 *          timeout_ns is how long to wait in all; negative: without limit; 0: do not sleep.
 * Result:  true: ready() was true on return. false: the time is over, and it was not.
 * Liveness: a sleep ends because each ringer either reaches wake_at or rings with is_last. So ready()
 *          must be true as soon as any one ringer has something to show (not only from wake_at on, as
 *          it may have rung its last before the owner went to sleep), and the owner must not wait when
 *          no ringer has anything left to do. With wake_at 1 every ring wakes, so that anything which
 *          is followed by a ring may be waited for.
 */
bool godwit_doorbell_wait_at(struct godwit_doorbell *bell, uint32_t wake_at,
			     bool (*ready)(void *arg), void *arg, uint32_t spin_ns,
			     int64_t timeout_ns);

/* godwit_doorbell_wait() - wait until there is something; any ring wakes. */
static inline bool godwit_doorbell_wait(struct godwit_doorbell *bell, bool (*ready)(void *arg),
					void *arg, uint32_t spin_ns, int64_t timeout_ns)
{
	return godwit_doorbell_wait_at(bell, 1, ready, arg, spin_ns, timeout_ns);
}

/* godwit_doorbell_wake() - the half of ring_at that is seldom taken: wake the owner if it sleeps. */
bool godwit_doorbell_wake(struct godwit_doorbell *bell);

/*
 * godwit_doorbell_ring_at() - say that something was published; wakes the owner if it is worth it.
 *
 * Shape:   progress is what this ringer has published and the owner has not taken, in the owner's
 *          units (godwit_spsc_count() of its completion ring, seen by its producer, will do: it is
 *          never too low). is_last: this ringer may not ring again unless it is given more to do (its
 *          own ring is empty and its hands are); it wakes whatever the progress. Both may be computed
 *          before the call: a ringer that saw more work waiting will ring again after it.
 * Result:  true: a wake system call was made. false: nobody slept, or it was not worth it.
 * Cost:    a fence and a load, unless it wakes.
 */
static inline bool godwit_doorbell_ring_at(struct godwit_doorbell *bell, uint32_t progress,
					   bool is_last)
{
	/* R1 fence, meets W1: what was published before is seen by the owner, or its need by us. */
	atomic_thread_fence(memory_order_seq_cst);
	/* Relaxed: only R1 matters; the value carries nothing. */
	uint32_t need = atomic_load_explicit(&bell->need, memory_order_relaxed);

	if (__builtin_expect(need == 0, 1))
		return false;
	if (progress < need && !is_last)
		return false;
	return godwit_doorbell_wake(bell);
}

/* godwit_doorbell_ring() - say that something was published; wakes the owner if it sleeps. */
static inline bool godwit_doorbell_ring(struct godwit_doorbell *bell)
{
	return godwit_doorbell_ring_at(bell, UINT32_MAX, true);
}

/*
 * godwit_doorbell_has_sleeper() - does the owner sleep, about? For choosing between owners: feeding one
 * that runs is cheaper. Never a reason to leave out a ring.
 */
static inline bool godwit_doorbell_has_sleeper(const struct godwit_doorbell *bell)
{
	/* Relaxed: a hint. */
	return atomic_load_explicit(&bell->need, memory_order_relaxed) != 0;
}

/* godwit_doorbell_nr_sleeps() - how often the owner has gone to sleep. */
static inline uint64_t godwit_doorbell_nr_sleeps(const struct godwit_doorbell *bell)
{
	/* Relaxed: a statistic. */
	return atomic_load_explicit(&bell->nr_sleeps, memory_order_relaxed);
}

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
