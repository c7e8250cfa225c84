/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PARAMS_H
#define GODWIT_PARAMS_H

#include <godwit/common.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is kept of the pages that the destination has. */
enum godwit_base_kind {
	GODWIT_BASE_SIGNATURES = 0,	/* one 64-bit hash per line or group of lines */
	GODWIT_BASE_PAGES = 1,		/* old pages: word-granular deltas, 4096 bytes a page */
	GODWIT_BASE_OFF = 2,		/* nothing: every page is zero, fill or whole */
};

/* What happens to a page when every worker's ring is full. */
enum godwit_when_busy {
	GODWIT_WHEN_BUSY_AUTO = 0,	/* raw while the link idles and a worker would take longer */
	GODWIT_WHEN_BUSY_WAIT = 1,	/* wait for a worker */
	GODWIT_WHEN_BUSY_RAW = 2,	/* the caller sends the page itself */
};

/*
 * The parameters of a source. Zero everywhere (but size) is the right choice for nearly everybody.
 *
 * rung, when_busy and workers take effect from the next batch; base and base_bytes from the next
 * drain, keeping what fits: a smaller signature table is the larger one coarsened, not an empty one.
 *
 * A caller built with an older header passes a smaller size: the rest reads as zero. A larger size
 * is accepted while the unknown tail is zero, else -E2BIG.
 */
struct godwit_params {
	size_t size;			/* sizeof(struct godwit_params), set by the caller */
	const char *rung;		/* NULL or "auto"; "none", "lz4", "lz4:8" (acceleration), "zstd1",
					 * "zstd-5" (negative levels are faster), "zlib6"; copied */
	uint64_t base_bytes;		/* memory for the base; 0 = as much as helps, see source.h */
	uint32_t workers;		/* threads that encode; 0 = from the processors allowed */
	uint32_t base;			/* enum godwit_base_kind */
	uint32_t when_busy;		/* enum godwit_when_busy */
	uint32_t reserved;		/* 0 */
	/* New fields go here, at the end; zero must mean the old behaviour. */
};
#define GODWIT_PARAMS_INIT { .size = sizeof(struct godwit_params) }

/* Would a source take these? 0, or -EINVAL or -E2BIG with the reason. Any thread; needs no source. */
GODWIT_API int godwit_params_check(const struct godwit_params *params, struct godwit_error *error);

#ifdef __cplusplus
}
#endif
#endif
