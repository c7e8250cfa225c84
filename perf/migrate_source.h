/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_source.h - one migration at the source, as its parts share it
 *
 * migrate_source.c sets it up and ends it, migrate_rounds.c goes on until the rest is small enough,
 * migrate_switchover.c sends that and hands the guest over, migrate_changes.c is what --set asks for in between.
 * Every call is the migration thread's, but for source_on_tick(). What returns int gives 0, or a negative
 * errno with the words in run->failure.
 */
#ifndef GODWIT_PERF_MIGRATE_SOURCE_H
#define GODWIT_PERF_MIGRATE_SOURCE_H

#include "migrate.h"

struct source_run {
	struct migrate_options *options;
	struct outcome *outcome;
	struct failure *failure;
	struct guest guest;
	struct workload *workload;
	struct dirty_tracker *tracker;
	struct dirty_bitmap bitmap;
	struct godwit_source *source;
	struct control control;
	struct link link;
	struct progress *progress;
	struct progress_now now;
	struct godwit_params params;
	char rung[CHANGE_VALUE];
	pthread_mutex_t changing;	/* params, rung and the list of changes */
	_Atomic uint64_t bandwidth, downtime_limit_ns;
	uint64_t bandwidth_set;		/* the link's, by the migration thread */
	pid_t child;
	uint64_t start_ns, tracked_ns;
	uint64_t dirtied;		/* reported in this round */
	uint64_t first_writes, first_cpu_ns;
	bool handed_over;

	/* For tests: what each page was when it was last queued, and which page of the last round to spoil. */
	uint8_t *shadow;
	uint64_t spoil;
	uint8_t spoilt[GODWIT_PAGE_BYTES];
};

/* ---- migrate_source.c ---- */

/* -EIO, and said, once ^C was pressed. */
int source_check_cancelled(struct source_run *run);
void source_show_phase(struct source_run *run, enum phase phase);

/* ---- migrate_rounds.c ---- */

void source_show_remaining(struct source_run *run);
/* Asks the tracker for these pages, into the bitmap. */
int source_scan(struct source_run *run, uint64_t first, uint64_t pages);
/* One pass over the bitmap, drained at its end. In the last one the guest stands still. */
int source_send_round(struct source_run *run, bool is_last);
/* Rounds, until what is left fits the downtime limit. */
int source_iterate(struct source_run *run);

/* ---- migrate_switchover.c ---- */

int source_stop_and_copy(struct source_run *run);
/* The destination runs the guest for a while, and says what it found. */
int source_wait_for_done(struct source_run *run);
/* What was sent, and how fast the guest wrote, up to here. */
void source_take_counts(struct source_run *run);
void source_take_rates(struct source_run *run);

/* ---- migrate_changes.c ---- */

/* From the migration thread at a round's begin (round > 0), and from the sampler's at any time. */
void source_apply_changes(struct source_run *run, uint64_t round, uint64_t since_ns);
/* The sampler's, some times a second. */
void source_on_tick(void *user, uint64_t since_start_ns);
void source_follow_bandwidth(struct source_run *run);

#endif
