/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The base says what the destination has, or nothing: whatever happens, and with several encoders. */
#include <pthread.h>

#include "base_model.h"

/* ---- what may happen to it ---------------------------------------------------------------------- */

static void send_past(struct model *m, struct model_block *block, uint64_t first, uint64_t pages)
{
	godwit_base_forget(m->base, block->id, first, pages);
	for (uint64_t page = first; page < block->pages && page - first < pages; page++) {
		mutate(block->guest[page], block->destination[page]);
		memcpy(block->destination[page], block->guest[page], PAGE);
	}
}

static uint64_t draw_bytes(uint64_t pages)
{
	switch (draw_below(8)) {
	case 0:
		return 0;
	case 1:
		return pages * 512;
	case 2:
		return pages * 512 - 1;
	case 3:
		return pages * 256 - 1;
	case 4:
		return pages * 128 - 1;
	case 5:
		return godwit_page_cache_bytes(pages) + draw_below(9999);
	default:
		return 1 + draw_below(pages * PAGE);
	}
}

static void step(struct model *m)
{
	struct model_block *block = &m->block[draw_below(BLOCKS)];
	uint64_t dice = draw_below(1000);

	if (dice < 6) {
		lay_out(m, (uint32_t)draw_below(9) * 2 / 7, draw_bytes(model_pages(m) + 1));
		compare_all(m);
	} else if (dice < 9) {
		/* Layout only later, or at once. */
		if (block->pages)
			model_remove(m, block);
		else
			model_add(m, block, 1 + draw_below(PAGES_MAX));
		compare_all(m);
		if (draw_below(2))
			cr_assert_eq(godwit_base_layout(m->base, NULL, &m->error), 0);
		compare_all(m);
	} else if (dice < 15) {
		godwit_base_next_round(m->base);
	} else if (block->pages && dice < 30) {
		send_past(m, block, draw_below(block->pages + 2), draw_below(20) ? draw_below(9) : UINT64_MAX);
	} else if (block->pages) {
		send_page(m, block, draw_below(block->pages));
	}
}

Test(base, says_what_the_destination_has_or_nothing, .timeout = 300)
{
	uint64_t compared = 0, zeros = 0, hits = 0;

	for (unsigned seed = 1; seed <= 24; seed++) {
		struct godwit_base_options options = { .size = sizeof(options) };
		struct model m;

		random_state = 0x9e3779b97f4a7c15ULL * seed;
		model_init(&m, options);
		model_add(&m, &m.block[0], 40);
		lay_out(&m, seed % 2 ? GODWIT_BASE_PAGES : GODWIT_BASE_SIGNATURES, 40 * PAGE);
		for (unsigned i = 0; i < 4000; i++)
			step(&m);
		compare_all(&m);
		compared += m.compared;
		zeros += m.zeros;
		hits += m.hits;
		model_fini(&m);
	}
	cr_assert_gt(hits, compared / 10, "%lu of %lu: too few to say anything", hits, compared);
	cr_assert_gt(zeros, compared / 100, "%lu of %lu", zeros, compared);
}

/* ---- several encoders ---------------------------------------------------------------------------- */

#define THREADS 4
#define SHARED_PAGES 96

struct sender {
	struct godwit_base *base;
	unsigned number;
	pthread_barrier_t *start;
	unsigned bad, hits;
	uint8_t destination[SHARED_PAGES / THREADS][PAGE];
	pthread_t thread;
};

static void *send_many(void *user)
{
	struct sender *self = user;
	uint64_t random = self->number + 1;

	pthread_barrier_wait(self->start);
	for (unsigned turn = 0; turn < 30000; turn++) {
		unsigned mine;
		struct godwit_base_view view;
		struct godwit_page_slot slot;
		enum godwit_page_claim claim;
		uint64_t page;

		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		mine = (unsigned)(random >> 33) % (SHARED_PAGES / THREADS);
		page = (uint64_t)mine * THREADS + self->number;
		if (!godwit_base_view(self->base, 7, &view))
			return self;
		view.round = turn / 64;		/* next_round is for a drain, and here is none */
		if (random >> 60 == 0)
			godwit_base_forget(self->base, 7, page, 1);
		claim = godwit_base_claim(&view, page, &slot);
		if (claim == GODWIT_PAGE_HIT) {
			self->hits++;
			self->bad += memcmp(slot.page, self->destination[mine], PAGE) != 0;
		}
		memset(self->destination[mine], (int)turn, PAGE);
		if (claim == GODWIT_PAGE_NONE) {
			view.state[page] = GODWIT_BASE_UNKNOWN;
			continue;
		}
		memcpy(slot.page, self->destination[mine], PAGE);
		godwit_base_publish(&view, page, &slot);
	}
	return NULL;
}

Test(base, holds_for_threads_that_share_its_slots, .timeout = 120)
{
	static struct sender sender[THREADS];
	struct godwit_base_options options = {
		.size = sizeof(options), .kind = GODWIT_BASE_PAGES, .bytes = godwit_page_cache_bytes(41),
	};
	pthread_barrier_t start;
	unsigned hits = 0;
	struct model m;

	pthread_barrier_init(&start, NULL, THREADS);
	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, 7, SHARED_PAGES, &m.error), 0);
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		sender[i].base = m.base;
		sender[i].number = i;
		sender[i].start = &start;
		cr_assert_eq(pthread_create(&sender[i].thread, NULL, send_many, &sender[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		void *failed;

		pthread_join(sender[i].thread, &failed);
		cr_assert_null(failed);
		cr_assert_eq(sender[i].bad, 0, "%u of %u", sender[i].bad, sender[i].hits);
		hits += sender[i].hits;
	}
	cr_assert_gt(hits, 10000, "%u: too few to say anything", hits);
	model_fini(&m);
}
