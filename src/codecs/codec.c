/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec.c - one table over none, LZ4, zstd and zlib
 *
 * Each codec is called through the interface that writes the fewest bytes round the data, because the
 * frame that carries a block has its length, its decoded length and a checksum already: LZ4's block
 * format (no header), zstd without content size and checksum (6 bytes of header; the 4 of the magic
 * can only be left out through libzstd's unstable interface), raw deflate (no header).
 *
 * The input of decompress comes from the other host. Each decoder is told the exact room; what must be
 * added to that:
 *  - libzstd may be built with decoders for the formats before zstd 0.8, chosen by the magic, and takes
 *    any number of frames after one another. Those decoders allocate and are not looked after any
 *    more, so exactly one frame with today's magic is let through.
 *  - zlib allocates its window the first time that a stream stops before its end, so create() decodes
 *    such a stream once.
 *
 * libzstd gives memory back: a context whose workspace is for a long time more than four times what is
 * needed frees it and allocates a smaller one, and then grows it again byte by byte. What is needed
 * follows the size of the block (27 KiB for 256 bytes, 296 KiB for 64 KiB, both at zstd 1) and the effort.
 * Blocks of deltas are small and blocks of whole pages are not, so one context would allocate for ever. There
 * is one for each size class and effort, within which none shrinks.
 *
 * What a codec needs to compress is made when it is first asked to (godwit_codec_prepare): all of it is
 * 4 MiB a thread, most of which no migration ever uses, and to touch it takes 5 ms.
 */
#include <assert.h>
#include <errno.h>
#include <stdalign.h>
#include <string.h>

#include <lz4.h>
#include <zlib.h>
#include <zstd.h>

#include "codecs/codecs.h"

#define FULL_BYTES (128u << 10)

/* One zstd context for the blocks of up to so many bytes, at a light and at a heavy level. */
static const size_t zstd_class_bytes[] = { 512, 4u << 10, 16u << 10, 64u << 10, FULL_BYTES };
#define ZSTD_CLASSES 5
#define ZSTD_HEAVY_LEVEL 2
#define ZSTD_LEAST_LEVEL (-20)	/* as rung.c has it */

/*
 * zstd 1 with a table of 16 KiB, which stays in the first cache beside the block, where libzstd takes 32: over
 * 128 KiB blocks of changed pages of three guests 5 to 9 % less time for 0.05 to 0.4 % more bytes.
 */
#define ZSTD_LIGHT_HASH_LOG 12

/* LZ4_sizeofState() of 1.9.4 is 16416; create() compares. */
#define LZ4_STATE_BYTES 16448u

struct godwit_codec_ctx {
	struct godwit_alloc alloc;

	struct zstd {
		ZSTD_CCtx *cctx;	/* NULL: not asked for yet */
		int level;		/* that it is set to; 0: none yet, as that is no level */
		uint64_t had;		/* levels for which it has the room, bit by bit */
	} zstd[2][ZSTD_CLASSES];
	ZSTD_DCtx *dctx;

	z_stream deflate;
	z_stream inflate;
	bool has_deflate;
	bool has_inflate;
	int deflate_level;

	alignas(64) uint8_t lz4[LZ4_STATE_BYTES];
};

/* Only ever read; not const, so that it takes no room in the file. */
static uint8_t zeros[FULL_BYTES];

/* ---- none ---- */

static size_t none_compress(struct godwit_codec_ctx *ctx, int level, const void *in, size_t in_bytes,
			    void *out, size_t out_cap_bytes)
{
	if (in_bytes > out_cap_bytes)
		return 0;
	memcpy(out, in, in_bytes);
	return in_bytes;
}

static bool none_decompress(struct godwit_codec_ctx *ctx, const void *in, size_t in_bytes, void *out,
			    size_t out_bytes)
{
	if (in_bytes != out_bytes)
		return false;
	memcpy(out, in, in_bytes);
	return true;
}

/* ---- LZ4 ---- */

static size_t lz4_compress(struct godwit_codec_ctx *ctx, int level, const void *in, size_t in_bytes,
			   void *out, size_t out_cap_bytes)
{
	int got = LZ4_compress_fast_extState(ctx->lz4, in, out, (int)in_bytes, (int)out_cap_bytes, level);

	return got > 0 ? (size_t)got : 0;
}

static bool lz4_decompress(struct godwit_codec_ctx *ctx, const void *in, size_t in_bytes, void *out,
			   size_t out_bytes)
{
	return LZ4_decompress_safe(in, out, (int)in_bytes, (int)out_bytes) == (int)out_bytes;
}

/* ---- zstd ---- */

static bool zstd_open(struct zstd *zstd, bool is_heavy)
{
	ZSTD_CCtx *cctx = ZSTD_createCCtx();

	if (!cctx || ZSTD_isError(ZSTD_CCtx_setParameter(cctx, ZSTD_c_contentSizeFlag, 0)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(cctx, ZSTD_c_checksumFlag, 0)) ||
	    (!is_heavy && ZSTD_isError(ZSTD_CCtx_setParameter(cctx, ZSTD_c_hashLog, ZSTD_LIGHT_HASH_LOG)))) {
		ZSTD_freeCCtx(cctx);
		return false;
	}
	zstd->cctx = cctx;
	return true;
}

/* The context for blocks of this size, set to the level, with all the room that any such block needs; or NULL. */
static struct zstd *zstd_ready(struct godwit_codec_ctx *ctx, int level, size_t in_bytes)
{
	bool is_heavy = level >= ZSTD_HEAVY_LEVEL;
	uint64_t bit = (uint64_t)1 << (level - ZSTD_LEAST_LEVEL);
	uint8_t out[256];	/* the zeros come to 20 bytes */
	struct zstd *zstd;
	unsigned i = 0;

	/* Blocks above the last class take its context. */
	while (i < ZSTD_CLASSES - 1 && in_bytes > zstd_class_bytes[i])
		i++;
	zstd = &ctx->zstd[is_heavy][i];
	if (!zstd->cctx && !zstd_open(zstd, is_heavy))
		return NULL;
	if (level != zstd->level) {
		if (ZSTD_isError(ZSTD_CCtx_setParameter(zstd->cctx, ZSTD_c_compressionLevel, level)))
			return NULL;
		zstd->level = level;
	}
	if (!(zstd->had & bit)) {
		if (ZSTD_isError(ZSTD_compress2(zstd->cctx, out, sizeof(out), zeros, zstd_class_bytes[i])))
			return NULL;
		zstd->had |= bit;
	}
	return zstd;
}

static bool zstd_prepare(struct godwit_codec_ctx *ctx, int level, size_t in_bytes)
{
	return zstd_ready(ctx, level, in_bytes);
}

static size_t zstd_compress(struct godwit_codec_ctx *ctx, int level, const void *in, size_t in_bytes,
			    void *out, size_t out_cap_bytes)
{
	struct zstd *zstd = zstd_ready(ctx, level, in_bytes);
	size_t got;

	if (!zstd)
		return 0;
	got = ZSTD_compress2(zstd->cctx, out, out_cap_bytes, in, in_bytes);
	return ZSTD_isError(got) ? 0 : got;
}

static bool zstd_decompress(struct godwit_codec_ctx *ctx, const void *in, size_t in_bytes, void *out,
			    size_t out_bytes)
{
	static const uint8_t magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };

	if (in_bytes < sizeof(magic) || memcmp(in, magic, sizeof(magic)))
		return false;
	if (ZSTD_findFrameCompressedSize(in, in_bytes) != in_bytes)
		return false;
	return ZSTD_decompressDCtx(ctx->dctx, out, out_bytes, in, in_bytes) == out_bytes;
}

static void zstd_destroy(struct godwit_codec_ctx *ctx)
{
	for (unsigned i = 0; i < 2 * ZSTD_CLASSES; i++)
		ZSTD_freeCCtx(ctx->zstd[i / ZSTD_CLASSES][i % ZSTD_CLASSES].cctx);
	ZSTD_freeDCtx(ctx->dctx);
}

/* ---- zlib ---- */

static voidpf zlib_alloc(voidpf opaque, uInt items, uInt bytes)
{
	const struct godwit_alloc *alloc = opaque;

	return alloc->alloc(alloc->user, (size_t)items * bytes);
}

static void zlib_free(voidpf opaque, voidpf mem)
{
	const struct godwit_alloc *alloc = opaque;

	alloc->free(alloc->user, mem);
}

static bool zlib_prepare(struct godwit_codec_ctx *ctx, int level, size_t in_bytes)
{
	if (ctx->has_deflate)
		return true;
	ctx->deflate = (z_stream){ .zalloc = zlib_alloc, .zfree = zlib_free, .opaque = &ctx->alloc };
	ctx->deflate_level = level;
	ctx->has_deflate = deflateInit2(&ctx->deflate, level, Z_DEFLATED, -MAX_WBITS, 8,
					Z_DEFAULT_STRATEGY) == Z_OK;
	return ctx->has_deflate;
}

static size_t zlib_compress(struct godwit_codec_ctx *ctx, int level, const void *in, size_t in_bytes,
			    void *out, size_t out_cap_bytes)
{
	z_stream *z = &ctx->deflate;

	if (!zlib_prepare(ctx, level, in_bytes) || deflateReset(z) != Z_OK)
		return 0;
	/* zlib does not write through next_in; its type is older than const. */
	z->next_in = (Bytef *)(uintptr_t)in;
	z->avail_in = 0;
	z->next_out = out;
	z->avail_out = (uInt)out_cap_bytes;
	if (level != ctx->deflate_level && deflateParams(z, level, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	ctx->deflate_level = level;
	z->avail_in = (uInt)in_bytes;
	if (deflate(z, Z_FINISH) != Z_STREAM_END)
		return 0;
	return out_cap_bytes - z->avail_out;
}

static bool zlib_decompress(struct godwit_codec_ctx *ctx, const void *in, size_t in_bytes, void *out,
			    size_t out_bytes)
{
	z_stream *z = &ctx->inflate;

	if (inflateReset(z) != Z_OK)
		return false;
	z->next_in = (Bytef *)(uintptr_t)in;
	z->avail_in = (uInt)in_bytes;
	z->next_out = out;
	z->avail_out = (uInt)out_bytes;
	return inflate(z, Z_FINISH) == Z_STREAM_END && !z->avail_in && !z->avail_out;
}

static int zlib_create(struct godwit_codec_ctx *ctx)
{
	/* A stored block of 16 bytes that ends after 4: inflate() must now get its window. */
	static const uint8_t cut[] = { 0x01, 0x10, 0x00, 0xef, 0xff, 1, 2, 3, 4 };
	uint8_t out[16];

	ctx->inflate = (z_stream){ .zalloc = zlib_alloc, .zfree = zlib_free, .opaque = &ctx->alloc };
	ctx->has_inflate = inflateInit2(&ctx->inflate, -MAX_WBITS) == Z_OK;
	if (!ctx->has_inflate)
		return -ENOMEM;
	zlib_decompress(ctx, cut, sizeof(cut), out, sizeof(out));
	return ctx->inflate.avail_in || ctx->inflate.total_out != 4 ? -ENOMEM : 0;
}

/* ---- the table ---- */

static const struct codec {
	bool (*prepare)(struct godwit_codec_ctx *ctx, int level, size_t in_bytes);	/* NULL: nothing to do */
	size_t (*compress)(struct godwit_codec_ctx *ctx, int level, const void *in, size_t in_bytes,
			   void *out, size_t out_cap_bytes);
	bool (*decompress)(struct godwit_codec_ctx *ctx, const void *in, size_t in_bytes, void *out,
			   size_t out_bytes);
} codecs[GODWIT_CODECS] = {
	[GODWIT_CODEC_NONE] = { NULL, none_compress, none_decompress },
	[GODWIT_CODEC_LZ4] = { NULL, lz4_compress, lz4_decompress },
	[GODWIT_CODEC_ZSTD] = { zstd_prepare, zstd_compress, zstd_decompress },
	[GODWIT_CODEC_ZLIB] = { zlib_prepare, zlib_compress, zlib_decompress },
};

bool godwit_codec_prepare(struct godwit_codec_ctx *ctx, struct godwit_rung rung, size_t in_bytes)
{
	assert(godwit_rung_is_valid(rung));
	return !codecs[rung.codec].prepare || codecs[rung.codec].prepare(ctx, rung.level, in_bytes);
}

size_t godwit_codec_compress(struct godwit_codec_ctx *ctx, struct godwit_rung rung, const void *in,
			     size_t in_bytes, void *out, size_t out_cap_bytes)
{
	assert(godwit_rung_is_valid(rung));
	if (!in_bytes || in_bytes > GODWIT_CODEC_MAX_BYTES || !out_cap_bytes)
		return 0;
	/* The codecs count in int: no more room than any of them could need. */
	if (out_cap_bytes > 2 * GODWIT_CODEC_MAX_BYTES)
		out_cap_bytes = 2 * GODWIT_CODEC_MAX_BYTES;
	return codecs[rung.codec].compress(ctx, rung.level, in, in_bytes, out, out_cap_bytes);
}

bool godwit_codec_decompress(struct godwit_codec_ctx *ctx, unsigned codec, const void *in,
			     size_t in_bytes, void *out, size_t out_bytes)
{
	if (codec >= GODWIT_CODECS || !in_bytes || !out_bytes || in_bytes > GODWIT_CODEC_MAX_BYTES ||
	    out_bytes > GODWIT_CODEC_MAX_BYTES)
		return false;
	return codecs[codec].decompress(ctx, in, in_bytes, out, out_bytes);
}

int godwit_codec_ctx_create(const struct godwit_alloc *alloc, struct godwit_codec_ctx **ctx_ret)
{
	struct godwit_codec_ctx *ctx;
	int err;

	if ((size_t)LZ4_sizeofState() > sizeof(ctx->lz4))
		return -ENOMEM;
	ctx = alloc->alloc(alloc->user, sizeof(*ctx));
	if (!ctx)
		return -ENOMEM;
	memset(ctx, 0, sizeof(*ctx));
	ctx->alloc = *alloc;
	ctx->dctx = ZSTD_createDCtx();
	err = ctx->dctx ? zlib_create(ctx) : -ENOMEM;
	if (err) {
		godwit_codec_ctx_destroy(ctx);
		return err;
	}
	*ctx_ret = ctx;
	return 0;
}

void godwit_codec_ctx_destroy(struct godwit_codec_ctx *ctx)
{
	struct godwit_alloc alloc;

	if (!ctx)
		return;
	if (ctx->has_inflate)
		inflateEnd(&ctx->inflate);
	if (ctx->has_deflate)
		deflateEnd(&ctx->deflate);
	zstd_destroy(ctx);
	alloc = ctx->alloc;
	alloc.free(alloc.user, ctx);
}
