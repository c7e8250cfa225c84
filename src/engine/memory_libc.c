/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memory_libc.c - arenas by libc, for sanitizer builds
 *
 * The sanitizers see what libc's allocator is asked, and jemalloc would hide it from them. So that
 * destroy gives everything back here too, each block has its neighbours in front of it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"

struct block {
	alignas(128) struct block *next;
	struct block *prev;
};

struct list {
	pthread_mutex_t lock;
	struct block head;
};

int godwit_arena_create(struct godwit_arena *arena_ret)
{
	struct list *list = aligned_alloc(alignof(struct list), sizeof(*list));

	if (!list)
		return -ENOMEM;
	pthread_mutex_init(&list->lock, NULL);
	list->head.next = list->head.prev = &list->head;
	arena_ret->index = 0;
	arena_ret->list = list;
	return 0;
}

void godwit_arena_destroy(struct godwit_arena *arena)
{
	struct list *list = arena->list;

	for (struct block *block = list->head.next, *next; block != &list->head; block = next) {
		next = block->next;
		free(block);
	}
	pthread_mutex_destroy(&list->lock);
	free(list);
}

void *godwit_arena_alloc(struct godwit_arena *arena, size_t bytes)
{
	struct list *list = arena->list;
	struct block *block;

	if (bytes > SIZE_MAX / 2)
		return NULL;
	block = aligned_alloc(128, (sizeof(*block) + (bytes ? bytes : 1) + 127) & ~(size_t)127);
	if (!block)
		return NULL;
	pthread_mutex_lock(&list->lock);
	block->prev = &list->head;
	block->next = list->head.next;
	block->next->prev = block;
	list->head.next = block;
	pthread_mutex_unlock(&list->lock);
	return block + 1;
}

void *godwit_arena_alloc_zero(struct godwit_arena *arena, size_t bytes)
{
	void *mem = godwit_arena_alloc(arena, bytes);

	if (mem)
		memset(mem, 0, bytes);
	return mem;
}

void *godwit_arena_alloc_huge(struct godwit_arena *arena, size_t bytes)
{
	return godwit_arena_alloc(arena, bytes);
}

void godwit_arena_free(struct godwit_arena *arena, void *mem)
{
	struct list *list = arena->list;
	struct block *block;

	if (!mem)
		return;
	block = (struct block *)mem - 1;
	pthread_mutex_lock(&list->lock);
	block->prev->next = block->next;
	block->next->prev = block->prev;
	pthread_mutex_unlock(&list->lock);
	free(block);
}
