/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test_mpmc.c - the ring between any number of threads */
#include "ring/ring.h"
#include "stress.h"

#define MAX_ORDER_LOG2 6
#define MAX_CELLS (1u << MAX_ORDER_LOG2)

/* Where the tickets start: at the bottom, before the 32-bit wrap, before and at the 64-bit wrap. */
static const uint64_t starts[] = { 0, UINT32_MAX - 5, UINT64_MAX - 5, UINT64_MAX, INT64_MAX - 2 };
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

Test(mpmc, takes_as_many_as_it_has_cells_and_gives_them_back_in_order)
{
	for (unsigned s = 0; s < NR_STARTS; s++) {
		for (unsigned order = 1; order <= MAX_ORDER_LOG2; order++) {
			unsigned cap = 1u << order;
			struct godwit_mpmc ring;
			struct godwit_mpmc_cell cells[MAX_CELLS];
			void *items[MAX_CELLS + 3];

			godwit_mpmc_init_at(&ring, cells, order, starts[s]);
			cr_assert_eq(godwit_mpmc_count(&ring), 0);
			cr_assert_eq(godwit_mpmc_pop(&ring, items, cap), 0);
			fill_patterns(items, 0, cap + 3);
			cr_assert_eq(godwit_mpmc_push(&ring, items, cap + 3), cap);
			cr_assert_eq(godwit_mpmc_push(&ring, items, 1), 0);
			cr_assert_eq(godwit_mpmc_count(&ring), cap);
			poison(items, cap + 3);
			cr_assert_eq(godwit_mpmc_pop(&ring, items, cap + 3), cap);
			expect_patterns(items, 0, cap);
			for (unsigned i = cap; i < cap + 3; i++)
				cr_assert_eq(items[i], POISON, "wrote past what it returned");
			cr_assert_eq(godwit_mpmc_count(&ring), 0);
		}
	}
}

Test(mpmc, burst_of_none_does_nothing)
{
	struct godwit_mpmc ring;
	struct godwit_mpmc_cell cells[2];
	void *item = pattern_of(7);

	godwit_mpmc_init(&ring, cells, 1);
	cr_assert_eq(godwit_mpmc_push(&ring, &item, 0), 0);
	cr_assert_eq(godwit_mpmc_pop(&ring, &item, 0), 0);
	cr_assert_eq(godwit_mpmc_push(&ring, &item, 1), 1);
	cr_assert_eq(godwit_mpmc_pop(&ring, &item, 0), 0);
	cr_assert_eq(godwit_mpmc_count(&ring), 1);
}

Test(mpmc, bursts_cross_the_end_of_the_cells_and_of_the_tickets)
{
	for (unsigned order = 1; order <= 3; order++) {
		unsigned cap = 1u << order;

		for (unsigned in = 1; in <= cap + 1; in++) {
			for (unsigned out = 1; out <= cap + 1; out++) {
				struct godwit_mpmc ring;
				struct godwit_mpmc_cell cells[8];
				void *items[9];
				uint64_t pushed = 0, popped = 0;

				godwit_mpmc_init_at(&ring, cells, order, UINT64_MAX - 20);
				while (popped < 60) {
					unsigned room = cap - (unsigned)(pushed - popped);
					unsigned n;

					fill_patterns(items, pushed, in);
					n = godwit_mpmc_push(&ring, items, in);
					cr_assert_eq(n, in < room ? in : room);
					pushed += n;
					cr_assert_eq(godwit_mpmc_count(&ring), pushed - popped);
					n = godwit_mpmc_pop(&ring, items, out);
					cr_assert_eq(n, pushed - popped < out ? pushed - popped : out);
					expect_patterns(items, popped, n);
					popped += n;
				}
			}
		}
	}
}

/* What the header says of a producer stopped between claim and fill: it hides, but nobody waits. */
Test(mpmc, stopped_producer_hides_what_is_behind_it_and_blocks_nobody)
{
	struct godwit_mpmc ring;
	struct godwit_mpmc_cell cells[4];
	void *items[4];
	uint64_t ticket;

	godwit_mpmc_init(&ring, cells, 2);
	ticket = atomic_fetch_add(&ring.tail, 1);
	fill_patterns(items, 1, 2);
	cr_assert_eq(godwit_mpmc_push(&ring, items, 2), 2);
	cr_assert_eq(godwit_mpmc_pop(&ring, items, 4), 0);
	cr_assert_eq(godwit_mpmc_count(&ring), 3);

	cells[ticket & 3].item = pattern_of(0);
	atomic_store(&cells[ticket & 3].seq, ticket + 1);
	cr_assert_eq(godwit_mpmc_pop(&ring, items, 4), 3);
	expect_patterns(items, 0, 3);
}

#define MAX_THREADS 4

struct passing {
	struct stress run;
	struct godwit_mpmc ring;
	unsigned nr_producers, nr_consumers, max_burst;
	uint64_t nr_each;			/* items of one producer */
	_Atomic(uint64_t) nr_popped;
	_Atomic(uint8_t) *times_seen;		/* of item producer * nr_each + seq */
};

struct side {
	struct passing *p;
	unsigned index;
	pthread_t thread;
};

static void *produce(void *arg)
{
	struct side *side = arg;
	struct passing *p = side->p;
	uint64_t random = 1000003 * (side->index + 1), sent = 0;
	void *items[MAX_CELLS];

	while (sent < p->nr_each && stress_goes_on(&p->run)) {
		uint64_t n = 1 + (next_random(&random) >> 33) % p->max_burst;
		unsigned pushed;

		if (n > p->nr_each - sent)
			n = p->nr_each - sent;
		for (unsigned i = 0; i < n; i++)	/* the number, its check, never NULL */
			items[i] = (void *)(uintptr_t)(side->index * p->nr_each + sent + i + 1);
		pushed = godwit_mpmc_push(&p->ring, items, n);
		if (pushed > n)
			stress_complain(&p->run, "pushed more than given", pushed);
		poison(items, n);
		sent += pushed;
		perturb(&random);
		if (pushed == 0)
			sched_yield();
	}
	return NULL;
}

static void *consume(void *arg)
{
	struct side *side = arg;
	struct passing *p = side->p;
	uint64_t random = 7368787 * (side->index + 1), nr_all = p->nr_each * p->nr_producers;
	uint64_t next[MAX_THREADS] = { 0 };
	void *items[MAX_CELLS];

	while (atomic_load(&p->nr_popped) < nr_all && stress_goes_on(&p->run)) {
		unsigned want = 1 + (next_random(&random) >> 33) % p->max_burst, n;

		poison(items, want);
		n = godwit_mpmc_pop(&p->ring, items, want);
		for (unsigned i = 0; i < n; i++) {
			uint64_t number = (uintptr_t)items[i] - 1;
			uint64_t from = number / p->nr_each;

			if (number >= nr_all) {
				stress_complain(&p->run, "popped what nobody pushed", number);
				return NULL;
			}
			if (number % p->nr_each < next[from])
				stress_complain(&p->run, "overtaken by a later item", number);
			next[from] = number % p->nr_each + 1;
			if (atomic_fetch_add(&p->times_seen[number], 1) != 0)
				stress_complain(&p->run, "popped twice", number);
		}
		for (unsigned i = n; i < want; i++)
			if (items[i] != POISON)
				stress_complain(&p->run, "wrote past what it returned", i);
		atomic_fetch_add(&p->nr_popped, n);
		perturb(&random);
		if (n == 0)
			sched_yield();
	}
	return NULL;
}

static void pass(unsigned order_log2, unsigned nr_producers, unsigned nr_consumers,
		 unsigned max_burst, uint64_t start, uint64_t nr_each)
{
	struct passing p = {
		.nr_producers = nr_producers, .nr_consumers = nr_consumers,
		.max_burst = max_burst, .nr_each = nr_each,
	};
	struct godwit_mpmc_cell cells[MAX_CELLS];
	struct side sides[2 * MAX_THREADS];

	p.times_seen = calloc(nr_each * nr_producers, sizeof(*p.times_seen));
	cr_assert_not_null(p.times_seen);
	godwit_mpmc_init_at(&p.ring, cells, order_log2, start);
	stress_start(&p.run, 30 * NS_PER_S * soak_factor(20));
	for (unsigned i = 0; i < nr_producers + nr_consumers; i++) {
		bool produces = i < nr_producers;

		sides[i] = (struct side){ &p, produces ? i : i - nr_producers, 0 };
		cr_assert_eq(pthread_create(&sides[i].thread, NULL, produces ? produce : consume,
					    &sides[i]), 0);
	}
	for (unsigned i = 0; i < nr_producers + nr_consumers; i++)
		cr_assert_eq(pthread_join(sides[i].thread, NULL), 0);
	stress_expect_fine(&p.run, "order %u, %u to %u, bursts to %u", order_log2, nr_producers,
			   nr_consumers, max_burst);
	for (uint64_t i = 0; i < nr_each * nr_producers; i++)
		cr_assert_eq(p.times_seen[i], 1, "item %lu", (unsigned long)i);
	cr_assert_eq(godwit_mpmc_count(&p.ring), 0);
	free(p.times_seen);
}

Test(mpmc, passes_everything_once_between_threads, .timeout = 900)
{
	static const unsigned orders[] = { 1, 2, 6 };
	static const unsigned bursts[] = { 1, 3, 64 };
	static const unsigned sides[][2] = { { 1, 1 }, { 2, 2 }, { 3, 1 }, { 1, 3 }, { 4, 4 } };
	uint64_t nr_each = (STRESS_IS_SLOW ? 2000 : 15000) * (uint64_t)soak_factor(100);

	for (unsigned o = 0; o < 3; o++)
		for (unsigned b = 0; b < 3; b++)
			for (unsigned s = 0; s < 5; s++)
				pass(orders[o], sides[s][0], sides[s][1], bursts[b],
				     s % 2 ? UINT64_MAX - nr_each : UINT32_MAX - nr_each, nr_each);
}
