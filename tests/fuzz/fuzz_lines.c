/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz_lines.c - lines deltas from the other host, and the signatures that make them
 */
#include "fuzz_delta.h"

static struct godwit_signer signer;

/*
 * A secret that has nothing to do with any contents: where a line equals its secret words, both factors of a
 * product are 0, and a change of one alone is missed.
 */
static void make_signer(void)
{
	uint64_t secret[32], state = 0x243f6a8885a308d3;

	for (unsigned i = 0; i < 32; i++) {
		state = state * 6364136223846793005 + 1442695040888963407;
		secret[i] = state ^ state >> 29;
	}
	godwit_signer_init(&signer, secret);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	static uint8_t delta[GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK];
	const struct godwit_delta_variant *v;
	struct fuzz_pages *p = fuzz_pages();
	const uint8_t *in = fuzz_input(p, data, &data_bytes);
	size_t bytes = godwit_lines_check(in, data_bytes);

	FUZZ_ASSERT(bytes <= data_bytes && bytes <= GODWIT_DELTA_MAX_BYTES);
	if (!bytes)
		return 0;
	if (!signer.word[0])
		make_signer();
	in = fuzz_input(p, data, &bytes);	/* not one byte more */
	FUZZ_ASSERT(godwit_lines_check(in, bytes) == bytes);
	FUZZ_ASSERT(godwit_lines_check(in, bytes - 1) == 0);
	memcpy(p->expected, fuzz_old_page, FUZZ_PAGE);
	godwit_lines_apply(in, p->expected);
	for (unsigned granule = 64; granule <= 256; granule *= 2) {
		uint64_t first_row[64];

		for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
			struct godwit_save save;
			uint64_t row[64];

			memcpy(p->page, fuzz_old_page, FUZZ_PAGE);
			v->save_lines(&signer, granule, p->page, NULL, row, p->base, NULL, NULL, &save);
			memcpy(p->page, p->expected, FUZZ_PAGE);
			v->save_lines(&signer, granule, p->page, row, row, p->base, delta, NULL, &save);
			FUZZ_ASSERT(!memcmp(p->base, p->expected, FUZZ_PAGE));
			FUZZ_ASSERT(granule > 64 || save.delta_bytes <= bytes);
			if (i)
				FUZZ_ASSERT(!memcmp(row, first_row, 8 * (FUZZ_PAGE / granule)));
			memcpy(first_row, row, sizeof(row));
			memcpy(p->base, fuzz_old_page, FUZZ_PAGE);
			if (save.map) {
				FUZZ_ASSERT(godwit_lines_check(delta, save.delta_bytes) == save.delta_bytes);
				godwit_lines_apply(delta, p->base);
			}
			FUZZ_ASSERT(!memcmp(p->base, p->expected, FUZZ_PAGE));
		}
	}
	return 0;
}
