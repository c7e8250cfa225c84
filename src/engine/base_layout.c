/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * base_layout.c - how much a base keeps: choosing, reserving, putting in force
 *
 * A layout first reserves all that the new one needs and then converts, which cannot fail: without the
 * memory the old layout stays as it was. An auto layout that finds no memory becomes smaller instead, and
 * says so: a migration without a base is slow, one that is refused is none.
 *
 * Auto counts what is left in the host and adds what the base itself holds already, else each layout
 * would leave the next one less.
 */
#include "engine/base_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include "engine/error.h"

/* The share of the guest and of memory left that an auto base takes. */
#define AUTO_GUEST_PART 8u
#define AUTO_LEFT_PART 4u

/* What the base has faulted in of its rows or slots. */
static uint64_t resident_bytes(struct godwit_base *base)
{
	uint64_t known = 0;

	if (base->plan.kind == GODWIT_BASE_PAGES)
		return godwit_page_cache_used(&base->cache) * GODWIT_PAGE_BYTES;
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		const struct block *block = &base->block[id];

		for (uint64_t page = 0; block->state && page < block->pages; page++)
			known += block->state[page] == GODWIT_BASE_KNOWN;
	}
	return rows_bytes(known, base->plan.granule_bytes);
}

static uint64_t auto_bytes(struct godwit_base *base, uint64_t pages)
{
	uint64_t of_guest = pages * GODWIT_PAGE_BYTES / AUTO_GUEST_PART;
	uint64_t left = godwit_memory_left_bytes();
	uint64_t mine = resident_bytes(base);
	uint64_t of_left = (left > UINT64_MAX - mine ? UINT64_MAX : left + mine) / AUTO_LEFT_PART;

	return of_guest < of_left ? of_guest : of_left;
}

static void plan_off(struct plan *plan)
{
	plan->kind = GODWIT_BASE_OFF;
	plan->granule_bytes = 0;
	plan->slots = 0;
}

/* The next smaller layout of its kind; off after the smallest. */
static void plan_less(struct plan *plan)
{
	if (plan->kind == GODWIT_BASE_SIGNATURES && plan->granule_bytes < COARSEST_GRANULE_BYTES)
		plan->granule_bytes *= 2;
	else if (plan->kind == GODWIT_BASE_PAGES && plan->slots > 1)
		plan->slots /= 2;
	else
		plan_off(plan);
}

static void plan_make(struct plan *plan, struct godwit_base *base,
		      const struct godwit_base_options *options)
{
	*plan = (struct plan){
		.kind = options->kind,
		.asked_kind = options->kind,
		.pages = count_pages(base),
		.is_auto = !options->bytes,
	};
	if (!plan->pages || plan->kind == GODWIT_BASE_OFF) {
		plan_off(plan);
		return;
	}
	plan->budget_bytes = plan->is_auto ? auto_bytes(base, plan->pages) : options->bytes;
	if (plan->kind == GODWIT_BASE_PAGES) {
		plan->slots = godwit_page_cache_slots(plan->budget_bytes);
		if (plan->slots > plan->pages)
			plan->slots = plan->pages;
		if (!plan->slots)
			plan_off(plan);
		return;
	}
	plan->granule_bytes = FINEST_GRANULE_BYTES;
	while (plan->kind != GODWIT_BASE_OFF && plan_bytes(plan) > plan->budget_bytes)
		plan_less(plan);
}

/* New keys, in the order of ids. True if a block that is laid out gets another than it has. */
static bool count_keys(struct godwit_base *base)
{
	bool is_moved = false;
	uint64_t key = 0;

	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		struct block *block = &base->block[id];

		block->new_first_key = key;
		is_moved |= block->is_laid && block->first_key != key;
		key += block->pages;
	}
	return is_moved;
}

static int alloc_table(struct godwit_base *base, uint64_t bytes, struct table *table)
{
	table->mem = godwit_arena_alloc(&base->arena, bytes);
	table->touch = table->mem ? godwit_touch_create(&base->arena, table->mem, bytes) : NULL;
	if (table->touch)
		return 0;
	godwit_base_free_table(base, table);
	return -ENOMEM;
}

void godwit_base_free_table(struct godwit_base *base, struct table *table)
{
	godwit_arena_free(&base->arena, table->mem);
	godwit_arena_free(&base->arena, table->touch);
	*table = (struct table){ NULL, NULL };
}

/* It may have no memory itself. */
static void replace_table(struct godwit_base *base, struct table *table, const struct table *by)
{
	godwit_base_free_table(base, table);
	*table = *by;
}

static void unreserve(struct godwit_base *base)
{
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		struct block *block = &base->block[id];

		godwit_arena_free(&base->arena, block->new_state);
		godwit_base_free_table(base, &block->new_rows);
		block->new_state = NULL;
	}
}

static int reserve_block(struct godwit_base *base, const struct plan *plan, struct block *block)
{
	bool has_rows = block->rows.mem && base->plan.granule_bytes == plan->granule_bytes;

	if (!block->state) {
		block->new_state = godwit_arena_alloc_zero(&base->arena, block->pages);
		if (!block->new_state)
			return -ENOMEM;
	}
	if (plan->kind == GODWIT_BASE_SIGNATURES && !has_rows)
		return alloc_table(base, rows_bytes(block->pages, plan->granule_bytes), &block->new_rows);
	return 0;
}

/* *cache_ret is that of a new cache, without memory where the old one is kept or none is needed. */
static int reserve(struct godwit_base *base, const struct plan *plan, struct table *cache_ret)
{
	bool is_moved = count_keys(base);
	bool has_cache = base->plan.kind == GODWIT_BASE_PAGES && base->plan.slots == plan->slots &&
			 !is_moved;

	*cache_ret = (struct table){ NULL, NULL };
	if (plan->kind == GODWIT_BASE_OFF)
		return 0;
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		if (base->block[id].pages && reserve_block(base, plan, &base->block[id]))
			goto unreserve;
	}
	if (plan->kind == GODWIT_BASE_PAGES && !has_cache && alloc_table(base, plan_bytes(plan), cache_ret))
		goto unreserve;
	return 0;

unreserve:
	unreserve(base);
	return -ENOMEM;
}

static void commit_block(struct godwit_base *base, const struct plan *plan, struct block *block)
{
	bool is_off = plan->kind == GODWIT_BASE_OFF;

	if (is_off || block->new_state) {
		godwit_arena_free(&base->arena, block->state);
		block->state = block->new_state;
	}
	if (plan->kind != GODWIT_BASE_SIGNATURES || block->new_rows.mem)
		replace_table(base, &block->rows, &block->new_rows);
	block->new_state = NULL;
	block->new_rows = (struct table){ NULL, NULL };
	block->first_key = block->new_first_key;
	block->is_laid = block->pages && !is_off;
}

static void commit(struct godwit_base *base, const struct plan *plan,
		   const struct godwit_page_cache *cache, const struct table *cache_table)
{
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++)
		commit_block(base, plan, &base->block[id]);
	if (plan->kind != GODWIT_BASE_PAGES || cache_table->mem)
		replace_table(base, &base->cache_table, cache_table);
	if (cache_table->mem)
		base->cache = *cache;
	base->plan = *plan;
	godwit_base_tell(base);
}

static void say_off(struct godwit_base *base, const struct plan *plan)
{
	uint64_t least = plan->asked_kind == GODWIT_BASE_PAGES
			 ? godwit_page_cache_bytes(1) : rows_bytes(plan->pages, COARSEST_GRANULE_BYTES);

	if (!plan->pages || plan->asked_kind == GODWIT_BASE_OFF)
		snprintf(base->line, sizeof(base->line), "base: off: %s",
			 plan->pages ? "as asked" : "there are no blocks");
	else if (plan->is_memory_short)
		snprintf(base->line, sizeof(base->line), "base: off: not even %" PRIu64 " KiB could be "
			 "allocated; memory is locked or limited", least >> 10);
	else
		snprintf(base->line, sizeof(base->line), "base: off: %" PRIu64 " pages need at least %"
			 PRIu64 " KiB, %s %" PRIu64 " KiB", plan->pages, least >> 10,
			 plan->is_auto ? "memory left allows" : "given are", plan->budget_bytes >> 10);
	base->is_less = plan->pages && plan->asked_kind != GODWIT_BASE_OFF;
}

static void say(struct godwit_base *base, const struct plan *plan)
{
	uint64_t all_bytes = plan_bytes(plan) + plan->pages;
	const char *why = "";

	if (plan->kind == GODWIT_BASE_OFF) {
		say_off(base, plan);
		return;
	}
	base->is_less = plan->is_memory_short;
	if (plan->kind == GODWIT_BASE_SIGNATURES && plan->is_auto)
		base->is_less |= plan->granule_bytes > FINEST_GRANULE_BYTES;
	else if (plan->is_auto)
		base->is_less |= plan->budget_bytes < plan->pages * GODWIT_PAGE_BYTES / AUTO_GUEST_PART;
	if (plan->is_memory_short)
		why = "; more could not be allocated: memory is locked or limited";
	else if (base->is_less)
		why = "; less than an eighth of the guest, as little memory is left";
	if (plan->kind == GODWIT_BASE_SIGNATURES)
		snprintf(base->line, sizeof(base->line), "base: signatures per %u bytes, %" PRIu64
			 " KiB for %" PRIu64 " pages%s", plan->granule_bytes, all_bytes >> 10, plan->pages,
			 why);
	else
		snprintf(base->line, sizeof(base->line), "base: %" PRIu64 " old pages, %" PRIu64
			 " KiB for %" PRIu64 " pages%s", plan->slots, all_bytes >> 10, plan->pages, why);
}

/* Slots fill from the first to the last within one pass: huge pages make that three times cheaper. */
static void cache_init(struct godwit_page_cache *cache, uint64_t slots, void *memory)
{
	godwit_page_cache_init(cache, slots, memory);
	madvise(cache->page, slots * GODWIT_PAGE_BYTES, MADV_HUGEPAGE);
}

int godwit_base_layout(struct godwit_base *base, const struct godwit_base_options *options,
		       struct godwit_error *error)
{
	struct godwit_base_options taken = base->options;
	struct godwit_page_cache cache;
	struct table cache_table;
	struct plan plan;
	int err = options ? godwit_base_take_options(&taken, options, error) : 0;

	if (err)
		return err;
	plan_make(&plan, base, &taken);
	while (reserve(base, &plan, &cache_table)) {
		if (!plan.is_auto) {
			godwit_error_set(error, "base: no memory for %" PRIu64 " KiB; the old layout "
					 "stays", (plan_bytes(&plan) + plan.pages) >> 10);
			return -ENOMEM;
		}
		plan.is_memory_short = true;
		plan_less(&plan);
	}
	if (cache_table.mem)
		cache_init(&cache, plan.slots, cache_table.mem);
	godwit_base_convert(base, &plan, cache_table.mem ? &cache : NULL);
	commit(base, &plan, &cache, &cache_table);
	base->options = taken;
	say(base, &plan);
	if (base->is_less)
		godwit_error_set(error, "%s", base->line);
	return 0;
}
