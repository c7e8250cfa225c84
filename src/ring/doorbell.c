/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * doorbell.c - the owner's side of the bell, and the wake
 *
 * The protocol and why it is live are in doorbell.h. What must hold here: between need = wake_at and
 * the sleep there is W1 and then a look, each time round; need is 0 on return, so that nobody pays for
 * waking a thread that runs; and however the sleep ended (woken, timeout, signal, a late wake meant for
 * the sleep before), the answer comes from ready() alone.
 */
#include "ring/doorbell.h"
#include "ring/futex.h"

/* As in doorbell.h. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

/* Polls for at most spin_ns. By time, as a pause takes 10 cycles on one machine and 140 on the next. */
static bool poll_for(bool (*ready)(void *arg), void *arg, int64_t until_ns)
{
	do {
		godwit_cpu_relax();
		if (ready(arg))
			return true;
	} while (godwit_clock_ns() < until_ns);
	return false;
}

bool godwit_doorbell_wait_at(struct godwit_doorbell *bell, uint32_t wake_at,
			     bool (*ready)(void *arg), void *arg, uint32_t spin_ns,
			     int64_t timeout_ns)
{
	bool is_ready = ready(arg);
	int64_t left_ns = timeout_ns;
	int64_t start_ns;

	assert(wake_at > 0);
	if (is_ready || timeout_ns == 0)
		return is_ready;
	start_ns = godwit_clock_ns();
	if (timeout_ns > 0 && spin_ns > timeout_ns)
		spin_ns = timeout_ns;
	if (spin_ns > 0 && poll_for(ready, arg, start_ns + spin_ns))
		return true;

	for (;;) {
		/* Relaxed, like all of need: W1 orders it before the look. */
		atomic_store_explicit(&bell->need, wake_at, memory_order_relaxed);
		/* W1 fence, meets R1: our need is seen by the ringer, or what it published by us. */
		atomic_thread_fence(memory_order_seq_cst);
		is_ready = ready(arg);
		if (timeout_ns > 0)
			left_ns = start_ns + timeout_ns - godwit_clock_ns();
		if (is_ready || (timeout_ns > 0 && left_ns <= 0))
			break;
		atomic_store_explicit(&bell->nr_sleeps, godwit_doorbell_nr_sleeps(bell) + 1,
				      memory_order_relaxed);
		godwit_futex_wait(&bell->need, wake_at, left_ns);
		/* Saves the fence in the common case; a no here is asked again behind it. */
		if (ready(arg)) {
			is_ready = true;
			break;
		}
	}
	/* Relaxed: a ringer that still sees the old value makes one needless wake. */
	atomic_store_explicit(&bell->need, 0, memory_order_relaxed);
	return is_ready;
}

bool godwit_doorbell_wake(struct godwit_doorbell *bell)
{
	/* Relaxed: of several ringers the one that takes need away makes the wake. */
	if (atomic_exchange_explicit(&bell->need, 0, memory_order_relaxed) == 0)
		return false;
	godwit_futex_wake(&bell->need);
	return true;
}
