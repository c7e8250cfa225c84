/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spsc.h - ring from one producer thread to one consumer thread
 *
 * Lamport's ring: the producer alone moves tail, the consumer alone moves head, both indices run free
 * in 32 bits and are compared by difference only. Each side keeps the last value that it saw of the
 * other's index and looks again only when that is not enough, so that in a busy ring the two index
 * lines cross between cores once a burst or less (after MCRingBuffer and rigtorp's queue, which
 * measured 4 to 30 times over the plain form when the cores are far apart).
 *
 * Why not a flag per slot (FastForward): it is faster one pointer at a time, slower in bursts, and a
 * ring operation here carries a batch of pages, not one.
 *
 * Progress: push and pop are wait-free, without read-modify-write and without fence.
 *
 * Threads: push by one thread at a time, pop by one thread at a time, both together; who hands either
 * role to another thread orders that himself. count by anybody. init alone.
 *
 * Orders, checked by tests/model/ring_spsc.cpp:
 *   P1 (release tail) meets C1 (acquire tail): slots, and what they point to, are filled before counted
 *   C2 (release head) meets P2 (acquire head): slots are read before they are free to be filled again
 */
#ifndef GODWIT_RING_SPSC_H
#define GODWIT_RING_SPSC_H

#include "ring/memory.h"

/*
 * From this burst on a copy goes in two pieces, up to the end of the slots and from their start, which
 * compilers turn into memcpy(); below it the call costs more than a mask for each slot. Push and pop of
 * 64 by one thread: 0.2 ns an item instead of 0.8; of 4: 1.3 instead of 2.2.
 */
#define GODWIT_SPSC_LONG_BURST 8

/* 2^30 slots at most: the indices must tell full from empty and early from late. */
#define GODWIT_SPSC_MAX_ORDER_LOG2 30

struct godwit_spsc {
	/* Set by init, then read-only. */
	alignas(2 * GODWIT_LINE) godwit_slot *slots;
	uint32_t nr_slots;		/* a power of two */

	/* Written by the producer only. */
	alignas(2 * GODWIT_LINE) _Atomic(uint32_t) tail;	/* next slot to fill */
	uint32_t head_seen;		/* producer's last view of head */

	/* Written by the consumer only. */
	alignas(2 * GODWIT_LINE) _Atomic(uint32_t) head;	/* next slot to drain */
	uint32_t tail_seen;		/* consumer's last view of tail */
};

static_assert(offsetof(struct godwit_spsc, tail) >= 2 * GODWIT_LINE, "constants share a line");
static_assert(offsetof(struct godwit_spsc, head) - offsetof(struct godwit_spsc, tail) >=
	      2 * GODWIT_LINE, "the two sides share a line");

/*
 * godwit_spsc_init_at() - an empty ring whose indices start at index (tests start near the wrap).
 *
 * Shape:  slots has 1 << order_log2 entries, order_log2 at most GODWIT_SPSC_MAX_ORDER_LOG2; the ring
 *         borrows it for as long as it is used. Nothing to undo.
 */
static inline void godwit_spsc_init_at(struct godwit_spsc *ring, godwit_slot *slots,
				       unsigned order_log2, uint32_t index)
{
	assert(order_log2 <= GODWIT_SPSC_MAX_ORDER_LOG2);
	ring->slots = slots;
	ring->nr_slots = UINT32_C(1) << order_log2;
	atomic_init(&ring->tail, index);
	atomic_init(&ring->head, index);
	ring->head_seen = index;
	ring->tail_seen = index;
}

/* godwit_spsc_init() - an empty ring over 1 << order_log2 slots. As godwit_spsc_init_at() at 0. */
static inline void godwit_spsc_init(struct godwit_spsc *ring, godwit_slot *slots,
				    unsigned order_log2)
{
	godwit_spsc_init_at(ring, slots, order_log2, 0);
}

/* Copies n pointers to the slots from index on; they are free, so n is at most the number of slots. */
static inline void godwit_spsc_fill(struct godwit_spsc *ring, uint32_t index, void *const *items,
				    unsigned n)
{
	uint32_t at = index & (ring->nr_slots - 1);
	size_t first = ring->nr_slots - at;	/* slots up to the end */
	godwit_slot *slot = ring->slots + at;

	if (n < GODWIT_SPSC_LONG_BURST) {
		for (unsigned i = 0; i < n; i++)
			ring->slots[(index + i) & (ring->nr_slots - 1)] = items[i];
		return;
	}
	if (first > n)
		first = n;
	for (size_t i = 0; i < first; i++)
		slot[i] = items[i];
	slot = ring->slots;
	for (size_t i = 0; i < n - first; i++)
		slot[i] = items[first + i];
}

/* Copies n pointers from the slots from index on; they are filled. */
static inline void godwit_spsc_drain(const struct godwit_spsc *ring, uint32_t index, void **items,
				     unsigned n)
{
	uint32_t at = index & (ring->nr_slots - 1);
	size_t first = ring->nr_slots - at;
	const godwit_slot *slot = ring->slots + at;

	if (n < GODWIT_SPSC_LONG_BURST) {
		for (unsigned i = 0; i < n; i++)
			items[i] = ring->slots[(index + i) & (ring->nr_slots - 1)];
		return;
	}
	if (first > n)
		first = n;
	for (size_t i = 0; i < first; i++)
		items[i] = slot[i];
	slot = ring->slots;
	for (size_t i = 0; i < n - first; i++)
		items[first + i] = slot[i];
}

/*
 * godwit_spsc_push() - append up to n pointers, in order.
 *
 * Result:  how many went in, from the front of items: less than n only if the ring is full, 0 leaves
 *          it unchanged. What they point to belongs to the consumer from here on.
 */
static inline unsigned godwit_spsc_push(struct godwit_spsc *ring, void *const *items, unsigned n)
{
	/* Relaxed: only this thread writes tail. */
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	uint32_t nr_free = ring->nr_slots - (tail - ring->head_seen);

	if (nr_free < n) {
		/* P2 acquire, meets C2: the consumer has finished reading the slots before head. */
		ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
		nr_free = ring->nr_slots - (tail - ring->head_seen);
		if (nr_free < n)
			n = nr_free;
		if (n == 0)
			return 0;	/* full: not even a store to the line the consumer polls */
	}
	godwit_spsc_fill(ring, tail, items, n);
	/* P1 release, meets C1: the slots are filled before they are counted. */
	atomic_store_explicit(&ring->tail, tail + n, memory_order_release);
	return n;
}

/*
 * godwit_spsc_pop() - take up to n pointers, oldest first.
 *
 * Result:  how many are in items; less than n only if the ring had no more.
 */
static inline unsigned godwit_spsc_pop(struct godwit_spsc *ring, void **items, unsigned n)
{
	/* Relaxed: only this thread writes head. */
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint32_t nr_filled = ring->tail_seen - head;

	if (nr_filled < n) {
		/* C1 acquire, meets P1: the slots before tail are filled. */
		ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
		nr_filled = ring->tail_seen - head;
		if (nr_filled < n)
			n = nr_filled;
		if (n == 0)
			return 0;
	}
	godwit_spsc_drain(ring, head, items, n);
	/* C2 release, meets P2: the slots are read before they are given back. */
	atomic_store_explicit(&ring->head, head + n, memory_order_release);
	return n;
}

/*
 * godwit_spsc_count() - pointers in the ring, about.
 *
 * Result:  0 to the number of slots. Seen by the consumer it is never too high, and by the producer
 *          never too low; seen by others it is some value near the truth. It orders nothing: a
 *          consumer that sees 1 must still pop to look at what was pushed.
 */
static inline unsigned godwit_spsc_count(const struct godwit_spsc *ring)
{
	/* Relaxed: the two reads may be of different moments whatever the order; hence the bounds. */
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	int32_t count = (int32_t)(tail - head);

	if (count < 0)
		return 0;
	return (uint32_t)count < ring->nr_slots ? (uint32_t)count : ring->nr_slots;
}

#endif
