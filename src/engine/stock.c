/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stock.c - a batch of pages becomes what an unpatched QEMU reads
 *
 * QEMU's RAM stream knows three kinds of page that any destination takes, whoever encoded them: zero,
 * whole, and XBZRLE, which is applied in place over the page that is there. So the base serves here as it
 * does for frames, and workers encode side by side what QEMU encodes in one thread. There is no
 * checksum, no codec and no mark of the end; what else is in the stream the caller writes.
 *
 * A piece is one batch. Per page that is not what the destination has already, all big-endian:
 *
 *   u64  the page's offset in its RAM block, and flags in the bits below a page
 *   only without CONTINUE: u8 length of the block's name, and the name
 *   ZERO    u8 0
 *   PAGE    4096 bytes
 *   XBZRLE  u8 1, u16 bytes of the delta, the delta (src/xbzrle/xbzrle.h)
 *
 * CONTINUE means the block of the page before. The first page of a piece names its block, so that a
 * piece stands for itself: wherever it is written, whatever was written before it.
 *
 * Always: the guest is read once a page, and what goes out is what was read then, and what the base
 * remembers (base.h has the table).
 */
#include <errno.h>
#include <string.h>

#include "engine/base.h"
#include "engine/stock.h"
#include "xbzrle/xbzrle.h"

enum stock_flag {
	STOCK_ZERO = 0x02,
	STOCK_PAGE = 0x08,
	STOCK_CONTINUE = 0x20,
	STOCK_XBZRLE = 0x40,
};

#define HEAD_BYTES 8u
#define XBZRLE_HEAD_BYTES 3u
#define XBZRLE_ENCODING 1u

/* A delta that is not shorter than the page, its own head included, is none. */
#define DELTA_CAP (GODWIT_PAGE_BYTES - XBZRLE_HEAD_BYTES - 1)

_Static_assert(GODWIT_BATCH_PAGES * (HEAD_BYTES + GODWIT_PAGE_BYTES) + 1 + UINT8_MAX <=
		       GODWIT_FRAME_MAX_BYTES,
	       "a batch of whole pages fits a frame's buffer");

struct godwit_stock {
	struct godwit_base *base;
	struct godwit_arena *arena;

	/* The batch at hand. */
	const uint8_t *idstr;		/* NULL once it is in the piece */
	uint8_t *out;			/* where the next page begins */
	uint64_t count[GODWIT_COUNTERS];	/* published at its end */

	alignas(GODWIT_LINE_BYTES) uint8_t copy[GODWIT_PAGE_BYTES];
	alignas(GODWIT_LINE_BYTES) uint64_t row[GODWIT_PAGE_LINES];
	/* The save call writes a delta of lines as well; ours is made from its map. */
	alignas(GODWIT_LINE_BYTES) uint8_t unused_delta[GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK];
	struct godwit_counters counters;
};

static const alignas(GODWIT_LINE_BYTES) uint64_t zero_row[GODWIT_PAGE_LINES];

/* ---- one page into the piece ---- */

/* Where the next page's bytes will stand, behind its head: they may be put there before the head is. */
static uint8_t *next_bytes(const struct godwit_stock *s)
{
	return s->out + HEAD_BYTES + (s->idstr ? 1 + s->idstr[0] : 0);
}

/* The head, and nr_bytes that are at next_bytes() already. */
static void put_page_of(struct godwit_stock *s, uint64_t page, enum stock_flag flag, size_t nr_bytes)
{
	uint64_t head = page * GODWIT_PAGE_BYTES | flag | (s->idstr ? 0 : STOCK_CONTINUE);

	head = __builtin_bswap64(head);
	memcpy(s->out, &head, sizeof(head));
	s->out += sizeof(head);
	if (s->idstr) {
		memcpy(s->out, s->idstr, 1 + s->idstr[0]);
		s->out += 1 + s->idstr[0];
		s->idstr = NULL;
	}
	s->out += nr_bytes;
}

static void put_zero(struct godwit_stock *s, uint64_t page)
{
	*next_bytes(s) = 0;
	put_page_of(s, page, STOCK_ZERO, 1);
	s->count[GODWIT_COUNT_ZERO]++;
}

/* The page is at next_bytes() already. */
static void put_page(struct godwit_stock *s, uint64_t page)
{
	put_page_of(s, page, STOCK_PAGE, GODWIT_PAGE_BYTES);
	s->count[GODWIT_COUNT_RAW]++;
	s->count[GODWIT_COUNT_CODEC_IN + GODWIT_CODEC_NONE] += GODWIT_PAGE_BYTES;
}

static uint8_t *next_delta(const struct godwit_stock *s)
{
	return next_bytes(s) + XBZRLE_HEAD_BYTES;
}

static bool found_zero(const struct godwit_save *save)
{
	return save->is_fill && !save->word;
}

/* Nothing was known of the page; it is at next_bytes(). */
static void put_unknown(struct godwit_stock *s, uint64_t page, const struct godwit_save *save)
{
	if (found_zero(save)) {
		put_zero(s, page);
		return;
	}
	s->count[GODWIT_COUNT_MISSES]++;
	put_page(s, page);
}

/* The page is s->copy, and result is what an encoder found, with the delta at next_delta(). */
static void put_compared(struct godwit_stock *s, uint64_t page, const struct godwit_save *save,
			 enum godwit_xbzrle result, size_t delta_bytes, enum godwit_counter kind)
{
	uint8_t *bytes = next_bytes(s);

	if (found_zero(save)) {
		put_zero(s, page);
		return;
	}
	s->count[GODWIT_COUNT_HITS]++;
	switch (result) {
	case GODWIT_XBZRLE_SAME:
		s->count[GODWIT_COUNT_SAME]++;
		return;
	case GODWIT_XBZRLE_OVERFLOW:
		s->count[GODWIT_COUNT_OVERFLOW]++;
		memcpy(bytes, s->copy, GODWIT_PAGE_BYTES);
		put_page(s, page);
		return;
	case GODWIT_XBZRLE_DELTA:
		bytes[0] = XBZRLE_ENCODING;
		bytes[1] = (uint8_t)(delta_bytes >> 8);
		bytes[2] = (uint8_t)delta_bytes;
		delta_bytes += XBZRLE_HEAD_BYTES;
		put_page_of(s, page, STOCK_XBZRLE, delta_bytes);
		s->count[kind]++;
		s->count[GODWIT_COUNT_DELTA_BYTES] += delta_bytes;
		s->count[GODWIT_COUNT_CODEC_IN + GODWIT_CODEC_NONE] += delta_bytes;
	}
}

/* ---- what is known of a page, and what is from now on ---- */

static void save_without_base(struct godwit_stock *s, uint64_t page, const void *host,
			      const struct godwit_ahead *ahead)
{
	struct godwit_save save;

	godwit_save_plain_ahead(host, next_bytes(s), ahead, &save);
	put_unknown(s, page, &save);
}

static void save_by_signatures(struct godwit_stock *s, const struct godwit_base_view *view, uint64_t page,
			       const void *host, const struct godwit_ahead *ahead)
{
	uint8_t *state = &view->state[page];
	uint64_t *row;
	struct godwit_save save;
	enum godwit_xbzrle result;
	size_t delta_bytes;

	/* A zero page's row is never touched, so that a sparse guest's table stays sparse. */
	if (*state != GODWIT_BASE_KNOWN && godwit_page_is_zero(host)) {
		*state = GODWIT_BASE_ZERO;
		put_zero(s, page);
		return;
	}
	if (godwit_base_passes(view, page)) {
		save_without_base(s, page, host, ahead);
		return;
	}
	row = godwit_base_own_row(view, page);
	if (*state == GODWIT_BASE_UNKNOWN) {
		godwit_save_lines_ahead(view->signer, view->granule_bytes, host, NULL, s->row, next_bytes(s),
					NULL, ahead, &save);
		if (!found_zero(&save))
			memcpy(row, s->row, view->row_words * sizeof(*row));
		put_unknown(s, page, &save);
	} else {
		godwit_save_lines_ahead(view->signer, view->granule_bytes, host,
					*state == GODWIT_BASE_ZERO ? zero_row : row, row, s->copy,
					s->unused_delta, ahead, &save);
		result = godwit_xbzrle_encode_lines(save.map, s->copy, next_delta(s), DELTA_CAP,
						    &delta_bytes);
		put_compared(s, page, &save, result, delta_bytes, GODWIT_COUNT_LINES);
	}
	*state = found_zero(&save) ? GODWIT_BASE_ZERO : GODWIT_BASE_KNOWN;
}

static void save_by_old_page(struct godwit_stock *s, const struct godwit_base_view *view, uint64_t page,
			     const void *host, enum godwit_page_claim claim, struct godwit_page_slot *slot,
			     const struct godwit_ahead *ahead)
{
	uint8_t *state = &view->state[page], *copy;
	struct godwit_save save;
	enum godwit_xbzrle result;
	size_t delta_bytes;

	if (claim == GODWIT_PAGE_NONE || (claim == GODWIT_PAGE_EMPTY && *state != GODWIT_BASE_ZERO)) {
		copy = next_bytes(s);
		godwit_save_plain_ahead(host, copy, ahead, &save);
		put_unknown(s, page, &save);
	} else {
		copy = s->copy;
		if (claim == GODWIT_PAGE_EMPTY)
			memset(slot->page, 0, GODWIT_PAGE_BYTES);	/* what the destination has */
		godwit_save_plain_ahead(host, copy, ahead, &save);
		result = godwit_xbzrle_encode(slot->page, copy, &(struct godwit_ahead){ .kept = ahead->kept },
					      next_delta(s), DELTA_CAP, &delta_bytes);
		put_compared(s, page, &save, result, delta_bytes, GODWIT_COUNT_WORDS);
	}
	if (found_zero(&save)) {
		if (claim != GODWIT_PAGE_NONE)
			godwit_page_cache_release(slot, GODWIT_PAGE_NO_KEY, view->round);
		*state = GODWIT_BASE_ZERO;
	} else if (claim == GODWIT_PAGE_NONE) {
		*state = GODWIT_BASE_UNKNOWN;
	} else {
		memcpy(slot->page, copy, GODWIT_PAGE_BYTES);
		godwit_base_publish(view, page, slot);
	}
}

static void save_pages(struct godwit_stock *s, const struct godwit_batch *batch,
		       const struct godwit_base_view *view)
{
	enum godwit_page_claim claim[2] = { GODWIT_PAGE_NONE, GODWIT_PAGE_NONE };
	struct godwit_page_slot slot[2];

	if (view->kind == GODWIT_BASE_PAGES)
		claim[0] = godwit_base_claim(view, batch->page[0], &slot[0]);
	for (unsigned i = 0; i < batch->nr_pages; i++) {
		uint64_t page = batch->page[i];
		const void *host = batch->host[i];
		struct godwit_ahead ahead = godwit_base_look_ahead(view, batch, i, claim, slot);

		switch (view->kind) {
		case GODWIT_BASE_SIGNATURES:
			save_by_signatures(s, view, page, host, &ahead);
			break;
		case GODWIT_BASE_PAGES:
			save_by_old_page(s, view, page, host, claim[i & 1], &slot[i & 1], &ahead);
			break;
		default:
			save_without_base(s, page, host, &ahead);
		}
	}
}

int godwit_stock_run(struct godwit_stock *s, const struct godwit_batch *batch, const uint8_t *idstr,
		     struct godwit_frame_buffer *buffer)
{
	struct godwit_base_view view;

	if (!godwit_base_view(s->base, batch->block, &view))
		return -ENOENT;
	if (!godwit_batch_is_sound(batch, view.pages))
		return -EINVAL;
	s->idstr = idstr;
	s->out = buffer->mem;
	memset(s->count, 0, sizeof(s->count));

	save_pages(s, batch, &view);

	buffer->frame = buffer->mem;
	buffer->frame_bytes = (size_t)(s->out - buffer->mem);
	buffer->plain_bytes = buffer->frame_bytes;
	buffer->checksum = 0;
	s->count[GODWIT_COUNT_CODEC_OUT + GODWIT_CODEC_NONE] = s->count[GODWIT_COUNT_CODEC_IN + GODWIT_CODEC_NONE];
	s->count[GODWIT_COUNT_FRAMES] = 1;
	s->count[GODWIT_COUNT_WIRE_BYTES] = buffer->frame_bytes;
	godwit_counters_add(&s->counters, s->count);
	return 0;
}

struct godwit_counters *godwit_stock_counters(struct godwit_stock *s)
{
	return &s->counters;
}

int godwit_stock_create_in(struct godwit_arena *arena, struct godwit_base *base,
			   struct godwit_stock **stock_ret)
{
	struct godwit_stock *s = godwit_arena_alloc_zero(arena, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->base = base;
	s->arena = arena;
	*stock_ret = s;
	return 0;
}

void godwit_stock_destroy_in(struct godwit_stock *s)
{
	godwit_arena_free(s->arena, s);
}
