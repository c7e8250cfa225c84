/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guest.c - guest RAM in a memfd, and the truth about each of its pages
 *
 * A memfd, as hypervisors use it: it can be mapped shared, tracked by userfaultfd, and measured from
 * outside. The destination makes one of its own and never sees this one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"

static uint64_t weight[GUEST_PAGE_WORDS];

static void make_weights(void)
{
	for (unsigned i = 0; i < GUEST_PAGE_WORDS; i++) {
		/* splitmix64, the same in both processes; odd, so that no change is multiplied away. */
		uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		weight[i] = (z ^ z >> 31) | 1;
	}
}

int guest_create(struct guest *guest, uint64_t bytes)
{
	uint64_t pages = bytes / GODWIT_PAGE_BYTES;
	uint64_t high = pages / 16;
	int err;

	*guest = (struct guest){ .fd = -1, .bytes = bytes, .pages = pages };
	guest->block[0] = (struct guest_block){ 0, "ram", 0, pages - high };
	guest->block[1] = (struct guest_block){ 7, "vram", pages - high, high };
	make_weights();

	guest->fd = memfd_create("godwit-guest-ram", MFD_CLOEXEC);
	if (guest->fd < 0)
		return -errno;
	if (ftruncate(guest->fd, (off_t)bytes) < 0)
		goto fail;
	guest->ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, guest->fd, 0);
	if (guest->ram == MAP_FAILED)
		goto fail;
	guest->truth = calloc(pages, sizeof(*guest->truth));
	if (!guest->truth) {
		munmap(guest->ram, bytes);
		errno = ENOMEM;
		goto fail;
	}
	return 0;
fail:
	err = -errno;
	close(guest->fd);
	*guest = (struct guest){ .fd = -1 };
	return err;
}

void guest_destroy(struct guest *guest)
{
	if (guest->fd < 0)
		return;
	free(guest->truth);
	munmap(guest->ram, guest->bytes);
	close(guest->fd);
	*guest = (struct guest){ .fd = -1 };
}

const struct guest_block *guest_block_of(const struct guest *guest, uint64_t page)
{
	return &guest->block[page >= guest->block[1].first];
}

uint64_t guest_find_page(const struct guest *guest, uint32_t id, uint64_t page)
{
	for (unsigned i = 0; i < GUEST_BLOCKS; i++)
		if (guest->block[i].id == id)
			return page < guest->block[i].pages ? guest->block[i].first + page : UINT64_MAX;
	return UINT64_MAX;
}

GUEST_WRITER
void guest_write(struct guest *guest, uint64_t page, unsigned offset, const void *bytes, unsigned len_bytes)
{
	uint64_t *words = (uint64_t *)guest_page(guest, page);
	const uint8_t *from = bytes;
	uint64_t sum = guest->truth[page].sum;

	while (len_bytes) {
		unsigned word = offset / 8, in = offset % 8;
		unsigned take = 8 - in < len_bytes ? 8 - in : len_bytes;
		uint64_t before = words[word], after = before;

		memcpy((uint8_t *)&after + in, from, take);
		if (after != before) {
			words[word] = after;
			sum += (after - before) * weight[word];
		}
		from += take;
		offset += take;
		len_bytes -= take;
	}
	guest->truth[page].sum = sum;
	guest->truth[page].generation++;
}

uint64_t guest_sum(const void *page)
{
	const uint64_t *words = page;
	uint64_t sum = 0;

	for (unsigned i = 0; i < GUEST_PAGE_WORDS; i++)
		sum += words[i] * weight[i];
	return sum;
}
