/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ENGINE_BASE_H
#define GODWIT_ENGINE_BASE_H

#include <stdbool.h>

#include <godwit/batch.h>

#include "engine/touch.h"
#include "xbzrle/page_cache.h"
#include "xbzrle/xbzrle.h"

/*
 * What the encoder needs of a base beside include/godwit/batch.h.
 *
 * The state of a page is the only truth. KNOWN says: the signature row, or the page in its slot, is of
 * what was sent last. Whoever sends a page and does not bring row or slot up to it sets UNKNOWN first.
 *
 *   page was sent as        signatures                        pages
 *   zero                    state = ZERO, row untouched       state = ZERO, slot may be dropped
 *   anything else           row = signatures of what was      claim; HIT or EMPTY: slot = what was sent,
 *                           sent, state = KNOWN               release, state = KNOWN; NONE: UNKNOWN
 *   new, and new ones are
 *   not to be remembered    UNKNOWN as before                 claim is NONE
 *   lost, or past us        state = UNKNOWN                   state = UNKNOWN
 *
 * Threads: view, row and the state bytes of a page by the thread that has the page. next_round,
 * describe, create, layout, add and remove block alone, at a drain. bytes, kind, granule, round and
 * remember_new any.
 */
enum godwit_base_state {
	GODWIT_BASE_UNKNOWN = 0,
	GODWIT_BASE_KNOWN = 1,
	GODWIT_BASE_ZERO = 2,		/* the destination has a zero page; row and slot say nothing */
};

/* What one batch of one block uses: looked up once a batch, valid until the next layout or block change. */
struct godwit_base_view {
	uint32_t block;
	uint32_t kind;			/* enum godwit_base_kind in force */
	uint32_t granule_bytes;		/* guest bytes a signature covers; 0 unless signatures */
	uint32_t row_words;		/* signatures of one page; 0 unless signatures */
	uint32_t round;			/* for the cache */
	bool remembers_new;		/* else a page that is UNKNOWN stays so */
	uint64_t pages;			/* of the block; page numbers are below it */
	uint8_t *state;			/* one byte a page, enum godwit_base_state; NULL when off */
	uint64_t *rows;			/* pages x row_words; NULL unless signatures. A row is of no defined
					 * content while its page is not KNOWN */
	const struct godwit_signer *signer;	/* NULL unless signatures */
	struct godwit_page_cache *cache;	/* NULL unless pages */
	uint64_t first_key;		/* the cache's key of page 0 */
	struct godwit_touch *touch;	/* of rows or slots; NULL when off */
};

/* False: no such block. One that was added since the last layout has kind GODWIT_BASE_OFF until the next. */
bool godwit_base_view(struct godwit_base *base, uint32_t block, struct godwit_base_view *view_ret);

static inline uint64_t *godwit_base_row(const struct godwit_base_view *view, uint64_t page)
{
	return view->rows + page * view->row_words;
}

/* The row of a page that is being sent: it may be written. */
static inline uint64_t *godwit_base_own_row(const struct godwit_base_view *view, uint64_t page)
{
	uint64_t *row = godwit_base_row(view, page);

	godwit_touch(view->touch, row);
	return row;
}

/* Is this page sent without being remembered, as it was not before? */
static inline bool godwit_base_passes(const struct godwit_base_view *view, uint64_t page)
{
	return !view->remembers_new && view->state[page] == GODWIT_BASE_UNKNOWN;
}

static inline uint64_t godwit_base_key(const struct godwit_base_view *view, uint64_t page)
{
	return view->first_key + page;
}

/* Pages kind only: the old page (HIT), a slot for the new one (EMPTY), or neither (NONE: set UNKNOWN). */
static inline enum godwit_page_claim godwit_base_claim(const struct godwit_base_view *view, uint64_t page,
						       struct godwit_page_slot *slot_ret)
{
	enum godwit_page_claim claim;

	if (godwit_base_passes(view, page))
		return GODWIT_PAGE_NONE;
	claim = godwit_page_cache_claim(view->cache, godwit_base_key(view, page),
					view->state[page] == GODWIT_BASE_KNOWN, view->round, slot_ret);
	if (claim == GODWIT_PAGE_EMPTY)
		godwit_touch(view->touch, slot_ret->page);
	return claim;
}

/* The slot now holds what was sent: the page is KNOWN. */
static inline void godwit_base_publish(const struct godwit_base_view *view, uint64_t page,
				       struct godwit_page_slot *slot)
{
	godwit_page_cache_release(slot, godwit_base_key(view, page), view->round);
	view->state[page] = GODWIT_BASE_KNOWN;
}

/*
 * What the page behind page i of a batch is going to need. With old pages its slot is claimed for that: in
 * claim and slot [(i + 1) & 1], while those of page i are at [i & 1]; page 0's the caller claims.
 */
static inline struct godwit_ahead godwit_base_look_ahead(const struct godwit_base_view *view,
							 const struct godwit_batch *batch, unsigned i,
							 enum godwit_page_claim claim[2],
							 struct godwit_page_slot slot[2])
{
	struct godwit_ahead ahead = { batch->host[i], NULL };	/* the last: nothing is ahead */
	unsigned to = (i + 1) & 1;
	uint64_t next;

	if (i + 1 == batch->nr_pages)
		return ahead;
	next = batch->page[i + 1];
	ahead.guest = batch->host[i + 1];
	if (view->kind == GODWIT_BASE_SIGNATURES) {
		if (view->state[next] == GODWIT_BASE_KNOWN)
			ahead.kept = godwit_base_row(view, next);
	} else if (view->kind == GODWIT_BASE_PAGES) {
		claim[to] = godwit_base_claim(view, next, &slot[to]);
		if (claim[to] == GODWIT_PAGE_HIT)
			ahead.kept = slot[to].page;
	}
	return ahead;
}

/* Pages of all blocks. */
uint64_t godwit_base_pages(const struct godwit_base *base);

/*
 * Memory of signatures or slots: what godwit_base_options.bytes bounds, so that an eighth of the guest
 * is enough for a signature a line. One state byte a page (0.02 % of the guest) comes on top.
 */
uint64_t godwit_base_bytes(const struct godwit_base *base);

/* enum godwit_base_kind in force: asked for signatures, it may be off for want of memory. */
uint32_t godwit_base_kind(const struct godwit_base *base);
uint32_t godwit_base_granule_bytes(const struct godwit_base *base);

/*
 * One line on the layout in force, for a log. Returns true when it is less than was asked for or the
 * bytes could not hold anything: the line then says why and what would help.
 * godwit_base_layout() puts the same line into its error's text then, and returns 0.
 */
bool godwit_base_describe(const struct godwit_base *base, char *line, size_t line_bytes);

#endif
