/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xbzrle_scalar.c - XBZRLE in portable C: the specification of the vector encoders
 *
 * Format from QEMU's docs (xbzrle.txt) and what its decoder takes. The encoder walks word by word where
 * pages agree and where they differ throughout, and byte by byte at the seams.
 */
#include "xbzrle/kernels.h"

static inline uint64_t differ(const uint8_t *a, const uint8_t *b, unsigned at)
{
	return load64(a + at) ^ load64(b + at);
}

static inline bool has_zero_byte(uint64_t v)
{
	return (v - 0x0101010101010101u) & ~v & 0x8080808080808080u;
}

/* First changed byte at or behind at; PAGE_BYTES if there is none. */
static unsigned skip_equal(const uint8_t *a, const uint8_t *b, unsigned at)
{
	for (; at % 8; at++)
		if (a[at] != b[at])
			return at;
	for (; at < PAGE_BYTES; at += 8) {
		uint64_t x = differ(a, b, at);

		if (x)
			return at + (unsigned)__builtin_ctzll(x) / 8;
	}
	return at;
}

/* End of the changed run whose first byte is at: gaps up to XBZRLE_MERGE_GAP are part of it. */
static unsigned run_end(const uint8_t *a, const uint8_t *b, unsigned at)
{
	unsigned end = at + 1;

	for (at = end; at < PAGE_BYTES && at - end <= XBZRLE_MERGE_GAP;) {
		if (at % 8 == 0 && !has_zero_byte(differ(a, b, at))) {
			at += 8;
			end = at;
			continue;
		}
		if (a[at] != b[at])
			end = at + 1;
		at++;
	}
	return end;
}

enum godwit_xbzrle godwit_xbzrle_encode_scalar(const uint8_t *old_page, const uint8_t *new_page,
					       const struct godwit_ahead *ahead, uint8_t *out, size_t out_cap,
					       size_t *out_bytes_ret)
{
	const struct next next = next_of(ahead, new_page, old_page);
	const uint8_t *out_end = out + out_cap;
	unsigned from = 0, at;
	uint8_t *o = out;

	godwit_prefetch_page((const void *)next.guest);
	godwit_prefetch_page((const void *)next.kept);
	while (o && (at = skip_equal(old_page, new_page, from)) < PAGE_BYTES) {
		unsigned end = run_end(old_page, new_page, at);

		o = put_run(o, out_end, at - from, new_page + at, end - at);
		from = end;
	}
	return xbzrle_end(out, o, out_bytes_ret);
}

enum godwit_xbzrle godwit_xbzrle_encode_lines(uint64_t map, const uint8_t *page, uint8_t *out,
					      size_t out_cap, size_t *out_bytes_ret)
{
	const uint8_t *out_end = out + out_cap;
	unsigned from = 0;	/* in lines */
	uint8_t *o = out;

	while (o && from < PAGE_LINES && map >> from) {
		unsigned at = from + (unsigned)__builtin_ctzll(map >> from);
		uint64_t kept = ~map >> at;
		unsigned end = kept ? at + (unsigned)__builtin_ctzll(kept) : PAGE_LINES;

		o = put_run(o, out_end, LINE_BYTES * (at - from), page + LINE_BYTES * at,
			    LINE_BYTES * (end - at));
		from = end;
	}
	return xbzrle_end(out, o, out_bytes_ret);
}

bool godwit_xbzrle_decode_scalar(const uint8_t *in, size_t in_bytes, uint8_t *page)
{
	unsigned at = 0, n;

	for (size_t i = 0; i < in_bytes; i += n, at += n) {
		if (!get_run(in, in_bytes, &i, &at, &n))
			return false;
		if (n < 8) {	/* most runs: a call would cost more than the bytes */
			for (unsigned b = 0; b < n; b++)
				page[at + b] = in[i + b];
		} else {
			memcpy(page + at, in + i, n);
		}
	}
	return in_bytes > 0;
}
