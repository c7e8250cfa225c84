/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_source.c - set up, go through it, and hand the guest over or take it back
 *
 * Whatever goes wrong before the guest is handed over: the workload runs on here, and is checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_source.h"

#define INTACT_RUN_NS 300000000u	/* the workload shows for so long that it lives */
#define LAST_WORDS_NS 2000000000u

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

int source_check_cancelled(struct source_run *run)
{
	if (!migrate_cancelled())
		return 0;
	run->failure->cancelled = true;
	return fail(run->failure, "cancelled");
}

void source_show_phase(struct source_run *run, enum phase phase)
{
	atomic_store_explicit(&run->now.phase, phase, memory_order_relaxed);
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
	source_show_remaining(run);
	atomic_store_explicit(&run->now.round_pages, run->bitmap.set, memory_order_relaxed);
	return 0;
}

static int start_progress(struct source_run *run)
{
	struct progress_options options = {
		.now = &run->now, .link = &run->link, .source = run->source, .start_ns = run->start_ns,
		.terminal = run->options->progress, .tick = source_on_tick, .user = run,
	};

	return progress_start(&run->progress, &options) ? fail(run->failure, "no memory") : 0;
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

	err = err ? err : source_iterate(run);
	err = err ? err : source_stop_and_copy(run);
	err = err ? err : source_wait_for_done(run);
	run->outcome->status = !err ? "completed" : run->failure->cancelled ? "cancelled" : "failed";
	if (!run->outcome->total_ns)
		run->outcome->total_ns = now_ns() - run->start_ns;
	if (!run->outcome->received_bytes) {
		source_take_counts(run);
		source_take_rates(run);
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
