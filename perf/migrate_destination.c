/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_destination.c - receive, apply, compare, resume
 *
 * Two connections: control first, then the data, which shows the token that control named. Frames go
 * to the library as they come; pages sent past it are put in place here. When the stream has ended,
 * every page is held against two things that came by the other connection: a digest of the source's
 * page as it stood still, and the truth. Only then does the workload run here, and it goes on
 * checking itself.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate.h"
#include "xbzrle/xbzrle.h"

/* How long the other end may take to hear the reason. */
#define PART_NS 1000000000u

struct receiver {
	const struct migrate_options *options;
	struct failure failure;
	struct control control;
	struct link_reader reader;
	struct hello hello;
	struct guest guest;
	struct workload *workload;
	struct godwit_destination *destination;
	uint64_t frame_left;		/* bytes of the library's stream left in this message */
	bool ended;
	struct applied applied;
	struct done done;
	bool resumed;
};

static void log_line(void *user, enum godwit_log_level level, const char *line)
{
	if (level <= GODWIT_LOG_WARN)
		warn_user("destination: %s", line);
}

/* ---- set-up ---- */

static int check_hello(struct receiver *r)
{
	const struct hello *h = &r->hello;
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (memcmp(h->name, "godwit-migrate", sizeof("godwit-migrate")) || h->version != HELLO_VERSION)
		return fail(&r->failure, "the source speaks another version of this protocol");
	if (h->page_bytes != GODWIT_PAGE_BYTES)
		return fail(&r->failure, "the source has pages of %u bytes", h->page_bytes);
	if (h->ram_bytes < GUEST_MIN_BYTES || h->ram_bytes % (1u << 20) || h->ram_bytes > memory)
		return fail(&r->failure, "a guest of %llu bytes does not fit here",
			    (unsigned long long)h->ram_bytes);
	return 0;
}

static int check_blocks(struct receiver *r)
{
	for (unsigned i = 0; i < GUEST_BLOCKS; i++) {
		const struct guest_block *block = &r->guest.block[i];

		if (r->hello.block[i].id != block->id || r->hello.block[i].pages != block->pages ||
		    strncmp(r->hello.block[i].name, block->name, sizeof(r->hello.block[i].name)))
			return fail(&r->failure, "RAM block %u differs from the source's", i);
	}
	return 0;
}

static int set_up(struct receiver *r)
{
	struct godwit_destination_options options = GODWIT_DESTINATION_OPTIONS_INIT;
	struct godwit_error error = { "" };
	char why[WORKLOAD_TEXT];
	int err;

	err = control_expect(&r->control, CONTROL_HELLO, sizeof(r->hello), 0, true, &r->failure);
	if (err)
		return err;
	memcpy(&r->hello, r->control.buffer, sizeof(r->hello));
	err = check_hello(r);
	if (err)
		return err;
	err = guest_create(&r->guest, r->hello.ram_bytes);
	if (err)
		return fail(&r->failure, "no memory for a guest of %llu bytes: %s",
			    (unsigned long long)r->hello.ram_bytes, strerror(-err));
	err = check_blocks(r);
	if (err)
		return err;
	if (workload_init(&r->workload, &r->guest, &r->hello.workload, why))
		return fail(&r->failure, "%s", why);

	options.workers = r->options->destination_workers ? r->options->destination_workers :
			  r->hello.workers;
	options.log = log_line;
	if (godwit_destination_create(&options, &r->destination, &error))
		return fail(&r->failure, "%s", error.text);
	for (unsigned i = 0; i < GUEST_BLOCKS; i++) {
		const struct guest_block *block = &r->guest.block[i];

		if (godwit_destination_add_block(r->destination, block->id, block->name,
						 guest_page(&r->guest, block->first),
						 block->pages * GODWIT_PAGE_BYTES, &error))
			return fail(&r->failure, "%s", error.text);
	}
	return control_send(&r->control, CONTROL_READY, NULL, 0, &r->failure);
}

static int join_data(struct receiver *r, int listener)
{
	uint64_t stall_ns = r->hello.stall_ns ? r->hello.stall_ns : r->options->stall_ns;
	uint8_t token[LINK_TOKEN_BYTES];
	int fd = socket_accept(listener, r->options->stall_ns, &r->failure);
	int err;

	if (fd < 0)
		return -EIO;
	if (link_reader_init(&r->reader, fd, stall_ns)) {
		close(fd);
		return fail(&r->failure, "no memory");
	}
	err = link_read(&r->reader, token, sizeof(token), &r->failure);
	if (err)
		return err;
	if (memcmp(token, r->hello.token, sizeof(token)))
		return fail(&r->failure, "the second connection belongs to another migration");
	return control_send(&r->control, CONTROL_JOINED, NULL, 0, &r->failure);
}

/* ---- the stream ---- */

/* A page that was sent past the library. No frame in flight has it: see source.h. */
static int put_page(struct receiver *r, const struct link_head *head)
{
	uint32_t id = (uint32_t)(head->value >> LINK_BLOCK_SHIFT);
	uint64_t number = head->value & ((1ull << LINK_BLOCK_SHIFT) - 1);
	uint64_t page = guest_find_page(&r->guest, id, number);
	uint8_t *host;

	if (page == UINT64_MAX)
		return fail(&r->failure, "corrupt stream: page %llu of block %u, which has no such page",
			    (unsigned long long)number, id);
	host = guest_page(&r->guest, page);
	if (head->type == LINK_RAW) {
		r->applied.raw_pages++;
		return link_read(&r->reader, host, GODWIT_PAGE_BYTES, &r->failure);
	}
	r->applied.zero_pages++;
	if (!godwit_page_is_zero(host))
		memset(host, 0, GODWIT_PAGE_BYTES);
	return 0;
}

/* Bytes of the library's stream, whatever messages they come in. ended: there are no more. */
static int read_frames(struct receiver *r, void *to, size_t len, bool may_end)
{
	size_t got = 0;

	while (got < len) {
		struct link_head head;
		int err;

		if (r->frame_left) {
			size_t take = len - got < r->frame_left ? len - got : r->frame_left;

			err = link_read(&r->reader, (uint8_t *)to + got, take, &r->failure);
			if (err)
				return err;
			got += take;
			r->frame_left -= take;
			continue;
		}
		err = link_read_head(&r->reader, &head, &r->failure);
		if (err)
			return err;
		if (head.type == LINK_FRAMES) {
			r->frame_left = head.length;
			r->applied.frame_bytes += head.length;
		} else if (head.type == LINK_END) {
			if (!may_end || got)
				return fail(&r->failure, "corrupt stream: it ends inside a frame");
			r->ended = true;
			return 0;
		} else {
			err = put_page(r, &head);
			if (err)
				return err;
		}
	}
	return 0;
}

static int receive(struct receiver *r)
{
	struct godwit_error error = { "" };

	while (!r->ended) {
		uint8_t head[GODWIT_HEAD_BYTES];
		void *body;
		size_t body_bytes = 0;
		int err = read_frames(r, head, sizeof(head), true);

		if (err)
			return err;
		if (r->ended)
			break;
		if (r->options->inject_die_bytes && r->reader.received > r->options->inject_die_bytes)
			kill(getpid(), SIGKILL);
		if (godwit_destination_begin(r->destination, head, &body, &body_bytes, &error) < 0)
			return fail(&r->failure, "%s", error.text);
		if (!body_bytes)
			continue;
		err = read_frames(r, body, body_bytes, false);
		if (err)
			return err;
		if (godwit_destination_commit(r->destination, &error) < 0)
			return fail(&r->failure, "%s", error.text);
	}
	if (godwit_destination_drain(r->destination, &error) < 0)
		return fail(&r->failure, "%s", error.text);
	return 0;
}

/* ---- comparing ---- */

static int take_registers(struct receiver *r)
{
	uint32_t vcpus = r->hello.workload.vcpus;
	int err = control_expect(&r->control, CONTROL_REGS, vcpus * sizeof(struct vcpu_regs), 0, true,
				 &r->failure);

	if (err)
		return err;
	for (unsigned n = 0; n < vcpus; n++) {
		struct vcpu_regs regs;

		memcpy(&regs, r->control.buffer + n * sizeof(regs), sizeof(regs));
		if (!workload_set_regs(r->workload, n, &regs))
			return fail(&r->failure, "the registers of vCPU %u point outside its guest", n);
	}
	return 0;
}

static void compare_page(struct receiver *r, uint64_t page, const struct page_digest *digest,
			 struct verified *v)
{
	const struct guest_block *block = guest_block_of(&r->guest, page);
	char text[WORKLOAD_TEXT];

	r->guest.truth[page] = digest->truth;
	if (page_xxh3(guest_page(&r->guest, page)) != digest->xxh3 && !r->hello.past_digests) {
		if (!v->differ++ && !v->stale)
			snprintf(v->text, sizeof(v->text), "block %s page %llu differs from the source's",
				 block->name, (unsigned long long)(page - block->first));
	}
	if (!workload_check(r->workload, page, text) && !v->stale++)
		memcpy(v->text, text, sizeof(text));	/* says more than that it differs */
	v->pages++;
}

static int compare(struct receiver *r, struct verified *v)
{
	while (v->pages < r->guest.pages) {
		struct digests digests;
		int err = control_expect(&r->control, CONTROL_DIGESTS, SIZE_MAX, 0, true, &r->failure);

		if (err)
			return err;
		if (r->control.length < sizeof(digests))
			return fail(&r->failure, "digests cut short");
		memcpy(&digests, r->control.buffer, sizeof(digests));
		if (digests.first != v->pages || !digests.pages ||
		    digests.pages > r->guest.pages - digests.first ||
		    r->control.length != sizeof(digests) + digests.pages * sizeof(struct page_digest))
			return fail(&r->failure, "digests of the wrong pages");
		for (uint64_t i = 0; i < digests.pages; i++) {
			struct page_digest digest;

			memcpy(&digest, r->control.buffer + sizeof(digests) + i * sizeof(digest),
			       sizeof(digest));
			compare_page(r, digests.first + i, &digest, v);
		}
	}
	return control_send(&r->control, CONTROL_VERIFIED, v, sizeof(*v), &r->failure);
}

/* ---- the guest is here ---- */

static void sleep_ns(uint64_t ns)
{
	uint64_t until = now_ns() + ns;

	while (now_ns() < until && !migrate_cancelled()) {
		uint64_t left = until - now_ns();
		struct timespec nap = { 0, (long)(left < 50000000 ? left : 50000000) };

		nanosleep(&nap, NULL);
	}
}

/* What the vCPUs have done so far, added or taken away; unsigned arithmetic wraps and comes back. */
static void count_work(struct receiver *r, struct done *done, int sign)
{
	for (unsigned n = 0; n < r->hello.workload.vcpus; n++) {
		const struct vcpu_regs *regs = workload_regs(r->workload, n);

		done->writes += sign < 0 ? -regs->writes : regs->writes;
		done->checks += sign < 0 ? -regs->checks : regs->checks;
	}
}

static int run_here(struct receiver *r)
{
	int err;

	count_work(r, &r->done, -1);
	err = workload_resume(r->workload);
	if (err)
		return fail(&r->failure, "the workload cannot run here: %s", strerror(-err));
	r->resumed = true;
	err = control_send(&r->control, CONTROL_RESUMED, NULL, 0, &r->failure);
	sleep_ns(r->hello.verify_ns);
	workload_pause(r->workload);
	count_work(r, &r->done, 1);
	r->done.wrong = workload_check_all(r->workload, r->done.text);
	r->done.pages = r->guest.pages;
	if (!err)
		err = control_send(&r->control, CONTROL_DONE, &r->done, sizeof(r->done), &r->failure);
	/* The guest runs here now, whether or not the source could be told. */
	return r->done.wrong ? fail(&r->failure, "%s", r->done.text) : 0;
}

static int serve(struct receiver *r, int listener)
{
	struct godwit_stats stats = GODWIT_STATS_INIT;
	struct verified verified = { 0 };
	int err;

	err = set_up(r);
	err = err ? err : join_data(r, listener);
	err = err ? err : receive(r);
	if (err)
		return err;
	r->applied.received_bytes = r->reader.received;
	err = take_registers(r);
	err = err ? err : control_send(&r->control, CONTROL_APPLIED, &r->applied, sizeof(r->applied),
				       &r->failure);
	err = err ? err : compare(r, &verified);
	if (err)
		return err;
	if (verified.differ || verified.stale)
		return fail(&r->failure, "%llu pages are wrong, the first: %s",
			    (unsigned long long)(verified.differ > verified.stale ? verified.differ :
						 verified.stale), verified.text);
	godwit_destination_stats(r->destination, &stats);
	r->done.decode_cpu_ns = stats.worker_cpu_ns;
	r->done.workers = stats.workers;
	err = control_expect(&r->control, CONTROL_RESUME, 0, 0, true, &r->failure);
	if (err)
		return err;
	godwit_destination_destroy(r->destination);
	r->destination = NULL;
	return run_here(r);
}

static void report(const struct receiver *r, int err)
{
	if (r->options->json) {
		struct json_object *object = json_object_new_object();

		put_text(object, "status", err ? "failed" : "completed");
		put_text(object, "error", err ? r->failure.text : "");
		put_u64(object, "received_bytes", r->reader.received);
		put_u64(object, "pages_checked", r->done.pages);
		put_u64(object, "pages_wrong", r->done.wrong);
		put_u64(object, "workload_writes", r->done.writes);
		put_u64(object, "workload_checks", r->done.checks);
		print_json(object);
	} else if (err) {
		fprintf(stderr, "godwit-perf migrate: destination: %s\n", r->failure.text);
	} else {
		printf("The workload runs here: %llu page writes, %llu pages checked meanwhile, then all %llu: "
		       "none is wrong.\n", (unsigned long long)r->done.writes,
		       (unsigned long long)r->done.checks, (unsigned long long)r->done.pages);
	}
}

/*
 * The reason goes ahead of the broken data connection that the source will notice. Then read until the
 * source has closed: a close with bytes unread is a reset, which could overtake the reason. If the
 * source had cancelled, that was the reason.
 */
static void part(struct receiver *r)
{
	struct failure mute = { .cancelled = false };

	if (!r->failure.cancelled)
		control_send(&r->control, CONTROL_ERROR, r->failure.text, strlen(r->failure.text), &mute);
	if (r->reader.fd >= 0)
		close(r->reader.fd);
	shutdown(r->control.fd, SHUT_WR);
	control_last_words(&r->control, PART_NS, &r->failure);
}

int migrate_destination(const struct migrate_options *options)
{
	struct receiver *r = xcalloc(1, sizeof(*r));
	bool is_child = options->listen_fd >= 0;
	int listener = options->listen_fd, err = -EIO, fd = -1;

	r->options = options;
	r->control.fd = r->guest.fd = r->reader.fd = -1;
	if (!is_child)
		listener = socket_listen(options->listen, &r->failure);
	if (listener >= 0) {
		if (!is_child && !options->json) {
			printf("listening on port %u\n", socket_port(listener));
			fflush(stdout);
		}
		fd = socket_accept(listener, 0, &r->failure);
		prctl(PR_SET_PDEATHSIG, 0);
	}
	if (fd >= 0 && control_init(&r->control, fd, "source", options->stall_ns))
		die("no memory");
	if (fd >= 0)
		err = serve(r, listener);

	if (err && fd >= 0 && !r->resumed)
		part(r);
	else if (r->reader.fd >= 0)
		close(r->reader.fd);
	if (!is_child)
		report(r, err);
	godwit_destination_destroy(r->destination);
	link_reader_fini(&r->reader);
	control_fini(&r->control);
	workload_destroy(r->workload);
	guest_destroy(&r->guest);
	if (listener >= 0)
		close(listener);
	free(r);
	return err ? EXIT_FAILED : EXIT_WORKED;
}
