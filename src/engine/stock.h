/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_ENGINE_STOCK_H
#define GODWIT_ENGINE_STOCK_H

#include "engine/encoder.h"

/*
 * stock.h - the encoder of the stock stream: what a worker has in place of a godwit_encoder there
 *
 * Threads: as an encoder: one stock encoder, one thread; the base's rules are batch.h's.
 */
struct godwit_stock;

int godwit_stock_create_in(struct godwit_arena *arena, struct godwit_base *base,
			   struct godwit_stock **stock_ret);
void godwit_stock_destroy_in(struct godwit_stock *stock);

/*
 * The batch as a piece of QEMU's stream in *buffer; its frame_bytes is 0 when the destination has every
 * page already. idstr is the block's name as it goes on the wire: a byte of length and that many bytes.
 * Errors as of godwit_encoder_run().
 */
int godwit_stock_run(struct godwit_stock *stock, const struct godwit_batch *batch, const uint8_t *idstr,
		     struct godwit_frame_buffer *buffer);

/* Its own set; any thread may read it. */
struct godwit_counters *godwit_stock_counters(struct godwit_stock *stock);

#endif
