/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_source.c - the source by itself: kinds of pages, parameters, options, statistics, order, cancel
 *
 * Property tests over many rounds are in tests/api/test_rounds.c.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "engine/frame.h"
#include "engine/options.h"
#include "pair.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif

/* ---- a counter of allocations, in this program alone ---- */

#ifndef IS_SANITIZED
static _Atomic uint64_t allocations;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t bytes)
{
	atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
	return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
	atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
	return __libc_calloc(n, bytes);
}

void *realloc(void *memory, size_t bytes)
{
	atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
	return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
	atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
	return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **memory_ret, size_t alignment, size_t bytes)
{
	*memory_ret = aligned_alloc(alignment, bytes);
	return *memory_ret ? 0 : ENOMEM;
}

/* The engine's own: jemalloc, under the name it has in the library. */
int godwit_je_mallctl(const char *name, void *old, size_t *old_bytes, void *new_value, size_t new_bytes);
#endif

/* ---- kinds ---- */

enum { PAGE_ZERO, PAGE_FILL, PAGE_TEXT, PAGE_RANDOM, PAGES_OF_KINDS };

static struct pair_block *open_with_kinds(struct pair *pair, const struct godwit_params *params)
{
	struct pair_block *block;
	uint64_t seed = 1;

	pair_open(pair, params);
	block = pair_add_block(pair, 7, PAGES_OF_KINDS);
	fill_word(block->guest + PAGE_FILL * PAGE, 0x0123456789abcdefull);
	fill_text(block->guest + PAGE_TEXT * PAGE, &seed);
	fill_random(block->guest + PAGE_RANDOM * PAGE, &seed);
	return block;
}

static struct godwit_params params_with(const char *rung, uint32_t base)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;

	params.rung = rung;
	params.base = base;
	params.workers = 2;
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	return params;
}

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
 * A worker reads the rung when it begins a batch, and all of the first 512 pages fit the workers' rings:
 * unless one batch is seen to be done, none need have begun before the change.
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

static unsigned count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
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

Test(source, changes_no_block_and_begins_no_round_unless_drained)
{
	struct godwit_error error = { "" };
	struct pair_block *block;
	struct pair pair;

	block = open_with_kinds(&pair, NULL);
	pair_send_all(&pair);
	pair_queue(&pair, block, 1);
	cr_assert_eq(godwit_source_add_block(pair.source, 9, "x", NULL, PAGE, &error), -EBUSY);
	cr_assert_eq(godwit_source_remove_block(pair.source, 7, &error), -EBUSY);
	cr_assert_eq(godwit_source_round(pair.source), -EBUSY);
	pair_drain(&pair);
	cr_assert_eq(godwit_source_round(pair.source), 0);
	pair_close(&pair);
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

/* ---- statistics ---- */

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

/* ---- the end ---- */

Test(source, ends_with_pages_queued_in_flight_finished_and_collected)
{
	struct pair first;
	unsigned threads;

	/* A sanitizer starts a thread of its own with the first one. */
	pair_open(&first, NULL);
	pair_close(&first);
	threads = count_threads();
	for (unsigned stop_at = 0; stop_at < 1200; stop_at += 97) {
		struct godwit_params params = params_with("zstd1", GODWIT_BASE_SIGNATURES);
		struct iovec piece[8];
		uint64_t seed = stop_at + 1;
		struct pair pair;

		pair_open(&pair, &params);
		pair.is_cut = true;
		struct pair_block *block = pair_add_block(&pair, 0, 1200);

		for (unsigned page = 0; page < 1200; page++)
			fill_text(block->guest + page * PAGE, &seed);
		for (unsigned page = 0; page < stop_at; page++)
			pair_queue(&pair, block, page);
		if (stop_at % 2)
			godwit_source_collect(pair.source, 1, piece, 8);
		pair_close(&pair);
		cr_assert_eq(count_threads(), threads, "a worker outlived its source");
	}
	godwit_source_destroy(NULL);
	godwit_destination_destroy(NULL);
}

#ifndef IS_SANITIZED
static uint64_t resident_bytes(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	cr_assert_eq(fscanf(file, "%*u %lu", &pages), 1);
	fclose(file);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

Test(source, gives_all_its_memory_back_at_the_end_and_on_cancel)
{
	const uint64_t base_bytes = 48ull << 20;

	for (unsigned is_cancelled = 0; is_cancelled < 2; is_cancelled++) {
		struct godwit_params params = params_with("none", GODWIT_BASE_PAGES);
		uint64_t guest_pages = base_bytes / PAGE, seed = 1, before, with, after;
		struct pair pair;

		params.base_bytes = base_bytes;
		pair_open(&pair, &params);
		pair.is_cut = true;
		struct pair_block *block = pair_add_block(&pair, 0, guest_pages);

		for (uint64_t page = 0; page < guest_pages; page++)
			poke(block->guest + page * PAGE, 1, &seed);
		before = resident_bytes();
		pair_send_all(&pair);
		with = resident_bytes();
		cr_assert_gt(with, before + base_bytes * 3 / 4, "the base is not in memory at all");
		if (is_cancelled)
			for (unsigned page = 0; page < 500; page++)
				pair_queue(&pair, block, page);
		godwit_source_destroy(pair.source);
		pair.source = NULL;
		after = resident_bytes();
		cr_assert_lt(after, before + (4u << 20), "%llu KiB stayed",
			     (unsigned long long)(after - before) >> 10);
		pair_close(&pair);
	}
}
#endif

/* ---- steady state ---- */

#ifndef IS_SANITIZED
/* Allocations out of all of jemalloc's arenas so far (4096 is MALLCTL_ARENAS_ALL). */
static uint64_t engine_allocations(void)
{
	uint64_t epoch = 1, sum = 0;
	size_t bytes = sizeof(epoch);

	cr_assert_eq(godwit_je_mallctl("epoch", &epoch, &bytes, &epoch, sizeof(epoch)), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t calls = 0;

		bytes = sizeof(calls);
		cr_assert_eq(godwit_je_mallctl(i ? "stats.arenas.4096.large.nmalloc" :
						   "stats.arenas.4096.small.nmalloc", &calls, &bytes, NULL, 0), 0);
		sum += calls;
	}
	return sum;
}

Test(source, allocates_nothing_while_pages_flow)
{
	static const char *const rungs[] = { "none", "lz4", "zstd1", "auto" };

	for (size_t r = 0; r < sizeof(rungs) / sizeof(rungs[0]); r++) {
		struct godwit_params params = params_with(rungs[r], GODWIT_BASE_SIGNATURES);
		struct pair_block *block;
		uint64_t seed = 7;
		struct pair pair;

		pair_open(&pair, &params);
		block = pair_add_block(&pair, 0, 4096);
		for (unsigned page = 0; page < 4096; page++)
			fill_text(block->guest + page * PAGE, &seed);
		pair_send_all(&pair);
		pair_send_all(&pair);

		uint64_t before = atomic_load(&allocations), engine_before = engine_allocations();
		uint64_t pages_before = pair_stats(&pair).pages;

		for (unsigned round = 0; round < 25; round++) {
			for (unsigned i = 0; i < 4096; i++)
				poke(block->guest + i * PAGE, 1 + i % 40, &seed);
			pair_send_all(&pair);
		}
		cr_assert_geq(pair_stats(&pair).pages - pages_before, 100000);
		cr_assert_eq(atomic_load(&allocations), before, "rung %s: %llu calls of malloc", rungs[r],
			     (unsigned long long)(atomic_load(&allocations) - before));
		cr_assert_eq(engine_allocations(), engine_before, "rung %s: the engine's own allocator", rungs[r]);
		pair_check_equal(&pair, rungs[r]);
		pair_close(&pair);
	}
}
#endif
