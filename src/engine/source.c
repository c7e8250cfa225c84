/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source.c - dirty pages in, frames out: the calling thread's side
 *
 * The calling thread touches no page. It appends page references to an open batch, hands full batches to
 * the worker with the least to do, takes back finished frames, and gives them to the caller to write.
 *
 *   free -> open -> a worker's ring -> worker -> its done ring -> finished -> collected -> free
 *
 * A job (batch and frame buffer) is at one of these places at any time and belongs to the thread there;
 * there is a fixed number of them, so that what is in flight is bounded and nothing is allocated while
 * pages flow.
 *
 * Always:
 *  - a page is in at most one job between two drains (the caller's promise), so no two workers have
 *    the same page and frames may be written in any order;
 *  - what the base says of a page was in a frame that was or will be collected, or the base forgets;
 *  - the base's tables and the set of blocks change only when drained.
 */
#include <errno.h>
#include <string.h>

#include "engine/base.h"
#include "engine/clock.h"
#include "engine/error.h"
#include "engine/frame.h"
#include "engine/options.h"
#include "engine/source_private.h"
#include "engine/topology.h"

/* What is collected at once: enough for a cheap write, and little enough that buffers come back to the
 * workers while the rest of the line is still to be written. */
#define COLLECT_MOST_BYTES (256u << 10)

/*
 * What is encoded waits for the link, at the price of when it was encoded: at 100 Mbit/s as many batches as
 * there are jobs wait for 300 ms. And the more buffers go round, the colder they are for who fills them. So
 * no more is encoded ahead than the link carries in this time, and no more than that many bytes while its
 * speed is not known.
 */
#define LINE_NS 20000000u
#define LINE_FIRST_BYTES (512u << 10)

/* How often the price of a byte is looked at. */
#define PRICE_STEP_NS 2000000u

/*
 * A caller with a bandwidth limit writes a burst and is held back, by turns. Within the burst the link
 * takes all at once and waits for workers, within the hold workers wait: neither says anything alone.
 * So while there are holds, the price is looked at once a turn.
 */
#define HOLDS_AGO_NS 250000000u

/* ---- waiting, and not waiting ---- */

/*
 * Would the caller have sent raw pages for longer than a worker takes for as many? Only asked when the
 * link idles. With rung auto the ladder has a lighter rung for that, and keeps the base; the stock stream
 * has no rungs.
 */
static bool raw_is_quicker(const struct godwit_source *s, const struct godwit_setup *setup)
{
	if (setup->when_busy == GODWIT_WHEN_BUSY_RAW)
		return true;
	if (setup->when_busy == GODWIT_WHEN_BUSY_WAIT ||
	    (setup->is_auto && s->stream != GODWIT_STREAM_STOCK))
		return false;
	return s->link_ns_per_byte > 0 && s->encode_ns_per_page > 0 &&
	       s->encode_ns_per_page / s->asked_workers > GODWIT_PAGE_BYTES * s->link_ns_per_byte;
}

/* No worker will take the open batch, or there is no job to open: what shall the caller do? OK: try again. */
static int back_pressure(struct godwit_source *s, bool may_be_busy, struct godwit_error *error)
{
	godwit_source_reap(s);
	if (s->failed) {
		/* The caller may take its pages away now. */
		while (s->in_flight)
			godwit_source_wait(s);
		godwit_error_set(error, "a worker could not encode a batch: %s", strerror(-s->failed));
		return -EIO;
	}
	if (s->finished) {
		s->must_collect = true;
		return GODWIT_QUEUE_COLLECT;
	}
	if (!s->in_flight) {
		if (s->free)
			return GODWIT_QUEUE_OK;
		godwit_error_set(error, "every buffer is with the caller: release what was collected");
		return -EINVAL;
	}
	if (may_be_busy) {
		struct godwit_setup setup = godwit_setup_read(&s->setup);

		if (raw_is_quicker(s, &setup))
			return GODWIT_QUEUE_BUSY;
	}
	godwit_source_wait(s);
	return GODWIT_QUEUE_OK;
}

/* ---- set-up that waits for a drain ---- */

/* No worker holds the base's tables and none will before this thread says so. */
static bool is_still(const struct godwit_source *s)
{
	return !s->open && !s->in_flight;
}

/* And every frame that a worker made was collected, with a drain frame behind it. */
static bool is_drained(const struct godwit_source *s)
{
	return is_still(s) && !s->undrained_frames;
}

static void show_base(struct godwit_source *s)
{
	/* Relaxed: figures. */
	atomic_store_explicit(&s->shown_base_bytes, godwit_base_bytes(s->base), memory_order_relaxed);
	atomic_store_explicit(&s->shown_base_kind, godwit_base_kind(s->base), memory_order_relaxed);
	atomic_store_explicit(&s->shown_granule_bytes, godwit_base_granule_bytes(s->base),
			      memory_order_relaxed);
}

/* Lay the base out for the parameters and blocks of now. Only when still. */
static void lay_out(struct godwit_source *s, const struct godwit_setup *setup)
{
	struct godwit_base_options options = {
		.size = sizeof(options),
		.bytes = setup->base_bytes,
		.kind = setup->base,
	};
	struct godwit_error error = { "" };
	char line[200];
	int err = godwit_base_layout(s->base, &options, &error);

	s->laid_out = *setup;
	s->blocks_changed = false;
	godwit_source_place_workers(s);
	if (err)
		godwit_log(s, GODWIT_LOG_WARN, "%s", error.text);
	if (godwit_base_describe(s->base, line, sizeof(line)))
		godwit_log(s, GODWIT_LOG_WARN, "%s", line);
	else
		godwit_log(s, GODWIT_LOG_INFO, "%s", line);
	show_base(s);
}

/* Between batches: what changed in the parameters. */
static void follow_setup(struct godwit_source *s)
{
	struct godwit_setup setup = godwit_setup_read(&s->setup);

	if (setup.workers != s->followed_workers) {
		s->followed_workers = setup.workers;
		godwit_source_set_workers(s, setup.workers);
		godwit_source_place_workers(s);
	}
	if (is_still(s) && (s->blocks_changed || setup.base != s->laid_out.base ||
			      setup.base_bytes != s->laid_out.base_bytes))
		lay_out(s, &setup);
}

/* ---- queueing ---- */

static bool fits_open(const struct godwit_source *s, uint32_t id, uint64_t page)
{
	const struct godwit_batch *batch = &s->open->batch;

	return batch->block == id && batch->nr_pages < GODWIT_BATCH_PAGES &&
	       page > batch->page[batch->nr_pages - 1];
}

/* Are as many batches on their way as there are workers, and is that enough for the link? */
static bool line_is_long(const struct godwit_source *s)
{
	double ps_per_byte = s->price.link_ps_per_byte;
	double most = ps_per_byte > 0 ? 1000.0 * LINE_NS / ps_per_byte : LINE_FIRST_BYTES;

	return s->in_flight >= s->asked_workers &&
	       (double)s->finished_bytes + (double)s->in_flight * s->frame_bytes > most;
}

static void open_batch(struct godwit_source *s, uint32_t id)
{
	follow_setup(s);
	s->open = godwit_source_take_free(s);
	s->open->batch.block = id;
	s->open->batch.nr_pages = 0;
}

static int busy(struct godwit_source *s, uint32_t id, uint64_t page)
{
	godwit_base_forget(s->base, id, page, 1);
	godwit_count(&s->counters, GODWIT_COUNT_BUSY, 1);
	return GODWIT_QUEUE_BUSY;
}

int godwit_source_queue(struct godwit_source *s, uint32_t id, uint64_t page, const void *host,
			struct godwit_error *error)
{
	struct godwit_batch *batch;

	if (id >= GODWIT_MAX_BLOCKS || !s->block_pages[id]) {
		godwit_error_set(error, "there is no RAM block %u", id);
		return -ENOENT;
	}
	if (page >= s->block_pages[id]) {
		godwit_error_set(error, "page %llu is outside of RAM block %u, which has %llu",
				 (unsigned long long)page, id, (unsigned long long)s->block_pages[id]);
		return -ERANGE;
	}
	while (!s->open || !fits_open(s, id, page)) {
		bool is_long = line_is_long(s);
		int got;

		if (s->open && godwit_source_submit(s))
			continue;
		if (!s->open && s->free && !is_long) {
			open_batch(s, id);
			break;
		}
		got = back_pressure(s, !is_long, error);
		if (got == GODWIT_QUEUE_BUSY)
			return busy(s, id, page);
		if (got != GODWIT_QUEUE_OK)
			return got;
	}
	batch = &s->open->batch;
	batch->page[batch->nr_pages] = page;
	batch->host[batch->nr_pages] = host;
	if (++batch->nr_pages == GODWIT_BATCH_PAGES)
		godwit_source_submit(s);		/* if none takes it now, the next call sees to it */
	return GODWIT_QUEUE_OK;
}

/* ---- frames to the caller ---- */

static void put_head(struct godwit_source *s, struct godwit_job *job)
{
	job->frame.frame = job->frame.mem;
	job->frame.frame_bytes = GODWIT_HEAD_BYTES;
	job->frame.checksum = 0;
	job->batch.nr_pages = 0;	/* no frame of pages */
	godwit_source_finish(s, job);
	godwit_count(&s->counters, GODWIT_COUNT_WIRE_BYTES, GODWIT_HEAD_BYTES);
}

/* All frames were collected. The destination is told which they were; a stock one is not. */
static void end_drain(struct godwit_source *s)
{
	if (s->stream == GODWIT_STREAM_GODWIT) {
		struct godwit_job *job = godwit_source_take_free(s);	/* all are free here */

		godwit_drain_frame_put(job->frame.mem, s->undrained_frames, s->undrained_sum);
		put_head(s, job);
	}
	s->undrained_frames = 0;
	s->undrained_sum = 0;
}

int godwit_source_collect(struct godwit_source *s, int force, struct iovec *iov, int iovs)
{
	int n = 0;

	if (s->collected || iovs <= 0)
		return 0;
	godwit_source_reap(s);
	if (!force && !s->must_collect && s->finished_bytes < GODWIT_COLLECT_BYTES)
		return 0;
	while (s->finished && n < iovs && s->collected_bytes < COLLECT_MOST_BYTES) {
		struct godwit_job *job = s->finished;

		s->finished = job->next;
		if (!s->finished)
			s->finished_tail = &s->finished;
		s->finished_bytes -= job->frame.frame_bytes;
		iov[n].iov_base = job->frame.frame;
		iov[n].iov_len = job->frame.frame_bytes;
		n++;
		s->collected_bytes += job->frame.frame_bytes;
		if (job->batch.nr_pages)
			s->collected_plain_bytes += job->frame.plain_bytes;
		job->next = s->collected;
		s->collected = job;
	}
	s->must_collect = false;
	s->collected_at_ns = godwit_now_ns();
	return n;
}

static uint64_t sum_idle_ns(const struct godwit_source *s, uint64_t now_ns)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < s->nr_workers; i++)
		sum += godwit_worker_idle_ns(&godwit_source_worker_at(s, i)->worker, now_ns);
	return sum;
}

/* What the links and the workers did since the last step becomes the price of a byte. */
static void step_price(struct godwit_source *s, const uint64_t sum[GODWIT_COUNTERS], uint64_t now_ns)
{
	struct godwit_price_input input = { .workers = s->asked_workers };
	struct godwit_price_marks *marks = &s->marks;
	uint64_t idle_ns = sum_idle_ns(s, now_ns);
	uint64_t codec_ns = sum[GODWIT_COUNT_CODEC_NS] - marks->codec_ns;
	uint64_t lost_ns = sum[GODWIT_COUNT_LOST_NS] - marks->lost_ns;	/* read later: may be ahead */

	input.span_ns = now_ns - s->stepped_at_ns;
	input.link_busy_ns = sum[GODWIT_COUNT_COLLECT_NS] - marks->busy_ns;
	input.link_starved_ns = s->starved_ns;
	input.link_held_ns = s->step_held_ns < input.span_ns ? s->step_held_ns : input.span_ns;
	if (idle_ns > marks->idle_ns)
		input.worker_idle_ns = idle_ns - marks->idle_ns;
	input.worker_late_ns = sum[GODWIT_COUNT_LATE_NS] - marks->late_ns;
	input.worker_wall_ns = sum[GODWIT_COUNT_WALL_NS] - marks->wall_ns;
	/* CPU time would take a system call: codecs tell how much of their time was lost. */
	input.worker_cpu_ns = input.worker_wall_ns;
	if (codec_ns)
		input.worker_cpu_ns -= (uint64_t)((double)input.worker_wall_ns *
						  (double)(lost_ns < codec_ns ? lost_ns : codec_ns) /
						  (double)codec_ns);
	/* Counted when they are written, not when they are encoded: the line between may grow and shrink. */
	input.wire_bytes = s->written_bytes;
	input.retired_bytes = s->written_plain_bytes;
	*marks = (struct godwit_price_marks){
		.busy_ns = sum[GODWIT_COUNT_COLLECT_NS],
		.idle_ns = idle_ns,
		.late_ns = sum[GODWIT_COUNT_LATE_NS],
		.wall_ns = sum[GODWIT_COUNT_WALL_NS],
		.codec_ns = sum[GODWIT_COUNT_CODEC_NS],
		.lost_ns = sum[GODWIT_COUNT_LOST_NS],
	};
	s->written_bytes = s->written_plain_bytes = 0;
	s->starved_ns = s->step_held_ns = 0;
	s->stepped_at_ns = now_ns;
	/* Relaxed: see encode_job(). */
	atomic_store_explicit(&s->price_ps, godwit_price_step(&s->price, &input), memory_order_relaxed);
}

/* What a byte takes on the link, and a page in a worker, for raw_is_quicker(): slow averages. */
static void learn_speeds(struct godwit_source *s, const uint64_t sum[GODWIT_COUNTERS], uint64_t written_ns)
{
	double ns_per_byte = (double)written_ns / (double)s->collected_bytes;
	uint64_t frames = sum[GODWIT_COUNT_FRAMES];

	s->link_ns_per_byte += (ns_per_byte - s->link_ns_per_byte) / (s->link_ns_per_byte > 0 ? 16 : 1);
	if (frames)
		s->encode_ns_per_page = (double)sum[GODWIT_COUNT_WALL_NS] /
					(double)(frames * GODWIT_BATCH_PAGES);
}

void godwit_source_release(struct godwit_source *s)
{
	uint64_t now_ns, written_ns;

	if (!s->collected)
		return;
	now_ns = godwit_now_ns();
	written_ns = now_ns - s->collected_at_ns + s->held_ns;
	godwit_count(&s->counters, GODWIT_COUNT_COLLECT_NS, written_ns);
	s->written_bytes += s->collected_bytes;
	s->written_plain_bytes += s->collected_plain_bytes;
	s->step_held_ns += s->held_ns;
	if (s->held_ns)
		s->held_at_ns = now_ns;
	if (now_ns - s->stepped_at_ns >= PRICE_STEP_NS &&
	    (s->step_held_ns || !s->held_at_ns || now_ns - s->held_at_ns > HOLDS_AGO_NS)) {
		uint64_t sum[GODWIT_COUNTERS] = { 0 };

		godwit_source_sum(s, sum);
		if (s->collected_bytes >= GODWIT_COLLECT_BYTES)
			learn_speeds(s, sum, written_ns);
		step_price(s, sum, now_ns);
	}
	while (s->collected) {
		struct godwit_job *job = s->collected;

		s->collected = job->next;
		godwit_source_give_back(s, job);
	}
	s->collected_bytes = 0;
	s->collected_plain_bytes = 0;
	s->held_ns = 0;
	godwit_count(&s->counters, GODWIT_COUNT_SUBMIT_NS, godwit_now_ns() - now_ns);
}

void godwit_source_held_back(struct godwit_source *s, uint64_t wait_ns)
{
	s->held_ns += wait_ns;
}

int godwit_source_drain(struct godwit_source *s, struct godwit_error *error)
{
	for (;;) {
		if (s->open && !godwit_source_submit(s)) {
			int got = back_pressure(s, false, error);

			if (got != GODWIT_QUEUE_OK)
				return got;
			continue;
		}
		godwit_source_reap(s);
		if (s->failed)
			return back_pressure(s, false, error);
		if (s->finished_bytes >= GODWIT_COLLECT_BYTES || (s->finished && !s->in_flight)) {
			s->must_collect = true;
			return GODWIT_QUEUE_COLLECT;
		}
		if (s->in_flight) {
			godwit_source_wait(s);
			continue;
		}
		if (s->collected) {
			godwit_error_set(error, "release what was collected before the next drain");
			return -EINVAL;
		}
		if (!s->undrained_frames)
			break;
		end_drain(s);
	}
	follow_setup(s);
	return GODWIT_QUEUE_OK;
}

/* ---- blocks, rounds, parameters ---- */

static int make_idstr(struct godwit_source *s, uint32_t id, const char *name, uint8_t **idstr_ret,
		      struct godwit_error *error)
{
	size_t length = name ? strlen(name) : 0;
	uint8_t *idstr;

	if (!length || length > UINT8_MAX) {
		godwit_error_set(error, "RAM block %u: the stock stream needs its name, of 1 to 255 bytes; "
				 "this one has %zu", id, length);
		return -EINVAL;
	}
	idstr = godwit_arena_alloc(&s->arena, 1 + length);
	if (!idstr) {
		godwit_error_set(error, "no memory for RAM block %u", id);
		return -ENOMEM;
	}
	idstr[0] = (uint8_t)length;
	memcpy(idstr + 1, name, length);
	*idstr_ret = idstr;
	return 0;
}

int godwit_source_add_block(struct godwit_source *s, uint32_t id, const char *name, const void *host,
			    uint64_t bytes, struct godwit_error *error)
{
	uint8_t *idstr = NULL;
	int err;

	if (!bytes || bytes % GODWIT_PAGE_BYTES) {
		godwit_error_set(error, "RAM block %u ('%s'): %llu bytes are not whole pages", id,
				 name ? name : "", (unsigned long long)bytes);
		return -EINVAL;
	}
	if (!is_drained(s)) {
		godwit_error_set(error, "RAM block %u: drain before adding a block", id);
		return -EBUSY;
	}
	if (s->stream == GODWIT_STREAM_STOCK) {
		err = make_idstr(s, id, name, &idstr, error);
		if (err)
			return err;
	}
	err = godwit_base_add_block(s->base, id, bytes / GODWIT_PAGE_BYTES, error);
	if (err) {
		godwit_arena_free(&s->arena, idstr);
		return err;
	}
	s->block_idstr[id] = idstr;
	s->block_host[id] = host && s->pagemap >= 0 && godwit_absent_may_be(host, bytes) ? host : NULL;
	s->block_pages[id] = bytes / GODWIT_PAGE_BYTES;
	s->blocks_changed = true;
	if (s->place && host)
		godwit_placement_add(&s->placement, host, bytes);
	return 0;
}

int godwit_source_remove_block(struct godwit_source *s, uint32_t id, struct godwit_error *error)
{
	if (!is_drained(s)) {
		godwit_error_set(error, "RAM block %u: drain before removing a block", id);
		return -EBUSY;
	}
	if (id >= GODWIT_MAX_BLOCKS || !s->block_pages[id]) {
		godwit_error_set(error, "there is no RAM block %u", id);
		return -ENOENT;
	}
	godwit_arena_free(&s->arena, s->block_idstr[id]);
	s->block_idstr[id] = NULL;
	s->block_host[id] = NULL;
	s->block_pages[id] = 0;
	s->blocks_changed = true;
	return godwit_base_remove_block(s->base, id);
}

int godwit_source_round(struct godwit_source *s)
{
	if (!is_drained(s))
		return -EBUSY;
	godwit_base_next_round(s->base);
	godwit_source_mark_round(s);
	return 0;
}

int godwit_source_forget(struct godwit_source *s, uint32_t id, uint64_t first, uint64_t pages)
{
	if (id >= GODWIT_MAX_BLOCKS || !s->block_pages[id])
		return -ENOENT;
	godwit_base_forget(s->base, id, first, pages);
	return 0;
}

void godwit_source_remember_new(struct godwit_source *s, int on)
{
	godwit_base_remember_new(s->base, on);
}

int godwit_source_set_params(struct godwit_source *s, const struct godwit_params *params,
			     struct godwit_error *error)
{
	struct godwit_setup setup;
	int err = godwit_setup_parse(params, &setup, error);

	if (err)
		return err;
	err = godwit_setup_publish(&s->setup, &setup);
	if (err)
		godwit_error_set(error, "no memory for new parameters; the old ones stay");
	return err;
}

/* ---- birth and end ---- */

static int create_base(struct godwit_source *s, struct godwit_error *error)
{
	struct godwit_base_options options = {
		.size = sizeof(options),
		.kind = s->laid_out.base,
		.bytes = s->laid_out.base_bytes,
	};

	return godwit_base_create(&options, &s->base, error);
}

static void send_stream_header(struct godwit_source *s)
{
	struct godwit_job *job = godwit_source_take_free(s);

	godwit_stream_header_put(job->frame.mem);
	put_head(s, job);
}

/* All that ever were made: they are stopped, and what they hold outside of the arena is given back. */
static void end_workers(struct godwit_source *s)
{
	for (unsigned i = 0; i < GODWIT_MAX_WORKERS && godwit_source_worker_at(s, i); i++) {
		struct godwit_source_worker *w = godwit_source_worker_at(s, i);

		godwit_worker_stop(&w->worker);
		if (s->stream == GODWIT_STREAM_STOCK)
			godwit_stock_destroy_in(w->stock);
		else
			godwit_encoder_destroy_in(w->encoder);
	}
}

int godwit_source_create(const struct godwit_source_options *from, struct godwit_source **source_ret,
			 struct godwit_error *error)
{
	struct godwit_source_options options;
	struct godwit_setup setup;
	struct godwit_arena arena;
	struct godwit_source *s;
	int err = godwit_options_copy(&options, sizeof(options), sizeof(options), from, error);

	if (!err && options.stream > GODWIT_STREAM_STOCK) {
		godwit_error_set(error, "stream: %u is not godwit (0) or stock (1)", options.stream);
		err = -EINVAL;
	}
	if (!err)
		err = godwit_setup_parse(&options.params, &setup, error);
	if (err)
		return err;
	err = godwit_arena_create(&arena);
	if (err) {
		godwit_error_set(error, "no memory for a source");
		return err;
	}
	s = godwit_arena_alloc_zero(&arena, sizeof(*s));
	if (!s) {
		err = -ENOMEM;
		goto destroy_arena;
	}
	s->arena = arena;
	s->log = options.log;
	s->log_user = options.log_user;
	s->place = options.place;
	s->stream = options.stream;
	s->pagemap = godwit_absent_open();
	s->finished_tail = &s->finished;
	s->frame_bytes = GODWIT_BATCH_PAGES * GODWIT_PAGE_BYTES;
	s->laid_out = setup;
	s->created_at_ns = s->stepped_at_ns = godwit_now_ns();
	godwit_doorbell_init(&s->bell);
	godwit_price_init(&s->price);
	/* Relaxed: no worker yet. */
	atomic_store_explicit(&s->price_ps, godwit_price_step(&s->price, &(struct godwit_price_input){ 0 }),
			      memory_order_relaxed);
	if (s->place)
		godwit_placement_init(&s->placement);
	pthread_mutex_init(&s->stats_lock, NULL);
	err = godwit_setup_box_init(&s->setup, &s->arena, &setup);
	if (err)
		goto fini_place;
	err = create_base(s, error);
	if (err)
		goto fini_setup;
	err = godwit_source_set_workers(s, setup.workers);
	if (err)
		goto end_workers;
	s->followed_workers = setup.workers;
	godwit_source_mark_start(s);
	if (s->stream == GODWIT_STREAM_GODWIT)
		send_stream_header(s);
	*source_ret = s;
	return 0;

end_workers:
	end_workers(s);
	godwit_base_destroy(s->base);
fini_setup:
	godwit_setup_box_fini(&s->setup);
fini_place:
	if (s->place)
		godwit_placement_fini(&s->placement);
	pthread_mutex_destroy(&s->stats_lock);
	godwit_absent_close(s->pagemap);
destroy_arena:
	godwit_arena_destroy(&arena);
	if (err == -ENOMEM || err == -EAGAIN)
		godwit_error_set(error, "no memory or no threads for a source with %u workers",
				 setup.workers);
	return err;
}

void godwit_source_destroy(struct godwit_source *s)
{
	struct godwit_arena arena;

	if (!s)
		return;
	end_workers(s);
	godwit_base_destroy(s->base);
	godwit_setup_box_fini(&s->setup);
	if (s->place)
		godwit_placement_fini(&s->placement);
	pthread_mutex_destroy(&s->stats_lock);
	godwit_absent_close(s->pagemap);
	arena = s->arena;		/* the source itself lies in it */
	godwit_arena_destroy(&arena);
}
