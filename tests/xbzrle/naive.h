/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_TEST_NAIVE_H
#define GODWIT_TEST_NAIVE_H

/*
 * naive.h - XBZRLE by the reader's rules, written from the format alone, and deliberately naive
 *
 * naive_decode() gives where the last changed run ended, or -1 if QEMU would refuse it.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NAIVE_PAGE_BYTES 4096u

static inline int naive_decode(const uint8_t *in, size_t in_bytes, uint8_t *page)
{
	size_t i = 0, at = 0;

	while (i < in_bytes) {
		size_t run[2];

		for (int part = 0; part < 2; part++) {
			bool is_first_byte = i == 0;

			if (in_bytes - i < (part ? 1u : 2u))
				return -1;
			run[part] = in[i++];
			if (run[part] >= 0x80) {
				if (i == in_bytes || in[i] >= 0x80)
					return -1;
				run[part] = (run[part] - 0x80) + in[i++] * 128u;
			}
			if (run[part] == 0 && !(part == 0 && is_first_byte))
				return -1;
		}
		at += run[0];
		if (at + run[1] > NAIVE_PAGE_BYTES || i + run[1] > in_bytes)
			return -1;
		memcpy(page + at, in + i, run[1]);
		at += run[1];
		i += run[1];
	}
	return (int)at;
}

#endif
