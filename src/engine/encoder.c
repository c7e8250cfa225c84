/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * encoder.c - a batch of pages becomes a frame
 *
 * First its pages are saved, into a table and a payload (encoder_pages.c); then the payload goes through the
 * codec and becomes a frame (encoder_payload.c).
 *
 * Format: frame.h. Threads: one encoder, one thread; the base's rules are batch.h's.
 */
#include <errno.h>

#include "engine/arena.h"
#include "engine/clock.h"
#include "engine/encoder_private.h"
#include "engine/error.h"
#include "xbzrle/xbzrle.h"

/* The last page may be put down as a delta first, which may be longer than a page. */
_Static_assert(ROOM_BYTES + GODWIT_PLAIN_MAX_BYTES + GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK <=
		       GODWIT_FRAME_BUFFER_BYTES,
	       "a buffer is large enough");
_Static_assert(GODWIT_FRAME_MAX_BYTES <= GODWIT_FRAME_BUFFER_BYTES, "and for any frame");

/* ---- a batch ---- */

bool godwit_batch_is_sound(const struct godwit_batch *batch, uint64_t pages)
{
	if (!batch->nr_pages || batch->nr_pages > GODWIT_BATCH_PAGES)
		return false;
	for (unsigned i = 0; i < batch->nr_pages; i++) {
		if (batch->page[i] >= pages || (i && batch->page[i] <= batch->page[i - 1]))
			return false;
	}
	/* A gap must fit its LEB128; a block of 2^35 pages has 128 TiB. */
	return batch->page[batch->nr_pages - 1] - batch->page[0] < (uint64_t)1 << 35;
}

int godwit_encoder_run(struct godwit_encoder *e, const struct godwit_batch *batch, uint64_t number,
		       struct godwit_frame_buffer *buffer)
{
	struct godwit_base_view view;

	if (!godwit_base_view(e->base, batch->block, &view))
		return -ENOENT;
	if (!godwit_batch_is_sound(batch, view.pages))
		return -EINVAL;

	e->out = e->payload + ROOM_BYTES;
	e->nr_blocks = 0;
	e->table_bytes = 0;
	e->fold = 0;
	e->same = 0;
	memset(e->count, 0, sizeof(e->count));

	godwit_encoder_save_pages(e, batch, &view);
	godwit_encoder_store_payload(e, batch, number, buffer);

	godwit_counters_add(&e->counters, e->count);
	return 0;
}

void godwit_encoder_choose(struct godwit_encoder *e, struct godwit_rung rung, bool is_auto,
			   uint64_t price_ps)
{
	e->rung = rung;
	e->is_auto = is_auto;
	e->price_ps = price_ps;
}

struct godwit_counters *godwit_encoder_counters(struct godwit_encoder *e)
{
	return &e->counters;
}

struct godwit_rung godwit_encoder_last_rung(const struct godwit_encoder *e)
{
	/* Relaxed: see remember_rung() in encoder_payload.c. */
	uint16_t rung = atomic_load_explicit(&e->last_rung, memory_order_relaxed);

	return (struct godwit_rung){ (uint8_t)(rung >> 8), (int8_t)(rung & 0xff) };
}

/* ---- birth and end ---- */

int godwit_encoder_create_in(struct godwit_arena *arena, struct godwit_base *base,
			     struct godwit_encoder **encoder_ret)
{
	struct godwit_alloc alloc = godwit_arena_allocator(arena);
	struct godwit_encoder *e = godwit_arena_alloc_zero(arena, sizeof(*e));
	int err = -ENOMEM;

	if (!e)
		return -ENOMEM;
	e->base = base;
	e->arena = arena;
	e->rung = (struct godwit_rung){ GODWIT_CODEC_ZSTD, 1 };
	e->created_at_ns = godwit_now_ns();
	godwit_ladder_init(&e->ladder);
	e->payload = godwit_arena_alloc(arena, GODWIT_FRAME_BUFFER_BYTES);
	if (!e->payload)
		goto free_encoder;
	err = godwit_codec_ctx_create(&alloc, &e->codec);
	if (err)
		goto free_payload;
	*encoder_ret = e;
	return 0;

free_payload:
	godwit_arena_free(arena, e->payload);
free_encoder:
	godwit_arena_free(arena, e);
	return err;
}

void godwit_encoder_destroy_in(struct godwit_encoder *e)
{
	godwit_codec_ctx_destroy(e->codec);	/* the payload may be any buffer of the arena by now */
	godwit_arena_free(e->arena, e);
}

/* ---- the batch layer: an encoder with an arena and a buffer of its own ---- */

int godwit_encoder_create(struct godwit_base *base, struct godwit_encoder **encoder_ret,
			  struct godwit_error *error)
{
	struct godwit_arena *arena;
	struct godwit_encoder *e;
	int err = godwit_arena_create_self(&arena);

	if (err)
		goto fail;
	err = godwit_encoder_create_in(arena, base, &e);
	if (err)
		goto destroy_arena;
	err = -ENOMEM;
	e->own.mem = godwit_arena_alloc(arena, GODWIT_FRAME_BUFFER_BYTES);
	if (!e->own.mem)
		goto destroy_encoder;
	*encoder_ret = e;
	return 0;

destroy_encoder:
	godwit_encoder_destroy_in(e);
destroy_arena:
	godwit_arena_destroy_self(arena);
fail:
	godwit_error_set(error, "no memory for an encoder");
	return err;
}

void godwit_encoder_destroy(struct godwit_encoder *e)
{
	struct godwit_arena *arena;

	if (!e)
		return;
	arena = e->arena;
	godwit_encoder_destroy_in(e);
	godwit_arena_destroy_self(arena);
}

int godwit_encoder_set_rung(struct godwit_encoder *e, const char *name, struct godwit_error *error)
{
	struct godwit_rung rung;
	bool is_auto;

	if (!godwit_rung_parse(name, &rung, &is_auto) || is_auto) {
		godwit_error_set(error, "rung '%s': an encoder of its own takes a fixed rung: none, lz4, "
				 "zstd1, ...", name ? name : "auto");
		return -EINVAL;
	}
	godwit_encoder_choose(e, rung, false, 0);
	return 0;
}

int godwit_encode(struct godwit_encoder *e, const struct godwit_batch *batch, uint64_t number,
		  const void **frame_ret, size_t *frame_bytes_ret)
{
	uint64_t start_ns = godwit_now_ns();
	int err = godwit_encoder_run(e, batch, number, &e->own);

	if (err)
		return err;
	godwit_count(&e->counters, GODWIT_COUNT_WALL_NS, godwit_now_ns() - start_ns);
	*frame_ret = e->own.frame;
	*frame_bytes_ret = e->own.frame_bytes;
	return 0;
}

int godwit_encoder_stats(const struct godwit_encoder *e, struct godwit_stats *out)
{
	struct godwit_stats stats = { .workers = 1 };
	uint64_t sum[GODWIT_COUNTERS] = { 0 };

	godwit_counters_sum(&e->counters, sum);
	godwit_stats_derive(&stats, sum, godwit_now_ns() - e->created_at_ns);
	stats.worker_cpu_ns = sum[GODWIT_COUNT_WALL_NS];
	godwit_rung_name(godwit_encoder_last_rung(e), stats.rung);
	return godwit_stats_give(out, &stats);
}
