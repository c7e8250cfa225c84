/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* memory.h - the model's stand-in for src/ring/memory.h: slots that report races, no padding */
#ifndef GODWIT_RING_MEMORY_H
#define GODWIT_RING_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "model.hpp"

#define GODWIT_LINE 8

typedef model_plain<void *> godwit_slot;

static inline void godwit_cpu_relax(void)
{
	rl::yield(1, $);
}

#endif
