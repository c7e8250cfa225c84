/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TEST_STOCK_READER_H
#define GODWIT_TEST_STOCK_READER_H

/*
 * stock_reader.h - what an unpatched QEMU does with pages in a RAM section, written from the format
 *
 *   u64 big-endian: offset in the block, and below a page's size flags: 0x02 zero, 0x08 page,
 *       0x40 XBZRLE, and with each of them 0x20 if the block is that of the page before
 *   without 0x20: u8 length of the block's name, and the name
 *   zero: u8 0     page: 4096 bytes     XBZRLE: u8 1, u16 big-endian length (to 4096), delta
 *
 * It is told where each piece begins, and then forgets the block, as a piece stands for itself. Anything
 * that QEMU would refuse fails the test.
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "../xbzrle/naive.h"

#define STOCK_MAX_BLOCKS 8
#define STOCK_PAGE 4096u

struct stock_block {
	char name[256];
	uint8_t *ram;
	uint64_t bytes;			/* 0: no block */
};

struct stock_reader {
	struct stock_block block[STOCK_MAX_BLOCKS];
	uint64_t zero, whole, xbzrle, xbzrle_bytes;
};

struct stock_bytes {
	const uint8_t *at, *end;
};

static inline void stock_add_block(struct stock_reader *r, const char *name, uint8_t *ram, uint64_t bytes)
{
	unsigned i = 0;

	while (r->block[i].bytes)
		i++;
	cr_assert_lt(i, STOCK_MAX_BLOCKS);
	strcpy(r->block[i].name, name);
	r->block[i].ram = ram;
	r->block[i].bytes = bytes;
}

static inline struct stock_block *stock_find(struct stock_reader *r, const char *name)
{
	for (unsigned i = 0; i < STOCK_MAX_BLOCKS; i++)
		if (r->block[i].bytes && !strcmp(r->block[i].name, name))
			return &r->block[i];
	return NULL;
}

static inline void stock_remove_block(struct stock_reader *r, const char *name)
{
	stock_find(r, name)->bytes = 0;
}

static inline const uint8_t *stock_take(struct stock_bytes *in, size_t bytes)
{
	const uint8_t *at = in->at;

	cr_assert_leq(bytes, (size_t)(in->end - in->at), "the piece ends inside a page");
	in->at += bytes;
	return at;
}

static inline uint64_t stock_number(struct stock_bytes *in, unsigned bytes)
{
	const uint8_t *at = stock_take(in, bytes);
	uint64_t number = 0;

	while (bytes--)
		number = number << 8 | *at++;
	return number;
}

static inline void stock_xbzrle(struct stock_reader *r, struct stock_bytes *in, uint8_t *page)
{
	uint64_t encoding = stock_number(in, 1), bytes = stock_number(in, 2);
	const uint8_t *delta = stock_take(in, bytes);

	cr_assert_eq(encoding, 1);
	cr_assert_leq(bytes, STOCK_PAGE);
	cr_assert_gt(naive_decode(delta, bytes, page), 0, "a delta that QEMU refuses, or that changes nothing");
	r->xbzrle++;
	r->xbzrle_bytes += bytes + 3;
}

/* One piece, whole. */
static inline void stock_read(struct stock_reader *r, const void *piece, size_t piece_bytes)
{
	struct stock_bytes in = { piece, (const uint8_t *)piece + piece_bytes };
	struct stock_block *block = NULL;

	cr_assert_gt(piece_bytes, 0, "an empty piece");
	while (in.at < in.end) {
		uint64_t head = stock_number(&in, 8);
		uint64_t offset = head & ~(uint64_t)(STOCK_PAGE - 1);
		uint8_t *page;

		if (!(head & 0x20)) {
			size_t length = stock_number(&in, 1);
			char name[256] = "";

			memcpy(name, stock_take(&in, length), length);
			block = stock_find(r, name);
			cr_assert(block, "there is no block '%s'", name);
		}
		cr_assert(block, "a piece begins in the block of the one before");
		cr_assert_lt(offset, block->bytes, "offset %llx is not in %s", (unsigned long long)offset,
			     block->name);
		page = block->ram + offset;
		switch (head & (STOCK_PAGE - 1) & ~0x20u) {
		case 0x02:
			cr_assert_eq(stock_number(&in, 1), 0);
			memset(page, 0, STOCK_PAGE);
			r->zero++;
			break;
		case 0x08:
			memcpy(page, stock_take(&in, STOCK_PAGE), STOCK_PAGE);
			r->whole++;
			break;
		case 0x40:
			stock_xbzrle(r, &in, page);
			break;
		default:
			cr_assert_fail("flags %03llx", (unsigned long long)head & (STOCK_PAGE - 1));
		}
	}
}

#endif
