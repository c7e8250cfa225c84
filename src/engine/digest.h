/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_DIGEST_H
#define GODWIT_DIGEST_H

#include <stddef.h>
#include <stdint.h>

/*
 * XXH3-64, seed 0. Debian's shared libxxhash is built for the oldest x86-64; a page's digest is on the
 * path of every delta, so the header's own vector code is built here once per instruction set
 * (digest_avx2.c, digest_avx512.c) and chosen at run time. All give the same number.
 */
typedef uint64_t (*godwit_digest_fn)(const void *bytes, size_t nr_bytes);

struct godwit_digest_variant {
	const char *name;
	uint32_t cpu;			/* GODWIT_DELTA_CPU_ flags it needs */
	godwit_digest_fn digest;
};
extern const struct godwit_digest_variant godwit_digest_variants[];
extern const unsigned godwit_nr_digest_variants;

uint64_t godwit_digest(const void *bytes, size_t nr_bytes);

uint64_t godwit_digest_scalar(const void *bytes, size_t nr_bytes);
uint64_t godwit_digest_avx2(const void *bytes, size_t nr_bytes);
uint64_t godwit_digest_avx512(const void *bytes, size_t nr_bytes);

#endif
