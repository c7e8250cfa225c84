/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_delta.c - words and lines deltas from the reader's side: golden vectors, round trips, refusals
 */
#include <criterion/criterion.h>

#include "pages.h"

/* Lines 1 and 63; words 0 and 7 of the first, word 2 of the second. */
static const uint8_t words_golden[] = {
	0x02, 0, 0, 0, 0, 0, 0, 0x80, 0x81, 0x04,
	0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
	0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
	0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38,
};

static uint8_t *guarded_copy(const void *from, size_t bytes)
{
	uint8_t *to = test_guarded(bytes);

	memcpy(to, from, bytes);
	return to;
}

Test(delta, words_golden_vector_is_applied)
{
	const struct godwit_delta_variant *v;
	const uint8_t *in = guarded_copy(words_golden, sizeof(words_golden));
	uint8_t expected[PAGE], *page = test_guarded(PAGE);

	memset(expected, 0xee, PAGE);
	memcpy(expected + 64, words_golden + 10, 8);
	memcpy(expected + 64 + 56, words_golden + 18, 8);
	memcpy(expected + 63 * 64 + 16, words_golden + 26, 8);
	cr_assert_eq(godwit_words_check(in, sizeof(words_golden)), sizeof(words_golden));
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		memset(page, 0xee, PAGE);
		v->words_apply(in, page);
		cr_assert(!memcmp(page, expected, PAGE), "%s", v->name);
	}
	memset(page, 0xee, PAGE);
	godwit_words_apply(in, page);
	cr_assert(!memcmp(page, expected, PAGE));
}

Test(delta, words_golden_vector_is_made)
{
	const struct godwit_delta_variant *v;
	uint8_t *guest = test_guarded(PAGE), *base = test_guarded(PAGE);
	uint8_t out[GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK];

	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		struct godwit_save s;

		memset(base, 0xee, PAGE);
		memset(guest, 0xee, PAGE);
		godwit_words_apply(words_golden, guest);
		v->save_words(guest, base, out, NULL, &s);
		cr_assert_eq(s.delta_bytes, sizeof(words_golden));
		cr_assert_eq(s.changed_words, 3);
		cr_assert(!memcmp(out, words_golden, sizeof(words_golden)), "%s", v->name);
	}
}

Test(delta, words_every_shorter_input_is_refused_and_longer_is_not_consumed)
{
	uint8_t more[sizeof(words_golden) + 9] = { 0 };

	for (size_t bytes = 0; bytes < sizeof(words_golden); bytes++)
		cr_assert_eq(godwit_words_check(guarded_copy(words_golden, bytes), bytes), 0, "%zu", bytes);
	memcpy(more, words_golden, sizeof(words_golden));
	cr_assert_eq(godwit_words_check(more, sizeof(more)), sizeof(words_golden));
}

Test(delta, words_zero_map_and_zero_masks_are_refused)
{
	uint8_t in[GODWIT_DELTA_MAX_BYTES];
	size_t bytes;

	memset(in, 0, sizeof(in));
	cr_assert_eq(godwit_words_check(in, sizeof(in)), 0);
	for (unsigned lines = 1; lines <= 64; lines++)
		for (unsigned zero = 0; zero <= lines; zero++) {
			uint64_t map = ~0ull >> (64 - lines);

			memset(in, 0xff, sizeof(in));
			memcpy(in, &map, 8);
			if (zero < lines)
				in[8 + zero] = 0;
			bytes = 8 + lines + 64 * lines;
			cr_assert_eq(godwit_words_check(in, sizeof(in)), zero < lines ? 0 : bytes);
		}
}

Test(delta, words_round_trip_in_every_pair_of_variants)
{
	const struct godwit_delta_variant *v, *u;
	uint8_t *was = test_guarded(PAGE), *now = test_guarded(PAGE), *page = test_guarded(PAGE);
	uint8_t *base = test_guarded(PAGE), *room = test_guarded(2 * PAGE);
	uint8_t out[GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK];

	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned kind = 0; kind < NR_PAIRS; kind++)
			for (unsigned seed = 100; seed < 110; seed++) {
				struct godwit_save s;
				uint8_t *in;

				test_make_pair(kind, seed, was, now);
				memcpy(base, was, PAGE);
				v->save_words(now, base, out, NULL, &s);
				if (!s.delta_bytes)
					continue;
				in = room + 2 * PAGE - s.delta_bytes;
				memcpy(in, out, s.delta_bytes);
				cr_assert_eq(godwit_words_check(in, s.delta_bytes), s.delta_bytes);
				for (unsigned j = 0; (u = godwit_delta_variant(j)); j++) {
					memcpy(page, was, PAGE);
					u->words_apply(in, page);
					cr_assert(!memcmp(page, now, PAGE), "%s %s kind %u", v->name,
						  u->name, kind);
				}
			}
}

Test(delta, lines_golden_vector_is_applied)
{
	uint8_t in[8 + 128], expected[PAGE], *page = test_guarded(PAGE), *tight;
	const uint64_t map = 1ull << 63 | 1;

	memcpy(in, &map, 8);
	memset(in + 8, 0x11, 64);
	memset(in + 72, 0x22, 64);
	memset(expected, 0xee, PAGE);
	memset(expected, 0x11, 64);
	memset(expected + PAGE - 64, 0x22, 64);
	tight = guarded_copy(in, sizeof(in));
	cr_assert_eq(godwit_lines_check(tight, sizeof(in)), sizeof(in));
	memset(page, 0xee, PAGE);
	godwit_lines_apply(tight, page);
	cr_assert(!memcmp(page, expected, PAGE));
}

Test(delta, lines_short_input_and_zero_map_are_refused)
{
	uint8_t in[8 + PAGE];

	memset(in, 0, sizeof(in));
	cr_assert_eq(godwit_lines_check(in, sizeof(in)), 0);
	for (unsigned lines = 1; lines <= 64; lines++) {
		uint64_t map = ~0ull << (64 - lines);
		size_t bytes = 8 + 64 * lines;

		memcpy(in, &map, 8);
		cr_assert_eq(godwit_lines_check(in, bytes), bytes);
		cr_assert_eq(godwit_lines_check(in, sizeof(in)), bytes);
		cr_assert_eq(godwit_lines_check(in, bytes - 1), 0);
	}
	for (size_t bytes = 0; bytes < 8; bytes++)
		cr_assert_eq(godwit_lines_check(guarded_copy(in, bytes), bytes), 0);
}

/* What check accepts, apply can bear: random input at an unmapped page, applied to a guarded page. */
Test(delta, accepted_input_is_read_and_written_within_bounds)
{
	const struct godwit_delta_variant *v;
	uint8_t *room = test_guarded(2 * PAGE), *page = test_guarded(PAGE), reference[PAGE];
	uint64_t rnd = 3;
	unsigned accepted = 0;

	for (unsigned round = 0; round < 20000; round++) {
		size_t bytes = test_random(&rnd) % (8 + 16 * 64), words, lines;
		uint8_t *in = room + 2 * PAGE - bytes;
		uint64_t map = test_random(&rnd) & test_random(&rnd) & test_random(&rnd);

		test_random_bytes(&rnd, in, bytes);
		if (bytes >= 8)
			memcpy(in, &map, 8);
		words = godwit_words_check(in, bytes);
		lines = godwit_lines_check(in, bytes);
		cr_assert(words <= bytes && lines <= bytes);
		if (words) {
			/* exactly its length, so that reading on would fault */
			uint8_t *tight = room + 2 * PAGE - words;

			memmove(tight, in, words);
			cr_assert_eq(godwit_words_check(tight, words), words);
			memset(reference, 0, PAGE);
			for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
				memset(page, 0, PAGE);
				v->words_apply(tight, page);
				if (!i)
					memcpy(reference, page, PAGE);
				cr_assert(!memcmp(page, reference, PAGE));
			}
			accepted++;
		} else if (lines) {
			uint8_t *tight = room + 2 * PAGE - lines;

			memmove(tight, in, lines);
			godwit_lines_apply(tight, page);
			accepted++;
		}
	}
	cr_assert(accepted > 1000, "%u", accepted);
}
