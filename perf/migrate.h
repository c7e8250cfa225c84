/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_PERF_MIGRATE_H
#define GODWIT_PERF_MIGRATE_H

#include <sys/types.h>
#include <sys/uio.h>

#include <godwit/godwit.h>

#include "dirty.h"
#include "workload.h"

/*
 * migrate.h - the stand-alone live migration, joined from its parts
 *
 *   migrate.c             what was asked for; the two processes
 *   migrate_options.c     the command line
 *   migrate_link.c        the data connection: messages, pacing, counting, stalls
 *   migrate_control.c     the control connection: framed messages, errors by words
 *   migrate_source.c      iterate, stop, hand over, or take the guest back
 *   migrate_destination.c receive, apply, compare, resume
 *   migrate_report.c      the block at the end, and --json
 *   progress.c            samples while it runs: the lines on a terminal, and what svg.c draws
 */

/* ---- options ---- */

enum inject { INJECT_NOTHING, INJECT_SKIP, INJECT_STALE, INJECT_FLIP };

/* --set NAME=VALUE@WHEN: a parameter changed while pages flow. */
#define MAX_CHANGES 32u
#define CHANGE_VALUE 32u
struct change {
	char name[16];
	char value[CHANGE_VALUE];
	uint64_t round;			/* at the beginning of this round, or */
	uint64_t at_ns;			/* so long after the start, from another thread */
	bool done, refused;
	uint64_t done_round;
	char text[200];			/* why it was refused */
};

struct migrate_options {
	struct workload_config workload;
	uint64_t ram_bytes;
	struct godwit_params params;
	uint32_t destination_workers;
	uint32_t place;
	bool raw;			/* no engine: pages as they are, zero pages by a mark */
	uint64_t bandwidth;		/* bytes/s; 0: no cap */
	uint64_t downtime_limit_ns;
	uint64_t timeout_ns;
	uint64_t stall_ns;
	uint64_t verify_ns;
	uint64_t warmup_ns;
	unsigned max_rounds;
	enum dirty_way track;
	const char *listen;		/* this is the destination */
	const char *connect;		/* this is the source, and the destination runs already */
	int listen_fd;			/* the destination that the source started; -1 else */
	bool json, verbose, progress;
	const char *svg;
	struct change change[MAX_CHANGES];
	unsigned changes;

	/* For tests: spoil the last round, and see whether it is found. */
	enum inject inject;
	bool inject_past_digests;	/* by the checker alone */
	uint64_t inject_die_bytes;	/* the destination kills itself after so many */
};
void migrate_options_parse(struct migrate_options *options, int argc, char **argv);
/* Apply one change to a copy of the parameters; "": fine, else what is wrong with it. */
const char *migrate_change_params(const struct change *change, struct godwit_params *params,
				  char rung[CHANGE_VALUE]);

/* ---- stopping (migrate.c) ---- */

/* Set by ^C and SIGTERM. */
bool migrate_cancelled(void);

/* Why something failed, for people. */
struct failure {
	char text[400];
	bool cancelled;
};
int fail(struct failure *failure, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- the data connection (migrate_link.c) ---- */

#define LINK_MAGIC 0x6c2d7469u		/* "it-l" */
#define LINK_TOKEN_BYTES 16u

/* What crosses it: a preamble, then messages, each with this head (little-endian). */
enum link_type {
	LINK_FRAMES = 1,	/* length bytes of the library's stream follow */
	LINK_RAW = 2,		/* one page follows as it is; value: block << 40 | page */
	LINK_ZERO = 3,		/* nothing follows; value: block << 40 | page */
	LINK_END = 4,		/* nothing follows; that was all; value: the last round */
};
struct link_head {
	uint32_t magic;
	uint16_t type;
	uint16_t reserved;
	uint32_t length;
	uint32_t check;		/* over the rest of the head: see link_check() */
	uint64_t value;
};
#define LINK_BLOCK_SHIFT 40
/* The most one LINK_FRAMES message holds. */
#define LINK_MAX_FRAMES (16u << 20)

struct link {
	int fd;
	struct pace pace;
	uint64_t stall_ns;

	/* Counted where the bytes are made... */
	uint64_t frame_bytes;		/* of the library's stream */
	uint64_t page_bytes;		/* of pages sent as they are */
	uint64_t head_bytes;		/* preamble and message heads */
	uint64_t raw_pages, zero_pages;
	/* ... and where the socket took them. */
	_Atomic uint64_t socket_bytes;
	uint64_t paced_ns;
	uint64_t busy_ns;		/* sending, waiting for the socket and pacing */
	uint64_t calls;			/* sendmsg() */

	/* Pages waiting to be sent as they are. */
	unsigned waiting;
	struct link_head head[32];
	struct iovec iov[64];
	unsigned iovs;
};

void link_init(struct link *link, int fd, uint64_t bytes_per_s, uint64_t stall_ns);
void link_set_bandwidth(struct link *link, uint64_t bytes_per_s);
int link_send_preamble(struct link *link, const uint8_t token[LINK_TOKEN_BYTES], struct failure *failure);
/* iov[0] is free for the head; iov[1..count] are bytes of the library's stream. */
int link_send_frames(struct link *link, struct iovec *iov, int count, struct failure *failure);
/* A page as it is, or a mark for a zero page: collected, sent by link_flush() or when there are many.
 * The page must not be written to by the library meanwhile; the guest may. */
int link_send_page(struct link *link, uint32_t block, uint64_t page, const void *host, bool zero,
		   struct failure *failure);
int link_flush(struct link *link, struct failure *failure);
int link_send_mark(struct link *link, enum link_type type, uint64_t value, struct failure *failure);

/* The destination's side: a buffered reader that gives up after stall_ns without a byte. */
struct link_reader {
	int fd;
	uint64_t stall_ns;
	uint64_t received;		/* bytes that the socket gave */
	uint8_t *buffer;
	size_t begin, end;
};
int link_reader_init(struct link_reader *reader, int fd, uint64_t stall_ns);
void link_reader_fini(struct link_reader *reader);
/* Exactly len bytes or a failure that says where in the stream it was. */
int link_read(struct link_reader *reader, void *to, size_t len, struct failure *failure);
int link_read_head(struct link_reader *reader, struct link_head *head, struct failure *failure);
/* A raw page itself has none: the guest writes to it while it is sent. The digests compare it. */
uint32_t link_check(const struct link_head *head);

/* ---- the control connection (migrate_control.c) ---- */

/*
 * Messages: type, length, payload. The payloads are plain structs, fixed-width and little-endian as the
 * machines this runs on; a length that is not the type's is refused.
 */
enum control_type {
	CONTROL_HELLO = 1,	/* source: struct hello */
	CONTROL_READY,		/* destination: blocks are there */
	CONTROL_JOINED,		/* destination: the data connection is there */
	CONTROL_REGS,		/* source: struct vcpu_regs of every vCPU */
	CONTROL_APPLIED,	/* destination: struct applied */
	CONTROL_DIGESTS,	/* source: struct digests, then a struct page_digest for each page */
	CONTROL_VERIFIED,	/* destination: struct verified */
	CONTROL_RESUME,		/* source: yours */
	CONTROL_RESUMED,	/* destination: it runs */
	CONTROL_DONE,		/* destination: struct done */
	CONTROL_CANCEL,		/* source: forget it */
	CONTROL_ERROR,		/* either: words */
};

#define HELLO_VERSION 1u
struct hello {
	char name[16];			/* "godwit-migrate" */
	uint32_t version;
	uint32_t page_bytes;
	uint64_t ram_bytes;
	uint8_t token[LINK_TOKEN_BYTES];	/* the data connection shows it */
	struct workload_config workload;
	uint64_t verify_ns;
	uint64_t stall_ns;
	uint32_t workers;
	uint32_t past_digests;		/* tests: the checker alone decides */
	struct {
		uint32_t id;
		uint32_t reserved;
		uint64_t pages;
		char name[16];
	} block[GUEST_BLOCKS];
};

struct applied {
	uint64_t received_bytes;	/* on the data connection */
	uint64_t frame_bytes;
	uint64_t raw_pages;
	uint64_t zero_pages;
};

struct digests {
	uint64_t first;			/* in pages of the guest */
	uint64_t pages;
};
struct page_digest {
	uint64_t xxh3;
	struct guest_truth truth;
};
#define DIGEST_PAGES 4096u		/* in one message */

struct verified {
	uint64_t pages;			/* compared */
	uint64_t differ;		/* by digest */
	uint64_t stale;			/* by the truth */
	char text[WORKLOAD_TEXT];	/* the first */
};

struct done {
	uint64_t pages;			/* compared with the truth after it ran here */
	uint64_t wrong;
	uint64_t checks;		/* by the vCPUs while they ran here */
	uint64_t writes;
	uint64_t decode_cpu_ns;
	uint64_t workers;
	char text[WORKLOAD_TEXT];
};

struct control {
	int fd;
	const char *peer;		/* "source" or "destination", for messages */
	uint64_t stall_ns;
	uint8_t *buffer;		/* the last message's payload */
	size_t length;
};
#define CONTROL_MAX_BYTES (sizeof(struct digests) + DIGEST_PAGES * sizeof(struct page_digest))

int control_init(struct control *control, int fd, const char *peer, uint64_t stall_ns);
void control_fini(struct control *control);
int control_send(struct control *control, enum control_type type, const void *payload, size_t length,
		 struct failure *failure);
/* Two pieces, one message. */
int control_send2(struct control *control, enum control_type type, const void *a, size_t a_bytes,
		  const void *b, size_t b_bytes, struct failure *failure);
/*
 * The next message, which must be of this type and length (SIZE_MAX: any). An ERROR or a CANCEL of the peer
 * becomes the failure. Gives up after wait_ns (0: stall_ns) without a byte, and at ^C if `stop`.
 */
int control_expect(struct control *control, enum control_type type, size_t length, uint64_t wait_ns,
		   bool stop, struct failure *failure);
/* The peer's last words, if there are any within wait_ns: true, and they are in failure. */
bool control_last_words(struct control *control, uint64_t wait_ns, struct failure *failure);

uint64_t page_xxh3(const void *page);

/* Sockets. "HOST:PORT", "[::1]:PORT", ":PORT". fd or -1 with the failure. */
int socket_listen(const char *where, struct failure *failure);
int socket_accept(int listener, uint64_t wait_ns, struct failure *failure);
int socket_connect(const char *where, uint64_t wait_ns, struct failure *failure);
/* The bound port of a listening socket. */
unsigned socket_port(int fd);

/* ---- progress (progress.c) ---- */

enum phase { PHASE_SETUP, PHASE_ITERATE, PHASE_STOP, PHASE_VERIFY, PHASE_RESUMED, PHASE_ENDED, PHASES };

struct sample {
	double t;			/* seconds since the start */
	uint64_t remaining_bytes;
	double dirty_bytes_per_s;
	double wire_bytes_per_s;
	double ratio;			/* guest bytes retired per wire byte, in this round so far */
	unsigned round;
	enum phase phase;
	char rung[16];
};
#define MAX_SAMPLES 4096u

/* The migration thread writes, the sampler reads; all relaxed: figures for people. */
struct progress_now {
	_Atomic uint64_t remaining_pages;
	_Atomic uint64_t round_pages;	/* at its beginning */
	_Atomic uint64_t dirty_rate;	/* pages/s, of the last round */
	_Atomic unsigned round;
	_Atomic unsigned phase;
};

struct progress;
struct progress_options {
	const struct progress_now *now;
	const struct link *link;
	const struct godwit_source *source;	/* NULL with --raw */
	uint64_t start_ns;
	bool terminal;			/* draw lines */
	/* Called every tick from the sampler's thread (changes asked for by time). */
	void (*tick)(void *user, uint64_t since_start_ns);
	void *user;
};
int progress_start(struct progress **progress_ret, const struct progress_options *options);
/* The lines are wiped; the samples stay until progress_free(). */
void progress_stop(struct progress *progress);
const struct sample *progress_samples(const struct progress *progress, unsigned *count_ret);
void progress_free(struct progress *progress);

/* ---- what came of it (migrate_source.c fills it, migrate_report.c shows it) ---- */

#define MAX_ROUNDS 1024u
struct round_record {
	uint64_t pages;			/* sent in it */
	uint64_t dirty_after;		/* left when it ended */
	uint64_t dirtied;		/* found dirty during it */
	uint64_t ns;
	uint64_t predicted_ns;		/* for what was left */
	uint64_t raw_pages, zero_pages;	/* sent past the engine */
	bool is_last;
	struct godwit_stats stats;
};

struct outcome {
	const char *status;		/* "completed", "cancelled", "failed" */
	struct failure failure;
	const char *tracking;
	char where[80];			/* the peer */
	double content_ratio;		/* zstd 1 on a sample, at the start */
	uint64_t used_pages;
	double write_rate;		/* page writes/s by the workload while it was migrated */
	uint64_t total_ns, setup_ns, downtime_ns, verify_ns, paused_ns, pause_call_ns;
	uint64_t bandwidth_seen;	/* bytes/s, that the last prediction used */
	uint64_t thread_cpu_ns;		/* of the migration thread */
	uint64_t pages_sent;
	uint64_t frame_bytes, page_bytes, head_bytes, socket_bytes, kernel_bytes, received_bytes;
	uint64_t sendmsg_calls;
	bool bytes_add_up;
	unsigned rounds;
	struct round_record round[MAX_ROUNDS];
	struct godwit_stats stats;
	struct verified verified;
	struct done done;
	bool resumed_there;
	bool intact_checked;
	uint64_t intact_pages, intact_wrong;
	char intact_text[WORKLOAD_TEXT];
};

int migrate_source(struct migrate_options *options);
int migrate_destination(const struct migrate_options *options);
void report_text(const struct migrate_options *options, const struct outcome *outcome, FILE *file);
void report_json(const struct migrate_options *options, const struct outcome *outcome);

/* The run as a picture: panels over time. 0 or -errno. */
int svg_write(const char *path, const struct migrate_options *options, const struct outcome *outcome,
	      const struct sample *samples, unsigned nr_samples);

#endif
