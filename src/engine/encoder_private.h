/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ENCODER_PRIVATE_H
#define GODWIT_ENCODER_PRIVATE_H

/*
 * encoder_private.h - the encoder as its own files know it: encoder.c, encoder_pages.c, encoder_payload.c
 */
#include <string.h>

#include "engine/base.h"
#include "engine/encoder.h"
#include "engine/frame.h"

/* In front of the payload: head and page table, and the payload starts on a line. */
#define ROOM_BYTES 2048u
_Static_assert(ROOM_BYTES >= GODWIT_HEAD_BYTES + GODWIT_TABLE_MAX_BYTES &&
		       ROOM_BYTES % GODWIT_LINE_BYTES == 0, "the room in front is enough");

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
	uint8_t *payload;		/* a buffer; may swap with a caller's */
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

static inline void godwit_table_put(struct godwit_encoder *e, const void *bytes, size_t nr_bytes)
{
	memcpy(e->table + e->table_bytes, bytes, nr_bytes);
	e->table_bytes += nr_bytes;
}

/* encoder_pages.c: all pages of the batch into table and payload. */
void godwit_encoder_save_pages(struct godwit_encoder *e, const struct godwit_batch *batch,
			       const struct godwit_base_view *view);

/* encoder_payload.c: the payload through the codec, and table and payload become the frame. */
void godwit_encoder_store_payload(struct godwit_encoder *e, const struct godwit_batch *batch,
				  uint64_t number, struct godwit_frame_buffer *buffer);

#endif
