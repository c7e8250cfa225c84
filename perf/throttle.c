/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * throttle.c - what holding a guest back costs it: auto-converge, dirty-limit and the governor
 *
 *   open loop	each policy is set so strong that the guest dirties a quarter, or a tenth, of what it does
 *		unthrottled, with a sync every second: what is left of the batch work, and how late is I/O?
 *   closed loop	an 8 GiB precopy: how long does it take, and what does the guest lose?
 *
 *	calibrate	what the models of upstream make of runs that others have published
 *	cost	what the governor's calls take
 *
 * All but the cost is simulated, the governor alone is the real one. Nothing is asserted here:
 * tests/e2e/throttle_goals.sh holds the figures against each other.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "throttle.h"

#define OPEN_WARM_NS (3 * SIM_S)
#define CLOSED_MAX_NS (300 * SIM_S)
#define GIB 1073741824.0
#define RAM_BYTES (8 * GIB)
#define SVG_STEP_NS (100 * SIM_MS)
#define SVG_POINTS 3000u

enum { OPT_LOAD, OPT_LOOP, OPT_BANDWIDTH, OPT_CAP, OPT_VARIANTS, OPT_SECONDS, OPT_SEED, OPT_SVG, OPT_JSON };

static const struct perf_option options[] = {
	[OPT_LOAD] = { "load", "NAME", "W1 to W6 (default all; --svg: W1)" },
	[OPT_LOOP] = { "loop", "KIND", "open, closed, calibrate or cost (default open and closed)" },
	[OPT_BANDWIDTH] = { "bandwidth", "RATE", "closed loop: the link (default 250MB, then 1250MB)" },
	[OPT_CAP] = { "cap", "PERCENT", "closed loop: the governor's cap (default 99, then 90)" },
	[OPT_VARIANTS] = { "variants", NULL, "open loop: the governor without I/O events, charging CPU time,\n"
			   "with timer ticks taken for I/O, with late wakes" },
	[OPT_SECONDS] = { "seconds", "N", "open loop: simulated (default 30)" },
	[OPT_SEED] = { "seed", "N", "of arrivals and service times (default 1)" },
	[OPT_SVG] = { "svg", "FILE", "draw the closed loop of one load, one panel a policy" },
	[OPT_JSON] = { "json", NULL, "print JSON" },
	{ 0 },
};

static const struct perf_command command = {
	.name = "throttle",
	.synopsis = "[--load NAME] [--loop open|closed|calibrate|cost] [OPTION]...",
	.summary = "Simulates guests that are held back during a migration: by QEMU's auto-converge, by its\n"
		   "dirty-limit, by godwit's governor. No guest is run; only --loop cost reads a clock.",
	.options = options,
};

struct ask {
	const char *load, *loop, *svg;
	double bandwidth;
	unsigned cap;
	bool wants_variants;
	uint64_t seconds, seed;
	bool is_json;
};

/* ---- rows ---- */

/* Worst of the vCPUs that dirty ("hot") or do not ("cold"). NaN: there is none with I/O. */
struct class_figures {
	double p99_ms, max_ms;
};

struct row {
	const char *load, *loop, *policy;
	double strength;		/* open: in the policy's own unit; closed: the cap or the quota */
	double share;			/* open: of the unthrottled dirty rate, asked for */
	double allowed;			/* governor: what it allows at the end; NaN: another's */
	double reached;			/* and reached */
	double keep;			/* of the batch work */
	struct class_figures hot, cold;
	double drop_rate;
	double longest_hold_ms, held_s, lost_s;
	double exits_per_s;		/* governor: looks at a governed vCPU; others: forced exits */
	/* Closed loop. */
	double bandwidth;
	const struct sim_result *result;
};

static struct class_figures class_of(const struct sim_load *load, const struct sim_result *r, bool is_hot)
{
	struct class_figures f = { NAN, NAN };

	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		const struct sim_latency *io = &r->vcpu[i].io;

		if ((load->vcpu[i].bytes_per_s > 0) != is_hot || !io->count)
			continue;
		f.p99_ms = fmax(f.p99_ms, sim_percentile_ns(io, 0.99) / 1e6);
		f.max_ms = fmax(f.max_ms, (double)io->max_ns / 1e6);
	}
	return f;
}

static void fill(struct row *row, const struct sim_load *load, const struct sim_result *r)
{
	double wanted = 0, got = 0, drops = 0, count = 0;

	for (unsigned i = 0; i < SIM_VCPUS; i++) {
		const struct sim_vcpu_result *v = &r->vcpu[i];
		double span = v->governed_s;

		wanted += v->wanted_s;
		got += v->got_s;
		drops += (double)v->io.dropped;
		count += (double)(v->io.count + v->io.dropped);
		row->held_s += v->held_s;
		row->longest_hold_ms = fmax(row->longest_hold_ms, (double)v->longest_hold_ns / 1e6);
		if (span > 1 && v->held_s > 0)
			row->exits_per_s = fmax(row->exits_per_s, (double)v->exits / span);
		else if (span <= 0)
			row->exits_per_s = fmax(row->exits_per_s, (double)v->exits / r->seconds);
	}
	row->load = load->name;
	row->keep = wanted > 0 ? got / wanted : NAN;
	row->lost_s = wanted - got;
	row->drop_rate = count > 0 ? drops / count : 0;
	row->hot = class_of(load, r, true);
	row->cold = class_of(load, r, false);
}

static void put_class(struct json_object *o, const char *key, const struct class_figures *f)
{
	struct json_object *c = put_object(o, key);

	put_real(c, "p99_ms", f->p99_ms, 3);
	put_real(c, "max_ms", f->max_ms, 3);
}

static void put_seconds(struct json_object *o, const char *key, uint64_t ns)
{
	put_real(o, key, ns == SIM_NEVER ? NAN : (double)ns / 1e9, 3);
}

static const char *const end_names[] = { "ran", "converged", "timed out", "futile" };

static void put_row(struct json_object *array, const struct row *row)
{
	struct json_object *o = append_object(array);

	put_text(o, "load", row->load);
	put_text(o, "policy", row->policy);
	put_real(o, "strength", row->strength, 2);
	put_class(o, "hot", &row->hot);
	put_class(o, "cold", &row->cold);
	put_real(o, "drop_rate", row->drop_rate, 5);
	put_real(o, "keep", row->keep, 4);
	put_real(o, "lost_cpu_s", row->lost_s, 2);
	put_real(o, "held_s", row->held_s, 9);
	put_real(o, "longest_hold_ms", row->longest_hold_ms, 3);
	put_real(o, "exits_per_s", row->exits_per_s, 1);
	if (!row->result) {
		put_real(o, "share", row->share, 3);
		put_real(o, "allowed", row->allowed, 4);
		put_real(o, "reached", row->reached, 4);
		return;
	}
	put_real(o, "bandwidth_bytes_per_s", row->bandwidth, 0);
	put_text(o, "end", end_names[row->result->end]);
	put_real(o, "total_s", row->result->seconds, 2);
	put_real(o, "downtime_ms", row->result->downtime_ms, 1);
	put_seconds(o, "onset_s", row->result->onset_ns);
	put_seconds(o, "infeasible_s", row->result->infeasible_ns);
	put_seconds(o, "futile_s", row->result->futile_ns);
	put_u64(o, "rounds_from_onset", row->result->futile_rounds);
	put_u64(o, "boosts", row->result->stats.boosts);
}

static const char *two(char *text, const struct class_figures *f)
{
	if (isnan(f->p99_ms))
		return "-";
	snprintf(text, UNIT_TEXT, f->p99_ms < 10 ? "%.2f/%.1f" : "%.0f/%.0f", f->p99_ms, f->max_ms);
	return text;
}

/* ---- open loop ---- */

struct open_ask {
	struct sim_options sim;
	double free_pages_per_s, target;
};

static double try_strength(struct open_ask *ask, double strength, struct sim_result *result)
{
	ask->sim.strength = strength;
	sim_run(&ask->sim, result);
	return result->pages_per_s;
}

/*
 * Auto-converge: the least percentage that does; dirty-limit: the highest quota; governor: what it is told, by
 * parts of a hundred. Each is monotone but for chance.
 */
static double search(struct open_ask *ask, struct sim_result *result)
{
	unsigned low = 1, high, at;
	bool more_is_slower = ask->sim.policy == SIM_AUTO_CONVERGE;
	double unit = ask->sim.policy == SIM_GOVERNOR ? ask->target / 100 : 1;

	if (ask->sim.policy == SIM_GOVERNOR) {
		/* It keeps what it is told, unless the guest has pauses that it cannot make up for. */
		if (fabs(try_strength(ask, ask->target, result) / ask->target - 1) < 0.03)
			return ask->target;
	}
	high = ask->sim.policy == SIM_AUTO_CONVERGE ? 99 : ask->sim.policy == SIM_DIRTY_LIMIT ? 4000 : 400;
	while (high - low > 0) {
		at = more_is_slower ? (low + high) / 2 : (low + high + 1) / 2;
		if (try_strength(ask, at * unit, result) <= ask->target) {
			if (more_is_slower)
				high = at;
			else
				low = at;
		} else if (more_is_slower) {
			low = at + 1;
		} else {
			high = at - 1;
		}
	}
	try_strength(ask, low * unit, result);
	return low * unit;
}

static void note_open(struct json_object *json, struct table *table, struct open_ask *ask, const char *policy,
		      double share, const struct sim_result *result)
{
	struct row row = { .policy = policy, .share = share, .strength = ask->sim.strength };
	char hot[UNIT_TEXT], cold[UNIT_TEXT];

	fill(&row, ask->sim.load, result);
	row.reached = result->pages_per_s / ask->free_pages_per_s;
	row.allowed = NAN;
	if (ask->sim.policy == SIM_GOVERNOR)
		row.allowed = (double)result->stats.allowed_pages_per_s / ask->free_pages_per_s;
	if (json)
		put_row(json, &row);
	else
		table_row(table, "%s|%.0f %%|%s|%.1f %%|%.1f %%|%s|%s|%.2f %%|%.1f|%.0f", row.load, share * 100,
			  policy, row.reached * 100, row.keep * 100, two(cold, &row.cold), two(hot, &row.hot),
			  row.drop_rate * 100, row.longest_hold_ms, row.exits_per_s);
}

struct variant {
	const char *name;
	bool is_deaf, charges_time, is_late;
	double tick_per_s;
};
static const struct variant variants[] = {
	{ .name = "governor, deaf", .is_deaf = true },
	{ .name = "governor, CPU time", .charges_time = true },
	{ .name = "governor, 250 Hz", .tick_per_s = 250 },
	{ .name = "governor, 1000 Hz", .tick_per_s = 1000 },
	{ .name = "governor, late", .is_late = true },
};

static void run_variants(struct json_object *json, struct table *table, struct open_ask *ask, double share,
			 struct sim_result *result)
{
	for (unsigned i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
		struct open_ask one = *ask;

		one.sim.is_deaf = variants[i].is_deaf;
		one.sim.charges_time = variants[i].charges_time;
		one.sim.is_late = variants[i].is_late;
		one.sim.tick_per_s = variants[i].tick_per_s;
		/* Told as much as the governor was: what it makes of it is the figure. */
		try_strength(&one, ask->sim.strength, result);
		note_open(json, table, &one, variants[i].name, share, result);
	}
}

static void open_loop(const struct ask *asked, const struct sim_load *load, struct json_object *json,
		      struct table *table)
{
	static struct sim_result result;
	static const double shares[] = { 0.25, 0.10 };
	struct open_ask ask = { .sim = {
		.load = load, .policy = SIM_FREE, .seed = asked->seed, .max_percent = 99,
		.warm_ns = OPEN_WARM_NS, .end_ns = OPEN_WARM_NS + asked->seconds * SIM_S } };

	ask.free_pages_per_s = try_strength(&ask, 0, &result);
	note_open(json, table, &ask, sim_policy_names[SIM_FREE], 1, &result);
	for (unsigned s = 0; s < sizeof(shares) / sizeof(shares[0]); s++) {
		ask.target = ask.free_pages_per_s * shares[s];
		for (ask.sim.policy = SIM_AUTO_CONVERGE; ask.sim.policy < SIM_POLICIES; ask.sim.policy++) {
			search(&ask, &result);
			note_open(json, table, &ask, sim_policy_names[ask.sim.policy], shares[s], &result);
		}
		ask.sim.policy = SIM_GOVERNOR;
		if (asked->wants_variants)
			run_variants(json, table, &ask, shares[s], &result);
	}
}

/* ---- closed loop ---- */

struct closed_case {
	enum sim_policy policy;
	const char *name;
	unsigned max_percent;
	double quota_mb;		/* dirty-limit; 0: an eighth of the link */
};

static const struct closed_case closed_cases[] = {
	{ SIM_FREE, "free", 0, 0 },
	{ SIM_AUTO_CONVERGE, "auto-converge 99", 99, 0 },
	{ SIM_AUTO_CONVERGE, "auto-converge 90", 90, 0 },
	{ SIM_DIRTY_LIMIT, "dirty-limit 1/8", 0, 0 },
	{ SIM_DIRTY_LIMIT, "dirty-limit 1 MB/s", 0, 1 },
	{ SIM_GOVERNOR, "governor 99", 99, 0 },
	{ SIM_GOVERNOR, "governor 90", 90, 0 },
};
#define NR_CLOSED (sizeof(closed_cases) / sizeof(closed_cases[0]))

/* The case, with the cap that was asked for; false for one that then would be there twice. */
static bool adapt(const struct ask *asked, struct closed_case *c, char *name)
{
	if (c->policy != SIM_GOVERNOR || !asked->cap)
		return true;
	if (c->max_percent == 90)
		return false;
	c->max_percent = asked->cap;
	snprintf(name, UNIT_TEXT, "governor %u", asked->cap);
	c->name = name;
	return true;
}

static struct sim_options closed_options(const struct ask *asked, const struct sim_load *load,
					 const struct closed_case *c, double bandwidth)
{
	return (struct sim_options){
		.load = load, .policy = c->policy, .seed = asked->seed, .end_ns = CLOSED_MAX_NS,
		.max_percent = c->max_percent, .send_bytes_per_s = bandwidth, .ram_bytes = RAM_BYTES,
		.has_sync_timer = c->policy == SIM_AUTO_CONVERGE,
		.quota_mb = c->quota_mb > 0 ? c->quota_mb : bandwidth / 8 / 1048576,
	};
}

static void closed_loop(const struct ask *asked, const struct sim_load *load, double bandwidth,
			struct json_object *json, struct table *table)
{
	static struct sim_result result;
	char hot[UNIT_TEXT], cold[UNIT_TEXT], rate[UNIT_TEXT], name[UNIT_TEXT];

	for (unsigned c = 0; c < NR_CLOSED; c++) {
		struct closed_case one = closed_cases[c];
		struct row row = { .bandwidth = bandwidth, .result = &result };

		if (!adapt(asked, &one, name))
			continue;
		struct sim_options sim = closed_options(asked, load, &one, bandwidth);

		sim_run(&sim, &result);
		row.policy = one.name;
		row.strength = one.max_percent ? one.max_percent : sim.quota_mb;
		fill(&row, load, &result);
		if (json)
			put_row(json, &row);
		else
			table_row(table, "%s|%s|%s|%s|%.1f|%.1f|%s|%s|%.2f %%|%.0f|%.0f", row.load,
				  format_bandwidth(rate, bandwidth), row.policy, end_names[result.end],
				  result.seconds, row.lost_s, two(cold, &row.cold), two(hot, &row.hot),
				  row.drop_rate * 100, row.longest_hold_ms, result.downtime_ms);
	}
}

/* ---- calibration ---- */

/*
 * Published: 4 vCPUs, 4 GiB, 1 Gbit/s, QEMU before its sync timer (Hyman Huang, dirty-limit series, qemu-devel,
 * 2023). The guest's hot set is not told; one of 1 GiB is assumed, so that it is the way from one figure to
 * the other which is tested.
 */
static const struct {
	struct closed_case c;
	double low_s, high_s;
} published[] = {
	{ { SIM_AUTO_CONVERGE, "auto-converge 99", 99, 0 }, 185, 204 },
	{ { SIM_DIRTY_LIMIT, "dirty-limit 1/8", 0, 0 }, 44, 62 },
	{ { SIM_DIRTY_LIMIT, "dirty-limit 1 MB/s", 0, 1 }, 44, 62 },
};

static void calibrate(const struct ask *asked, struct json_object *json)
{
	static struct sim_result result;
	struct table table;

	table_init(&table, "policy|end|>model s|>published s");
	for (unsigned i = 0; i < sizeof(published) / sizeof(published[0]); i++) {
		struct sim_options sim = closed_options(asked, &sim_published_load, &published[i].c, 125e6);

		sim.ram_bytes = 4 * GIB;
		sim.has_sync_timer = false;
		sim_run(&sim, &result);
		table_row(&table, "%s|%s|%.1f|%.0f to %.0f", published[i].c.name, end_names[result.end],
			  result.seconds, published[i].low_s, published[i].high_s);
		if (!json)
			continue;
		struct json_object *o = append_object(json);

		put_text(o, "policy", published[i].c.name);
		put_text(o, "end", end_names[result.end]);
		put_real(o, "total_s", result.seconds, 2);
		put_real(o, "published_low_s", published[i].low_s, 0);
		put_real(o, "published_high_s", published[i].high_s, 0);
	}
	table_print(&table, json ? stderr : stdout);
}

/* ---- cost ---- */

static void measure_cost(struct json_object *json)
{
	struct throttle_cost cost;

	throttle_cost(&cost);
	if (json) {
		struct json_object *o = put_object(json, "cost");

		put_real(o, "step_4_vcpus_ns", cost.step_4_ns, 0);
		put_real(o, "step_64_vcpus_ns", cost.step_64_ns, 0);
		put_real(o, "turn_ns", cost.turn_ns, 1);
		put_u64(o, "vcpu_bytes", cost.vcpu_bytes);
		return;
	}
	printf("step, 4 vCPUs: %.0f ns; 64 vCPUs: %.0f ns\n"
	       "a vCPU's turn (dirtied, advance, may_run, next): %.1f ns; its memory: %u bytes\n", cost.step_4_ns,
	       cost.step_64_ns, cost.turn_ns, cost.vcpu_bytes);
}

/* ---- picture ---- */

static void draw(const struct ask *asked, const struct sim_load *load, double bandwidth)
{
	static const unsigned shown[] = { 1, 3, 5 };	/* of closed_cases */
	static struct sim_result result;
	struct throttle_panel panels[3];
	char title[160], rate[UNIT_TEXT], name[UNIT_TEXT];
	int err;

	for (unsigned i = 0; i < 3; i++) {
		struct closed_case one = closed_cases[shown[i]];
		struct throttle_panel *p = &panels[i];

		adapt(asked, &one, name);
		struct sim_options sim = closed_options(asked, load, &one, bandwidth);

		p->series = (struct sim_series){ .step_ns = SVG_STEP_NS, .cap_points = SVG_POINTS };
		p->series.point = xcalloc(SVG_POINTS, sizeof(*p->series.point));
		sim.series = &p->series;
		sim_run(&sim, &result);
		p->title = one.name == name ? name : closed_cases[shown[i]].name;
		p->total_s = result.seconds;
		struct class_figures hot = class_of(load, &result, true), cold = class_of(load, &result, false);

		p->p99_ms = fmax(hot.p99_ms, cold.p99_ms);
	}
	snprintf(title, sizeof(title), "%s (%s), 8 GiB over %s, simulated", load->name, load->text,
		 format_bandwidth(rate, bandwidth));
	err = throttle_svg_write(asked->svg, title, bandwidth, panels, 3);
	for (unsigned i = 0; i < 3; i++)
		free(panels[i].series.point);
	if (err)
		die("%s: %s", asked->svg, strerror(-err));
}

/* ---- the command ---- */

static void parse(struct ask *ask, int argc, char **argv)
{
	const char *arg;
	int option;

	while ((option = next_option(&command, argc, argv, &arg)) >= 0) {
		switch (option) {
		case OPT_LOAD: ask->load = arg; break;
		case OPT_LOOP: ask->loop = arg; break;
		case OPT_BANDWIDTH: ask->bandwidth = (double)parse_bandwidth("bandwidth", arg); break;
		case OPT_CAP: ask->cap = (unsigned)parse_number("cap", arg, 1, 99); break;
		case OPT_VARIANTS: ask->wants_variants = true; break;
		case OPT_SECONDS: ask->seconds = parse_number("seconds", arg, 1, 3600); break;
		case OPT_SEED: ask->seed = parse_number("seed", arg, 0, UINT32_MAX); break;
		case OPT_SVG: ask->svg = arg; break;
		case OPT_JSON: ask->is_json = true; break;
		}
	}
	if (ask->loop && strcmp(ask->loop, "open") && strcmp(ask->loop, "closed") &&
	    strcmp(ask->loop, "calibrate") && strcmp(ask->loop, "cost"))
		usage_error("--loop %s: open, closed, calibrate or cost", ask->loop);
	bool is_known = !ask->load;

	for (unsigned i = 0; i < nr_sim_loads && !is_known; i++)
		is_known = !strcmp(ask->load, sim_loads[i].name);
	if (!is_known)
		usage_error("--load %s: W1 to W%u", ask->load, nr_sim_loads);
}

static bool is_asked(const char *asked, const char *name)
{
	return !asked || !strcmp(asked, name);
}

static void run_load(const struct ask *ask, const struct sim_load *load, struct json_object *open,
		     struct table *open_table, struct json_object *closed, struct table *closed_table)
{
	if (is_asked(ask->loop, "open"))
		open_loop(ask, load, open, open_table);
	if (!is_asked(ask->loop, "closed"))
		return;
	closed_loop(ask, load, ask->bandwidth > 0 ? ask->bandwidth : 250e6, closed, closed_table);
	if (ask->bandwidth <= 0)
		closed_loop(ask, load, 1250e6, closed, closed_table);
}

/* A heading by itself is not worth printing. */
static void print_rows(struct table *table, const char *before)
{
	if (table->rows < 2) {
		table_fini(table);
		return;
	}
	fputs(before, stdout);
	table_print(table, stdout);
}

int cmd_throttle(int argc, char **argv)
{
	struct ask ask = { .seconds = 30, .seed = 1 };
	struct json_object *json = NULL, *open = NULL, *closed = NULL, *calibration = NULL;
	struct table open_table, closed_table;

	parse(&ask, argc, argv);
	if (ask.is_json) {
		json = json_object_new_object();
		put_u64(json, "seed", ask.seed);
		put_u64(json, "open_seconds", ask.seconds);
		open = put_array(json, "open");
		closed = put_array(json, "closed");
		calibration = put_array(json, "calibration");
	}
	table_init(&open_table, "load|>of free|policy|>reached|>keeps|>cold I/O p99/max ms|>hot I/O p99/max ms|"
		   ">dropped|>longest hold ms|>exits/s");
	table_init(&closed_table, "load|>link|policy|end|>total s|>lost CPU-s|>cold I/O p99/max ms|"
		   ">hot I/O p99/max ms|>dropped|>longest hold ms|>downtime ms");
	for (unsigned i = 0; i < nr_sim_loads; i++)
		if (is_asked(ask.load, sim_loads[i].name))
			run_load(&ask, &sim_loads[i], open, &open_table, closed, &closed_table);
	if (ask.loop && !strcmp(ask.loop, "calibrate"))
		calibrate(&ask, calibration);
	if (ask.loop && !strcmp(ask.loop, "cost"))
		measure_cost(json);
	for (unsigned i = 0; i < nr_sim_loads && ask.svg; i++)
		if (!strcmp(ask.load ? ask.load : "W1", sim_loads[i].name))
			draw(&ask, &sim_loads[i], ask.bandwidth > 0 ? ask.bandwidth : 250e6);
	if (json)
		print_json(json);
	print_rows(&open_table, "");
	print_rows(&closed_table, is_asked(ask.loop, "open") && !json ? "\n" : "");
	return EXIT_WORKED;
}
