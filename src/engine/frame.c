/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * frame.c - heads: sealing and checking, and the two units without a body
 *
 * What is inside a frame is put there by encoder_pages.c and encoder_payload.c, and taken out by decoder.c.
 */
#include <errno.h>

#include "engine/digest.h"
#include "engine/error.h"
#include "engine/frame.h"

#define CHECKSUM_AT offsetof(struct godwit_head, checksum)

static uint64_t unit_checksum(const uint8_t *unit, size_t unit_bytes)
{
	return godwit_digest(unit + GODWIT_HEAD_SUMMED, unit_bytes - GODWIT_HEAD_SUMMED);
}

uint64_t godwit_unit_seal(uint8_t *unit, size_t unit_bytes)
{
	uint64_t checksum = unit_checksum(unit, unit_bytes);

	memcpy(unit + CHECKSUM_AT, &checksum, sizeof(checksum));
	return checksum;
}

bool godwit_unit_check(const uint8_t *unit, size_t unit_bytes)
{
	return godwit_head_get(unit).checksum == unit_checksum(unit, unit_bytes);
}

static struct godwit_head stream_header(void)
{
	return (struct godwit_head){
		.magic = GODWIT_MAGIC_STREAM,
		.number = GODWIT_STREAM_VERSION,
		.first_page = GODWIT_PAGE_BYTES,
		.block = GODWIT_LINE_BYTES,
		.nr_pages = GODWIT_BATCH_PAGES,
	};
}

void godwit_stream_header_put(uint8_t *unit)
{
	struct godwit_head head = stream_header();

	memcpy(unit, &head, sizeof(head));
	godwit_unit_seal(unit, sizeof(head));
}

void godwit_drain_frame_put(uint8_t *unit, uint64_t frames, uint64_t checksum_sum)
{
	struct godwit_head head = {
		.magic = GODWIT_MAGIC_DRAIN,
		.number = frames,
		.first_page = checksum_sum,
	};

	memcpy(unit, &head, sizeof(head));
	godwit_unit_seal(unit, sizeof(head));
}

int godwit_stream_header_check(const uint8_t *unit, struct godwit_error *error)
{
	struct godwit_head head = godwit_head_get(unit);
	struct godwit_head ours = stream_header();

	if (head.magic != GODWIT_MAGIC_STREAM) {
		godwit_error_set(error, "not a godwit stream: it begins with 0x%08x", head.magic);
		return -EBADMSG;
	}
	if (head.body_bytes || !godwit_unit_check(unit, sizeof(head))) {
		godwit_error_set(error, "stream header is damaged: its checksum is wrong");
		return -EBADMSG;
	}
	if (head.number != ours.number) {
		godwit_error_set(error, "stream version %llu, this side reads version %u: use the same "
				 "release on both sides", (unsigned long long)head.number,
				 GODWIT_STREAM_VERSION);
		return -EBADMSG;
	}
	if (head.first_page != ours.first_page || head.block != ours.block ||
	    head.nr_pages != ours.nr_pages) {
		godwit_error_set(error, "stream has pages of %llu bytes, lines of %u, batches of %u; this "
				 "side has %u, %u, %u", (unsigned long long)head.first_page, head.block,
				 head.nr_pages, GODWIT_PAGE_BYTES, GODWIT_LINE_BYTES, GODWIT_BATCH_PAGES);
		return -EBADMSG;
	}
	ours.checksum = head.checksum;
	if (memcmp(&head, &ours, sizeof(head))) {
		godwit_error_set(error, "stream header asks for something this side does not know");
		return -EBADMSG;
	}
	return 0;
}
