/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_rounds.c - many rounds of random writes; after each, both RAMs are equal
 *
 * This is the test that a stale base cannot pass: pages go A -> B -> A and x -> 0 -> x between sends,
 * parameters change under way, pages are sent past the engine, blocks come and go, guest memory is
 * written while a worker reads it. Seeds repeat; a failure names seed and round.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "../engine/pair.h"

static const char *const rungs[] = { "auto", "none", "lz4", "lz4:8", "zstd1", "zstd-5", "zlib1" };
#define NR_RUNGS (sizeof(rungs) / sizeof(rungs[0]))

/* What the test knows of the guest beside its memory. */
struct guest {
	uint64_t seed;
	uint8_t *dirty[PAIR_MAX_BLOCKS];	/* by index in pair.block */
	uint8_t kept[8][PAGE];			/* contents to come back to */
	char when[64];
};

static uint8_t *page_of(const struct pair_block *block, uint64_t page)
{
	return block->guest + page * PAGE;
}

static void write_page(struct guest *g, struct pair *pair, unsigned b, uint64_t page)
{
	uint8_t *at = page_of(&pair->block[b], page);
	unsigned slot = (unsigned)rand_below(&g->seed, 8);

	switch (rand_below(&g->seed, 12)) {
	case 0:
		memset(at, 0, PAGE);
		break;
	case 1:
		fill_word(at, rand_below(&g->seed, 3) ? rand64(&g->seed) : 1);
		break;
	case 2:
		fill_text(at, &g->seed);
		break;
	case 3:
		fill_random(at, &g->seed);
		break;
	case 4:		/* A -> B -> A: written, but as it was */
		memcpy(g->kept[slot], at, PAGE);
		fill_text(at, &g->seed);
		memcpy(at, g->kept[slot], PAGE);
		break;
	case 5:		/* remembered here, put back in a later round: x -> ... -> x */
		memcpy(g->kept[slot], at, PAGE);
		memset(at, 0, PAGE);
		break;
	case 6:		/* what some page was once */
		memcpy(at, g->kept[slot], PAGE);
		break;
	case 7:		/* most of it */
		poke(at, 300 + (unsigned)rand_below(&g->seed, 400), &g->seed);
		break;
	case 8:		/* one bit */
		at[rand_below(&g->seed, PAGE)] ^= (uint8_t)(1u << rand_below(&g->seed, 8));
		break;
	default:
		poke(at, 1 + (unsigned)rand_below(&g->seed, 30), &g->seed);
	}
	g->dirty[b][page] = 1;
}

static void write_some(struct guest *g, struct pair *pair)
{
	for (unsigned b = 0; b < pair->nr_blocks; b++) {
		uint64_t pages = pair->block[b].pages, writes = rand_below(&g->seed, pages);
		uint64_t first = rand_below(&g->seed, pages);

		for (uint64_t i = 0; i < writes; i++)	/* half a run, half scattered */
			write_page(g, pair, b, i % 2 ? (first + i) % pages : rand_below(&g->seed, pages));
	}
}

static void add_block(struct guest *g, struct pair *pair, uint32_t id, uint64_t pages)
{
	unsigned b = pair->nr_blocks;

	pair_add_block(pair, id, pages);
	g->dirty[b] = malloc(pages);
	memset(g->dirty[b], 1, pages);
	for (uint64_t page = 0; page < pages; page++)
		if (rand_below(&g->seed, 3))
			write_page(g, pair, b, page);
}

static void replace_block(struct guest *g, struct pair *pair)
{
	unsigned b = (unsigned)rand_below(&g->seed, pair->nr_blocks);
	uint32_t id = pair->block[b].id;

	free(g->dirty[b]);
	pair_remove_block(pair, b);
	g->dirty[b] = g->dirty[pair->nr_blocks];
	add_block(g, pair, id, 1 + rand_below(&g->seed, 400));
}

/* Pages that the caller sends itself, by whatever way: the engine is only told. */
static void send_past_the_engine(struct guest *g, struct pair *pair)
{
	unsigned b = (unsigned)rand_below(&g->seed, pair->nr_blocks);
	struct pair_block *block = &pair->block[b];
	uint64_t first = rand_below(&g->seed, block->pages);
	uint64_t pages = 1 + rand_below(&g->seed, block->pages - first);

	for (uint64_t page = first; page < first + pages; page++) {
		write_page(g, pair, b, page);
		memcpy(block->copy + page * PAGE, page_of(block, page), PAGE);
		g->dirty[b][page] = 0;
	}
	cr_assert_eq(godwit_source_forget(pair->source, block->id, first, pages), 0);
}

static void change_params(struct guest *g, struct pair *pair, struct godwit_params *params)
{
	struct godwit_error error = { "" };

	if (rand_below(&g->seed, 3) == 0)
		params->rung = rungs[rand_below(&g->seed, NR_RUNGS)];
	if (rand_below(&g->seed, 4) == 0)
		params->workers = 1 + (uint32_t)rand_below(&g->seed, 4);
	if (rand_below(&g->seed, 4) == 0)
		params->when_busy = (uint32_t)rand_below(&g->seed, 3);
	if (rand_below(&g->seed, 4) == 0)
		params->base = (uint32_t)rand_below(&g->seed, 3);
	if (rand_below(&g->seed, 3) == 0) {
		static const uint64_t sizes[] = { 0, 4096, 50 << 10, 120 << 10, 250 << 10, 1 << 20, 16 << 20 };

		params->base_bytes = sizes[rand_below(&g->seed, sizeof(sizes) / sizeof(sizes[0]))];
	}
	cr_assert_eq(godwit_source_set_params(pair->source, params, &error), 0, "%s", error.text);
	if (rand_below(&g->seed, 4) == 0)
		godwit_source_remember_new(pair->source, (int)rand_below(&g->seed, 2));
}

static void queue_page(struct guest *g, struct pair *pair, unsigned b, uint64_t page, bool is_torn)
{
	struct pair_block *block = &pair->block[b];

	if (!g->dirty[b][page])
		return;
	g->dirty[b][page] = 0;
	pair_queue(pair, block, page);
	/* The guest goes on writing: a worker may be reading the page, or will, or has. */
	if (is_torn && rand_below(&g->seed, 4) == 0)
		write_page(g, pair, b, page);
}

static void send_dirty(struct guest *g, struct pair *pair, bool is_torn)
{
	bool is_backwards = rand_below(&g->seed, 8) == 0;

	for (unsigned b = 0; b < pair->nr_blocks; b++) {
		uint64_t pages = pair->block[b].pages;

		for (uint64_t i = 0; i < pages; i++)
			queue_page(g, pair, b, is_backwards ? pages - 1 - i : i, is_torn);
	}
	pair_drain(pair);
}

/* Pages written since they were queued may differ; no other. */
static void check(const struct guest *g, const struct pair *pair)
{
	for (unsigned b = 0; b < pair->nr_blocks; b++) {
		const struct pair_block *block = &pair->block[b];

		for (uint64_t page = 0; page < block->pages; page++)
			cr_assert(g->dirty[b][page] || !memcmp(page_of(block, page), block->copy + page * PAGE, PAGE),
				  "%s: block %u page %llu differs", g->when, block->id,
				  (unsigned long long)page);
	}
	pair_check_sums(pair);
}

static void run_stream(uint64_t seed, unsigned rounds, struct godwit_params params, bool may_change,
		       uint32_t stream)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct pair pair;

	g->seed = seed * 0x9E3779B97F4A7C15ull + 1;
	pair_open_stream(&pair, &params, stream);
	add_block(g, &pair, 3, 300);
	add_block(g, &pair, 0, 37);
	add_block(g, &pair, GODWIT_MAX_BLOCKS - 1, 120);
	for (unsigned round = 0; round < rounds; round++) {
		snprintf(g->when, sizeof(g->when), "seed %llu round %u", (unsigned long long)seed, round);
		if (may_change) {
			change_params(g, &pair, &params);
			if (rand_below(&g->seed, 6) == 0)
				send_past_the_engine(g, &pair);
			if (rand_below(&g->seed, 10) == 0)
				replace_block(g, &pair);
		}
		write_some(g, &pair);
		cr_assert_eq(godwit_source_round(pair.source), 0);
#ifdef IS_TSAN
		send_dirty(g, &pair, false);	/* a guest that writes meanwhile is a race, and meant to be */
#else
		send_dirty(g, &pair, round % 3 == 0);
#endif
		check(g, &pair);
	}
	send_dirty(g, &pair, false);
	pair_check_equal(&pair, g->when);
	for (unsigned b = 0; b < pair.nr_blocks; b++)
		free(g->dirty[b]);
	free(g);
	pair_close(&pair);
}

static void run(uint64_t seed, unsigned rounds, struct godwit_params params, bool may_change)
{
	run_stream(seed, rounds, params, may_change, GODWIT_STREAM_GODWIT);
}

static struct godwit_params fixed(const char *rung, uint32_t base, uint64_t base_bytes)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;

	params.rung = rung;
	params.base = base;
	params.base_bytes = base_bytes;
	params.workers = 3;
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	return params;
}

static unsigned nr_seeds(unsigned usual)
{
	return getenv("GODWIT_FULL") ? 40 * usual : usual;
}

Test(rounds, equal_with_signatures_of_every_granule)
{
	/* 457 pages: 228 KiB of signatures at 64 bytes, 114 at 128, 57 at 256, and less than that. */
	static const uint64_t sizes[] = { 0, 300 << 10, 150 << 10, 75 << 10, 20 << 10 };

	for (unsigned i = 0; i < nr_seeds(5); i++)
		run(100 + i, 12, fixed(rungs[i % NR_RUNGS], GODWIT_BASE_SIGNATURES, sizes[i % 5]), false);
}

Test(rounds, equal_with_old_pages_few_and_many)
{
	static const uint64_t sizes[] = { 16 << 20, 400 << 10, 40 << 10, 8 << 10 };

	for (unsigned i = 0; i < nr_seeds(4); i++)
		run(200 + i, 12, fixed(rungs[i % NR_RUNGS], GODWIT_BASE_PAGES, sizes[i % 4]), false);
}

Test(rounds, equal_without_a_base)
{
	for (unsigned i = 0; i < nr_seeds(2); i++)
		run(300 + i, 8, fixed(rungs[i % NR_RUNGS], GODWIT_BASE_OFF, 0), false);
}

Test(rounds, equal_when_the_caller_sends_what_is_busy)
{
	for (unsigned i = 0; i < nr_seeds(3); i++) {
		struct godwit_params params = fixed("zstd12", i % 2 ? GODWIT_BASE_PAGES : GODWIT_BASE_SIGNATURES, 0);

		params.workers = 1;
		params.when_busy = GODWIT_WHEN_BUSY_RAW;
		run(400 + i, 8, params, false);
	}
}

Test(rounds, equal_while_everything_changes_1)
{
	for (unsigned i = 0; i < nr_seeds(3); i++)
		run(500 + i, 40, fixed("auto", GODWIT_BASE_SIGNATURES, 0), true);
}

Test(rounds, equal_while_everything_changes_2)
{
	for (unsigned i = 0; i < nr_seeds(3); i++)
		run(600 + i, 40, fixed("lz4", GODWIT_BASE_PAGES, 0), true);
}

/* The same guests through the stock stream, read by what QEMU reads. */
Test(rounds, equal_in_the_stock_stream_with_signatures_of_every_granule)
{
	static const uint64_t sizes[] = { 0, 300 << 10, 150 << 10, 75 << 10, 20 << 10 };

	for (unsigned i = 0; i < nr_seeds(5); i++)
		run_stream(700 + i, 12, fixed(NULL, GODWIT_BASE_SIGNATURES, sizes[i % 5]), false,
			   GODWIT_STREAM_STOCK);
}

Test(rounds, equal_in_the_stock_stream_with_old_pages_few_and_many)
{
	static const uint64_t sizes[] = { 16 << 20, 400 << 10, 40 << 10, 8 << 10 };

	for (unsigned i = 0; i < nr_seeds(4); i++)
		run_stream(800 + i, 12, fixed(NULL, GODWIT_BASE_PAGES, sizes[i % 4]), false,
			   GODWIT_STREAM_STOCK);
}

Test(rounds, equal_in_the_stock_stream_without_a_base)
{
	for (unsigned i = 0; i < nr_seeds(2); i++)
		run_stream(900 + i, 8, fixed(NULL, GODWIT_BASE_OFF, 0), false, GODWIT_STREAM_STOCK);
}

Test(rounds, equal_in_the_stock_stream_while_everything_changes)
{
	for (unsigned i = 0; i < nr_seeds(4); i++)
		run_stream(1000 + i, 40, fixed(NULL, i % 2, 0), true, GODWIT_STREAM_STOCK);
}

/* No state is shared between handles: three migrations, interleaved page by page. */
Test(rounds, several_sources_and_destinations_live_in_one_process)
{
	struct pair pair[3];
	uint64_t seed = 21;

	for (unsigned i = 0; i < 3; i++) {
		struct godwit_params params = fixed(rungs[i], i, 1 << 20);

		params.workers = 1 + i;
		pair_open(&pair[i], &params);
		pair_add_block(&pair[i], 9, 200 + i);
	}
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < 3; i++)
			for (unsigned j = 0; j < 150; j++)
				poke(pair[i].block->guest + rand_below(&seed, 200) * PAGE, 1 + j, &seed);
		for (uint64_t page = 0; page < 200; page++)
			for (unsigned i = 0; i < 3; i++)
				pair_queue(&pair[i], pair[i].block, page);
		for (unsigned i = 0; i < 3; i++) {
			pair_drain(&pair[i]);
			for (uint64_t page = 0; page < 200; page++)
				cr_assert(!memcmp(pair[i].block->guest + page * PAGE,
						  pair[i].block->copy + page * PAGE, PAGE),
					  "pair %u round %u page %llu", i, round, (unsigned long long)page);
			pair_check_sums(&pair[i]);
		}
		if (round == 3) {	/* one ends, the others do not notice */
			pair_close(&pair[1]);
			struct godwit_params params = fixed("lz4", 0, 0);

			pair_open(&pair[1], &params);
			pair_add_block(&pair[1], 9, 201);
		}
	}
	for (unsigned i = 0; i < 3; i++)
		pair_close(&pair[i]);
}

#ifndef IS_TSAN
/*
 * A guest that never stops. It writes a word in one to four lines of each page, over and over: in odd pages
 * always something new, in even pages one of two values, so that they are often what they were. What a
 * worker reads twice is not the same twice, and what it remembers must be what it sent. A godwit
 * destination that disagrees says so, since deltas and same pages carry digests. Of the stock stream
 * nobody does: there the guest holds still now and then, and a page that was remembered as something
 * else than what was sent is found out when the guest has come back to that.
 */
struct writer {
	struct pair_block *block;
	_Atomic bool stop, hold, is_held;
};

static void *write_on_and_on(void *arg)
{
	struct writer *w = arg;

	for (uint64_t n = 0; !atomic_load_explicit(&w->stop, memory_order_relaxed); n++) {
		for (uint64_t page = 0; page < w->block->pages; page++) {
			_Atomic uint64_t *word = (_Atomic uint64_t *)(w->block->guest + page * PAGE);

			for (unsigned line = 0; line <= page % 4; line++)
				atomic_store_explicit(&word[8 * (63 - 9 * line)], page % 2 ? n : n & 1,
						      memory_order_relaxed);
			/* Anywhere in a pass. */
			while (atomic_load(&w->hold)) {
				atomic_store(&w->is_held, true);
				sched_yield();
			}
		}
	}
	return NULL;
}

/* The guest holds still: all of it is sent, and both sides are equal. */
static void check_held(struct pair *pair, struct writer *w)
{
	atomic_store(&w->is_held, false);
	atomic_store(&w->hold, true);
	while (!atomic_load(&w->is_held))
		sched_yield();
	pair_send_all(pair);
	pair_check_equal(pair, "while the guest held still");
	atomic_store(&w->hold, false);
}

static void run_beside_a_writer(uint32_t base, const char *rung, unsigned seconds, uint32_t stream)
{
	struct godwit_params params = fixed(rung, base, 1 << 20);
	struct writer w = { 0 };
	uint64_t seed = 1;
	pthread_t thread;
	struct pair pair;

	pair_open_stream(&pair, &params, stream);
	w.block = pair_add_block(&pair, 1, 130);
	for (uint64_t page = 0; page < 130; page++)
		fill_text(page_of(w.block, page), &seed);
	cr_assert_eq(pthread_create(&thread, NULL, write_on_and_on, &w), 0);
	for (time_t end = time(NULL) + seconds; time(NULL) < end;) {
		pair_send_all(&pair);
		pair_send_all(&pair);
		check_held(&pair, &w);
	}
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	pair_send_all(&pair);
	pair_check_equal(&pair, "after the writer stopped");
	pair_check_sums(&pair);
	cr_assert_gt(pair_stats(&pair).same, 0);
	cr_assert_gt(pair_stats(&pair).delta_lines + pair_stats(&pair).delta_words, 0);
	pair_close(&pair);
}

Test(rounds, equal_beside_a_guest_that_never_stops_signatures)
{
	run_beside_a_writer(GODWIT_BASE_SIGNATURES, "none", nr_seeds(2), GODWIT_STREAM_GODWIT);
	run_beside_a_writer(GODWIT_BASE_SIGNATURES, "lz4", nr_seeds(1), GODWIT_STREAM_GODWIT);
}

Test(rounds, equal_beside_a_guest_that_never_stops_pages)
{
	run_beside_a_writer(GODWIT_BASE_PAGES, "none", nr_seeds(2), GODWIT_STREAM_GODWIT);
	run_beside_a_writer(GODWIT_BASE_PAGES, "lz4", nr_seeds(1), GODWIT_STREAM_GODWIT);
}

/* No digest tells here: a page that differs stays so, and shows at the end. */
Test(rounds, equal_in_the_stock_stream_beside_a_guest_that_never_stops)
{
	run_beside_a_writer(GODWIT_BASE_SIGNATURES, NULL, nr_seeds(1), GODWIT_STREAM_STOCK);
	run_beside_a_writer(GODWIT_BASE_PAGES, NULL, nr_seeds(1), GODWIT_STREAM_STOCK);
}
#endif
