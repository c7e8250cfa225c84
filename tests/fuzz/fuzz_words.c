/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz_words.c - words deltas from the other host
 *
 * What check accepts, every variant must apply alike, within the page and without reading on; and saving
 * the outcome against the page before must give a delta that leads there again.
 */
#include "fuzz_delta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	static uint8_t delta[GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK];
	const struct godwit_delta_variant *v;
	struct fuzz_pages *p = fuzz_pages();
	const uint8_t *in = fuzz_input(p, data, &data_bytes);
	size_t bytes = godwit_words_check(in, data_bytes);

	FUZZ_ASSERT(bytes <= data_bytes && bytes <= GODWIT_DELTA_MAX_BYTES);
	if (!bytes)
		return 0;
	in = fuzz_input(p, data, &bytes);	/* not one byte more */
	FUZZ_ASSERT(godwit_words_check(in, bytes) == bytes);
	FUZZ_ASSERT(godwit_words_check(in, bytes - 1) == 0);
	memcpy(p->expected, fuzz_old_page, FUZZ_PAGE);
	godwit_words_apply(in, p->expected);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		struct godwit_save save;

		memcpy(p->page, fuzz_old_page, FUZZ_PAGE);
		v->words_apply(in, p->page);
		FUZZ_ASSERT(!memcmp(p->page, p->expected, FUZZ_PAGE));
		/* p->page: the new page; p->base: the old one */
		memcpy(p->base, fuzz_old_page, FUZZ_PAGE);
		v->save_words(p->page, p->base, delta, NULL, &save);
		FUZZ_ASSERT(!memcmp(p->base, p->expected, FUZZ_PAGE));
		FUZZ_ASSERT(save.delta_bytes <= bytes);	/* what was said and had not changed is left out */
		if (!save.map)
			continue;
		FUZZ_ASSERT(godwit_words_check(delta, save.delta_bytes) == save.delta_bytes);
		memcpy(p->base, fuzz_old_page, FUZZ_PAGE);
		v->words_apply(delta, p->base);
		FUZZ_ASSERT(!memcmp(p->base, p->expected, FUZZ_PAGE));
	}
	return 0;
}
