/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * signer.c - the secret behind line signatures, and making a row of them coarser
 *
 * A signature is linear in the line, so the portable kernel multiplies by tables: each secret word times
 * each polynomial below x^4, 4 KiB in all, which stay in the first-level cache beside a page. Tables for
 * bytes would halve the look-ups and fill that cache twice over. Carry-less multipliers need word[] only.
 */
#include "xbzrle/kernels.h"

static uint64_t times_x(uint64_t v)
{
	return v << 1 ^ (v >> 63) * GF64_TAIL;
}

void godwit_signer_init(struct godwit_signer *signer, const uint64_t secret[32])
{
	for (unsigned i = 0; i < 32; i++) {
		uint64_t *times = signer->nibble[i];

		signer->word[i] = secret[i];
		times[0] = 0;
		times[1] = secret[i];
		for (unsigned p = 2; p < 16; p++)
			times[p] = times_x(times[p / 2]) ^ (p & 1 ? secret[i] : 0);
	}
}

void godwit_signatures_coarsen(uint64_t *sigs_out, const uint64_t *sigs_in, unsigned groups_in)
{
	for (unsigned i = 0; i < groups_in / 2; i++)
		sigs_out[i] = sigs_in[2 * i] ^ sigs_in[2 * i + 1];
}
