/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * delta.c - reading words and lines deltas: what the other host sent is measured before it is used
 *
 * Check and apply are apart because a frame that fails any check must change no page. The length follows
 * from the map and the masks alone, so check reads at most 72 bytes.
 */
#include "xbzrle/kernels.h"

size_t godwit_words_check(const uint8_t *in, size_t in_bytes)
{
	const uint64_t low = 0x0101010101010101u, high = 0x8080808080808080u;
	uint64_t map, masks;
	unsigned lines, words = 0, i;
	size_t bytes;

	if (in_bytes < 8)
		return 0;
	map = load64(in);
	lines = popcount64(map);
	if (!lines || in_bytes - 8 < lines)
		return 0;
	for (i = 0; i + 8 <= lines; i += 8) {
		masks = load64(in + 8 + i);
		if ((masks - low) & ~masks & high)
			return 0;	/* some byte is zero */
		words += popcount64(masks);
	}
	for (; i < lines; i++) {
		if (!in[8 + i])
			return 0;
		words += popcount64(in[8 + i]);
	}
	bytes = 8 + lines + 8 * (size_t)words;
	return bytes <= in_bytes ? bytes : 0;
}

void godwit_words_apply_scalar(const uint8_t *in, uint8_t *page)
{
	uint64_t map = load64(in);
	const uint8_t *mask = in + 8, *word = mask + popcount64(map);

	for (; map; map &= map - 1) {
		uint8_t *line = page + LINE_BYTES * (unsigned)__builtin_ctzll(map);

		for (unsigned m = *mask++; m; m &= m - 1, word += 8)
			memcpy(line + 8 * (unsigned)__builtin_ctz(m), word, 8);
	}
}

size_t godwit_lines_check(const uint8_t *in, size_t in_bytes)
{
	size_t bytes;

	if (in_bytes < 8 || !load64(in))
		return 0;
	bytes = 8 + LINE_BYTES * (size_t)popcount64(load64(in));
	return bytes <= in_bytes ? bytes : 0;
}

void godwit_lines_apply(const uint8_t *in, uint8_t *page)
{
	uint64_t map = load64(in);

	for (in += 8; map; map &= map - 1, in += LINE_BYTES)
		memcpy(page + LINE_BYTES * (unsigned)__builtin_ctzll(map), in, LINE_BYTES);
}
