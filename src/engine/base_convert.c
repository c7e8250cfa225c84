/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * base_convert.c - from one layout to the next, keeping what fits
 *
 *   to                from the same kind             from the other kind
 *   signatures        finer: coarsened in a pass     signed from the old pages that are there
 *                     coarser: KNOWN is forgotten
 *   pages             what fits under the new keys   KNOWN is forgotten
 *   off               everything is forgotten: pages are then sent and nothing is noted
 *
 * ZERO stays ZERO but across off. Old tables are given back to the system while they are converted, so
 * that both are never resident together.
 */
#include "engine/base_private.h"

#include <string.h>
#include <sys/mman.h>

/* Converted memory goes back in pieces of this size: one system call for 512 pages. */
#define GIVE_BACK_BYTES (2u << 20)

/*
 * Gives memory that was read for the last time back as a sweep passes over it. Refused for locked
 * memory, which then goes back with the free: nothing else depends on it.
 */
struct give_back {
	uintptr_t done;			/* below it nothing is left */
};

static void give_back_below(struct give_back *give, const void *now)
{
	uintptr_t end = (uintptr_t)now & ~(uintptr_t)(GIVE_BACK_BYTES - 1);

	if (end <= give->done)
		return;
	madvise((void *)give->done, end - give->done, MADV_DONTNEED);
	give->done = end;
}

static struct give_back give_back_from(const void *memory)
{
	return (struct give_back){ ((uintptr_t)memory + GODWIT_PAGE_BYTES - 1) &
				   ~(uintptr_t)(GODWIT_PAGE_BYTES - 1) };
}

static void change_states(struct block *block, uint8_t from, uint8_t to)
{
	for (uint64_t page = 0; page < block->pages; page++) {
		if (block->state[page] == from)
			block->state[page] = to;
	}
}

static void change_all_states(struct godwit_base *base, uint8_t from, uint8_t to)
{
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		if (base->block[id].state)
			change_states(&base->block[id], from, to);
	}
}

static void coarsen_block(struct block *block, uint32_t from_words, uint32_t to_words)
{
	struct give_back give = give_back_from(block->rows.mem);
	uint64_t row[GODWIT_PAGE_LINES];

	for (uint64_t page = 0; page < block->pages; page++) {
		const uint64_t *old_row = block->rows.mem + page * from_words;

		give_back_below(&give, old_row);
		if (block->state[page] != GODWIT_BASE_KNOWN)
			continue;
		memcpy(row, old_row, from_words * sizeof(*row));
		for (uint32_t words = from_words; words > to_words; words /= 2)
			godwit_signatures_coarsen(row, row, words);
		memcpy(block->new_rows.mem + page * to_words, row, to_words * sizeof(*row));
	}
}

static void signatures_to_signatures(struct godwit_base *base, const struct plan *plan)
{
	uint32_t from_words = row_words_of(base->plan.granule_bytes);
	uint32_t to_words = row_words_of(plan->granule_bytes);

	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		struct block *block = &base->block[id];

		if (!block->rows.mem || !block->new_rows.mem)
			continue;
		if (from_words > to_words)
			coarsen_block(block, from_words, to_words);
		else
			change_states(block, GODWIT_BASE_KNOWN, GODWIT_BASE_UNKNOWN);
	}
}

/* What a visit of the old cache's slots needs. */
struct visit {
	struct godwit_base *base;
	struct give_back give;
	uint32_t granule_bytes;		/* to signatures */
	struct godwit_page_cache *to;	/* to pages */
	uint32_t nr_laid;
	struct block *laid[GODWIT_MAX_BLOCKS];	/* ascending first_key */
};

/* A page that is KNOWN and has been signed. Only while a layout converts pages to signatures. */
#define STATE_SIGNED 3u

static void visit_init(struct visit *visit, struct godwit_base *base)
{
	visit->base = base;
	visit->give = give_back_from(base->cache.page);
	visit->nr_laid = 0;
	/* Keys were given in the order of ids, and blocks since removed or added are not laid out. */
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		if (base->block[id].is_laid)
			visit->laid[visit->nr_laid++] = &base->block[id];
	}
}

/* The block of a key, and the page's number in it; NULL for a page of a block that is gone, or not KNOWN. */
static struct block *known_block(const struct visit *visit, uint64_t key, uint64_t *page_ret)
{
	uint32_t low = 0, high = visit->nr_laid;
	struct block *block;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (visit->laid[middle]->first_key <= key)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return NULL;
	block = visit->laid[low - 1];
	*page_ret = key - block->first_key;
	if (*page_ret >= block->pages || block->state[*page_ret] != GODWIT_BASE_KNOWN)
		return NULL;
	return block;
}

static void sign_slot(void *user, uint64_t key, uint32_t round, uint8_t *page)
{
	struct visit *visit = user;
	uint32_t words = row_words_of(visit->granule_bytes);
	uint8_t copy[GODWIT_PAGE_BYTES];
	struct godwit_save save;
	uint64_t number;
	struct block *block = known_block(visit, key, &number);

	if (block) {
		godwit_save_lines(&visit->base->signer, visit->granule_bytes, page, NULL,
				  block->new_rows.mem + number * words, copy, NULL, &save);
		block->state[number] = STATE_SIGNED;
	}
	give_back_below(&visit->give, page);
}

static void pages_to_signatures(struct godwit_base *base, const struct plan *plan)
{
	struct visit visit;

	visit_init(&visit, base);
	visit.granule_bytes = plan->granule_bytes;
	godwit_page_cache_each(&base->cache, sign_slot, &visit);
	change_all_states(base, GODWIT_BASE_KNOWN, GODWIT_BASE_UNKNOWN);
	change_all_states(base, STATE_SIGNED, GODWIT_BASE_KNOWN);
}

static void move_slot(void *user, uint64_t key, uint32_t round, uint8_t *page)
{
	struct visit *visit = user;
	uint64_t number;
	struct block *block = known_block(visit, key, &number);

	/* A page without a slot may stay KNOWN: its next claim finds no slot of its own. */
	if (block)
		godwit_page_cache_put(visit->to, block->new_first_key + number, round, page);
	give_back_below(&visit->give, page);
}

static void pages_to_pages(struct godwit_base *base, struct godwit_page_cache *to)
{
	struct visit visit;

	visit_init(&visit, base);
	visit.to = to;
	godwit_page_cache_each(&base->cache, move_slot, &visit);
}

void godwit_base_convert(struct godwit_base *base, const struct plan *plan,
			 struct godwit_page_cache *cache)
{
	uint32_t from = base->plan.kind;

	if (from == GODWIT_BASE_OFF || plan->kind == GODWIT_BASE_OFF)
		return;		/* no states yet, or none any more */
	if (plan->kind == GODWIT_BASE_SIGNATURES) {
		if (from == GODWIT_BASE_SIGNATURES)
			signatures_to_signatures(base, plan);
		else
			pages_to_signatures(base, plan);
		return;
	}
	if (from == GODWIT_BASE_SIGNATURES)
		change_all_states(base, GODWIT_BASE_KNOWN, GODWIT_BASE_UNKNOWN);
	else if (cache)
		pages_to_pages(base, cache);
}
