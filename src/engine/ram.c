/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ram.c - the table of RAM blocks; see ram.h */
#include <errno.h>
#include <string.h>

#include "engine/absent.h"
#include "engine/error.h"
#include "engine/ram.h"

int godwit_ram_create(struct godwit_ram **ram_ret, struct godwit_error *error)
{
	struct godwit_arena arena;
	struct godwit_ram *ram;
	int err = godwit_arena_create(&arena);

	if (err)
		goto fail;
	ram = godwit_arena_alloc_zero(&arena, sizeof(*ram));
	if (!ram) {
		godwit_arena_destroy(&arena);
		err = -ENOMEM;
		goto fail;
	}
	ram->arena = arena;
	ram->pagemap = godwit_absent_open();
	*ram_ret = ram;
	return 0;
fail:
	godwit_error_set(error, "no memory for the table of RAM blocks");
	return err;
}

void godwit_ram_destroy(struct godwit_ram *ram)
{
	struct godwit_arena arena;

	if (!ram)
		return;
	godwit_ram_populate(ram);
	arena = ram->arena;		/* ram itself lies in it */
	godwit_arena_destroy(&arena);
}

void godwit_ram_populate(struct godwit_ram *ram)
{
	godwit_absent_close(ram->pagemap);
	ram->pagemap = -1;
}

int godwit_ram_add_block(struct godwit_ram *ram, uint32_t id, const char *name, void *host, uint64_t bytes,
			 struct godwit_error *error)
{
	struct godwit_ram_block *block;

	if (id >= GODWIT_MAX_BLOCKS) {
		godwit_error_set(error, "RAM block id %u is above the limit %u", id,
				 GODWIT_MAX_BLOCKS - 1);
		return -EINVAL;
	}
	if (!host || !bytes || bytes % GODWIT_PAGE_BYTES) {
		godwit_error_set(error, "RAM block %u: %llu bytes at %p is not whole pages", id,
				 (unsigned long long)bytes, host);
		return -EINVAL;
	}
	if (ram->block[id]) {
		godwit_error_set(error, "RAM block %u is there already, as '%s'", id,
				 ram->block[id]->name);
		return -EEXIST;
	}
	block = godwit_arena_alloc_zero(&ram->arena, sizeof(*block));
	if (block)
		block->touch = godwit_touch_create(&ram->arena, host, bytes);
	if (!block || !block->touch) {
		godwit_arena_free(&ram->arena, block);
		godwit_error_set(error, "no memory for RAM block %u", id);
		return -ENOMEM;
	}
	strncpy(block->name, name ? name : "", sizeof(block->name) - 1);
	block->host = host;
	block->pages = bytes / GODWIT_PAGE_BYTES;
	block->may_be_absent = ram->pagemap >= 0 && godwit_absent_may_be(host, bytes);
	ram->block[id] = block;
	return 0;
}

int godwit_ram_remove_block(struct godwit_ram *ram, uint32_t id)
{
	if (!godwit_ram_block(ram, id))
		return -ENOENT;
	godwit_arena_free(&ram->arena, ram->block[id]->touch);
	godwit_arena_free(&ram->arena, ram->block[id]);
	ram->block[id] = NULL;
	return 0;
}
