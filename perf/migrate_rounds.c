/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_rounds.c - round after round, until the rest is small enough
 *
 * A round is one pass over the dirty bitmap. It goes through guest RAM in pieces of 64 MiB, and the
 * tracker is asked again for a piece just before it is sent: what was written since the round began
 * goes now and not once more in the next. After a round the rest is predicted in bytes of the wire
 * and in time to encode; when the longer of both fits the downtime limit, it is enough.
 *
 * In the steady state this thread allocates nothing and makes no system call but sendmsg(), the
 * tracker's ioctl, the pacing sleep and what the library needs to wake its workers.
 */
#include <errno.h>
#include <string.h>

#include "migrate_source.h"
#include "xbzrle/xbzrle.h"

#define PIECE_PAGES 16384u
#define IOVS 64
#define LOOK_PAGES 64u			/* ^C and the counters are looked after so often */
#define MANY_EMPTY 1000000u
#define BANDWIDTH_MIN_BYTES (1u << 20)

void source_show_remaining(struct source_run *run)
{
	/* Relaxed: for the progress line. */
	atomic_store_explicit(&run->now.remaining_pages, run->bitmap.set, memory_order_relaxed);
}

static void show_dirty_rate(struct source_run *run, double pages, uint64_t ns)
{
	atomic_store_explicit(&run->now.dirty_rate, (uint64_t)(pages / ((double)ns / 1e9)),
			      memory_order_relaxed);
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

static int send_page(struct source_run *run, uint64_t page, const void *host)
{
	const struct guest_block *block = guest_block_of(&run->guest, page);
	uint64_t number = page - block->first;
	struct godwit_error error = { "" };
	unsigned empty = 0;
	int got, err;

	if (run->options->raw)
		return link_send_page(&run->link, block->id, number, host, godwit_page_is_zero(host), run->failure);
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
		err = source_check_cancelled(run);
		if (err)
			return err;
	}
	return got < 0 ? fail(run->failure, "%s", error.text) : 0;
}

int source_scan(struct source_run *run, uint64_t first, uint64_t pages)
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
			source_show_remaining(run);
			source_follow_bandwidth(run);
			err = source_check_cancelled(run);
			if (!err && !is_last && now_ns() - run->start_ns > run->options->timeout_ns)
				err = give_up(run, "timed out");
			if (err)
				return err;
		}
	}
	return 0;
}

int source_send_round(struct source_run *run, bool is_last)
{
	struct round_record *record = &run->outcome->round[run->outcome->rounds++];
	uint64_t begin = now_ns(), raw = run->link.raw_pages, zero = run->link.zero_pages;

	*record = (struct round_record){ .is_last = is_last, .stats = GODWIT_STATS_INIT };
	atomic_store_explicit(&run->now.round, run->outcome->rounds, memory_order_relaxed);
	atomic_store_explicit(&run->now.round_pages, run->bitmap.set, memory_order_relaxed);
	source_apply_changes(run, run->outcome->rounds, 0);
	if (run->source && godwit_source_round(run->source))
		return fail(run->failure, "the engine was not drained at a round's end");
	for (uint64_t first = 0; first < run->guest.pages; first += PIECE_PAGES) {
		uint64_t left = run->guest.pages - first;
		uint64_t pages = left < PIECE_PAGES ? left : PIECE_PAGES;
		int err = 0;

		if (!is_last && !dirty_needs_pause(run->tracker))
			err = source_scan(run, first, pages);
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
	err = source_scan(run, 0, run->guest.pages);
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

int source_iterate(struct source_run *run)
{
	source_show_phase(run, PHASE_ITERATE);
	for (;;) {
		uint64_t begin = now_ns();
		struct round_record *record;
		int err;

		run->dirtied = 0;
		err = source_send_round(run, false);
		err = err ? err : scan_all(run);
		if (err)
			return err;
		record = &run->outcome->round[run->outcome->rounds - 1];
		record->dirty_after = run->bitmap.set;
		record->dirtied = run->dirtied;
		record->predicted_ns = predict_ns(run);
		source_show_remaining(run);
		show_dirty_rate(run, (double)run->dirtied, now_ns() - begin);
		print_round(run, record);
		if (record->predicted_ns <= atomic_load(&run->downtime_limit_ns))
			return 0;
		if (run->outcome->rounds >= run->options->max_rounds)
			return give_up(run, "gave up");
		err = source_check_cancelled(run);
		if (err)
			return err;
	}
}
