/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * decoder.c - a frame becomes pages
 *
 * The other host is not trusted. Everything a frame says is checked before it is used, and all of it is
 * checked before any guest page is written:
 *
 *   1. read_head     lengths, checksum, block and page range
 *   2. read_table    page kinds, gaps, digests; payload blocks and their lengths
 *   3. unpack        payload blocks through their codecs into staging (codec none: where they are)
 *   4. place         which bytes of which block each page has; deltas well formed, nothing left over
 *   5. verify        each delta put onto a copy of the page that is there gives the digest; same pages
 *                    are what the source believes
 *   6. apply         now the guest's pages are written
 *
 * The copy of step 5 is one page that stays in the first cache level, and step 6 writes the delta again, to
 * the guest: cheaper than 64 finished pages that would be copied once more.
 *
 * Threads: one decoder, one thread. Nobody else writes the pages between 5 and 6 (batch.h).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "codecs/codecs.h"
#include "engine/absent.h"
#include "engine/arena.h"
#include "engine/clock.h"
#include "engine/decoder.h"
#include "engine/digest.h"
#include "engine/error.h"
#include "engine/frame.h"
#include "engine/ram.h"
#include "xbzrle/xbzrle.h"

struct page_todo {
	uint64_t page;
	uint64_t word;			/* FILL: the word; deltas: the digest */
	const uint8_t *bytes;		/* WHOLE and deltas: in a payload block */
	uint32_t kind;
	uint32_t at;			/* byte of the frame where its entry starts, for errors */
};

struct packed_block {
	const uint8_t *stored;
	const uint8_t *plain;
	uint32_t stored_bytes, plain_bytes;
	uint32_t codec;
	uint32_t at;
	uint32_t pages;
};

struct godwit_decoder {
	const struct godwit_ram *ram;
	struct godwit_arena *arena;
	uint64_t created_at_ns;
	struct godwit_codec_ctx *codec;
	uint8_t *staging;		/* GODWIT_PLAIN_MAX_BYTES */

	/* The frame at hand. */
	const uint8_t *frame;
	size_t frame_bytes;
	struct godwit_head head;
	const struct godwit_ram_block *block;
	struct godwit_absent absent;
	struct page_todo todo[GODWIT_BATCH_PAGES];
	struct packed_block packed[GODWIT_MAX_PAYLOAD_BLOCKS];
	uint64_t fold;			/* as the source says */
	uint32_t fold_at;
	struct godwit_error *error;

	alignas(GODWIT_LINE_BYTES) uint8_t copy[GODWIT_PAGE_BYTES];
	struct godwit_counters counters;
};

/* Every refusal names the block, the frame and the byte in the frame. */
static int __attribute__((format(printf, 3, 4)))
refuse(struct godwit_decoder *d, size_t at, const char *format, ...)
{
	char what[128];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	godwit_error_set(d->error, "frame %llu, block %u%s%s%s, byte %zu: %s",
			 (unsigned long long)d->head.number, d->head.block,
			 d->block ? " (" : "", d->block ? d->block->name : "", d->block ? ")" : "", at,
			 what);
	return -EBADMSG;
}

/* ---- 1. the head ---- */

static int read_head(struct godwit_decoder *d)
{
	const struct godwit_head *head = &d->head;

	d->block = NULL;
	memset(&d->head, 0, sizeof(d->head));
	if (d->frame_bytes < sizeof(*head))
		return refuse(d, d->frame_bytes, "a frame of %zu bytes ends inside its head",
			      d->frame_bytes);
	d->head = godwit_head_get(d->frame);
	if (head->magic != GODWIT_MAGIC_FRAME)
		return refuse(d, 0, "no frame begins with 0x%08x", head->magic);
	if (head->body_bytes != d->frame_bytes - sizeof(*head))
		return refuse(d, 4, "%u bytes of body announced, %zu there", head->body_bytes,
			      d->frame_bytes - sizeof(*head));
	if (!godwit_unit_check(d->frame, d->frame_bytes))
		return refuse(d, 8, "the checksum is wrong: bytes were changed on the way");
	d->block = godwit_ram_block(d->ram, head->block);
	if (!d->block)
		return refuse(d, 32, "there is no such RAM block here");
	if (!head->nr_pages || head->nr_pages > GODWIT_BATCH_PAGES)
		return refuse(d, 36, "%u pages in one frame", head->nr_pages);
	if (head->nr_blocks > GODWIT_MAX_PAYLOAD_BLOCKS)
		return refuse(d, 37, "%u payload blocks", head->nr_blocks);
	if (head->table_bytes > head->body_bytes)
		return refuse(d, 38, "a page table of %u bytes in a body of %u", head->table_bytes,
			      head->body_bytes);
	return 0;
}

/* ---- 2. the page table ---- */

/* A place in the table that never moves past its end. */
struct cursor {
	const uint8_t *at;
	const uint8_t *end;
};

static bool take(struct cursor *cursor, void *to, size_t nr_bytes)
{
	if ((size_t)(cursor->end - cursor->at) < nr_bytes)
		return false;
	memcpy(to, cursor->at, nr_bytes);
	cursor->at += nr_bytes;
	return true;
}

static bool take_gap(struct cursor *cursor, uint64_t *gap_ret)
{
	uint64_t gap = 0;
	uint8_t byte;

	for (unsigned i = 0; i < GODWIT_GAP_MAX_BYTES; i++) {
		if (!take(cursor, &byte, 1))
			return false;
		gap |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (!(byte & 0x80)) {
			*gap_ret = gap;
			return byte != 0;	/* the shortest form only, and no gap of 0 */
		}
	}
	return false;
}

static int read_page_entry(struct godwit_decoder *d, struct cursor *cursor, unsigned i)
{
	struct page_todo *todo = &d->todo[i];
	size_t at = (size_t)(cursor->at - d->frame);
	uint64_t gap = 0;
	uint8_t tag;

	*todo = (struct page_todo){ .at = (uint32_t)at };
	if (!take(cursor, &tag, 1))
		return refuse(d, at, "the page table ends at page %u of %u", i, d->head.nr_pages);
	todo->kind = tag & GODWIT_KIND_MASK;
	if (todo->kind >= GODWIT_KINDS || (tag & ~(GODWIT_KIND_MASK | GODWIT_KIND_GAP)))
		return refuse(d, at, "a page of unknown kind 0x%02x", tag);
	if (tag & GODWIT_KIND_GAP) {
		if (!i || !take_gap(cursor, &gap))
			return refuse(d, at, "a bad gap before page %u of the frame", i);
	}
	todo->page = i ? d->todo[i - 1].page + 1 + gap : d->head.first_page;
	if (todo->page >= d->block->pages || (i && todo->page <= d->todo[i - 1].page))
		return refuse(d, at, "page %llu is outside of a block of %llu pages",
			      (unsigned long long)todo->page, (unsigned long long)d->block->pages);
	if ((todo->kind == GODWIT_KIND_FILL || todo->kind == GODWIT_KIND_WORDS ||
	     todo->kind == GODWIT_KIND_LINES) && !take(cursor, &todo->word, sizeof(todo->word)))
		return refuse(d, at, "the page table ends inside page %u of the frame", i);
	return 0;
}

static int read_block_entry(struct godwit_decoder *d, struct cursor *cursor, unsigned i)
{
	struct packed_block *packed = &d->packed[i];
	size_t at = (size_t)(cursor->at - d->frame);
	uint32_t word[2];

	if (!take(cursor, word, sizeof(word)))
		return refuse(d, at, "the page table ends inside payload block %u", i);
	*packed = (struct packed_block){
		.codec = word[0] & 0xff,
		.plain_bytes = word[0] >> 8,
		.stored_bytes = word[1],
		.at = (uint32_t)at,
	};
	if (packed->codec >= GODWIT_CODECS)
		return refuse(d, at, "unknown codec %u", packed->codec);
	if (!packed->plain_bytes || packed->plain_bytes > GODWIT_BLOCK_MAX_BYTES)
		return refuse(d, at, "a payload block of %u bytes", packed->plain_bytes);
	if (packed->codec == GODWIT_CODEC_NONE ? packed->stored_bytes != packed->plain_bytes :
						 !packed->stored_bytes ||
						 packed->stored_bytes >= packed->plain_bytes)
		return refuse(d, at + 4, "%u bytes stored for a payload block of %u",
			      packed->stored_bytes, packed->plain_bytes);
	return 0;
}

static int read_table(struct godwit_decoder *d)
{
	const uint8_t *table = d->frame + sizeof(d->head);
	struct cursor cursor = { table, table + d->head.table_bytes };
	const uint8_t *stored = cursor.end;
	size_t left = d->head.body_bytes - d->head.table_bytes;
	size_t plain_bytes = 0;
	bool any_same = false;

	for (unsigned i = 0; i < d->head.nr_pages; i++) {
		int err = read_page_entry(d, &cursor, i);

		if (err)
			return err;
		any_same |= d->todo[i].kind == GODWIT_KIND_SAME;
	}
	d->fold_at = (uint32_t)(cursor.at - d->frame);
	if (any_same && !take(&cursor, &d->fold, sizeof(d->fold)))
		return refuse(d, d->fold_at, "the digest of the same pages is missing");
	for (unsigned i = 0; i < d->head.nr_blocks; i++) {
		struct packed_block *packed = &d->packed[i];
		int err = read_block_entry(d, &cursor, i);

		if (err)
			return err;
		if (packed->stored_bytes > left)
			return refuse(d, packed->at + 4, "payload block %u reaches past the frame", i);
		packed->stored = stored;
		stored += packed->stored_bytes;
		left -= packed->stored_bytes;
		plain_bytes += packed->plain_bytes;
	}
	if (cursor.at != cursor.end)
		return refuse(d, (size_t)(cursor.at - d->frame), "%zu bytes too many in the page table",
			      (size_t)(cursor.end - cursor.at));
	if (left)
		return refuse(d, d->frame_bytes - left, "%zu bytes behind the last payload block", left);
	if (plain_bytes > GODWIT_PLAIN_MAX_BYTES)
		return refuse(d, 4, "%zu bytes of payload in one frame", plain_bytes);
	return 0;
}

/* ---- 3. the payload ---- */

static int unpack(struct godwit_decoder *d)
{
	uint8_t *staging = d->staging;

	for (unsigned i = 0; i < d->head.nr_blocks; i++) {
		struct packed_block *packed = &d->packed[i];

		if (packed->codec == GODWIT_CODEC_NONE) {
			packed->plain = packed->stored;
			continue;
		}
		if (!godwit_codec_decompress(d->codec, packed->codec, packed->stored,
					     packed->stored_bytes, staging, packed->plain_bytes))
			return refuse(d, (size_t)(packed->stored - d->frame),
				      "payload block %u does not decode to its %u bytes", i,
				      packed->plain_bytes);
		packed->plain = staging;
		staging += packed->plain_bytes;
	}
	return 0;
}

/* ---- 4. each page's bytes ---- */

static size_t bytes_of(const struct page_todo *todo, const uint8_t *bytes, size_t left)
{
	switch (todo->kind) {
	case GODWIT_KIND_WORDS:
		return godwit_words_check(bytes, left);
	case GODWIT_KIND_LINES:
		return godwit_lines_check(bytes, left);
	default:
		return left < GODWIT_PAGE_BYTES ? 0 : GODWIT_PAGE_BYTES;
	}
}

static int place(struct godwit_decoder *d)
{
	struct packed_block *packed = d->packed;
	struct packed_block *end = packed + d->head.nr_blocks;
	size_t used = 0;

	for (unsigned i = 0; i < d->head.nr_pages; i++) {
		struct page_todo *todo = &d->todo[i];
		size_t bytes;

		if (todo->kind < GODWIT_KIND_WORDS)
			continue;
		if (packed < end && used == packed->plain_bytes) {
			packed++;
			used = 0;
		}
		if (packed == end)
			return refuse(d, todo->at, "page %llu has no payload",
				      (unsigned long long)todo->page);
		bytes = bytes_of(todo, packed->plain + used, packed->plain_bytes - used);
		if (!bytes)
			return refuse(d, todo->at, "page %llu: %s", (unsigned long long)todo->page,
				      todo->kind == GODWIT_KIND_WHOLE ? "less than a page of payload" :
									"a malformed delta");
		todo->bytes = packed->plain + used;
		used += bytes;
		packed->pages++;
	}
	if (packed < end && used == packed->plain_bytes)
		packed++;
	if (packed < end)
		return refuse(d, packed->at, "payload that belongs to no page");
	return 0;
}

/* ---- 5. would it come out right? ---- */

static uint8_t *host_of(const struct godwit_decoder *d, const struct page_todo *todo)
{
	return d->block->host + todo->page * GODWIT_PAGE_BYTES;
}

static void apply_delta(const struct page_todo *todo, uint8_t *page)
{
	if (todo->kind == GODWIT_KIND_WORDS)
		godwit_words_apply(todo->bytes, page);
	else
		godwit_lines_apply(todo->bytes, page);
}

static int verify(struct godwit_decoder *d)
{
	uint64_t fold = 0;
	bool any_same = false;

	for (unsigned i = 0; i < d->head.nr_pages; i++) {
		struct page_todo *todo = &d->todo[i];

		if (todo->kind == GODWIT_KIND_SAME) {
			fold = (fold ^ godwit_digest(host_of(d, todo), GODWIT_PAGE_BYTES)) *
			       GODWIT_FOLD_PRIME;
			any_same = true;
		} else if (todo->kind == GODWIT_KIND_WORDS || todo->kind == GODWIT_KIND_LINES) {
			memcpy(d->copy, host_of(d, todo), GODWIT_PAGE_BYTES);
			apply_delta(todo, d->copy);
			if (godwit_digest(d->copy, GODWIT_PAGE_BYTES) != todo->word)
				return refuse(d, todo->at, "page %llu: its delta does not fit what is "
					      "here: the page is not what the source believes",
					      (unsigned long long)todo->page);
		}
	}
	if (any_same && fold != d->fold)
		return refuse(d, d->fold_at, "pages said to be the same are not");
	return 0;
}

/* ---- 6. the guest's pages ---- */

/* Write only what is not there yet. */
static void apply_fill(struct godwit_touch *touch, uint8_t *host, uint64_t word)
{
	uint64_t *at = (uint64_t *)host;

	if (godwit_page_is_fill(host, word))
		return;
	godwit_touch(touch, host);
	for (unsigned i = 0; i < GODWIT_PAGE_BYTES / sizeof(*at); i++)
		at[i] = word;
}

static void apply(struct godwit_decoder *d, uint64_t count[GODWIT_COUNTERS])
{
	struct godwit_touch *touch = d->block->touch;
	bool may_be_absent = d->block->may_be_absent;

	godwit_absent_begin(&d->absent, d->ram->pagemap);
	for (unsigned i = 0; i < d->head.nr_pages; i++) {
		struct page_todo *todo = &d->todo[i];
		uint8_t *host = host_of(d, todo);

		switch (todo->kind) {
		case GODWIT_KIND_ZERO:
			if (!may_be_absent || !godwit_absent_is(&d->absent, host))
				apply_fill(touch, host, 0);
			count[GODWIT_COUNT_ZERO]++;
			break;
		case GODWIT_KIND_FILL:
			apply_fill(touch, host, todo->word);
			count[GODWIT_COUNT_FILL]++;
			break;
		case GODWIT_KIND_SAME:
			count[GODWIT_COUNT_SAME]++;
			break;
		case GODWIT_KIND_WHOLE:
			godwit_touch(touch, host);
			memcpy(host, todo->bytes, GODWIT_PAGE_BYTES);
			count[GODWIT_COUNT_WHOLE]++;	/* raw ones are told apart by count_blocks() */
			break;
		default:
			godwit_touch(touch, host);
			apply_delta(todo, host);
			count[todo->kind == GODWIT_KIND_WORDS ? GODWIT_COUNT_WORDS :
								GODWIT_COUNT_LINES]++;
		}
	}
}

/* Which pages came through a codec: blocks hold pages in order. */
static void count_blocks(struct godwit_decoder *d, uint64_t count[GODWIT_COUNTERS])
{
	unsigned i = 0;

	for (unsigned b = 0; b < d->head.nr_blocks; b++) {
		const struct packed_block *packed = &d->packed[b];
		unsigned whole = 0, pages = packed->pages;

		for (; pages; i++) {
			if (d->todo[i].kind < GODWIT_KIND_WORDS)
				continue;
			whole += d->todo[i].kind == GODWIT_KIND_WHOLE;
			pages--;
		}
		count[GODWIT_COUNT_CODEC_IN + packed->codec] += packed->plain_bytes;
		count[GODWIT_COUNT_CODEC_OUT + packed->codec] += packed->stored_bytes;
		count[GODWIT_COUNT_DELTA_BYTES] += packed->plain_bytes - whole * GODWIT_PAGE_BYTES;
		if (packed->codec == GODWIT_CODEC_NONE) {
			count[GODWIT_COUNT_WHOLE] -= whole;
			count[GODWIT_COUNT_RAW] += whole;
		} else {
			count[GODWIT_COUNT_SHRUNK] += packed->pages;
		}
	}
}

int godwit_decoder_run(struct godwit_decoder *d, const void *frame, size_t frame_bytes,
		       struct godwit_error *error)
{
	uint64_t count[GODWIT_COUNTERS] = { 0 };
	int err;

	d->frame = frame;
	d->frame_bytes = frame_bytes;
	d->error = error;

	err = read_head(d);
	if (!err)
		err = read_table(d);
	if (!err)
		err = unpack(d);
	if (!err)
		err = place(d);
	if (!err)
		err = verify(d);
	if (err) {
		d->head.nr_pages = 0;	/* none was applied */
		return err;
	}

	apply(d, count);
	count_blocks(d, count);
	count[GODWIT_COUNT_FRAMES] = 1;
	count[GODWIT_COUNT_WIRE_BYTES] = frame_bytes;
	godwit_counters_add(&d->counters, count);
	return 0;
}

/* ---- birth and end ---- */

struct godwit_counters *godwit_decoder_counters(struct godwit_decoder *d)
{
	return &d->counters;
}

int godwit_decoder_create_in(struct godwit_arena *arena, const struct godwit_ram *ram,
			     struct godwit_decoder **decoder_ret)
{
	struct godwit_alloc alloc = godwit_arena_allocator(arena);
	struct godwit_decoder *d = godwit_arena_alloc_zero(arena, sizeof(*d));
	int err = -ENOMEM;

	if (!d)
		return -ENOMEM;
	d->ram = ram;
	d->arena = arena;
	d->created_at_ns = godwit_now_ns();
	d->staging = godwit_arena_alloc(arena, GODWIT_PLAIN_MAX_BYTES);
	if (!d->staging)
		goto free_decoder;
	err = godwit_codec_ctx_create(&alloc, &d->codec);
	if (err)
		goto free_staging;
	*decoder_ret = d;
	return 0;

free_staging:
	godwit_arena_free(arena, d->staging);
free_decoder:
	godwit_arena_free(arena, d);
	return err;
}

void godwit_decoder_destroy_in(struct godwit_decoder *d)
{
	godwit_codec_ctx_destroy(d->codec);
	godwit_arena_free(d->arena, d->staging);
	godwit_arena_free(d->arena, d);
}

/* ---- the batch layer: a decoder with an arena of its own ---- */

int godwit_decoder_create(struct godwit_ram *ram, struct godwit_decoder **decoder_ret,
			  struct godwit_error *error)
{
	struct godwit_arena *arena;
	int err = godwit_arena_create_self(&arena);

	if (!err) {
		err = godwit_decoder_create_in(arena, ram, decoder_ret);
		if (err)
			godwit_arena_destroy_self(arena);
	}
	if (err)
		godwit_error_set(error, "no memory for a decoder");
	return err;
}

void godwit_decoder_destroy(struct godwit_decoder *d)
{
	struct godwit_arena *arena;

	if (!d)
		return;
	arena = d->arena;
	godwit_decoder_destroy_in(d);
	godwit_arena_destroy_self(arena);
}

int godwit_decode(struct godwit_decoder *d, const void *frame, size_t frame_bytes,
		  struct godwit_error *error)
{
	uint64_t start_ns = godwit_now_ns();
	int err = godwit_decoder_run(d, frame, frame_bytes, error);

	godwit_count(&d->counters, GODWIT_COUNT_WALL_NS, godwit_now_ns() - start_ns);
	return err;
}

uint32_t godwit_decoder_pages(const struct godwit_decoder *d, uint32_t *block_ret,
			      uint64_t pages_ret[GODWIT_BATCH_PAGES])
{
	*block_ret = d->head.block;
	for (unsigned i = 0; i < d->head.nr_pages; i++)
		pages_ret[i] = d->todo[i].page;
	return d->head.nr_pages;
}

int godwit_decoder_stats(const struct godwit_decoder *d, struct godwit_stats *out)
{
	struct godwit_stats stats = { .workers = 1 };
	uint64_t sum[GODWIT_COUNTERS] = { 0 };

	godwit_counters_sum(&d->counters, sum);
	godwit_stats_derive(&stats, sum, godwit_now_ns() - d->created_at_ns);
	stats.worker_cpu_ns = sum[GODWIT_COUNT_WALL_NS];
	return godwit_stats_give(out, &stats);
}
