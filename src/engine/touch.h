/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TOUCH_H
#define GODWIT_TOUCH_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/memory.h"

/*
 * touch.h - the first write to each huge page, by one thread
 *
 * Two threads that write to a huge page that is not there yet take and clear one each, and one of the two
 * is thrown away. Workers walk through memory side by side: where 570 huge pages were needed, two processors
 * cleared 40 to 90 more. So whoever finds one untouched touches it alone, and others who need it wait.
 * No other lock is on a page's way.
 *
 * It is about time only: a huge page taken for untouched is touched once more, and one taken for touched
 * may be cleared twice. Memory in small pages pays a lock for each 2 MiB.
 */
#define GODWIT_TOUCH_LOCKS 16u	/* huge pages that many threads may touch at once */

struct godwit_touch {
	uintptr_t first;		/* huge page that the memory begins in */
	pthread_mutex_t lock[GODWIT_TOUCH_LOCKS];
	_Atomic uint8_t is_there[];	/* of each huge page */
};

/* For all of mem. NULL: no memory. Given back by godwit_arena_free() once nobody writes. */
struct godwit_touch *godwit_touch_create(struct godwit_arena *arena, const void *mem, size_t bytes);

void godwit_touch_first(struct godwit_touch *touch, uint8_t *at, uintptr_t huge);

/* The caller is about to write at, which nobody else does. Any thread. */
static inline void godwit_touch(struct godwit_touch *touch, void *at)
{
	uintptr_t huge = ((uintptr_t)at >> GODWIT_HUGE_SHIFT) - touch->first;

	/* Relaxed: see above. */
	if (!atomic_load_explicit(&touch->is_there[huge], memory_order_relaxed))
		godwit_touch_first(touch, at, huge);
}

#endif
