/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The base: whenever it says that it knows what the destination has of a page, that is what the
 * destination has. A model of the destination goes along: every page that is sent, known or past the
 * base, is copied to it, and what the base says is held against the copy.
 */
#include "engine/base.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "engine/error.h"
#include "engine/options.h"
#include "xbzrle/xbzrle.h"

#define PAGE GODWIT_PAGE_BYTES

/* gcc says it by a macro, clang 14 by a feature. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif

#ifdef IS_SANITIZED
/* An allocation that cannot be is to fail as it does elsewhere, not to end the process. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
	return "allocator_may_return_null=1";
}
#endif

static uint64_t random_state = 88172645463325252ULL;

static uint64_t draw(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1dULL >> 11;
}

static uint64_t draw_below(uint64_t bound)
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

static void randomize(uint8_t *page)
{
	for (unsigned i = 0; i < PAGE; i += 8) {
		uint64_t word = draw();

		memcpy(page + i, &word, 8);
	}
}

static bool is_zero_page(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

static void sign(const struct godwit_base_view *view, const uint8_t *page, uint64_t *row)
{
	uint8_t copy[PAGE];
	struct godwit_save save;

	godwit_save_lines(view->signer, view->granule_bytes, page, NULL, row, copy, NULL, &save);
}

static void model_init(struct model *m, struct godwit_base_options options)
{
	static const uint32_t ids[BLOCKS] = { 7, 0, GODWIT_MAX_BLOCKS - 1, 3, 500 };

	*m = (struct model){ 0 };
	cr_assert_eq(godwit_base_create(&options, &m->base, &m->error), 0, "%s", m->error.text);
	for (unsigned i = 0; i < BLOCKS; i++)
		m->block[i].id = ids[i];
}

/* The destination's pages are of any content, zeros not excluded and not promised. */
static void model_add(struct model *m, struct model_block *block, uint64_t pages)
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

static void model_remove(struct model *m, struct model_block *block)
{
	cr_assert_eq(godwit_base_remove_block(m->base, block->id), 0);
	free(block->guest);
	free(block->destination);
	block->pages = 0;
}

static void model_fini(struct model *m)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		if (m->block[i].pages)
			model_remove(m, &m->block[i]);
	}
	godwit_base_destroy(m->base);
}

static uint64_t model_pages(const struct model *m)
{
	uint64_t pages = 0;

	for (unsigned i = 0; i < BLOCKS; i++)
		pages += m->block[i].pages;
	return pages;
}

/* What the base says of a page, used as an encoder would use it, must be what the destination has. */
static void compare_row(struct model *m, const struct godwit_base_view *view, uint64_t page,
			const uint8_t *destination)
{
	uint64_t row[GODWIT_PAGE_LINES];

	sign(view, destination, row);
	cr_assert_arr_eq(godwit_base_row(view, page), row, view->row_words * sizeof(*row),
			 "stale row of block %u page %lu", view->block, page);
	m->hits++;
}

static void compare_slot(struct model *m, const struct godwit_base_view *view, uint64_t page,
			 const struct godwit_page_slot *slot, const uint8_t *destination)
{
	cr_assert_arr_eq(slot->page, destination, PAGE, "stale slot of block %u page %lu", view->block,
			 page);
	m->hits++;
}

static void compare_page(struct model *m, const struct godwit_base_view *view, uint64_t page,
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

static void compare_all(struct model *m)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct model_block *block = &m->block[i];
		struct godwit_base_view view;

		cr_assert_eq(godwit_base_view(m->base, block->id, &view), block->pages != 0);
		for (uint64_t page = 0; page < block->pages; page++)
			compare_page(m, &view, page, block->destination[page]);
	}
}

/* ---- what may happen to it ---------------------------------------------------------------------- */

static void mutate(uint8_t *page, const uint8_t *destination)
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

static void send_by_pages(struct model *m, const struct godwit_base_view *view, uint64_t page,
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
static void send(struct model *m, struct model_block *block, uint64_t page)
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

static void lay_out(struct model *m, uint32_t kind, uint64_t bytes)
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
		send(m, block, draw_below(block->pages));
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

/* ---- what a layout keeps ---------------------------------------------------------------------- */

struct count {
	uint64_t known, zero, hits;
};

static struct count count(struct model *m)
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
static void fill_model(struct model *m, uint32_t kind, uint64_t bytes)
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

Test(base, takes_the_finest_signatures_that_fit_into_the_bytes)
{
	static const struct { uint64_t bytes; uint32_t granule; } rows[] = {
		{ 160 * PAGE, 64 }, { BYTES_64, 64 }, { BYTES_64 - 1, 128 }, { BYTES_128, 128 },
		{ BYTES_128 - 1, 256 }, { BYTES_256, 256 },
	};
	struct model m;
	char line[256];

	fill_model(&m, GODWIT_BASE_SIGNATURES, BYTES_64);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		lay_out(&m, GODWIT_BASE_SIGNATURES, rows[i].bytes);
		cr_assert_eq(godwit_base_granule_bytes(m.base), rows[i].granule);
		cr_assert_eq(godwit_base_bytes(m.base), 160 * PAGE / rows[i].granule * 8);
		cr_assert(!godwit_base_describe(m.base, line, sizeof(line)));
	}
	lay_out(&m, GODWIT_BASE_SIGNATURES, BYTES_256 - 1);
	cr_assert_eq(godwit_base_kind(m.base), GODWIT_BASE_OFF);
	cr_assert_eq(godwit_base_bytes(m.base), 0);
	cr_assert(godwit_base_describe(m.base, line, sizeof(line)));
	cr_assert_str_eq(line, m.error.text, "the reason stands in the error as well");
	cr_assert(strstr(line, "20 KiB"), "%s", line);
	model_fini(&m);
}

Test(base, takes_an_eighth_of_the_guest_by_itself)
{
	struct model m;

	fill_model(&m, GODWIT_BASE_SIGNATURES, 0);
	cr_assert_eq(godwit_base_granule_bytes(m.base), 64);
	cr_assert_eq(godwit_base_bytes(m.base), BYTES_64);
	lay_out(&m, GODWIT_BASE_PAGES, 0);
	cr_assert_eq(godwit_base_kind(m.base), GODWIT_BASE_PAGES);
	cr_assert_leq(godwit_base_bytes(m.base), BYTES_64);
	cr_assert_gt(godwit_base_bytes(m.base), BYTES_64 - 3 * PAGE);
	model_fini(&m);
}

Test(base, keeps_everything_when_signatures_become_coarser)
{
	static const uint64_t ways[][2] = {
		{ BYTES_64, BYTES_128 }, { BYTES_64, BYTES_256 }, { BYTES_128, BYTES_256 },
	};

	for (unsigned i = 0; i < 3; i++) {
		struct model m;
		struct count is;

		fill_model(&m, GODWIT_BASE_SIGNATURES, ways[i][0]);
		lay_out(&m, GODWIT_BASE_SIGNATURES, ways[i][1]);
		is = count(&m);
		cr_assert_eq(is.known, KNOWN);
		cr_assert_eq(is.hits, KNOWN);
		cr_assert_eq(is.zero, ZEROS);
		model_fini(&m);
	}
}

Test(base, keeps_only_zeros_when_signatures_become_finer_or_pages)
{
	struct model m;
	struct count is;

	fill_model(&m, GODWIT_BASE_SIGNATURES, BYTES_256);
	lay_out(&m, GODWIT_BASE_SIGNATURES, BYTES_64);
	is = count(&m);
	cr_assert_eq(is.known, 0);
	cr_assert_eq(is.zero, ZEROS);
	model_fini(&m);

	fill_model(&m, GODWIT_BASE_SIGNATURES, BYTES_256);
	lay_out(&m, GODWIT_BASE_PAGES, 160 * 5000);
	is = count(&m);
	cr_assert_eq(is.known, 0);
	cr_assert_eq(is.zero, ZEROS);
	model_fini(&m);
}

Test(base, signs_the_old_pages_when_pages_become_signatures)
{
	static const uint64_t to[] = { BYTES_64, BYTES_128, BYTES_256 };

	for (unsigned i = 0; i < 3; i++) {
		struct model m;
		struct count is;

		fill_model(&m, GODWIT_BASE_PAGES, 160 * 5000);
		lay_out(&m, GODWIT_BASE_SIGNATURES, to[i]);
		is = count(&m);
		cr_assert_eq(is.known, KNOWN);
		cr_assert_eq(is.hits, KNOWN);
		cr_assert_eq(is.zero, ZEROS);
		model_fini(&m);
	}
}

Test(base, forgets_pages_without_a_slot_when_pages_become_signatures)
{
	struct model m;
	struct count before, after;

	fill_model(&m, GODWIT_BASE_PAGES, godwit_page_cache_bytes(40));
	before = count(&m);
	cr_assert_gt(before.hits, 20);
	cr_assert_leq(before.hits, 40);
	lay_out(&m, GODWIT_BASE_SIGNATURES, BYTES_64);
	after = count(&m);
	cr_assert_eq(after.known, before.hits);
	cr_assert_eq(after.hits, before.hits);
	model_fini(&m);
}

Test(base, keeps_every_old_page_when_the_cache_grows_to_the_guest)
{
	struct model m;
	uint64_t hits;

	fill_model(&m, GODWIT_BASE_PAGES, godwit_page_cache_bytes(70));
	hits = count(&m).hits;
	cr_assert_gt(hits, 40);
	lay_out(&m, GODWIT_BASE_PAGES, 160 * 5000);
	cr_assert_eq(count(&m).hits, hits);
	/* The same again keeps the cache as it is. */
	lay_out(&m, GODWIT_BASE_PAGES, 160 * 5000);
	cr_assert_eq(count(&m).hits, hits);
	lay_out(&m, GODWIT_BASE_PAGES, godwit_page_cache_bytes(30));
	cr_assert_gt(count(&m).hits, 20, "what fits is kept");
	model_fini(&m);
}

Test(base, keeps_the_other_blocks_when_one_comes_or_goes)
{
	static const struct { uint32_t kind; uint64_t bytes; } of[] = {
		{ GODWIT_BASE_SIGNATURES, 300 * 512 }, { GODWIT_BASE_PAGES, 300 * 5000 },
	};

	for (unsigned i = 0; i < 2; i++) {
		struct model m;
		struct count is;

		fill_model(&m, of[i].kind, of[i].bytes);
		model_add(&m, &m.block[3], 50);		/* its id is between the two others */
		cr_assert_eq(count(&m).known, KNOWN);
		cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
		is = count(&m);
		cr_assert_eq(is.known, KNOWN);
		cr_assert_eq(is.hits, KNOWN);
		model_remove(&m, &m.block[1]);		/* the lowest id, so that every key moves */
		cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
		is = count(&m);
		cr_assert_eq(is.hits, 100 - 15 - 17);
		cr_assert_eq(is.zero, 17);
		model_fini(&m);
	}
}

/* A block of the same id, size and keys as one that went: none of the old one's slots may speak for it. */
Test(base, knows_nothing_of_a_block_that_came_back)
{
	struct model m;

	fill_model(&m, GODWIT_BASE_PAGES, 160 * 5000);
	model_remove(&m, &m.block[0]);
	model_add(&m, &m.block[0], 100);
	compare_all(&m);
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
	compare_all(&m);
	for (uint64_t page = 0; page < 100; page++)
		send(&m, &m.block[0], page);
	compare_all(&m);
	model_fini(&m);
}

Test(base, forgets_what_it_did_not_see_while_off)
{
	struct model m;
	struct count is;

	fill_model(&m, GODWIT_BASE_SIGNATURES, BYTES_64);
	lay_out(&m, GODWIT_BASE_OFF, 0);
	cr_assert_eq(godwit_base_bytes(m.base), 0);
	lay_out(&m, GODWIT_BASE_SIGNATURES, BYTES_64);
	is = count(&m);
	cr_assert_eq(is.known + is.zero, 0);
	model_fini(&m);
}

Test(base, forgets_the_part_of_a_range_that_is_in_the_block)
{
	static const struct { uint64_t first, pages, left; } of[] = {
		{ 0, 0, 100 }, { 99, 1, 99 }, { 99, UINT64_MAX, 99 }, { 100, 1, 100 }, { 10, 20, 80 },
		{ UINT64_MAX, UINT64_MAX, 100 }, { 50, UINT64_MAX - 20, 50 }, { 0, UINT64_MAX, 0 },
	};

	for (unsigned i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		struct godwit_base_options options = { .size = sizeof(options), .bytes = 1 << 20 };
		struct godwit_base_view view;
		struct model m;

		model_init(&m, options);
		model_add(&m, &m.block[0], 100);
		godwit_base_forget(m.base, m.block[0].id, 0, 100);	/* before there is anything */
		cr_assert_eq(godwit_base_layout(m.base, NULL, NULL), 0);
		cr_assert(godwit_base_view(m.base, m.block[0].id, &view));
		memset(view.state, GODWIT_BASE_ZERO, 100);
		for (unsigned page = 0; page < 100; page++)
			memset(m.block[0].destination[page], 0, PAGE);
		godwit_base_forget(m.base, m.block[0].id, of[i].first, of[i].pages);
		godwit_base_forget(m.base, m.block[1].id, 0, 100);
		godwit_base_forget(m.base, UINT32_MAX, 0, 100);
		cr_assert_eq(count(&m).zero, of[i].left, "first %lu pages %lu", of[i].first, of[i].pages);
		model_fini(&m);
	}
}

/* ---- refusals, and memory -------------------------------------------------------------------- */

Test(base, refuses_wrong_options_and_changes_nothing)
{
	struct godwit_base_options wrong_kind = { .size = sizeof(wrong_kind), .kind = 3 };
	struct godwit_base_options reserved = { .size = sizeof(reserved), .reserved = 1 };
	struct godwit_base_options small = { .size = sizeof(small) - 1 };
	struct { struct godwit_base_options options; uint64_t more; } large = {
		.options.size = sizeof(large), .options.kind = GODWIT_BASE_SIGNATURES,
	};
	struct godwit_base *base = NULL;
	struct model m;

	cr_assert_eq(godwit_base_create(&wrong_kind, &base, NULL), -EINVAL);
	cr_assert_eq(godwit_base_create(NULL, &base, NULL), -EINVAL);
	cr_assert_null(base);

	fill_model(&m, GODWIT_BASE_SIGNATURES, BYTES_64);
	cr_assert_eq(godwit_base_layout(m.base, &wrong_kind, &m.error), -EINVAL);
	cr_assert(strstr(m.error.text, "kind 3"), "%s", m.error.text);
	cr_assert_eq(godwit_base_layout(m.base, &reserved, &m.error), -EINVAL);
	cr_assert_eq(godwit_base_layout(m.base, &small, &m.error), -EINVAL);
	large.more = 1;
	cr_assert_eq(godwit_base_layout(m.base, &large.options, &m.error), -E2BIG);
	cr_assert_eq(count(&m).hits, KNOWN);
	large.more = 0;
	large.options.bytes = BYTES_128;
	cr_assert_eq(godwit_base_layout(m.base, &large.options, &m.error), 0);
	cr_assert_eq(godwit_base_granule_bytes(m.base), 128);
	model_fini(&m);
}

Test(base, refuses_wrong_blocks)
{
	struct godwit_base_options options = { .size = sizeof(options) };
	struct godwit_base_view view;
	struct model m;

	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, GODWIT_MAX_BLOCKS, 1, &m.error), -EINVAL);
	cr_assert_eq(godwit_base_add_block(m.base, 1, 0, &m.error), -EINVAL);
	cr_assert_eq(godwit_base_add_block(m.base, 1, GODWIT_PAGE_KEYS, &m.error), 0);
	cr_assert_eq(godwit_base_add_block(m.base, 1, 1, &m.error), -EEXIST);
	cr_assert_eq(godwit_base_add_block(m.base, 2, 1, &m.error), -EINVAL, "keys have run out");
	cr_assert_eq(godwit_base_remove_block(m.base, 2), -ENOENT);
	cr_assert_eq(godwit_base_remove_block(m.base, UINT32_MAX), -ENOENT);
	cr_assert_eq(godwit_base_remove_block(m.base, 1), 0);
	cr_assert(!godwit_base_view(m.base, 1, &view));
	cr_assert(!godwit_base_view(m.base, UINT32_MAX, &view));
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0, "no blocks, no base, no error");
	cr_assert_eq(godwit_base_kind(m.base), GODWIT_BASE_OFF);
	model_fini(&m);
	godwit_base_destroy(NULL);
}

/*
 * More than any address space has: 2^46 pages fail at their state bytes, 2^38 at rows or slots (not with
 * a sanitizer's allocator, which would go and clear 256 GiB of state bytes).
 */
#ifdef IS_SANITIZED
#define LEAST_HUGE_LOG2 46
#else
#define LEAST_HUGE_LOG2 38
#endif

Test(base, keeps_the_old_layout_when_there_is_no_memory_for_the_new)
{
	static const struct { uint32_t from, to; } of[] = {
		{ GODWIT_BASE_SIGNATURES, GODWIT_BASE_SIGNATURES },
		{ GODWIT_BASE_SIGNATURES, GODWIT_BASE_PAGES },
		{ GODWIT_BASE_PAGES, GODWIT_BASE_PAGES },
		{ GODWIT_BASE_PAGES, GODWIT_BASE_SIGNATURES },
	};

	for (unsigned i = 0; i < 8; i++) {
		for (unsigned log2 = LEAST_HUGE_LOG2; log2 <= 46; log2 += 8) {
			struct godwit_base_options options = {
				.size = sizeof(options), .kind = of[i % 4].to, .bytes = UINT64_MAX,
			};
			/* Between the other blocks, and after them: what was reserved by then differs. */
			uint32_t id = i < 4 ? 1 : 1000;
			uint64_t bytes;
			struct model m;

			fill_model(&m, of[i % 4].from, 160 * 5000);
			bytes = godwit_base_bytes(m.base);
			cr_assert_eq(godwit_base_add_block(m.base, id, UINT64_C(1) << log2, &m.error), 0);
			cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), -ENOMEM);
			cr_assert(strstr(m.error.text, "old layout"), "%s", m.error.text);
			cr_assert_eq(godwit_base_kind(m.base), of[i % 4].from);
			cr_assert_eq(count(&m).hits, KNOWN);
			cr_assert_eq(godwit_base_bytes(m.base), bytes);
			cr_assert_eq(godwit_base_remove_block(m.base, id), 0);
			cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
			cr_assert_eq(count(&m).hits, KNOWN);
			cr_assert_eq(godwit_base_bytes(m.base), bytes);
			model_fini(&m);
		}
	}
}

static uint64_t status_kib(const char *field)
{
	FILE *status = fopen("/proc/self/status", "r");
	char line[256];
	uint64_t kib = 0;

	cr_assert(status);
	while (fgets(line, sizeof(line), status)) {
		if (!strncmp(line, field, strlen(field)))
			kib = strtoull(line + strlen(field) + 1, NULL, 10);
	}
	fclose(status);
	return kib;
}

/* 64 Mi pages of a guest, 256 GiB: an eighth of it is not to be had. Nothing of it is touched. */
#define HUGE_PAGES (UINT64_C(64) << 20)

Test(base, goes_on_with_less_and_says_so_where_memory_is_limited)
{
	struct godwit_base_options options = { .size = sizeof(options) };
	struct godwit_base_view view;
	struct rlimit limit;
	struct model m;
	char line[256];

#ifdef IS_SANITIZED
	cr_skip_test("the sanitizer's own address space is beyond any limit");
#endif
	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, 0, HUGE_PAGES, &m.error), 0);
	cr_assert_eq(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = (status_kib("VmSize:") << 10) + (UINT64_C(192) << 20);
	cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0, "%s", m.error.text);
	cr_assert(godwit_base_describe(m.base, line, sizeof(line)));
	cr_assert_eq(godwit_base_kind(m.base), GODWIT_BASE_OFF);
	cr_assert(godwit_base_view(m.base, 0, &view));
	cr_assert_null(view.state);
	cr_assert_str_eq(line, m.error.text);

	/* Old pages can always be fewer. */
	options.kind = GODWIT_BASE_PAGES;
	cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), 0, "%s", m.error.text);
	cr_assert(godwit_base_describe(m.base, line, sizeof(line)));
	cr_assert_eq(godwit_base_kind(m.base), GODWIT_BASE_PAGES);
	cr_assert_leq(godwit_base_bytes(m.base), UINT64_C(192) << 20);
	cr_assert_gt(godwit_base_bytes(m.base), UINT64_C(16) << 20);
	model_fini(&m);
}

/* Locked memory cannot be given back piece by piece; the conversions hold without that. */
Test(base, keeps_what_it_knows_in_locked_memory)
{
	struct model m;

#ifdef IS_SANITIZED
	cr_skip_test("a sanitizer's shadow cannot be locked");
#endif
	fill_model(&m, GODWIT_BASE_PAGES, 160 * 5000);
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		cr_skip_test("locking is not allowed here");
	lay_out(&m, GODWIT_BASE_PAGES, 160 * 5001);
	model_add(&m, &m.block[3], 50);
	lay_out(&m, GODWIT_BASE_PAGES, 210 * 5000);
	cr_assert_eq(count(&m).hits, KNOWN);
	lay_out(&m, GODWIT_BASE_SIGNATURES, 210 * 512);
	cr_assert_eq(count(&m).hits, KNOWN);
	lay_out(&m, GODWIT_BASE_SIGNATURES, 210 * 128);
	cr_assert_eq(count(&m).hits, KNOWN);
	model_fini(&m);
}

Test(base, gives_all_memory_back)
{
	enum { PAGES = 64 << 10, CHUNK = 512 };
	uint64_t before = status_kib("VmRSS:"), during;
	struct godwit_base_options options = {
		.size = sizeof(options), .kind = GODWIT_BASE_PAGES, .bytes = PAGES * 5000ull,
	};
	struct godwit_base_view view;
	struct model m;

#ifdef IS_SANITIZED
	cr_skip_test("the sanitizer's shadow counts");
#endif
	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, 0, PAGES, &m.error), 0);
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
	cr_assert(godwit_base_view(m.base, 0, &view));
	for (uint64_t page = 0; page < PAGES; page++) {
		struct godwit_page_slot slot;

		cr_assert_eq(godwit_base_claim(&view, page, &slot), GODWIT_PAGE_EMPTY);
		memset(slot.page, 1 + (int)(page % 200), PAGE);
		godwit_base_publish(&view, page, &slot);
	}
	during = status_kib("VmRSS:");
	cr_assert_gt(during, before + PAGES * 4 - 1024);

	/* Old and new cache are never resident together: the peak hardly moves. */
	options.bytes = godwit_page_cache_bytes(PAGES - CHUNK);
	cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), 0);
	cr_assert_leq(status_kib("VmHWM:"), during + 32 * 1024);

	options = (struct godwit_base_options){ .size = sizeof(options), .bytes = PAGES * 512 };
	cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), 0);
	cr_assert_leq(status_kib("VmHWM:"), during + 48 * 1024);
	cr_assert_leq(status_kib("VmRSS:"), before + PAGES / 2 + 16 * 1024);
	model_fini(&m);
	cr_assert_leq(status_kib("VmRSS:"), before + 4 * 1024);
}

/* A sparse guest: zeros cost a state byte, not a row. */
Test(base, touches_no_rows_for_zero_pages)
{
	struct godwit_base_options options = { .size = sizeof(options), .bytes = HUGE_PAGES / 64 * 512 };
	uint64_t before = status_kib("VmRSS:");
	struct godwit_base_view view;
	struct model m;

#ifdef IS_SANITIZED
	cr_skip_test("the sanitizer's shadow counts");
#endif
	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, 0, HUGE_PAGES / 64, &m.error), 0);
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
	cr_assert(godwit_base_view(m.base, 0, &view));
	memset(view.state, GODWIT_BASE_ZERO, view.pages);
	/* Coarser: the rows that nobody knows anything of are not read either. */
	options.bytes /= 2;
	cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), 0);
	cr_assert_eq(godwit_base_granule_bytes(m.base), 128);
	cr_assert_leq(status_kib("VmHWM:"), before + (HUGE_PAGES / 64 >> 10) + 4 * 1024);
	model_fini(&m);
}

Test(base, draws_other_secrets_for_every_base)
{
	struct godwit_base_options options = { .size = sizeof(options), .bytes = 1 << 20 };
	struct godwit_base_view view[2];
	struct model m[2];

	for (unsigned i = 0; i < 2; i++) {
		model_init(&m[i], options);
		model_add(&m[i], &m[i].block[0], 1);
		cr_assert_eq(godwit_base_layout(m[i].base, NULL, NULL), 0);
		cr_assert(godwit_base_view(m[i].base, m[i].block[0].id, &view[i]));
	}
	for (unsigned w = 0; w < 32; w++)
		cr_assert_neq(view[0].signer->word[w], view[1].signer->word[w]);
	for (unsigned i = 0; i < 2; i++)
		model_fini(&m[i]);
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

/* ---- the helpers beneath ------------------------------------------------------------------------ */

struct old_options { size_t size; uint32_t a, b; };
struct new_options { size_t size; uint32_t a, b; uint64_t c; };

Test(options, of_an_older_caller_read_as_zero_beyond_what_it_has)
{
	struct old_options from = { .size = sizeof(from), .a = 1, .b = 2 };
	struct new_options to = { .c = 99 };

	cr_assert_eq(godwit_options_copy(&to, sizeof(to), sizeof(from), &from, NULL), 0);
	cr_assert_eq(to.size, sizeof(to));
	cr_assert_eq(to.a, 1);
	cr_assert_eq(to.b, 2);
	cr_assert_eq(to.c, 0);
}

Test(options, of_a_newer_caller_are_taken_while_the_rest_is_zero)
{
	struct new_options from = { .size = sizeof(from), .a = 1, .b = 2 };
	struct { struct old_options to; uint64_t after; } out = { .after = 7 };
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_options_copy(&out.to, sizeof(out.to), sizeof(out.to), &from, &error), 0);
	cr_assert_eq(out.to.size, sizeof(out.to));
	cr_assert_eq(out.to.b, 2);
	cr_assert_eq(out.after, 7);
	from.c = UINT64_C(1) << 63;
	from.a = 5;
	cr_assert_eq(godwit_options_copy(&out.to, sizeof(out.to), sizeof(out.to), &from, &error),
		     -E2BIG);
	cr_assert_eq(out.to.a, 1, "untouched");
	cr_assert_neq(error.text[0], 0);
}

Test(options, smaller_than_the_first_version_are_refused)
{
	struct old_options from = { .size = sizeof(from) - 1, .a = 1 };
	struct new_options to = { .a = 9 };
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_options_copy(&to, sizeof(to), sizeof(from), &from, &error), -EINVAL);
	cr_assert_eq(godwit_options_copy(&to, sizeof(to), sizeof(from), NULL, &error), -EINVAL);
	from.size = 0;
	cr_assert_eq(godwit_options_copy(&to, sizeof(to), sizeof(from), &from, NULL), -EINVAL);
	cr_assert_eq(to.a, 9);
}

Test(error, is_cut_where_it_does_not_fit_and_may_be_absent)
{
	struct godwit_error error;
	char text[600];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	godwit_error_set(&error, "%s %d", text, 3);
	cr_assert_eq(strlen(error.text), sizeof(error.text) - 1);
	godwit_error_set(&error, "%s %d", "page", 3);
	cr_assert_str_eq(error.text, "page 3");
	godwit_error_set(NULL, "%s", text);
}
