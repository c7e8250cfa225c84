/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page cache: where old pages are found, which stay, and that threads which share slots but not
 * pages never read anything but what the page's own thread put there last.
 */
#include "xbzrle/page_cache.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
	struct godwit_page_cache cache;
	void *memory;
};

/* An odd address and old bytes: neither may matter. */
static void make(struct fixture *f, uint64_t slots)
{
	size_t bytes = godwit_page_cache_bytes(slots);

	f->memory = malloc(bytes + 1);
	cr_assert(f->memory);
	memset(f->memory, 0xa5, bytes + 1);
	godwit_page_cache_init(&f->cache, slots, (char *)f->memory + 1);
	cr_assert_eq((uintptr_t)f->cache.page % GODWIT_PAGE_BYTES, 0);
	cr_assert_leq((uintptr_t)f->cache.page + slots * GODWIT_PAGE_BYTES,
		      (uintptr_t)f->memory + 1 + bytes);
}

/* Every word of a page says whose it is, which version, and where in the page. */
static void fill(uint8_t *page, uint64_t key, uint64_t version)
{
	for (uint64_t i = 0; i < GODWIT_PAGE_BYTES / 8; i++) {
		uint64_t word = (key * 1000003 + version) * 512 + i;

		memcpy(page + 8 * i, &word, 8);
	}
}

static bool holds(const uint8_t *page, uint64_t key, uint64_t version)
{
	for (uint64_t i = 0; i < GODWIT_PAGE_BYTES / 8; i++) {
		uint64_t word;

		memcpy(&word, page + 8 * i, 8);
		if (word != (key * 1000003 + version) * 512 + i)
			return false;
	}
	return true;
}

static enum godwit_page_claim send(struct fixture *f, uint64_t key, bool known, uint32_t round,
				   uint64_t version)
{
	struct godwit_page_slot slot;
	enum godwit_page_claim claim = godwit_page_cache_claim(&f->cache, key, known, round, &slot);

	if (claim != GODWIT_PAGE_NONE) {
		fill(slot.page, key, version);
		godwit_page_cache_release(&slot, key, round);
	}
	return claim;
}

struct search {
	uint64_t key, version;
	unsigned found;
};

static void compare_page(void *user, uint64_t key, uint32_t round, uint8_t *page)
{
	struct search *search = user;

	search->found += key == search->key && holds(page, key, search->version);
}

/* Looks without claiming: nothing is used or replaced by it. */
static bool finds(struct fixture *f, uint64_t key, uint64_t version)
{
	struct search search = { .key = key, .version = version };

	godwit_page_cache_each(&f->cache, compare_page, &search);
	cr_assert_leq(search.found, 1);
	return search.found;
}

Test(page_cache, slots_is_the_most_that_fits_into_bytes)
{
	for (uint64_t bytes = 0; bytes < 3000000; bytes += 997) {
		uint64_t slots = godwit_page_cache_slots(bytes);

		cr_assert_leq(godwit_page_cache_bytes(slots), bytes);
		cr_assert_gt(godwit_page_cache_bytes(slots + 1), bytes);
	}
	cr_assert_eq(godwit_page_cache_bytes(0), 0);
}

Test(page_cache, gives_every_page_its_own_slot_while_there_are_as_many_slots)
{
	for (uint64_t slots = 1; slots < 70; slots++) {
		struct fixture f;

		make(&f, slots);
		for (uint64_t key = slots; key--;) {
			struct godwit_page_slot slot;

			cr_assert_eq(godwit_page_cache_claim(&f.cache, key, true, 7, &slot),
				     GODWIT_PAGE_EMPTY);
			cr_assert_eq(slot.page, f.cache.page + key * GODWIT_PAGE_BYTES);
			fill(slot.page, key, 1);
			godwit_page_cache_release(&slot, key, 7);
		}
		for (uint64_t key = 0; key < slots; key++)
			cr_assert(finds(&f, key, 1), "slots %lu key %lu", slots, key);
		cr_assert_eq(godwit_page_cache_used(&f.cache), slots);
		free(f.memory);
	}
}

Test(page_cache, replaces_nothing_in_the_first_pass)
{
	struct fixture f;
	unsigned taken = 0;

	make(&f, 50);
	for (uint64_t key = 0; key < 200; key++)
		taken += send(&f, key, false, 0, 1) == GODWIT_PAGE_EMPTY;
	cr_assert_eq(taken, 50);
	for (uint64_t key = 0; key < 50; key++)
		cr_assert(finds(&f, key, 1));
	free(f.memory);
}

Test(page_cache, keeps_what_was_used_in_the_last_round_and_replaces_what_was_not)
{
	for (uint32_t start = 0; start < 70000; start += 4093) {
		struct fixture f;

		make(&f, 4);
		for (uint64_t key = 0; key < 4; key++)
			cr_assert_eq(send(&f, key, false, start, 1), GODWIT_PAGE_EMPTY);
		cr_assert_eq(send(&f, 9, false, start + GODWIT_PAGE_FRESH_ROUNDS, 1), GODWIT_PAGE_NONE);
		cr_assert_eq(send(&f, 2, true, start + GODWIT_PAGE_FRESH_ROUNDS, 2), GODWIT_PAGE_HIT);
		for (uint64_t key = 9; key < 12; key++)
			cr_assert_eq(send(&f, key, false, start + GODWIT_PAGE_FRESH_ROUNDS + 1, 1),
				     GODWIT_PAGE_EMPTY);
		cr_assert_eq(send(&f, 12, false, start + GODWIT_PAGE_FRESH_ROUNDS + 1, 1),
			     GODWIT_PAGE_NONE);
		cr_assert(finds(&f, 2, 2));
		cr_assert(!finds(&f, 0, 1));
		free(f.memory);
	}
}

/* A swept set twice as large as the cache: half of it hits. LRU would give nothing. */
Test(page_cache, gives_a_sweep_its_share_of_hits)
{
	struct fixture f;
	unsigned hits = 0;

	make(&f, 128);
	for (uint32_t round = 0; round < 10; round++) {
		for (uint64_t key = 0; key < 256; key++)
			hits += send(&f, key, true, round, round) == GODWIT_PAGE_HIT;
	}
	cr_assert_eq(hits, 9 * 128);
	free(f.memory);
}

Test(page_cache, takes_a_slot_of_an_unknown_page_for_empty)
{
	struct fixture f;
	struct godwit_page_slot slot;

	make(&f, 8);
	send(&f, 3, false, 0, 1);
	cr_assert_eq(godwit_page_cache_claim(&f.cache, 3, false, 0, &slot), GODWIT_PAGE_EMPTY);
	cr_assert_eq(slot.page, f.cache.page + 3 * GODWIT_PAGE_BYTES);
	godwit_page_cache_release(&slot, 3, 0);
	cr_assert_eq(godwit_page_cache_used(&f.cache), 1, "no second slot for one key");
	free(f.memory);
}

Test(page_cache, never_waits_for_a_slot_that_is_held)
{
	struct fixture f;
	struct godwit_page_slot slot[4], none;

	make(&f, 4);
	for (uint64_t key = 0; key < 4; key++)
		cr_assert_eq(godwit_page_cache_claim(&f.cache, key, false, 5, &slot[key]),
			     GODWIT_PAGE_EMPTY);
	cr_assert_eq(godwit_page_cache_claim(&f.cache, 7, false, 500, &none), GODWIT_PAGE_NONE);
	cr_assert_eq(godwit_page_cache_used(&f.cache), 0);
	for (uint64_t key = 0; key < 4; key++)
		godwit_page_cache_release(&slot[key], key, 5);
	cr_assert_eq(godwit_page_cache_used(&f.cache), 4);
	free(f.memory);
}

Test(page_cache, does_not_bring_back_what_a_given_up_slot_held)
{
	struct fixture f;
	struct godwit_page_slot slot;

	make(&f, 1);
	send(&f, 0, false, 0, 1);
	cr_assert_eq(godwit_page_cache_claim(&f.cache, 1, false, 9, &slot), GODWIT_PAGE_EMPTY);
	godwit_page_cache_release(&slot, GODWIT_PAGE_NO_KEY, 9);
	cr_assert(!finds(&f, 0, 1));
	cr_assert(!finds(&f, 1, 1));
	free(f.memory);
}

Test(page_cache, drops_the_slot_of_a_key_and_no_other)
{
	struct fixture f;

	make(&f, 8);
	for (uint64_t key = 0; key < 8; key++)
		send(&f, key, false, 0, 1);
	godwit_page_cache_drop(&f.cache, 5);
	godwit_page_cache_drop(&f.cache, 13);	/* of the same set, never there */
	cr_assert_eq(godwit_page_cache_used(&f.cache), 7);
	cr_assert(!finds(&f, 5, 1));
	cr_assert(finds(&f, 1, 1));
	free(f.memory);
}

struct carry {
	struct godwit_page_cache *to;
	unsigned visits, kept;
};

static void carry_page(void *user, uint64_t key, uint32_t round, uint8_t *page)
{
	struct carry *carry = user;

	carry->visits++;
	carry->kept += godwit_page_cache_put(carry->to, key, round, page);
}

Test(page_cache, carries_every_page_into_a_cache_that_covers_them)
{
	struct fixture small, large;
	struct carry carry = { .to = &large.cache };

	make(&small, 37);
	make(&large, 90);
	for (uint64_t key = 0; key < 90; key++)
		send(&small, key, false, 3, key);
	godwit_page_cache_each(&small.cache, carry_page, &carry);
	cr_assert_eq(carry.visits, 37);
	cr_assert_eq(carry.kept, 37);
	for (uint64_t key = 0; key < 90; key++)
		cr_assert_eq(finds(&large, key, key), finds(&small, key, key));
	free(small.memory);
	free(large.memory);
}

/* One set, so that only age decides; ages on both sides of the round's wrap. */
Test(page_cache, carries_what_was_used_last_into_a_smaller_cache)
{
	for (uint32_t start = 0; start < 70000; start += 1 + start / 3) {
		struct fixture large, small;
		struct carry carry = { .to = &small.cache };

		make(&large, 16);
		make(&small, 4);
		for (uint64_t key = 0; key < 16; key++)
			send(&large, key, false, start + (uint32_t)(key * 5 % 16), 1);
		godwit_page_cache_each(&large.cache, carry_page, &carry);
		for (uint64_t key = 0; key < 16; key++)
			cr_assert_eq(finds(&small, key, 1), key * 5 % 16 >= 12,
				     "start %u key %lu", start, key);
		free(large.memory);
		free(small.memory);
	}
}

/*
 * Threads with pages of their own and slots in common. Each remembers the version that it put in a
 * slot, or that the page is not known; a hit must give that very version, whole.
 */
#define THREADS 4
#define PAGES_EACH 24
#define STRESS_SLOTS 37
#define TURNS 60000

struct stress {
	struct fixture f;
	_Atomic unsigned bad;
	_Atomic unsigned hits, misses, lost;
};

struct stress_thread {
	struct stress *stress;
	unsigned number;
	pthread_t thread;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1dULL;
}

static void *stress_main(void *user)
{
	struct stress_thread *self = user;
	struct stress *s = self->stress;
	uint64_t random = 88172645463325252ULL + self->number;
	uint64_t version[PAGES_EACH] = { 0 };	/* 0: not known */

	for (unsigned turn = 1; turn <= TURNS; turn++) {
		uint64_t r = next_random(&random);
		unsigned mine = (unsigned)(r % PAGES_EACH);
		uint64_t key = (uint64_t)mine * THREADS + self->number;
		uint32_t round = turn / 64;
		struct godwit_page_slot slot;
		enum godwit_page_claim claim;

		if (r >> 60 == 0) {
			godwit_page_cache_drop(&s->f.cache, key);
			continue;
		}
		claim = godwit_page_cache_claim(&s->f.cache, key, version[mine] != 0, round, &slot);
		if (claim == GODWIT_PAGE_NONE) {
			/* Sent, and no slot brought up to date: not known any more. */
			version[mine] = 0;
			atomic_fetch_add(&s->lost, 1);
			continue;
		}
		if (claim == GODWIT_PAGE_HIT) {
			atomic_fetch_add(&s->hits, 1);
			if (!holds(slot.page, key, version[mine]))
				atomic_fetch_add(&s->bad, 1);
		} else {
			atomic_fetch_add(&s->misses, 1);
		}
		if ((r >> 56 & 15) == 0) {
			version[mine] = 0;
			godwit_page_cache_release(&slot, GODWIT_PAGE_NO_KEY, round);
			continue;
		}
		version[mine] = turn;
		fill(slot.page, key, turn);
		if ((r >> 48 & 63) == 0)
			sched_yield();		/* held for long */
		godwit_page_cache_release(&slot, key, round);
	}
	return NULL;
}

Test(page_cache, threads_that_share_slots_find_only_what_they_put_there, .timeout = 120)
{
	static struct stress s;
	struct stress_thread thread[THREADS];

	make(&s.f, STRESS_SLOTS);
	for (unsigned i = 0; i < THREADS; i++) {
		thread[i] = (struct stress_thread){ .stress = &s, .number = i };
		cr_assert_eq(pthread_create(&thread[i].thread, NULL, stress_main, &thread[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i].thread, NULL);
	cr_assert_eq(s.bad, 0, "%u bad of %u hits", s.bad, s.hits);
	cr_assert_gt(s.hits, TURNS / 10, "too few hits to say anything");
	cr_assert_gt(s.misses, 0);
	cr_assert_gt(s.lost, 0);
	cr_assert_leq(godwit_page_cache_used(&s.f.cache), STRESS_SLOTS);
	free(s.f.memory);
}
