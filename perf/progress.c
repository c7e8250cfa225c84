/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * progress.c - what a migration looks like while it runs
 *
 * A thread of its own looks twenty times a second at counters that the migration thread only adds
 * to, keeps a sample for the picture and, on a terminal, draws two lines ten times a second. So the
 * migration thread never formats, and a slow terminal never slows a migration.
 *
 * The samples have a fixed room; when it is full, every other one is dropped and the pace halved.
 */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "migrate.h"

#define TICK_NS 50000000u
#define BAR_MIN 10
#define BAR_MAX 50

struct progress {
	struct progress_options options;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping;			/* under lock */
	bool utf8;

	/* The sampler's own until it is joined. */
	struct sample *sample;
	unsigned samples;
	unsigned every;			/* ticks from sample to sample */
	uint64_t last_bytes, last_ns;
	double wire_bytes_per_s;
	bool drawn;
};

static void take_sample(struct progress *p, struct sample *s)
{
	const struct progress_now *now = p->options.now;
	struct godwit_stats stats = GODWIT_STATS_INIT;
	uint64_t ns = now_ns();
	/* Relaxed throughout: figures to look at, each exact by itself. */
	uint64_t bytes = atomic_load_explicit(&p->options.link->socket_bytes, memory_order_relaxed);
	double seconds = (double)(ns - p->last_ns) / 1e9;

	if (seconds > 0) {
		double rate = (double)(bytes - p->last_bytes) / seconds;

		p->wire_bytes_per_s += (rate - p->wire_bytes_per_s) * 0.5;
	}
	p->last_bytes = bytes;
	p->last_ns = ns;
	*s = (struct sample){
		.t = (double)(ns - p->options.start_ns) / 1e9,
		.remaining_bytes = atomic_load_explicit(&now->remaining_pages, memory_order_relaxed) *
				   GODWIT_PAGE_BYTES,
		.dirty_bytes_per_s = (double)atomic_load_explicit(&now->dirty_rate, memory_order_relaxed) *
				     GODWIT_PAGE_BYTES,
		.wire_bytes_per_s = p->wire_bytes_per_s,
		.round = atomic_load_explicit(&now->round, memory_order_relaxed),
		.phase = atomic_load_explicit(&now->phase, memory_order_relaxed),
		.rung = "raw",
	};
	if (p->options.source && !godwit_source_round_stats(p->options.source, 0, &stats)) {
		memcpy(s->rung, stats.rung, sizeof(s->rung));
		if (stats.wire_bytes)
			s->ratio = (double)stats.retired_bytes / (double)stats.wire_bytes;
	}
}

static void keep_sample(struct progress *p, const struct sample *s)
{
	if (p->samples == MAX_SAMPLES) {
		for (unsigned i = 0; i < MAX_SAMPLES / 2; i++)
			p->sample[i] = p->sample[2 * i];
		p->samples = MAX_SAMPLES / 2;
		p->every *= 2;
	}
	p->sample[p->samples++] = *s;
}

static void draw_bar(const struct progress *p, double part, unsigned width)
{
	unsigned full = (unsigned)(part * width + 0.5);

	for (unsigned i = 0; i < width; i++)
		fputs(i < full ? p->utf8 ? "\u2588" : "#" : p->utf8 ? "\u2591" : ".", stderr);
}

static void draw(struct progress *p, const struct sample *s)
{
	static const char *const phases[PHASES] = {
		"set-up", "round", "stopped", "comparing", "resumed", "done",
	};
	uint64_t whole = atomic_load_explicit(&p->options.now->round_pages, memory_order_relaxed) *
			 GODWIT_PAGE_BYTES;
	double part = whole && s->remaining_bytes < whole ? 1 - (double)s->remaining_bytes / (double)whole : 0;
	char left[UNIT_TEXT], dirty[UNIT_TEXT], wire[UNIT_TEXT], line[2][160];
	struct winsize size = { .ws_col = 80 };
	int used;

	if (s->phase > PHASE_STOP)
		part = 1;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col)
		size.ws_col = 80;
	format_bytes(left, (double)s->remaining_bytes);
	format_bandwidth(dirty, s->dirty_bytes_per_s);
	format_bandwidth(wire, s->wire_bytes_per_s);
	if (s->phase == PHASE_ITERATE)
		snprintf(line[0], sizeof(line[0]), " %3.0f%%  round %u, %s left, %.1f s", part * 100, s->round,
			 left, s->t);
	else
		snprintf(line[0], sizeof(line[0]), " %3.0f%%  %s, %.1f s", part * 100, phases[s->phase], s->t);
	used = snprintf(line[1], sizeof(line[1]), "dirty %s  wire %s  rung %s", dirty, wire, s->rung);
	if (s->ratio > 0 && used < (int)sizeof(line[1]))
		snprintf(line[1] + used, sizeof(line[1]) - (size_t)used, "  ratio %.1f", s->ratio);

	int width = size.ws_col - (int)strlen(line[0]) - 3;

	fputs("\r\033[K", stderr);
	if (width >= BAR_MIN)
		draw_bar(p, part, width < BAR_MAX ? (unsigned)width : BAR_MAX);
	fprintf(stderr, "%.*s\n\033[K%.*s\r\033[A", size.ws_col - 1, line[0], size.ws_col - 1, line[1]);
	fflush(stderr);
	p->drawn = true;
}

static void *sampler_main(void *argument)
{
	struct progress *p = argument;
	uint64_t next = now_ns();
	unsigned tick = 0;

	pthread_setname_np(pthread_self(), "progress");
	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		struct timespec until;
		struct sample s;

		pthread_mutex_unlock(&p->lock);
		take_sample(p, &s);
		if (tick % p->every == 0)
			keep_sample(p, &s);
		if (p->options.terminal && tick % 2 == 0)
			draw(p, &s);
		if (p->options.tick)
			p->options.tick(p->options.user, now_ns() - p->options.start_ns);
		tick++;
		next += TICK_NS;
		until = (struct timespec){ (time_t)(next / 1000000000u), (long)(next % 1000000000u) };
		pthread_mutex_lock(&p->lock);
		while (!p->stopping && now_ns() < next)
			pthread_cond_timedwait(&p->changed, &p->lock, &until);
	}
	pthread_mutex_unlock(&p->lock);

	struct sample last;

	take_sample(p, &last);
	keep_sample(p, &last);
	if (p->drawn)
		fputs("\r\033[K\n\033[K\r\033[A", stderr);
	return NULL;
}

int progress_start(struct progress **progress_ret, const struct progress_options *options)
{
	struct progress *p = calloc(1, sizeof(*p));
	pthread_condattr_t monotonic;
	int err;

	if (!p)
		return -ENOMEM;
	p->options = *options;
	p->every = 1;
	p->last_ns = options->start_ns;
	setlocale(LC_CTYPE, "");
	p->utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	p->sample = calloc(MAX_SAMPLES, sizeof(*p->sample));
	if (!p->sample) {
		free(p);
		return -ENOMEM;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	err = -pthread_create(&p->thread, NULL, sampler_main, p);
	if (err) {
		free(p->sample);
		free(p);
		return err;
	}
	*progress_ret = p;
	return 0;
}

void progress_stop(struct progress *p)
{
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
}

const struct sample *progress_samples(const struct progress *p, unsigned *count_ret)
{
	*count_ret = p->samples;
	return p->sample;
}

void progress_free(struct progress *p)
{
	if (!p)
		return;
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p->sample);
	free(p);
}
