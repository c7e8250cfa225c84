/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * signer.c - the secret behind line signatures, a portable sum of a line, and making a row coarser
 *
 * Without a carry-less multiplier four products are made at once: each left factor times every polynomial
 * below x^4 goes into a table, then Horner's rule runs over the nibbles of the right factors, and one
 * multiplication by x^4 serves all four.
 */
#include "xbzrle/kernels.h"

static uint64_t times_x(uint64_t v)
{
	return v << 1 ^ (v >> 63) * GF64_TAIL;
}

static void fill_table(uint64_t times[16], uint64_t factor)
{
	times[0] = 0;
	times[1] = factor;
	for (unsigned p = 2; p < 16; p += 2) {
		times[p] = times_x(times[p / 2]);
		times[p + 1] = times[p] ^ factor;
	}
}

uint64_t godwit_sum_line(const uint64_t word[8], const uint64_t m[8])
{
	/* x^64 .. x^67 and their sums, reduced: entry p is p times GF64_TAIL. */
	static const uint8_t carry[16] = {
		0x00, 0x1b, 0x36, 0x2d, 0x6c, 0x77, 0x5a, 0x41,
		0xd8, 0xc3, 0xee, 0xf5, 0xb4, 0xaf, 0x82, 0x99,
	};
	uint64_t times[4][16], right[4], sum = 0;

	for (unsigned i = 0; i < 4; i++) {
		fill_table(times[i], m[2 * i] ^ word[2 * i]);
		right[i] = m[2 * i + 1] ^ word[2 * i + 1];
	}
	for (int shift = 60; shift >= 0; shift -= 4) {
		sum = sum << 4 ^ carry[sum >> 60];
		for (unsigned i = 0; i < 4; i++)
			sum ^= times[i][right[i] >> shift & 15];
	}
	return sum;
}

void godwit_signer_init(struct godwit_signer *signer, const uint64_t secret[32])
{
	static const uint64_t zero[8];
	uint64_t blank[4];

	memcpy(signer->word, secret, sizeof(signer->word));
	for (unsigned k = 0; k < 4; k++)
		blank[k] = godwit_sum_line(&signer->word[8 * k], zero);
	for (unsigned i = 0; i < 8; i++) {
		signer->blank[0][i] = blank[i % 4];
		signer->blank[1][i] = blank[2 * i % 4] ^ blank[2 * i % 4 + 1];
		signer->blank[2][i] = blank[0] ^ blank[1] ^ blank[2] ^ blank[3];
	}
}

void godwit_signatures_coarsen(uint64_t *sigs_out, const uint64_t *sigs_in, unsigned groups_in)
{
	for (unsigned i = 0; i < groups_in / 2; i++)
		sigs_out[i] = sigs_in[2 * i] ^ sigs_in[2 * i + 1];
}
