/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_frame.c - the wire format byte by byte: golden vectors both ways
 *
 * Rung none makes a frame the same for ever; what zstd or LZ4 put out may change with their versions, so
 * they have round trips elsewhere. A change here is a change of the format: it needs a new version.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <godwit/batch.h>

#include "engine/digest.h"
#include "engine/frame.h"
#include "xbzrle/xbzrle.h"

#define PAGES 32u
#define BLOCK 3u

static _Alignas(64) uint8_t guest[PAGES * GODWIT_PAGE_BYTES];
static _Alignas(64) uint8_t shadow[PAGES * GODWIT_PAGE_BYTES];

static uint8_t *page_at(unsigned page)
{
	return guest + page * GODWIT_PAGE_BYTES;
}

static void first_contents(void)
{
	for (unsigned page = 0; page < PAGES; page++)
		for (unsigned i = 0; i < GODWIT_PAGE_BYTES; i++)
			page_at(page)[i] = (uint8_t)(page * 7 + i % 253);
}

/* Pages 0, 1, 2, 10 and 11: zero, fill, same, a changed word, two changed words in two lines. */
static void second_contents(void)
{
	memset(page_at(0), 0, GODWIT_PAGE_BYTES);
	memset(page_at(1), 0xa5, GODWIT_PAGE_BYTES);
	memcpy(page_at(10) + 64 + 8, "one word", 8);
	memcpy(page_at(11), "two word", 8);
	memcpy(page_at(11) + 4032 + 56, "s, far !", 8);
}

static const struct godwit_batch batch_of_five = {
	.block = BLOCK,
	.nr_pages = 5,
	.page = { 0, 1, 2, 10, 11 },
	.host = { guest, guest + 1 * GODWIT_PAGE_BYTES, guest + 2 * GODWIT_PAGE_BYTES,
		  guest + 10 * GODWIT_PAGE_BYTES, guest + 11 * GODWIT_PAGE_BYTES },
};

struct pair {
	struct godwit_base *base;
	struct godwit_encoder *encoder;
	struct godwit_ram *ram;
	struct godwit_decoder *decoder;
};

static void open_pair(struct pair *pair, uint32_t kind)
{
	struct godwit_base_options options = { sizeof(options), 1 << 20, kind, 0 };

	cr_assert_eq(godwit_base_create(&options, &pair->base, NULL), 0);
	cr_assert_eq(godwit_base_add_block(pair->base, BLOCK, PAGES, NULL), 0);
	cr_assert_eq(godwit_base_layout(pair->base, &options, NULL), 0);
	cr_assert_eq(godwit_encoder_create(pair->base, &pair->encoder, NULL), 0);
	cr_assert_eq(godwit_encoder_set_rung(pair->encoder, "none", NULL), 0);
	cr_assert_eq(godwit_ram_create(&pair->ram, NULL), 0);
	cr_assert_eq(godwit_ram_add_block(pair->ram, BLOCK, "pc.ram", shadow, sizeof(shadow), NULL), 0);
	cr_assert_eq(godwit_decoder_create(pair->ram, &pair->decoder, NULL), 0);
}

static void close_pair(struct pair *pair)
{
	godwit_encoder_destroy(pair->encoder);
	godwit_base_destroy(pair->base);
	godwit_decoder_destroy(pair->decoder);
	godwit_ram_destroy(pair->ram);
}

static size_t send(struct pair *pair, uint64_t number, const uint8_t **frame_ret)
{
	struct godwit_error error = { "" };
	const void *frame;
	size_t bytes;

	cr_assert_eq(godwit_encode(pair->encoder, &batch_of_five, number, &frame, &bytes), 0);
	cr_assert_eq(godwit_decode(pair->decoder, frame, bytes, &error), 0, "%s", error.text);
	*frame_ret = frame;
	return bytes;
}

/* On a difference the bytes that came are printed in the form of the vectors below. */
static void expect_bytes(const uint8_t *got, size_t got_bytes, const char *hex)
{
	char line[4096] = "";

	for (size_t i = 0; i < got_bytes && i < 2000; i++)
		snprintf(line + 2 * i, 3, "%02x", got[i]);
	cr_expect_str_eq(line, hex, "the bytes are\n%s\nand should be\n%s", line, hex);
}

static const char golden_lines[] =
	"47574631fe0000009e8823468a38dc35887766554433221100000000000000000300000005012e00"
	"0001a5a5a5a5a5a5a5a5020c079473ef681fd8d9b8048e93a845e01e8adc7596a824257b199800d0"
	"0000d00000000200000000000000868788898a8b8c8d6f6e6520776f7264969798999a9b9c9d9e9f"
	"a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c50100"
	"00000000008074776f20776f726455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e"
	"6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c3a3b3c3d3e3f40414243"
	"4445464748494d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e"
	"6f7071727374732c206661722021";
static const char golden_words[] =
	"4757463159000000e891b900a95a470a887766554433221100000000000000000300000005012e00"
	"0001a5a5a5a5a5a5a5a5020b079473ef681fd8d9b8038e93a845e01e8adc7596a824257b1998002b"
	"00002b0000000200000000000000026f6e6520776f72640100000000000080018074776f20776f72"
	"64732c206661722021";

static void check_golden(uint32_t kind, const char *hex)
{
	struct pair pair;
	const uint8_t *frame;
	size_t bytes;

	open_pair(&pair, kind);
	first_contents();
	send(&pair, 1, &frame);
	second_contents();
	bytes = send(&pair, 0x1122334455667788, &frame);
	expect_bytes(frame, bytes, hex);
	for (unsigned i = 0; i < batch_of_five.nr_pages; i++)
		cr_expect(!memcmp(page_at((unsigned)batch_of_five.page[i]),
				  shadow + batch_of_five.page[i] * GODWIT_PAGE_BYTES,
				  GODWIT_PAGE_BYTES));
	close_pair(&pair);
}

Test(frame, zero_fill_same_and_lines_deltas_are_these_bytes)
{
	check_golden(GODWIT_BASE_SIGNATURES, golden_lines);
}

Test(frame, zero_fill_same_and_words_deltas_are_these_bytes)
{
	check_golden(GODWIT_BASE_PAGES, golden_words);
}

Test(frame, whole_pages_are_these_bytes)
{
	struct pair pair;
	const uint8_t *frame;
	size_t bytes;

	open_pair(&pair, GODWIT_BASE_OFF);
	first_contents();
	bytes = send(&pair, 5, &frame);
	cr_expect_eq(bytes, 20534u, "%zu", bytes);
	expect_bytes(frame, bytes - 5 * GODWIT_PAGE_BYTES,
		     "475746310e5000007eb9248eeee6bbff050000000000000000000000000000000300000005010e00"
		     "0505050d07050000500000500000");
	for (unsigned i = 0; i < 5; i++)
		cr_expect(!memcmp(frame + bytes - (5 - i) * GODWIT_PAGE_BYTES,
				  page_at((unsigned)batch_of_five.page[i]), GODWIT_PAGE_BYTES));
	close_pair(&pair);
}

Test(frame, stream_header_and_drain_frame_are_these_bytes)
{
	uint8_t unit[GODWIT_HEAD_BYTES];

	godwit_stream_header_put(unit);
	expect_bytes(unit, sizeof(unit),
		     "4757533100000000b895749272486a4c020000000000000000100000000000004000000040000000");
	godwit_drain_frame_put(unit, 7, 0x0123456789abcdef);
	expect_bytes(unit, sizeof(unit),
		     "4757443100000000a551d89e388d66d60700000000000000efcdab89674523010000000000000000");
}

Test(frame, a_stream_of_another_version_or_size_is_refused_with_its_reason)
{
	static const struct {
		size_t at;
		uint8_t value;
		const char *reason;
	} wrong[] = {
		{ 0, 'X', "not a godwit stream" },
		{ 4, 1, "damaged" },
		{ 8, 0, "damaged" },
		{ 16, 1, "version 1" },
		{ 25, 0x20, "pages of 8192" },
		{ 32, 128, "lines of 128" },
		{ 36, 32, "batches of 32" },
		{ 37, 1, "does not know" },
		{ 39, 1, "does not know" },
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		uint8_t unit[GODWIT_HEAD_BYTES];
		struct godwit_error error = { "" };

		godwit_stream_header_put(unit);
		cr_expect_eq(godwit_stream_header_check(unit, &error), 0);
		unit[wrong[i].at] = wrong[i].value;
		if (wrong[i].at >= GODWIT_HEAD_SUMMED)
			godwit_unit_seal(unit, sizeof(unit));
		cr_expect_eq(godwit_stream_header_check(unit, &error), -EBADMSG);
		cr_expect(strstr(error.text, wrong[i].reason), "byte %zu: '%s'", wrong[i].at, error.text);
	}
}

Test(frame, every_digest_variant_gives_the_same_number)
{
	first_contents();
	for (unsigned i = 0; i < godwit_nr_digest_variants; i++) {
		const struct godwit_digest_variant *variant = &godwit_digest_variants[i];

		if (variant->cpu & ~godwit_delta_cpu())
			continue;
		for (size_t bytes = 0; bytes < 5000; bytes += bytes < 600 ? 1 : 61)
			cr_expect_eq(variant->digest(guest + 3, bytes),
				     godwit_digest_scalar(guest + 3, bytes), "%s, %zu bytes",
				     variant->name, bytes);
	}
}
