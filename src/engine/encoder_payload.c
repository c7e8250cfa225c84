/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * encoder_payload.c - the payload of a batch through the codec, and the frame around it
 *
 * The payload goes through the codec in blocks of up to 128 KiB: a 4 KiB window loses a tenth of the ratio
 * and half the speed, 64 KiB 5 to 11 % of the speed (zstd 1 over changed pages of three guests), and zstd itself
 * makes blocks of no more. Where every block stays as it is, the payload is the frame: a head and a page
 * table are put in front of it and nothing is copied again. Otherwise the blocks are written one after the
 * other into the caller's buffer. So there are two buffers of one shape, ours and the caller's, and they
 * may swap.
 */
#include "engine/clock.h"
#include "engine/encoder_private.h"

/* A block must shrink by a 32nd to be worth decoding. */
#define WORTH_SHIFT 5

/* A block that takes this many times the usual and this much has lost the processor: slices last
 * milliseconds, blocks a tenth of one. */
#define LOST_ABOVE 3u
#define LOST_LEAST_NS 300000u

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

static uint64_t usual_ns_of(const struct godwit_encoder *e, const struct plain_block *block, unsigned step)
{
	unsigned kind = block_kind(block);

	return (uint64_t)(e->ladder.kind[kind].slowness *
			  (float)godwit_ladder_usual_ns(&e->ladder, kind, step, block->bytes));
}

/*
 * A block that took many times what such blocks take was not hard: its thread lost the processor meanwhile.
 * That is no figure of the rung, but one of the host, and the price of a byte depends on it.
 */
static bool has_lost(uint64_t taken_ns, uint64_t usual_ns)
{
	return taken_ns > LOST_ABOVE * usual_ns + LOST_LEAST_NS;
}

/* What the rung did to the block. */
static void learn(struct godwit_encoder *e, const struct plain_block *block, unsigned step,
		  const struct godwit_ladder_result *result)
{
	unsigned kind = block_kind(block);
	uint64_t usual_ns = usual_ns_of(e, block, step), taken_ns = result->cpu_ns;

	e->count[GODWIT_COUNT_CODEC_NS] += taken_ns;
	if (has_lost(taken_ns, usual_ns)) {
		e->count[GODWIT_COUNT_LOST_NS] += taken_ns - usual_ns;
		taken_ns = LOST_ABOVE * usual_ns;	/* slower machines are learned all the same */
	}
	godwit_ladder_learn(&e->ladder, kind, step, block->bytes, result->out_bytes, taken_ns);
}

/* The bytes that a block becomes; 0: it is not worth decoding. */
static size_t compress(struct godwit_encoder *e, const struct plain_block *block, struct godwit_rung rung,
		       uint8_t *to)
{
	size_t cap = block->bytes - (block->bytes >> WORTH_SHIFT) - 1;

	return godwit_codec_compress(e->codec, rung, e->payload + ROOM_BYTES + block->at, block->bytes, to, cap);
}

static size_t compress_timed(struct godwit_encoder *e, const struct plain_block *block, unsigned step, uint8_t *to,
			     struct godwit_ladder_result *result)
{
	struct godwit_rung rung = godwit_ladder_rung(step);
	uint64_t start_ns;
	size_t bytes;

	/* What a rung's first block takes is no figure of the rung. */
	godwit_codec_prepare(e->codec, rung, block->bytes);
	start_ns = godwit_now_ns();
	bytes = compress(e, block, rung, to);
	result->out_bytes = bytes ? bytes : block->bytes;
	result->cpu_ns = godwit_now_ns() - start_ns;
	return bytes;
}

/* What both did to the block, unless one of them lost the processor. */
static void learn_twins(struct godwit_encoder *e, const struct plain_block *block, unsigned step, unsigned twin,
			const struct godwit_ladder_result *result, const struct godwit_ladder_result *other)
{
	if (has_lost(result->cpu_ns, usual_ns_of(e, block, step)) ||
	    has_lost(other->cpu_ns, usual_ns_of(e, block, twin)))
		return;
	godwit_ladder_learn_twins(&e->ladder, block_kind(block), block->bytes, twin < step ? other : result,
				  twin < step ? result : other);
}

/* By the ladder's rung, after the other of two that are to be compared. */
static size_t compress_auto(struct godwit_encoder *e, const struct plain_block *block, unsigned step, uint8_t *to)
{
	unsigned twin = godwit_ladder_twin(&e->ladder, block_kind(block), step);
	struct godwit_ladder_result other, result;
	size_t bytes;

	if (twin != step)
		compress_timed(e, block, twin, to, &other);
	bytes = compress_timed(e, block, step, to, &result);
	learn(e, block, step, &result);
	if (twin != step)
		learn_twins(e, block, step, twin, &result, &other);
	return bytes;
}

/* One block from the payload to `to`, by this rung or as it is. */
static struct stored_block store_block(struct godwit_encoder *e, const struct plain_block *block,
				       struct godwit_rung rung, unsigned step, uint8_t *to)
{
	size_t bytes = 0;

	if (rung.codec != GODWIT_CODEC_NONE)
		bytes = e->is_auto ? compress_auto(e, block, step, to) : compress(e, block, rung, to);
	if (bytes)
		return (struct stored_block){ rung, (uint32_t)bytes };
	memcpy(to, e->payload + ROOM_BYTES + block->at, block->bytes);
	return (struct stored_block){ { GODWIT_CODEC_NONE, 0 }, block->bytes };
}

static void table_put_block(struct godwit_encoder *e, const struct plain_block *block,
			    const struct stored_block *stored)
{
	uint32_t plain = stored->rung.codec | block->bytes << 8;

	godwit_table_put(e, &plain, sizeof(plain));
	godwit_table_put(e, &stored->bytes, sizeof(stored->bytes));
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

void godwit_encoder_store_payload(struct godwit_encoder *e, const struct godwit_batch *batch,
				  uint64_t number, struct godwit_frame_buffer *buffer)
{
	struct godwit_rung rung[GODWIT_MAX_PAYLOAD_BLOCKS];
	struct stored_block stored[GODWIT_MAX_PAYLOAD_BLOCKS];
	unsigned step[GODWIT_MAX_PAYLOAD_BLOCKS];
	bool any_codec = false;
	size_t stored_bytes = 0;

	buffer->plain_bytes = 0;
	for (unsigned i = 0; i < e->nr_blocks; i++) {
		buffer->plain_bytes += e->block[i].bytes;
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
