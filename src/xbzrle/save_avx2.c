/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * save_avx2.c - one pass over a live guest page with 32-byte registers and PCLMULQDQ
 *
 * Same two phases as save_avx512.c, for the same reason. There is no compress instruction: a table of
 * permutations packs the changed words of half a line, which is one register.
 */
#include <immintrin.h>

#include "xbzrle/kernels.h"
#include "xbzrle/page_digest.h"

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

/* Unreduced product of two words, each with its secret one added. */
static inline WITH_CLMUL __m128i multiply(__m128i m)
{
	return _mm_clmulepi64_si128(m, m, 0x10);
}

/* hi * x^64 + lo, four times, reduced as in save_avx512.c. */
static inline __m256i reduce_four(const __m128i sum[4])
{
	const __m256i carry = _mm256_broadcastsi128_si256(_mm_setr_epi8(
		0x00, 0x1b, 0x2d, 0x36, 0x5a, 0x41,
		0x77, 0x6c, (char)0xaf, (char)0xb4, (char)0x82,
		(char)0x99, (char)0xf5, (char)0xee, (char)0xd8, (char)0xc3));
	__m256i even = _mm256_inserti128_si256(_mm256_castsi128_si256(sum[0]), sum[2], 1);
	__m256i odd = _mm256_inserti128_si256(_mm256_castsi128_si256(sum[1]), sum[3], 1);
	__m256i lo = _mm256_unpacklo_epi64(even, odd), hi = _mm256_unpackhi_epi64(even, odd);
	__m256i low = _mm256_xor_si256(_mm256_xor_si256(lo, hi), _mm256_slli_epi64(hi, 1));
	__m256i high = _mm256_xor_si256(_mm256_slli_epi64(hi, 3), _mm256_slli_epi64(hi, 4));

	return _mm256_xor_si256(_mm256_xor_si256(low, high),
				_mm256_shuffle_epi8(carry, _mm256_srli_epi64(hi, 60)));
}

/* ---- the page's digest, see page_digest.h ---- */

struct digest {
	__m256i half[2];
};

static inline struct digest digest_begin(void)
{
	const __m256i *start = (const __m256i *)digest_start;

	return (struct digest){ { _mm256_load_si256(start), _mm256_load_si256(start + 1) } };
}

static inline void digest_add(struct digest *digest, unsigned half, __m256i m, const uint8_t *key)
{
	__m256i k = _mm256_xor_si256(m, _mm256_loadu_si256((const __m256i *)(key + 32 * half)));
	__m256i product = _mm256_mul_epu32(k, _mm256_srli_epi64(k, 32));
	__m256i swapped = _mm256_shuffle_epi32(m, 0x4e);

	digest->half[half] = _mm256_add_epi64(digest->half[half], _mm256_add_epi64(product, swapped));
}

static inline void digest_scramble(struct digest *digest)
{
	const __m256i prime = _mm256_set1_epi64x(XXH_PRIME32_1);

	for (unsigned half = 0; half < 2; half++) {
		const __m256i *key = (const __m256i *)(DIGEST_SCRAMBLE_KEY + 32 * half);
		__m256i v = digest->half[half];

		v = _mm256_xor_si256(_mm256_xor_si256(v, _mm256_srli_epi64(v, 47)),
				     _mm256_loadu_si256(key));
		digest->half[half] = _mm256_add_epi64(
			_mm256_mul_epu32(v, prime),
			_mm256_slli_epi64(_mm256_mul_epu32(_mm256_srli_epi64(v, 32), prime), 32));
	}
}

static inline uint64_t digest_of(const struct digest *digest)
{
	alignas(32) uint64_t sum[8];

	_mm256_store_si256((__m256i *)sum, digest->half[0]);
	_mm256_store_si256((__m256i *)sum + 1, digest->half[1]);
	return digest_end(sum);
}

/* As in save_avx512.c: loads as wide as the stores before them, which may not have left for memory yet. */
static inline void save_end(const uint8_t *page, struct godwit_save *ret)
{
	const __m256i *half = (const __m256i *)page;
	__m256i word = _mm256_set1_epi64x((long long)load64(page));
	__m256i differs = _mm256_or_si256(_mm256_xor_si256(word, _mm256_loadu_si256(half)),
					  _mm256_xor_si256(word, _mm256_loadu_si256(half + 1)));

	ret->word = load64(page);
	ret->is_fill = _mm256_testz_si256(differs, differs) && page_is_fill(page);
}

/* group_lines and is_known are constants wherever this is inlined. Groups are looked at by fours. */
static inline __attribute__((always_inline)) GODWIT_RACY WITH_CLMUL uint64_t
sign_page(const struct godwit_signer *signer, const unsigned group_lines, const bool is_known,
	  const uint8_t *guest, const uint64_t *old_sigs, uint64_t *new_sigs, uint8_t *copy, struct next next,
	  struct godwit_save *ret)
{
	const unsigned groups = PAGE_LINES / group_lines;
	const __m256i blank = _mm256_load_si256(
		(const __m256i *)signer->blank[blank_row(group_lines * LINE_BYTES)]);
	struct digest digest = digest_begin();
	uint64_t changed = 0;

	for (unsigned g = 0; g < groups; g += 4) {
		const uint8_t *secret = digest_secret();
		__m128i sum[4];
		__m256i sigs;

		if (g % 8 == 0)
			ask_near(next.kept, 8 * g);
#pragma GCC unroll 4
		for (unsigned i = 0; i < 4; i++) {
			sum[i] = _mm_setzero_si128();
#pragma GCC unroll 4
			for (unsigned j = 0; j < group_lines; j++) {
				unsigned nth = i * group_lines + j, line = g * group_lines + nth;
				const __m256i *key = (const __m256i *)(signer->word + nth % 4 * 8);

				ask_far(next.guest, LINE_BYTES * line);
#pragma GCC unroll 2
				for (unsigned half = 0; half < 2; half++) {
					unsigned at = LINE_BYTES * line + 32 * half;
					__m256i m = read_guest(guest + at), k;

					_mm256_storeu_si256((__m256i *)(copy + at), m);
					k = _mm256_xor_si256(m, _mm256_load_si256(key + half));
					sum[i] = _mm_xor_si128(sum[i], multiply(_mm256_castsi256_si128(k)));
					sum[i] = _mm_xor_si128(sum[i],
							       multiply(_mm256_extracti128_si256(k, 1)));
					if (is_known)
						digest_add(&digest, half, m, digest_key(secret, line));
				}
				if (is_known && nth % 4 == 3 && digest_scrambles(line))
					digest_scramble(&digest);
			}
		}
		sigs = _mm256_xor_si256(reduce_four(sum), blank);
		if (is_known) {
			__m256i same = _mm256_cmpeq_epi64(
				sigs, _mm256_loadu_si256((const __m256i *)(old_sigs + g)));

			changed |= (uint64_t)(~_mm256_movemask_pd(_mm256_castsi256_pd(same)) & 15) << g;
		}
		_mm256_storeu_si256((__m256i *)(new_sigs + g), sigs);
	}
	ret->digest = is_known ? digest_of(&digest) : 0;
	return changed;
}

GODWIT_RACY WITH_CLMUL
void godwit_save_lines_avx2(const struct godwit_signer *signer, unsigned granule_bytes,
			    const void *guest, const uint64_t *old_sigs, uint64_t *new_sigs,
			    uint8_t *copy, uint8_t *delta_out, const struct godwit_ahead *ahead,
			    struct godwit_save *ret)
{
	const struct next next = next_of(ahead, guest, new_sigs);

#define SIGN(lines)                                                                                        \
	(old_sigs ? sign_page(signer, lines, true, guest, old_sigs, new_sigs, copy, next, ret) :           \
		    sign_page(signer, lines, false, guest, NULL, new_sigs, copy, next, ret))
	uint64_t map = granule_bytes == 64 ? SIGN(1) :
		       granule_bytes == 128 ? _pdep_u64(SIGN(2), 0x5555555555555555u) * 3 :
					      _pdep_u64(SIGN(4), 0x1111111111111111u) * 15;
#undef SIGN

	ret->map = old_sigs ? map : ~0ull;
	ret->changed_words = 0;
	ret->delta_bytes = old_sigs ? put_lines(map, copy, delta_out) : 0;
	save_end(copy, ret);
}

static inline unsigned same_half(__m256i now, const uint8_t *base)
{
	__m256i same = _mm256_cmpeq_epi64(now, _mm256_loadu_si256((const __m256i *)base));

	return (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(same));
}

/* A bit for each of 64 bytes that is not 0. */
static inline uint64_t which_bytes(const uint8_t byte[64])
{
	const __m256i *half = (const __m256i *)byte, zero = _mm256_setzero_si256();
	unsigned lo = (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_load_si256(half), zero));
	unsigned hi = (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_load_si256(half + 1), zero));

	return ~((uint64_t)hi << 32 | lo);
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
	alignas(64) uint8_t masks[PAGE_LINES];
	struct digest digest = digest_begin();
	uint64_t map;

	for (unsigned g = 0; g < 8; g++) {
		const uint8_t *secret = digest_secret();
		uint64_t same = 0;

#pragma GCC unroll 8
		for (unsigned i = 0; i < 8; i++) {
			unsigned line = 8 * g + i, at = LINE_BYTES * line;
			__m256i lo = read_guest(in + at), hi = read_guest(in + at + 32);

			ask_near(next.guest, at);
			ask_near(next.kept, at);
			_mm256_store_si256((__m256i *)(page + at), lo);
			_mm256_store_si256((__m256i *)(page + at + 32), hi);
			digest_add(&digest, 0, lo, digest_key(secret, line));
			digest_add(&digest, 1, hi, digest_key(secret, line));
			same |= (uint64_t)same_half(lo, base_page + at) << 8 * i |
				(uint64_t)same_half(hi, base_page + at + 32) << (8 * i + 4);
		}
		if (digest_scrambles(8 * g + 7))
			digest_scramble(&digest);
		store64(masks + 8 * g, ~same);
	}
	map = which_bytes(masks);
	ret->map = map;
	ret->delta_bytes = 0;
	ret->changed_words = 0;
	if (map) {
		unsigned lines = popcount64(map);
		uint8_t *mask = delta_out + 8, *word = mask + lines;

		store64(delta_out, map);
		for (; map; map &= map - 1) {
			unsigned line = (unsigned)_tzcnt_u64(map), at = LINE_BYTES * line;
			__m256i lo = _mm256_load_si256((const __m256i *)(page + at));
			__m256i hi = _mm256_load_si256((const __m256i *)(page + at + 32));

			_mm256_storeu_si256((__m256i *)(base_page + at), lo);
			_mm256_storeu_si256((__m256i *)(base_page + at + 32), hi);
			word = put_half(word, lo, masks[line] & 15);
			word = put_half(word, hi, masks[line] >> 4);
			*mask++ = masks[line];
		}
		ret->delta_bytes = (uint32_t)(word - delta_out);
		ret->changed_words = (ret->delta_bytes - 8 - lines) / 8;
	}
	ret->digest = digest_of(&digest);
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
	ret->digest = 0;
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
