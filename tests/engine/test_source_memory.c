/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test_source_memory.c - threads and memory: none is left at the end, and none is taken while pages flow */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "../sanitized.h"
#include "pair.h"

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
