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
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "estimate.h"

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

int cmd_estimate(int argc, char **argv)
{
	struct setup setup = { .downtime_ns = 300000000 };
	struct rung_cost cost[GODWIT_LADDER_MAX];
	struct dirtying dirtying;
	struct memory memory;

	parse_options(&setup, argc, argv);
	set_defaults(&setup);
	memory_get(&memory, &setup);

	size_t shadow_bytes = memory.pages * GODWIT_PAGE_BYTES;
	uint8_t *shadow = map_memory(shadow_bytes);

	for (unsigned i = 0; i < godwit_ladder_rungs; i++)
		rung_measure(&memory, i, shadow, &cost[i]);
	munmap(shadow, shadow_bytes);
	dirtying_fit(&dirtying, &memory);
	if (setup.is_json)
		report_as_json(&setup, &memory, cost, &dirtying);
	else
		report_as_text(&setup, &memory, cost, &dirtying);
	memory_put(&memory);
	return EXIT_WORKED;
}
