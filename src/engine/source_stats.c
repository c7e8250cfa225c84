/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_stats.c - what a source shows of itself: statistics, rounds, the prediction
 *
 * Statistics of a span are the difference of two marks. CPU time is read from the workers' clocks when
 * somebody asks, so that no worker makes a system call for it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "engine/clock.h"
#include "engine/source_private.h"

/* A round of fewer pages says nothing of what pages cost. */
#define TELLING_PAGES 256u

/*
 * The last pages are the hottest: what they cost is put higher. By this much, and twice as much as the rounds
 * have differed, up to that. Each per cent counts: where a guest dirties nearly as fast as its pages are sent,
 * the last tenth of the way to the switchover takes as long as all before it.
 */
#define MARGIN_LEAST 1.03
#define MARGIN_MOST 1.25

void godwit_log(const struct godwit_source *s, enum godwit_log_level level, const char *format, ...)
{
	char line[256];
	va_list args;

	if (!s->log)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	s->log(s->log_user, level, line);
}

static struct godwit_source_worker *worker_at(const struct godwit_source *s, unsigned i)
{
	/* Acquire, meets the release in create_worker(). */
	return atomic_load_explicit(&s->worker[i], memory_order_acquire);
}

void godwit_source_sum(const struct godwit_source *s, uint64_t sum[GODWIT_COUNTERS])
{
	const struct godwit_source_worker *w;

	godwit_counters_sum(&s->counters, sum);
	for (unsigned i = 0; i < GODWIT_MAX_WORKERS && (w = worker_at(s, i)); i++) {
		godwit_counters_sum(godwit_source_worker_counters(w), sum);
		godwit_counters_sum(&w->worker.counters, sum);
	}
}

static struct godwit_mark mark_locked(const struct godwit_source *s)
{
	struct godwit_mark mark = { .at_ns = godwit_now_ns() };
	const struct godwit_source_worker *w;

	for (unsigned i = 0; i < GODWIT_MAX_WORKERS && (w = worker_at(s, i)); i++)
		mark.cpu_ns += godwit_worker_cpu_ns(&w->worker);
	godwit_source_sum(s, mark.sum);
	return mark;
}

void godwit_source_mark_start(struct godwit_source *s)
{
	pthread_mutex_lock(&s->stats_lock);
	s->start = mark_locked(s);
	s->round_start = s->last_start = s->start;
	pthread_mutex_unlock(&s->stats_lock);
}

static void sum_between(const struct godwit_mark *from, const struct godwit_mark *to,
			uint64_t sum[GODWIT_COUNTERS])
{
	for (unsigned i = 0; i < GODWIT_COUNTERS; i++)
		sum[i] = to->sum[i] - from->sum[i];
}

/*
 * What a page has cost. In the first pass zero and fill pages are left out: they come in long runs there,
 * and say nothing of the pages behind them. A page that the caller sent itself took a page of wire.
 */
static struct godwit_cost cost_between(const struct godwit_mark *from, const struct godwit_mark *to,
				       bool is_first)
{
	uint64_t sum[GODWIT_COUNTERS];
	struct godwit_cost cost = { 0 };

	sum_between(from, to, sum);
	cost.pages = sum[GODWIT_COUNT_SAME] + sum[GODWIT_COUNT_WORDS] + sum[GODWIT_COUNT_LINES] +
		     sum[GODWIT_COUNT_WHOLE] + sum[GODWIT_COUNT_RAW] + sum[GODWIT_COUNT_BUSY];
	if (!is_first)
		cost.pages += sum[GODWIT_COUNT_ZERO] + sum[GODWIT_COUNT_FILL];
	if (cost.pages) {
		uint64_t wire_bytes = sum[GODWIT_COUNT_WIRE_BYTES] +
				      sum[GODWIT_COUNT_BUSY] * GODWIT_PAGE_BYTES;

		cost.wire_bytes = (double)wire_bytes / (double)cost.pages;
		cost.encode_ns = (double)sum[GODWIT_COUNT_WALL_NS] / (double)cost.pages;
	}
	return cost;
}

void godwit_source_mark_round(struct godwit_source *s)
{
	bool is_first = s->rounds < 2;
	struct godwit_mark now;
	struct godwit_cost cost;

	pthread_mutex_lock(&s->stats_lock);
	now = mark_locked(s);
	cost = cost_between(&s->round_start, &now, is_first);
	if (cost.pages >= TELLING_PAGES) {
		if (is_first)
			s->first_cost = cost;
		else
			s->cost[s->nr_costs++ % GODWIT_COSTS] = cost;
	}
	if (s->rounds == 1)
		s->first_misses = now.sum[GODWIT_COUNT_MISSES];
	s->last_start = s->round_start;
	s->round_start = now;
	s->rounds++;
	pthread_mutex_unlock(&s->stats_lock);
}

struct cost_range {
	struct godwit_cost least, most;	/* each figure by itself */
	unsigned rounds;		/* that say something */
};

static void widen(struct cost_range *range, const struct godwit_cost *cost)
{
	if (cost->pages < TELLING_PAGES)
		return;
	if (!range->rounds++) {
		range->least = range->most = *cost;
		return;
	}
	if (cost->wire_bytes < range->least.wire_bytes)
		range->least.wire_bytes = cost->wire_bytes;
	if (cost->encode_ns < range->least.encode_ns)
		range->least.encode_ns = cost->encode_ns;
	if (cost->wire_bytes > range->most.wire_bytes)
		range->most.wire_bytes = cost->wire_bytes;
	if (cost->encode_ns > range->most.encode_ns)
		range->most.encode_ns = cost->encode_ns;
}

static double with_margin(double least, double most, bool is_settled)
{
	double margin = MARGIN_MOST;

	if (is_settled && most * 2 < least * (1 + MARGIN_MOST))
		margin = most * 2 / least - 1;
	return most * (margin > MARGIN_LEAST ? margin : MARGIN_LEAST);
}

/*
 * The dearest of the last rounds and of this one so far. What the first pass cost counts until a round of
 * pages that were sent before has ended: those are cheaper by far, but the first few of a round may be more so
 * than the rest of it.
 */
static struct godwit_cost predict_cost_locked(const struct godwit_source *s)
{
	bool is_settled = s->nr_costs >= GODWIT_COSTS;
	struct godwit_mark now = { .at_ns = 0 };
	struct cost_range range = { .rounds = 0 };
	struct godwit_cost cost;

	godwit_source_sum(s, now.sum);
	cost = cost_between(&s->round_start, &now, s->rounds < 2);
	widen(&range, &cost);
	for (unsigned i = 0; i < GODWIT_COSTS; i++)
		widen(&range, &s->cost[i]);
	if (!s->nr_costs)
		widen(&range, &s->first_cost);
	cost.wire_bytes = with_margin(range.least.wire_bytes, range.most.wire_bytes, is_settled);
	cost.encode_ns = with_margin(range.least.encode_ns, range.most.encode_ns, is_settled);
	/* Of pages that were never sent nothing is known, and they may be all that is left. */
	if ((s->rounds < 2 || !range.rounds) && cost.wire_bytes < GODWIT_PAGE_BYTES)
		cost.wire_bytes = GODWIT_PAGE_BYTES;
	return cost;
}

void godwit_source_predict(const struct godwit_source *source, uint64_t pages,
			   struct godwit_prediction *prediction_ret)
{
	struct godwit_source *s = (struct godwit_source *)source;	/* for the lock */
	uint64_t batches = (pages + GODWIT_BATCH_PAGES - 1) / GODWIT_BATCH_PAGES;
	/* Relaxed: a figure. */
	uint64_t workers = atomic_load_explicit(&s->active_workers, memory_order_relaxed);
	struct godwit_cost cost;

	pthread_mutex_lock(&s->stats_lock);
	cost = predict_cost_locked(s);
	pthread_mutex_unlock(&s->stats_lock);

	/* A batch is one worker's. */
	if (workers > batches)
		workers = batches;
	prediction_ret->wire_bytes = (uint64_t)((double)pages * cost.wire_bytes);
	prediction_ret->encode_ns = workers ? (uint64_t)((double)pages * cost.encode_ns / (double)workers) : 0;
}

/* Misses up to a mark that belong to the first round. */
static uint64_t seeds_until(const struct godwit_source *s, const struct godwit_mark *mark)
{
	uint64_t misses = mark->sum[GODWIT_COUNT_MISSES];

	return s->rounds > 1 && misses > s->first_misses ? s->first_misses : misses;
}

static int give_between(const struct godwit_source *s, const struct godwit_mark *from,
			const struct godwit_mark *to, struct godwit_stats *out)
{
	struct godwit_stats stats = { 0 };
	uint64_t sum[GODWIT_COUNTERS];
	uint32_t most = 0;
	struct godwit_rung rung = { GODWIT_CODEC_NONE, 0 };
	const struct godwit_source_worker *w;

	sum_between(from, to, sum);
	godwit_stats_derive(&stats, sum, to->at_ns - from->at_ns);
	stats.worker_cpu_ns = to->cpu_ns - from->cpu_ns;
	stats.base_seeds = seeds_until(s, to) - seeds_until(s, from);
	/* Relaxed, all three: figures for people. */
	stats.base_bytes = atomic_load_explicit(&s->shown_base_bytes, memory_order_relaxed);
	stats.base = atomic_load_explicit(&s->shown_base_kind, memory_order_relaxed);
	stats.base_granule_bytes = atomic_load_explicit(&s->shown_granule_bytes, memory_order_relaxed);
	stats.workers = atomic_load_explicit(&s->active_workers, memory_order_relaxed);
	stats.rounds = s->rounds;
	for (unsigned i = 0; i < stats.workers && (w = worker_at(s, i)) && w->encoder; i++) {
		struct godwit_rung last = godwit_encoder_last_rung(w->encoder);

		if (!most++ || last.codec > rung.codec)
			rung = last;
	}
	godwit_rung_name(rung, stats.rung);
	if (s->stream == GODWIT_STREAM_STOCK)
		strcpy(stats.rung, "xbzrle");
	return godwit_stats_give(out, &stats);
}

int godwit_source_stats(const struct godwit_source *source, struct godwit_stats *stats)
{
	struct godwit_source *s = (struct godwit_source *)source;	/* for the lock */
	struct godwit_mark now;
	int err;

	pthread_mutex_lock(&s->stats_lock);
	now = mark_locked(s);
	err = give_between(s, &s->start, &now, stats);
	pthread_mutex_unlock(&s->stats_lock);
	return err;
}

int godwit_source_round_stats(const struct godwit_source *source, unsigned round,
			      struct godwit_stats *stats)
{
	struct godwit_source *s = (struct godwit_source *)source;	/* for the lock */
	struct godwit_mark now;
	int err = -EINVAL;

	pthread_mutex_lock(&s->stats_lock);
	if (round == 0) {
		now = mark_locked(s);
		err = give_between(s, &s->round_start, &now, stats);
	} else if (round == 1 && s->rounds) {
		err = give_between(s, &s->last_start, &s->round_start, stats);
	}
	pthread_mutex_unlock(&s->stats_lock);
	return err;
}
