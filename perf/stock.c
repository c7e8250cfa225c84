/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stock.c - reads what a source emits with the stock stream, as a QEMU destination does: in one thread
 *
 * The format is described where it is written, in src/engine/stock.c.
 */
#include <string.h>

#include <godwit/godwit.h>

#include "perf.h"
#include "xbzrle/xbzrle.h"

#define FLAG_ZERO 0x02u
#define FLAG_PAGE 0x08u
#define FLAG_CONTINUE 0x20u
#define FLAG_XBZRLE 0x40u

struct input {
	const uint8_t *at, *end;
};

static const uint8_t *take(struct input *in, size_t bytes)
{
	const uint8_t *at = in->at;

	if (bytes > (size_t)(in->end - in->at))
		die("decode: the stream ends inside a page");
	in->at += bytes;
	return at;
}

static uint64_t take_number(struct input *in, unsigned bytes)
{
	const uint8_t *at = take(in, bytes);
	uint64_t number = 0;

	while (bytes--)
		number = number << 8 | *at++;
	return number;
}

static void take_name(struct input *in, const char *name)
{
	size_t length = take_number(in, 1);
	const uint8_t *at = take(in, length);

	if (length != strlen(name) || memcmp(at, name, length))
		die("decode: there is no block '%.*s'", (int)length, (const char *)at);
}

static void take_delta(struct input *in, uint8_t *page)
{
	uint64_t encoding = take_number(in, 1);
	size_t length = take_number(in, 2);

	if (encoding != 1 || !godwit_xbzrle_decode(take(in, length), length, page))
		die("decode: a malformed delta");
}

/* A page that is zero already is not written: it may never have been touched. */
static void make_zero(uint8_t *page)
{
	if (!godwit_page_is_zero(page))
		memset(page, 0, GODWIT_PAGE_BYTES);
}

void stock_apply(const void *stream, size_t stream_bytes, const char *name, uint8_t *ram, uint64_t ram_bytes)
{
	struct input in = { stream, (const uint8_t *)stream + stream_bytes };

	while (in.at < in.end) {
		uint64_t head = take_number(&in, 8);
		uint64_t offset = head & ~(uint64_t)(GODWIT_PAGE_BYTES - 1);

		if (!(head & FLAG_CONTINUE))
			take_name(&in, name);
		if (offset >= ram_bytes)
			die("decode: offset %llu is not in the block", (unsigned long long)offset);
		switch (head & (GODWIT_PAGE_BYTES - 1) & ~FLAG_CONTINUE) {
		case FLAG_ZERO:
			take_number(&in, 1);
			make_zero(ram + offset);
			break;
		case FLAG_PAGE:
			memcpy(ram + offset, take(&in, GODWIT_PAGE_BYTES), GODWIT_PAGE_BYTES);
			break;
		case FLAG_XBZRLE:
			take_delta(&in, ram + offset);
			break;
		default:
			die("decode: a page with flags 0x%llx",
			    (unsigned long long)head & (GODWIT_PAGE_BYTES - 1));
		}
	}
}
