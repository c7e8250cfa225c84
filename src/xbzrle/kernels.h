/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * kernels.h - what the variants of this folder share: their names, a few one-liners, the run writer
 */
#ifndef GODWIT_XBZRLE_KERNELS_H
#define GODWIT_XBZRLE_KERNELS_H

#include <assert.h>
#include <string.h>

#include "xbzrle/xbzrle.h"

#define PAGE_BYTES GODWIT_DELTA_PAGE_BYTES
#define LINE_BYTES GODWIT_DELTA_LINE_BYTES
#define PAGE_LINES (PAGE_BYTES / LINE_BYTES)
#define PAGE_WORDS (PAGE_BYTES / 8)

/* x^64 is this, in the field of the signatures. */
#define GF64_TAIL 0x1bu

/* signer.c: sum of a line whose words are m, with the eight secret words of its place. */
uint64_t godwit_sum_line(const uint64_t word[8], const uint64_t m[8]);

/* The row of godwit_signer.blank for this granule. */
static inline unsigned blank_row(unsigned granule_bytes)
{
	return granule_bytes / 128;
}

/* Equal bytes between changed ones that are sent as changed; see xbzrle.h. */
#define XBZRLE_MERGE_GAP 2

/*
 * The save kernels read memory that vCPUs write. They mean to: whatever a read returns is the page from
 * then on. Scalar code says so with relaxed atomics; a vector load cannot, so ThreadSanitizer is told.
 */
#define GODWIT_RACY __attribute__((no_sanitize("thread")))

#define GODWIT_DELTA_KERNELS(isa)                                                                  \
	void godwit_words_apply_##isa(const uint8_t *in, uint8_t *page);                           \
	void godwit_save_lines_##isa(const struct godwit_signer *signer, unsigned granule_bytes,   \
				     const void *guest, const uint64_t *old_sigs,                  \
				     uint64_t *new_sigs, uint8_t *copy, uint8_t *delta_out,        \
				     const struct godwit_ahead *ahead,                             \
				     struct godwit_save *ret);                                     \
	void godwit_save_words_##isa(const void *guest, uint8_t *base_page, uint8_t *delta_out,    \
				     const struct godwit_ahead *ahead,                             \
				     struct godwit_save *ret);                                     \
	void godwit_save_plain_##isa(const void *guest, uint8_t *copy,                             \
				     const struct godwit_ahead *ahead,                             \
				     struct godwit_save *ret);                                     \
	enum godwit_xbzrle godwit_xbzrle_encode_##isa(const uint8_t *old_page,                     \
						      const uint8_t *new_page,                     \
						      const struct godwit_ahead *ahead,            \
						      uint8_t *out, size_t out_cap,                \
						      size_t *out_bytes_ret);                      \
	bool godwit_xbzrle_decode_##isa(const uint8_t *in, size_t in_bytes, uint8_t *page)

GODWIT_DELTA_KERNELS(scalar);
GODWIT_DELTA_KERNELS(avx2);
GODWIT_DELTA_KERNELS(avx512);

static inline uint64_t load64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void store64(void *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* Without the instruction the compiler would call a table in libgcc. */
static inline unsigned popcount64(uint64_t v)
{
#if defined(__POPCNT__) || !defined(__x86_64__)
	return (unsigned)__builtin_popcountll(v);
#else
	v -= v >> 1 & 0x5555555555555555u;
	v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
	v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
	return (unsigned)(v * 0x0101010101010101u >> 56);
#endif
}

/*
 * Where the next page and what is kept of it are; this page itself if that is not known, as asking for
 * what is here already costs less than asking whether to ask. Numbers, as they may point to nothing.
 */
struct next {
	uintptr_t guest, kept;
};

static inline struct next next_of(const struct godwit_ahead *ahead, const void *guest, const void *kept)
{
	return (struct next){
		.guest = (uintptr_t)(ahead && ahead->guest ? ahead->guest : guest),
		.kept = (uintptr_t)(ahead && ahead->kept ? ahead->kept : kept),
	};
}

/*
 * Into the first cache level, or into the second. The first one's queue to memory is the shorter, but
 * what is there need not be fetched again. Measured on Sapphire Rapids, ns a page, from memory and from
 * the last level: guest pages beside signatures 400 and 194 near, 380 and 214 far; both pages of
 * words 629 and 319 near, 618 and 346 far; rows of signatures are better near in both.
 */
static inline void ask_near(uintptr_t page, size_t at)
{
	__builtin_prefetch((const void *)(page + at), 0, 3);
}

static inline void ask_far(uintptr_t page, size_t at)
{
	__builtin_prefetch((const void *)(page + at), 0, 2);
}

/* A page that holds still. Most pages differ within the first line, so the caller looks there first. */
static inline bool page_is_fill(const uint8_t *page)
{
	return !memcmp(page, page + 8, PAGE_BYTES - 8);
}

/* Lines delta of a page that holds still: returns its length. */
static inline uint32_t put_lines(uint64_t map, const uint8_t *page, uint8_t *out)
{
	uint8_t *o = out + 8;

	if (!map)
		return 0;
	store64(out, map);
	if (!~map) {
		memcpy(o, page, PAGE_BYTES);
		return 8 + PAGE_BYTES;
	}
	for (; map; map &= map - 1, o += LINE_BYTES)
		memcpy(o, page + LINE_BYTES * (unsigned)__builtin_ctzll(map), LINE_BYTES);
	return (uint32_t)(o - out);
}

/* ULEB128 of a run; a page needs two bytes at most. */
static inline unsigned uleb_bytes(unsigned v)
{
	return 1 + (v >= 0x80);
}

static inline uint8_t *put_uleb(uint8_t *o, unsigned v)
{
	if (v < 0x80) {
		*o++ = (uint8_t)v;
	} else {
		*o++ = (uint8_t)(v | 0x80);
		*o++ = (uint8_t)(v >> 7);
	}
	return o;
}

/* One pair of runs, bounds exact: the place behind it, or NULL if it does not fit before end. */
static inline uint8_t *put_run(uint8_t *o, const uint8_t *end, unsigned skip, const uint8_t *bytes,
			       unsigned n)
{
	if ((size_t)(end - o) < (size_t)uleb_bytes(skip) + uleb_bytes(n) + n)
		return NULL;
	o = put_uleb(o, skip);
	o = put_uleb(o, n);
	memcpy(o, bytes, n);
	return o + n;
}

/* How an encoder ends: o is where it stopped, NULL if it did not fit. */
static inline enum godwit_xbzrle xbzrle_end(const uint8_t *out, const uint8_t *o, size_t *out_bytes_ret)
{
	*out_bytes_ret = o ? (size_t)(o - out) : 0;
	if (!o)
		return GODWIT_XBZRLE_OVERFLOW;
	return o == out ? GODWIT_XBZRLE_SAME : GODWIT_XBZRLE_DELTA;
}

/*
 * The header of one pair of runs at in[*i]: false if malformed. On success *i is behind it, *at has
 * moved over the unchanged run, *n is the length of the changed one, and both runs fit page and input.
 */
static inline bool get_run(const uint8_t *in, size_t in_bytes, size_t *i, unsigned *at, unsigned *n)
{
	bool first = !*i;
	unsigned length[2];

	for (unsigned part = 0; part < 2; part++) {
		if (*i >= in_bytes)
			return false;
		length[part] = in[(*i)++];
		if (length[part] & 0x80) {
			if (*i >= in_bytes || in[*i] & 0x80)
				return false;
			length[part] = (length[part] & 0x7f) | (unsigned)in[(*i)++] << 7;
		}
	}
	if ((!length[0] && !first) || !length[1])
		return false;
	*at += length[0];
	*n = length[1];
	return *at + *n <= PAGE_BYTES && *n <= in_bytes - *i;
}

#endif
