/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_workers.c - a source's workers: jobs to them and back, and how many they are
 *
 * All of this but encode_job() is the calling thread's. Workers are made once and kept, running or not, so
 * that their counters stay; a worker that is no longer wanted is not fed, and ends when it is empty.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/base.h"
#include "engine/clock.h"
#include "engine/source_private.h"

/* ---- in the worker ---- */

/*
 * To read a page that has no memory would give it some. So a page of zeros of ours is read in its place: the
 * guest has not written the page until now, and if it does from now on it is dirty again. Asked only where
 * nothing is known of a page, which is the first time that it goes: what the guest writes has memory.
 */
static void pass_by_absent(const struct godwit_source *s, struct godwit_batch *batch,
			   struct godwit_absent *absent)
{
	static const alignas(GODWIT_LINE_BYTES) uint8_t zeros[GODWIT_PAGE_BYTES];
	const uint8_t *block = s->block_host[batch->block];
	struct godwit_base_view view;

	if (!block || !godwit_base_view(s->base, batch->block, &view))
		return;
	godwit_absent_begin(absent, s->pagemap);
	for (unsigned i = 0; i < batch->nr_pages; i++) {
		uint64_t page = batch->page[i];

		if (view.state && view.state[page] != GODWIT_BASE_UNKNOWN)
			continue;
		if (batch->host[i] == block + page * GODWIT_PAGE_BYTES && godwit_absent_is(absent, batch->host[i]))
			batch->host[i] = zeros;
	}
}

static int encode_frame(struct godwit_source_worker *w, struct godwit_job *job)
{
	struct godwit_source *s = w->source;
	struct godwit_setup setup = godwit_setup_read(&s->setup);

	/* Relaxed: a price a moment old is as good. */
	godwit_encoder_choose(w->encoder, setup.rung, setup.is_auto,
			      atomic_load_explicit(&s->price_ps, memory_order_relaxed));
	return godwit_encoder_run(w->encoder, &job->batch, job->number, &job->frame);
}

static uint32_t encode_job(void *user, void *item)
{
	struct godwit_source_worker *w = user;
	struct godwit_job *job = item;

	pass_by_absent(w->source, &job->batch, &w->absent);
	if (w->stock)
		job->err = godwit_stock_run(w->stock, &job->batch,
					    w->source->block_idstr[job->batch.block], &job->frame);
	else
		job->err = encode_frame(w, job);
	godwit_spsc_push(&w->done, &item, 1);
	return godwit_spsc_count(&w->done);
}

/* ---- workers and jobs ---- */

static int add_jobs(struct godwit_source *s, unsigned want)
{
	uint8_t *mem;

	if (want <= s->nr_jobs)
		return 0;
	mem = godwit_arena_alloc_huge(&s->arena, (want - s->nr_jobs) * (size_t)GODWIT_FRAME_BUFFER_BYTES);
	if (!mem)
		return -ENOMEM;
	for (; s->nr_jobs < want; s->nr_jobs++, mem += GODWIT_FRAME_BUFFER_BYTES) {
		struct godwit_job *job = godwit_arena_alloc_zero(&s->arena, sizeof(*job));

		if (!job)
			return -ENOMEM;
		job->frame.mem = mem;
		godwit_source_give_back(s, job);
	}
	return 0;
}

static int create_worker(struct godwit_source *s, unsigned i)
{
	struct godwit_source_worker *w = godwit_arena_alloc_zero(&s->arena, sizeof(*w));
	char name[24];			/* cut to what a thread may be called */
	int err;

	if (!w)
		return -ENOMEM;
	snprintf(name, sizeof(name), "godwit-enc-%u", i);
	godwit_worker_init(&w->worker, name, encode_job, w, &s->bell);
	godwit_spsc_init(&w->done, w->done_slots, GODWIT_WORKER_RING_LOG2);
	w->source = s;
	if (s->stream == GODWIT_STREAM_STOCK)
		err = godwit_stock_create_in(&s->arena, s->base, &w->stock);
	else
		err = godwit_encoder_create_in(&s->arena, s->base, &w->encoder);
	if (err)
		return err;
	/* Release, meets the acquire in source_stats.c: the worker is whole when it is seen. */
	atomic_store_explicit(&s->worker[i], w, memory_order_release);
	return 0;
}

static int start_worker(struct godwit_source *s, unsigned i, uint32_t spin_ns)
{
	int err = godwit_source_worker_at(s, i) ? 0 : create_worker(s, i);

	if (err)
		return err;
	pthread_mutex_lock(&s->stats_lock);
	err = godwit_worker_start(&godwit_source_worker_at(s, i)->worker, spin_ns);
	pthread_mutex_unlock(&s->stats_lock);
	return err;
}

/* Near the RAM, once there is RAM; where a sandbox refuses, workers run where they do, said once. */
void godwit_source_place_workers(struct godwit_source *s)
{
	for (unsigned i = 0; s->place && i < s->asked_workers; i++) {
		int err = godwit_worker_bind(&godwit_source_worker_at(s, i)->worker,
					     godwit_placement_cpu(&s->placement, i));

		if (!err)
			continue;
		godwit_log(s, GODWIT_LOG_WARN, "workers: binding to processors is refused (%s), they run "
			   "anywhere", strerror(-err));
		s->place = 0;
	}
}

static void stop_worker(struct godwit_source *s, unsigned i)
{
	pthread_mutex_lock(&s->stats_lock);
	godwit_worker_stop(&godwit_source_worker_at(s, i)->worker);
	pthread_mutex_unlock(&s->stats_lock);
}

/* More threads are started at once; fewer are fed, and end when they are empty (see reap). */
int godwit_source_set_workers(struct godwit_source *s, unsigned want)
{
	uint32_t spin_ns = godwit_worker_spin_ns(want);
	int err = add_jobs(s, want * GODWIT_JOBS_PER_WORKER + 2);

	for (unsigned i = 0; !err && i < want; i++) {
		if (godwit_source_worker_at(s, i) && godwit_source_worker_at(s, i)->worker.is_running)
			continue;
		err = start_worker(s, i, spin_ns);
	}
	if (err) {
		/* Fewer than asked: go on with those that run, if any do. */
		for (want = 0; godwit_source_worker_at(s, want) && godwit_source_worker_at(s, want)->worker.is_running;)
			want++;
		godwit_log(s, GODWIT_LOG_WARN, "workers: cannot start another (%s), using %u",
			   strerror(-err), want);
	}
	s->spin_ns = spin_ns;
	s->asked_workers = want;
	for (unsigned i = want; i < s->nr_workers; i++) {
		if (!godwit_source_worker_at(s, i)->in_flight)
			stop_worker(s, i);
	}
	if (want > s->nr_workers)
		s->nr_workers = want;
	/* Relaxed: a figure, and for the prediction. */
	atomic_store_explicit(&s->active_workers, want, memory_order_relaxed);
	return want ? 0 : err;
}

/* Take back what workers have finished. */
void godwit_source_reap(struct godwit_source *s)
{
	void *items[1 << GODWIT_WORKER_RING_LOG2];

	for (unsigned i = 0; i < s->nr_workers; i++) {
		struct godwit_source_worker *w = godwit_source_worker_at(s, i);
		unsigned n;

		if (!w->in_flight)
			continue;
		n = godwit_spsc_pop(&w->done, items, 1 << GODWIT_WORKER_RING_LOG2);
		for (unsigned j = 0; j < n; j++) {
			struct godwit_job *job = items[j];

			if (job->err)
				s->failed = job->err;
			else
				s->frame_bytes += ((double)job->frame.frame_bytes - s->frame_bytes) / 8;
			/* A stock piece of pages that are the same is empty. */
			if (job->err || !job->frame.frame_bytes) {
				godwit_source_give_back(s, job);
				continue;
			}
			s->undrained_frames++;
			s->undrained_sum += job->frame.checksum;
			godwit_source_finish(s, job);
		}
		w->in_flight -= n;
		s->in_flight -= n;
		if (i >= s->asked_workers && !w->in_flight && w->worker.is_running)
			stop_worker(s, i);
	}
}

/* The worker with the least to do. One that sleeps counts as having one and a half: a wake costs
 * microseconds, and one that runs gets to a second batch at once. NULL when all are at their depth. */
static struct godwit_source_worker *least_loaded(struct godwit_source *s)
{
	struct godwit_source_worker *best = NULL;
	unsigned best_load = ~0u;

	for (unsigned i = 0; i < s->asked_workers; i++) {
		struct godwit_source_worker *w = godwit_source_worker_at(s, (s->turn + i) % s->asked_workers);
		unsigned load = 2 * w->in_flight;

		if (w->in_flight >= GODWIT_DEPTH)
			continue;
		if (!w->in_flight && godwit_doorbell_has_sleeper(&w->worker.bell))
			load = 3;
		if (load < best_load) {
			best = w;
			best_load = load;
		}
	}
	s->turn++;
	return best;
}

bool godwit_source_submit(struct godwit_source *s)
{
	uint64_t start_ns = godwit_now_ns();
	struct godwit_source_worker *w = least_loaded(s);

	if (!w) {
		godwit_source_reap(s);
		w = least_loaded(s);
	}
	if (w) {
		s->open->number = s->next_number++;
		w->in_flight++;
		s->in_flight++;
		if (godwit_worker_give(&w->worker, s->open))
			godwit_count(&s->counters, GODWIT_COUNT_WAKES, 1);
		s->open = NULL;
	}
	godwit_count(&s->counters, GODWIT_COUNT_SUBMIT_NS, godwit_now_ns() - start_ns);
	return w != NULL;
}

/* ---- waiting ---- */

static bool something_done(void *arg)
{
	const struct godwit_source *s = arg;

	for (unsigned i = 0; i < s->nr_workers; i++) {
		const struct godwit_source_worker *w = godwit_source_worker_at(s, i);

		if (w->in_flight && godwit_spsc_count(&w->done))
			return true;
	}
	return false;
}

void godwit_source_wait(struct godwit_source *s)
{
	uint64_t start_ns = godwit_now_ns(), waited_ns;

	godwit_doorbell_wait_at(&s->bell, GODWIT_WAKE_AT, something_done, s, s->spin_ns, -1);
	waited_ns = godwit_now_ns() - start_ns;
	godwit_count(&s->counters, GODWIT_COUNT_WAITS, 1);
	godwit_count(&s->counters, GODWIT_COUNT_WAIT_NS, waited_ns);
	s->starved_ns += waited_ns;
	godwit_source_reap(s);
}
