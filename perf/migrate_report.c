/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_report.c - what came of a migration: for people, and for programs
 *
 * The block for people is laid out as QEMU's "info migrate" is, so that who knows one reads the
 * other. Downtime is told twice, because a test harness compares every page before it lets the guest
 * go on, which a real migration does not: "downtime" ends when the destination has everything,
 * "paused" when the workload runs again.
 */
#include <string.h>

#include "migrate.h"

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static double ratio(double a, double b)
{
	return b > 0 ? a / b : 0;
}

/* Pages that crossed, and how; the engine's figures and what went past it. */
struct totals {
	uint64_t pages;
	uint64_t zero, fill, same, delta, whole, raw, busy;
	double submit_ns_per_page;
	double wakes_per_1000_pages;
	double thread_ns_per_page;
	double encode_ns_per_page;
	double decode_ns_per_page;
	double guest_per_wire;
	double seconds;			/* from the start to the last byte applied */
};

static void make_totals(struct totals *t, const struct migrate_options *o, const struct outcome *out)
{
	const struct godwit_stats *s = &out->stats;

	*t = (struct totals){
		.pages = out->pages_sent, .zero = s->zero, .fill = s->fill, .same = s->same,
		.delta = s->delta_words + s->delta_lines, .whole = s->whole, .raw = s->raw, .busy = s->busy,
	};
	if (o->raw)
		for (unsigned i = 0; i < out->rounds; i++) {
			t->raw += out->round[i].raw_pages;
			t->zero += out->round[i].zero_pages;
		}
	t->submit_ns_per_page = ratio((double)s->submit_cpu_ns, (double)s->pages);
	t->wakes_per_1000_pages = ratio((double)s->wakes * 1000, (double)s->pages);
	t->encode_ns_per_page = ratio((double)s->worker_cpu_ns, (double)(s->pages - s->busy));
	t->thread_ns_per_page = ratio((double)out->thread_cpu_ns, (double)t->pages);
	t->decode_ns_per_page = ratio((double)out->done.decode_cpu_ns, (double)t->pages);
	t->guest_per_wire = ratio((double)t->pages * GODWIT_PAGE_BYTES, (double)out->socket_bytes);
	t->seconds = (double)(out->total_ns - out->verify_ns) / 1e9;
}

/* ---- for people ---- */

static const char *const base_names[] = { "signatures", "pages", "off" };

static void print_pages(const struct totals *t, const struct migrate_options *o,
			const struct outcome *out, FILE *file)
{
	const struct godwit_stats *s = &out->stats;
	char text[UNIT_TEXT];

	fprintf(file, "pages: %llu sent (%llu in the guest)\n", (unsigned long long)t->pages,
		(unsigned long long)(o->ram_bytes / GODWIT_PAGE_BYTES));
	fprintf(file, "  zero: %llu  fill: %llu  same: %llu\n", (unsigned long long)t->zero,
		(unsigned long long)t->fill, (unsigned long long)t->same);
	fprintf(file, "  delta: %llu  whole: %llu  raw: %llu  busy: %llu\n", (unsigned long long)t->delta,
		(unsigned long long)t->whole, (unsigned long long)t->raw, (unsigned long long)t->busy);
	if (o->raw)
		return;
	if (s->base == GODWIT_BASE_OFF)
		fprintf(file, "base: off\n");
	else
		fprintf(file, "base: %s, %s", base_names[s->base <= 2 ? s->base : 2],
			format_bytes(text, (double)s->base_bytes));
	if (s->base == GODWIT_BASE_SIGNATURES)
		fprintf(file, ", %u bytes a line", s->base_granule_bytes);
	if (s->base != GODWIT_BASE_OFF)
		fprintf(file, "; misses %.1f %%, overflow %llu\n", s->base_miss_rate * 100,
			(unsigned long long)s->overflow);
	fprintf(file, "rung: %s (%s); compression rate %.2f; delta rate %.1f\n", s->rung,
		o->params.rung && strcmp(o->params.rung, "auto") ? "fixed" : "auto", s->compression_rate, s->delta_rate);
}

static void print_wire(const struct totals *t, const struct outcome *out, FILE *file)
{
	char text[4][UNIT_TEXT];

	fprintf(file, "transferred: %s for %s of pages, %.2f times less\n",
		format_bytes(text[0], (double)out->socket_bytes),
		format_bytes(text[1], (double)t->pages * GODWIT_PAGE_BYTES), t->guest_per_wire);
	fprintf(file, "  frames %llu + pages as they are %llu + heads %llu = %llu bytes; socket %llu, "
		"arrived %llu: %s\n",
		(unsigned long long)out->frame_bytes, (unsigned long long)out->page_bytes,
		(unsigned long long)out->head_bytes,
		(unsigned long long)(out->frame_bytes + out->page_bytes + out->head_bytes),
		(unsigned long long)out->socket_bytes, (unsigned long long)out->received_bytes,
		out->bytes_add_up ? "equal" : out->received_bytes ? "NOT EQUAL" : "it was not finished");
	fprintf(file, "throughput: %s on the wire, %s of guest memory retired\n",
		format_bandwidth(text[2], ratio((double)out->socket_bytes, t->seconds)),
		format_bandwidth(text[3], ratio((double)t->pages * GODWIT_PAGE_BYTES, t->seconds)));
}

static void print_cpu(const struct totals *t, const struct migrate_options *o,
		      const struct outcome *out, FILE *file)
{
	fprintf(file, "migration thread: %.0f ns/page (all of it: socket, tracking, pacing, engine)\n",
		t->thread_ns_per_page);
	if (o->raw)
		return;
	fprintf(file, "engine: submit %.0f ns/page, %.2f wakes per 1000 pages, encode %.0f ns/page on %u workers, "
		"decode %.0f ns/page on %llu\n", t->submit_ns_per_page, t->wakes_per_1000_pages,
		t->encode_ns_per_page, out->stats.workers, t->decode_ns_per_page,
		(unsigned long long)out->done.workers);
}

static void print_changes(const struct migrate_options *o, FILE *file)
{
	for (unsigned i = 0; i < o->changes; i++) {
		const struct change *c = &o->change[i];

		fprintf(file, "set %s=%s: ", c->name, c->value);
		if (!c->done)
			fprintf(file, "not reached\n");
		else
			fprintf(file, "%s in round %llu%s%s\n", c->refused ? "refused" : "done",
				(unsigned long long)c->done_round, c->refused ? ": " : "", c->text);
	}
}

static void print_end(const struct outcome *out, FILE *file)
{
	const struct done *d = &out->done;

	if (!strcmp(out->status, "completed")) {
		fprintf(file, "verified: %llu pages compared by digest and with what was written last, 0 differ\n",
			(unsigned long long)out->verified.pages);
		fprintf(file, "workload: resumed at the destination; %llu page writes, %llu pages checked meanwhile, "
			"then all %llu: none is wrong\n", (unsigned long long)d->writes,
			(unsigned long long)d->checks, (unsigned long long)d->pages);
		return;
	}
	fflush(file);
	if (!out->failure.cancelled)
		fprintf(stderr, "godwit-perf migrate: %s\n", out->failure.text);
	if (out->intact_checked && out->intact_wrong)
		fprintf(stderr, "godwit-perf migrate: THE SOURCE IS DAMAGED: %llu pages are wrong, the first: %s\n",
			(unsigned long long)out->intact_wrong, out->intact_text);
	else if (out->intact_checked && out->failure.cancelled)
		fprintf(stderr, "migration cancelled; the workload runs on at the source (%llu pages checked)\n",
			(unsigned long long)out->intact_pages);
	else if (out->intact_checked)
		fprintf(stderr, "source workload intact: it runs on here (%llu pages checked)\n",
			(unsigned long long)out->intact_pages);
	else if (out->resumed_there)
		fprintf(stderr, "the workload was resumed at the destination; it stands still here\n");
	else
		fprintf(stderr, "the workload was handed over and may run at the destination; it stands still "
			"here, unharmed\n");
}

void report_text(const struct migrate_options *o, const struct outcome *out, FILE *file)
{
	struct totals t;
	char text[UNIT_TEXT];

	make_totals(&t, o, out);
	fprintf(file, "Migration status: %s\n", out->status);
	if (out->rounds) {
		fprintf(file, "total time: %.0f ms\n", ms(out->total_ns));
		fprintf(file, "setup: %.1f ms; dirty tracking by %s\n", ms(out->setup_ns), out->tracking);
		fprintf(file, "rounds: %u; workload %.0f page writes/s (%s)\n", out->rounds, out->write_rate,
			format_bandwidth(text, out->write_rate * GODWIT_PAGE_BYTES));
	}
	if (out->downtime_ns)
		fprintf(file, "downtime: %.1f ms (limit %.0f ms); verification: %.1f ms; paused in all: %.1f ms\n",
			ms(out->downtime_ns), ms(o->downtime_limit_ns), ms(out->verify_ns),
			ms(out->paused_ns));
	if (out->rounds)
		print_pages(&t, o, out, file);
	if (out->socket_bytes) {
		print_wire(&t, out, file);
		print_cpu(&t, o, out, file);
	}
	print_changes(o, file);
	print_end(out, file);
}

/* ---- for programs ---- */

static void put_stats(struct json_object *object, const struct godwit_stats *s)
{
	put_u64(object, "zero", s->zero);
	put_u64(object, "fill", s->fill);
	put_u64(object, "same", s->same);
	put_u64(object, "delta_words", s->delta_words);
	put_u64(object, "delta_lines", s->delta_lines);
	put_u64(object, "whole", s->whole);
	put_u64(object, "raw", s->raw);
	put_u64(object, "busy", s->busy);
	put_real(object, "compression_rate", s->compression_rate, 3);
	put_real(object, "delta_rate", s->delta_rate, 3);
	put_u64(object, "base_hits", s->base_hits);
	put_u64(object, "base_misses", s->base_misses);
	put_u64(object, "overflow", s->overflow);
	put_u64(object, "frames", s->frames);
	put_u64(object, "payload_bytes", s->payload_bytes);
	put_u64(object, "wire_bytes", s->wire_bytes);
	put_u64(object, "retired_bytes", s->retired_bytes);
	put_u64(object, "wakes", s->wakes);
	put_u64(object, "waits", s->waits);
	put_text(object, "rung", s->rung);
}

static void put_rounds(struct json_object *object, const struct outcome *out)
{
	struct json_object *array = put_array(object, "rounds");

	for (unsigned i = 0; i < out->rounds; i++) {
		const struct round_record *r = &out->round[i];
		struct json_object *round = append_object(array);

		put_u64(round, "round", i + 1);
		put_bool(round, "is_last", r->is_last);
		put_real(round, "ms", ms(r->ns), 3);
		put_u64(round, "pages", r->pages);
		put_u64(round, "dirtied_pages", r->dirtied);
		put_u64(round, "remaining_pages", r->dirty_after);
		put_real(round, "predicted_ms", ms(r->predicted_ns), 3);
		put_real(round, "dirty_pages_per_s", ratio((double)r->dirtied, (double)r->ns / 1e9), 0);
		put_u64(round, "sent_as_they_are", r->raw_pages);
		put_u64(round, "zero_marks", r->zero_pages);
		put_stats(round, &r->stats);
	}
}

static void put_changes(struct json_object *object, const struct migrate_options *o)
{
	struct json_object *array = put_array(object, "changes");

	for (unsigned i = 0; i < o->changes; i++) {
		const struct change *c = &o->change[i];
		struct json_object *change = append_object(array);

		put_text(change, "name", c->name);
		put_text(change, "value", c->value);
		put_bool(change, "done", c->done && !c->refused);
		put_u64(change, "round", c->done_round);
		put_text(change, "refused", c->text);
	}
}

static void put_guest(struct json_object *object, const struct migrate_options *o, const struct outcome *out)
{
	put_u64(object, "ram_bytes", o->ram_bytes);
	put_u64(object, "vcpus", o->workload.vcpus);
	put_text(object, "workload", workload_names[o->workload.kind]);
	put_u64(object, "working_set_bytes", o->workload.working_set_pages * GODWIT_PAGE_BYTES);
	put_u64(object, "sparsity_bytes", o->workload.sparsity_bytes);
	put_real(object, "content_ratio_zstd1", out->content_ratio, 3);
	put_u64(object, "bandwidth_bytes_per_s", o->bandwidth);
	put_real(object, "downtime_limit_ms", ms(o->downtime_limit_ns), 3);
	put_text(object, "tracking", out->tracking);
	put_bool(object, "without_engine", o->raw);
}

void report_json(const struct migrate_options *o, const struct outcome *out)
{
	struct json_object *object = json_object_new_object();
	const struct godwit_stats *s = &out->stats;
	struct totals t;

	make_totals(&t, o, out);
	put_text(object, "status", out->status);
	put_text(object, "error", out->failure.text);
	put_real(object, "total_ms", ms(out->total_ns), 3);
	put_real(object, "downtime_ms", ms(out->downtime_ns), 3);
	put_real(object, "setup_ms", ms(out->setup_ns), 3);
	put_real(object, "verify_ms", ms(out->verify_ns), 3);
	put_real(object, "paused_ms", ms(out->paused_ns), 3);
	put_real(object, "pause_call_ms", ms(out->pause_call_ns), 3);
	put_guest(object, o, out);
	put_real(object, "writes_per_s", out->write_rate, 0);
	put_u64(object, "rounds_total", out->rounds);
	put_rounds(object, out);
	put_u64(object, "pages", t.pages);
	put_u64(object, "zero", t.zero);
	put_u64(object, "fill", t.fill);
	put_u64(object, "same", t.same);
	put_u64(object, "delta", t.delta);
	put_u64(object, "delta_words", s->delta_words);
	put_u64(object, "delta_lines", s->delta_lines);
	put_u64(object, "whole", t.whole);
	put_u64(object, "raw", t.raw);
	put_u64(object, "busy", t.busy);
	put_real(object, "busy_rate", s->busy_rate, 6);
	put_real(object, "ratio", t.guest_per_wire, 3);
	put_real(object, "compression_rate", s->compression_rate, 3);
	put_real(object, "delta_rate", s->delta_rate, 3);
	put_text(object, "base", o->raw ? "none" : base_names[s->base <= 2 ? s->base : 2]);
	put_u64(object, "base_bytes", s->base_bytes);
	put_u64(object, "base_granule_bytes", s->base_granule_bytes);
	put_u64(object, "base_hits", s->base_hits);
	put_u64(object, "base_misses", s->base_misses);
	put_real(object, "base_miss_rate", s->base_miss_rate, 6);
	put_u64(object, "overflow", s->overflow);
	put_text(object, "rung", o->raw ? "raw" : s->rung);
	put_u64(object, "frames", s->frames);
	put_u64(object, "payload_bytes", s->payload_bytes);
	put_u64(object, "wire_bytes", out->frame_bytes + out->page_bytes);
	put_u64(object, "frame_bytes", out->frame_bytes);
	put_u64(object, "page_bytes", out->page_bytes);
	put_u64(object, "head_bytes", out->head_bytes);
	put_u64(object, "socket_bytes", out->socket_bytes);
	put_u64(object, "kernel_bytes", out->kernel_bytes);
	put_u64(object, "received_bytes", out->received_bytes);
	put_bool(object, "bytes_add_up", out->bytes_add_up);
	put_u64(object, "sendmsg_calls", out->sendmsg_calls);
	put_real(object, "wire_bytes_per_s", ratio((double)out->socket_bytes, t.seconds), 0);
	put_real(object, "retired_bytes_per_s",
		 ratio((double)t.pages * GODWIT_PAGE_BYTES, t.seconds), 0);
	put_u64(object, "workers", s->workers);
	put_u64(object, "encode_cpu_ns", s->worker_cpu_ns);
	put_u64(object, "decode_cpu_ns", out->done.decode_cpu_ns);
	put_real(object, "encode_ns_per_page", t.encode_ns_per_page, 1);
	put_real(object, "decode_ns_per_page", t.decode_ns_per_page, 1);
	put_real(object, "submit_ns_per_page", t.submit_ns_per_page, 1);
	put_real(object, "thread_ns_per_page", t.thread_ns_per_page, 1);
	put_u64(object, "wakes", s->wakes);
	put_real(object, "wakes_per_1000_pages", t.wakes_per_1000_pages, 3);
	put_u64(object, "waits", s->waits);
	put_real(object, "wait_ms", ms(s->wait_ns), 3);
	put_changes(object, o);
	put_bool(object, "verified", !strcmp(out->status, "completed"));
	put_u64(object, "pages_compared", out->verified.pages);
	put_u64(object, "pages_differ", out->verified.differ);
	put_u64(object, "pages_stale", out->verified.stale);
	put_bool(object, "resumed_at_destination", out->resumed_there);
	put_u64(object, "destination_writes", out->done.writes);
	put_u64(object, "destination_checks", out->done.checks);
	put_u64(object, "destination_wrong", out->done.wrong);
	put_bool(object, "source_intact", out->intact_checked && !out->intact_wrong);
	put_u64(object, "source_pages_checked", out->intact_pages);
	print_json(object);
}
