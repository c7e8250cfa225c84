/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* touch.c - the first write to each huge page; see touch.h */
#include <stdbool.h>

#include "engine/touch.h"

struct godwit_touch *godwit_touch_create(struct godwit_arena *arena, const void *mem, size_t bytes)
{
	uintptr_t first = (uintptr_t)mem >> GODWIT_HUGE_SHIFT;
	uintptr_t last = ((uintptr_t)mem + bytes - 1) >> GODWIT_HUGE_SHIFT;
	struct godwit_touch *touch = godwit_arena_alloc_zero(arena, sizeof(*touch) + last - first + 1);

	if (!touch)
		return NULL;
	touch->first = first;
	for (unsigned i = 0; i < GODWIT_TOUCH_LOCKS; i++)
		pthread_mutex_init(&touch->lock[i], NULL);
	return touch;
}

void godwit_touch_first(struct godwit_touch *touch, uint8_t *at, uintptr_t huge)
{
	pthread_mutex_t *lock = &touch->lock[huge % GODWIT_TOUCH_LOCKS];

	pthread_mutex_lock(lock);
	if (!atomic_load_explicit(&touch->is_there[huge], memory_order_relaxed)) {
		uint8_t byte = *at;

		/*
		 * A write that changes nothing. Relaxed: the byte is the caller's alone. Not "or 0", of which
		 * clang makes a read: that leaves small pages where it finds none, or nothing.
		 */
		__atomic_compare_exchange_n(at, &byte, byte, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
		atomic_store_explicit(&touch->is_there[huge], 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(lock);
}
