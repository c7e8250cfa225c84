/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz_delta.h - what the delta fuzzers share: memory that ends at an unmapped page
 *
 * AddressSanitizer does not see what a masked vector load touches; the MMU does.
 */
#ifndef GODWIT_FUZZ_DELTA_H
#define GODWIT_FUZZ_DELTA_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xbzrle/xbzrle.h"

/* libFuzzer calls it; it has no header. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

#define FUZZ_PAGE 4096u
#define FUZZ_INPUT_BYTES (16 * FUZZ_PAGE)

/* Not assert(), which NDEBUG would take away. */
#define FUZZ_ASSERT(condition)                                                                     \
	do {                                                                                       \
		if (!(condition))                                                                  \
			__builtin_trap();                                                          \
	} while (0)

/* Each ends at an unmapped page. */
struct fuzz_pages {
	uint8_t *input_end;
	uint8_t *page, *base, *expected;
};

/* Neither zero nor regular, so that most bytes a delta sets are changes and some are not. */
static alignas(64) uint8_t fuzz_old_page[FUZZ_PAGE];

static inline uint8_t *fuzz_guarded(size_t bytes)
{
	uint8_t *map = mmap(NULL, bytes + FUZZ_PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED || mprotect(map + bytes, FUZZ_PAGE, PROT_NONE))
		abort();
	return map;
}

static inline struct fuzz_pages *fuzz_pages(void)
{
	static struct fuzz_pages pages;

	if (!pages.page) {
		pages.input_end = fuzz_guarded(FUZZ_INPUT_BYTES) + FUZZ_INPUT_BYTES;
		pages.page = fuzz_guarded(FUZZ_PAGE);
		pages.base = fuzz_guarded(FUZZ_PAGE);
		pages.expected = fuzz_guarded(FUZZ_PAGE);
		for (unsigned i = 0; i < FUZZ_PAGE; i++)
			fuzz_old_page[i] = (uint8_t)(i % 5 ? i * 37 >> 3 : 0);
	}
	return &pages;
}

/* A copy of the input, cut to what there is room for, that ends where an unmapped page begins. */
static inline const uint8_t *fuzz_input(struct fuzz_pages *pages, const uint8_t *data, size_t *bytes)
{
	if (*bytes > FUZZ_INPUT_BYTES)
		*bytes = FUZZ_INPUT_BYTES;
	if (*bytes)
		memcpy(pages->input_end - *bytes, data, *bytes);
	return pages->input_end - *bytes;
}

#endif
