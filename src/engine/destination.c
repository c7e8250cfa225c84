/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * destination.c - frames in, pages into guest memory: the loader's side
 *
 * The loader reads a frame straight into a buffer and hands it to a worker; it looks at no page. There
 * is a fixed number of buffers, and they come back through one shared ring: whichever worker is done
 * gives a buffer back, and the loader takes it from there. Drained means that all are back.
 *
 * A drain frame says how many frames came since the last one and what their checksums add up to: a
 * frame that went missing, or came twice, would leave an older page behind.
 *
 * The first error is kept and is the answer to everything after it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <godwit/destination.h>

#include "engine/arena.h"
#include "engine/clock.h"
#include "engine/decoder.h"
#include "engine/error.h"
#include "engine/frame.h"
#include "engine/options.h"
#include "engine/ram.h"
#include "engine/topology.h"
#include "engine/worker.h"

#define BUFFERS_PER_WORKER 4u

/* A frame on its way from the stream to a worker and back. Belongs to whoever has it. */
struct buffer {
	uint8_t *frame;			/* GODWIT_FRAME_MAX_BYTES */
	size_t bytes;
};

struct destination_worker {
	struct godwit_worker worker;
	struct godwit_destination *destination;
	struct godwit_decoder *decoder;
};

enum failure { SOUND = 0, FAILING = 1, FAILED = 2 };

struct godwit_destination {
	/* Set by create, then read-only. */
	struct godwit_arena *arena;
	godwit_log_fn log;
	void *log_user;
	godwit_applied_fn applied;
	void *applied_user;
	struct godwit_ram *ram;
	struct destination_worker **worker;
	uint32_t nr_workers;
	uint32_t nr_buffers;
	uint32_t spin_ns;
	uint32_t place;			/* the loader's: cleared when it is refused */
	struct godwit_placement placement;
	struct buffer *buffers;
	uint64_t created_at_ns;
	pthread_mutex_t stats_lock;	/* reading workers' clocks against stopping them */

	/* Workers push, the loader pops. */
	struct godwit_mpmc done;
	struct godwit_doorbell bell;	/* the loader sleeps here */

	/* The first to claim it writes the error. */
	_Atomic int failure;		/* enum failure */
	struct godwit_error error;	/* written between FAILING and FAILED, then read-only */

	/* The loader's. */
	struct buffer **free;		/* nr_free of them */
	uint32_t nr_free;
	uint32_t turn;
	struct buffer *reading;		/* between begin and commit */
	bool has_header;
	uint64_t undrained_frames, undrained_sum;
	struct godwit_counters counters;
};

/* ---- errors ---- */

static void fail(struct godwit_destination *d, const struct godwit_error *error)
{
	int sound = SOUND;

	/* Relaxed: only the claim; the text is published by the store below. */
	if (!atomic_compare_exchange_strong_explicit(&d->failure, &sound, FAILING,
						     memory_order_relaxed, memory_order_relaxed))
		return;
	d->error = *error;
	/* Release, meets the acquire in failed(): the text is whole. */
	atomic_store_explicit(&d->failure, FAILED, memory_order_release);
}

static int failed(struct godwit_destination *d, struct godwit_error *error)
{
	/* Acquire, meets the release in fail(). */
	if (atomic_load_explicit(&d->failure, memory_order_acquire) != FAILED)
		return 0;
	if (error)
		*error = d->error;
	return -EBADMSG;
}

/* ---- in the worker ---- */

static void decode(struct destination_worker *w, const struct buffer *buffer)
{
	struct godwit_destination *d = w->destination;
	uint64_t pages[GODWIT_BATCH_PAGES];
	struct godwit_error error;
	uint32_t block, nr_pages;

	if (godwit_decoder_run(w->decoder, buffer->frame, buffer->bytes, &error)) {
		fail(d, &error);
	} else if (d->applied) {
		nr_pages = godwit_decoder_pages(w->decoder, &block, pages);
		d->applied(d->applied_user, block, pages, nr_pages);
	}
}

static uint32_t decode_buffer(void *user, void *item)
{
	struct destination_worker *w = user;
	struct godwit_destination *d = w->destination;

	/* Relaxed: to stop early; frames between a bad one and here may be applied or not. */
	if (atomic_load_explicit(&d->failure, memory_order_relaxed) == SOUND)
		decode(w, item);
	godwit_mpmc_push(&d->done, &item, 1);
	return godwit_mpmc_count(&d->done);
}

/* ---- buffers ---- */

static void take_back(struct godwit_destination *d)
{
	d->nr_free += godwit_mpmc_pop(&d->done, (void **)d->free + d->nr_free, d->nr_buffers - d->nr_free);
}

static bool something_back(void *arg)
{
	const struct godwit_destination *d = arg;

	return godwit_mpmc_count(&d->done) != 0;
}

/* Until at least this many buffers are here. */
static void wait_for_buffers(struct godwit_destination *d, uint32_t want)
{
	uint64_t start_ns;

	take_back(d);
	if (d->nr_free >= want)
		return;
	start_ns = godwit_now_ns();
	while (d->nr_free < want) {
		uint32_t missing = want - d->nr_free;

		godwit_doorbell_wait_at(&d->bell, missing, something_back, d, d->spin_ns, -1);
		take_back(d);
	}
	godwit_count(&d->counters, GODWIT_COUNT_WAITS, 1);
	godwit_count(&d->counters, GODWIT_COUNT_WAIT_NS, godwit_now_ns() - start_ns);
}

static struct destination_worker *least_loaded(struct godwit_destination *d)
{
	struct destination_worker *best = NULL;
	unsigned best_load = ~0u;

	for (uint32_t i = 0; i < d->nr_workers; i++) {
		struct destination_worker *w = d->worker[(d->turn + i) % d->nr_workers];
		bool sleeps = godwit_doorbell_has_sleeper(&w->worker.bell);
		/* As at the source: a wake is worth a batch and a half, and one that runs has one. */
		unsigned load = sleeps ? 3 : 2 * (godwit_spsc_count(&w->worker.todo) + 1);

		if (load < best_load) {
			best = w;
			best_load = load;
		}
	}
	d->turn++;
	return best;
}

/* ---- the stream ---- */

static int refuse(struct godwit_destination *d, const struct godwit_error *text,
		  struct godwit_error *error)
{
	fail(d, text);
	if (!failed(d, error) && error)
		*error = *text;		/* a worker was first, and has not said it yet */
	return -EBADMSG;
}

static int end_of_drain(struct godwit_destination *d, const struct godwit_head *head, const void *unit,
			struct godwit_error *error)
{
	struct godwit_error text;
	int err;

	wait_for_buffers(d, d->nr_buffers);
	err = failed(d, error);
	if (err)
		return err;
	if (head->body_bytes || !godwit_unit_check(unit, sizeof(*head))) {
		godwit_error_set(&text, "a drain frame is damaged: its checksum is wrong");
		return refuse(d, &text, error);
	}
	if (head->block || head->nr_pages || head->nr_blocks || head->table_bytes) {
		godwit_error_set(&text, "a drain frame names pages, and has none");
		return refuse(d, &text, error);
	}
	if (head->number != d->undrained_frames || head->first_page != d->undrained_sum) {
		godwit_error_set(&text, "%llu frames came since the last drain frame, the source sent "
				 "%llu: frames are missing, repeated or not its own",
				 (unsigned long long)d->undrained_frames,
				 (unsigned long long)head->number);
		return refuse(d, &text, error);
	}
	d->undrained_frames = 0;
	d->undrained_sum = 0;
	return 0;
}

static int begin_frame(struct godwit_destination *d, const struct godwit_head *head, void **body_ret,
		       size_t *body_bytes_ret, struct godwit_error *error)
{
	struct godwit_error text;

	if (!head->body_bytes || head->body_bytes > GODWIT_FRAME_MAX_BYTES - sizeof(*head)) {
		godwit_error_set(&text, "frame %llu, block %u, byte 4: a body of %u bytes",
				 (unsigned long long)head->number, head->block, head->body_bytes);
		return refuse(d, &text, error);
	}
	wait_for_buffers(d, 1);
	d->reading = d->free[--d->nr_free];
	memcpy(d->reading->frame, head, sizeof(*head));
	d->reading->bytes = sizeof(*head) + head->body_bytes;
	*body_ret = d->reading->frame + sizeof(*head);
	*body_bytes_ret = head->body_bytes;
	return 0;
}

int godwit_destination_begin(struct godwit_destination *d, const void *unit, void **body_ret,
			     size_t *body_bytes_ret, struct godwit_error *error)
{
	struct godwit_head head = godwit_head_get(unit);
	struct godwit_error text;
	int err = failed(d, error);

	*body_ret = NULL;
	*body_bytes_ret = 0;
	if (err)
		return err;
	if (d->reading) {
		godwit_error_set(error, "commit the frame that was begun first");
		return -EINVAL;
	}
	if (!d->has_header) {
		if (godwit_stream_header_check(unit, &text))
			return refuse(d, &text, error);
		d->has_header = true;
		godwit_count(&d->counters, GODWIT_COUNT_WIRE_BYTES, sizeof(head));
		return 0;
	}
	switch (head.magic) {
	case GODWIT_MAGIC_FRAME:
		return begin_frame(d, &head, body_ret, body_bytes_ret, error);
	case GODWIT_MAGIC_DRAIN:
		godwit_count(&d->counters, GODWIT_COUNT_WIRE_BYTES, sizeof(head));
		return end_of_drain(d, &head, unit, error);
	default:
		godwit_error_set(&text, "after frame %llu since the last drain frame: neither frame nor "
				 "drain frame begins with 0x%08x",
				 (unsigned long long)d->undrained_frames, head.magic);
		return refuse(d, &text, error);
	}
}

int godwit_destination_commit(struct godwit_destination *d, struct godwit_error *error)
{
	struct buffer *buffer = d->reading;
	int err = failed(d, error);

	if (!buffer) {
		godwit_error_set(error, "begin a frame first");
		return -EINVAL;
	}
	d->reading = NULL;
	if (err) {
		d->free[d->nr_free++] = buffer;
		return err;
	}
	d->undrained_frames++;
	d->undrained_sum += godwit_head_get(buffer->frame).checksum;
	if (godwit_worker_give(&least_loaded(d)->worker, buffer))
		godwit_count(&d->counters, GODWIT_COUNT_WAKES, 1);
	return 0;
}

int godwit_destination_drain(struct godwit_destination *d, struct godwit_error *error)
{
	if (d->reading) {
		godwit_error_set(error, "commit the frame that was begun first");
		return -EINVAL;
	}
	wait_for_buffers(d, d->nr_buffers);
	return failed(d, error);
}

/* ---- blocks and statistics ---- */

static bool is_still(struct godwit_destination *d)
{
	take_back(d);
	return d->nr_free == d->nr_buffers;
}

/* Near the RAM; where a sandbox refuses, workers run where they do, said once. */
static void place_workers(struct godwit_destination *d, const void *host, uint64_t bytes)
{
	godwit_placement_add(&d->placement, host, bytes);
	for (uint32_t i = 0; d->place && i < d->nr_workers; i++) {
		if (!godwit_worker_bind(&d->worker[i]->worker, godwit_placement_cpu(&d->placement, i)))
			continue;
		if (d->log)
			d->log(d->log_user, GODWIT_LOG_WARN,
			       "workers: binding to processors is refused, they run anywhere");
		d->place = 0;
	}
}

int godwit_destination_add_block(struct godwit_destination *d, uint32_t id, const char *name, void *host,
				 uint64_t bytes, struct godwit_error *error)
{
	int err;

	if (!is_still(d)) {
		godwit_error_set(error, "RAM block %u: drain before adding a block", id);
		return -EBUSY;
	}
	err = godwit_ram_add_block(d->ram, id, name, host, bytes, error);
	if (!err && d->place)
		place_workers(d, host, bytes);
	return err;
}

int godwit_destination_remove_block(struct godwit_destination *d, uint32_t id, struct godwit_error *error)
{
	int err;

	if (!is_still(d)) {
		godwit_error_set(error, "RAM block %u: drain before removing a block", id);
		return -EBUSY;
	}
	err = godwit_ram_remove_block(d->ram, id);
	if (err)
		godwit_error_set(error, "there is no RAM block %u", id);
	return err;
}

int godwit_destination_stats(const struct godwit_destination *destination, struct godwit_stats *out)
{
	struct godwit_destination *d = (struct godwit_destination *)destination;	/* for the lock */
	struct godwit_stats stats = { .workers = d->nr_workers, .base = GODWIT_BASE_OFF };
	uint64_t sum[GODWIT_COUNTERS] = { 0 };
	uint64_t cpu_ns = 0;

	pthread_mutex_lock(&d->stats_lock);
	godwit_counters_sum(&d->counters, sum);
	for (uint32_t i = 0; i < d->nr_workers; i++) {
		godwit_counters_sum(godwit_decoder_counters(d->worker[i]->decoder), sum);
		godwit_counters_sum(&d->worker[i]->worker.counters, sum);
		cpu_ns += godwit_worker_cpu_ns(&d->worker[i]->worker);
	}
	pthread_mutex_unlock(&d->stats_lock);
	godwit_stats_derive(&stats, sum, godwit_now_ns() - d->created_at_ns);
	stats.worker_cpu_ns = cpu_ns;
	return godwit_stats_give(out, &stats);
}

/* ---- birth and end ---- */

static unsigned order_log2(uint32_t n)
{
	unsigned order = 1;

	while ((1u << order) < n)
		order++;
	return order;
}

static int create_buffers(struct godwit_destination *d)
{
	unsigned order;
	struct godwit_mpmc_cell *cells;
	uint8_t *mem;

	d->nr_buffers = d->nr_workers * BUFFERS_PER_WORKER + 1;
	order = order_log2(d->nr_buffers);
	cells = godwit_arena_alloc_zero(d->arena, sizeof(*cells) << order);
	d->buffers = godwit_arena_alloc_zero(d->arena, d->nr_buffers * sizeof(*d->buffers));
	d->free = godwit_arena_alloc_zero(d->arena, d->nr_buffers * sizeof(*d->free));
	mem = godwit_arena_alloc_huge(d->arena, d->nr_buffers * (size_t)GODWIT_FRAME_MAX_BYTES);
	if (!cells || !d->buffers || !d->free || !mem)
		return -ENOMEM;
	godwit_mpmc_init(&d->done, cells, order);
	for (uint32_t i = 0; i < d->nr_buffers; i++) {
		d->buffers[i].frame = mem + i * (size_t)GODWIT_FRAME_MAX_BYTES;
		d->free[d->nr_free++] = &d->buffers[i];
	}
	return 0;
}

static int create_worker(struct godwit_destination *d, uint32_t i)
{
	struct destination_worker *w = godwit_arena_alloc_zero(d->arena, sizeof(*w));
	char name[24];			/* cut to what a thread may be called */
	int err;

	if (!w)
		return -ENOMEM;
	snprintf(name, sizeof(name), "godwit-dec-%u", i);
	godwit_worker_init(&w->worker, name, decode_buffer, w, &d->bell);
	w->destination = d;
	err = godwit_decoder_create_in(d->arena, d->ram, &w->decoder);
	if (err)
		return err;
	d->worker[i] = w;
	return godwit_worker_start(&w->worker, d->spin_ns);
}

static void destroy_workers(struct godwit_destination *d)
{
	for (uint32_t i = 0; i < d->nr_workers && d->worker[i]; i++) {
		godwit_worker_stop(&d->worker[i]->worker);
		godwit_decoder_destroy_in(d->worker[i]->decoder);
	}
}

int godwit_destination_create(const struct godwit_destination_options *from,
			      struct godwit_destination **destination_ret, struct godwit_error *error)
{
	struct godwit_destination_options options;
	struct godwit_destination *d;
	struct godwit_arena *arena;
	int err = godwit_options_copy(&options, sizeof(options), sizeof(options), from, error);

	if (err)
		return err;
	if (options.workers > GODWIT_MAX_WORKERS) {
		godwit_error_set(error, "workers: %u is above the limit %u", options.workers,
				 GODWIT_MAX_WORKERS);
		return -EINVAL;
	}
	err = godwit_arena_create_self(&arena);
	if (err)
		goto fail;
	err = -ENOMEM;
	d = godwit_arena_alloc_zero(arena, sizeof(*d));
	if (!d)
		goto destroy_arena;
	d->arena = arena;
	d->log = options.log;
	d->log_user = options.log_user;
	d->applied = options.applied;
	d->applied_user = options.applied_user;
	d->place = options.place;
	godwit_placement_init(&d->placement);
	d->nr_workers = options.workers ? options.workers : godwit_topology_default_workers();
	d->spin_ns = godwit_worker_spin_ns(d->nr_workers);
	d->created_at_ns = godwit_now_ns();
	godwit_doorbell_init(&d->bell);
	pthread_mutex_init(&d->stats_lock, NULL);
	d->worker = godwit_arena_alloc_zero(arena, d->nr_workers * sizeof(*d->worker));
	if (!d->worker || create_buffers(d))
		goto destroy_lock;
	err = godwit_ram_create(&d->ram, error);
	if (err)
		goto destroy_lock;
	if (options.populate)
		godwit_ram_populate(d->ram);
	for (uint32_t i = 0; i < d->nr_workers; i++) {
		err = create_worker(d, i);
		if (err)
			goto destroy_all;
	}
	*destination_ret = d;
	return 0;

destroy_all:
	destroy_workers(d);
	godwit_ram_destroy(d->ram);
destroy_lock:
	pthread_mutex_destroy(&d->stats_lock);
destroy_arena:
	godwit_arena_destroy_self(arena);
fail:
	godwit_error_set(error, "no memory or no threads for a destination: %s", strerror(-err));
	return err;
}

void godwit_destination_destroy(struct godwit_destination *d)
{
	if (!d)
		return;
	destroy_workers(d);
	godwit_ram_destroy(d->ram);
	godwit_placement_fini(&d->placement);
	pthread_mutex_destroy(&d->stats_lock);
	godwit_arena_destroy_self(d->arena);
}
