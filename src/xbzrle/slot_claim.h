/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_XBZRLE_SLOT_CLAIM_H
#define GODWIT_XBZRLE_SLOT_CLAIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * The word that says whose page a slot holds, and who may touch it.
 *
 *   EMPTY   nobody's: whoever claims it
 *   BUSY    a thread has it between claim and publish, and alone reads and writes its bytes
 *   other   key and round (page_cache.c); the bytes belong to nobody and hold still
 *
 * Every change to BUSY is a compare-and-swap from a value seen before, so one thread wins; only the
 * winner leaves BUSY. These three functions are all the atomics of the page cache, kept apart so that
 * tests/model/slot_claim.cpp runs this very text.
 */
typedef _Atomic(uint64_t) godwit_slot_tag;

#define GODWIT_SLOT_EMPTY UINT64_C(0)
#define GODWIT_SLOT_BUSY UINT64_C(1)

/*
 * Relaxed: a hint which slot to try. What decides is the compare-and-swap, and bytes are read only
 * after it.
 */
static inline uint64_t godwit_slot_look(godwit_slot_tag *tag)
{
	return atomic_load_explicit(tag, memory_order_relaxed);
}

static inline bool godwit_slot_claim(godwit_slot_tag *tag, uint64_t seen)
{
	/*
	 * S1 acquire, meets S2: the last owner's bytes are there, and it has stopped reading ours. On
	 * failure relaxed: nothing of the slot is touched then.
	 */
	return atomic_compare_exchange_strong_explicit(tag, &seen, GODWIT_SLOT_BUSY,
						       memory_order_acquire, memory_order_relaxed);
}

static inline void godwit_slot_publish(godwit_slot_tag *tag, uint64_t value)
{
	/* S2 release, meets S1: the bytes are read and written before anybody else may claim them. */
	atomic_store_explicit(tag, value, memory_order_release);
}

#endif
