/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_xbzrle.c - QEMU's delta format: golden vectors, round trips, and input that must be refused
 */
#include <criterion/criterion.h>

#include "naive.h"
#include "pages.h"

#define SEEDS 40

Test(xbzrle, golden_vectors)
{
	static const struct {
		unsigned at[6], nr_at;
		uint8_t out[24];
		size_t out_bytes;
	} vectors[] = {
		/* one byte, first, middle and last */
		{ { 0 }, 1, { 0x00, 0x01, 0xff }, 3 },
		{ { 127 }, 1, { 0x7f, 0x01, 0xff }, 3 },
		{ { 128 }, 1, { 0x80, 0x01, 0x01, 0xff }, 4 },
		{ { 4095 }, 1, { 0xff, 0x1f, 0x01, 0xff }, 4 },
		/* gaps of one and two are sent, a gap of three is not */
		{ { 10, 12 }, 2, { 0x0a, 0x03, 0xff, 0x00, 0xff }, 5 },
		{ { 10, 13 }, 2, { 0x0a, 0x04, 0xff, 0x00, 0x00, 0xff }, 6 },
		{ { 10, 14 }, 2, { 0x0a, 0x01, 0xff, 0x03, 0x01, 0xff }, 6 },
		/* the same across a line, and nothing merged with the end of the page */
		{ { 62, 65 }, 2, { 0x3e, 0x04, 0xff, 0x00, 0x00, 0xff }, 6 },
		{ { 63, 67 }, 2, { 0x3f, 0x01, 0xff, 0x03, 0x01, 0xff }, 6 },
		{ { 4090, 4093 }, 2, { 0xfa, 0x1f, 0x04, 0xff, 0x00, 0x00, 0xff }, 7 },
		{ { 0, 1, 2, 4094, 4095 }, 5,
		  { 0x00, 0x03, 0xff, 0xff, 0xff, 0xfb, 0x1f, 0x02, 0xff, 0xff }, 10 },
	};
	const struct godwit_delta_variant *v;
	uint8_t *was = test_guarded(PAGE), *now = test_guarded(PAGE), *page = test_guarded(PAGE);
	size_t bytes;

	memset(was, 0, PAGE);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned j = 0; j < sizeof(vectors) / sizeof(vectors[0]); j++) {
			uint8_t *out = test_guarded(vectors[j].out_bytes);

			memset(now, 0, PAGE);
			for (unsigned k = 0; k < vectors[j].nr_at; k++)
				now[vectors[j].at[k]] = 0xff;
			cr_assert_eq(v->xbzrle_encode(was, now, NULL, out, vectors[j].out_bytes, &bytes),
				     GODWIT_XBZRLE_DELTA, "%s vector %u", v->name, j);
			cr_assert_eq(bytes, vectors[j].out_bytes, "%s vector %u", v->name, j);
			cr_assert(!memcmp(out, vectors[j].out, bytes), "%s vector %u", v->name, j);
			memset(page, 0, PAGE);
			cr_assert(v->xbzrle_decode(out, bytes, page));
			cr_assert(!memcmp(page, now, PAGE));
		}
}

Test(xbzrle, whole_page_is_one_run_and_needs_its_header)
{
	const struct godwit_delta_variant *v;
	uint8_t *was = test_guarded(PAGE), *now = test_guarded(PAGE), *out = test_guarded(PAGE + 3);
	size_t bytes;

	test_make_pair(PAIR_ALL, 1, was, now);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		cr_assert_eq(v->xbzrle_encode(was, now, NULL, out, PAGE, &bytes), GODWIT_XBZRLE_OVERFLOW);
		cr_assert_eq(bytes, 0);
		cr_assert_eq(v->xbzrle_encode(was, now, NULL, out, PAGE + 3, &bytes), GODWIT_XBZRLE_DELTA);
		cr_assert_eq(bytes, PAGE + 3);
		cr_assert(out[0] == 0 && out[1] == 0x80 && out[2] == 0x20);
		cr_assert(!memcmp(out + 3, now, PAGE));
	}
}

/*
 * For every variant and pair: the reference's bytes; the naive reader and every decoder get the page back;
 * the capacity is exact, and nothing past it is touched.
 */
Test(xbzrle, every_variant_gives_the_same_bytes_and_they_decode)
{
	const struct godwit_delta_variant *v, *ref = NULL;
	uint8_t *was = test_guarded(PAGE), *now = test_guarded(PAGE), *page = test_guarded(PAGE);
	uint8_t *expected = test_guarded(2 * PAGE);
	unsigned overflows = 0, deltas = 0;

	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		ref = v;
	for (unsigned kind = 0; kind < NR_PAIRS; kind++)
		for (unsigned seed = 0; seed < SEEDS; seed++) {
			size_t expected_bytes, bytes;
			enum godwit_xbzrle got;
			uint8_t *in;

			test_make_pair(kind, seed, was, now);
			got = ref->xbzrle_encode(was, now, NULL, expected, 2 * PAGE, &expected_bytes);
			cr_assert_neq(got, GODWIT_XBZRLE_OVERFLOW);
			cr_assert_eq(got == GODWIT_XBZRLE_SAME, !memcmp(was, now, PAGE));
			in = test_guarded(expected_bytes);
			memcpy(in, expected, expected_bytes);
			memcpy(page, was, PAGE);
			cr_assert_geq(naive_decode(in, expected_bytes, page), 0);
			cr_assert(!memcmp(page, now, PAGE), "kind %u seed %u", kind, seed);

			for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
				memset(in, 0, expected_bytes);
				cr_assert_eq(v->xbzrle_encode(was, now, NULL, in, expected_bytes, &bytes), got,
					     "%s kind %u seed %u", v->name, kind, seed);
				cr_assert_eq(bytes, expected_bytes);
				cr_assert(!memcmp(in, expected, bytes), "%s kind %u seed %u", v->name,
					  kind, seed);
				memcpy(page, was, PAGE);
				cr_assert_eq(v->xbzrle_decode(in, bytes, page),
					     got == GODWIT_XBZRLE_DELTA);
				cr_assert(!memcmp(page, now, PAGE), "%s kind %u", v->name, kind);
				if (!expected_bytes)
					continue;
				cr_assert_eq(v->xbzrle_encode(was, now, NULL, in, expected_bytes - 1, &bytes),
					     GODWIT_XBZRLE_OVERFLOW);
				cr_assert_eq(v->xbzrle_encode(was, now, NULL, in, 0, &bytes),
					     GODWIT_XBZRLE_OVERFLOW);
				overflows += expected_bytes > PAGE;
				deltas += expected_bytes <= PAGE;
			}
			test_unguard(in, expected_bytes);
		}
	cr_assert(overflows && deltas, "the pairs must cover both");
}

Test(xbzrle, changed_lines_alone_make_a_delta)
{
	uint8_t *was = test_guarded(PAGE), *now = test_guarded(PAGE), *page = test_guarded(PAGE);
	uint8_t *out = test_guarded(2 * PAGE), *marked = test_guarded(PAGE);
	uint64_t rnd = 5;
	size_t bytes, again;

	test_make_pair(PAIR_ALL, 2, was, now);
	for (unsigned round = 0; round < 400; round++) {
		uint64_t map = test_random(&rnd);

		if (round < 64)
			map = 1ull << round;
		else if (round < 128)
			map = (map & test_random(&rnd) & test_random(&rnd)) | 1ull << (round - 64);
		else if (round == 128)
			map = ~0ull;
		/* what the map says, said with bytes */
		memcpy(marked, was, PAGE);
		for (unsigned line = 0; line < 64; line++)
			if (map >> line & 1)
				memcpy(marked + 64 * line, now + 64 * line, 64);
		cr_assert_eq(godwit_xbzrle_encode_lines(map, now, out, 2 * PAGE, &bytes),
			     GODWIT_XBZRLE_DELTA);
		memcpy(page, was, PAGE);
		cr_assert(godwit_xbzrle_decode(out, bytes, page));
		cr_assert(!memcmp(page, marked, PAGE));
		/* every byte of the lines differs, so the byte encoder says the same */
		cr_assert_eq(godwit_xbzrle_encode(was, marked, NULL, page, PAGE, &again),
			     bytes > PAGE ? GODWIT_XBZRLE_OVERFLOW : GODWIT_XBZRLE_DELTA);
		cr_assert(bytes > PAGE || (again == bytes && !memcmp(page, out, bytes)));
		cr_assert_eq(godwit_xbzrle_encode_lines(map, now, out, bytes - 1, &again),
			     GODWIT_XBZRLE_OVERFLOW);
	}
	cr_assert_eq(godwit_xbzrle_encode_lines(0, now, out, PAGE, &bytes), GODWIT_XBZRLE_SAME);
	cr_assert_eq(bytes, 0);
}

Test(xbzrle, malformed_input_is_refused)
{
	static const struct {
		const char *what;
		uint8_t in[8];
		size_t in_bytes;
	} bad[] = {
		{ "empty", { 0 }, 0 },
		{ "unchanged run alone", { 0x05 }, 1 },
		{ "half a long length", { 0x80 }, 1 },
		{ "no changed length", { 0x85, 0x01 }, 2 },
		{ "changed run of nothing", { 0x05, 0x00 }, 2 },
		{ "changed run of nothing, at length", { 0x05, 0x80, 0x00 }, 3 },
		{ "no bytes behind the length", { 0x05, 0x01 }, 2 },
		{ "too few bytes", { 0x05, 0x03, 1, 2 }, 4 },
		{ "length of three bytes", { 0x80, 0x80, 0x01, 0x01, 1 }, 5 },
		{ "changed length of three bytes", { 0x00, 0x80, 0x80, 0x01, 1 }, 5 },
		{ "unchanged run of nothing inside", { 0x00, 0x01, 1, 0x00, 0x01, 1 }, 6 },
		{ "past the page", { 0x80, 0x20, 0x01, 1 }, 4 },
		{ "past the page by one", { 0xff, 0x1f, 0x02, 1, 2 }, 5 },
		{ "far past the page", { 0xff, 0x7f, 0x01, 1 }, 4 },
		{ "trailing byte", { 0x00, 0x01, 1, 0x01 }, 4 },
		{ "trailing long length", { 0x00, 0x01, 1, 0x81, 0x00 }, 5 },
	};
	const struct godwit_delta_variant *v;
	uint8_t *page = test_guarded(PAGE);

	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
			uint8_t *in = test_guarded(bad[j].in_bytes);

			memcpy(in, bad[j].in, bad[j].in_bytes);
			cr_assert_not(v->xbzrle_decode(in, bad[j].in_bytes, page), "%s: %s", v->name,
				      bad[j].what);
		}
}

/* Lengths longer than need be are legal, as QEMU's reader takes them. */
Test(xbzrle, lengths_need_not_be_shortest)
{
	static const uint8_t in[] = { 0x80, 0x00, 0x81, 0x00, 0xaa, 0x82, 0x00, 0x01, 0xbb };
	const struct godwit_delta_variant *v;

	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		uint8_t page[PAGE] = { 0 };

		cr_assert(v->xbzrle_decode(in, sizeof(in), page));
		cr_assert(page[0] == 0xaa && page[3] == 0xbb);
	}
}

/* Damaged deltas: every variant decides as the naive reader does, and leaves the same page when it accepts. */
Test(xbzrle, damaged_input_is_judged_alike_by_all)
{
	const struct godwit_delta_variant *v;
	uint8_t *was = test_guarded(PAGE), *now = test_guarded(PAGE);
	uint8_t *page = test_guarded(PAGE), *naive_page = test_guarded(PAGE);
	uint8_t *room = test_guarded(PAGE), *out = test_guarded(PAGE);
	unsigned accepted = 0, refused = 0;
	uint64_t rnd = 11;

	for (unsigned round = 0; round < 20000; round++) {
		uint8_t *in;
		size_t bytes;
		int naive;

		test_make_pair(round % 2 ? PAIR_SPARSE : PAIR_ENDS, round, was, now);
		if (godwit_xbzrle_encode(was, now, NULL, out, PAGE, &bytes) != GODWIT_XBZRLE_DELTA)
			continue;
		out[test_random(&rnd) % bytes] = (uint8_t)(test_random(&rnd) >> (round % 8));
		if (round % 3 == 0)
			bytes = test_random(&rnd) % (bytes + 1);
		in = room + PAGE - bytes;
		memcpy(in, out, bytes);
		memcpy(naive_page, was, PAGE);
		naive = bytes ? naive_decode(in, bytes, naive_page) : -1;
		accepted += naive >= 0;
		refused += naive < 0;
		for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
			memcpy(page, was, PAGE);
			cr_assert_eq(v->xbzrle_decode(in, bytes, page), naive >= 0, "%s round %u",
				     v->name, round);
			cr_assert(naive < 0 || !memcmp(page, naive_page, PAGE));
		}
	}
	cr_assert(accepted > 500 && refused > 500, "%u %u", accepted, refused);
}
