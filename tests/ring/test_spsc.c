/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test_spsc.c - the ring from one thread to one thread */
#include "ring/ring.h"
#include "stress.h"

#define MAX_ORDER_LOG2 6
#define MAX_SLOTS (1u << MAX_ORDER_LOG2)

/* Where the indices start: at the bottom, just before the wrap, at the wrap, half way (sign). */
static const uint32_t starts[] = { 0, UINT32_MAX - 5, UINT32_MAX, INT32_MAX - 2 };
#define NR_STARTS (sizeof(starts) / sizeof(starts[0]))

static void fill_patterns(void **items, uint64_t from, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		items[i] = pattern_of(from + i);
}

static void expect_patterns(void **items, uint64_t from, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		cr_assert_eq(items[i], pattern_of(from + i), "item %u of %u", i, n);
}

Test(spsc, new_ring_is_empty_at_any_index)
{
	for (unsigned s = 0; s < NR_STARTS; s++) {
		struct godwit_spsc ring;
		void *slots[4], *item = POISON;

		godwit_spsc_init_at(&ring, slots, 2, starts[s]);
		cr_assert_eq(godwit_spsc_count(&ring), 0);
		cr_assert_eq(godwit_spsc_pop(&ring, &item, 1), 0);
		cr_assert_eq(item, POISON);
	}
}

Test(spsc, takes_as_many_as_it_has_slots_and_gives_them_back_in_order)
{
	for (unsigned s = 0; s < NR_STARTS; s++) {
		for (unsigned order = 0; order <= MAX_ORDER_LOG2; order++) {
			unsigned cap = 1u << order;
			struct godwit_spsc ring;
			void *slots[MAX_SLOTS], *items[MAX_SLOTS + 3];

			godwit_spsc_init_at(&ring, slots, order, starts[s]);
			fill_patterns(items, 0, cap + 3);
			cr_assert_eq(godwit_spsc_push(&ring, items, cap + 3), cap);
			cr_assert_eq(godwit_spsc_count(&ring), cap);
			poison(items, cap + 3);
			cr_assert_eq(godwit_spsc_pop(&ring, items, cap + 3), cap);
			expect_patterns(items, 0, cap);
			for (unsigned i = cap; i < cap + 3; i++)
				cr_assert_eq(items[i], POISON, "wrote past what it returned");
			cr_assert_eq(godwit_spsc_count(&ring), 0);
		}
	}
}

Test(spsc, push_on_a_full_ring_leaves_it_unchanged)
{
	struct godwit_spsc ring;
	void *slots[4], *items[4], *extra = POISON;

	godwit_spsc_init(&ring, slots, 2);
	fill_patterns(items, 0, 4);
	cr_assert_eq(godwit_spsc_push(&ring, items, 4), 4);
	cr_assert_eq(godwit_spsc_push(&ring, &extra, 1), 0);
	cr_assert_eq(godwit_spsc_count(&ring), 4);
	cr_assert_eq(godwit_spsc_pop(&ring, items, 4), 4);
	expect_patterns(items, 0, 4);
}

Test(spsc, burst_of_none_does_nothing)
{
	struct godwit_spsc ring;
	void *slots[2], *item = pattern_of(7);

	godwit_spsc_init(&ring, slots, 1);
	cr_assert_eq(godwit_spsc_push(&ring, &item, 0), 0);
	cr_assert_eq(godwit_spsc_pop(&ring, &item, 0), 0);
	cr_assert_eq(godwit_spsc_push(&ring, &item, 1), 1);
	cr_assert_eq(godwit_spsc_pop(&ring, &item, 0), 0);
	cr_assert_eq(godwit_spsc_count(&ring), 1);
	cr_assert_eq(item, pattern_of(7));
}

/* Every fill level at every index near the wrap, in every split of bursts. */
Test(spsc, bursts_cross_the_end_of_the_slots_and_of_the_indices)
{
	for (unsigned order = 0; order <= 3; order++) {
		unsigned cap = 1u << order;

		for (unsigned in = 1; in <= cap + 1; in++) {
			for (unsigned out = 1; out <= cap + 1; out++) {
				struct godwit_spsc ring;
				void *slots[8], *items[9];
				uint64_t pushed = 0, popped = 0;

				godwit_spsc_init_at(&ring, slots, order, UINT32_MAX - 20);
				while (popped < 60) {
					unsigned room = cap - (unsigned)(pushed - popped);
					unsigned n;

					fill_patterns(items, pushed, in);
					n = godwit_spsc_push(&ring, items, in);
					cr_assert_eq(n, in < room ? in : room);
					pushed += n;
					cr_assert_eq(godwit_spsc_count(&ring), pushed - popped);
					n = godwit_spsc_pop(&ring, items, out);
					cr_assert_eq(n, pushed - popped < out ? pushed - popped : out);
					expect_patterns(items, popped, n);
					popped += n;
				}
			}
		}
	}
}

struct passing {
	struct stress run;
	struct godwit_spsc ring;
	unsigned max_burst;
	uint64_t nr_items;
};

static void *produce(void *arg)
{
	struct passing *p = arg;
	uint64_t random = 0x1234567, sent = 0;
	void *items[MAX_SLOTS];

	while (sent < p->nr_items && stress_goes_on(&p->run)) {
		uint64_t n = 1 + (next_random(&random) >> 33) % p->max_burst;
		unsigned done = 0;

		if (n > p->nr_items - sent)
			n = p->nr_items - sent;
		fill_patterns(items, sent, n);
		while (done < n && stress_goes_on(&p->run)) {
			unsigned pushed = godwit_spsc_push(&p->ring, items + done, n - done);

			/* The ring has copied them: what we do with ours must not matter. */
			poison(items + done, pushed);
			done += pushed;
			perturb(&random);
			if (pushed == 0)
				sched_yield();
		}
		sent += done;
	}
	return NULL;
}

static void consume(struct passing *p)
{
	uint64_t random = 0x7654321, got = 0;
	void *items[MAX_SLOTS];

	while (got < p->nr_items && stress_goes_on(&p->run)) {
		unsigned want = 1 + (next_random(&random) >> 33) % p->max_burst;
		unsigned seen = godwit_spsc_count(&p->ring), n;

		poison(items, want);
		n = godwit_spsc_pop(&p->ring, items, want);
		if (n > want || n < (seen < want ? seen : want))
			stress_complain(&p->run, "popped more than asked or less than counted", n);
		for (unsigned i = 0; i < n; i++)
			if (items[i] != pattern_of(got + i))
				stress_complain(&p->run, "wrong item", got + i);
		for (unsigned i = n; i < want; i++)
			if (items[i] != POISON)
				stress_complain(&p->run, "wrote past what it returned", i);
		got += n;
		perturb(&random);
		if (n == 0)
			sched_yield();
	}
}

static void pass(unsigned order_log2, unsigned max_burst, uint32_t start, uint64_t nr_items)
{
	struct passing p = { .max_burst = max_burst, .nr_items = nr_items };
	void *slots[MAX_SLOTS];
	pthread_t producer;

	godwit_spsc_init_at(&p.ring, slots, order_log2, start);
	stress_start(&p.run, 30 * NS_PER_S * soak_factor(20));
	cr_assert_eq(pthread_create(&producer, NULL, produce, &p), 0);
	consume(&p);
	cr_assert_eq(pthread_join(producer, NULL), 0);
	stress_expect_fine(&p.run, "order %u, bursts to %u, from %u", order_log2, max_burst, start);
	cr_assert_eq(godwit_spsc_count(&p.ring), 0);
}

Test(spsc, passes_everything_once_in_order_between_threads, .timeout = 900)
{
	static const unsigned orders[] = { 0, 1, 2, 6 };
	static const unsigned bursts[] = { 1, 3, 64 };
	uint64_t nr_items = (STRESS_IS_SLOW ? 10000 : 100000) * (uint64_t)soak_factor(100);

	for (unsigned o = 0; o < 4; o++)
		for (unsigned b = 0; b < 3; b++)
			for (unsigned s = 0; s < 2; s++)
				pass(orders[o], bursts[b], UINT32_MAX * s - nr_items / 2 * s,
				     nr_items);
}

Test(spsc, works_when_both_threads_share_one_cpu, .timeout = 900)
{
	cpu_set_t all;

	cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	/* Where affinity may not be changed the test is the one above once more. */
	stress_take_cpu(0);
	pass(2, 3, UINT32_MAX - 1000, 20000 * (uint64_t)soak_factor(100));
	sched_setaffinity(0, sizeof(all), &all);
}
