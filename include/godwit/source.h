/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_SOURCE_H
#define GODWIT_SOURCE_H

#include <sys/uio.h>

#include <godwit/params.h>
#include <godwit/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The source: takes dirty guest pages, gives encoded frames.
 *
 * Threads: one thread at a time makes the calls marked [S] (QEMU's migration thread). The calls
 * marked [any] may come from any thread at any time while the handle lives.
 *
 * The caller's loop over one round of dirty pages:
 *
 *	while ((got = godwit_source_queue(s, block, page, host, &err)) == GODWIT_QUEUE_COLLECT)
 *		write_frames(s);
 *	if (got == GODWIT_QUEUE_BUSY)
 *		send_raw(host);			// never happens with when_busy = wait
 *	...
 *	while ((got = godwit_source_drain(s, &err)) == GODWIT_QUEUE_COLLECT)
 *		write_frames(s);
 *
 * where write_frames() is
 *
 *	n = godwit_source_collect(s, 0, iov, IOVS);
 *	writev(fd, iov, n);
 *	godwit_source_release(s);
 *
 * A page must not be queued twice between two drains: its newer version could overtake the older. Any
 * other order will do. Ascending pages of one block fill a batch, which is cheapest; a page below the last
 * one, or of another block, opens the next batch.
 */
struct godwit_source;

/* What is collected. */
enum godwit_stream {
	GODWIT_STREAM_GODWIT = 0,	/* frames: the other side is a godwit destination */
	/*
	 * Pages as any QEMU reads them in a RAM section: zero, whole, and XBZRLE against what the base
	 * knows. There is no stream header and no drain frame. Each piece names its block at its first
	 * page, so pieces may be written in any order and among whatever else the caller has for the
	 * stream, but not one within another; and what the caller writes behind a piece must name its
	 * block itself. The rung means nothing here.
	 */
	GODWIT_STREAM_STOCK = 1,
};

struct godwit_source_options {
	size_t size;			/* sizeof(struct godwit_source_options) */
	struct godwit_params params;	/* params.size set as well */
	godwit_log_fn log;
	void *log_user;
	uint32_t place;			/* 1: bind workers to cores near the RAM (hwloc); 0: inherit affinity */
	uint32_t stream;		/* enum godwit_stream */
};
#define GODWIT_SOURCE_OPTIONS_INIT \
	{ .size = sizeof(struct godwit_source_options), .params = GODWIT_PARAMS_INIT }

/* [S] Make a source with its workers running. On failure nothing is left behind. */
GODWIT_API int godwit_source_create(const struct godwit_source_options *options,
				    struct godwit_source **source_ret, struct godwit_error *error);

/* [S] End it, drained or not (cancel): workers joined, all memory given back. NULL does nothing. */
GODWIT_API void godwit_source_destroy(struct godwit_source *source);

/*
 * [S] A RAM block of the guest. id names it on the wire (both ends add the same ids), bytes is a
 * multiple of GODWIT_PAGE_BYTES; host is where it is mapped here (for NUMA placement, and to know which
 * pages have no memory yet, so that none is made for them). It must be NULL while pages are still to come there
 * by userfaultfd, for one that has not come is then sent as zeros; and what is mapped there stays until the block
 * is removed. name is for people; with the stock stream it is QEMU's, of 1 to 255 bytes, and goes on the wire.
 * Only when drained (-EBUSY else). The base is laid out anew at the next queue call, keeping what it knows.
 *
 * An auto base (base_bytes = 0) takes at most an eighth of guest RAM and at most a quarter of what
 * the host or the cgroup has left; where that is too little it becomes coarser or is off, and says so.
 */
GODWIT_API int godwit_source_add_block(struct godwit_source *source, uint32_t id, const char *name,
				       const void *host, uint64_t bytes, struct godwit_error *error);

/* [S] The block is gone (unplugged) or has a new size: what was known of it is forgotten. -EBUSY unless
 * drained, -ENOENT for an unknown id. */
GODWIT_API int godwit_source_remove_block(struct godwit_source *source, uint32_t id,
					  struct godwit_error *error);

enum godwit_queue {
	GODWIT_QUEUE_OK = 0,		/* taken */
	GODWIT_QUEUE_COLLECT = 1,	/* not taken: frames wait; collect, write, release, ask again */
	GODWIT_QUEUE_BUSY = 2,		/* not taken: the caller sends this page as it is; counted as busy and its
					 * base forgotten, so nothing else is owed */
};

/*
 * [S] Queue page number `page` of block `id`, whose bytes are at host. The page is not read here: a
 * worker reads it once, later, until the drain; it may change meanwhile.
 * Returns enum godwit_queue or -errno (-ENOENT block, -ERANGE page, -EIO when a worker failed; error
 * says which).
 */
GODWIT_API int godwit_source_queue(struct godwit_source *source, uint32_t id, uint64_t page,
				   const void *host, struct godwit_error *error);

/*
 * [S] Frames that are finished, oldest first, as at most iovs pieces. Without force nothing is given
 * until there are GODWIT_COLLECT_BYTES of them or queue said COLLECT: small writes cost more CPU than
 * any delta. The bytes stay valid until release. Returns the number of pieces filled, 0 for none.
 * A second collect without release gives 0.
 */
#define GODWIT_COLLECT_BYTES (32u << 10)
GODWIT_API int godwit_source_collect(struct godwit_source *source, int force, struct iovec *iov, int iovs);

/* [S] The collected pieces were written (or thrown away): their buffers go back to the workers. */
GODWIT_API void godwit_source_release(struct godwit_source *source);

/*
 * [S] For the last wait_ns the caller neither queued nor wrote, because its share of the link was used
 * up (a bandwidth limit kept outside of the writes). Counts as time that the link was busy: without it,
 * rung auto takes a capped link for a fast one. Taken into account at the next release.
 */
GODWIT_API void godwit_source_held_back(struct godwit_source *source, uint64_t wait_ns);

/*
 * [S] Send out what is queued. COLLECT as long as there are frames to write; OK once nothing is queued,
 * nothing is in flight and all was collected and released. The last piece is a drain frame (not with the
 * stock stream) by which the destination knows that it has seen every frame before it.
 */
GODWIT_API int godwit_source_drain(struct godwit_source *source, struct godwit_error *error);

/* [S] A new pass over the dirty bitmap begins, the first one included; drained first (-EBUSY else). */
GODWIT_API int godwit_source_round(struct godwit_source *source);

/*
 * [S] Pages [first, first + pages) of a block were or will be sent past the engine, or were discarded:
 * the base forgets them. Any page that is in flight must be drained first.
 */
GODWIT_API int godwit_source_forget(struct godwit_source *source, uint32_t id, uint64_t first,
				    uint64_t pages);

/*
 * [any] Is a page of which nothing is known remembered as it goes out? It is, until this says 0: for a guest
 * that writes next to nothing, as to remember a page takes memory and time, and pays when it is sent again.
 * One that was not goes whole then. What is known stays known, and true. From a worker's next batch on.
 */
GODWIT_API void godwit_source_remember_new(struct godwit_source *source, int on);

/*
 * [any] New parameters. -EINVAL or -E2BIG with the reason, and nothing changed, if one is wrong.
 */
GODWIT_API int godwit_source_set_params(struct godwit_source *source, const struct godwit_params *params,
					struct godwit_error *error);

/* [any] Totals, and the current round (round = 0), or the one before it (round = 1). stats->size in. */
GODWIT_API int godwit_source_stats(const struct godwit_source *source, struct godwit_stats *stats);
GODWIT_API int godwit_source_round_stats(const struct godwit_source *source, unsigned round,
					 struct godwit_stats *stats);

/*
 * [any] What it would take to send `pages` dirty pages now: bytes on the wire, and time that all workers
 * together need to encode them. The rest of the switchover test is the caller's:
 * max(wire_bytes / bandwidth, encode_ns) against the downtime limit. 0 pages take 0 of both.
 *
 * Pages are taken to be like the dearest of the last three rounds and of this one so far, and more, since
 * the last ones are the hottest: 3 %, or up to a quarter as these rounds differ or are not there yet.
 * A round of fewer than 256 pages says nothing. Until the second round begins, pages have never been sent,
 * and each counts as at least a page of wire, whatever those before it were: so begin a round with
 * godwit_source_round() before the first pass, and one whenever the dirty bitmap was read anew. encode_ns is
 * 0 while nothing has been encoded. Both streams alike. Takes a lock that only statistics take, and makes no
 * system call; cheap enough for every iteration, not for every page.
 */
struct godwit_prediction {
	uint64_t wire_bytes;
	uint64_t encode_ns;
};
GODWIT_API void godwit_source_predict(const struct godwit_source *source, uint64_t pages,
				      struct godwit_prediction *prediction_ret);

#ifdef __cplusplus
}
#endif
#endif
