/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * encode.c - bytes and CPU per page, through the whole engine
 *
 * One process holds source and destination. The frames of a round are collected into memory, and only
 * when the source has drained are they fed to the destination: encoding and decoding never run at the
 * same time, so that neither takes cache or cores from the other's figures. The image of `old` is one
 * round, `new` the next; what is reported is the last round.
 *
 * Three clocks. Encode and decode are CPU of the engine's workers, as its statistics have them. Submit
 * is CPU of this thread inside queue, collect, release and drain: the clock is read where frames leave
 * and not around each call, since reading it costs more than a call; what the readings themselves
 * take is measured first and taken off.
 *
 * The stock stream is read by this thread (stock.c), as QEMU's destination is one thread.
 *
 * A full ring is waited for (when_busy = wait): nothing is behind collect() but a copy, and auto would
 * see a link without end and hand every other page back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <godwit/godwit.h>

#include "perf.h"

#define BLOCK_ID 0
#define BLOCK_NAME "image"
#define IOVS 64

enum { OPT_NEW, OPT_OLD, OPT_WORKERS, OPT_RUNG, OPT_BASE, OPT_BASE_BYTES, OPT_STREAM, OPT_BANDWIDTH,
       OPT_REPEAT, OPT_JSON };

static const struct perf_option options[] = {
	[OPT_NEW] = { "new", "FILE", "pages as they are now; FILE.zst is unpacked" },
	[OPT_OLD] = { "old", "FILE", "the same pages as they were sent last; sent first, as a round\n"
				     "of its own" },
	[OPT_WORKERS] = { "workers", "N", "threads that encode, and that decode (default: from the\n"
					  "processors allowed)" },
	[OPT_RUNG] = { "rung", "R", "auto (default), none, lz4, lz4:8, zstd1, zstd-5, zlib6, ..." },
	[OPT_BASE] = { "base", "KIND", "what is kept of pages sent: signatures (default), pages, off" },
	[OPT_BASE_BYTES] = { "base-bytes", "SIZE", "memory for it (default 0: as much as helps)" },
	[OPT_STREAM] = { "stream", "KIND", "godwit (default), or stock: what any QEMU reads, XBZRLE in place of\n"
					   "deltas and codecs" },
	[OPT_BANDWIDTH] = { "bandwidth", "RATE", "pace the frames, such as 1Gbit or 125MB (default: no limit)" },
	[OPT_REPEAT] = { "repeat", "N", "times are medians of N runs (default 5)" },
	[OPT_JSON] = { "json", NULL, "print JSON" },
	{ 0 },
};

static const struct perf_command command = {
	.name = "encode",
	.synopsis = "--new FILE [--old FILE] [OPTION]...",
	.summary = "Sends the pages of old, then those of new, through a source and a destination in this\n"
		   "process, and tells what the last round took. Exits 1 if a page came out different.",
	.options = options,
};

struct setup {
	struct image new_image, old_image;
	bool has_old;
	struct godwit_params params;
	uint32_t stream;		/* enum godwit_stream */
	uint64_t bytes_per_s;
	unsigned repeat;
	bool is_json;
};

/* Frames of one round, kept. */
struct tape {
	uint8_t *bytes;
	size_t used_bytes, cap_bytes;
};

struct figures {
	struct godwit_stats stats;	/* of the last round, source side */
	double encode_ns, submit_ns, decode_ns;	/* per page */
	double round_ns;		/* wall time of the round at the source */
	bool is_verified;
};

/* ---- options ---- */

static uint32_t parse_base(const char *text)
{
	static const char *const names[] = { [GODWIT_BASE_SIGNATURES] = "signatures",
					     [GODWIT_BASE_PAGES] = "pages", [GODWIT_BASE_OFF] = "off" };

	for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(text, names[i]))
			return i;
	usage_error("--base %s: signatures, pages or off", text);
}

static const char *const stream_names[] = { [GODWIT_STREAM_GODWIT] = "godwit",
					    [GODWIT_STREAM_STOCK] = "stock" };

static uint32_t parse_stream(const char *text)
{
	for (uint32_t i = 0; i < sizeof(stream_names) / sizeof(stream_names[0]); i++)
		if (!strcmp(text, stream_names[i]))
			return i;
	usage_error("--stream %s: godwit or stock", text);
}

static void parse_options(struct setup *setup, int argc, char **argv)
{
	const char *arg, *new_path = NULL, *old_path = NULL;
	int option;

	while ((option = next_option(&command, argc, argv, &arg)) >= 0) {
		switch (option) {
		case OPT_NEW:
			new_path = arg;
			break;
		case OPT_OLD:
			old_path = arg;
			break;
		case OPT_WORKERS:
			setup->params.workers = (uint32_t)parse_number("workers", arg, 1, GODWIT_MAX_WORKERS);
			break;
		case OPT_RUNG:
			setup->params.rung = arg;
			break;
		case OPT_BASE:
			setup->params.base = parse_base(arg);
			break;
		case OPT_BASE_BYTES:
			setup->params.base_bytes = parse_size_bytes("base-bytes", arg);
			break;
		case OPT_STREAM:
			setup->stream = parse_stream(arg);
			break;
		case OPT_BANDWIDTH:
			setup->bytes_per_s = parse_bandwidth("bandwidth", arg);
			break;
		case OPT_REPEAT:
			setup->repeat = (unsigned)parse_number("repeat", arg, 1, 1000);
			break;
		case OPT_JSON:
			setup->is_json = true;
			break;
		}
	}
	if (setup->stream == GODWIT_STREAM_STOCK && setup->params.rung)
		usage_error("--rung %s: the stock stream has no codecs", setup->params.rung);
	if (!new_path)
		usage_error("--new FILE is needed: the pages to encode");
	image_load(&setup->new_image, new_path);
	setup->has_old = old_path;
	if (old_path)
		image_load_old(&setup->old_image, old_path, &setup->new_image);
}

static void log_line(void *user, enum godwit_log_level level, const char *line)
{
	if (level <= GODWIT_LOG_WARN)
		warn_user("%s", line);
}

/* ---- source side ---- */

/* The calling thread's CPU inside the engine. */
struct submit_clock {
	uint64_t sum_ns, since_ns;
	uint64_t readings;	/* pairs */
};

static void submit_begins(struct submit_clock *clock)
{
	clock->since_ns = thread_cpu_ns();
	clock->readings++;
}

static void submit_ends(struct submit_clock *clock)
{
	clock->sum_ns += thread_cpu_ns() - clock->since_ns;
}

/* What an empty pair of readings shows. */
static double reading_ns(void)
{
	struct submit_clock clock = { 0 };

	for (int i = 0; i < 1000; i++) {
		submit_begins(&clock);
		submit_ends(&clock);
	}
	return (double)clock.sum_ns / (double)clock.readings;
}

static void keep(struct tape *tape, const struct iovec *piece)
{
	if (piece->iov_len > tape->cap_bytes - tape->used_bytes)
		die("frames of one round take more than %zu bytes; this is a bug in the engine",
		    tape->cap_bytes);
	memcpy(tape->bytes + tape->used_bytes, piece->iov_base, piece->iov_len);
	tape->used_bytes += piece->iov_len;
}

/* Called and left with the clock running. */
static void collect_frames(struct godwit_source *source, struct tape *tape, struct pace *pace,
			   struct submit_clock *clock)
{
	struct iovec piece[IOVS];
	int pieces = godwit_source_collect(source, 0, piece, IOVS);
	uint64_t bytes = 0;

	submit_ends(clock);
	for (int i = 0; i < pieces; i++) {
		keep(tape, &piece[i]);
		bytes += piece[i].iov_len;
	}
	pace_wait(pace, bytes);
	submit_begins(clock);
	godwit_source_release(source);
}

static void send_round(struct godwit_source *source, const struct image *image, struct tape *tape,
		       struct pace *pace, struct submit_clock *clock)
{
	struct godwit_error error;
	int got = godwit_source_round(source);

	if (got)
		die("a round cannot begin: %s", strerror(-got));
	tape->used_bytes = 0;
	submit_begins(clock);
	for (uint64_t page = 0; page < image->pages; page++) {
		const uint8_t *host = image->bytes + page * GODWIT_PAGE_BYTES;

		while ((got = godwit_source_queue(source, BLOCK_ID, page, host, &error)) ==
		       GODWIT_QUEUE_COLLECT)
			collect_frames(source, tape, pace, clock);
		if (got)
			die("page %llu: %s", (unsigned long long)page, got < 0 ? error.text : "refused as busy");
	}
	while ((got = godwit_source_drain(source, &error)) == GODWIT_QUEUE_COLLECT)
		collect_frames(source, tape, pace, clock);
	submit_ends(clock);
	if (got)
		die("drain: %s", error.text);
}

/* ---- destination side ---- */

static void apply_frames(struct godwit_destination *destination, const struct tape *tape)
{
	struct godwit_error error;

	for (size_t at = 0; at < tape->used_bytes;) {
		void *body;
		size_t body_bytes;

		if (godwit_destination_begin(destination, tape->bytes + at, &body, &body_bytes, &error))
			die("decode: %s", error.text);
		at += GODWIT_HEAD_BYTES;
		if (!body_bytes)
			continue;
		memcpy(body, tape->bytes + at, body_bytes);
		at += body_bytes;
		if (godwit_destination_commit(destination, &error))
			die("decode: %s", error.text);
	}
	if (godwit_destination_drain(destination, &error))
		die("decode: %s", error.text);
}

static uint64_t decode_cpu_ns(const struct godwit_destination *destination)
{
	struct godwit_stats stats = GODWIT_STATS_INIT;

	godwit_destination_stats(destination, &stats);
	return stats.worker_cpu_ns;
}

/* The tape into the shadow: by a destination, or without one as QEMU does. Returns the CPU it took. */
static uint64_t apply_tape(const struct setup *setup, struct godwit_destination *destination,
			   const struct tape *tape, uint8_t *shadow)
{
	uint64_t before_ns;

	if (destination) {
		before_ns = decode_cpu_ns(destination);
		apply_frames(destination, tape);
		return decode_cpu_ns(destination) - before_ns;
	}
	before_ns = thread_cpu_ns();
	stock_apply(tape->bytes, tape->used_bytes, BLOCK_NAME, shadow, setup->new_image.len_bytes);
	return thread_cpu_ns() - before_ns;
}

/* ---- one run ---- */

static struct godwit_source *make_source(const struct setup *setup)
{
	struct godwit_source_options with = GODWIT_SOURCE_OPTIONS_INIT;
	struct godwit_source *source;
	struct godwit_error error;
	int err;

	with.params = setup->params;
	with.stream = setup->stream;
	with.log = log_line;
	err = godwit_source_create(&with, &source, &error);
	if (err == -EINVAL || err == -E2BIG)
		usage_error("%s", error.text);
	if (!err)
		err = godwit_source_add_block(source, BLOCK_ID, BLOCK_NAME, NULL, setup->new_image.len_bytes, &error);
	if (err)
		die("source: %s", error.text);
	return source;
}

static struct godwit_destination *make_destination(const struct setup *setup, void *shadow)
{
	struct godwit_destination_options with = GODWIT_DESTINATION_OPTIONS_INIT;
	struct godwit_destination *destination;
	struct godwit_error error;
	int err;

	with.workers = setup->params.workers;
	with.log = log_line;
	err = godwit_destination_create(&with, &destination, &error);
	if (!err)
		err = godwit_destination_add_block(destination, BLOCK_ID, BLOCK_NAME, shadow,
						   setup->new_image.len_bytes, &error);
	if (err)
		die("destination: %s", error.text);
	return destination;
}

static void run_once(const struct setup *setup, uint8_t *shadow, struct tape *tape, double clock_cost_ns,
		     struct figures *figures)
{
	const size_t bytes = setup->new_image.len_bytes;
	const double pages = (double)setup->new_image.pages;
	struct submit_clock clock = { 0 };
	struct pace pace;

	/* Not zero: a zero page must be written, not found. Touched, so that no fault is timed. */
	memset(shadow, 0xA5, bytes);
	*figures = (struct figures){ .stats = GODWIT_STATS_INIT, .is_verified = true };

	struct godwit_source *source = make_source(setup);
	struct godwit_destination *destination = setup->stream == GODWIT_STREAM_STOCK ?
							 NULL : make_destination(setup, shadow);

	pace_init(&pace, setup->bytes_per_s);
	if (setup->has_old) {
		send_round(source, &setup->old_image, tape, &pace, &clock);
		apply_tape(setup, destination, tape, shadow);
		figures->is_verified = !memcmp(shadow, setup->old_image.bytes, bytes);
	}

	uint64_t start_ns = now_ns();

	clock = (struct submit_clock){ 0 };
	send_round(source, &setup->new_image, tape, &pace, &clock);
	figures->round_ns = (double)(now_ns() - start_ns);
	godwit_source_round_stats(source, 0, &figures->stats);
	figures->decode_ns = (double)apply_tape(setup, destination, tape, shadow) / pages;
	figures->is_verified &= !memcmp(shadow, setup->new_image.bytes, bytes);

	double submit_ns = (double)clock.sum_ns - clock_cost_ns * (double)clock.readings;

	figures->submit_ns = submit_ns > 0 ? submit_ns / pages : 0;
	figures->encode_ns = (double)figures->stats.worker_cpu_ns / pages;
	godwit_destination_destroy(destination);
	godwit_source_destroy(source);
}

/* ---- what came out ---- */

struct spread {
	double median, min, max;
};

struct report {
	const struct figures *counts;	/* the run whose wire bytes are the median: its counts add up */
	struct spread encode_ns, submit_ns, decode_ns, round_ns;
	bool is_verified;		/* in every run */
};

static struct spread spread_of(const struct figures *runs, unsigned nr_runs, size_t offset)
{
	double *values = xcalloc(nr_runs, sizeof(*values));
	struct spread spread;

	for (unsigned i = 0; i < nr_runs; i++)
		memcpy(&values[i], (const char *)&runs[i] + offset, sizeof(*values));
	spread.median = median(values, nr_runs);
	spread.min = values[0];		/* median() sorted them */
	spread.max = values[nr_runs - 1];
	free(values);
	return spread;
}

static int by_wire_bytes(const void *a, const void *b)
{
	uint64_t x = ((const struct figures *)a)->stats.wire_bytes;
	uint64_t y = ((const struct figures *)b)->stats.wire_bytes;

	return (x > y) - (x < y);
}

static void make_report(struct report *report, struct figures *runs, unsigned nr_runs)
{
	qsort(runs, nr_runs, sizeof(*runs), by_wire_bytes);
	*report = (struct report){
		.counts = &runs[(nr_runs - 1) / 2],
		.encode_ns = spread_of(runs, nr_runs, offsetof(struct figures, encode_ns)),
		.submit_ns = spread_of(runs, nr_runs, offsetof(struct figures, submit_ns)),
		.decode_ns = spread_of(runs, nr_runs, offsetof(struct figures, decode_ns)),
		.round_ns = spread_of(runs, nr_runs, offsetof(struct figures, round_ns)),
		.is_verified = true,
	};
	for (unsigned i = 0; i < nr_runs; i++)
		report->is_verified &= runs[i].is_verified;
}

static const char *base_name(uint32_t base)
{
	return base == GODWIT_BASE_SIGNATURES ? "signatures" : base == GODWIT_BASE_PAGES ? "pages" : "off";
}

static const char *rung_name(const struct setup *setup, const struct godwit_stats *stats)
{
	if (setup->stream == GODWIT_STREAM_STOCK)
		return stats->rung;
	return setup->params.rung ? setup->params.rung : "auto";
}

static void print_as_json(const struct setup *setup, const struct report *report)
{
	const struct godwit_stats *stats = &report->counts->stats;
	double pages = (double)setup->new_image.pages;
	struct json_object *json = json_object_new_object();
	char machine[MACHINE_TEXT];

	put_u64(json, "pages", stats->pages);
	put_u64(json, "zero", stats->zero);
	put_u64(json, "fill", stats->fill);
	put_u64(json, "same", stats->same);
	put_u64(json, "delta", stats->delta_words + stats->delta_lines);
	put_u64(json, "whole", stats->whole);
	put_u64(json, "raw", stats->raw);
	put_real(json, "payload_bytes_per_page", (double)stats->payload_bytes / pages, 3);
	put_u64(json, "wire_bytes", stats->wire_bytes);
	put_real(json, "wire_bytes_per_page", (double)stats->wire_bytes / pages, 3);
	put_real(json, "encode_ns_per_page", report->encode_ns.median, 1);
	put_real(json, "submit_ns_per_page", report->submit_ns.median, 1);
	put_real(json, "decode_ns_per_page", report->decode_ns.median, 1);
	put_u64(json, "base_bytes", stats->base_bytes);
	put_bool(json, "verified", report->is_verified);

	put_text(json, "base", base_name(stats->base));
	put_u64(json, "base_granule_bytes", stats->base_granule_bytes);
	put_u64(json, "base_hits", stats->base_hits);
	put_u64(json, "base_misses", stats->base_misses);
	put_u64(json, "overflow", stats->overflow);
	put_text(json, "stream", stream_names[setup->stream]);
	put_text(json, "rung", rung_name(setup, stats));
	put_u64(json, "workers", stats->workers);
	put_u64(json, "bandwidth_bytes_per_s", setup->bytes_per_s);
	put_u64(json, "repeat", setup->repeat);
	put_u64(json, "frames", stats->frames);
	put_u64(json, "wakes", stats->wakes);
	put_u64(json, "waits", stats->waits);
	put_real(json, "round_ns", report->round_ns.median, 0);
	put_real(json, "encode_ns_per_page_min", report->encode_ns.min, 1);
	put_real(json, "encode_ns_per_page_max", report->encode_ns.max, 1);
	put_real(json, "submit_ns_per_page_min", report->submit_ns.min, 1);
	put_real(json, "submit_ns_per_page_max", report->submit_ns.max, 1);
	put_real(json, "decode_ns_per_page_min", report->decode_ns.min, 1);
	put_real(json, "decode_ns_per_page_max", report->decode_ns.max, 1);
	put_text(json, "machine", machine_text(machine));
	print_json(json);
}

static void kind_row(struct table *table, const char *kind, uint64_t pages, uint64_t all)
{
	table_row(table, "%s|%llu|%.1f %%", kind, (unsigned long long)pages,
		  100.0 * (double)pages / (double)all);
}

static void time_row(struct table *table, const char *what, const struct spread *spread)
{
	table_row(table, "%s|%.0f|%.0f - %.0f", what, spread->median, spread->min, spread->max);
}

static void print_as_text(const struct setup *setup, const struct report *report)
{
	const struct godwit_stats *stats = &report->counts->stats;
	double pages = (double)setup->new_image.pages;
	bool is_auto = setup->stream == GODWIT_STREAM_GODWIT && !setup->params.rung;
	char machine[MACHINE_TEXT], text[UNIT_TEXT];
	struct table table;

	printf("machine   %s\n", machine_text(machine));
	printf("pages     %s%s%s\n", setup->new_image.path, setup->has_old ? " after " : "",
	       setup->has_old ? setup->old_image.path : "");
	printf("engine    %u workers, not pinned; stream %s, rung %s%s%s; base %s, %s", stats->workers,
	       stream_names[setup->stream], rung_name(setup, stats), is_auto ? ", lately " : "",
	       is_auto ? stats->rung : "", base_name(stats->base),
	       format_bytes(text, (double)stats->base_bytes));
	if (stats->base_granule_bytes)
		printf(" (one per %u bytes)", stats->base_granule_bytes);
	printf("\nlink      %s\n", setup->bytes_per_s ?
	       format_bandwidth(text, (double)setup->bytes_per_s) : "no limit");
	printf("runs      %u\n\n", setup->repeat);

	table_init(&table, "sent as|>pages|>share");
	kind_row(&table, "zero", stats->zero, stats->pages);
	kind_row(&table, "fill", stats->fill, stats->pages);
	kind_row(&table, "same", stats->same, stats->pages);
	kind_row(&table, "delta", stats->delta_words + stats->delta_lines, stats->pages);
	kind_row(&table, "whole", stats->whole, stats->pages);
	kind_row(&table, "raw", stats->raw, stats->pages);
	kind_row(&table, "all", stats->pages, stats->pages);
	table_print(&table, stdout);

	printf("\n");
	table_init(&table, "bytes|>per page|>in all");
	table_row(&table, "payload|%.1f|%llu", (double)stats->payload_bytes / pages,
		  (unsigned long long)stats->payload_bytes);
	table_row(&table, "wire|%.1f|%llu", (double)stats->wire_bytes / pages,
		  (unsigned long long)stats->wire_bytes);
	table_print(&table, stdout);

	printf("\n");
	table_init(&table, "CPU, ns per page|>median|>min - max");
	time_row(&table, "encode (workers)", &report->encode_ns);
	time_row(&table, "submit (caller)", &report->submit_ns);
	time_row(&table, setup->stream == GODWIT_STREAM_STOCK ? "decode (one thread)" : "decode (workers)",
		 &report->decode_ns);
	table_print(&table, stdout);

	printf("\nround took %s; ", format_duration(text, report->round_ns.median));
	printf("%s\n", report->is_verified ? "every page verified" : "PAGES CAME OUT DIFFERENT");
}

int cmd_encode(int argc, char **argv)
{
	struct setup setup = { .params = GODWIT_PARAMS_INIT, .repeat = 5 };
	struct report report;
	struct tape tape;

	setup.params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	parse_options(&setup, argc, argv);

	/* A page is at most itself and its entry in the frame; the bound also covers the drain frames. */
	tape.cap_bytes = setup.new_image.pages * (GODWIT_PAGE_BYTES + 256u) + (1u << 20);
	tape.bytes = map_memory(tape.cap_bytes);
	memset(tape.bytes, 0, tape.cap_bytes);

	uint8_t *shadow = map_memory(setup.new_image.len_bytes);
	struct figures *runs = xcalloc(setup.repeat, sizeof(*runs));
	double clock_cost_ns = reading_ns();

	for (unsigned i = 0; i < setup.repeat; i++)
		run_once(&setup, shadow, &tape, clock_cost_ns, &runs[i]);
	make_report(&report, runs, setup.repeat);
	if (setup.is_json)
		print_as_json(&setup, &report);
	else
		print_as_text(&setup, &report);

	bool is_verified = report.is_verified;

	free(runs);
	munmap(shadow, setup.new_image.len_bytes);
	munmap(tape.bytes, tape.cap_bytes);
	image_unload(&setup.new_image);
	image_unload(&setup.old_image);
	return is_verified ? EXIT_WORKED : EXIT_FAILED;
}
