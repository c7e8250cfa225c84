/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef ESTIMATE_H
#define ESTIMATE_H

/*
 * estimate.h - what the files of `godwit-perf estimate` share
 *
 * The pages (estimate_pages.c) are encoded by every rung (estimate_rung.c); with what that took, a migration
 * is played through on each link (estimate_play.c) and told (estimate_report.c). estimate.c has the options.
 */

#include "codecs/codecs.h"
#include "perf.h"

#define MAX_LINKS 16

struct setup {
	int pid;
	const char *new_path, *old_path;
	uint64_t interval_ns;
	uint64_t max_pages;
	bool is_largest_only, is_json;
	unsigned workers;
	uint64_t link[MAX_LINKS];	/* bytes per second */
	unsigned nr_links;
	uint64_t downtime_ns;
};

/* The pages, and how they stand for the whole. */
struct memory {
	uint64_t pages;			/* here */
	uint8_t *old_pages, *new_pages;	/* the same when there is one image alone */
	uint64_t whole_pages;		/* that a migration would send */
	uint64_t dirty;			/* here: old and new differ */
	uint64_t dirty_early;		/* the same for the second reading */
	uint64_t zero;			/* here, in old */
	double interval_ns, early_ns;	/* 0: not known */
	struct image old_image, new_image;
	struct process_sample sample;
	size_t map_bytes;		/* of the sample's readings, 0 for images */
};

/* One pass of one rung, per page. */
struct pass {
	double bytes, encode_ns, decode_ns;
};

/* Of one rung of the ladder. */
struct rung_cost {
	char rung[16];			/* its name */
	struct pass first, again;	/* again: pages that differ; zero where none does */
};

/* D(t): pages of the whole that differ after t. */
struct dirtying {
	double whole_pages;
	double set_pages, tau_ns;	/* tau_ns = 0: a line */
	double pages_per_ns;		/* of that line; also what is dirtied at first */
};

struct outcome {
	bool converges;
	unsigned rounds;	/* between the first pass and the last, which is the stop */
	double first_ns, total_ns, downtime_ns;
	double wire_bytes;
};

struct choice {
	unsigned rung;
	struct outcome outcome;
};

/* ---- estimate_pages.c ---- */

/* Images, or a process that is watched for setup->interval_ns. Ends the program where there is none. */
void memory_get(struct memory *memory, const struct setup *setup);
void memory_put(struct memory *memory);

/* ---- estimate_rung.c ---- */

/* Both passes by a rung of the ladder, encoded and decoded by this thread; shadow has room for all pages. */
void rung_measure(const struct memory *memory, unsigned rung, uint8_t *shadow, struct rung_cost *cost);

/* ---- estimate_play.c ---- */

void dirtying_fit(struct dirtying *dirtying, const struct memory *memory);

struct outcome play(const struct rung_cost *cost, const struct dirtying *dirtying, uint64_t bytes_per_s,
		    const struct setup *setup);

/* What QEMU does without any option: a zero page is a header, any other the page. */
struct rung_cost raw_cost(const struct memory *memory);

/* What auto would settle on, were the whole guest of one kind; cost has one entry a rung. */
struct choice best_rung(const struct rung_cost *cost, const struct dirtying *dirtying, uint64_t bytes_per_s,
			const struct setup *setup);

/* ---- estimate_report.c ---- */

void report_as_json(const struct setup *setup, const struct memory *memory, const struct rung_cost *cost,
		    const struct dirtying *dirtying);
void report_as_text(const struct setup *setup, const struct memory *memory, const struct rung_cost *cost,
		    const struct dirtying *dirtying);

#endif
