/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A touch changes no byte, whoever else writes nearby, and is done once for each huge page. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <criterion/criterion.h>

#include "engine/touch.h"

#define HUGE (UINT64_C(1) << GODWIT_HUGE_SHIFT)
#define PAGE 4096u
#define THREADS 4u
#define PIECE_PAGES 64u		/* side by side, as workers have batches */

static struct godwit_arena arena;

static void create_arena(void)
{
	cr_assert_eq(godwit_arena_create(&arena), 0);
}

static void destroy_arena(void)
{
	godwit_arena_destroy(&arena);
}

TestSuite(touch, .init = create_arena, .fini = destroy_arena);

/* bytes of fresh memory that begin `offset` behind the start of a huge page; never unmapped. */
static uint8_t *map_at(size_t offset, size_t bytes)
{
	size_t mapped = offset + bytes + 2 * HUGE;
	uint8_t *mem = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(mem, MAP_FAILED);
	madvise(mem, mapped, MADV_HUGEPAGE);
	return (uint8_t *)(((uintptr_t)mem + HUGE - 1) & ~(uintptr_t)(HUGE - 1)) + offset;
}

static unsigned count_there(const struct godwit_touch *touch, unsigned huge_pages)
{
	unsigned there = 0;

	for (unsigned i = 0; i < huge_pages; i++)
		there += touch->is_there[i];
	return there;
}

Test(touch, each_huge_page_that_memory_lies_in_is_touched_once)
{
	static const struct {
		size_t offset, bytes;
		unsigned huge_pages;
	} cases[] = {
		{ 0, 1, 1 }, { HUGE - 1, 1, 1 }, { HUGE - 1, 2, 2 }, { 0, HUGE, 1 }, { 0, HUGE + 1, 2 },
		{ PAGE, HUGE, 2 }, { 128, 3 * HUGE, 4 }, { HUGE / 2, 3 * HUGE, 4 },
	};

	for (unsigned c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		size_t offset = cases[c].offset, bytes = cases[c].bytes;
		unsigned huge_pages = cases[c].huge_pages;
		uint8_t *mem = map_at(offset, bytes);
		struct godwit_touch *touch = godwit_touch_create(&arena, mem, bytes);

		cr_assert_not_null(touch);
		cr_expect_eq(count_there(touch, huge_pages), 0);
		godwit_touch(touch, mem + bytes - 1);
		cr_expect_eq(touch->is_there[huge_pages - 1], 1, "the last of case %u", c);
		cr_expect_eq(count_there(touch, huge_pages), 1, "one of case %u", c);
		for (size_t at = 0; at < bytes; at += PAGE)
			godwit_touch(touch, mem + at);
		cr_expect_eq(count_there(touch, huge_pages), huge_pages, "all of case %u", c);
		godwit_arena_free(&arena, touch);
	}
}

/* What was written of the mapping that `at` lies in: pages that were read only are not among it. */
static unsigned long written_kb(const void *at)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long begin, end, kb = 0;
	bool is_inside = false;
	char line[512];

	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			is_inside = begin <= (uintptr_t)at && (uintptr_t)at < end;
		else if (is_inside && sscanf(line, "Anonymous: %lu kB", &kb) == 1)
			break;
	}
	fclose(file);
	return kb;
}

Test(touch, is_a_write)
{
	size_t bytes = 4 * HUGE;
	uint8_t *mem = map_at(0, bytes);
	struct godwit_touch *touch = godwit_touch_create(&arena, mem, bytes);
	unsigned long before_kb;

	cr_assert_not_null(touch);
	before_kb = written_kb(mem);
	for (size_t at = 0; at < bytes; at += HUGE)
		godwit_touch(touch, mem + at);
	cr_expect_geq(written_kb(mem), before_kb + bytes / HUGE * PAGE / 1024);
}

Test(touch, no_byte_is_changed)
{
	size_t bytes = 2 * HUGE;
	uint8_t *mem = map_at(PAGE, bytes);
	struct godwit_touch *touch = godwit_touch_create(&arena, mem, bytes);

	cr_assert_not_null(touch);
	for (size_t i = 0; i < bytes; i++)
		mem[i] = (uint8_t)(i * 31 + i / 251 + 1);
	for (size_t i = 0; i < bytes; i += 1021)
		godwit_touch(touch, mem + i);
	for (size_t i = 0; i < bytes; i++)
		cr_assert_eq(mem[i], (uint8_t)(i * 31 + i / 251 + 1), "byte %zu", i);
}

struct walker {
	pthread_t thread;
	struct godwit_touch *touch;
	uint8_t *mem;
	size_t pages;
	unsigned number;
};

static uint8_t word_of(size_t page)
{
	return (uint8_t)(page * 7 + 1);
}

/* Every fourth piece: writes each page whole, as a worker does with pages of its batch. */
static void *walk(void *arg)
{
	struct walker *w = arg;

	for (size_t page = 0; page < w->pages; page++) {
		if (page / PIECE_PAGES % THREADS != w->number)
			continue;
		godwit_touch(w->touch, w->mem + page * PAGE);
		memset(w->mem + page * PAGE, word_of(page), PAGE);
	}
	return NULL;
}

Test(touch, threads_side_by_side_write_each_its_own_pages)
{
	size_t pages = 16 * HUGE / PAGE;
	uint8_t *mem = map_at(PAGE, pages * PAGE);
	struct godwit_touch *touch = godwit_touch_create(&arena, mem, pages * PAGE);
	struct walker walker[THREADS];

	cr_assert_not_null(touch);
	for (unsigned i = 0; i < THREADS; i++) {
		walker[i] = (struct walker){ .touch = touch, .mem = mem, .pages = pages, .number = i };
		cr_assert_eq(pthread_create(&walker[i].thread, NULL, walk, &walker[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(walker[i].thread, NULL);
	for (size_t at = 0; at < pages * PAGE; at++)
		cr_assert_eq(mem[at], word_of(at / PAGE), "byte %zu", at);
	cr_expect_eq(count_there(touch, 17), 17);
}
