/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every codec on every kind of content: there and back, into exact room, and against a peer who lies.
 * Buffers end at a page that cannot be touched, so one byte too far is a crash.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <criterion/criterion.h>
#include <zlib.h>
#include <zstd.h>

#include "../sanitized.h"
#include "codecs/codecs.h"

static atomic_ulong nr_mallocs;
static atomic_bool malloc_fails;
#if defined(__GLIBC__) && !defined(IS_SANITIZED)
#define COUNTS_MALLOC 1
void *__libc_malloc(size_t bytes);
/* glibc lets a program replace malloc(); the shared libraries then use this one too. */
__attribute__((visibility("default"))) void *malloc(size_t bytes);
void *malloc(size_t bytes)
{
	atomic_fetch_add(&nr_mallocs, 1);
	return atomic_load(&malloc_fails) ? NULL : __libc_malloc(bytes);
}
#endif

/* ---- caller's memory ---- */

struct counter {
	long calls;
	long live;
	long fail_at;		/* the call that gets NULL; 0: none */
};

static void *count_alloc(void *user, size_t bytes)
{
	struct counter *c = user;

	if (++c->calls == c->fail_at)
		return NULL;
	c->live++;
	return aligned_alloc(64, (bytes + 63) & ~(size_t)63);
}

static void count_free(void *user, void *mem)
{
	struct counter *c = user;

	c->live -= mem != NULL;
	free(mem);
}

static struct counter counter;
static const struct godwit_alloc alloc = { count_alloc, count_free, &counter };

static struct godwit_codec_ctx *new_ctx(void)
{
	struct godwit_codec_ctx *ctx = NULL;

	cr_assert_eq(godwit_codec_ctx_create(&alloc, &ctx), 0);
	return ctx;
}

/* bytes long, and the byte behind the last one cannot be touched. */
static uint8_t *guarded(size_t bytes)
{
	size_t room = (bytes + 4095) & ~(size_t)4095;
	uint8_t *map = mmap(NULL, room + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(map, MAP_FAILED);
	cr_assert_eq(mprotect(map + room, 4096, PROT_NONE), 0);
	return map + room - bytes;
}

static void unguard(uint8_t *mem, size_t bytes)
{
	size_t room = (bytes + 4095) & ~(size_t)4095;

	munmap(mem + bytes - room, room + 4096);
}

/* ---- contents ---- */

static uint64_t rng = 88172645463325252ull;

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

enum content { ZEROS, NOISE, POINTERS, TEXT, NIBBLES, CONTENTS };

static void fill(uint8_t *mem, size_t bytes, enum content content)
{
	static const char *words[] = { "user:", "{\"id\":", "\"name\"", "null,", "0x7f", "order", "}," };

	for (size_t at = 0; at < bytes;) {
		uint64_t word = 0;
		size_t n = 8;

		if (content == NOISE) {
			word = next();
		} else if (content == POINTERS) {
			word = next() % 3 ? 0x00007f5500000000 + (next() & 0xfffff0) : 0;
		} else if (content == NIBBLES) {
			word = next() & 0x0f0f0f0f0f0f0f0f;
		} else if (content == TEXT) {
			const char *w = words[next() % 7];

			n = strlen(w);
			memcpy(&word, w, n);
		}
		if (n > bytes - at)
			n = bytes - at;
		memcpy(mem + at, &word, n);
		at += n;
	}
}

/* Each valid rung, one after the other; false after the last. */
static bool next_rung(struct godwit_rung *rung)
{
	int n = rung->codec * 256 + rung->level + 128;

	while (++n < GODWIT_CODECS * 256) {
		rung->codec = (uint8_t)(n / 256);
		rung->level = (int8_t)(n % 256 - 128);
		if (godwit_rung_is_valid(*rung))
			return true;
	}
	return false;
}

static const struct godwit_rung before_first = { 0, -128 };

/* ---- names ---- */

Test(rung, every_valid_rung_has_a_name_that_parses_to_it)
{
	struct godwit_rung rung = before_first;
	unsigned rungs = 0;

	while (next_rung(&rung)) {
		struct godwit_rung back = { 99, 99 };
		bool is_auto = true;
		char name[16];

		godwit_rung_name(rung, name);
		cr_assert(godwit_rung_parse(name, &back, &is_auto), "%s", name);
		cr_assert(!is_auto && back.codec == rung.codec && back.level == rung.level, "%s", name);
		rungs++;
	}
	cr_assert_eq(rungs, 1 + 65 + 39 + 9);
}

Test(rung, the_names_of_the_manual_are_understood)
{
	static const struct {
		const char *name;
		uint8_t codec;
		int8_t level;
	} known[] = {
		{ "none", GODWIT_CODEC_NONE, 0 },   { "lz4", GODWIT_CODEC_LZ4, 1 },
		{ "lz4:8", GODWIT_CODEC_LZ4, 8 },   { "lz4:1", GODWIT_CODEC_LZ4, 1 },
		{ "zstd1", GODWIT_CODEC_ZSTD, 1 },  { "zstd-5", GODWIT_CODEC_ZSTD, -5 },
		{ "zlib6", GODWIT_CODEC_ZLIB, 6 },  { "zstd19", GODWIT_CODEC_ZSTD, 19 },
		{ "zstd-20", GODWIT_CODEC_ZSTD, -20 }, { "lz4:65", GODWIT_CODEC_LZ4, 65 },
	};

	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct godwit_rung rung;
		bool is_auto = true;

		cr_assert(godwit_rung_parse(known[i].name, &rung, &is_auto), "%s", known[i].name);
		cr_expect(!is_auto);
		cr_expect_eq(rung.codec, known[i].codec, "%s", known[i].name);
		cr_expect_eq(rung.level, known[i].level, "%s", known[i].name);
	}
}

Test(rung, auto_and_nothing_mean_auto)
{
	struct godwit_rung rung = { 7, 7 };
	bool is_auto = false;

	cr_expect(godwit_rung_parse(NULL, &rung, &is_auto) && is_auto);
	is_auto = false;
	cr_expect(godwit_rung_parse("auto", &rung, &is_auto) && is_auto);
	cr_expect(rung.codec == 7 && rung.level == 7);
}

Test(rung, what_is_no_rung_is_refused_and_changes_nothing)
{
	static const char *wrong[] = {
		"", " ", "auto ", "AUTO", "none0", "none1", "lz", "lz4:", "lz4:0", "lz4:66", "lz4:-1", "lz4:08",
		"lz48", "lz4:8 ", "zstd", "zstd0", "zstd20", "zstd-21", "zstd+1", "zstd01", "zstd1x", "zstd--1",
		"zstd-", "zstd1 ", "zstd999999999999", "zlib", "zlib0", "zlib10", "zlib-1", "gzip", "zstd:1", "zlib:1",
	};

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct godwit_rung rung = { 7, 7 };
		bool is_auto = true;

		cr_expect(!godwit_rung_parse(wrong[i], &rung, &is_auto), "'%s'", wrong[i]);
		cr_expect(is_auto && rung.codec == 7 && rung.level == 7, "'%s'", wrong[i]);
	}
}

Test(rung, an_invalid_rung_is_called_so)
{
	char name[16];

	godwit_rung_name((struct godwit_rung){ GODWIT_CODEC_ZSTD, 0 }, name);
	cr_expect_str_eq(name, "?");
	godwit_rung_name((struct godwit_rung){ GODWIT_CODECS, 1 }, name);
	cr_expect_str_eq(name, "?");
}

/* ---- there and back ---- */

Test(codec, every_rung_gives_back_what_went_in)
{
	static const size_t sizes[] = { 1, 7, 64, 4096, 5000, 65536, 131072 };
	struct godwit_codec_ctx *ctx = new_ctx();
	size_t cap = 2 * 131072 + 4096;
	uint8_t *out = malloc(cap);

	for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		uint8_t *in = guarded(sizes[s]), *back = guarded(sizes[s]);

		for (unsigned content = 0; content < CONTENTS; content++) {
			struct godwit_rung rung = before_first;

			fill(in, sizes[s], content);
			while (next_rung(&rung)) {
				size_t got;

				if (rung.codec == GODWIT_CODEC_ZSTD && rung.level > 12 && sizes[s] > 5000)
					continue;	/* seconds */
				got = godwit_codec_compress(ctx, rung, in, sizes[s], out, cap);
				cr_assert_gt(got, 0);
				memset(back, 0xa5, sizes[s]);
				cr_assert(godwit_codec_decompress(ctx, rung.codec, out, got, back, sizes[s]),
					  "codec %d level %d content %u", rung.codec, rung.level, content);
				cr_assert_eq(memcmp(in, back, sizes[s]), 0);
			}
		}
		unguard(in, sizes[s]);
		unguard(back, sizes[s]);
	}
	free(out);
	godwit_codec_ctx_destroy(ctx);
	cr_assert_eq(counter.live, 0);
}

Test(codec, the_longest_block_passes_and_a_longer_one_is_refused)
{
	size_t bytes = GODWIT_CODEC_MAX_BYTES;
	struct godwit_codec_ctx *ctx = new_ctx();
	uint8_t *in = calloc(1, bytes + 1), *out = malloc(2 * bytes), *back = malloc(bytes + 1);

	fill(in, bytes, POINTERS);
	for (unsigned codec = 0; codec < GODWIT_CODECS; codec++) {
		struct godwit_rung rung = { (uint8_t)codec, codec != GODWIT_CODEC_NONE };
		size_t got = godwit_codec_compress(ctx, rung, in, bytes, out, 2 * bytes);

		cr_assert_gt(got, 0);
		cr_assert(godwit_codec_decompress(ctx, codec, out, got, back, bytes));
		cr_assert_eq(memcmp(in, back, bytes), 0);
		cr_assert_eq(godwit_codec_compress(ctx, rung, in, bytes + 1, out, 2 * bytes), 0);
		cr_assert(!godwit_codec_decompress(ctx, codec, out, got, back, bytes + 1));
		cr_assert(!godwit_codec_decompress(ctx, codec, out, bytes + 1, back, bytes));
		cr_assert_eq(godwit_codec_compress(ctx, rung, in, 0, out, bytes), 0);
		cr_assert(!godwit_codec_decompress(ctx, codec, out, got, back, 0));
		cr_assert(!godwit_codec_decompress(ctx, codec, out, 0, back, bytes));
	}
	cr_assert(!godwit_codec_decompress(ctx, GODWIT_CODECS, in, 64, out, 64));
	godwit_codec_ctx_destroy(ctx);
	free(in);
	free(out);
	free(back);
}

Test(codec, noise_does_not_fit_into_less_than_itself)
{
	struct godwit_codec_ctx *ctx = new_ctx();
	struct godwit_rung rung = before_first;
	uint8_t *in = guarded(65536), *out = guarded(65535);

	fill(in, 65536, NOISE);
	while (next_rung(&rung))
		cr_assert_eq(godwit_codec_compress(ctx, rung, in, 65536, out, 65535), 0, "codec %d level %d",
			     rung.codec, rung.level);
	godwit_codec_ctx_destroy(ctx);
}

Test(codec, output_stays_within_its_room)
{
	struct godwit_codec_ctx *ctx = new_ctx();
	uint8_t *in = guarded(16384);

	for (unsigned content = 0; content < CONTENTS; content++) {
		fill(in, 16384, content);
		for (size_t cap = 1; cap < 16384; cap += cap < 64 ? 1 : 509) {
			uint8_t *out = guarded(cap);
			static const struct godwit_rung rungs[] = {
				{ GODWIT_CODEC_NONE, 0 }, { GODWIT_CODEC_LZ4, 1 },  { GODWIT_CODEC_LZ4, 16 },
				{ GODWIT_CODEC_ZSTD, -5 }, { GODWIT_CODEC_ZSTD, 1 }, { GODWIT_CODEC_ZSTD, 6 },
				{ GODWIT_CODEC_ZLIB, 1 }, { GODWIT_CODEC_ZLIB, 9 },
			};

			for (unsigned i = 0; i < sizeof(rungs) / sizeof(rungs[0]); i++) {
				uint8_t back[16384];
				size_t got = godwit_codec_compress(ctx, rungs[i], in, 16384, out, cap);

				cr_assert_leq(got, cap);
				cr_assert(!got || (godwit_codec_decompress(ctx, rungs[i].codec, out, got,
									   back, 16384) &&
						   !memcmp(back, in, 16384)));
			}
			unguard(out, cap);
		}
	}
	godwit_codec_ctx_destroy(ctx);
}

/* Frames carry lengths and a checksum: a codec that adds its own pays twice. */
Test(codec, blocks_carry_no_more_header_than_the_format_demands)
{
	struct godwit_codec_ctx *ctx = new_ctx();
	uint8_t in[4096], out[4096];
	size_t got;

	fill(in, sizeof(in), POINTERS);
	got = godwit_codec_compress(ctx, (struct godwit_rung){ GODWIT_CODEC_ZSTD, 1 }, in, sizeof(in), out,
				    sizeof(out));
	cr_assert_gt(got, 0);
	cr_expect_eq(ZSTD_getFrameContentSize(out, got), ZSTD_CONTENTSIZE_UNKNOWN);
	cr_expect_eq(out[4] & 0x27, 0, "content size, checksum or dictionary in the frame header");
	got = godwit_codec_compress(ctx, (struct godwit_rung){ GODWIT_CODEC_ZLIB, 6 }, in, sizeof(in), out,
				    sizeof(out));
	cr_assert_gt(got, 0);
	cr_expect(out[0] != 0x78 || (out[0] * 256 + out[1]) % 31, "a zlib header");
	godwit_codec_ctx_destroy(ctx);
}

/* ---- the peer lies ---- */

#define PEER_BYTES 8192

static size_t make_block(struct godwit_codec_ctx *ctx, unsigned codec, uint8_t *in, uint8_t *out,
			 size_t cap)
{
	struct godwit_rung rung = { (uint8_t)codec, codec != GODWIT_CODEC_NONE };
	size_t got;

	fill(in, PEER_BYTES, TEXT);
	fill(in + 1024, 512, NOISE);
	got = godwit_codec_compress(ctx, rung, in, PEER_BYTES, out, cap);
	cr_assert_gt(got, 0);
	return got;
}

Test(codec, a_wrong_length_is_refused)
{
	struct godwit_codec_ctx *ctx = new_ctx();
	uint8_t in[PEER_BYTES], out[2 * PEER_BYTES];

	for (unsigned codec = 0; codec < GODWIT_CODECS; codec++) {
		size_t got = make_block(ctx, codec, in, out, sizeof(out));
		uint8_t *more = guarded(PEER_BYTES + 1), *less = guarded(PEER_BYTES - 1);

		cr_expect(!godwit_codec_decompress(ctx, codec, out, got, more, PEER_BYTES + 1));
		cr_expect(!godwit_codec_decompress(ctx, codec, out, got, less, PEER_BYTES - 1));
		cr_expect(!godwit_codec_decompress(ctx, codec, out, got, less, 1));
		for (size_t cut = 1; cut < got; cut++) {
			uint8_t *part = guarded(cut);

			memcpy(part, out, cut);
			cr_assert(!godwit_codec_decompress(ctx, codec, part, cut, more, PEER_BYTES),
				  "codec %u cut at %zu of %zu", codec, cut, got);
			unguard(part, cut);
		}
		out[got] = 0;
		cr_expect(!godwit_codec_decompress(ctx, codec, out, got + 1, more, PEER_BYTES),
			  "codec %u with a byte behind it", codec);
		/* The context is as good as before. */
		cr_expect(godwit_codec_decompress(ctx, codec, out, got, more, PEER_BYTES));
		cr_expect_eq(memcmp(more, in, PEER_BYTES), 0);
	}
	godwit_codec_ctx_destroy(ctx);
}

Test(codec, damage_neither_crashes_nor_writes_too_far)
{
	struct godwit_codec_ctx *ctx = new_ctx();
	uint8_t in[PEER_BYTES], out[2 * PEER_BYTES];
	uint8_t *back = guarded(PEER_BYTES);

	for (unsigned codec = 1; codec < GODWIT_CODECS; codec++) {
		size_t got = make_block(ctx, codec, in, out, sizeof(out));
		uint8_t *bad = guarded(got);
		unsigned refused = 0;

		for (unsigned i = 0; i < 20000; i++) {
			memcpy(bad, out, got);
			for (unsigned hits = 1 + next() % 4; hits; hits--)
				bad[next() % (next() % 2 ? got : 32)] ^= (uint8_t)(1u << next() % 8);
			refused += !godwit_codec_decompress(ctx, codec, bad, got, back, PEER_BYTES);
		}
		cr_expect_gt(refused, 1000, "codec %u takes nearly everything", codec);
		for (unsigned i = 0; i < 20000; i++) {
			fill(bad, got, NOISE);
			if (codec == GODWIT_CODEC_ZSTD)
				memcpy(bad, out, 5);
			godwit_codec_decompress(ctx, codec, bad, got, back, PEER_BYTES);
		}
		cr_expect(godwit_codec_decompress(ctx, codec, out, got, back, PEER_BYTES));
		cr_expect_eq(memcmp(back, in, PEER_BYTES), 0);
	}
	godwit_codec_ctx_destroy(ctx);
}

/* libzstd takes several frames, frames to be skipped and formats of before 2016; a peer of ours sends none. */
Test(codec, zstd_takes_one_frame_of_today_only)
{
	static const uint8_t skip[] = { 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4 };
	struct godwit_codec_ctx *ctx = new_ctx();
	struct godwit_rung rung = { GODWIT_CODEC_ZSTD, 1 };
	uint8_t in[2 * PEER_BYTES], out[4 * PEER_BYTES], back[2 * PEER_BYTES];
	size_t first, second;

	fill(in, sizeof(in), TEXT);
	first = godwit_codec_compress(ctx, rung, in, PEER_BYTES, out, sizeof(out));
	second = godwit_codec_compress(ctx, rung, in + PEER_BYTES, PEER_BYTES, out + first, PEER_BYTES);
	cr_assert(first && second);
	cr_assert_eq(ZSTD_decompress(back, sizeof(back), out, first + second), sizeof(back));
	cr_expect(!godwit_codec_decompress(ctx, GODWIT_CODEC_ZSTD, out, first + second, back, sizeof(back)));

	memmove(out + sizeof(skip), out, first);
	memcpy(out, skip, sizeof(skip));
	cr_assert_eq(ZSTD_decompress(back, sizeof(back), out, first + sizeof(skip)), PEER_BYTES);
	cr_expect(!godwit_codec_decompress(ctx, GODWIT_CODEC_ZSTD, out, first + sizeof(skip), back,
					   PEER_BYTES));
	memmove(out, out + sizeof(skip), first);
	cr_expect(godwit_codec_decompress(ctx, GODWIT_CODEC_ZSTD, out, first, back, PEER_BYTES));
	for (unsigned version = 0x22; version < 0x28; version++) {
		out[0] = (uint8_t)version;
		cr_expect(!godwit_codec_decompress(ctx, GODWIT_CODEC_ZSTD, out, first, back, PEER_BYTES));
	}
	godwit_codec_ctx_destroy(ctx);
}

/* ---- memory ---- */

Test(codec, create_without_memory_fails_and_leaves_nothing)
{
	struct godwit_codec_ctx *ctx = NULL;
	long calls;

	godwit_codec_ctx_destroy(new_ctx());
	calls = counter.calls;
	cr_assert_eq(counter.live, 0);
	cr_assert_gt(calls, 1);
	for (long i = 1; i <= calls; i++) {
		counter = (struct counter){ .fail_at = i };
		cr_expect_eq(godwit_codec_ctx_create(&alloc, &ctx), -ENOMEM, "call %ld of %ld", i, calls);
		cr_expect_eq(counter.live, 0, "call %ld leaves %ld", i, counter.live);
		cr_expect_null(ctx);
	}
	godwit_codec_ctx_destroy(NULL);
}

/* The first block of a rung may find no memory; it is not compressed then, and the next one may be. */
Test(codec, no_memory_for_a_first_block_is_no_error)
{
	struct godwit_codec_ctx *ctx = new_ctx();
	struct godwit_rung zlib = { GODWIT_CODEC_ZLIB, 6 };
	static uint8_t in[65536], out[65536], back[65536];
	size_t got;

	fill(in, sizeof(in), TEXT);
	counter.fail_at = counter.calls + 1;
	cr_expect(!godwit_codec_prepare(ctx, zlib, sizeof(in)));
	counter.fail_at = counter.calls + 2;
	cr_expect_eq(godwit_codec_compress(ctx, zlib, in, sizeof(in), out, sizeof(out)), 0);
	counter.fail_at = 0;
	got = godwit_codec_compress(ctx, zlib, in, sizeof(in), out, sizeof(out));
	cr_assert_gt(got, 0);
	cr_assert(godwit_codec_decompress(ctx, zlib.codec, out, got, back, sizeof(back)));
	cr_assert_arr_eq(back, in, sizeof(in));
#ifdef COUNTS_MALLOC
	for (int level = -20; level <= 19; level++) {
		struct godwit_rung zstd = { GODWIT_CODEC_ZSTD, (int8_t)level };
		bool is_ready;

		if (!level)
			continue;
		atomic_store(&malloc_fails, true);
		is_ready = godwit_codec_prepare(ctx, zstd, sizeof(in));
		got = godwit_codec_compress(ctx, zstd, in, sizeof(in), out, sizeof(out));
		atomic_store(&malloc_fails, false);
		/* A level that needs no more than the one before it is ready. */
		cr_expect_eq(is_ready, got != 0, "zstd%d", level);
		cr_expect(!is_ready || (level != -20 && level != 2), "zstd%d", level);
		got = godwit_codec_compress(ctx, zstd, in, sizeof(in), out, sizeof(out));
		cr_assert_gt(got, 0, "zstd%d", level);
		cr_assert(godwit_codec_decompress(ctx, zstd.codec, out, got, back, sizeof(back)));
		cr_assert_arr_eq(back, in, sizeof(in));
	}
#endif
	godwit_codec_ctx_destroy(ctx);
	cr_expect_eq(counter.live, 0);
}

/* A mix of small and full blocks made libzstd free and allocate its workspace all the time. */
Test(codec, what_was_prepared_and_decoders_allocate_nothing)
{
	struct godwit_codec_ctx *ctx = new_ctx();
	static uint8_t in[131072], out[131072], back[131072];
	/* The smallest block of each size that zstd has a context for. */
	static const size_t first[] = { 1, 513, 4097, 16385, 65537 };
	unsigned long mallocs;
	long calls;

	fill(in, sizeof(in), TEXT);
	for (unsigned i = 0; i < godwit_ladder_rungs; i++) {
		for (unsigned c = 0; c < sizeof(first) / sizeof(first[0]); c++)
			cr_assert(godwit_codec_prepare(ctx, godwit_ladder_rung(i), first[c]));
	}
	cr_assert(godwit_codec_prepare(ctx, (struct godwit_rung){ GODWIT_CODEC_ZLIB, 1 }, 1));
	calls = counter.calls;
	mallocs = atomic_load(&nr_mallocs);
	for (unsigned i = 0; i < 6000; i++) {
		/* Three hundred small ones on end, then anything. */
		size_t bytes = i % 500 < 300 ? 1 + i % (i % 1000 < 500 ? 512 : 3300) : 1 + next() % sizeof(in);
		struct godwit_rung rung = i % 7 ? godwit_ladder_rung(i / 1000 % godwit_ladder_rungs) :
						  (struct godwit_rung){ GODWIT_CODEC_ZLIB, 1 + i % 9 };
		size_t got = godwit_codec_compress(ctx, rung, in, bytes, out, bytes);

		if (!got)
			continue;
		/* zlib's window is for streams that stop early. */
		godwit_codec_decompress(ctx, rung.codec, out, got / 2, back, bytes);
		cr_assert(godwit_codec_decompress(ctx, rung.codec, out, got, back, bytes));
	}
	cr_expect_eq(atomic_load(&nr_mallocs), mallocs, "%lu calls of malloc",
		     atomic_load(&nr_mallocs) - mallocs);
	cr_expect_eq(counter.calls, calls);
#ifdef COUNTS_MALLOC
	cr_expect_gt(mallocs, 0, "the counter does not count");
#endif
	godwit_codec_ctx_destroy(ctx);
}
