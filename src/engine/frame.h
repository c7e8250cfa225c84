/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_FRAME_H
#define GODWIT_FRAME_H

/*
 * frame.h - the wire format, version 2, byte by byte
 *
 * A stream is a sequence of units, each a head of 40 bytes and a body. All integers are
 * little-endian; a LEB128 is unsigned, 7 bits a byte, at most 5 bytes here. There are three units:
 * one *stream header* first, then *frames* (the pages of one batch), and a *drain frame* wherever the
 * source has sent out all that was queued. Between two drain frames no page occurs twice, so frames may
 * be decoded in any order there; nothing behind a drain frame is decoded before all in front of it.
 *
 * Head
 *   0  u32  magic: "GWS1" stream header, "GWF1" frame, "GWD1" drain frame
 *   4  u32  bytes of the body (0 for stream header and drain frame)
 *   8  u64  XXH3-64 (seed 0) of everything from byte 16 to the end of the body
 *  16  u64  stream header: version (1)           frame: its number          drain: frames since the last
 *  24  u64  stream header: page bytes (4096)     frame: first page          drain: sum of their checksums
 *  32  u32  stream header: line bytes (64)       frame: block id            drain: 0
 *  36  u8   stream header: pages a batch (64)    frame: pages, 1 to 64      drain: 0
 *  37  u8   0                                    frame: payload blocks, 0 to 3   0
 *  38  u16  0                                    frame: bytes of the page table  0
 *
 * The sum of checksums (modulo 2^64) in a drain frame is what tells a destination that it has seen each
 * frame once: a frame that went missing or came twice would leave a stale page behind.
 *
 * Body of a frame: the page table, then the payload blocks' stored bytes one after the other.
 *
 * Page table: per page, in strictly ascending order of page number,
 *   u8      kind in bits 0-2; bit 3: a gap follows; bits 4-7 zero
 *   LEB128  gap, only with bit 3 (and then not 0): pages left out since the page before (for the first
 *           page: always without, its number is in the head)
 *   u64     for FILL: the word; for WORDS and LINES: XXH3-64 of the page that must come out
 * then, if there is any SAME page,
 *   u64     their digests folded in order: fold = (fold ^ XXH3-64(page)) * 0x9E3779B97F4A7C15 from 0
 * then, per payload block,
 *   u32     codec in bits 0-7 (enum godwit_codec), plain bytes in bits 8-31 (1 to 131072)
 *   u32     stored bytes (1 to plain bytes; equal to them for codec none, less for the others)
 *
 * Payload: WORDS, LINES and WHOLE pages put their bytes one after the other into blocks of up to
 * 128 KiB, in page order; a page never crosses a block. WHOLE is the 4096 bytes; WORDS and LINES are as in
 * src/xbzrle/xbzrle.h: a u64 map of changed lines, for WORDS one byte of word mask per changed line, and
 * the changed words or lines as they are now. Blocks are full in the sense that the next page
 * did not fit; a reader does not rely on it. All plain bytes are used, exactly.
 *
 * A reader refuses whatever does not fit this text. There is no negotiation here: versions are agreed
 * by whoever opened the channel.
 */

#include <stdbool.h>
#include <string.h>

#include <godwit/batch.h>
#include <godwit/destination.h>

#define GODWIT_MAGIC_STREAM 0x31535747u	/* "GWS1" */
#define GODWIT_MAGIC_FRAME 0x31465747u	/* "GWF1" */
#define GODWIT_MAGIC_DRAIN 0x31445747u	/* "GWD1" */

#define GODWIT_STREAM_VERSION 2u

enum godwit_page_kind {
	GODWIT_KIND_ZERO = 0,
	GODWIT_KIND_FILL = 1,
	GODWIT_KIND_SAME = 2,
	GODWIT_KIND_WORDS = 3,
	GODWIT_KIND_LINES = 4,
	GODWIT_KIND_WHOLE = 5,
	GODWIT_KINDS = 6,
};
#define GODWIT_KIND_MASK 0x07u
#define GODWIT_KIND_GAP 0x08u

#define GODWIT_GAP_MAX_BYTES 5u
#define GODWIT_BLOCK_MAX_BYTES (128u << 10)
#define GODWIT_PLAIN_MAX_BYTES (GODWIT_BATCH_PAGES * GODWIT_PAGE_BYTES)
/* A block that is closed holds more than 128 KiB less a page, so 256 KiB never need more than three. */
#define GODWIT_MAX_PAYLOAD_BLOCKS 3u
_Static_assert((GODWIT_MAX_PAYLOAD_BLOCKS - 1) * (GODWIT_BLOCK_MAX_BYTES - GODWIT_PAGE_BYTES + 1) +
		       GODWIT_PAGE_BYTES <= GODWIT_PLAIN_MAX_BYTES &&
		       GODWIT_MAX_PAYLOAD_BLOCKS * (GODWIT_BLOCK_MAX_BYTES - GODWIT_PAGE_BYTES + 1) >
			       GODWIT_PLAIN_MAX_BYTES,
	       "a frame's plain bytes need at most three blocks");

#define GODWIT_TABLE_MAX_BYTES                                                                             \
	(GODWIT_BATCH_PAGES * (1 + GODWIT_GAP_MAX_BYTES + 8) + 8 + GODWIT_MAX_PAYLOAD_BLOCKS * 8)
_Static_assert(GODWIT_HEAD_BYTES + GODWIT_TABLE_MAX_BYTES + GODWIT_PLAIN_MAX_BYTES <=
		       GODWIT_FRAME_MAX_BYTES,
	       "the public bound holds");

#define GODWIT_FOLD_PRIME 0x9E3779B97F4A7C15ull

struct godwit_head {
	uint32_t magic;
	uint32_t body_bytes;
	uint64_t checksum;
	uint64_t number;
	uint64_t first_page;
	uint32_t block;
	uint8_t nr_pages;
	uint8_t nr_blocks;
	uint16_t table_bytes;
};
_Static_assert(sizeof(struct godwit_head) == GODWIT_HEAD_BYTES, "the head is laid out as on the wire");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "heads are copied as they are");

/* The checksum covers what stands behind it. */
#define GODWIT_HEAD_SUMMED 16u

static inline struct godwit_head godwit_head_get(const void *at)
{
	struct godwit_head head;

	memcpy(&head, at, sizeof(head));
	return head;
}

/* Seal a unit whose head (all but the checksum) and body stand at `unit`. Returns the checksum. */
uint64_t godwit_unit_seal(uint8_t *unit, size_t unit_bytes);

/* Is the checksum right? */
bool godwit_unit_check(const uint8_t *unit, size_t unit_bytes);

/* The stream header and a drain frame, sealed: GODWIT_HEAD_BYTES each. */
void godwit_stream_header_put(uint8_t *unit);
void godwit_drain_frame_put(uint8_t *unit, uint64_t frames, uint64_t checksum_sum);

/* 0, or -EBADMSG and what does not fit. */
int godwit_stream_header_check(const uint8_t *unit, struct godwit_error *error);

#endif
