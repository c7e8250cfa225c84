/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ENGINE_ARENA_H
#define GODWIT_ENGINE_ARENA_H

#include <errno.h>

#include "codecs/codecs.h"
#include "engine/memory.h"

/* arena.h - two ways to hold an arena: inside of itself, and as what codecs take their memory from */

/* An arena whose handle lies in its own memory: it stays where it is until it is destroyed. */
static inline int godwit_arena_create_self(struct godwit_arena **arena_ret)
{
	struct godwit_arena arena;
	int err = godwit_arena_create(&arena);

	if (err)
		return err;
	*arena_ret = godwit_arena_alloc(&arena, sizeof(arena));
	if (!*arena_ret) {
		godwit_arena_destroy(&arena);
		return -ENOMEM;
	}
	**arena_ret = arena;
	return 0;
}

static inline void godwit_arena_destroy_self(struct godwit_arena *self)
{
	struct godwit_arena arena = *self;

	godwit_arena_destroy(&arena);
}

static inline void *godwit_arena_alloc_any(void *arena, size_t bytes)
{
	return godwit_arena_alloc(arena, bytes);
}

static inline void godwit_arena_free_any(void *arena, void *mem)
{
	godwit_arena_free(arena, mem);
}

/* The arena must stay where it is for as long as the allocator is used. */
static inline struct godwit_alloc godwit_arena_allocator(struct godwit_arena *arena)
{
	return (struct godwit_alloc){ godwit_arena_alloc_any, godwit_arena_free_any, arena };
}

#endif
