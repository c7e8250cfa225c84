/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PAGE_DIGEST_H
#define GODWIT_PAGE_DIGEST_H

/*
 * page_digest.h - XXH3-64 of a page, a line at a time
 *
 * The save kernels have each line in a register while memory is what they wait for: folding it into the
 * digest there is nearly free, a pass of its own over the page is a third of a memcpy. What XXH3 does to
 * 4096 bytes (seed 0, its own secret) is eight 64-bit sums over lines, each of which it mixes with
 * eight bytes further of the secret, scrambled behind every sixteenth line; then they are merged. The
 * steps are the variants' own, in save_avx2.c and save_avx512.c; here is what they share.
 */
#include <stdalign.h>
#include <stdint.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static const alignas(64) uint64_t digest_start[8] = {
	XXH_PRIME32_3, XXH_PRIME64_1, XXH_PRIME64_2, XXH_PRIME64_3,
	XXH_PRIME64_4, XXH_PRIME32_2, XXH_PRIME64_5, XXH_PRIME32_1,
};

/*
 * Its secret. Opaque, and to be asked for inside the loop over lines: the compiler would load what a few lines
 * need of it ahead of the loop, and as it has no registers left, keep that on the stack.
 */
static inline const uint8_t *digest_secret(void)
{
	const uint8_t *secret = XXH3_kSecret;

	__asm__("" : "+r"(secret));
	return secret;
}

/* XXH3 takes the last 64 bytes with a place of the secret of their own, one byte further. */
static inline const uint8_t *digest_key(const uint8_t *secret, unsigned line)
{
	return secret + 8 * (line % 16) + (line == 63);
}

/* After this line the sums are scrambled, with the end of the secret. */
static inline bool digest_scrambles(unsigned line)
{
	return line % 16 == 15 && line != 63;
}

#define DIGEST_SCRAMBLE_KEY (XXH3_kSecret + XXH_SECRET_DEFAULT_SIZE - 64)

static inline uint64_t digest_end(const uint64_t sum[8])
{
	uint64_t digest = 4096 * XXH_PRIME64_1;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t key[2];
		unsigned __int128 product;

		memcpy(key, XXH3_kSecret + 11 + 16 * i, sizeof(key));
		product = (unsigned __int128)(sum[2 * i] ^ key[0]) * (sum[2 * i + 1] ^ key[1]);
		digest += (uint64_t)product ^ (uint64_t)(product >> 64);
	}
	digest ^= digest >> 37;
	digest *= 0x165667919E3779F9u;
	return digest ^ digest >> 32;
}

#endif
