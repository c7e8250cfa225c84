/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* worker.c - the loop of a worker thread, its start and its end; see worker.h */
#include <signal.h>
#include <string.h>
#include <time.h>

#include "engine/clock.h"
#include "engine/topology.h"
#include "engine/worker.h"

#define SPIN_NS 3000u

/* What a wake takes where processors are free, and more. */
#define WAKE_NS 100000u

uint32_t godwit_worker_spin_ns(uint32_t workers)
{
	return workers < godwit_topology_processors() ? SPIN_NS : 0;
}

static bool has_work(void *arg)
{
	struct godwit_worker *w = arg;

	/* Acquire quit, meets the release in stop: jobs given before are then seen in the ring. */
	return godwit_spsc_count(&w->todo) || atomic_load_explicit(&w->quit, memory_order_acquire);
}

static uint64_t thread_cpu_ns(clockid_t clock)
{
	struct timespec spent;

	if (clock_gettime(clock, &spent))
		return 0;
	return (uint64_t)spent.tv_sec * 1000000000u + (uint64_t)spent.tv_nsec;
}

/* It slept until now: how long for want of a processor? */
static void count_late(struct godwit_worker *w, uint64_t since_ns, uint64_t now_ns)
{
	/* Relaxed: a figure. One of an earlier spell, or none yet, is not above since_ns. */
	uint64_t woken_ns = atomic_load_explicit(&w->woken_at_ns, memory_order_relaxed);

	if (woken_ns > since_ns && now_ns > woken_ns + WAKE_NS)
		godwit_count(&w->counters, GODWIT_COUNT_LATE_NS, now_ns - woken_ns - WAKE_NS);
}

static void *work(void *arg)
{
	struct godwit_worker *w = arg;
	uint64_t since_ns = godwit_now_ns(), now_ns;
	uint64_t cpu_ns;
	void *job;

	pthread_setname_np(pthread_self(), w->name);
	for (;;) {
		/* Acquire, meets the release in stop; read before the ring is found empty. */
		bool quit = atomic_load_explicit(&w->quit, memory_order_acquire);

		if (!godwit_spsc_pop(&w->todo, &job, 1)) {
			if (quit)
				break;
			/* Relaxed, twice: a figure. */
			atomic_store_explicit(&w->idle_since_ns, since_ns, memory_order_relaxed);
			godwit_doorbell_wait(&w->bell, has_work, w, w->spin_ns, -1);
			now_ns = godwit_now_ns();
			godwit_count(&w->counters, GODWIT_COUNT_IDLE_NS, now_ns - since_ns);
			count_late(w, since_ns, now_ns);
			atomic_store_explicit(&w->idle_since_ns, 0, memory_order_relaxed);
			since_ns = now_ns;
			continue;
		}
		uint32_t progress = w->run(w->user, job);
		bool is_last = !godwit_spsc_count(&w->todo);

		if (godwit_doorbell_ring_at(w->owner, progress, is_last))
			godwit_count(&w->counters, GODWIT_COUNT_WAKES, 1);
		now_ns = godwit_now_ns();
		godwit_count(&w->counters, GODWIT_COUNT_WALL_NS, now_ns - since_ns);
		since_ns = now_ns;
	}
	/* Relaxed: read after the join. */
	cpu_ns = atomic_load_explicit(&w->ended_cpu_ns, memory_order_relaxed);
	atomic_store_explicit(&w->ended_cpu_ns, cpu_ns + thread_cpu_ns(CLOCK_THREAD_CPUTIME_ID),
			      memory_order_relaxed);
	return NULL;
}

void godwit_worker_init(struct godwit_worker *w, const char *name,
			uint32_t (*run)(void *user, void *job), void *user,
			struct godwit_doorbell *owner)
{
	memset(w, 0, sizeof(*w));
	w->run = run;
	w->user = user;
	w->owner = owner;
	memcpy(w->name, name, strnlen(name, sizeof(w->name) - 1));
	godwit_doorbell_init(&w->bell);
	godwit_spsc_init(&w->todo, w->slots, GODWIT_WORKER_RING_LOG2);
}

int godwit_worker_start(struct godwit_worker *w, uint32_t spin_ns)
{
	sigset_t all, old;
	int err;

	w->spin_ns = spin_ns;
	/* Relaxed: the thread is made after. */
	atomic_store_explicit(&w->quit, false, memory_order_relaxed);
	/* The host's signals are the host's threads' business. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&w->thread, NULL, work, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	w->is_running = !err;
	return -err;
}

int godwit_worker_bind(struct godwit_worker *w, int cpu)
{
	return w->is_running ? godwit_topology_bind(w->thread, cpu) : 0;
}

bool godwit_worker_give(struct godwit_worker *w, void *job)
{
	/* Relaxed: a figure. */
	if (godwit_doorbell_has_sleeper(&w->bell))
		atomic_store_explicit(&w->woken_at_ns, godwit_now_ns(), memory_order_relaxed);
	godwit_spsc_push(&w->todo, &job, 1);
	return godwit_doorbell_ring(&w->bell);
}

void godwit_worker_stop(struct godwit_worker *w)
{
	if (!w->is_running)
		return;
	/* Release, meets the acquire in work(): what was given before is in the ring when quit is seen. */
	atomic_store_explicit(&w->quit, true, memory_order_release);
	godwit_doorbell_ring(&w->bell);
	pthread_join(w->thread, NULL);
	w->is_running = false;
}

uint64_t godwit_worker_idle_ns(const struct godwit_worker *w, uint64_t now_ns)
{
	/* Relaxed: read apart, the two may be off by one spell; so may the figure, until the next. */
	uint64_t since_ns = atomic_load_explicit(&w->idle_since_ns, memory_order_relaxed);
	uint64_t idle_ns = atomic_load_explicit(&w->counters.of[GODWIT_COUNT_IDLE_NS], memory_order_relaxed);

	return since_ns && since_ns < now_ns ? idle_ns + (now_ns - since_ns) : idle_ns;
}

uint64_t godwit_worker_cpu_ns(const struct godwit_worker *w)
{
	/* Relaxed: the writer was joined, or has not ended. */
	uint64_t cpu_ns = atomic_load_explicit(&w->ended_cpu_ns, memory_order_relaxed);
	clockid_t clock;

	if (w->is_running && !pthread_getcpuclockid(w->thread, &clock))
		cpu_ns += thread_cpu_ns(clock);
	return cpu_ns;
}
