/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host.c - a program that uses the library, and looks at what that did to it
 *
 * usage: host <part of the name of the object that malloc must come from>
 *
 * A library that carries jemalloc could replace the host's malloc by accident: by exporting it (shared) or
 * by defining it (static). So before, during and after a small migration in memory this program asks
 * where malloc and its kin come from, and whether signal handlers and mask are as they were.
 */
#include <dlfcn.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <godwit/godwit.h>

#define GUEST_PAGES 1024u
#define GUEST_BYTES (GUEST_PAGES * GODWIT_PAGE_BYTES)

static const char *wanted_object;
static unsigned nr_failures;

#define CHECK(condition, ...)							\
	do {									\
		if (!(condition)) {						\
			fprintf(stderr, "host: line %d: ", __LINE__);		\
			fprintf(stderr, __VA_ARGS__);				\
			fputc('\n', stderr);					\
			nr_failures++;						\
		}								\
	} while (0)

static void check_allocator(const char *when)
{
	/* Through the program's own references, as its code calls them. */
	static const struct {
		const char *name;
		void *address;
	} calls[] = {
		{ "malloc", (void *)malloc },
		{ "free", (void *)free },
		{ "calloc", (void *)calloc },
		{ "realloc", (void *)realloc },
		{ "posix_memalign", (void *)posix_memalign },
		{ "aligned_alloc", (void *)aligned_alloc },
		{ "malloc_usable_size", (void *)malloc_usable_size },
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		Dl_info info;
		void *by_name = dlsym(RTLD_DEFAULT, calls[i].name);

		CHECK(dladdr(calls[i].address, &info) && strstr(info.dli_fname, wanted_object),
		      "%s: %s comes from %s, not from %s", when, calls[i].name,
		      dladdr(calls[i].address, &info) ? info.dli_fname : "nowhere", wanted_object);
		CHECK(by_name == calls[i].address, "%s: %s by name is another one", when, calls[i].name);
	}
	CHECK(!dlsym(RTLD_DEFAULT, "godwit_je_mallocx"), "%s: godwit_je_mallocx can be seen", when);
	/* mallocx is there only if the host brought a jemalloc itself. */
	CHECK(!!dlsym(RTLD_DEFAULT, "mallocx") == !!strstr(wanted_object, "jemalloc"),
	      "%s: mallocx is %s", when, dlsym(RTLD_DEFAULT, "mallocx") ? "there" : "not there");
}

static void check_signals(const char *when)
{
	sigset_t blocked;

	for (int number = 1; number < NSIG; number++) {
		struct sigaction action;

		if (sigaction(number, NULL, &action))
			continue;
		CHECK(!(action.sa_flags & SA_SIGINFO) &&
		      (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN),
		      "%s: signal %d has a handler", when, number);
	}
	sigprocmask(SIG_BLOCK, NULL, &blocked);
	for (int number = 1; number < NSIG; number++)
		CHECK(sigismember(&blocked, number) != 1, "%s: signal %d is blocked", when, number);
}

static void check_host(const char *when)
{
	char *mine = malloc(100000);

	check_allocator(when);
	check_signals(when);
	CHECK(mine && malloc_usable_size(mine) >= 100000, "%s: malloc does not work", when);
	free(mine);
}

/* The stream as a file would have it. */
static char stream[4 * GUEST_BYTES];
static size_t stream_bytes;

static void write_frames(struct godwit_source *source)
{
	struct iovec iov[16];
	int n = godwit_source_collect(source, 0, iov, 16);

	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len > sizeof(stream) - stream_bytes) {
			CHECK(0, "the stream is more than four times the guest");
			break;
		}
		memcpy(stream + stream_bytes, iov[i].iov_base, iov[i].iov_len);
		stream_bytes += iov[i].iov_len;
	}
	godwit_source_release(source);
}

static void send_guest(char *guest, struct godwit_error *error)
{
	struct godwit_source_options options = GODWIT_SOURCE_OPTIONS_INIT;
	struct godwit_source *source = NULL;
	int got = 0;

	options.params.workers = 1;
	options.params.when_busy = GODWIT_WHEN_BUSY_WAIT;
	if (godwit_source_create(&options, &source, error) ||
	    godwit_source_add_block(source, 0, "ram", guest, GUEST_BYTES, error)) {
		CHECK(0, "source: %s", error->text);
		godwit_source_destroy(source);
		return;
	}
	check_host("with a source");
	for (int round = 0; round < 2; round++) {
		godwit_source_round(source);
		for (uint64_t page = 0; page < GUEST_PAGES; page++) {
			guest[page * GODWIT_PAGE_BYTES + 8] ^= round;
			do {
				got = godwit_source_queue(source, 0, page, guest + page * GODWIT_PAGE_BYTES,
							  error);
				if (got == GODWIT_QUEUE_COLLECT)
					write_frames(source);
			} while (got == GODWIT_QUEUE_COLLECT);
			CHECK(got == GODWIT_QUEUE_OK, "queue: %d, %s", got, error->text);
		}
		while ((got = godwit_source_drain(source, error)) == GODWIT_QUEUE_COLLECT)
			write_frames(source);
		CHECK(got == GODWIT_QUEUE_OK, "drain: %d, %s", got, error->text);
	}
	godwit_source_destroy(source);
}

static void receive_guest(char *guest, struct godwit_error *error)
{
	struct godwit_destination_options options = GODWIT_DESTINATION_OPTIONS_INIT;
	struct godwit_destination *destination = NULL;
	size_t at = 0;

	options.workers = 1;
	if (godwit_destination_create(&options, &destination, error) ||
	    godwit_destination_add_block(destination, 0, "ram", guest, GUEST_BYTES, error)) {
		CHECK(0, "destination: %s", error->text);
		godwit_destination_destroy(destination);
		return;
	}
	while (stream_bytes - at >= GODWIT_HEAD_BYTES) {
		void *body;
		size_t body_bytes = 0;
		int err = godwit_destination_begin(destination, stream + at, &body, &body_bytes, error);

		at += GODWIT_HEAD_BYTES;
		if (!err && body_bytes) {
			if (body_bytes > stream_bytes - at) {
				CHECK(0, "a body ends after the stream");
				break;
			}
			memcpy(body, stream + at, body_bytes);
			at += body_bytes;
			err = godwit_destination_commit(destination, error);
		}
		CHECK(!err, "destination at byte %zu: %d, %s", at, err, error->text);
		if (err)
			break;
	}
	CHECK(at == stream_bytes, "%zu bytes are left of the stream", stream_bytes - at);
	check_host("with a destination");
	CHECK(!godwit_destination_drain(destination, error), "drain: %s", error->text);
	godwit_destination_destroy(destination);
}

int main(int argc, char **argv)
{
	struct godwit_error error = { "" };
	char *here = mmap(NULL, 2 * GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *there = here + GUEST_BYTES;

	if (argc != 2 || here == MAP_FAILED)
		return 2;
	wanted_object = argv[1];
	check_host("before");
	for (size_t i = 0; i < GUEST_BYTES / 2; i++)
		here[i] = (char)(i * 2654435761u >> 13);
	send_guest(here, &error);
	receive_guest(there, &error);
	CHECK(!memcmp(here, there, GUEST_BYTES), "the guests differ");
	CHECK(stream_bytes > GUEST_BYTES / 64, "nothing was sent");
	check_host("after");
	if (nr_failures)
		return 1;
	printf("host: godwit %s, %zu bytes sent, malloc from %s\n", godwit_version(), stream_bytes,
	       wanted_object);
	return 0;
}
