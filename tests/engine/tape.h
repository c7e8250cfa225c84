/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TEST_TAPE_H
#define GODWIT_TEST_TAPE_H

/* A stream recorded from a real source, to be changed, and guest memory between unmapped pages. */

#include <unistd.h>

#include "engine/frame.h"
#include "pair.h"

#define BLOCK 7
#define PAGES 160

/* ---- a recorded stream ---- */

struct unit {
	size_t at, bytes;
	uint32_t magic;
};

struct tape {
	struct pair pair;
	struct unit unit[64];
	unsigned nr_units;
	uint8_t *before, *after;	/* the guest after the first drain frame, and after the second */
};

static inline void find_units(struct tape *tape)
{
	tape->nr_units = 0;
	for (size_t at = 0; at < tape->pair.tape_bytes;) {
		struct godwit_head head = godwit_head_get(tape->pair.tape + at);

		cr_assert_lt(tape->nr_units, 64);
		tape->unit[tape->nr_units++] = (struct unit){ at, GODWIT_HEAD_BYTES + head.body_bytes, head.magic };
		at += GODWIT_HEAD_BYTES + head.body_bytes;
	}
}

static inline void write_first(uint8_t *guest)
{
	uint64_t seed = 11;

	for (unsigned page = 0; page < PAGES; page++) {
		if (page % 5 == 1)
			fill_word(guest + page * PAGE, 0x1111111111111111ull * (page % 15 + 1));
		else if (page % 5)
			fill_text(guest + page * PAGE, &seed);
	}
}

static inline void write_second(uint8_t *guest)
{
	uint64_t seed = 12;

	for (unsigned page = 0; page < PAGES; page += 3)
		poke(guest + page * PAGE, 2, &seed);
	fill_random(guest, &seed);
	fill_word(guest + 8 * PAGE, 3);
	memset(guest + 9 * PAGE, 0, PAGE);
}

/* Header, three frames, drain frame; three frames with every kind of page, drain frame. */
static inline void record(struct tape *tape, uint32_t base)
{
	struct godwit_params params = GODWIT_PARAMS_INIT;
	struct pair_block *block;

	params.rung = "zstd1";
	params.base = base;
	params.base_bytes = 2 << 20;
	params.workers = 1;	/* so that frames come in order of number */
	params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	pair_open(&tape->pair, &params);
	tape->pair.is_kept = tape->pair.is_cut = true;
	block = pair_add_block(&tape->pair, BLOCK, PAGES);
	tape->before = malloc(PAGES * PAGE);
	tape->after = malloc(PAGES * PAGE);
	write_first(block->guest);
	memcpy(tape->before, block->guest, PAGES * PAGE);
	pair_send_all(&tape->pair);
	write_second(block->guest);
	memcpy(tape->after, block->guest, PAGES * PAGE);
	pair_send_all(&tape->pair);
	find_units(tape);
	cr_assert_eq(tape->nr_units, 9);
}

static inline void erase(struct tape *tape)
{
	pair_close(&tape->pair);
	free(tape->before);
	free(tape->after);
}

static inline uint8_t *unit_at(struct tape *tape, unsigned i)
{
	return tape->pair.tape + tape->unit[i].at;
}

enum { HEADER = 0, FIRST_FRAME = 1, FIRST_DRAIN = 4, SECOND_FRAME = 5, SECOND_DRAIN = 8 };

/* ---- memory that ends where it ends ---- */

struct guarded {
	uint8_t *bytes;		/* of the caller's length, right before an unmapped page */
	uint8_t *map;
	size_t map_bytes;
};

static inline struct guarded guard(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t inside = (bytes + page - 1) / page * page;
	struct guarded g = { .map_bytes = inside + 2 * page };

	g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(g.map, MAP_FAILED);
	cr_assert_eq(mprotect(g.map + page, inside, PROT_READ | PROT_WRITE), 0);
	g.bytes = g.map + page + inside - bytes;
	return g;
}

static inline void unguard(struct guarded *g)
{
	munmap(g->map, g->map_bytes);
}

#endif
