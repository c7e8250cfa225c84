/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * digest.c - XXH3-64 by the best instruction set that runs here
 *
 * The choice is made at the first call and kept in a relaxed pointer: any thread may make it, all make
 * the same.
 */
#include <stdatomic.h>
#include <xxhash.h>

#include "engine/digest.h"
#include "xbzrle/xbzrle.h"

uint64_t godwit_digest_scalar(const void *bytes, size_t nr_bytes)
{
	return XXH3_64bits(bytes, nr_bytes);
}

const struct godwit_digest_variant godwit_digest_variants[] = {
#ifdef __x86_64__
	{ "avx512", GODWIT_DELTA_CPU_AVX512 | GODWIT_DELTA_CPU_ICELAKE, godwit_digest_avx512 },
	{ "avx2", GODWIT_DELTA_CPU_AVX2, godwit_digest_avx2 },
#endif
	{ "scalar", 0, godwit_digest_scalar },
};
const unsigned godwit_nr_digest_variants =
	sizeof(godwit_digest_variants) / sizeof(godwit_digest_variants[0]);

static _Atomic(godwit_digest_fn) chosen;

static godwit_digest_fn choose(void)
{
	uint32_t flags = godwit_delta_cpu();

	for (unsigned i = 0; i < godwit_nr_digest_variants; i++) {
		if (!(godwit_digest_variants[i].cpu & ~flags)) {
			/* Relaxed: the pointer is all there is, and every thread stores the same. */
			atomic_store_explicit(&chosen, godwit_digest_variants[i].digest,
					      memory_order_relaxed);
			return godwit_digest_variants[i].digest;
		}
	}
	return godwit_digest_scalar;
}

uint64_t godwit_digest(const void *bytes, size_t nr_bytes)
{
	/* Relaxed: see choose(). */
	godwit_digest_fn digest = atomic_load_explicit(&chosen, memory_order_relaxed);

	if (!digest)
		digest = choose();
	return digest(bytes, nr_bytes);
}
