/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ENCODER_H
#define GODWIT_ENCODER_H

#include <stdbool.h>

#include <godwit/batch.h>

#include "codecs/codecs.h"
#include "engine/counters.h"
#include "engine/memory.h"

/*
 * What a worker needs of an encoder beside include/godwit/batch.h: its own choice of buffer, the price
 * for auto, the counters.
 */

/* Memory that a frame is built in, and the frame in it once encoded. mem has this many bytes; the encoder may
 * swap it for another of the arena, so that none of them is given back before the arena is. */
#define GODWIT_FRAME_BUFFER_BYTES (264u << 10)
struct godwit_frame_buffer {
	uint8_t *mem;
	uint8_t *frame;			/* within mem */
	size_t frame_bytes;
	size_t plain_bytes;		/* payload, before codecs */
	uint64_t checksum;		/* as in its head */
};

int godwit_encoder_create_in(struct godwit_arena *arena, struct godwit_base *base,
			     struct godwit_encoder **encoder_ret);

void godwit_encoder_destroy_in(struct godwit_encoder *encoder);

/* From the next batch on; with is_auto the ladder chooses by price_ps, see codecs.h. */
void godwit_encoder_choose(struct godwit_encoder *encoder, struct godwit_rung rung, bool is_auto,
			   uint64_t price_ps);

/* The batch as a frame in *buffer. 0, -ENOENT for a block that the base does not have, or -EINVAL for a
 * batch whose pages are not in the block or not in order. */
int godwit_encoder_run(struct godwit_encoder *encoder, const struct godwit_batch *batch, uint64_t number,
		       struct godwit_frame_buffer *buffer);

/* Pages that are in a block of so many, in order, and not farther apart than a frame can say. */
bool godwit_batch_is_sound(const struct godwit_batch *batch, uint64_t pages);

/* The encoder's own set; any thread may read it. */
struct godwit_counters *godwit_encoder_counters(struct godwit_encoder *encoder);

/* The rung that the last batch's bytes mostly went through. Any thread. */
struct godwit_rung godwit_encoder_last_rung(const struct godwit_encoder *encoder);

#endif
