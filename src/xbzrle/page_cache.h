/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_XBZRLE_PAGE_CACHE_H
#define GODWIT_XBZRLE_PAGE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/common.h>

#include "xbzrle/slot_claim.h"

/*
 * Old pages: a fixed number of slots of one page each, in memory that the caller gives.
 *
 * A key is a page's number counted over the whole guest, below GODWIT_PAGE_KEYS. While there are at
 * least as many slots as keys in use (all below the number of slots), every page has a slot of its
 * own: slot number = key. Below that pages share sets of GODWIT_PAGE_WAYS slots.
 *
 * The cache says where an old page is, never that it is what the destination has: that is the
 * caller's *known* bit. The caller keeps these rules:
 *  - a key is with one thread at a time, from claim to release and between;
 *  - a page that was sent and whose claim gave NONE, or whose slot was released without the page
 *    that was sent, is no longer known.
 *
 *   call                       may run together with
 *   claim, release, drop       each other (other keys), wait-free
 *   init, put, each            nothing
 *   used                       anything; what it gives is of a moment
 */
#define GODWIT_PAGE_KEYS (UINT64_C(1) << 47)
#define GODWIT_PAGE_NO_KEY UINT64_MAX

/* Slots that may hold a page; why four, and why one round: page_cache.c. */
#define GODWIT_PAGE_WAYS 4u

/* An entry used in the current round or this many before it is not replaced. */
#define GODWIT_PAGE_FRESH_ROUNDS 1u

struct godwit_page_cache {
	/* Set by init, then read-only. */
	uint64_t slots;
	uint64_t sets;			/* slots / GODWIT_PAGE_WAYS, rounded up */
	uint64_t wide_sets;		/* the first sets, which have one way more than the others */
	uint32_t ways;			/* of the other sets */
	godwit_slot_tag *tag;		/* sets x GODWIT_PAGE_WAYS, page aligned */
	uint8_t *page;			/* slots x GODWIT_PAGE_BYTES, page aligned */
};

/* A claimed slot: page is this thread's alone until the release. */
struct godwit_page_slot {
	uint8_t *page;
	godwit_slot_tag *tag;
};

enum godwit_page_claim {
	GODWIT_PAGE_NONE = 0,		/* no slot; nothing to release */
	GODWIT_PAGE_EMPTY = 1,		/* slot->page holds nothing of use: fill it, release it */
	GODWIT_PAGE_HIT = 2,		/* slot->page is the old page: update it in place, release it */
};

/* Memory for that many slots, alignment slack included; 0 for 0 slots. */
size_t godwit_page_cache_bytes(uint64_t slots);

/* The most slots that fit into bytes. */
uint64_t godwit_page_cache_slots(uint64_t bytes);

/*
 * godwit_page_cache_init() - an empty cache of slots (at least 1) in memory.
 *
 * memory has godwit_page_cache_bytes(slots), of any alignment and content; only its tags are written
 * here. It stays the caller's and must outlive the cache.
 */
void godwit_page_cache_init(struct godwit_page_cache *cache, uint64_t slots, void *memory);

/*
 * godwit_page_cache_claim() - the slot of key, or one for it.
 *
 * known:   the caller's word that a slot tagged with key holds what the destination has; without it a
 *          slot found is EMPTY.
 * round:   the caller's count of passes, for the fresh-entry rule; wraps freely.
 * Result:  enum godwit_page_claim. NONE when the set is full of fresh entries or another thread was
 *          quicker: one compare-and-swap is tried, never two, and nothing is waited for.
 */
enum godwit_page_claim godwit_page_cache_claim(struct godwit_page_cache *cache, uint64_t key, bool known,
					       uint32_t round, struct godwit_page_slot *slot_ret);

/*
 * godwit_page_cache_release() - give a claimed slot back, filled with the page that was sent.
 *
 * key is that of the claim, or GODWIT_PAGE_NO_KEY when the slot was not filled: then it is empty.
 * What it held before the claim never comes back: its page may have been sent anew meanwhile.
 */
void godwit_page_cache_release(struct godwit_page_slot *slot, uint64_t key, uint32_t round);

/* Empty the slot of key, if it has one that nobody is taking. To be called by the thread that has key. */
void godwit_page_cache_drop(struct godwit_page_cache *cache, uint64_t key);

/*
 * To carry pages from one cache to another, one thread alone.
 *
 * godwit_page_cache_each() calls visit for every filled slot, in slot order; page is the slot itself.
 * godwit_page_cache_put() copies a page in, with the round it was last used in. False when its set is
 * full of entries used as lately.
 */
typedef void (*godwit_page_visit_fn)(void *user, uint64_t key, uint32_t round, uint8_t *page);
void godwit_page_cache_each(struct godwit_page_cache *cache, godwit_page_visit_fn visit, void *user);
bool godwit_page_cache_put(struct godwit_page_cache *cache, uint64_t key, uint32_t round,
			   const uint8_t *page);

/* Filled slots. */
uint64_t godwit_page_cache_used(struct godwit_page_cache *cache);

#endif
