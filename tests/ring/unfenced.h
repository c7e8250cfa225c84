/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unfenced.h - the doorbell as it would be without its fences, for the test that must notice
 *
 * The very source, compiled a second time under other names with atomic_thread_fence() holding back the
 * compiler only.
 */
#include "ring/doorbell.h"

#undef GODWIT_RING_DOORBELL_H
#undef atomic_thread_fence
#define atomic_thread_fence(order) atomic_signal_fence(order)
#define godwit_doorbell unfenced_doorbell
#define godwit_doorbell_init unfenced_doorbell_init
#define godwit_doorbell_wait_at unfenced_doorbell_wait_at
#define godwit_doorbell_wait unfenced_doorbell_wait
#define godwit_doorbell_wake unfenced_doorbell_wake
#define godwit_doorbell_ring_at unfenced_doorbell_ring_at
#define godwit_doorbell_ring unfenced_doorbell_ring
#define godwit_doorbell_has_sleeper unfenced_doorbell_has_sleeper
#define godwit_doorbell_nr_sleeps unfenced_doorbell_nr_sleeps
#include "ring/doorbell.c"
#undef godwit_doorbell
#undef godwit_doorbell_init
#undef godwit_doorbell_wait_at
#undef godwit_doorbell_wait
#undef godwit_doorbell_wake
#undef godwit_doorbell_ring_at
#undef godwit_doorbell_ring
#undef godwit_doorbell_has_sleeper
#undef godwit_doorbell_nr_sleeps
