/* SPDX-License-Identifier: LGPL-2.1-or-later */
// covers: src/ring/mpmc.h
/*
 * ring_mpmc.cpp - the MPMC ring: two cells, bursts of two, tickets over the 64-bit wrap
 *
 * Three shapes: two producers and two consumers, three and one, one and two. Each item comes out once, and
 * those of one producer come to one consumer in order.
 */
#include "model.hpp"
#include "ring/mpmc.h"

enum { ORDER_LOG2 = 1, NR_ITEMS = 3, BURST = 2 };

template <unsigned nr_producers, unsigned nr_consumers>
struct mpmc_passes_each_item_once
	: rl::test_suite<mpmc_passes_each_item_once<nr_producers, nr_consumers>, nr_producers + nr_consumers> {
	godwit_mpmc ring;
	godwit_mpmc_cell cells[1 << ORDER_LOG2];
	rl::var<int> payload[nr_producers * NR_ITEMS];
	unsigned nr_popped;		/* by all: book-keeping */

	void before()
	{
		godwit_mpmc_init_at(&ring, cells, ORDER_LOG2, UINT64_MAX - 2);
		nr_popped = 0;
	}

	void produce(unsigned me)
	{
		for (unsigned sent = 0; sent < NR_ITEMS;) {
			void *items[BURST];
			unsigned n = NR_ITEMS - sent < BURST ? NR_ITEMS - sent : BURST;

			for (unsigned i = 0; i < n; i++) {
				payload[me * NR_ITEMS + sent + i]($) = 1;
				items[i] = &payload[me * NR_ITEMS + sent + i];
			}
			for (unsigned done = 0; done < n;) {
				unsigned pushed = godwit_mpmc_push(&ring, items + done, n - done);

				RL_ASSERT(pushed <= n - done);
				if (pushed == 0)
					rl::yield(1, $);
				done += pushed;
			}
			sent += n;
		}
	}

	void consume()
	{
		rl::var<int> *last[nr_producers] = {};

		while (nr_popped < nr_producers * NR_ITEMS) {
			void *items[BURST];
			unsigned n = godwit_mpmc_pop(&ring, items, BURST);

			nr_popped += n;
			for (unsigned i = 0; i < n; i++) {
				rl::var<int> *item = static_cast<rl::var<int> *>(items[i]);
				unsigned from = (item - payload) / NR_ITEMS;

				RL_ASSERT(from < nr_producers && item > last[from]);
				last[from] = item;
				RL_ASSERT((*item)($) == 1);
				(*item)($) = 2;	/* popped twice would be 2, or a race */
			}
			if (n == 0)
				rl::yield(1, $);
		}
	}

	void after()
	{
		void *item;

		RL_ASSERT(nr_popped == nr_producers * NR_ITEMS);
		RL_ASSERT(godwit_mpmc_pop(&ring, &item, 1) == 0);
		RL_ASSERT(godwit_mpmc_count(&ring) == 0);
		for (unsigned i = 0; i < nr_producers * NR_ITEMS; i++)
			RL_ASSERT(payload[i]($) == 2);
	}

	void thread(unsigned index)
	{
		if (index < nr_producers)
			produce(index);
		else
			consume();
	}
};

int main()
{
	return !(model_holds<mpmc_passes_each_item_once<2, 2>>("mpmc 2 to 2", 60000) &&
		 model_holds<mpmc_passes_each_item_once<3, 1>>("mpmc 3 to 1", 60000) &&
		 model_holds<mpmc_passes_each_item_once<1, 2>>("mpmc 1 to 2", 60000));
}
