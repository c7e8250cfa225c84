/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test_torn.c - a vCPU writes the page while it is saved
 *
 * Whatever image the save saw, copy, signatures and delta must be of that one image: a copy that is
 * newer than its delta is a stale base, and that is silent corruption of the guest. The test counts
 * the torn images it met, so that it cannot pass by meeting none.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "pages.h"

/*
 * At least so many rounds, and more while the writer got no processor; but an end there must be. Rounds
 * in which the page changed are what counts: at rest, a second look at it goes unnoticed.
 */
#define ROUNDS 20000
#define MAX_ROUNDS 1000000
#define ENOUGH 5000

struct tally {
	unsigned rounds, torn, changed;
};

static bool goes_on(const struct tally *t)
{
	return t->rounds < ROUNDS ||
	       ((t->torn < ENOUGH || t->changed < ENOUGH) && t->rounds < MAX_ROUNDS);
}

static void count(struct tally *t, bool torn, bool changed)
{
	t->rounds++;
	t->torn += torn;
	t->changed += changed;
	if (!changed)
		sched_yield();
}

static void assert_enough(const struct tally *t, const char *variant)
{
	cr_assert(t->torn >= ENOUGH && t->changed >= ENOUGH, "%s: %u torn, %u changed of %u", variant,
		  t->torn, t->changed, t->rounds);
}

static struct {
	_Atomic uint64_t *page;
	atomic_bool stop;
} vcpu;

/* One counter goes through the page, so that an untorn image is rare and a torn one is seen as such. */
static void *write_page(void *arg)
{
	for (uint64_t n = 1; !atomic_load_explicit(&vcpu.stop, memory_order_relaxed); n++)
		for (unsigned i = 0; i < PAGE / 8; i++)
			if (n % 7 || i % 3 == 0)	/* whole sweeps and patchy ones */
				atomic_store_explicit(vcpu.page + i, n, memory_order_relaxed);
	return NULL;
}

static bool is_torn(const uint8_t *page)
{
	return memcmp(page, page + 8, PAGE - 8) != 0;
}

static pthread_t start_vcpu(void)
{
	pthread_t thread;

	vcpu.page = (_Atomic uint64_t *)test_guarded(PAGE);
	atomic_store(&vcpu.stop, false);
	cr_assert_eq(pthread_create(&thread, NULL, write_page, NULL), 0);
	return thread;
}

static void stop_vcpu(pthread_t thread)
{
	atomic_store(&vcpu.stop, true);
	pthread_join(thread, NULL);
}

Test(torn, words_delta_turns_the_old_base_into_the_new_one)
{
	pthread_t thread = start_vcpu();
	const struct godwit_delta_variant *v;
	uint8_t delta[GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK];
	alignas(64) uint8_t base[PAGE], replica[PAGE];

	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++) {
		struct tally t = { 0 };

		memset(base, 0, PAGE);
		memset(replica, 0, PAGE);
		while (goes_on(&t)) {
			struct godwit_save s;

			v->save_words((const void *)vcpu.page, base, delta, NULL, &s);
			if (s.map) {
				cr_assert_eq(godwit_words_check(delta, s.delta_bytes), s.delta_bytes);
				godwit_words_apply(delta, replica);
			}
			cr_assert(!memcmp(base, replica, PAGE), "%s round %u", v->name, t.rounds);
			cr_assert(!memcmp(&s.word, base, 8));
			cr_assert_eq(s.is_fill, !is_torn(base));
			count(&t, is_torn(base), s.map != 0);
		}
		assert_enough(&t, v->name);
	}
	stop_vcpu(thread);
}

Test(torn, lines_delta_copy_and_signatures_are_of_one_image)
{
	pthread_t thread = start_vcpu();
	const struct godwit_delta_variant *v;
	uint8_t delta[GODWIT_DELTA_MAX_BYTES + GODWIT_DELTA_SLACK];
	alignas(64) uint8_t copy[PAGE], replica[PAGE], again[PAGE];
	struct godwit_signer signer;
	uint64_t secret[32], rnd = 9;

	for (unsigned i = 0; i < 32; i++)
		secret[i] = test_random(&rnd);
	godwit_signer_init(&signer, secret);
	for (unsigned i = 0; (v = godwit_delta_variant(i)); i++)
		for (unsigned granule = 64; granule <= 256; granule *= 2) {
			uint64_t row[64], row_again[64];
			struct tally t = { 0 };
			struct godwit_save s;

			v->save_lines(&signer, granule, (const void *)vcpu.page, NULL, row, replica,
				      NULL, NULL, &s);
			while (goes_on(&t)) {
				v->save_lines(&signer, granule, (const void *)vcpu.page, row, row, copy,
					      delta, NULL, &s);
				if (s.map) {
					cr_assert_eq(godwit_lines_check(delta, s.delta_bytes),
						     s.delta_bytes);
					godwit_lines_apply(delta, replica);
				}
				cr_assert(!memcmp(copy, replica, PAGE), "%s round %u", v->name, t.rounds);
				v->save_lines(&signer, granule, copy, NULL, row_again, again, NULL, NULL, &s);
				cr_assert(!memcmp(row, row_again, 8 * (PAGE / granule)), "%s", v->name);
				cr_assert_eq(s.is_fill, !is_torn(copy));
				count(&t, is_torn(copy), s.map != 0);
			}
			assert_enough(&t, v->name);
		}
	stop_vcpu(thread);
}
