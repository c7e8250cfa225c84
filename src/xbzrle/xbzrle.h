/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xbzrle.h - what changed in a page, said in three ways, and the one pass that finds it
 *
 * A page is 4096 bytes, 64 lines of 64 bytes, 512 words of 8. Line i is bit i of a map.
 *
 *   words    changed 8-byte words under masks; needs the old page; our own format
 *   lines    changed 64-byte lines; needs one 64-bit signature per group of lines; our own format
 *   XBZRLE   byte runs, as every QEMU reads them; from an old page or from a map of changed lines
 *
 * All three carry the new contents, never a difference: new words compress up to twice as well in
 * the codec that follows, and old contents need not be kept.
 *
 * Two groups of calls. The *save* calls read a live guest page that vCPUs may be writing: each reads
 * every byte of it once, into registers, so what is copied, signed and encoded is one and the same
 * image even if it is torn. All other calls work on memory that holds still.
 *
 * Threads: nothing here keeps state but the choice of variant, made once; every call is safe
 * anywhere. Every variant gives the same bytes as the scalar one, which is the specification.
 *
 * The page cache has its own header, page_cache.h, beside this one.
 */
#ifndef GODWIT_XBZRLE_H
#define GODWIT_XBZRLE_H

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GODWIT_DELTA_PAGE_BYTES 4096u
#define GODWIT_DELTA_LINE_BYTES 64u

/* Map, 64 masks and 512 words: the longest delta of either of our formats. */
#define GODWIT_DELTA_MAX_BYTES (8 + 64 + 4096)
/*
 * The save calls may write this much past what they report at delta_out: a store of a full line costs
 * less than asking how much of it is needed.
 */
#define GODWIT_DELTA_SLACK 64

/*
 * A words delta:  u64 map of changed lines (little-endian), never 0
 *                 u8 mask per changed line, lowest line first: bit j says that word j changed; never 0
 *                 the changed words as they are now, in page order
 *
 * godwit_words_check() - how long the delta is that starts at in.
 * Shape:   in holds in_bytes, of which the delta may be the first part; no alignment.
 * Result:  its length, or 0 if it is malformed: zero map, zero mask, or longer than in_bytes.
 *
 * godwit_words_apply() - put the changed words into page.
 * Shape:   in begins with a delta that godwit_words_check() accepted (nothing past that length is
 *          read); page is 4096 bytes and holds what the delta was made against. No overlap.
 */
size_t godwit_words_check(const uint8_t *in, size_t in_bytes);
void godwit_words_apply(const uint8_t *in, uint8_t *page);

/*
 * A lines delta:  u64 map of changed lines (little-endian), never 0
 *                 64 bytes per changed line as they are now, lowest line first
 *
 * godwit_lines_check(), godwit_lines_apply() - as for words.
 */
size_t godwit_lines_check(const uint8_t *in, size_t in_bytes);
void godwit_lines_apply(const uint8_t *in, uint8_t *page);

/*
 * The signature of a line is a sum over GF(2^64), polynomial x^64 + x^4 + x^3 + x + 1, of products of its
 * eight words (little-endian, bit i is x^i), two by two, each with a secret one added:
 *
 *   sum(line l) = sum over i < 4 of (m[2i] + word[8k + 2i]) * (m[2i + 1] + word[8k + 2i + 1]),  k = l % 4
 *   signature(line l) = sum(line l) + sum(a zero line in its place)
 *
 * Two contents differ in a pair of words, and that pair's product by either secret word of it times what
 * differs in the other: so two contents chosen without knowing the secret collide with probability
 * 2^-64, whatever they are, for half the multiplications of a dot product. A zero line signs as 0. The
 * signature of a group is the XOR of its lines', and since four neighbours have words of their own, all
 * of that holds for groups of 128 and 256 bytes.
 */
struct godwit_signer {
	alignas(64) uint64_t word[32];		/* secret words of four neighbouring lines, 8 each */
	alignas(64) uint64_t blank[3][8];	/* sums of eight zero groups of 64, 128, 256 bytes */
};

/* Fills *signer from 32 secret words, drawn at random by the caller; there is nothing to release. */
void godwit_signer_init(struct godwit_signer *signer, const uint64_t secret[32]);

/* What one pass over a guest page found. */
struct godwit_save {
	uint64_t map;			/* changed lines; all ones when nothing was known */
	uint64_t word;			/* first word of the page */
	uint32_t delta_bytes;		/* written at delta_out, map included; 0 if map is 0 or nothing was known */
	uint32_t changed_words;		/* godwit_save_words() only, else 0 */
	bool is_fill;			/* the page is word repeated 512 times */
	uint64_t digest;		/* XXH3-64 of the page; 0 if nothing was known of it */
};

/*
 * godwit_save_lines() - copy a guest page and say which lines differ from what signatures remember.
 *
 * Shape:   guest, copy are 4096 bytes; guest is aligned to 8 at least, copy best to 64.
 *          granule_bytes is 64, 128 or 256; a row holds 4096 / granule_bytes signatures. old_sigs
 *          is the row of the last contents, or NULL when nothing is known; new_sigs receives the
 *          row of these, and may be the same row. delta_out has GODWIT_DELTA_MAX_BYTES +
 *          GODWIT_DELTA_SLACK (not touched if old_sigs is NULL). No other overlap.
 * Result:  *ret; copy holds the page; a lines delta of all lines of every changed group is at
 *          delta_out, unless map is 0. Copy, signatures and delta are of one image.
 */
void godwit_save_lines(const struct godwit_signer *signer, unsigned granule_bytes,
		       const void *guest, const uint64_t *old_sigs, uint64_t *new_sigs,
		       uint8_t *copy, uint8_t *delta_out, struct godwit_save *ret);

/*
 * godwit_save_words() - bring a kept page up to date and say which words differed.
 *
 * Shape:   guest is 4096 bytes aligned to 8 at least; base_page, best aligned to 64, is the old
 *          contents in and the new contents out; delta_out has GODWIT_DELTA_MAX_BYTES +
 *          GODWIT_DELTA_SLACK. No overlap.
 * Result:  *ret; base_page holds the page (only changed lines of it are written); a words delta is at
 *          delta_out, unless map is 0. The delta applied to the old contents gives base_page.
 */
void godwit_save_words(const void *guest, uint8_t *base_page, uint8_t *delta_out,
		       struct godwit_save *ret);

/*
 * godwit_save_plain() - copy a guest page, nothing being kept of it, and see whether it is a fill.
 * Result:  *ret with map all ones and delta_bytes 0; copy holds the page.
 */
void godwit_save_plain(const void *guest, uint8_t *copy, struct godwit_save *ret);

/*
 * What the save call after this one is going to read. A worker knows; hardware does not, as its prefetchers
 * stop at a page's end. Asking line by line while a page is saved costs less than asking for all of
 * it before: requests leave as fast as memory takes them, and the arithmetic hides behind them.
 * Members may be NULL, and need not point to anything mapped.
 */
struct godwit_ahead {
	const void *guest;		/* the next guest page */
	const void *kept;		/* its old page, or its row of signatures of the same granule */
};

/* The three calls above, with the next page in mind. ahead may be NULL. */
void godwit_save_lines_ahead(const struct godwit_signer *signer, unsigned granule_bytes,
			     const void *guest, const uint64_t *old_sigs, uint64_t *new_sigs,
			     uint8_t *copy, uint8_t *delta_out, const struct godwit_ahead *ahead,
			     struct godwit_save *ret);
void godwit_save_words_ahead(const void *guest, uint8_t *base_page, uint8_t *delta_out,
			     const struct godwit_ahead *ahead, struct godwit_save *ret);
void godwit_save_plain_ahead(const void *guest, uint8_t *copy, const struct godwit_ahead *ahead,
			     struct godwit_save *ret);

/*
 * godwit_signatures_coarsen() - a row of groups_in signatures becomes one of half as many, each for
 * twice the bytes. groups_in is 64 or 32; sigs_out may be sigs_in.
 */
void godwit_signatures_coarsen(uint64_t *sigs_out, const uint64_t *sigs_in, unsigned groups_in);

/*
 * XBZRLE as QEMU reads it: pairs of an unchanged and a changed run, each length a ULEB128 of at most
 * two bytes, changed runs followed by their new bytes. An unchanged run has length 0 only at the
 * start of the page, a changed run never; what follows the last changed run is unchanged. Ours is
 * canonical: shortest lengths, and one or two unchanged bytes between changed ones count as changed
 * (the header they save is as long, and the decoder has a third less to do).
 */
enum godwit_xbzrle {
	GODWIT_XBZRLE_DELTA,		/* the delta is in out, its length in *out_bytes_ret */
	GODWIT_XBZRLE_SAME,		/* nothing changed; *out_bytes_ret is 0 */
	GODWIT_XBZRLE_OVERFLOW,		/* longer than out_cap; out is undefined, *out_bytes_ret is 0 */
};

/*
 * godwit_xbzrle_encode() - describe new_page against old_page.
 * Shape:   both 4096 bytes; out has out_cap bytes, and nothing past them is written. QEMU takes at most
 *          4096. No overlap. new_page must hold still: save a guest page first. ahead, which may be
 *          NULL, is as for the calls that save.
 */
enum godwit_xbzrle godwit_xbzrle_encode(const uint8_t *old_page, const uint8_t *new_page,
					const struct godwit_ahead *ahead, uint8_t *out, size_t out_cap,
					size_t *out_bytes_ret);

/*
 * godwit_xbzrle_encode_lines() - the same from changed lines alone: every byte of a line in map counts
 * as changed. page is the new contents. A map of 0 is GODWIT_XBZRLE_SAME.
 */
enum godwit_xbzrle godwit_xbzrle_encode_lines(uint64_t map, const uint8_t *page, uint8_t *out,
					      size_t out_cap, size_t *out_bytes_ret);

/*
 * godwit_xbzrle_decode() - apply a delta to page (4096 bytes), which holds the old contents.
 * Result:  false if in is malformed, empty or goes past the page; page may then be partly written, so
 *          decode into staging.
 */
bool godwit_xbzrle_decode(const uint8_t *in, size_t in_bytes, uint8_t *page);

/*
 * godwit_prefetch_page() - ask for a whole page at once, into the second cache level: before the first
 * page of a batch, or for calls that take no struct godwit_ahead. Never faults.
 */
static inline void godwit_prefetch_page(const void *page)
{
	for (unsigned i = 0; i < GODWIT_DELTA_PAGE_BYTES; i += GODWIT_DELTA_LINE_BYTES)
		__builtin_prefetch((const char *)page + i, 0, 2);
}

/* godwit_page_is_fill() - is each 64-bit word of a page this one? Ended by the first lines that differ. */
static inline bool godwit_page_is_fill(const void *page, uint64_t word)
{
	/* What every CPU has; wider vectors are taken apart where there are none. */
	typedef uint64_t part_type __attribute__((vector_size(16), aligned(8), may_alias));
	const part_type *part = (const part_type *)page, *end = part + GODWIT_DELTA_PAGE_BYTES / sizeof(*part);
	const part_type fill = { word, word };

	for (; part < end; part += 8) {
		part_type v = ((part[0] ^ fill) | (part[1] ^ fill) | (part[2] ^ fill) | (part[3] ^ fill)) |
			      ((part[4] ^ fill) | (part[5] ^ fill) | (part[6] ^ fill) | (part[7] ^ fill));

		if ((v[0] | v[1]) != 0)
			return false;
	}
	return true;
}

/*
 * godwit_page_is_zero() - a quick look at a guest page. A page that is not zero is read again by its save,
 * which decides by what it reads then.
 */
static inline bool godwit_page_is_zero(const void *guest)
{
	return godwit_page_is_fill(guest, 0);
}

/*
 * The dispatch table, for tests and benchmarks; everybody else calls the functions above, which go
 * through the best variant; save kernels are the _ahead ones. What is not here is the same code on every CPU: checks, and what a memcpy
 * of lines does well enough.
 */
struct godwit_delta_variant {
	const char *name;		/* "scalar", "avx2", "avx512" */
	uint32_t cpu;			/* GODWIT_DELTA_CPU_ flags it needs */
	void (*words_apply)(const uint8_t *in, uint8_t *page);
	void (*save_lines)(const struct godwit_signer *signer, unsigned granule_bytes,
			   const void *guest, const uint64_t *old_sigs, uint64_t *new_sigs,
			   uint8_t *copy, uint8_t *delta_out, const struct godwit_ahead *ahead,
			   struct godwit_save *ret);
	void (*save_words)(const void *guest, uint8_t *base_page, uint8_t *delta_out,
			   const struct godwit_ahead *ahead, struct godwit_save *ret);
	void (*save_plain)(const void *guest, uint8_t *copy, const struct godwit_ahead *ahead,
			   struct godwit_save *ret);
	enum godwit_xbzrle (*xbzrle_encode)(const uint8_t *old_page, const uint8_t *new_page,
					    const struct godwit_ahead *ahead, uint8_t *out,
					    size_t out_cap, size_t *out_bytes_ret);
	bool (*xbzrle_decode)(const uint8_t *in, size_t in_bytes, uint8_t *page);
};

#define GODWIT_DELTA_CPU_AVX2	0x1u	/* AVX2, BMI1, BMI2, PCLMULQDQ */
#define GODWIT_DELTA_CPU_AVX512	0x2u	/* AVX-512 F, BW, VL, DQ, and what AVX2 stands for */
#define GODWIT_DELTA_CPU_ICELAKE 0x4u	/* VPCLMULQDQ, and 512 bits at full speed */

/* The flags of the CPU at hand. */
uint32_t godwit_delta_cpu(void);

/*
 * godwit_delta_variant() - the index-th variant that this CPU can run, best first; NULL past the last,
 * which is always the scalar one.
 */
const struct godwit_delta_variant *godwit_delta_variant(unsigned index);

/* The variant the functions above go through. */
const struct godwit_delta_variant *godwit_delta_chosen(void);

#endif
