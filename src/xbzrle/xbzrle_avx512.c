/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xbzrle_avx512.c - XBZRLE as bit arithmetic on a 4096-bit map of changed bytes
 *
 * Compare to a bit a byte; close gaps by spreading every bit two up and wearing the result two down;
 * what differs from its lower neighbour then is where a run starts or ends. Those bits become a list of
 * places, from which headers and bytes are written. There is no loop over bytes and no branch that
 * depends on one, only one that depends on runs.
 */
#include <immintrin.h>

#include "xbzrle/kernels.h"

static_assert(XBZRLE_MERGE_GAP == 2, "widen() and its undoing close gaps of two");

/* A run and the gap behind it take 1 + 3 bytes at least, so a line has 32 edges at most. */
#define MAX_EDGES (PAGE_BYTES / 2 + 1)

/* Element i - 1 of a row whose eight elements before these are prev; element i + 1 likewise. */
static inline __m512i lower(__m512i v, __m512i prev)
{
	return _mm512_alignr_epi64(v, prev, 7);
}

static inline __m512i upper(__m512i v, __m512i next)
{
	return _mm512_alignr_epi64(next, v, 1);
}

/* Bit i moved to i + n, to i - n, across elements. */
#define SPREAD_UP(v, prev, n)                                                                      \
	_mm512_or_si512(_mm512_slli_epi64(v, n), _mm512_srli_epi64(lower(v, prev), 64 - (n)))
#define SPREAD_DOWN(v, next, n)                                                                    \
	_mm512_or_si512(_mm512_srli_epi64(v, n), _mm512_slli_epi64(upper(v, next), 64 - (n)))

static inline __m512i widen(__m512i bits, __m512i before)
{
	return _mm512_ternarylogic_epi64(bits, SPREAD_UP(bits, before, 1), SPREAD_UP(bits, before, 2),
					 0xfe);
}

/* Changed bytes of 64 lines in, places of run edges out: starts at even indices, ends at odd ones. */
static unsigned edges(const uint64_t changed[PAGE_LINES + 8], uint16_t place[MAX_EDGES])
{
	const __m512i zero = _mm512_setzero_si512();
	alignas(64) uint64_t edge[PAGE_LINES + 8];
	__m512i bits = _mm512_loadu_si512(changed), closed_before = zero;
	__m512i wide = widen(bits, zero);
	uint64_t lines = 0;
	unsigned n = 0;

	for (unsigned g = 0; g <= PAGE_LINES; g += 8) {
		__m512i next = g < PAGE_LINES ? _mm512_loadu_si512(changed + g + 8) : zero;
		__m512i wide_next = widen(next, bits);
		__m512i closed = _mm512_ternarylogic_epi64(wide, SPREAD_DOWN(wide, wide_next, 1),
							   SPREAD_DOWN(wide, wide_next, 2), 0x80);
		__m512i e = _mm512_xor_si512(closed, SPREAD_UP(closed, closed_before, 1));

		_mm512_store_si512(edge + g, e);
		if (g < PAGE_LINES)
			lines |= (uint64_t)_mm512_test_epi64_mask(e, e) << g;
		closed_before = closed;
		bits = next;
		wide = wide_next;
	}
	for (; lines; lines &= lines - 1) {
		unsigned line = (unsigned)_tzcnt_u64(lines);

		for (uint64_t e = edge[line]; e; e &= e - 1)
			place[n++] = (uint16_t)(LINE_BYTES * line + _tzcnt_u64(e));
	}
	if (edge[PAGE_LINES])
		place[n++] = PAGE_BYTES;	/* the last run goes to the end of the page */
	return n;
}

/* Exact at both ends: masked accesses touch no byte outside. */
static inline void copy_run(uint8_t *to, const uint8_t *from, unsigned n)
{
	for (; n > 64; n -= 64, to += 64, from += 64)
		_mm512_storeu_si512(to, _mm512_loadu_si512(from));

	__mmask64 k = _bzhi_u64(~0ull, n);

	_mm512_mask_storeu_epi8(to, k, _mm512_maskz_loadu_epi8(k, from));
}

/* Two bytes of ULEB128, of which uleb_bytes(v) count. */
static inline uint16_t uleb(unsigned v)
{
	return (uint16_t)(v < 0x80 ? v : v + (v & 0x3f80) + 0x80);
}

static inline void store16(uint8_t *to, uint16_t v)
{
	memcpy(to, &v, sizeof(v));
}

enum godwit_xbzrle godwit_xbzrle_encode_avx512(const uint8_t *old_page, const uint8_t *new_page,
					       const struct godwit_ahead *ahead, uint8_t *out, size_t out_cap,
					       size_t *out_bytes_ret)
{
	alignas(64) uint64_t changed[PAGE_LINES + 8];
	uint16_t place[MAX_EDGES];
	const uint8_t *out_end = out + out_cap;
	const struct next next = next_of(ahead, new_page, old_page);
	unsigned from = 0, nr_edges;
	uint8_t *o = out;

#pragma GCC unroll 8
	for (unsigned at = 0; at < PAGE_BYTES; at += LINE_BYTES) {
		ask_near(next.guest, at);
		ask_near(next.kept, at);
		changed[at / LINE_BYTES] = _mm512_cmpneq_epi8_mask(_mm512_loadu_si512(old_page + at),
								   _mm512_loadu_si512(new_page + at));
	}
	_mm512_store_si512(changed + PAGE_LINES, _mm512_setzero_si512());
	nr_edges = edges(changed, place);
	for (unsigned i = 0; i < nr_edges; i += 2) {
		unsigned at = place[i], end = place[i + 1], n = end - at, skip = at - from;
		unsigned skip_bytes = uleb_bytes(skip), head_bytes = skip_bytes + uleb_bytes(n);

		if ((size_t)(out_end - o) < head_bytes + n) {
			o = NULL;
			break;
		}
		/* Two bytes each, overwritten by what follows if one was enough: n is at least 1. */
		store16(o, uleb(skip));
		store16(o + skip_bytes, uleb(n));
		copy_run(o + head_bytes, new_page + at, n);
		o += head_bytes + n;
		from = end;
	}
	return xbzrle_end(out, o, out_bytes_ret);
}

bool godwit_xbzrle_decode_avx512(const uint8_t *in, size_t in_bytes, uint8_t *page)
{
	unsigned at = 0, n;

	for (size_t i = 0; i < in_bytes; i += n, at += n) {
		if (!get_run(in, in_bytes, &i, &at, &n))
			return false;
		copy_run(page + at, in + i, n);
	}
	return in_bytes > 0;
}
