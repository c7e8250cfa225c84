/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memory.h - what the rings take from the machine: atomics, the line, a slot, a pause
 *
 * The model checker builds the rings unchanged against its own copy of this file (tests/model/shim/),
 * where an atomic remembers its history and a slot reports races. So nothing here may decide anything.
 */
#ifndef GODWIT_RING_MEMORY_H
#define GODWIT_RING_MEMORY_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What one core owns at a time. Fields of different writers stand two of these apart, because many
 * x86 parts fetch lines in pairs.
 */
#define GODWIT_LINE 64

/* What a ring carries: an untyped pointer, which the ring never follows. */
typedef void *godwit_slot;

/* In a loop that waits for another core: gives the sibling hyper-thread room and saves power. */
static inline void godwit_cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	/* yield is a no-op on most cores; isb stalls about as long as an x86 pause. */
	__asm__ __volatile__("isb" ::: "memory");
#endif
}

#endif
