/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * save_scalar.c - one pass over a live guest page, in portable C: the specification of the others
 *
 * Every guest word is loaded once, by a relaxed atomic load that the compiler may not repeat, and lives
 * in our own memory from then on. Relaxed is enough: a page torn between two writes of its vCPU is
 * dirty again, and will be sent again; all we need is that copy, signatures and delta tell one story.
 */
#include "xbzrle/kernels.h"
#include "xbzrle/page_digest.h"

static inline uint64_t read_guest(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* A zero line is common in sparse pages, and signs as 0. */
static uint64_t sign_line(const struct godwit_signer *signer, unsigned line, const uint64_t m[8])
{
	if (!(m[0] | m[1] | m[2] | m[3] | m[4] | m[5] | m[6] | m[7]))
		return 0;
	return godwit_sum_line(&signer->word[line % 4 * 8], m) ^ signer->blank[0][line % 4];
}

static void save_end(const uint8_t *page, struct godwit_save *ret)
{
	ret->word = load64(page);
	ret->is_fill = page_is_fill(page);
}

void godwit_save_lines_scalar(const struct godwit_signer *signer, unsigned granule_bytes,
			      const void *guest, const uint64_t *old_sigs, uint64_t *new_sigs,
			      uint8_t *copy, uint8_t *delta_out, const struct godwit_ahead *ahead,
			      struct godwit_save *ret)
{
	const unsigned group_lines = granule_bytes / LINE_BYTES;
	const uint64_t group_map = (1ull << group_lines) - 1;
	const struct next next = next_of(ahead, guest, new_sigs);
	const uint64_t *in = guest;
	uint64_t map = 0;

	for (unsigned line = 0; line < PAGE_LINES; line += group_lines) {
		unsigned group = line / group_lines;
		uint64_t sig = 0;

		ask_near(next.kept, 8 * group);

		for (unsigned l = line; l < line + group_lines; l++) {
			uint64_t m[8];

			ask_far(next.guest, LINE_BYTES * l);
			for (unsigned i = 0; i < 8; i++)
				m[i] = read_guest(in + 8 * l + i);
			memcpy(copy + LINE_BYTES * l, m, LINE_BYTES);
			sig ^= sign_line(signer, l, m);
		}
		if (!old_sigs || old_sigs[group] != sig)
			map |= group_map << line;
		new_sigs[group] = sig;
	}
	ret->map = map;
	ret->changed_words = 0;
	ret->delta_bytes = old_sigs ? put_lines(map, copy, delta_out) : 0;
	ret->digest = old_sigs ? XXH3_64bits(copy, PAGE_BYTES) : 0;
	save_end(copy, ret);
}

/*
 * Masks first, into scratch, then the words: where the words begin is known only when all masks are.
 */
void godwit_save_words_scalar(const void *guest, uint8_t *base_page, uint8_t *delta_out,
			      const struct godwit_ahead *ahead, struct godwit_save *ret)
{
	const struct next next = next_of(ahead, guest, base_page);
	const uint64_t *in = guest;
	uint64_t page[PAGE_WORDS], map = 0;
	uint8_t masks[PAGE_LINES], *word;
	unsigned lines = 0;

	for (unsigned line = 0; line < PAGE_LINES; line++) {
		unsigned mask = 0;

		ask_near(next.guest, LINE_BYTES * line);
		ask_near(next.kept, LINE_BYTES * line);
		for (unsigned i = 0; i < 8; i++) {
			uint64_t now = read_guest(in + 8 * line + i);

			page[8 * line + i] = now;
			mask |= (unsigned)(now != load64(base_page + LINE_BYTES * line + 8 * i)) << i;
		}
		masks[lines] = (uint8_t)mask;
		lines += mask != 0;
		map |= (uint64_t)(mask != 0) << line;
	}
	ret->map = map;
	ret->changed_words = 0;
	ret->delta_bytes = 0;
	if (map) {
		const uint8_t *mask = masks;

		store64(delta_out, map);
		memcpy(delta_out + 8, masks, lines);
		word = delta_out + 8 + lines;
		for (; map; map &= map - 1) {
			const uint64_t *line = page + 8 * (unsigned)__builtin_ctzll(map);

			memcpy(base_page + ((const uint8_t *)line - (const uint8_t *)page), line, LINE_BYTES);
			for (unsigned m = *mask++; m; m &= m - 1, word += 8)
				store64(word, line[__builtin_ctz(m)]);
		}
		ret->delta_bytes = (uint32_t)(word - delta_out);
		ret->changed_words = (ret->delta_bytes - 8 - lines) / 8;
	}
	ret->digest = XXH3_64bits(page, PAGE_BYTES);
	save_end((const uint8_t *)page, ret);
}

void godwit_save_plain_scalar(const void *guest, uint8_t *copy, const struct godwit_ahead *ahead,
			      struct godwit_save *ret)
{
	const struct next next = next_of(ahead, guest, NULL);
	const uint64_t *in = guest;

	for (unsigned i = 0; i < PAGE_WORDS; i++) {
		if (i % 8 == 0)
			ask_far(next.guest, 8 * i);
		store64(copy + 8 * i, read_guest(in + i));
	}
	ret->map = ~0ull;
	ret->delta_bytes = 0;
	ret->changed_words = 0;
	ret->digest = 0;
	save_end(copy, ret);
}
