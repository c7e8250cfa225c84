/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memory.c - arenas by jemalloc
 *
 * The build links a jemalloc of our own under names of our own (cmake/jemalloc.cmake), so that the host
 * process's malloc is not touched. Only calls that name an arena and bypass the thread caches are used:
 * a cache would hold memory of an arena that is gone.
 *
 * Decay is 0: what is freed is given to the system in the call that frees it. Nothing is freed while pages
 * flow, so no system call is saved by keeping it; but a table that was made smaller must not
 * stay resident, and there is no background thread here that would see to it later.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "engine/memory.h"

void *godwit_je_mallocx(size_t bytes, int flags);
void godwit_je_dallocx(void *mem, int flags);
int godwit_je_mallctl(const char *name, void *old, size_t *old_bytes, void *fresh, size_t fresh_bytes);

/* jemalloc's flags: log2 of the alignment, zeroed, no thread cache, arena number plus one from bit 20. */
#define ALIGNED_128 7
#define ALIGNED_HUGE GODWIT_HUGE_SHIFT
#define ZEROED 0x40
#define NO_TCACHE (1 << 8)

/*
 * Tables of this size are filled nearly whole, row by row, and read at random: huge pages halve the price
 * of the first touch (codecs.md: 339 -> 167 ns a row) and spare the TLB. Below, the rounding would weigh.
 * They begin at a huge page, so that no row lies in two.
 */
#define HUGE_FROM_BYTES (8 * GODWIT_HUGE_BYTES)

static int flags_of(const struct godwit_arena *arena)
{
	return NO_TCACHE | (int)((arena->index + 1) << 20);
}

static int set_decay(unsigned index, const char *which)
{
	ssize_t at_once = 0;
	char name[64];

	snprintf(name, sizeof(name), "arena.%u.%s_decay_ms", index, which);
	return godwit_je_mallctl(name, NULL, NULL, &at_once, sizeof(at_once));
}

int godwit_arena_create(struct godwit_arena *arena_ret)
{
	unsigned index;
	size_t bytes = sizeof(index);

	if (godwit_je_mallctl("arenas.create", &index, &bytes, NULL, 0))
		return -ENOMEM;
	arena_ret->index = index;
	arena_ret->list = NULL;
	if (set_decay(index, "dirty") || set_decay(index, "muzzy")) {
		godwit_arena_destroy(arena_ret);
		return -ENOMEM;
	}
	return 0;
}

void godwit_arena_destroy(struct godwit_arena *arena)
{
	char name[64];

	snprintf(name, sizeof(name), "arena.%u.destroy", arena->index);
	godwit_je_mallctl(name, NULL, NULL, NULL, 0);
}

static void *alloc(struct godwit_arena *arena, size_t bytes, int flags, bool is_huge)
{
	void *mem = godwit_je_mallocx(bytes ? bytes : 1,
				      flags_of(arena) | flags | (is_huge ? ALIGNED_HUGE : ALIGNED_128));

	/* Refused where huge pages are off: nothing is lost. */
	if (mem && is_huge)
		madvise(mem, bytes & ~(GODWIT_HUGE_BYTES - 1), MADV_HUGEPAGE);
	return mem;
}

void *godwit_arena_alloc(struct godwit_arena *arena, size_t bytes)
{
	return alloc(arena, bytes, 0, bytes >= HUGE_FROM_BYTES);
}

void *godwit_arena_alloc_zero(struct godwit_arena *arena, size_t bytes)
{
	return alloc(arena, bytes, ZEROED, bytes >= HUGE_FROM_BYTES);
}

void *godwit_arena_alloc_huge(struct godwit_arena *arena, size_t bytes)
{
	return alloc(arena, (bytes + GODWIT_HUGE_BYTES - 1) & ~(GODWIT_HUGE_BYTES - 1), 0, true);
}

void godwit_arena_free(struct godwit_arena *arena, void *mem)
{
	if (mem)
		godwit_je_dallocx(mem, flags_of(arena));
}
