/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_WORKER_H
#define GODWIT_WORKER_H

#include <pthread.h>
#include <stdbool.h>

#include "engine/counters.h"
#include "ring/ring.h"

/*
 * worker.h - a thread that takes jobs off a ring of its own
 *
 * One owner (the thread that queues pages, or the loader) gives jobs; the worker runs them in order
 * and hands each back through run(), which publishes it where the owner looks, and then rings the
 * owner. What a job is, the worker does not know: the source encodes batches, the destination decodes
 * frames.
 *
 * Threads: init, start, give and stop by the owner; cpu_ns by anybody who holds off start and stop.
 */

/* Jobs that a worker may have waiting; a power of two above any depth in use. */
#define GODWIT_WORKER_RING_LOG2 4

/* How long an idle thread polls before it sleeps where it has a processor to itself; 0 where workers and
 * their owner outnumber the processors allowed. */
uint32_t godwit_worker_spin_ns(uint32_t workers);

struct godwit_worker {
	/* Set by init, then read-only. */
	uint32_t (*run)(void *user, void *job);	/* does the job and hands it back; returns how many handed
						 * back jobs the owner has not taken, about */
	void *user;
	struct godwit_doorbell *owner;
	char name[16];

	/* The owner's. */
	pthread_t thread;
	bool is_running;
	uint32_t spin_ns;

	_Atomic bool quit;		/* owner sets, worker reads: see stop */
	struct godwit_doorbell bell;	/* the worker sleeps here */
	_Atomic uint64_t woken_at_ns;	/* owner sets: when it last gave a job to a worker that slept */
	struct godwit_spsc todo;
	godwit_slot slots[1 << GODWIT_WORKER_RING_LOG2];

	/* The worker's. */
	struct godwit_counters counters;	/* idle, late and wall time */
	_Atomic uint64_t idle_since_ns;	/* 0: it has a job */
	_Atomic uint64_t ended_cpu_ns;	/* of threads that this worker has had before */
};

void godwit_worker_init(struct godwit_worker *worker, const char *name,
			uint32_t (*run)(void *user, void *job), void *user,
			struct godwit_doorbell *owner);

/* 0 or -errno of the thread. spin_ns: how long to poll an empty ring before sleeping. */
int godwit_worker_start(struct godwit_worker *worker, uint32_t spin_ns);

/* Run on this processor from now on (-1: as it does). 0, or -errno where that is refused. */
int godwit_worker_bind(struct godwit_worker *worker, int cpu);

/* Never full: the owner gives at most 1 << GODWIT_WORKER_RING_LOG2 jobs. Returns whether it had to be woken. */
bool godwit_worker_give(struct godwit_worker *worker, void *job);

/* The jobs given are done first; then the thread is joined. A worker that does not run is fine. */
void godwit_worker_stop(struct godwit_worker *worker);

/* Time without a job so far, the spell that goes on now included: counters have it only when it ends. */
uint64_t godwit_worker_idle_ns(const struct godwit_worker *worker, uint64_t now_ns);

/* CPU time of all its threads so far. */
uint64_t godwit_worker_cpu_ns(const struct godwit_worker *worker);

#endif
