/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_DESTINATION_H
#define GODWIT_DESTINATION_H

#include <godwit/params.h>
#include <godwit/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The destination: takes frames off a stream, puts pages into guest memory.
 *
 * Threads: one thread at a time makes the calls marked [D] (the loader); [any] as in source.h.
 *
 * The caller's loop:
 *
 *	read_exactly(fd, head, GODWIT_HEAD_BYTES);
 *	got = godwit_destination_begin(d, head, &body, &body_bytes, &err);
 *	if (got < 0)
 *		stop;
 *	read_exactly(fd, body, body_bytes);
 *	godwit_destination_commit(d, &err);
 *
 * Nothing the peer sends decides how much is allocated: body is one of a fixed number of buffers, and a
 * longer frame is refused. A frame that fails any check changes no guest page, and everything after
 * it is refused with the same error.
 */
struct godwit_destination;

/*
 * Pages that guest memory now has, after each frame and for every kind of page (those that were the same
 * already, too): for a caller that keeps a bitmap of what it has received. pages[] are nr_pages page
 * numbers of the block, ascending, valid during the call.
 *
 * Threads: called by the workers, several at once, never two with the same page between two drains. What
 * it did is visible to the loader once a drain frame, or godwit_destination_drain(), has returned. It
 * must not call back into the destination, and a worker does nothing else meanwhile.
 */
typedef void (*godwit_applied_fn)(void *user, uint32_t block, const uint64_t *pages, uint32_t nr_pages);

struct godwit_destination_options {
	size_t size;
	uint32_t workers;		/* 0 = from the processors allowed */
	uint32_t place;			/* 1: bind workers near the RAM (hwloc) */
	godwit_log_fn log;
	void *log_user;
	godwit_applied_fn applied;	/* may be NULL */
	void *applied_user;
	/*
	 * 1: each page that arrived has memory behind it, as a later userfaultfd may need. 0: a page of zeros for
	 * private anonymous memory that nobody wrote to stays without, and reads as zeros.
	 */
	uint32_t populate;
};
#define GODWIT_DESTINATION_OPTIONS_INIT { .size = sizeof(struct godwit_destination_options) }

/* Bytes of every head: of the stream header, of a frame and of a drain frame (frame.h, src/engine). */
#define GODWIT_HEAD_BYTES 40u

GODWIT_API int godwit_destination_create(const struct godwit_destination_options *options,
					 struct godwit_destination **destination_ret,
					 struct godwit_error *error);
GODWIT_API void godwit_destination_destroy(struct godwit_destination *destination);

/* [D] A RAM block, mapped writable at host. Drained first. Same rules as godwit_source_add_block(). */
GODWIT_API int godwit_destination_add_block(struct godwit_destination *destination, uint32_t id,
					    const char *name, void *host, uint64_t bytes,
					    struct godwit_error *error);
GODWIT_API int godwit_destination_remove_block(struct godwit_destination *destination, uint32_t id,
					       struct godwit_error *error);

/*
 * [D] Look at a head. *body_ret and *body_bytes_ret say where the rest of the frame is to be read to;
 * body_bytes is 0 for a stream header and for a drain frame, which has then done its work: every frame
 * before it is applied when this returns. 0, or -EBADMSG with what was wrong and where.
 */
GODWIT_API int godwit_destination_begin(struct godwit_destination *destination, const void *head,
					void **body_ret, size_t *body_bytes_ret, struct godwit_error *error);

/* [D] The body is read: a worker checks and applies it. Errors of earlier frames may show here. */
GODWIT_API int godwit_destination_commit(struct godwit_destination *destination,
					 struct godwit_error *error);

/* [D] Wait until all frames are applied. 0, or the first error. */
GODWIT_API int godwit_destination_drain(struct godwit_destination *destination,
					struct godwit_error *error);

/* [any] */
GODWIT_API int godwit_destination_stats(const struct godwit_destination *destination,
					struct godwit_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
