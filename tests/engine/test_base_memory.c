/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The base: what it refuses, and what it does where memory is scarce. */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "../sanitized.h"
#include "base_model.h"

#ifdef IS_SANITIZED
/* An allocation that cannot be is to fail as it does elsewhere, not to end the process. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
	return "allocator_may_return_null=1";
}
#endif

Test(base, refuses_wrong_options_and_changes_nothing)
{
	struct godwit_base_options wrong_kind = { .size = sizeof(wrong_kind), .kind = 3 };
	struct godwit_base_options reserved = { .size = sizeof(reserved), .reserved = 1 };
	struct godwit_base_options small = { .size = sizeof(small) - 1 };
	struct { struct godwit_base_options options; uint64_t more; } large = {
		.options.size = sizeof(large), .options.kind = GODWIT_BASE_SIGNATURES,
	};
	struct godwit_base *base = NULL;
	struct model m;

	cr_assert_eq(godwit_base_create(&wrong_kind, &base, NULL), -EINVAL);
	cr_assert_eq(godwit_base_create(NULL, &base, NULL), -EINVAL);
	cr_assert_null(base);

	fill_model(&m, GODWIT_BASE_SIGNATURES, BYTES_64);
	cr_assert_eq(godwit_base_layout(m.base, &wrong_kind, &m.error), -EINVAL);
	cr_assert(strstr(m.error.text, "kind 3"), "%s", m.error.text);
	cr_assert_eq(godwit_base_layout(m.base, &reserved, &m.error), -EINVAL);
	cr_assert_eq(godwit_base_layout(m.base, &small, &m.error), -EINVAL);
	large.more = 1;
	cr_assert_eq(godwit_base_layout(m.base, &large.options, &m.error), -E2BIG);
	cr_assert_eq(count(&m).hits, KNOWN);
	large.more = 0;
	large.options.bytes = BYTES_128;
	cr_assert_eq(godwit_base_layout(m.base, &large.options, &m.error), 0);
	cr_assert_eq(godwit_base_granule_bytes(m.base), 128);
	model_fini(&m);
}

Test(base, refuses_wrong_blocks)
{
	struct godwit_base_options options = { .size = sizeof(options) };
	struct godwit_base_view view;
	struct model m;

	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, GODWIT_MAX_BLOCKS, 1, &m.error), -EINVAL);
	cr_assert_eq(godwit_base_add_block(m.base, 1, 0, &m.error), -EINVAL);
	cr_assert_eq(godwit_base_add_block(m.base, 1, GODWIT_PAGE_KEYS, &m.error), 0);
	cr_assert_eq(godwit_base_add_block(m.base, 1, 1, &m.error), -EEXIST);
	cr_assert_eq(godwit_base_add_block(m.base, 2, 1, &m.error), -EINVAL, "keys have run out");
	cr_assert_eq(godwit_base_remove_block(m.base, 2), -ENOENT);
	cr_assert_eq(godwit_base_remove_block(m.base, UINT32_MAX), -ENOENT);
	cr_assert_eq(godwit_base_remove_block(m.base, 1), 0);
	cr_assert(!godwit_base_view(m.base, 1, &view));
	cr_assert(!godwit_base_view(m.base, UINT32_MAX, &view));
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0, "no blocks, no base, no error");
	cr_assert_eq(godwit_base_kind(m.base), GODWIT_BASE_OFF);
	model_fini(&m);
	godwit_base_destroy(NULL);
}

/*
 * More than any address space has: 2^46 pages fail at their state bytes, 2^38 at rows or slots (not with
 * a sanitizer's allocator, which would go and clear 256 GiB of state bytes).
 */
#ifdef IS_SANITIZED
#define LEAST_HUGE_LOG2 46
#else
#define LEAST_HUGE_LOG2 38
#endif

Test(base, keeps_the_old_layout_when_there_is_no_memory_for_the_new)
{
	static const struct { uint32_t from, to; } of[] = {
		{ GODWIT_BASE_SIGNATURES, GODWIT_BASE_SIGNATURES },
		{ GODWIT_BASE_SIGNATURES, GODWIT_BASE_PAGES },
		{ GODWIT_BASE_PAGES, GODWIT_BASE_PAGES },
		{ GODWIT_BASE_PAGES, GODWIT_BASE_SIGNATURES },
	};

	for (unsigned i = 0; i < 8; i++) {
		for (unsigned log2 = LEAST_HUGE_LOG2; log2 <= 46; log2 += 8) {
			struct godwit_base_options options = {
				.size = sizeof(options), .kind = of[i % 4].to, .bytes = UINT64_MAX,
			};
			/* Between the other blocks, and after them: what was reserved by then differs. */
			uint32_t id = i < 4 ? 1 : 1000;
			uint64_t bytes;
			struct model m;

			fill_model(&m, of[i % 4].from, 160 * 5000);
			bytes = godwit_base_bytes(m.base);
			cr_assert_eq(godwit_base_add_block(m.base, id, UINT64_C(1) << log2, &m.error), 0);
			cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), -ENOMEM);
			cr_assert(strstr(m.error.text, "old layout"), "%s", m.error.text);
			cr_assert_eq(godwit_base_kind(m.base), of[i % 4].from);
			cr_assert_eq(count(&m).hits, KNOWN);
			cr_assert_eq(godwit_base_bytes(m.base), bytes);
			cr_assert_eq(godwit_base_remove_block(m.base, id), 0);
			cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
			cr_assert_eq(count(&m).hits, KNOWN);
			cr_assert_eq(godwit_base_bytes(m.base), bytes);
			model_fini(&m);
		}
	}
}

static uint64_t status_kib(const char *field)
{
	FILE *status = fopen("/proc/self/status", "r");
	char line[256];
	uint64_t kib = 0;

	cr_assert(status);
	while (fgets(line, sizeof(line), status)) {
		if (!strncmp(line, field, strlen(field)))
			kib = strtoull(line + strlen(field) + 1, NULL, 10);
	}
	fclose(status);
	return kib;
}

/* 64 Mi pages of a guest, 256 GiB: an eighth of it is not to be had. Nothing of it is touched. */
#define HUGE_PAGES (UINT64_C(64) << 20)

Test(base, goes_on_with_less_and_says_so_where_memory_is_limited)
{
	struct godwit_base_options options = { .size = sizeof(options) };
	struct godwit_base_view view;
	struct rlimit limit;
	struct model m;
	char line[256];

#ifdef IS_SANITIZED
	cr_skip_test("the sanitizer's own address space is beyond any limit");
#endif
	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, 0, HUGE_PAGES, &m.error), 0);
	cr_assert_eq(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = (status_kib("VmSize:") << 10) + (UINT64_C(192) << 20);
	cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0, "%s", m.error.text);
	cr_assert(godwit_base_describe(m.base, line, sizeof(line)));
	cr_assert_eq(godwit_base_kind(m.base), GODWIT_BASE_OFF);
	cr_assert(godwit_base_view(m.base, 0, &view));
	cr_assert_null(view.state);
	cr_assert_str_eq(line, m.error.text);

	/* Old pages can always be fewer. */
	options.kind = GODWIT_BASE_PAGES;
	cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), 0, "%s", m.error.text);
	cr_assert(godwit_base_describe(m.base, line, sizeof(line)));
	cr_assert_eq(godwit_base_kind(m.base), GODWIT_BASE_PAGES);
	cr_assert_leq(godwit_base_bytes(m.base), UINT64_C(192) << 20);
	cr_assert_gt(godwit_base_bytes(m.base), UINT64_C(16) << 20);
	model_fini(&m);
}

/* Locked memory cannot be given back piece by piece; the conversions hold without that. */
Test(base, keeps_what_it_knows_in_locked_memory)
{
	struct model m;

#ifdef IS_SANITIZED
	cr_skip_test("a sanitizer's shadow cannot be locked");
#endif
	fill_model(&m, GODWIT_BASE_PAGES, 160 * 5000);
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		cr_skip_test("locking is not allowed here");
	lay_out(&m, GODWIT_BASE_PAGES, 160 * 5001);
	model_add(&m, &m.block[3], 50);
	lay_out(&m, GODWIT_BASE_PAGES, 210 * 5000);
	cr_assert_eq(count(&m).hits, KNOWN);
	lay_out(&m, GODWIT_BASE_SIGNATURES, 210 * 512);
	cr_assert_eq(count(&m).hits, KNOWN);
	lay_out(&m, GODWIT_BASE_SIGNATURES, 210 * 128);
	cr_assert_eq(count(&m).hits, KNOWN);
	model_fini(&m);
}

Test(base, gives_all_memory_back)
{
	enum { PAGES = 64 << 10, CHUNK = 512 };
	uint64_t before = status_kib("VmRSS:"), during;
	struct godwit_base_options options = {
		.size = sizeof(options), .kind = GODWIT_BASE_PAGES, .bytes = PAGES * 5000ull,
	};
	struct godwit_base_view view;
	struct model m;

#ifdef IS_SANITIZED
	cr_skip_test("the sanitizer's shadow counts");
#endif
	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, 0, PAGES, &m.error), 0);
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
	cr_assert(godwit_base_view(m.base, 0, &view));
	for (uint64_t page = 0; page < PAGES; page++) {
		struct godwit_page_slot slot;

		cr_assert_eq(godwit_base_claim(&view, page, &slot), GODWIT_PAGE_EMPTY);
		memset(slot.page, 1 + (int)(page % 200), PAGE);
		godwit_base_publish(&view, page, &slot);
	}
	during = status_kib("VmRSS:");
	cr_assert_gt(during, before + PAGES * 4 - 1024);

	/* Old and new cache are never resident together: the peak hardly moves. */
	options.bytes = godwit_page_cache_bytes(PAGES - CHUNK);
	cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), 0);
	cr_assert_leq(status_kib("VmHWM:"), during + 32 * 1024);

	options = (struct godwit_base_options){ .size = sizeof(options), .bytes = PAGES * 512 };
	cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), 0);
	cr_assert_leq(status_kib("VmHWM:"), during + 48 * 1024);
	cr_assert_leq(status_kib("VmRSS:"), before + PAGES / 2 + 16 * 1024);
	model_fini(&m);
	cr_assert_leq(status_kib("VmRSS:"), before + 4 * 1024);
}

/* A sparse guest: zeros cost a state byte, not a row. */
Test(base, touches_no_rows_for_zero_pages)
{
	struct godwit_base_options options = { .size = sizeof(options), .bytes = HUGE_PAGES / 64 * 512 };
	uint64_t before = status_kib("VmRSS:");
	struct godwit_base_view view;
	struct model m;

#ifdef IS_SANITIZED
	cr_skip_test("the sanitizer's shadow counts");
#endif
	model_init(&m, options);
	cr_assert_eq(godwit_base_add_block(m.base, 0, HUGE_PAGES / 64, &m.error), 0);
	cr_assert_eq(godwit_base_layout(m.base, NULL, &m.error), 0);
	cr_assert(godwit_base_view(m.base, 0, &view));
	memset(view.state, GODWIT_BASE_ZERO, view.pages);
	/* Coarser: the rows that nobody knows anything of are not read either. */
	options.bytes /= 2;
	cr_assert_eq(godwit_base_layout(m.base, &options, &m.error), 0);
	cr_assert_eq(godwit_base_granule_bytes(m.base), 128);
	cr_assert_leq(status_kib("VmHWM:"), before + (HUGE_PAGES / 64 >> 10) + 4 * 1024);
	model_fini(&m);
}

Test(base, draws_other_secrets_for_every_base)
{
	struct godwit_base_options options = { .size = sizeof(options), .bytes = 1 << 20 };
	struct godwit_base_view view[2];
	struct model m[2];

	for (unsigned i = 0; i < 2; i++) {
		model_init(&m[i], options);
		model_add(&m[i], &m[i].block[0], 1);
		cr_assert_eq(godwit_base_layout(m[i].base, NULL, NULL), 0);
		cr_assert(godwit_base_view(m[i].base, m[i].block[0].id, &view[i]));
	}
	for (unsigned w = 0; w < 32; w++)
		cr_assert_neq(view[0].signer->word[w], view[1].signer->word[w]);
	for (unsigned i = 0; i < 2; i++)
		model_fini(&m[i]);
}
