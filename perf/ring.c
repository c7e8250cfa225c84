/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring.c - what it costs to hand a pointer to another thread
 *
 *   rings         ns an item through a ring of 1024 slots, by burst: one producer and one consumer on
 *                 a CPU each, and push + pop by one thread
 *   round trip    one item there and one back, both sides polling; the same by a bare cache line, which
 *                 is what the hardware asks for it and says how far apart the two CPUs are
 *   submit        push + ring of the bell: to a worker that works, one that polls its ring, one that sleeps;
 *                 and how long after it the sleeper has the item
 *
 * All of it in short slices, every figure once a slice, so that a neighbour's load or a move of the two
 * CPUs falls on all figures. A submit is timed by itself, between two reads of the clock; the median
 * time between two reads with nothing between is taken off. Figures are medians over slices, the
 * spread is the quartiles. Nothing is asserted.
 */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "perf.h"
#include "ring/ring.h"

#define ORDER_LOG2 10
#define NR_SLOTS (1u << ORDER_LOG2)
#define MAX_BURST 64u
/* A slice is timed in short runs, so that their median does not contain the preempted ones. */
#define RUNS_A_SLICE 32u
#define ITEMS_A_RUN (1u << 13)
#define ITEMS_A_SLICE (ITEMS_A_RUN * RUNS_A_SLICE)
#define TRIPS_A_RUN 64u
#define TRIPS_A_SLICE (TRIPS_A_RUN * RUNS_A_SLICE)
#define PRIMITIVES_A_SLICE 4000u
#define SUBMITS_A_SLICE 200u
#define SLEEPS_A_SLICE 40u
static_assert(SUBMITS_A_SLICE + NR_SLOTS / 2 <= NR_SLOTS, "a backlog and what is submitted do not fit");
#define MAX_SLICES 1000u
/* A waiting thread gives way from here on, so that the figures end on one CPU too. */
#define PATIENT_TURNS 20000u

enum { OPT_SLICES, OPT_JSON };

static const struct perf_option options[] = {
	[OPT_SLICES] = { "slices", "N", "figures are medians of N interleaved slices (default 15)" },
	[OPT_JSON] = { "json", NULL, "print JSON" },
	{ 0 },
};

static const struct perf_command command = {
	.name = "ring",
	.synopsis = "[OPTION]...",
	.summary = "Measures the rings and the doorbell between two threads: time an item by burst, round\n"
		   "trip, and what a submit costs who submits.",
	.options = options,
};

static const unsigned bursts[] = { 1, 8, 32, 64 };
#define NR_BURSTS (sizeof(bursts) / sizeof(bursts[0]))

enum ring_kind { SPSC, MPMC, NR_KINDS };
static const char *const kind_names[NR_KINDS] = { "spsc", "mpmc" };

/* One figure: a value each slice. NaN: could not be measured here. */
struct figure {
	double ns[MAX_SLICES];
	unsigned nr_slices;
};

struct summary {
	double median, low, high;	/* low, high: quartiles */
};

/* The figures that are not of a table of rings. */
enum figure_name {
	CLOCK,
	FENCE,
	EXCHANGE,
	LINE_ROUND_TRIP,
	ROUND_TRIP,
	SUBMIT_BUSY,
	SUBMIT_POLLING,
	SUBMIT_SLEEPING,
	SLEEPER_LATENCY,
	NR_FIGURES,
};

static const struct {
	const char *key, *text;
} figure_names[NR_FIGURES] = {
	[CLOCK] = { "clock_ns", "reading the clock (taken off below)" },
	[FENCE] = { "fence_ns", "seq_cst fence" },
	[EXCHANGE] = { "exchange_ns", "atomic exchange, own line" },
	[LINE_ROUND_TRIP] = { "line_round_trip_ns", "round trip, bare cache line" },
	[ROUND_TRIP] = { "round_trip_ns", "round trip, two SPSC rings, both polling" },
	[SUBMIT_BUSY] = { "submit_running_ns", "submit to a running worker, backlog" },
	[SUBMIT_POLLING] = { "submit_polling_ns", "submit to a running worker, polling" },
	[SUBMIT_SLEEPING] = { "submit_sleeping_ns", "submit to a sleeping worker" },
	[SLEEPER_LATENCY] = { "sleeper_latency_ns", "until the sleeper has it" },
};

struct bench {
	struct godwit_spsc spsc, back;
	struct godwit_mpmc mpmc;
	struct godwit_doorbell bell;
	void *spsc_slots[NR_SLOTS], *back_slots[NR_SLOTS];
	struct godwit_mpmc_cell cells[NR_SLOTS];

	alignas(2 * GODWIT_LINE) _Atomic(uint32_t) line;	/* the bare line */
	alignas(2 * GODWIT_LINE) _Atomic(uint32_t) nr_ready;	/* threads at the start line */
	_Atomic(uint32_t) quit;
	_Atomic(uint64_t) received_ns;		/* when the sleeper had its item */

	double run_ns[RUNS_A_SLICE];		/* an item, by the consumer */

	enum ring_kind kind;			/* of this slice */
	unsigned burst;
	unsigned nr_cpus;
	bool is_pinned;
	int cpu[2];

	unsigned nr_slices;
	struct figure figures[NR_FIGURES];
	struct figure pair[NR_KINDS][NR_BURSTS], alone[NR_KINDS][NR_BURSTS];
};

static void note(struct figure *figure, double ns)
{
	figure->ns[figure->nr_slices++] = ns;
}

static struct summary summarize(struct figure *figure)
{
	struct summary s = { NAN, NAN, NAN };
	unsigned n = figure->nr_slices;

	if (n == 0)
		return s;
	s.median = median(figure->ns, n);	/* sorts */
	s.low = figure->ns[n / 4];
	s.high = figure->ns[n - 1 - n / 4];
	return s;
}

/* One turn of waiting for the other side. */
static inline void wait_a_turn(unsigned *nr_turns)
{
	godwit_cpu_relax();
	if (++*nr_turns % PATIENT_TURNS == 0)
		sched_yield();
}

/* ---- two threads ---- */

static void pin_to(const struct bench *b, unsigned which)
{
	cpu_set_t one;

	if (!b->is_pinned)
		return;
	CPU_ZERO(&one);
	CPU_SET(b->cpu[which], &one);
	pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
}

/* Both threads leave together. */
static void meet(struct bench *b)
{
	unsigned nr_turns = 0;

	atomic_fetch_add(&b->nr_ready, 1);
	while (atomic_load(&b->nr_ready) < 2)
		wait_a_turn(&nr_turns);
}

static void start_peer(struct bench *b, pthread_t *peer, void *(*body)(void *))
{
	godwit_spsc_init(&b->spsc, b->spsc_slots, ORDER_LOG2);
	godwit_spsc_init(&b->back, b->back_slots, ORDER_LOG2);
	godwit_mpmc_init(&b->mpmc, b->cells, ORDER_LOG2);
	godwit_doorbell_init(&b->bell);
	atomic_init(&b->line, 0);
	atomic_init(&b->nr_ready, 0);
	atomic_init(&b->quit, 0);
	if (pthread_create(peer, NULL, body, b))
		die("cannot start a thread");
	meet(b);
}

/* ---- through the rings ---- */

/*
 * The loops are written once and compiled for each kind, so that no figure contains the choice, and
 * for bursts of one, which callers of single pushes get too: kind and that burst are constants in them.
 */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define FOR_KIND_AND_BURST(loop, b)								\
	do {											\
		if ((b)->kind == SPSC && (b)->burst == 1)					\
			loop((b), SPSC, 1);							\
		else if ((b)->kind == SPSC)							\
			loop((b), SPSC, (b)->burst);						\
		else if ((b)->burst == 1)							\
			loop((b), MPMC, 1);							\
		else										\
			loop((b), MPMC, (b)->burst);						\
	} while (0)

ALWAYS_INLINE unsigned push(struct bench *b, enum ring_kind kind, void *const *items, unsigned n)
{
	return kind == SPSC ? godwit_spsc_push(&b->spsc, items, n) :
			      godwit_mpmc_push(&b->mpmc, items, n);
}

ALWAYS_INLINE unsigned pop(struct bench *b, enum ring_kind kind, void **items, unsigned n)
{
	return kind == SPSC ? godwit_spsc_pop(&b->spsc, items, n) :
			      godwit_mpmc_pop(&b->mpmc, items, n);
}

ALWAYS_INLINE void drain(struct bench *b, enum ring_kind kind, unsigned burst)
{
	unsigned nr_turns = 0, got = 0;
	uint64_t start_ns = now_ns();
	void *items[MAX_BURST];

	for (unsigned run = 0; run < RUNS_A_SLICE; run++) {
		unsigned start = got;

		while (got < (run + 1) * ITEMS_A_RUN) {
			unsigned n = pop(b, kind, items, burst);

			if (n == 0)
				wait_a_turn(&nr_turns);
			got += n;
		}
		b->run_ns[run] = (double)(now_ns() - start_ns) / (got - start);
		start_ns = now_ns();
	}
}

ALWAYS_INLINE void feed(struct bench *b, enum ring_kind kind, unsigned burst)
{
	unsigned nr_turns = 0;
	void *items[MAX_BURST];

	for (unsigned i = 0; i < MAX_BURST; i++)
		items[i] = b;
	for (unsigned sent = 0; sent < ITEMS_A_SLICE;) {
		unsigned n = ITEMS_A_SLICE - sent < burst ? ITEMS_A_SLICE - sent : burst;

		n = push(b, kind, items, n);
		if (n == 0)
			wait_a_turn(&nr_turns);
		sent += n;
	}
}

ALWAYS_INLINE void feed_and_drain(struct bench *b, enum ring_kind kind, unsigned burst)
{
	void *items[MAX_BURST];

	for (unsigned i = 0; i < MAX_BURST; i++)
		items[i] = b;
	for (unsigned done = 0; done < ITEMS_A_SLICE; done += burst) {
		push(b, kind, items, burst);
		pop(b, kind, items, burst);
	}
}

static void *drain_items(void *arg)
{
	struct bench *b = arg;

	pin_to(b, 1);
	meet(b);
	FOR_KIND_AND_BURST(drain, b);
	return NULL;
}

static double pair_ns_per_item(struct bench *b)
{
	pthread_t peer;

	start_peer(b, &peer, drain_items);
	FOR_KIND_AND_BURST(feed, b);
	pthread_join(peer, NULL);
	return median(b->run_ns, RUNS_A_SLICE);
}

static double alone_ns_per_item(struct bench *b)
{
	uint64_t start_ns;

	godwit_spsc_init(&b->spsc, b->spsc_slots, ORDER_LOG2);
	godwit_mpmc_init(&b->mpmc, b->cells, ORDER_LOG2);
	start_ns = now_ns();
	FOR_KIND_AND_BURST(feed_and_drain, b);
	return (double)(now_ns() - start_ns) / ITEMS_A_SLICE;
}

/* ---- there and back ---- */

static void *answer_items(void *arg)
{
	struct bench *b = arg;
	unsigned nr_turns = 0;

	pin_to(b, 1);
	meet(b);
	for (unsigned i = 0; i < TRIPS_A_SLICE; i++) {
		void *item;

		while (godwit_spsc_pop(&b->spsc, &item, 1) == 0)
			wait_a_turn(&nr_turns);
		godwit_spsc_push(&b->back, &item, 1);
	}
	return NULL;
}

static double round_trip_ns(struct bench *b)
{
	double ns[RUNS_A_SLICE];
	unsigned nr_turns = 0;
	void *item = b;
	pthread_t peer;

	start_peer(b, &peer, answer_items);
	for (unsigned run = 0; run < RUNS_A_SLICE; run++) {
		uint64_t start_ns = now_ns();

		for (unsigned i = 0; i < TRIPS_A_RUN; i++) {
			godwit_spsc_push(&b->spsc, &item, 1);
			while (godwit_spsc_pop(&b->back, &item, 1) == 0)
				wait_a_turn(&nr_turns);
		}
		ns[run] = (double)(now_ns() - start_ns) / TRIPS_A_RUN;
	}
	pthread_join(peer, NULL);
	return median(ns, RUNS_A_SLICE);
}

static void *answer_line(void *arg)
{
	struct bench *b = arg;
	unsigned nr_turns = 0;

	pin_to(b, 1);
	meet(b);
	for (uint32_t i = 0; i < TRIPS_A_SLICE; i++) {
		while (atomic_load_explicit(&b->line, memory_order_acquire) != 2 * i + 1)
			wait_a_turn(&nr_turns);
		atomic_store_explicit(&b->line, 2 * i + 2, memory_order_release);
	}
	return NULL;
}

static double line_round_trip_ns(struct bench *b)
{
	double ns[RUNS_A_SLICE];
	unsigned nr_turns = 0;
	uint32_t next = 0;
	pthread_t peer;

	start_peer(b, &peer, answer_line);
	for (unsigned run = 0; run < RUNS_A_SLICE; run++) {
		uint64_t start_ns = now_ns();

		for (unsigned i = 0; i < TRIPS_A_RUN; i++, next += 2) {
			atomic_store_explicit(&b->line, next + 1, memory_order_release);
			while (atomic_load_explicit(&b->line, memory_order_acquire) != next + 2)
				wait_a_turn(&nr_turns);
		}
		ns[run] = (double)(now_ns() - start_ns) / TRIPS_A_RUN;
	}
	pthread_join(peer, NULL);
	return median(ns, RUNS_A_SLICE);
}

/* ---- submit ---- */

static void spend_ns(uint64_t span_ns)
{
	uint64_t end_ns = now_ns() + span_ns;

	while (now_ns() < end_ns)
		;
}

static double clock_cost_ns(void)
{
	double ns[SUBMITS_A_SLICE];

	for (unsigned i = 0; i < SUBMITS_A_SLICE; i++) {
		uint64_t start_ns = now_ns();

		ns[i] = now_ns() - start_ns;
	}
	return median(ns, SUBMITS_A_SLICE);
}

static void measure_primitives(struct bench *b)
{
	uint64_t start_ns = now_ns(), middle_ns;

	for (unsigned i = 0; i < PRIMITIVES_A_SLICE; i++)
		atomic_thread_fence(memory_order_seq_cst);
	middle_ns = now_ns();
	for (unsigned i = 0; i < PRIMITIVES_A_SLICE; i++)
		atomic_exchange_explicit(&b->line, i, memory_order_relaxed);
	note(&b->figures[FENCE], (double)(middle_ns - start_ns) / PRIMITIVES_A_SLICE);
	note(&b->figures[EXCHANGE], (double)(now_ns() - middle_ns) / PRIMITIVES_A_SLICE);
}

/* Pushes one and rings; what that took, the clock included. */
static double timed_submit_ns(struct bench *b)
{
	void *item = b;
	uint64_t start_ns = now_ns();

	godwit_spsc_push(&b->spsc, &item, 1);
	godwit_doorbell_ring(&b->bell);
	return now_ns() - start_ns;
}

static bool is_over(const struct bench *b)
{
	return atomic_load_explicit(&b->quit, memory_order_relaxed);
}

/*
 * A worker with a backlog: two microseconds of work, then the next item. It knows of more items than it
 * will get to here, so that it need not look at what the submitter writes.
 */
static void *work_items(void *arg)
{
	struct bench *b = arg;
	void *item;

	pin_to(b, 1);
	meet(b);
	while (!is_over(b)) {
		godwit_spsc_pop(&b->spsc, &item, 1);
		spend_ns(2000);
	}
	return NULL;
}

static void *poll_items(void *arg)
{
	struct bench *b = arg;
	unsigned nr_turns = 0;
	void *item;

	pin_to(b, 1);
	meet(b);
	while (!is_over(b))
		if (godwit_spsc_pop(&b->spsc, &item, 1) == 0)
			wait_a_turn(&nr_turns);
	return NULL;
}

static double submit_running_ns(struct bench *b, void *(*body)(void *), unsigned nr_backlog,
				double clock)
{
	double ns[SUBMITS_A_SLICE];
	void *item = b;
	pthread_t peer;

	start_peer(b, &peer, body);
	for (unsigned i = 0; i < nr_backlog; i++)
		godwit_spsc_push(&b->spsc, &item, 1);
	for (unsigned i = 0; i < SUBMITS_A_SLICE; i++) {
		spend_ns(2500 + 97 * (i % 16));	/* out of step with the worker */
		ns[i] = timed_submit_ns(b) - clock;
	}
	atomic_store(&b->quit, 1);
	pthread_join(peer, NULL);
	return median(ns, SUBMITS_A_SLICE);
}

static bool has_item_or_quits(void *arg)
{
	struct bench *b = arg;

	return godwit_spsc_count(&b->spsc) > 0 || is_over(b);
}

static void *sleep_for_items(void *arg)
{
	struct bench *b = arg;
	void *item;

	pin_to(b, 1);
	meet(b);
	while (!is_over(b)) {
		godwit_doorbell_wait(&b->bell, has_item_or_quits, b, 0, -1);
		if (godwit_spsc_pop(&b->spsc, &item, 1))
			atomic_store(&b->received_ns, now_ns());
	}
	return NULL;
}

static void measure_sleeping(struct bench *b, double clock)
{
	double submit_ns[SLEEPS_A_SLICE], latency_ns[SLEEPS_A_SLICE];
	unsigned nr_turns = 0;
	pthread_t peer;

	start_peer(b, &peer, sleep_for_items);
	for (unsigned i = 0; i < SLEEPS_A_SLICE; i++) {
		uint64_t start_ns;

		while (!godwit_doorbell_has_sleeper(&b->bell))
			wait_a_turn(&nr_turns);
		spend_ns(50000);	/* it sleeps by now, and its CPU has gone idle */
		atomic_store(&b->received_ns, 0);
		start_ns = now_ns();
		submit_ns[i] = timed_submit_ns(b) - clock;
		while (atomic_load(&b->received_ns) == 0)
			wait_a_turn(&nr_turns);
		latency_ns[i] = atomic_load(&b->received_ns) - start_ns;
	}
	atomic_store(&b->quit, 1);
	godwit_doorbell_ring(&b->bell);
	pthread_join(peer, NULL);
	note(&b->figures[SUBMIT_SLEEPING], median(submit_ns, SLEEPS_A_SLICE));
	note(&b->figures[SLEEPER_LATENCY], median(latency_ns, SLEEPS_A_SLICE));
}

/* ---- all of it ---- */

static void measure_slice(struct bench *b)
{
	double clock = clock_cost_ns();

	note(&b->figures[CLOCK], clock);
	measure_primitives(b);
	for (unsigned k = 0; k < NR_KINDS; k++) {
		for (unsigned i = 0; i < NR_BURSTS; i++) {
			b->kind = k;
			b->burst = bursts[i];
			note(&b->alone[k][i], alone_ns_per_item(b));
			if (b->nr_cpus > 1)
				note(&b->pair[k][i], pair_ns_per_item(b));
		}
	}
	if (b->nr_cpus < 2)
		return;
	note(&b->figures[LINE_ROUND_TRIP], line_round_trip_ns(b));
	note(&b->figures[ROUND_TRIP], round_trip_ns(b));
	note(&b->figures[SUBMIT_BUSY], submit_running_ns(b, work_items, NR_SLOTS / 2, clock));
	note(&b->figures[SUBMIT_POLLING], submit_running_ns(b, poll_items, 0, clock));
	measure_sleeping(b, clock);
}

/* The first two CPUs that we may use; unpinned where a sandbox forbids it. */
static void choose_cpus(struct bench *b)
{
	cpu_set_t allowed, one;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		die("cannot tell which CPUs may be used");
	for (int cpu = 0; cpu < CPU_SETSIZE && b->nr_cpus < 2; cpu++)
		if (CPU_ISSET(cpu, &allowed))
			b->cpu[b->nr_cpus++] = cpu;
	CPU_ZERO(&one);
	CPU_SET(b->cpu[0], &one);
	b->is_pinned = sched_setaffinity(0, sizeof(one), &one) == 0;
	if (!b->is_pinned)
		warn_user("threads cannot be pinned here: the figures will scatter");
	if (b->nr_cpus < 2)
		warn_user("only one CPU may be used: nothing between two threads is measured");
}

static void put_summary(struct json_object *object, const char *key, struct figure *figure)
{
	char spread_key[64];
	struct summary s = summarize(figure);

	put_real(object, key, s.median, 2);
	snprintf(spread_key, sizeof(spread_key), "%s_low", key);
	put_real(object, spread_key, s.low, 2);
	snprintf(spread_key, sizeof(spread_key), "%s_high", key);
	put_real(object, spread_key, s.high, 2);
}

static void report_json(struct bench *b, const char *machine)
{
	struct json_object *object = json_object_new_object(), *rings;

	put_text(object, "machine", machine);
	put_bool(object, "pinned", b->is_pinned);
	put_u64(object, "ring_slots", NR_SLOTS);
	put_u64(object, "slices", b->nr_slices);
	rings = put_array(object, "rings");
	for (unsigned k = 0; k < NR_KINDS; k++) {
		for (unsigned i = 0; i < NR_BURSTS; i++) {
			struct json_object *row = append_object(rings);

			put_text(row, "kind", kind_names[k]);
			put_u64(row, "burst", bursts[i]);
			put_summary(row, "two_threads_ns_per_item", &b->pair[k][i]);
			put_summary(row, "one_thread_ns_per_item", &b->alone[k][i]);
		}
	}
	for (unsigned f = 0; f < NR_FIGURES; f++)
		put_summary(object, figure_names[f].key, &b->figures[f]);
	print_json(object);
}

#define CELL_TEXT 48

static const char *cell(char *text, struct figure *figure)
{
	struct summary s = summarize(figure);

	if (isnan(s.median))
		return "-";
	snprintf(text, CELL_TEXT, "%.2f (%.2f to %.2f)", s.median, s.low, s.high);
	return text;
}

static void report_text(struct bench *b, const char *machine)
{
	char pair[CELL_TEXT], alone[CELL_TEXT];
	struct table table;

	printf("%s\n%s; ring of %u slots; medians of %u slices (quartiles)\n\n", machine,
	       b->is_pinned ? "threads pinned" : "threads not pinned", NR_SLOTS, b->nr_slices);
	table_init(&table, "ring|>burst|>two threads, ns an item|>one thread, ns an item");
	for (unsigned k = 0; k < NR_KINDS; k++)
		for (unsigned i = 0; i < NR_BURSTS; i++)
			table_row(&table, "%s|%u|%s|%s", kind_names[k], bursts[i],
				  cell(pair, &b->pair[k][i]), cell(alone, &b->alone[k][i]));
	table_print(&table, stdout);
	putchar('\n');
	table_init(&table, "primitives, and between two threads|>ns");
	for (unsigned f = 0; f < NR_FIGURES; f++)
		table_row(&table, "%s|%s", figure_names[f].text, cell(pair, &b->figures[f]));
	table_print(&table, stdout);
}

int cmd_ring(int argc, char **argv)
{
	char machine[MACHINE_TEXT];
	bool is_json = false;
	unsigned nr_slices = 15;
	const char *value;
	struct bench *b;
	int option;

	while ((option = next_option(&command, argc, argv, &value)) >= 0) {
		switch (option) {
		case OPT_SLICES:
			nr_slices = parse_number("slices", value, 1, MAX_SLICES);
			break;
		case OPT_JSON:
			is_json = true;
			break;
		}
	}
	b = aligned_alloc(2 * GODWIT_LINE, sizeof(*b));
	if (!b)
		die("no memory for %zu bytes", sizeof(*b));
	memset(b, 0, sizeof(*b));
	b->nr_slices = nr_slices;
	machine_text(machine);		/* before pinning, which narrows what it counts */
	choose_cpus(b);
	for (unsigned i = 0; i < nr_slices; i++)
		measure_slice(b);
	if (is_json)
		report_json(b, machine);
	else
		report_text(b, machine);
	free(b);
	return EXIT_WORKED;
}
