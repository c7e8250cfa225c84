/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* estimate_pages.c - the pages, from images or from a running process, and how many of them change */
#include <string.h>
#include <sys/mman.h>

#include "estimate.h"
#include "xbzrle/xbzrle.h"

#define EARLY_DIVISOR 8		/* the second reading is at interval / this */

static uint64_t count_differing(const uint8_t *a, const uint8_t *b, uint64_t pages)
{
	uint64_t differing = 0;

	for (uint64_t i = 0; i < pages; i++)
		differing += !!memcmp(a + i * GODWIT_PAGE_BYTES, b + i * GODWIT_PAGE_BYTES, GODWIT_PAGE_BYTES);
	return differing;
}

static uint64_t count_zero(const uint8_t *bytes, uint64_t pages)
{
	uint64_t found = 0;

	for (uint64_t i = 0; i < pages; i++)
		found += godwit_page_is_zero(bytes + i * GODWIT_PAGE_BYTES);
	return found;
}

static void watch_process(struct memory *memory, const struct setup *setup)
{
	struct process_sample *sample = &memory->sample;
	uint64_t start_ns;

	process_sample_choose(sample, setup->pid, setup->max_pages, setup->is_largest_only);
	memory->pages = sample->pages;
	memory->whole_pages = sample->resident_pages + sample->swapped_pages;
	memory->map_bytes = memory->pages * GODWIT_PAGE_BYTES;
	memory->old_pages = map_memory(memory->map_bytes);
	memory->new_pages = map_memory(memory->map_bytes);
	/* Touched, so that the first reading is not slowed down by faults and is near one instant. */
	memset(memory->old_pages, 0, memory->map_bytes);
	memset(memory->new_pages, 0, memory->map_bytes);

	start_ns = now_ns();
	process_sample_read(sample, memory->old_pages);
	sleep_until(start_ns + setup->interval_ns / EARLY_DIVISOR);
	memory->early_ns = (double)(now_ns() - start_ns);
	process_sample_read(sample, memory->new_pages);
	memory->dirty_early = count_differing(memory->old_pages, memory->new_pages, memory->pages);
	sleep_until(start_ns + setup->interval_ns);
	memory->interval_ns = (double)(now_ns() - start_ns);
	process_sample_read(sample, memory->new_pages);
}

static void load_images(struct memory *memory, const struct setup *setup)
{
	image_load(&memory->new_image, setup->new_path);
	memory->pages = memory->whole_pages = memory->new_image.pages;
	memory->new_pages = memory->old_pages = memory->new_image.bytes;
	if (!setup->old_path)
		return;
	image_load_old(&memory->old_image, setup->old_path, &memory->new_image);
	memory->old_pages = memory->old_image.bytes;
	memory->interval_ns = (double)setup->interval_ns;
}

void memory_get(struct memory *memory, const struct setup *setup)
{
	*memory = (struct memory){ 0 };
	if (setup->pid)
		watch_process(memory, setup);
	else
		load_images(memory, setup);
	memory->zero = count_zero(memory->old_pages, memory->pages);
	if (memory->old_pages != memory->new_pages)
		memory->dirty = count_differing(memory->old_pages, memory->new_pages, memory->pages);
}

void memory_put(struct memory *memory)
{
	if (memory->map_bytes) {
		munmap(memory->old_pages, memory->map_bytes);
		munmap(memory->new_pages, memory->map_bytes);
	}
	image_unload(&memory->old_image);
	image_unload(&memory->new_image);
	process_sample_free(&memory->sample);
}
