/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_save.c - the one pass over a guest page: copy, signatures and delta, every variant
 */
#include <criterion/criterion.h>
#include <xxhash.h>

#include "pages.h"

#define SEEDS 24

static const unsigned granules[] = { 64, 128, 256 };

/* The secret of all golden values: word i is the i-th output of splitmix64 from 0x676f64776974 ("godwit"). */
static void make_signer(struct godwit_signer *signer)
{
	uint64_t rnd = 0x676f64776974u, secret[32];

	for (unsigned i = 0; i < 32; i++)
		secret[i] = test_random(&rnd);
	godwit_signer_init(signer, secret);
}

/* Schoolbook, bit by bit: an independent word on what a signature is. */
static uint64_t slow_product(uint64_t a, uint64_t b)
{
	uint64_t product = 0;

	for (int bit = 63; bit >= 0; bit--) {
		product = product << 1 ^ (product >> 63) * 0x1b;
		product ^= (b >> bit & 1) * a;
	}
	return product;
}

static uint64_t slow_signature(const struct godwit_signer *signer, const uint8_t *page, unsigned at,
			       unsigned bytes)
{
	uint64_t sum = 0;

	for (unsigned i = at; i < at + bytes; i += 16) {
		const uint64_t *k = &signer->word[i / 8 % 32];
		uint64_t m[2];

		memcpy(m, page + i, 16);
		sum ^= slow_product(m[0] ^ k[0], m[1] ^ k[1]) ^ slow_product(k[0], k[1]);
	}
	return sum;
}

struct world {
	uint8_t *guest;			/* both guarded at the end */
	uint8_t *base;
	uint8_t *copy;
	uint8_t *delta;
	uint64_t *sigs;
	uint8_t was[PAGE], now[PAGE];
	struct godwit_signer signer;
};

static void make_world(struct world *w)
{
	w->guest = test_guarded(PAGE);
	w->base = test_guarded(PAGE);
	w->copy = test_guarded(PAGE);
	w->delta = test_guarded(GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK);
	w->sigs = (uint64_t *)test_guarded(512);
	make_signer(&w->signer);
}

static void set_pair(struct world *w, unsigned kind, unsigned seed)
{
	test_make_pair(kind, seed, w->was, w->now);
	memcpy(w->guest, w->now, PAGE);
}

Test(save, plain_copies_and_sees_fills)
{
	const struct godwit_delta_variant *v;
	struct world w;

	make_world(&w);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned kind = 0; kind < NR_PAIRS; kind++)
			for (unsigned seed = 0; seed < SEEDS; seed++) {
				struct godwit_save s;
				uint64_t word;

				set_pair(&w, kind, seed);
				memcpy(&word, w.now, 8);
				memset(w.copy, 0x5a, PAGE);
				memset(&s, 0x5a, sizeof(s));
				v->save_plain(w.guest, w.copy, NULL, &s);
				cr_assert(!memcmp(w.copy, w.now, PAGE), "%s kind %u", v->name, kind);
				cr_assert_eq(s.map, ~0ull);
				cr_assert_eq(s.word, word);
				cr_assert_eq(s.delta_bytes, 0);
				cr_assert_eq(s.changed_words, 0);
				cr_assert_eq(s.digest, 0);
				cr_assert_eq(s.is_fill, test_is_fill(w.now), "%s kind %u", v->name, kind);
			}
}

/* A page taken for one that holds this fill already would keep what it holds: a stale page. */
Test(save, a_page_with_a_single_other_bit_is_no_fill)
{
	static uint64_t memory[1 + GODWIT_DELTA_PAGE_BYTES / 8] __attribute__((aligned(4096)));
	const uint64_t fills[] = { 0, 0x0123456789abcdefull };

	for (unsigned f = 0; f < 2; f++) {
		uint64_t *page = memory + f;	/* of a host that aligns words and no more */

		for (unsigned i = 0; i < GODWIT_DELTA_PAGE_BYTES / 8; i++)
			page[i] = fills[f];
		cr_assert(godwit_page_is_fill(page, fills[f]));
		cr_assert_eq(godwit_page_is_zero(page), fills[f] == 0);
		for (unsigned bit = 0; bit < GODWIT_DELTA_PAGE_BYTES * 8; bit++) {
			page[bit / 64] ^= 1ull << bit % 64;
			cr_assert_not(godwit_page_is_fill(page, fills[f]), "bit %u", bit);
			page[bit / 64] ^= 1ull << bit % 64;
		}
	}
}

Test(save, words_delta_carries_exactly_the_changed_words)
{
	const struct godwit_delta_variant *v;
	struct world w;

	make_world(&w);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned kind = 0; kind < NR_PAIRS; kind++)
			for (unsigned seed = 0; seed < SEEDS; seed++) {
				uint8_t expected[GODWIT_DELTA_MAX_BYTES], masks[64] = { 0 };
				unsigned changed = 0, bytes = 8;
				struct godwit_save s;
				uint64_t map = 0;

				set_pair(&w, kind, seed);
				for (unsigned at = 0; at < PAGE; at += 8)
					if (memcmp(w.was + at, w.now + at, 8)) {
						map |= 1ull << at / 64;
						masks[at / 64] |= 1u << at / 8 % 8;
						changed++;
					}
				memcpy(expected, &map, 8);
				for (unsigned line = 0; line < 64; line++)
					if (masks[line])
						expected[bytes++] = masks[line];
				for (unsigned at = 0; at < PAGE; at += 8)
					if (masks[at / 64] >> at / 8 % 8 & 1) {
						memcpy(expected + bytes, w.now + at, 8);
						bytes += 8;
					}

				memcpy(w.base, w.was, PAGE);
				memset(&s, 0x5a, sizeof(s));
				v->save_words(w.guest, w.base, w.delta, NULL, &s);
				cr_assert_eq(s.map, map, "%s kind %u seed %u", v->name, kind, seed);
				cr_assert_eq(s.changed_words, changed);
				cr_assert_eq(s.delta_bytes, map ? bytes : 0);
				cr_assert(!memcmp(w.base, w.now, PAGE), "%s kind %u", v->name, kind);
				cr_assert(!map || !memcmp(w.delta, expected, bytes), "%s kind %u seed %u",
					  v->name, kind, seed);
				cr_assert_eq(s.is_fill, test_is_fill(w.now));
				cr_assert_eq(s.digest, XXH3_64bits(w.now, PAGE), "%s kind %u seed %u",
					     v->name, kind, seed);
				cr_assert(!memcmp(&s.word, w.now, 8));
			}
}

static void check_lines(struct world *w, const struct godwit_delta_variant *v, unsigned granule,
			bool same_row)
{
	unsigned groups = PAGE / granule, group_lines = granule / 64, bytes = 8;
	uint64_t old_sigs[64], *row = w->sigs + 64 - groups, map = 0;
	const uint64_t *old_row = same_row ? row : old_sigs;
	struct godwit_save s;

	for (unsigned g = 0; g < groups; g++) {
		old_sigs[g] = slow_signature(&w->signer, w->was, g * granule, granule);
		if (memcmp(w->was + g * granule, w->now + g * granule, granule))
			for (unsigned l = 0; l < group_lines; l++)
				map |= 1ull << (g * group_lines + l);
	}
	memset(w->sigs, 0x5a, 512);
	if (same_row)
		memcpy(row, old_sigs, 8 * groups);
	memset(w->copy, 0x5a, PAGE);
	memset(&s, 0x5a, sizeof(s));
	v->save_lines(&w->signer, granule, w->guest, old_row, row, w->copy, w->delta, NULL, &s);
	cr_assert_eq(s.map, map, "%s granule %u", v->name, granule);
	cr_assert(!memcmp(w->copy, w->now, PAGE));
	cr_assert_eq(s.is_fill, test_is_fill(w->now));
	cr_assert_eq(s.digest, XXH3_64bits(w->now, PAGE), "%s granule %u", v->name, granule);
	cr_assert(!memcmp(&s.word, w->now, 8));
	cr_assert_eq(s.changed_words, 0);
	for (unsigned g = 0; g < groups; g++)
		cr_assert_eq(row[g], slow_signature(&w->signer, w->now, g * granule, granule),
			     "%s granule %u group %u", v->name, granule, g);
	for (unsigned g = 0; g < 64 - groups; g++)
		cr_assert_eq(w->sigs[g], 0x5a5a5a5a5a5a5a5au, "wrote outside its row");
	cr_assert(!map || !memcmp(w->delta, &map, 8));
	for (unsigned l = 0; l < 64; l++)
		if (map >> l & 1) {
			cr_assert(!memcmp(w->delta + bytes, w->now + 64 * l, 64));
			bytes += 64;
		}
	cr_assert_eq(s.delta_bytes, map ? bytes : 0);
}

Test(save, lines_delta_carries_every_line_of_a_changed_group)
{
	const struct godwit_delta_variant *v;
	struct world w;

	make_world(&w);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned kind = 0; kind < NR_PAIRS; kind++)
			for (unsigned seed = 0; seed < 4; seed++) {
				set_pair(&w, kind, seed);
				for (unsigned g = 0; g < 3; g++)
					check_lines(&w, v, granules[g], seed & 1);
			}
}

Test(save, lines_without_old_signatures_signs_and_copies_only)
{
	const struct godwit_delta_variant *v;
	struct world w;

	make_world(&w);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned g = 0; g < 3; g++) {
			unsigned groups = PAGE / granules[g];
			uint64_t *row = w.sigs + 64 - groups;
			struct godwit_save s;

			set_pair(&w, PAIR_ALL, g);
			memset(&s, 0x5a, sizeof(s));
			v->save_lines(&w.signer, granules[g], w.guest, NULL, row, w.copy, NULL, NULL, &s);
			cr_assert_eq(s.map, ~0ull);
			cr_assert_eq(s.delta_bytes, 0);
			cr_assert_eq(s.digest, 0);
			cr_assert(!memcmp(w.copy, w.now, PAGE));
			for (unsigned j = 0; j < groups; j++)
				cr_assert_eq(row[j], slow_signature(&w.signer, w.now, j * granules[g],
								    granules[g]));
		}
}

/* Every bit of a line alone, so that every carry of the reduction is taken, and all of them at once. */
Test(save, signatures_are_right_for_every_single_bit)
{
	const struct godwit_delta_variant *v;
	struct world w;

	make_world(&w);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned bit = 0; bit <= 512; bit++) {
			struct godwit_save s;

			memset(w.guest, bit == 512 ? 0xff : 0, PAGE);
			for (unsigned line = 0; bit < 512 && line < 64; line++)
				w.guest[64 * line + bit / 8] = (uint8_t)(1u << bit % 8);
			v->save_lines(&w.signer, 64, w.guest, NULL, w.sigs, w.copy, NULL, NULL, &s);
			for (unsigned line = 0; line < 64; line++)
				cr_assert_eq(w.sigs[line],
					     slow_signature(&w.signer, w.guest, 64 * line, 64),
					     "%s bit %u line %u", v->name, bit, line);
		}
}

Test(save, a_zero_line_signs_as_zero_and_rows_coarsen_by_xor)
{
	const struct godwit_delta_variant *v;
	struct world w;

	make_world(&w);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		uint64_t fine[64], middle[32], coarse[16], row[64];
		struct godwit_save s;

		memset(w.guest, 0, PAGE);
		memset(fine, 0x5a, sizeof(fine));
		v->save_lines(&w.signer, 64, w.guest, NULL, fine, w.copy, NULL, NULL, &s);
		for (unsigned g = 0; g < 64; g++)
			cr_assert_eq(fine[g], 0);

		set_pair(&w, PAIR_SMALL_VALUES, 7);
		v->save_lines(&w.signer, 64, w.guest, NULL, fine, w.copy, NULL, NULL, &s);
		v->save_lines(&w.signer, 128, w.guest, NULL, middle, w.copy, NULL, NULL, &s);
		v->save_lines(&w.signer, 256, w.guest, NULL, coarse, w.copy, NULL, NULL, &s);
		godwit_signatures_coarsen(row, fine, 64);
		cr_assert(!memcmp(row, middle, sizeof(middle)));
		godwit_signatures_coarsen(fine, fine, 64);
		cr_assert(!memcmp(fine, middle, sizeof(middle)), "in place");
		godwit_signatures_coarsen(fine, fine, 32);
		cr_assert(!memcmp(fine, coarse, sizeof(coarse)), "in place");
	}
}

/* The format of a signature is private to a host, but a change of it must not go unseen. */
Test(save, signatures_of_a_known_page_are_what_they_were)
{
	static const uint64_t golden[4] = {
		0xd7de3a1fdc29e37d, 0x48c0c0d1c231cc85,
		0xdf22254ee2729cec, 0xd824bd8b9a007fcf,
	};
	const struct godwit_delta_variant *v;
	struct world w;

	make_world(&w);
	for (unsigned i = 0; i < PAGE; i++)
		w.guest[i] = (uint8_t)(i * 7 + i / 256);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		struct godwit_save s;
		uint64_t row[64];

		v->save_lines(&w.signer, 64, w.guest, NULL, row, w.copy, NULL, NULL, &s);
		cr_assert_eq(row[0], golden[0], "%s %#lx", v->name, row[0]);
		cr_assert_eq(row[1], golden[1], "%s %#lx", v->name, row[1]);
		cr_assert_eq(row[63], golden[2], "%s %#lx", v->name, row[63]);
		v->save_lines(&w.signer, 256, w.guest, NULL, row, w.copy, NULL, NULL, &s);
		cr_assert_eq(row[15], golden[3], "%s %#lx", v->name, row[15]);
	}
}

/* What is ahead is only asked for: it may be unmapped, half known, or this very page. */
Test(save, what_is_ahead_changes_nothing)
{
	const struct godwit_delta_variant *v;
	const struct godwit_ahead aheads[] = {
		{ NULL, NULL },
		{ (const void *)8, (const void *)-64 },
		{ test_guarded(0), NULL },
		{ NULL, test_guarded(0) },
	};
	struct world w;

	make_world(&w);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned a = 0; a < sizeof(aheads) / sizeof(aheads[0]); a++) {
			struct godwit_save s;
			uint64_t row[64];

			set_pair(&w, PAIR_DENSE, a);
			memcpy(w.base, w.was, PAGE);
			v->save_words(w.guest, w.base, w.delta, &aheads[a], &s);
			cr_assert(!memcmp(w.base, w.now, PAGE));
			memset(w.copy, 0, PAGE);
			v->save_plain(w.guest, w.copy, &aheads[a], &s);
			cr_assert(!memcmp(w.copy, w.now, PAGE));
			for (unsigned g = 0; g < 3; g++) {
				memset(w.copy, 0, PAGE);
				v->save_lines(&w.signer, granules[g], w.guest, NULL, row, w.copy, NULL,
					      &aheads[a], &s);
				cr_assert(!memcmp(w.copy, w.now, PAGE));
				cr_assert_eq(row[0], slow_signature(&w.signer, w.now, 0, granules[g]));
			}
		}
}

Test(save, calls_go_through_the_chosen_variant)
{
	const struct godwit_ahead ahead = { NULL, NULL };
	struct world w;

	make_world(&w);
	for (unsigned with_ahead = 0; with_ahead < 2; with_ahead++) {
		uint64_t row[64], expected_row[64];
		struct godwit_save s, expected;

		set_pair(&w, PAIR_SPARSE, 3 + with_ahead);
		godwit_delta_chosen()->save_lines(&w.signer, 64, w.guest, NULL, expected_row, w.copy, NULL,
						  NULL, &expected);
		memset(w.copy, 0, PAGE);
		if (with_ahead)
			godwit_save_lines_ahead(&w.signer, 64, w.guest, expected_row, row, w.copy, w.delta,
						&ahead, &s);
		else
			godwit_save_lines(&w.signer, 64, w.guest, expected_row, row, w.copy, w.delta, &s);
		cr_assert_eq(s.map, 0);
		cr_assert(!memcmp(row, expected_row, sizeof(row)));
		cr_assert(!memcmp(w.copy, w.now, PAGE));
		memset(w.copy, 0, PAGE);
		if (with_ahead)
			godwit_save_plain_ahead(w.guest, w.copy, &ahead, &s);
		else
			godwit_save_plain(w.guest, w.copy, &s);
		cr_assert(!memcmp(w.copy, w.now, PAGE));
		memcpy(w.base, w.was, PAGE);
		if (with_ahead)
			godwit_save_words_ahead(w.guest, w.base, w.delta, &ahead, &s);
		else
			godwit_save_words(w.guest, w.base, w.delta, &s);
		cr_assert(!memcmp(w.base, w.now, PAGE));
		cr_assert_eq(godwit_words_check(w.delta, s.delta_bytes), s.delta_bytes);
	}
}

/* (x^63 + 1) * (x + 1), of which x^64 wraps. */
Test(save, what_zero_lines_sum_to_wraps_by_the_field_polynomial)
{
	struct godwit_signer signer;
	uint64_t secret[32] = { 0x8000000000000001u, 3, [10] = 5, [11] = 2, [24] = 1, [25] = 1 };

	godwit_signer_init(&signer, secret);
	cr_assert(!memcmp(signer.word, secret, sizeof(secret)));
	for (unsigned i = 0; i < 8; i += 4) {
		cr_assert_eq(signer.blank[0][i], 0x8000000000000018u);
		cr_assert_eq(signer.blank[0][i + 1], 10);
		cr_assert_eq(signer.blank[0][i + 2], 0);
		cr_assert_eq(signer.blank[0][i + 3], 1);
		cr_assert_eq(signer.blank[1][i], 0x8000000000000012u);
		cr_assert_eq(signer.blank[1][i + 1], 1);
		cr_assert_eq(signer.blank[2][i + 1], 0x8000000000000013u);
	}
}

Test(save, best_variant_comes_first_and_scalar_last)
{
	const struct godwit_delta_variant *v, *last = NULL;
	unsigned i;

	cr_assert_eq(godwit_delta_chosen(), godwit_delta_variant(0));
	for (i = 0; (v = godwit_delta_variant(i)); i++) {
		cr_assert(!last || v->cpu < last->cpu);
		last = v;
	}
	cr_assert_str_eq(last->name, "scalar");
	cr_assert_eq(last->cpu, 0);
	cr_assert_null(godwit_delta_variant(i + 1));
}
