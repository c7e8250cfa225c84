/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * encoder_pages.c - pages of a batch become entries of its table, and bytes of its payload
 *
 * Each page is read from the guest once, into registers or our own memory, and everything after works
 * on that copy: the guest may write meanwhile, and what is remembered in the base must be what was
 * sent. What differs goes straight to its place in the payload; a page of which too much changed is put
 * there whole.
 *
 * There is a way to save a page for each kind of base. They differ in what they read and in what becomes
 * of the base; what is sent is put down by put_page() for all of them.
 */
#include "engine/encoder_private.h"
#include "xbzrle/xbzrle.h"

/*
 * A page goes whole when more of it changed: 400 of 512 words, 52 of 64 lines. Measured over real guests:
 * beyond that the LZ stage does better without the holes, and a delta never costs more than the page.
 */
#define WHOLE_ABOVE_WORDS 400u
#define WHOLE_ABOVE_LINES 52u

static const alignas(GODWIT_LINE_BYTES) uint64_t zero_row[GODWIT_PAGE_LINES];

/* ---- the page table and the blocks ---- */

static void table_put_page(struct godwit_encoder *e, unsigned kind, uint64_t gap)
{
	uint8_t tag = (uint8_t)kind | (gap ? GODWIT_KIND_GAP : 0);

	godwit_table_put(e, &tag, 1);
	while (gap) {
		uint8_t byte = gap & 0x7f;

		gap >>= 7;
		if (gap)
			byte |= 0x80;
		godwit_table_put(e, &byte, 1);
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
	godwit_table_put(e, &word, sizeof(word));
	e->count[GODWIT_COUNT_FILL]++;
}

static void put_same(struct godwit_encoder *e, uint64_t gap, uint64_t digest)
{
	table_put_page(e, GODWIT_KIND_SAME, gap);
	e->fold = (e->fold ^ digest) * GODWIT_FOLD_PRIME;
	e->same++;
	e->count[GODWIT_COUNT_SAME]++;
}

static void put_delta(struct godwit_encoder *e, uint64_t gap, unsigned kind, const struct godwit_save *save)
{
	table_put_page(e, kind, gap);
	godwit_table_put(e, &save->digest, sizeof(save->digest));
	payload_take(e, save->delta_bytes, false);
	e->count[kind == GODWIT_KIND_WORDS ? GODWIT_COUNT_WORDS : GODWIT_COUNT_LINES]++;
	e->count[GODWIT_COUNT_DELTA_BYTES] += save->delta_bytes;
}

/* copy is e->out itself when the page was put there already. */
static void put_whole(struct godwit_encoder *e, uint64_t gap, const uint8_t *copy)
{
	table_put_page(e, GODWIT_KIND_WHOLE, gap);
	if (copy != e->out)
		memcpy(e->out, copy, GODWIT_PAGE_BYTES);
	payload_take(e, GODWIT_PAGE_BYTES, true);
}

static bool mostly_changed(unsigned delta_kind, const struct godwit_save *save)
{
	return delta_kind == GODWIT_KIND_WORDS ?
		       save->changed_words > WHOLE_ABOVE_WORDS :
		       (unsigned)__builtin_popcountll(save->map) > WHOLE_ABOVE_LINES;
}

/*
 * Put down what one pass over a page found. delta_kind: WORDS or LINES, and such a delta stands at e->out if
 * anything changed; WHOLE when nothing was known of the page.
 */
static void put_page(struct godwit_encoder *e, uint64_t gap, unsigned delta_kind, const uint8_t *copy,
		     const struct godwit_save *save)
{
	if (save->is_fill) {
		put_fill(e, gap, save->word);
		return;
	}
	if (delta_kind == GODWIT_KIND_WHOLE) {
		e->count[GODWIT_COUNT_MISSES]++;
		put_whole(e, gap, copy);
		return;
	}
	e->count[GODWIT_COUNT_HITS]++;
	if (!save->map) {
		put_same(e, gap, save->digest);
	} else if (mostly_changed(delta_kind, save)) {
		e->count[GODWIT_COUNT_OVERFLOW]++;
		put_whole(e, gap, copy);
	} else {
		put_delta(e, gap, delta_kind, save);
	}
}

static bool found_zero(const struct godwit_save *save)
{
	return save->is_fill && !save->word;
}

static void save_without_base(struct godwit_encoder *e, const void *host, uint64_t gap,
			      const struct godwit_ahead *ahead)
{
	struct godwit_save save;

	godwit_save_plain_ahead(host, e->out, ahead, &save);
	put_page(e, gap, GODWIT_KIND_WHOLE, e->out, &save);
}

static void save_by_signatures(struct godwit_encoder *e, const struct godwit_base_view *view,
			       uint64_t page, const void *host, uint64_t gap,
			       const struct godwit_ahead *ahead)
{
	uint8_t *state = &view->state[page];
	uint64_t *row;
	struct godwit_save save;

	/* A zero page's row is never touched, so that a sparse guest's table stays sparse. */
	if (*state != GODWIT_BASE_KNOWN && godwit_page_is_zero(host)) {
		*state = GODWIT_BASE_ZERO;
		put_zero(e, gap);
		return;
	}
	if (godwit_base_passes(view, page)) {
		save_without_base(e, host, gap, ahead);
		return;
	}
	row = godwit_base_own_row(view, page);
	if (*state == GODWIT_BASE_UNKNOWN) {
		godwit_save_lines_ahead(view->signer, view->granule_bytes, host, NULL, e->row, e->out,
					NULL, ahead, &save);
		if (!found_zero(&save))
			memcpy(row, e->row, view->row_words * sizeof(*row));
		put_page(e, gap, GODWIT_KIND_WHOLE, e->out, &save);
	} else {
		godwit_save_lines_ahead(view->signer, view->granule_bytes, host,
					*state == GODWIT_BASE_ZERO ? zero_row : row, row, e->copy, e->out,
					ahead, &save);
		put_page(e, gap, GODWIT_KIND_LINES, e->copy, &save);
	}
	*state = found_zero(&save) ? GODWIT_BASE_ZERO : GODWIT_BASE_KNOWN;
}

static void save_by_old_page(struct godwit_encoder *e, const struct godwit_base_view *view, uint64_t page,
			     const void *host, uint64_t gap, enum godwit_page_claim claim,
			     struct godwit_page_slot *slot, const struct godwit_ahead *ahead)
{
	uint8_t *state = &view->state[page];
	uint8_t *copy = claim == GODWIT_PAGE_NONE ? e->copy : slot->page;
	struct godwit_save save;

	if (claim == GODWIT_PAGE_NONE || (claim == GODWIT_PAGE_EMPTY && *state != GODWIT_BASE_ZERO)) {
		godwit_save_plain_ahead(host, copy, ahead, &save);
		put_page(e, gap, GODWIT_KIND_WHOLE, copy, &save);
	} else {
		if (claim == GODWIT_PAGE_EMPTY)
			memset(copy, 0, GODWIT_PAGE_BYTES);	/* what the destination has */
		godwit_save_words_ahead(host, copy, e->out, ahead, &save);
		put_page(e, gap, GODWIT_KIND_WORDS, copy, &save);
	}
	if (found_zero(&save)) {
		if (claim != GODWIT_PAGE_NONE)
			godwit_page_cache_release(slot, GODWIT_PAGE_NO_KEY, view->round);
		*state = GODWIT_BASE_ZERO;
	} else if (claim == GODWIT_PAGE_NONE) {
		*state = GODWIT_BASE_UNKNOWN;
	} else {
		godwit_base_publish(view, page, slot);
	}
}

/* ---- all of them ---- */

void godwit_encoder_save_pages(struct godwit_encoder *e, const struct godwit_batch *batch,
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
		struct godwit_ahead ahead = godwit_base_look_ahead(view, batch, i, claim, slot);

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
	if (e->same)
		godwit_table_put(e, &e->fold, sizeof(e->fold));
}
