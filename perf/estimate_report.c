/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* estimate_report.c - what came out, for people and for programs */
#include <math.h>

#include "estimate.h"

static double mb_per_s(double ns_per_page)
{
	return ns_per_page > 0 ? GODWIT_PAGE_BYTES / ns_per_page * 1e3 : NAN;
}

static double ratio(double bytes_per_page)
{
	return bytes_per_page > 0 ? GODWIT_PAGE_BYTES / bytes_per_page : NAN;
}

static void put_pass(struct json_object *json, const char *key, const struct pass *pass)
{
	struct json_object *in = put_object(json, key);

	put_real(in, "wire_bytes_per_page", pass->bytes, 3);
	put_real(in, "ratio", ratio(pass->bytes), 3);
	put_real(in, "encode_mb_per_s_per_worker", mb_per_s(pass->encode_ns), 1);
	put_real(in, "decode_mb_per_s_per_worker", mb_per_s(pass->decode_ns), 1);
}

static void put_outcome(struct json_object *in, const struct outcome *outcome, bool is_rate_known)
{
	put_real(in, "first_pass_s", outcome->first_ns / 1e9, 6);
	if (!is_rate_known)
		return;
	put_bool(in, "converges", outcome->converges);
	put_u64(in, "rounds", outcome->rounds);
	put_real(in, "total_s", outcome->converges ? outcome->total_ns / 1e9 : NAN, 6);
	put_real(in, "downtime_s", outcome->downtime_ns / 1e9, 6);
	put_real(in, "wire_bytes", outcome->wire_bytes, 0);
}

void report_as_json(const struct setup *setup, const struct memory *memory, const struct rung_cost *cost,
		    const struct dirtying *dirtying)
{
	struct json_object *json = json_object_new_object(), *list;
	struct rung_cost raw = raw_cost(memory);
	bool is_rate_known = memory->interval_ns > 0;
	char machine[MACHINE_TEXT];

	put_u64(json, "pages", memory->whole_pages);
	put_u64(json, "sampled_pages", memory->pages);
	put_u64(json, "zero_pages", memory->zero);
	put_u64(json, "dirty_pages", memory->dirty);
	if (setup->pid) {
		put_u64(json, "mapped_pages", memory->sample.mapped_pages);
		put_u64(json, "swapped_pages", memory->sample.swapped_pages);
		put_u64(json, "early_dirty_pages", memory->dirty_early);
	}
	if (is_rate_known) {
		put_real(json, "interval_s", memory->interval_ns / 1e9, 6);
		put_real(json, "dirty_bytes_per_s", dirtying->pages_per_ns * 1e9 * GODWIT_PAGE_BYTES, 0);
		put_real(json, "working_set_bytes", dirtying->tau_ns > 0 ?
			 dirtying->set_pages * GODWIT_PAGE_BYTES : NAN, 0);
	}
	put_u64(json, "workers", setup->workers);
	put_real(json, "downtime_limit_s", (double)setup->downtime_ns / 1e9, 6);
	list = put_array(json, "rungs");
	for (unsigned i = 0; i < godwit_ladder_rungs; i++) {
		struct json_object *row = append_object(list);

		put_text(row, "rung", cost[i].rung);
		put_pass(row, "first", &cost[i].first);
		if (memory->dirty)
			put_pass(row, "again", &cost[i].again);
	}
	list = put_array(json, "links");
	for (unsigned i = 0; i < setup->nr_links; i++) {
		struct outcome plain = play(&raw, dirtying, setup->link[i], setup);
		struct choice best = best_rung(cost, dirtying, setup->link[i], setup);
		struct json_object *row = append_object(list), *in;

		put_u64(row, "bandwidth_bytes_per_s", setup->link[i]);
		put_outcome(put_object(row, "raw"), &plain, is_rate_known);
		in = put_object(row, "godwit");
		put_text(in, "rung", cost[best.rung].rung);
		put_outcome(in, &best.outcome, is_rate_known);
	}
	put_text(json, "machine", machine_text(machine));
	print_json(json);
}

static const char *outcome_text(char *text, size_t text_bytes, const struct outcome *outcome,
				bool is_rate_known)
{
	char total[UNIT_TEXT], downtime[UNIT_TEXT];

	if (!is_rate_known)
		snprintf(text, text_bytes, "%s", format_duration(total, outcome->first_ns));
	else if (outcome->converges)
		snprintf(text, text_bytes, "%s in %u passes, stops %s", format_duration(total, outcome->total_ns),
			 outcome->rounds + 2, format_duration(downtime, outcome->downtime_ns));
	else
		snprintf(text, text_bytes, "does not converge (would stop %s)",
			 format_duration(downtime, outcome->downtime_ns));
	return text;
}

static void print_memory(const struct setup *setup, const struct memory *memory,
			 const struct dirtying *dirtying)
{
	char machine[MACHINE_TEXT], text[UNIT_TEXT];
	double pages = (double)memory->pages;

	printf("machine   %s\n", machine_text(machine));
	if (setup->pid)
		printf("process   %d: %s resident, %llu of its pages sampled, %llu swapped out\n", setup->pid,
		       format_bytes(text, (double)memory->sample.resident_pages * GODWIT_PAGE_BYTES),
		       (unsigned long long)memory->pages, (unsigned long long)memory->sample.swapped_pages);
	else
		printf("image     %s%s%s, %s\n", setup->new_path, setup->old_path ? " after " : "",
		       setup->old_path ? setup->old_path : "", format_bytes(text, pages * GODWIT_PAGE_BYTES));
	printf("content   %.1f %% zero pages\n", 100 * (double)memory->zero / pages);
	if (memory->old_pages != memory->new_pages)
		printf("written   %.1f %% of pages differ%s%s\n", 100 * (double)memory->dirty / pages,
		       memory->interval_ns > 0 ? " after " : "",
		       memory->interval_ns > 0 ? format_duration(text, memory->interval_ns) : "");
	if (memory->interval_ns > 0)
		printf("dirtying  %s/s at first",
		       format_bytes(text, dirtying->pages_per_ns * 1e9 * GODWIT_PAGE_BYTES));
	if (dirtying->tau_ns > 0)
		printf(", working set near %s",
		       format_bytes(text, dirtying->set_pages * GODWIT_PAGE_BYTES));
	printf("%sworkers   %u\n\n", memory->interval_ns > 0 ? "\n" : "", setup->workers);
}

void report_as_text(const struct setup *setup, const struct memory *memory, const struct rung_cost *cost,
		    const struct dirtying *dirtying)
{
	struct rung_cost raw = raw_cost(memory);
	bool is_rate_known = memory->interval_ns > 0;
	char link[UNIT_TEXT], raw_text[96], godwit_text[96];
	struct table table;

	print_memory(setup, memory, dirtying);
	table_init(&table, "rung|>first: ratio|>B/page|>MB/s per worker|>decode|>again: ratio|>B/page|"
			   ">MB/s per worker|>decode");
	for (unsigned i = 0; i < godwit_ladder_rungs; i++) {
		const struct pass *a = &cost[i].first, *b = &cost[i].again;

		if (memory->dirty)
			table_row(&table, "%s|%.2f|%.0f|%.0f|%.0f|%.2f|%.0f|%.0f|%.0f", cost[i].rung, ratio(a->bytes),
				  a->bytes, mb_per_s(a->encode_ns), mb_per_s(a->decode_ns), ratio(b->bytes),
				  b->bytes, mb_per_s(b->encode_ns), mb_per_s(b->decode_ns));
		else
			table_row(&table, "%s|%.2f|%.0f|%.0f|%.0f|-|-|-|-", cost[i].rung, ratio(a->bytes), a->bytes,
				  mb_per_s(a->encode_ns), mb_per_s(a->decode_ns));
	}
	table_print(&table, stdout);

	printf("\n");
	table_init(&table, is_rate_known ? "link|raw|godwit|rung" : "link|raw, one pass|godwit, one pass|rung");
	for (unsigned i = 0; i < setup->nr_links; i++) {
		struct outcome plain = play(&raw, dirtying, setup->link[i], setup);
		struct choice best = best_rung(cost, dirtying, setup->link[i], setup);

		table_row(&table, "%s|%s|%s|%s", format_bandwidth(link, (double)setup->link[i]),
			  outcome_text(raw_text, sizeof(raw_text), &plain, is_rate_known),
			  outcome_text(godwit_text, sizeof(godwit_text), &best.outcome, is_rate_known),
			  cost[best.rung].rung);
	}
	table_print(&table, stdout);
	if (!is_rate_known)
		printf("\nHow fast pages are written is not known: give --pid, or --old with --interval.\n");
}
