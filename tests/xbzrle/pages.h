/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pages.h - pairs of pages worth comparing, and memory that ends at an unmapped page
 */
#ifndef GODWIT_TEST_PAGES_H
#define GODWIT_TEST_PAGES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xbzrle/xbzrle.h"

#define PAGE 4096u

/* splitmix64: equal seeds give equal tests. */
static inline uint64_t test_random(uint64_t *state)
{
	uint64_t v = *state += 0x9e3779b97f4a7c15u;

	v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
	v = (v ^ v >> 27) * 0x94d049bb133111ebu;
	return v ^ v >> 31;
}

static inline void test_random_bytes(uint64_t *state, uint8_t *to, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] = (uint8_t)test_random(state);
}

/* bytes of memory that fault when anything before (from the page's start on) or behind them is touched. */
static inline uint8_t *test_guarded(size_t bytes)
{
	size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
	uint8_t *map = mmap(NULL, room + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED || (room && mprotect(map + PAGE, room, PROT_READ | PROT_WRITE)))
		abort();
	return map + PAGE + room - bytes;
}

static inline void test_unguard(uint8_t *p, size_t bytes)
{
	size_t room = (bytes + PAGE - 1) / PAGE * PAGE;

	munmap(p + bytes - room - PAGE, room + 2 * PAGE);
}

enum test_pair {
	PAIR_SAME,			/* nothing changed */
	PAIR_ONE_BYTE,			/* one byte somewhere */
	PAIR_ENDS,			/* the first and the last byte */
	PAIR_SPARSE,			/* a few short writes */
	PAIR_DENSE,			/* many short writes */
	PAIR_EVERY_FOURTH,		/* as many runs as a page can hold */
	PAIR_GAPS,			/* gaps of 1 to 4 bytes everywhere */
	PAIR_WORDS,			/* aligned words, each with even odds */
	PAIR_LINES,			/* whole lines, each with even odds */
	PAIR_LONG_RUNS,			/* a few runs of hundreds of bytes */
	PAIR_ALL,			/* every byte */
	PAIR_TO_ZERO,			/* random page becomes zero */
	PAIR_FROM_ZERO,			/* zero page becomes random */
	PAIR_TO_FILL,			/* random page becomes one word repeated */
	PAIR_NEAR_FILL,			/* a fill but for one bit */
	PAIR_SMALL_VALUES,		/* bytes from a small alphabet: runs by chance */
	NR_PAIRS,
};

static inline void test_flip(uint64_t *state, uint8_t *page, unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n && i < PAGE; i++)
		page[i] ^= (uint8_t)(1 + test_random(state) % 255);
}

static inline void test_make_pair(enum test_pair kind, uint64_t seed, uint8_t *was, uint8_t *now)
{
	uint64_t rnd = seed * 64 + kind, word;

	test_random_bytes(&rnd, was, PAGE);
	memcpy(now, was, PAGE);
	word = test_random(&rnd);
	switch (kind) {
	case PAIR_SAME:
		break;
	case PAIR_ONE_BYTE:
		test_flip(&rnd, now, (unsigned)(test_random(&rnd) % PAGE), 1);
		break;
	case PAIR_ENDS:
		test_flip(&rnd, now, 0, 1 + (unsigned)(seed % 3));
		test_flip(&rnd, now, PAGE - 1 - (unsigned)(seed % 3), 1 + (unsigned)(seed % 2));
		break;
	case PAIR_SPARSE:
		for (unsigned i = 0; i < 1 + word % 8; i++)
			test_flip(&rnd, now, (unsigned)(test_random(&rnd) % PAGE),
				  1 + (unsigned)(test_random(&rnd) % 24));
		break;
	case PAIR_DENSE:
		for (unsigned i = 0; i < 200 + word % 200; i++)
			test_flip(&rnd, now, (unsigned)(test_random(&rnd) % PAGE),
				  1 + (unsigned)(test_random(&rnd) % 12));
		break;
	case PAIR_EVERY_FOURTH:
		for (unsigned i = (unsigned)(seed % 4); i < PAGE; i += 4)
			test_flip(&rnd, now, i, 1);
		break;
	case PAIR_GAPS:
		for (unsigned i = 0; i < PAGE; i += 2 + (unsigned)(test_random(&rnd) % 4))
			test_flip(&rnd, now, i, 1);
		break;
	case PAIR_WORDS:
		for (unsigned i = 0; i < PAGE; i += 8)
			if (test_random(&rnd) & 1)
				test_flip(&rnd, now, i + (unsigned)(test_random(&rnd) % 8), 1);
		break;
	case PAIR_LINES:
		for (unsigned i = 0; i < PAGE; i += 64)
			if (test_random(&rnd) & 1)
				test_flip(&rnd, now, i, 64);
		break;
	case PAIR_LONG_RUNS:
		for (unsigned i = 0; i < 3; i++)
			test_flip(&rnd, now, (unsigned)(test_random(&rnd) % PAGE),
				  100 + (unsigned)(test_random(&rnd) % 900));
		break;
	case PAIR_ALL:
		test_flip(&rnd, now, 0, PAGE);
		break;
	case PAIR_TO_ZERO:
		memset(now, 0, PAGE);
		break;
	case PAIR_FROM_ZERO:
		memset(was, 0, PAGE);
		break;
	case PAIR_TO_FILL:
	case PAIR_NEAR_FILL:
		for (unsigned i = 0; i < PAGE; i += 8)
			memcpy(now + i, &word, 8);
		if (kind == PAIR_NEAR_FILL)
			now[test_random(&rnd) % PAGE] ^= (uint8_t)(1u << seed % 8);
		break;
	case PAIR_SMALL_VALUES:
		for (unsigned i = 0; i < PAGE; i++) {
			was[i] = (uint8_t)(test_random(&rnd) % 3);
			now[i] = (uint8_t)(test_random(&rnd) % 3);
		}
		break;
	default:
		abort();
	}
}

static inline bool test_is_fill(const uint8_t *page)
{
	for (unsigned i = 8; i < PAGE; i++)
		if (page[i] != page[i - 8])
			return false;
	return true;
}

#endif
