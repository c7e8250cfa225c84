/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ENGINE_BASE_PRIVATE_H
#define GODWIT_ENGINE_BASE_PRIVATE_H

#include <stdatomic.h>

#include "engine/base.h"
#include "engine/memory.h"
#include "engine/touch.h"
#include "xbzrle/xbzrle.h"

/*
 * The base from within: base.c makes and uses one, base_layout.c chooses and reserves what is kept,
 * base_convert.c carries over what is known.
 */
#define FINEST_GRANULE_BYTES 64u
#define COARSEST_GRANULE_BYTES 256u

/* What workers fill side by side. */
struct table {
	uint64_t *mem;
	struct godwit_touch *touch;
};

struct block {
	uint64_t pages;			/* 0: there is no block of this id */
	uint64_t first_key;		/* valid while is_laid */
	uint8_t *state;
	struct table rows;
	bool is_laid;			/* the layout in force knows it */

	/* During a layout: what it has reserved; no memory where the old one is kept or none is needed. */
	uint64_t new_first_key;
	uint8_t *new_state;
	struct table new_rows;
};

/* A layout, in force or considered. */
struct plan {
	uint32_t kind;
	uint32_t granule_bytes;		/* signatures, else 0 */
	uint64_t slots;			/* pages, else 0 */
	uint64_t pages;			/* of all blocks */
	uint64_t budget_bytes;
	uint32_t asked_kind;
	bool is_auto;
	bool is_memory_short;		/* an allocation failed on the way to this plan */
};

struct godwit_base {
	struct godwit_signer signer;	/* set by create, then read-only */
	struct godwit_arena arena;	/* holds the base itself too */

	/* Written by layout, add and remove, while no encoder runs. */
	struct godwit_base_options options;
	struct plan plan;
	struct godwit_page_cache cache;
	struct table cache_table;	/* no memory unless pages */
	struct block block[GODWIT_MAX_BLOCKS];
	char line[256];
	bool is_less;

	/* What any thread may ask for. Relaxed: each stands for itself. */
	_Atomic uint32_t kind;
	_Atomic uint32_t granule_bytes;
	_Atomic uint32_t round;
	_Atomic uint64_t pages;
	_Atomic uint64_t bytes;

	/* Relaxed: a policy for pages that are UNKNOWN; right whenever a view sees it change. */
	_Atomic bool remembers_new;
};

static inline uint32_t row_words_of(uint32_t granule_bytes)
{
	return granule_bytes ? GODWIT_PAGE_BYTES / granule_bytes : 0;
}

static inline uint64_t rows_bytes(uint64_t pages, uint32_t granule_bytes)
{
	return pages * row_words_of(granule_bytes) * sizeof(uint64_t);
}

static inline uint64_t plan_bytes(const struct plan *plan)
{
	return plan->kind == GODWIT_BASE_PAGES ? godwit_page_cache_bytes(plan->slots)
					       : rows_bytes(plan->pages, plan->granule_bytes);
}

static inline uint64_t count_pages(const struct godwit_base *base)
{
	uint64_t pages = 0;

	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++)
		pages += base->block[id].pages;
	return pages;
}

/* What any thread may ask for is brought up to date; after every change of blocks or layout. */
void godwit_base_tell(struct godwit_base *base);

/* Gives it back, if there is any; it has no memory then. */
void godwit_base_free_table(struct godwit_base *base, struct table *table);

/* A caller's options, checked; *to is untouched on an error. */
int godwit_base_take_options(struct godwit_base_options *to, const struct godwit_base_options *from,
			     struct godwit_error *error);

/*
 * What the layout in force knows becomes what plan's knows, in place in the state bytes and in what was
 * reserved: new_rows of the blocks, and cache, which is NULL where the old one is kept. Cannot fail.
 */
void godwit_base_convert(struct godwit_base *base, const struct plan *plan,
			 struct godwit_page_cache *cache);

#endif
