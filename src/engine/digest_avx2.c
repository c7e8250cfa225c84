/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* digest_avx2.c - xxhash's own header, built with this instruction set; see digest.h */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/digest.h"

uint64_t godwit_digest_avx2(const void *bytes, size_t nr_bytes)
{
	return XXH3_64bits(bytes, nr_bytes);
}
