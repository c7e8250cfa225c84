/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_BATCH_H
#define GODWIT_BATCH_H

#include <godwit/params.h>
#include <godwit/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The batch layer: these pages -> a frame; a frame -> pages. No threads of its own: the caller has N
 * threads (QEMU's multifd), each with an encoder or a decoder, sharing one base or one ram.
 *
 * Rules between the threads, which the caller keeps:
 *  - a page is with one encoder at a time, and a frame that holds a page is applied before a later
 *    frame with the same page is decoded (a sync between rounds does both);
 *  - blocks are added and removed, the base laid out, and a round begun, while no encoder or decoder runs.
 */

/* What the destination has of each page (source side). */
struct godwit_base;

struct godwit_base_options {
	size_t size;
	uint64_t bytes;			/* 0: at most an eighth of the guest, a quarter of what is left */
	uint32_t kind;			/* enum godwit_base_kind */
	uint32_t reserved;
};

GODWIT_API int godwit_base_create(const struct godwit_base_options *options, struct godwit_base **base_ret,
				  struct godwit_error *error);
GODWIT_API void godwit_base_destroy(struct godwit_base *base);
GODWIT_API int godwit_base_add_block(struct godwit_base *base, uint32_t id, uint64_t pages,
				     struct godwit_error *error);
GODWIT_API int godwit_base_remove_block(struct godwit_base *base, uint32_t id);
/* Allocate for the blocks that are there, or change kind and size, keeping what fits. */
GODWIT_API int godwit_base_layout(struct godwit_base *base, const struct godwit_base_options *options,
				  struct godwit_error *error);
/* A new pass over the dirty bitmap: old pages that were not sent for some rounds make room for others. */
GODWIT_API void godwit_base_next_round(struct godwit_base *base);
/* Is a page of which nothing is known remembered as it goes out? It is, until this says 0. Any thread. */
GODWIT_API void godwit_base_remember_new(struct godwit_base *base, int on);
GODWIT_API void godwit_base_forget(struct godwit_base *base, uint32_t id, uint64_t first, uint64_t pages);

/* A batch: pages of one block, strictly ascending. */
struct godwit_batch {
	uint32_t block;
	uint32_t nr_pages;				/* 1 to GODWIT_BATCH_PAGES */
	uint64_t page[GODWIT_BATCH_PAGES];		/* page number in the block */
	const void *host[GODWIT_BATCH_PAGES];
};

/* The most bytes a frame can take. */
#define GODWIT_FRAME_MAX_BYTES (GODWIT_BATCH_PAGES * GODWIT_PAGE_BYTES + 4096u)

struct godwit_encoder;
GODWIT_API int godwit_encoder_create(struct godwit_base *base, struct godwit_encoder **encoder_ret,
				     struct godwit_error *error);
GODWIT_API void godwit_encoder_destroy(struct godwit_encoder *encoder);
/* From the next batch on; rung as in params.h, but a fixed one ("auto" needs queues: -EINVAL). */
GODWIT_API int godwit_encoder_set_rung(struct godwit_encoder *encoder, const char *rung,
				       struct godwit_error *error);
/* The frame is in the encoder's own buffer, valid until its next call. number: any, shown in errors. */
GODWIT_API int godwit_encode(struct godwit_encoder *encoder, const struct godwit_batch *batch,
			     uint64_t number, const void **frame_ret, size_t *frame_bytes_ret);
GODWIT_API int godwit_encoder_stats(const struct godwit_encoder *encoder, struct godwit_stats *stats);

/* Where the pages go (destination side). */
struct godwit_ram;
GODWIT_API int godwit_ram_create(struct godwit_ram **ram_ret, struct godwit_error *error);
GODWIT_API void godwit_ram_destroy(struct godwit_ram *ram);
GODWIT_API int godwit_ram_add_block(struct godwit_ram *ram, uint32_t id, const char *name, void *host,
				    uint64_t bytes, struct godwit_error *error);
GODWIT_API int godwit_ram_remove_block(struct godwit_ram *ram, uint32_t id);

struct godwit_decoder;
GODWIT_API int godwit_decoder_create(struct godwit_ram *ram, struct godwit_decoder **decoder_ret,
				     struct godwit_error *error);
GODWIT_API void godwit_decoder_destroy(struct godwit_decoder *decoder);
/* 0, or -EBADMSG with block, frame number and byte; then no guest page was changed by it. */
GODWIT_API int godwit_decode(struct godwit_decoder *decoder, const void *frame, size_t frame_bytes,
			     struct godwit_error *error);
/* The pages of the frame that was decoded last, ascending. Returns how many: none if it was refused. */
GODWIT_API uint32_t godwit_decoder_pages(const struct godwit_decoder *decoder, uint32_t *block_ret,
					 uint64_t pages_ret[GODWIT_BATCH_PAGES]);
GODWIT_API int godwit_decoder_stats(const struct godwit_decoder *decoder, struct godwit_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
