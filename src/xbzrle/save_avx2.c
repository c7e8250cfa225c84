/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * save_avx2.c - one pass over a live guest page with 32-byte registers and PCLMULQDQ
 *
 * Same two phases as save_avx512.c, for the same reason. There is no compress instruction: a table of
 * permutations packs the changed words of half a line, which is one register.
 */
#include <immintrin.h>

#include "xbzrle/kernels.h"

#define WITH_CLMUL __attribute__((target("pclmul")))

/* Entry k moves the words of mask k to the front (as pairs of 32-bit elements). */
static const alignas(32) uint32_t pack[16][8] = {
#define E(a, b, c, d) { 2 * a, 2 * a + 1, 2 * b, 2 * b + 1, 2 * c, 2 * c + 1, 2 * d, 2 * d + 1 }
	E(0, 0, 0, 0), E(0, 0, 0, 0), E(1, 0, 0, 0), E(0, 1, 0, 0),
	E(2, 0, 0, 0), E(0, 2, 0, 0), E(1, 2, 0, 0), E(0, 1, 2, 0),
	E(3, 0, 0, 0), E(0, 3, 0, 0), E(1, 3, 0, 0), E(0, 1, 3, 0),
	E(2, 3, 0, 0), E(0, 2, 3, 0), E(1, 2, 3, 0), E(0, 1, 2, 3),
};

/* Entry k moves leading words to the places of mask k. */
static const alignas(32) uint32_t spread[16][8] = {
	E(0, 0, 0, 0), E(0, 0, 0, 0), E(0, 0, 0, 0), E(0, 1, 0, 0),
	E(0, 0, 0, 0), E(0, 0, 1, 0), E(0, 0, 1, 0), E(0, 1, 2, 0),
	E(0, 0, 0, 0), E(0, 0, 0, 1), E(0, 0, 0, 1), E(0, 1, 0, 2),
	E(0, 0, 0, 1), E(0, 0, 1, 2), E(0, 0, 1, 2), E(0, 1, 2, 3),
#undef E
};

/* All ones in the words of mask k. */
static inline __m256i word_mask(unsigned k)
{
	const __m256i bit = _mm256_setr_epi64x(1, 2, 4, 8);

	return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x((long long)k), bit), bit);
}

/* Opaque from here on: the compiler may not go back to guest memory for it. */
static inline GODWIT_RACY __m256i read_guest(const void *half_line)
{
	__m256i v = _mm256_loadu_si256(half_line);

	__asm__("" : "+x"(v));
	return v;
}

/* Unreduced product of two words by two secret ones, added up. */
static inline WITH_CLMUL __m128i multiply(__m128i m, const uint64_t *key)
{
	__m128i k = _mm_load_si128((const __m128i *)key);

	return _mm_xor_si128(_mm_clmulepi64_si128(m, k, 0x00), _mm_clmulepi64_si128(m, k, 0x11));
}

static inline WITH_CLMUL uint64_t reduce(__m128i sum)
{
	const __m128i tail = _mm_cvtsi64_si128(GF64_TAIL);
	__m128i once = _mm_clmulepi64_si128(sum, tail, 0x01);
	__m128i twice = _mm_clmulepi64_si128(once, tail, 0x01);

	return (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(_mm_xor_si128(sum, once), twice));
}

static inline void save_end(const uint8_t *page, struct godwit_save *ret)
{
	ret->word = load64(page);
	ret->is_fill = load64(page + 8) == ret->word && page_is_fill(page);
}

GODWIT_RACY WITH_CLMUL
void godwit_save_lines_avx2(const struct godwit_signer *signer, unsigned granule_bytes,
			    const void *guest, const uint64_t *old_sigs, uint64_t *new_sigs,
			    uint8_t *copy, uint8_t *delta_out, const struct godwit_ahead *ahead,
			    struct godwit_save *ret)
{
	const unsigned group_lines = granule_bytes / LINE_BYTES;
	const struct next next = next_of(ahead, guest, new_sigs);
	const uint8_t *in = guest;
	uint64_t changed = 0;

	for (unsigned line = 0, group = 0; line < PAGE_LINES; group++) {
		__m128i sum = _mm_setzero_si128();
		uint64_t sig;

		if (group % 8 == 0)
			ask_near(next.kept, 8 * group);
		for (unsigned end = line + group_lines; line < end; line++) {
			const uint64_t *key = signer->word + line % 4 * 8;

			ask_far(next.guest, LINE_BYTES * line);
#pragma GCC unroll 2
			for (unsigned half = 0; half < 2; half++) {
				unsigned at = LINE_BYTES * line + 32 * half;
				__m256i m = read_guest(in + at);

				_mm256_storeu_si256((__m256i *)(copy + at), m);
				sum = _mm_xor_si128(sum, multiply(_mm256_castsi256_si128(m),
								  key + 4 * half));
				sum = _mm_xor_si128(sum, multiply(_mm256_extracti128_si256(m, 1),
								  key + 4 * half + 2));
			}
		}
		sig = reduce(sum);
		if (old_sigs)
			changed |= (uint64_t)(old_sigs[group] != sig) << group;
		new_sigs[group] = sig;
	}
	if (group_lines == 2)
		changed = _pdep_u64(changed, 0x5555555555555555u) * 3;
	else if (group_lines == 4)
		changed = _pdep_u64(changed, 0x1111111111111111u) * 15;
	ret->map = old_sigs ? changed : ~0ull;
	ret->changed_words = 0;
	ret->delta_bytes = old_sigs ? put_lines(changed, copy, delta_out) : 0;
	save_end(copy, ret);
}

static inline unsigned changed_half(__m256i now, const uint8_t *base)
{
	__m256i same = _mm256_cmpeq_epi64(now, _mm256_loadu_si256((const __m256i *)base));

	return ~(unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(same)) & 15;
}

static inline uint8_t *put_half(uint8_t *word, __m256i now, unsigned k)
{
	__m256i order = _mm256_load_si256((const __m256i *)pack[k]);

	_mm256_storeu_si256((__m256i *)word, _mm256_permutevar8x32_epi32(now, order));
	return word + 8 * (unsigned)_mm_popcnt_u32(k);
}

GODWIT_RACY
void godwit_save_words_avx2(const void *guest, uint8_t *base_page, uint8_t *delta_out,
			    const struct godwit_ahead *ahead, struct godwit_save *ret)
{
	const struct next next = next_of(ahead, guest, base_page);
	const uint8_t *in = guest;
	alignas(64) uint8_t page[PAGE_BYTES];
	uint8_t masks[PAGE_LINES];
	unsigned lines = 0;
	uint64_t map = 0;

	for (unsigned line = 0; line < PAGE_LINES; line++) {
		unsigned at = LINE_BYTES * line, mask;
		__m256i lo = read_guest(in + at), hi = read_guest(in + at + 32);

		ask_near(next.guest, at);
		ask_near(next.kept, at);
		_mm256_store_si256((__m256i *)(page + at), lo);
		_mm256_store_si256((__m256i *)(page + at + 32), hi);
		mask = changed_half(lo, base_page + at) | changed_half(hi, base_page + at + 32) << 4;
		masks[lines] = (uint8_t)mask;
		lines += mask != 0;
		map |= (uint64_t)(mask != 0) << line;
	}
	ret->map = map;
	ret->delta_bytes = 0;
	ret->changed_words = 0;
	if (map) {
		uint8_t *word = delta_out + 8 + lines;
		const uint8_t *mask = masks;

		store64(delta_out, map);
		memcpy(delta_out + 8, masks, lines);
		for (; map; map &= map - 1, mask++) {
			unsigned at = LINE_BYTES * (unsigned)_tzcnt_u64(map);
			__m256i lo = _mm256_load_si256((const __m256i *)(page + at));
			__m256i hi = _mm256_load_si256((const __m256i *)(page + at + 32));

			_mm256_storeu_si256((__m256i *)(base_page + at), lo);
			_mm256_storeu_si256((__m256i *)(base_page + at + 32), hi);
			word = put_half(word, lo, *mask & 15);
			word = put_half(word, hi, *mask >> 4);
		}
		ret->delta_bytes = (uint32_t)(word - delta_out);
		ret->changed_words = (ret->delta_bytes - 8 - lines) / 8;
	}
	save_end(page, ret);
}

GODWIT_RACY
void godwit_save_plain_avx2(const void *guest, uint8_t *copy, const struct godwit_ahead *ahead,
			    struct godwit_save *ret)
{
	const struct next next = next_of(ahead, guest, NULL);
	const uint8_t *in = guest;

#pragma GCC unroll 4
	for (unsigned at = 0; at < PAGE_BYTES; at += LINE_BYTES) {
		ask_far(next.guest, at);
		_mm256_storeu_si256((__m256i *)(copy + at), read_guest(in + at));
		_mm256_storeu_si256((__m256i *)(copy + at + 32), read_guest(in + at + 32));
	}
	ret->map = ~0ull;
	ret->delta_bytes = 0;
	ret->changed_words = 0;
	save_end(copy, ret);
}

/* Masked loads and stores: nothing past the last word is read, nothing but changed words is written. */
static inline const uint8_t *take_half(const uint8_t *word, uint8_t *half_line, unsigned k)
{
	unsigned n = (unsigned)_mm_popcnt_u32(k);
	__m256i words = _mm256_maskload_epi64((const long long *)word, word_mask((1u << n) - 1));

	words = _mm256_permutevar8x32_epi32(words, _mm256_load_si256((const __m256i *)spread[k]));
	_mm256_maskstore_epi64((long long *)half_line, word_mask(k), words);
	return word + 8 * n;
}

void godwit_words_apply_avx2(const uint8_t *in, uint8_t *page)
{
	uint64_t map = load64(in);
	const uint8_t *mask = in + 8, *word = mask + popcount64(map);

	for (; map; map &= map - 1, mask++) {
		uint8_t *line = page + LINE_BYTES * _tzcnt_u64(map);

		word = take_half(word, line, *mask & 15);
		word = take_half(word, line + 32, *mask >> 4);
	}
}
