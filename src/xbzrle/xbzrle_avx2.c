/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xbzrle_avx2.c - XBZRLE from a map of changed bytes, 64 bytes at a time
 *
 * As xbzrle_avx512.c, with the bit arithmetic in general registers and the edges taken off one by one.
 */
#include <immintrin.h>

#include "xbzrle/kernels.h"

static_assert(XBZRLE_MERGE_GAP == 2, "widen() and the wearing down close gaps of two");

#define MAX_EDGES (PAGE_BYTES / 2 + 1)

static inline uint64_t changed_bytes(const uint8_t *a, const uint8_t *b)
{
	const __m256i *x = (const __m256i *)a, *y = (const __m256i *)b;
	__m256i lo = _mm256_cmpeq_epi8(_mm256_loadu_si256(x), _mm256_loadu_si256(y));
	__m256i hi = _mm256_cmpeq_epi8(_mm256_loadu_si256(x + 1), _mm256_loadu_si256(y + 1));

	return ~((uint64_t)(uint32_t)_mm256_movemask_epi8(hi) << 32 |
		 (uint32_t)_mm256_movemask_epi8(lo));
}

static inline uint64_t widen(uint64_t bits, uint64_t before)
{
	return bits | (bits << 1 | before >> 63) | (bits << 2 | before >> 62);
}

static unsigned edges(const uint64_t changed[PAGE_LINES + 1], uint16_t place[MAX_EDGES])
{
	uint64_t wide = widen(changed[0], 0), closed_before = 0;
	unsigned n = 0;

	for (unsigned line = 0; line < PAGE_LINES; line++) {
		uint64_t next = widen(changed[line + 1], changed[line]);
		uint64_t closed = wide & (wide >> 1 | next << 63) & (wide >> 2 | next << 62);
		uint64_t edge = closed ^ (closed << 1 | closed_before >> 63);

		for (; edge; edge &= edge - 1)
			place[n++] = (uint16_t)(LINE_BYTES * line + _tzcnt_u64(edge));
		closed_before = closed;
		wide = next;
	}
	if (closed_before >> 63)
		place[n++] = PAGE_BYTES;
	return n;
}

enum godwit_xbzrle godwit_xbzrle_encode_avx2(const uint8_t *old_page, const uint8_t *new_page,
					     const struct godwit_ahead *ahead, uint8_t *out, size_t out_cap,
					     size_t *out_bytes_ret)
{
	uint64_t changed[PAGE_LINES + 1];
	uint16_t place[MAX_EDGES];
	const uint8_t *out_end = out + out_cap;
	const struct next next = next_of(ahead, new_page, old_page);
	unsigned from = 0, nr_edges;
	uint8_t *o = out;

	for (unsigned at = 0; at < PAGE_BYTES; at += LINE_BYTES) {
		ask_near(next.guest, at);
		ask_near(next.kept, at);
		changed[at / LINE_BYTES] = changed_bytes(old_page + at, new_page + at);
	}
	changed[PAGE_LINES] = 0;
	nr_edges = edges(changed, place);
	for (unsigned i = 0; o && i < nr_edges; i += 2) {
		unsigned at = place[i], end = place[i + 1], n = end - at, skip = at - from;

		if (n <= 32 && at + 32 <= PAGE_BYTES && out_end - o >= 4 + 32) {
			o = put_uleb(o, skip);
			*o++ = (uint8_t)n;
			_mm256_storeu_si256((__m256i *)o,
					    _mm256_loadu_si256((const __m256i *)(new_page + at)));
			o += n;
		} else {
			o = put_run(o, out_end, skip, new_page + at, n);
		}
		from = end;
	}
	return xbzrle_end(out, o, out_bytes_ret);
}

/* Two overlapping moves of a size that fits: short runs without a call, and no byte outside. */
static inline void copy_run(uint8_t *to, const uint8_t *from, unsigned n)
{
	if (n >= 32) {
		memcpy(to, from, n);
	} else if (n >= 16) {
		__m128i head = _mm_loadu_si128((const __m128i *)from);
		__m128i tail = _mm_loadu_si128((const __m128i *)(from + n - 16));

		_mm_storeu_si128((__m128i *)to, head);
		_mm_storeu_si128((__m128i *)(to + n - 16), tail);
	} else if (n >= 8) {
		uint64_t head = load64(from), tail = load64(from + n - 8);

		store64(to, head);
		store64(to + n - 8, tail);
	} else {
		for (unsigned b = 0; b < n; b++)
			to[b] = from[b];
	}
}

bool godwit_xbzrle_decode_avx2(const uint8_t *in, size_t in_bytes, uint8_t *page)
{
	unsigned at = 0, n;

	for (size_t i = 0; i < in_bytes; i += n, at += n) {
		if (!get_run(in, in_bytes, &i, &at, &n))
			return false;
		copy_run(page + at, in + i, n);
	}
	return in_bytes > 0;
}
