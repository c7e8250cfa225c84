/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test_doorbell.c - sleeping until there is something, and being woken seldom but surely */
#include <errno.h>
#include <signal.h>

#include "ring/ring.h"
#include "stress.h"
#include "unfenced.h"

static bool is_set(void *arg)
{
	return atomic_load_explicit((_Atomic(uint32_t) *)arg, memory_order_relaxed) != 0;
}

/* A thread that waits for flag on bell, and how it went. */
struct sleeper {
	struct godwit_doorbell bell;
	_Atomic(uint32_t) flag;
	uint32_t wake_at, spin_ns;
	int64_t timeout_ns;
	bool result;
	pthread_t thread;
};

static void *sleep_until_set(void *arg)
{
	struct sleeper *s = arg;

	s->result = godwit_doorbell_wait_at(&s->bell, s->wake_at, is_set, &s->flag, s->spin_ns,
					    s->timeout_ns);
	return NULL;
}

static void start_sleeper(struct sleeper *s, uint32_t wake_at, uint32_t spin_ns)
{
	godwit_doorbell_init(&s->bell);
	atomic_init(&s->flag, 0);
	s->wake_at = wake_at;
	s->spin_ns = spin_ns;
	s->timeout_ns = 10 * NS_PER_S;
	cr_assert_eq(pthread_create(&s->thread, NULL, sleep_until_set, s), 0);
}

/* Until it has gone to sleep for the nth time; a millisecond more lets it arrive in the kernel. */
static void expect_sleep(struct sleeper *s, uint64_t nth)
{
	int64_t deadline_ns = now_ns() + 10 * NS_PER_S;
	struct timespec ms = { .tv_nsec = NS_PER_MS };

	while (godwit_doorbell_nr_sleeps(&s->bell) < nth ||
	       !godwit_doorbell_has_sleeper(&s->bell)) {
		cr_assert_lt(now_ns(), deadline_ns, "never went to sleep");
		sched_yield();
	}
	nanosleep(&ms, NULL);
}

static void expect_woken(struct sleeper *s)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 9;
	cr_assert_eq(pthread_timedjoin_np(s->thread, NULL, &limit), 0, "sleeps on");
	cr_assert(s->result);
	cr_assert_not(godwit_doorbell_has_sleeper(&s->bell));
}

Test(doorbell, wait_returns_at_once_when_there_is_something)
{
	struct godwit_doorbell bell;
	_Atomic(uint32_t) flag = 1;

	godwit_doorbell_init(&bell);
	cr_assert(godwit_doorbell_wait(&bell, is_set, &flag, 0, -1));
	cr_assert_eq(godwit_doorbell_nr_sleeps(&bell), 0);
}

Test(doorbell, wait_gives_up_after_its_timeout_and_not_before)
{
	struct godwit_doorbell bell;
	_Atomic(uint32_t) flag = 0;
	int64_t start_ns = now_ns();

	godwit_doorbell_init(&bell);
	cr_assert_not(godwit_doorbell_wait(&bell, is_set, &flag, 0, 20 * NS_PER_MS));
	cr_assert_geq(now_ns() - start_ns, 20 * NS_PER_MS);
	cr_assert_not(godwit_doorbell_has_sleeper(&bell));
	cr_assert_gt(godwit_doorbell_nr_sleeps(&bell), 0);

	/* Spinning is part of the time, not on top of it. */
	start_ns = now_ns();
	cr_assert_not(godwit_doorbell_wait(&bell, is_set, &flag, 4000000000u, 20 * NS_PER_MS));
	cr_assert_lt(now_ns() - start_ns, 3 * NS_PER_S);
}

Test(doorbell, wait_without_time_only_looks)
{
	struct godwit_doorbell bell;
	_Atomic(uint32_t) flag = 0;

	godwit_doorbell_init(&bell);
	cr_assert_not(godwit_doorbell_wait(&bell, is_set, &flag, 1000000, 0));
	cr_assert_eq(godwit_doorbell_nr_sleeps(&bell), 0);
	atomic_store(&flag, 1);
	cr_assert(godwit_doorbell_wait(&bell, is_set, &flag, 1000000, 0));
}

Test(doorbell, ringing_wakes_nobody_when_nobody_sleeps)
{
	struct godwit_doorbell bell;

	godwit_doorbell_init(&bell);
	cr_assert_not(godwit_doorbell_ring(&bell));
	cr_assert_not(godwit_doorbell_ring_at(&bell, 5, true));
	cr_assert_not(godwit_doorbell_wake(&bell));
}

Test(doorbell, ringing_wakes_the_sleeper_once, .timeout = 30)
{
	struct sleeper s;

	start_sleeper(&s, 1, 0);
	expect_sleep(&s, 1);
	atomic_store(&s.flag, 1);
	cr_assert(godwit_doorbell_ring(&s.bell));
	cr_assert_not(godwit_doorbell_ring(&s.bell));
	expect_woken(&s);
}

Test(doorbell, ringing_without_news_sends_the_sleeper_back_to_sleep, .timeout = 30)
{
	struct sleeper s;

	start_sleeper(&s, 1, 0);
	expect_sleep(&s, 1);
	cr_assert(godwit_doorbell_ring(&s.bell));
	expect_sleep(&s, 2);
	atomic_store(&s.flag, 1);
	cr_assert(godwit_doorbell_ring(&s.bell));
	expect_woken(&s);
}

Test(doorbell, progress_below_the_threshold_does_not_wake, .timeout = 30)
{
	struct sleeper s;

	start_sleeper(&s, 3, 0);
	expect_sleep(&s, 1);
	atomic_store(&s.flag, 1);
	cr_assert_not(godwit_doorbell_ring_at(&s.bell, 1, false));
	cr_assert_not(godwit_doorbell_ring_at(&s.bell, 2, false));
	cr_assert(godwit_doorbell_has_sleeper(&s.bell));
	cr_assert(godwit_doorbell_ring_at(&s.bell, 3, false));
	expect_woken(&s);
}

Test(doorbell, ringer_with_nothing_left_wakes_below_the_threshold, .timeout = 30)
{
	struct sleeper s;

	start_sleeper(&s, 1000, 0);
	expect_sleep(&s, 1);
	atomic_store(&s.flag, 1);
	cr_assert_not(godwit_doorbell_ring_at(&s.bell, 999, false));
	cr_assert(godwit_doorbell_ring_at(&s.bell, 1, true));
	expect_woken(&s);
}

Test(doorbell, news_while_spinning_needs_no_sleep_and_no_wake, .timeout = 30)
{
	struct timespec ms = { .tv_nsec = NS_PER_MS };
	struct sleeper s;

	start_sleeper(&s, 1, 4000000000u);
	nanosleep(&ms, NULL);
	atomic_store(&s.flag, 1);
	cr_assert_not(godwit_doorbell_ring(&s.bell));
	expect_woken(&s);
	cr_assert_eq(godwit_doorbell_nr_sleeps(&s.bell), 0);
}

static void on_signal(int number)
{
}

Test(doorbell, signal_does_not_end_the_wait, .timeout = 30)
{
	struct sigaction action = { .sa_handler = on_signal };	/* no SA_RESTART */
	struct sleeper s;

	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	start_sleeper(&s, 1, 0);
	expect_sleep(&s, 1);
	cr_assert_eq(pthread_kill(s.thread, SIGUSR1), 0);
	expect_sleep(&s, 2);
	atomic_store(&s.flag, 1);
	cr_assert(godwit_doorbell_ring(&s.bell));
	expect_woken(&s);
}

Test(doorbell, idle_sleeper_stays_asleep, .timeout = 30)
{
	struct timespec span = { .tv_nsec = 50 * NS_PER_MS };
	struct sleeper s;
	struct timespec cpu_before, cpu_after;
	clockid_t clock;

	start_sleeper(&s, 1, 0);
	expect_sleep(&s, 1);
	cr_assert_eq(pthread_getcpuclockid(s.thread, &clock), 0);
	clock_gettime(clock, &cpu_before);
	nanosleep(&span, NULL);
	clock_gettime(clock, &cpu_after);
	cr_assert_eq(godwit_doorbell_nr_sleeps(&s.bell), 1);
	cr_assert_lt((cpu_after.tv_sec - cpu_before.tv_sec) * NS_PER_S + cpu_after.tv_nsec -
		     cpu_before.tv_nsec, NS_PER_MS);
	atomic_store(&s.flag, 1);
	godwit_doorbell_ring(&s.bell);
	expect_woken(&s);
}

struct ringer {
	struct sleeper *s;
	_Atomic(uint32_t) *go;
	bool made_wake;
	pthread_t thread;
};

static void *ring_on_go(void *arg)
{
	struct ringer *r = arg;

	while (!is_set(r->go))
		sched_yield();
	r->made_wake = godwit_doorbell_ring(&r->s->bell);
	return NULL;
}

Test(doorbell, one_of_several_ringers_makes_the_wake, .timeout = 60)
{
	for (unsigned round = 0; round < 100; round++) {
		struct ringer ringers[4];
		_Atomic(uint32_t) go = 0;
		unsigned nr_wakes = 0;
		struct sleeper s;

		start_sleeper(&s, 1, 0);
		for (unsigned i = 0; i < 4; i++) {
			ringers[i] = (struct ringer){ .s = &s, .go = &go };
			cr_assert_eq(pthread_create(&ringers[i].thread, NULL, ring_on_go,
						    &ringers[i]), 0);
		}
		expect_sleep(&s, 1);
		atomic_store(&s.flag, 1);
		atomic_store(&go, 1);
		for (unsigned i = 0; i < 4; i++) {
			cr_assert_eq(pthread_join(ringers[i].thread, NULL), 0);
			nr_wakes += ringers[i].made_wake;
		}
		expect_woken(&s);
		cr_assert_eq(nr_wakes, 1);
	}
}

/*
 * The lost-wake detector. The ringer pushes one item, rings, and does nothing more until the owner has
 * taken it; so if the owner misses it, nothing later covers that up. The owner sleeps with a timeout. It
 * never gets near it, unless it slept although there was work and the ringer thought it awake: then
 * the timeout is over, work is there, and the ring that announced it is known to have woken nobody.
 */
struct detector {
	struct stress run;
	const struct bell_kind *kind;
	struct godwit_spsc ring;
	alignas(2 * GODWIT_LINE) unsigned char bell[2 * GODWIT_LINE];
	int64_t timeout_ns;
	uint64_t nr_items;
	alignas(2 * GODWIT_LINE) _Atomic(uint64_t) nr_taken;	/* by the owner */
	alignas(2 * GODWIT_LINE) _Atomic(uint64_t) nr_rung;	/* by the ringer, after its ring */
	_Atomic(uint64_t) nr_wakes;
	_Atomic(uint32_t) has_lost;
};

struct bell_kind {
	void (*init)(void *bell);
	bool (*wait)(void *bell, bool (*ready)(void *), void *arg, int64_t timeout_ns);
	bool (*ring)(void *bell);
	uint64_t (*nr_sleeps)(void *bell);
};

#define DEFINE_BELL_KIND(name)									\
static void name##_init(void *bell)								\
{												\
	name##_doorbell_init((struct name##_doorbell *)bell);					\
}												\
static bool name##_wait(void *bell, bool (*ready)(void *), void *arg, int64_t timeout_ns)	\
{												\
	return name##_doorbell_wait((struct name##_doorbell *)bell, ready, arg, 0, timeout_ns);	\
}												\
static bool name##_ring(void *bell)								\
{												\
	return name##_doorbell_ring((struct name##_doorbell *)bell);				\
}												\
static uint64_t name##_sleeps(void *bell)							\
{												\
	return name##_doorbell_nr_sleeps((struct name##_doorbell *)bell);			\
}												\
static const struct bell_kind name##_kind = {							\
	name##_init, name##_wait, name##_ring, name##_sleeps,					\
}

DEFINE_BELL_KIND(godwit);
DEFINE_BELL_KIND(unfenced);

static void stall(uint64_t nr_turns)
{
	for (volatile uint64_t i = 0; i < nr_turns; i++)
		;
}

static bool has_item(void *arg)
{
	return godwit_spsc_count(arg) > 0;
}

static void *ring_for_each_item(void *arg)
{
	struct detector *d = arg;
	uint64_t random = 0xabcdef;

	stress_take_cpu(1);
	for (uint64_t i = 0; i < d->nr_items; i++) {
		void *item = pattern_of(i);

		/* About as long as the owner takes to lie down, so that the two meet. */
		stall((next_random(&random) >> 33) % 64);
		godwit_spsc_push(&d->ring, &item, 1);
		if (d->kind->ring(&d->bell))
			atomic_fetch_add_explicit(&d->nr_wakes, 1, memory_order_relaxed);
		atomic_store(&d->nr_rung, i + 1);
		for (unsigned turn = 0; atomic_load(&d->nr_taken) <= i; turn++) {
			if (is_set(&d->has_lost) || (turn % 64 == 63 && !stress_goes_on(&d->run)))
				return NULL;
			if (turn % 256 == 255)
				sched_yield();
			godwit_cpu_relax();
		}
	}
	return NULL;
}

static void take_each_item(struct detector *d)
{
	uint64_t random = 0xfedcba;

	for (uint64_t i = 0; i < d->nr_items && stress_goes_on(&d->run); i++) {
		void *item = NULL;

		while (godwit_spsc_pop(&d->ring, &item, 1) == 0) {
			uint64_t nr_wakes = atomic_load(&d->nr_wakes);
			int64_t start_ns = now_ns();

			stall((next_random(&random) >> 33) % 16);
			if (!d->kind->wait(&d->bell, has_item, &d->ring, d->timeout_ns) &&
			    !stress_goes_on(&d->run))
				return;
			if (now_ns() - start_ns >= d->timeout_ns && has_item(&d->ring) &&
			    atomic_load(&d->nr_rung) == i + 1 &&
			    atomic_load(&d->nr_wakes) == nr_wakes) {
				atomic_store(&d->has_lost, 1);
				return;
			}
		}
		if (item != pattern_of(i))
			stress_complain(&d->run, "wrong item", i);
		atomic_store(&d->nr_taken, i + 1);
	}
}

/* True if a wake was lost. */
static bool detect(struct detector *d, const struct bell_kind *kind, int64_t timeout_ns,
		   uint64_t nr_items, int64_t limit_ns)
{
	void *slots[2];
	pthread_t ringer;

	*d = (struct detector){ .kind = kind, .timeout_ns = timeout_ns, .nr_items = nr_items };
	stress_start(&d->run, limit_ns);
	godwit_spsc_init(&d->ring, slots, 1);
	kind->init(&d->bell);
	cr_assert_eq(pthread_create(&ringer, NULL, ring_for_each_item, d), 0);
	/* On one CPU, where a busy machine would put them, the two never meet. */
	stress_take_cpu(0);
	take_each_item(d);
	cr_assert_eq(pthread_join(ringer, NULL), 0);
	return is_set(&d->has_lost);
}

Test(doorbell, loses_no_wake, .timeout = 1800)
{
	uint64_t nr_items = (STRESS_IS_SLOW ? 50000 : 400000) * (uint64_t)soak_factor(100);
	struct detector d;

	cr_assert_not(detect(&d, &godwit_kind, 2 * NS_PER_S, nr_items,
			     60 * NS_PER_S * soak_factor(25)), "slept on with work present");
	stress_expect_fine(&d.run, "detector");
	cr_assert_eq(atomic_load(&d.nr_taken), nr_items);
	/* The test is worth something only if it often came to sleeping. */
	cr_assert_gt(godwit_doorbell_nr_sleeps((void *)&d.bell), nr_items / 1000);
}

Test(doorbell, detector_fires_without_the_fences, .timeout = 60)
{
	struct detector d;
	cpu_set_t cpus;

	cr_assert_eq(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	if (CPU_COUNT(&cpus) < 2 || STRESS_IS_SLOW)
		cr_skip_test("takes two CPUs and atomics that are single instructions");
	cr_assert(detect(&d, &unfenced_kind, 50 * NS_PER_MS, UINT64_MAX, 30 * NS_PER_S),
		  "no lost wake in %lu items, %lu sleeps", (unsigned long)atomic_load(&d.nr_taken),
		  (unsigned long)d.kind->nr_sleeps(&d.bell));
}

/*
 * The engine's shape: a submitter feeds workers to a depth, sleeps when it can do nothing, and asks to
 * be woken from some completions on. Wake, threshold, both rings and quitting all take part.
 */
#define NR_WORKERS 3
#define DEPTH 4

struct pool {
	struct stress run;
	struct godwit_doorbell bell;		/* the submitter's */
	struct pool_worker {
		struct pool *pool;
		struct godwit_doorbell bell;
		struct godwit_spsc todo, done;
		void *todo_slots[DEPTH], *done_slots[DEPTH];
		_Atomic(uint32_t) quit;
		uint64_t nr_wakes;		/* made by the worker */
		uint32_t spin_ns;
		pthread_t thread;
	} workers[NR_WORKERS];
};

static bool has_work_or_quits(void *arg)
{
	struct pool_worker *w = arg;

	return godwit_spsc_count(&w->todo) > 0 || is_set(&w->quit);
}

static bool has_results(void *arg)
{
	struct pool *pool = arg;

	for (unsigned i = 0; i < NR_WORKERS; i++)
		if (godwit_spsc_count(&pool->workers[i].done) > 0)
			return true;
	return false;
}

static void *work(void *arg)
{
	struct pool_worker *w = arg;
	uint64_t random = 31 + (w - w->pool->workers);

	for (;;) {
		uint64_t *item;

		while (godwit_spsc_pop(&w->todo, (void **)&item, 1) == 1) {
			perturb(&random);
			*item = ~*item;
			if (godwit_spsc_push(&w->done, (void **)&item, 1) != 1)
				stress_complain(&w->pool->run, "no room for a result", 0);
			w->nr_wakes += godwit_doorbell_ring_at(&w->pool->bell,
							       godwit_spsc_count(&w->done),
							       godwit_spsc_count(&w->todo) == 0);
		}
		if (is_set(&w->quit) && godwit_spsc_count(&w->todo) == 0)
			return NULL;
		if (!godwit_doorbell_wait(&w->bell, has_work_or_quits, w, w->spin_ns, 5 * NS_PER_S) &&
		    !stress_goes_on(&w->pool->run))
			return NULL;
	}
}

static void run_pool(uint32_t wake_at, uint32_t spin_ns, uint64_t nr_items)
{
	static struct pool pool;
	uint64_t items[NR_WORKERS * DEPTH], nr_sent = 0, nr_back = 0, nr_ringer_wakes = 0;
	void *free_items[NR_WORKERS * DEPTH];
	unsigned nr_free = 0, in_flight[NR_WORKERS] = { 0 };

	memset(&pool, 0, sizeof(pool));
	stress_start(&pool.run, 30 * NS_PER_S * soak_factor(20));
	godwit_doorbell_init(&pool.bell);
	for (unsigned i = 0; i < NR_WORKERS * DEPTH; i++)
		free_items[nr_free++] = &items[i];
	for (unsigned i = 0; i < NR_WORKERS; i++) {
		struct pool_worker *w = &pool.workers[i];

		w->pool = &pool;
		w->spin_ns = spin_ns;
		godwit_doorbell_init(&w->bell);
		godwit_spsc_init_at(&w->todo, w->todo_slots, 2, UINT32_MAX - 100);
		godwit_spsc_init_at(&w->done, w->done_slots, 2, UINT32_MAX - 200);
		cr_assert_eq(pthread_create(&w->thread, NULL, work, w), 0);
	}
	while (nr_back < nr_items && stress_goes_on(&pool.run)) {
		bool has_moved = false;

		for (unsigned i = 0; i < NR_WORKERS; i++) {
			struct pool_worker *w = &pool.workers[i];
			uint64_t *back[DEPTH];
			unsigned n = godwit_spsc_pop(&w->done, (void **)back, DEPTH);

			for (unsigned k = 0; k < n; k++) {
				if (*back[k] < UINT64_MAX - nr_items)
					stress_complain(&pool.run, "not worked on", *back[k]);
				free_items[nr_free++] = back[k];
			}
			in_flight[i] -= n;
			nr_back += n;
			has_moved |= n > 0;
			if (nr_sent < nr_items && in_flight[i] < DEPTH) {
				uint64_t *item = free_items[--nr_free];

				*item = nr_sent++;
				in_flight[i]++;
				if (godwit_spsc_push(&w->todo, (void **)&item, 1) != 1)
					stress_complain(&pool.run, "no room for work", i);
				nr_ringer_wakes += godwit_doorbell_ring(&w->bell);
				has_moved = true;
			}
		}
		if (!has_moved && nr_back < nr_items &&
		    !godwit_doorbell_wait_at(&pool.bell, wake_at, has_results, &pool, spin_ns,
					     5 * NS_PER_S))
			stress_complain(&pool.run, "nothing back in 5 s", nr_sent - nr_back);
	}
	for (unsigned i = 0; i < NR_WORKERS; i++) {
		atomic_store(&pool.workers[i].quit, 1);
		godwit_doorbell_ring(&pool.workers[i].bell);
	}
	for (unsigned i = 0; i < NR_WORKERS; i++)
		cr_assert_eq(pthread_join(pool.workers[i].thread, NULL), 0);
	stress_expect_fine(&pool.run, "wake at %u", wake_at);
	cr_assert_eq(nr_back, nr_items);
	cr_assert_eq(nr_free, NR_WORKERS * DEPTH);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		cr_assert_leq(pool.workers[i].nr_wakes, nr_items);
	cr_assert_leq(nr_ringer_wakes, nr_items);
}

Test(doorbell, pool_with_threshold_wake_finishes_all_work, .timeout = 900)
{
	uint64_t nr_items = (STRESS_IS_SLOW ? 4000 : 30000) * (uint64_t)soak_factor(100);

	run_pool(1, 0, nr_items);
	run_pool(2, 0, nr_items);
	run_pool(DEPTH, 0, nr_items);
	run_pool(DEPTH + 1, 0, nr_items);	/* never reached: only "nothing left" wakes */
	run_pool(2, 5000, nr_items);
}
