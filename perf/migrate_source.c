/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_source.c - iterate, stop, hand over, or take the guest back
 *
 * A round is one pass over the dirty bitmap. It goes through guest RAM in pieces of 64 MiB, and the
 * tracker is asked again for a piece just before it is sent: what was written since the round began
 * goes now and not once more in the next. After a round the rest is predicted in bytes of the wire
 * and in time to encode; when the longer of both fits the downtime limit, the vCPUs stop, and the
 * rest is sent.
 *
 * The guest belongs to the source until it has sent RESUME. Whatever goes wrong before: the workload
 * runs on here, and is checked. After it, the source never runs the guest again.
 *
 * In the steady state this thread allocates nothing and makes no system call but sendmsg(), the
 * tracker's ioctl, the pacing sleep and what the library needs to wake its workers.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate.h"

#define PIECE_PAGES 16384u
#define IOVS 64
#define LOOK_PAGES 64u			/* ^C and the counters are looked after so often */
#define INTACT_RUN_NS 300000000u	/* the workload shows for so long that it lives */
#define LAST_WORDS_NS 2000000000u
#define MANY_EMPTY 1000000u
#define BANDWIDTH_MIN_BYTES (1u << 20)

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

static void log_line(void *user, enum godwit_log_level level, const char *line)
{
	const struct migrate_options *options = user;

	if (level <= GODWIT_LOG_WARN || options->verbose)
		fprintf(stderr, "godwit-perf migrate: %s\n", line);
}

static void sleep_ns(uint64_t ns)
{
	uint64_t until = now_ns() + ns;

	while (now_ns() < until && !migrate_cancelled()) {
		uint64_t left = until - now_ns();
		struct timespec nap = { 0, (long)(left < 50000000 ? left : 50000000) };

		nanosleep(&nap, NULL);
	}
}

static int check_cancelled(struct source_run *run)
{
	if (!migrate_cancelled())
		return 0;
	run->failure->cancelled = true;
	return fail(run->failure, "cancelled");
}

static void show_remaining(struct source_run *run)
{
	/* Relaxed: for the progress line. */
	atomic_store_explicit(&run->now.remaining_pages, run->bitmap.set, memory_order_relaxed);
}

static void show_dirty_rate(struct source_run *run, double pages, uint64_t ns)
{
	atomic_store_explicit(&run->now.dirty_rate, (uint64_t)(pages / ((double)ns / 1e9)),
			      memory_order_relaxed);
}

static void show_phase(struct source_run *run, enum phase phase)
{
	atomic_store_explicit(&run->now.phase, phase, memory_order_relaxed);
}

/* ---- parameters in flight ---- */

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

/* From the migration thread at a round's begin (round > 0), and from the sampler's at any time. */
static void apply_changes(struct source_run *run, uint64_t round, uint64_t since_ns)
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

static void on_tick(void *user, uint64_t since_start_ns)
{
	struct source_run *run = user;

	if (atomic_load_explicit(&run->now.phase, memory_order_relaxed) == PHASE_ITERATE)
		apply_changes(run, 0, since_start_ns);
}

static void follow_bandwidth(struct source_run *run)
{
	uint64_t bandwidth = atomic_load_explicit(&run->bandwidth, memory_order_relaxed);

	if (bandwidth == run->bandwidth_set)
		return;
	run->bandwidth_set = bandwidth;
	link_set_bandwidth(&run->link, bandwidth);
}

/* ---- set-up ---- */

/* A destination of our own: its executable started afresh, a socket all that it inherits. */
static int start_destination(struct source_run *run, char where[32])
{
	int listener = socket_listen("127.0.0.1:0", run->failure);
	char fd_text[16], stall_text[32], workers_text[16];

	if (listener < 0)
		return -EIO;
	snprintf(where, 32, "127.0.0.1:%u", socket_port(listener));
	snprintf(fd_text, sizeof(fd_text), "fd:%d", listener);
	snprintf(stall_text, sizeof(stall_text), "%lluns", (unsigned long long)run->options->stall_ns);
	snprintf(workers_text, sizeof(workers_text), "%u", run->options->destination_workers);
	run->child = fork();
	if (run->child == 0) {
		char *args[] = { "godwit-perf", "migrate", "--listen", fd_text, "--stall-timeout", stall_text,
				 "--destination-workers", workers_text, NULL };

		/* Until we have met; from then on a broken connection tells it. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fcntl(listener, F_SETFD, 0);
		/* Results are the source's to print. */
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execv("/proc/self/exe", args);
		_exit(127);
	}
	close(listener);
	if (run->child < 0)
		return fail(run->failure, "cannot start the destination: %s", strerror(errno));
	return 0;
}

static void make_hello(struct source_run *run, struct hello *hello)
{
	const struct migrate_options *o = run->options;

	*hello = (struct hello){
		.name = "godwit-migrate", .version = HELLO_VERSION, .page_bytes = GODWIT_PAGE_BYTES,
		.ram_bytes = run->guest.bytes, .workload = o->workload, .verify_ns = o->verify_ns,
		.stall_ns = o->stall_ns, .workers = o->destination_workers,
		.past_digests = o->inject_past_digests,
	};
	for (unsigned i = 0; i < GUEST_BLOCKS; i++) {
		hello->block[i].id = run->guest.block[i].id;
		hello->block[i].pages = run->guest.block[i].pages;
		snprintf(hello->block[i].name, sizeof(hello->block[i].name), "%s", run->guest.block[i].name);
	}
}

static int connect_destination(struct source_run *run, const char *where)
{
	uint64_t stall_ns = run->options->stall_ns;
	struct hello hello;
	int fd = socket_connect(where, stall_ns, run->failure), err;

	if (fd < 0)
		return -EIO;
	if (control_init(&run->control, fd, "destination", stall_ns))
		return fail(run->failure, "no memory");
	make_hello(run, &hello);
	if (getrandom(hello.token, sizeof(hello.token), 0) != sizeof(hello.token))
		return fail(run->failure, "no random bytes: %s", strerror(errno));
	err = control_send(&run->control, CONTROL_HELLO, &hello, sizeof(hello), run->failure);
	err = err ? err : control_expect(&run->control, CONTROL_READY, 0, 0, true, run->failure);
	if (err)
		return err;
	fd = socket_connect(where, stall_ns, run->failure);
	if (fd < 0)
		return -EIO;
	run->bandwidth_set = run->options->bandwidth;
	link_init(&run->link, fd, run->options->bandwidth, stall_ns);
	err = link_send_preamble(&run->link, hello.token, run->failure);
	return err ? err : control_expect(&run->control, CONTROL_JOINED, 0, 0, true, run->failure);
}

static int start_engine(struct source_run *run)
{
	struct godwit_source_options options = GODWIT_SOURCE_OPTIONS_INIT;
	struct godwit_error error = { "" };

	if (run->options->raw)
		return 0;
	options.params = run->params;
	options.log = log_line;
	options.log_user = run->options;
	options.place = run->options->place;
	if (godwit_source_create(&options, &run->source, &error))
		return fail(run->failure, "%s", error.text);
	for (unsigned i = 0; i < GUEST_BLOCKS; i++) {
		const struct guest_block *block = &run->guest.block[i];

		if (godwit_source_add_block(run->source, block->id, block->name,
					    guest_page(&run->guest, block->first),
					    block->pages * GODWIT_PAGE_BYTES, &error))
			return fail(run->failure, "%s", error.text);
	}
	return 0;
}

static int start_tracking(struct source_run *run)
{
	char why[DIRTY_WHY];

	if (dirty_bitmap_init(&run->bitmap, run->guest.pages))
		return fail(run->failure, "no memory");
	if (dirty_start(&run->tracker, run->options->track, run->guest.ram, run->guest.pages, why))
		return fail(run->failure, "dirty pages cannot be tracked here: %s", why);
	run->outcome->tracking = dirty_name(run->tracker);
	run->tracked_ns = now_ns();
	/* Watched from here on; everything is to be sent once. */
	dirty_bitmap_fill(&run->bitmap);
	show_remaining(run);
	atomic_store_explicit(&run->now.round_pages, run->bitmap.set, memory_order_relaxed);
	return 0;
}

static int start_progress(struct source_run *run)
{
	struct progress_options options = {
		.now = &run->now, .link = &run->link, .source = run->source, .start_ns = run->start_ns,
		.terminal = run->options->progress, .tick = on_tick, .user = run,
	};

	return progress_start(&run->progress, &options) ? fail(run->failure, "no memory") : 0;
}

static int give_up(struct source_run *run, const char *what);	/* in "when to stop" */

/* ---- a round ---- */

static int write_frames(struct source_run *run, bool force)
{
	struct iovec iov[IOVS];
	int got = godwit_source_collect(run->source, force, iov + 1, IOVS - 1), err = 0;

	if (got <= 0)
		return 0;
	err = link_send_frames(&run->link, iov, got, run->failure);
	godwit_source_release(run->source);
	return err ? err : 1;
}

static bool is_zero(const void *page)
{
	const uint64_t *word = page;

	/* Most pages show it in their first bytes. */
	for (unsigned i = 0; i < GUEST_PAGE_WORDS; i += 8) {
		uint64_t any = 0;

		for (unsigned j = 0; j < 8; j++)
			any |= word[i + j];
		if (any)
			return false;
	}
	return true;
}

static int send_page(struct source_run *run, uint64_t page, const void *host)
{
	const struct guest_block *block = guest_block_of(&run->guest, page);
	uint64_t number = page - block->first;
	struct godwit_error error = { "" };
	unsigned empty = 0;
	int got, err;

	if (run->options->raw)
		return link_send_page(&run->link, block->id, number, host, is_zero(host), run->failure);
	while ((got = godwit_source_queue(run->source, block->id, number, host, &error)) ==
	       GODWIT_QUEUE_COLLECT) {
		err = write_frames(run, false);
		if (err < 0)
			return err;
		if (!err && ++empty == MANY_EMPTY)
			return fail(run->failure, "the engine asks for a collect and has nothing to give");
	}
	if (got == GODWIT_QUEUE_BUSY)
		return link_send_page(&run->link, block->id, number, host, false, run->failure);
	return got < 0 ? fail(run->failure, "%s", error.text) : 0;
}

static int drain(struct source_run *run)
{
	struct godwit_error error = { "" };
	unsigned empty = 0;
	int got, err = link_flush(&run->link, run->failure);

	if (err || !run->source)
		return err;
	while ((got = godwit_source_drain(run->source, &error)) == GODWIT_QUEUE_COLLECT) {
		err = write_frames(run, true);
		if (err < 0)
			return err;
		if (!err && ++empty == MANY_EMPTY)
			return fail(run->failure, "the engine drains and has nothing to give");
		err = check_cancelled(run);
		if (err)
			return err;
	}
	return got < 0 ? fail(run->failure, "%s", error.text) : 0;
}

static int scan(struct source_run *run, uint64_t first, uint64_t pages)
{
	uint64_t found;
	int err = dirty_scan(run->tracker, first, pages, &run->bitmap, &found);

	run->dirtied += found;
	/* In the first round, a piece that was watched since the start stands for all of them. */
	if (run->outcome->rounds == 1 && pages < run->guest.pages)
		show_dirty_rate(run, (double)found * (double)run->guest.pages / (double)pages,
				now_ns() - run->tracked_ns);
	return err ? fail(run->failure, "%s: %s", dirty_name(run->tracker), strerror(-err)) : 0;
}

/* The page as it is sent: itself, but for a test's sake. NULL: not at all. */
static const void *page_to_send(struct source_run *run, uint64_t page, bool is_last)
{
	const uint8_t *host = guest_page(&run->guest, page);

	if (!run->shadow)
		return host;
	if (!is_last) {
		memcpy(run->shadow + page * GODWIT_PAGE_BYTES, host, GODWIT_PAGE_BYTES);
		return host;
	}
	if (page != run->spoil)
		return host;
	if (run->options->inject == INJECT_SKIP)
		return NULL;
	memcpy(run->spoilt, run->options->inject == INJECT_STALE ?
	       run->shadow + page * GODWIT_PAGE_BYTES : host, GODWIT_PAGE_BYTES);
	if (run->options->inject == INJECT_FLIP)
		run->spoilt[2000] ^= 0x10;
	return run->spoilt;
}

static int send_piece(struct source_run *run, uint64_t first, uint64_t end, bool is_last, uint64_t *sent)
{
	for (uint64_t page = dirty_bitmap_next(&run->bitmap, first, end); page < end;
	     page = dirty_bitmap_next(&run->bitmap, page + 1, end)) {
		const void *host = page_to_send(run, page, is_last);
		int err;

		dirty_bitmap_clear(&run->bitmap, page);
		if (!host)
			continue;
		err = send_page(run, page, host);
		if (err)
			return err;
		if (++*sent % LOOK_PAGES == 0) {
			show_remaining(run);
			follow_bandwidth(run);
			err = check_cancelled(run);
			if (!err && !is_last && now_ns() - run->start_ns > run->options->timeout_ns)
				err = give_up(run, "timed out");
			if (err)
				return err;
		}
	}
	return 0;
}

static int send_round(struct source_run *run, bool is_last)
{
	struct round_record *record = &run->outcome->round[run->outcome->rounds++];
	uint64_t begin = now_ns(), raw = run->link.raw_pages, zero = run->link.zero_pages;

	*record = (struct round_record){ .is_last = is_last, .stats = GODWIT_STATS_INIT };
	atomic_store_explicit(&run->now.round, run->outcome->rounds, memory_order_relaxed);
	atomic_store_explicit(&run->now.round_pages, run->bitmap.set, memory_order_relaxed);
	apply_changes(run, run->outcome->rounds, 0);
	if (run->source && godwit_source_round(run->source))
		return fail(run->failure, "the engine was not drained at a round's end");
	for (uint64_t first = 0; first < run->guest.pages; first += PIECE_PAGES) {
		uint64_t left = run->guest.pages - first;
		uint64_t pages = left < PIECE_PAGES ? left : PIECE_PAGES;
		int err = 0;

		if (!is_last && !dirty_needs_pause(run->tracker))
			err = scan(run, first, pages);
		err = err ? err : send_piece(run, first, first + pages, is_last, &record->pages);
		if (err)
			return err;
	}

	int err = drain(run);

	record->ns = now_ns() - begin;
	record->raw_pages = run->link.raw_pages - raw;
	record->zero_pages = run->link.zero_pages - zero;
	if (run->source)
		godwit_source_round_stats(run->source, 0, &record->stats);
	run->outcome->pages_sent += record->pages;
	return err;
}

static int scan_all(struct source_run *run)
{
	bool pause = dirty_needs_pause(run->tracker);
	int err;

	if (pause)
		workload_pause(run->workload);
	err = scan(run, 0, run->guest.pages);
	if (pause)
		workload_resume(run->workload);
	return err;
}

/* ---- when to stop ---- */

/* What the link carries: bytes over the time that sending took, and no more than the cap. */
static uint64_t seen_bandwidth(struct source_run *run)
{
	uint64_t cap = atomic_load_explicit(&run->bandwidth, memory_order_relaxed);
	uint64_t bytes = atomic_load_explicit(&run->link.socket_bytes, memory_order_relaxed);
	uint64_t seen;

	if (bytes < BANDWIDTH_MIN_BYTES || !run->link.busy_ns)
		return cap ? cap : BANDWIDTH_MIN_BYTES;
	seen = (uint64_t)((double)bytes / ((double)run->link.busy_ns / 1e9));
	return cap && seen > cap ? cap : seen;
}

static uint64_t predict_ns(struct source_run *run)
{
	struct godwit_prediction rest = {
		.wire_bytes = run->bitmap.set * (GODWIT_PAGE_BYTES + sizeof(struct link_head)),
	};
	double wire_ns;

	if (run->source)
		godwit_source_predict(run->source, run->bitmap.set, &rest);
	run->outcome->bandwidth_seen = seen_bandwidth(run);
	wire_ns = (double)rest.wire_bytes / (double)run->outcome->bandwidth_seen * 1e9;
	return wire_ns > (double)rest.encode_ns ? (uint64_t)wire_ns : rest.encode_ns;
}

static void print_round(const struct source_run *run, const struct round_record *record)
{
	char left[UNIT_TEXT], rest[UNIT_TEXT], took[UNIT_TEXT];

	if (run->options->verbose)
		fprintf(stderr, "round %u: %llu pages in %s, %s left, which would take %s\n",
			run->outcome->rounds, (unsigned long long)record->pages,
			format_duration(took, (double)record->ns),
			format_bytes(left, (double)record->dirty_after * GODWIT_PAGE_BYTES),
			format_duration(rest, (double)record->predicted_ns));
}

static int give_up(struct source_run *run, const char *what)
{
	struct round_record *record = &run->outcome->round[run->outcome->rounds - 1];
	char left[UNIT_TEXT], rest[UNIT_TEXT], limit[UNIT_TEXT], rate[UNIT_TEXT], total[UNIT_TEXT];

	record->dirty_after = run->bitmap.set;
	record->predicted_ns = predict_ns(run);
	return fail(run->failure,
		    "does not converge: %s after %u rounds and %s; %s are left, which take %s at %s, and "
		    "the downtime limit is %s", what, run->outcome->rounds,
		    format_duration(total, (double)(now_ns() - run->start_ns)),
		    format_bytes(left, (double)record->dirty_after * GODWIT_PAGE_BYTES),
		    format_duration(rest, (double)record->predicted_ns),
		    format_bandwidth(rate, (double)run->outcome->bandwidth_seen),
		    format_duration(limit, (double)atomic_load(&run->downtime_limit_ns)));
}

static int iterate(struct source_run *run)
{
	show_phase(run, PHASE_ITERATE);
	for (;;) {
		uint64_t begin = now_ns();
		struct round_record *record;
		int err;

		run->dirtied = 0;
		err = send_round(run, false);
		err = err ? err : scan_all(run);
		if (err)
			return err;
		record = &run->outcome->round[run->outcome->rounds - 1];
		record->dirty_after = run->bitmap.set;
		record->dirtied = run->dirtied;
		record->predicted_ns = predict_ns(run);
		show_remaining(run);
		show_dirty_rate(run, (double)run->dirtied, now_ns() - begin);
		print_round(run, record);
		if (record->predicted_ns <= atomic_load(&run->downtime_limit_ns))
			return 0;
		if (run->outcome->rounds >= run->options->max_rounds)
			return give_up(run, "gave up");
		err = check_cancelled(run);
		if (err)
			return err;
	}
}

/* ---- the switchover ---- */

/* For tests: the page whose loss shows most surely, the one written to most since it was last sent. */
static int choose_spoil(struct source_run *run)
{
	uint64_t most = 0;

	for (uint64_t page = dirty_bitmap_next(&run->bitmap, 0, run->guest.pages); page < run->guest.pages;
	     page = dirty_bitmap_next(&run->bitmap, page + 1, run->guest.pages)) {
		const uint64_t *live = (const uint64_t *)guest_page(&run->guest, page);
		const uint64_t *before = (const uint64_t *)(run->shadow + page * GODWIT_PAGE_BYTES);

		/* Pages with a head: the number, then the generation. */
		if (live[0] == before[0] && live[1] == run->guest.truth[page].generation &&
		    live[1] - before[1] > most && live[1] > before[1]) {
			most = live[1] - before[1];
			run->spoil = page;
		}
	}
	return most ? 0 : fail(run->failure, "no page in the last round to spoil");
}

static int send_registers(struct source_run *run)
{
	struct vcpu_regs regs[WORKLOAD_MAX_VCPUS];
	uint32_t vcpus = run->options->workload.vcpus;

	for (unsigned n = 0; n < vcpus; n++)
		regs[n] = *workload_regs(run->workload, n);
	return control_send(&run->control, CONTROL_REGS, regs, vcpus * sizeof(regs[0]), run->failure);
}

/* What the kernel says that it has put on the wire, without what it sent again. */
static uint64_t kernel_bytes(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t length = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ||
	    length < offsetof(struct tcp_info, tcpi_bytes_retrans) + sizeof(info.tcpi_bytes_retrans))
		return 0;
	return info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
}

static void take_counts(struct source_run *run)
{
	struct outcome *o = run->outcome;

	o->frame_bytes = run->link.frame_bytes;
	o->page_bytes = run->link.page_bytes;
	o->head_bytes = run->link.head_bytes;
	o->socket_bytes = atomic_load_explicit(&run->link.socket_bytes, memory_order_relaxed);
	o->sendmsg_calls = run->link.calls;
	if (run->source)
		godwit_source_stats(run->source, &o->stats);
}

static int add_up(struct source_run *run, const struct applied *applied)
{
	struct outcome *o = run->outcome;
	uint64_t made;

	take_counts(run);
	o->received_bytes = applied->received_bytes;
	o->kernel_bytes = kernel_bytes(run->link.fd);
	made = o->frame_bytes + o->page_bytes + o->head_bytes;
	o->bytes_add_up = made == o->socket_bytes && made == o->received_bytes &&
			  applied->frame_bytes == o->frame_bytes &&
			  applied->raw_pages == run->link.raw_pages &&
			  applied->zero_pages == run->link.zero_pages &&
			  (!o->kernel_bytes || o->kernel_bytes == made) &&
			  (!run->source || (o->stats.wire_bytes == o->frame_bytes &&
					    o->stats.busy == run->link.raw_pages));
	if (o->bytes_add_up)
		return 0;
	return fail(run->failure, "the bytes do not add up: the library counts %llu, frames had %llu, with pages "
		    "and heads %llu, the socket took %llu, the kernel says %llu, %llu arrived",
		    (unsigned long long)o->stats.wire_bytes, (unsigned long long)o->frame_bytes,
		    (unsigned long long)made, (unsigned long long)o->socket_bytes,
		    (unsigned long long)o->kernel_bytes, (unsigned long long)o->received_bytes);
}

static int send_rest(struct source_run *run, struct applied *applied)
{
	struct round_record *record;
	int err;

	run->dirtied = 0;
	err = scan(run, 0, run->guest.pages);
	show_remaining(run);
	if (!err && run->shadow)
		err = choose_spoil(run);
	err = err ? err : send_registers(run);
	err = err ? err : send_round(run, true);
	err = err ? err : link_send_mark(&run->link, LINK_END, run->outcome->rounds, run->failure);
	record = &run->outcome->round[run->outcome->rounds - 1];
	record->dirtied = run->dirtied;
	err = err ? err : control_expect(&run->control, CONTROL_APPLIED, sizeof(*applied), 0, true,
					 run->failure);
	if (!err)
		memcpy(applied, run->control.buffer, sizeof(*applied));
	return err;
}

/* Digests of all pages as they stand still, and the truth; the destination compares as they come. */
static int send_digests(struct source_run *run)
{
	struct page_digest *list = malloc(DIGEST_PAGES * sizeof(*list));
	int err = list ? 0 : fail(run->failure, "no memory");

	for (uint64_t first = 0; first < run->guest.pages && !err; first += DIGEST_PAGES) {
		uint64_t left = run->guest.pages - first;
		struct digests digests = { first, left < DIGEST_PAGES ? left : DIGEST_PAGES };

		for (uint64_t i = 0; i < digests.pages; i++)
			list[i] = (struct page_digest){
				.xxh3 = page_xxh3(guest_page(&run->guest, first + i)),
				.truth = run->guest.truth[first + i],
			};
		err = control_send2(&run->control, CONTROL_DIGESTS, &digests, sizeof(digests), list,
				    digests.pages * sizeof(*list), run->failure);
	}
	free(list);
	return err;
}

static int verify(struct source_run *run)
{
	struct verified *v = &run->outcome->verified;
	int err = send_digests(run);

	err = err ? err : control_expect(&run->control, CONTROL_VERIFIED, sizeof(*v), 0, true, run->failure);
	if (err)
		return err;
	memcpy(v, run->control.buffer, sizeof(*v));
	v->text[sizeof(v->text) - 1] = '\0';
	if (v->pages != run->guest.pages)
		return fail(run->failure, "only %llu of %llu pages were compared",
			    (unsigned long long)v->pages, (unsigned long long)run->guest.pages);
	if (v->differ || v->stale)
		return fail(run->failure,
			    "verification failed: %llu pages differ by digest, %llu from what was written "
			    "last; the first: %s", (unsigned long long)v->differ,
			    (unsigned long long)v->stale, v->text);
	return 0;
}

static int hand_over(struct source_run *run)
{
	int err = control_send(&run->control, CONTROL_RESUME, NULL, 0, run->failure);

	if (err)
		return err;
	/* From here on it may run there: it must not run here. */
	run->handed_over = true;
	err = control_expect(&run->control, CONTROL_RESUMED, 0, 0, false, run->failure);
	run->outcome->resumed_there = !err;
	return err;
}

/* Up to here; the vCPUs have just stopped, or were never stopped. */
static void take_rates(struct source_run *run)
{
	double seconds = (double)(now_ns() - run->start_ns) / 1e9;

	run->outcome->write_rate = (double)(workload_writes(run->workload) - run->first_writes) / seconds;
	run->outcome->thread_cpu_ns = thread_cpu_ns() - run->first_cpu_ns;
}

static int stop_and_copy(struct source_run *run)
{
	struct outcome *o = run->outcome;
	struct applied applied;
	uint64_t stopped, arrived, compared;
	int err;

	show_phase(run, PHASE_STOP);
	stopped = now_ns();
	workload_pause(run->workload);
	o->pause_call_ns = now_ns() - stopped;
	take_rates(run);
	err = send_rest(run, &applied);
	if (err)
		return err;
	arrived = now_ns();
	o->downtime_ns = arrived - stopped;
	o->thread_cpu_ns = thread_cpu_ns() - run->first_cpu_ns;
	err = add_up(run, &applied);
	if (err)
		return err;
	show_phase(run, PHASE_VERIFY);
	err = verify(run);
	compared = now_ns();
	o->verify_ns = compared - arrived;
	err = err ? err : hand_over(run);
	o->paused_ns = now_ns() - stopped;
	o->total_ns = now_ns() - run->start_ns;
	return err;
}

static int wait_for_done(struct source_run *run)
{
	struct done *done = &run->outcome->done;
	int err;

	show_phase(run, PHASE_RESUMED);
	err = control_expect(&run->control, CONTROL_DONE, sizeof(*done),
			     run->options->verify_ns + run->options->stall_ns, false, run->failure);
	if (err)
		return err;
	memcpy(done, run->control.buffer, sizeof(*done));
	done->text[sizeof(done->text) - 1] = '\0';
	show_phase(run, PHASE_ENDED);
	return done->wrong ? fail(run->failure, "the workload found %llu wrong pages at the destination; "
				  "the first: %s", (unsigned long long)done->wrong, done->text) : 0;
}

/* ---- how it ends ---- */

/* The reason that the other end gives beats the broken pipe that we saw. */
static void ask_why(struct source_run *run)
{
	struct failure mute = { .cancelled = false };
	int status;

	if (run->failure->cancelled) {
		if (run->control.buffer)
			control_send(&run->control, CONTROL_CANCEL, NULL, 0, &mute);
		return;
	}
	/* After the comparison, what was found is known here, and in more words. */
	if (run->control.buffer && !run->outcome->verified.pages &&
	    control_last_words(&run->control, LAST_WORDS_NS, run->failure))
		return;
	if (run->child > 0 && waitpid(run->child, &status, WNOHANG) == run->child) {
		size_t used = strlen(run->failure->text);

		run->child = 0;
		if (WIFSIGNALED(status))
			snprintf(run->failure->text + used, sizeof(run->failure->text) - used,
				 " (the destination was ended by signal %d)", WTERMSIG(status));
	}
}

/* Nothing of a failed migration may be left in the guest: it runs, then all of it is checked. */
static void take_back(struct source_run *run)
{
	struct outcome *o = run->outcome;

	if (run->handed_over || !run->workload)
		return;
	workload_resume(run->workload);
	/* Not interruptible: ^C is why we are here. */
	struct timespec nap = { 0, INTACT_RUN_NS };

	nanosleep(&nap, NULL);
	workload_pause(run->workload);
	o->intact_wrong = workload_check_all(run->workload, o->intact_text);
	o->intact_pages = run->guest.pages;
	o->intact_checked = true;
}

static void reap(struct source_run *run)
{
	uint64_t deadline = now_ns() + LAST_WORDS_NS;
	struct timespec nap = { 0, 1000000 };

	if (run->child <= 0)
		return;
	while (waitpid(run->child, NULL, WNOHANG) == 0) {
		if (now_ns() > deadline)
			kill(run->child, SIGKILL);
		nanosleep(&nap, NULL);
	}
}

static int set_up(struct source_run *run, const char *where)
{
	int err;

	run->start_ns = now_ns();
	run->first_cpu_ns = thread_cpu_ns();
	run->first_writes = workload_writes(run->workload);
	snprintf(run->outcome->where, sizeof(run->outcome->where), "%s", where);
	err = connect_destination(run, where);
	err = err ? err : start_engine(run);
	err = err ? err : start_tracking(run);
	err = err ? err : start_progress(run);
	run->outcome->setup_ns = now_ns() - run->start_ns;
	return err;
}

static int migrate(struct source_run *run, const char *where)
{
	int err = set_up(run, where);

	err = err ? err : iterate(run);
	err = err ? err : stop_and_copy(run);
	err = err ? err : wait_for_done(run);
	run->outcome->status = !err ? "completed" : run->failure->cancelled ? "cancelled" : "failed";
	if (!run->outcome->total_ns)
		run->outcome->total_ns = now_ns() - run->start_ns;
	if (!run->outcome->received_bytes) {
		take_counts(run);
		take_rates(run);
	}
	/* The sampler reads the source's statistics: it goes first. */
	if (run->progress)
		progress_stop(run->progress);
	if (err)
		ask_why(run);
	godwit_source_destroy(run->source);
	dirty_stop(run->tracker);
	if (run->link.fd >= 0)
		close(run->link.fd);
	control_fini(&run->control);
	return err;
}

static void print_guest(const struct source_run *run)
{
	const struct migrate_options *o = run->options;
	char ram[UNIT_TEXT], set[UNIT_TEXT], cap[UNIT_TEXT], writes[64];

	if (o->json)
		return;
	if (o->workload.writes_per_s)
		snprintf(writes, sizeof(writes), "%llu page writes/s",
			 (unsigned long long)o->workload.writes_per_s);
	else
		snprintf(writes, sizeof(writes), "page writes without pause");
	printf("Guest: %s, %.0f %% of it not zero, zstd 1 shrinks that %.2f times; %u vCPUs.\n"
	       "Workload %s: %s over %s, %u bytes each. Link: %s.\n",
	       format_bytes(ram, (double)o->ram_bytes),
	       100.0 * (double)run->outcome->used_pages / (double)run->guest.pages,
	       run->outcome->content_ratio, o->workload.vcpus, workload_names[o->workload.kind], writes,
	       format_bytes(set, (double)o->workload.working_set_pages * GODWIT_PAGE_BYTES),
	       o->workload.sparsity_bytes,
	       o->bandwidth ? format_bandwidth(cap, (double)o->bandwidth) : "no cap");
	fflush(stdout);
}

static int boot(struct source_run *run)
{
	struct migrate_options *o = run->options;
	char why[WORKLOAD_TEXT];
	int err = guest_create(&run->guest, o->ram_bytes);

	if (err)
		die("no memory for a guest of %llu bytes: %s", (unsigned long long)o->ram_bytes,
		    strerror(-err));
	if (workload_init(&run->workload, &run->guest, &o->workload, why))
		usage_error("%s", why);
	workload_fill(run->workload);
	run->outcome->content_ratio = workload_ratio(run->workload, 64);
	run->outcome->used_pages = workload_used_pages(run->workload);
	print_guest(run);
	if (o->inject)
		run->shadow = xcalloc(run->guest.pages, GODWIT_PAGE_BYTES);
	err = workload_resume(run->workload);
	if (err)
		die("cannot start the vCPUs: %s", strerror(-err));
	sleep_ns(o->warmup_ns);
	return 0;
}

int migrate_source(struct migrate_options *options)
{
	struct outcome *outcome = xcalloc(1, sizeof(*outcome));
	struct source_run *run = xcalloc(1, sizeof(*run));
	const struct sample *samples = NULL;
	unsigned nr_samples = 0;
	char where[32];
	int err = 0;

	run->options = options;
	run->outcome = outcome;
	run->failure = &outcome->failure;
	run->params = options->params;
	run->guest.fd = run->control.fd = run->link.fd = -1;
	outcome->status = "failed";
	outcome->tracking = "none";
	outcome->stats.size = sizeof(outcome->stats);
	pthread_mutex_init(&run->changing, NULL);
	atomic_init(&run->bandwidth, options->bandwidth);
	atomic_init(&run->downtime_limit_ns, options->downtime_limit_ns);

	/* Before there are threads, and before there is RAM that a fork would share. */
	if (!options->connect)
		err = start_destination(run, where);
	if (!err) {
		boot(run);
		err = migrate(run, options->connect ? options->connect : where);
	}
	if (err)
		take_back(run);
	reap(run);
	if (run->progress)
		samples = progress_samples(run->progress, &nr_samples);
	if (options->svg) {
		int svg_err = svg_write(options->svg, options, outcome, samples, nr_samples);

		if (svg_err)
			warn_user("%s: %s", options->svg, strerror(-svg_err));
	}
	if (options->json)
		report_json(options, outcome);
	else
		report_text(options, outcome, stdout);
	workload_destroy(run->workload);
	dirty_bitmap_fini(&run->bitmap);
	guest_destroy(&run->guest);
	progress_free(run->progress);
	pthread_mutex_destroy(&run->changing);
	free(run->shadow);

	int status = !err ? EXIT_WORKED : outcome->failure.cancelled ? 130 : EXIT_FAILED;

	free(run);
	free(outcome);
	return status;
}
