/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TEST_BASE_MODEL_H
#define GODWIT_TEST_BASE_MODEL_H

/*
 * base_model.h - a base, and a model of the destination that goes along
 *
 * Every page that is sent, known or past the base, is copied to the model, and what the base says is held
 * against the copy: whenever it says that it knows what the destination has of a page, that is what the
 * destination has.
 */
#include "engine/base.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "xbzrle/xbzrle.h"

#define PAGE GODWIT_PAGE_BYTES

static uint64_t random_state = 88172645463325252ULL;

static inline uint64_t draw(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1dULL >> 11;
}

static inline uint64_t draw_below(uint64_t bound)
{
	return draw() % bound;
}

/* ---- the model ------------------------------------------------------------------------------ */

#define BLOCKS 5
#define PAGES_MAX 150

struct model_block {
	uint32_t id;
	uint64_t pages;			/* 0: not there */
	uint8_t (*guest)[PAGE];
	uint8_t (*destination)[PAGE];
};

struct model {
	struct godwit_base *base;
	struct model_block block[BLOCKS];
	struct godwit_error error;
	uint64_t compared, zeros, hits;
};

static inline void randomize(uint8_t *page)
{
	for (unsigned i = 0; i < PAGE; i += 8) {
		uint64_t word = draw();

		memcpy(page + i, &word, 8);
	}
}

static inline bool is_zero_page(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

static inline void sign(const struct godwit_base_view *view, const uint8_t *page, uint64_t *row)
{
	uint8_t copy[PAGE];
	struct godwit_save save;

	godwit_save_lines(view->signer, view->granule_bytes, page, NULL, row, copy, NULL, &save);
}

static inline void model_init(struct model *m, struct godwit_base_options options)
{
	static const uint32_t ids[BLOCKS] = { 7, 0, GODWIT_MAX_BLOCKS - 1, 3, 500 };

	*m = (struct model){ 0 };
	cr_assert_eq(godwit_base_create(&options, &m->base, &m->error), 0, "%s", m->error.text);
	for (unsigned i = 0; i < BLOCKS; i++)
		m->block[i].id = ids[i];
}

/* The destination's pages are of any content, zeros not excluded and not promised. */
static inline void model_add(struct model *m, struct model_block *block, uint64_t pages)
{
	cr_assert_eq(godwit_base_add_block(m->base, block->id, pages, &m->error), 0);
	block->pages = pages;
	block->guest = malloc(pages * PAGE);
	block->destination = malloc(pages * PAGE);
	for (uint64_t page = 0; page < pages; page++) {
		randomize(block->guest[page]);
		randomize(block->destination[page]);
	}
}

static inline void model_remove(struct model *m, struct model_block *block)
{
	cr_assert_eq(godwit_base_remove_block(m->base, block->id), 0);
	free(block->guest);
	free(block->destination);
	block->pages = 0;
}

static inline void model_fini(struct model *m)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		if (m->block[i].pages)
			model_remove(m, &m->block[i]);
	}
	godwit_base_destroy(m->base);
}

static inline uint64_t model_pages(const struct model *m)
{
	uint64_t pages = 0;

	for (unsigned i = 0; i < BLOCKS; i++)
		pages += m->block[i].pages;
	return pages;
}

/* What the base says of a page, used as an encoder would use it, must be what the destination has. */
static inline void compare_row(struct model *m, const struct godwit_base_view *view, uint64_t page,
			       const uint8_t *destination)
{
	uint64_t row[GODWIT_PAGE_LINES];

	sign(view, destination, row);
	cr_assert_arr_eq(godwit_base_row(view, page), row, view->row_words * sizeof(*row),
			 "stale row of block %u page %lu", view->block, page);
	m->hits++;
}

static inline void compare_slot(struct model *m, const struct godwit_base_view *view, uint64_t page,
				const struct godwit_page_slot *slot, const uint8_t *destination)
{
	cr_assert_arr_eq(slot->page, destination, PAGE, "stale slot of block %u page %lu", view->block,
			 page);
	m->hits++;
}

static inline void compare_page(struct model *m, const struct godwit_base_view *view, uint64_t page,
				const uint8_t *destination)
{
	struct godwit_page_slot slot;
	enum godwit_page_claim claim;

	m->compared++;
	if (!view->state) {
		cr_assert_eq(view->kind, GODWIT_BASE_OFF);
		cr_assert(!view->rows && !view->cache && !view->signer);
		return;
	}
	cr_assert_leq(view->state[page], GODWIT_BASE_ZERO);
	if (view->state[page] == GODWIT_BASE_ZERO) {
		cr_assert(is_zero_page(destination), "block %u page %lu", view->block, page);
		m->zeros++;
	}
	if (view->state[page] != GODWIT_BASE_KNOWN)
		return;
	if (view->kind == GODWIT_BASE_SIGNATURES) {
		compare_row(m, view, page, destination);
		return;
	}
	claim = godwit_base_claim(view, page, &slot);
	if (claim == GODWIT_PAGE_HIT) {
		compare_slot(m, view, page, &slot, destination);
		godwit_base_publish(view, page, &slot);
	} else if (claim == GODWIT_PAGE_EMPTY) {
		godwit_page_cache_release(&slot, GODWIT_PAGE_NO_KEY, view->round);
	}
}

static inline void compare_all(struct model *m)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct model_block *block = &m->block[i];
		struct godwit_base_view view;

		cr_assert_eq(godwit_base_view(m->base, block->id, &view), block->pages != 0);
		for (uint64_t page = 0; page < block->pages; page++)
			compare_page(m, &view, page, block->destination[page]);
	}
}

static inline void mutate(uint8_t *page, const uint8_t *destination)
{
	switch (draw_below(6)) {
	case 0:
		memset(page, 0, PAGE);
		break;
	case 1:
		randomize(page);
		break;
	case 2:				/* A -> B -> A */
		memcpy(page, destination, PAGE);
		break;
	case 3:				/* two lines swap: the XOR of a coarse group would not see it */
		memcpy(page + 64, destination, 64);
		memcpy(page, destination + 64, 64);
		break;
	default:
		for (uint64_t n = draw_below(9); n--;)
			page[draw_below(PAGE)] = (uint8_t)draw();
	}
}

static inline void send_by_pages(struct model *m, const struct godwit_base_view *view, uint64_t page,
				 const uint8_t *guest, const uint8_t *destination)
{
	struct godwit_page_slot slot;

	switch (godwit_base_claim(view, page, &slot)) {
	case GODWIT_PAGE_NONE:
		view->state[page] = GODWIT_BASE_UNKNOWN;
		return;
	case GODWIT_PAGE_HIT:
		compare_slot(m, view, page, &slot, destination);
		break;
	case GODWIT_PAGE_EMPTY:
		break;
	}
	memcpy(slot.page, guest, PAGE);
	if (draw_below(8)) {
		godwit_base_publish(view, page, &slot);
	} else {
		view->state[page] = GODWIT_BASE_UNKNOWN;	/* the encoder gave up half-way */
		godwit_page_cache_release(&slot, GODWIT_PAGE_NO_KEY, view->round);
	}
}

/* As an encoder does it. */
static inline void send_page(struct model *m, struct model_block *block, uint64_t page)
{
	uint8_t *guest = block->guest[page], *destination = block->destination[page];
	struct godwit_base_view view;

	mutate(guest, destination);
	cr_assert(godwit_base_view(m->base, block->id, &view));
	cr_assert_eq(view.pages, block->pages);
	compare_page(m, &view, page, destination);
	if (!view.state) {
		cr_assert_eq(view.kind, GODWIT_BASE_OFF);
	} else if (is_zero_page(guest)) {
		view.state[page] = GODWIT_BASE_ZERO;
	} else if (view.kind == GODWIT_BASE_SIGNATURES) {
		sign(&view, guest, godwit_base_row(&view, page));
		view.state[page] = GODWIT_BASE_KNOWN;
	} else {
		send_by_pages(m, &view, page, guest, destination);
	}
	memcpy(destination, guest, PAGE);
}

static inline void lay_out(struct model *m, uint32_t kind, uint64_t bytes)
{
	struct godwit_base_options options = {
		.size = sizeof(options), .bytes = bytes, .kind = kind,
	};
	uint64_t pages = model_pages(m);

	cr_assert_eq(godwit_base_layout(m->base, &options, &m->error), 0, "%s", m->error.text);
	cr_assert(godwit_base_kind(m->base) == kind || godwit_base_kind(m->base) == GODWIT_BASE_OFF);
	if (bytes)
		cr_assert_leq(godwit_base_bytes(m->base), bytes);
	else if (kind != GODWIT_BASE_OFF)
		cr_assert_leq(godwit_base_bytes(m->base), pages * PAGE / 8);
	if (kind == GODWIT_BASE_PAGES)
		cr_assert_leq(godwit_base_bytes(m->base), godwit_page_cache_bytes(pages));
	cr_assert_eq(godwit_base_pages(m->base), pages);
}

/* ---- a model with something in it ---------------------------------------------------------------- */

struct count {
	uint64_t known, zero, hits;
};

static inline struct count count(struct model *m)
{
	struct count count = { 0 };
	uint64_t hits = m->hits;

	for (unsigned i = 0; i < BLOCKS; i++) {
		struct godwit_base_view view;

		if (!godwit_base_view(m->base, m->block[i].id, &view) || !view.state)
			continue;
		for (uint64_t page = 0; page < view.pages; page++) {
			count.known += view.state[page] == GODWIT_BASE_KNOWN;
			count.zero += view.state[page] == GODWIT_BASE_ZERO;
		}
	}
	compare_all(m);
	count.hits = m->hits - hits;
	return count;
}

/* Two blocks of 100 and 60 pages; every fifth page zero, every seventh lost, the others known. */
static inline void fill_model(struct model *m, uint32_t kind, uint64_t bytes)
{
	struct godwit_base_options options = { .size = sizeof(options), .kind = kind, .bytes = bytes };

	model_init(m, options);
	model_add(m, &m->block[0], 100);
	model_add(m, &m->block[1], 60);
	cr_assert_eq(godwit_base_layout(m->base, NULL, &m->error), 0, "%s", m->error.text);
	for (unsigned i = 0; i < 2; i++) {
		for (uint64_t page = 0; page < m->block[i].pages; page++) {
			struct godwit_base_view view;
			uint8_t *destination = m->block[i].destination[page];
			struct godwit_page_slot slot;

			cr_assert(godwit_base_view(m->base, m->block[i].id, &view));
			if (page % 5 == 0) {
				memset(destination, 0, PAGE);
				view.state[page] = GODWIT_BASE_ZERO;
			} else if (kind == GODWIT_BASE_SIGNATURES) {
				sign(&view, destination, godwit_base_row(&view, page));
				view.state[page] = GODWIT_BASE_KNOWN;
			} else if (godwit_base_claim(&view, page, &slot) == GODWIT_PAGE_EMPTY) {
				memcpy(slot.page, destination, PAGE);
				godwit_base_publish(&view, page, &slot);
			}
			if (page % 7 == 0)
				godwit_base_forget(m->base, m->block[i].id, page, 1);
		}
	}
}

/* Of pages 0 to n - 1: multiples of 7 are unknown, other multiples of 5 zero, the rest known. */
#define ZEROS (20 - 3 + 12 - 2)
#define KNOWN (160 - (15 + 9) - ZEROS)

#define BYTES_64 (160 * 512)
#define BYTES_128 (160 * 256)
#define BYTES_256 (160 * 128)

#endif
