/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The base: what is kept when it is laid out anew, when blocks come and go, and when pages go past it. */
#include "base_model.h"

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

/* From one kind and size to signatures of another size. */
static void keep_everything(uint32_t kind, uint64_t from, uint64_t to)
{
	struct model m;
	struct count is;

	fill_model(&m, kind, from);
	lay_out(&m, GODWIT_BASE_SIGNATURES, to);
	is = count(&m);
	cr_assert_eq(is.known, KNOWN, "from %lu to %lu", from, to);
	cr_assert_eq(is.hits, KNOWN, "from %lu to %lu", from, to);
	cr_assert_eq(is.zero, ZEROS, "from %lu to %lu", from, to);
	model_fini(&m);
}

Test(base, keeps_everything_when_signatures_become_coarser)
{
	static const uint64_t ways[][2] = {
		{ BYTES_64, BYTES_128 }, { BYTES_64, BYTES_256 }, { BYTES_128, BYTES_256 },
	};

	for (unsigned i = 0; i < 3; i++)
		keep_everything(GODWIT_BASE_SIGNATURES, ways[i][0], ways[i][1]);
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

	for (unsigned i = 0; i < 3; i++)
		keep_everything(GODWIT_BASE_PAGES, 160 * 5000, to[i]);
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
		send_page(&m, &m.block[0], page);
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
