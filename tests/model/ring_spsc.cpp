/* SPDX-License-Identifier: LGPL-2.1-or-later */
// covers: src/ring/spsc.h
/*
 * ring_spsc.cpp - the SPSC ring: two slots, bursts of one to three (and sixteen, of nine: the long copy),
 * indices over the 32-bit wrap
 *
 * The slots report it if one is written while it may still be read, or read before it is surely written;
 * so does what the pointers lead to.
 */
#include "model.hpp"
#include "ring/spsc.h"

template <unsigned ORDER_LOG2, unsigned NR_ITEMS, unsigned MAX_BURST>
struct spsc_passes_each_item_once_in_order
	: rl::test_suite<spsc_passes_each_item_once_in_order<ORDER_LOG2, NR_ITEMS, MAX_BURST>, 2> {
	godwit_spsc ring;
	godwit_slot slots[1 << ORDER_LOG2];
	rl::var<int> payload[NR_ITEMS];

	void before()
	{
		godwit_spsc_init_at(&ring, slots, ORDER_LOG2, UINT32_MAX - 2);
	}

	void produce()
	{
		for (unsigned sent = 0; sent < NR_ITEMS;) {
			void *items[MAX_BURST];
			unsigned n = 1 + rl::rand(MAX_BURST);

			if (n > NR_ITEMS - sent)
				n = NR_ITEMS - sent;
			for (unsigned i = 0; i < n; i++) {
				payload[sent + i]($) = 100 + sent + i;
				items[i] = &payload[sent + i];
			}
			for (unsigned done = 0; done < n;) {
				unsigned pushed = godwit_spsc_push(&ring, items + done, n - done);

				RL_ASSERT(pushed <= n - done && pushed <= 1 << ORDER_LOG2);
				if (pushed == 0)
					rl::yield(1, $);
				done += pushed;
			}
			sent += n;
			/* Ours and the other's moves: never less than what is really left. */
			RL_ASSERT(godwit_spsc_count(&ring) <= 1 << ORDER_LOG2);
		}
	}

	void consume()
	{
		for (unsigned got = 0; got < NR_ITEMS;) {
			void *items[MAX_BURST];
			unsigned want = 1 + rl::rand(MAX_BURST);
			unsigned seen = godwit_spsc_count(&ring);
			unsigned n = godwit_spsc_pop(&ring, items, want);

			RL_ASSERT(n <= want && n >= (seen < want ? seen : want));
			for (unsigned i = 0; i < n; i++, got++) {
				RL_ASSERT(items[i] == &payload[got]);
				RL_ASSERT(payload[got]($) == (int)(100 + got));
				payload[got]($) = 0;
			}
			if (n == 0)
				rl::yield(1, $);
		}
		RL_ASSERT(godwit_spsc_count(&ring) == 0);
	}

	void thread(unsigned index)
	{
		if (index == 0)
			produce();
		else
			consume();
	}
};

int main()
{
	return !(model_holds<spsc_passes_each_item_once_in_order<1, 6, 3>>("spsc", 150000) &&
		 model_holds<spsc_passes_each_item_once_in_order<4, 36, 9>>("spsc, long", 15000));
}
