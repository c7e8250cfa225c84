/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TEST_PAIR_H
#define GODWIT_TEST_PAIR_H

/*
 * pair.h - a source and a destination in one process, joined by a pipe that is a function call
 *
 * The model is the guest's memory itself: after a drain the destination's copy must be equal to it, byte
 * for byte, whatever the engine did in between. The copy starts as garbage, not as zeros, so that a
 * page that was not written shows.
 *
 * The receiving side takes bytes as a socket gives them, in pieces that need not be frames. With the stock
 * stream it is a reader of QEMU's format instead. Public interface only.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <godwit/godwit.h>

#include "stock_reader.h"

/* A guest writes to what workers read: a race that is meant. */
#if defined(__SANITIZE_THREAD__)
#define IS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define IS_TSAN 1
#endif
#endif

#define PAIR_MAX_BLOCKS 4
#define PAGE GODWIT_PAGE_BYTES

/* ---- randomness that a seed repeats ---- */

static inline uint64_t rand64(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545F4914F6CDD1Dull;
}

static inline uint64_t rand_below(uint64_t *state, uint64_t bound)
{
	return (rand64(state) >> 11) % bound;
}

/* ---- contents ---- */

static inline void fill_text(uint8_t *page, uint64_t *seed)
{
	static const char *const words[] = { "godwit ", "flies ", "eleven ", "thousand ", "kilometres ",
					     "without ", "stopping, ", "and then ", "\"key\": ", "0017, " };
	size_t at = 0;

	while (at < PAGE) {
		const char *word = words[rand_below(seed, 10)];
		size_t len = strlen(word);

		if (len > PAGE - at)
			len = PAGE - at;
		memcpy(page + at, word, len);
		at += len;
	}
}

static inline void fill_random(uint8_t *page, uint64_t *seed)
{
	for (unsigned i = 0; i < PAGE / 8; i++) {
		uint64_t word = rand64(seed);

		memcpy(page + 8 * i, &word, 8);
	}
}

static inline void fill_word(uint8_t *page, uint64_t word)
{
	for (unsigned i = 0; i < PAGE / 8; i++)
		memcpy(page + 8 * i, &word, 8);
}

static inline void poke(uint8_t *page, unsigned words, uint64_t *seed)
{
	for (unsigned i = 0; i < words; i++) {
		uint64_t word = rand64(seed);

		memcpy(page + 8 * rand_below(seed, PAGE / 8), &word, 8);
	}
}

/* ---- the pair ---- */

struct pair_block {
	uint32_t id;
	uint64_t pages;
	uint8_t *guest;			/* the source's RAM */
	uint8_t *copy;			/* the destination's */
	char name[32];
};

struct pair {
	struct godwit_source *source;
	struct godwit_destination *destination;	/* NULL with the stock stream */
	struct stock_reader stock;		/* and this is used */
	struct pair_block block[PAIR_MAX_BLOCKS];
	unsigned nr_blocks;
	uint64_t wire_bytes;		/* collected so far */
	uint64_t busy_pages;

	/* The stream, if it is kept: for tests that change it. */
	bool is_kept, is_cut;		/* is_cut: do not feed the destination */
	uint8_t *tape;
	size_t tape_bytes, tape_cap;

	/* The receiving side. */
	uint8_t head[GODWIT_HEAD_BYTES];
	size_t head_bytes;
	uint8_t *body;
	size_t body_bytes, body_wanted;
};

static inline void *map_pages(uint64_t pages)
{
	void *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(memory, MAP_FAILED);
	return memory;
}

static inline struct pair_block *pair_add_block(struct pair *pair, uint32_t id, uint64_t pages)
{
	struct pair_block *block = &pair->block[pair->nr_blocks++];
	struct godwit_error error = { "" };

	cr_assert_leq(pair->nr_blocks, PAIR_MAX_BLOCKS);
	*block = (struct pair_block){ id, pages, map_pages(pages), map_pages(pages), "" };
	memset(block->copy, 0xA5, pages * PAGE);
	snprintf(block->name, sizeof(block->name), "ram%u", id);
	cr_assert_eq(godwit_source_add_block(pair->source, id, block->name, block->guest, pages * PAGE,
					     &error), 0, "%s", error.text);
	if (pair->destination)
		cr_assert_eq(godwit_destination_add_block(pair->destination, id, block->name, block->copy,
							  pages * PAGE, &error), 0, "%s", error.text);
	else
		stock_add_block(&pair->stock, block->name, block->copy, pages * PAGE);
	return block;
}

static inline void pair_remove_block(struct pair *pair, unsigned index)
{
	struct pair_block *block = &pair->block[index];
	struct godwit_error error = { "" };

	cr_assert_eq(godwit_source_remove_block(pair->source, block->id, &error), 0, "%s", error.text);
	if (pair->destination)
		cr_assert_eq(godwit_destination_remove_block(pair->destination, block->id, &error), 0, "%s",
			     error.text);
	else
		stock_remove_block(&pair->stock, block->name);
	munmap(block->guest, block->pages * PAGE);
	munmap(block->copy, block->pages * PAGE);
	*block = pair->block[--pair->nr_blocks];
}

/* params NULL: defaults, two workers, and a full ring is waited for. stream: enum godwit_stream. */
static inline void pair_open_stream(struct pair *pair, const struct godwit_params *params, uint32_t stream)
{
	struct godwit_source_options from = GODWIT_SOURCE_OPTIONS_INIT;
	struct godwit_destination_options to = GODWIT_DESTINATION_OPTIONS_INIT;
	struct godwit_error error = { "" };

	*pair = (struct pair){ 0 };
	from.params.workers = 2;
	from.params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	if (params)
		from.params = *params;
	from.stream = stream;
	to.workers = 2;
	cr_assert_eq(godwit_source_create(&from, &pair->source, &error), 0, "%s", error.text);
	if (stream == GODWIT_STREAM_GODWIT)
		cr_assert_eq(godwit_destination_create(&to, &pair->destination, &error), 0, "%s",
			     error.text);
}

static inline void pair_open(struct pair *pair, const struct godwit_params *params)
{
	pair_open_stream(pair, params, GODWIT_STREAM_GODWIT);
}

static inline void pair_close(struct pair *pair)
{
	godwit_source_destroy(pair->source);
	godwit_destination_destroy(pair->destination);
	for (unsigned i = 0; i < pair->nr_blocks; i++) {
		munmap(pair->block[i].guest, pair->block[i].pages * PAGE);
		munmap(pair->block[i].copy, pair->block[i].pages * PAGE);
	}
	free(pair->tape);
}

/* Bytes off the wire. 0 or what the destination said first; after that the rest is not looked at. */
static inline int pair_receive(struct pair *pair, const uint8_t *bytes, size_t nr_bytes,
			       struct godwit_error *error)
{
	while (nr_bytes) {
		bool is_head = !pair->body_wanted;
		uint8_t *to = is_head ? pair->head + pair->head_bytes : pair->body + pair->body_bytes;
		size_t left = is_head ? GODWIT_HEAD_BYTES - pair->head_bytes :
					pair->body_wanted - pair->body_bytes;
		size_t n = nr_bytes < left ? nr_bytes : left;
		int err = 0;

		memcpy(to, bytes, n);
		bytes += n;
		nr_bytes -= n;
		if (is_head) {
			void *body = NULL;

			pair->head_bytes += n;
			if (n < left)
				break;
			pair->head_bytes = 0;
			err = godwit_destination_begin(pair->destination, pair->head, &body,
						       &pair->body_wanted, error);
			if (err)
				pair->body_wanted = 0;
			pair->body = body;
			pair->body_bytes = 0;
		} else {
			pair->body_bytes += n;
			if (n < left)
				break;
			pair->body_wanted = 0;
			err = godwit_destination_commit(pair->destination, error);
		}
		if (err)
			return err;
	}
	return 0;
}

static inline void pair_keep(struct pair *pair, const void *bytes, size_t nr_bytes)
{
	if (pair->tape_bytes + nr_bytes > pair->tape_cap) {
		pair->tape_cap = 2 * (pair->tape_bytes + nr_bytes);
		pair->tape = realloc(pair->tape, pair->tape_cap);
	}
	memcpy(pair->tape + pair->tape_bytes, bytes, nr_bytes);
	pair->tape_bytes += nr_bytes;
}

static inline int pair_write_frames(struct pair *pair, int force)
{
	struct godwit_error error = { "" };
	struct iovec piece[16];
	int pieces = godwit_source_collect(pair->source, force, piece, 16);

	for (int i = 0; i < pieces; i++) {
		pair->wire_bytes += piece[i].iov_len;
		if (pair->is_kept)
			pair_keep(pair, piece[i].iov_base, piece[i].iov_len);
		if (!pair->destination)
			stock_read(&pair->stock, piece[i].iov_base, piece[i].iov_len);
		else if (!pair->is_cut)
			cr_assert_eq(pair_receive(pair, piece[i].iov_base, piece[i].iov_len, &error), 0, "%s",
				     error.text);
	}
	godwit_source_release(pair->source);
	return pieces;
}

static inline void pair_queue(struct pair *pair, const struct pair_block *block, uint64_t page)
{
	const uint8_t *host = block->guest + page * PAGE;
	struct godwit_error error = { "" };
	int got;

	while ((got = godwit_source_queue(pair->source, block->id, page, host, &error)) ==
	       GODWIT_QUEUE_COLLECT)
		pair_write_frames(pair, 0);
	cr_assert_geq(got, 0, "%s", error.text);
	if (got == GODWIT_QUEUE_BUSY) {
		/* The caller sends it as it is. */
		memcpy(block->copy + page * PAGE, host, PAGE);
		pair->busy_pages++;
	}
}

static inline void pair_drain(struct pair *pair)
{
	struct godwit_error error = { "" };
	int got;

	while ((got = godwit_source_drain(pair->source, &error)) == GODWIT_QUEUE_COLLECT)
		pair_write_frames(pair, 0);
	cr_assert_eq(got, 0, "%s", error.text);
	if (pair->destination && !pair->is_cut)
		cr_assert_eq(godwit_destination_drain(pair->destination, &error), 0, "%s", error.text);
}

/* Every page of every block, once. */
static inline void pair_send_all(struct pair *pair)
{
	cr_assert_eq(godwit_source_round(pair->source), 0);
	for (unsigned b = 0; b < pair->nr_blocks; b++)
		for (uint64_t page = 0; page < pair->block[b].pages; page++)
			pair_queue(pair, &pair->block[b], page);
	pair_drain(pair);
}

static inline void pair_check_equal(const struct pair *pair, const char *when)
{
	for (unsigned b = 0; b < pair->nr_blocks; b++) {
		const struct pair_block *block = &pair->block[b];

		if (!memcmp(block->guest, block->copy, block->pages * PAGE))
			continue;
		for (uint64_t page = 0; page < block->pages; page++)
			cr_assert(!memcmp(block->guest + page * PAGE, block->copy + page * PAGE, PAGE),
				  "%s: block %u page %llu differs", when, block->id, (unsigned long long)page);
	}
}

static inline struct godwit_stats pair_stats(const struct pair *pair)
{
	struct godwit_stats stats = GODWIT_STATS_INIT;

	cr_assert_eq(godwit_source_stats(pair->source, &stats), 0);
	return stats;
}

static inline struct godwit_stats pair_round_stats(const struct pair *pair, unsigned round)
{
	struct godwit_stats stats = GODWIT_STATS_INIT;

	cr_assert_eq(godwit_source_round_stats(pair->source, round, &stats), 0);
	return stats;
}

static inline uint64_t sum_of_kinds(const struct godwit_stats *stats)
{
	return stats->zero + stats->fill + stats->same + stats->delta_words + stats->delta_lines +
	       stats->whole + stats->raw + stats->busy;
}

/* After a drain. */
static inline void pair_check_sums(const struct pair *pair)
{
	struct godwit_stats stats = pair_stats(pair);

	cr_assert_eq(stats.pages, sum_of_kinds(&stats), "pages %llu, kinds %llu",
		     (unsigned long long)stats.pages, (unsigned long long)sum_of_kinds(&stats));
	cr_assert_eq(stats.busy, pair->busy_pages);
	cr_assert_eq(stats.wire_bytes, pair->wire_bytes, "wire_bytes %llu, collected %llu",
		     (unsigned long long)stats.wire_bytes, (unsigned long long)pair->wire_bytes);
	cr_assert_eq(stats.retired_bytes, (stats.pages - stats.busy) * PAGE);
	if (pair->destination)
		return;
	/* The reader saw what the source says it sent. */
	cr_assert_eq(stats.zero, pair->stock.zero);
	cr_assert_eq(stats.raw, pair->stock.whole);
	cr_assert_eq(stats.delta_lines + stats.delta_words, pair->stock.xbzrle);
	cr_assert_eq(stats.delta_payload_bytes, pair->stock.xbzrle_bytes);
	cr_assert_eq(stats.payload_bytes, stats.delta_payload_bytes + stats.raw * PAGE);
	cr_assert_eq(stats.fill + stats.whole + stats.compressed_pages, 0);
}

/* ---- what most tests of a source begin with ---- */

enum { PAGE_ZERO, PAGE_FILL, PAGE_TEXT, PAGE_RANDOM, PAGES_OF_KINDS };

static inline struct pair_block *open_with_kinds(struct pair *pair, const struct godwit_params *params)
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

static inline struct godwit_params params_with(const char *rung, uint32_t base)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;

	params.rung = rung;
	params.base = base;
	params.workers = 2;
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	return params;
}

static inline unsigned count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

#endif
