/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_source.c - the source by itself: kinds of pages, rungs, parameters, options, order, collect, busy
 *
 * What it counts is in test_source_stats.c, what it holds and gives back in test_source_memory.c, property
 * tests over many rounds in tests/api/test_rounds.c.
 */
#include <errno.h>
#include <unistd.h>

#include "engine/frame.h"
#include "engine/options.h"
#include "pair.h"

/* ---- kinds ---- */

Test(source, sends_each_kind_of_page_and_counts_it)
{
	struct godwit_params params = params_with("zstd1", GODWIT_BASE_SIGNATURES);
	struct godwit_stats stats;
	struct pair pair;

	open_with_kinds(&pair, &params);
	pair_send_all(&pair);
	pair_check_equal(&pair, "first round");
	stats = pair_stats(&pair);
	cr_assert_eq(stats.pages, PAGES_OF_KINDS);
	cr_assert_eq(stats.zero, 1);
	cr_assert_eq(stats.fill, 1);
	/* Both in one block of the LZ stage, which shrinks: both count as whole. */
	cr_assert_eq(stats.whole + stats.raw, 2);
	cr_assert_eq(stats.base_misses, 2);
	pair_check_sums(&pair);
	pair_close(&pair);
}

Test(source, sends_unchanged_pages_as_nothing)
{
	struct godwit_stats stats;
	struct pair pair;

	open_with_kinds(&pair, NULL);
	pair_send_all(&pair);
	pair_send_all(&pair);
	pair_check_equal(&pair, "second round");
	stats = pair_round_stats(&pair, 0);
	cr_assert_eq(stats.pages, PAGES_OF_KINDS);
	cr_assert_eq(stats.zero, 1);
	cr_assert_eq(stats.fill, 1);
	cr_assert_eq(stats.same, 2);
	cr_assert_lt(stats.wire_bytes, 200);
	pair_close(&pair);
}

Test(source, sends_a_changed_word_as_a_line_with_signatures)
{
	struct godwit_params params = params_with("none", GODWIT_BASE_SIGNATURES);
	struct pair_block *block;
	struct godwit_stats stats;
	struct pair pair;

	block = open_with_kinds(&pair, &params);
	pair_send_all(&pair);
	block->guest[PAGE_TEXT * PAGE + 1000] ^= 1;
	pair_queue(&pair, block, PAGE_TEXT);
	pair_drain(&pair);
	pair_check_equal(&pair, "one byte changed");
	stats = pair_stats(&pair);
	cr_assert_eq(stats.delta_lines, 1);
	cr_assert_eq(stats.delta_payload_bytes, 8 + stats.base_granule_bytes);
	cr_assert_eq(stats.delta_guest_bytes, PAGE);
	pair_close(&pair);
}

Test(source, sends_a_changed_word_as_a_word_with_old_pages)
{
	struct godwit_params params = params_with("none", GODWIT_BASE_PAGES);
	struct pair_block *block;
	struct godwit_stats stats;
	struct pair pair;

	params.base_bytes = 1 << 20;
	block = open_with_kinds(&pair, &params);
	pair_send_all(&pair);
	block->guest[PAGE_TEXT * PAGE + 1000] ^= 1;
	pair_queue(&pair, block, PAGE_TEXT);
	pair_drain(&pair);
	pair_check_equal(&pair, "one byte changed");
	stats = pair_stats(&pair);
	cr_assert_eq(stats.delta_words, 1);
	cr_assert_eq(stats.delta_payload_bytes, 8 + 1 + 8);
	pair_close(&pair);
}

Test(source, sends_a_page_whole_when_most_of_it_changed)
{
	struct pair_block *block;
	struct godwit_stats stats;
	uint64_t seed = 5;
	struct pair pair;

	block = open_with_kinds(&pair, NULL);
	pair_send_all(&pair);
	fill_text(block->guest + PAGE_RANDOM * PAGE, &seed);
	pair_queue(&pair, block, PAGE_RANDOM);
	pair_drain(&pair);
	pair_check_equal(&pair, "rewritten");
	stats = pair_stats(&pair);
	cr_assert_eq(stats.overflow, 1);
	cr_assert_eq(stats.delta_lines, 0);
	pair_close(&pair);
}

Test(source, knows_nothing_with_the_base_off)
{
	struct godwit_params params = params_with("lz4", GODWIT_BASE_OFF);
	struct godwit_stats stats;
	struct pair pair;

	open_with_kinds(&pair, &params);
	pair_send_all(&pair);
	pair_send_all(&pair);
	pair_check_equal(&pair, "second round");
	stats = pair_stats(&pair);
	cr_assert_eq(stats.same + stats.delta_lines + stats.delta_words, 0);
	cr_assert_eq(stats.base_hits, 0);
	cr_assert_eq(stats.base, GODWIT_BASE_OFF);
	cr_assert_eq(stats.base_granule_bytes, 0);
	pair_close(&pair);
}

Test(source, returns_to_zero_and_back_without_a_stale_page)
{
	struct pair_block *block;
	uint64_t seed = 9;
	struct pair pair;

	for (uint32_t base = GODWIT_BASE_SIGNATURES; base <= GODWIT_BASE_OFF; base++) {
		struct godwit_params params = params_with("zstd1", base);
		uint8_t kept[PAGE];

		block = open_with_kinds(&pair, &params);
		pair_send_all(&pair);
		memcpy(kept, block->guest + PAGE_TEXT * PAGE, PAGE);
		memset(block->guest + PAGE_TEXT * PAGE, 0, PAGE);
		pair_send_all(&pair);
		pair_check_equal(&pair, "zero");
		memcpy(block->guest + PAGE_TEXT * PAGE, kept, PAGE);
		pair_send_all(&pair);
		pair_check_equal(&pair, "what it was before zero");
		fill_word(block->guest + PAGE_TEXT * PAGE, 42);
		pair_send_all(&pair);
		memset(block->guest + PAGE_TEXT * PAGE, 0, PAGE);
		poke(block->guest + PAGE_TEXT * PAGE, 1, &seed);
		pair_send_all(&pair);
		pair_check_equal(&pair, "one word after a fill");
		pair_close(&pair);
	}
}

/* ---- rungs and codecs ---- */

Test(source, goes_through_the_codec_that_was_asked_for)
{
	static const struct { const char *rung; unsigned codec; } cases[] = {
		{ "none", GODWIT_CODEC_NONE }, { "lz4", GODWIT_CODEC_LZ4 }, { "lz4:8", GODWIT_CODEC_LZ4 },
		{ "zstd1", GODWIT_CODEC_ZSTD }, { "zstd-5", GODWIT_CODEC_ZSTD }, { "zlib6", GODWIT_CODEC_ZLIB },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct godwit_params params = params_with(cases[i].rung, GODWIT_BASE_SIGNATURES);
		struct godwit_stats stats;
		uint64_t seed = i + 1;
		struct pair pair;

		pair_open(&pair, &params);
		struct pair_block *block = pair_add_block(&pair, 0, 200);

		for (unsigned page = 0; page < 200; page++)
			fill_text(block->guest + page * PAGE, &seed);
		pair_send_all(&pair);
		pair_check_equal(&pair, cases[i].rung);
		stats = pair_stats(&pair);
		for (unsigned codec = 0; codec < GODWIT_CODECS; codec++)
			cr_assert_eq(stats.codec_in_bytes[codec], codec == cases[i].codec ? 200 * PAGE : 0,
				     "rung %s, codec %u", cases[i].rung, codec);
		cr_assert_str_eq(stats.rung, cases[i].rung);
		if (cases[i].codec == GODWIT_CODEC_NONE) {
			cr_assert_eq(stats.raw, 200);
		} else {
			cr_assert_eq(stats.whole, 200);
			cr_assert_eq(stats.compressed_pages, 200);
			cr_assert_gt(stats.compression_rate, 1.5);
		}
		pair_close(&pair);
	}
}

/*
 * A worker reads the rung when it begins a batch, and may be slow to begin: unless one batch is seen to be
 * done, none need have begun before the change.
 */
Test(source, follows_a_change_of_rung_from_the_next_batch)
{
	struct godwit_params params = params_with("none", GODWIT_BASE_OFF);
	struct pair_block *block;
	struct godwit_stats stats;
	uint64_t seed = 3;
	struct pair pair;

	pair_open(&pair, &params);
	block = pair_add_block(&pair, 0, 1024);
	for (unsigned page = 0; page < 1024; page++)
		fill_text(block->guest + page * PAGE, &seed);
	for (unsigned page = 0; page < 1024; page++) {
		if (page == 512) {
			while (!pair_stats(&pair).codec_in_bytes[GODWIT_CODEC_NONE])
				usleep(100);
			params.rung = "zstd1";
			cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
		}
		pair_queue(&pair, block, page);
	}
	pair_drain(&pair);
	pair_check_equal(&pair, "rung changed on the way");
	stats = pair_stats(&pair);
	/* What was in flight at the change may have gone either way, what was queued after it may not. */
	cr_assert_geq(stats.codec_in_bytes[GODWIT_CODEC_ZSTD], 512 * PAGE);
	cr_assert_gt(stats.codec_in_bytes[GODWIT_CODEC_NONE], 0);
	cr_assert_eq(stats.codec_in_bytes[GODWIT_CODEC_ZSTD] + stats.codec_in_bytes[GODWIT_CODEC_NONE],
		     1024 * PAGE);
	pair_close(&pair);
}

Test(source, starts_and_ends_workers_while_pages_flow)
{
	static const uint32_t workers[] = { 5, 1, 3, 8, 2 };
	struct godwit_params params = params_with("lz4", GODWIT_BASE_SIGNATURES);
	struct pair_block *block;
	uint64_t seed = 3;
	unsigned threads;
	struct pair pair;

	pair_open(&pair, &params);
	block = pair_add_block(&pair, 0, 1024);
	threads = count_threads() - params.workers;	/* all but the encoders */
	for (unsigned i = 0; i < sizeof(workers) / sizeof(workers[0]); i++) {
		for (unsigned page = 0; page < 1024; page++) {
			poke(block->guest + page * PAGE, 20, &seed);
			if (page == 300) {
				params.workers = workers[i];
				cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
			}
			pair_queue(&pair, block, page);
		}
		pair_drain(&pair);
		pair_check_equal(&pair, "workers changed");
		cr_assert_eq(pair_stats(&pair).workers, workers[i]);
		cr_assert_eq(count_threads(), threads + workers[i]);
	}
	pair_check_sums(&pair);
	pair_close(&pair);
}

Test(source, keeps_what_it_knows_when_the_base_becomes_smaller)
{
	/* 800 pages of signatures: 400 KiB at 64 bytes, 200 at 128, 100 at 256. */
	static const uint64_t sizes[] = { 450 << 10, 230 << 10, 120 << 10 };
	struct godwit_params params = params_with("lz4", GODWIT_BASE_SIGNATURES);
	struct pair_block *block;
	struct godwit_stats stats;
	uint64_t seed = 3;
	struct pair pair;

	params.base_bytes = sizes[0];
	pair_open(&pair, &params);
	block = pair_add_block(&pair, 0, 800);
	for (unsigned page = 0; page < 800; page++)
		fill_text(block->guest + page * PAGE, &seed);
	pair_send_all(&pair);
	for (unsigned i = 0; i < 3; i++) {
		params.base_bytes = sizes[i];
		cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
		pair_drain(&pair);
		pair_send_all(&pair);
		stats = pair_round_stats(&pair, 0);
		cr_assert_eq(stats.base_granule_bytes, 64u << i);
		cr_assert_leq(stats.base_bytes, sizes[i]);
		cr_assert_eq(stats.same, 800, "%llu of 800 known at %u bytes", (unsigned long long)stats.same,
			     stats.base_granule_bytes);
	}
	pair_check_equal(&pair, "coarser twice");
	pair_close(&pair);
}

/* ---- parameters and options ---- */

static void check_refused(struct pair *pair, const struct godwit_params *params, int err, const char *word)
{
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_source_set_params(pair->source, params, &error), err, "%s", word);
	cr_assert_neq(strstr(error.text, word), NULL, "'%s' does not name %s", error.text, word);
	cr_assert_eq(godwit_params_check(params, &error), err, "%s, without a source", word);
}

Test(source, refuses_wrong_parameters_with_the_reason_and_changes_nothing)
{
	struct godwit_params good = params_with("lz4", GODWIT_BASE_SIGNATURES), bad;
	struct pair_block *block;
	struct godwit_stats stats;
	uint64_t seed = 4;
	struct pair pair;

	pair_open(&pair, &good);
	block = pair_add_block(&pair, 0, 64);
	for (unsigned page = 0; page < 64; page++)
		fill_text(block->guest + page * PAGE, &seed);

	static const char *const wrong_rungs[] = { "", "zstd", "zstd0", "zstd20", "zstd-21", "zstd1 ", "ZSTD1",
						   "lz4:0", "lz4:66", "zlib0", "zlib10", "snappy", "none1" };
	for (size_t i = 0; i < sizeof(wrong_rungs) / sizeof(wrong_rungs[0]); i++) {
		bad = good;
		bad.rung = wrong_rungs[i];
		check_refused(&pair, &bad, -EINVAL, "rung");
	}
	bad = good;
	bad.workers = GODWIT_MAX_WORKERS + 1;
	check_refused(&pair, &bad, -EINVAL, "workers");
	bad = good;
	bad.base = GODWIT_BASE_OFF + 1;
	check_refused(&pair, &bad, -EINVAL, "base");
	bad = good;
	bad.when_busy = GODWIT_WHEN_BUSY_RAW + 1;
	check_refused(&pair, &bad, -EINVAL, "when_busy");
	bad = good;
	bad.reserved = 1;
	check_refused(&pair, &bad, -EINVAL, "reserved");

	cr_assert_eq(godwit_params_check(&good, NULL), 0);

	pair_send_all(&pair);
	stats = pair_stats(&pair);
	cr_assert_eq(stats.codec_in_bytes[GODWIT_CODEC_LZ4], 64 * PAGE);
	cr_assert_eq(stats.workers, 2);
	cr_assert_eq(stats.base, GODWIT_BASE_SIGNATURES);
	pair_close(&pair);
}

Test(source, takes_options_by_their_size)
{
	struct {
		struct godwit_source_options known;
		uint64_t tail;
	} newer = { .known = GODWIT_SOURCE_OPTIONS_INIT };
	struct godwit_source_options options = GODWIT_SOURCE_OPTIONS_INIT;
	struct godwit_source *source = (void *)1;
	struct godwit_error error = { "" };

	/* Smaller than the first version. */
	options.size = sizeof(options) - 8;
	cr_assert_eq(godwit_source_create(&options, &source, &error), -EINVAL);
	cr_assert_gt(strlen(error.text), 0);
	options.size = 0;
	cr_assert_eq(godwit_source_create(&options, &source, &error), -EINVAL);
	cr_assert_eq(source, (void *)1, "nothing is handed out on failure");
	/* Ours. */
	options.size = sizeof(options);
	cr_assert_eq(godwit_source_create(&options, &source, &error), 0, "%s", error.text);
	godwit_source_destroy(source);
	/* Larger, unknown tail zero. */
	newer.known.size = sizeof(newer);
	cr_assert_eq(godwit_source_create(&newer.known, &source, &error), 0, "%s", error.text);
	godwit_source_destroy(source);
	/* Larger, asking for something. */
	newer.tail = 1;
	error.text[0] = '\0';
	cr_assert_eq(godwit_source_create(&newer.known, &source, &error), -E2BIG);
	cr_assert_gt(strlen(error.text), 0);
	/* The nested struct has a size of its own. */
	options.params.size = 4;
	cr_assert_eq(godwit_source_create(&options, &source, &error), -EINVAL);
}

Test(source, takes_parameters_by_their_size)
{
	struct {
		struct godwit_params known;
		uint64_t tail;
	} newer = { .known = GODWIT_PARAMS_INIT };
	struct godwit_params params = GODWIT_PARAMS_INIT;
	struct pair pair;

	pair_open(&pair, NULL);
	params.size = sizeof(params) - 8;
	check_refused(&pair, &params, -EINVAL, "");
	newer.known.size = sizeof(newer);
	cr_assert_eq(godwit_source_set_params(pair.source, &newer.known, NULL), 0);
	newer.tail = 1;
	check_refused(&pair, &newer.known, -E2BIG, "");
	pair_close(&pair);
}

Test(source, reads_an_older_callers_options_as_zero_where_they_end)
{
	struct { size_t size; uint64_t a, b; } ours = { 9, 9, 9 };
	struct { size_t size; uint64_t a; } older = { sizeof(older), 5 };

	cr_assert_eq(godwit_options_copy(&ours, sizeof(ours), sizeof(older), &older, NULL), 0);
	cr_assert_eq(ours.a, 5);
	cr_assert_eq(ours.b, 0);
	cr_assert_eq(ours.size, sizeof(ours));
}

Test(source, gives_an_older_caller_as_many_statistics_as_it_knows)
{
	union {
		struct godwit_stats stats;
		uint8_t bytes[sizeof(struct godwit_stats)];
	} u;
	struct pair pair;
	const size_t known = offsetof(struct godwit_stats, same);

	open_with_kinds(&pair, NULL);
	pair_send_all(&pair);
	memset(&u, 0xEE, sizeof(u));
	u.stats.size = known;
	cr_assert_eq(godwit_source_stats(pair.source, &u.stats), 0);
	cr_assert_eq(u.stats.pages, PAGES_OF_KINDS);
	cr_assert_eq(u.stats.fill, 1);
	for (size_t i = known; i < sizeof(u); i++)
		cr_assert_eq(u.bytes[i], 0xEE, "byte %zu was written", i);
	u.stats.size = 0;
	cr_assert_eq(godwit_source_stats(pair.source, &u.stats), -EINVAL);
	pair_close(&pair);
}

/* ---- what cannot be asked for ---- */

Test(source, names_the_block_or_the_page_that_is_not_there)
{
	struct godwit_error error = { "" };
	uint8_t page[PAGE] = { 0 };
	struct pair pair;

	open_with_kinds(&pair, NULL);
	cr_assert_eq(godwit_source_queue(pair.source, 8, 0, page, &error), -ENOENT);
	cr_assert_neq(strstr(error.text, "8"), NULL);
	cr_assert_eq(godwit_source_queue(pair.source, GODWIT_MAX_BLOCKS, 0, page, &error), -ENOENT);
	cr_assert_eq(godwit_source_queue(pair.source, 7, PAGES_OF_KINDS, page, &error), -ERANGE);
	cr_assert_neq(strstr(error.text, "4"), NULL);
	cr_assert_eq(godwit_source_forget(pair.source, 8, 0, 1), -ENOENT);
	cr_assert_eq(godwit_source_remove_block(pair.source, 8, &error), -ENOENT);
	cr_assert_eq(godwit_source_add_block(pair.source, 7, "again", NULL, PAGE, &error), -EEXIST);
	cr_assert_eq(godwit_source_add_block(pair.source, GODWIT_MAX_BLOCKS, "x", NULL, PAGE, &error), -EINVAL);
	cr_assert_eq(godwit_source_add_block(pair.source, 9, "x", NULL, PAGE + 1, &error), -EINVAL);
	cr_assert_eq(godwit_source_add_block(pair.source, 9, "x", NULL, 0, &error), -EINVAL);
	pair_send_all(&pair);
	pair_check_equal(&pair, "after refusals");
	pair_close(&pair);
}

static void check_not_drained(struct pair *pair)
{
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_source_add_block(pair->source, 9, "x", NULL, PAGE, &error), -EBUSY);
	cr_assert_eq(godwit_source_remove_block(pair->source, 7, &error), -EBUSY);
	cr_assert_eq(godwit_source_round(pair->source), -EBUSY);
}

Test(source, changes_no_block_and_begins_no_round_unless_drained)
{
	struct pair_block *block;
	struct pair pair;

	block = open_with_kinds(&pair, NULL);
	pair_send_all(&pair);
	pair_queue(&pair, block, 1);
	check_not_drained(&pair);
	pair_drain(&pair);
	cr_assert_eq(godwit_source_round(pair.source), 0);
	pair_close(&pair);
}

/* Two frames of a page with no drain frame between them may be applied in any order. */
Test(source, is_not_drained_when_all_was_collected_and_no_drain_asked_for)
{
	for (uint32_t stream = GODWIT_STREAM_GODWIT; stream <= GODWIT_STREAM_STOCK; stream++) {
		struct pair_block *block;
		uint64_t seed = 3;
		struct pair pair;

		pair_open_stream(&pair, NULL, stream);
		block = pair_add_block(&pair, 7, GODWIT_BATCH_PAGES);
		for (unsigned page = 0; page < GODWIT_BATCH_PAGES; page++)
			fill_random(block->guest + page * PAGE, &seed);
		/* A full batch goes to a worker by itself. */
		for (unsigned page = 0; page < GODWIT_BATCH_PAGES; page++)
			pair_queue(&pair, block, page);
		while (pair.wire_bytes < GODWIT_BATCH_PAGES * PAGE)
			pair_write_frames(&pair, 1);
		check_not_drained(&pair);
		pair_drain(&pair);
		pair_check_equal(&pair, "drained");
		cr_assert_eq(godwit_source_round(pair.source), 0);
		pair_remove_block(&pair, 0);
		pair_close(&pair);
	}
}

Test(source, takes_pages_in_any_order_and_of_any_block)
{
	struct pair_block *block[3];
	struct pair pair;
	uint64_t seed = 21;

	pair_open(&pair, NULL);
	for (unsigned b = 0; b < 3; b++) {
		block[b] = pair_add_block(&pair, 10 - b, 200);
		for (uint64_t page = 0; page < 200; page++)
			fill_text(block[b]->guest + page * PAGE, &seed);
	}
	for (unsigned round = 0; round < 4; round++) {
		cr_assert_eq(godwit_source_round(pair.source), 0);
		/* 77 and 200 have no common factor: every page once, and each run ends above the next's start. */
		for (uint64_t i = 0; i < 200; i++) {
			for (unsigned b = 0; b < 3; b++) {
				uint64_t page = round % 2 ? 199 - i : (77 * i + b) % 200;

				poke(block[b]->guest + page * PAGE, 1, &seed);
				pair_queue(&pair, block[b], page);
			}
		}
		pair_drain(&pair);
		pair_check_equal(&pair, "in any order");
	}
	cr_assert_eq(pair_stats(&pair).pages, 4 * 3 * 200);
	cr_assert_gt(pair_stats(&pair).delta_lines, 0);
	pair_check_sums(&pair);
	pair_close(&pair);
}

/* ---- collect and release ---- */

Test(source, gives_nothing_below_the_collect_threshold_unless_forced)
{
	struct pair_block *block;
	struct iovec piece[8];
	struct pair pair;
	int pieces = 0;

	block = open_with_kinds(&pair, NULL);
	pair_send_all(&pair);
	pair_queue(&pair, block, 0);
	/* An open batch is no frame yet, and one frame of a zero page is far from 32 KiB. */
	cr_assert_eq(godwit_source_collect(pair.source, 0, piece, 8), 0);
	cr_assert_eq(godwit_source_collect(pair.source, 1, piece, 0), 0);
	cr_assert_eq(godwit_source_drain(pair.source, NULL), GODWIT_QUEUE_COLLECT);
	pieces = godwit_source_collect(pair.source, 0, piece, 8);
	cr_assert_eq(pieces, 1);
	cr_assert_eq(godwit_source_collect(pair.source, 1, piece, 8), 0, "a second collect before release");
	godwit_source_release(pair.source);
	godwit_source_release(pair.source);
	pair_close(&pair);
}

/* What waits for a link is encoded at an old price: so little does, until the link's speed is known. */
Test(source, encodes_little_ahead_of_a_link_it_does_not_know)
{
	const unsigned line = (512u << 10) / PAGE, pages = 4 * line;
	struct godwit_params params = params_with("none", GODWIT_BASE_OFF);
	struct pair_block *block;
	uint64_t seed = 3;
	struct pair pair;
	unsigned queued = 0;

	pair_open(&pair, &params);
	block = pair_add_block(&pair, 0, pages);
	for (unsigned page = 0; page < pages; page++)
		fill_random(block->guest + page * PAGE, &seed);
	while (queued < pages && godwit_source_queue(pair.source, 0, queued, block->guest + queued * PAGE, NULL) ==
				 GODWIT_QUEUE_OK)
		queued++;
	/* The line, a batch for either worker, and the one that is open. */
	cr_expect_geq(queued, line);
	cr_expect_leq(queued, line + 3 * GODWIT_BATCH_PAGES);
	pair_drain(&pair);
	pair_send_all(&pair);
	pair_check_equal(&pair, "after a queue that waited");
	pair_close(&pair);
}

Test(source, goes_on_after_frames_were_thrown_away_and_their_pages_forgotten)
{
	struct pair_block *block;
	struct iovec piece[8];
	struct pair pair;
	int got;

	block = open_with_kinds(&pair, NULL);
	pair_send_all(&pair);
	cr_assert_eq(godwit_source_forget(pair.source, 7, 0, PAGES_OF_KINDS), 0);
	block->guest[PAGE_TEXT * PAGE] ^= 1;
	pair_send_all(&pair);
	pair_check_equal(&pair, "after forgetting");
	cr_assert_eq(pair_round_stats(&pair, 0).same, 0, "what is forgotten is not the same");
	while ((got = godwit_source_drain(pair.source, NULL)) == GODWIT_QUEUE_COLLECT) {
		godwit_source_collect(pair.source, 1, piece, 8);
		godwit_source_release(pair.source);
	}
	cr_assert_eq(got, 0);
	pair_close(&pair);
}

/* ---- busy ---- */

Test(source, hands_pages_back_when_busy_and_forgets_them)
{
	struct godwit_params params = params_with("lz4", GODWIT_BASE_SIGNATURES);
	struct pair_block *block;
	struct godwit_stats stats;
	uint64_t seed = 8, handed_back;
	struct pair pair;

	params.workers = 1;
	pair_open(&pair, &params);
	block = pair_add_block(&pair, 0, 2000);
	for (unsigned page = 0; page < 2000; page++)
		fill_text(block->guest + page * PAGE, &seed);
	pair_send_all(&pair);

	/* Every page is known. Now each is written, and one worker at zstd 19 cannot keep up. */
	params.rung = "zstd19";
	params.when_busy = GODWIT_WHEN_BUSY_RAW;
	cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
	for (unsigned page = 0; page < 2000; page++)
		fill_text(block->guest + page * PAGE, &seed);
	pair_send_all(&pair);
	pair_check_equal(&pair, "some by the caller");
	stats = pair_round_stats(&pair, 0);
	handed_back = stats.busy;
	cr_assert_gt(handed_back, 0, "zstd 19 in one worker keeps up with a loop that does nothing");
	cr_assert_float_eq(stats.busy_rate, (double)stats.busy / (double)stats.pages, 1e-9);
	pair_check_sums(&pair);

	/* What the caller sent is not known any more: it goes whole, though it did not change since. */
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	params.rung = "lz4";
	cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
	pair_send_all(&pair);
	stats = pair_round_stats(&pair, 0);
	cr_assert_eq(stats.base_misses, handed_back);
	cr_assert_eq(stats.same, 2000 - handed_back);
	pair_check_equal(&pair, "third round");
	pair_close(&pair);
}
