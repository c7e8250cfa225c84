/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz_xbzrle.c - XBZRLE from the other host
 *
 * Every variant must judge alike and, when it accepts, make the same page; encoding that page against the
 * one before must give the same bytes in every variant, and lead there again.
 */
#include "fuzz_delta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	const struct godwit_delta_variant *v;
	struct fuzz_pages *p = fuzz_pages();
	const uint8_t *in = fuzz_input(p, data, &data_bytes);
	static uint8_t out[3][2 * FUZZ_PAGE];
	size_t out_bytes[3];
	bool accepted;

	memcpy(p->expected, fuzz_old_page, FUZZ_PAGE);
	accepted = godwit_xbzrle_decode(in, data_bytes, p->expected);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		enum godwit_xbzrle got;

		memcpy(p->page, fuzz_old_page, FUZZ_PAGE);
		FUZZ_ASSERT(v->xbzrle_decode(in, data_bytes, p->page) == accepted);
		if (!accepted)
			continue;
		FUZZ_ASSERT(!memcmp(p->page, p->expected, FUZZ_PAGE));
		memcpy(p->base, fuzz_old_page, FUZZ_PAGE);
		got = v->xbzrle_encode(p->base, p->page, NULL, out[i], sizeof(out[i]), &out_bytes[i]);
		FUZZ_ASSERT(got != GODWIT_XBZRLE_OVERFLOW);
		FUZZ_ASSERT(out_bytes[i] == out_bytes[0] && !memcmp(out[i], out[0], out_bytes[0]));
		FUZZ_ASSERT((got == GODWIT_XBZRLE_SAME) == !memcmp(p->page, fuzz_old_page, FUZZ_PAGE));
		FUZZ_ASSERT(v->xbzrle_decode(out[i], out_bytes[i], p->base) == (got != GODWIT_XBZRLE_SAME));
		FUZZ_ASSERT(!memcmp(p->base, p->expected, FUZZ_PAGE));
	}
	return 0;
}
