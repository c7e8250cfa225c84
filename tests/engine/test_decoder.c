/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_decoder.c - what a decoder does with frames it should not get
 *
 * A frame of a recorded stream is changed, every byte of it. A change alone is caught by the checksum, so the
 * deeper checks are reached by sealing the changed frame again, as a hostile peer would.
 */
#include <errno.h>

#include "tape.h"

struct bench {
	struct tape tape;
	struct godwit_ram *ram;
	struct godwit_decoder *decoder;
	struct guarded copy;	/* what the destination has: the guest after the first drain */
	struct guarded frame;	/* a copy of one frame, to be changed */
	size_t frame_bytes;
};

static void bench_open(struct bench *b, uint32_t base, unsigned unit)
{
	b->tape = (struct tape){ 0 };
	record(&b->tape, base);
	b->copy = guard(PAGES * PAGE);
	memcpy(b->copy.bytes, b->tape.before, PAGES * PAGE);
	cr_assert_eq(godwit_ram_create(&b->ram, NULL), 0);
	cr_assert_eq(godwit_ram_add_block(b->ram, BLOCK, "pc.ram", b->copy.bytes, PAGES * PAGE, NULL), 0);
	cr_assert_eq(godwit_decoder_create(b->ram, &b->decoder, NULL), 0);
	b->frame_bytes = b->tape.unit[unit].bytes;
	b->frame = guard(b->frame_bytes);
	memcpy(b->frame.bytes, unit_at(&b->tape, unit), b->frame_bytes);
}

static void bench_close(struct bench *b)
{
	godwit_decoder_destroy(b->decoder);
	godwit_ram_destroy(b->ram);
	unguard(&b->copy);
	unguard(&b->frame);
	erase(&b->tape);
}

static void check_text(const struct godwit_error *error, unsigned frame)
{
	char number[32];

	snprintf(number, sizeof(number), "frame %u,", frame);
	cr_assert(strstr(error->text, number) && strstr(error->text, "block 7") && strstr(error->text, "pc.ram") &&
		  strstr(error->text, "byte "), "'%s' does not say where", error->text);
}

static void check_untouched(const struct bench *b, const char *what, size_t at)
{
	cr_assert(!memcmp(b->copy.bytes, b->tape.before, PAGES * PAGE), "%s %zu: refused, and pages changed", what,
		  at);
}

Test(decoder, refuses_a_frame_with_any_byte_flipped)
{
	static const uint8_t flips[] = { 0x01, 0x80, 0xff };
	struct bench b;

	bench_open(&b, GODWIT_BASE_SIGNATURES, SECOND_FRAME);
	for (size_t at = 0; at < b.frame_bytes; at++) {
		for (unsigned i = 0; i < sizeof(flips); i++) {
			struct godwit_error error = { "" };

			b.frame.bytes[at] ^= flips[i];
			cr_assert_eq(godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, &error), -EBADMSG,
				     "byte %zu ^ %02x was taken", at, flips[i]);
			cr_assert(strstr(error.text, "frame ") && strstr(error.text, "byte "), "%s", error.text);
			b.frame.bytes[at] ^= flips[i];
			if (at % 64 == 0)
				check_untouched(&b, "byte", at);
		}
	}
	check_untouched(&b, "byte", b.frame_bytes);
	cr_assert_eq(godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, NULL), 0);
	bench_close(&b);
}

Test(decoder, refuses_a_frame_that_ends_too_early)
{
	struct bench b;

	bench_open(&b, GODWIT_BASE_SIGNATURES, SECOND_FRAME);
	for (size_t bytes = 0; bytes < b.frame_bytes; bytes++) {
		struct guarded cut = guard(bytes ? bytes : 1);

		memcpy(cut.bytes, b.frame.bytes, bytes);
		cr_assert_eq(godwit_decode(b.decoder, cut.bytes, bytes, NULL), -EBADMSG, "%zu bytes were taken", bytes);
		if (bytes >= GODWIT_HEAD_BYTES) {
			/* And one that owns up to it. */
			struct godwit_head head = godwit_head_get(cut.bytes);

			head.body_bytes = (uint32_t)(bytes - GODWIT_HEAD_BYTES);
			memcpy(cut.bytes, &head, sizeof(head));
			godwit_unit_seal(cut.bytes, bytes);
			cr_assert_eq(godwit_decode(b.decoder, cut.bytes, bytes, NULL), -EBADMSG,
				     "%zu bytes, sealed, were taken", bytes);
		}
		unguard(&cut);
	}
	check_untouched(&b, "cut at", b.frame_bytes);
	bench_close(&b);
}

/* The frame is sealed again after each change: what the checksum does not catch. */
static void change_and_seal(uint32_t base)
{
	const unsigned rounds = getenv("GODWIT_FULL") ? 200000 : 4000;
	uint64_t seed = 77, refused = 0, taken = 0;
	struct bench b;
	uint8_t *good;

	bench_open(&b, base, SECOND_FRAME);
	good = malloc(b.frame_bytes);
	memcpy(good, b.frame.bytes, b.frame_bytes);
	for (unsigned i = 0; i < rounds; i++) {
		unsigned changes = 1 + (unsigned)rand_below(&seed, 3);
		struct godwit_error error = { "" };
		int err;

		for (unsigned c = 0; c < changes; c++) {
			/* Mostly the head and the page table, where the lengths are. */
			size_t within = rand_below(&seed, 4) ? GODWIT_HEAD_BYTES + godwit_head_get(good).table_bytes :
							       b.frame_bytes;
			size_t at = rand_below(&seed, within);

			b.frame.bytes[at] = (uint8_t)(rand_below(&seed, 3) ? rand64(&seed) :
							 b.frame.bytes[at] ^ (1u << rand_below(&seed, 8)));
		}
		godwit_unit_seal(b.frame.bytes, b.frame_bytes);
		err = godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, &error);
		cr_assert(!err || err == -EBADMSG);
		if (err) {
			refused++;
			cr_assert(strstr(error.text, "frame ") && strstr(error.text, "byte "), "%s", error.text);
			cr_assert(!memcmp(b.copy.bytes, b.tape.before, PAGES * PAGE), "change %u: %s; and pages changed",
				  i, error.text);
		} else {
			taken++;	/* another number, another fill word: a frame like any other */
			memcpy(b.copy.bytes, b.tape.before, PAGES * PAGE);
		}
		memcpy(b.frame.bytes, good, b.frame_bytes);
	}
	cr_assert_gt(refused, 2 * taken, "%llu refused, %llu taken", (unsigned long long)refused,
		     (unsigned long long)taken);
	free(good);
	bench_close(&b);
}

Test(decoder, survives_frames_that_were_changed_and_sealed_again)
{
	change_and_seal(GODWIT_BASE_SIGNATURES);
	change_and_seal(GODWIT_BASE_PAGES);
}

/* One field, one wrong value: refused, and the text points at the field's byte. */
static void check_field(struct bench *b, size_t at, const void *value, size_t bytes, const char *where)
{
	struct godwit_error error = { "" };
	uint8_t kept[8];

	memcpy(kept, b->frame.bytes + at, bytes);
	memcpy(b->frame.bytes + at, value, bytes);
	godwit_unit_seal(b->frame.bytes, b->frame_bytes);
	cr_assert_eq(godwit_decode(b->decoder, b->frame.bytes, b->frame_bytes, &error), -EBADMSG, "byte %zu", at);
	cr_assert(strstr(error.text, where), "'%s' does not name %s", error.text, where);
	memcpy(b->frame.bytes + at, kept, bytes);
	godwit_unit_seal(b->frame.bytes, b->frame_bytes);
	check_untouched(b, "field at", at);
}

Test(decoder, names_the_byte_of_a_field_that_is_wrong)
{
	const uint64_t huge = ~0ull, past_end = PAGES;
	const uint32_t huge32 = ~0u, no_block = BLOCK + 1;
	const uint16_t huge16 = 0xffff;
	const uint8_t pages_0 = 0, pages_65 = 65, blocks_4 = GODWIT_MAX_PAYLOAD_BLOCKS + 1;
	const uint8_t unknown_kind = 6, high_bits = 0x10;
	struct godwit_error error = { "" };
	struct bench b;

	bench_open(&b, GODWIT_BASE_SIGNATURES, SECOND_FRAME);
	check_field(&b, 24, &huge, 8, "byte 40");	/* the first entry has the page that is not there */
	check_field(&b, 24, &past_end, 8, "byte 40");
	check_field(&b, 32, &huge32, 4, "byte 32");
	check_field(&b, 32, &no_block, 4, "byte 32");
	check_field(&b, 36, &pages_0, 1, "byte 36");
	check_field(&b, 36, &pages_65, 1, "byte 36");
	check_field(&b, 37, &blocks_4, 1, "byte 37");
	check_field(&b, 38, &huge16, 2, "byte 38");
	check_field(&b, 40, &unknown_kind, 1, "byte 40");
	check_field(&b, 40, &high_bits, 1, "byte 40");

	/* The last payload block's entry: 8 bytes at the end of the table. */
	size_t table_end = GODWIT_HEAD_BYTES + godwit_head_get(b.frame.bytes).table_bytes;
	const uint32_t bad_codec = 4, plain_0 = GODWIT_CODEC_ZSTD;
	const uint32_t plain_max = GODWIT_CODEC_ZSTD | (GODWIT_BLOCK_MAX_BYTES + 1) << 8;

	check_field(&b, table_end - 8, &bad_codec, 1, "byte ");
	check_field(&b, table_end - 8, &plain_0, 4, "byte ");
	check_field(&b, table_end - 8, &plain_max, 4, "byte ");
	check_field(&b, table_end - 4, &huge32, 4, "byte ");
	cr_assert_eq(godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, &error), 0, "%s", error.text);
	bench_close(&b);
}

Test(decoder, says_block_frame_and_byte)
{
	struct godwit_error error = { "" };
	struct bench b;

	bench_open(&b, GODWIT_BASE_SIGNATURES, SECOND_FRAME);
	/* A delta onto a page that is not its base. */
	b.copy.bytes[3 * PAGE + 5] ^= 1;
	cr_assert_eq(godwit_decode(b.decoder, b.frame.bytes, b.frame_bytes, &error), -EBADMSG);
	check_text(&error, (unsigned)godwit_head_get(b.frame.bytes).number);
	bench_close(&b);
}
