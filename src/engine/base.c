/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * base.c - what the destination has of each page
 *
 * A stale base is silent corruption, so one thing alone is the truth: the state byte of a page. Tables
 * and slots may hold anything while it is UNKNOWN, and are not even asked while it is ZERO: most of a
 * sparse guest costs its state byte and never touches the memory of its rows.
 *
 * Signatures lie in one table a block, so that hot-plug leaves the other blocks' tables where they are.
 * Old pages lie in one cache over all blocks, under keys that count the pages of blocks in the order of
 * their ids; keys are given at a layout and hold until the next.
 *
 * A layout first reserves all that the new one needs and then converts, which cannot fail: without the
 * memory the old layout stays as it was. Old tables are given back to the system while they are
 * converted, so that both are never resident together.
 *
 *   to                from the same kind             from the other kind
 *   signatures        finer: coarsened in a pass     signed from the old pages that are there
 *                     coarser: KNOWN is forgotten
 *   pages             what fits under the new keys   KNOWN is forgotten
 *   off               everything is forgotten: pages are then sent and nothing is noted
 *
 * ZERO stays ZERO but across off. Auto counts what is left in the host and adds what the base itself
 * holds already, else each layout would leave it less.
 */
#include "engine/base.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "engine/error.h"
#include "engine/memory.h"
#include "engine/options.h"
#include "xbzrle/xbzrle.h"

/* The share of the guest and of memory left that an auto base takes. */
#define AUTO_GUEST_PART 8u
#define AUTO_LEFT_PART 4u

#define FINEST_GRANULE_BYTES 64u
#define COARSEST_GRANULE_BYTES 256u

/* Converted memory goes back in pieces of this size: one system call for 512 pages. */
#define GIVE_BACK_BYTES (2u << 20)

struct block {
	uint64_t pages;			/* 0: there is no block of this id */
	uint64_t first_key;		/* valid while is_laid */
	uint8_t *state;
	uint64_t *rows;
	bool is_laid;			/* the layout in force knows it */

	/* During a layout: what it has reserved; NULL where the old one is kept or none is needed. */
	uint64_t new_first_key;
	uint8_t *new_state;
	uint64_t *new_rows;
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
	void *cache_memory;		/* NULL unless pages */
	struct block block[GODWIT_MAX_BLOCKS];
	char line[256];
	bool is_less;

	/* What any thread may ask for. Relaxed: each stands for itself. */
	_Atomic uint32_t kind;
	_Atomic uint32_t granule_bytes;
	_Atomic uint32_t round;
	_Atomic uint64_t pages;
	_Atomic uint64_t bytes;
};

#define set_relaxed(to, value) atomic_store_explicit(to, value, memory_order_relaxed)
#define get_relaxed(from) atomic_load_explicit(from, memory_order_relaxed)

static uint32_t row_words_of(uint32_t granule_bytes)
{
	return granule_bytes ? GODWIT_PAGE_BYTES / granule_bytes : 0;
}

static uint64_t rows_bytes(uint64_t pages, uint32_t granule_bytes)
{
	return pages * row_words_of(granule_bytes) * sizeof(uint64_t);
}

static uint64_t plan_bytes(const struct plan *plan)
{
	return plan->kind == GODWIT_BASE_PAGES ? godwit_page_cache_bytes(plan->slots)
					       : rows_bytes(plan->pages, plan->granule_bytes);
}

static uint64_t count_pages(const struct godwit_base *base)
{
	uint64_t pages = 0;

	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++)
		pages += base->block[id].pages;
	return pages;
}

/* What others read; after every change of blocks or layout. */
static void tell(struct godwit_base *base)
{
	uint64_t bytes = 0;

	if (base->plan.kind == GODWIT_BASE_PAGES)
		bytes = plan_bytes(&base->plan);
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		if (base->block[id].rows)
			bytes += rows_bytes(base->block[id].pages, base->plan.granule_bytes);
	}
	set_relaxed(&base->bytes, bytes);
	set_relaxed(&base->pages, count_pages(base));
	set_relaxed(&base->kind, base->plan.kind);
	set_relaxed(&base->granule_bytes, base->plan.granule_bytes);
}

/* ---- making and ending ---------------------------------------------------------------------- */

static int check_options(const struct godwit_base_options *options, struct godwit_error *error)
{
	if (options->kind > GODWIT_BASE_OFF) {
		godwit_error_set(error, "base: kind %u is none of signatures (0), pages (1), off (2)",
				 options->kind);
		return -EINVAL;
	}
	if (options->reserved) {
		godwit_error_set(error, "base: reserved is %u, must be 0", options->reserved);
		return -EINVAL;
	}
	return 0;
}

static int take_options(struct godwit_base_options *to, const struct godwit_base_options *from,
			struct godwit_error *error)
{
	struct godwit_base_options taken;
	int err = godwit_options_copy(&taken, sizeof(taken), sizeof(taken), from, error);

	if (!err)
		err = check_options(&taken, error);
	if (!err)
		*to = taken;
	return err;
}

/* Secrets are drawn anew for every base: contents chosen against one migration's say nothing of the next. */
static int draw_signer(struct godwit_signer *signer)
{
	uint64_t secret[32];
	ssize_t got;

	/* Up to 256 bytes come whole; only the wait for the first entropy of a boot can be cut short. */
	do
		got = getrandom(secret, sizeof(secret), 0);
	while (got < 0 && errno == EINTR);
	if (got != (ssize_t)sizeof(secret))
		return got < 0 ? -errno : -EIO;
	godwit_signer_init(signer, secret);
	explicit_bzero(secret, sizeof(secret));
	return 0;
}

int godwit_base_create(const struct godwit_base_options *options, struct godwit_base **base_ret,
		       struct godwit_error *error)
{
	struct godwit_base_options taken;
	struct godwit_arena arena;
	struct godwit_base *base;
	int err = take_options(&taken, options, error);

	if (err)
		return err;
	err = godwit_arena_create(&arena);
	if (err) {
		godwit_error_set(error, "base: no arena: %s", strerror(-err));
		return err;
	}
	base = godwit_arena_alloc_zero(&arena, sizeof(*base));
	if (!base) {
		err = -ENOMEM;
		godwit_error_set(error, "base: no memory for %zu bytes", sizeof(*base));
		goto destroy_arena;
	}
	err = draw_signer(&base->signer);
	if (err) {
		godwit_error_set(error, "base: no random numbers: %s", strerror(-err));
		goto destroy_arena;
	}
	base->arena = arena;
	base->options = taken;
	base->plan.kind = GODWIT_BASE_OFF;
	base->plan.asked_kind = taken.kind;
	snprintf(base->line, sizeof(base->line), "base: not laid out yet");
	tell(base);
	*base_ret = base;
	return 0;

destroy_arena:
	godwit_arena_destroy(&arena);
	return err;
}

void godwit_base_destroy(struct godwit_base *base)
{
	struct godwit_arena arena;

	if (!base)
		return;
	arena = base->arena;
	explicit_bzero(&base->signer, sizeof(base->signer));
	godwit_arena_destroy(&arena);
}

int godwit_base_add_block(struct godwit_base *base, uint32_t id, uint64_t pages,
			  struct godwit_error *error)
{
	if (id >= GODWIT_MAX_BLOCKS || !pages) {
		godwit_error_set(error, "base: block %u of %" PRIu64 " pages: an id is below %u, a block "
				 "has pages", id, pages, GODWIT_MAX_BLOCKS);
		return -EINVAL;
	}
	if (base->block[id].pages) {
		godwit_error_set(error, "base: block %u is there already", id);
		return -EEXIST;
	}
	if (pages > GODWIT_PAGE_KEYS - count_pages(base)) {
		godwit_error_set(error, "base: block %u of %" PRIu64 " pages is more than can be counted",
				 id, pages);
		return -EINVAL;
	}
	base->block[id].pages = pages;
	tell(base);
	return 0;
}

int godwit_base_remove_block(struct godwit_base *base, uint32_t id)
{
	struct block *block;

	if (id >= GODWIT_MAX_BLOCKS || !base->block[id].pages)
		return -ENOENT;
	block = &base->block[id];
	godwit_arena_free(&base->arena, block->state);
	godwit_arena_free(&base->arena, block->rows);
	/* Slots still tagged with its keys are nobody's: only a block that is laid out is found by key. */
	*block = (struct block){ 0 };
	tell(base);
	return 0;
}

/* ---- choosing a layout ---------------------------------------------------------------------- */

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

/* ---- reserving ------------------------------------------------------------------------------ */

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

static void unreserve(struct godwit_base *base)
{
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		struct block *block = &base->block[id];

		godwit_arena_free(&base->arena, block->new_state);
		godwit_arena_free(&base->arena, block->new_rows);
		block->new_state = NULL;
		block->new_rows = NULL;
	}
}

static int reserve_block(struct godwit_base *base, const struct plan *plan, struct block *block)
{
	bool has_rows = block->rows && base->plan.granule_bytes == plan->granule_bytes;

	if (!block->state) {
		block->new_state = godwit_arena_alloc_zero(&base->arena, block->pages);
		if (!block->new_state)
			return -ENOMEM;
	}
	if (plan->kind == GODWIT_BASE_SIGNATURES && !has_rows) {
		block->new_rows = godwit_arena_alloc(&base->arena,
						     rows_bytes(block->pages, plan->granule_bytes));
		if (!block->new_rows)
			return -ENOMEM;
	}
	return 0;
}

/* *memory_ret is that of a new cache, or NULL where the old one is kept or none is needed. */
static int reserve(struct godwit_base *base, const struct plan *plan, void **memory_ret)
{
	bool is_moved = count_keys(base);
	bool has_cache = base->plan.kind == GODWIT_BASE_PAGES && base->plan.slots == plan->slots &&
			 !is_moved;

	*memory_ret = NULL;
	if (plan->kind == GODWIT_BASE_OFF)
		return 0;
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		if (base->block[id].pages && reserve_block(base, plan, &base->block[id]))
			goto unreserve;
	}
	if (plan->kind == GODWIT_BASE_PAGES && !has_cache) {
		*memory_ret = godwit_arena_alloc(&base->arena, plan_bytes(plan));
		if (!*memory_ret)
			goto unreserve;
	}
	return 0;

unreserve:
	unreserve(base);
	return -ENOMEM;
}

/* ---- converting: nothing fails from here ------------------------------------------------------- */

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
	struct give_back give = give_back_from(block->rows);
	uint64_t row[GODWIT_PAGE_LINES];

	for (uint64_t page = 0; page < block->pages; page++) {
		const uint64_t *old_row = block->rows + page * from_words;

		give_back_below(&give, old_row);
		if (block->state[page] != GODWIT_BASE_KNOWN)
			continue;
		memcpy(row, old_row, from_words * sizeof(*row));
		for (uint32_t words = from_words; words > to_words; words /= 2)
			godwit_signatures_coarsen(row, row, words);
		memcpy(block->new_rows + page * to_words, row, to_words * sizeof(*row));
	}
}

static void signatures_to_signatures(struct godwit_base *base, const struct plan *plan)
{
	uint32_t from_words = row_words_of(base->plan.granule_bytes);
	uint32_t to_words = row_words_of(plan->granule_bytes);

	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		struct block *block = &base->block[id];

		if (!block->rows || !block->new_rows)
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
				  block->new_rows + number * words, copy, NULL, &save);
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

static void convert(struct godwit_base *base, const struct plan *plan, struct godwit_page_cache *cache)
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

/* ---- putting a layout in force --------------------------------------------------------------- */

static void commit_block(struct godwit_base *base, const struct plan *plan, struct block *block)
{
	bool is_off = plan->kind == GODWIT_BASE_OFF;

	if (is_off || block->new_state) {
		godwit_arena_free(&base->arena, block->state);
		block->state = block->new_state;
	}
	if (plan->kind != GODWIT_BASE_SIGNATURES || block->new_rows) {
		godwit_arena_free(&base->arena, block->rows);
		block->rows = block->new_rows;
	}
	block->new_state = NULL;
	block->new_rows = NULL;
	block->first_key = block->new_first_key;
	block->is_laid = block->pages && !is_off;
}

static void commit(struct godwit_base *base, const struct plan *plan,
		   const struct godwit_page_cache *cache, void *cache_memory)
{
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++)
		commit_block(base, plan, &base->block[id]);
	if (plan->kind != GODWIT_BASE_PAGES || cache_memory) {
		godwit_arena_free(&base->arena, base->cache_memory);
		base->cache_memory = cache_memory;
	}
	if (cache_memory)
		base->cache = *cache;
	base->plan = *plan;
	tell(base);
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
	void *cache_memory;
	struct plan plan;
	int err = options ? take_options(&taken, options, error) : 0;

	if (err)
		return err;
	plan_make(&plan, base, &taken);
	while (reserve(base, &plan, &cache_memory)) {
		if (!plan.is_auto) {
			godwit_error_set(error, "base: no memory for %" PRIu64 " KiB; the old layout "
					 "stays", (plan_bytes(&plan) + plan.pages) >> 10);
			return -ENOMEM;
		}
		plan.is_memory_short = true;
		plan_less(&plan);
	}
	if (cache_memory)
		cache_init(&cache, plan.slots, cache_memory);
	convert(base, &plan, cache_memory ? &cache : NULL);
	commit(base, &plan, &cache, cache_memory);
	base->options = taken;
	say(base, &plan);
	if (base->is_less)
		godwit_error_set(error, "%s", base->line);
	return 0;
}

/* ---- using it ------------------------------------------------------------------------------- */

void godwit_base_forget(struct godwit_base *base, uint32_t id, uint64_t first, uint64_t pages)
{
	struct block *block;

	if (id >= GODWIT_MAX_BLOCKS)
		return;
	block = &base->block[id];
	if (!block->state || first >= block->pages)
		return;
	if (pages > block->pages - first)
		pages = block->pages - first;
	/* Slots need no visit: a claim of an UNKNOWN page takes its slot for empty. */
	memset(block->state + first, GODWIT_BASE_UNKNOWN, pages);
}

bool godwit_base_view(struct godwit_base *base, uint32_t id, struct godwit_base_view *view_ret)
{
	const struct block *block;

	if (id >= GODWIT_MAX_BLOCKS || !base->block[id].pages)
		return false;
	block = &base->block[id];
	*view_ret = (struct godwit_base_view){
		.block = id,
		.kind = GODWIT_BASE_OFF,
		.round = get_relaxed(&base->round),
		.pages = block->pages,
	};
	if (!block->is_laid)
		return true;
	view_ret->kind = base->plan.kind;
	view_ret->state = block->state;
	if (base->plan.kind == GODWIT_BASE_SIGNATURES) {
		view_ret->granule_bytes = base->plan.granule_bytes;
		view_ret->row_words = row_words_of(base->plan.granule_bytes);
		view_ret->rows = block->rows;
		view_ret->signer = &base->signer;
	} else {
		view_ret->cache = &base->cache;
		view_ret->first_key = block->first_key;
	}
	return true;
}

void godwit_base_next_round(struct godwit_base *base)
{
	/* Relaxed: changed and read at a drain's two sides, which the drain orders. */
	atomic_fetch_add_explicit(&base->round, 1, memory_order_relaxed);
}

uint64_t godwit_base_pages(const struct godwit_base *base)
{
	return get_relaxed(&base->pages);
}

uint64_t godwit_base_bytes(const struct godwit_base *base)
{
	return get_relaxed(&base->bytes);
}

uint32_t godwit_base_kind(const struct godwit_base *base)
{
	return get_relaxed(&base->kind);
}

uint32_t godwit_base_granule_bytes(const struct godwit_base *base)
{
	return get_relaxed(&base->granule_bytes);
}

bool godwit_base_describe(const struct godwit_base *base, char *line, size_t line_bytes)
{
	snprintf(line, line_bytes, "%s", base->line);
	return base->is_less;
}
