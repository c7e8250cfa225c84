/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mpmc.h - ring between any number of producers and consumers
 *
 * Vyukov's bounded queue: each cell carries a sequence number that says whose turn it is. Cell of
 * ticket t is free for its producer while seq == t, filled for its consumer while seq == t + 1, and free
 * for ticket t + nr_cells after that. Tickets are claimed by compare-and-swap on tail or head; here a
 * thread first looks how many cells in a row are ready (up to n) and claims them all with one swap, so
 * a burst costs one contended operation.
 *
 * Why a claim holds: between the look and the swap nobody else can have claimed those tickets, or the
 * swap would fail; and only the holder of a ticket changes the cell once it is ready for that ticket.
 * Indices have 64 bits so that a thread which sleeps between look and swap never meets a recycled
 * value: at 10^9 operations a second they take 584 years to wrap.
 *
 * Why not DPDK's or ck's ring, where a producer waits for the earlier producer's tail: one preempted
 * thread stops all others for a time slice, and our threads are not pinned (2 producers and 2 consumers
 * on 2 cores: 1000 ns an item against 10).
 *
 * Progress: nothing here waits or takes a lock, and a swap that fails means that another succeeded.
 * It is nevertheless not lock-free in the strict sense: a thread stopped between its claim and its last
 * seq store hides its cells, and everything behind them in the ring, until it runs again. Pushes then
 * report full and pops empty; they return. So 0 from pop is not proof that nothing was pushed before.
 *
 * Threads: push, pop and count by any thread, together. init alone.
 *
 * Orders, checked by tests/model/ring_mpmc.cpp:
 *   P1 (release seq) meets C1 (acquire seq): a cell is filled before it is the consumer's
 *   C2 (release seq) meets P2 (acquire seq): a cell is read before it is the next producer's
 */
#ifndef GODWIT_RING_MPMC_H
#define GODWIT_RING_MPMC_H

#include "ring/memory.h"

/* One cell alone could not tell "filled for t" from "free for t + 1": hence at least two. */
#define GODWIT_MPMC_MIN_ORDER_LOG2 1
#define GODWIT_MPMC_MAX_ORDER_LOG2 30

/* Not padded to a line: a burst would touch four times the lines, and false sharing ends with it. */
struct godwit_mpmc_cell {
	_Atomic(uint64_t) seq;
	godwit_slot item;	/* belongs to the holder of the ticket that seq names */
};

struct godwit_mpmc {
	/* Set by init, then read-only. */
	alignas(2 * GODWIT_LINE) struct godwit_mpmc_cell *cells;
	uint64_t nr_cells;		/* a power of two */

	/* Written by producers. */
	alignas(2 * GODWIT_LINE) _Atomic(uint64_t) tail;	/* next ticket to push */

	/* Written by consumers. */
	alignas(2 * GODWIT_LINE) _Atomic(uint64_t) head;	/* next ticket to pop */
};

static_assert(offsetof(struct godwit_mpmc, tail) >= 2 * GODWIT_LINE, "constants share a line");
static_assert(offsetof(struct godwit_mpmc, head) - offsetof(struct godwit_mpmc, tail) >=
	      2 * GODWIT_LINE, "the two sides share a line");

/*
 * godwit_mpmc_init_at() - an empty ring whose tickets start at index (tests start near the wrap).
 *
 * Shape:  cells has 1 << order_log2 entries, order_log2 from GODWIT_MPMC_MIN_ORDER_LOG2 to
 *         GODWIT_MPMC_MAX_ORDER_LOG2; the ring borrows it for as long as it is used.
 */
static inline void godwit_mpmc_init_at(struct godwit_mpmc *ring, struct godwit_mpmc_cell *cells,
				       unsigned order_log2, uint64_t index)
{
	assert(order_log2 >= GODWIT_MPMC_MIN_ORDER_LOG2 &&
	       order_log2 <= GODWIT_MPMC_MAX_ORDER_LOG2);
	ring->cells = cells;
	ring->nr_cells = UINT64_C(1) << order_log2;
	for (uint64_t i = 0; i < ring->nr_cells; i++)
		atomic_init(&cells[(index + i) & (ring->nr_cells - 1)].seq, index + i);
	atomic_init(&ring->tail, index);
	atomic_init(&ring->head, index);
}

/* godwit_mpmc_init() - an empty ring over 1 << order_log2 cells. As godwit_mpmc_init_at() at 0. */
static inline void godwit_mpmc_init(struct godwit_mpmc *ring, struct godwit_mpmc_cell *cells,
				    unsigned order_log2)
{
	godwit_mpmc_init_at(ring, cells, order_log2, 0);
}

/*
 * godwit_mpmc_push() - append up to n pointers, in order and next to each other.
 *
 * Result:  how many went in, from the front of items: less than n if the ring is full or its next cell
 *          is still being read, 0 leaves it unchanged. What they point to belongs to the consumers.
 */
static inline unsigned godwit_mpmc_push(struct godwit_mpmc *ring, void *const *items, unsigned n)
{
	uint64_t mask = ring->nr_cells - 1;
	/* Relaxed: a guess, which the swap confirms. */
	uint64_t pos = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	unsigned ready;

	for (;;) {
		uint64_t seq = pos;

		for (ready = 0; ready < n; ready++) {
			/* P2 acquire, meets C2: the cell has been read by its last consumer. */
			seq = atomic_load_explicit(&ring->cells[(pos + ready) & mask].seq,
						   memory_order_acquire);
			if (seq != pos + ready)
				break;
		}
		if (ready > 0) {
			/* Relaxed: tickets order nothing; the cells' seq does. */
			if (atomic_compare_exchange_weak_explicit(&ring->tail, &pos, pos + ready,
								  memory_order_relaxed,
								  memory_order_relaxed))
				break;
		} else if ((int64_t)(seq - pos) <= 0) {
			return 0;	/* the cell is a lap behind, so full (or n is 0) */
		} else {
			/* Relaxed: another producer took this ticket; guess again. */
			pos = atomic_load_explicit(&ring->tail, memory_order_relaxed);
		}
	}
	for (unsigned i = 0; i < ready; i++) {
		struct godwit_mpmc_cell *cell = &ring->cells[(pos + i) & mask];

		cell->item = items[i];
		/* P1 release, meets C1: the cell is filled before it is the consumer's. */
		atomic_store_explicit(&cell->seq, pos + i + 1, memory_order_release);
	}
	return ready;
}

/*
 * godwit_mpmc_pop() - take up to n pointers that were next to each other, oldest first.
 *
 * Result:  how many are in items; less than n if the ring has no more, or if the next one claimed by a
 *          producer is not filled yet.
 */
static inline unsigned godwit_mpmc_pop(struct godwit_mpmc *ring, void **items, unsigned n)
{
	uint64_t mask = ring->nr_cells - 1;
	/* Relaxed: a guess, which the swap confirms. */
	uint64_t pos = atomic_load_explicit(&ring->head, memory_order_relaxed);
	unsigned ready;

	for (;;) {
		uint64_t seq = pos + 1;

		for (ready = 0; ready < n; ready++) {
			/* C1 acquire, meets P1: the cell has been filled. */
			seq = atomic_load_explicit(&ring->cells[(pos + ready) & mask].seq,
						   memory_order_acquire);
			if (seq != pos + ready + 1)
				break;
		}
		if (ready > 0) {
			/* Relaxed: tickets order nothing; the cells' seq does. */
			if (atomic_compare_exchange_weak_explicit(&ring->head, &pos, pos + ready,
								  memory_order_relaxed,
								  memory_order_relaxed))
				break;
		} else if ((int64_t)(seq - (pos + 1)) <= 0) {
			return 0;	/* not filled yet, so empty (or n is 0) */
		} else {
			/* Relaxed: another consumer took this ticket; guess again. */
			pos = atomic_load_explicit(&ring->head, memory_order_relaxed);
		}
	}
	for (unsigned i = 0; i < ready; i++) {
		struct godwit_mpmc_cell *cell = &ring->cells[(pos + i) & mask];

		items[i] = cell->item;
		/* C2 release, meets P2: the cell is read before it is the next producer's. */
		atomic_store_explicit(&cell->seq, pos + i + ring->nr_cells, memory_order_release);
	}
	return ready;
}

/* godwit_mpmc_count() - pointers in the ring, about; those claimed but not yet filled included. */
static inline unsigned godwit_mpmc_count(const struct godwit_mpmc *ring)
{
	/* Relaxed: the two reads may be of different moments whatever the order; hence the bounds. */
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	int64_t count = (int64_t)(tail - head);

	if (count < 0)
		return 0;
	return (unsigned)((uint64_t)count < ring->nr_cells ? (uint64_t)count : ring->nr_cells);
}

#endif
