/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_MEMORY_H
#define GODWIT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/*
 * memory.h - where the engine's memory comes from, and how much there is
 *
 * An arena is destroyed whole, so that a finished or cancelled migration gives its memory back at once.
 * The handle may be copied. Alloc and free from any thread; create and destroy alone.
 */
struct godwit_arena {
	uint32_t index;			/* memory.c */
	void *list;			/* memory_libc.c */
};

/* log2 of the bytes in a huge page */
#define GODWIT_HUGE_SHIFT 21
#define GODWIT_HUGE_BYTES ((size_t)1 << GODWIT_HUGE_SHIFT)

/* 0 or -ENOMEM. */
int godwit_arena_create(struct godwit_arena *arena_ret);
/* All that is left in it goes as well. */
void godwit_arena_destroy(struct godwit_arena *arena);

/*
 * Aligned to 128 bytes, the pair of lines that threads keep apart; NULL when there is none. 0 bytes are
 * as good as 1. _zero touches no fresh page. _huge is for what is soon used, all of it: it lies in huge
 * pages, where a page fault for each 4 KiB is 12 us in a virtual machine of a virtual machine.
 * free(NULL) does nothing; what is freed goes back to the system at once.
 */
void *godwit_arena_alloc(struct godwit_arena *arena, size_t bytes);
void *godwit_arena_alloc_zero(struct godwit_arena *arena, size_t bytes);
void *godwit_arena_alloc_huge(struct godwit_arena *arena, size_t bytes);
void godwit_arena_free(struct godwit_arena *arena, void *mem);

/* What may still be taken: the least of what the host, the cgroups and the process's limits leave. */
uint64_t godwit_memory_left_bytes(void);

#endif
