/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring.h - handing pointers to other threads
 *
 *   struct godwit_spsc	one producer, one consumer: a worker's submissions, its completions
 *   struct godwit_mpmc	any producers and consumers: free lists, shared queues
 *   struct godwit_doorbell	how the consumer sleeps while there is nothing
 *
 * Rings and bells know nothing of each other: after a push the producer rings the bell of the consumer,
 * once a burst. All live in memory of the caller, hold pointers that they never follow, allocate nothing
 * and fail at nothing but "full" and "empty", which are counts.
 */
#ifndef GODWIT_RING_RING_H
#define GODWIT_RING_RING_H

#include "ring/doorbell.h"
#include "ring/mpmc.h"
#include "ring/spsc.h"

#endif
