/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test_source_stats.c - what a source counts, in total and by round, and predicts from it */
#include <pthread.h>
#include <stdatomic.h>

#include "engine/frame.h"
#include "pair.h"

Test(source, counts_the_round_apart_from_the_rounds_before)
{
	struct pair_block *block;
	struct pair pair;

	block = open_with_kinds(&pair, NULL);
	pair_send_all(&pair);
	cr_assert_eq(pair_round_stats(&pair, 0).pages, PAGES_OF_KINDS);
	cr_assert_eq(godwit_source_round(pair.source), 0);
	cr_assert_eq(pair_round_stats(&pair, 0).pages, 0);
	cr_assert_eq(pair_round_stats(&pair, 1).pages, PAGES_OF_KINDS);
	pair_queue(&pair, block, 2);
	pair_drain(&pair);
	cr_assert_eq(pair_round_stats(&pair, 0).pages, 1);
	cr_assert_eq(pair_round_stats(&pair, 0).same, 1);
	cr_assert_eq(pair_round_stats(&pair, 1).pages, PAGES_OF_KINDS);
	cr_assert_eq(pair_stats(&pair).pages, PAGES_OF_KINDS + 1);
	pair_check_sums(&pair);
	pair_close(&pair);
}

/* Three rounds with different pages of each kind, each told apart from the others, and all their sum. */
Test(source, counts_every_kind_in_the_round_it_was_sent_in)
{
	struct godwit_params params = params_with("none", GODWIT_BASE_SIGNATURES);

	for (uint32_t stream = GODWIT_STREAM_GODWIT; stream <= GODWIT_STREAM_STOCK; stream++) {
		bool is_stock = stream == GODWIT_STREAM_STOCK;
		struct godwit_stats first, second, third, total;
		struct pair_block *block;
		struct pair pair;
		uint64_t seed = 31;

		pair_open_stream(&pair, &params, stream);
		block = pair_add_block(&pair, 7, 100);
		for (unsigned page = 10; page < 100; page++)
			fill_text(block->guest + page * PAGE, &seed);
		for (unsigned page = 10; page < 13; page++)
			fill_word(block->guest + page * PAGE, page);
		pair_send_all(&pair);
		first = pair_round_stats(&pair, 0);
		cr_assert_eq(first.zero, 10);
		cr_assert_eq(first.fill, is_stock ? 0 : 3);
		cr_assert_eq(first.raw, is_stock ? 90 : 87);
		cr_assert_eq(first.same + first.delta_lines + first.delta_words + first.whole + first.busy, 0);
		cr_assert_eq(first.base_misses, first.raw);
		cr_assert_eq(first.base_seeds, first.raw);

		/* Five change a little, seven throughout, two become zero. */
		for (unsigned page = 20; page < 25; page++)
			poke(block->guest + page * PAGE, 1, &seed);
		for (unsigned page = 30; page < 37; page++)
			fill_random(block->guest + page * PAGE, &seed);
		memset(block->guest + 40 * PAGE, 0, 2 * PAGE);
		pair_send_all(&pair);
		second = pair_round_stats(&pair, 0);
		cr_assert_eq(second.zero, 12);
		cr_assert_eq(second.fill, is_stock ? 0 : 3);
		cr_assert_eq(second.delta_lines, 5);
		cr_assert_eq(second.raw, 7);
		cr_assert_eq(second.overflow, 7);
		cr_assert_eq(second.same, 100 - 12 - 5 - 7 - second.fill);
		cr_assert_eq(second.base_misses, 0);
		cr_assert_eq(second.base_seeds, 0);

		/* What was forgotten is a miss, and no seed. */
		godwit_source_forget(pair.source, 7, 50, 4);
		pair_send_all(&pair);
		third = pair_round_stats(&pair, 0);
		cr_assert_eq(third.base_misses, 4);
		cr_assert_eq(third.base_seeds, 0);
		cr_assert_eq(third.raw, 4);
		cr_assert_eq(pair_round_stats(&pair, 1).delta_lines, 5, "the round before is as it was");
		cr_assert_eq(pair_round_stats(&pair, 1).pages, 100);

		total = pair_stats(&pair);
		cr_assert_eq(total.zero, first.zero + second.zero + third.zero);
		cr_assert_eq(total.fill, first.fill + second.fill + third.fill);
		cr_assert_eq(total.same, second.same + third.same);
		cr_assert_eq(total.delta_lines, 5);
		cr_assert_eq(total.raw, first.raw + second.raw + third.raw);
		cr_assert_eq(total.base_misses, first.raw + 4);
		cr_assert_eq(total.base_seeds, first.raw);
		cr_assert_eq(total.wire_bytes - first.wire_bytes - second.wire_bytes - third.wire_bytes,
			     is_stock ? 0 : GODWIT_HEAD_BYTES, "and the stream header before the first");
		pair_check_equal(&pair, "three rounds");
		pair_check_sums(&pair);
		pair_close(&pair);
	}
}

struct watcher {
	struct godwit_source *source;
	_Atomic bool stop;
	_Atomic uint64_t reads;
	bool went_back;
};

static void *watch(void *arg)
{
	struct watcher *w = arg;
	uint64_t last_pages = 0, last_bytes = 0;

	while (!atomic_load(&w->stop)) {
		struct godwit_stats stats = GODWIT_STATS_INIT, round = GODWIT_STATS_INIT;
		struct godwit_prediction prediction;

		godwit_source_stats(w->source, &stats);
		godwit_source_round_stats(w->source, 0, &round);
		godwit_source_predict(w->source, 1000, &prediction);
		w->went_back |= stats.pages < last_pages || stats.wire_bytes < last_bytes;
		last_pages = stats.pages;
		last_bytes = stats.wire_bytes;
		w->reads++;
	}
	return NULL;
}

Test(source, can_be_read_by_another_thread_while_pages_flow)
{
	struct godwit_params params = params_with("lz4", GODWIT_BASE_SIGNATURES);
	struct watcher w = { 0 };
	struct pair_block *block;
	uint64_t seed = 2;
	pthread_t thread;
	struct pair pair;

	pair_open(&pair, &params);
	block = pair_add_block(&pair, 0, 512);
	for (unsigned page = 0; page < 512; page++)
		fill_text(block->guest + page * PAGE, &seed);
	w.source = pair.source;
	cr_assert_eq(pthread_create(&thread, NULL, watch, &w), 0);
	/* At least so many, and until it was read while they were sent. */
	for (unsigned round = 0; round < 30 || atomic_load(&w.reads) < 3; round++) {
		params.workers = 1 + round % 3;
		params.rung = round % 2 ? "lz4" : "zstd1";
		cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
		for (unsigned i = 0; i < 100; i++)
			poke(block->guest + rand_below(&seed, 512) * PAGE, 3, &seed);
		pair_send_all(&pair);
	}
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	cr_assert(!w.went_back, "a counter went back");
	pair_check_equal(&pair, "watched");
	pair_check_sums(&pair);
	pair_close(&pair);
}

static struct godwit_prediction predict(const struct pair *pair, uint64_t pages)
{
	struct godwit_prediction prediction;

	godwit_source_predict(pair->source, pages, &prediction);
	return prediction;
}

static double encode_ns(const struct pair *pair, uint64_t pages)
{
	return (double)predict(pair, pages).encode_ns;
}

Test(source, predicts_from_what_pages_have_cost)
{
	struct godwit_params params = params_with("none", GODWIT_BASE_OFF);
	struct godwit_prediction few, many;
	struct pair_block *block;
	uint64_t seed = 6;
	struct pair pair;

	pair_open(&pair, &params);
	block = pair_add_block(&pair, 0, 640);
	for (unsigned page = 0; page < 640; page++)
		fill_random(block->guest + page * PAGE, &seed);
	pair_send_all(&pair);
	cr_assert_eq(godwit_source_round(pair.source), 0);
	few = predict(&pair, 100);
	many = predict(&pair, 1000);
	cr_assert_geq(few.wire_bytes, 100 * PAGE, "random pages do not shrink");
	cr_assert_leq(few.wire_bytes, 100 * PAGE * 3 / 2);
	cr_assert_gt(few.encode_ns, 0);
	cr_assert_gt(many.wire_bytes, 9 * few.wire_bytes);
	cr_assert_eq(predict(&pair, 0).wire_bytes, 0);
	cr_assert_eq(predict(&pair, 0).encode_ns, 0);
	pair_close(&pair);
}

/*
 * Nothing flows while it is asked, so that what is predicted depends on what was sent alone. Both streams: what
 * is sent again costs a line or nothing.
 */
Test(source, predicts_pages_never_sent_as_whole_and_those_sent_by_what_they_cost)
{
	enum { PAGES = 2000, ZERO = 1200 };
	struct godwit_params params = params_with("none", GODWIT_BASE_SIGNATURES);

	for (uint32_t stream = GODWIT_STREAM_GODWIT; stream <= GODWIT_STREAM_STOCK; stream++) {
		struct pair_block *block;
		uint64_t seed = 7;
		struct pair pair;

		pair_open_stream(&pair, &params, stream);
		block = pair_add_block(&pair, 0, PAGES);
		for (unsigned page = ZERO; page < PAGES; page++)
			fill_random(block->guest + page * PAGE, &seed);
		cr_assert_eq(predict(&pair, 100).wire_bytes, 100 * PAGE, "nothing was sent");
		cr_assert_eq(predict(&pair, 100).encode_ns, 0);

		/* The first pass: so far it was cheap, and what is left is not. */
		cr_assert_eq(godwit_source_round(pair.source), 0);
		for (unsigned page = 0; page < ZERO; page++)
			pair_queue(&pair, block, page);
		pair_drain(&pair);
		cr_assert_eq(predict(&pair, PAGES - ZERO).wire_bytes, (PAGES - ZERO) * PAGE,
			     "zero pages say nothing of those behind them");
		for (unsigned page = ZERO; page < PAGES; page++)
			pair_queue(&pair, block, page);
		pair_drain(&pair);
		cr_assert_geq(predict(&pair, 100).wire_bytes, 100 * PAGE);

		/* The second: its first pages are the same, which costs nearly nothing; that must not count yet. */
		cr_assert_eq(godwit_source_round(pair.source), 0);
		for (unsigned page = ZERO; page < ZERO + 300; page++)
			pair_queue(&pair, block, page);
		pair_drain(&pair);
		cr_assert_geq(predict(&pair, 100).wire_bytes, 100 * PAGE);
		for (unsigned page = ZERO + 300; page < PAGES; page++) {
			poke(block->guest + page * PAGE, 1, &seed);
			pair_queue(&pair, block, page);
		}
		pair_drain(&pair);

		/* The third: a line for most pages, 64 bytes and a little. And it stays so, if too few follow. */
		for (unsigned round = 3; round < 8; round++) {
			cr_assert_eq(godwit_source_round(pair.source), 0);
			cr_assert_leq(predict(&pair, 100).wire_bytes, 100 * 125, "round %u: %llu", round,
				      (unsigned long long)predict(&pair, 100).wire_bytes);
			cr_assert_geq(predict(&pair, 100).wire_bytes, 100 * 40);
			cr_assert_gt(predict(&pair, 1).wire_bytes, 0);
			pair_queue(&pair, block, ZERO);
			pair_drain(&pair);
		}

		/* A batch is one worker's; there are two of them. */
		cr_assert_gt(predict(&pair, 64).encode_ns, 0);
		cr_assert_float_eq(encode_ns(&pair, 64), encode_ns(&pair, 128), 2);
		cr_assert_float_eq(encode_ns(&pair, 256), 2 * encode_ns(&pair, 128), 4);

		/* One dear round is remembered for three. */
		for (unsigned page = ZERO; page < PAGES; page++)
			fill_random(block->guest + page * PAGE, &seed);
		pair_send_all(&pair);
		for (unsigned round = 0; round < 3; round++) {
			cr_assert_eq(godwit_source_round(pair.source), 0);
			cr_assert_geq(predict(&pair, 100).wire_bytes, 100 * PAGE / 4, "round %u", round);
			for (unsigned page = ZERO; page < PAGES; page++)
				pair_queue(&pair, block, page);
			pair_drain(&pair);
		}
		cr_assert_eq(godwit_source_round(pair.source), 0);
		cr_assert_leq(predict(&pair, 100).wire_bytes, 100 * 20, "all the same since");
		pair_close(&pair);
	}
}

/* Three rounds that were alike are believed; where they were not, or there are fewer, more is put on top. */
Test(source, predicts_with_a_margin_by_how_rounds_differ)
{
	enum { PAGES = 600, ASKED = 1000 };
	struct godwit_params params = params_with("none", GODWIT_BASE_SIGNATURES);
	struct pair_block *block;
	uint64_t seed = 9;
	struct pair pair;

	pair_open_stream(&pair, &params, GODWIT_STREAM_GODWIT);
	block = pair_add_block(&pair, 0, PAGES);
	/* Round 5 sends each page again as it was, but for every third. */
	for (unsigned round = 1; round <= 6; round++) {
		double margin;

		cr_assert_eq(godwit_source_round(pair.source), 0);
		margin = (double)predict(&pair, ASKED).wire_bytes / (ASKED * PAGE);
		if (round == 3 || round == 4 || round == 6)
			cr_expect(margin > 1.24 && margin < 1.27, "%.3f in round %u", margin, round);
		if (round == 5)
			cr_expect(margin > 1.02 && margin < 1.05, "%.3f in round %u", margin, round);
		for (unsigned page = 0; page < PAGES; page++)
			if (round != 5 || page % 3 == 0)
				fill_random(block->guest + page * PAGE, &seed);
		for (unsigned page = 0; page < PAGES; page++)
			pair_queue(&pair, block, page);
		pair_drain(&pair);
	}
	pair_close(&pair);
}

/* What the caller sends itself takes a page of wire, though no frame. */
Test(source, predicts_pages_that_were_busy_as_whole)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;
	struct pair_block *block;
	uint64_t seed = 8, busy, resent;
	struct pair pair;

	params.workers = 1;
	params.rung = "zstd19";
	pair_open(&pair, &params);
	block = pair_add_block(&pair, 0, 2000);
	for (unsigned page = 0; page < 2000; page++)
		fill_text(block->guest + page * PAGE, &seed);
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
	pair_send_all(&pair);
	params.when_busy = GODWIT_WHEN_BUSY_RAW;
	cr_assert_eq(godwit_source_set_params(pair.source, &params, NULL), 0);
	for (unsigned page = 0; page < 2000; page++)
		fill_text(block->guest + page * PAGE, &seed);
	pair_send_all(&pair);
	busy = pair_round_stats(&pair, 0).busy;
	resent = pair_round_stats(&pair, 0).wire_bytes;
	cr_assert_gt(busy, 0, "zstd 19 in one worker keeps up with a loop that does nothing");
	cr_assert_eq(godwit_source_round(pair.source), 0);
	cr_assert_geq(predict(&pair, 2000).wire_bytes, busy * PAGE + resent);
	pair_close(&pair);
}
