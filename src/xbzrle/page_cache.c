/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * page_cache.c - old pages in a fixed number of slots, shared by all workers without a lock
 *
 * A slot has a tag: whose page it holds and in which round that was last used. To touch a slot is to
 * swap its tag for BUSY, once; who loses treats its page as a miss, which costs bytes and nothing
 * else. Waiting would cost more than the delta saves. (QEMU's cache has one mutex for all.)
 *
 * Placement: set = key modulo the number of sets, and within a set the way key / sets comes first.
 * Keys count the guest's pages, so a sweep of any length spreads evenly, and a cache that has a slot
 * for every page has one per page: slot number = key, with no conflict, no second mode and nothing
 * that a power of two would waste.
 *
 * Replacement: an entry used in this round or the one before stays. LRU gets nothing from a sweep
 * longer than the cache: each page is evicted just before it is asked for again. With the fresh rule
 * the pages that are in stay in, and the first pass fills the slots without ever replacing. Rates over
 * synthetic send orders (guest of 128 Ki pages, 30 rounds, per cent of re-sends; mean over cache sizes
 * of 3 to 50 % of the guest; sweep, zipf 0.99, both, zipf with a moving window, stride of 8, a sweep
 * every third round):
 *
 *   rounds an entry stays      1 way  2 ways  4 ways  8 ways  16 ways   4 ways, hashed sets
 *   0 (this round only)         40.8    39.0    40.8    40.6     40.5                  40.2
 *   1                           43.0    40.9    43.0    42.6     42.2                  42.2
 *   2                           41.6    39.6    41.7    41.3     40.9                  41.0
 *   3                           40.7    38.9    41.0    40.8     40.4                  40.5
 *   LRU, 8 ways                 26.9
 *
 * One way is as good on average, but loses 3 points of zipf alone, where two hot pages that meet in a
 * slot evict each other; two ways meet the stride.
 *
 * Always: a tag names a key only while the slot holds the page that the key's thread last put there;
 * at most one slot is tagged with a key.
 */
#include "xbzrle/page_cache.h"

#include <assert.h>
#include <string.h>

/* A tag: key + 1 in the upper 48 bits, 15 bits of round, and bit 0, which only BUSY has. */
#define ROUND_BITS 15
#define ROUND_MASK ((1u << ROUND_BITS) - 1)
#define KEY_SHIFT (ROUND_BITS + 1)

static_assert(GODWIT_PAGE_KEYS <= (UINT64_C(1) << (64 - KEY_SHIFT)) - 1, "key + 1 fits its bits");
static_assert(GODWIT_SLOT_BUSY == 1 && GODWIT_SLOT_EMPTY == 0, "neither has a key");

static uint64_t tag_of(uint64_t key, uint32_t round)
{
	return (key + 1) << KEY_SHIFT | (uint64_t)(round & ROUND_MASK) << 1;
}

static bool is_of_key(uint64_t tag, uint64_t key)
{
	return tag >> KEY_SHIFT == key + 1;
}

/* Rounds since the entry was used; an empty slot is older than any, a busy one younger. */
static uint32_t age_of(uint64_t tag, uint32_t round)
{
	if (tag == GODWIT_SLOT_EMPTY)
		return UINT32_MAX;
	if (tag == GODWIT_SLOT_BUSY)
		return 0;
	return (round - (uint32_t)(tag >> 1)) & ROUND_MASK;
}

/* Where a key may be: ways slots, beginning with first. */
struct place {
	uint64_t set;
	unsigned ways;
	unsigned first;
};

static struct place place_of(const struct godwit_page_cache *cache, uint64_t key)
{
	struct place place = { .set = key % cache->sets };

	place.ways = cache->ways + (place.set < cache->wide_sets);
	place.first = (unsigned)(key / cache->sets) % place.ways;
	return place;
}

static unsigned way_at(const struct place *place, unsigned step)
{
	unsigned way = place->first + step;

	return way < place->ways ? way : way - place->ways;
}

static struct godwit_page_slot slot_at(const struct godwit_page_cache *cache, uint64_t set, unsigned way)
{
	return (struct godwit_page_slot){
		.page = cache->page + (way * cache->sets + set) * GODWIT_PAGE_BYTES,
		.tag = &cache->tag[set * GODWIT_PAGE_WAYS + way],
	};
}

static uint64_t sets_of(uint64_t slots)
{
	return (slots + GODWIT_PAGE_WAYS - 1) / GODWIT_PAGE_WAYS;
}

static uint64_t page_align(uint64_t bytes)
{
	return (bytes + GODWIT_PAGE_BYTES - 1) & ~(uint64_t)(GODWIT_PAGE_BYTES - 1);
}

static uint64_t tag_bytes(uint64_t slots)
{
	return page_align(sets_of(slots) * GODWIT_PAGE_WAYS * sizeof(godwit_slot_tag));
}

size_t godwit_page_cache_bytes(uint64_t slots)
{
	if (!slots)
		return 0;
	return GODWIT_PAGE_BYTES - 1 + tag_bytes(slots) + slots * GODWIT_PAGE_BYTES;
}

uint64_t godwit_page_cache_slots(uint64_t bytes)
{
	uint64_t slots = bytes / (GODWIT_PAGE_BYTES + sizeof(godwit_slot_tag));

	/* Slack and rounding are less than three pages. */
	while (slots && godwit_page_cache_bytes(slots) > bytes)
		slots--;
	return slots;
}

void godwit_page_cache_init(struct godwit_page_cache *cache, uint64_t slots, void *memory)
{
	uint8_t *aligned = (uint8_t *)page_align((uintptr_t)memory);

	assert(slots);
	cache->slots = slots;
	cache->sets = sets_of(slots);
	/* Slot number = way * sets + set: the last way is there for the first sets only. */
	cache->ways = (uint32_t)(slots / cache->sets);
	cache->wide_sets = slots % cache->sets;
	cache->tag = (godwit_slot_tag *)aligned;
	cache->page = aligned + tag_bytes(slots);
	for (uint64_t i = 0; i < cache->sets * GODWIT_PAGE_WAYS; i++)
		atomic_init(&cache->tag[i], GODWIT_SLOT_EMPTY);
}

enum godwit_page_claim godwit_page_cache_claim(struct godwit_page_cache *cache, uint64_t key, bool known,
					       uint32_t round, struct godwit_page_slot *slot_ret)
{
	struct place place = place_of(cache, key);
	enum godwit_page_claim claim = GODWIT_PAGE_NONE;
	uint32_t oldest = GODWIT_PAGE_FRESH_ROUNDS;
	uint64_t seen_tag = GODWIT_SLOT_BUSY;

	assert(key < GODWIT_PAGE_KEYS);
	for (unsigned step = 0; step < place.ways; step++) {
		struct godwit_page_slot slot = slot_at(cache, place.set, way_at(&place, step));
		uint64_t tag = godwit_slot_look(slot.tag);

		if (is_of_key(tag, key)) {
			*slot_ret = slot;
			seen_tag = tag;
			claim = known ? GODWIT_PAGE_HIT : GODWIT_PAGE_EMPTY;
			break;
		}
		if (age_of(tag, round) > oldest) {
			*slot_ret = slot;
			seen_tag = tag;
			oldest = age_of(tag, round);
			claim = GODWIT_PAGE_EMPTY;
		}
	}
	if (claim != GODWIT_PAGE_NONE && !godwit_slot_claim(slot_ret->tag, seen_tag))
		return GODWIT_PAGE_NONE;
	return claim;
}

void godwit_page_cache_release(struct godwit_page_slot *slot, uint64_t key, uint32_t round)
{
	godwit_slot_publish(slot->tag,
			    key == GODWIT_PAGE_NO_KEY ? GODWIT_SLOT_EMPTY : tag_of(key, round));
}

void godwit_page_cache_drop(struct godwit_page_cache *cache, uint64_t key)
{
	struct place place = place_of(cache, key);

	for (unsigned way = 0; way < place.ways; way++) {
		struct godwit_page_slot slot = slot_at(cache, place.set, way);
		uint64_t tag = godwit_slot_look(slot.tag);

		if (!is_of_key(tag, key))
			continue;
		/* A lost race means that another key is taking the slot, which drops ours as well. */
		if (godwit_slot_claim(slot.tag, tag))
			godwit_slot_publish(slot.tag, GODWIT_SLOT_EMPTY);
		return;
	}
}

void godwit_page_cache_each(struct godwit_page_cache *cache, godwit_page_visit_fn visit, void *user)
{
	for (uint64_t number = 0; number < cache->slots; number++) {
		struct godwit_page_slot slot = slot_at(cache, number % cache->sets,
						       (unsigned)(number / cache->sets));
		uint64_t tag = godwit_slot_look(slot.tag);

		assert(tag != GODWIT_SLOT_BUSY);
		if (tag != GODWIT_SLOT_EMPTY)
			visit(user, (tag >> KEY_SHIFT) - 1, (uint32_t)(tag >> 1) & ROUND_MASK, slot.page);
	}
}

bool godwit_page_cache_put(struct godwit_page_cache *cache, uint64_t key, uint32_t round,
			   const uint8_t *page)
{
	struct place place = place_of(cache, key);
	struct godwit_page_slot best = { 0 };
	uint32_t best_age = 0;

	for (unsigned step = 0; step < place.ways; step++) {
		struct godwit_page_slot slot = slot_at(cache, place.set, way_at(&place, step));
		uint64_t tag = godwit_slot_look(slot.tag);
		uint32_t age = age_of(tag, round);

		/* Entries used later than round have an age that wrapped: the upper half. */
		if (tag != GODWIT_SLOT_EMPTY && age > ROUND_MASK / 2)
			age = 0;
		if (age > best_age) {
			best = slot;
			best_age = age;
		}
	}
	if (!best.page)
		return false;
	memcpy(best.page, page, GODWIT_PAGE_BYTES);
	godwit_slot_publish(best.tag, tag_of(key, round));
	return true;
}

uint64_t godwit_page_cache_used(struct godwit_page_cache *cache)
{
	uint64_t used = 0;

	for (uint64_t i = 0; i < cache->sets * GODWIT_PAGE_WAYS; i++)
		used += godwit_slot_look(&cache->tag[i]) > GODWIT_SLOT_BUSY;
	return used;
}
