/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_stock.c - the stock stream: what is on the wire, byte by byte, and what is not
 *
 * Many rounds of it, with every kind of guest, are in test_rounds.c.
 */
#include <errno.h>

#include "../engine/pair.h"

#define ID 5

static const struct { uint32_t base; uint64_t bytes; } bases[] = {
	{ GODWIT_BASE_SIGNATURES, 1 << 20 },	/* a signature a line */
	{ GODWIT_BASE_SIGNATURES, 16 << 10 },	/* fewer, for the 64 pages that there are */
	{ GODWIT_BASE_SIGNATURES, 8 << 10 },
	{ GODWIT_BASE_PAGES, 1 << 20 },
};
#define NR_BASES (sizeof(bases) / sizeof(bases[0]))
#define PAGES 64

static struct pair_block *open_stock(struct pair *pair, uint32_t base, uint64_t base_bytes)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;

	params.base = base;
	params.base_bytes = base_bytes;
	params.workers = 1;	/* so that pieces come in the order of batches */
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	pair_open_stream(pair, &params, GODWIT_STREAM_STOCK);
	return pair_add_block(pair, ID, PAGES);
}

/* What a drain gives, read and kept. */
static size_t drain_to(struct pair *pair, uint8_t *bytes, size_t cap)
{
	struct iovec piece[8];
	size_t n = 0;
	int got;

	while ((got = godwit_source_drain(pair->source, NULL)) == GODWIT_QUEUE_COLLECT) {
		int pieces = godwit_source_collect(pair->source, 0, piece, 8);

		for (int i = 0; i < pieces; i++) {
			cr_assert_leq(n + piece[i].iov_len, cap);
			memcpy(bytes + n, piece[i].iov_base, piece[i].iov_len);
			n += piece[i].iov_len;
			stock_read(&pair->stock, piece[i].iov_base, piece[i].iov_len);
			pair->wire_bytes += piece[i].iov_len;
		}
		godwit_source_release(pair->source);
	}
	cr_assert_eq(got, GODWIT_QUEUE_OK);
	return n;
}

static void check_bytes(const uint8_t *bytes, size_t n, const void *want, size_t want_bytes, const char *what)
{
	cr_assert_eq(n, want_bytes, "%s: %zu bytes, not %zu", what, n, want_bytes);
	cr_assert(!memcmp(bytes, want, n), "%s", what);
}

Test(stock, is_on_the_wire_as_qemu_reads_it)
{
	/* Page 1 zero, page 2 whole behind the name of the block; then page 2 with one byte changed. */
	static const uint8_t zero[] = { 0, 0, 0, 0, 0, 0, 0x10, 0x02, 4, 'r', 'a', 'm', '5', 0 };
	static const uint8_t whole[] = { 0, 0, 0, 0, 0, 0, 0x20, 0x28 };
	static const uint8_t delta[] = { 0, 0, 0, 0, 0, 0, 0x20, 0x40, 4, 'r', 'a', 'm', '5', 1, 0, 4,
					 0x80, 0x02, 1, 'x' };	/* 256 kept, 1 new */
	static const uint8_t next[] = { 0, 0, 0, 0, 0, 0, 0x30, 0x22, 0 };
	uint8_t bytes[2 * PAGE], *page;
	struct pair_block *block;
	struct pair pair;
	uint64_t seed = 3;
	size_t n;

	block = open_stock(&pair, GODWIT_BASE_PAGES, 1 << 20);
	page = block->guest + 2 * PAGE;
	fill_text(page, &seed);
	page[256] = 'y';
	pair_queue(&pair, block, 1);
	pair_queue(&pair, block, 2);
	n = drain_to(&pair, bytes, sizeof(bytes));
	check_bytes(bytes, sizeof(zero), zero, sizeof(zero), "a zero page");
	check_bytes(bytes + sizeof(zero), sizeof(whole), whole, sizeof(whole), "the head of a whole page");
	check_bytes(bytes + sizeof(zero) + sizeof(whole), n - sizeof(zero) - sizeof(whole), page, PAGE,
		    "a whole page");
	page[256] = 'x';
	pair_queue(&pair, block, 2);
	pair_queue(&pair, block, 3);
	n = drain_to(&pair, bytes, sizeof(bytes));
	check_bytes(bytes, sizeof(delta), delta, sizeof(delta), "a delta");
	check_bytes(bytes + sizeof(delta), n - sizeof(delta), next, sizeof(next), "a zero page behind it");
	pair_check_sums(&pair);
	pair_close(&pair);
}

Test(stock, has_neither_head_nor_end_and_nothing_for_pages_that_are_the_same)
{
	struct iovec piece[8];
	struct pair_block *block;
	uint64_t seed = 4, wire_bytes;
	struct pair pair;

	for (unsigned i = 0; i < NR_BASES; i++) {
		block = open_stock(&pair, bases[i].base, bases[i].bytes);
		cr_assert_eq(godwit_source_collect(pair.source, 1, piece, 8), 0);
		cr_assert_eq(godwit_source_drain(pair.source, NULL), GODWIT_QUEUE_OK);
		cr_assert_eq(pair_stats(&pair).wire_bytes, 0);
		for (uint64_t page = 0; page < PAGES; page++)
			fill_text(block->guest + page * PAGE, &seed);
		pair_send_all(&pair);
		wire_bytes = pair.wire_bytes;
		/* More batches than there are buffers: empty pieces must give theirs back. */
		for (unsigned round = 0; round < 50; round++)
			pair_send_all(&pair);
		cr_assert_eq(pair.wire_bytes, wire_bytes);
		cr_assert_eq(pair_stats(&pair).same, 50 * PAGES);
		cr_assert_eq(pair_stats(&pair).retired_bytes, 51 * PAGES * PAGE);
		pair_check_equal(&pair, "same");
		pair_check_sums(&pair);
		pair_close(&pair);
	}
}

/* A -> B -> A, x -> 0 -> x, a fill, and one word in a page that was zero: from the first re-send on. */
Test(stock, sends_a_delta_from_the_second_send_on)
{
	struct pair_block *block;
	struct godwit_stats stats;
	uint8_t kept[PAGE], *page;
	uint64_t seed = 5;
	struct pair pair;

	for (unsigned i = 0; i < NR_BASES; i++) {
		block = open_stock(&pair, bases[i].base, bases[i].bytes);
		page = block->guest;
		fill_text(page, &seed);
		memcpy(kept, page, PAGE);
		pair_send_all(&pair);
		stats = pair_stats(&pair);
		cr_assert_eq(stats.raw, 1);
		cr_assert_eq(stats.base_misses, 1);
		cr_assert_eq(stats.zero, PAGES - 1);

		poke(page, 1, &seed);
		pair_send_all(&pair);
		pair_check_equal(&pair, "a word changed");
		memcpy(page, kept, PAGE);
		pair_send_all(&pair);
		pair_check_equal(&pair, "and back");
		stats = pair_stats(&pair);
		cr_assert_eq(stats.delta_lines + stats.delta_words, 2);
		cr_assert_eq(bases[i].base == GODWIT_BASE_PAGES ? stats.delta_lines : stats.delta_words, 0);
		cr_assert_eq(stats.base_hits, 2);

		memset(page, 0, PAGE);
		pair_send_all(&pair);
		poke(page, 1, &seed);
		pair_send_all(&pair);
		pair_check_equal(&pair, "a word in a page that was zero");
		memset(page, 0, PAGE);
		pair_send_all(&pair);
		memcpy(page, kept, PAGE);
		pair_send_all(&pair);
		pair_check_equal(&pair, "what it was before zero");
		fill_word(page, 0x4711);
		pair_send_all(&pair);
		pair_check_equal(&pair, "a fill");
		stats = pair_round_stats(&pair, 0);
		cr_assert_eq(stats.fill, 0, "QEMU's stream has no fill");
		cr_assert_eq(stats.delta_lines + stats.delta_words + stats.raw, 1);
		cr_assert_eq(pair_stats(&pair).base_misses, 1, "known ever since");
		pair_check_sums(&pair);
		pair_close(&pair);
	}
}

Test(stock, sends_whole_what_it_was_not_to_remember)
{
	struct pair_block *block;
	uint64_t seed = 5;
	struct pair pair;

	for (unsigned i = 0; i < NR_BASES; i++) {
		block = open_stock(&pair, bases[i].base, bases[i].bytes);
		godwit_source_remember_new(pair.source, 0);
		for (unsigned time = 0; time < 3; time++) {
			if (time == 1)
				godwit_source_remember_new(pair.source, 1);
			fill_text(block->guest, &seed);
			pair_send_all(&pair);
			pair_check_equal(&pair, "new");
			cr_assert_eq(pair_stats(&pair).base_misses, time ? 2 : 1);
			cr_assert_eq(pair_stats(&pair).base_hits, time == 2);
		}
		pair_check_sums(&pair);
		pair_close(&pair);
	}
}

/* x, forgotten, 0, x: what is kept of x is of no more use, and nobody but the state of the page says so. */
Test(stock, does_not_believe_what_it_kept_from_before_it_forgot)
{
	struct pair_block *block;
	uint8_t kept[PAGE];
	uint64_t seed = 9;
	struct pair pair;

	for (unsigned i = 0; i < NR_BASES; i++) {
		block = open_stock(&pair, bases[i].base, bases[i].bytes);
		fill_text(block->guest, &seed);
		memcpy(kept, block->guest, PAGE);
		pair_send_all(&pair);
		cr_assert_eq(godwit_source_forget(pair.source, ID, 0, 1), 0);
		memset(block->guest, 0, PAGE);
		pair_send_all(&pair);
		memcpy(block->guest, kept, PAGE);
		pair_send_all(&pair);
		pair_check_equal(&pair, "what it was before it was forgotten");
		pair_check_sums(&pair);
		pair_close(&pair);
	}
}

Test(stock, sends_a_page_whole_when_a_delta_would_be_as_long)
{
	struct pair_block *block;
	struct godwit_stats stats;
	uint64_t seed = 6;
	struct pair pair;

	for (unsigned i = 0; i < NR_BASES; i++) {
		uint64_t granule;

		block = open_stock(&pair, bases[i].base, bases[i].bytes);
		fill_random(block->guest, &seed);
		pair_send_all(&pair);
		/* All lines but those of one signature. */
		granule = pair_stats(&pair).base_granule_bytes;
		for (unsigned at = 0; at < PAGE - (granule ? granule : 64); at++)
			block->guest[at] ^= 0xff;
		pair_send_all(&pair);
		pair_check_equal(&pair, "nearly all");
		stats = pair_round_stats(&pair, 0);
		cr_assert_eq(stats.delta_lines + stats.delta_words, 1);
		cr_assert_eq(stats.overflow, 0);
		cr_assert_lt(stats.delta_payload_bytes, PAGE);
		for (unsigned at = 0; at < PAGE; at++)
			block->guest[at] ^= 0xff;
		pair_send_all(&pair);
		pair_check_equal(&pair, "all");
		stats = pair_round_stats(&pair, 0);
		cr_assert_eq(stats.delta_lines + stats.delta_words, 0);
		cr_assert_eq(stats.overflow, 1);
		cr_assert_eq(stats.raw, 1);
		/* And what went whole is known. */
		pair_send_all(&pair);
		cr_assert_eq(pair_round_stats(&pair, 0).same, 1);
		pair_check_sums(&pair);
		pair_close(&pair);
	}
}

/* Pieces, kept one by one. */
struct pieces {
	uint8_t bytes[64][GODWIT_FRAME_MAX_BYTES];
	size_t nr_bytes[64];
	unsigned n;
};

static void keep_pieces(struct pair *pair, struct pieces *kept)
{
	struct iovec piece[4];
	int n = godwit_source_collect(pair->source, 1, piece, 4);

	for (int i = 0; i < n; i++) {
		cr_assert_lt(kept->n, 64);
		memcpy(kept->bytes[kept->n], piece[i].iov_base, piece[i].iov_len);
		kept->nr_bytes[kept->n++] = piece[i].iov_len;
	}
	godwit_source_release(pair->source);
}

/* Between two drains pieces may be written in any order, each behind anything. */
Test(stock, is_made_of_pieces_that_stand_for_themselves)
{
	struct pieces *kept = calloc(1, sizeof(*kept));
	struct pair_block *block[2];
	struct pair pair;
	uint64_t seed = 7;
	int got;

	block[0] = open_stock(&pair, GODWIT_BASE_SIGNATURES, 1 << 20);
	block[1] = pair_add_block(&pair, ID + 1, PAGES);
	for (unsigned b = 0; b < 2; b++)
		for (uint64_t page = 0; page < PAGES; page++)
			fill_text(block[b]->guest + page * PAGE, &seed);
	for (uint64_t page = 0; page < PAGES; page++) {
		const struct pair_block *of = block[page / 7 % 2];	/* runs of seven pages */

		while ((got = godwit_source_queue(pair.source, of->id, page, of->guest + page * PAGE, NULL)) ==
		       GODWIT_QUEUE_COLLECT)
			keep_pieces(&pair, kept);
		cr_assert_eq(got, GODWIT_QUEUE_OK);
	}
	while ((got = godwit_source_drain(pair.source, NULL)) == GODWIT_QUEUE_COLLECT)
		keep_pieces(&pair, kept);
	cr_assert_eq(got, GODWIT_QUEUE_OK);
	cr_assert_eq(kept->n, (PAGES + 6) / 7);
	while (kept->n--)
		stock_read(&pair.stock, kept->bytes[kept->n], kept->nr_bytes[kept->n]);
	for (uint64_t page = 0; page < PAGES; page++) {
		const struct pair_block *of = block[page / 7 % 2];

		cr_assert(!memcmp(of->guest + page * PAGE, of->copy + page * PAGE, PAGE), "page %llu",
			  (unsigned long long)page);
	}
	pair_close(&pair);
	free(kept);
}

Test(stock, needs_the_names_of_blocks)
{
	struct godwit_error error = { "" };
	struct pair_block *block;
	char name[257];
	struct pair pair;

	block = open_stock(&pair, GODWIT_BASE_SIGNATURES, 0);
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	cr_assert_eq(godwit_source_add_block(pair.source, 1, NULL, NULL, PAGE, &error), -EINVAL);
	cr_assert(strstr(error.text, "name"), "%s", error.text);
	cr_assert_eq(godwit_source_add_block(pair.source, 1, "", NULL, PAGE, &error), -EINVAL);
	cr_assert_eq(godwit_source_add_block(pair.source, 1, name, NULL, PAGE, &error), -EINVAL);
	name[255] = '\0';
	cr_assert_eq(godwit_source_add_block(pair.source, 1, name, NULL, PAGE, &error), 0, "%s", error.text);
	cr_assert_eq(godwit_source_add_block(pair.source, 1, name, NULL, PAGE, &error), -EEXIST);
	stock_add_block(&pair.stock, name, block->copy, PAGE);
	cr_assert_eq(godwit_source_queue(pair.source, 1, 0, block->guest, &error), 0, "%s", error.text);
	pair_drain(&pair);
	cr_assert_eq(pair.stock.zero, 1);
	cr_assert_eq(godwit_source_remove_block(pair.source, 1, &error), 0);
	cr_assert_eq(godwit_source_remove_block(pair.source, 1, &error), -ENOENT);
	pair_close(&pair);
}

Test(stock, hands_pages_back_when_busy_and_forgets_them)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;
	struct pair_block *block;
	uint64_t seed = 8, busy;
	struct pair pair;

	params.workers = 1;
	params.when_busy = GODWIT_WHEN_BUSY_RAW;
	pair_open_stream(&pair, &params, GODWIT_STREAM_STOCK);
	block = pair_add_block(&pair, ID, 4096);
	for (uint64_t page = 0; page < 4096; page++)
		fill_text(block->guest + page * PAGE, &seed);
	/* A worker reads and copies pages that this loop only names. */
	do {
		pair_send_all(&pair);
		busy = pair_round_stats(&pair, 0).busy;
		pair_check_sums(&pair);
	} while (!busy);
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
	pair_send_all(&pair);
	cr_assert_eq(pair_round_stats(&pair, 0).raw, busy, "what the caller sent is not known any more");
	cr_assert_eq(pair_round_stats(&pair, 0).same, 4096 - busy);
	pair_check_equal(&pair, "busy");
	pair_check_sums(&pair);
	pair_close(&pair);
}

Test(stock, is_one_of_two_streams_and_has_no_rung)
{
	struct godwit_source_options options = GODWIT_SOURCE_OPTIONS_INIT;
	struct godwit_source *source = NULL;
	struct godwit_error error = { "" };
	struct pair pair;

	options.stream = GODWIT_STREAM_STOCK + 1;
	cr_assert_eq(godwit_source_create(&options, &source, &error), -EINVAL);
	cr_assert(strstr(error.text, "stream"), "%s", error.text);
	cr_assert_null(source);
	open_stock(&pair, GODWIT_BASE_SIGNATURES, 0);
	pair_send_all(&pair);
	cr_assert_str_eq(pair_stats(&pair).rung, "xbzrle");
	pair_close(&pair);
}
