/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_SOURCE_PRIVATE_H
#define GODWIT_SOURCE_PRIVATE_H

/* source_private.h - what source.c (the way of a page), source_workers.c and source_stats.c share */

#include <pthread.h>

#include <godwit/source.h>

#include "codecs/codecs.h"
#include "engine/absent.h"
#include "engine/counters.h"
#include "engine/encoder.h"
#include "engine/memory.h"
#include "engine/setup.h"
#include "engine/stock.h"
#include "engine/topology.h"
#include "engine/worker.h"

/* Batches in a worker's hands: four hide the variance of what a batch costs, and two more let the
 * calling thread sleep until four are done: at most one wake for 256 pages. */
#define GODWIT_DEPTH 6u
#define GODWIT_WAKE_AT 4u
/* And half as many again: finished, or being written, while the worker goes on. */
#define GODWIT_JOBS_PER_WORKER 9u
_Static_assert(GODWIT_DEPTH <= 1 << GODWIT_WORKER_RING_LOG2, "a worker's rings hold its depth");

/* A batch and the frame it becomes. Belongs to whoever has it, see source.c. */
struct godwit_job {
	struct godwit_batch batch;	/* nr_pages 0: a stream header or drain frame */
	uint64_t number;
	struct godwit_frame_buffer frame;
	int err;
	struct godwit_job *next;
};

struct godwit_source_worker {
	struct godwit_worker worker;
	struct godwit_source *source;
	struct godwit_encoder *encoder;	/* one of the two is NULL, by the source's stream */
	struct godwit_stock *stock;
	struct godwit_absent absent;	/* the worker's */
	uint32_t in_flight;		/* the calling thread's: given and not yet taken back */
	struct godwit_spsc done;	/* worker to calling thread */
	godwit_slot done_slots[1 << GODWIT_WORKER_RING_LOG2];
};

/* A moment, for statistics over a span. */
struct godwit_mark {
	uint64_t sum[GODWIT_COUNTERS];
	uint64_t cpu_ns;
	uint64_t at_ns;
};

/* What a page has cost in a round. */
struct godwit_cost {
	uint64_t pages;
	double wire_bytes;		/* per page */
	double encode_ns;		/* per page, of one worker */
};
#define GODWIT_COSTS 3u

struct godwit_price_marks {
	uint64_t busy_ns, idle_ns, late_ns, wall_ns, codec_ns, lost_ns;
};

struct godwit_source {
	/* Set by create, then read-only. */
	struct godwit_arena arena;
	godwit_log_fn log;
	void *log_user;
	uint64_t created_at_ns;
	uint32_t place;
	uint32_t stream;		/* enum godwit_stream */
	int pagemap;			/* see absent.h */

	/* Written by the calling thread; workers are published to readers of statistics. */
	_Atomic(struct godwit_source_worker *) worker[GODWIT_MAX_WORKERS];
	_Atomic uint32_t active_workers;
	_Atomic uint64_t price_ps;
	_Atomic uint64_t shown_base_bytes;
	_Atomic uint32_t shown_base_kind;
	_Atomic uint32_t shown_granule_bytes;

	/* Written by whoever calls set_params. */
	struct godwit_setup_box setup;

	/* The calling thread sleeps here; workers ring. */
	struct godwit_doorbell bell;

	/* The calling thread's. */
	struct godwit_base *base;
	struct godwit_placement placement;
	uint64_t block_pages[GODWIT_MAX_BLOCKS];	/* 0: no such block */
	uint8_t *block_idstr[GODWIT_MAX_BLOCKS];	/* stock stream: see stock.h. Workers read it, so it
							 * changes only when drained */
	const uint8_t *block_host[GODWIT_MAX_BLOCKS];	/* and this; NULL: none of its pages is absent */
	bool blocks_changed;
	struct godwit_setup laid_out;	/* what the base was laid out for */
	uint32_t followed_workers;	/* the parameter that was acted on */
	uint32_t asked_workers;		/* are fed; what is above them ends when it is empty */
	uint32_t nr_workers;		/* have ever run */
	uint32_t spin_ns;
	uint32_t turn;
	uint32_t nr_jobs;
	uint32_t in_flight;
	int failed;
	bool must_collect;
	uint64_t next_number;
	struct godwit_job *free, *open, *finished, **finished_tail, *collected;
	size_t finished_bytes, collected_bytes;
	uint64_t collected_plain_bytes;
	uint64_t collected_at_ns;
	uint64_t written_bytes, written_plain_bytes;	/* since the last price step */
	uint64_t undrained_frames, undrained_sum;	/* that workers made since the last drain frame */
	struct godwit_price price;
	struct godwit_price_marks marks;
	uint64_t stepped_at_ns;
	uint64_t starved_ns;
	uint64_t held_ns;		/* by the caller's bandwidth limit, since the last release */
	uint64_t step_held_ns;		/* and since the last price step */
	uint64_t held_at_ns;		/* the last time that it was; 0: never */
	double link_ns_per_byte;	/* 0: not known yet */
	double encode_ns_per_page;
	double frame_bytes;		/* of the last batches, on average */
	struct godwit_counters counters;

	/* Under stats_lock: starting and stopping workers against reading their clocks, and the marks. */
	pthread_mutex_t stats_lock;
	struct godwit_mark start, round_start, last_start;
	uint32_t rounds;
	uint64_t first_misses;		/* of the first round, once it has ended */
	struct godwit_cost first_cost;	/* of the first pass, once it has ended */
	struct godwit_cost cost[GODWIT_COSTS];	/* of the rounds after it */
	uint32_t nr_costs;		/* put there so far */
};

static inline struct godwit_source_worker *godwit_source_worker_at(const struct godwit_source *s, unsigned i)
{
	/* Relaxed: on the calling thread, which is the one to write it. */
	return atomic_load_explicit(&s->worker[i], memory_order_relaxed);
}

static inline struct godwit_counters *godwit_source_worker_counters(const struct godwit_source_worker *w)
{
	return w->stock ? godwit_stock_counters(w->stock) : godwit_encoder_counters(w->encoder);
}

static inline void godwit_source_give_back(struct godwit_source *s, struct godwit_job *job)
{
	job->next = s->free;
	s->free = job;
}

static inline struct godwit_job *godwit_source_take_free(struct godwit_source *s)
{
	struct godwit_job *job = s->free;

	s->free = job->next;
	return job;
}

/* To the end of the line of those that wait to be collected. */
static inline void godwit_source_finish(struct godwit_source *s, struct godwit_job *job)
{
	job->next = NULL;
	*s->finished_tail = job;
	s->finished_tail = &job->next;
	s->finished_bytes += job->frame.frame_bytes;
}

/* ---- source_workers.c: the calling thread's dealings with its workers ---- */

/* More threads start at once; of more than wanted the last are not fed any longer. 0 unless none runs. */
int godwit_source_set_workers(struct godwit_source *source, unsigned want);

/* Near the RAM, once there is RAM. */
void godwit_source_place_workers(struct godwit_source *source);

/* The open batch to the worker with the least to do; false: all have as much as they may. */
bool godwit_source_submit(struct godwit_source *source);

/* Take back what workers have finished; and sleep until there is something. */
void godwit_source_reap(struct godwit_source *source);
void godwit_source_wait(struct godwit_source *source);

/* ---- source_stats.c ---- */

void godwit_log(const struct godwit_source *source, enum godwit_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Sums over all threads. Any thread. */
void godwit_source_sum(const struct godwit_source *source, uint64_t sum[GODWIT_COUNTERS]);

/* The calling thread: the first mark, and one at the start of a round. */
void godwit_source_mark_start(struct godwit_source *source);
void godwit_source_mark_round(struct godwit_source *source);

#endif
