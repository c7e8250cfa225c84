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
 */
#include "engine/base_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "engine/error.h"
#include "engine/options.h"

#define set_relaxed(to, value) atomic_store_explicit(to, value, memory_order_relaxed)
#define get_relaxed(from) atomic_load_explicit(from, memory_order_relaxed)

void godwit_base_tell(struct godwit_base *base)
{
	uint64_t bytes = 0;

	if (base->plan.kind == GODWIT_BASE_PAGES)
		bytes = plan_bytes(&base->plan);
	for (unsigned id = 0; id < GODWIT_MAX_BLOCKS; id++) {
		if (base->block[id].rows.mem)
			bytes += rows_bytes(base->block[id].pages, base->plan.granule_bytes);
	}
	set_relaxed(&base->bytes, bytes);
	set_relaxed(&base->pages, count_pages(base));
	set_relaxed(&base->kind, base->plan.kind);
	set_relaxed(&base->granule_bytes, base->plan.granule_bytes);
}

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

int godwit_base_take_options(struct godwit_base_options *to, const struct godwit_base_options *from,
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
	int err = godwit_base_take_options(&taken, options, error);

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
	set_relaxed(&base->remembers_new, true);
	base->plan.kind = GODWIT_BASE_OFF;
	base->plan.asked_kind = taken.kind;
	snprintf(base->line, sizeof(base->line), "base: not laid out yet");
	godwit_base_tell(base);
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
	godwit_base_tell(base);
	return 0;
}

int godwit_base_remove_block(struct godwit_base *base, uint32_t id)
{
	struct block *block;

	if (id >= GODWIT_MAX_BLOCKS || !base->block[id].pages)
		return -ENOENT;
	block = &base->block[id];
	godwit_arena_free(&base->arena, block->state);
	godwit_base_free_table(base, &block->rows);
	/* Slots still tagged with its keys are nobody's: only a block that is laid out is found by key. */
	*block = (struct block){ 0 };
	godwit_base_tell(base);
	return 0;
}

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
		.remembers_new = get_relaxed(&base->remembers_new),
		.pages = block->pages,
	};
	if (!block->is_laid)
		return true;
	view_ret->kind = base->plan.kind;
	view_ret->state = block->state;
	if (base->plan.kind == GODWIT_BASE_SIGNATURES) {
		view_ret->granule_bytes = base->plan.granule_bytes;
		view_ret->row_words = row_words_of(base->plan.granule_bytes);
		view_ret->rows = block->rows.mem;
		view_ret->touch = block->rows.touch;
		view_ret->signer = &base->signer;
	} else {
		view_ret->cache = &base->cache;
		view_ret->touch = base->cache_table.touch;
		view_ret->first_key = block->first_key;
	}
	return true;
}

void godwit_base_next_round(struct godwit_base *base)
{
	/* Relaxed: changed and read at a drain's two sides, which the drain orders. */
	atomic_fetch_add_explicit(&base->round, 1, memory_order_relaxed);
}

void godwit_base_remember_new(struct godwit_base *base, int on)
{
	set_relaxed(&base->remembers_new, on);
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
