/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * encoder.c - a batch of pages becomes a frame
 *
 * Each page is read from the guest once, into registers or our own memory, and everything after works
 * on that copy: the guest may write meanwhile, and what is remembered in the base must be what was
 * sent. What differs goes straight to its place in the payload; a page of which too much changed is put
 * there whole. Then the payload goes through the codec in blocks of up to 64 KiB: a 4 KiB window loses
 * a tenth of the ratio and half the speed.
 *
 * Where every block stays as it is, the payload is the frame: a head and a page table are put in
 * front of it and nothing is copied again. Otherwise the blocks are written one after the other into the
 * caller's buffer. So there are two buffers of one shape, ours and the caller's, and they may swap.
 *
 * Format: frame.h. Threads: one encoder, one thread; the base's rules are batch.h's.
 */
#include <errno.h>

#include "engine/arena.h"
#include "engine/base.h"
#include "engine/clock.h"
#include "engine/digest.h"
#include "engine/encoder.h"
#include "engine/error.h"
#include "engine/frame.h"
#include "xbzrle/xbzrle.h"

/* In front of the payload: head and page table, and the payload starts on a line. */
#define ROOM_BYTES 2048u
_Static_assert(ROOM_BYTES >= GODWIT_HEAD_BYTES + GODWIT_TABLE_MAX_BYTES &&
		       ROOM_BYTES % GODWIT_LINE_BYTES == 0, "the room in front is enough");
/* The last page may be put down as a delta first, which may be longer than a page. */
#define BUFFER_BYTES (ROOM_BYTES + GODWIT_PLAIN_MAX_BYTES + GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK)

/*
 * A page goes whole when more of it changed: 400 of 512 words, 52 of 64 lines. Measured over real guests:
 * beyond that the LZ stage does better without the holes, and a delta never costs more than the page.
 */
#define WHOLE_ABOVE_WORDS 400u
#define WHOLE_ABOVE_LINES 52u

/* A block must shrink by a 32nd to be worth decoding. */
#define WORTH_SHIFT 5

/* A block that takes this many times the usual and this much has lost the processor: slices last
 * milliseconds, blocks a tenth of one. */
#define LOST_ABOVE 3u
#define LOST_LEAST_NS 300000u

struct plain_block {
	uint32_t at;			/* in the payload */
	uint32_t bytes;
	uint16_t whole, deltas;		/* pages in it */
};

struct godwit_encoder {
	struct godwit_base *base;
	struct godwit_arena *arena;
	uint64_t created_at_ns;
	struct godwit_codec_ctx *codec;
	struct godwit_ladder ladder;
	struct godwit_rung rung;	/* unless is_auto */
	bool is_auto;
	uint64_t price_ps;
	uint8_t *payload;		/* BUFFER_BYTES; may swap with a caller's buffer */
	struct godwit_frame_buffer own;	/* for godwit_encode(); mem NULL in a worker */
	_Atomic uint16_t last_rung;	/* codec and level, for statistics */

	/* The batch at hand. */
	uint8_t *out;			/* where the next page's bytes go */
	struct plain_block block[GODWIT_MAX_PAYLOAD_BLOCKS];
	unsigned nr_blocks;
	uint8_t table[GODWIT_TABLE_MAX_BYTES];
	size_t table_bytes;
	uint64_t fold;
	uint32_t same;
	uint64_t count[GODWIT_COUNTERS];	/* published at its end */

	alignas(GODWIT_LINE_BYTES) uint8_t copy[GODWIT_PAGE_BYTES];
	alignas(GODWIT_LINE_BYTES) uint64_t row[GODWIT_PAGE_LINES];
	struct godwit_counters counters;
};

static const alignas(GODWIT_LINE_BYTES) uint64_t zero_row[GODWIT_PAGE_LINES];

/* ---- the page table and the blocks ---- */

static void table_put(struct godwit_encoder *e, const void *bytes, size_t nr_bytes)
{
	memcpy(e->table + e->table_bytes, bytes, nr_bytes);
	e->table_bytes += nr_bytes;
}

static void table_put_page(struct godwit_encoder *e, unsigned kind, uint64_t gap)
{
	uint8_t tag = (uint8_t)kind | (gap ? GODWIT_KIND_GAP : 0);

	table_put(e, &tag, 1);
	while (gap) {
		uint8_t byte = gap & 0x7f;

		gap >>= 7;
		if (gap)
			byte |= 0x80;
		table_put(e, &byte, 1);
	}
}

/* The page's bytes stand at e->out: count them into the open block or begin the next. */
static void payload_take(struct godwit_encoder *e, size_t bytes, bool is_whole)
{
	struct plain_block *block = e->nr_blocks ? &e->block[e->nr_blocks - 1] : NULL;

	if (!block || block->bytes + bytes > GODWIT_BLOCK_MAX_BYTES) {
		block = &e->block[e->nr_blocks++];
		*block = (struct plain_block){ .at = (uint32_t)(e->out - (e->payload + ROOM_BYTES)) };
	}
	block->bytes += (uint32_t)bytes;
	if (is_whole)
		block->whole++;
	else
		block->deltas++;
	e->out += bytes;
}

/* ---- one page ---- */

static void put_zero(struct godwit_encoder *e, uint64_t gap)
{
	table_put_page(e, GODWIT_KIND_ZERO, gap);
	e->count[GODWIT_COUNT_ZERO]++;
}

static void put_fill(struct godwit_encoder *e, uint64_t gap, uint64_t word)
{
	if (!word) {
		put_zero(e, gap);
		return;
	}
	table_put_page(e, GODWIT_KIND_FILL, gap);
	table_put(e, &word, sizeof(word));
	e->count[GODWIT_COUNT_FILL]++;
}

static void put_same(struct godwit_encoder *e, uint64_t gap, const uint8_t *copy)
{
	table_put_page(e, GODWIT_KIND_SAME, gap);
	e->fold = (e->fold ^ godwit_digest(copy, GODWIT_PAGE_BYTES)) * GODWIT_FOLD_PRIME;
	e->same++;
	e->count[GODWIT_COUNT_SAME]++;
}

static void put_delta(struct godwit_encoder *e, uint64_t gap, unsigned kind, const uint8_t *copy,
		      size_t delta_bytes)
{
	uint64_t digest = godwit_digest(copy, GODWIT_PAGE_BYTES);

	table_put_page(e, kind, gap);
	table_put(e, &digest, sizeof(digest));
	payload_take(e, delta_bytes, false);
	e->count[kind == GODWIT_KIND_WORDS ? GODWIT_COUNT_WORDS : GODWIT_COUNT_LINES]++;
	e->count[GODWIT_COUNT_DELTA_BYTES] += delta_bytes;
}

/* copy is e->out itself when the page was put there already. */
static void put_whole(struct godwit_encoder *e, uint64_t gap, const uint8_t *copy)
{
	table_put_page(e, GODWIT_KIND_WHOLE, gap);
	if (copy != e->out)
		memcpy(e->out, copy, GODWIT_PAGE_BYTES);
	payload_take(e, GODWIT_PAGE_BYTES, true);
}

/*
 * A quick look for a zero page, ended by the first line that is not zero. A page that is not is read
 * again by its save, which decides by what it reads then.
 */
static bool is_zero(const void *host)
{
	typedef uint64_t line_type __attribute__((vector_size(GODWIT_LINE_BYTES)));
	const line_type *line = host;

	for (unsigned i = 0; i < GODWIT_PAGE_LINES; i++) {
		line_type v = line[i];

		if ((v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7]) != 0)
			return false;
	}
	return true;
}

/* Nothing is known of the page: its row is made, and it goes whole. */
static void seed_signatures(struct godwit_encoder *e, const struct godwit_base_view *view, uint64_t page,
			    const void *host, uint64_t gap, const struct godwit_ahead *ahead)
{
	struct godwit_save save;

	godwit_save_lines_ahead(view->signer, view->granule_bytes, host, NULL, e->row, e->out, NULL,
				ahead, &save);
	if (save.is_fill && !save.word) {
		view->state[page] = GODWIT_BASE_ZERO;
		put_zero(e, gap);
		return;
	}
	memcpy(godwit_base_row(view, page), e->row, view->row_words * sizeof(*e->row));
	view->state[page] = GODWIT_BASE_KNOWN;
	if (save.is_fill) {
		put_fill(e, gap, save.word);
	} else {
		e->count[GODWIT_COUNT_MISSES]++;
		put_whole(e, gap, e->out);
	}
}

static void save_by_signatures(struct godwit_encoder *e, const struct godwit_base_view *view,
			       uint64_t page, const void *host, uint64_t gap,
			       const struct godwit_ahead *ahead)
{
	uint8_t *state = &view->state[page];
	uint64_t *row = godwit_base_row(view, page);
	struct godwit_save save;

	/* A zero page's row is never touched, so that a sparse guest's table stays sparse. */
	if (*state != GODWIT_BASE_KNOWN && is_zero(host)) {
		*state = GODWIT_BASE_ZERO;
		put_zero(e, gap);
		return;
	}
	if (*state == GODWIT_BASE_UNKNOWN) {
		seed_signatures(e, view, page, host, gap, ahead);
		return;
	}
	godwit_save_lines_ahead(view->signer, view->granule_bytes, host,
				*state == GODWIT_BASE_ZERO ? zero_row : row, row, e->copy, e->out, ahead,
				&save);
	*state = GODWIT_BASE_KNOWN;
	if (save.is_fill) {
		if (!save.word)
			*state = GODWIT_BASE_ZERO;
		put_fill(e, gap, save.word);
		return;
	}
	e->count[GODWIT_COUNT_HITS]++;
	if (!save.map) {
		put_same(e, gap, e->copy);
	} else if ((unsigned)__builtin_popcountll(save.map) > WHOLE_ABOVE_LINES) {
		e->count[GODWIT_COUNT_OVERFLOW]++;
		put_whole(e, gap, e->copy);
	} else {
		put_delta(e, gap, GODWIT_KIND_LINES, e->copy, save.delta_bytes);
	}
}

static void save_by_old_page(struct godwit_encoder *e, const struct godwit_base_view *view, uint64_t page,
			     const void *host, uint64_t gap, enum godwit_page_claim claim,
			     struct godwit_page_slot *slot, const struct godwit_ahead *ahead)
{
	uint8_t *state = &view->state[page];
	bool was_zero = *state == GODWIT_BASE_ZERO;
	struct godwit_save save;

	if (claim == GODWIT_PAGE_NONE || (claim == GODWIT_PAGE_EMPTY && !was_zero)) {
		uint8_t *copy = claim == GODWIT_PAGE_NONE ? e->copy : slot->page;

		godwit_save_plain_ahead(host, copy, ahead, &save);
		if (save.is_fill && !save.word) {
			if (claim != GODWIT_PAGE_NONE)
				godwit_page_cache_release(slot, GODWIT_PAGE_NO_KEY, view->round);
			*state = GODWIT_BASE_ZERO;
			put_zero(e, gap);
			return;
		}
		if (save.is_fill) {
			put_fill(e, gap, save.word);
		} else {
			e->count[GODWIT_COUNT_MISSES]++;
			put_whole(e, gap, copy);
		}
		if (claim == GODWIT_PAGE_NONE)
			*state = GODWIT_BASE_UNKNOWN;
		else
			godwit_base_publish(view, page, slot);
		return;
	}

	if (claim == GODWIT_PAGE_EMPTY)
		memset(slot->page, 0, GODWIT_PAGE_BYTES);	/* what the destination has */
	godwit_save_words_ahead(host, slot->page, e->out, ahead, &save);
	if (save.is_fill && !save.word) {
		godwit_page_cache_release(slot, GODWIT_PAGE_NO_KEY, view->round);
		*state = GODWIT_BASE_ZERO;
		put_zero(e, gap);
		return;
	}
	if (save.is_fill) {
		put_fill(e, gap, save.word);
	} else {
		e->count[GODWIT_COUNT_HITS]++;
		if (!save.map) {
			put_same(e, gap, slot->page);
		} else if (save.changed_words > WHOLE_ABOVE_WORDS) {
			e->count[GODWIT_COUNT_OVERFLOW]++;
			put_whole(e, gap, slot->page);
		} else {
			put_delta(e, gap, GODWIT_KIND_WORDS, slot->page, save.delta_bytes);
		}
	}
	godwit_base_publish(view, page, slot);
}

static void save_without_base(struct godwit_encoder *e, const void *host, uint64_t gap,
			      const struct godwit_ahead *ahead)
{
	struct godwit_save save;

	godwit_save_plain_ahead(host, e->out, ahead, &save);
	if (save.is_fill) {
		put_fill(e, gap, save.word);
	} else {
		e->count[GODWIT_COUNT_MISSES]++;
		put_whole(e, gap, e->out);
	}
}

/* All pages of the batch into table and payload. */
static void save_pages(struct godwit_encoder *e, const struct godwit_batch *batch,
		       const struct godwit_base_view *view)
{
	struct godwit_page_slot slot[2];
	enum godwit_page_claim claim[2] = { GODWIT_PAGE_NONE, GODWIT_PAGE_NONE };

	if (view->kind == GODWIT_BASE_PAGES)
		claim[0] = godwit_base_claim(view, batch->page[0], &slot[0]);
	for (unsigned i = 0; i < batch->nr_pages; i++) {
		uint64_t page = batch->page[i];
		uint64_t gap = i ? page - batch->page[i - 1] - 1 : 0;
		const void *host = batch->host[i];
		struct godwit_ahead ahead = { host, NULL };	/* the last: nothing is ahead */

		if (i + 1 < batch->nr_pages) {
			uint64_t next = batch->page[i + 1];
			unsigned to = (i + 1) & 1;

			ahead.guest = batch->host[i + 1];
			if (view->kind == GODWIT_BASE_SIGNATURES) {
				if (view->state[next] == GODWIT_BASE_KNOWN)
					ahead.kept = godwit_base_row(view, next);
			} else if (view->kind == GODWIT_BASE_PAGES) {
				claim[to] = godwit_base_claim(view, next, &slot[to]);
				if (claim[to] == GODWIT_PAGE_HIT)
					ahead.kept = slot[to].page;
			}
		}
		switch (view->kind) {
		case GODWIT_BASE_SIGNATURES:
			save_by_signatures(e, view, page, host, gap, &ahead);
			break;
		case GODWIT_BASE_PAGES:
			save_by_old_page(e, view, page, host, gap, claim[i & 1], &slot[i & 1],
					 &ahead);
			break;
		default:
			save_without_base(e, host, gap, &ahead);
		}
	}
}

/* ---- the LZ stage ---- */

struct stored_block {
	struct godwit_rung rung;	/* what it really went through */
	uint32_t bytes;
};

static unsigned block_kind(const struct plain_block *block)
{
	return block->whole * GODWIT_PAGE_BYTES * 2 > block->bytes;
}

static void count_block(struct godwit_encoder *e, const struct plain_block *block,
			const struct stored_block *stored)
{
	unsigned codec = stored->rung.codec;

	e->count[GODWIT_COUNT_CODEC_IN + codec] += block->bytes;
	e->count[GODWIT_COUNT_CODEC_OUT + codec] += stored->bytes;
	e->count[codec ? GODWIT_COUNT_WHOLE : GODWIT_COUNT_RAW] += block->whole;
	if (codec)
		e->count[GODWIT_COUNT_SHRUNK] += block->whole + block->deltas;
}

/*
 * What the rung did to the block. A block that took many times what such blocks take was not hard: its
 * thread lost the processor meanwhile. That is no figure of the rung, but one of the host, and the price
 * of a byte depends on it.
 */
static void learn(struct godwit_encoder *e, const struct plain_block *block, unsigned step, size_t bytes,
		  uint64_t taken_ns)
{
	unsigned kind = block_kind(block);
	uint64_t usual_ns = (uint64_t)(e->ladder.kind[kind].slowness *
				       (float)godwit_ladder_usual_ns(&e->ladder, kind, step,
								     block->bytes));
	uint64_t most_ns = LOST_ABOVE * usual_ns + LOST_LEAST_NS;

	e->count[GODWIT_COUNT_CODEC_NS] += taken_ns;
	if (taken_ns > most_ns) {
		e->count[GODWIT_COUNT_LOST_NS] += taken_ns - usual_ns;
		taken_ns = LOST_ABOVE * usual_ns;	/* slower machines are learned all the same */
	}
	godwit_ladder_learn(&e->ladder, kind, step, block->bytes, bytes, taken_ns);
}

/* One block from the payload to `to`, by this rung or as it is. */
static struct stored_block store_block(struct godwit_encoder *e, const struct plain_block *block,
				       struct godwit_rung rung, unsigned step, uint8_t *to)
{
	const uint8_t *from = e->payload + ROOM_BYTES + block->at;
	size_t cap = block->bytes - (block->bytes >> WORTH_SHIFT) - 1;
	size_t bytes = 0;

	if (rung.codec != GODWIT_CODEC_NONE) {
		uint64_t start_ns = e->is_auto ? godwit_now_ns() : 0;

		bytes = godwit_codec_compress(e->codec, rung, from, block->bytes, to, cap);
		if (e->is_auto)
			learn(e, block, step, bytes ? bytes : block->bytes, godwit_now_ns() - start_ns);
	}
	if (bytes)
		return (struct stored_block){ rung, (uint32_t)bytes };
	memcpy(to, from, block->bytes);
	return (struct stored_block){ { GODWIT_CODEC_NONE, 0 }, block->bytes };
}

static void table_put_block(struct godwit_encoder *e, const struct plain_block *block,
			    const struct stored_block *stored)
{
	uint32_t plain = stored->rung.codec | block->bytes << 8;

	table_put(e, &plain, sizeof(plain));
	table_put(e, &stored->bytes, sizeof(stored->bytes));
	count_block(e, block, stored);
}

/* Head and table go right in front of the stored blocks; then the frame is whole. */
static void finish_frame(struct godwit_encoder *e, const struct godwit_batch *batch, uint64_t number,
			 size_t stored_bytes, struct godwit_frame_buffer *buffer)
{
	struct godwit_head head = {
		.magic = GODWIT_MAGIC_FRAME,
		.body_bytes = (uint32_t)(e->table_bytes + stored_bytes),
		.number = number,
		.first_page = batch->page[0],
		.block = batch->block,
		.nr_pages = (uint8_t)batch->nr_pages,
		.nr_blocks = (uint8_t)e->nr_blocks,
		.table_bytes = (uint16_t)e->table_bytes,
	};

	buffer->frame = buffer->mem + ROOM_BYTES - e->table_bytes - sizeof(head);
	buffer->frame_bytes = sizeof(head) + head.body_bytes;
	memcpy(buffer->frame, &head, sizeof(head));
	memcpy(buffer->frame + sizeof(head), e->table, e->table_bytes);
	buffer->checksum = godwit_unit_seal(buffer->frame, buffer->frame_bytes);
	e->count[GODWIT_COUNT_FRAMES]++;
	e->count[GODWIT_COUNT_WIRE_BYTES] += buffer->frame_bytes;
}

static void remember_rung(struct godwit_encoder *e, const struct stored_block *stored)
{
	uint32_t most = 0;
	struct godwit_rung rung = { GODWIT_CODEC_NONE, 0 };

	for (unsigned i = 0; i < e->nr_blocks; i++) {
		if (e->block[i].bytes > most) {
			most = e->block[i].bytes;
			rung = stored[i].rung;
		}
	}
	if (most)
		/* Relaxed: a figure for people. */
		atomic_store_explicit(&e->last_rung,
				      (uint16_t)(rung.codec << 8 | (uint8_t)rung.level),
				      memory_order_relaxed);
}

static void store_payload(struct godwit_encoder *e, const struct godwit_batch *batch, uint64_t number,
			  struct godwit_frame_buffer *buffer)
{
	struct godwit_rung rung[GODWIT_MAX_PAYLOAD_BLOCKS];
	struct stored_block stored[GODWIT_MAX_PAYLOAD_BLOCKS];
	unsigned step[GODWIT_MAX_PAYLOAD_BLOCKS];
	bool any_codec = false;
	size_t stored_bytes = 0;

	for (unsigned i = 0; i < e->nr_blocks; i++) {
		rung[i] = e->rung;
		step[i] = 0;
		if (e->is_auto) {
			step[i] = godwit_ladder_pick(&e->ladder, block_kind(&e->block[i]),
						     e->block[i].bytes, e->price_ps);
			rung[i] = godwit_ladder_rung(step[i]);
		}
		any_codec |= rung[i].codec != GODWIT_CODEC_NONE;
	}
	for (unsigned i = 0; i < e->nr_blocks; i++) {
		if (any_codec)
			stored[i] = store_block(e, &e->block[i], rung[i], step[i],
						buffer->mem + ROOM_BYTES + stored_bytes);
		else
			stored[i] = (struct stored_block){ rung[i], e->block[i].bytes };
		stored_bytes += stored[i].bytes;
		table_put_block(e, &e->block[i], &stored[i]);
	}
	if (!any_codec) {
		uint8_t *mem = buffer->mem;

		buffer->mem = e->payload;
		e->payload = mem;
	}
	remember_rung(e, stored);
	finish_frame(e, batch, number, stored_bytes, buffer);
}

/* ---- a batch ---- */

static bool batch_is_sound(const struct godwit_batch *batch, uint64_t pages)
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
	if (!batch_is_sound(batch, view.pages))
		return -EINVAL;

	e->out = e->payload + ROOM_BYTES;
	e->nr_blocks = 0;
	e->table_bytes = 0;
	e->fold = 0;
	e->same = 0;
	memset(e->count, 0, sizeof(e->count));

	save_pages(e, batch, &view);
	if (e->same)
		table_put(e, &e->fold, sizeof(e->fold));
	store_payload(e, batch, number, buffer);

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
	/* Relaxed: see remember_rung(). */
	uint16_t rung = atomic_load_explicit(&e->last_rung, memory_order_relaxed);

	return (struct godwit_rung){ (uint8_t)(rung >> 8), (int8_t)(rung & 0xff) };
}

/* ---- birth and end ---- */

int godwit_frame_buffer_alloc(struct godwit_arena *arena, struct godwit_frame_buffer *buffer)
{
	buffer->mem = godwit_arena_alloc(arena, BUFFER_BYTES);
	return buffer->mem ? 0 : -ENOMEM;
}

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
	e->payload = godwit_arena_alloc(arena, BUFFER_BYTES);
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
	godwit_codec_ctx_destroy(e->codec);
	godwit_arena_free(e->arena, e->payload);
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
	err = godwit_frame_buffer_alloc(arena, &e->own);
	if (err)
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
