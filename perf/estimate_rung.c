/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* estimate_rung.c - what one rung makes of the pages: bytes, and the time to encode and to decode them */
#include <string.h>

#include <godwit/batch.h>

#include "estimate.h"

#define BLOCK_ID 0

/* Both ends of a migration in one thread. */
struct ends {
	struct godwit_base *base;
	struct godwit_encoder *encoder;
	struct godwit_ram *ram;
	struct godwit_decoder *decoder;
	uint64_t frames;
};

static void open_ends(struct ends *ends, const struct memory *memory, const char *rung, uint8_t *shadow)
{
	/* Signatures per line for every page, and some for what is kept beside them. */
	struct godwit_base_options with = { .size = sizeof(with), .kind = GODWIT_BASE_SIGNATURES,
		.bytes = memory->pages * (GODWIT_PAGE_BYTES / 8 + 8) + (1u << 20) };
	struct godwit_error error = { "" };
	int err;

	*ends = (struct ends){ 0 };
	err = godwit_base_create(&with, &ends->base, &error);
	if (!err)
		err = godwit_base_add_block(ends->base, BLOCK_ID, memory->pages, &error);
	if (!err)
		err = godwit_base_layout(ends->base, &with, &error);
	if (!err)
		err = godwit_encoder_create(ends->base, &ends->encoder, &error);
	if (!err)
		err = godwit_encoder_set_rung(ends->encoder, rung, &error);
	if (!err)
		err = godwit_ram_create(&ends->ram, &error);
	if (!err)
		err = godwit_ram_add_block(ends->ram, BLOCK_ID, "memory", shadow,
					   memory->pages * GODWIT_PAGE_BYTES, &error);
	if (!err)
		err = godwit_decoder_create(ends->ram, &ends->decoder, &error);
	if (err)
		die("rung %s: %s (%s)", rung, error.text, strerror(-err));
}

static void close_ends(struct ends *ends)
{
	godwit_decoder_destroy(ends->decoder);
	godwit_ram_destroy(ends->ram);
	godwit_encoder_destroy(ends->encoder);
	godwit_base_destroy(ends->base);
}

static void send_batch(struct ends *ends, const struct godwit_batch *batch, struct pass *sum)
{
	struct godwit_error error;
	const void *frame;
	size_t frame_bytes;
	uint64_t start_ns = thread_cpu_ns(), encoded_ns;

	if (godwit_encode(ends->encoder, batch, ends->frames++, &frame, &frame_bytes))
		die("a batch could not be encoded; this is a bug");
	encoded_ns = thread_cpu_ns();
	if (godwit_decode(ends->decoder, frame, frame_bytes, &error))
		die("what was encoded does not decode; this is a bug: %s", error.text);
	sum->encode_ns += (double)(encoded_ns - start_ns);
	sum->decode_ns += (double)(thread_cpu_ns() - encoded_ns);
	sum->bytes += (double)frame_bytes;
}

/* All pages of `pages`, or those that differ from `than`. */
static void send_pass(struct ends *ends, const struct memory *memory, const uint8_t *pages,
		      const uint8_t *than, struct pass *mean_ret)
{
	struct godwit_batch batch = { .block = BLOCK_ID };
	struct pass sum = { 0 };
	uint64_t sent = 0;

	for (uint64_t i = 0; i < memory->pages; i++) {
		const uint8_t *host = pages + i * GODWIT_PAGE_BYTES;

		if (!than || memcmp(host, than + i * GODWIT_PAGE_BYTES, GODWIT_PAGE_BYTES)) {
			batch.page[batch.nr_pages] = i;
			batch.host[batch.nr_pages++] = host;
			sent++;
		}
		if (batch.nr_pages == GODWIT_BATCH_PAGES || (batch.nr_pages && i + 1 == memory->pages)) {
			send_batch(ends, &batch, &sum);
			batch.nr_pages = 0;
		}
	}
	*mean_ret = (struct pass){ 0 };
	if (sent)
		*mean_ret = (struct pass){ sum.bytes / (double)sent, sum.encode_ns / (double)sent,
					   sum.decode_ns / (double)sent };
}

void rung_measure(const struct memory *memory, unsigned rung, uint8_t *shadow, struct rung_cost *cost)
{
	struct ends ends;

	godwit_rung_name(godwit_ladder_rung(rung), cost->rung);
	open_ends(&ends, memory, cost->rung, shadow);
	memset(shadow, 0xA5, memory->pages * GODWIT_PAGE_BYTES);
	send_pass(&ends, memory, memory->old_pages, NULL, &cost->first);
	send_pass(&ends, memory, memory->new_pages, memory->old_pages, &cost->again);
	close_ends(&ends);
	if (memcmp(shadow, memory->new_pages, memory->pages * GODWIT_PAGE_BYTES))
		die("rung %s: pages came out different; this is a bug", cost->rung);
}
