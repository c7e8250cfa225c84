/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_options.c - the command line of the live migration
 *
 * The defaults are one demonstration: a guest of 1 GiB whose workload writes more than a link of
 * 1 Gbit/s carries, so that its pages sent as they are would never be done.
 *
 * Tests spoil a run through the environment, not by options: GODWIT_MIGRATE_INJECT is skip, stale or
 * flip (the last round loses a page, has an old version of one, or a wrong byte), with ":checker"
 * behind it to leave finding it to the truth alone; GODWIT_MIGRATE_DIE is a number of bytes after
 * which the destination kills itself.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate.h"

#define DEFAULT_RAM_BYTES (1ull << 30)
#define DEFAULT_WRITES_PER_S 60000u
#define DEFAULT_BANDWIDTH 125000000u
#define DEFAULT_SPARSITY_BYTES 64u
#define DEFAULT_SET_PERCENT 25u
#define MIB (1ull << 20)

enum {
	OPT_RAM, OPT_VCPUS, OPT_WORKLOAD, OPT_DIRTY_RATE, OPT_WORKING_SET, OPT_SPARSITY, OPT_SEED,
	OPT_WARMUP,
	OPT_BANDWIDTH, OPT_DOWNTIME, OPT_MAX_ROUNDS, OPT_TIMEOUT, OPT_STALL, OPT_VERIFY, OPT_TRACK,
	OPT_WORKERS, OPT_DEST_WORKERS, OPT_RUNG, OPT_BASE, OPT_BASE_BYTES, OPT_WHEN_BUSY, OPT_PLACE,
	OPT_RAW, OPT_SET,
	OPT_LISTEN, OPT_CONNECT,
	OPT_JSON, OPT_SVG, OPT_QUIET, OPT_VERBOSE,
};

static const struct perf_option option_table[] = {
	[OPT_RAM] = { "ram", "SIZE", "guest RAM, a multiple of 1 MiB (1GiB)" },
	[OPT_VCPUS] = { "vcpus", "N", "threads that run the workload (2)" },
	[OPT_WORKLOAD] = { "workload", "KIND", "store: JSON records in a hash table, updated under zipf\n"
			   "sweep: a writer in address order; burst: idle, then many\n"
			   "mix: all of them (the default)" },
	[OPT_DIRTY_RATE] = { "dirty-rate", "RATE", "page writes per second (60000), or bytes as in 250MB;\n"
			     "0: as many as it can" },
	[OPT_WORKING_SET] = { "working-set", "SIZE|N%", "memory that is written at all (25%)" },
	[OPT_SPARSITY] = { "sparsity", "BYTES", "changed by one write to a page (64)" },
	[OPT_SEED] = { "seed", "N", "of the guest's contents and of its workload (1)" },
	[OPT_WARMUP] = { "warmup", "TIME", "how long the workload runs first (300ms)" },
	[OPT_BANDWIDTH] = { "bandwidth", "RATE", "cap of the data connection: 1Gbit or 125MB, each per second\n"
			    "(1Gbit); unlimited" },
	[OPT_DOWNTIME] = { "downtime-limit", "TIME", "stop the guest when the rest takes no longer (300ms)" },
	[OPT_MAX_ROUNDS] = { "max-rounds", "N", "give up after so many (30)" },
	[OPT_TIMEOUT] = { "timeout", "TIME", "give up after so long (5min)" },
	[OPT_STALL] = { "stall-timeout", "TIME", "give up when the other end is silent for so long (10s)" },
	[OPT_VERIFY] = { "verify-time", "TIME", "how long the workload then checks itself at the\n"
			 "destination before success is told (1s)" },
	[OPT_TRACK] = { "track", "WAY", "dirty pages by auto, uffd, mprotect or soft-dirty" },
	[OPT_WORKERS] = { "workers", "N", "threads that encode; 0: from the processors (0)" },
	[OPT_DEST_WORKERS] = { "destination-workers", "N", "threads that decode; 0: from the processors (0)" },
	[OPT_RUNG] = { "rung", "RUNG", "auto, none, lz4, zstd1, zstd-5, zlib6, ... (auto)" },
	[OPT_BASE] = { "base", "KIND", "signatures, pages or off (signatures)" },
	[OPT_BASE_BYTES] = { "base-bytes", "SIZE", "memory for it; 0: as much as helps (0)" },
	[OPT_WHEN_BUSY] = { "when-busy", "HOW", "auto, wait or raw: a page when all workers are (auto)" },
	[OPT_PLACE] = { "place", NULL, "bind workers to cores near the RAM" },
	[OPT_RAW] = { "raw", NULL, "for comparison, no engine at all: each page as it is,\n"
		      "zero pages by a mark" },
	[OPT_SET] = { "set", "NAME=VALUE@WHEN", "change rung, workers, base, base-bytes, when-busy, bandwidth or\n"
		      "downtime-limit in flight: @3 at round 3, @500ms after\n"
		      "the start; may be given often" },
	[OPT_LISTEN] = { "listen", "HOST:PORT", "be the destination" },
	[OPT_CONNECT] = { "connect", "HOST:PORT", "be the source; without either, both on this machine" },
	[OPT_JSON] = { "json", NULL, "one JSON object instead of text" },
	[OPT_SVG] = { "svg", "FILE", "draw the run" },
	[OPT_QUIET] = { "quiet", NULL, "no progress lines, even on a terminal" },
	[OPT_VERBOSE] = { "verbose", NULL, "a line for each round" },
	{ NULL, NULL, NULL },
};

static const struct perf_command command = {
	.name = "migrate",
	.synopsis = "[--ram SIZE] [--bandwidth RATE] [--workload KIND] [--json] [--svg FILE]\n"
		    "       godwit-perf migrate --listen HOST:PORT\n"
		    "       godwit-perf migrate --connect HOST:PORT [OPTION]...",
	.summary = "Moves a running workload from one process to another over TCP while it runs, and compares\n"
		   "every page. ^C cancels; the workload then runs on at the source.",
	.options = option_table,
};

static unsigned choose(const char *option, const char *text, const char *const *names, unsigned count)
{
	char all[200] = "";

	for (unsigned i = 0; i < count; i++) {
		size_t used = strlen(all);

		if (!strcmp(text, names[i]))
			return i;
		snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "", names[i]);
	}
	usage_error("--%s %s: one of %s", option, text, all);
}

static bool all_digits(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == '\0';
}

/* A plain number is milliseconds where a limit is usually given in them. */
static uint64_t parse_time(const char *option, const char *text)
{
	if (all_digits(text))
		return parse_number(option, text, 0, 1000000000) * 1000000;
	return parse_duration_ns(option, text);
}

static uint64_t parse_rate(const char *text)
{
	if (all_digits(text))
		return parse_number("dirty-rate", text, 0, 100000000);
	return parse_bandwidth("dirty-rate", text) / GODWIT_PAGE_BYTES;
}

static const char *const base_names[] = { "signatures", "pages", "off" };
static const char *const busy_names[] = { "auto", "wait", "raw" };

static void parse_change(struct migrate_options *o, const char *text)
{
	static const char *const names[] = {
		"rung", "workers", "base", "base-bytes", "when-busy", "bandwidth", "downtime-limit",
	};
	struct change *change = &o->change[o->changes];
	const char *equal = strchr(text, '='), *at = strrchr(text, '@');
	char name[32];

	if (o->changes == MAX_CHANGES)
		usage_error("--set: at most %u of them", MAX_CHANGES);
	if (!equal || !at || at < equal || (size_t)(equal - text) >= sizeof(name) ||
	    (size_t)(at - equal - 1) >= sizeof(change->value))
		usage_error("--set %s: NAME=VALUE@ROUND or NAME=VALUE@TIME", text);
	snprintf(name, sizeof(name), "%.*s", (int)(equal - text), text);
	*change = (struct change){ .done = false };
	snprintf(change->name, sizeof(change->name), "%s",
		 names[choose("set", name, names, sizeof(names) / sizeof(names[0]))]);
	snprintf(change->value, sizeof(change->value), "%.*s", (int)(at - equal - 1), equal + 1);
	if (all_digits(at + 1))
		change->round = parse_number("set", at + 1, 1, MAX_ROUNDS);
	else
		change->at_ns = parse_duration_ns("set", at + 1);
	if (!strcmp(change->name, "bandwidth"))
		parse_bandwidth("set", change->value);
	else if (!strcmp(change->name, "downtime-limit"))
		parse_time("set", change->value);
	else if (!strcmp(change->name, "base-bytes"))
		parse_size_bytes("set", change->value);
	o->changes++;
}

static int index_of(const char *text, const char *const *names, int count)
{
	while (count-- && strcmp(text, names[count]))
		;
	return count;
}

const char *migrate_change_params(const struct change *change, struct godwit_params *params,
				  char rung[CHANGE_VALUE])
{
	const char *value = change->value;
	char *end;

	if (!strcmp(change->name, "rung")) {
		memcpy(rung, value, CHANGE_VALUE);
		params->rung = rung;
		return "";
	}
	if (!strcmp(change->name, "workers")) {
		/* No limit here: what is too much is the library's to say. */
		params->workers = (uint32_t)strtoul(value, &end, 10);
		return *end ? "not a number" : "";
	}
	if (!strcmp(change->name, "base")) {
		int kind = index_of(value, base_names, 3);

		params->base = kind < 0 ? UINT32_MAX : (uint32_t)kind;
		return "";
	}
	if (!strcmp(change->name, "when-busy")) {
		int how = index_of(value, busy_names, 3);

		params->when_busy = how < 0 ? UINT32_MAX : (uint32_t)how;
		return "";
	}
	params->base_bytes = parse_size_bytes("set", value);
	return "";
}

static void parse_inject(struct migrate_options *o)
{
	static const char *const names[] = { "", "skip", "stale", "flip" };
	const char *inject = getenv("GODWIT_MIGRATE_INJECT"), *die_at = getenv("GODWIT_MIGRATE_DIE");
	char name[16];

	if (die_at)
		o->inject_die_bytes = parse_number("GODWIT_MIGRATE_DIE", die_at, 0, UINT64_MAX / 2);
	if (!inject)
		return;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(inject, ":"), inject);
	o->inject = choose("GODWIT_MIGRATE_INJECT", name, names, 4);
	o->inject_past_digests = strchr(inject, ':') != NULL;
}

static void parse_working_set(struct migrate_options *o, const char *text)
{
	uint64_t pages = o->ram_bytes / GODWIT_PAGE_BYTES;
	size_t length = strlen(text);
	char number[16];

	if (!length || text[length - 1] != '%') {
		o->workload.working_set_pages = parse_size_bytes("working-set", text) / GODWIT_PAGE_BYTES;
		return;
	}
	snprintf(number, sizeof(number), "%.*s", (int)length - 1, text);
	o->workload.working_set_pages = pages * parse_number("working-set", number, 1, 100) / 100;
}

static void check(const struct migrate_options *o)
{
	if (o->ram_bytes < GUEST_MIN_BYTES || o->ram_bytes % MIB || o->ram_bytes > 16384ull << 30)
		usage_error("--ram: a multiple of 1 MiB, at least 16 MiB");
	if (o->workload.vcpus > o->ram_bytes / GUEST_MIN_BYTES * 2)
		usage_error("--vcpus %u: too many for so little RAM", o->workload.vcpus);
	if (o->listen && o->connect)
		usage_error("--listen is the destination, --connect the source: not both");
	if (o->raw && (o->params.rung || o->params.base || o->changes))
		usage_error("--raw is without the engine: no --rung, --base or --set");
}

void migrate_options_parse(struct migrate_options *o, int argc, char **argv)
{
	static const char *const tracks[] = { "auto", "uffd", "soft-dirty", "mprotect" };
	const char *arg, *working_set = NULL;
	int got;

	*o = (struct migrate_options){
		.workload = { .kind = WORKLOAD_MIX, .vcpus = 2, .seed = 1,
			      .writes_per_s = DEFAULT_WRITES_PER_S,
			      .sparsity_bytes = DEFAULT_SPARSITY_BYTES },
		.ram_bytes = DEFAULT_RAM_BYTES,
		.params = GODWIT_PARAMS_INIT,
		.bandwidth = DEFAULT_BANDWIDTH,
		.downtime_limit_ns = 300000000,
		.timeout_ns = 300000000000,
		.stall_ns = 10000000000,
		.verify_ns = 1000000000,
		.warmup_ns = 300000000,
		.max_rounds = 30,
		.track = DIRTY_AUTO,
		.listen_fd = -1,
		.progress = isatty(STDERR_FILENO),
	};
	while ((got = next_option(&command, argc, argv, &arg)) >= 0) {
		const char *name = option_table[got].name;

		switch (got) {
		case OPT_RAM: o->ram_bytes = parse_size_bytes(name, arg); break;
		case OPT_VCPUS: o->workload.vcpus = (uint32_t)parse_number(name, arg, 1, WORKLOAD_MAX_VCPUS); break;
		case OPT_WORKLOAD: o->workload.kind = choose(name, arg, workload_names, WORKLOAD_KINDS); break;
		case OPT_DIRTY_RATE: o->workload.writes_per_s = parse_rate(arg); break;
		case OPT_WORKING_SET: working_set = arg; break;
		case OPT_SPARSITY: o->workload.sparsity_bytes = (uint32_t)parse_number(name, arg, 8, 4000); break;
		case OPT_SEED: o->workload.seed = parse_number(name, arg, 0, UINT32_MAX); break;
		case OPT_WARMUP: o->warmup_ns = parse_time(name, arg); break;
		case OPT_BANDWIDTH: o->bandwidth = parse_bandwidth(name, arg); break;
		case OPT_DOWNTIME: o->downtime_limit_ns = parse_time(name, arg); break;
		case OPT_MAX_ROUNDS: o->max_rounds = (unsigned)parse_number(name, arg, 1, MAX_ROUNDS - 2); break;
		case OPT_TIMEOUT: o->timeout_ns = parse_time(name, arg); break;
		case OPT_STALL: o->stall_ns = parse_time(name, arg); break;
		case OPT_VERIFY: o->verify_ns = parse_time(name, arg); break;
		case OPT_TRACK: o->track = (enum dirty_way)choose(name, arg, tracks, 4); break;
		case OPT_WORKERS: o->params.workers = (uint32_t)parse_number(name, arg, 0, GODWIT_MAX_WORKERS); break;
		case OPT_DEST_WORKERS:
			o->destination_workers = (uint32_t)parse_number(name, arg, 0, GODWIT_MAX_WORKERS);
			break;
		case OPT_RUNG: o->params.rung = arg; break;
		case OPT_BASE: o->params.base = choose(name, arg, base_names, 3); break;
		case OPT_BASE_BYTES: o->params.base_bytes = parse_size_bytes(name, arg); break;
		case OPT_WHEN_BUSY: o->params.when_busy = choose(name, arg, busy_names, 3); break;
		case OPT_PLACE: o->place = 1; break;
		case OPT_RAW: o->raw = true; break;
		case OPT_SET: parse_change(o, arg); break;
		case OPT_LISTEN: o->listen = arg; break;
		case OPT_CONNECT: o->connect = arg; break;
		case OPT_JSON: o->json = true; break;
		case OPT_SVG: o->svg = arg; break;
		case OPT_QUIET: o->progress = false; break;
		case OPT_VERBOSE: o->verbose = true; break;
		}
	}
	if (o->listen && !strncmp(o->listen, "fd:", 3))
		o->listen_fd = (int)parse_number("listen", o->listen + 3, 0, 1 << 20);
	parse_inject(o);
	char percent[8];

	snprintf(percent, sizeof(percent), "%u%%", DEFAULT_SET_PERCENT);
	parse_working_set(o, working_set ? working_set : percent);
	check(o);
}
