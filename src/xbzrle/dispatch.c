/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dispatch.c - which variant of the kernels this CPU runs
 *
 * One table, best first. The choice is a pointer to constant data that every thread would choose alike,
 * so it is read and written relaxed: whoever finds it unset works it out once more.
 */
#include <stdatomic.h>

#include "xbzrle/kernels.h"

#define VARIANT(isa, save_isa, cpu_flags)                                                          \
	{                                                                                          \
		.name = #isa, .cpu = (cpu_flags),                                                  \
		.words_apply = godwit_words_apply_##isa,                                           \
		.save_lines = godwit_save_lines_##save_isa,                                        \
		.save_words = godwit_save_words_##save_isa,                                        \
		.save_plain = godwit_save_plain_##save_isa,                                        \
		.xbzrle_encode = godwit_xbzrle_encode_##isa,                                       \
		.xbzrle_decode = godwit_xbzrle_decode_##isa,                                       \
	}

/*
 * Two forms of avx512, of which a CPU gets the first that it can run. The ones before Ice Lake have no
 * VPCLMULQDQ, and while they multiply 512 bits, all that runs on the core is slower (Cascade Lake, digests by
 * AVX-512 and by AVX2 in turn, whole migrations at 1 Gbit/s: 4.55 s and 4.23 s). There the XBZRLE kernels
 * are worth it, which do not multiply, and the save kernels are not.
 */
static const struct godwit_delta_variant variants[] = {
#ifdef __x86_64__
	VARIANT(avx512, avx512, GODWIT_DELTA_CPU_AVX512 | GODWIT_DELTA_CPU_ICELAKE),
	VARIANT(avx512, avx2, GODWIT_DELTA_CPU_AVX512),
	VARIANT(avx2, avx2, GODWIT_DELTA_CPU_AVX2),
#endif
	VARIANT(scalar, scalar, 0),
};

#define NR_VARIANTS (sizeof(variants) / sizeof(variants[0]))

/* The compiler's run-time support also asks whether the OS saves the registers. */
uint32_t godwit_delta_cpu(void)
{
	uint32_t flags = 0;

#ifdef __x86_64__
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
	    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
	    __builtin_cpu_supports("pclmul"))
		flags |= GODWIT_DELTA_CPU_AVX2;
	if (flags && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
		flags |= GODWIT_DELTA_CPU_AVX512;
		if (__builtin_cpu_supports("vpclmulqdq"))
			flags |= GODWIT_DELTA_CPU_ICELAKE;
	}
#endif
	return flags;
}

const struct godwit_delta_variant *godwit_delta_variant(unsigned index)
{
	uint32_t flags = godwit_delta_cpu();
	const char *before = "";

	for (unsigned i = 0; i < NR_VARIANTS; i++) {
		if ((variants[i].cpu & ~flags) || !strcmp(variants[i].name, before))
			continue;
		if (!index--)
			return &variants[i];
		before = variants[i].name;
	}
	return NULL;
}

static _Atomic(const struct godwit_delta_variant *) chosen;

const struct godwit_delta_variant *godwit_delta_chosen(void)
{
	/* Relaxed: what it points to is constant from the start. */
	const struct godwit_delta_variant *v = atomic_load_explicit(&chosen, memory_order_relaxed);

	if (__builtin_expect(!v, 0)) {
		v = godwit_delta_variant(0);
		atomic_store_explicit(&chosen, v, memory_order_relaxed);
	}
	return v;
}

void godwit_words_apply(const uint8_t *in, uint8_t *page)
{
	godwit_delta_chosen()->words_apply(in, page);
}

void godwit_save_lines_ahead(const struct godwit_signer *signer, unsigned granule_bytes,
			     const void *guest, const uint64_t *old_sigs, uint64_t *new_sigs,
			     uint8_t *copy, uint8_t *delta_out, const struct godwit_ahead *ahead,
			     struct godwit_save *ret)
{
	godwit_delta_chosen()->save_lines(signer, granule_bytes, guest, old_sigs, new_sigs, copy,
					  delta_out, ahead, ret);
}

void godwit_save_lines(const struct godwit_signer *signer, unsigned granule_bytes,
		       const void *guest, const uint64_t *old_sigs, uint64_t *new_sigs,
		       uint8_t *copy, uint8_t *delta_out, struct godwit_save *ret)
{
	godwit_save_lines_ahead(signer, granule_bytes, guest, old_sigs, new_sigs, copy, delta_out, NULL,
				ret);
}

void godwit_save_words_ahead(const void *guest, uint8_t *base_page, uint8_t *delta_out,
			     const struct godwit_ahead *ahead, struct godwit_save *ret)
{
	godwit_delta_chosen()->save_words(guest, base_page, delta_out, ahead, ret);
}

void godwit_save_words(const void *guest, uint8_t *base_page, uint8_t *delta_out,
		       struct godwit_save *ret)
{
	godwit_save_words_ahead(guest, base_page, delta_out, NULL, ret);
}

void godwit_save_plain_ahead(const void *guest, uint8_t *copy, const struct godwit_ahead *ahead,
			     struct godwit_save *ret)
{
	godwit_delta_chosen()->save_plain(guest, copy, ahead, ret);
}

void godwit_save_plain(const void *guest, uint8_t *copy, struct godwit_save *ret)
{
	godwit_save_plain_ahead(guest, copy, NULL, ret);
}

enum godwit_xbzrle godwit_xbzrle_encode(const uint8_t *old_page, const uint8_t *new_page,
					const struct godwit_ahead *ahead, uint8_t *out, size_t out_cap,
					size_t *out_bytes_ret)
{
	return godwit_delta_chosen()->xbzrle_encode(old_page, new_page, ahead, out, out_cap,
						    out_bytes_ret);
}

bool godwit_xbzrle_decode(const uint8_t *in, size_t in_bytes, uint8_t *page)
{
	return godwit_delta_chosen()->xbzrle_decode(in, in_bytes, page);
}
