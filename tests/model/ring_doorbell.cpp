/* SPDX-License-Identifier: LGPL-2.1-or-later */
// covers: src/ring/doorbell.h src/ring/doorbell.c
// mutant: src/ring/doorbell.h: s/ && !is_last//
// mutant: src/ring/doorbell.c: /W1 fence/,/is_ready = ready/s/is_ready = ready(arg)/is_ready = false/
// mutant: src/ring/doorbell.c: s/godwit_futex_wake(&bell->need);//
// mutant: src/ring/doorbell.c: s/futex_wait(&bell->need, wake_at/futex_wait(\&bell->need, bell->need.debug_value()/
/*
 * ring_doorbell.cpp - the sleep protocol: nobody sleeps while there is something for him
 *
 * The model's sleep has no timeout, so a lost wake is a deadlock. Three shapes, as the engine uses the bell:
 * a worker that sleeps on its ring and a quit flag; several ringers of one bell; and a submitter that
 * asks to be woken from some progress on, including one that is never reached.
 */
#include "model.hpp"
#include "ring/spsc.h"
#include "ring/doorbell.c"

/* A worker takes items from its ring until it is told to quit, and sleeps in between. */
struct worker_is_never_left_asleep : rl::test_suite<worker_is_never_left_asleep, 2> {
	enum { NR_ITEMS = 3 };
	godwit_doorbell bell;
	godwit_spsc ring;
	godwit_slot slots[4];
	_Atomic(uint32_t) quit;
	unsigned nr_popped, nr_wakes;

	static bool has_news(void *arg)
	{
		worker_is_never_left_asleep *me = static_cast<worker_is_never_left_asleep *>(arg);

		return godwit_spsc_count(&me->ring) > 0 ||
		       atomic_load_explicit(&me->quit, memory_order_relaxed);
	}

	void before()
	{
		godwit_doorbell_init(&bell);
		godwit_spsc_init(&ring, slots, 2);
		atomic_init(&quit, 0);
		nr_popped = nr_wakes = 0;
	}

	void thread(unsigned index)
	{
		void *item = this;

		if (index == 0) {
			for (unsigned i = 0; i < NR_ITEMS; i++) {
				RL_ASSERT(godwit_spsc_push(&ring, &item, 1) == 1);
				nr_wakes += godwit_doorbell_ring(&bell);
			}
			/* Relaxed: what quitting must see is in the ring, and the bell's fence is behind it. */
			atomic_store_explicit(&quit, 1, memory_order_relaxed);
			nr_wakes += godwit_doorbell_ring(&bell);
			return;
		}
		for (;;) {
			while (godwit_spsc_pop(&ring, &item, 1) == 1)
				nr_popped++;
			if (nr_popped == NR_ITEMS &&
			    atomic_load_explicit(&quit, memory_order_relaxed))
				break;
			RL_ASSERT(godwit_doorbell_wait(&bell, has_news, this, rl::rand(2), -1));
		}
	}

	void after()
	{
		RL_ASSERT(nr_popped == NR_ITEMS);
		RL_ASSERT(nr_wakes <= NR_ITEMS + 1);
		RL_ASSERT(bell.need.debug_value() == 0);
	}
};

/* Two threads ring one bell at about the same time; each has done its part before. */
struct one_of_several_ringers_wakes : rl::test_suite<one_of_several_ringers_wakes, 3> {
	godwit_doorbell bell;
	_Atomic(uint32_t) done[2];

	static bool both_done(void *arg)
	{
		one_of_several_ringers_wakes *me = static_cast<one_of_several_ringers_wakes *>(arg);

		return atomic_load_explicit(&me->done[0], memory_order_relaxed) &&
		       atomic_load_explicit(&me->done[1], memory_order_relaxed);
	}

	void before()
	{
		godwit_doorbell_init(&bell);
		atomic_init(&done[0], 0);
		atomic_init(&done[1], 0);
	}

	void thread(unsigned index)
	{
		if (index == 2) {
			RL_ASSERT(godwit_doorbell_wait(&bell, both_done, this, 0, -1));
			return;
		}
		atomic_store_explicit(&done[index], 1, memory_order_relaxed);
		godwit_doorbell_ring(&bell);
	}
};

/*
 * Each of two workers has two items; the submitter waits for all four and is woken from wake_at completions
 * of one worker on, or when a worker has nothing left.
 */
template <unsigned wake_at>
struct submitter_gets_all_results : rl::test_suite<submitter_gets_all_results<wake_at>, 3> {
	typedef submitter_gets_all_results me_t;
	enum { NR_WORKERS = 2, NR_ITEMS = 2 };
	godwit_doorbell bell;
	godwit_spsc todo[NR_WORKERS], done[NR_WORKERS];
	godwit_slot todo_slots[NR_WORKERS][2], done_slots[NR_WORKERS][2];
	rl::var<int> result[NR_WORKERS * NR_ITEMS];
	unsigned nr_wakes;

	static bool has_results(void *arg)
	{
		me_t *me = static_cast<me_t *>(arg);

		return godwit_spsc_count(&me->done[0]) + godwit_spsc_count(&me->done[1]) > 0;
	}

	void before()
	{
		godwit_doorbell_init(&bell);
		nr_wakes = 0;
		for (unsigned w = 0; w < NR_WORKERS; w++) {
			void *items[] = { &result[NR_ITEMS * w], &result[NR_ITEMS * w + 1] };

			godwit_spsc_init(&todo[w], todo_slots[w], 1);
			godwit_spsc_init(&done[w], done_slots[w], 1);
			godwit_spsc_push(&todo[w], items, NR_ITEMS);
		}
	}

	void work(unsigned w)
	{
		void *item;

		while (godwit_spsc_pop(&todo[w], &item, 1) == 1) {
			(*static_cast<rl::var<int> *>(item))($) = 1;
			RL_ASSERT(godwit_spsc_push(&done[w], &item, 1) == 1);
			nr_wakes += godwit_doorbell_ring_at(&bell, godwit_spsc_count(&done[w]),
							    godwit_spsc_count(&todo[w]) == 0);
		}
	}

	void collect()
	{
		unsigned nr_collected = 0;

		for (;;) {
			for (unsigned w = 0; w < NR_WORKERS; w++) {
				void *items[NR_ITEMS];
				unsigned n = godwit_spsc_pop(&done[w], items, NR_ITEMS);

				for (unsigned i = 0; i < n; i++)
					RL_ASSERT((*static_cast<rl::var<int> *>(items[i]))($) == 1);
				nr_collected += n;
			}
			if (nr_collected == NR_WORKERS * NR_ITEMS)
				break;
			RL_ASSERT(godwit_doorbell_wait_at(&bell, wake_at, has_results, this, 0, -1));
		}
	}

	void thread(unsigned index)
	{
		if (index < NR_WORKERS)
			work(index);
		else
			collect();
	}
};

int main()
{
	return !(model_holds<worker_is_never_left_asleep>("worker", 100000) &&
		 model_holds<one_of_several_ringers_wakes>("several ringers", 100000) &&
		 model_holds<submitter_gets_all_results<1>>("submitter, wake at 1", 60000) &&
		 model_holds<submitter_gets_all_results<2>>("submitter, wake at 2", 60000) &&
		 model_holds<submitter_gets_all_results<9>>("submitter, never enough", 60000));
}
