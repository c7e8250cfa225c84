/* SPDX-License-Identifier: LGPL-2.1-or-later */
// covers: src/xbzrle/slot_claim.h
// mutant: src/xbzrle/slot_claim.h: s/return atomic_compare_exchange_strong_explicit(tag, &seen, GODWIT_SLOT_BUSY,/return atomic_exchange_explicit(tag, GODWIT_SLOT_BUSY,/; s/memory_order_acquire, memory_order_relaxed);/memory_order_acquire) != GODWIT_SLOT_BUSY;/
/*
 * slot_claim.cpp - the page cache's claim: three workers, pages of their own, one slot in common
 *
 * Each worker sends its page again and again as src/xbzrle/page_cache.c does it: looks at the tag, claims
 * the slot by one compare-and-swap or goes without, reads the old page or takes it for empty, writes the
 * new one, publishes. The bytes of the slot report two accesses that nothing orders, and a hit must give
 * the version that this worker sent last, whatever others did to the slot between.
 */
#include "model.hpp"
#include "xbzrle/slot_claim.h"

enum { WORKERS = 3, TURNS = 4 };

struct slot_belongs_to_its_claimer_alone : rl::test_suite<slot_belongs_to_its_claimer_alone, WORKERS> {
	godwit_slot_tag tag;
	rl::var<unsigned> page[2];	/* two words of the slot's page */
	unsigned owners;		/* observer's: threads between claim and publish */

	void before()
	{
		atomic_init(&tag, GODWIT_SLOT_EMPTY);
		owners = 0;
	}

	/* A page's key in a tag; bit 0 is that of BUSY, bits 1 to 15 are the round. */
	static uint64_t tag_of(unsigned worker, unsigned round)
	{
		return (uint64_t)(worker + 1) << 16 | round << 1;
	}

	/*
	 * True if the page is known afterwards. One that is not may well be the slot's: its tag must then
	 * not be taken for the version sent last.
	 */
	bool send(unsigned worker, unsigned turn, bool is_known, unsigned version)
	{
		uint64_t seen = godwit_slot_look(&tag);
		bool is_mine = seen >> 16 == worker + 1;

		if (seen == GODWIT_SLOT_BUSY || !godwit_slot_claim(&tag, seen))
			return false;
		RL_ASSERT(owners++ == 0);
		if (is_mine && is_known) {
			RL_ASSERT(page[0]($).load() == version - 1);
			RL_ASSERT(page[1]($).load() == version - 1);
		}
		if (!rl::rand(4)) {
			RL_ASSERT(--owners == 0);
			godwit_slot_publish(&tag, GODWIT_SLOT_EMPTY);
			return false;
		}
		page[0]($).store(version);
		page[1]($).store(version);
		RL_ASSERT(--owners == 0);
		godwit_slot_publish(&tag, tag_of(worker, turn));
		return true;
	}

	void thread(unsigned worker)
	{
		unsigned version = 100 * (worker + 1);
		bool is_known = false;

		for (unsigned turn = 0; turn < TURNS; turn++)
			is_known = send(worker, turn, is_known, ++version);
	}
};

int main()
{
	return model_holds<slot_belongs_to_its_claimer_alone>("slot_belongs_to_its_claimer_alone", 200000)
		       ? 0 : 1;
}
