/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_RAM_H
#define GODWIT_RAM_H

#include <stdbool.h>

#include <godwit/batch.h>

#include "engine/memory.h"
#include "engine/touch.h"

/*
 * ram.h - where a destination's pages go: RAM blocks by id
 *
 * Read by all decoders, written only while none runs (batch.h).
 */
struct godwit_ram_block {
	char name[64];
	uint8_t *host;
	uint64_t pages;
	struct godwit_touch *touch;
	bool may_be_absent;		/* see absent.h */
};

struct godwit_ram {
	struct godwit_arena arena;
	int pagemap;			/* -1: no page is taken for absent */
	struct godwit_ram_block *block[GODWIT_MAX_BLOCKS];	/* NULL: no such block */
};

/* From here on each page that arrives has memory behind it, pages of zeros as well. */
void godwit_ram_populate(struct godwit_ram *ram);

/* NULL: no such block. */
static inline const struct godwit_ram_block *godwit_ram_block(const struct godwit_ram *ram, uint32_t id)
{
	return id < GODWIT_MAX_BLOCKS ? ram->block[id] : NULL;
}

#endif
