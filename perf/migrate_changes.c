/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_changes.c - parameters that change while pages flow, as --set asks
 */
#include <stdlib.h>
#include <string.h>

#include "migrate_source.h"

static void apply_change(struct source_run *run, struct change *change)
{
	struct godwit_params params = run->params;
	struct godwit_error error = { "" };
	char rung[CHANGE_VALUE];
	const char *wrong;

	change->done = true;
	change->done_round = atomic_load_explicit(&run->now.round, memory_order_relaxed);
	/* Relaxed: each is one number, taken by the migration thread at its next look. */
	if (!strcmp(change->name, "bandwidth")) {
		atomic_store_explicit(&run->bandwidth, parse_bandwidth("set", change->value),
				      memory_order_relaxed);
		return;
	}
	if (!strcmp(change->name, "downtime-limit")) {
		uint64_t ms = strtoull(change->value, NULL, 10);
		bool plain = change->value[strspn(change->value, "0123456789")] == '\0';

		atomic_store_explicit(&run->downtime_limit_ns,
				      plain ? ms * 1000000 : parse_duration_ns("set", change->value),
				      memory_order_relaxed);
		return;
	}
	wrong = migrate_change_params(change, &params, rung);
	if (!*wrong && !godwit_source_set_params(run->source, &params, &error)) {
		run->params = params;
		if (params.rung == rung) {
			memcpy(run->rung, rung, sizeof(run->rung));
			run->params.rung = run->rung;
		}
		return;
	}
	change->refused = true;
	snprintf(change->text, sizeof(change->text), "%s", *wrong ? wrong : error.text);
	fprintf(stderr, "godwit-perf migrate: %s=%s refused: %s\n", change->name, change->value, change->text);
}

void source_apply_changes(struct source_run *run, uint64_t round, uint64_t since_ns)
{
	pthread_mutex_lock(&run->changing);
	for (unsigned i = 0; i < run->options->changes; i++) {
		struct change *change = &run->options->change[i];

		if (!change->done && (round ? change->round == round :
				      change->at_ns && change->at_ns <= since_ns))
			apply_change(run, change);
	}
	pthread_mutex_unlock(&run->changing);
}

void source_on_tick(void *user, uint64_t since_start_ns)
{
	struct source_run *run = user;

	if (atomic_load_explicit(&run->now.phase, memory_order_relaxed) == PHASE_ITERATE)
		source_apply_changes(run, 0, since_start_ns);
}

void source_follow_bandwidth(struct source_run *run)
{
	uint64_t bandwidth = atomic_load_explicit(&run->bandwidth, memory_order_relaxed);

	if (bandwidth == run->bandwidth_set)
		return;
	run->bandwidth_set = bandwidth;
	link_set_bandwidth(&run->link, bandwidth);
}
