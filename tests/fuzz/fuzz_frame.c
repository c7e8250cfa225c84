/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz_frame.c - a destination's decoder against a hostile peer
 *
 * The first byte picks what the rest is: bytes of a frame as they are, bytes of a frame whose length and
 * checksum are then made right (or nothing would get past step 1), or patches (u16 offset, u8 value)
 * to one of a few good frames, sealed again. The frame ends at an unmapped page.
 *
 * Checked beside what the sanitizers see: a frame that is refused has changed no guest page and says
 * why; one that is taken changed no page outside of its range.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <godwit/batch.h>

#include "engine/frame.h"

#define RAM_PAGES 96u
#define RAM_BYTES (RAM_PAGES * GODWIT_PAGE_BYTES)
#define GOLDEN 6u
#define ROOM_BYTES (GODWIT_FRAME_MAX_BYTES + 4096u)

static uint8_t *ram, *before;
static uint8_t *room_end;		/* an unmapped page begins here */
static struct godwit_decoder *decoder;
static struct golden {
	uint8_t *frame;
	size_t bytes;
} golden[GOLDEN];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void must(int err)
{
	if (err)
		abort();
}

static void *pages(size_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		abort();
	return mem;
}

static void fill_text(uint8_t *page, unsigned seed)
{
	for (unsigned i = 0; i < GODWIT_PAGE_BYTES; i += 16)
		snprintf((char *)page + i, 16, "line %u of %u...", i / 16, seed);
}

/* Frames with every kind of page in them, by several rungs; ram and before become what they start from. */
static void make_golden(void)
{
	static const char *const rungs[] = { "none", "lz4", "zstd1", "zlib1", "none", "zstd-5" };
	static const uint32_t kinds[] = { GODWIT_BASE_SIGNATURES, GODWIT_BASE_PAGES };
	uint8_t *source = pages(RAM_BYTES);

	for (unsigned g = 0; g < GOLDEN; g++) {
		struct godwit_base_options options = { sizeof(options), 64u << 20, kinds[g & 1], 0 };
		struct godwit_batch batch = { .block = 0 };
		struct godwit_encoder *encoder;
		struct godwit_base *base;
		const void *frame;

		for (unsigned i = 0; i < RAM_PAGES; i++)
			fill_text(source + i * GODWIT_PAGE_BYTES, i);
		must(godwit_base_create(&options, &base, NULL));
		must(godwit_base_add_block(base, 0, RAM_PAGES, NULL));
		must(godwit_base_layout(base, &options, NULL));
		must(godwit_encoder_create(base, &encoder, NULL));
		must(godwit_encoder_set_rung(encoder, rungs[g], NULL));
		for (unsigned i = 0; i < RAM_PAGES; i += 2, batch.nr_pages++) {
			batch.page[batch.nr_pages] = i;
			batch.host[batch.nr_pages] = source + i * GODWIT_PAGE_BYTES;
		}
		must(godwit_encode(encoder, &batch, g, &frame, &golden[g].bytes));
		memcpy(before, source, RAM_BYTES);
		if (g < 4) {		/* the second sending: deltas, same, fill, zero */
			for (unsigned i = 0; i < RAM_PAGES; i += 2) {
				uint8_t *page = source + i * GODWIT_PAGE_BYTES;

				if (i % 10 == 0)
					memset(page, i % 20 ? 0 : 0x5a, GODWIT_PAGE_BYTES);
				else if (i % 10 < 6)
					memcpy(page + 8 * i, "changed!", 8);
			}
			must(godwit_encode(encoder, &batch, g, &frame, &golden[g].bytes));
		}
		golden[g].frame = malloc(golden[g].bytes);
		memcpy(golden[g].frame, frame, golden[g].bytes);
		godwit_encoder_destroy(encoder);
		godwit_base_destroy(base);
	}
	munmap(source, RAM_BYTES);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct godwit_ram *block;
	uint8_t *room = pages(ROOM_BYTES + 4096);

	room_end = room + ROOM_BYTES;
	if (mprotect(room_end, 4096, PROT_NONE))
		abort();
	ram = pages(RAM_BYTES);
	before = pages(RAM_BYTES);
	must(godwit_ram_create(&block, NULL));
	must(godwit_ram_add_block(block, 0, "ram", ram, RAM_BYTES, NULL));
	must(godwit_decoder_create(block, &decoder, NULL));
	make_golden();
	for (unsigned g = 0; g < GOLDEN; g++) {	/* the good ones are good */
		struct godwit_error error;

		memcpy(ram, before, RAM_BYTES);
		if (godwit_decode(decoder, golden[g].frame, golden[g].bytes, &error)) {
			fprintf(stderr, "golden frame %u: %s\n", g, error.text);
			abort();
		}
	}
	return 0;
}

static void seal(uint8_t *frame, size_t bytes)
{
	struct godwit_head head;

	if (bytes < sizeof(head))
		return;
	head = godwit_head_get(frame);
	head.magic = GODWIT_MAGIC_FRAME;
	head.body_bytes = (uint32_t)(bytes - sizeof(head));
	memcpy(frame, &head, sizeof(head));
	godwit_unit_seal(frame, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct godwit_error error = { "" };
	uint8_t *frame;
	size_t bytes;

	if (!size || size > GODWIT_FRAME_MAX_BYTES)
		return 0;
	if (data[0] < GOLDEN) {
		const struct golden *good = &golden[data[0]];

		bytes = good->bytes;
		frame = room_end - bytes;
		memcpy(frame, good->frame, bytes);
		for (size_t i = 1; i + 3 <= size; i += 3)
			frame[(data[i] | (size_t)data[i + 1] << 8) % bytes] = data[i + 2];
		seal(frame, bytes);
	} else {
		bytes = size - 1;
		frame = room_end - bytes;
		memcpy(frame, data + 1, bytes);
		if (data[0] & 1)
			seal(frame, bytes);
	}
	memcpy(ram, before, RAM_BYTES);
	if (godwit_decode(decoder, frame, bytes, &error)) {
		if (memcmp(ram, before, RAM_BYTES) || !error.text[0])
			abort();
		return 0;
	}
	for (unsigned page = 0; page < RAM_PAGES; page++) {
		uint64_t first = godwit_head_get(frame).first_page;

		if (page < first && memcmp(ram + page * GODWIT_PAGE_BYTES,
					   before + page * GODWIT_PAGE_BYTES, GODWIT_PAGE_BYTES))
			abort();
	}
	return 0;
}
