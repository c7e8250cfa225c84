/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * estimate.c - what a migration would cost, before there is one
 *
 * Pages come from images (new, and old if there is one) or from a sample of a running process, read
 * three times: at 0, at an eighth of the interval and at its end. They are encoded by this thread through
 * the batch layer, once per rung, decoded and compared; so bytes and CPU are measured, on this
 * machine, and only times on links are computed:
 *
 *	time of a pass = max(pages * bytes a page / link, pages * CPU a page / workers)
 *
 * Whether pre-copy converges depends on D(t), the pages that differ after t. Writes go to a working
 * set, some of it again and again, so D is fitted as W * (1 - exp(-t / tau)) through the two points
 * measured; with one point, or growth that does not slow down, it is a line up to the whole
 * memory. Then rounds are played through until one fits the downtime limit.
 *
 * What it cannot see: a page written with the bytes it had counts as clean here, and as dirty to a
 * hypervisor (it costs godwit next to nothing, and sending raw a page). So the raw column is an optimist's.
 */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <godwit/batch.h>

#include "perf.h"

#define BLOCK_ID 0
#define MAX_LINKS 16
#define MAX_ROUNDS 100
#define EARLY_DIVISOR 8		/* the second reading is at interval / this */

/* Lightest first: what the ladder has to offer. */
static const char *const rungs[] = { "none", "lz4:8", "lz4", "zstd-5", "zstd-1", "zstd1", "zstd3" };
#define NR_RUNGS (sizeof(rungs) / sizeof(rungs[0]))

enum { OPT_PID, OPT_NEW, OPT_OLD, OPT_INTERVAL, OPT_PAGES, OPT_LARGEST, OPT_WORKERS, OPT_BANDWIDTH,
       OPT_DOWNTIME, OPT_JSON };

static const struct perf_option options[] = {
	[OPT_PID] = { "pid", "PID", "a running process, such as a QEMU; it is neither stopped\n"
				    "nor changed" },
	[OPT_NEW] = { "new", "FILE", "an image of memory instead; FILE.zst is unpacked" },
	[OPT_OLD] = { "old", "FILE", "the same memory earlier" },
	[OPT_INTERVAL] = { "interval", "TIME", "with --pid, how long to watch (default 2s); with --old, how\n"
					       "much earlier that was" },
	[OPT_PAGES] = { "pages", "N", "with --pid, pages to sample (default 16384)" },
	[OPT_LARGEST] = { "largest", NULL, "with --pid, look at the largest mapping alone: the RAM of a\n"
					   "guest without its QEMU" },
	[OPT_WORKERS] = { "workers", "N", "threads that would encode (default: the processors allowed)" },
	[OPT_BANDWIDTH] = { "bandwidth", "RATE,...", "links to tell of (default 0.1, 1, 10, 25 and 100 Gbit)" },
	[OPT_DOWNTIME] = { "downtime-limit", "TIME", "how long the guest may stand still (default 300ms)" },
	[OPT_JSON] = { "json", NULL, "print JSON" },
	{ 0 },
};

static const struct perf_command command = {
	.name = "estimate",
	.synopsis = "--pid PID | --new FILE [--old FILE] [OPTION]...",
	.summary = "Encodes pages with every rung and tells what migrating all of them would cost: bytes, CPU,\n"
		   "time on given links, and whether it would converge.",
	.options = options,
};

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

struct rung_cost {
	struct pass first, again;	/* again: pages that differ; zero where none does */
};

/* ---- options ---- */

static void parse_links(struct setup *setup, const char *list)
{
	char *copy = strdup(list), *rest = copy;

	for (char *word; (word = strsep(&rest, ","));) {
		if (setup->nr_links == MAX_LINKS)
			usage_error("--bandwidth %s: at most %d links", list, MAX_LINKS);
		setup->link[setup->nr_links] = parse_bandwidth("bandwidth", word);
		if (!setup->link[setup->nr_links++])
			usage_error("--bandwidth %s: a link without limit has no time to tell", list);
	}
	free(copy);
}

static void parse_options(struct setup *setup, int argc, char **argv)
{
	const char *arg;
	int option;

	while ((option = next_option(&command, argc, argv, &arg)) >= 0) {
		switch (option) {
		case OPT_PID:
			setup->pid = (int)parse_number("pid", arg, 1, 0x7fffffff);
			break;
		case OPT_NEW:
			setup->new_path = arg;
			break;
		case OPT_OLD:
			setup->old_path = arg;
			break;
		case OPT_INTERVAL:
			setup->interval_ns = parse_duration_ns("interval", arg);
			break;
		case OPT_PAGES:
			setup->max_pages = parse_number("pages", arg, 64, 16u << 20);
			break;
		case OPT_LARGEST:
			setup->is_largest_only = true;
			break;
		case OPT_WORKERS:
			setup->workers = (unsigned)parse_number("workers", arg, 1, GODWIT_MAX_WORKERS);
			break;
		case OPT_BANDWIDTH:
			parse_links(setup, arg);
			break;
		case OPT_DOWNTIME:
			setup->downtime_ns = parse_duration_ns("downtime-limit", arg);
			break;
		case OPT_JSON:
			setup->is_json = true;
			break;
		}
	}
	if (!setup->pid == !setup->new_path)
		usage_error("either --pid PID or --new FILE is needed");
	if (setup->pid && setup->old_path)
		usage_error("--old goes with --new; a process is read twice by itself");
	if (!setup->pid && (setup->is_largest_only || setup->max_pages))
		usage_error("--largest and --pages go with --pid");
	if (setup->interval_ns && !setup->pid && !setup->old_path)
		usage_error("--interval with --new needs --old: the time between the two");
}

static void set_defaults(struct setup *setup)
{
	cpu_set_t allowed;

	if (!setup->workers)
		setup->workers = sched_getaffinity(0, sizeof(allowed), &allowed) ? 1 : (unsigned)CPU_COUNT(&allowed);
	if (setup->workers > GODWIT_MAX_WORKERS)
		setup->workers = GODWIT_MAX_WORKERS;
	if (!setup->nr_links)
		parse_links(setup, "0.1Gbit,1Gbit,10Gbit,25Gbit,100Gbit");
	if (!setup->max_pages)
		setup->max_pages = 16384;
	if (setup->pid && !setup->interval_ns)
		setup->interval_ns = 2000000000;
}

/* ---- the pages ---- */

static uint64_t count_differing(const uint8_t *a, const uint8_t *b, uint64_t pages)
{
	uint64_t differing = 0;

	for (uint64_t i = 0; i < pages; i++)
		differing += !!memcmp(a + i * GODWIT_PAGE_BYTES, b + i * GODWIT_PAGE_BYTES, GODWIT_PAGE_BYTES);
	return differing;
}

static uint64_t count_zero(const uint8_t *bytes, uint64_t pages)
{
	static const uint8_t zero[GODWIT_PAGE_BYTES];
	uint64_t found = 0;

	for (uint64_t i = 0; i < pages; i++)
		found += !memcmp(bytes + i * GODWIT_PAGE_BYTES, zero, GODWIT_PAGE_BYTES);
	return found;
}

static void sleep_until(uint64_t when_ns)
{
	struct timespec when = { (time_t)(when_ns / 1000000000u), (long)(when_ns % 1000000000u) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
		;
}

static void watch_process(struct memory *memory, const struct setup *setup)
{
	struct process_sample *sample = &memory->sample;
	uint64_t start_ns;

	process_sample_choose(sample, setup->pid, setup->max_pages, setup->is_largest_only);
	memory->pages = sample->pages;
	memory->whole_pages = sample->resident_pages + sample->swapped_pages;
	memory->map_bytes = memory->pages * GODWIT_PAGE_BYTES;
	memory->old_pages = map_memory(memory->map_bytes);
	memory->new_pages = map_memory(memory->map_bytes);
	/* Touched, so that the first reading is not slowed down by faults and is near one instant. */
	memset(memory->old_pages, 0, memory->map_bytes);
	memset(memory->new_pages, 0, memory->map_bytes);

	start_ns = now_ns();
	process_sample_read(sample, memory->old_pages);
	sleep_until(start_ns + setup->interval_ns / EARLY_DIVISOR);
	memory->early_ns = (double)(now_ns() - start_ns);
	process_sample_read(sample, memory->new_pages);
	memory->dirty_early = count_differing(memory->old_pages, memory->new_pages, memory->pages);
	sleep_until(start_ns + setup->interval_ns);
	memory->interval_ns = (double)(now_ns() - start_ns);
	process_sample_read(sample, memory->new_pages);
}

static void load_images(struct memory *memory, const struct setup *setup)
{
	image_load(&memory->new_image, setup->new_path);
	memory->pages = memory->whole_pages = memory->new_image.pages;
	memory->new_pages = memory->old_pages = memory->new_image.bytes;
	if (!setup->old_path)
		return;
	image_load(&memory->old_image, setup->old_path);
	if (memory->old_image.pages != memory->pages)
		die("%s and %s have different lengths: page i of both must be the same page", setup->old_path,
		    setup->new_path);
	memory->old_pages = memory->old_image.bytes;
	memory->interval_ns = (double)setup->interval_ns;
}

static void get_memory(struct memory *memory, const struct setup *setup)
{
	*memory = (struct memory){ 0 };
	if (setup->pid)
		watch_process(memory, setup);
	else
		load_images(memory, setup);
	memory->zero = count_zero(memory->old_pages, memory->pages);
	if (memory->old_pages != memory->new_pages)
		memory->dirty = count_differing(memory->old_pages, memory->new_pages, memory->pages);
}

static void put_memory(struct memory *memory)
{
	if (memory->map_bytes) {
		munmap(memory->old_pages, memory->map_bytes);
		munmap(memory->new_pages, memory->map_bytes);
	}
	image_unload(&memory->old_image);
	image_unload(&memory->new_image);
	process_sample_free(&memory->sample);
}

/* ---- measuring one rung ---- */

/* Both ends of a migration in one thread. */
struct ends {
	struct godwit_base *base;
	struct godwit_encoder *encoder;
	struct godwit_ram *ram;
	struct godwit_decoder *decoder;
	uint64_t frames;
};

static void open_ends(struct ends *ends, const struct memory *memory, const char *rung, uint8_t *shadow)
{
	/* Signatures per line for every page, and some for what is kept beside them. */
	struct godwit_base_options with = { .size = sizeof(with), .kind = GODWIT_BASE_SIGNATURES,
		.bytes = memory->pages * (GODWIT_PAGE_BYTES / 8 + 8) + (1u << 20) };
	struct godwit_error error = { "" };
	int err;

	*ends = (struct ends){ 0 };
	err = godwit_base_create(&with, &ends->base, &error);
	if (!err)
		err = godwit_base_add_block(ends->base, BLOCK_ID, memory->pages, &error);
	if (!err)
		err = godwit_base_layout(ends->base, &with, &error);
	if (!err)
		err = godwit_encoder_create(ends->base, &ends->encoder, &error);
	if (!err)
		err = godwit_encoder_set_rung(ends->encoder, rung, &error);
	if (!err)
		err = godwit_ram_create(&ends->ram, &error);
	if (!err)
		err = godwit_ram_add_block(ends->ram, BLOCK_ID, "memory", shadow,
					   memory->pages * GODWIT_PAGE_BYTES, &error);
	if (!err)
		err = godwit_decoder_create(ends->ram, &ends->decoder, &error);
	if (err)
		die("rung %s: %s (%s)", rung, error.text, strerror(-err));
}

static void close_ends(struct ends *ends)
{
	godwit_decoder_destroy(ends->decoder);
	godwit_ram_destroy(ends->ram);
	godwit_encoder_destroy(ends->encoder);
	godwit_base_destroy(ends->base);
}

static void send_batch(struct ends *ends, const struct godwit_batch *batch, struct pass *sum)
{
	struct godwit_error error;
	const void *frame;
	size_t frame_bytes;
	uint64_t start_ns = thread_cpu_ns(), encoded_ns;

	if (godwit_encode(ends->encoder, batch, ends->frames++, &frame, &frame_bytes))
		die("a batch could not be encoded; this is a bug");
	encoded_ns = thread_cpu_ns();
	if (godwit_decode(ends->decoder, frame, frame_bytes, &error))
		die("what was encoded does not decode; this is a bug: %s", error.text);
	sum->encode_ns += (double)(encoded_ns - start_ns);
	sum->decode_ns += (double)(thread_cpu_ns() - encoded_ns);
	sum->bytes += (double)frame_bytes;
}

/* All pages of `pages`, or those that differ from `than`. */
static void send_pass(struct ends *ends, const struct memory *memory, const uint8_t *pages,
		      const uint8_t *than, struct pass *mean_ret)
{
	struct godwit_batch batch = { .block = BLOCK_ID };
	struct pass sum = { 0 };
	uint64_t sent = 0;

	for (uint64_t i = 0; i < memory->pages; i++) {
		const uint8_t *host = pages + i * GODWIT_PAGE_BYTES;

		if (!than || memcmp(host, than + i * GODWIT_PAGE_BYTES, GODWIT_PAGE_BYTES)) {
			batch.page[batch.nr_pages] = i;
			batch.host[batch.nr_pages++] = host;
			sent++;
		}
		if (batch.nr_pages == GODWIT_BATCH_PAGES || (batch.nr_pages && i + 1 == memory->pages)) {
			send_batch(ends, &batch, &sum);
			batch.nr_pages = 0;
		}
	}
	*mean_ret = (struct pass){ 0 };
	if (sent)
		*mean_ret = (struct pass){ sum.bytes / (double)sent, sum.encode_ns / (double)sent,
					   sum.decode_ns / (double)sent };
}

static void measure_rung(const struct memory *memory, const char *rung, uint8_t *shadow,
			 struct rung_cost *cost)
{
	struct ends ends;

	open_ends(&ends, memory, rung, shadow);
	memset(shadow, 0xA5, memory->pages * GODWIT_PAGE_BYTES);
	send_pass(&ends, memory, memory->old_pages, NULL, &cost->first);
	send_pass(&ends, memory, memory->new_pages, memory->old_pages, &cost->again);
	close_ends(&ends);
	if (memcmp(shadow, memory->new_pages, memory->pages * GODWIT_PAGE_BYTES))
		die("rung %s: pages came out different; this is a bug", rung);
}

/* ---- playing a migration through ---- */

/* D(t): pages of the whole that differ after t. */
struct dirtying {
	double whole_pages;
	double set_pages, tau_ns;	/* tau_ns = 0: a line */
	double pages_per_ns;		/* of that line; also what is dirtied at first */
};

static void fit_dirtying(struct dirtying *dirtying, const struct memory *memory)
{
	double scale = (double)memory->whole_pages / (double)memory->pages;
	double late = (double)memory->dirty * scale, early = (double)memory->dirty_early * scale;

	*dirtying = (struct dirtying){ .whole_pages = (double)memory->whole_pages };
	if (!(memory->interval_ns > 0) || !(late > 0))
		return;
	dirtying->pages_per_ns = late / memory->interval_ns;
	if (!(memory->early_ns > 0) || !(early > 0))
		return;

	double n = memory->interval_ns / memory->early_ns, slowing = late / early;

	if (slowing >= n * 0.98)
		return;		/* no sign of a working set: a line */
	/* (1 - x^n) / (1 - x) = slowing, x = exp(-early / tau): grows with x from 1 to n. */
	double low = 0, high = 1;

	for (int i = 0; i < 60; i++) {
		double x = (low + high) / 2;

		if ((1 - pow(x, n)) / (1 - x) < slowing)
			low = x;
		else
			high = x;
	}
	if (low < 1e-6)
		low = 1e-6;	/* nothing new after the early reading */
	dirtying->tau_ns = -memory->early_ns / log(low);
	dirtying->set_pages = late / (1 - pow(low, n));
	dirtying->pages_per_ns = dirtying->set_pages / dirtying->tau_ns;
}

static double dirty_after(const struct dirtying *dirtying, double ns)
{
	double pages = dirtying->tau_ns > 0 ? dirtying->set_pages * (1 - exp(-ns / dirtying->tau_ns)) :
		       dirtying->pages_per_ns * ns;

	return pages < dirtying->whole_pages ? pages : dirtying->whole_pages;
}

struct outcome {
	bool converges;
	unsigned rounds;	/* between the first pass and the last, which is the stop */
	double first_ns, total_ns, downtime_ns;
	double wire_bytes;
};

static double pass_ns(double pages, const struct pass *pass, double bytes_per_s, unsigned workers)
{
	double wire_ns = pages * pass->bytes / bytes_per_s * 1e9;
	double cpu_ns = pages * pass->encode_ns / workers, apply_ns = pages * pass->decode_ns / workers;

	return fmax(wire_ns, fmax(cpu_ns, apply_ns));
}

static struct outcome play(const struct rung_cost *cost, const struct dirtying *dirtying,
			   uint64_t bytes_per_s, const struct setup *setup)
{
	double link = (double)bytes_per_s, last_ns;
	struct outcome outcome = { 0 };

	last_ns = pass_ns(dirtying->whole_pages, &cost->first, link, setup->workers);
	outcome.first_ns = outcome.total_ns = last_ns;
	outcome.wire_bytes = dirtying->whole_pages * cost->first.bytes;
	for (; outcome.rounds < MAX_ROUNDS; outcome.rounds++) {
		double dirty = dirty_after(dirtying, last_ns);
		double next_ns = pass_ns(dirty, &cost->again, link, setup->workers);

		outcome.downtime_ns = next_ns;
		if (next_ns <= (double)setup->downtime_ns) {
			outcome.converges = true;
			outcome.total_ns += next_ns;
			outcome.wire_bytes += dirty * cost->again.bytes;
			return outcome;
		}
		if (outcome.rounds && next_ns > 0.99 * last_ns)
			return outcome;		/* no rest gets smaller any more */
		outcome.total_ns += next_ns;
		outcome.wire_bytes += dirty * cost->again.bytes;
		last_ns = next_ns;
	}
	return outcome;
}

/* What QEMU does without any option: a zero page is a header, any other the page. */
static struct rung_cost raw_cost(const struct memory *memory)
{
	double non_zero = 1 - (double)memory->zero / (double)memory->pages;

	return (struct rung_cost){ .first.bytes = 8 + non_zero * GODWIT_PAGE_BYTES,
				   .again.bytes = memory->dirty ? 8 + GODWIT_PAGE_BYTES : 0 };
}

struct choice {
	unsigned rung;
	struct outcome outcome;
};

/* What auto would settle on, were the whole guest of one kind. */
static struct choice best_rung(const struct rung_cost *cost, const struct dirtying *dirtying,
			       uint64_t bytes_per_s, const struct setup *setup)
{
	struct choice best = { 0 };

	for (unsigned i = 0; i < NR_RUNGS; i++) {
		struct outcome o = play(&cost[i], dirtying, bytes_per_s, setup);
		bool is_better = o.converges != best.outcome.converges ? o.converges :
				 o.converges ? o.total_ns < best.outcome.total_ns :
					       o.downtime_ns < best.outcome.downtime_ns;

		if (!i || is_better)
			best = (struct choice){ i, o };
	}
	return best;
}

/* ---- what came out ---- */

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

static void print_as_json(const struct setup *setup, const struct memory *memory,
			  const struct rung_cost *cost, const struct dirtying *dirtying)
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
	for (unsigned i = 0; i < NR_RUNGS; i++) {
		struct json_object *row = append_object(list);

		put_text(row, "rung", rungs[i]);
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
		put_text(in, "rung", rungs[best.rung]);
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

static void print_as_text(const struct setup *setup, const struct memory *memory,
			  const struct rung_cost *cost, const struct dirtying *dirtying)
{
	struct rung_cost raw = raw_cost(memory);
	bool is_rate_known = memory->interval_ns > 0;
	char link[UNIT_TEXT], raw_text[96], godwit_text[96];
	struct table table;

	print_memory(setup, memory, dirtying);
	table_init(&table, "rung|>first: ratio|>B/page|>MB/s per worker|>decode|>again: ratio|>B/page|"
			   ">MB/s per worker|>decode");
	for (unsigned i = 0; i < NR_RUNGS; i++) {
		const struct pass *a = &cost[i].first, *b = &cost[i].again;

		if (memory->dirty)
			table_row(&table, "%s|%.2f|%.0f|%.0f|%.0f|%.2f|%.0f|%.0f|%.0f", rungs[i], ratio(a->bytes),
				  a->bytes, mb_per_s(a->encode_ns), mb_per_s(a->decode_ns), ratio(b->bytes),
				  b->bytes, mb_per_s(b->encode_ns), mb_per_s(b->decode_ns));
		else
			table_row(&table, "%s|%.2f|%.0f|%.0f|%.0f|-|-|-|-", rungs[i], ratio(a->bytes), a->bytes,
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
			  rungs[best.rung]);
	}
	table_print(&table, stdout);
	if (!is_rate_known)
		printf("\nHow fast pages are written is not known: give --pid, or --old with --interval.\n");
}

int cmd_estimate(int argc, char **argv)
{
	struct setup setup = { .downtime_ns = 300000000 };
	struct rung_cost cost[NR_RUNGS];
	struct dirtying dirtying;
	struct memory memory;

	parse_options(&setup, argc, argv);
	set_defaults(&setup);
	get_memory(&memory, &setup);

	size_t shadow_bytes = memory.pages * GODWIT_PAGE_BYTES;
	uint8_t *shadow = map_memory(shadow_bytes);

	for (unsigned i = 0; i < NR_RUNGS; i++)
		measure_rung(&memory, rungs[i], shadow, &cost[i]);
	munmap(shadow, shadow_bytes);
	fit_dirtying(&dirtying, &memory);
	if (setup.is_json)
		print_as_json(&setup, &memory, cost, &dirtying);
	else
		print_as_text(&setup, &memory, cost, &dirtying);
	put_memory(&memory);
	return EXIT_WORKED;
}
