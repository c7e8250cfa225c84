/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * save_avx512.c - one pass over a live guest page: a register per line
 *
 * Two phases. The first reads each guest line into a register once and from there stores, signs and
 * compares it, without a branch, so that it runs at the speed the page arrives from memory. The second
 * visits changed lines only, in our own copy, which is in the first-level cache by then. In one phase
 * the mispredicted branches of the second would stall the loads of the first.
 *
 * Signatures: the products of a line are one carry-less multiplication of a register by itself, whose four
 * 128-bit lanes add up to one unreduced sum. Lanes of eight lines are added, transposed and reduced
 * together, so that eight signatures cost 8 multiplications and about 40 light instructions. Processors
 * came to multiply four lanes later than to AVX-512, so that signing has a set of its own to ask for.
 */
#include <immintrin.h>

#include "xbzrle/kernels.h"
#include "xbzrle/page_digest.h"

#define SIGNS __attribute__((target("vpclmulqdq")))

/*
 * The value is opaque from here on: the compiler may not go back to memory for it, as it otherwise may
 * when it runs short of registers.
 */
static inline GODWIT_RACY __m512i read_guest(const void *line)
{
	__m512i v = _mm512_loadu_si512(line);

	__asm__("" : "+v"(v));
	return v;
}

static inline __m512i xor3(__m512i a, __m512i b, __m512i c)
{
	return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

/* Four lanes whose sum is the unreduced sum of products. */
SIGNS static inline __m512i multiply(__m512i m, __m512i key)
{
	__m512i k = _mm512_xor_si512(m, key);

	return _mm512_clmulepi64_epi128(k, k, 0x10);
}

/* Lanes of a, b, c, d added up: one 128-bit sum each, in the order a c b d. */
static inline __m512i add_lanes(__m512i a, __m512i b, __m512i c, __m512i d)
{
	__m512i ab = _mm512_xor_si512(_mm512_mask_blend_epi64(0xf0, a, b),
				      _mm512_shuffle_i64x2(a, b, 0x4e));
	__m512i cd = _mm512_xor_si512(_mm512_mask_blend_epi64(0xf0, c, d),
				      _mm512_shuffle_i64x2(c, d, 0x4e));
	__m512i swap = _mm512_mask_blend_epi64(0xcc, cd, ab);

	return _mm512_xor_si512(_mm512_mask_blend_epi64(0xcc, ab, cd),
				_mm512_shuffle_i64x2(swap, swap, 0xb1));
}

/*
 * hi * x^64 + lo, reduced: hi * (x^4 + x^3 + x + 1). Of that product hi << 1, << 3 and << 4 leave at the
 * top; what they carry out, times the tail again, depends on the top four bits of hi alone.
 */
static inline __m512i reduce(__m512i lo, __m512i hi)
{
	/* Entry p is (p ^ p >> 1 ^ p >> 3) times GF64_TAIL; entry 0 serves the seven empty bytes too. */
	const __m512i carry = _mm512_broadcast_i32x4(_mm_setr_epi8(
		0x00, 0x1b, 0x2d, 0x36, 0x5a, 0x41,
		0x77, 0x6c, (char)0xaf, (char)0xb4, (char)0x82,
		(char)0x99, (char)0xf5, (char)0xee, (char)0xd8, (char)0xc3));
	__m512i sum = xor3(lo, hi, _mm512_slli_epi64(hi, 1));

	sum = xor3(sum, _mm512_slli_epi64(hi, 3), _mm512_slli_epi64(hi, 4));
	return _mm512_xor_si512(sum, _mm512_shuffle_epi8(carry, _mm512_srli_epi64(hi, 60)));
}

static inline __m512i sign_eight(const __m512i sum[8])
{
	const __m512i lo_at = _mm512_setr_epi64(0, 4, 2, 6, 8, 12, 10, 14);
	const __m512i hi_at = _mm512_setr_epi64(1, 5, 3, 7, 9, 13, 11, 15);
	__m512i p = add_lanes(sum[0], sum[1], sum[2], sum[3]);
	__m512i q = add_lanes(sum[4], sum[5], sum[6], sum[7]);

	return reduce(_mm512_permutex2var_epi64(p, lo_at, q),
		      _mm512_permutex2var_epi64(p, hi_at, q));
}

/* ---- the page's digest, see page_digest.h ---- */

static inline __m512i digest_add(__m512i digest, __m512i m, const uint8_t *key)
{
	__m512i k = _mm512_xor_si512(m, _mm512_loadu_si512(key));
	__m512i product = _mm512_mul_epu32(k, _mm512_srli_epi64(k, 32));
	__m512i swapped = _mm512_shuffle_epi32(m, (_MM_PERM_ENUM)0x4e);

	return _mm512_add_epi64(digest, _mm512_add_epi64(product, swapped));
}

static inline __m512i digest_scramble(__m512i digest)
{
	const __m512i prime = _mm512_set1_epi64(XXH_PRIME32_1);
	__m512i v = xor3(digest, _mm512_srli_epi64(digest, 47), _mm512_loadu_si512(DIGEST_SCRAMBLE_KEY));

	return _mm512_add_epi64(_mm512_mul_epu32(v, prime),
				_mm512_slli_epi64(_mm512_mul_epu32(_mm512_srli_epi64(v, 32), prime), 32));
}

static inline uint64_t digest_of(__m512i digest)
{
	alignas(64) uint64_t sum[8];

	_mm512_store_si512(sum, digest);
	return digest_end(sum);
}

/* ---- */

static inline uint32_t put_lines_512(uint64_t map, const uint8_t *page, uint8_t *out)
{
	uint8_t *o = out + 8;

	if (!map)
		return 0;
	store64(out, map);
	for (; map; map &= map - 1, o += LINE_BYTES)
		_mm512_storeu_si512(o, _mm512_loadu_si512(page + LINE_BYTES * _tzcnt_u64(map)));
	return (uint32_t)(o - out);
}

/* page holds still, and is in the first-level cache: few pages pass the first line. */
static inline void save_end(const uint8_t *page, struct godwit_save *ret)
{
	__m512i word = _mm512_set1_epi64((long long)load64(page));

	ret->word = load64(page);
	ret->is_fill = !_mm512_cmpneq_epi64_mask(word, _mm512_loadu_si512(page)) &&
		       page_is_fill(page);
}

/* group_lines and is_known are constants wherever this is inlined. */
SIGNS static inline __attribute__((always_inline)) GODWIT_RACY uint64_t
sign_page(const struct godwit_signer *signer, const unsigned group_lines, const bool is_known,
	  const uint8_t *guest, const uint64_t *old_sigs, uint64_t *new_sigs, uint8_t *copy, struct next next,
	  struct godwit_save *ret)
{
	const unsigned groups = PAGE_LINES / group_lines;
	const __m512i blank = _mm512_load_si512(signer->blank[blank_row(group_lines * LINE_BYTES)]);
	__m512i digest = _mm512_load_si512(digest_start);
	uint64_t changed = 0;
	__m512i key[4];

	for (unsigned i = 0; i < 4; i++)
		key[i] = _mm512_load_si512(signer->word + 8 * i);
	for (unsigned g = 0; g < groups; g += 8) {
		const uint8_t *secret = digest_secret();
		__m512i sum[8], sigs;

		ask_near(next.kept, 8 * g);
#pragma GCC unroll 8
		for (unsigned i = 0; i < 8; i++) {
			sum[i] = _mm512_setzero_si512();
#pragma GCC unroll 4
			for (unsigned j = 0; j < group_lines; j++) {
				unsigned nth = i * group_lines + j, line = g * group_lines + nth;
				__m512i m = read_guest(guest + LINE_BYTES * line);

				ask_far(next.guest, LINE_BYTES * line);
				_mm512_storeu_si512(copy + LINE_BYTES * line, m);
				sum[i] = _mm512_xor_si512(sum[i], multiply(m, key[nth % 4]));
				if (is_known)
					digest = digest_add(digest, m, digest_key(secret, line));
				if (is_known && nth % 8 == 7 && digest_scrambles(line))
					digest = digest_scramble(digest);
			}
		}
		sigs = _mm512_xor_si512(sign_eight(sum), blank);
		if (is_known)
			changed |= (uint64_t)_mm512_cmpneq_epi64_mask(
					   sigs, _mm512_loadu_si512(old_sigs + g)) << g;
		_mm512_storeu_si512(new_sigs + g, sigs);
	}
	ret->digest = is_known ? digest_of(digest) : 0;
	return changed;
}

SIGNS GODWIT_RACY
void godwit_save_lines_avx512(const struct godwit_signer *signer, unsigned granule_bytes,
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
	ret->delta_bytes = old_sigs ? put_lines_512(map, copy, delta_out) : 0;
	save_end(copy, ret);
}

GODWIT_RACY
void godwit_save_words_avx512(const void *guest, uint8_t *base_page, uint8_t *delta_out,
			      const struct godwit_ahead *ahead, struct godwit_save *ret)
{
	const struct next next = next_of(ahead, guest, base_page);
	const uint8_t *in = guest;
	alignas(64) uint8_t page[PAGE_BYTES];
	alignas(64) uint8_t masks[PAGE_LINES];
	__m512i all_masks = _mm512_setzero_si512();
	__m512i digest = _mm512_load_si512(digest_start);
	uint64_t map;

	for (unsigned g = 0; g < 8; g++) {
		const uint8_t *secret = digest_secret();
		__mmask8 k[8];
		uint64_t eight;

#pragma GCC unroll 8
		for (unsigned i = 0; i < 8; i++) {
			unsigned at = LINE_BYTES * (8 * g + i);
			__m512i now = read_guest(in + at);

			ask_near(next.guest, at);
			ask_near(next.kept, at);
			_mm512_store_si512(page + at, now);
			digest = digest_add(digest, now, digest_key(secret, 8 * g + i));
			k[i] = _mm512_cmpneq_epi64_mask(now, _mm512_loadu_si512(base_page + at));
		}
		if (digest_scrambles(8 * g + 7))
			digest = digest_scramble(digest);
		eight = _mm512_kunpackd(_mm512_kunpackw(_mm512_kunpackb(k[7], k[6]),
							_mm512_kunpackb(k[5], k[4])),
					_mm512_kunpackw(_mm512_kunpackb(k[3], k[2]),
							_mm512_kunpackb(k[1], k[0])));
		all_masks = _mm512_mask_set1_epi64(all_masks, (__mmask8)(1u << g), (long long)eight);
	}
	map = _mm512_test_epi8_mask(all_masks, all_masks);
	ret->map = map;
	ret->delta_bytes = 0;
	ret->changed_words = 0;
	if (map) {
		unsigned lines = popcount64(map);
		uint8_t *mask = delta_out + 8, *word = mask + lines;

		_mm512_store_si512(masks, all_masks);
		store64(delta_out, map);
		for (; map; map &= map - 1) {
			unsigned line = (unsigned)_tzcnt_u64(map);
			__m512i now = _mm512_load_si512(page + LINE_BYTES * line);

			_mm512_storeu_si512(base_page + LINE_BYTES * line, now);
			_mm512_storeu_si512(word, _mm512_maskz_compress_epi64(masks[line], now));
			*mask++ = masks[line];
			word += 8 * popcount64(masks[line]);
		}
		ret->delta_bytes = (uint32_t)(word - delta_out);
		ret->changed_words = (ret->delta_bytes - 8 - lines) / 8;
	}
	ret->digest = digest_of(digest);
	save_end(page, ret);
}

GODWIT_RACY
void godwit_save_plain_avx512(const void *guest, uint8_t *copy, const struct godwit_ahead *ahead,
			      struct godwit_save *ret)
{
	const struct next next = next_of(ahead, guest, NULL);
	const uint8_t *in = guest;

#pragma GCC unroll 8
	for (unsigned at = 0; at < PAGE_BYTES; at += LINE_BYTES) {
		ask_far(next.guest, at);
		_mm512_storeu_si512(copy + at, read_guest(in + at));
	}
	ret->map = ~0ull;
	ret->delta_bytes = 0;
	ret->changed_words = 0;
	ret->digest = 0;
	save_end(copy, ret);
}

/* Expanding loads touch no byte past the last word they take, so a delta may end at an unmapped page. */
void godwit_words_apply_avx512(const uint8_t *in, uint8_t *page)
{
	uint64_t map = load64(in);
	const uint8_t *mask = in + 8, *word = mask + popcount64(map);

	for (; map; map &= map - 1) {
		uint8_t *line = page + LINE_BYTES * _tzcnt_u64(map);
		__mmask8 k = *mask++;

		_mm512_storeu_si512(line, _mm512_mask_expandloadu_epi64(_mm512_loadu_si512(line), k,
									word));
		word += 8 * popcount64(k);
	}
}
